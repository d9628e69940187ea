"""The one numerical rule that encoder and poolings share."""

from __future__ import annotations

import keras


def wide_dtype(tensor) -> str:
    """Return the dtype for sums, softmax, logarithms and norms over `tensor`: float64 stays, the rest is float32."""
    return "float64" if keras.backend.standardize_dtype(tensor.dtype) == "float64" else "float32"
