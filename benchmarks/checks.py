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

    `"train"` is a group without a reference: the loss must be finite and every weight must move. `"normalized"` must
    equal the group `"mean"` after division by the vectors' lengths.
    """

    def __init__(self) -> None:
        self.references: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
        #: label → the largest difference from its reference.
        self.differences: dict[str, float] = {}

    def __call__(self, contender: Contender, path: Path) -> None:
        """Compare the arrays in a file.

        Raises:
            ValueError: They differ from the reference, or training did not train.
        """
        with np.load(path) as file:
            arrays = dict(file)
        if contender.check == "train":
            if not np.all(np.isfinite(arrays["loss"])):
                raise ValueError(f"{contender.label}: the loss is {arrays['loss']}.")
            if not np.all(arrays["moved"]):
                raise ValueError(f"{contender.label}: {np.sum(~arrays['moved'])} weights did not move.")
            return
        if contender.check == "normalized":
            label, reference = self.references["mean"]
            vectors = reference["result"]
            reference = {"result": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}
        else:
            label, reference = self.references.setdefault(contender.check, (contender.label, arrays))
        largest = 0.0
        for name, expected in reference.items():
            if name not in arrays or arrays[name].shape != expected.shape:
                got = arrays[name].shape if name in arrays else None
                raise ValueError(f"{contender.label}: {name} has shape {got}, {label} has {expected.shape}.")
            difference = np.abs(expected.astype(np.float64) - arrays[name])
            within = np.mean(difference <= TOLERANCE)  # NaN is not within
            if within < SHARE_WITHIN.get(contender.check, 1):
                raise ValueError(
                    f"{contender.label} differs from {label} by up to {difference.max():.1e} in {1 - within:.1%} of "
                    f"{name!r}; {TOLERANCE:.0e} is allowed."
                )
            largest = max(largest, float(difference.max()))
        self.differences[contender.label] = largest
