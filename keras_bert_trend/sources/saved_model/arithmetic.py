"""Compute values of a dataflow with NumPy: a few dozen pure operations, on arrays that are bounded in size.

This is how the reader checks what it has read: a SavedModel's functions are never run by TensorFlow, and an operation
that is not in the table below is not computed at all. What each would take is estimated before it is computed, and all
of them together are bounded. Constants are float32, as they are in the graph; what is computed with them has the type
of the given values, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key, Node
from keras_bert_trend.sources.saved_model.files import ExceededBoundError

_MAX_BYTES = 2**30  # of the values that are held at one time; the given ones are not counted
_PER_SECOND = 10**9  # additions that NumPy is trusted with; BERT-large takes one second so, ALBERT-xxlarge seven
_CALL = 10_000  # what calling an operation takes, as many additions
# One element's, or one product's, time in additions.
_WEIGHTS = {"Pow": 50, "Erf": 300, "Erfc": 300, "Exp": 10, "Tanh": 10, "Sigmoid": 20, "Softmax": 20, "MatMul": 1 / 8}


class CannotComputeError(Exception):
    """A value depends on an operation or an input that is not computed here; the message says which."""


def compute(
    graph: Dataflow, keys: Iterable[Key], given: Mapping[Key, np.ndarray], *, keep_shapes: bool = False
) -> list[np.ndarray]:
    """Compute values from given ones.

    Args:
        graph: the dataflow.
        keys: the values wanted.
        given: values that are known, in float32, float64, int64 or bool; what they are made of is not looked at.
        keep_shapes: let operations that only give a value another shape pass it on as it is.

    Returns:
        The arrays, in the order of `keys`.

    Raises:
        CannotComputeError: something on the way is not given and not computed here.
        ExceededBoundError: it would take more than 1 GiB, or all that was computed of this model more than 10 seconds.
    """
    keys = list(keys)

    def sources(node: Node) -> list[Key]:
        return node.inputs[:1] if keep_shapes and node.op in RESHAPES else node.inputs

    order, uses = _order(graph, keys, given, sources)
    values: dict[Key, np.ndarray] = {}
    owners = {id(_owner(array)) for array in given.values()}
    held = 0

    def size(array: np.ndarray) -> int:
        return 0 if id(_owner(array)) in owners else array.nbytes

    def value(key: Key) -> np.ndarray:
        return given[key] if key in given else values[key]

    for key in order:
        node = graph.nodes[key]
        inputs = [value(source) for source in sources(node)]
        passed_on = keep_shapes and node.op in RESHAPES
        try:
            with np.errstate(all="ignore"):
                elements, work = (0, 0) if passed_on else _estimate(node, inputs)
                if held + 8 * elements > _MAX_BYTES:
                    raise ExceededBoundError(
                        f"to compute its {node.op} would take more than {_MAX_BYTES >> 30} GiB of memory"
                    )
                graph.files.spend((work + _CALL) / _PER_SECOND)
                result = inputs[0] if passed_on else np.asarray(_OPERATIONS[node.op](node, *inputs))
        except (CannotComputeError, ExceededBoundError):
            raise
        except Exception as error:  # NumPy's own, where shapes or types do not fit
            raise CannotComputeError(f"{node.op} of {[x.shape for x in inputs]}: {error}") from error
        values[key] = result
        held += size(result)
        for source in sources(node):  # kernels are large: none is kept longer than it is needed
            uses[source] -= 1
            if not uses[source] and source in values:
                held -= size(values.pop(source))
    return [value(key) for key in keys]


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array that a view looks at."""
    return array if array.base is None else array.base


