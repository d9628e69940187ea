"""Recognise, in a SavedModel's dataflow, the expressions that a BERT is made of.

Every function here takes the key of a value and says what that value *is*: a dense layer of something, the LayerNorm
of something, the attention of something. Between the parts they let only operations stand that cannot change a value,
and inside an expression only those that it may consist of: what a number is compared with could not tell whether
something happens to a larger one, to a longer text or to another word. Axes, orders and shapes are another matter: they
are computed in the end (`verification.py`). Variable names play no part but in messages.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection

import numpy as np

from keras_bert_trend.sources.saved_model.arithmetic import RESHAPES, CannotComputeError, compute
from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key, Node
from keras_bert_trend.sources.saved_model.formulas import ACTIVATIONS, NoFormulaError, read_formula
from keras_bert_trend.sources.saved_model.verification import FUNCTIONS

MATMULS = ("Einsum", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_SUMS = ("Add", "AddV2", "AddN", "BiasAdd")
_GATHERS = ("ResourceGather", "Gather", "GatherV2")
# What a shape is computed from other shapes with: what a dimension may be is a product of others, and no more.
_SHAPE_ARITHMETIC = ("Pack", "ConcatV2", "Mul")
_SHAPE_SELECTION = ("StridedSlice", "Slice", "Gather", "GatherV2", "Unpack", "Prod", *RESHAPES)
# Functions without steps and limits: two of them that agree on a few random numbers agree on all.
_SMOOTH = (*_SUMS, "Sub", "Mul", "Neg", "RealDiv", "Div", "Square", "SquaredDifference", "Sqrt", "Rsqrt", "Reciprocal")
_AVERAGES = ("Mean", "Sum")
# What works on every element of a mask for itself.
_ELEMENT_WISE = (
    *(_SUMS[:3]),
    *("Sub", "Mul", "Neg", "Cast", "Equal", "NotEqual", "LogicalNot", "Greater", "Less", "GreaterEqual", "LessEqual"),
    *("Select", "SelectV2", "OnesLike", "ZerosLike"),
)
_MAX_TERMS = 8


class MismatchError(Exception):
    """A value is not the expression it was looked at for; the message says why.

    Attributes:
        found: how many weights of a formula had been found before.
    """

    found = 0


@dataclasses.dataclass(frozen=True)
class Dense:
    """`source @ kernel + bias`."""

    source: Key
    kernel: Key
    bias: Key


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """`(source − mean) / sqrt(variance + epsilon) · gamma + beta` over the last axis.

    Without epsilon it is `source · gamma + beta`, which MobileBERT has in its place.
    """

    source: Key
    gamma: Key
    beta: Key
    epsilon: float | None


@dataclasses.dataclass(frozen=True)
class Attention:
    """`softmax(scale · Q Kᵀ + (1 − mask) · mask_constant) V`, each of Q, K, V a dense layer."""

    query: Dense
    key: Dense
    value: Dense
    scale: float
    mask_constant: float
    mask: str  # the argument of the function that the mask is made of
    weights: Key  # what multiplies V
    mixes: tuple[Key, Key] | None  # of talking heads: what mixes the heads before the softmax, and after


class Patterns:
    """The recognisers, over one graph.

    Args:
        graph: the dataflow of the function that is read.
        describe: names a value for messages.
    """

    def __init__(self, graph: Dataflow, describe: Callable[[Key], str]) -> None:
        self._graph = graph
        self.describe = describe
        self._plain: dict[Key, Key] = {}
        self._known: dict[tuple, object] = {}

    def _once(self, read: Callable, key: Key):
        """Return what `read` makes of a value, or raise what it raises; every value is read once."""
        key = self._through(key)
        if (read.__name__, key) not in self._known:
            try:
                self._known[read.__name__, key] = read(key)
            except MismatchError as error:
                self._known[read.__name__, key] = str(error)
        known = self._known[read.__name__, key]
        if isinstance(known, str):
            raise MismatchError(known)
        return known

    def dense(self, key: Key) -> Dense:
        """Read a dense layer with a bias.

        Raises:
            MismatchError: it is none, or its kernel is laid out in another way than `(inputs…, outputs…)`.
        """
        product, bias = self._operands(key, _SUMS, "a dense layer")
        if not self._is_variable(bias):
            product, bias = bias, product
        if not self._is_variable(bias):
            raise self.mismatch(key, "a dense layer, which adds a bias")
        product = self._through(product)
        left, right = self._operands(product, MATMULS, "a matrix product with a kernel")
        if not self._is_variable(right) or self._is_variable(left):
            raise self.mismatch(product, "a matrix product with a kernel")
        node = self._graph.nodes[product]
        if _is_transposed(node) or not _contracts_in_order(node):
            raise self.mismatch(product, "a product with a kernel laid out as (inputs…, outputs…)")
        return Dense(self._through(left), self._through(right), self._through(bias))

    def layer_norm(self, key: Key) -> LayerNorm:
        """Read a LayerNorm, in whichever way it is written.

        What it normalises is what a mean near by is taken of; which of two variables is gamma, and which constant
        epsilon, is tried: the expression is computed on made-up numbers and compared with the formula.

        Raises:
            MismatchError: it is none.
        """
        return self._once(self._layer_norm, key)

    def _layer_norm(self, key: Key) -> LayerNorm:
        for source in self._averaged(key):
            try:
                leaves = self._leaves(key, {source}, _SMOOTH, _AVERAGES)
            except MismatchError:
                continue
            variables = [k for k in leaves if k[0] == "variable"]
            constants = {self._constant(k) for k in leaves} - {None}
            if len(variables) != 2 or len(variables) + 1 + sum(self._op(k) == "Const" for k in leaves) != len(leaves):
                continue
            for gamma, beta in (variables, variables[::-1]):
                for epsilon in sorted(c for c in constants if isinstance(c, float) and 0 < c < 0.1):
                    if self._is_layer_norm(key, LayerNorm(source, gamma, beta, epsilon)):
                        return LayerNorm(source, gamma, beta, epsilon)
        raise self.mismatch(key, "a LayerNorm")

    def scale_and_shift(self, key: Key) -> LayerNorm:
        """Read `x · gamma + beta`.

        Raises:
            MismatchError: it is something else.
        """
        product, beta = self._variable_last(key, _SUMS[:3], "a sum with a variable")
        source, gamma = self._variable_last(product, ("Mul",), "a product with a variable")
        return LayerNorm(self._through(source), self._through(gamma), self._through(beta), None)

    def _variable_last(self, key: Key, ops: tuple[str, ...], what: str) -> tuple[Key, Key]:
        one, other = self._operands(key, ops, what)
        if not self._is_variable(other):
            one, other = other, one
        if not self._is_variable(other) or self._is_variable(one):
            raise self.mismatch(key, what)
        return one, other

    def _averaged(self, key: Key) -> list[Key]:
        """Return what the means next to a value are taken of, and what the means next to those are taken of."""
        found: list[Key] = []
        start = [key]
        for _ in range(2):
            means = self._graph.nearest(start, lambda _, node: node is not None and node.op == "Mean", stop=MATMULS)
            start = [self._through(self._graph.nodes[mean].inputs[0]) for mean in means[:2]]
            found += start
        return list(dict.fromkeys(found))

    def _is_layer_norm(self, key: Key, norm: LayerNorm) -> bool:
        generator = np.random.default_rng(0)
        # Rows so small that epsilon counts, ordinary ones, and large ones.
        spread = np.array([0.5 * math.sqrt(norm.epsilon), 3 * math.sqrt(norm.epsilon), 1, 100]).reshape(4, 1)
        rows = np.concatenate([spread * generator.normal(size=(4, 7)), 3 + generator.normal(size=(1, 7))])
        gamma, beta = generator.normal(size=(2, 7)) * np.logspace(-2, 3, 7)  # what is lost in small ones shows in large
        mean, variance = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True)
        expected = (rows - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
        for x in (rows[None], rows):  # hidden states are (batch, seq, hidden), or (batch · seq, hidden)
            given = {norm.source: x, norm.gamma: gamma, norm.beta: beta}
            try:
                (y,) = compute(self._graph, [key], given, keep_shapes=True)
            except CannotComputeError:
                continue
            if y.shape == x.shape and np.allclose(y, expected, rtol=1e-9, atol=1e-9):
                return True
        return False

    def attention(self, key: Key) -> Attention:
        """Read scaled dot-product attention from its result, before the output projection.

        Raises:
            MismatchError: it is none, for example because something stands between softmax and values.
        """
        return self._once(self._attention, key)

    def _attention(self, key: Key) -> Attention:
        product, _ = self._through_transposes(key)
        weights, values = self._operands(product, MATMULS, "attention's product of weights and values")
        softmax, after = self._unmixed(self._through_transposes(weights)[0])
        if self._op(softmax) != "Softmax":
            raise self.mismatch(softmax, "attention weights that come straight out of a softmax")
        if not _contracts_last_of_first(self._graph.nodes[product]):
            raise self.mismatch(product, "attention weights summed over the keys")
        scores, bias = self._operands(self._graph.nodes[softmax].inputs[0], _SUMS, "attention scores plus a mask")
        if self._mask(bias) is None:
            scores, bias = bias, scores
        mask = self._mask(bias)
        if mask is None:
            raise self.mismatch(softmax, "a softmax over scores plus (1 − mask) · constant")
        scores, scale = self._unscaled(scores)
        scores, before = self._unmixed(scores)
        if (before is None) != (after is None):
            raise self.mismatch(softmax, "a softmax of heads that are mixed before and after it, or at neither place")
        scores, another = self._unscaled(scores)
        query, key_, scale = self._query_and_key(scores, scale * another)
        values, _ = self._through_transposes(values)
        mixes = None if before is None else (before, after)
        return Attention(query, key_, self.dense(values), scale, *mask, self._through(weights), mixes)

    def _unmixed(self, key: Key) -> tuple[Key, Key | None]:
        """Return what a product with a square variable is of, and that variable; else the value and `None`.

        Which axes it sums over is computed in the end.
        """
        key = self._through(key)
        node = self._graph.nodes.get(key)
        if node is None or node.op not in MATMULS or len(node.inputs) != 2 or not self._is_variable(node.inputs[1]):
            return key, None
        return self._through_transposes(node.inputs[0])[0], self._through(node.inputs[1])

    def terms(self, key: Key) -> tuple[Key, ...]:
        """Return what a sum, of sums perhaps, adds up; a dense layer is one term.

        Raises:
            MismatchError: there are too many.
        """
        terms: list[Key] = []
        pending = [self._through(key)]
        while pending:
            if len(terms) + len(pending) > _MAX_TERMS:  # a sum of sums of itself could go on for ever
                raise self.mismatch(key, "a sum of a few embeddings")
            term = pending.pop(0)
            if self._op(term) in _SUMS and self._try_dense(term) is None:
                pending += [self._through(operand) for operand in self._graph.nodes[term].inputs]
                continue
            terms.append(term)
        return tuple(terms)

    def product(self, key: Key) -> tuple[Key, Key]:
        """Read a product, element by element, of two values and return both."""
        return self._operands(key, ("Mul",), "a product")

    def neighbours(self, key: Key) -> Key:
        """Read `[x of the next token, x, x of the token before]` side by side, and return `x`.

        Raises:
            MismatchError: it is something else.
        """
        after, x, before, axis = self._operands(key, ("ConcatV2",), "three words side by side", of=4)
        x = self._through(x)
        if self._number(axis) not in (2, -1) or (self._shifted(after), self._shifted(before)) != ((x, 1), (x, -1)):
            raise self.mismatch(key, "the words of three neighbouring tokens side by side")
        return x

    def _shifted(self, key: Key) -> tuple[Key, int] | None:
        """Return `x` and 1 for `x[:, 1:]` with a zero behind, `x` and −1 for `x[:, :-1]` with a zero before."""
        node = self._graph.nodes.get(self._through(key))
        if node is None or node.op not in ("Pad", "PadV2") or any(self._number(k) != 0 for k in node.inputs[2:]):
            return None
        padding, part = self._fold(node.inputs[1]), self._graph.nodes.get(self._through(node.inputs[0]))
        if padding is None or part is None or part.op != "StridedSlice":
            return None
        begin, end, strides = (self._fold(k) for k in part.inputs[1:])
        masks = {name: part.integer(f"{name}_mask") for name in ("begin", "end", "shrink_axis", "new_axis", "ellipsis")}
        if any(place is None or place.shape != begin.shape or place.size not in (2, 3) for place in (begin, end)):
            return None
        if strides is None or (strides != 1).any() or masks["shrink_axis"] or masks["new_axis"] or masks["ellipsis"]:
            return None
        rest = (1 << begin.size) - 1 - 0b10
        if masks["begin"] & rest != rest or masks["end"] & rest != rest:
            return None
        from_second = not masks["begin"] & 0b10 and begin[1] == 1 and masks["end"] & 0b10
        to_last = (masks["begin"] & 0b10 or begin[1] == 0) and not masks["end"] & 0b10 and end[1] == -1
        source = self._through(part.inputs[0])
        if from_second and padding.tolist() == [[0, 0], [0, 1], [0, 0]]:
            return source, 1
        return (source, -1) if to_last and padding.tolist() == [[0, 0], [1, 0], [0, 0]] else None

    def first_token(self, key: Key) -> Key:
        """Read the first token's hidden state and return those of all.

        Raises:
            MismatchError: it is something else.
        """
        key = self._through(key)
        node = self._graph.nodes.get(key)
        if node is None or not self._takes_first(node):
            raise self.mismatch(key, "the first token's hidden state")
        return self._through(node.inputs[0])

    def tanh(self, key: Key) -> Key:
        """Read `tanh(x)` and return `x`."""
        key = self._through(key)
        (source,) = self._operands(key, ("Tanh",), "a tanh", of=1)
        return self._through(source)

    def sum(self, key: Key) -> tuple[Key, Key]:
        """Read a sum of two values and return both."""
        return self._operands(key, _SUMS, "a sum")

    def plain(self, key: Key) -> Key:
        """Return a value without the operations that only reshape it."""
        return self._through(key)

    def activation(self, key: Key) -> tuple[Dense, str]:
        """Read an activation of a dense layer, and tell which it is.

        The expression between is a function of one number. Its formula is compared with those of the activations that
        a BERT may have (`formulas.py`), so that it does not matter in which way it was written, and once more its
        values.

        Raises:
            MismatchError: it is no element-wise function of one dense layer, or an unknown one.
        """
        return self._once(self._activation, key)

    def _activation(self, key: Key) -> tuple[Dense, str]:
        inner = self._graph.nearest([key], lambda k, _: self._try_dense(k) is not None, stop=MATMULS)
        if len(inner) != 1:
            raise self.mismatch(key, "an activation of one dense layer")
        x = np.linspace(-30, 30, 1201)
        try:
            formula = read_formula(self._graph, key, self._through(inner[0]), self._number, self._through)
            (y,) = compute(self._graph, [key], {inner[0]: x}, keep_shapes=True)
        except (NoFormulaError, CannotComputeError) as error:
            raise MismatchError(f"{self.describe(key)} is not an activation: {error}") from None
        for name, known in ACTIVATIONS.items():
            if formula.equals(known) and y.shape == x.shape and np.allclose(y, FUNCTIONS[name](x), 1e-6, 1e-6):
                return self.dense(inner[0]), name
        raise self.mismatch(key, f"one of the activations {sorted(ACTIVATIONS)}")

    def lookup(self, key: Key) -> tuple[Key, str | None]:
        """Return the table that a value is looked up in, and the argument with the ids: `None` for positions.

        Raises:
            MismatchError: it is no lookup.
        """
        key = self._through(key)
        node = self._graph.nodes.get(key)
        argument = None
        if node is not None and self._takes_beginning(node):
            table = self._through(node.inputs[0])
        else:
            table, ids = self._gathered(key)
            if ids[0] == "argument":
                argument = ids[1]
            elif not self._counts(ids):
                raise self.mismatch(ids, "an input, or the positions")
        if table[0] != "variable":
            raise self.mismatch(table, "an embedding table")
        return table, argument

    def _gathered(self, key: Key) -> tuple[Key, Key]:
        """Return the table that rows are taken of, by a gather or as a product with a one-hot, and their numbers."""
        node = self._graph.nodes.get(key)
        if node is not None and node.op in _GATHERS:
            return self._through(node.inputs[0]), self._through(node.inputs[1])
        one_hot, table = (self._through(operand) for operand in self._operands(key, MATMULS, "a lookup in a table"))
        ids, _, on, off = self._operands(one_hot, ("OneHot",), "a one-hot", of=4)
        if (self._number(on), self._number(off)) != (1, 0):
            raise self.mismatch(one_hot, "a one-hot")
        return table, self._through(ids)

    def _counts(self, key: Key) -> bool:
        """Whether a value is 0, 1, 2, … up to a dimension."""
        node = self._graph.nodes.get(key)
        if node is None or node.op != "Range":
            return False
        return self._is_shape(node.inputs[1]) and (self._number(node.inputs[0]), self._number(node.inputs[2])) == (0, 1)

    def _takes_beginning(self, node: Node) -> bool:
        """Whether an operation is `x[:n]` or `x[None, :n]`, where n is a dimension of something."""
        if node.op == "Slice":
            begin = self._fold(node.inputs[1])
            return begin is not None and not begin.any() and self._is_shape(node.inputs[2])
        if node.op != "StridedSlice" or node.integer("shrink_axis_mask"):
            return False
        begin, strides = (self._fold(node.inputs[i]) for i in (1, 3))
        if begin is None or strides is None or (strides != 1).any() or not self._is_shape(node.inputs[2]):
            return False
        return all(not b or node.integer("begin_mask") >> i & 1 for i, b in enumerate(begin))

    def _takes_first(self, node: Node) -> bool:
        """Whether an operation is `x[:, 0]` or `x[:, :1]`."""
        if node.op in ("Gather", "GatherV2"):
            return len(node.inputs) == 3 and [self._number(k) for k in node.inputs[1:]] == [0, 1]
        places = [self._fold(k) for k in node.inputs[1:]] if node.op in ("Slice", "StridedSlice") else []
        if len(places) < 2 or any(place is None or place.ndim != 1 or len(place) < 2 for place in places):
            return False
        begin, end = places[:2]
        if node.op == "Slice":
            return not begin.any() and end[0] == -1 and end[1] == 1
        whole = node.integer("begin_mask") & node.integer("end_mask")
        rest = (1 << len(begin)) - 1 - 0b10
        ends = node.integer("shrink_axis_mask") == 0b10 or (end[1] == 1 and not node.integer("end_mask") & 0b10)
        other = node.integer("new_axis_mask") | node.integer("ellipsis_mask") | node.integer("shrink_axis_mask") & ~0b10
        return whole & rest == rest and begin[1] == 0 and ends and not other and (places[2] == 1).all()

    def _mask(self, key: Key) -> tuple[float, str] | None:
        """Return constant and argument of what is 0 where a mask is 1 and a constant where it is 0, or `None`."""
        mask = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])
        try:
            leaves = self._leaves(key, set(), _ELEMENT_WISE)
        except MismatchError:
            return None
        arguments = [k for k in leaves if k[0] == "argument"]
        if len(arguments) != 1 or any(k not in arguments and self._number(k) is None for k in leaves):
            return None
        # Masks are broadcast to the shape of hidden states, or of ids; what these are does not matter here.
        shapes = [
            k for k in self._graph.select("Shape") if self._through(self._graph.nodes[k].inputs[0]) not in arguments
        ]
        given: dict[Key, np.ndarray] = {arguments[0]: mask, **{k: np.array([*mask.shape, 8]) for k in shapes}}
        try:
            (bias,) = compute(self._graph, [key], given)
        except CannotComputeError:
            return None
        constant = float(bias.min(initial=0))
        expected = np.where(mask == 0, constant, 0.0)[:, None, None, :]
        if constant < 0 and bias.ndim == 4 and bias.shape[-1] == mask.shape[1] and (bias == expected).all():
            return constant, arguments[0][1]
        return None

    def _unscaled(self, key: Key) -> tuple[Key, float]:
        """Return what a value is a constant multiple of, and the factor; transposes stay."""
        scale = 1.0
        while True:
            key = self._through(key)
            op = self._op(key)
            if op not in ("Mul", "RealDiv", "Div"):
                return key, scale
            value, constant = self._graph.nodes[key].inputs
            factor = self._number(constant)
            if op == "Mul" and factor is None:
                value, factor = constant, self._number(value)
            if not factor:
                return key, scale
            scale, key = scale * (factor if op == "Mul" else 1 / factor), value

    def _query_and_key(self, scores: Key, scale: float) -> tuple[Dense, Dense, float]:
        """Tell query from key: the scores' last axis belongs to the key."""
        product, flipped = self._through_transposes(scores)
        sides = self._operands(product, MATMULS, "a product of queries and keys")
        node = self._graph.nodes[product]
        if node.op == "Einsum":
            (left, right), result = _labels(node.text("equation"))
            flipped ^= result[-1:] in left and result[-1:] not in right
        query, key = reversed(sides) if flipped else sides
        dense = []
        for side in (query, key):
            side, factor = self._unscaled(side)
            side, _ = self._through_transposes(side)
            side, other_factor = self._unscaled(side)
            scale *= factor * other_factor
            dense.append(self.dense(side))
        return dense[0], dense[1], scale

    def _through(self, key: Key) -> Key:
        """Follow a value through what leaves its numbers as they are and in their order."""
        passed = []
        while key not in self._plain and (
            self._only_reshapes(key) or self._only_adds_axes(key) or self._keeps_order(key) or self._keeps_kind(key)
        ):
            passed.append(key)
            key = self._graph.nodes[key].inputs[0]
        key = self._plain.get(key, key)
        self._plain.update(dict.fromkeys([*passed, key], key))
        return key

    def _only_reshapes(self, key: Key) -> bool:
        node = self._graph.nodes.get(key)
        return node is not None and node.op in (*RESHAPES, "BroadcastTo") and all(map(self._is_shape, node.inputs[1:]))

    def _keeps_kind(self, key: Key) -> bool:
        """Whether a value is a cast between types of one kind; that none is narrow was seen before."""
        if self._op(key) != "Cast":
            return False
        kinds = {self._graph.nodes[key].dtype(name).rstrip("0123456789") for name in ("SrcT", "DstT")}
        return len(kinds) == 1 and kinds <= {"int", "float"}

    def _is_shape(self, key: Key) -> bool:
        """Whether a value is made of dimensions of tensors and of constants only, by taking, joining and multiplying.

        So it cannot be one dimension for short texts, and another for long ones.
        """
        self._graph.files.spend()
        pending, seen = [key], set()
        while pending:
            key = pending.pop()
            op = self._op(key)
            if key in seen or op in ("Const", "Shape", "Size"):
                continue
            seen.add(key)
            node = self._graph.nodes.get(key)
            if node is not None and op in _SHAPE_ARITHMETIC:
                pending += node.inputs
            elif node is not None and (op in _SHAPE_SELECTION or self._keeps_kind(key)):
                if any(self._fold(other) is None for other in node.inputs[1:]):
                    return False
                pending.append(node.inputs[0])
            else:
                return False
        return True

    def _leaves(self, key: Key, until: set[Key], ops: Collection[str], reduced: Collection[str] = ()) -> set[Key]:
        """Return what an expression is made of: constants, variables, arguments and the values in `until`.

        Args:
            key: the expression.
            until: values that are not looked into.
            ops: the operations of which it may consist, besides those that give another shape.
            reduced: operations over axes, which have to be constants, of which it may consist too.

        Raises:
            MismatchError: there is another operation in it.
        """
        self._graph.files.spend()
        leaves, pending, seen = set(), [key], set()
        while pending:
            key = pending.pop()
            if key in seen:
                continue
            seen.add(key)
            node = self._graph.nodes.get(key)
            if key in until or node is None or node.op == "Const":
                leaves.add(key)
            elif self._only_reshapes(key) or self._only_adds_axes(key):
                pending.append(node.inputs[0])
            elif node.op == "Fill" and self._is_shape(node.inputs[0]):
                pending.append(node.inputs[1])
            elif node.op in reduced and self._fold(node.inputs[1]) is not None:
                pending.append(node.inputs[0])
            elif node.op in ops:
                pending += node.inputs
            else:
                raise self.mismatch(key, "part of such an expression")
        return leaves

    def _only_adds_axes(self, key: Key) -> bool:
        """Whether a value is a slice like `x[:, None, ..., :]`."""
        if self._op(key) != "StridedSlice":
            return False
        node = self._graph.nodes[key]
        strides = self._constant(node.inputs[3]) if len(node.inputs) == 4 else None
        if not isinstance(strides, tuple) or set(strides) != {1} or node.integer("shrink_axis_mask"):
            return False
        whole = node.integer("begin_mask") & node.integer("end_mask")
        kept = whole | node.integer("new_axis_mask") | node.integer("ellipsis_mask")
        return kept & (2 ** len(strides) - 1) == 2 ** len(strides) - 1

    def _keeps_order(self, key: Key) -> bool:
        """Whether a value is a transpose that exchanges nothing, as `tf.tensordot` writes."""
        if self._op(key) != "Transpose":
            return False
        order = self._fold(self._graph.nodes[key].inputs[1])
        return order is not None and np.array_equal(order, np.arange(order.size))

    def _through_transposes(self, key: Key) -> tuple[Key, bool]:
        """Follow a value through transposes too; tell whether they exchange the last two axes."""
        flipped = False
        while True:
            key = self._through(key)
            if self._op(key) != "Transpose":
                return key, flipped
            source, order = self._graph.nodes[key].inputs
            axes = self._fold(order)
            if axes is None:
                return key, flipped
            flipped ^= list(axes[-2:]) == [len(axes) - 1, len(axes) - 2]
            key = source

    def _operands(self, key: Key, ops: tuple[str, ...], what: str, of: int = 2) -> tuple[Key, ...]:
        """Return an operation's inputs, if it is one of `ops` and has `of` inputs."""
        key = self._through(key)
        node = self._graph.nodes.get(key)
        if node is None or node.op not in ops or len(node.inputs) != of:
            raise self.mismatch(key, what)
        return tuple(node.inputs)

    def _try_dense(self, key: Key) -> Dense | None:
        try:
            return self.dense(key)
        except MismatchError:
            return None

    def _op(self, key: Key) -> str:
        node = self._graph.nodes.get(key)
        return key[0] if node is None else node.op

    def _is_variable(self, key: Key) -> bool:
        return self._through(key)[0] == "variable"

    def _constant(self, key: Key) -> float | tuple[int, ...] | None:
        node = self._graph.nodes.get(key)
        return None if node is None else node.constant

    def _fold(self, key: Key) -> np.ndarray | None:
        """Return a value that depends on constants only, or `None`."""
        try:
            return compute(self._graph, [key], {})[0]
        except CannotComputeError:
            return None

    def _number(self, key: Key) -> float | None:
        value = self._fold(key)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def mismatch(self, key: Key, expected: str) -> MismatchError:
        """Return the error that a value is not what was expected."""
        return MismatchError(f"{self.describe(key)} is not {expected}")


def _is_transposed(node: Node) -> bool:
    return any(node.flag(name) for name in ("transpose_a", "transpose_b", "adj_x", "adj_y"))


def _labels(equation: str) -> tuple[list[str], str]:
    """Take `"ab,bc->ac"` apart; a product of other than two operands has no labels."""
    operands, _, result = equation.replace("...", "").partition("->")
    sides = operands.split(",")
    return (sides, result) if len(sides) == 2 else (["", ""], "")


def _contracts_in_order(node: Node) -> bool:
    """Whether a product with a kernel is `(…, inputs…) @ (inputs…, outputs…)`."""
    if node.op != "Einsum":
        return True
    (left, right), result = _labels(node.text("equation"))
    summed = [label for label in right if label in left]
    inputs = "".join(summed)
    return (
        bool(summed)
        and left.endswith(inputs)
        and right.startswith(inputs)
        and (result == left.removesuffix(inputs) + right.removeprefix(inputs))
    )


def _contracts_last_of_first(node: Node) -> bool:
    """Whether a product sums over the last axis of its first operand only."""
    if node.op != "Einsum":
        return not _is_transposed(node)
    (left, right), result = _labels(node.text("equation"))
    return [label for label in left if label in right and label not in result] == [left[-1:]]
