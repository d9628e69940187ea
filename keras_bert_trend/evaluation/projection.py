"""`TrajectoryPooling` as a scikit-learn transformer, so that every fold adapts it to its own training part."""

from __future__ import annotations

import numpy as np
from keras import ops
from sklearn.base import BaseEstimator, TransformerMixin

from keras_bert_trend.pooling import TrajectoryPooling


class Trajectory(TransformerMixin, BaseEstimator):
    """Token means of all layers in, embeddings out: float `(n, (L + 1) · hidden)` → `(n, dim)`.

    Args:
        dim: int or `None`. The width, as in `TrajectoryPooling`.
        seed: int. As in `TrajectoryPooling`.
        num_layers: int. L.
        control: bool. Whether to project the means of the last four layers instead of the steps, in the same way.
    """

    def __init__(self, dim: int | None, seed: int, num_layers: int, control: bool = False) -> None:
        self.dim = dim
        self.seed = seed
        self.num_layers = num_layers
        self.control = control

    def fit(self, X, y=None):  # noqa: N803  (scikit-learn's name for it)
        """Adapt to the training part."""
        self.pooling_ = TrajectoryPooling(self.dim, seed=self.seed)
        self.pooling_.adapt([self._levels(X)])
        return self

    def transform(self, X):  # noqa: N803
        """Project."""
        levels = ops.convert_to_tensor(self._levels(X).astype(np.float32))
        return ops.convert_to_numpy(self.pooling_.project(levels))

    def _levels(self, X):  # noqa: N803
        levels = np.reshape(X, (len(X), self.num_layers + 1, -1)).astype(np.float64)
        if not self.control:
            return levels
        return levels_with_steps(levels[:, 1:][:, -4:])


def levels_with_steps(steps: np.ndarray) -> np.ndarray:
    """Return the levels `(n, S + 1, hidden)`, zero at first, that take these steps `(n, S, hidden)`."""
    return np.cumsum(np.pad(steps, [(0, 0), (1, 0), (0, 0)]), axis=1)
