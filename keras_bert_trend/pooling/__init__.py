"""The pooling room: one class per pooling, from the encoder's outputs to one vector a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_bert_trend.pooling.base import Pooling, encoder_arguments, hidden_states, masked_mean
from keras_bert_trend.pooling.concat import ConcatPooling
from keras_bert_trend.pooling.last_layer import (
    ClsPooling,
    MaxPooling,
    MeanPooling,
    MeanStdPooling,
    PoolerPooling,
)
from keras_bert_trend.pooling.layer_mix import FirstLastMean, LastFourConcat, LastFourSum, LayerPooling, SecondToLast
from keras_bert_trend.pooling.trend import TrendPooling

__all__ = [
    "POOLING_NAMES",
    "ClsPooling",
    "ConcatPooling",
    "FirstLastMean",
    "LastFourConcat",
    "LastFourSum",
    "LayerPooling",
    "MaxPooling",
    "MeanPooling",
    "MeanStdPooling",
    "PoolerPooling",
    "Pooling",
    "SecondToLast",
    "TrendPooling",
    "encoder_arguments",
    "get_pooling",
    "hidden_states",
    "masked_mean",
]

_BY_NAME = {
    "trend": lambda kinds: TrendPooling(kinds, name="trend"),
    "smooth_trend": lambda kinds: TrendPooling(kinds, measure="asinh", name="smooth_trend"),
    "last_four_sum": lambda kinds: LastFourSum(name="last_four_sum"),
    "last_four_concat": lambda kinds: LastFourConcat(name="last_four_concat"),
    "cls": lambda kinds: ClsPooling(name="cls"),
    "pooler": lambda kinds: PoolerPooling(name="pooler"),
    "mean": lambda kinds: MeanPooling(name="mean"),
    "max": lambda kinds: MaxPooling(name="max"),
    "first_last_mean": lambda kinds: FirstLastMean(name="first_last_mean"),
    "mean_std": lambda kinds: MeanStdPooling(name="mean_std"),
    "second_to_last": lambda kinds: SecondToLast(name="second_to_last"),
}

POOLING_NAMES = tuple(_BY_NAME)


def get_pooling(pooling: str | Pooling | Sequence[str | Pooling], token_kinds: np.ndarray | None = None) -> Pooling:
    """Return the pooling layer that a name, a list of names (concatenated) or a layer stands for.

    Args:
        pooling: one of `POOLING_NAMES`, a `Pooling`, or a list of those.
        token_kinds: `Vocabulary.token_kinds`, needed by the trend poolings.

    Raises:
        ValueError: the name is unknown, or a trend pooling is named without `token_kinds`.
    """
    if isinstance(pooling, Pooling):
        return pooling
    if isinstance(pooling, list | tuple):
        return ConcatPooling([get_pooling(part, token_kinds) for part in pooling])
    if not isinstance(pooling, str) or pooling not in _BY_NAME:
        raise ValueError(
            f"`pooling` must be one of {list(_BY_NAME)}, a list of them, or a Pooling layer; got {pooling!r}."
        )
    if token_kinds is None and pooling in ("trend", "smooth_trend"):
        raise ValueError(f"`pooling`={pooling!r} needs a vocabulary, to tell words from punctuation.")
    return _BY_NAME[pooling](token_kinds)
