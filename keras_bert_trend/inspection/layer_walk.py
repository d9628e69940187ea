"""`layer_walk`: how far each word travels from layer to layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_bert_trend.inspection.batch import TokenizedText, Word, as_layer, as_texts, see_in_batches
from keras_bert_trend.inspection.drawing import shortened, to_json
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling.base import hidden_states

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = ("word", "token")


@dataclass(frozen=True, eq=False, repr=False)
class LayerWalk:
    """How the words of a text move from layer to layer.

    `print` it for tables; a notebook shows it as some; `plot()` draws it; `to_dict()` is JSON.

    `H[l, w]` is the state of word `w` at layer `l`, the mean of its pieces' states: 0 the embedding output, 1 … L the
    blocks. Row `l − 1` of the arrays is the step from layer `l − 1` to layer `l`.

    Attributes:
        text: the text as it was given.
        words: what moves, each a `Word(text, span, positions)`: the words without punctuation, or with `unit="token"`
            every token that the encoder saw, `[CLS]` and `[SEP]` included.
        steps: the length of each step, `‖H[l] − H[l−1]‖₂`, float `(L, words)`.
        cosines: of the states at both ends of the step, `cos(H[l], H[l−1])`, float `(L, words)`.
        cosines_to_start: `cos(H[l], H[0])`: how much is left of the static embedding, float `(L, words)`.
        truncated: how many tokens of the text were cut off because it is too long for the layer.
        unit: `"word"` or `"token"`.
    """

    text: str
    words: tuple[Word, ...]
    steps: np.ndarray
    cosines: np.ndarray
    cosines_to_start: np.ndarray
    truncated: int
    unit: str

    def __str__(self) -> str:
        from keras_bert_trend.inspection.layer_walk_views import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"<LayerWalk of {shortened(self.text, 60)!r}: {len(self.words)} {self.unit}s, {len(self.steps)} layers>"

    def _repr_html_(self) -> str:
        from keras_bert_trend.inspection.layer_walk_views import to_html

        return to_html(self)

    def plot(self) -> Figure:
        """Draw the three arrays as heat maps, a line for each word and a column for each step.

        Returns:
            a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched.

        Raises:
            ImportError: matplotlib is not installed; the extra `plot` does that.
        """
        from keras_bert_trend.inspection.layer_walk_views import to_figure

        return to_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self)}


def layer_walk(
    text_or_texts: str | Sequence[str],
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    unit: str = "word",
    batch_size: int = 32,
    truncate: bool = False,
) -> LayerWalk | list[LayerWalk]:
    """Measure how far each word of a text travels from layer to layer: the length of every step, and cosines.

    Example:
        >>> walk = layer_walk("I want an apple.", "minilm")
        >>> [word.text for word in walk.words], walk.steps.shape
        (['i', 'want', 'an', 'apple'], (6, 4))

    Args:
        text_or_texts: a text, or a list of them.
        model: what `BertTrend` takes, or a `BertTrend` layer, which reads nothing anew; its pooling does not matter.
        unit: `"word"`, pieces joined as `word_vectors` joins them, punctuation left out; or `"token"`, each token.
        batch_size: how many texts go through the encoder at once.
        truncate: with a handle, cut off what is longer than the model instead of refusing it.

    Returns:
        A `LayerWalk`, or a list of them for a list of texts.

    Raises:
        ValueError: an argument is none of these, or a text is longer than the model.
        ImportError: the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    if unit not in UNITS:
        raise ValueError(f"`unit` must be one of {UNITS}, got {unit!r}.")
    walks = []
    for seen in see_in_batches(as_layer(model, truncate, "model"), texts, batch_size):
        states = np.stack([keras.ops.convert_to_numpy(state) for state in hidden_states(seen.outputs)], axis=1)
        walks += [_walk(text, each, unit) for text, each in zip(seen.texts, states, strict=True)]
    return walks[0] if single else walks


def _walk(text: TokenizedText, states: np.ndarray, unit: str) -> LayerWalk:
    """Measure one text; `states` is `(L + 1, seq, hidden)`."""
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
