"""A `PoolingComparison` as text, as HTML and as a figure."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.evaluation.cross_validation import BASELINE
from keras_bert_trend.inspection.drawing import new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_bert_trend.evaluation.comparison import PoolingComparison

_BEST = "#0072b2"  # seen by the colour-blind too (Okabe and Ito)
_CLASSES_SHOWN = 8


def to_text(comparison: PoolingComparison) -> str:
    """Return a table for a terminal: a line for each pooling, best first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *rows = _table(comparison)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    # Wide enough for any name, and without colours whatever the environment says: this is a str, not a screen.
    console = Console(file=io.StringIO(), width=10_000, color_system=None, force_terminal=False, force_jupyter=False)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join([*_head(comparison), "", *lines, "", *_foot(comparison)])


def to_html(comparison: PoolingComparison) -> str:
    """Return a table for a notebook."""
    escape = html.escape
    header, *rows = _table(comparison)
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    for name, *cells in rows:
        mark = f' style="color: {_BEST}"' if name == comparison.best else ""
        lines.append(f"<th{mark}>{escape(name)}</th>" + "".join(f"<td{mark}>{cell}</td>" for cell in cells))
    head = "".join(f"<p>{escape(line)}</p>" for line in _head(comparison))
    foot = "".join(f"<p>{escape(line)}</p>" for line in _foot(comparison))
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return f"<div>{head}<table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table>{foot}</div>"


def _table(comparison: PoolingComparison) -> list[list[str]]:
    """Return the header and a row for each pooling."""
    rows = [["pooling", "width", comparison.metric, "±", "accuracy", "p vs best"]]
    for name in comparison.scores:
        rows.append(
            [
                name,
                str(comparison.widths[name] or "–"),
                f"{comparison.means[name]:.3f}",
                f"{comparison.spreads[name]:.3f}",
                f"{np.mean(comparison.accuracies[name]):.3f}",
                _p(comparison, name),
            ]
        )
    return rows


def _p(comparison: PoolingComparison, name: str) -> str:
    p = comparison.p_values[name]
    if p is None:
        return "best"
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _score_name(comparison: PoolingComparison) -> str:
    return comparison.metric if comparison.positive is None else f"{comparison.metric} of {comparison.positive!r}"


def _head(comparison: PoolingComparison) -> list[str]:
    counts = sorted(comparison.class_counts.items(), key=lambda item: -item[1])
    classes = ", ".join(f"{name} {count:,}" for name, count in counts[:_CLASSES_SHOWN])
    more = f" and {len(counts) - _CLASSES_SHOWN} more" if len(counts) > _CLASSES_SHOWN else ""
    cuts = f"{comparison.folds} folds" + (f", cut {comparison.repeats} times" if comparison.repeats > 1 else "")
    return [
        f"{comparison.texts:,} texts in {comparison.groups:,} groups; {len(counts)} classes: {classes}{more}",
        f"{_score_name(comparison)} of a logistic regression on each pooling's embeddings, mean ± standard deviation "
        f"over {cuts}",
    ]


def _foot(comparison: PoolingComparison) -> list[str]:
    return [
        "p: corrected resampled t-test against the best. With few folds it is weak: a large p does not say equal.",
        *comparison.notes,
    ]


def to_figure(comparison: PoolingComparison) -> Figure:
    """Draw the scores; see `PoolingComparison.plot`."""
    names = [name for name in comparison.scores if name != BASELINE]
    figure = new_figure(8.5, 0.36 * len(names) + 1.7)
    axes = figure.add_subplot()
    _draw_scores(axes, comparison, names)
    baseline = _draw_baseline(axes, comparison)
    # Names may be the user's: "$" is no formula.
    axes.set_yticks(range(len(names)), [shortened(name, 40) for name in names], parse_math=False)
    axes.get_yticklabels()[names.index(comparison.best)].set_color(_BEST)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    folds = comparison.folds * comparison.repeats
    axes.set_xlabel(
        f"{shortened(_score_name(comparison), 40)}: {folds} folds, mean ± standard deviation\n"
        f"{BASELINE}: {comparison.means[BASELINE]:.3f}, {baseline}",
        parse_math=False,
    )
    return figure


def _draw_scores(axes: Axes, comparison: PoolingComparison, names: list[str]) -> None:
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": "medium"}
    axes.text(1.02, -0.9, "mean   p vs best", **beside)
    for y, name in enumerate(names):
        colour = _BEST if name == comparison.best else "black"
        mean, spread, scores = comparison.means[name], comparison.spreads[name], comparison.scores[name]
        axes.errorbar(mean, y, xerr=spread, fmt="D", color=colour, markersize=5, capsize=3)
        below = np.full(len(scores), y + 0.25)
        axes.plot(scores, below, "o", color=colour, alpha=0.4, markersize=3.5, markeredgewidth=0)
        axes.text(1.02, y, f"{mean:.3f}  {_p(comparison, name)}", color=colour, **beside)


def _draw_baseline(axes: Axes, comparison: PoolingComparison) -> str:
    """Draw the baseline where it does not squeeze the poolings into a corner, and say where it is."""
    low, high = axes.get_xlim()
    baseline = comparison.means[BASELINE]
    if baseline < low - 0.2 * (high - low):
        return "to the left of what is drawn"
    axes.axvline(baseline, color="black", linestyle="--", linewidth=0.8)
    return "the dashed line"
