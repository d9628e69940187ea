"""One function for each encoder and choice of poolings, for batches of any shape."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert_trend.encoder.rows import can_skip_padding
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling, get_pooling, run_encoder

_KEPT_FUNCTIONS = 8  # per encoder


def named_poolings(layer: BertTrend, pooling, separate: bool) -> dict[str, Any]:
    """Return name → hashable key of a pooling: a name, a layer, or a tuple of them."""
    chosen = layer.pooling if pooling is None else pooling
    if isinstance(chosen, list | tuple) and not chosen:
        raise ValueError("`pooling` must not be an empty list.")
    parts = list(chosen) if separate and isinstance(chosen, list | tuple) else [chosen]
    names = [part.name if isinstance(part, Pooling) else str(part) for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f'`pooling` must have a name once each for output="dict", got {names}.')
    for part in parts:  # says what is wrong before it is a key
        get_pooling(part, layer.preprocessor.vocabulary.token_kinds)
    return dict(zip(names, map(_as_key, parts), strict=True))


def _as_key(pooling):
    return tuple(map(_as_key, pooling)) if isinstance(pooling, list | tuple) else pooling


class _Function(NamedTuple):
    poolings: list[Pooling]
    call: Callable[[dict[str, np.ndarray]], list]

    def __call__(self, inputs: dict[str, np.ndarray]) -> list:
        return self.call(inputs)


# Functions live as long as their encoder: they refer to it weakly, and to its variables.
_functions: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def compiled_function(
    layer: BertTrend, poolings: dict[str, Any], jit_compile: bool, compute_dtype: str | None
) -> _Function:
    """Return the function for these poolings, cached as long as the encoder lives."""
    kept = _functions.setdefault(layer.encoder, {})
    kinds = layer.preprocessor.vocabulary.token_kinds
    layers = [get_pooling(pooling, kinds) for pooling in poolings.values()]
    for pooling in layers:  # before anything is traced
        pooling.create_weights(layer.encoder.config.hidden_size, layer.encoder.config.num_layers)
    # With the configurations: whoever sets an argument of a pooling after a call means the next call.
    configs = tuple(str(pooling.get_config()) for pooling in layers)
    key = (tuple(poolings.values()), configs, bool(jit_compile), compute_dtype)
    function = kept.get(key)  # another thread may drop it in the next moment
    if function is None:
        while len(kept) >= _KEPT_FUNCTIONS:
            kept.pop(next(iter(kept)), None)
        function = kept[key] = _Function(layers, _compile(layer.encoder, layers, jit_compile, compute_dtype))
    return function


def _compile(
    encoder, poolings: list[Pooling], jit_compile: bool, compute_dtype: str | None
) -> Callable[[dict[str, np.ndarray]], list]:
    reference = weakref.ref(encoder)
    skip_padding = not jit_compile and can_skip_padding()

    def forward(inputs):
        _, results = run_encoder(
            reference(), poolings, inputs, training=False, skip_padding=skip_padding, compute_dtype=compute_dtype
        )
        for pooling, vectors in zip(poolings, results, strict=True):
            if len(vectors.shape) != 2:
                raise ValueError(f"`pooling` {pooling.name!r} gives a vector per token; embed needs one per text.")
        return [keras.ops.cast(vectors, "float32") for vectors in results]

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compile_with_tensorflow(forward, jit_compile)
    if backend == "jax":
        variables = [*encoder.variables, *(variable for pooling in poolings for variable in pooling.variables)]
        return _compile_with_jax(forward, variables)
    if backend == "torch":
        return _run_with_torch(forward)
    raise ValueError(f"Texts are embedded under the backends tensorflow, jax and torch; this is {backend}.")


def _compile_with_tensorflow(forward, jit_compile: bool):
    import tensorflow as tf

    names = ("input_word_ids", "input_mask", "input_type_ids")
    signature = [{name: tf.TensorSpec((None, None), tf.int32, name) for name in names}]  # traced once, for all shapes
    return tf.function(forward, input_signature=signature, jit_compile=jit_compile, autograph=False)


def _compile_with_jax(forward, variables: list):
    import jax

    @jax.jit
    def run(values, inputs):  # values as arguments: as constants, weights trained later would be ignored
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return forward(inputs)

    return lambda inputs: run([variable.value for variable in variables], inputs)


def _run_with_torch(forward):
    import torch

    return torch.no_grad()(forward)
