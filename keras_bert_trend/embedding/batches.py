"""Lengths of texts to batches of like lengths."""

from __future__ import annotations

import numpy as np

from keras_bert_trend.encoder.rows import WHOLE_VECTORS

_FULL_BATCH_LENGTH = 128  # longer texts come fewer to a batch


def whole_vectors(limit: int) -> np.ndarray:
    """Return the lengths at which padding changes no bit of a text's vector, and `limit`."""
    return np.minimum(np.arange(WHOLE_VECTORS, limit + WHOLE_VECTORS, WHOLE_VECTORS), limit)


def padded_lengths(limit: int) -> np.ndarray:
    """Return the lengths to pad to: steps of 8 up to 64, 16 up to 128, 32 up to 256 …, up to `limit`.

    They are few, because each is compiled.
    """
    lengths, step = [0], 8
    while lengths[-1] < limit:
        lengths.append(min(lengths[-1] + step, limit))
        step *= 2 if lengths[-1] == 8 * step else 1
    return np.array(lengths[1:])


def plan_batches(lengths: np.ndarray, batch_size: int, grid: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Divide texts into batches of similar length, the longest first.

    Args:
        lengths: int array `(n,)`. The texts' token counts, at most `grid[-1]`.
        batch_size: int. The largest number of texts per batch.
        grid: int array. The lengths to pad to, ascending.

    Returns:
        For every batch, the positions of its texts and the length to pad to. No text is padded to twice the length it
        needs, as far as the grid allows.
    """
    padded = grid[np.searchsorted(grid, lengths)]
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        length = int(padded[order[start]])
        rows = order[start : start + full_batch(batch_size, length)]
        rows = rows[2 * padded[rows] > length]  # one long text must not drag short ones along
        batches.append((rows, length))
        start += len(rows)
    return batches


def full_batch(batch_size: int, length: int) -> int:
    """Return how many texts of this length make a full batch: no more tokens than `batch_size` texts of 128."""
    return max(min(batch_size, batch_size * _FULL_BATCH_LENGTH // length), 1)


def rounded_up(rows: int, batch_size: int, length: int) -> int:
    """Return the batch size to fill up to, since each shape is compiled: a full batch, or a power of two."""
    return min(1 << (rows - 1).bit_length(), full_batch(batch_size, length))
