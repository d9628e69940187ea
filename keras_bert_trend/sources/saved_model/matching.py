"""Find the formula of a block, or of the embeddings, in a dataflow: from its result up to what it is computed from."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable

from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.sources.saved_model.dataflow import Key
from keras_bert_trend.sources.saved_model.patterns import Attention, Dense, MismatchError, Patterns


@dataclasses.dataclass(frozen=True, eq=False)
class Expression:
    """An operation of a formula, the weight that it is named after, and what it is computed from."""

    operation: str
    name: str = ""
    parts: tuple[Expression, ...] = ()


class Expressions(Algebra):
    """Writes a formula down instead of computing it: dropout and the choice of tokens leave no trace in inference."""

    def lookup(self, name, ids):
        return Expression("lookup", name, (Expression("argument", ids),))

    def positions(self, name):
        return Expression("positions", name)

    def neighbours(self, x):
        return Expression("neighbours", "", (x,))

    def dense(self, name, x):
        return Expression("dense", name, (x,))

    def activate(self, x):
        return Expression("activate", "", (x,))

    def norm(self, name, x):
        return Expression("norm", name, (x,))

    def attention(self, query, key, value, mixes=None):
        return Expression("attention", "/".join(mixes) if mixes else "", (query, key, value))

    def add(self, *terms):
        return Expression("add", "", terms)

    def multiply(self, x, y):
        return Expression("multiply", "", (x, y))


class Match:
    """What was found of a formula in a graph.

    Attributes:
        variables: weight's name within the block → variable.
        arguments: `input_word_ids`, … → the function's argument.
        constants: what (`"activation"`, …) → the values met.
        attention: the attention, if there was one.
        source: the value that stands for the block's input, if it has one.
    """

    def __init__(self, patterns: Patterns, may_scale_only: bool) -> None:
        self._patterns, self._may_scale_only = patterns, may_scale_only
        self._places: dict[Expression, Key] = {}
        self.variables: dict[str, Key] = {}
        self.arguments: dict[str, str] = {}
        self.constants: dict[str, set] = {}
        self.attention: Attention | None = None
        self.source: Key = ()

    def find(self, expression: Expression, key: Key) -> None:
        """Find an expression at a value.

        Raises:
            MismatchError: it is something else; `found` of the error says how many weights were found before.
        """
        try:
            self._find(expression, self._patterns.plain(key))
        except MismatchError as error:
            error.found = max(error.found, len(self.variables))
            raise

    def _find(self, expression: Expression, key: Key) -> None:
        if expression in self._places:
            if self._places[expression] != key:
                raise self._patterns.mismatch(key, f"{self._patterns.describe(self._places[expression])}, used again")
            return
        getattr(self, f"_find_{expression.operation}")(expression, key)
        self._places[expression] = key

    def _find_input(self, expression: Expression, key: Key) -> None:
        self.source = key

    def _find_add(self, expression: Expression, key: Key) -> None:
        terms = self._patterns.sum(key) if len(expression.parts) == 2 else self._patterns.terms(key)
        if len(terms) != len(expression.parts):
            raise self._patterns.mismatch(key, f"a sum of {len(expression.parts)}")
        # The sum's last term says most: a dense layer is told sooner than what it is added to.
        parts = expression.parts[::-1]
        self._find_any([*zip(parts, order, strict=True)] for order in itertools.permutations(terms[::-1]))

    def _find_multiply(self, expression: Expression, key: Key) -> None:
        one, other = self._patterns.product(key)
        self._find_any([*zip(expression.parts, order, strict=True)] for order in ((one, other), (other, one)))

    def _find_any(self, choices: Iterable[list[tuple[Expression, Key]]]) -> None:
        """Find all expressions of the first choice for which that is possible."""
        problem = None
        for choice in choices:
            attempt = copy.copy(self)
            for name in ("_places", "variables", "arguments"):
                setattr(attempt, name, dict(getattr(self, name)))
            attempt.constants = {what: set(values) for what, values in self.constants.items()}
            try:
                for expression, key in choice:
                    attempt.find(expression, key)
            except MismatchError as error:
                problem = error if problem is None or error.found > problem.found else problem
                continue
            vars(self).update(vars(attempt))
            return
        raise problem

    def _find_norm(self, expression: Expression, key: Key) -> None:
        try:
            norm = self._patterns.layer_norm(key)
            self._meet("LayerNorm epsilon", norm.epsilon)
        except MismatchError:
            if not self._may_scale_only:
                raise
            norm = self._patterns.scale_and_shift(key)
        self._meet("normalization", "no_norm" if norm.epsilon is None else "layer_norm")
        self._name(f"{expression.name}/gamma", norm.gamma)
        self._name(f"{expression.name}/beta", norm.beta)
        self.find(expression.parts[0], norm.source)

    def _find_dense(self, expression: Expression, key: Key) -> None:
        self._take_dense(expression.name, expression.parts[0], self._patterns.dense(key))

    def _find_activate(self, expression: Expression, key: Key) -> None:
        dense, activation = self._patterns.activation(key)
        self._meet("activation", activation)
        (inner,) = expression.parts
        self._take_dense(inner.name, inner.parts[0], dense)

    def _find_attention(self, expression: Expression, key: Key) -> None:
        self.attention = attention = self._patterns.attention(key)
        if bool(expression.name) != bool(attention.mixes):
            raise self._patterns.mismatch(key, f"attention {'with' if expression.name else 'without'} mixed heads")
        if attention.mixes:
            path, _, after = expression.name.rpartition("/")
            before, _, folder = path.rpartition("/")
            self._name(f"{before}/kernel", attention.mixes[0])
            self._name(f"{folder}/{after}/kernel", attention.mixes[1])
        self._meet("mask constant", attention.mask_constant)
        self._take_argument("input_mask", attention.mask)
        dense = (attention.query, attention.key, attention.value)
        for role, part, layer in zip(("query", "key", "value"), expression.parts, dense, strict=True):
            self._take_dense(f"attention/self/{role}", part, layer)

    def _find_neighbours(self, expression: Expression, key: Key) -> None:
        self.find(expression.parts[0], self._patterns.neighbours(key))

    def _find_lookup(self, expression: Expression, key: Key) -> None:
        table, argument = self._patterns.lookup(key)
        if argument is None:
            raise self._patterns.mismatch(key, "a lookup of an input")
        self._name(expression.name, table)
        self._take_argument(expression.parts[0].name, argument)

    def _find_positions(self, expression: Expression, key: Key) -> None:
        table, argument = self._patterns.lookup(key)
        if argument is not None:
            raise self._patterns.mismatch(key, "a lookup of positions")
        self._name(expression.name, table)

    def _take_dense(self, name: str, source: Expression, dense: Dense) -> None:
        self._name(f"{name}/kernel", dense.kernel)
        self._name(f"{name}/bias", dense.bias)
        self.find(source, dense.source)

    def _take_argument(self, name: str, argument: str) -> None:
        if self.arguments.setdefault(name, argument) != argument:
            raise MismatchError(f"both {self.arguments[name]!r} and {argument!r} are used as {name!r}")

    def _name(self, name: str, key: Key) -> None:
        self.variables[name] = key

    def _meet(self, what: str, value) -> None:
        self.constants.setdefault(what, set()).add(value)
