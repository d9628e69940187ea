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
from typing import Any, NamedTuple

import numpy as np

MEBIBYTE = 2**20


class Ratio(NamedTuple):
    """The median of the rounds' ratios, and the 10 % and 90 % quantiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} … {self.high:.2f})"


def ratio_of_rounds(times: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Divide round by round, then take the median: what slows down a whole round cancels out.

    Raises:
        ValueError: The numbers of rounds differ.
    """
    if len(times) != len(reference):
        raise ValueError(f"`times` and `reference` must have equally many rounds, got {len(times)}, {len(reference)}.")
    return Ratio(*map(float, np.quantile(np.divide(times, reference), (0.5, 0.1, 0.9))))


def flops_of(config: Mapping[str, int], lengths: Sequence[int], training: bool = False) -> int:
    """Return the floating-point operations of the blocks' matrix products, for texts of these lengths.

    For a text of `T` tokens, hidden size `h` and intermediate size `i`, one block takes `2 T (4 h² + 2 h i)` for the
    weights and `4 h T²` for the scores and their use. Training takes three times that: forward, backward to the
    inputs, backward to the weights.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_layers"]
    forward = sum(2 * T * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * T**2 for T in lengths)
    return layers * forward * (3 if training else 1)


def machine() -> dict[str, Any]:
    """Return what the figures depend on, of this machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(": ")[2].strip() for line in file if line.startswith("model name")), "unknown CPU")
    load = [round(value, 2) for value in os.getloadavg()]
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "load_average_before": load}


def new_results(name: str) -> dict[str, Any]:
    """Return the results of a run that begins: command, time and machine."""
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
    machine = results["machine"]
    lines = [
        f"# {results['name']}\n\n`{results['command']}`\n",
        f"{machine['cpu']}, {machine['cores']} cores; {machine['system']}; load before: "
        f"{machine['load_average_before']}. {results['date']}. Ratios are medians over the rounds' own ratios, with "
        "10 % and 90 %; a ratio above 1 is slower than what it is divided by.\n",
    ]
    for name, versions in sorted(results["versions"].items()):
        lines.append(f"* {name}: " + ", ".join(f"{library} {version}" for library, version in versions.items()))
    lines += [f"* {note}" for note in results["notes"]]
    for task in results["tasks"].values():
        lines += [f"\n## {task['title']}\n\n{_rounds(task)}\n", task_table(task), *(f"\n{x}" for x in task["notes"])]
    return "\n".join(lines) + "\n"


def task_table(task: Mapping[str, Any]) -> str:
    """Return a task's table. Each row has the cells that its records fill."""
    records, limits, rows = task["records"], task["limits"], []
    for label in records:
        seconds = column(task, label, "seconds")
        row = {"contender": label, "s": f"{np.median(seconds):.4f}"}
        if cpu_seconds := column(task, label, "cpu_seconds"):
            row["CPU s"] = f"{np.median(cpu_seconds):.4f}"
        if label in limits:
            row["tokens/s"] = f"{limits[label] / np.median(seconds) / 1e9:,.0f} GFLOP/s"
            rows.append(row)
            continue
        tokens = task["tokens"].get(label) if isinstance(task["tokens"], Mapping) else task["tokens"]
        if tokens:
            row["tokens/s"] = f"{tokens / np.median(seconds):,.0f}"
        if task["flops"] and any(limit in records for limit in limits):
            row["share of matrix product's speed"] = f"{np.median(shares_of_limit(task, label)):.2f}"
        if task["fresh"]:
            row["peak, MiB"] = f"{np.median(column(task, label, 'peak')) / MEBIBYTE:,.0f}"
            row["peak above the imports"] = f"{np.median(above_imports(task, label, 'peak')) / MEBIBYTE:,.0f}"
            row["kept above the imports"] = f"{np.median(above_imports(task, label, 'kept')) / MEBIBYTE:,.0f}"
        for heading, reference in task["references"].items():
            reference = reference if isinstance(reference, str) else reference[label]
            if reference in records:
                row[f"time ÷ {heading}"] = ratio_of_rounds(seconds, column(task, reference, "seconds"))
                if task["fresh"]:
                    row[f"peak ÷ {heading}"] = ratio_of_rounds(
                        above_imports(task, label, "peak"), above_imports(task, reference, "peak")
                    )
        rows.append(row)
    header = list(dict.fromkeys(name for row in rows for name in row))
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([row.get(name, "") for name in header] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def column(task: Mapping[str, Any], label: str, name: str) -> list[float]:
    """Return a contender's numbers of one kind, round by round."""
    return [record[name] for record in task["records"][label] if name in record]


def above_imports(task: Mapping[str, Any], label: str, name: str) -> np.ndarray:
    """Return a contender's memory in bytes less what its process held after importing its libraries."""
    return np.subtract(column(task, label, name), column(task, label, "held"))


def shares_of_limit(task: Mapping[str, Any], label: str) -> np.ndarray:
    """Return the contender's speed as a share of the fastest plain matrix product's in the same round."""
    limits = [flops / np.array(column(task, limit, "seconds")) for limit, flops in task["limits"].items()
              if limit in task["records"]]  # fmt: skip
    return task["flops"] / np.array(column(task, label, "seconds")) / np.max(limits, axis=0)


def _rounds(task: Mapping[str, Any]) -> str:
    """Return how many rounds ran, and how much of the machine other processes took: if much, ratios mean little.

    Libraries whose threads wait for each other by spinning (PyTorch, ONNX Runtime) suffer most from it.
    """
    others = [share for label in task["records"] for share in column(task, label, "others")]
    text = f"{max(map(len, task['records'].values()))} rounds."
    if others:
        median, high = np.quantile(others, (0.5, 0.9))
        text += f" Meanwhile other processes took {median:.0%} of the machine (median; 90 %: {high:.0%})."
    return text
