"""Who runs when: one process a contender, and only one of them computing at any moment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
SETTLE = 0.1  # seconds; the threads of the one that ran last stop spinning meanwhile


class Contender(NamedTuple):
    """One row of a table: what an adapter does, how, and what it is called."""

    label: str
    adapter: str
    method: str
    options: dict[str, Any]
    #: Rows whose results must agree have the same value: the group's first is the reference. `None`: no check.
    check: str | None = None
    #: The process ends after each repetition, so that its peak of memory is that of this contender alone.
    fresh: bool = False


class WorkerError(RuntimeError):
    """A contender's process failed."""


class Worker:
    """A contender's process, and the pipe to it."""

    def __init__(self, adapter: str, python: str, work: Path, threads: int) -> None:
        self.adapter = adapter
        self.log = work / f"{adapter}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [python, str(HERE / "worker.py"), adapter, str(work), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        hello = self._answer()
        self.versions: dict[str, str] = hello["versions"]
        self.held: int | None = hello["held"]

    def ask(self, do: str, **request) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: it failed there; the message is its traceback.
        """
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            tail = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-20:])
            raise WorkerError(f"{self.adapter} ended with {self.process.returncode}; its log {self.log} ends:\n{tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.adapter}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Workers:
    """The processes of a run, one an adapter, started when first needed."""

    def __init__(self, pythons: dict[str, str], work: Path, threads: int) -> None:
        self.pythons, self.work, self.threads = pythons, work, threads
        self.open: dict[str, Worker] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def start(self, adapter: str) -> Worker:
        """Start a process that the caller closes."""
        worker = Worker(adapter, self.pythons[adapter], self.work, self.threads)
        self.versions[adapter] = worker.versions
        return worker

    def get(self, adapter: str) -> Worker:
        """Return the adapter's process."""
        if adapter not in self.open:
            self.open[adapter] = self.start(adapter)
        return self.open[adapter]

    def close(self) -> None:
        """End all processes."""
        while self.open:
            self.open.popitem()[1].close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def orders(labels: Sequence[str], rounds: int, seed: int = 0) -> list[list[str]]:
    """Return for every round the order in which the contenders take their turn: each once, shuffled anew.

    Always the same order would always give the same one the warm cache, or the bad minute, of its predecessor.
    """
    generator = random.Random(seed)
    return [generator.sample(list(labels), len(labels)) for _ in range(rounds)]


def run_interleaved(
    workers: Workers,
    contenders: Sequence[Contender],
    rounds: int,
    check: Callable[[Contender, Path], None],
    say: Callable[[str], None],
    warm_up: int = 2,
) -> dict[str, list[dict[str, Any]]]:
    """Build and check all contenders, then let each run once in every round.

    Args:
        workers: their processes.
        contenders: who takes part; labels are distinct.
        rounds: how many repetitions of each.
        check: called with the file of each contender's result; raises where it is not what it should be.
        say: told what happens.
        warm_up: runs before the first measured one; those of `fresh` contenders have none.

    Returns:
        label → a record for every round, in the rounds' order: `seconds`, `cpu_seconds`, memory in bytes, and its
        place in the round.
    """
    by_label = {contender.label: contender for contender in contenders}
    if len(by_label) != len(contenders):
        raise ValueError("Two contenders have the same label.")
    for number, contender in enumerate(contenders):
        if not contender.fresh:
            say(f"making {contender.label}")
            _make(workers.get(contender.adapter), contender, warm_up, workers.work / f"result_{number}.npz", check)
    records: dict[str, list[dict[str, Any]]] = {label: [] for label in by_label}
    for number, order in enumerate(orders(list(by_label), rounds)):
        say(f"round {number + 1} of {rounds}")
        for place, label in enumerate(order):
            contender = by_label[label]
            time.sleep(SETTLE)
            if contender.fresh:
                output = workers.work / "result_fresh.npz"
                record = _run_fresh(workers, contender, output, check)
            else:
                record = workers.get(contender.adapter).ask("run", key=label)
            records[label].append({**record, "round": number, "place": place})
    for label, contender in by_label.items():
        if not contender.fresh:
            workers.get(contender.adapter).ask("drop", key=label)
    return records


def _make(worker: Worker, contender: Contender, warm_up: int, output: Path, check) -> None:
    request = {"key": contender.label, "task": contender.method, "options": contender.options, "warm_up": warm_up}
    checked = contender.check is not None and warm_up > 0
    worker.ask("make", output=str(output) if checked else None, **request)
    if checked:
        check(contender, output)
        output.unlink()


def _run_fresh(workers: Workers, contender: Contender, output: Path, check) -> dict[str, Any]:
    worker = workers.start(contender.adapter)
    try:
        _make(worker, contender, 0, output, check)
        return {**worker.ask("run", key=contender.label), "held": worker.held}
    finally:
        worker.close()
