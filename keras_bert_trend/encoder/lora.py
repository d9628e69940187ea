"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): train `x W + (α / r) · (x A) B` with `W` frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

#: What may be adapted, in the words of google-research/bert: target → the kernel of a block that holds it, and which
#: of its columns: third 0, 1 or 2 of the shared query-key-value kernel, or `None` for all.
TARGETS: dict[str, tuple[str, int | None]] = {
    "query": ("qkv_kernel", 0),
    "key": ("qkv_kernel", 1),
    "value": ("qkv_kernel", 2),
    "attention_output": ("attention_kernel", None),
    "intermediate": ("inner_kernel", None),
    "output": ("output_kernel", None),
}


def check_targets(target: Sequence[str]) -> tuple[str, ...]:
    """Return the targets as a tuple.

    Raises:
        ValueError: if they are none, or one of them is unknown.
    """
    targets = tuple(target) if isinstance(target, list | tuple) else ()
    if not targets or not set(targets) <= set(TARGETS) or len(set(targets)) < len(targets):
        raise ValueError(f"`target` must be a list out of {list(TARGETS)}, each at most once, got {target!r}.")
    return targets


class LowRank(NamedTuple):
    """The update of one kernel, or of a third of one: `A @ B`, of rank `r`.

    Attributes:
        a: variable `(in, r)`, Gaussian at first.
        b: variable `(r, out)`, zero at first: the layer then computes what it did.
        third: int or `None`. Which third of the kernel's columns it updates; `None` is all.
    """

    a: keras.Variable
    b: keras.Variable
    third: int | None

    def full_b(self, thirds: Sequence[int], dtype):
        """Return `B` with columns for these thirds, zero for those that are not updated: `(r, len(thirds) · out)`."""
        b = ops.cast(self.b, dtype)
        if self.third is None:
            return b
        return ops.concatenate([b if third == self.third else ops.zeros_like(b) for third in thirds], axis=-1)


def low_rank_product(rows, updates: Sequence[LowRank], thirds: Sequence[int], scale: float):
    """Return `scale · Σ (rows A) B`, by two products for all updates: `(n, in)` → `(n, out)`.

    Args:
        rows: `(n, in)`.
        updates: list of `LowRank`, all of the same kernel.
        thirds: which thirds of the kernel's columns are computed, in order; ignored if it has none.
        scale: float. `α / r`.
    """
    a = ops.concatenate([ops.cast(update.a, rows.dtype) for update in updates], axis=-1)
    b = ops.concatenate([update.full_b(thirds, rows.dtype) for update in updates], axis=0)
    return ops.matmul(ops.matmul(rows, a), b) * scale


def merged(kernel, updates: Sequence[LowRank], scale: float):
    """Return the kernel with its updates added: the same layer without them, up to rounding."""
    for update in updates:
        kernel = kernel + ops.matmul(update.a, update.full_b(range(3), update.a.dtype)) * scale
    return kernel