def _estimate(node: Node, inputs: list[np.ndarray]) -> tuple[float, float]:
    """Return how many elements an operation will have to hold, and its work in additions."""
    sizes = [x.size for x in inputs]
    if node.op in _ELEMENT_WISE:
        count = math.prod(np.broadcast_shapes(*(x.shape for x in inputs)))
        return count, count * _WEIGHTS.get(node.op, len(inputs))
    if node.op == "Einsum":
        return _estimate_einsum(node.text("equation"), inputs)
    if node.op in _PRODUCTS:
        columns = inputs[1].shape[-1 - node.flag(_PRODUCTS[node.op])]
        depth = inputs[1].shape[-2 + node.flag(_PRODUCTS[node.op])]
        batch = math.prod(np.broadcast_shapes(inputs[0].shape[:-2], inputs[1].shape[:-2]))
        rows = math.prod(inputs[0].shape[-2:]) // max(1, depth)
        return batch * rows * columns, batch * rows * columns * depth * _WEIGHTS["MatMul"]
    if node.op == "Const":
        sizes = [node.size]
    elif node.op in ("Gather", "GatherV2", "ResourceGather"):
        axis = int(inputs[2]) if len(inputs) > 2 else 0
        sizes = [inputs[1].size * inputs[0].size // max(1, inputs[0].shape[axis])]
    elif node.op == "OneHot":
        sizes = [inputs[0].size * max(0, int(inputs[1]))]
    elif node.op in ("Fill", "BroadcastTo"):
        sizes = [math.prod(int(n) for n in inputs[node.op == "BroadcastTo"])]
    elif node.op in ("Pad", "PadV2"):
        sizes = [math.prod(n + int(b) + int(a) for n, (b, a) in zip(inputs[0].shape, inputs[1], strict=True))]
    elif node.op == "Tile":
        sizes = [inputs[0].size * math.prod(int(n) for n in inputs[1])]
    elif node.op == "Range":
        start, stop, step = (float(x) for x in inputs)
        sizes = [abs((stop - start) / step) if step else math.inf]
    is_view = node.op in _VIEWS or (node.op in RESHAPES and inputs[0].flags.c_contiguous)
    return 0 if is_view else sum(sizes), sum(sizes) * _WEIGHTS.get(node.op, 1)


def _estimate_einsum(equation: str, inputs: list[np.ndarray]) -> tuple[float, float]:
    operands, _, result = equation.partition("->")
    lengths: dict[str, int] = {}
    rest = 1
    for labels, x in zip(operands.split(","), inputs, strict=True):
        before, dots, after = labels.partition("...")
        kept = x.shape[len(before) : x.ndim - len(after)] if dots else ()
        rest = max(rest, math.prod(kept))
        shape = x.shape[: len(before)] + x.shape[x.ndim - len(after) :] if dots else x.shape
        lengths.update(zip(before + after, shape, strict=True))
    count = rest * math.prod(lengths[label] for label in result.replace("...", ""))
    # What is neither summed nor a label of both operands is a matrix product for NumPy, all else a loop.
    shared = [set(labels) & set(result) for labels in operands.split(",")]
    is_product = len(shared) == 2 and not shared[0] & shared[1] - {"."}
    work = rest * math.prod(lengths.values()) * (_WEIGHTS["MatMul"] if is_product else 1)
    return count + sum(x.size for x in inputs), work


def _order(graph, keys, given, sources) -> tuple[list[Key], dict[Key, int]]:
    """Return what has to be computed, sources first, and how often each value is used."""
    order: list[Key] = []
    uses = dict.fromkeys(keys, 1)
    done: set[Key] = set()
    pending = [(key, False) for key in keys]
    while pending:
        key, ready = pending.pop()
        if key in given or key in done:
            continue
        if ready:
            done.add(key)
            order.append(key)
            continue
        node = graph.nodes.get(key)
        if node is None:
            raise CannotComputeError(f"it depends on the {key[0]} {key[1]!r}")
        if node.op not in _OPERATIONS:
            raise CannotComputeError(f"{node.op} is not computed")
        pending.append((key, True))
        pending += [(source, False) for source in sources(node)]
    for key in order:
        for source in sources(graph.nodes[key]):
            uses[source] = uses.get(source, 0) + 1
    return order, uses


def _constant(node):
    value = node.array(_MAX_BYTES // 8)
    if value is None:
        raise CannotComputeError("a constant is too large, or no number")
    return _standardized(value)


def _standardized(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    return array.astype({"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}.get(kind, array.dtype))


def _cast(node, x):
    name = node.dtype("DstT")
    if name == "bool":
        return x.astype(bool)
    if "int" in name:
        return (np.trunc(x) if x.dtype.kind == "f" else x).astype(np.int64)
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _pad(node, x, widths, value=0):
    return np.pad(x, [(int(before), int(after)) for before, after in widths], constant_values=value)


def _without_node(function: Callable) -> Callable:
    return lambda node, *inputs: function(*inputs)


def _bias_add(node, x, bias):
    if node.text("data_format") not in ("", "NHWC"):
        raise CannotComputeError("a bias of another axis than the last is not computed")
    return x + bias


def _select(node, condition, x, y):
    if condition.ndim and not condition.shape == x.shape == y.shape:
        raise CannotComputeError("a choice among rows is not computed")
    return np.where(condition, x, y)


def _einsum(node, *inputs):
    return np.einsum(node.text("equation"), *inputs, optimize=len(inputs) == 2)


def _matmul(first: str, second: str) -> Callable:
    def apply(node, x, y):
        x = np.swapaxes(x, -1, -2) if node.flag(first) else x
        y = np.swapaxes(y, -1, -2) if node.flag(second) else y
        return np.matmul(x, y)

    return apply


def _reduce(function: Callable) -> Callable:
    def apply(node, x, axes):
        if x.dtype.kind != "f" and function is np.mean:
            raise CannotComputeError("a mean of integers is not computed")
        return function(x, axis=tuple(int(axis) for axis in axes.ravel()), keepdims=node.flag("keep_dims"))

    return apply


def _strided_slice(node, x, begin, end, strides):
    index: list = []
    for i in range(len(strides)):
        bit = 1 << i
        if node.integer("ellipsis_mask") & bit:
            index.append(Ellipsis)
        elif node.integer("new_axis_mask") & bit:
            index.append(np.newaxis)
        elif node.integer("shrink_axis_mask") & bit:
            index.append(int(begin[i]))
        else:
            start = None if node.integer("begin_mask") & bit else int(begin[i])
            stop = None if node.integer("end_mask") & bit else int(end[i])
            index.append(slice(start, stop, int(strides[i])))
    return x[tuple(index)]


def _slice(node, x, begin, size):
    stops = [None if n < 0 else int(b + n) for b, n in zip(begin, size, strict=True)]
    return x[tuple(slice(int(b), stop) for b, stop in zip(begin, stops, strict=True))]


def _gather(node, table, ids, axis=0):
    if node.integer("batch_dims"):
        raise CannotComputeError("a gather with batch dimensions is not computed")
    if ids.size and (ids.min() < 0 or ids.max() >= table.shape[int(axis)]):
        raise CannotComputeError("a gather reaches outside its table")
    if int(axis) == 0:
        return table[ids]  # `np.take` would copy a table that is no contiguous block
    return np.take(table, ids, axis=int(axis))


def _one_hot(node, ids, depth, on, off):
    if node.integer("axis", default=-1) != -1:
        raise CannotComputeError("a one-hot along another axis than the last is not computed")
    return np.where(ids[..., None] == np.arange(int(depth)), on, off)


def _squeeze(node, x):
    axes = tuple(node.integers("squeeze_dims"))
    return np.squeeze(x, axis=axes or None)


def _fill(node, shape, value):
    return np.full([int(n) for n in shape], value)


def _broadcast_to(node, x, shape):
    return np.broadcast_to(x, [int(n) for n in shape])


def _tile(node, x, counts):
    return np.tile(x, [int(n) for n in counts])


def _range(node, start, stop, step):
    return np.arange(start, stop, step)


def _softmax(node, x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function, element by element."""
    return np.vectorize(math.erf, otypes=[float])(x).astype(x.dtype)


def _split(node, axis, x):
    return np.split(x, node.integer("num_split"), axis=int(axis))[node.port]


def _unpack(node, x):
    return np.take(x, node.port, axis=node.integer("axis"))


# Operations whose result holds the values of their first input in the same order.
RESHAPES: dict[str, Callable] = {
    "Reshape": lambda node, x, shape: np.reshape(x, [int(n) for n in shape]),
    "ExpandDims": lambda node, x, axis: np.expand_dims(x, int(axis.reshape(()))),
    "Squeeze": _squeeze,
    "StopGradient": lambda node, x: x,
    "CheckNumerics": lambda node, x: x,
    "EnsureShape": lambda node, x: x,
}

_ELEMENT_WISE: dict[str, Callable] = {
    "Add": np.add,
    "AddV2": np.add,
    "AddN": lambda *inputs: sum(inputs[1:], inputs[0]),
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Div": np.divide,
    "FloorDiv": np.floor_divide,
    "Pow": np.power,
    "Square": np.square,
    "SquaredDifference": lambda x, y: np.square(x - y),
    "Neg": np.negative,
    "Exp": np.exp,
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Reciprocal": lambda x: 1 / x,
    "Tanh": np.tanh,
    "Erf": erf,
    "Erfc": lambda x: 1 - erf(x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Relu": lambda x: np.maximum(x, 0),
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "Less": np.less,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "LessEqual": np.less_equal,
    "LogicalNot": np.logical_not,
    "LogicalAnd": np.logical_and,
    "SelectV2": np.where,
    "ZerosLike": np.zeros_like,
    "OnesLike": np.ones_like,
}

# Operations whose result NumPy does not copy.
_VIEWS = ("Transpose", "StridedSlice", "Slice", "BroadcastTo", "Split")

# Products of matrices, with the attribute that transposes the second.
_PRODUCTS = {"MatMul": "transpose_b", **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), "adj_y")}

_OPERATIONS: dict[str, Callable] = {
    **RESHAPES,
    "Const": _constant,
    "Cast": _cast,
    "BroadcastTo": _broadcast_to,
    "Pad": _pad,
    "PadV2": _pad,
    "Transpose": lambda node, x, order: np.transpose(x, [int(n) for n in order]),
    **{name: _without_node(function) for name, function in _ELEMENT_WISE.items()},
    "BiasAdd": _bias_add,
    "Select": _select,
    "Mean": _reduce(np.mean),
    "Sum": _reduce(np.sum),
    "Prod": _reduce(np.prod),
    "Max": _reduce(np.max),
    "Min": _reduce(np.min),
    "Softmax": _softmax,
    "Einsum": _einsum,
    "MatMul": _matmul("transpose_a", "transpose_b"),
    "BatchMatMul": _matmul("adj_x", "adj_y"),
    "BatchMatMulV2": _matmul("adj_x", "adj_y"),
    "BatchMatMulV3": _matmul("adj_x", "adj_y"),
    "Shape": lambda node, x: np.array(x.shape, np.int64),
    "Size": lambda node, x: np.int64(x.size),
    "Rank": lambda node, x: np.int64(x.ndim),
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Pack": lambda node, *inputs: np.stack(inputs, axis=node.integer("axis")),
    "Unpack": _unpack,
    "Split": _split,
    "ConcatV2": lambda node, *inputs: np.concatenate(inputs[:-1], axis=int(inputs[-1])),
    "Gather": _gather,
    "GatherV2": _gather,
    "ResourceGather": _gather,
    "OneHot": _one_hot,
    "Range": _range,
    "Fill": _fill,
    "Tile": _tile,
}
