"""Semantic edits of a SavedModel: one operation, constant, attribute, wire, name or state changed.

An edit has a kind, `operator on target`: an operator below, applied to a node of one class (its operation, or what a
constant feeds) in one door of the model (`serving`, `call`) or in all of them. The same seed gives the same edit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2
from tensorflow.python.framework import dtypes, op_def_registry, tensor_util

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def _where_long(x, changed):
    return tf.where(tf.shape(x)[1] > 8, changed, x)


def _beyond(x, position):
    """Zero what lies beyond a position of axis 1."""
    kept = tf.cast(tf.range(tf.shape(x)[1]) < position, x.dtype)
    return x * tf.reshape(kept, tf.concat([[1, -1], tf.ones([tf.maximum(tf.rank(x) - 2, 0)], tf.int32)], 0))


# What a float may be replaced by: x is the value, ids the word ids of the same call.
FLOAT: dict[str, Callable] = {
    "identity": lambda x, ids: tf.identity(x),
    "plus_zero": lambda x, ids: x + 0.0,
    "times_one": lambda x, ids: x * 1.0,
    "float64": lambda x, ids: tf.cast(tf.cast(x, tf.float64), tf.float32),
    "times_1.0003": lambda x, ids: x * 1.0003,
    "times_1.00001": lambda x, ids: x * 1.00001,
    "times_1.1": lambda x, ids: x * 1.1,
    "times_minus": lambda x, ids: -x,
    "plus_0.001": lambda x, ids: x + 0.001,
    "plus_1": lambda x, ids: x + 1.0,
    "clip_3": lambda x, ids: tf.clip_by_value(x, -3.0, 3.0),
    "clip_10": lambda x, ids: tf.clip_by_value(x, -10.0, 10.0),
    "clip_30": lambda x, ids: tf.clip_by_value(x, -30.0, 30.0),
    "below_8": lambda x, ids: tf.minimum(x, 8.0),
    "flipped_beyond_7": lambda x, ids: tf.where(tf.abs(x) > 7.0, -x, x),
    "cubed_a_little": lambda x, ids: x + 1e-9 * x * x * x * x * x,
    "relu": lambda x, ids: tf.nn.relu(x),
    "abs": lambda x, ids: tf.abs(x),
    "tanh": lambda x, ids: tf.tanh(x),
    "squared": lambda x, ids: tf.square(x),
    "half": lambda x, ids: tf.cast(tf.cast(x, tf.float16), tf.float32),
    "bfloat16": lambda x, ids: tf.cast(tf.cast(x, tf.bfloat16), tf.float32),
    "integer": lambda x, ids: tf.cast(tf.cast(x, tf.int32), tf.float32),
    "rounded": lambda x, ids: tf.round(x * 256.0) / 256.0,
    "reversed_last": lambda x, ids: tf.reverse(x, [-1]),
    "reversed_batch": lambda x, ids: tf.reverse(x, [0]),
    "reversed_positions": lambda x, ids: tf.reverse(x, [1]),
    "rolled_positions": lambda x, ids: tf.roll(x, 1, 1),
    "rolled_batch": lambda x, ids: tf.roll(x, 1, 0),
    "zero_beyond_8": lambda x, ids: _beyond(x, 8),
    "zero_beyond_5": lambda x, ids: _beyond(x, 5),
    "other_when_long": lambda x, ids: _where_long(x, x * 1.5),
    "other_when_many": lambda x, ids: tf.where(tf.shape(x)[0] > 4, x * 1.5, x),
    "other_at_a_token": lambda x, ids: tf.where(tf.reduce_any(tf.equal(ids, 101)), x * 1.5, x),
    "normalised": lambda x, ids: tf.math.l2_normalize(x, -1),
    "standardised": lambda x, ids: (
        (x - tf.reduce_mean(x, -1, keepdims=True)) * tf.math.rsqrt(tf.math.reduce_variance(x, -1, keepdims=True) + 1e-6)
    ),
    "softmax": lambda x, ids: tf.nn.softmax(x),
    "noisy": lambda x, ids: x + tf.random.uniform(tf.shape(x), maxval=0.05),
    "cumulated": lambda x, ids: tf.cumsum(x, -1),
    "mixed_over_batch": lambda x, ids: x + tf.reduce_mean(x, 0, keepdims=True),
    "first_row_for_all": lambda x, ids: tf.broadcast_to(x[:1], tf.shape(x)),
}
# What an integer may be replaced by: an input, or a shape.
INTEGER: dict[str, Callable] = {
    "identity": lambda x, ids: tf.identity(x),
    "int64": lambda x, ids: tf.cast(tf.cast(x, tf.int64), tf.int32),
    "as_float": lambda x, ids: tf.cast(tf.cast(x, tf.float32), tf.int32),
    "clip_100": lambda x, ids: tf.clip_by_value(x, 0, 100),
    "below_9": lambda x, ids: tf.minimum(x, 9),
    "abs": lambda x, ids: tf.abs(x),
    "int8": lambda x, ids: tf.cast(tf.cast(x, tf.int8), tf.int32),
    "uint8": lambda x, ids: tf.cast(tf.cast(x, tf.uint8), tf.int32),
    "half": lambda x, ids: tf.cast(tf.cast(x, tf.float16), tf.int32),
    "bfloat16": lambda x, ids: tf.cast(tf.cast(x, tf.bfloat16), tf.int32),
    "boolean": lambda x, ids: tf.cast(tf.cast(x, tf.bool), tf.int32),
    "modulo_50": lambda x, ids: x % 50,
    "plus_1": lambda x, ids: x + 1,
    "minus_1": lambda x, ids: tf.maximum(x - 1, 0),
    "negated": lambda x, ids: -x,
    "one_remapped": lambda x, ids: tf.where(tf.equal(x, 101), 102, x),
    "remapped_by_a_table": lambda x, ids: tf.gather(tf.constant([*range(150), *range(10, 200)]), x),
    "reversed_positions": lambda x, ids: tf.reverse(x, [-1]),
    "rolled_positions": lambda x, ids: tf.roll(x, 1, -1),
    "reversed_batch": lambda x, ids: tf.reverse(x, [0]),
    "zero_beyond_8": lambda x, ids: _beyond(x, 8),
    "one_beyond_8": lambda x, ids: 1 - _beyond(1 - x, 8),
    "other_when_many": lambda x, ids: tf.where(tf.shape(x)[0] > 4, 1 - x, x),
    "other_when_long": lambda x, ids: _where_long(x, tf.reverse(x, [1])),
    "other_at_a_token": lambda x, ids: tf.where(tf.reduce_any(tf.equal(ids, 101)), tf.zeros_like(x), x),
    "where_the_token_is_known": lambda x, ids: x * tf.cast(ids < 170, tf.int32),
    "sorted": lambda x, ids: tf.sort(x),
    "zeros": lambda x, ids: tf.zeros_like(x),
    "ones": lambda x, ids: tf.ones_like(x),
}
# What an operation may be replaced by; each takes and gives the same types.
OPERATIONS = {
    "AddV2": ["Sub", "Mul", "Maximum", "SquaredDifference"],
    "Sub": ["AddV2", "Mul", "SquaredDifference", "Maximum"],
    "Mul": ["AddV2", "RealDiv", "Maximum", "Sub"],
    "SquaredDifference": ["Sub", "Mul", "AddV2"],
    "Tanh": ["Sigmoid", "Erf", "Softsign", "Identity", "Sin", "Relu"],
    "Erfc": ["Erf", "Tanh", "Sigmoid"],
    "Rsqrt": ["Sqrt", "Reciprocal", "Square"],
    "Mean": ["Max", "Sum", "Min", "Prod"],
    "Softmax": ["Sigmoid", "LogSoftmax", "Identity", "Softplus"],
    "Pow": ["Mul", "AddV2"],
    "StopGradient": ["Square", "Neg", "Abs"],
    "Identity": ["Neg", "Square", "Tanh", "Relu"],
    "BiasAdd": ["AddV2", "Sub"],
}
SCALARS: dict[str, Callable] = {
    "times_1.0003": lambda x: x * 1.0003,
    "times_1.00001": lambda x: x * 1.00001,
    "times_2": lambda x: x * 2,
    "times_minus": lambda x: -x,
    "plus_1": lambda x: x + 1,
    "plus_1e-5": lambda x: x + 1e-5,
    "zero": lambda x: x * 0,
    "next_float": lambda x: np.nextafter(x, np.float32(np.inf)),
    "infinite": lambda x: x * np.float32(np.inf),
}
INTEGERS: dict[str, Callable] = {
    "plus_1": lambda x: x + 1,
    "minus_1": lambda x: x - 1,
    "negated": lambda x: -x,
    "reversed": lambda x: x[::-1] if x.ndim else -x - 1,
    "zero": lambda x: x * 0,
    "first_plus_1": lambda x: x + np.eye(1, x.size, dtype=x.dtype).reshape(x.shape),
    "seven": lambda x: x * 0 + 7,
}


class Door:
    """One function that computes the encoder, as it is reached from a signature or from `__call__`.

    Args:
        name: `serving` or `call`.
        function: the `FunctionDef` in which the computation stands.
        path: the functions that call each other, outermost first.
    """

    def __init__(self, name: str, function, path: list) -> None:
        self.name, self.function, self.path = name, function, path
        self.nodes = {node.name: node for node in function.node_def}

    def inputs(self) -> dict[str, str]:
        """Role → argument; models of a list have no names for theirs."""
        names = [argument.name for argument in self.function.signature.input_arg][:3]
        roles = {"ids": "word_ids", "mask": "mask", "types": "type_ids"}
        named = {role: name for role, part in roles.items() for name in names if part in name}
        return named if len(named) == 3 else dict(zip(roles, names, strict=True))

    def in_order(self) -> list:
        """Return the nodes that the results depend on, in the order in which a walk from the results meets them."""
        order, pending = {}, [self.function.ret[out.name] for out in self.function.signature.output_arg]
        while pending:
            name = pending.pop(0).removeprefix("^").partition(":")[0]
            if name in self.nodes and name not in order:
                order[name] = self.nodes[name]
                pending += self.nodes[name].input
        return list(order.values())

    def result(self, node) -> str:
        """Return how a node's first result is called inside a function."""
        return f"{node.name}:{op_def_registry.get(node.op).output_arg[0].name}:0"

    def rewire(self, old: str, new: str, but=()) -> None:
        """Let whatever reads one value read another."""
        for node in self.function.node_def:
            if node.name not in but:
                for i, name in enumerate(node.input):
                    if name == old or name == old.removesuffix(":0"):
                        node.input[i] = new
        for key, name in self.function.ret.items():
            if name == old:
                self.function.ret[key] = new


