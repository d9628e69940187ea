"""`attention`: where the tokens of a text look, in every head of every layer, and how to draw it."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_bert_trend.inspection.attention_page import MAX_TOKENS, attention_page, framed, write_page
from keras_bert_trend.inspection.batch import as_layer
from keras_bert_trend.inspection.drawing import draw_all_heads, draw_head, head_name, shortened, to_json
from keras_bert_trend.layer import BertTrend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMap:
    """The attention of every head to a text. A notebook shows it as the page that `to_html` returns.

    Layers and heads are counted from 1: layers 1 … L are the blocks, heads 1 … H; −1 is the last. Layer 0, the
    embedding output, has no attention.

    Attributes:
        text: str. The original text.
        pair: str or `None`. The second text, if any.
        tokens: tuple of str. The tokens that the encoder received, with `[CLS]` and `[SEP]`.
        segments: tuple of int. For each token 0, or 1 if it belongs to the second text.
        attention: float32 array `(layers, heads, tokens, tokens)`, `[..., query, key]`. The softmax's probabilities:
            each row adds up to 1. The array itself is indexed from 0.
        truncated: int. The number of tokens cut off because the text is too long for the layer.
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
        return framed(self.to_html()) if len(self.tokens) <= MAX_TOKENS else None

    def matrix(self, layer: int = -1, head: int | None = None) -> np.ndarray:
        """Return the attention of one head, float32 `(tokens, tokens)`, `[query, key]`.

        Args:
            layer: int. The layer, 1 … L, or −1 … −L from the end. Defaults to the last.
            head: int or `None`. The head, 1 … H, or −1 … −H from the end; `None` is the mean over the layer's heads.
                Defaults to `None`.

        Raises:
            ValueError: if there is no such layer or head.
        """
        layer, head = self._numbers(layer, head)
        heads = self.attention[layer - 1]
        return heads.mean(axis=0) if head is None else heads[head - 1]

    def plot(self, layer: int = -1, head: int | None = None) -> Figure:
        """Draw one head: a row for each token that attends, a column for each token that is attended to.

        Args:
            layer: int. The layer, 1 … L, or −1 … −L from the end. Defaults to the last.
            head: int or `None`. The head, 1 … H, or −1 … −H from the end; `None` is the mean over the layer's heads.
                Defaults to `None`.

        Returns:
            A `matplotlib.figure.Figure`, made without `pyplot`.

        Raises:
            ImportError: if matplotlib is not installed (the extra `plot`).
            ValueError: if there is no such layer or head.
        """
        title = head_name(*self._numbers(layer, head), *self.attention.shape[:2])
        border = None if self.pair is None else self.segments.index(1)
        return draw_head(self._heading(), title, self.tokens, self.matrix(layer, head), border)

    def plot_overview(self) -> Figure:
        """Draw all heads small, a row for each layer and a column for each head, on one scale.

        Returns:
            A `matplotlib.figure.Figure`, made without `pyplot`.

        Raises:
            ImportError: if matplotlib is not installed (the extra `plot`).
        """
        return draw_all_heads(self._heading(), self.attention)

    def to_html(self, layer: int = -1, head: int | None = None, max_tokens: int = MAX_TOKENS) -> str:
        """Return a page that shows every head, in one file that loads nothing from elsewhere.

        The reader chooses layer, head and token by mouse or keyboard. Tables repeat the drawing for screen readers.

        Args:
            layer: int. The layer to show first, 1 … L, or −1 … −L from the end. Defaults to the last.
            head: int or `None`. The head to show first, 1 … H, or −1 … −H from the end; `None` is the mean over the
                layer's heads. Defaults to `None`.
            max_tokens: int. The most tokens accepted; the page grows with their square. Defaults to 128.

        Raises:
            ValueError: if there is no such layer or head, or if the text has more than `max_tokens` tokens.
        """
        texts = [self.text] if self.pair is None else [self.text, self.pair]
        numbers = self._numbers(layer, head)
        return attention_page(
            texts, self.tokens, self.segments, self.attention, *numbers, truncated=self.truncated, max_tokens=max_tokens
        )

    def save_html(
        self, path: str | os.PathLike[str], layer: int = -1, head: int | None = None, max_tokens: int = MAX_TOKENS
    ) -> None:
        """Write the page of `to_html` to a file. An existing file is replaced once the new one is complete.

        Args:
            path: str or path. The file, in an existing folder.
            layer: int. The layer to show first, 1 … L, or −1 … −L from the end. Defaults to the last.
            head: int or `None`. The head to show first, 1 … H, or −1 … −H from the end; `None` is the mean over the
                layer's heads. Defaults to `None`.
            max_tokens: int. The most tokens accepted; the page grows with their square. Defaults to 128.

        Raises:
            ValueError: if there is no such layer or head, or if the text has more than `max_tokens` tokens.
            OSError: if the file cannot be written.
        """
        write_page(self.to_html(layer, head, max_tokens), path)

    def to_dict(self) -> dict[str, Any]:
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self)}

    def _heading(self) -> str:
        return self.text if self.pair is None else f"{self.text} — {self.pair}"

    def _numbers(self, layer: int, head: int | None) -> tuple[int, int | None]:
        """Return layer and head counted from 1."""
        layers, heads = self.attention.shape[:2]
        if not isinstance(layer, bool) and layer == 0:
            raise ValueError(f"`layer` must be 1 to {layers}, got 0: the embedding output has no attention.")
        return _number("layer", layer, layers), None if head is None else _number("head", head, heads)


