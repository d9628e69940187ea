"""`Algebra`: the operations that the formulas of embeddings and blocks are written in.

A formula stands once, in `encoder/blocks/`, and is used five times: Keras runs it, TensorFlow writes it out to a
SavedModel and ONNX to a file, NumPy computes it beside a graph that was read, and the reader takes it apart to find it
in that graph. Each of the five is an `Algebra`.
"""

from __future__ import annotations

from typing import Any


class Algebra:
    """What a formula may do. States are whatever the subclass computes with; `name` is a weight's published name.

    Args:
        config: `BertConfig`. The architecture.
    """

    def __init__(self, config) -> None:
        self.config = config
        self.probabilities: Any = None  # of the last attention, what multiplies the values: (B, N, T, S)

    def weight(self, name: str):
        """Return a weight."""
        raise NotImplementedError

    def lookup(self, name: str, ids: str):
        """Return the rows of a table that an input (`"input_word_ids"`, …) names."""
        raise NotImplementedError

    def positions(self, name: str):
        """Return the rows of a table that belong to the positions, from 0 on."""
        raise NotImplementedError

    def neighbours(self, x):
        """Return `[x of the next token, x, x of the token before]` side by side; zero beyond the ends."""
        raise NotImplementedError

    def dense(self, name: str, x):
        """Return `x @ kernel + bias`."""
        raise NotImplementedError

    def activate(self, x):
        """Return `act(x)`, by `BertConfig.hidden_act`."""
        raise NotImplementedError

    def norm(self, name: str, x):
        """Return `x` normalised over its last axis, as `BertConfig.normalization` says: by LayerNorm, or not at all."""
        raise NotImplementedError

    def attention(self, query, key, value, mixes: tuple[str, str] | None = None):
        """Return `softmax(Q Kᵀ / √d + (1 − mask) · c) V` of all heads, side by side.

        Args:
            query: what `Q` is a dense layer of (`attention/self/query`).
            key: what `K` is a dense layer of.
            value: what `V` is a dense layer of.
            mixes: names of two kernels `(heads, heads)`, or `None`. The first mixes the heads' scores before the mask
                is added and the softmax taken, the second the probabilities after it.
        """
        raise NotImplementedError

    def add(self, x, *others):
        """Return the sum."""
        for other in others:
            x = x + other
        return x

    def multiply(self, x, y):
        """Return the product, element by element."""
        return x * y

    def drop(self, x):
        """Return `x` with `hidden_dropout`, in training."""
        return x

    def chosen(self, x):
        """Return the states of those tokens only that the block is to compute: all of them, mostly."""
        return x
