"""Long texts as several windows of tokens that overlap, for TensorFlow (inside graphs and exports) and NumPy alike."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

WindowKind = Literal["mean", "first_last"]


class Windows(NamedTuple):
    """The windows of a batch of texts, those of one text after those of another.

    Attributes:
        owners: int `(W,)`. The text that each window is cut from.
        starts: int `(W,)`. Where each window begins among all tokens.
        counts: int `(W,)`. How many tokens it has.
        weights: float64 `(W,)`. Its share in its text: 1 for the windows of a text together.
    """

    owners: Any
    starts: Any
    counts: Any
    weights: Any

    def averages(self, vectors: np.ndarray) -> np.ndarray:
        """Return the weighted mean of each text's windows: float32 `(W, dim)` → `(B, dim)`, in NumPy."""
        weighted = vectors * self.weights[:, np.newaxis].astype(np.float32)
        return np.add.reduceat(weighted, np.flatnonzero(self.firsts))

    @property
    def firsts(self) -> np.ndarray:
        """Which windows are the first of a text, bool `(W,)`, in NumPy."""
        return np.diff(self.owners, prepend=-1) != 0


def default_stride(size: int) -> int:
    """Return the stride at which neighbouring windows share a quarter of their tokens."""
    return max(size - size // 4, 1)


def check_stride(stride: int | None, kind: WindowKind, size: int) -> None:
    """Raise `ValueError` unless `stride` is `None`, or a number of tokens that leaves none out between two windows."""
    if stride is None:
        return
    if kind != "mean":
        raise ValueError(f"`stride` goes with 'mean', windows all along a text, not with {kind!r}.")
    if isinstance(stride, bool) or not isinstance(stride, int | np.integer) or not 1 <= stride <= size:
        raise ValueError(f"`stride` must be between 1 and {size}, the tokens of a window, got {stride!r}.")


def cut_into_windows(starts, counts, size: int, stride: int, kind: WindowKind, xp) -> Windows:
    """Cut texts into windows of `size` tokens that begin every `stride` tokens.

    The last window ends with the text, so that all windows of a long text are full. A text that fits is one window.
    `"first_last"` keeps the first and the last. Every token that is in a window counts once: windows that share it
    share its weight. With `c[t]` the number of windows that hold token `t`, window `w` weighs `Σ 1 / c[t]` over its
    tokens, divided by the sum for all windows of the text.

    Args:
        starts: int `(B,)`. Where each text begins among all tokens, ascending.
        counts: int `(B,)`. The texts' token counts.
        size: int. The most tokens of a window, special tokens not included.
        stride: int. The tokens from the start of a window to the start of the next, at most `size`.
        kind: str. `"mean"` or `"first_last"`.
        xp: module. `tensorflow` or `numpy`, whichever the arrays are of.
    """
    beyond = xp.maximum(counts - size, 0)
    stride = beyond if kind == "first_last" else xp.zeros_like(beyond) + stride
    stride = xp.maximum(stride, 1)
    each = 1 + (beyond + stride - 1) // stride  # windows of each text
    owners = xp.repeat(_counted(each, xp), each)
    within = _counted(owners, xp) - _of(xp.cumsum(each) - each, owners, xp)
    offsets = xp.minimum(within * _of(stride, owners, xp), _of(beyond, owners, xp))
    begins, sizes = _of(starts, owners, xp) + offsets, xp.minimum(_of(counts, owners, xp), size)

    holder = xp.repeat(_counted(owners, xp), sizes)  # of every token of every window, that window
    tokens = token_indices(begins, sizes, xp)
    holding = xp.searchsorted(begins, tokens, side="right") - xp.searchsorted(begins + sizes, tokens, side="right")
    weights = _sums(holder, 1 / holding, owners, xp)
    weights = xp.where(sizes == 0, xp.ones_like(weights), weights)  # a text without a token
    return Windows(owners, begins, sizes, weights / _of(_sums(owners, weights, each, xp), owners, xp))


def token_indices(starts, counts, xp):
    """Return `start, start + 1, …`, `count` of them, for one start after the other."""
    held = xp.repeat(starts - (xp.cumsum(counts) - counts), counts)
    return held + _counted(held, xp)


def _counted(like, xp):
    """Return 0, 1, 2 …, as many as `like` has."""
    return xp.cumsum(xp.ones_like(like)) - 1


def _of(values, index, xp):
    return values[index] if xp is np else xp.gather(values, index)


def _sums(index, values, like, xp):
    """Return the sums of the values that have one index, for as many indices as `like` is long."""
    if xp is np:
        return np.bincount(index, values, len(like))
    return xp.math.unsorted_segment_sum(values, index, xp.size(like))
