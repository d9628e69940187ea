"""Trim and pack token ids into the encoder's inputs: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` for a pair.

Where each token goes is computed once, for TensorFlow (inside graphs and exports) and for NumPy (`embed`, which packs
batches by length) alike. TensorFlow Text has operations for both steps, but TF Serving releases have lacked them
(`TFText>RoundRobinTrim`): an export should need as few operations beyond core TensorFlow as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_bert_trend.preprocessing.vocabulary import SpecialIds
from keras_bert_trend.preprocessing.windows import WindowKind, Windows, cut_into_windows

_PADDING, _START, _END = range(3)  # the first of the ids that a position may hold; the segments' tokens follow
_SPECIAL_IDS = 3


def special_token_count(segments: int) -> int:
    """Return how many special tokens packing adds to one segment or to a pair: `[CLS]`, and `[SEP]` after each."""
    return 1 + segments


def trimmed_counts(counts: Sequence[Any], length, xp) -> list:
    """Return how many tokens each segment keeps.

    The segments of a pair are trimmed in turn (round robin), beginning with the first: a segment shorter than its half
    leaves the rest to the other.

    Args:
        counts: list of one or two int `(B,)`. The segments' token counts.
        length: int scalar. The length to trim to, special tokens included.
        xp: module. `tensorflow` or `numpy`, whichever the arrays are of.

    Returns:
        list of int `(B,)`, as many as `counts`.
    """
    budget = xp.maximum(length - special_token_count(len(counts)), 0)
    if len(counts) == 1:
        return [xp.minimum(counts[0], budget)]
    first, second = counts
    return [
        xp.minimum(first, xp.maximum(budget - budget // 2, budget - second)),
        xp.minimum(second, xp.maximum(budget // 2, budget - first)),
    ]


def _lay_out(starts: Sequence[Any], counts: Sequence[Any], column, xp) -> tuple[Any, Any, Any]:
    """Return what each position holds, as an index into the ids that it may hold.

    One gather then fills the batch, instead of ragged tensors that are cut, joined and made dense.

    Args:
        starts: list of int `(B, 1)`. The index of each segment's first token.
        counts: list of int `(B, 1)`. How many of its tokens are kept.
        column: int `(1, T)`. The positions.
        xp: module. `tensorflow` or `numpy`.

    Returns:
        The indices, int `(B, T)`, which positions are real, and which belong to a second segment, bool `(B, T)`.
    """
    source = xp.where(column == 0, _START, _PADDING)
    begin, second_begins = 1, None
    for start, count in zip(starts, counts, strict=True):
        after = begin + count
        source = xp.where((column >= begin) & (column < after), start - begin + column, source)
        source = xp.where(column == after, _END, source)
        begin = after + 1
        second_begins = begin if second_begins is None else second_begins
    real = column < begin
    return source, real, real & (column >= second_begins)


def pack_inputs(segments: Sequence[tf.RaggedTensor], length: tf.Tensor, ids: SpecialIds) -> dict[str, tf.Tensor]:
    """Pack ragged segments, trimmed and padded to `length`, with core TensorFlow operations only.

    Args:
        segments: list of one or two ragged int32 `(B, None)`.
        length: int32 scalar. The length to trim and pad to.
        ids: `SpecialIds`.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`: int32 `(B, length)`; type ids are 0 in the first segment, 1 in
        the second, 0 in the padding.

    Raises:
        tf.errors.InvalidArgumentError: if there are not as many first segments as second segments.
    """
    if len(segments) == 2:
        tf.debugging.assert_equal(
            *(segment.nrows() for segment in segments), message="The two segments of pairs must be as many."
        )
    starts, first = [], _SPECIAL_IDS
    for segment in segments:
        starts.append(first + tf.cast(segment.row_starts(), tf.int32)[:, tf.newaxis])
        first = first + tf.size(segment.values)
    counts = [tf.cast(segment.row_lengths(), tf.int32) for segment in segments]
    kept = [count[:, tf.newaxis] for count in trimmed_counts(counts, length, tf)]
    source, real, second = _lay_out(starts, kept, tf.range(length)[tf.newaxis], tf)
    choices = tf.concat([list(ids), *(segment.values for segment in segments)], axis=0)
    return {
        "input_word_ids": tf.gather(choices, source),
        "input_mask": tf.cast(real, tf.int32),
        "input_type_ids": tf.cast(second, tf.int32),
    }


class TokenArrays(NamedTuple):
    """Token ids of many texts, one or two segments each, as flat arrays that any choice of texts is packed from.

    Attributes:
        choices: int32 `(n,)`. The special ids, then all tokens of all segments.
        starts: list of int `(texts, 1)`. The index in `choices` where each segment begins.
        counts: list of int `(texts,)`. The segments' token counts.
    """

    choices: np.ndarray
    starts: list[np.ndarray]
    counts: list[np.ndarray]

    @classmethod
    def of(cls, segments: Sequence[tuple[np.ndarray, np.ndarray]], ids: SpecialIds) -> TokenArrays:
        """Join segments, each given as all its tokens, int32 `(n,)`, and the texts' token counts, int `(texts,)`."""
        values = [np.array(ids, np.int32), *(tokens for tokens, _ in segments)]
        first = np.cumsum([len(array) for array in values])
        starts = [
            (begin + np.cumsum(counts) - counts)[:, np.newaxis]
            for begin, (_, counts) in zip(first, segments, strict=False)
        ]
        return cls(np.concatenate(values), starts, [counts for _, counts in segments])

    def lengths(self) -> np.ndarray:
        """Return the texts' lengths, special tokens included: int `(texts,)`."""
        return sum(self.counts) + special_token_count(len(self.counts))

    def windows(self, size: int, stride: int, kind: WindowKind) -> tuple[TokenArrays, Windows]:
        """Return the windows of texts of one segment, to be packed in their place, and whose they are."""
        (starts,), (counts,) = self.starts, self.counts
        windows = cut_into_windows(starts[:, 0], counts, size, stride, kind, np)
        return TokenArrays(self.choices, [windows.starts[:, np.newaxis]], [windows.counts]), windows

    def pack(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Do what `pack_inputs` does, for the texts at `rows`."""
        kept = trimmed_counts([count[rows] for count in self.counts], length, np)
        starts = [start[rows] for start in self.starts]
        source, real, second = _lay_out(
            starts, [count[:, np.newaxis] for count in kept], np.arange(length)[np.newaxis], np
        )
        return {
            "input_word_ids": np.take(self.choices, source),
            "input_mask": real.astype(np.int32),
            "input_type_ids": second.astype(np.int32),
        }
