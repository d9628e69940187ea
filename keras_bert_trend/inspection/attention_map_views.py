"""An `AttentionMap` as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.inspection.drawing import display_width, new_figure, one_line, shortened, with_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_bert_trend.inspection.attention_map import AttentionMap

COLOURS = "Blues"  # light to dark in one hue: read without colour too
_WITH_NUMBERS = 12  # more tokens than this leave no room for numbers in the cells
_LABELS = 64  # more labels than this would lie over each other
_LETTER = 0.09  # width in inches


def to_figure(seen: AttentionMap, layer: int, head: int | None) -> Figure:
    """Draw one head; see `AttentionMap.plot`."""
    matrix, tokens = seen.matrix(layer, head), len(seen.tokens)
    size = float(np.clip(0.29 * tokens, 2.8, 14.0))
    figure = new_figure(size + 2.4, size + 1.8)
    figure.suptitle(shortened(_heading(seen), int(10 * (size + 2))), parse_math=False)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap=COLOURS, norm=_scale(matrix.max()))
    _add_colour_bar(figure, image)
    axes.set_title(head_name(seen, layer, head), fontsize="medium")
    axes.set(xlabel="to", ylabel="from")
    labels = [shortened(token, 18) for token in seen.tokens]
    step = -(-tokens // _LABELS)
    axes.set_yticks(range(0, tokens, step), labels[::step], parse_math=False)
    axes.set_xticks(range(0, tokens, step), labels[::step], parse_math=False)
    if max(map(display_width, labels)) * _LETTER > size / tokens * step:
        axes.tick_params(axis="x", labelrotation=90)
    if tokens <= _WITH_NUMBERS:
        for (query, key), value in np.ndenumerate(matrix):
            colour = "white" if image.norm(value) > 0.6 else "black"
            text = f"{value:.2f}".removeprefix("0")
            axes.text(key, query, text, ha="center", va="center", color=colour, fontsize="x-small")
    if seen.pair is not None:
        border = seen.segments.index(1) - 0.5
        axes.axhline(border, color="grey", linewidth=0.8)
        axes.axvline(border, color="grey", linewidth=0.8)
    return with_fonts(figure)


def to_overview(seen: AttentionMap) -> Figure:
    """Draw all heads; see `AttentionMap.plot_overview`."""
    layers, heads = seen.attention.shape[:2]
    width, height = np.clip(0.75 * heads, 3.0, 14.0), np.clip(0.75 * layers, 2.0, 16.0)
    figure = new_figure(width + 1.6, height + 1.4)
    figure.suptitle(shortened(_heading(seen), int(9 * (width + 1))), parse_math=False)
    from matplotlib.patches import Rectangle

    # All heads in one pair of axes: hundreds of axes take half a minute to lay out.
    axes, scale = figure.add_subplot(), _scale(1)
    for layer in range(layers):
        for head in range(heads):
            sides = (head + 0.55, head + 1.45, layer + 1.45, layer + 0.55)
            image = axes.imshow(seen.attention[layer, head], cmap=COLOURS, norm=scale, extent=sides, aspect="auto")
            frame = Rectangle((sides[0], sides[3]), 0.9, 0.9, fill=False, edgecolor="grey", linewidth=0.5)
            axes.add_patch(frame)
    axes.set(xlim=(0.5, heads + 0.5), ylim=(layers + 0.5, 0.5), xlabel="head", ylabel="layer")
    axes.set_xticks(range(1, heads + 1))
    axes.set_yticks(range(1, layers + 1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("In each square: lines look, columns are looked at", fontsize="medium")
    _add_colour_bar(figure, image)
    return with_fonts(figure)


def _scale(highest: float):
    """Return a scale that also shows small values: most heads give [CLS] or [SEP] nearly everything."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=highest)


def _add_colour_bar(figure: Figure, image) -> None:
    label = "attention (the colour follows its square root)"
    figure.colorbar(image, ax=image.axes, label=label, pad=0.02, fraction=0.04, aspect=25)


def head_name(seen: AttentionMap, layer: int, head: int | None) -> str:
    """Return what a heading calls a head, counted from 1."""
    layers, heads = seen.attention.shape[:2]
    layer = layer if layer > 0 else layers + 1 + layer
    if head is None:
        return f"layer {layer} of {layers}, mean of {heads} heads"
    return f"layer {layer} of {layers}, head {head if head > 0 else heads + 1 + head} of {heads}"


def _heading(seen: AttentionMap) -> str:
    return one_line(seen.text if seen.pair is None else f"{seen.text} — {seen.pair}")
