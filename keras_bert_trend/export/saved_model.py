"""One SavedModel of a trained model, with a door for everything that a client may ask of it.

A door is a signature of the SavedModel, and a function of the loaded object under the same name: one graph, traced and
stored once. `keras.export.ExportArchive` traces each one twice and stores both graphs, and `Model.export` stores the
weights twice, as Keras's variables and as TensorFlow's; so this module writes a `tf.Module` of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import TrendPooling, hidden_states, leaves
from keras_bert_trend.preprocessing import BertPreprocessor

_HALVES = (tf.float16, tf.bfloat16)
_TEXT_NAMES = ("text", "text_pair")
_WARM_UP_TEXT = "word"  # as short as can be: a layer may refuse longer texts
#: Where TensorFlow Serving looks for requests to run before it serves a model.
_WARM_UP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


class _Door(NamedTuple):
    """A signature: what it takes, each with its name, and the function from those tensors to named tensors."""

    inputs: list[tf.TensorSpec]
    compute: Callable[..., dict[str, Any]]


def export_saved_model(
    model_or_layer: keras.Model | BertTrend,
    path: str | os.PathLike,
    *,
    labels: Sequence[str] | None = None,
    fast_tokenizer: bool = True,
    float16_weights: bool = False,
    overwrite: bool = False,
) -> dict[str, str | None]:
    """Write a model as one SavedModel that answers strings, for TensorFlow Serving, C, Go, Java and Python.

    It has a signature, and `tf.saved_model.load(path)` a function, for each of these doors:

    * `serve`, which is `serving_default` too: the model's inputs → its outputs, and `label` with `labels`.
    * `embed`: `text` → `embedding`, the result of the model's `BertTrend` layer.
    * `tokens`: `text` → `input_word_ids`, `input_mask` and `input_type_ids`, int32 `(B, T)`.
    * `encode`: these three → `pooled_output` `(B, H)`, `sequence_output` `(B, T, H)`, and `hidden_states`
      `(B, L + 1, T, H)`: the embedding output and every block's.
    * `explain`: `text` → `tokens` string, `candidates` bool and `votes` int32, all `(B, T)`, and the positions `anchor`
      and `related`, int32 `(B,)`, −1 if there is none. It follows the layer's own trend pooling, or the published one.

    `tokens` and `explain` know no `windows`: they trim or refuse long texts as the preprocessor does.

    `B` texts, `T` tokens, `L` blocks, `H` the width of the states. Texts are strings `(B,)`; the doors of a layer that
    was called on pairs take `text` and `text_pair`. A model with several `BertTrend` layers, or without one, has the
    door `serve` alone; a layer without a preprocessor has `serve` and `encode`.

    The names in `serve`:

    * One input of strings is called `text`, two of them and nothing else `text` and `text_pair`. Otherwise inputs have
      the model's own names. A subclassed model takes what its `BertTrend` layer takes.
    * One output is called `probability` if the model ends in a sigmoid or softmax, or if there are `labels`. Otherwise
      outputs have the model's own names: the keys of a dict, or the names of the layers that they come from. A layer
      alone gives `embedding`; a subclassed model's single output is called `output`. Half precision becomes float32.

    The SavedModel needs TensorFlow, and the operations of TensorFlow Text that are returned. Each input's rank is
    checked in the graph. `assets.extra/tf_serving_warmup_requests` holds a request for every door, which TensorFlow
    Serving runs before it serves.

    Example:
        >>> text = keras.Input((), dtype="string")
        >>> layer = BertTrend("minilm", pooling="mean", sequence_length=64)
        >>> model = keras.Model(text, keras.layers.Dense(1, "sigmoid")(layer(text)))
        >>> needed = export_saved_model(model, "spam_export", labels=["ham", "spam"])
        >>> tf.saved_model.load("spam_export").serve(tf.constant(["Win a prize"]))["label"]

    Args:
        model_or_layer: `keras.Model` or `BertTrend`. Functional, `Sequential` or subclassed; `BertTrend` layers are
            found at any depth.
        path: str or path. The folder to write; it is complete or not there.
        labels: list of str or `None`. The names of the classes: two for a sigmoid (the second is what a probability of
            0.5 or more means), as many as a softmax is wide otherwise. They become the asset `labels.txt`, a line
            each, and the output `label`. Defaults to `None`.
        fast_tokenizer: bool. Whether to split words with `FastWordpieceTokenizeWithOffsets`. `False` takes the older
            operations of `BertTokenizer`, for a server that lacks that one; the ids are the same. Defaults to `True`.
        float16_weights: bool. Whether the file holds matrices in float16, half as large. A server casts them to their
            own dtype when it loads the file, and keeps both: half as much memory again. Defaults to `False`.
        overwrite: bool. Whether to replace an existing `path`. Defaults to `False`.

    Returns:
        dict. The name of each operation in the file that is not TensorFlow's own → the path on this machine of the
        library that has it, for `TF_LoadLibrary` or `tf.load_op_library`; `None` if TensorFlow Text does not have it.
        The same is printed.

    Raises:
        ValueError: if `model_or_layer` is none of these, was never built, or takes inputs that nobody declared; if the
            labels do not fit its output; if a weight is beyond float16.
        NotImplementedError: if Keras runs on another backend than TensorFlow.
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            f"A SavedModel that takes strings needs the TensorFlow backend; this is {keras.backend.backend()}. Save "
            "the model as a .keras file and export it from there."
        )
    _check_model(model_or_layer)
    bert = _bert_layer(model_or_layer)
    with (
        complete_or_nothing(os.fspath(path), overwrite) as folder,
        tempfile.TemporaryDirectory() as assets,
        _tokenizing(model_or_layer, fast_tokenizer),
    ):
        names = None if labels is None else _Labels(labels, assets)
        doors = {"serve": _serve(model_or_layer, bert, names)}
        if bert is not None:
            doors |= _inner_doors(bert)
        halves = _HalfStored.matrices_of(model_or_layer) if float16_weights else []
        functions = {name: _traced(door, halves) for name, door in doors.items()}
        root = tf.Module()
        for name, function in functions.items():
            setattr(root, name, function)
        root.captured = _captured(functions.values())
        signatures = {**functions, "serving_default": functions["serve"]}
        tf.saved_model.save(root, folder, signatures)
        _write_warm_up(folder, doors)
        needed = _beyond_core(folder)
    print(_report(os.fspath(path), doors, needed))
    return needed


