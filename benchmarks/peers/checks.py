"""Nothing is timed that computes something else: every contender's result is compared first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .harness import Contender

# The log of a ratio of near-zero states magnifies their rounding without bound, in few dimensions.
LOG_RATIOS = ("trend", "smooth_trend")
LOG_RATIOS_CLOSE = 0.98


class Checks:
    """Compare the results of contenders that should agree; the first of a group is what the others are held to.

    Args:
        tolerance: the largest difference of any number.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.references: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
        #: label → the largest difference from its reference.
        self.differences: dict[str, float] = {}

    def __call__(self, contender: Contender, path: Path) -> None:
        """Check one contender's arrays.

        Raises:
            ValueError: they differ, or training did not train.
        """
        with np.load(path) as file:
            arrays = dict(file)
        if contender.check == "train":
            self._trained(contender, arrays)
            return
        if contender.check == "normalized":  # by mean, divided by the vectors' lengths
            label, expected = self.references["mean"]
            vectors = expected["result"]
            expected = {"result": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}
        else:
            label, expected = self.references.setdefault(contender.check, (contender.label, arrays))
        self._equal(contender, arrays, label, expected)

    def _trained(self, contender: Contender, arrays: dict[str, np.ndarray]) -> None:
        if not np.all(np.isfinite(arrays["loss"])):
            raise ValueError(f"{contender.label}: the loss is {arrays['loss']}.")
        if not np.all(arrays["moved"]):
            frozen = int(np.sum(~arrays["moved"]))
            raise ValueError(f"{contender.label}: {frozen} of {len(arrays['moved'])} weights did not move.")
        self.differences[contender.label] = 0.0

    def _equal(self, contender, arrays, label: str, expected) -> None:
        largest = 0.0
        for name, one in expected.items():
            other = arrays.get(name)
            if other is None or other.shape != one.shape:
                got = None if other is None else other.shape
                raise ValueError(f"{contender.label}: {name} has shape {got}, {label} has {one.shape}.")
            difference = np.abs(one.astype(np.float64) - other)
            close = difference <= self.tolerance  # False also where something is NaN
            if np.mean(close) < (LOG_RATIOS_CLOSE if contender.check in LOG_RATIOS else 1):
                raise ValueError(
                    f"{contender.label} differs from {label} by up to {difference.max():.1e} in {np.sum(~close)} of "
                    f"{close.size} numbers of {name!r}; {self.tolerance:.0e} is allowed."
                )
            largest = max(largest, float(difference.max()))
        self.differences[contender.label] = largest
