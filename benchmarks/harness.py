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


@dataclass(frozen=True)
class Contender:
    """One row of a table: what a peer does (a method of its adapter, with options), and what it is called."""

    label: str
    peer: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    #: Rows with the same value must agree: the first is the reference. `None`: no check.
    check: str | None = None


@dataclass
class Task:
    """One comparison."""

    title: str
    contenders: list[Contender]
    #: Column heading → the label whose time divides the others', or a dict label → label.
    references: dict[str, str | dict[str, str]]
    #: How many real tokens one repetition processes, by label where it differs.
    tokens: int | dict[str, int] = 0
    #: The floating-point operations of one repetition's matrix products.
    flops: int = 0
    #: Labels of plain matrix products → their floating-point operations.
    limits: dict[str, int] = field(default_factory=dict)
    #: Whether every repetition runs in a new process: for peaks of memory and first calls.
    fresh: bool = False
    #: Printed below the table.
    notes: list[str] = field(default_factory=list)


class WorkerError(RuntimeError):
    """A peer's process failed."""


class Worker(subprocess.Popen):
    """A peer's process (`worker.py`) with the interpreter that has it installed. Leaving its `with` block ends it."""

    def __init__(self, peer: str, python: str, work: Path, threads: int) -> None:
        self.peer = peer
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [python, "-m", "benchmarks.worker", peer, str(work), str(threads)]
        super().__init__(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions: dict[str, str] = self._answer()["versions"]

    def make(self, contender: Contender, warm_up: int = 2, output: Path | None = None) -> None:
        """Build a contender and run it `warm_up` times; write the last result to `output`."""
        options = {"method": contender.method, "options": contender.options, "warm_up": warm_up}
        self._ask(make=contender.label, output=output and str(output), **options)

    def measure(self, label: str) -> dict[str, float]:
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
) -> dict[str, list[dict[str, float]]]:
    """Build and check all contenders, then let each run once in every round.

    Args:
        task: Task. What is compared.
        rounds: int. How many repetitions of each contender.
        start: callable. Starts a peer's process.
        check: callable. Gets a contender and the file of its result; raises `ValueError` if it differs.
        work: Path. Where results are written for the check.

    Returns:
        dict label → one record per round: what `worker.measure` returns, and the place in the round.
    """
    contenders = {contender.label: contender for contender in task.contenders}
    records: dict[str, list[dict[str, float]]] = {label: [] for label in contenders}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for label, contender in {} if task.fresh else contenders.items():
            say(f"making {label}")
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
                if task.fresh:
                    with start(contender.peer) as worker:
                        worker.make(contender, warm_up=0)
                        record = worker.measure(label)
                else:
                    record = workers[contender.peer].measure(label)
                if number:
                    records[label].append({**record, "round": number, "place": place})
    return records


def say(message: str) -> None:
    """Print what happens, with the time of day, to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