def _check_model(model) -> None:
    if not isinstance(model, keras.Model | BertTrend):
        raise ValueError(f"`model_or_layer` must be a Keras model or a BertTrend layer, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(f"`model_or_layer` {model.name!r} was never built: call it on a batch, or declare its Input.")


def _layers_in(model: keras.layers.Layer, kind: type) -> list:
    """Return the layers of a kind, at any depth, each once."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]  # Keras has no public name for it


def _bert_layer(model) -> BertTrend | None:
    """Return the model's only `BertTrend` layer, or `None`."""
    found = _layers_in(model, BertTrend)
    return found[0] if len(found) == 1 else None


@contextlib.contextmanager
def _tokenizing(model, fast: bool) -> Iterator[None]:
    """Have every preprocessor of a model use the fast tokenizer or not, for as long as it is traced."""
    before = [(layer, layer.fast_tokenizer) for layer in _layers_in(model, BertPreprocessor)]
    try:
        for layer, its_own in before:
            layer.fast_tokenizer = its_own and fast
        yield
    finally:
        for layer, its_own in before:
            layer.fast_tokenizer = its_own


def _traced(door: _Door, halves: Sequence[_HalfStored]):
    """Trace a door, which checks the ranks of its inputs; some variables may stand in float16 in the file."""

    def run(*columns):
        # A server does not check a request against the signature; the operation's name is in the error's message.
        columns = [
            tf.ensure_shape(x, spec.shape, name=f"{spec.name}_must_have_rank_{spec.shape.rank}")
            for x, spec in zip(columns, door.inputs, strict=True)
        ]
        with keras.StatelessScope([(half.variable, half.read()) for half in halves]):
            outputs = door.compute(*columns)
        # Few clients have a type for half precision.
        return {name: tf.cast(x, tf.float32) if x.dtype in _HALVES else x for name, x in outputs.items()}

    return tf.function(run, autograph=False).get_concrete_function(*door.inputs)


def _captured(functions: Iterable) -> list:
    """Return what traced functions read beside their inputs, variables and tables, each once."""
    handles = [handle for function in functions for handle in function.captured_inputs]
    # TensorFlow has no public way from a captured handle to what it is of, and Keras layers hide their tables from
    # `tf.train.TrackableView`.
    owners = [handle._parent_trackable() for handle in handles if hasattr(handle, "_parent_trackable")]
    return list({id(owner): owner for owner in owners}.values())


class _HalfStored(tf.saved_model.experimental.TrackableResource):
    """A matrix that the file holds in float16, and a server once in its own dtype.

    Cast when the file is loaded: in every call, the casts would take many times as long as the rest.
    """

    def __init__(self, variable: keras.Variable) -> None:
        super().__init__()
        self.variable = variable
        self._name = f"{variable.path}_{uuid.uuid4()}"  # unlike all others of the process that loads it
        half = tf.cast(variable.value, tf.float16)
        if not bool(tf.reduce_all(tf.math.is_finite(half))):
            raise ValueError(f"`float16_weights`: {variable.path} holds values beyond float16, which ends at 65,504.")
        self._stored = self._track_trackable(tf.Variable(half, trainable=False, name=variable.name), "stored")

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=self.variable.dtype, shape=self.variable.shape, shared_name=self._name)

    def _initialize(self) -> None:
        value = tf.cast(self._stored, self.variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=value)

    def read(self):
        value = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=self.variable.dtype)
        return tf.ensure_shape(value, self.variable.shape)

    @classmethod
    def matrices_of(cls, model) -> list[_HalfStored]:
        """Return every float matrix of a model; vectors are few, and stay as they are."""
        wide = ("float32", "float64")
        return [cls(variable) for variable in model.variables if len(variable.shape) > 1 and variable.dtype in wide]


