"""`word_vectors`: one vector a word, from any layers of BERT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_bert_trend.inspection.batch import as_layer, as_texts, see_in_batches
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import LastFourSum, LayerPooling

_COMBINE = {
    "first": lambda pieces: pieces[0],
    "mean": lambda pieces: pieces.mean(0),
    "sum": lambda pieces: pieces.sum(0),
}


class WordVector(NamedTuple):
    """A word and its vector.

    Attributes:
        word: as the vocabulary has it, its pieces joined.
        span: first character and the one after the last, in the text as it was given; `None` where that is not known.
        vector: `(hidden,)`, or as many dimensions as asked for.
    """

    word: str
    span: tuple[int, int] | None
    vector: np.ndarray


def word_vectors(
    text_or_texts: str | Sequence[str],
    handle_or_layer: BertTrend | str | os.PathLike = "minilm",
    *,
    layers: Sequence[int] | LayerPooling | None = None,
    combine: str = "mean",
    dim: int | None = None,
    punctuation: bool = False,
    batch_size: int = 32,
    truncate: bool = False,
) -> list[WordVector] | list[list[WordVector]]:
    """Return one vector for every word, in the order of the text.

    A word is a token with the `##` pieces that continue it, as `TrendPooling(unit="word")` groups them. A word that is
    there twice has two vectors: BERT's depend on the context.

    The default, the sum of the last four layers, is that of Devlin et al. 2019 (arXiv:1810.04805), §5.3; `dim` does
    what `get_features(texts, dim=50)` of the article "NLP: Contextualized word embeddings from BERT" does, where of a
    repeated word only the last vector is kept.

    Example:
        >>> [(word, span) for word, span, vector in word_vectors("Embeddings of words", dim=50)]
        [('embeddings', (0, 10)), ('of', (11, 13)), ('words', (14, 19))]

    Args:
        text_or_texts: a text, or a list of them.
        handle_or_layer: what `BertTrend` takes, or a `BertTrend` layer, which reads nothing anew; its pooling does not
            matter.
        layers: layer numbers to sum, 0 the embedding output, 1 … L the blocks, −1 the last; or a `LayerPooling` with
            `level="token"`. By default the last four.
        combine: how the pieces of a word become one vector: `"first"`, `"mean"` or `"sum"`.
        dim: keep only the first `dim` dimensions.
        punctuation: whether each punctuation sign counts as a word.
        batch_size: how many texts go through the encoder at once.
        truncate: with a handle, cut off what is longer than the model instead of refusing it.

    Returns:
        For a text a list of `WordVector`, `(word, (start, end), vector)`; for a list of texts a list of those. A text
        without words has an empty list. Of a text that the layer cuts off the words that are left.

    Raises:
        ValueError: an argument is none of these; the encoder has no such layer; `dim` is more than the vectors have; or
            a text is longer than the model.
        ImportError: the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    if combine not in _COMBINE:
        raise ValueError(f"`combine` must be one of {tuple(_COMBINE)}, got {combine!r}.")
    pooling = _as_pooling(layers)
    layer = as_layer(handle_or_layer, truncate)
    _check_dim(dim, pooling.output_dim(layer.encoder.config.hidden_size, layer.encoder.config.num_layers))
    result = []
    for seen in see_in_batches(layer, texts, batch_size):
        states = keras.ops.convert_to_numpy(pooling(seen.outputs, seen.inputs["input_mask"]))
        for text, vectors in zip(seen.texts, states, strict=True):
            result.append(
                [
                    WordVector(word.text, word.span, _COMBINE[combine](vectors[list(word.positions), :dim]))
                    for word in text.words(punctuation)
                ]
            )
    return result[0] if single else result


def _as_pooling(layers) -> LayerPooling:
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
