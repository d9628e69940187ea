"""Distribution over the devices of JAX, by `keras.distribution`."""

from __future__ import annotations

import keras

#: The whole path of a weight, as Keras matches it → the axis of the mesh that each of its dimensions is divided over.
_AXES = {
    ".*embeddings/.*_embeddings": (None, "model"),
    ".*query_key_value_kernel": (None, "model"),
    ".*query_key_value_bias": ("model",),
    ".*attention_output_kernel": ("model", None),
    ".*intermediate_kernel": (None, "model"),
    ".*intermediate_bias": ("model",),
    ".*/output_kernel": ("model", None),
    ".*pooler_kernel": (None, "model"),
    ".*pooler_bias": ("model",),
}


def data_parallel() -> keras.distribution.DataParallel:
    """Let Keras divide every batch over all devices; return the distribution.

    Call it before the model is made. It is for the JAX backend; under TensorFlow use a strategy of `tf.distribute`.

    Example:
        >>> distribution = data_parallel()
        >>> model = make_model()
        >>> model.fit(ids, labels)

    Raises:
        RuntimeError: if Keras runs on another backend.
    """
    if keras.backend.backend() != "jax":
        raise RuntimeError(f"`data_parallel` needs KERAS_BACKEND=jax, but Keras runs on {keras.backend.backend()}.")
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def bert_layout_map(mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Return how BERT's weights are divided over the `model` axis of a mesh, for `ModelParallel`.

    Query, key, value and intermediate kernels are divided by their outputs, the kernels of the attention output and of
    the layer output by their inputs, as Shoeybi et al. 2019 ("Megatron-LM") do. Unlike theirs, query, key and value lie
    side by side in one kernel, so that XLA moves parts of them between devices before attention. Embeddings are divided
    by the hidden dimension. Biases of divided outputs are divided too; all else is on every device.

    Example:
        >>> mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"), keras.distribution.list_devices())
        >>> distribution = keras.distribution.ModelParallel(layout_map=bert_layout_map(mesh), batch_dim_name="batch")
        >>> keras.distribution.set_distribution(distribution)

    Args:
        mesh: `keras.distribution.DeviceMesh`. With an axis named `"model"`, whose size divides the hidden size, the
            intermediate size and the number of heads.

    Raises:
        ValueError: if the mesh has no such axis.
    """
    if "model" not in mesh.axis_names:
        raise ValueError(f'`mesh` must have an axis named "model", got {list(mesh.axis_names)}.')
    layouts = keras.distribution.LayoutMap(mesh)
    for path, axes in _AXES.items():
        layouts[path] = axes
    return layouts