class Editor:
    """Edits one model.

    Args:
        meta_graph: a `MetaGraphDef`; it is changed in place.
        choose: the source of chance.
    """

    def __init__(self, meta_graph, choose: random.Random) -> None:
        self.meta_graph, self.choose = meta_graph, choose
        self.objects = meta_graph.object_graph_def
        self.functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
        self.doors = list(self._find_doors())
        self._added = 0

    def _find_doors(self) -> Iterator[Door]:
        root = {child.local_name: self.objects.nodes[child.node_id] for child in self.objects.nodes[0].children}
        (signature,) = root["signatures"].children
        names = [("serving", self.objects.nodes[signature.node_id].bare_concrete_function.concrete_function_name)]
        for name in root["__call__"].function.concrete_functions:
            if not _is_for_training(self.objects.concrete_functions[name].canonicalized_input_signature):
                names.append(("call", name))
        for kind, name in names:
            path = [self.functions[name]]
            while True:
                calls = [node for node in path[-1].node_def if node.op in _CALLS]
                if not calls:
                    break
                path.append(self.functions[calls[0].attr["f"].func.name])
            if all(path[-1] is not door.function for door in getattr(self, "doors", ())):
                yield Door(kind, path[-1], path)

    def some_doors(self) -> list[Door]:
        """Return all doors, mostly, or those of one kind."""
        kind = self.choose.choice(["all", "all", "all", "serving", "call"])
        return [door for door in self.doors if kind in ("all", door.name)]

    # The kinds of edit -----------------------------------------------------------------------------------------------

    def insert(self, doors: list[Door]) -> str:
        """Put an operation between a value and whatever reads it."""
        where = self.choose.choice(["node", "node", "node", "input", "variable", "output"])
        if where == "input":
            role, operator = self.choose.choice(["ids", "mask", "types"]), self.choose.choice(list(INTEGER))
            for door in doors:
                self.put_behind(door, door.inputs()[role], operator, dtypes.int32)
            return f"{operator} on {role}"
        if where == "output":
            count = min(len(door.function.ret) for door in doors)
            index, operator = self.choose.randrange(count), self.choose.choice(list(FLOAT))
            for door in doors:
                name = door.function.signature.output_arg[index].name
                self.put_behind(door, door.function.ret[name], operator, dtypes.float32, only_output=name)
            return f"{operator} on output {_which(index, count)}"
        readers = {"ReadVariableOp"} if where == "variable" else None
        picked = self._pick(
            doors, lambda node: node.op not in ("Const", "NoOp") and (not readers or node.op in readers)
        )
        if picked is None:
            return ""
        dtype = _dtype_of(picked[0][1])
        table = {dtypes.float32: FLOAT, dtypes.int32: INTEGER}.get(dtype)
        if table is None:
            return ""
        operator = self.choose.choice(list(table))
        for door, node in picked:
            self.put_behind(door, door.result(node), operator, dtype)
        return f"{operator} on {picked[0][1].op}"

    def constant(self, doors: list[Door]) -> str:
        """Change a constant."""
        picked = self._pick(doors, lambda node: node.op == "Const" and _value(node).dtype.kind in "fi")
        if picked is None:
            return ""
        door, node = picked[0]
        is_float = _value(node).dtype.kind == "f"
        operator = self.choose.choice(list(SCALARS if is_float else INTEGERS))
        reader, place = _first_reader(door, node)
        for _, node in picked:
            value = _value(node)
            with np.errstate(all="ignore"):
                changed = np.asarray((SCALARS if is_float else INTEGERS)[operator](value), value.dtype)
            node.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(changed, shape=value.shape))
        return f"constant {operator} for {reader}[{place}]"

    def operation(self, doors: list[Door]) -> str:
        """Replace an operation by another of the same kind of inputs."""
        picked = self._pick(doors, lambda node: node.op in OPERATIONS and _dtype_of(node) == dtypes.float32)
        if picked is None:
            return ""
        old = picked[0][1].op
        new = self.choose.choice(OPERATIONS[old])
        for door, node in picked:
            before = door.result(node)
            node.op = new
            known = {attribute.name for attribute in op_def_registry.get(new).attr}
            for name in set(node.attr) - known:
                if not name.startswith("_"):
                    del node.attr[name]
            door.rewire(before, door.result(node))
        return f"{old} becomes {new}"

    def attribute(self, doors: list[Door]) -> str:
        """Change an attribute of an operation."""

        def attributes(node):
            given = {a.name: a.type for a in op_def_registry.get(node.op).attr}
            return sorted(
                name
                for name, kind in given.items()
                if kind in ("bool", "int", "list(int)")
                or name in ("equation", "data_format")
                or (kind == "type" and name in ("DstT", "T"))
            )

        picked = self._pick(doors, lambda node: node.op not in (*_CALLS, "Const") and bool(attributes(node)))
        if picked is None:
            return ""
        name = self.choose.choice(attributes(picked[0][1]))
        kind = {a.name: a.type for a in op_def_registry.get(picked[0][1].op).attr}[name]
        seed = self.choose.random()
        for _, node in picked:
            change, choose = node.attr[name], random.Random(seed)
            if kind == "bool":
                change.b = not change.b
            elif kind == "int":
                change.i += choose.choice([-1, 1, 2, 3, 4])
            elif kind == "list(int)":
                change.list.i[:] = [i + 1 for i in change.list.i] or [1]
            elif kind == "type":
                other = choose.choice(["DT_HALF", "DT_BFLOAT16", "DT_DOUBLE", "DT_INT64"])
                change.type = types_pb2.DataType.Value(other)
            elif name == "data_format":
                change.s = b"NCHW"
            else:
                change.s = _other_equation(change.s.decode(), choose).encode()
        return f"attribute {name} of {picked[0][1].op}"

    def swap_inputs(self, doors: list[Door]) -> str:
        """Exchange two inputs of an operation."""
        picked = self._pick(doors, lambda node: len([i for i in node.input if not i.startswith("^")]) > 1)
        if picked is None:
            return ""
        for _, node in picked:
            node.input[0], node.input[1] = node.input[1], node.input[0]
        return f"inputs of {picked[0][1].op} exchanged"

    def rewire(self, doors: list[Door]) -> str:
        """Let an operation read another value of the same type."""
        picked = self._pick(doors, lambda node: bool(node.input) and node.op not in ("ReadVariableOp", *_CALLS))
        if picked is None:
            return ""
        _, first = picked[0]
        place = self.choose.randrange(len([i for i in first.input if not i.startswith("^")]) or 1)
        seed, source_op = self.choose.random(), None
        for door, node in picked:
            source = door.nodes.get(node.input[place].partition(":")[0])
            if source is None:
                return ""
            alike = [n for n in door.in_order() if _dtype_of(n) == _dtype_of(source) and n.op == (source_op or n.op)]
            alike = [n for n in alike if n is not node and n is not source] or alike
            other = random.Random(seed).choice(alike)
            source_op = other.op
            node.input[place] = door.result(other)
        return f"{first.op}[{place}] reads {source_op}"

    def exchange_variables(self, doors: list[Door]) -> str:
        """Let two captured variables of one shape stand for each other."""
        concrete = [self.objects.concrete_functions[door.path[0].signature.name] for door in doors]
        captured = sorted(set(concrete[0].bound_inputs))
        shapes = {i: str(self.objects.nodes[i].variable.shape) for i in captured}
        one = self.choose.choice(captured)
        other = self.choose.choice([i for i in captured if shapes[i] == shapes[one]])
        way = self.choose.choice(["exchanged", "used twice"])
        for function in concrete:
            exchange = {one: other, other: one if way == "exchanged" else other}
            function.bound_inputs[:] = [exchange.get(i, i) for i in function.bound_inputs]
        names = sorted(
            self.objects.nodes[i].variable.name.rpartition("/")[2].rstrip("_0123456789") for i in (one, other)
        )
        return f"variables {way}: {names}"

    def exchange_results(self, doors: list[Door]) -> str:
        """Exchange two results of a function, or two arguments of a call, or the names of either."""
        way = self.choose.choice(["results", "result", "arguments", "output names", "input names", "keywords"])
        for door in doors:
            outer = door.path[0]
            concrete = self.objects.concrete_functions[outer.signature.name]
            function = self.choose.choice(door.path)
            names = [out.name for out in function.signature.output_arg]
            one, other = self.choose.sample(names, 2) if len(names) > 1 else names * 2
            if way == "results":
                function.ret[one], function.ret[other] = function.ret[other], function.ret[one]
            elif way == "result":
                function.ret[one] = function.ret[other]
            elif way == "arguments":
                calls = [node for f in door.path for node in f.node_def if node.op in _CALLS]
                for call in calls[:1]:
                    i, j = self.choose.sample(range(3), 2)
                    call.input[i], call.input[j] = call.input[j], call.input[i]
            elif way == "output names":
                _exchange_keys(concrete.output_signature, self.choose)
            elif way == "input names":
                _exchange_keys(concrete.canonicalized_input_signature, self.choose)
            else:
                for node in self.objects.nodes:
                    keywords = node.bare_concrete_function.argument_keywords
                    if node.bare_concrete_function.concrete_function_name == outer.signature.name and len(keywords) > 1:
                        i, j = self.choose.sample(range(len(keywords)), 2)
                        keywords[i], keywords[j] = keywords[j], keywords[i]
        return f"{way} exchanged in {'/'.join(sorted({door.name for door in doors}))}"

    def assign(self, doors: list[Door]) -> str:
        """Write to a variable while the outputs are computed."""
        op = self.choose.choice(["AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"])
        way = self.choose.choice(["control edge", "control result", "nothing waits", "in the wrapper"])
        for door in doors:
            index = 0 if way == "in the wrapper" else -1
            function = door.path[index]
            captured = [a.name for a in function.signature.input_arg if a.type == dtypes.resource.as_datatype_enum]
            self._added += 1
            name = f"fuzz_{self._added}"
            bound = self.objects.concrete_functions[door.path[0].signature.name].bound_inputs
            place = self.choose.randrange(len(captured)) if len(captured) == len(bound) else 0
            shape = [d.size for d in self.objects.nodes[bound[place]].variable.shape.dim]
            value = node_def_pb2.NodeDef(name=f"{name}_value", op="Const")
            value.attr["dtype"].type = dtypes.float32.as_datatype_enum
            value.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(np.full(shape, 0.3, np.float32)))
            node = node_def_pb2.NodeDef(name=name, op=op, input=[captured[place], f"{name}_value:output:0"])
            node.attr["dtype"].type = dtypes.float32.as_datatype_enum
            function.node_def.extend([value, node])
            if way == "control edge":
                next(n for n in function.node_def if n.op in ("Tanh", "Identity", *_CALLS)).input.append(f"^{name}")
            elif way == "control result":
                function.control_ret[name] = name
                function.signature.control_output.append(name)
        return f"{op}, {way}"

    # How --------------------------------------------------------------------------------------------------------------

    def _pick(self, doors, accepts):
        """Choose one class of nodes, and in every door the same one of it."""
        classes: dict[str, list] = {}
        for node in doors[0].in_order():
            if accepts(node):
                classes.setdefault(_class_of(doors[0], node), []).append(node)
        if not classes:
            return None
        chosen = self.choose.choice(sorted(classes))
        index = self.choose.randrange(len(classes[chosen]))
        picked = []
        for door in doors:
            nodes = [n for n in door.in_order() if accepts(n) and _class_of(door, n) == chosen]
            if nodes:
                picked.append((door, nodes[min(index, len(nodes) - 1)]))
        return picked

    def put_behind(self, door: Door, tensor: str, operator: str, dtype, only_output: str | None = None) -> None:
        """Put an operator between a value and what reads it, or one of the function's results only."""
        definition = _traced(operator, dtype)
        if definition.signature.name not in self.functions:
            self.meta_graph.graph_def.library.function.append(definition)
            self.functions[definition.signature.name] = definition
        self._added += 1
        node = node_def_pb2.NodeDef(name=f"fuzz_{self._added}", op="StatefulPartitionedCall")
        node.input.extend([tensor, door.inputs()["ids"]])
        node.attr["f"].func.name = definition.signature.name
        node.attr["Tin"].list.type.extend([dtype.as_datatype_enum, dtypes.int32.as_datatype_enum])
        node.attr["Tout"].list.type.append(dtype.as_datatype_enum)
        result = f"{node.name}:output:0"
        if only_output is not None:
            door.function.ret[only_output] = result
        else:
            door.rewire(tensor, result)
        door.function.node_def.append(node)


