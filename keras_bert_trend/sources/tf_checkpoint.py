"""Read TensorFlow checkpoints, of TF1 and of SavedModels: names, shapes, values. Nothing is executed."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Sequence
from functools import cached_property


class TfCheckpoint:
    """The files of a checkpoint.

    Args:
        prefix: what stands before `.index` and `.data-…` in their names.

    Raises:
        ValueError: the index is missing or damaged.
    """

    def __init__(self, prefix: str) -> None:
        import tensorflow as tf

        self.prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(prefix)
        except Exception as error:  # TensorFlow raises several kinds for a damaged index
            raise ValueError(f"{prefix!r}: the variables cannot be read: {error}") from error

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key → shape, of everything in it."""
        return {key: tuple(shape) for key, shape in self._reader.get_variable_to_shape_map().items()}

    @cached_property
    def _dtypes(self) -> dict:
        return self._reader.get_variable_to_dtype_map()

    @cached_property
    def _size(self) -> int:
        return sum(os.path.getsize(file) for file in glob.glob(f"{glob.escape(self.prefix)}.data-*"))

    def check(self, key: str, shape: tuple[int, ...]) -> None:
        """Check, without reading it, that a value is there and has this shape.

        Raises:
            ValueError: it does not, or the files are too small to hold it.
        """
        found = self.shapes.get(key)
        if found != shape:
            raise ValueError(f"{self.prefix!r}: {key!r} has the shape {found} there, {shape} is expected.")
        if math.prod(shape) > self._size:
            raise ValueError(f"{self.prefix!r}: {key!r}, {shape}, cannot be in files of {self._size} bytes.")

    def read(self, keys: Sequence[str]) -> list:
        """Return values as TensorFlow tensors, which NumPy and Keras take over without a copy.

        One call for many keys opens the files once.

        Raises:
            ValueError: one is not there, or its file is missing or damaged (a checksum tells).
        """
        import tensorflow as tf

        try:
            return tf.raw_ops.RestoreV2(
                prefix=self.prefix,
                tensor_names=list(keys),
                shape_and_slices=[""] * len(keys),
                dtypes=[self._dtypes[key] for key in keys],
            )
        except Exception as error:
            raise ValueError(f"{self.prefix!r}: the variables cannot be read: {error}") from error
