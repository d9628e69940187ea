"""Read a SavedModel's description, variables and assets from its files, without loading or running it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from keras_bert_trend.sources.checkpoint import TfCheckpoint
from keras_bert_trend.sources.source import read_bytes

_MAX_SECONDS = 60  # of the processor, for following what stands in a model
_MAX_WORK_SECONDS = 10  # of these, for computing with NumPy, estimated before


class ExceededBoundError(ValueError):
    """To read a model would take more memory or time than a BERT's does; the message says which bound."""


class SavedModelFiles:
    """The files of a TF2 SavedModel, parsed and cross-checked. No function in it is ever executed.

    Args:
        path: str. The folder that holds `saved_model.pb` and `variables/`.

    Raises:
        ValueError: if a file is missing or cannot be parsed; the message names it.

    Attributes:
        objects: list of `SavedObject`. The object graph; an object's id is its place in the list, the root's is 0.
        concrete_functions: mapping. Function name → `SavedConcreteFunction`.
        library: dict. Function name → `FunctionDef`.
    """

    def __init__(self, path: str) -> None:
        from tensorflow.core.protobuf import saved_model_pb2

        self.path = path
        self._begin, self._work = time.thread_time(), 0.0
        self._file = os.path.join(path, "saved_model.pb")
        proto = saved_model_pb2.SavedModel()
        if not os.path.isfile(self._file):
            raise ValueError(f"{path!r} is not a SavedModel: it has no saved_model.pb.")
        # The limit bounds what a file made to fill the memory can do; BERT-large's has about 15 MiB.
        content = read_bytes(self._file)
        try:
            proto.ParseFromString(content)
        except Exception as error:  # protobuf's DecodeError differs between its implementations
            raise ValueError(f"{self._file!r} cannot be parsed: {error}.") from error
        if len(proto.meta_graphs) != 1 or not proto.meta_graphs[0].object_graph_def.nodes:
            raise ValueError(
                f"{self._file!r} is no TF2 SavedModel: it must hold one meta graph with an object graph "
                f"(found {len(proto.meta_graphs)} meta graphs). TF1 Hub modules are not supported."
            )
        self._check_fingerprint()
        self._meta_graph = proto.meta_graphs[0]
        self.objects = self._meta_graph.object_graph_def.nodes
        self.concrete_functions = self._meta_graph.object_graph_def.concrete_functions
        self.library = {f.signature.name: f for f in self._meta_graph.graph_def.library.function}

    def spend(self, seconds: float = 0.0) -> None:
        """Raise `ExceededBoundError` if reading takes too long.

        Args:
            seconds: float. What computing the next value is estimated to take.
        """
        self._work += seconds
        if self._work > _MAX_WORK_SECONDS:
            raise ExceededBoundError(f"to compute what it gives would take more than {_MAX_WORK_SECONDS} seconds")
        if time.thread_time() - self._begin > _MAX_SECONDS:
            raise ExceededBoundError(f"to follow what it computes takes more than {_MAX_SECONDS} seconds")

    def _check_fingerprint(self) -> None:
        """Raise `ValueError` if TensorFlow (2.11 or later) wrote hashes beside the files, and these differ."""
        from tensorflow.core.protobuf import fingerprint_pb2
        from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

        file = os.path.join(self.path, "fingerprint.pb")
        if not os.path.isfile(file):
            return
        try:
            written = fingerprint_pb2.FingerprintDef.FromString(read_bytes(file))
            if written.version.producer < 1:
                return  # hashed differently
            computed = fingerprint_pb2.FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(self.path))
        except Exception as error:
            raise ValueError(f"{file!r} cannot be compared with the model: {error}") from error
        names = ("saved_model_checksum", "saved_object_graph_hash", "checkpoint_hash")
        differ = [name for name in names if getattr(written, name) != getattr(computed, name)]
        if differ:
            raise ValueError(
                f"{self._file!r} or the variables beside it are not what {file!r} was written for: {differ} differ. "
                "Get the model again; if it was changed on purpose, delete fingerprint.pb."
            )

    def child(self, name: str, parent: int = 0) -> int | None:
        """Return the id of an object's child, or `None` if it has none of this name."""
        for reference in self.objects[parent].children:
            if reference.local_name == name and 0 <= reference.node_id < len(self.objects):
                return reference.node_id
        return None

    @cached_property
    def variable_names(self) -> dict[int, str]:
        """Object id → name, of every variable."""
        return {i: node.variable.name for i, node in enumerate(self.objects) if node.WhichOneof("kind") == "variable"}

    def function_for_inference(self) -> str:
        """Return the name of the concrete function behind `serving_default`.

        Raises:
            ValueError: if the model exports no such signature.
        """
        signatures = self.child("signatures")
        node = self.child("serving_default", signatures) if signatures is not None else None
        if node is None or self.objects[node].WhichOneof("kind") != "bare_concrete_function":
            raise ValueError(f"{self._file!r} has no `serving_default` signature.")
        return self.objects[node].bare_concrete_function.concrete_function_name

    def signature(self, name: str):
        """Return the `SignatureDef` of this name, or `None` if there is none."""
        return self._meta_graph.signature_def.get(name)

    def all_nodes(self) -> Iterator:
        """Yield the `NodeDef`s of the graph and of all functions."""
        yield from self._meta_graph.graph_def.node
        for function in self.library.values():
            yield from function.node_def

    def root_call_functions(self) -> list[str]:
        """Return the names of the concrete functions behind calling the model, in inference and in training.

        TF 2.0 kept the dropout of training out of `__call__`; it stands in what Keras itself calls.
        """
        names = []
        for child in ("__call__", "call_and_return_all_conditional_losses"):
            node = self.child(child)
            if node is not None and self.objects[node].WhichOneof("kind") == "function":
                names += self.objects[node].function.concrete_functions
        return names

    def variable_shape(self, object_id: int) -> tuple[int, ...]:
        """Return the shape that `saved_model.pb` declares for a variable."""
        return tuple(dimension.size for dimension in self.objects[object_id].variable.shape.dim)

    def check_variable(self, object_id: int) -> None:
        """Check, without reading it, that a variable is in `variables/` as `saved_model.pb` declares it.

        Args:
            object_id: int. The variable.

        Raises:
            ValueError: if it is not there, or has another shape or dtype there.
        """
        name, key = self.variable_names[object_id], self._checkpoint_keys.get(object_id)
        if key is None:
            raise ValueError(f"{self.path!r}: variable {name!r} is not in the checkpoint.")
        try:
            dtype = self.objects[object_id].variable.dtype
            self._checkpoint.check(key, self.variable_shape(object_id), dtype)
        except ValueError as error:
            raise ValueError(f"{self._file!r}: variable {name!r} does not fit: {error}") from error

    def read_variable(self, object_id: int) -> Any:
        """Read a variable's value from `variables/`, as a TensorFlow tensor.

        Args:
            object_id: int. The variable.

        Raises:
            ValueError: if it is not there as `saved_model.pb` declares it, or its file is missing or damaged.
        """
        self.check_variable(object_id)
        dtype = self.objects[object_id].variable.dtype
        return self._checkpoint.read(self._checkpoint_keys[object_id], dtype)

    @cached_property
    def _checkpoint(self) -> TfCheckpoint:
        return TfCheckpoint(os.path.join(self.path, "variables", "variables"))

    @cached_property
    def _checkpoint_keys(self) -> dict[int, str]:
        """Object id → checkpoint key.

        Keys are positional (`variables/7/.ATTRIBUTES/VARIABLE_VALUE`). The checkpoint has an object graph of its own:
        both graphs are walked together, from child to child by name, as TensorFlow's loader does.
        """
        from tensorflow.core.framework import types_pb2
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        try:
            content = self._checkpoint.read("_CHECKPOINTABLE_OBJECT_GRAPH", types_pb2.DT_STRING)
            graph.ParseFromString(content.numpy())
        except Exception as error:
            raise ValueError(f"{self._checkpoint.prefix!r}: no object graph in the checkpoint: {error}") from error
        keys, seen, pending = {}, {(0, 0)}, [(0, 0)]
        while pending:
            model_id, checkpoint_id = pending.pop()
            if not (0 <= model_id < len(self.objects) and 0 <= checkpoint_id < len(graph.nodes)):
                raise ValueError(f"{self._file!r}: the object graph points outside itself.")
            for attribute in graph.nodes[checkpoint_id].attributes:
                if attribute.name == "VARIABLE_VALUE":
                    keys[model_id] = attribute.checkpoint_key
            in_checkpoint = {child.local_name: child.node_id for child in graph.nodes[checkpoint_id].children}
            for child in self.objects[model_id].children:
                pair = (child.node_id, in_checkpoint.get(child.local_name))
                if pair[1] is not None and pair not in seen:
                    seen.add(pair)
                    pending.append(pair)
        return keys

    def asset(self, child_name: str, parent: int = 0) -> str | None:
        """Return the path of an object's asset, or `None` if it has none of this name.

        Args:
            child_name: str. What the object calls the asset.
            parent: int. The object. Defaults to 0, the root.

        Raises:
            ValueError: if the asset is not a file inside the SavedModel's `assets/`.
        """
        node = self.child(child_name, parent)
        if node is None or self.objects[node].WhichOneof("kind") != "asset":
            return None
        index = self.objects[node].asset.asset_file_def_index
        if not 0 <= index < len(self._meta_graph.asset_file_def):
            raise ValueError(f"{self._file!r}: asset {child_name!r} has index {index}, which does not exist.")
        name = self._meta_graph.asset_file_def[index].filename
        folder = os.path.join(self.path, "assets")
        # The name comes from a downloaded file: it must not lead out of the folder, not through a link either.
        inside = os.path.realpath(os.path.join(folder, name))
        if os.path.commonpath([os.path.realpath(folder), inside]) != os.path.realpath(folder):
            raise ValueError(f"{self._file!r}: asset {name!r} lies outside the SavedModel.")
        if not os.path.isfile(inside):
            raise ValueError(f"{self._file!r}: the asset {os.path.join(folder, name)!r} is missing.")
        return inside
