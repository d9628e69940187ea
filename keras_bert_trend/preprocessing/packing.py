"""Trim and pack ragged token ids into the encoder's inputs, with core TensorFlow ops only.

TensorFlow Text has ops for both, but TF Serving releases have lacked them (`TFText>RoundRobinTrim`): what is exported
should need as few ops beyond core TensorFlow as possible.
"""

from __future__ import annotations

import tensorflow as tf


def round_robin_lengths(first: tf.Tensor, second: tf.Tensor, budget: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return how many tokens each segment keeps when they take turns, the first one beginning.

    Args:
        first: token counts of the first segments, int `(batch,)`.
        second: token counts of the second segments, int `(batch,)`.
        budget: how many tokens there is room for, int scalar.

    Returns:
        The two kept counts, int `(batch,)`. A segment shorter than its half leaves the rest to the other.
    """
    kept_first = tf.minimum(first, tf.maximum(budget - budget // 2, budget - second))
    kept_second = tf.minimum(second, tf.maximum(budget // 2, budget - first))
    return kept_first, kept_second


def pack_inputs(
    segments: list[tf.RaggedTensor], length: tf.Tensor, start_id: int, end_id: int, padding_id: int
) -> dict[str, tf.Tensor]:
    """Pack segments as `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, trimmed and padded to `length`.

    Args:
        segments: one or two ragged int32 tensors `(batch, None)`.
        length: the length to trim and pad to, int32 scalar.
        start_id: id of `[CLS]`.
        end_id: id of `[SEP]`.
        padding_id: id of `[PAD]`.

    Raises:
        tf.errors.InvalidArgumentError: the two segments are not as many.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`: int32 `(batch, length)`; type ids are 0 in the first
        segment, 1 in the second, 0 in the padding.
    """
    if len(segments) == 2:
        tf.debugging.assert_equal(
            *(segment.nrows() for segment in segments), message="The two segments of pairs must be as many."
        )
    counts = [tf.cast(segment.row_lengths(), tf.int32) for segment in segments]
    budget = tf.maximum(length - 1 - len(segments), 0)
    kept = [tf.minimum(counts[0], budget)] if len(segments) == 1 else list(round_robin_lengths(*counts, budget))

    # Every position is looked up in one vector of all there is to stand there: a gather instead of ragged tensors that
    # are cut, joined and made dense.
    padding, start, end = range(3)
    choices = tf.concat([[padding_id, start_id, end_id], *(segment.values for segment in segments)], axis=0)
    column = tf.range(length)[tf.newaxis]
    source = tf.where(column == 0, start, padding)
    begin, first_choice, second_begins = 1, 3, None
    for segment, count in zip(segments, kept, strict=True):
        offset = first_choice + tf.cast(segment.row_starts(), tf.int32)[:, tf.newaxis] - begin
        after = begin + count[:, tf.newaxis]
        source = tf.where((column >= begin) & (column < after), offset + column, source)
        source = tf.where(column == after, end, source)
        begin, first_choice = after + 1, first_choice + tf.size(segment.values)
        second_begins = begin if second_begins is None else second_begins
    real = column < begin
    return {
        "input_word_ids": tf.gather(choices, source),
        "input_mask": tf.cast(real, tf.int32),
        "input_type_ids": tf.cast(real & (column >= second_begins), tf.int32),
    }
