"""`attention`: where the tokens of a text look, in every head of every layer, and how to draw it."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_bert_trend.inspection.batch import as_layer
from keras_bert_trend.inspection.drawing import shortened, to_json
from keras_bert_trend.layer import BertTrend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMap:
    """The attention of every head to a text. A notebook shows it as the view that `to_html` makes.

    Layers and heads are counted as everywhere in this package: layer 0 is the embedding output, which has no attention,
    1 … L are the blocks, 1 … H the heads; −1 is the last.

    Attributes:
        text: the text as it was given.
        pair: the second text, or `None`.
        tokens: the tokens that the encoder saw, `[CLS]` and `[SEP]` included.
        segments: for each token 0, or 1 where it belongs to the second text.
        attention: the softmax's probabilities, float32 `(layers, heads, tokens, tokens)`, `[..., query, key]`: each row
            adds up to 1.
        truncated: how many tokens were cut off because the text is too long for the layer.
    """

    text: str
    pair: str | None
    tokens: tuple[str, ...]
    segments: tuple[int, ...]
    attention: np.ndarray
    truncated: int

    def __repr__(self) -> str:
        layers, heads, tokens, _ = self.attention.shape
        return f"<AttentionMap of {shortened(self.text, 60)!r}: {layers} layers, {heads} heads, {tokens} tokens>"

    def _repr_html_(self) -> str | None:
        from keras_bert_trend.inspection.attention_page import MAX_TOKENS, to_iframe

        return to_iframe(self) if len(self.tokens) <= MAX_TOKENS else None

    def matrix(self, layer: int = -1, head: int | None = None) -> np.ndarray:
        """Return the attention of one head, float32 `(tokens, tokens)`, `[query, key]`.

        Args:
            layer: 1 … L, or from the end, −1 being the last.
            head: 1 … H, or from the end; `None` is the mean over the layer's heads.

        Raises:
            ValueError: there is no such layer or head.
        """
        heads = self.attention[layer_index(layer, len(self.attention))]
        return heads.mean(axis=0) if head is None else heads[_index("head", head, len(heads))]

    def plot(self, layer: int = -1, head: int | None = None) -> Figure:
        """Draw one head: a line for each token that looks, a column for each token that is looked at.

        Args:
            layer: see `matrix`.
            head: see `matrix`.

        Returns:
            a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched.

        Raises:
            ImportError: matplotlib is not installed; the extra `plot` does that.
            ValueError: there is no such layer or head.
        """
        from keras_bert_trend.inspection.attention_map_views import to_figure

        return to_figure(self, layer, head)

    def plot_overview(self) -> Figure:
        """Draw all heads small, a line for each layer and a column for each head, on one scale.

        Returns:
            a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched.

        Raises:
            ImportError: matplotlib is not installed; the extra `plot` does that.
        """
        from keras_bert_trend.inspection.attention_map_views import to_overview

        return to_overview(self)

    def to_html(self, layer: int = -1, head: int | None = None, max_tokens: int = 128) -> str:
        """Return a page that shows every head, in one file that loads nothing from elsewhere.

        Layer, head and token are chosen by mouse or keyboard; what is drawn stands in tables too, for screen readers.

        Args:
            layer: the layer that is shown first, see `matrix`.
            head: the head that is shown first, see `matrix`.
            max_tokens: refuse longer texts, for the page grows with the tokens' square.

        Raises:
            ValueError: there is no such layer or head, or the text has more than `max_tokens` tokens.
        """
        from keras_bert_trend.inspection.attention_page import to_html

        return to_html(self, layer, head, max_tokens)

    def save_html(
        self, path: str | os.PathLike, layer: int = -1, head: int | None = None, max_tokens: int = 128
    ) -> None:
        """Write `to_html`'s page to a file, which is complete or not there; what stood there is replaced.

        Args:
            path: the file, in a folder that exists.
            layer: see `to_html`, also for the next two.
            head: see there.
            max_tokens: see there.

        Raises:
            ValueError: as `to_html`.
            OSError: the file cannot be written.
        """
        from keras_bert_trend.inspection.attention_page import write

        write(self.to_html(layer, head, max_tokens), path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self)}


def attention(
    text: str,
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    pair: str | None = None,
    truncate: bool = False,
) -> AttentionMap:
    """Return the attention of every head to a text, without the padding.

    Example:
        >>> seen = attention("I want an apple.", "minilm")
        >>> seen
        <AttentionMap of 'I want an apple.': 6 layers, 12 heads, 7 tokens>
        >>> seen.tokens[seen.matrix(layer=1, head=6)[2].argmax()]  # where "want" looks
        'i'

    Args:
        text: a text.
        model: what `BertTrend` takes, or a `BertTrend` layer, which reads nothing anew; its pooling does not matter.
        pair: a second text: the encoder sees `[CLS] text [SEP] pair [SEP]`.
        truncate: with a handle, cut off what is longer than the model instead of refusing it.

    Raises:
        ValueError: an argument is none of these, or the text is longer than the model.
        ImportError: the weights of `"minilm"` are not installed.
    """
    for name, value in (("text", text), ("pair", pair)):
        if not isinstance(value, str) and not (name == "pair" and value is None):
            raise ValueError(f"`{name}` must be a str, got {value!r}.")
    layer = as_layer(model, truncate, "model")
    preprocessor = layer.preprocessor
    parts = [[text]] if pair is None else [[text], [pair]]
    inputs = preprocessor.preprocess(parts[0] if pair is None else tuple(parts))
    inputs = {name: array.numpy() for name, array in inputs.items()}
    real = inputs["input_mask"][0] > 0
    scores = layer.encoder(inputs, training=False, return_attention_scores=True)["attention_scores"]
    scores = np.stack([keras.ops.convert_to_numpy(each)[0][:, real][:, :, real] for each in scores])
    scores.setflags(write=False)
    ids = inputs["input_word_ids"][0][real]
    wanted = sum(len(preprocessor.tokenize(part)[0]) for part in parts) + 1 + len(parts)
    return AttentionMap(
        text=text,
        pair=pair,
        tokens=tuple(preprocessor.vocabulary.tokens[i] for i in ids),
        segments=tuple(inputs["input_type_ids"][0][real].tolist()),
        attention=scores.astype("float32", copy=False),
        truncated=wanted - len(ids),
    )


def plot_attention(
    text: str,
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    layer: int = -1,
    head: int | None = None,
    pair: str | None = None,
    truncate: bool = False,
) -> Figure:
    """Draw one head's attention to a text: a line for each token that looks, a column for each that is looked at.

    Whoever draws more than one head asks `attention` once, and its result's `plot` for each.

    Args:
        text: see `attention`, also for `model`, `pair` and `truncate`.
        model: see there.
        layer: the layer, 1 … L as `explain` counts blocks and `word_vectors` layers (0, the embedding output, has no
            attention); −1 is the last.
        head: the head, 1 … H as `explain` counts them; −1 is the last; `None` is the mean over the layer's heads.
        pair: see `attention`.
        truncate: see there.

    Returns:
        a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched. `figure.savefig("head.png")`
        writes it.

    Raises:
        ValueError: as `attention`, and where there is no such layer or head.
        ImportError: matplotlib (the extra `plot`) or the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).plot(layer, head)


