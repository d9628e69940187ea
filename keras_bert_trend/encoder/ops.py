"""The few ops whose form depends on the backend, each beside its portable equal.

TensorFlow's graph rewriter fuses operations only in certain forms: `tf.nn.bias_add` after a product of matrices,
`tf.nn.gelu` as a whole right after it, the sum with the residual right after it, and a LayerNorm written as a batch
normalisation. `keras.ops` reaches the same numbers everywhere else. A test holds the forms side by side, so nothing but
speed may differ, and another looks for the fused operations.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar

import keras
from keras import ops

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

#: Whether what is traced is for another engine: without what only TensorFlow needs, and what the engine lacks.
PORTABLE: ContextVar[bool] = ContextVar("portable", default=False)

if _ON_TENSORFLOW:
    import tensorflow as tf


def wide_dtype(tensor) -> str:
    """Return the dtype for sums, softmax, logarithms and norms over `tensor`: float64 stays, the rest is float32."""
    return "float64" if keras.backend.standardize_dtype(tensor.dtype) == "float64" else "float32"


def portable_dense(rows, kernel, bias):
    """`rows @ kernel + bias` in `keras.ops`: `(n, in)` → `(n, out)`."""
    return ops.add(ops.matmul(rows, kernel), bias)


def dense(rows, kernel, bias):
    """`rows @ kernel + bias`: `(n, in)` → `(n, out)`, in `rows`' dtype.

    Of matrices only: against a tensor of rank 3 `tf.matmul` becomes a batched product, which is never fused.
    """
    # Under mixed precision the variables stay as they are: rows of float32 meet them so, rows of half precision halved.
    kernel, bias = ops.cast(kernel, rows.dtype), ops.cast(bias, rows.dtype)
    if not _ON_TENSORFLOW:
        return portable_dense(rows, kernel, bias)
    return tf.nn.bias_add(tf.matmul(rows, kernel), bias)


def activation(x, name: str):
    """Apply `BertConfig.hidden_act` element by element.

    `"gelu"` is `x · Φ(x)`, `"gelu_tanh"` its tanh approximation (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    """
    if name == "relu":
        return ops.relu(x)
    if _ON_TENSORFLOW:  # the form that is fused with the product before it
        return tf.nn.gelu(x, approximate=name == "gelu_tanh")
    return ops.gelu(x, approximate=name == "gelu_tanh")


def argmax(x):
    """Return the first position of the largest number on the last axis, int32; `−0` counts as `0`."""
    if _ON_TENSORFLOW:  # Keras's own sets `−0` and `0` apart, by operations that other engines lack
        return tf.argmax(x, axis=-1, output_type=tf.int32)
    return ops.cast(ops.argmax(x, axis=-1), "int32")


def asinh(x):
    """Inverse hyperbolic sine, element by element."""
    if keras.backend.backend() != "jax" and not PORTABLE.get():
        return ops.arcsinh(x)
    # JAX exports its own as a composite operation, which TensorFlow 2.21 cannot load, and LiteRT has none. This form
    # neither cancels nor loses the gradient at zero.
    sign = ops.where(x < 0, -ops.ones_like(x), ops.ones_like(x))
    size = sign * x
    return sign * ops.log1p(size + ops.square(size) / (1 + ops.sqrt(1 + ops.square(size))))


def layer_norm(x, gamma, beta, epsilon: float, training=None):
    """Normalise the last axis of `x`, in float32 or wider, and return `x`'s dtype (Ba et al. 2016, arXiv:1607.06450).

    Two passes (mean first, then the squares of what is left), so that a large common offset does not cancel.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, wide_dtype(x))
    normalise = _normalise_fused if _may_fuse_layer_norm(x, training) else _normalise
    return ops.cast(normalise(x, epsilon) * gamma + beta, dtype)


def scale_and_shift(x, gamma, beta):
    """Return `x ⊙ gamma + beta` over the last axis, computed and returned as `layer_norm` does."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(ops.cast(x, wide_dtype(x)) * gamma + beta, dtype)


def _normalise(x, epsilon: float):
    centred = x - _mean_of_rows(x)
    variance = _mean_of_rows(ops.square(centred))
    return centred * _rsqrt_of_rows(variance + epsilon)


def _mean_of_rows(x):
    """Mean over the last axis, `(..., 1)`, in `x`'s own dtype."""
    if _ON_TENSORFLOW:
        return ops.mean(x, axis=-1, keepdims=True)
    # Under JAX `keras.ops.mean` computes float64 in float32 (Keras 3.15); its sum does not.
    return ops.sum(x, axis=-1, keepdims=True) / x.shape[-1]


