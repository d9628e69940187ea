"""What a weight holds when it is made: random numbers, or at once what a source has for it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from keras import ops

_SOURCE: contextvars.ContextVar[Mapping[str, np.ndarray] | None] = contextvars.ContextVar("source", default=None)


@contextlib.contextmanager
def weights_from(source: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Make the weights with these values: drawing 110 million random numbers takes far longer than reading them."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def starting_at(default: str | Callable, *names: str):
    """Return an initializer: the source's arrays under these names, side by side, or `default` where there is none."""
    source = _SOURCE.get()
    if source is None or any(name not in source for name in names):  # what is missing is said later, all at once
        return default

    def values(shape, dtype=None):
        width = (*shape[:-1], shape[-1] // len(names))
        arrays = [checked_array(name, source[name], width) for name in names]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        return ops.convert_to_tensor(array, dtype)

    return values


def checked_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array if it has the shape and is finite."""
    array = np.asarray(array)
    if array.shape != tuple(shape):
        raise ValueError(f"Weight {name!r} has shape {array.shape}, the architecture needs {shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Weight {name!r} holds NaN or infinity.")
    return array
