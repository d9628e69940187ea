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

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`: int32 `(batch, length)`; type ids are 0 in the first
        segment, 1 in the second, 0 in the padding.
    """
    budget = tf.maximum(length - 1 - len(segments), 0)
    counts = [segment.row_lengths() for segment in segments]
    budget = tf.cast(budget, counts[0].dtype)
    kept = [tf.minimum(counts[0], budget)] if len(segments) == 1 else list(round_robin_lengths(*counts, budget))

    batch = segments[0].nrows()
    start = tf.fill(tf.stack([batch, 1]), start_id)
    end = tf.fill(tf.stack([batch, 1]), end_id)
    ids, types = [start], [tf.zeros_like(start)]
    for number, (segment, count) in enumerate(zip(segments, kept, strict=True)):
        trimmed = _keep_first(segment, count)
        ids += [trimmed, end]
        types += [trimmed.with_values(tf.fill(tf.shape(trimmed.values), number)), tf.fill(tf.shape(end), number)]
    ids, types = tf.concat(ids, axis=1), tf.concat(types, axis=1)
    return {
        "input_word_ids": _to_dense(ids, length, padding_id),
        "input_mask": _to_dense(tf.ones_like(ids), length, 0),
        "input_type_ids": _to_dense(types, length, 0),
    }


def _to_dense(ragged: tf.RaggedTensor, length: tf.Tensor, padding: int) -> tf.Tensor:
    """Pad every row to `length`, also where there is no row to tell how long rows are."""
    dense = ragged.to_tensor(padding)
    return tf.pad(dense, [[0, 0], [0, length - tf.shape(dense)[1]]], constant_values=padding)


def _keep_first(segment: tf.RaggedTensor, counts: tf.Tensor) -> tf.RaggedTensor:
    """Keep the first `counts[i]` values of each row `i`."""
    positions = tf.range(tf.size(segment.values, out_type=counts.dtype)) - tf.gather(
        segment.row_starts(), segment.value_rowids()
    )
    kept = positions < tf.gather(counts, segment.value_rowids())
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(segment.values, kept), counts, validate=False)
