"""What importing a BERT-base costs: `BertEncoder.from_handle` beside `hub.load`, of one and the same SavedModel.

    python benchmarks/import_speed.py             # writes 110 million random weights to a temporary folder

Every import runs in a process of its own, the two in turn. Time and memory are counted from after Python's imports of
TensorFlow, Keras, TensorFlow Hub and the package: what those take is in neither. Memory is the peak of resident memory
(`ru_maxrss`) less what the process held when the import began. Absolute times mean nothing on a shared machine: look at
the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers.common import MEBIBYTE, ROOT, processor, write_json
from peers.process import peak_bytes, resident_bytes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

BASE = {"num_layers": 12, "hidden": 768, "heads": 12, "inner": 3072, "vocab_size": 30522, "max_positions": 512}
WAYS = ("from_handle", "hub.load")


def main() -> None:
    """Write the model, import it both ways in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="import this SavedModel instead of the one that is written")
    parser.add_argument("--json", type=Path, help="also write the raw numbers here")
    parser.add_argument("--write", metavar="FOLDER", help=argparse.SUPPRESS)  # what the processes of their own do
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write)
    elif arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run all rounds. TensorFlow is never in this process: its memory would count as its children's."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder
        if folder is None:
            folder = os.path.join(scratch, "bert")
            in_own_process("--write", folder)
        results = measure_in_turn(folder, arguments.rounds)
        files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    report(results, files)
    if arguments.json:
        write_json(arguments.json, results)


def measure_in_turn(folder: str, rounds: int) -> dict[str, list[dict]]:
    """Import the SavedModel both ways in turn, each in a process of its own; return way → a record a round."""
    results: dict[str, list[dict]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            result = json.loads(in_own_process("--measure", way, folder).splitlines()[-1])
            if number:  # the first round fills the disk's cache
                results[way].append(result)
    return results


def in_own_process(*arguments: str) -> str:
    """Run this file again with other arguments, and return what it printed."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write(folder: str) -> None:
    """Write the BERT-base that is imported."""
    sys.path.insert(0, str(ROOT))
    from tests.raw_bert import write_raw_bert

    write_raw_bert(folder, **BASE)


def measure(way: str, folder: str) -> dict:
    """Import the model once and return what that took."""
    sys.path.insert(0, str(ROOT))  # this checkout's package, whichever is installed
    import keras
    import tensorflow as tf
    import tensorflow_hub as hub

    import keras_bert_trend

    load = {"from_handle": keras_bert_trend.BertEncoder.from_handle, "hub.load": hub.load}[way]
    tf.constant(0.0)  # TensorFlow sets up its devices with the first tensor
    held = resident_bytes()
    start = time.perf_counter()
    model = load(folder)
    seconds = time.perf_counter() - start
    versions = {
        "keras_bert_trend": keras_bert_trend.__version__,
        "tensorflow": tf.__version__,
        "tensorflow_hub": hub.__version__,
        "keras": keras.__version__,
    }
    kept = resident_bytes() - held
    del model
    return {"seconds": seconds, "peak": peak_bytes() - held, "kept": kept, "held_before": held, "versions": versions}


def report(results: dict[str, list[dict]], files: int) -> None:
    """Print versions, machine and table."""
    ours = results[WAYS[0]]
    print(", ".join(f"{name} {version}" for name, version in ours[0]["versions"].items()))
    print(f"Python {platform.python_version()}, {processor()}, {os.cpu_count()} cores")
    print(f"{len(ours)} rounds, each import in a fresh process; a SavedModel of {files / MEBIBYTE:.0f} MiB")
    print("Python's own imports are not in the figures; memory is above what was held when the import began.\n")
    print(f"| | {WAYS[0]} | {WAYS[1]} | ratio of medians | ratios of the rounds |\n|---|---|---|---|---|")
    for title, key, unit in (
        ("wall time", "seconds", 1),
        ("peak memory", "peak", MEBIBYTE),
        ("memory kept", "kept", MEBIBYTE),
    ):
        columns = [[result[key] / unit for result in results[way]] for way in WAYS]
        medians = [statistics.median(column) for column in columns]
        ratios = [one / other for one, other in zip(*columns, strict=True)]
        cells = [
            f"{statistics.median(c):.{2 if unit == 1 else 0}f} ({min(c):.{2 if unit == 1 else 0}f} … "
            f"{max(c):.{2 if unit == 1 else 0}f}) {'s' if unit == 1 else 'MiB'}"
            for c in columns
        ]
        ratio = f"**{medians[0] / medians[1]:.2f}**"
        print(f"| {title} | {' | '.join(cells)} | {ratio} | {min(ratios):.2f} … {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
