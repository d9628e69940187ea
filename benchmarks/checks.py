"""Nothing is timed that computes something else: every contender's result is compared first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness import Contender

TOLERANCE = 1e-4  # the largest difference of any number
# The log of a ratio of near-zero states magnifies their rounding error without bound, in few dimensions.
SHARE_WITHIN = {"trend": 0.98, "smooth_trend": 0.98}


class Checks:
    """Compares results that must agree. The first of a group (`Contender.check`) is the reference.

    The group `"normalized"` must equal `"mean"` after division by the vectors' lengths. `"train"` has no reference:
    the loss must be finite and every weight must move.
    """

    def __init__(self) -> None:
        self.references: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
        #: label → the largest difference from its reference.
        self.differences: dict[str, float] = {}

    def __call__(self, contender: Contender, path: Path) -> None:
        """Compare the arrays in a file; raise `ValueError` if they differ, or if training did not train."""
        with np.load(path) as file:
            arrays = dict(file)
        name, group = contender.label, contender.check
        if group == "train":
            if not (np.isfinite(arrays["loss"]).all() and arrays["moved"].all()):
                still = np.sum(~arrays["moved"])
                raise ValueError(f"{name}: the loss is {arrays['loss']}, {still} weights did not move.")
            return
        if group == "normalized":
            label, reference = self.references["mean"]
            vectors = reference["result"]
            reference = {"result": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}
        else:
            label, reference = self.references.setdefault(group, (name, arrays))
        shapes, expected = ({key: one.shape for key, one in some.items()} for some in (arrays, reference))
        if shapes != expected:
            raise ValueError(f"{name} returns {shapes}, {label} returns {expected}.")
        differences = {key: np.abs(one.astype(np.float64) - arrays[key]) for key, one in reference.items()}
        self.differences[name] = max(float(difference.max()) for difference in differences.values())
        for key, difference in differences.items():
            within = np.mean(difference <= TOLERANCE)  # NaN is not within
            if within < SHARE_WITHIN.get(group, 1):
                raise ValueError(
                    f"{name}: {1 - within:.1%} of {key!r} differs from {label}, by up to {difference.max()}."
                )