# The door `serve`


def _serve(model, bert: BertTrend | None, labels: _Labels | None) -> _Door:
    if isinstance(model, BertTrend):
        if labels is not None:
            raise ValueError("`labels` name a classifier's outputs, but a BertTrend layer gives an embedding.")
        return _embed(model)
    inputs, arrange = _inputs_of(model, bert)

    def serve(*columns):
        outputs = _named_outputs(model, model(arrange(columns), training=False), labels is not None)
        if labels is not None:
            outputs["label"] = labels.of(model, outputs)
        return outputs

    return _Door(inputs, serve)


def _inputs_of(model: keras.Model, bert: BertTrend | None) -> tuple[list[tf.TensorSpec], Callable]:
    """Return the signature of a model's inputs, and the function that makes of its tensors what the model takes."""
    declared = getattr(model, "inputs", None)
    if not declared:  # subclassed
        if bert is None:
            raise ValueError(
                f"Nothing says what {model.name!r} takes: it is subclassed and has not exactly one BertTrend layer. "
                "Export keras.Model(inputs, model(inputs)) with the inputs that you declare."
            )
        return _layer_inputs(bert)
    # TensorFlow changes names that are not identifiers in some places, so change them here.
    names = [re.sub(r"^(?![A-Za-z])", "input_", re.sub(r"\W", "_", x.name, flags=re.ASCII)) for x in declared]
    specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype, name) for x, name in zip(declared, names, strict=True)]
    if all(spec.dtype == tf.string for spec in specs) and len(specs) <= len(_TEXT_NAMES):
        specs = [tf.TensorSpec(s.shape, s.dtype, name) for s, name in zip(specs, _TEXT_NAMES, strict=False)]
    structure = getattr(model, "_inputs_struct", declared[0])  # as a functional model was given them

    return specs, lambda columns: keras.tree.pack_sequence_as(structure, list(columns))


def _named_outputs(model, outputs, has_labels: bool) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    names = list(getattr(model, "output_names", []))
    if isinstance(outputs, list | tuple):
        return dict(zip(names or [f"output_{i}" for i in range(len(outputs))], outputs, strict=True))
    if has_labels or _last_activation(model) in ("sigmoid", "softmax"):
        return {"probability": outputs}
    return {names[0] if names else "output": outputs}


def _last_activation(model) -> str | None:
    """Return the name of the function that a model's single output comes from; `None` if the model does not say."""
    while isinstance(model, keras.Model):
        if isinstance(model, keras.Sequential):
            model = model.layers[-1]
        elif isinstance(getattr(model, "output", None), keras.KerasTensor):
            model = model.output._keras_history.operation
        else:
            return None
    if isinstance(model, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(model, "activation", None), "__name__", None)


