"""`layer_walk`: how far each word travels from layer to layer."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_args, overload

import keras
import numpy as np

from keras_bert_trend.inspection.batch import TokenizedText, Word, as_layer, as_texts, encode_batches
from keras_bert_trend.inspection.drawing import aligned, draw_layer_walk, one_line, shortened, to_json
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import hidden_states
from keras_bert_trend.pooling.names import Unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 12  # more steps than this do not fit a terminal: they continue in another table below
_MEASURES = {
    "steps": "Length of the step from layer to layer",
    "cosines": "Cosine of the states before and after the step",
    "cosines_to_start": "Cosine of each layer's state with the static embedding, layer 0",
}
_NO_WORDS = 'No word here: unit="token" shows every token.'


@dataclass(frozen=True, eq=False, repr=False)
class LayerWalk:
    """How the words of a text move from layer to layer.

    `print` shows tables, and so does a notebook; `plot()` draws a figure; `to_dict()` returns JSON values.

    `H[l, w]` is the state of word `w` at layer `l`, the mean of its pieces' states. Layer 0 is the embedding output,
    1 … L are the blocks. Row `l − 1` of the arrays is the step from layer `l − 1` to layer `l`.

    Attributes:
        text: str. The original text.
        words: tuple of `Word(text, span, positions)`. The words without punctuation, or with `unit="token"` every
            token that the encoder received, with `[CLS]` and `[SEP]`.
        steps: float array `(L, words)`. The length of each step, `‖H[l] − H[l−1]‖₂`.
        cosines: float array `(L, words)`. `cos(H[l], H[l−1])`, of the states at both ends of the step.
        cosines_to_start: float array `(L, words)`. `cos(H[l], H[0])`: how much is left of the static embedding.
        truncated: int. The number of tokens cut off because the text is too long for the layer.
        unit: str. `"word"` or `"token"`.
    """

    text: str
    words: tuple[Word, ...]
    steps: np.ndarray
    cosines: np.ndarray
    cosines_to_start: np.ndarray
    truncated: int
    unit: Unit

    def __str__(self) -> str:
        return _to_text(self)

    def __repr__(self) -> str:
        return f"<LayerWalk of {shortened(self.text, 60)!r}: {len(self.words)} {self.unit}s, {len(self.steps)} layers>"

    def _repr_html_(self) -> str:
        return _to_html(self)

    def plot(self) -> Figure:
        """Draw the three arrays as heat maps, a row for each word and a column for each step.

        Returns:
            A `matplotlib.figure.Figure`, made without `pyplot`.

        Raises:
            ImportError: if matplotlib is not installed (the extra `plot`).
        """
        words = [word.text for word in self.words]
        return draw_layer_walk(self.text, words, self.steps, self.cosines, self.cosines_to_start, _NO_WORDS)

    def to_dict(self) -> dict[str, Any]:
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self)}


@overload
def layer_walk(
    text_or_texts: str,
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    unit: Unit = "word",
    batch_size: int = 32,
    truncate: bool = False,
) -> LayerWalk: ...
@overload
def layer_walk(
    text_or_texts: list[str] | tuple[str, ...],
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    unit: Unit = "word",
    batch_size: int = 32,
    truncate: bool = False,
) -> list[LayerWalk]: ...
def layer_walk(
    text_or_texts: str | Sequence[str],
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    unit: Unit = "word",
    batch_size: int = 32,
    truncate: bool = False,
) -> LayerWalk | list[LayerWalk]:
    """Measure how far each word of a text travels from layer to layer: the length of every step, and cosines.

    Layer 0 is the embedding output, 1 … L are the blocks.

    Example:
        >>> walk = layer_walk("I want an apple.", "minilm")
        >>> [word.text for word in walk.words], walk.steps.shape
        (['i', 'want', 'an', 'apple'], (6, 4))

    Args:
        text_or_texts: str or sequence of str. One text, or several.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose pooling does not matter. Defaults to `"minilm"`.
        unit: str. `"word"` joins pieces as `word_vectors` does and leaves out punctuation; `"token"` takes each token.
            Defaults to `"word"`.
        batch_size: int. The number of texts per batch of the encoder. Defaults to 32.
        truncate: bool. With a handle, trim texts that are longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        A `LayerWalk`, or a list of them for several texts.

    Raises:
        ValueError: if an argument has none of these values, or if a text is longer than the model.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    if unit not in get_args(Unit):
        raise ValueError(f"`unit` must be one of {get_args(Unit)}, got {unit!r}.")
    walks = []
    for batch in encode_batches(as_layer(model, truncate, "model"), texts, batch_size):
        states = np.stack([keras.ops.convert_to_numpy(state) for state in hidden_states(batch.outputs)], axis=1)
        walks += [_walk(text, each, unit) for text, each in zip(batch.texts, states, strict=True)]
    return walks[0] if single else walks


def _walk(text: TokenizedText, states: np.ndarray, unit: Unit) -> LayerWalk:
    """Measure one text; `states` has the shape `(L + 1, seq, hidden)`."""
    words = text.words() if unit == "word" else [text.token(position) for position in range(len(text.tokens))]
    states = states.astype("float64")
    empty = np.zeros((len(states), 0, states.shape[-1]))
    means = [states[:, list(word.positions)].mean(axis=1, keepdims=True) for word in words]
    moving = np.concatenate([empty, *means], axis=1)  # (L + 1, words, hidden)
    arrays = {
        "steps": np.linalg.norm(np.diff(moving, axis=0), axis=-1),
        "cosines": _cosines(moving[1:], moving[:-1]),
        "cosines_to_start": _cosines(moving[1:], moving[:1]),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return LayerWalk(text=text.text, words=tuple(words), truncated=text.truncated, unit=unit, **arrays)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosines along the last axis; 0 where a vector is zero."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    products = np.sum(a * b, axis=-1)
    return np.clip(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0), -1, 1)


# How a walk is shown


def _to_text(walk: LayerWalk) -> str:
    """Return a table for each measure: a line for each word, a column for each step."""
    lines = [one_line(walk.text)]
    if walk.words:
        for measure, title in _MEASURES.items():
            lines += ["", title]
            for first in range(0, len(walk.steps), _COLUMNS):
                lines += ["", *aligned(_cells(walk, measure, slice(first, first + _COLUMNS)))]
    return "\n".join([*lines, *(f"\n{note}" for note in _notes(walk))])


def _to_html(walk: LayerWalk) -> str:
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
    """Return the names of the columns: steps, or layers if they are compared with layer 0."""
    layers = range(1, len(walk.steps) + 1)
    return [str(layer) if measure == "cosines_to_start" else f"{layer - 1}→{layer}" for layer in layers]


def _notes(walk: LayerWalk) -> list[str]:
    notes = [] if walk.words else [_NO_WORDS]
    if walk.truncated:
        notes.append(f"The text is too long for the layer: its last {walk.truncated} tokens were cut off.")
    return notes
