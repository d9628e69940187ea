"""Follow values through a SavedModel's functions by reading them: what feeds what, and with which constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from keras_bert_trend.sources.saved_model.files import SavedModelFiles

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_TRANSPARENT = ("Identity", "ReadVariableOp")  # what they pass on is their input
_MAX_NODES = 50_000  # BERT-large has about 5,000: more is no BERT, and could be a trap
_MAX_DEPTH = 64

# ("variable", object id) | ("argument", name) | (frame number, node name, output port)
Key = tuple


class Node:
    """One operation, with calls inlined and identities removed.

    Attributes:
        op: its kind.
        inputs: what it is computed from.
        port: which of its results is meant, where it has several.
    """

    def __init__(self, definition, inputs: list[Key], port: int) -> None:
        self.op: str = definition.op
        self.inputs = inputs
        self.port = port
        self._attributes = definition.attr
        self._array: np.ndarray | None = None  # of a Const, once it was asked for

    @cached_property
    def constant(self) -> float | tuple[int, ...] | None:
        """A scalar float Const, or one of up to eight integers; `None` for all else: nothing large is unpacked."""
        array = self.array(limit=8)
        if array is None or array.ndim > 1 or not array.size:
            return None
        if array.dtype.kind == "f":
            return None if array.ndim else float(array)
        return tuple(int(i) for i in array.ravel()) if array.dtype.kind == "i" else None

    def array(self, limit: int) -> np.ndarray | None:
        """Return a Const's value, if it is numbers, and no more than `limit` of them."""
        if self.op != "Const":
            return None
        if self._array is None:
            self._array = self._unpack(limit)
        return self._array

    def _unpack(self, limit: int) -> np.ndarray | None:
        from tensorflow.python.framework import dtypes, tensor_util

        tensor = self._attributes["value"].tensor
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        known = tensor.dtype in dtypes._INTERN_TABLE and dtypes.as_dtype(tensor.dtype).is_numpy_compatible
        if not known or tensor.dtype == dtypes.string.as_datatype_enum or min(sizes, default=0) < 0:
            return None
        return None if math.prod(sizes) > limit else tensor_util.MakeNdarray(tensor)

    @property
    def size(self) -> int:
        """How many elements a Const says that it has."""
        return math.prod(dimension.size for dimension in self._attributes["value"].tensor.tensor_shape.dim)

    def flag(self, name: str) -> bool:
        return name in self._attributes and self._attributes[name].b

    def integer(self, name: str, default: int = 0) -> int:
        """Return an integer attribute; SavedModels leave out those that have the operation's default."""
        return self._attributes[name].i if name in self._attributes else default

    def integers(self, name: str) -> list[int]:
        return list(self._attributes[name].list.i) if name in self._attributes else []

    def text(self, name: str) -> str:
        return self._attributes[name].s.decode("ascii", "replace") if name in self._attributes else ""

    @property
    def identity(self) -> tuple:
        """What it computes of its inputs: the same for two nodes only if they compute the same."""
        attributes = sorted(name for name in self._attributes if not name.startswith("_"))
        return (self.op, self.port, *((name, self._attributes[name].SerializeToString()) for name in attributes))

    def dtype(self, name: str) -> str:
        from tensorflow.python.framework import dtypes

        return dtypes.as_dtype(self._attributes[name].type).name


class _Frame:
    """One function call: its definition, and where its arguments come from."""

    def __init__(self, number, definition, parent=None, call=None):
        self.number, self.parent, self.call = number, parent, call
        self.depth = parent.depth + 1 if parent else 0
        self.definition = definition
        self.arguments = {argument.name: i for i, argument in enumerate(definition.signature.input_arg)}
        self.nodes = {node.name: node for node in definition.node_def}


