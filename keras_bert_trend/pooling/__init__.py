"""The pooling room: one class per pooling, from the encoder's outputs to one vector a text.

The names below can be read without importing Keras; the classes are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bert_trend._utils import lazy_attributes

if TYPE_CHECKING:
    from keras_bert_trend.pooling.base import Needs, Pooling, hidden_states, masked_mean, run_encoder
    from keras_bert_trend.pooling.concat import ConcatPooling, leaves
    from keras_bert_trend.pooling.last_layer import (
        ClsPooling,
        MaxPooling,
        MeanPooling,
        MeanStdPooling,
        PoolerPooling,
    )
    from keras_bert_trend.pooling.layer_mix import (
        FirstLastMean,
        LastFourConcat,
        LastFourSum,
        LayerPooling,
        SecondToLast,
    )
    from keras_bert_trend.pooling.trajectory import LevelPooling, TrajectoryPooling
    from keras_bert_trend.pooling.trend import TrendPooling

_MODULES = {
    "ClsPooling": "last_layer",
    "ConcatPooling": "concat",
    "FirstLastMean": "layer_mix",
    "LastFourConcat": "layer_mix",
    "LastFourSum": "layer_mix",
    "LayerPooling": "layer_mix",
    "LevelPooling": "trajectory",
    "MaxPooling": "last_layer",
    "MeanPooling": "last_layer",
    "MeanStdPooling": "last_layer",
    "Needs": "base",
    "PoolerPooling": "last_layer",
    "Pooling": "base",
    "SecondToLast": "layer_mix",
    "TrajectoryPooling": "trajectory",
    "TrendPooling": "trend",
    "hidden_states": "base",
    "leaves": "concat",
    "masked_mean": "base",
    "run_encoder": "base",
}

__all__ = [
    "POOLING_NAMES",
    "ClsPooling",
    "ConcatPooling",
    "FirstLastMean",
    "LastFourConcat",
    "LastFourSum",
    "LayerPooling",
    "LevelPooling",
    "MaxPooling",
    "MeanPooling",
    "MeanStdPooling",
    "Needs",
    "PoolerPooling",
    "Pooling",
    "SecondToLast",
    "TrajectoryPooling",
    "TrendPooling",
    "get_pooling",
    "hidden_states",
    "leaves",
    "masked_mean",
    "run_encoder",
]

__getattr__ = lazy_attributes(__name__, _MODULES)

#: Name → class and arguments. A trend pooling takes the vocabulary's token kinds first.
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "trend": ("TrendPooling", {}),
    "smooth_trend": ("TrendPooling", {"measure": "asinh"}),
    "trajectory": ("TrajectoryPooling", {}),
    "last_four_sum": ("LastFourSum", {}),
    "last_four_concat": ("LastFourConcat", {}),
    "cls": ("ClsPooling", {}),
    "pooler": ("PoolerPooling", {}),
    "mean": ("MeanPooling", {}),
    "max": ("MaxPooling", {}),
    "first_last_mean": ("FirstLastMean", {}),
    "mean_std": ("MeanStdPooling", {}),
    "second_to_last": ("SecondToLast", {}),
}

POOLING_NAMES = tuple(_PRESETS)


def get_pooling(pooling: str | Pooling | Sequence[str | Pooling], token_kinds: np.ndarray | None = None) -> Pooling:
    """Return the pooling layer that a name, a list of names (concatenated) or a layer stands for.

    Args:
        pooling: str, `Pooling`, or a list of those. A name is one of `POOLING_NAMES`.
        token_kinds: uint8 array `(vocabulary size,)` or `None`. `Vocabulary.token_kinds`, which the trend poolings
            need.

    Raises:
        ValueError: if the name is unknown, or if a trend pooling is named without `token_kinds`.
    """
    from keras_bert_trend.pooling.base import Pooling
    from keras_bert_trend.pooling.concat import ConcatPooling

    if isinstance(pooling, Pooling):
        return pooling
    if isinstance(pooling, list | tuple):
        return ConcatPooling([get_pooling(part, token_kinds) for part in pooling])
    if not isinstance(pooling, str) or pooling not in _PRESETS:
        raise ValueError(
            f"`pooling` must be one of {list(_PRESETS)}, a list of them, or a Pooling layer; got {pooling!r}."
        )
    class_name, arguments = _PRESETS[pooling]
    if class_name == "TrendPooling":
        if token_kinds is None:
            raise ValueError(f"`pooling`={pooling!r} needs a vocabulary, to tell words from punctuation.")
        arguments = {"token_kinds": token_kinds, **arguments}
    return __getattr__(class_name)(**arguments, name=pooling)
