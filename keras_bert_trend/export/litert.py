"""Write a layer or a model for LiteRT (TensorFlow Lite): one file, for one number of texts of one length."""

from __future__ import annotations

import os
import re
import tempfile

from keras_bert_trend._utils import check_count, complete_or_nothing
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.encoder.ops import PORTABLE
from keras_bert_trend.export.ids_path import IdsPath, check_backend, compare, engine


def export_litert(
    model_or_layer,
    path: str | os.PathLike,
    *,
    sequence_length: int | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> None:
    """Write a layer or a model as a LiteRT (`.tflite`) file, from token ids on, for phones and small machines.

    Its signature `serving_default` takes `input_word_ids`, `input_mask` and `input_type_ids`, int32
    `(batch_size, sequence_length)`, and the model's further inputs, if any; it returns the model's outputs by name, or
    `sentence_embedding`. Shorter texts are padded, with a mask of 0. The sizes are fixed.

    The file holds LiteRT's own operations alone. It is loaded and compared as `export_onnx`'s is, on texts of several
    lengths, before it gets its name.

    Needs the extra `litert` and the TensorFlow backend.

    Example:
        >>> layer = BertTrend("minilm", pooling="mean", sequence_length=64)
        >>> export_litert(layer, "minilm.tflite", sequence_length=64)
        >>> run = ai_edge_litert.interpreter.Interpreter("minilm.tflite").get_signature_runner("serving_default")
        >>> run(**{name: tensor.numpy() for name, tensor in layer.preprocessor(["an apple"]).items()})

    Args:
        model_or_layer: `BertTrend`, or a model as `export_onnx` takes it.
        path: str or path. The file to write; it is complete or not there.
        sequence_length: int or `None`. The number of tokens that texts are padded to. Defaults to what the `BertTrend`
            pads strings to, or the model's length if that is each batch's own.
        batch_size: int. The number of texts at a time. Defaults to 1.
        overwrite: bool. Whether to replace an existing `path`. Defaults to `False`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
        ImportError: if ai-edge-litert is not installed.
        RuntimeError: if Keras runs on another backend.
        ValueError: as `export_onnx` does; or if a size is not a positive integer, or longer than the model.
    """
    check_backend("export_litert", "tensorflow")
    check_count("batch_size", batch_size)
    interpreter = engine("litert", "ai_edge_litert.interpreter")
    ids_path = IdsPath(model_or_layer)
    longest = ids_path.encoder.config.max_position_embeddings
    sequence_length = ids_path.sequence_length or longest if sequence_length is None else sequence_length
    check_count("sequence_length", sequence_length)
    if sequence_length > longest:
        raise ValueError(f"`sequence_length`={sequence_length} is longer than the model: it has {longest} positions.")
    with complete_or_nothing(os.fspath(path), overwrite) as file:
        with open(file, "wb") as written:
            written.write(_converted(ids_path, batch_size, sequence_length))
        run = interpreter.Interpreter(file, num_threads=1).get_signature_runner("serving_default")
        lengths = sorted({min(length, sequence_length) for length in (5, 16, 17, 64, sequence_length)})
        sizes = [(batch_size, sequence_length, length) for length in lengths]
        compare(ids_path, lambda inputs: run(**inputs), "LiteRT", sizes)


def _converted(ids_path: IdsPath, batch_size: int, sequence_length: int) -> bytes:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (  # TensorFlow has no public name for it
        convert_variables_to_constants_v2,
    )

    specs = {name: tf.TensorSpec([batch_size, sequence_length], tf.int32, name) for name in INPUT_NAMES}
    specs |= {name: tf.TensorSpec([batch_size, *x.shape[1:]], x.dtype, name) for name, x in ids_path.others.items()}
    # Keyword arguments: a signature has names.
    function = tf.function(lambda **inputs: ids_path.model(inputs, training=False), autograph=False)
    token = PORTABLE.set(True)
    try:
        traced = function.get_concrete_function(**specs)
    finally:
        PORTABLE.reset(token)
    # LiteRT's converter writes Keras's variables by name only, without their values.
    frozen = convert_variables_to_constants_v2(traced)
    order, names = [tensor.op.name for tensor in frozen.inputs], sorted(traced.structured_outputs)
    module = tf.Module()
    module.serve = tf.function(
        lambda **inputs: dict(zip(names, tf.nest.flatten(frozen(*(inputs[name] for name in order))), strict=True)),
        autograph=False,
    )
    signature = module.serve.get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signature)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class is not public
            lacking = re.findall("TF Select ops: (.+)", str(error)) or [str(error).partition("\n")[0]]
            raise ValueError(f"`model_or_layer` has operations that LiteRT has not: {lacking[0]}.") from error
