"""What a weight holds when it is made: random numbers, or at once what a source has for it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

_WEIGHTS: contextvars.ContextVar[Any] = contextvars.ContextVar("weights", default=None)


@contextlib.contextmanager
def weights_from(weights) -> Iterator[None]:
    """Make the weights with these values: drawing 110 million random numbers takes far longer than reading them.

    Args:
        weights: `keras_bert_trend.sources.LazyWeights`; all that the encoder needs.
    """
    token = _WEIGHTS.set(weights.load())
    try:
        yield
    finally:
        _WEIGHTS.reset(token)


def starting_at(default: str | Callable, *names: str):
    """Return an initializer: the weights under these names, side by side; `default` outside `weights_from`."""
    weights = _WEIGHTS.get()
    if weights is None:
        return default

    def values(shape, dtype=None):
        width = (*shape[:-1], shape[-1] // len(names))
        arrays = [weights.pop(name) for name in names]  # each is used once, and then freed
        for name, array in zip(names, arrays, strict=True):
            checked_array(name, array, width)
        if keras.backend.backend() != "tensorflow":  # which alone takes a tensor as it is
            arrays = [np.asarray(array) for array in arrays]
        tensors = [ops.convert_to_tensor(array, dtype) for array in arrays]
        return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)

    return values


def checked_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array if it has the shape and is finite."""
    array = np.asarray(array)
    if array.shape != tuple(shape):
        raise ValueError(f"Weight {name!r} has shape {array.shape}, the architecture needs {shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Weight {name!r} holds NaN or infinity.")
    return array
