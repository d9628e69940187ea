"""`word_vectors`: one vector per word, from any layers of BERT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args, overload

import keras
import numpy as np

from keras_bert_trend.inspection.batch import as_layer, as_texts, encode_batches
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import LastFourSum, LayerPooling

Combine = Literal["first", "mean", "sum"]


class WordVector(NamedTuple):
    """A word and its vector.

    Attributes:
        word: str. The word as the vocabulary spells it, its pieces joined.
        span: tuple of two ints, or `None`. The first character and the one after the last in the original text; `None`
            if unknown.
        vector: float array `(hidden,)`, or as many dimensions as requested.
    """

    word: str
    span: tuple[int, int] | None
    vector: np.ndarray


@overload
def word_vectors(
    text_or_texts: str,
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    layers: Sequence[int] | LayerPooling | None = None,
    combine: Combine = "mean",
    dim: int | None = None,
    punctuation: bool = False,
    batch_size: int = 32,
    truncate: bool = False,
) -> list[WordVector]: ...
@overload
def word_vectors(
    text_or_texts: list[str] | tuple[str, ...],
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    layers: Sequence[int] | LayerPooling | None = None,
    combine: Combine = "mean",
    dim: int | None = None,
    punctuation: bool = False,
    batch_size: int = 32,
    truncate: bool = False,
) -> list[list[WordVector]]: ...
def word_vectors(
    text_or_texts: str | Sequence[str],
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    layers: Sequence[int] | LayerPooling | None = None,
    combine: Combine = "mean",
    dim: int | None = None,
    punctuation: bool = False,
    batch_size: int = 32,
    truncate: bool = False,
) -> list[WordVector] | list[list[WordVector]]:
    """Return one vector for every word, in the order of the text.

    A word is a token with the `##` pieces that continue it, as in `TrendPooling(unit="word")`. A repeated word gets a
    vector for each occurrence, because BERT's vectors depend on the context.

    The default, the sum of the last four layers, comes from Devlin et al. 2019 (arXiv:1810.04805), §5.3. `dim` does
    what `get_features(texts, dim=50)` does in the article "NLP: Contextualized word embeddings from BERT", which keeps
    only the last vector of a repeated word.

    Example:
        >>> [(word, span) for word, span, vector in word_vectors("Embeddings of words", dim=50)]
        [('embeddings', (0, 10)), ('of', (11, 13)), ('words', (14, 19))]

    Args:
        text_or_texts: str or sequence of str. One text, or several.
        handle_or_layer: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a
            preprocessor, whose pooling does not matter. Defaults to `"minilm"`.
        layers: sequence of int, `LayerPooling` or `None`. The layers to sum: 0 is the embedding output, 1 … L are the
            blocks, −1 is the last; or a `LayerPooling` with `level="token"`. Defaults to the last four.
        combine: str. How the pieces of a word become one vector: `"first"`, `"mean"` or `"sum"`. Defaults to `"mean"`.
        dim: int or `None`. Keep only the first `dim` dimensions. Defaults to `None`, all of them.
        punctuation: bool. Whether each punctuation sign counts as a word. Defaults to `False`.
        batch_size: int. The number of texts per batch of the encoder. Defaults to 32.
        truncate: bool. With a handle, trim texts that are longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        For one text a list of `WordVector`, `(word, (start, end), vector)`; for several texts a list of such lists. A
        text without words gives an empty list; words that the layer cuts off are left out.

    Raises:
        ValueError: if an argument has none of these values, if the encoder has no such layer, if `dim` exceeds the
            vectors' width, or if a text is longer than the model.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    if combine not in get_args(Combine):
        raise ValueError(f"`combine` must be one of {get_args(Combine)}, got {combine!r}.")
    pooling = _as_pooling(layers)
    layer = as_layer(handle_or_layer, truncate)
    _check_dim(dim, pooling.output_dim(layer.encoder.config.hidden_size, layer.encoder.config.num_layers))
    result = []
    for batch in encode_batches(layer, texts, batch_size):
        states = keras.ops.convert_to_numpy(pooling(batch.outputs, batch.inputs["input_mask"]))
        for text, vectors in zip(batch.texts, states, strict=True):
            words = [(word, vectors[list(word.positions), :dim]) for word in text.words(punctuation)]
            result.append([WordVector(word.text, word.span, _combine(pieces, combine)) for word, pieces in words])
    return result[0] if single else result


def _combine(pieces: np.ndarray, combine: Combine) -> np.ndarray:
    return pieces[0] if combine == "first" else getattr(pieces, combine)(axis=0)


def _as_pooling(layers: Sequence[int] | LayerPooling | None) -> LayerPooling:
    if layers is None:
        return LastFourSum(level="token")
    if not isinstance(layers, LayerPooling):
        return LayerPooling(layers, combine="sum", level="token")
    if layers.level != "token":
        raise ValueError("`layers` must be a LayerPooling with level='token': one vector a token, not one a sentence.")
    return layers


def _check_dim(dim: int | None, width: int) -> None:
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= width):
        raise ValueError(f"`dim` must be between 1 and {width}, the width of the vectors, or None; got {dim!r}.")