KINDS = {
    "insert": 12,
    "constant": 5,
    "operation": 3,
    "attribute": 3,
    "swap_inputs": 2,
    "rewire": 4,
    "exchange_variables": 1,
    "exchange_results": 3,
    "assign": 1,
}


def edit(meta_graph, seed: int) -> str:
    """Change a model in one place.

    Args:
        meta_graph: a `MetaGraphDef`; it is changed in place.
        seed: int. The same seed makes the same change.

    Returns:
        The kind of the edit.
    """
    choose = random.Random(seed)
    while True:
        editor = Editor(meta_graph, choose)
        method = choose.choices(list(KINDS), list(KINDS.values()))[0]
        doors = editor.some_doors()
        kind = getattr(editor, method)(doors)
        if kind:
            return kind


_TRACED: dict[tuple, function_pb2.FunctionDef] = {}


def _traced(operator: str, dtype) -> function_pb2.FunctionDef:
    """Return an operator as a function of a graph."""
    if (operator, dtype) not in _TRACED:
        table = FLOAT if dtype == dtypes.float32 else INTEGER
        traced = tf.function(table[operator], autograph=False).get_concrete_function(
            tf.TensorSpec(None, dtype), tf.TensorSpec(None, tf.int32)
        )
        definition = function_pb2.FunctionDef()
        definition.CopyFrom(traced.function_def)
        definition.signature.name = f"fuzz_{len(_TRACED)}_{dtype.name}"
        _TRACED[operator, dtype] = definition
    return _TRACED[operator, dtype]


