"""Make an encoder's variables from the rows of its weight table, and fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder.weight_table import Weight

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if _ON_TENSORFLOW:
    import tensorflow as tf


def add_weights(
    layer: keras.layers.Layer, weights: Iterable[Weight], normal: Callable[[], Any], values_follow: bool
) -> None:
    """Add the variables of a layer's part of the weight table to it, as attributes.

    Args:
        layer: Keras layer. Its `build` calls this.
        weights: iterable of `Weight`. The rows.
        normal: function. Returns an initializer for a variable that starts at random.
        values_follow: bool. Whether `fill` will assign all variables. They then start without values: drawing 110
            million numbers takes far longer than reading them.
    """
    for weight in weights:
        # Called in any case: it takes a global seed, and a seeded program must go on with the same ones.
        initializer = normal() if weight.start == "random" else weight.start
        *rows, columns = weight.shape
        variable = layer.add_weight(
            (*rows, columns * len(weight.names)),
            _unset if values_follow else initializer,
            name=weight.variable,
            autocast=False,  # operations cast to the dtype of what they meet: see `BertEncoder.call`
        )
        setattr(layer, weight.attribute, variable)


def _unset(shape, dtype=None):
    """Return a tensor that takes no time and, until it is written to, no memory."""
    if _ON_TENSORFLOW:
        return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype))
    return ops.zeros(shape, dtype)


def fill(variable: keras.Variable, weight: Weight, values: Mapping[str, Any]) -> None:
    """Give a variable its published values; no more than this one's are in memory meanwhile.

    Args:
        variable: the variable.
        weight: `Weight`. Its row in the table.
        values: mapping. Published name → array, or what NumPy takes over without a copy.

    Raises:
        ValueError: if an array has another shape, or holds NaN or infinity.
    """
    arrays = [values[name] for name in weight.names]
    for name, array in zip(weight.names, arrays, strict=True):
        check_array(name, np.asarray(array), weight.shape)
    if not _ON_TENSORFLOW:  # which alone takes a tensor of TensorFlow's
        arrays = [np.asarray(array) for array in arrays]
    variable.assign(arrays[0] if len(arrays) == 1 else ops.concatenate(arrays, axis=-1))


def values_in(value, weight: Weight) -> dict[str, np.ndarray]:
    """Return the published values in a variable's value: name → array."""
    array = ops.convert_to_numpy(value)
    return dict(zip(weight.names, np.split(array, len(weight.names), axis=-1), strict=True))


def check_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless the array has the shape and is finite."""
    if array.shape != shape:
        raise ValueError(f"Weight {name!r} has shape {array.shape}, the architecture needs {shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Weight {name!r} holds NaN or infinity.")
