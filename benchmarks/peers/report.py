"""From raw repetitions to tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from .common import MEBIBYTE, Ratio, markdown_table, processor, quantile, ratio_of_rounds
from .tasks import LIMITS, MATMUL

Records = Mapping[str, Sequence[Mapping[str, Any]]]


def machine() -> dict[str, Any]:
    """Return what the figures depend on, of this machine."""
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {"cpu": processor(), "cores": os.cpu_count(), "system": platform.platform(), "load_average_before": load}


def seconds(records: Records, label: str) -> list[float]:
    """Return the contender's times, round by round."""
    return [record["seconds"] for record in records[label]]


def tokens_of(work: Mapping[str, Any], label: str) -> float | None:
    """Return how many tokens one repetition of the contender goes through."""
    tokens = work.get("tokens")
    return tokens.get(label) if isinstance(tokens, Mapping) else tokens


def flops_per_token(config: Mapping[str, int], length: float, training: bool = False) -> float:
    """Return the floating point operations of the blocks' matrix products, for one token among `length`.

    Per block `2 (4 h² + 2 h i)` for the weights and `4 h · length` for the scores and their use; training counts
    three times that: forward, and backward to the inputs and to the weights.
    """
    width, inner = config["hidden_size"], config["intermediate_size"]
    forward = config["num_layers"] * (2 * (4 * width**2 + 2 * width * inner) + 4 * width * length)
    return forward * (3 if training else 1)


def shares_of_limit(records: Records, label: str, flops: float) -> Ratio | None:
    """Return which share of the matrix product's speed, measured in the same rounds, the contender reached."""
    limits = [one for one in LIMITS if one in records]
    if not limits or label in LIMITS:
        return None
    ratios = [
        flops / own / (2 * MATMUL**3 / min(others))
        for own, *others in zip(seconds(records, label), *(seconds(records, one) for one in limits), strict=True)
    ]
    return Ratio(quantile(ratios, 0.5), quantile(ratios, 0.1), quantile(ratios, 0.9))


def task_table(task: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return one task's table: medians, tokens per second, time as a multiple of ours."""
    records, work = task["records"], task["work"]
    if work.get("memory"):
        return _memory_table(task)
    references = [label for label in task["references"] if label in records]
    header = ["contender", "s", "CPU s", "tokens/s", "share of matrix product's speed"]
    header += [f"time ÷ {label}" for label in references]
    pairs = work.get("pairs") or {}  # where every row has a reference of its own
    header += ["time ÷ ours, mean, of the same shape"] if pairs else []
    rows = []
    for label in records:
        times = seconds(records, label)
        median = quantile(times, 0.5)
        tokens = None if label in LIMITS else tokens_of(work, label)
        share = None
        if tokens:
            length = work.get("length", facts["attended"])
            one = flops_per_token(facts["config"], length, training=work.get("training", False))
            share = shares_of_limit(records, label, tokens * one)
        row = [label, f"{median:.4f}", _cpu(records[label]), f"{tokens / median:,.0f}" if tokens else ""]
        row.append(f"{share.median:.2f}" if share else "")
        row += ["" if label in LIMITS else str(ratio_of_rounds(times, seconds(records, one))) for one in references]
        if pairs:
            row.append(ratio_of_rounds(times, seconds(records, pairs[label])))
        if label in LIMITS:
            row[3] = f"{2 * MATMUL**3 / median / 1e9:,.0f} GFLOP/s"
        rows.append(row)
    # Columns that say nothing of this task are left out.
    filled = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return markdown_table([header[i] for i in filled], [[row[i] for i in filled] for row in rows])


def _disturbance(task: Mapping[str, Any]) -> str:
    """Say how much of the machine other processes took meanwhile: where it is much, the ratios mean little.

    Libraries whose threads wait for each other by spinning (PyTorch, ONNX Runtime) suffer most from it.
    """
    shares = [one["others"] for repetitions in task["records"].values() for one in repetitions if one.get("others")]
    if not shares:
        return ""
    middle, high = (quantile(shares, share) for share in (0.5, 0.9))
    return f" Meanwhile other processes took {middle:.0%} of the machine (median; 90 %: {high:.0%})."


def _cpu(repetitions: Sequence[Mapping[str, Any]]) -> str:
    times = [one["cpu_seconds"] for one in repetitions if "cpu_seconds" in one]
    return f"{quantile(times, 0.5):.4f}" if times else ""


def _memory_table(task: Mapping[str, Any]) -> str:
    rows = []
    for label, repetitions in task["records"].items():
        peak = quantile([record["peak"] for record in repetitions], 0.5)
        above = quantile([record["peak"] - record["held"] for record in repetitions], 0.5)
        rows.append([label, f"{peak / MEBIBYTE:,.0f}", f"{above / MEBIBYTE:,.0f}"])
    return markdown_table(["contender", "peak, MiB", "of it after the imports, MiB"], rows)


def promises_table(tasks: Mapping[str, Any]) -> str:
    """Return what was promised beside what was measured."""
    rows = []
    for name, task in tasks.items():
        records = task["records"]
        for own, peer, least in task["promises"]:
            if own in records and peer in records:
                ratio = ratio_of_rounds(seconds(records, peer), seconds(records, own))
                rows.append(
                    [f"{name}: {own} beside {peer}", f"{least:.2f}", ratio, "yes" if ratio.median >= least else "no"]
                )
    return markdown_table(["times as fast", "wanted", "measured (10 % … 90 %)", "reached"], rows) if rows else ""


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the whole report."""
    machine, facts = results["machine"], results["facts"]
    tokens = sum(facts["tokens"])
    lines = [
        f"# {results['name']}",
        "",
        f"`{results['command']}`",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {results['threads']} threads for everyone; {machine['system']}; "
        f"load before: {machine['load_average_before']}. {results['date']}.",
        "",
        f"{facts['texts']} texts of {facts['data']}, {tokens} tokens with [CLS] and [SEP] "
        f"(mean {tokens / facts['texts']:.1f}), batches of {facts['batch_size']}, float32, MiniLM-L6. One process a "
        "library, one of them computing at any moment, the order shuffled in every round. Ratios are medians over the "
        "rounds' own ratios, with 10 % and 90 %: greater than 1 is slower than ours. Results were compared before "
        "anything was timed.",
        "",
    ]
    for environment, versions in sorted(results["versions"].items()):
        lines.append(f"* {environment}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    lines += [f"* {note}" for note in results["notes"]]
    lines += [f"* **the task {name} failed**: {why}" for name, why in results.get("failures", {}).items()]
    promises = promises_table(results["tasks"])
    if promises:
        lines += ["", "## What was promised", "", promises]
    for task in results["tasks"].values():
        lines += [
            "",
            f"## {task['title']}",
            "",
            f"{task['rounds']} rounds.{_disturbance(task)}",
            "",
            task_table(task, facts),
            "",
        ]
        lines += [f"{note}\n" for note in task["notes"]]
    return "\n".join(lines).rstrip() + "\n"
