"""Make edits, have them judged in a process of its own, and count: refused, equal, invalid, wrong, stuck.

python -m tests.fuzz.runner --edits 500 --seed 0 --families albert --log edits.txt
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.common import RECORDED, ROOT
from tests.fuzz import families, file_edits, graph_edits


class Judge:
    """A process that judges folders (`judge.py`), and is started again when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def __call__(self, folder: Path) -> dict:
        """Return the verdict on a folder; `stuck` where the process dies of it."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.judge"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
            )
        self._process.stdin.write(f"{folder}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if answer:
            return json.loads(answer)
        code = self._process.wait()
        self._stop()
        return {"verdict": "stuck", "why": f"the process that read it ended with {code}"}

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Report:
    """What came of the edits.

    Attributes:
        counts: verdict → number.
        kinds: the kinds of edit that were tried.
        bad: a line for everything that must not be.
    """

    BAD = ("wrong", "stuck", "broken")

    def __init__(self) -> None:
        self.counts: collections.Counter = collections.Counter()
        self.kinds: set[str] = set()
        self.bad: list[str] = []

    def add(self, family: str, seed: int, kind: str, answer: dict) -> None:
        """Count one edit."""
        self.counts[answer["verdict"]] += 1
        self.kinds.add(kind)
        if answer["verdict"] in self.BAD:
            self.bad.append(f"{family}, seed {seed}, {kind}: {answer['verdict']}, {answer['why']}")

    def __str__(self) -> str:
        counts = ", ".join(
            f"{self.counts[verdict]} {verdict}" for verdict in ("refused", "equal", "invalid", *self.BAD)
        )
        return "\n".join([f"{self.counts.total()} edits of {len(self.kinds)} kinds: {counts}", *self.bad])


def edited(cases: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, int, str, Path]]:
    """Yield family, seed, kind of edit and what to read; it is there until the next is asked for."""
    originals = {}
    with tempfile.TemporaryDirectory() as scratch:
        for level, family, seed in cases:
            kept, folder = Path(scratch) / family, Path(scratch) / "edited"
            if family not in originals:
                originals[family] = families.copy(family, kept)
                (kept / "saved_model.pb").write_bytes(originals[family].SerializeToString())
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(kept, folder)
            if level == "files":
                kind, path = file_edits.edit(folder, seed)
                yield family, seed, kind, path
                continue
            proto = type(originals[family])()
            proto.CopyFrom(originals[family])
            kind = graph_edits.edit(proto.meta_graphs[0], seed)
            (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
            yield family, seed, kind, folder


def run(cases: Iterable[tuple[str, str, int]], watch: Callable = lambda *_: None) -> Report:
    """Judge all edits.

    Args:
        cases: `graph` or `files`, family, seed.
        watch: is called with every family, seed, kind and answer.
    """
    report = Report()
    with Judge() as judge:
        for family, seed, kind, folder in edited(cases):
            answer = judge(folder)
            report.add(family, seed, kind, answer)
            watch(family, seed, kind, answer)
    return report


def main() -> None:
    """Run from the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=("graph", "files"), default="graph")
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=list(RECORDED), choices=RECORDED)
    parser.add_argument("--log", default="/dev/null", help="write a line for every edit here")
    arguments = parser.parse_args()
    names, seeds = arguments.families, range(arguments.seed, arguments.seed + arguments.edits)
    cases = [(arguments.level, names[seed % len(names)], seed) for seed in seeds]
    with open(arguments.log, "w", encoding="utf-8") as log:
        print(run(cases, lambda *line: print(*line, file=log, flush=True)))


if __name__ == "__main__":
    main()
