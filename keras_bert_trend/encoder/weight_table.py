"""The rows of an encoder's weight table: which published weight lies in which Keras variable, with which shape.

`BertConfig.weight_parts` is the table. Names and layouts are google-research/bert's (modeling.py), without the leading
`bert/`: a kernel is `(in, out)`.
"""

from __future__ import annotations

from typing import NamedTuple


class Weight(NamedTuple):
    """One Keras variable of the encoder, and the published weights in it.

    Args:
        attribute: str. The layer's attribute that holds the variable.
        variable: str. The variable's name in Keras.
        names: tuple of str. The published weights in it, side by side along the last axis.
        shape: tuple of int. The shape of each of them.
        start: str. What a new variable holds: `"random"`, `"zeros"` or `"ones"`.
    """

    attribute: str
    variable: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    start: str = "random"

    def below(self, prefix: str) -> Weight:
        """Return the row of a layer that is used under `prefix`."""
        return self._replace(names=tuple(f"{prefix}/{name}" for name in self.names))


def table(attribute: str, name: str, rows: int, width: int) -> list[Weight]:
    """Return the row of an embedding table; the variable is called as the table is."""
    return [Weight(attribute, name.rpartition("/")[2], (name,), (rows, width))]


def kernel(attribute: str, inputs: int, outputs: int, name: str) -> Weight:
    """Return the row of a kernel without a bias; the variable is called as the attribute is."""
    return Weight(attribute, attribute, (f"{name}/kernel",), (inputs, outputs))


def dense(attribute: str, variable: str, inputs: int, outputs: int, *names: str) -> list[Weight]:
    """Return the rows of a dense layer, or of several in one, each with `outputs` columns."""
    kernels, biases = tuple(f"{name}/kernel" for name in names), tuple(f"{name}/bias" for name in names)
    return [
        Weight(f"{attribute}_kernel", f"{variable}_kernel", kernels, (inputs, outputs)),
        Weight(f"{attribute}_bias", f"{variable}_bias", biases, (outputs,), "zeros"),
    ]


def norm(attribute: str, variable: str, width: int, name: str) -> list[Weight]:
    """Return the rows of a LayerNorm, which runs in float32 under every mixed precision policy."""
    return [
        Weight(f"{attribute}gamma", f"{variable}_gamma", (f"{name}/gamma",), (width,), "ones"),
        Weight(f"{attribute}beta", f"{variable}_beta", (f"{name}/beta",), (width,), "zeros"),
    ]
