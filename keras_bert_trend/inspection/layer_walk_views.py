"""A `LayerWalk` as text, as HTML and as a figure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.inspection.drawing import aligned, new_figure, one_line, shortened, with_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_bert_trend.inspection.layer_walk import LayerWalk

_COLUMNS = 12  # more steps than this go into another table below: a line must fit a terminal
_LABELS = 60  # more labels than this would lie over each other
_MEASURES = {
    "steps": "Length of the step from layer to layer",
    "cosines": "Cosine of the states before and after the step",
    "cosines_to_start": "Cosine of each layer's state with the static embedding, layer 0",
}


def to_text(walk: LayerWalk) -> str:
    """Return a table for each measure: a line for each word, a column for each step."""
    lines = [one_line(walk.text)]
    if walk.words:
        for measure, title in _MEASURES.items():
            lines += ["", title]
            for first in range(0, len(walk.steps), _COLUMNS):
                lines += ["", *aligned(_cells(walk, measure, slice(first, first + _COLUMNS)))]
    return "\n".join([*lines, *(f"\n{note}" for note in _notes(walk))])


def to_html(walk: LayerWalk) -> str:
    """Return a table for each measure, for a notebook."""
    parts = [f"<p><b>{html.escape(one_line(walk.text))}</b></p>"]
    for measure, title in _MEASURES.items() if walk.words else ():
        head, *lines = _cells(walk, measure, slice(None))
        columns = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(word)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for word, *cells in lines
        )
        parts.append(
            f'<div style="overflow: auto; max-height: 30em"><table><caption>{title}</caption>'
            f"<thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return "<div>" + "".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in _notes(walk))]) + "</div>"


def _cells(walk: LayerWalk, measure: str, columns: slice) -> list[list[str]]:
    values = getattr(walk, measure)[columns]
    lines = [[walk.unit, *_names(walk, measure)[columns]]]
    return lines + [[word.text, *(f"{value:.2f}" for value in values[:, i])] for i, word in enumerate(walk.words)]


def _names(walk: LayerWalk, measure: str) -> list[str]:
    """Return what the columns are: layers that are compared with layer 0, else steps."""
    layers = range(1, len(walk.steps) + 1)
    return [str(layer) if measure == "cosines_to_start" else f"{layer - 1}→{layer}" for layer in layers]


def _notes(walk: LayerWalk) -> list[str]:
    notes = [] if walk.words else ['No word here: unit="token" shows every token.']
    if walk.truncated:
        notes.append(f"The text is too long for the layer: its last {walk.truncated} tokens were cut off.")
    return notes


def to_figure(walk: LayerWalk) -> Figure:
    """Draw the measures side by side; see `LayerWalk.plot`."""
    layers, words = walk.steps.shape
    width, height = np.clip(0.42 * layers, 2.4, 8.0), np.clip(0.27 * words, 1.0, 14.0)
    figure = new_figure(3 * width + 3.4, height + 1.6)
    figure.suptitle(shortened(one_line(walk.text), int(9 * (3 * width + 3))), parse_math=False)
    if not words:
        figure.text(0.5, 0.35, _notes(walk)[0], ha="center", va="center")
        return with_fonts(figure)
    lowest = min(0.0, float(walk.cosines.min()), float(walk.cosines_to_start.min()))
    columns = figure.subplots(1, 3, sharey=True)
    titles = ("length of the step", "cosine with the layer before", "cosine with layer 0")
    for axes, measure, title in zip(columns, _MEASURES, titles, strict=True):
        ends = {"vmin": 0} if measure == "steps" else {"vmin": lowest, "vmax": 1}
        colours = "Oranges" if measure == "steps" else "Blues"
        image = axes.imshow(getattr(walk, measure).T, cmap=colours, aspect="auto", **ends)
        figure.colorbar(image, ax=axes, pad=0.02, fraction=0.06, aspect=20)
        axes.set_title(title, fontsize="medium")
        every = -(-layers // 14)
        axes.set_xticks(range(0, layers, every), range(1, layers + 1, every))
        axes.set_xlabel("layer")
    for axes in columns[1:]:
        axes.tick_params(axis="y", left=False)
    labels, step = [shortened(word.text, 24) for word in walk.words], -(-words // _LABELS)
    columns[0].set_yticks(range(0, words, step), labels[::step], parse_math=False)
    return with_fonts(figure)
