"""The few ops whose form depends on the backend, each beside its portable equal.

TensorFlow's graph rewriter fuses a matmul with what follows it only in certain forms: `tf.nn.bias_add` after the
matmul, and `tf.nn.gelu` as a whole. `keras.ops` reaches the same numbers everywhere else. A test holds the two
forms side by side, so nothing but speed may differ.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.numerics import wide_dtype

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if _ON_TENSORFLOW:
    import tensorflow as tf


def portable_dense(x, kernel, bias):
    """`x @ kernel + bias` over the last axis, in `keras.ops`: `(..., in)` → `(..., out)`."""
    return ops.add(ops.matmul(x, kernel), bias)


def dense(x, kernel, bias):
    """`x @ kernel + bias` over the last axis: `(batch, seq, in)` → `(batch, seq, out)`, in `x`'s dtype."""
    if not _ON_TENSORFLOW:
        return portable_dense(x, kernel, bias)
    # One 2-D product: a rank-3 `tf.matmul` against a 2-D kernel becomes a batched product, which is never fused.
    shape = ops.shape(x)
    rows = tf.reshape(x, (-1, x.shape[-1]))
    rows = tf.nn.bias_add(tf.matmul(rows, kernel), bias)
    return tf.reshape(rows, (*shape[:-1], kernel.shape[-1]))


def activation(x, name: str):
    """Apply `BertConfig.hidden_act` element by element.

    `"gelu"` is `x · Φ(x)`, `"gelu_tanh"` its tanh approximation (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    """
    if name == "relu":
        return ops.relu(x)
    return ops.gelu(x, approximate=name == "gelu_tanh")


def layer_norm(x, gamma, beta, epsilon: float):
    """Normalise the last axis of `x`, in float32 or wider, and return `x`'s dtype (Ba et al. 2016, arXiv:1607.06450).

    Two passes (mean first, then the squares of what is left), so that a large common offset does not cancel.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, wide_dtype(x))
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return ops.cast(centred * _rsqrt_of_rows(variance + epsilon) * gamma + beta, dtype)


def _rsqrt_of_rows(x):
    """`1 / √x` for `(..., 1)`, to the same bit whichever and how many the other rows are.

    TensorFlow's CPU kernels compute whole vectors of 4 to 16 numbers in one way and the few that are left over at the
    end in another, which differs in the last bit. With sixteen numbers a row nothing is left over. All other operations
    of the encoder are the same for every row already, so this is what makes an embedding independent of its batch.
    """
    if not _ON_TENSORFLOW:
        return ops.rsqrt(x)
    return ops.rsqrt(ops.broadcast_to(x, (*ops.shape(x)[:-1], 16)))[..., :1]


def is_concrete(tensor) -> bool:
    """Whether `tensor` holds values that Python can look at now (eager), not a symbol of a graph being traced."""
    if isinstance(tensor, keras.KerasTensor):
        return False
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return tf.executing_eagerly() and not tf.is_symbolic_tensor(tensor)
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return getattr(tensor, "device", None) is None or str(tensor.device) != "meta"
