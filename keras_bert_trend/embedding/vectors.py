"""Vectors after pooling: truncated, normalised, quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from keras_bert_trend._utils import check_count

Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS = get_args(Precision)


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Divide rows by their Euclidean length; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


class VectorFormat:
    """The form that vectors are returned in: truncated, normalised, quantised.

    If the vectors themselves give the ranges of int8, `chunk` leaves them in float32 and `all` quantises them.
    """

    def __init__(self, dims, normalize, truncate_dim, precision, ranges, *, calibrate: bool) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {list(PRECISIONS)}, got {precision!r}.")
        if truncate_dim is not None:
            check_count("truncate_dim", truncate_dim)
            if truncate_dim > min(dims.values()):
                raise ValueError(f"`truncate_dim`={truncate_dim} is more than the width, {min(dims.values())}.")
        if ranges is not None and precision != "int8":
            raise ValueError(f'`ranges` is for precision="int8", not {precision!r}.')
        if ranges is None and precision == "int8" and not calibrate:
            raise ValueError('precision="int8" needs `ranges` here: a stream has not seen all vectors.')
        self.dims = {name: truncate_dim or dim for name, dim in dims.items()}
        self.normalize, self.precision = normalize, precision
        self.ranges = None if ranges is None else _checked_ranges(ranges, self.dims)
        self._waits = precision == "int8" and ranges is None

    def nothing(self) -> list[np.ndarray]:
        """Return the chunk of no texts: arrays `(0, dim)`."""
        return self.chunk([np.zeros((0, dim), np.float32) for dim in self.dims.values()])

    def chunk(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Finish a chunk's float32 arrays, as far as possible without the other chunks."""
        arrays = [array[:, :dim] for array, dim in zip(arrays, self.dims.values(), strict=True)]
        if self.normalize:
            arrays = [normalized(array) for array in arrays]
        if self._waits:
            return arrays
        ranges = self.ranges or dict.fromkeys(self.dims)
        return [quantized(array, self.precision, ranges[name]) for array, name in zip(arrays, self.dims, strict=True)]

    def all(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Finish what needed all chunks."""
        if not self._waits:
            return arrays
        return {name: quantized(array, self.precision, _own_ranges(array)) for name, array in arrays.items()}


def _checked_ranges(ranges, dims: dict[str, int]) -> dict[str, np.ndarray]:
    ranges = ranges if isinstance(ranges, Mapping) else dict.fromkeys(dims, ranges)
    missing = sorted(set(dims) - set(ranges))
    if missing:
        raise ValueError(f"`ranges` lacks {missing}.")
    checked = {name: np.asarray(ranges[name], np.float32) for name in dims}
    for name, dim in dims.items():
        array = checked[name]
        if array.shape != (2, dim) or not np.all(np.isfinite(array)) or np.any(array[0] > array[1]):
            raise ValueError(f"`ranges` must be the least and greatest values, (2, {dim}), got shape {array.shape}.")
    return checked


def _own_ranges(vectors: np.ndarray) -> np.ndarray:
    if not len(vectors):
        return np.zeros((2, vectors.shape[1]), np.float32)
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)])


def quantized(vectors: np.ndarray, precision: str, ranges: np.ndarray | None) -> np.ndarray:
    """Return float32 vectors in another precision; int8 and bits as in sentence-transformers' `quantize_embeddings`.

    Args:
        vectors: float32 array `(n, dim)`.
        precision: str. One of the values of `Precision`.
        ranges: float32 array `(2, dim)` or `None`. For `"int8"`, the least and greatest value of every dimension.
    """
    if precision == "binary":
        return np.packbits(vectors > 0, axis=-1)
    if precision == "int8":
        steps = (ranges[1] - ranges[0]) / 255
        steps = np.where(steps > 0, steps, 1)  # a dimension that never changes
        return np.clip((vectors - ranges[0]) / steps - 128, -128, 127).astype(np.int8)
    return vectors.astype(precision)
