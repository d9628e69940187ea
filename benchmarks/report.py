"""From raw repetitions to tables."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def ratio_of_rounds(times: Sequence[float], reference: Sequence[float]) -> np.ndarray:
    """Divide round by round: what slows down a whole round cancels out. Return median, 10 % and 90 % quantile.

    Raises:
        ValueError: The numbers of rounds differ.
    """
    return np.quantile([one / other for one, other in zip(times, reference, strict=True)], (0.5, 0.1, 0.9))


def flops_of(config: Mapping[str, int], lengths: Sequence[int], training: bool = False) -> int:
    """Return the floating-point operations of the blocks' matrix products, for texts of these lengths.

    For a text of `T` tokens, hidden size `h` and intermediate size `i`, one block takes `2 T (4 h² + 2 h i)` for the
    weights and `4 h T²` for the scores and their use. Training takes three times that: forward, backward to the
    inputs, backward to the weights.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_layers"]
    forward = sum(2 * T * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * T**2 for T in lengths)
    return layers * forward * (3 if training else 1)


def machine() -> str:
    """Return what figures depend on, of this machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(": ")[2].strip() for line in file if line.startswith("model name")), "unknown CPU")
    return f"{cpu}, {os.cpu_count()} cores; {platform.platform()}; load before: {os.getloadavg()[0]:.2f}"


def new_results(name: str) -> dict[str, Any]:
    """Return the results of a run that begins."""
    command = shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])
    results = {"name": name, "command": command, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    return {**results, "versions": {}, "notes": [], "tasks": {}}


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write `NAME.json`, every repetition, and `NAME.md`, the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{results['name']}.json").write_text(raw, encoding="utf-8")
    (folder / f"{results['name']}.md").write_text(as_markdown(results), encoding="utf-8")


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the whole report."""
    lines = [f"# {results['name']}\n\n`{results['command']}`\n\n{results['machine']}. {results['date']}.\n"]
    for name, versions in sorted(results["versions"].items()):
        lines.append(f"* {name}: " + ", ".join(f"{library} {version}" for library, version in versions.items()))
    lines += [f"* {note}" for note in results["notes"]]
    for task in results["tasks"].values():
        # Libraries whose threads wait for each other by spinning (PyTorch, ONNX Runtime) suffer most from others.
        others = [share for label in task["records"] for share in column(task, label, "others")]
        quiet = "others took {:.0%} of the machine (median; 90 %: {:.0%})".format(*np.quantile(others, (0.5, 0.9)))
        lines += [
            f"\n## {task['title']}\n",
            f"Medians over {len(others) // len(task['records'])} rounds; {quiet}. Ratios: median (10 % … 90 %).\n",
            task_table(task),
            *(f"\n{note}" for note in task["notes"]),
        ]
    return "\n".join(lines) + "\n"


def task_table(task: Mapping[str, Any]) -> str:
    """Return a task's table: each row has the cells that its records fill."""
    rows = []
    for label in task["records"]:
        seconds = column(task, label, "seconds")
        row = {"contender": label, "s": f"{np.median(seconds):.4f}"}
        row["CPU s"] = f"{np.median(column(task, label, 'cpu_seconds')):.4f}"
        rows.append(row)
        if label in task["limits"]:
            row["tokens/s"] = f"{task['limits'][label] / np.median(seconds) / 1e9:,.0f} GFLOP/s"
            continue
        tokens = task["tokens"][label] if isinstance(task["tokens"], Mapping) else task["tokens"]
        row["tokens/s"] = f"{tokens / np.median(seconds):,.0f}"
        if task["limits"].keys() & task["records"].keys():
            row["share of matrix product's speed"] = f"{np.median(shares_of_limit(task, label)):.2f}"
        if task["fresh"]:
            row["peak, MiB"] = f"{np.median(column(task, label, 'peak')) / 2**20:,.0f}"
            row["peak above the imports"] = f"{np.median(above_imports(task, label, 'peak')) / 2**20:,.0f}"
            row["kept above the imports"] = f"{np.median(above_imports(task, label, 'kept')) / 2**20:,.0f}"
        for heading, reference in task["references"].items():
            reference = reference if isinstance(reference, str) else reference[label]
            if reference in task["records"]:
                row[f"time ÷ {heading}"] = _ratio(seconds, column(task, reference, "seconds"))
                if task["fresh"]:
                    peaks = (above_imports(task, one, "peak") for one in (label, reference))
                    row[f"peak above ÷ {heading}"] = _ratio(*peaks)
    header = list(dict.fromkeys(name for row in rows for name in row))
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([row.get(name, "") for name in header] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def column(task: Mapping[str, Any], label: str, name: str) -> list[float]:
    """Return a contender's numbers of one kind, round by round."""
    return [record[name] for record in task["records"][label]]


def above_imports(task: Mapping[str, Any], label: str, name: str) -> np.ndarray:
    """Return a contender's memory in bytes less what its process held after importing its libraries."""
    return np.subtract(column(task, label, name), column(task, label, "held"))


def shares_of_limit(task: Mapping[str, Any], label: str) -> np.ndarray:
    """Return the contender's speed as a share of the fastest plain matrix product's in the same round."""
    products = [one for one in task["limits"] if one in task["records"]]
    speeds = [task["limits"][one] / np.array(column(task, one, "seconds")) for one in products]
    return task["flops"] / np.array(column(task, label, "seconds")) / np.max(speeds, axis=0)


def _ratio(times: Sequence[float], reference: Sequence[float]) -> str:
    return "{:.2f} ({:.2f} … {:.2f})".format(*ratio_of_rounds(times, reference))
