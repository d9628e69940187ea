"""Who runs when: one process per peer, and only one of them computing at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTLE = 0.1  # seconds; meanwhile the threads of the previous contender stop spinning
WARM_UP = 2  # runs before the first measured one

Record = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """One row of a table: what a peer does, how, and what it is called."""

    label: str
    peer: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    #: Rows with the same value must agree: the first is the reference. `None`: no check.
    check: str | None = None


@dataclass
class Task:
    """One comparison.

    Attributes:
        title: str. The heading in the report.
        contenders: list of `Contender`, with distinct labels.
        references: dict. Column heading → the label whose time divides the others', or a dict label → label.
        tokens: int or dict label → int. How many real tokens one repetition processes.
        flops: float. The matrix products of one repetition, `0` for no column.
        limits: dict. Labels of plain matrix products → their floating-point operations.
        fresh: bool. Every repetition runs in a new process: for peaks of memory and first calls.
        notes: list of str. Printed below the table.
    """

    title: str
    contenders: list[Contender]
    references: dict[str, str | dict[str, str]]
    tokens: int | dict[str, int] = 0
    flops: float = 0
    limits: dict[str, float] = field(default_factory=dict)
    fresh: bool = False
    notes: list[str] = field(default_factory=list)


class WorkerError(RuntimeError):
    """A peer's process failed."""


class Worker(subprocess.Popen):
    """A peer's process. Leaving its `with` block ends it.

    Args:
        peer: str. A module of `benchmarks/peers`.
        python: str. The interpreter that has the peer installed.
        work: Path. The folder with the inputs.
        threads: int. How many threads it may use.
    """

    def __init__(self, peer: str, python: str, work: Path, threads: int) -> None:
        self.peer = peer
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads)),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [python, "-m", "benchmarks.worker", peer, str(work), str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        super().__init__(command, cwd=ROOT, env=environment, **pipes)
        self.versions: dict[str, str] = self._answer()["versions"]

    def make(self, contender: Contender, warm_up: int = WARM_UP, output: Path | None = None) -> None:
        """Build a contender and run it `warm_up` times; write the last result to `output`."""
        options = {"method": contender.method, "options": contender.options, "warm_up": warm_up}
        self._ask(make=contender.label, output=output and str(output), **options)

    def measure(self, label: str) -> Record:
        """Run one repetition of what was made under this label; see `worker.measure`."""
        return self._ask(run=label)

    def _ask(self, **request) -> dict[str, Any]:
        print(json.dumps(request), file=self.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with {self.wait()}"}
        if "error" in answer:
            raise WorkerError(f"{self.peer}: {answer['error']}")
        return answer


def orders(labels: Sequence[str], rounds: int, seed: int = 0) -> list[list[str]]:
    """Return the contenders' order in every round: each once, shuffled anew.

    A fixed order would always give the same contender the warm cache, or the bad minute, of its predecessor.
    """
    generator = random.Random(seed)
    return [generator.sample(list(labels), len(labels)) for _ in range(rounds)]


def run_interleaved(
    task: Task, rounds: int, start: Callable[[str], Worker], check: Callable[[Contender, Path], None], work: Path
) -> dict[str, list[Record]]:
    """Build and check all contenders, then let each run once in every round.

    Args:
        task: Task. What is compared.
        rounds: int. How many repetitions of each contender.
        start: callable. Starts a peer's process.
        check: callable. Gets a contender and the file of its result; raises `ValueError` if it differs.
        work: Path. Where results are written for the check.

    Returns:
        dict label → one record per round: `seconds`, `cpu_seconds`, memory in bytes, and its place in the round.
    """
    contenders = {contender.label: contender for contender in task.contenders}
    records: dict[str, list[Record]] = {label: [] for label in contenders}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for contender in () if task.fresh else task.contenders:
            say(f"making {contender.label}")
            if contender.peer not in workers:
                workers[contender.peer] = stack.enter_context(start(contender.peer))
            output = work / "result.npz" if contender.check else None
            workers[contender.peer].make(contender, output=output)
            if output:
                check(contender, output)
        # The first round of fresh processes fills the disk's cache and is dropped.
        for number, order in enumerate(orders(list(contenders), rounds + task.fresh), 1 - task.fresh):
            say(f"round {number} of {rounds}")
            for place, label in enumerate(order):
                time.sleep(SETTLE)
                contender = contenders[label]
                record = run_fresh(contender, start) if task.fresh else workers[contender.peer].measure(label)
                if number:
                    records[label].append({**record, "round": number, "place": place})
    return records


def run_fresh(contender: Contender, start: Callable[[str], Worker]) -> Record:
    """Measure one repetition in a process of its own."""
    with start(contender.peer) as worker:
        worker.make(contender, warm_up=0)
        return worker.measure(contender.label)


def say(message: str) -> None:
    """Print what happens, with the time of day, to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