def _may_fuse_layer_norm(x, training) -> bool:
    """Whether TensorFlow's rewriter will make one operation of `_normalise_fused` and what follows: oneDNN's, on a CPU.

    Anywhere else, eagerly and in training that form is the slower one; where all sizes are known too, for then the
    rewriter puts constants where it looks for the operations that make them.
    """
    if not _ON_TENSORFLOW or not (training is None or training is False):
        return False
    sizes_are_open = not tf.executing_eagerly() and not x.shape.is_fully_defined()
    return sizes_are_open and x.dtype == tf.float32 and runs_on_onednn()


@functools.cache
def runs_on_onednn() -> bool:
    """Whether TensorFlow computes with oneDNN: on CPUs with AVX-512 or the like, unless the environment decides."""
    only_cpus = {device.device_type for device in tf.config.list_physical_devices()} == {"CPU"}
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # TensorFlow has no public name for it
    except ImportError:
        return False
    return only_cpus and IsMklEnabled()


def _normalise_fused(x, epsilon: float):
    """Normalise as a batch normalisation of one image whose channels are the rows, as tf.keras's LayerNormalization."""
    width = x.shape[-1]
    rows = tf.size(x) // width
    image = tf.reshape(x, (1, rows, width, 1))
    # The raw operation, for `tf.nn`'s raises the epsilon to 1e-5.
    image = tf.raw_ops.FusedBatchNormV3(
        x=image,
        scale=tf.ones((rows,)),
        offset=tf.zeros((rows,)),
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=epsilon,
        data_format="NCHW",
        is_training=True,
    ).y
    return tf.reshape(image, tf.shape(x))


def _rsqrt_of_rows(x):
    """`1 / √x` for `(..., 1)`, to the same bit whichever and how many the other rows are.

    TensorFlow's CPU kernels compute whole vectors of 4 to 16 numbers in one way and the few that are left over at the
    end in another, which differs in the last bit. With sixteen numbers a row nothing is left over. All other operations
    of the encoder are the same for every row already, so this is what makes an embedding independent of its batch.
    """
    if not _ON_TENSORFLOW:
        return ops.rsqrt(x)
    return ops.rsqrt(ops.broadcast_to(x, (*ops.shape(x)[:-1], 16)))[..., :1]


def as_long_as(tensor, like, axis: int = 1):
    """Return `tensor` with the symbol that `like` `(B, T, …)` has for an open `T` on its `axis`.

    Under JAX `model.export` gives each input a symbol of its own for an open length, and JAX takes no two expressions
    of symbols for the same number. Elsewhere, and where the lengths are known, nothing is done.
    """
    length = like.shape[1]
    if keras.backend.backend() != "jax" or isinstance(length, int) or tensor.shape[axis] == length:
        return tensor
    return ops.take(tensor, ops.arange(length), axis=axis)


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


def is_placeholder(tensor) -> bool:
    """Whether `tensor` may be one of the placeholders that Keras tries a model on: all of them are float32.

    Keras builds, reloads and exports subclassed models with placeholders whose shapes it knows, but not their dtypes.
    """
    symbolic = not isinstance(tensor, keras.KerasTensor) and not is_concrete(tensor)
    return symbolic and keras.backend.standardize_dtype(tensor.dtype) == "float32"


def attach_mask(states, input_mask) -> None:
    """Attach the mask of the real tokens to states `(B, T, …)`, as Keras's layers that follow look for it."""
    from keras.src.backend.common.masking import set_keras_mask  # Keras has no public name for it

    set_keras_mask(states, ops.cast(input_mask, "bool"))


def refuse_to_quantize(mode: str | None) -> None:
    """Raise `ValueError`: Keras would quantize the head and leave BERT in float32 without a word."""
    raise ValueError(
        f"BERT cannot be quantized to {mode!r} here: quantize({mode!r}) would change the other layers alone. Use "
        'dtype="mixed_bfloat16" for less memory and time, embed(precision="int8") for smaller vectors, or '
        "model.quantize(filters=…) with a pattern that leaves BERT's layers out."
    )


def keep_mask(result, states):
    """Return `result` with the Keras mask that `states` carry: an operation on a tensor loses it."""
    from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

    mask = get_keras_mask(states)
    if mask is not None:
        set_keras_mask(result, mask)
    return result
