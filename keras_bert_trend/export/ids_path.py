"""The ids path: a model with strings in, as the same model from token ids on; what other engines run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_bert_trend.encoder import INPUT_NAMES, BertEncoder
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import Pooling, leaves

#: Around sixteen, what converters get wrong shows: TensorFlow pads to whole vectors there.
_LENGTHS = (5, 15, 16, 17, 40, 63, 128)
_SIZES = tuple((batch, length, length) for batch in (1, 3) for length in _LENGTHS)


def engine(extra: str, module: str):
    """Import a module that an extra of this package installs, or raise an `ImportError` that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'`export_{extra}` needs {package}: pip install "keras_bert_trend[{extra}]".') from error


def check_backend(function: str, backend: str) -> None:
    """Raise `RuntimeError` unless Keras runs on a backend."""
    if keras.backend.backend() != backend:
        raise RuntimeError(f"`{function}` needs KERAS_BACKEND={backend}, but Keras runs on {keras.backend.backend()}.")


class IdsPath:
    """A layer or a model from token ids on.

    Args:
        model: `BertTrend`, a functional `keras.Model` that calls one `BertTrend` or one `BertEncoder` once, or a
            `keras.Sequential` that begins with a `BertTrend`. It may take strings, or ids.

    Attributes:
        model: `keras.Model`. The same function: a dict of the three inputs, int32 `(B, T)`, and of the model's further
            inputs → a dict of named outputs. It has the weights of the original, not copies.
        others: dict. Name → `KerasTensor`, the model's further inputs.
        encoder: `BertEncoder`. The encoder in it.
        sequence_length: int or `None`. The number of tokens that the layer pads strings to, if it does.
        is_ill_conditioned: bool. Whether a state's rounding error may grow without bound: in `pooling="trend"`.

    Raises:
        ValueError: if `model` is none of these, or does not compute in float32.
    """

    def __init__(self, model) -> None:
        ids = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
        if isinstance(model, BertTrend):
            _check_call(model, model.return_all)
            layer, others, outputs = model, {}, {"sentence_embedding": model(ids)}
        elif isinstance(model, keras.Sequential) and model.layers and isinstance(model.layers[0], BertTrend):
            layer, others, x = model.layers[0], {}, ids
            _check_call(layer, layer.return_all)
            for each in model.layers:
                x = each(x)
            outputs = _named(x, "sentence_embedding" if each is layer else each.name)
        elif isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth"):
            layer, others, outputs = _replayed(model, ids)
        else:
            raise ValueError(
                "`model_or_layer` must be a BertTrend, a functional keras.Model or a keras.Sequential that begins with "
                f"one, got {type(model).__name__}. Export the BertTrend layer of any other model alone."
            )
        self.encoder = layer if isinstance(layer, BertEncoder) else layer.encoder
        self.sequence_length = getattr(getattr(layer, "preprocessor", None), "sequence_length", None)
        if self.encoder.compute_dtype != "float32":
            raise ValueError(
                f"Other engines get float32, but this model computes in {self.encoder.compute_dtype}: load its weights "
                "into one that was made with dtype='float32'."
            )
        self.others = others
        self.model = keras.Model({**ids, **others}, outputs)
        poolings = [
            pooling for part in self.model._flatten_layers() if isinstance(part, Pooling) for pooling in leaves(part)
        ]
        self.is_ill_conditioned = any(getattr(pooling, "measure", None) == "log_ratio" for pooling in poolings)

    def difference(self, run: Callable[[dict], dict], batch: int, length: int, longest: int, seed: int) -> str | None:
        """Return in words what differs between the model and `run` on made-up texts, or `None`."""
        inputs = self._texts(batch, length, longest, np.random.default_rng(seed))
        outputs = run(inputs)
        for name, expected in self.model(inputs, training=False).items():
            expected, got = np.asarray(expected, np.float64), np.asarray(outputs[name], np.float64)
            if expected.shape != got.shape:
                return f"`{name}` has shape {got.shape}, not {expected.shape}"
            size = np.linalg.norm if self.is_ill_conditioned else lambda x: np.abs(x).max(initial=0)
            off, scale = size(got - expected), size(expected)
            if not off <= (0.02 if self.is_ill_conditioned else 1e-5) * scale:
                return f"`{name}` is off by {off:.1e}, of {scale:.1e}"
        return None

    def _texts(self, batch: int, length: int, longest: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Return ids of texts of different lengths, and numbers for further inputs."""
        config = self.encoder.config
        mask = np.arange(length) < longest - np.arange(batch)[:, None] % 3 * (longest // 3)
        ids = draw.integers(0, config.vocab_size, (batch, length)) * mask
        types = (np.arange(length) > length // 2) * mask * (config.type_vocab_size > 1)
        inputs = dict(zip(INPUT_NAMES, (ids.astype("int32"), mask.astype("int32"), types.astype("int32")), strict=True))
        for name, x in self.others.items():
            shape = [batch, *(size or length for size in x.shape[1:])]
            inputs[name] = draw.random(shape).astype(x.dtype)
        return inputs


def _replayed(model, ids) -> tuple[Any, dict, dict]:
    """Run a functional model's graph from BERT on: return what is called there, further inputs and named outputs."""
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    calls = [node for node in nodes if isinstance(node.operation, BertTrend | BertEncoder)]
    if len(calls) != 1:
        raise ValueError(
            "`model_or_layer` must call one BertTrend or BertEncoder once, and not inside another model; this one has "
            f"{len(calls)} such calls. Export the layer alone."
        )
    call = calls[0]
    inputs, *arguments = call.arguments.args or [call.arguments.kwargs["inputs"]]
    keywords = {name: value for name, value in call.arguments.kwargs.items() if name != "inputs"}
    _check_call(call.operation, keywords.get("return_all", getattr(call.operation, "return_all", False)))
    outputs = keras.tree.flatten(call.operation(ids, *arguments, **keywords))
    if [len(x.shape) for x in outputs] != [len(x.shape) for x in call.outputs]:
        raise ValueError("`model_or_layer` takes documents or single texts; other engines get a batch of texts.")
    new = dict(zip(map(id, call.outputs), outputs, strict=True))  # by the identity of the model's own tensor
    if isinstance(inputs, dict) and INPUT_NAMES[0] in inputs:
        new |= {id(inputs[name]): ids[name] for name in INPUT_NAMES}
    others = [x for x in model.inputs if id(x) not in new and x.dtype != "string"]
    others = {x.name: (x, keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)) for x in others}
    new |= {id(old): tensor for old, tensor in others.values()}
    for node in nodes:
        known = all(id(x) in new for x in node.input_tensors)
        if known and not node.is_input and not all(id(x) in new for x in node.outputs):
            args, kwargs = node.arguments.fill_in(new)
            new |= zip(map(id, node.outputs), keras.tree.flatten(node.operation(*args, **kwargs)), strict=True)
    if not all(id(x) in new for x in model.outputs):
        raise ValueError(
            "`model_or_layer` reads its strings elsewhere than in BERT, and other engines have no strings. Export the "
            "layer alone."
        )
    struct = keras.tree.map_structure(lambda x: new[id(x)], model._outputs_struct)
    struct = (
        struct if isinstance(struct, dict) else dict(zip(model.output_names, keras.tree.flatten(struct), strict=True))
    )
    return call.operation, {name: tensor for name, (_, tensor) in others.items()}, _named(struct, "output")