class _Labels:
    """The names of the classes, in a file that becomes an asset of the SavedModel."""

    def __init__(self, labels: Sequence[str], folder: str) -> None:
        labels = list(labels) if not isinstance(labels, str) else [labels]
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"`labels` must be two or more different names, got {labels!r}.")
        for label in labels:
            if not isinstance(label, str) or label.splitlines() != [label]:
                raise ValueError(f"`labels` must be non-empty str of one line, got {label!r}.")
        self.names = labels
        file = Path(folder) / "labels.txt"
        file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        line_number, line = tf.lookup.TextFileIndex.LINE_NUMBER, tf.lookup.TextFileIndex.WHOLE_LINE
        lines = tf.lookup.TextFileInitializer(str(file), tf.int64, line_number, tf.string, line)
        self.table = tf.lookup.StaticHashTable(lines, default_value="")

    def of(self, model, outputs: Mapping[str, Any]):
        """Return the label of each row of the model's output: string `(B,)`."""
        if "label" in outputs:
            raise ValueError("`labels` give an output `label`, but the model has one of this name: rename it.")
        ((_, scores),) = outputs.items() if len(outputs) == 1 else [(None, None)]
        if scores is None or len(scores.shape) != 2:
            shapes = {name: tuple(x.shape) for name, x in outputs.items()}
            raise ValueError(f"`labels` need a model with one output (B, classes), but {model.name!r} has {shapes}.")
        width = max(scores.shape[-1], 2)  # a sigmoid gives the second class's probability
        if width != len(self.names):
            raise ValueError(
                f"`labels` has {len(self.names)} names, but the model's output of width {scores.shape[-1]} stands for "
                f"{width} classes."
            )
        if scores.shape[-1] > 1:
            best = tf.argmax(scores, axis=-1)
        elif _last_activation(model) in (None, "sigmoid"):
            best = tf.cast(scores[:, 0] >= 0.5, tf.int64)
        else:
            raise ValueError(
                f"`labels`: the model's output of width 1 is not a probability; it comes from "
                f"{_last_activation(model)!r}. End the model in a sigmoid."
            )
        return self.table.lookup(best)


# The doors of a `BertTrend` layer


def _inner_doors(bert: BertTrend) -> dict[str, _Door]:
    if bert.preprocessor is None:
        return {"encode": _encode(bert)}
    return {"embed": _embed(bert), "tokens": _tokens(bert), "encode": _encode(bert), "explain": _explain(bert)}


def _text_inputs(bert: BertTrend) -> tuple[list[tf.TensorSpec], Callable]:
    names = _TEXT_NAMES if bert.was_called_on_pairs else _TEXT_NAMES[:1]
    specs = [tf.TensorSpec([None], tf.string, name) for name in names]
    return specs, lambda columns: columns[0] if len(columns) == 1 else tuple(columns)


def _id_inputs() -> tuple[list[tf.TensorSpec], Callable]:
    specs = [tf.TensorSpec([None, None], tf.int32, name) for name in INPUT_NAMES]
    return specs, lambda columns: dict(zip(INPUT_NAMES, columns, strict=True))


def _layer_inputs(bert: BertTrend) -> tuple[list[tf.TensorSpec], Callable]:
    """Return what a layer was called on: texts, pairs or ids."""
    return _id_inputs() if bert.preprocessor is None or bert.supports_jit else _text_inputs(bert)


def _embed(bert: BertTrend) -> _Door:
    inputs, arrange = _id_inputs() if bert.preprocessor is None else _text_inputs(bert)
    return _Door(inputs, lambda *columns: {"embedding": bert(arrange(columns), return_all=False, training=False)})


def _tokens(bert: BertTrend) -> _Door:
    inputs, arrange = _text_inputs(bert)
    return _Door(inputs, lambda *columns: bert.preprocessor.preprocess(arrange(columns)))


def _encode(bert: BertTrend) -> _Door:
    inputs, arrange = _id_inputs()
    longest = bert.encoder.config.max_position_embeddings

    def encode(*columns):
        length = tf.shape(columns[0])[1]
        message = f"input_word_ids must have 1 to {longest} tokens, the model's length"
        fits = tf.debugging.Assert((length > 0) & (length <= longest), [message, length])
        with tf.control_dependencies([fits]):
            ids = arrange([tf.identity(column) for column in columns])
        outputs = bert.encoder(ids, training=False)
        return {
            "pooled_output": outputs["pooled_output"],
            "sequence_output": outputs["sequence_output"],
            "hidden_states": tf.stack(hidden_states(outputs), axis=1),
        }

    return _Door(inputs, encode)


