"""What the results of `explain`, `attention` and the like share to show themselves: aligned tables, figures, JSON."""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.inspection.batch import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# For what DejaVu Sans, matplotlib's own font, does not have: Chinese, Japanese, Korean, Hindi, Thai, emoji.
_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Hiragino Sans",
    "Yu Gothic",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Noto Sans CJK KR",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Arial Unicode MS",
)


def to_json(value):
    """Return arrays, words and tuples of them as JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Word):
        return {"text": value.text, "span": to_json(value.span), "positions": list(value.positions)}
    return [to_json(element) for element in value] if isinstance(value, tuple) else value


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, without `pyplot` and its global state; a notebook shows it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib (the extra `plot`): pip install matplotlib") from error

    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    # A notebook draws the figures of `pyplot`, or all of them after `%matplotlib inline`; of others it prints the size.
    figure._repr_png_ = functools.partial(_to_png, figure)
    return figure


def _to_png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def with_fonts(figure: Figure) -> Figure:
    """Let a figure's texts use further fonts that are installed, where matplotlib's own lacks a character."""
    from matplotlib import font_manager, rcParams
    from matplotlib.text import Text

    installed = set(font_manager.fontManager.get_font_names())
    families = [*rcParams["font.family"], *(name for name in _FALLBACK_FONTS if name in installed)]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    return figure


def aligned(lines: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Return table lines as text: the columns `left` begin under each other, all others end so."""
    count = len(lines[0])
    widths = [max(display_width(line[column]) for line in lines) for column in range(count)]
    left = {column % count for column in left}
    result = []
    for line in lines:
        cells = []
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            space = " " * (width - display_width(cell))
            cells.append(cell + space if column in left else space + cell)
        result.append("  ".join(cells).rstrip())
    return result


def one_line(text: str) -> str:
    """Return a text as a heading: without line breaks, cut where it is long."""
    return shortened(" ".join(text.split()), 200) or "(empty text)"


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)
