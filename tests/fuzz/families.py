"""The recorded models that the fuzz edits, inputs that reach much of them, and weights that reach the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.common import find_fixture


def copy(family: str, folder: Path) -> saved_model_pb2.SavedModel:
    """Write a family's SavedModel, but for its description, to a new folder, and return the description."""
    left_out = shutil.ignore_patterns("fingerprint.pb", "keras_metadata.pb", "saved_model.pb")
    original = find_fixture(family) / "saved_model"
    shutil.copytree(original, folder, ignore=left_out, copy_function=shutil.copyfile)
    proto = saved_model_pb2.SavedModel.FromString((original / "saved_model.pb").read_bytes())
    _leave_out_layers(proto.meta_graphs[0])
    return proto


def _leave_out_layers(meta_graph) -> None:
    """Remove the functions of the layers inside, which nobody calls: TensorFlow loads a model sooner without them."""
    objects, library = meta_graph.object_graph_def, meta_graph.graph_def.library
    kept = {child.node_id for child in objects.nodes[0].children if "call" in child.local_name}
    signatures = next(child.node_id for child in objects.nodes[0].children if child.local_name == "signatures")
    kept |= {child.node_id for child in objects.nodes[signatures].children}
    called: set[str] = set()
    for i, node in enumerate(objects.nodes):
        kind = node.WhichOneof("kind")
        if kind == "function" and i in kept:
            called.update(node.function.concrete_functions)
        elif kind == "bare_concrete_function" and i in kept:
            called.add(node.bare_concrete_function.concrete_function_name)
        elif kind in ("function", "bare_concrete_function"):
            node.ClearField(kind)
            node.user_object.identifier = "_generic_user_object"
            node.user_object.version.producer = node.user_object.version.min_consumer = 1
    for name in set(objects.concrete_functions) - called:
        del objects.concrete_functions[name]
    functions = {function.signature.name: function for function in library.function}
    pending = [*called, *(node.attr["f"].func.name for node in meta_graph.graph_def.node if "f" in node.attr)]
    needed = set()
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [node.attr["f"].func.name for node in functions[name].node_def if "f" in node.attr]
    del library.function[:]
    library.function.extend(function for name, function in functions.items() if name in needed)
    del library.gradient[:]


def louder(array: np.ndarray) -> np.ndarray:
    """Return a weight, or the same for those that look like a gamma: then hidden states are four times as large."""
    is_gamma = array.dtype.kind == "f" and array.ndim == 1 and array.mean() > 0.5
    return array * array.dtype.type(4) if is_gamma else array


def batches(config) -> list[dict[str, tf.Tensor]]:
    """Return inputs that reach what two random batches do not: every id and position, holes in masks, odd sizes.

    The last is the first again: a model may have changed meanwhile.
    """
    generator = np.random.default_rng(7)
    vocab_size, positions = config.vocab_size, config.max_position_embeddings
    made = []
    for batch, length in ((6, positions), (2, 3)):
        ids = generator.permutation(vocab_size)[np.arange(batch * length).reshape(batch, length) % vocab_size]
        ids[:, 0], ids[0, -1] = 101 % vocab_size, vocab_size - 1
        mask = (generator.random((batch, length)) < 0.7).astype(int)
        mask[:, 0] = 1
        mask[0] = 1
        types = generator.integers(config.type_vocab_size, size=(batch, length))
        arrays = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
        made.append({name: tf.constant(array, tf.int32) for name, array in arrays.items()})
    return [*made, made[0]]