def _explain(bert: BertTrend) -> _Door:
    inputs, arrange = _text_inputs(bert)
    vocabulary = bert.preprocessor.vocabulary
    own = [pooling for pooling in leaves(bert.pooling) if isinstance(pooling, TrendPooling)]
    pooling = own[0] if own else TrendPooling(vocabulary.token_kinds)

    def explain(*columns):
        ids = bert.preprocessor.preprocess(arrange(columns))
        arguments = pooling.needs.encoder_arguments(bert.encoder.config.num_layers, ids)
        mask, words = ids["input_mask"], ids["input_word_ids"]
        chosen = pooling.select(bert.encoder(ids, training=False, **arguments), mask, words)
        tokens = tf.gather(tf.constant(list(vocabulary.tokens)), words)
        return {
            "tokens": tf.where(mask > 0, tokens, ""),
            "candidates": chosen["candidates"],
            "votes": chosen["votes"],
            "anchor": tf.where(chosen["has_anchor"], chosen["anchor"], -1),
            "related": tf.where(chosen["has_related"], chosen["related"], -1),
        }

    return _Door(inputs, explain)


# What stands beside the graph


def _beyond_core(folder: str) -> dict[str, str | None]:
    """Return the operations in a SavedModel that are not TensorFlow's own, and the library of each."""
    import tensorflow_text
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    used = {node.op for node in graph.node}
    used.update(node.op for function in graph.library.function for node in function.node_def)
    beyond = sorted(op for op in used - functions if not hasattr(tf.raw_ops, op))
    libraries = sorted(Path(tensorflow_text.__file__).parent.glob("python/ops/_*.so")) if beyond else []
    # A library that is loaded already is not loaded again.
    offered = {str(library): tf.load_op_library(str(library)) for library in libraries}
    return {
        op: next((library for library, module in offered.items() if hasattr(module, op.replace(">", "_"))), None)
        for op in beyond
    }


def _report(path: str, doors: Mapping[str, _Door], needed: Mapping[str, str | None]) -> str:
    lines = [f"wrote {path} with the doors {', '.join(doors)}"]
    if needed:
        lines.append("operations that are not TensorFlow's own, and their libraries:")
    width = max(map(len, needed), default=0)
    return "\n".join([*lines, *(f"  {op:{width}}  {library or 'unknown'}" for op, library in needed.items())])


def _write_warm_up(folder: str, doors: Mapping[str, _Door]) -> None:
    """Write a request for every door whose inputs can be made up, as a TFRecord of PredictionLog messages.

    The messages are those of tensorflow_serving/apis: prediction_log.proto, predict.proto and model.proto. Four nested
    messages of byte fields need no compiled protos; the tensors in them are TensorFlow's own. `tensorflow-serving-api`,
    which has the compiled ones, pins a version of TensorFlow.
    """
    file = os.path.join(folder, _WARM_UP_FILE)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with tf.io.TFRecordWriter(file) as writer:
        for name, door in {"serving_default": doors["serve"], **doors}.items():
            # Of other inputs nobody knows which sizes and values the model takes: a request that fails stops a server.
            if all(spec.dtype == tf.string or spec.name in INPUT_NAMES for spec in door.inputs):
                request = _field(1, _field(3, name.encode()))  # model_spec { signature_name }
                for spec in door.inputs:
                    tensor = tf.make_tensor_proto(_made_up(spec)).SerializeToString()
                    request += _field(2, _field(1, spec.name.encode()) + _field(2, tensor))  # inputs { key value }
                writer.write(_field(6, _field(1, request)))  # predict_log { request }


def _made_up(spec: tf.TensorSpec) -> np.ndarray:
    if spec.dtype == tf.string:
        return np.full([size or 1 for size in spec.shape], _WARM_UP_TEXT, object)
    return np.full([1, spec.shape[1] or 16], spec.name == "input_mask", np.int32)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes in protobuf's wire format: key, length in base 128, content."""
    size, length = len(content), []
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
