"""The task `import`: MiniLM's SavedModel read by ours and by `hub.load`, each time in a fresh process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from .common import ROOT


def run(work: Path, rounds: int, say: Callable[[str], None]) -> dict:
    """Measure, by `benchmarks/import_speed.py`, and return the task's results in the shape of all others'."""
    sys.path.append(str(ROOT / "benchmarks"))
    import import_speed

    folder = work / ("encoder_official" if (work / "encoder_official").is_dir() else "encoder")
    say(f"import: {rounds} rounds")
    results = import_speed.measure_in_turn(str(folder), rounds)
    labels = {"from_handle": "ours, from_handle", "hub.load": "hub.load"}
    return {
        "title": "Import of a SavedModel",
        "rounds": rounds,
        "contenders": {label: {"way": way} for way, label in labels.items()},
        "references": [labels["from_handle"]],
        "promises": [],
        "work": {},
        "differences": {},
        "notes": [f"Memory and a BERT of 110 million parameters: `benchmarks/import_speed.py`. {folder.name}."],
        "records": {
            label: [{**record, "round": number} for number, record in enumerate(results[way])]
            for way, label in labels.items()
        },
    }
