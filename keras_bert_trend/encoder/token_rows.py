"""The tokens of a batch as the rows of one matrix, and back: all positions, or the real tokens alone.

Everything in a block but attention's products looks at one token at a time. Where texts of different lengths are padded
to one length, most of what is computed may be padding; the real tokens can be taken out instead, computed on their own
and put back for attention (as NVIDIA's FasterTransformer and ByteDance's Effective Transformer do for BERT).
"""

from __future__ import annotations

import keras
from keras import ops

#: Sums over the tokens of a text, as attention's are, are computed in vectors of at most 16 float32 (AVX-512). What is
#: left over at the end is added in another order: only at lengths of whole vectors does padding never change a bit.
WHOLE_VECTORS = 16

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if _ON_TENSORFLOW:
    import tensorflow as tf


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

    TensorFlow only, and not for XLA, which needs to know sizes beforehand.

    Args:
        input_mask: int `(batch, seq)`, 1 for real tokens.

    Raises:
        NotImplementedError: Keras runs on another backend.
    """

    def __init__(self, input_mask) -> None:
        if not _ON_TENSORFLOW:
            raise NotImplementedError("Padding is left out under the TensorFlow backend only: others must know sizes.")
        real = tf.not_equal(tf.reshape(input_mask, (-1,)), 0)
        self._places = tf.cast(tf.where(real)[:, 0], tf.int32)  # of the rows, among all positions
        count = tf.size(self._places)
        # Of every position, its row; of padding, a row of zeros that comes after the last.
        self._numbers = tf.where(real, tf.cumsum(tf.cast(real, tf.int32)) - 1, count)

    def rows(self, x):
        """`(batch, seq, width)` → `(tokens, width)`."""
        return self._take_out(tf.reshape(x, (-1, x.shape[-1])))

    def spread(self, rows, like):
        """`(tokens, width)` → `(batch, seq, width)`, zero for padding, with the first two sizes of `like`."""
        return tf.reshape(self._put_back(rows), (*ops.shape(like)[:2], rows.shape[-1]))

    # Each is the other's gradient, for no position is taken twice. TensorFlow's own gradient of a gather adds up.
    def _take_out(self, flat):
        @tf.custom_gradient
        def take_out(flat):
            return tf.gather(flat, self._places), self._put_back

        return take_out(flat)

    def _put_back(self, rows):
        @tf.custom_gradient
        def put_back(rows):
            zeros = tf.zeros((1, rows.shape[-1]), rows.dtype)
            return tf.gather(tf.concat([rows, zeros], axis=0), self._numbers), self._take_out

        return put_back(rows)