def attention(
    text: str,
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    pair: str | None = None,
    truncate: bool = False,
) -> AttentionMap:
    """Return the attention of every head to a text, without the padding.

    Layers and heads are counted from 1.

    Example:
        >>> result = attention("I want an apple.", "minilm")
        >>> result
        <AttentionMap of 'I want an apple.': 6 layers, 12 heads, 7 tokens>
        >>> result.tokens[result.matrix(layer=1, head=6)[2].argmax()]  # where "want" looks
        'i'

    Args:
        text: str. The text.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose pooling does not matter. Defaults to `"minilm"`.
        pair: str or `None`. A second text: the encoder receives `[CLS] text [SEP] pair [SEP]`. Defaults to `None`.
        truncate: bool. With a handle, trim a text that is longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        An `AttentionMap`.

    Raises:
        ValueError: if an argument has none of these values, or if the text is longer than the model.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    from keras_bert_trend.preprocessing.packing import special_token_count

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
    untrimmed = sum(len(preprocessor.tokenize(part)[0]) for part in parts) + special_token_count(len(parts))
    return AttentionMap(
        text=text,
        pair=pair,
        tokens=tuple(preprocessor.vocabulary.tokens[i] for i in ids),
        segments=tuple(inputs["input_type_ids"][0][real].tolist()),
        attention=scores.astype("float32", copy=False),
        truncated=untrimmed - len(ids),
    )


def plot_attention(
    text: str,
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    layer: int = -1,
    head: int | None = None,
    pair: str | None = None,
    truncate: bool = False,
) -> Figure:
    """Draw one head's attention to a text: a row for each token that attends, a column for each that is attended to.

    To draw several heads, call `attention` once and its result's `plot` for each head.

    Args:
        text: str. The text.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose pooling does not matter. Defaults to `"minilm"`.
        layer: int. The layer, 1 … L, or −1 … −L from the end; layer 0, the embedding output, has no attention. Defaults
            to the last.
        head: int or `None`. The head, 1 … H, or −1 … −H from the end; `None` is the mean over the layer's heads.
            Defaults to `None`.
        pair: str or `None`. A second text: the encoder receives `[CLS] text [SEP] pair [SEP]`. Defaults to `None`.
        truncate: bool. With a handle, trim a text that is longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        A `matplotlib.figure.Figure`, made without `pyplot`. `figure.savefig("head.png")` writes it.

    Raises:
        ValueError: if an argument has none of these values, or if the text is longer than the model.
        ImportError: if matplotlib (the extra `plot`) or the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).plot(layer, head)


def plot_attention_overview(
    text: str,
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    pair: str | None = None,
    truncate: bool = False,
) -> Figure:
    """Draw the attention of all heads small, a row for each layer and a column for each head, on one scale.

    Layers and heads are counted from 1.

    Args:
        text: str. The text.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose pooling does not matter. Defaults to `"minilm"`.
        pair: str or `None`. A second text: the encoder receives `[CLS] text [SEP] pair [SEP]`. Defaults to `None`.
        truncate: bool. With a handle, trim a text that is longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        A `matplotlib.figure.Figure`, made without `pyplot`.

    Raises:
        ValueError: if an argument has none of these values, or if the text is longer than the model.
        ImportError: if matplotlib (the extra `plot`) or the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).plot_overview()


def attention_html(
    text: str,
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    layer: int = -1,
    head: int | None = None,
    pair: str | None = None,
    truncate: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> str:
    """Return a page that shows every head's attention to a text, in one file that loads nothing from elsewhere.

    `attention(text, model).save_html(path)` writes it.

    Args:
        text: str. The text.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose pooling does not matter. Defaults to `"minilm"`.
        layer: int. The layer to show first, 1 … L, or −1 … −L from the end; layer 0, the embedding output, has no
            attention. Defaults to the last.
        head: int or `None`. The head to show first, 1 … H, or −1 … −H from the end; `None` is the mean over the layer's
            heads. Defaults to `None`.
        pair: str or `None`. A second text: the encoder receives `[CLS] text [SEP] pair [SEP]`. Defaults to `None`.
        truncate: bool. With a handle, trim a text that is longer than the model instead of raising an error. Defaults
            to `False`.
        max_tokens: int. The most tokens accepted; the page grows with their square. Defaults to 128.

    Raises:
        ValueError: if an argument has none of these values, if the text is longer than the model, or if it has more
            than `max_tokens` tokens.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    return attention(text, model, pair=pair, truncate=truncate).to_html(layer, head, max_tokens)


def _number(name: str, number: int, count: int) -> int:
    """Return a number counted from 1, given one from 1 or from −1 backwards."""
    try:
        value = 0 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        value = 0
    if not 1 <= abs(value) <= count:
        raise ValueError(f"`{name}` must be 1 to {count}, or -1 to -{count} from the end, got {number!r}.")
    return value if value > 0 else count + 1 + value
