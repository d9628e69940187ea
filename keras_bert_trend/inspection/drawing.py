"""What results are shown with: aligned tables, JSON, and the figures, drawn from arrays and strings.

Every figure is a `matplotlib.figure.Figure` made without `pyplot` and its global state. Texts may be the user's, so a
"$" must not begin a formula: `parse_math=False`.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

#: The colours of the chosen words, which the colour-blind can tell apart (Okabe and Ito).
ROLE_COLOURS = {"anchor": "#d55e00", "related word": "#0072b2"}
#: The colour of the best pooling, from the same palette.
BEST_COLOUR = "#0072b2"

_HEAD_COLOURS = "Blues"  # light to dark in one hue: readable without colour too
_HEAD_NUMBERS = 12  # with more tokens than this, numbers do not fit into the cells
_HEAD_LABELS = 64  # more labels than this would overlap
_WALK_LABELS = 60
_ROW_LABELS = 24
_LETTER = 0.09  # width in inches

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


# Text


def to_json(value: Any) -> Any:
    """Return arrays, named tuples and tuples of them as JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        named = hasattr(value, "_asdict")
        return to_json(value._asdict()) if named else [to_json(element) for element in value]
    return {name: to_json(each) for name, each in value.items()} if isinstance(value, dict) else value


def aligned(lines: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Return the lines of a table: the columns `left` are left-aligned, the others right-aligned."""
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
    """Return a text as a heading: without line breaks, and cut after 200 characters."""
    return shortened(" ".join(text.split()), 200) or "(empty text)"


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def head_name(layer: int, head: int | None, layers: int, heads: int) -> str:
    """Return the heading of one attention head, counted from 1, or of the mean over a layer's heads."""
    which = f"mean of {heads} heads" if head is None else f"head {head} of {heads}"
    return f"layer {layer} of {layers}, {which}"


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the elements of largest magnitude, the largest first."""
    return np.argsort(-np.abs(values.astype("float64")), kind="stable")[:count]


# Figures


def _new_figure(width: float, height: float, heading: str | None = None, letters: float = 0) -> Figure:
    """Return an empty figure, which a notebook shows.

    Args:
        width: float. In inches.
        height: float. In inches.
        heading: str or `None`. The title.
        letters: float. The room for the title, in characters.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib (the extra `plot`): pip install matplotlib") from error

    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    # A notebook draws the figures of `pyplot`, or all of them after `%matplotlib inline`; of others it prints the size.
    figure._repr_png_ = functools.partial(_to_png, figure)
    if heading is not None:
        figure.suptitle(shortened(one_line(heading), int(letters)), parse_math=False)
    return figure


def _to_png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _with_fonts(figure: Figure) -> Figure:
    """Let a figure's texts fall back on other installed fonts where matplotlib's own lacks a character."""
    from matplotlib import font_manager, rcParams
    from matplotlib.text import Text

    installed = set(font_manager.fontManager.get_font_names())
    families = [*rcParams["font.family"], *(name for name in _FALLBACK_FONTS if name in installed)]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    return figure


def draw_explanation(
    heading: str,
    title: str,
    words: Sequence[str],
    rows: np.ndarray,
    row_names: Sequence[str],
    leaders: np.ndarray,
    votes: np.ndarray,
    chosen: Mapping[str, tuple[int, np.ndarray]],
    trend_label: str,
    top: int,
    nothing: str,
) -> Figure:
    """Draw the attention that words received, the votes below it, and trends beside both.

    Args:
        heading: str. The text.
        title: str. What the rows are.
        words: sequence of str. The candidates.
        rows: float array `(rows, candidates)`. The attention received.
        row_names: sequence of str.
        leaders: int array `(rows,)`. The candidate with most attention in each row.
        votes: int array `(candidates,)`.
        chosen: dict. Role ("anchor", "related word") → candidate and trend, float array `(hidden,)`.
        trend_label: str. The label of the trends' axis.
        top: int. The number of elements of each trend, those of largest magnitude.
        nothing: str. What to say without candidates.
    """
    count_rows, count_words = rows.shape
    map_width, map_height = np.clip(0.45 * count_words, 2.6, 14.0), np.clip(0.26 * count_rows, 2.2, 9.0)
    height = map_height + 3.0 if count_words else 1.5
    figure = _new_figure(map_width + 5.4, height, heading, 9 * (map_width + 5))
    if not count_words:
        figure.text(0.5, 0.35, nothing, ha="center", va="center")
        return _with_fonts(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[map_width + 1.2, 3.2], height_ratios=[map_height, 1.2])
    heat = figure.add_subplot(grid[0, 0])
    _draw_rows(heat, rows, row_names, leaders, chosen)
    heat.set_title(f"{title}\n○ the leader of a row", fontsize="medium", loc="left")
    _draw_votes(figure.add_subplot(grid[1, 0], sharex=heat), words, votes, chosen)
    _draw_trends(figure, grid[:, 1], words, chosen, trend_label, top)
    return _with_fonts(figure)


def _draw_rows(axes: Axes, rows, row_names, leaders, chosen) -> None:
    from matplotlib.patches import Rectangle

    count = len(rows)
    image = axes.imshow(rows, cmap="Greys", vmin=0, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="attention received", pad=0.02, fraction=0.04, aspect=25)
    axes.plot(leaders, range(count), "o", color="white", markeredgecolor="black", markersize=4)
    for role, (word, _) in chosen.items():
        frame = {"edgecolor": ROLE_COLOURS[role], "linewidth": 2.5, "fill": False, "clip_on": False}
        axes.add_patch(Rectangle((word - 0.5, -0.5), 1, count, **frame))
    step = -(-count // _ROW_LABELS)
    axes.set_yticks(range(0, count, step), row_names[::step])
    axes.tick_params(axis="x", bottom=False, labelbottom=False)


def _draw_votes(axes: Axes, words, votes, chosen) -> None:
    colours = ["grey"] * len(words)
    for role, (word, _) in chosen.items():
        colours[word] = ROLE_COLOURS[role]
    axes.bar(range(len(words)), votes, color=colours)
    axes.set_ylim(0, max(1, votes.max()) * 1.1)
    if "related word" not in chosen:
        axes.text(0.5, 0.5, "no other candidate: no votes", transform=axes.transAxes, ha="center", va="center")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("votes")
    labels = [shortened(word, 18) for word in words]
    axes.set_xticks(range(len(words)), labels, parse_math=False)
    upright = len(words) > 1 and max(map(display_width, labels)) > 5
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set(rotation=90 if upright else 0, color="black" if colour == "grey" else colour)


def _draw_trends(figure: Figure, place: SubplotSpec, words, chosen, trend_label, top) -> None:
    grid = place.subgridspec(len(chosen), 1)
    for i, (role, (word, trend)) in enumerate(chosen.items()):
        axes = figure.add_subplot(grid[i, 0])
        dimensions, colour = largest(trend, top), ROLE_COLOURS[role]
        axes.barh(range(len(dimensions)), trend[dimensions], color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(dimensions)), [str(dimension) for dimension in dimensions])
        axes.invert_yaxis()
        axes.set_ylabel("dimension")
        axes.set_title(f"{role}: {shortened(words[word], 24)}", color=colour, fontsize="medium", parse_math=False)
    axes.set_xlabel(trend_label)


def draw_head(heading: str, title: str, tokens: Sequence[str], matrix: np.ndarray, border: int | None) -> Figure:
    """Draw one attention head: a row for each token that attends, a column for each that is attended to.

    Args:
        heading: str. The text.
        title: str. Which head it is.
        tokens: sequence of str.
        matrix: float array `(tokens, tokens)`, `[query, key]`.
        border: int or `None`. Where a second text begins.
    """
    count = len(tokens)
    size = float(np.clip(0.29 * count, 2.8, 14.0))
    figure = _new_figure(size + 2.4, size + 1.8, heading, 10 * (size + 2))
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap=_HEAD_COLOURS, norm=_attention_scale(matrix.max()))
    _add_attention_bar(figure, image)
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="to", ylabel="from")
    labels = [shortened(token, 18) for token in tokens]
    step = -(-count // _HEAD_LABELS)
    axes.set_yticks(range(0, count, step), labels[::step], parse_math=False)
    axes.set_xticks(range(0, count, step), labels[::step], parse_math=False)
    if max(map(display_width, labels)) * _LETTER > size / count * step:
        axes.tick_params(axis="x", labelrotation=90)
    if count <= _HEAD_NUMBERS:
        for (query, key), value in np.ndenumerate(matrix):
            colour = "white" if image.norm(value) > 0.6 else "black"
            text = f"{value:.2f}".removeprefix("0")
            axes.text(key, query, text, ha="center", va="center", color=colour, fontsize="x-small")
    if border is not None:
        axes.axhline(border - 0.5, color="grey", linewidth=0.8)
        axes.axvline(border - 0.5, color="grey", linewidth=0.8)
    return _with_fonts(figure)


def draw_all_heads(heading: str, attention: np.ndarray) -> Figure:
    """Draw all attention heads small, a row for each layer and a column for each head, on one scale.

    Args:
        heading: str. The text.
        attention: float array `(layers, heads, tokens, tokens)`.
    """
    layers, heads = attention.shape[:2]
    width, height = np.clip(0.75 * heads, 3.0, 14.0), np.clip(0.75 * layers, 2.0, 16.0)
    figure = _new_figure(width + 1.6, height + 1.4, heading, 9 * (width + 1))
    from matplotlib.patches import Rectangle

    # All heads in one pair of axes: laying out hundreds of axes takes half a minute.
    axes, scale = figure.add_subplot(), _attention_scale(1)
    for layer in range(layers):
        for head in range(heads):
            sides = (head + 0.55, head + 1.45, layer + 1.45, layer + 0.55)
            image = axes.imshow(attention[layer, head], cmap=_HEAD_COLOURS, norm=scale, extent=sides, aspect="auto")
            frame = Rectangle((sides[0], sides[3]), 0.9, 0.9, fill=False, edgecolor="grey", linewidth=0.5)
            axes.add_patch(frame)
    axes.set(xlim=(0.5, heads + 0.5), ylim=(layers + 0.5, 0.5), xlabel="head", ylabel="layer")
    axes.set_xticks(range(1, heads + 1))
    axes.set_yticks(range(1, layers + 1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("In each square: lines look, columns are looked at", fontsize="medium")
    _add_attention_bar(figure, image)
    return _with_fonts(figure)


def _attention_scale(highest: float):
    """Return a scale that also shows small values: most heads give nearly all attention to [CLS] or [SEP]."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=highest)


def _add_attention_bar(figure: Figure, image) -> None:
    label = "attention (the colour follows its square root)"
    figure.colorbar(image, ax=image.axes, label=label, pad=0.02, fraction=0.04, aspect=25)


def draw_layer_walk(
    heading: str,
    words: Sequence[str],
    steps: np.ndarray,
    cosines: np.ndarray,
    cosines_to_start: np.ndarray,
    nothing: str,
) -> Figure:
    """Draw three measures of the steps between layers as heat maps: a row for each word, a column for each step.

    Args:
        heading: str. The text.
        words: sequence of str.
        steps: float array `(L, words)`.
        cosines: float array `(L, words)`.
        cosines_to_start: float array `(L, words)`.
        nothing: str. What to say without words.
    """
    layers, count = steps.shape
    width, height = np.clip(0.42 * layers, 2.4, 8.0), np.clip(0.27 * count, 1.0, 14.0)
    figure = _new_figure(3 * width + 3.4, height + 1.6, heading, 9 * (3 * width + 3))
    if not count:
        figure.text(0.5, 0.35, nothing, ha="center", va="center")
        return _with_fonts(figure)
    lowest = min(0.0, float(cosines.min()), float(cosines_to_start.min()))
    columns = figure.subplots(1, 3, sharey=True)
    cosine_scale = {"cmap": "Blues", "vmin": lowest, "vmax": 1}
    for axes, values, title, scale in zip(
        columns,
        (steps, cosines, cosines_to_start),
        ("length of the step", "cosine with the layer before", "cosine with layer 0"),
        ({"cmap": "Oranges", "vmin": 0}, cosine_scale, cosine_scale),
        strict=True,
    ):
        image = axes.imshow(values.T, aspect="auto", **scale)
        figure.colorbar(image, ax=axes, pad=0.02, fraction=0.06, aspect=20)
        axes.set_title(title, fontsize="medium")
        every = -(-layers // 14)
        axes.set_xticks(range(0, layers, every), range(1, layers + 1, every))
        axes.set_xlabel("layer")
    for axes in columns[1:]:
        axes.tick_params(axis="y", left=False)
    labels, step = [shortened(word, 24) for word in words], -(-count // _WALK_LABELS)
    columns[0].set_yticks(range(0, count, step), labels[::step], parse_math=False)
    return _with_fonts(figure)


def draw_comparison(
    scores: Mapping[str, np.ndarray], notes: Mapping[str, str], best: str, label: str, baseline: tuple[str, float]
) -> Figure:
    """Draw scores: one point for each fold, and the mean with one standard deviation to either side.

    Args:
        scores: dict. Name → float array `(folds,)`, best first.
        notes: dict. Name → what stands beside its mean.
        best: str. The name to highlight.
        label: str. The label of the scores' axis.
        baseline: tuple of str and float. Name and score of the baseline.
    """
    figure = _new_figure(8.5, 0.36 * len(scores) + 1.7)
    axes = figure.add_subplot()
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": "medium"}
    axes.text(1.02, -0.9, "mean   p vs best", **beside)
    for y, (name, values) in enumerate(scores.items()):
        colour = BEST_COLOUR if name == best else "black"
        mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
        axes.errorbar(mean, y, xerr=spread, fmt="D", color=colour, markersize=5, capsize=3)
        below = np.full(len(values), y + 0.25)
        axes.plot(values, below, "o", color=colour, alpha=0.4, markersize=3.5, markeredgewidth=0)
        axes.text(1.02, y, f"{mean:.3f}  {notes[name]}", color=colour, **beside)
    where = _draw_baseline(axes, baseline[1])
    names = list(scores)
    axes.set_yticks(range(len(names)), [shortened(name, 40) for name in names], parse_math=False)
    axes.get_yticklabels()[names.index(best)].set_color(BEST_COLOUR)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{label}\n{baseline[0]}: {baseline[1]:.3f}, {where}", parse_math=False)
    return figure


def _draw_baseline(axes: Axes, score: float) -> str:
    """Draw the baseline unless it would squeeze the scores into a corner, and return where it is."""
    low, high = axes.get_xlim()
    if score < low - 0.2 * (high - low):
        return "to the left of what is drawn"
    axes.axvline(score, color="black", linestyle="--", linewidth=0.8)
    return "the dashed line"
