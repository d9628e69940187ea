"""What all benchmarks share: the texts, the machine's description, ratios of interleaved times."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = (ROOT.parent / "shared" / "data" / "sms_spam.tsv", ROOT / "examples" / "data" / "sms_sample.tsv")
MEBIBYTE = 2**20


class Ratio(NamedTuple):
    """The median of the rounds' ratios, and where 10 % and 90 % of them lie."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} … {self.high:.2f})"


def default_data() -> Path:
    """Return the SMS Spam Collection where it is there, else the examples' sample of it."""
    return next(path for path in DATA if path.is_file())


def read_texts(path: Path, count: int, ascii_only: bool = False) -> list[str]:
    """Return `count` messages in the file's order, from all over it: the last column of every line but the first."""
    texts = [line.split("\t")[-1] for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    texts = [text for text in texts if text.isascii()] if ascii_only else texts
    texts = texts[:: max(len(texts) // count, 1)]
    return (texts * (count // len(texts) + 1))[:count]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, linear in between (NumPy's default)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def ratio_of_rounds(times: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Divide round by round, then take the median: what slows a whole round down cancels out.

    Raises:
        ValueError: not as many rounds of the one as of the other, or none.
    """
    if len(times) != len(reference) or not times:
        raise ValueError(f"`times` and `reference` must be as many rounds, got {len(times)} and {len(reference)}.")
    ratios = [one / other for one, other in zip(times, reference, strict=True)]
    return Ratio(quantile(ratios, 0.5), quantile(ratios, 0.1), quantile(ratios, 0.9))


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, ruler, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_file(path: Path, text: str) -> None:
    """Write a file that is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON, as `write_file` does."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
