"""The tokens of a batch as the rows of one matrix, and back: all positions, or the real tokens alone.

Everything in a block but attention's products looks at one token at a time. Where texts of different lengths are padded
to one length, most of what is computed may be padding; the real tokens can be taken out instead, computed on their own
and put back for attention (as NVIDIA's FasterTransformer and ByteDance's Effective Transformer do for BERT).
"""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.ops import PORTABLE

#: Sums over the tokens of a text, as attention's are, are computed in vectors of at most 16 float32 (AVX-512). What is
#: left over at the end is added in another order: only at lengths of whole vectors does padding never change a bit.
WHOLE_VECTORS = 16

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if _ON_TENSORFLOW:
    import tensorflow as tf


def can_skip_padding() -> bool:
    """Whether this backend takes sizes that depend on values."""
    return _ON_TENSORFLOW


def resized(inputs: dict, padding_id: int, longest: int, reads_next_token: bool = False) -> dict:
    """Cut what only pads, and pad what is left to whole vectors; TensorFlow only.

    Args:
        inputs: the encoder's three inputs, int32 `(batch, seq)`.
        padding_id: what `input_word_ids` are padded with.
        longest: the length that nothing is padded beyond. Texts that end in the last, incomplete vector are all padded
            to this one, so that their padding does not change either.
        reads_next_token: whether a token's embedding depends on the next, so that every text shorter than `longest` has
            to be followed by padding. Defaults to `False`.

    Returns:
        The same tokens, `(batch, n)`: `n` is a multiple of 16, or `longest`. In a graph both sizes are open, even where
        the number of texts is known: TensorFlow's rewriter does not fuse all operations where it knows all sizes, and
        what is fused rounds otherwise. `fit` and `predict` know the size of their first batch.
    """
    mask = inputs["input_mask"]
    length = tf.shape(mask)[1]
    ends = tf.range(1, length + 1) * tf.cast(tf.reduce_any(mask != 0, axis=0), tf.int32)
    end = tf.maximum(tf.reduce_max(ends), 1)  # an empty batch has none
    if reads_next_token:
        end = tf.maximum(end, tf.minimum(end + 1, longest))
    wanted = -(-end // WHOLE_VECTORS) * WHOLE_VECTORS
    wanted = tf.minimum(wanted, tf.maximum(longest, end))
    padding = [[0, 0], [0, tf.maximum(wanted - length, 0)]]
    fill = {"input_word_ids": padding_id}
    padded = {
        name: tf.pad(value[:, :wanted], padding, constant_values=fill.get(name, 0)) for name, value in inputs.items()
    }
    if tf.executing_eagerly():
        return padded
    return {name: tf.raw_ops.PlaceholderWithDefault(input=x, shape=[None, None]) for name, x in padded.items()}


def in_whole_vectors(x, axis: int, fill: float = 0.0):
    """Pad an axis of tokens to whole vectors, under TensorFlow and on its own engine; elsewhere return `x`."""
    length = x.shape[axis]
    if not _ON_TENSORFLOW or PORTABLE.get() or (length is not None and length % WHOLE_VECTORS == 0):
        return x
    missing = -(tf.shape(x)[axis] if length is None else length) % WHOLE_VECTORS
    padding = [[0, missing if number == axis else 0] for number in range(len(x.shape))]
    return tf.pad(x, padding, constant_values=fill)


class AllPositions:
    """Every position is a row: two reshapes."""

    def rows(self, x):
        """`(batch, seq, width)` → `(batch · seq, width)`."""
        return ops.reshape(x, (-1, x.shape[-1]))

    def spread(self, rows, like):
        """`(batch · seq, width)` → `(batch, seq, width)`, with the first two sizes of `like`."""
        return ops.reshape(rows, (*ops.shape(like)[:2], rows.shape[-1]))


class RealTokens:
    """The real tokens are the rows, in the order of the batch: how many is known from the values alone.

    TensorFlow only, and not for XLA, which needs to know sizes beforehand. (Operations whose own gradients move rows:
    `tf.custom_gradient` would keep every graph that it is traced in alive.)

    Args:
        input_mask: int `(batch, seq)`, 1 for real tokens.

    Raises:
        NotImplementedError: Keras runs on another backend.
    """

    def __init__(self, input_mask) -> None:
        if not _ON_TENSORFLOW:
            raise NotImplementedError("Padding is left out under the TensorFlow backend only: others must know sizes.")
        self._real = tf.cast(tf.reshape(input_mask, (-1,)) != 0, tf.int32)
        self._places = tf.cast(tf.where(self._real), tf.int32)  # of the rows, among all positions: (tokens, 1)

    def rows(self, x):
        """`(batch, seq, width)` → `(tokens, width)`."""
        return tf.dynamic_partition(tf.reshape(x, (-1, x.shape[-1])), self._real, 2)[1]

    def spread(self, rows, like):
        """`(tokens, width)` → `(batch, seq, width)`, zero for padding, with the first two sizes of `like`."""
        width = rows.shape[-1]
        flat = tf.scatter_nd(self._places, rows, (tf.size(self._real), width))
        return tf.reshape(flat, (*ops.shape(like)[:2], width))
