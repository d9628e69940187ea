"""An `Explanation` as text, as HTML and as a figure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.inspection.drawing import aligned, display_width, new_figure, one_line, shortened, with_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_bert_trend.inspection.batch import Word
    from keras_bert_trend.inspection.explanation import Explanation

_ROWS_SHOWN = 16  # more rows than this are summed up: a table must fit a terminal
_MOVES_SHOWN = 5
_ANCHOR, _RELATED = "#d55e00", "#0072b2"  # told apart by the colour-blind too (Okabe and Ito)
_READINGS = {
    "published": "the heads of the first block",
    "layers": "the blocks, each the mean of its heads",
    "all": "all heads of all blocks",
}
_EDGES = {
    "one_candidate": "One candidate: its trend alone is the embedding.",
    "only_punctuation": "No word, only punctuation, which takes the place of words.",
    "empty": "Nothing to choose from: the embedding is the zero vector.",
}


def to_text(explanation: Explanation) -> str:
    """Return a table for a terminal: a line for each candidate, a column for each row of attention."""
    lines = [one_line(explanation.text), ""]
    if explanation.candidates:
        lines += [f"Attention received in {_READINGS[explanation.reading]} (reading={explanation.reading!r})", ""]
        lines += [*_table_lines(explanation), "", *_choice_lines(explanation)]
    return "\n".join([*lines, *_embedding_lines(explanation), *_notes(explanation)])


def _table_lines(explanation: Explanation) -> list[str]:
    shown = range(len(explanation.rows)) if len(explanation.rows) <= _ROWS_SHOWN else [len(explanation.rows) - 1]
    names = [explanation.row_names[row].replace("block ", "b").replace("head ", "h") for row in shown]
    lines = [[explanation.unit, *(f"{name} " for name in names), "leads", "votes", ""]]
    leads = np.bincount(explanation.leaders, minlength=len(explanation.candidates))
    for i, word in enumerate(explanation.candidates):
        cells = [f"{explanation.rows[row, i]:.2f}{_mark(explanation, row, i)}" for row in shown]
        lines.append([word.text, *cells, str(leads[i]), str(explanation.votes[i]), _role(explanation, word)])
    return [*aligned(lines, left=(0, -1)), "", _legend(explanation)]


def _legend(explanation: Explanation) -> str:
    return f"* most attention in this {_row_noun(explanation)}   + second to the anchor, where the anchor has most"


def _row_noun(explanation: Explanation) -> str:
    return "block" if explanation.reading == "layers" else "head"


def _mark(explanation: Explanation, row: int, candidate: int) -> str:
    """Return what is special about a cell of the table: the leader of its row, or the runner-up that has a vote."""
    if explanation.leaders[row] == candidate:
        return "*"
    voting = explanation.leaders[row] == explanation.leaders[-1]
    return "+" if voting and explanation.runners_up[row] == candidate else " "


def _role(explanation: Explanation, word: Word) -> str:
    return "anchor" if word == explanation.anchor else "related word" if word == explanation.related else ""


def _choice_lines(explanation: Explanation) -> list[str]:
    anchor, related = explanation.anchor, explanation.related
    lines = [f"anchor        {anchor.text!r}{_place(anchor)}: most attention in {explanation.row_names[-1]}, the last"]
    if related is not None:
        votes = explanation.votes[explanation.candidates.index(related)]
        led = int(np.sum(explanation.leaders == explanation.leaders[-1]))
        where = f"{votes} of the {led} {_row_noun(explanation)}s that the anchor leads"
        lines.append(f"related word  {related.text!r}{_place(related)}: second in {where}")
    for word, trend in ((anchor, explanation.anchor_trend), (related, explanation.related_trend)):
        if word is not None:
            moves = "  ".join(f"[{i}] {trend[i]:+.2f}" for i in _largest(trend, _MOVES_SHOWN))
            lines.append(f"trend         {word.text!r} moves most in {moves}")
    return lines


def _place(word: Word) -> str:
    where = "" if word.span is None else f", characters {word.span[0]} to {word.span[1]}"
    return f" (token {word.positions[0]}{where})"


def _embedding_lines(explanation: Explanation) -> list[str]:
    if not explanation.candidates:
        return []
    size, nonzero = explanation.embedding.size, np.count_nonzero(explanation.embedding)
    made_of = "the trends' sum" if explanation.related is not None else "the anchor's trend"
    if explanation.aggregation == "attention":
        made_of = f"the mean of all trends, weighted by {explanation.row_names[-1]}"
    return [f"embedding     {size} dimensions, {nonzero} of them not zero: {made_of}"]


def _notes(explanation: Explanation) -> list[str]:
    notes = [_EDGES[explanation.edge]] if explanation.edge else []
    if explanation.truncated:
        notes.append(f"The text is too long for the layer: its last {explanation.truncated} tokens were cut off.")
    return notes


def to_html(explanation: Explanation) -> str:
    """Return a table for a notebook: a line for each row of attention, as the article prints it."""
    escape = html.escape
    parts = [f"<p><b>{escape(one_line(explanation.text))}</b></p>"]
    if explanation.candidates:
        where = f"Attention received in {_READINGS[explanation.reading]}"
        legend = _legend(explanation).replace("   ", "&emsp;")  # HTML makes one space of many
        parts.append(f'<p>{where} (reading "{explanation.reading}")</p>{_html_table(explanation)}<p>{legend}</p>')
        lines = [*_choice_lines(explanation), *_embedding_lines(explanation)]
        parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")
    parts += [f"<p>{escape(note)}</p>" for note in _notes(explanation)]
    return "<div>" + "".join(parts) + "</div>"


def _html_table(explanation: Explanation) -> str:
    head = "".join(
        f"<th{_html_colour(explanation, word)}>{html.escape(word.text)}</th>" for word in explanation.candidates
    )
    highest = max(float(explanation.rows.max()), 1e-9)
    lines = []
    for row, (name, values) in enumerate(zip(explanation.row_names, explanation.rows, strict=True)):
        cells = "".join(
            f'<td style="background: rgba(128, 128, 128, {0.6 * value / highest:.2f})">'
            f"{value:.2f}{_mark(explanation, row, i)}</td>"
            for i, value in enumerate(values)
        )
        lines.append(f"<tr><th>{name}</th>{cells}</tr>")
    votes = "".join(f"<td>{vote}</td>" for vote in explanation.votes)
    return (
        '<div style="overflow: auto; max-height: 40em"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}<tr><th>votes</th>{votes}</tr></tbody>"
        "</table></div>"
    )


def _html_colour(explanation: Explanation, word: Word) -> str:
    colour = {"anchor": _ANCHOR, "related word": _RELATED}.get(_role(explanation, word))
    return f' style="color: {colour}" title="{_role(explanation, word)}"' if colour else ""


def to_figure(explanation: Explanation, top: int) -> Figure:
    """Draw the heat map, the votes below it, and the trends beside them; see `Explanation.plot`."""
    if not isinstance(top, int) or top < 1:
        raise ValueError(f"`top` must be a positive integer, got {top!r}.")

    rows, words = explanation.rows.shape
    map_width, map_height = np.clip(0.45 * words, 2.6, 14.0), np.clip(0.26 * rows, 2.2, 9.0)
    figure = new_figure(map_width + 5.4, map_height + 3.0 if words else 1.5)
    # `parse_math=False` wherever a text is the user's: "$" is no formula.
    figure.suptitle(shortened(one_line(explanation.text), int(9 * (map_width + 5))), parse_math=False)
    if not words:
        figure.text(0.5, 0.35, _EDGES["empty"], ha="center", va="center")
        return with_fonts(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[map_width + 1.2, 3.2], height_ratios=[map_height, 1.2])
    heat = figure.add_subplot(grid[0, 0])
    _draw_rows(heat, explanation)
    _draw_votes(figure.add_subplot(grid[1, 0], sharex=heat), explanation)
    _draw_trends(figure, grid[:, 1], explanation, top)
    return with_fonts(figure)


def _draw_rows(axes: Axes, explanation: Explanation) -> None:
    from matplotlib.patches import Rectangle

    rows = len(explanation.rows)
    image = axes.imshow(explanation.rows, cmap="Greys", vmin=0, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="attention received", pad=0.02, fraction=0.04, aspect=25)
    axes.plot(explanation.leaders, range(rows), "o", color="white", markeredgecolor="black", markersize=4)
    for word, colour in ((explanation.anchor, _ANCHOR), (explanation.related, _RELATED)):
        if word is not None:
            left = explanation.candidates.index(word) - 0.5
            axes.add_patch(Rectangle((left, -0.5), 1, rows, fill=False, edgecolor=colour, linewidth=2.5, clip_on=False))
    step = -(-rows // 24)  # labels of a long map would lie over each other
    axes.set_yticks(range(0, rows, step), explanation.row_names[::step])
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.set_title(f"{_READINGS[explanation.reading]}\n○ the leader of a row", fontsize="medium", loc="left")


def _draw_votes(axes: Axes, explanation: Explanation) -> None:
    words = explanation.candidates
    colours = [{"anchor": _ANCHOR, "related word": _RELATED}.get(_role(explanation, word), "grey") for word in words]
    axes.bar(range(len(words)), explanation.votes, color=colours)
    axes.set_ylim(0, max(1, explanation.votes.max()) * 1.1)
    if explanation.related is None:
        axes.text(0.5, 0.5, "no other candidate: no votes", transform=axes.transAxes, ha="center", va="center")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("votes")
    labels = [shortened(word.text, 18) for word in words]
    axes.set_xticks(range(len(words)), labels, parse_math=False)
    upright = len(words) > 1 and max(map(display_width, labels)) > 5
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set(rotation=90 if upright else 0, color="black" if colour == "grey" else colour)


def _draw_trends(figure: Figure, place, explanation: Explanation, top: int) -> None:
    shown = [("anchor", explanation.anchor, explanation.anchor_trend, _ANCHOR)]
    if explanation.related is not None:
        shown.append(("related word", explanation.related, explanation.related_trend, _RELATED))
    grid = place.subgridspec(len(shown), 1)
    for i, (role, word, trend, colour) in enumerate(shown):
        axes = figure.add_subplot(grid[i, 0])
        largest = _largest(trend, top)
        axes.barh(range(len(largest)), trend[largest], color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(largest)), [str(dimension) for dimension in largest])
        axes.invert_yaxis()
        axes.set_ylabel("dimension")
        axes.set_title(f"{role}: {shortened(word.text, 24)}", color=colour, fontsize="medium", parse_math=False)
    axes.set_xlabel(f"trend ({explanation.measure})")


def _largest(trend: np.ndarray, count: int) -> np.ndarray:
    """Return the dimensions in which a trend is largest in magnitude, the largest first."""
    return np.argsort(-np.abs(trend.astype("float64")), kind="stable")[:count]
