"""The results' file, and the tables that are made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import data
from benchmarks.quality.probe import holm
from benchmarks.report import new_results
from keras_bert_trend.evaluation.cross_validation import corrected_resampled_t_test

NAME = "quality"
REFERENCE = "last_four_sum"
METRICS = {"sms": "F1", "trec": "accuracy", "sst2": "accuracy", "qa": "MAP", "stsb": "Spearman"}


class Results:
    """Results by part, encoder and data set, written to `quality.json` and `quality.md` whenever one is stored."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        path = folder / f"{NAME}.json"
        self.all: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not self.all:
            about = new_results(NAME)
            command = re.sub(r" --(work|output) \S+", "", command)  # where files stay changes no result
            self.all = {"command": command, "date": about["date"], "machine": about["machine"], "parts": {}}

    def get(self, *keys: str) -> Any:
        """Return what is stored under these keys, or `None`."""
        found: Any = self.all["parts"]
        for key in keys:
            found = (found or {}).get(key)
        return found

    def store(self, value: Any, *keys: str) -> None:
        """Store a value under these keys, and write the files."""
        place = self.all["parts"]
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.all, indent=1, ensure_ascii=False)
        (self.folder / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
        (self.folder / f"{NAME}.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Return all tables."""
        parts = self.all["parts"]
        lines = [f"# Quality\n\n`{self.all['command']}`\n\n{self.all['machine']}. {self.all['date']}."]
        for encoder, sets in parts.get("frozen", {}).items():
            lines += ["", f"## {encoder}, frozen", "", *_frozen_table(sets)]
        for part, title in (("projection", "frozen, a head trained"), ("fine_tuning", "fine-tuned")):
            for encoder, sets in parts.get(part, {}).items():
                lines += ["", f"## {encoder}, {title}", "", *_seeds_table(sets)]
        if "syntax" in parts:
            lines += ["", "## Related words and syntax", "", *_syntax_table(parts["syntax"])]
        return "\n".join(lines) + "\n"


def _frozen_table(sets: Mapping[str, Mapping]) -> list[str]:
    """Return the scores; of all rows but the reference the difference from it, its interval, and Holm's p if < 0.05."""
    names = [name for name in data.NAMES if name in sets]
    widths = {label: width for name in names for label, width in sets[name]["widths"].items()}
    tests = {
        (name, label): corrected_resampled_t_test(np.subtract(scores, sets[name]["scores"][REFERENCE]), 1 / 4)
        for name in names
        for label, scores in sets[name]["scores"].items()
        if label != REFERENCE
    }
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    rows = [["embedding", "width", *(f"{data.NAMES[name]}, {METRICS[name]}" for name in names)]]
    for label, width in widths.items():
        row = [label, str(width)]
        for name in names:
            if label not in sets[name]["scores"]:
                row.append("")
                continue
            mean = np.mean(sets[name]["scores"][label])
            cell = f"{mean:.3f}"
            if label != REFERENCE:
                difference, low, high = tests[name, label][:3]
                star = "\\*" if adjusted[name, label] < 0.05 else ""
                cell += f" ({difference:+.3f}{star}, {low:+.3f} … {high:+.3f})"
            row.append(cell)
        rows.append(row)
    return [*_table(rows), "", f"In brackets: the difference from {REFERENCE}, its 95 % interval, \\* p < 0.05 (Holm)."]


def _seeds_table(sets: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    """Return mean and range over the seeds."""
    labels = list(next(iter(sets.values())))
    rows = [["embedding", *(f"{data.NAMES[name]}, {METRICS[name]}" for name in sets)]]
    for label in labels:
        found = [scores[label] for scores in sets.values()]
        rows.append([label, *(f"{np.mean(one):.3f} ({min(one):.3f} … {max(one):.3f})" for one in found)])
    return _table(rows)


def _syntax_table(found: Mapping[str, Any]) -> list[str]:
    rows = [["encoder", "pairs", "joined by an arc", "anchor is the root or its verb", "pairs"]]
    for encoder, readings in found.items():
        for label, one in readings.items():
            root = "" if one["root"] is None else f"{one['root']:.1%}"
            rows.append([encoder, label, f"{one['arc']:.1%}", root, f"{one['pairs']:,}"])
    lines = _table(rows)
    for encoder, readings in found.items():
        for label, one in readings.items():
            if one["relations"]:
                shares = (f"{name} {count / one['pairs']:.1%}" for name, count in one["relations"].items())
                lines += ["", f"{encoder}, {label}: joined by {', '.join(shares)}."]
    return lines


def _table(rows: list[list[str]]) -> list[str]:
    header, *others = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *others]
    return ["| " + " | ".join(line) + " |" for line in lines]
