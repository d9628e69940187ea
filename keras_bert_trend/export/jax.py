"""Lower a layer or a model for other machines than this one, by JAX."""

from __future__ import annotations

from collections.abc import Sequence

from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.export.ids_path import IdsPath, check_backend


def export_jax(model_or_layer, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")):
    """Lower a layer or a model for CPUs, NVIDIA GPUs and TPUs to one StableHLO program, from token ids on.

    None of these machines is needed for it; each compiles the program when it loads it. The program takes one dict of
    the three inputs, int32 `(B, T)` of any sizes, and of the model's further inputs, and returns the dict of the
    model's outputs, or of `sentence_embedding`. Its weights are in it. `serialize()` gives the bytes of a file;
    `jax.export.deserialize` reads them, and needs neither Keras nor this package.

    Needs the JAX backend (`KERAS_BACKEND=jax`).

    Example:
        >>> exported = export_jax(BertTrend("minilm", pooling="mean"))
        >>> exported.platforms
        ('cpu', 'cuda', 'tpu')
        >>> with open("minilm.jax", "wb") as file:
        ...     file.write(exported.serialize())

    Args:
        model_or_layer: `BertTrend`, or a model as `export_onnx` takes it.
        platforms: list of str. What to lower for, by JAX's names. Defaults to all three.

    Returns:
        A `jax.export.Exported`; its `call` computes on the machine at hand.

    Raises:
        RuntimeError: if Keras runs on another backend.
        ValueError: as `export_onnx` does.
    """
    check_backend("export_jax", "jax")
    import jax
    from jax import export

    ids_path = IdsPath(model_or_layer)
    batch, length = export.symbolic_shape("batch, length")
    inputs = {name: jax.ShapeDtypeStruct((batch, length), "int32") for name in INPUT_NAMES}
    inputs |= {name: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for name, x in ids_path.others.items()}
    compute = jax.jit(lambda inputs: ids_path.model(inputs, training=False))
    return export.export(compute, platforms=list(platforms))(inputs)