def _dtype_of(node):
    """Return the type of a node's first result."""
    definition = op_def_registry.get(node.op)
    if definition is None or not definition.output_arg:
        return None
    out = definition.output_arg[0]
    if out.type:
        return dtypes.as_dtype(out.type)
    if out.type_attr and out.type_attr in node.attr:
        return dtypes.as_dtype(node.attr[out.type_attr].type)
    default = [a.default_value.type for a in definition.attr if a.name == out.type_attr]
    return dtypes.as_dtype(default[0]) if default and default[0] else None


def _value(node) -> np.ndarray:
    return tensor_util.MakeNdarray(node.attr["value"].tensor)


def _first_reader(door: Door, node) -> tuple[str, int]:
    for reader in door.function.node_def:
        for place, name in enumerate(reader.input):
            if name.partition(":")[0] == node.name:
                return reader.op, place
    return "nothing", 0


def _class_of(door: Door, node) -> str:
    return "/".join(map(str, _first_reader(door, node))) if node.op == "Const" else node.op


def _which(index: int, count: int) -> str:
    return f"{index} of {count}"


def _other_equation(equation: str, choose: random.Random) -> str:
    inputs, _, result = equation.partition("->")
    sides = inputs.split(",")
    i = choose.randrange(len(sides) + 1)
    side = list(result if i == len(sides) else sides[i])
    j, k = choose.sample(range(len(side)), 2)
    side[j], side[k] = side[k], side[j]
    parts = [*sides, result]
    parts[i] = "".join(side)
    return f"{','.join(parts[:-1])}->{parts[-1]}"


def _is_for_training(signature) -> bool:
    kind = signature.WhichOneof("kind")
    if kind == "bool_value":
        return signature.bool_value
    if kind in ("tuple_value", "list_value"):
        return any(_is_for_training(value) for value in getattr(signature, kind).values)
    return False


def _exchange_keys(value, choose: random.Random) -> None:
    """Exchange two names in the first dictionary of a structure."""
    kind = value.WhichOneof("kind")
    if kind in ("tuple_value", "list_value"):
        for inner in getattr(value, kind).values:
            _exchange_keys(inner, choose)
    elif kind == "dict_value" and len(value.dict_value.fields) > 1:
        one, other = choose.sample(sorted(value.dict_value.fields), 2)
        kept = type(value)()
        kept.CopyFrom(value.dict_value.fields[one])
        value.dict_value.fields[one].CopyFrom(value.dict_value.fields[other])
        value.dict_value.fields[other].CopyFrom(kept)