class Dataflow:
    """Everything that a concrete function's outputs depend on, as one flat graph.

    Attributes:
        nodes: the operations.
        outputs: the function's results.
        consumers: value → the operations that use it.
        files: the SavedModel, which bounds what following and computing values may take.

    Args:
        files: the SavedModel.
        function: name of the concrete function.
        names: the function's argument → what it is called here; by default, as in the function.

    Raises:
        ValueError: the function is missing, refers to what does not exist, or is unreasonably large.
    """

    def __init__(self, files: SavedModelFiles, function: str, names: Mapping[str, str] | None = None) -> None:
        self.files = files
        files.spend()
        self._names = names or {}
        definition = self._definition(function)
        root = _Frame(0, definition)
        self._frames = [root]
        self._callees: dict[tuple[int, str], _Frame] = {}
        captures = list(files.concrete_functions[function].bound_inputs)
        names = [argument.name for argument in definition.signature.input_arg]
        if len(captures) > len(names):
            raise ValueError(f"{function!r} captures more objects than it has arguments.")
        self._captured = dict(zip(names[len(names) - len(captures) :], captures, strict=True))
        self._resolved: dict[tuple[int, str], Key] = {}
        self.nodes: dict[Key, Node] = {}
        self.outputs = [self._resolve(root, definition.ret[out.name]) for out in definition.signature.output_arg]
        self._collect()
        self.consumers: dict[Key, list[Key]] = {}
        for key, node in self.nodes.items():
            for source in node.inputs:
                self.consumers.setdefault(source, []).append(key)
        self._order = self._sources_first()

    @property
    def variables(self) -> set[int]:
        """Object ids of the variables that the outputs depend on."""
        leaves = set(self.consumers) | set(self.outputs)
        return {key[1] for key in leaves if key[0] == "variable" and key[1] in self.files.variable_names}

    def select(self, *ops: str) -> list[Key]:
        """Return the keys of all operations of these kinds."""
        return [key for key, node in self.nodes.items() if node.op in ops]

    def nearest(self, start: Iterable[Key], accept, stop=(), downstream: bool = False) -> list[Key]:
        """Walk upstream, breadth first, and return what `accept(key, node)` takes at the smallest distance.

        Args:
            start: where to begin; the starting points themselves are candidates too.
            accept: predicate over a key and its `Node` (`None` for variables and arguments).
            stop: kinds of operation that are not walked through (they may still be accepted).
            downstream: walk to the consumers instead.
        """
        self.files.spend()
        level, seen = list(dict.fromkeys(start)), set()
        while level:
            found = [key for key in level if accept(key, self.nodes.get(key))]
            if found:
                return found
            seen.update(level)
            following: dict[Key, None] = {}
            for key in level:
                node = self.nodes.get(key)
                if node is not None and node.op in stop:
                    continue
                beyond = self.consumers.get(key, ()) if downstream else node.inputs if node is not None else ()
                following.update((other, None) for other in beyond if other not in seen)
            level = list(following)
        return []

    def _definition(self, name):
        if name not in self.files.library:
            raise ValueError(f"{self.files.path!r}: the function {name!r} is missing from saved_model.pb.")
        return self.files.library[name]

    def _enter(self, frame, node):
        where = (frame.number, node.name)
        if where not in self._callees:
            if frame.depth >= _MAX_DEPTH or len(self._frames) >= _MAX_NODES:
                raise ValueError(f"{self.files.path!r}: the function calls are nested too deeply.")
            definition = self._definition(node.attr["f"].func.name)
            callee = _Frame(len(self._frames), definition, frame, node)
            self._frames.append(callee)
            self._callees[where] = callee
        return self._callees[where]

    def _resolve(self, frame, tensor) -> Key:
        """Follow a tensor's name through calls and identities to what makes it."""
        passed = []
        try:
            for _ in range(_MAX_NODES):
                known = self._resolved.get((frame.number, tensor))
                if known is not None:
                    return self._remember(passed, known)
                passed.append((frame.number, tensor))
                name, _, port = tensor.partition(":")
                if name in frame.arguments:
                    if frame.parent is None:
                        captured = self._captured.get(name)
                        key = ("argument", self._names.get(name, name)) if captured is None else ("variable", captured)
                        return self._remember(passed, key)
                    tensor, frame = frame.call.input[frame.arguments[name]], frame.parent
                    continue
                node = frame.nodes[name]
                if node.op in _CALLS:
                    frame = self._enter(frame, node)
                    index = int(port.rpartition(":")[2] or 0)
                    tensor = frame.definition.ret[frame.definition.signature.output_arg[index].name]
                elif node.op in _TRANSPARENT:
                    tensor = node.input[0]
                else:
                    return self._remember(passed, (frame.number, name, port))
        except (KeyError, IndexError) as error:
            raise ValueError(f"{self.files.path!r}: saved_model.pb refers to {error}, which it lacks.") from error
        raise ValueError(f"{self.files.path!r}: the functions of saved_model.pb run in a circle.")

    def _remember(self, passed: list[tuple[int, str]], key: Key) -> Key:
        """Keep where these tensors led, so that no chain is followed twice."""
        self._resolved.update(dict.fromkeys(passed, key))
        return key

    def identify(self, numbers: dict[tuple, int]) -> dict[Key, int]:
        """Return a number for every value: two have the same only if they are computed alike.

        Args:
            numbers: what was numbered before, of other graphs too; it grows.
        """
        found: dict[Key, int] = {}

        def number(key: Key, identity: tuple) -> None:
            found[key] = numbers.setdefault(identity, len(numbers))

        for key in {*self.consumers, *self.outputs} - self.nodes.keys():
            number(key, key)
        for key in self._order:
            node = self.nodes[key]
            number(key, (node.identity, *(found[source] for source in node.inputs)))
        return found

    def _sources_first(self) -> list[Key]:
        """Order the operations, and refuse a graph that runs in a circle: to follow its values would never end."""
        waiting = {key: sum(source in self.nodes for source in node.inputs) for key, node in self.nodes.items()}
        ready = [key for key, count in waiting.items() if not count]
        order = []
        while ready:
            key = ready.pop()
            order.append(key)
            for consumer in self.consumers.get(key, ()):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
        if len(order) < len(self.nodes):
            raise ValueError(f"{self.files.path!r}: the operations of saved_model.pb run in a circle.")
        return order

    def _collect(self):
        pending = list(self.outputs)
        while pending:
            key = pending.pop()
            if key in self.nodes or key[0] in ("variable", "argument"):
                continue
            if len(self.nodes) >= _MAX_NODES:
                raise ValueError(f"{self.files.path!r}: the graph has more than {_MAX_NODES} operations.")
            frame = self._frames[key[0]]
            definition = frame.nodes[key[1]]
            inputs = [self._resolve(frame, name) for name in definition.input if not name.startswith("^")]
            self.nodes[key] = Node(definition, inputs, int(key[2].rpartition(":")[2] or 0))
            pending.extend(inputs)
