"""Follow values through a SavedModel's functions by reading them: what feeds what, and with which constants."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterable

from keras_bert_trend.sources.saved_model import SavedModelFiles

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_TRANSPARENT = ("Identity", "ReadVariableOp")  # what they pass on is their input
_MAX_NODES = 50_000  # BERT-large has about 5,000: more is no BERT, and could be a trap
_MAX_DEPTH = 64

Key = tuple  # ("variable", object id) | ("argument", name) | (frame number, node name)


@dataclasses.dataclass
class Node:
    """One operation, with calls inlined and identities removed."""

    op: str
    inputs: list[Key]
    constant: float | tuple[int, ...] | None = None  # of a Const: a scalar float's value, or a few integers
    equation: str = ""  # of an Einsum
    flags: frozenset[str] = frozenset()  # the boolean attributes that are set: transpose_a, adj_y, …
    masks: dict[str, int] = dataclasses.field(default_factory=dict)  # of a StridedSlice: begin_mask, …


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

    Args:
        files: the SavedModel.
        function: name of the concrete function.

    Raises:
        ValueError: the function is missing, refers to what does not exist, or is unreasonably large.
    """

    def __init__(self, files: SavedModelFiles, function: str) -> None:
        self._files = files
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
        self._check_order()

    @property
    def variables(self) -> set[int]:
        """Object ids of the variables that the outputs depend on."""
        leaves = set(self.consumers) | set(self.outputs)
        return {key[1] for key in leaves if key[0] == "variable" and key[1] in self._files.variable_names}

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

    def upstream(self, start: Key, until: set[Key]) -> set[Key]:
        """Return all keys upstream of `start`, without walking beyond the keys in `until`."""
        seen, pending = {start}, [start]
        while pending:
            key = pending.pop()
            if key in until or key not in self.nodes:
                continue
            fresh = [source for source in self.nodes[key].inputs if source not in seen]
            seen.update(fresh)
            pending.extend(fresh)
        return seen

    def _definition(self, name):
        if name not in self._files.library:
            raise ValueError(f"{self._files.path!r}: the function {name!r} is missing from saved_model.pb.")
        return self._files.library[name]

    def _enter(self, frame, node):
        where = (frame.number, node.name)
        if where not in self._callees:
            if frame.depth >= _MAX_DEPTH or len(self._frames) >= _MAX_NODES:
                raise ValueError(f"{self._files.path!r}: the function calls are nested too deeply.")
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
                        key = ("argument", name) if captured is None else ("variable", captured)
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
                    return self._remember(passed, (frame.number, name))
        except (KeyError, IndexError) as error:
            raise ValueError(f"{self._files.path!r}: saved_model.pb refers to {error}, which it lacks.") from error
        raise ValueError(f"{self._files.path!r}: the functions of saved_model.pb run in a circle.")

    def _remember(self, passed: list[tuple[int, str]], key: Key) -> Key:
        """Keep where these tensors led, so that no chain is followed twice."""
        self._resolved.update(dict.fromkeys(passed, key))
        return key

    def _check_order(self):
        """Refuse a graph that runs in a circle: whatever follows its values would never end."""
        waiting = {key: sum(source in self.nodes for source in node.inputs) for key, node in self.nodes.items()}
        ready = [key for key, count in waiting.items() if not count]
        done = 0
        while ready:
            key = ready.pop()
            done += 1
            for consumer in self.consumers.get(key, ()):
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    ready.append(consumer)
        if done < len(self.nodes):
            raise ValueError(f"{self._files.path!r}: the operations of saved_model.pb run in a circle.")

    def _collect(self):
        pending = list(self.outputs)
        while pending:
            key = pending.pop()
            if key in self.nodes or key[0] in ("variable", "argument"):
                continue
            if len(self.nodes) >= _MAX_NODES:
                raise ValueError(f"{self._files.path!r}: the graph has more than {_MAX_NODES} operations.")
            frame = self._frames[key[0]]
            definition = frame.nodes[key[1]]
            inputs = [self._resolve(frame, name) for name in definition.input if not name.startswith("^")]
            self.nodes[key] = Node(
                definition.op,
                inputs,
                constant=_constant(definition) if definition.op == "Const" else None,
                equation=definition.attr["equation"].s.decode("ascii", "replace") if definition.op == "Einsum" else "",
                flags=frozenset(name for name, value in definition.attr.items() if value.b),
                masks={name: value.i for name, value in definition.attr.items() if name.endswith("_mask")},
            )
            pending.extend(inputs)


def _constant(definition) -> float | tuple[int, ...] | None:
    """Return a scalar float, or up to eight integers of rank 0 or 1; `None` for all else: nothing large is unpacked."""
    from tensorflow.python.framework import dtypes

    tensor = definition.attr["value"].tensor
    sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
    count = math.prod(sizes)
    if tensor.dtype == dtypes.float32.as_datatype_enum and not sizes:
        values, code = tensor.float_val, "f"
    elif tensor.dtype == dtypes.int32.as_datatype_enum and len(sizes) < 2 and 0 < count <= 8:
        values, code = tensor.int_val, "i"
    else:
        return None
    if len(tensor.tensor_content) == 4 * count:
        values = struct.unpack(f"<{count}{code}", tensor.tensor_content)
    # A TensorProto leaves out trailing values that repeat the last one, and all of them where they are zero.
    values = (list(values) or [0])[:count]
    values += values[-1:] * (count - len(values))
    return float(values[0]) if code == "f" else tuple(values)
