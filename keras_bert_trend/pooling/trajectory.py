"""Trajectory pooling: the path that a text takes through the layers, projected to a few dimensions."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bert_trend._utils import check_count
from keras_bert_trend.encoder.ops import wide_dtype
from keras_bert_trend.pooling.base import Needs, Pooling, hidden_states, masked_mean

#: A component counts if its variance is more than this share of the largest, and a step's dimension if its standard
#: deviation is: MiniLM's LayerNorms have gains of 1e-33, and what passes them is rounding.
_NEGLIGIBLE = 1e-6


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class TrajectoryPooling(Pooling):
    """The steps of a text from layer to layer, standardised and projected: a trend that is learned.

    With `M[l]` the mean of the hidden states `H[l, t]` over the real tokens, the path through the layers has the steps
    `D[l] = M[l + 1] − M[l]`, `l` = 0 … L − 1. All steps side by side, `L · hidden` numbers, are standardised and
    projected:

        (D − mean) / scale · kernel

    There are three ways to the projection:

    * **`adapt`** (`BertTrend.adapt(texts)`) fits it without labels: mean and scale of every dimension, and a kernel
      that projects onto the first `dim` principal components of the standardised steps. The components are turned by a
      rotation that `seed` fixes, so that standardising the embedding later does not whiten it, and scaled to variance 1
      on average. The same texts give the same kernel in any order and in batches of any size.
    * **Training.** The kernel is a trainable weight: with a head it learns from where `adapt` or the DCT left it. BERT
      may be frozen (`layer.encoder.trainable = False`) or not. `BertTrend(..., trainable=False)` freezes both.
    * **Neither.** Before `adapt`, mean is 0, scale 1, and the kernel is a discrete cosine transform over the layers,
      its lowest frequencies first, turned by `seed`: at the default `dim`, `(M[L] − M[0]) / √L` up to a rotation.

    A text without a real token gives the zero vector.

    Source: this package; the projection is a principal component analysis (Pearson 1901).

    Args:
        dim: int or `None`. The width of the embedding. Defaults to `hidden_size`.
        seed: int. The seed of the rotation. Defaults to 0.
        hidden_size: int or `None`. The encoder's width. By default it is taken from the encoder at the first use.
        num_layers: int or `None`. The encoder's number of blocks, likewise.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: if `dim` is not between 1 and `num_layers · hidden_size`, or if the encoder has another shape than
            the weights.
    """

    needs = Needs(padding=False)

    def __init__(
        self,
        dim: int | None = None,
        *,
        seed: int = 0,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if dim is not None:
            check_count("dim", dim)
        if (hidden_size is None) != (num_layers is None):
            raise ValueError(
                f"Give `hidden_size` and `num_layers` both or neither, got {hidden_size!r} and {num_layers!r}."
            )
        self.dim = dim
        self.seed = seed
        self.hidden_size, self.num_layers = None, None
        if hidden_size is not None:
            self.create_weights(hidden_size, num_layers)

    def create_weights(self, hidden_size: int, num_layers: int) -> None:
        """Create `mean` and `scale`, `(L, hidden)`, and `kernel`, `(L · hidden, dim)`, at the first call."""
        if self.hidden_size is not None:
            if (hidden_size, num_layers) != (self.hidden_size, self.num_layers):
                raise ValueError(
                    f"This TrajectoryPooling was made for an encoder with {self.num_layers} blocks, {self.hidden_size} "
                    f"wide; this one has {num_layers} blocks, {hidden_size} wide. Make another one for it."
                )
            return
        dim = self.output_dim(hidden_size, num_layers)
        self.hidden_size, self.num_layers = hidden_size, num_layers
        steps = (num_layers, hidden_size)
        self.mean = self.add_weight(steps, "zeros", name="mean", trainable=False)
        self.scale = self.add_weight(steps, "ones", name="scale", trainable=False)

        def cosines(shape, dtype):
            return ops.convert_to_tensor(self._turned(_cosines(num_layers, hidden_size, dim)), dtype)

        self.kernel = self.add_weight((num_layers * hidden_size, dim), cosines, name="kernel")

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        """Return `dim`, by default `hidden_size`."""
        if self.dim is not None and self.dim > num_layers * hidden_size:
            raise ValueError(
                f"`dim` must be at most {num_layers * hidden_size}, the {num_layers} steps of this encoder side by "
                f"side, got {self.dim}."
            )
        return hidden_size if self.dim is None else self.dim

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, dim)`."""
        exists = ops.any(ops.cast(input_mask, "bool"), axis=1, keepdims=True)
        pooled = self.project(_levels(outputs, input_mask))
        return ops.cast(ops.where(exists, pooled, ops.zeros_like(pooled)), outputs["sequence_output"].dtype)

    def project(self, levels):
        """Project the token means of all layers: float `(B, L + 1, hidden)` → `(B, dim)`."""
        mean, scale, kernel = (ops.cast(weight, levels.dtype) for weight in (self.mean, self.scale, self.kernel))
        steps = (levels[:, 1:] - levels[:, :-1] - mean) / scale
        return ops.matmul(ops.reshape(steps, (-1, self.num_layers * self.hidden_size)), kernel)

    def adapt(self, levels: Iterable[np.ndarray]) -> None:
        """Fit mean, scale and kernel to many texts; what was fitted or trained before is lost.

        As many texts as the steps are wide (`W = L · hidden`) are held in memory, `8 W²` bytes; of more texts only
        their covariance is. With no more than `dim` texts, the components that they leave open are those of the DCT,
        and a warning says so.

        Args:
            levels: iterable of float arrays `(texts, L + 1, hidden)`. The token means of all layers, batch by batch.

        Raises:
            ValueError: if there are fewer than two texts, or if a number is not finite.
        """
        levels = iter(levels)
        first = next(levels, None)
        if first is None:
            raise ValueError("`adapt` needs two texts at least, got none.")
        _, layers, hidden_size = first.shape
        self.create_weights(hidden_size, layers - 1)
        steps = (
            np.diff(np.asarray(batch, np.float64), axis=1).reshape(len(batch), -1)
            for batch in itertools.chain([first], levels)
        )
        dim = self.kernel.shape[1]
        mean, scale, components, variances = _principal_components(steps, dim)
        if not len(variances):
            raise ValueError("`adapt` needs texts that differ; all of them take the same steps.")
        if missing := dim - len(variances):
            warnings.warn(
                f"These texts differ in {len(variances)} directions; the other {missing} of the {dim} components stay "
                "those of the DCT. Adapt to more texts, 500 or more, or to a smaller `dim`.",
                stacklevel=2,
            )
            smooth = _cosines(self.num_layers, hidden_size, dim)
            smooth -= components @ (components.T @ smooth)
            components = np.hstack([components, np.linalg.svd(smooth, full_matrices=False)[0][:, :missing]])
        self.mean.assign(mean.reshape(self.mean.shape))
        self.scale.assign(scale.reshape(self.scale.shape))
        self.kernel.assign(self._turned(components) / np.sqrt(variances.sum() / dim))

    def _turned(self, basis: np.ndarray) -> np.ndarray:
        """Return another orthonormal basis `(W, dim)` of the same space, which `seed` and the space alone decide.

        It is the one closest to a random matrix (the polar factor of its projection): the signs and the order of the
        given basis make no difference, nor do rotations among components of the same variance.
        """
        target = np.random.default_rng(self.seed).standard_normal(basis.shape)
        left, _, right = np.linalg.svd(basis.T @ target)
        return basis @ (left @ right)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, and the encoder's shape once it is known."""
        names = ("dim", "seed", "hidden_size", "num_layers")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class LevelPooling(Pooling):
    """What `TrajectoryPooling` is adapted to: the token means of all layers, side by side, in float32 or wider.

    The steps between layers are small beside the layers: bfloat16 would round them away.
    """

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, (L + 1) · hidden)`."""
        levels = _levels(outputs, input_mask)
        return ops.reshape(levels, (-1, levels.shape[1] * levels.shape[2]))

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        return (num_layers + 1) * hidden_size


def _levels(outputs, input_mask):
    """Return the token means of all layers `(batch, L + 1, hidden)`, in float32 or wider."""
    states = hidden_states(outputs)
    wide = wide_dtype(states[-1])
    return ops.stack([masked_mean(ops.cast(state, wide), input_mask) for state in states], axis=1)


def _cosines(num_layers: int, hidden_size: int, dim: int) -> np.ndarray:
    """Return the lowest frequencies of a DCT over the layers, for every hidden dimension: orthonormal `(W, dim)`."""
    layers = np.arange(num_layers)
    frequencies = np.arange(-(-dim // hidden_size))
    waves = np.cos(np.pi * (layers[:, None] + 0.5) * frequencies / num_layers)  # DCT-II
    waves /= np.linalg.norm(waves, axis=0)
    return np.kron(waves, np.eye(hidden_size))[:, :dim]


def _principal_components(batches: Iterable[np.ndarray], most: int) -> tuple[np.ndarray, ...]:
    """Return mean and scale `(W,)`, components `(W, n)` of the standardised rows, and their variances, `(n,)`.

    Args:
        batches: iterable of float64 arrays `(rows, W)`.
        most: int. The most components to return, those of the greatest variance.
    """
    count, offset, total, products, kept = 0, None, 0.0, None, []
    for batch in batches:
        if not np.isfinite(batch).all():
            raise ValueError("`adapt` met a text whose hidden states are not finite.")
        offset = batch.mean(axis=0) if offset is None else offset  # near the mean: little cancels
        count, total = count + len(batch), total + (batch - offset).sum(axis=0)
        kept.append(batch - offset)
        if count > len(offset):  # from here on the products take less memory, and less time, than the rows
            rows = np.concatenate(kept)
            products = rows.T @ rows + (0 if products is None else products)
            kept = []
    if count < 2:
        raise ValueError("`adapt` needs two texts at least, got one.")
    centre = total / count
    if products is None:
        rows = np.concatenate(kept) - centre
        scale = _usable(np.sqrt(np.mean(rows**2, axis=0)))
        rows /= scale
        variances, vectors = np.linalg.eigh(rows @ rows.T / count)
    else:
        covariance = products / count - np.outer(centre, centre)
        scale = _usable(np.sqrt(np.diag(covariance)))
        variances, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = np.flatnonzero(variances > _NEGLIGIBLE * variances[-1])[-most:]
    variances, vectors = variances[kept], vectors[:, kept]
    if products is None:
        vectors = rows.T @ (vectors / np.sqrt(variances * count))
    return offset + centre, scale, vectors, variances


def _usable(scale: np.ndarray) -> np.ndarray:
    """Return the scale, 1 in place of what is negligible: such a dimension stays as small as it is."""
    return np.where(scale > _NEGLIGIBLE * scale.max(initial=0.0), scale, 1.0)