def _check_call(layer, return_all: bool) -> None:
    """Raise `ValueError` for what a layer does to strings alone, and for what is not one tensor."""
    if getattr(layer, "windows", None) is not None:
        raise ValueError(
            f"`model_or_layer` has windows={layer.windows!r}, which cuts strings, and other engines get ids. Export a "
            "layer with windows=None, and average the windows outside."
        )
    if return_all:
        raise ValueError(
            "`model_or_layer` has return_all=True, and other engines get the embedding alone. For the states of the "
            "encoder, export a functional model that calls the layer's `encoder`."
        )


def _named(outputs, name: str) -> dict[str, Any]:
    """Return the tensors of a nested structure under flat names, as `encoder_outputs_0`."""
    if isinstance(outputs, dict):
        return {key: x for inner, part in outputs.items() for key, x in _named(part, inner).items()}
    if isinstance(outputs, list | tuple):
        return {key: x for i, part in enumerate(outputs) for key, x in _named(part, f"{name}_{i}").items()}
    return {name: outputs}


def compare(
    path: IdsPath, run: Callable[[dict], dict], engine: str, sizes: Sequence[tuple[int, int, int]] = _SIZES
) -> None:
    """Raise `ValueError` unless an engine computes what the model does.

    Args:
        path: `IdsPath`. The model.
        run: function of a dict of arrays, the model's inputs, that returns the dict of the named outputs.
        engine: str. What computes, for the message.
        sizes: triples of int. The number of texts, the length they are padded to, and the longest text's. Lengths
            beyond the model's are left out.
    """
    for batch, length, longest in sizes:
        if length > path.encoder.config.max_position_embeddings:
            continue
        # A second draw: attention may tie, and then two words are equally right.
        wrong = path.difference(run, batch, length, longest, seed=0)
        if wrong and path.difference(run, batch, length, longest, seed=1):
            raise ValueError(
                f"{engine} computes something else than the model, at {batch} × {length} tokens: {wrong}. "
                "Nothing was written."
            )
