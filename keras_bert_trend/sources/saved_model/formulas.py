"""Recognise an activation by its formula: as polynomials and one transcendental function, however it is written.

Where a model was only probed, what lies beyond the probes could be anything: a gelu that is cut at 10 gives the same
numbers on [−6, 6]. A formula in the normal form `sum + factor · function(inside)` is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.polynomial import Polynomial

from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key

_MAX_DEGREE = 8  # a square of a square of a square … is no activation
_TOLERANCE = 1e-6  # relative, of coefficients: they are made of float32 constants
_ZERO, _ONE, _X = Polynomial([0.0]), Polynomial([1.0]), Polynomial([0.0, 1.0])


class NoFormulaError(Exception):
    """A value is not a formula of this kind; the message says which operation is not."""


@dataclasses.dataclass(frozen=True)
class Formula:
    """`sum + factor · function(inside)` of one number, where all three are polynomials.

    Args:
        sum: what is added.
        factor: what the function is multiplied with.
        function: `tanh`, `erf`, `relu`, or empty where there is none.
        inside: what the function is of.
    """

    sum: Polynomial
    factor: Polynomial = dataclasses.field(default_factory=lambda: _ZERO)
    function: str = ""
    inside: Polynomial = dataclasses.field(default_factory=lambda: _ZERO)

    def equals(self, other: Formula) -> bool:
        """Whether both are the same but for rounding."""
        pairs = ((self.sum, other.sum), (self.factor, other.factor), (self.inside, other.inside))
        return self.function == other.function and all(_alike(one, two) for one, two in pairs)

    def __add__(self, other: Formula) -> Formula:
        if not other.function:
            return dataclasses.replace(self, sum=self.sum + other.sum)
        if not self.function:
            return other + self
        if (self.function, self.inside) != (other.function, other.inside):
            raise NoFormulaError("a sum of two functions")
        return dataclasses.replace(self, sum=self.sum + other.sum, factor=self.factor + other.factor)

    def __mul__(self, other: Formula) -> Formula:
        if other.function:
            self, other = other, self
        if other.function:
            raise NoFormulaError("a product of two functions")
        if max(self.sum.degree(), self.factor.degree()) + other.sum.degree() > _MAX_DEGREE:
            raise NoFormulaError(f"a polynomial of more than degree {_MAX_DEGREE}")
        return dataclasses.replace(self, sum=self.sum * other.sum, factor=self.factor * other.sum)

    def polynomial(self) -> Polynomial:
        """Return the formula as a polynomial, if it is one."""
        if self.function:
            raise NoFormulaError("a function of a function")
        return self.sum

    def number(self) -> float:
        """Return the formula as a number, if it is one."""
        polynomial = self.polynomial().trim()
        if polynomial.degree():
            raise NoFormulaError("a number that depends on the input")
        return float(polynomial.coef[0])


ACTIVATIONS: dict[str, Formula] = {
    "gelu": Formula(_X / 2, _X / 2, "erf", _X / math.sqrt(2)),
    "gelu_tanh": Formula(_X / 2, _X / 2, "tanh", math.sqrt(2 / math.pi) * (_X + 0.044715 * _X**3)),
    "relu": Formula(_ZERO, _ONE, "relu", _X),
}


def read_formula(graph: Dataflow, key: Key, source: Key, number: Callable, plain: Callable[[Key], Key]) -> Formula:
    """Read a value as a formula of another.

    Args:
        graph: the dataflow.
        key: the value.
        source: what it is a formula of.
        number: gives a value that depends on constants only, or `None`.
        plain: gives a value without the operations that only reshape it.

    Raises:
        NoFormulaError: it is none.
    """
    known: dict[Key, Formula] = {source: Formula(_X)}

    def read(key: Key, depth: int = 0) -> Formula:
        key = plain(key)
        if key not in known:
            constant = number(key)
            if constant is not None:
                known[key] = Formula(Polynomial([constant]))
            elif key not in graph.nodes or graph.nodes[key].op not in _RULES or depth > 64:
                raise NoFormulaError(graph.nodes[key].op if key in graph.nodes else f"the {key[0]} {key[1]!r}")
            else:
                node = graph.nodes[key]
                known[key] = _RULES[node.op](*(read(inner, depth + 1) for inner in node.inputs))
        return known[key]

    return read(key)


def _alike(one: Polynomial, other: Polynomial) -> bool:
    length = max(len(one.coef), len(other.coef))
    one, other = (np.pad(p.coef, (0, length - len(p.coef))) for p in (one, other))
    return bool(np.all(np.abs(one - other) <= _TOLERANCE * np.abs(other)))


def _function(name: str, inside: Formula) -> Formula:
    inside = inside.polynomial().trim()
    if inside.coef[-1] < 0 and name != "relu":  # tanh and erf are odd
        return Formula(_ZERO, -_ONE, name, -inside)
    return Formula(_ZERO, _ONE, name, inside)


def _scaled(formula: Formula, factor: float) -> Formula:
    return formula * Formula(Polynomial([factor]))


def _sum(first: Formula, *others: Formula) -> Formula:
    for other in others:
        first = first + other
    return first


def _power(base: Formula, exponent: Formula) -> Formula:
    count = exponent.number()
    if count not in (1, 2, 3):
        raise NoFormulaError(f"the power {count}")
    result = base
    for _ in range(int(count) - 1):
        result = result * base
    return result


def _maximum(one: Formula, other: Formula) -> Formula:
    if not one.function and _alike(one.sum, _ZERO):
        one, other = other, one
    if other.number():
        raise NoFormulaError("a maximum with another number than 0")
    return _function("relu", one)


def _quotient(one: Formula, other: Formula) -> Formula:
    divisor = other.number()
    if not divisor:
        raise NoFormulaError("a division by 0")
    return _scaled(one, 1 / divisor)


_RULES: dict[str, Callable[..., Formula]] = {
    **dict.fromkeys(("Add", "AddV2", "AddN"), _sum),
    "Sub": lambda one, other: one + _scaled(other, -1),
    "Neg": lambda one: _scaled(one, -1),
    "Mul": lambda one, other: one * other,
    "Square": lambda one: one * one,
    "Pow": _power,
    **dict.fromkeys(("RealDiv", "Div"), _quotient),
    "Tanh": lambda one: _function("tanh", one),
    "Erf": lambda one: _function("erf", one),
    "Erfc": lambda one: Formula(_ONE) + _scaled(_function("erf", one), -1),
    # 1 / (1 + exp(−x)) = (1 + tanh(x/2)) / 2
    "Sigmoid": lambda one: _scaled(Formula(_ONE) + _function("tanh", _scaled(one, 0.5)), 0.5),
    "Relu": lambda one: _function("relu", one),
    "Maximum": _maximum,
}
