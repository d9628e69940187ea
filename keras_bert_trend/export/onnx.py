"""Write a layer or a model as an ONNX file: the encoder from its formulas, pooling and head by tf2onnx."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import keras
import numpy as np

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.encoder.ops import attach_mask
from keras_bert_trend.export.ids_path import IdsPath, check_backend, compare, engine

#: The newest that tf2onnx knows.
_OPSET = 18


def export_onnx(model_or_layer, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a layer or a model as an ONNX file, from token ids on.

    Its inputs are `input_word_ids`, `input_mask` and `input_type_ids`, int64 `(B, T)` of any sizes up to the model's
    positions, and the model's further inputs, if any. Its outputs are the model's own, by name, or
    `sentence_embedding`.

    The file holds operations of the ONNX standard alone, of opset 18. Before it gets its name, ONNX Runtime loads it
    and computes batches of 1 and 3 texts of 5 to 128 tokens; the results must equal the model's within 1e-5 of the
    largest number. (The log ratio of `pooling="trend"` is ill-conditioned: 2 % of a result's norm are allowed.)

    Needs the extra `onnx` and the TensorFlow backend.

    Example:
        >>> layer = BertTrend("minilm", pooling="mean")
        >>> export_onnx(layer, "minilm.onnx")
        >>> session = onnxruntime.InferenceSession("minilm.onnx")
        >>> ids = {name: tensor.numpy().astype("int64") for name, tensor in layer.preprocessor(["an apple"]).items()}
        >>> session.run(["sentence_embedding"], ids)[0].shape
        (1, 384)

    Args:
        model_or_layer: `BertTrend`, a functional `keras.Model` that calls one `BertTrend` or `BertEncoder` once, or a
            `keras.Sequential` that begins with a `BertTrend`. It may take strings; the file takes ids.
        path: str or path. The file to write; it is complete or not there.
        overwrite: bool. Whether to replace an existing `path`. Defaults to `False`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
        ImportError: if onnx, onnxruntime or tf2onnx is not installed.
        RuntimeError: if Keras runs on another backend.
        ValueError: if `model_or_layer` is none of these, does not compute in float32, or if an operation of its head
            cannot be written, or comes out wrong.
    """
    check_backend("export_onnx", "tensorflow")
    onnx, onnxruntime = engine("onnx", "onnx"), engine("onnx", "onnxruntime")
    ids_path = IdsPath(model_or_layer)
    with complete_or_nothing(os.fspath(path), overwrite) as file:
        onnx.save(model_proto(ids_path), file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several would wait for each other, spinning
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(inputs):
            feed = {name: x.astype(np.int64) if name in INPUT_NAMES else x for name, x in inputs.items()}
            return dict(zip(names, session.run(names, feed), strict=True))

        compare(ids_path, run, "ONNX Runtime")


def model_proto(ids_path: IdsPath):
    """Return the `ModelProto`: the encoder's nodes, then those of pooling and head."""
    import onnx
    from onnx import helper, numpy_helper

    from keras_bert_trend.export.onnx_encoder import OnnxEncoder

    rest = _rest(ids_path)
    encoder = OnnxEncoder(ids_path.encoder.config, ids_path.encoder.named_weights())
    read = {name for node in _walk(rest.graph) for name in node.input}
    for name in INPUT_NAMES:
        encoder.outputs[name] = encoder.op("Cast", name, to=onnx.TensorProto.INT32)
    for name, tensor in encoder.outputs.items():
        encoder.op("Identity", tensor, name=_inner(name))
    nodes = []
    for node in reversed(encoder.nodes):  # leave out what nobody reads
        if node.output[0] in read:
            nodes.insert(0, node)
            read.update(node.input)
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"]) for name in INPUT_NAMES]
    others = [value for value in rest.graph.input if value.name in ids_path.others]
    for value in (*others, *rest.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    constants = [numpy_helper.from_array(array, name) for name, array in encoder.constants.items() if name in read]
    graph = helper.make_graph(
        [*nodes, *rest.graph.node],
        "keras_bert_trend",
        [*inputs, *others],
        rest.graph.output,
        [*constants, *rest.graph.initializer],
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=rest.ir_version, producer_name="keras_bert_trend")
    unknown = {node.op_type for node in _walk(graph) if node.domain or not onnx.defs.has(node.op_type)}
    if unknown:
        raise ValueError(
            f"`model_or_layer` has operations that ONNX has not, and tf2onnx cannot write otherwise: {sorted(unknown)}."
        )
    onnx.checker.check_model(model, full_check=True)
    return model


def _walk(graph) -> Iterator:
    """Yield all nodes, those of loops and branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _walk(inner)


def _inner(name: str) -> str:
    return f"bert/{name}"


def _rest(ids_path: IdsPath):
    """Return pooling and head as a `ModelProto` whose inputs are the encoder's outputs, named by `_inner`."""
    import tensorflow as tf

    tf2onnx = engine("onnx", "tf2onnx.convert")
    config, blocks = ids_path.encoder.config, range(ids_path.encoder.config.num_layers)
    states, width, heads = [None, None, config.hidden_size], config.hidden_size, config.num_heads
    shapes = {
        "embedding_output": states,
        "pooled_output": [None, width],
        **{f"encoder_outputs_{i}": states for i in blocks},
        **{f"attention_scores_{i}": [None, heads, None, None] for i in blocks},
        **{f"attention_received_{i}": [None, heads, None] for i in blocks},
    }
    specs = {name: tf.TensorSpec(shape, tf.float32, _inner(name)) for name, shape in shapes.items()}
    specs |= {name: tf.TensorSpec([None, None], tf.int32, _inner(name)) for name in INPUT_NAMES}
    specs |= {name: tf.TensorSpec(x.shape, x.dtype, name) for name, x in ids_path.others.items()}

    def compute(*tensors):
        given = dict(zip(specs, tensors, strict=True))
        with _standing_in(ids_path.encoder, given):
            return ids_path.model({name: given[name] for name in (*INPUT_NAMES, *ids_path.others)}, training=False)

    def complement(ctx, node, name, args):  # erfc(x) = 1 − erf(x)
        shapes, dtypes = node.output_shapes, node.output_dtypes
        ctx.remove_node(name)
        one = ctx.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
        erf = ctx.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes).output[0]
        ctx.make_node("Sub", [one, erf], outputs=node.output, shapes=shapes, dtypes=dtypes)

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it cannot write is looked for in the result
    function = tf.function(compute, input_signature=list(specs.values()), autograph=False)
    handlers = {"Erfc": (complement, [])}
    return tf2onnx.from_function(function, list(specs.values()), opset=_OPSET, custom_op_handlers=handlers)[0]


@contextlib.contextmanager
def _standing_in(encoder, given) -> Iterator[None]:
    """Let given tensors stand in for what an encoder computes."""
    blocks = range(encoder.config.num_layers)

    def call(inputs, return_attention_scores=False, return_attention_received=False, **arguments):
        outputs = {name: given[name] for name in ("embedding_output", "pooled_output")}
        outputs["encoder_outputs"] = [given[f"encoder_outputs_{i}"] for i in blocks]
        outputs |= {"default": outputs["pooled_output"], "sequence_output": outputs["encoder_outputs"][-1]}
        for states in (outputs["embedding_output"], *outputs["encoder_outputs"]):
            attach_mask(states, inputs["input_mask"])
        if return_attention_scores:
            outputs["attention_scores"] = [given[f"attention_scores_{i}"] for i in blocks]
        if summed := encoder._blocks_to_sum(return_attention_received):
            received = [given[f"attention_received_{i}"] for i in summed]
            outputs["attention_received"] = keras.ops.stack(received, axis=1)
        return outputs

    encoder.call = call  # an instance's attribute hides the class's
    try:
        yield
    finally:
        del encoder.call