def plot_attention_overview(
    text: str,
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    pair: str | None = None,
    truncate: bool = False,
) -> Figure:
    """Draw the attention of all heads small, a line for each layer and a column for each head, on one scale.

    Args:
        text: see `attention`, also for the next three.
        model: see there.
        pair: see there.
        truncate: see there.

    Returns:
        a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched.

    Raises:
        ValueError: as `attention`.
        ImportError: matplotlib (the extra `plot`) or the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).plot_overview()


def attention_html(
    text: str,
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    layer: int = -1,
    head: int | None = None,
    pair: str | None = None,
    truncate: bool = False,
    max_tokens: int = 128,
) -> str:
    """Return a page that shows every head's attention to a text, in one file that loads nothing from elsewhere.

    `attention(text, model).save_html(path)` writes it.

    Args:
        text: see `attention`, also for `model`, `pair` and `truncate`.
        model: see there.
        layer: what is shown first; see `plot_attention`, also for `head`.
        head: see there.
        pair: see `attention`.
        truncate: see there.
        max_tokens: refuse longer texts, for the page grows with the tokens' square.

    Raises:
        ValueError: as `attention`; there is no such layer or head; or the text has more than `max_tokens` tokens.
        ImportError: the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).to_html(layer, head, max_tokens)


def layer_index(layer: int, count: int) -> int:
    """Return the index of a layer among the `count` blocks."""
    if not isinstance(layer, bool) and layer == 0:
        raise ValueError(f"`layer` must be 1 to {count}, got 0: the embedding output has no attention.")
    return _index("layer", layer, count)


def _index(name: str, number: int, count: int) -> int:
    """Return the index of what is counted from 1, or from −1 backwards."""
    try:
        value = 0 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        value = 0
    if not 1 <= abs(value) <= count:
        raise ValueError(f"`{name}` must be 1 to {count}, or -1 to -{count} from the end, got {number!r}.")
    return value - 1 if value > 0 else count + value
