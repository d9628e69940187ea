"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): train `x W + (α / r) · (x A) B` with `W` frozen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
from keras import ops

#: What may be adapted, in the words of google-research/bert: target → the dense layer's name within a block.
TARGETS: dict[str, str] = {
    "query": "attention/self/query",
    "key": "attention/self/key",
    "value": "attention/self/value",
    "attention_output": "attention/output/dense",
    "intermediate": "intermediate/dense",
    "output": "output/dense",
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


def layers_of(target: str, names: Iterable[str]) -> dict[str, str]:
    """Return the dense layers of a block that a target means: what their updates are called → the layer's name.

    MobileBERT's has several feed-forward layers; all of them are meant.
    """
    found = [re.fullmatch(rf"(?:(ffn_layer_\d+)/)?{TARGETS[target]}", name) for name in names]
    return {f"{match[1]}_{target}" if match[1] else target: match[0] for match in found if match}


class LowRank(NamedTuple):
    """The update of one kernel, or of one of several side by side: `A @ B`, of rank `r`.

    Attributes:
        a: variable `(in, r)`, Gaussian at first.
        b: variable `(r, out)`, zero at first: the layer then computes what it did.
        part: int. Which of the kernels side by side it updates.
    """

    a: keras.Variable
    b: keras.Variable
    part: int

    def full_b(self, parts: Sequence[int], dtype):
        """Return `B` with columns for these parts, zero for those that are not updated: `(r, len(parts) · out)`."""
        b = ops.cast(self.b, dtype)
        return ops.concatenate([b if part == self.part else ops.zeros_like(b) for part in parts], axis=-1)


def low_rank_product(rows, updates: Sequence[LowRank], parts: Sequence[int], scale: float):
    """Return `scale · Σ (rows A) B`, by two products for all updates: `(n, in)` → `(n, out)`.

    Args:
        rows: `(n, in)`.
        updates: list of `LowRank`, all of the same variable.
        parts: which of the kernels in that variable are computed, in order.
        scale: float. `α / r`.
    """
    a = ops.concatenate([ops.cast(update.a, rows.dtype) for update in updates], axis=-1)
    b = ops.concatenate([update.full_b(parts, rows.dtype) for update in updates], axis=0)
    return ops.matmul(ops.matmul(rows, a), b) * scale


def merged(kernel, updates: Sequence[LowRank], parts: Sequence[int], scale: float):
    """Return the kernel with its updates added: the same layer without them, up to rounding."""
    for update in updates:
        kernel = kernel + ops.matmul(update.a, update.full_b(parts, update.a.dtype)) * scale
    return kernel
