"""Write a BERT as a SavedModel by hand: plain TensorFlow operations behind the interface of TF Hub's text encoders.

Nothing in it comes from an exporter: not the names, not the objects, not the notation. So it shows whether a reader
follows the mathematics, which can be written in many ways: `Notation` chooses among them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

EPSILON = 1e-12
MASK_CONSTANT = -10000.0
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Names that resemble no known exporter's; `{}` is the number of the block.
NAMES = {
    "words": "lexicon",
    "positions": "seats",
    "types": "sides",
    "entry": "doorway",
    "query": "floor{}/asks",
    "key": "floor{}/answers",
    "value": "floor{}/says",
    "attended": "floor{}/gathers",
    "middle": "floor{}/landing",
    "inner": "floor{}/widens",
    "outer": "floor{}/narrows",
    "exit": "floor{}/roof",
    "last": "spire",
    "pooler": "summary",
}


@dataclasses.dataclass(frozen=True)
class Notation:
    """How the mathematics is written: each field is a key of the dictionary of functions below that has its name."""

    norm: str = "batch_normalization"
    gelu: str = "tanh"
    dense: str = "rows"
    scale: str = "query"
    mask: str = "reshaped"
    heads: str = "flat"  # or "axes": kernels (in, heads, size) and einsums
    split: str = "transpose"
    merge: str = "static_width"
    softmax: str = "nn"
    words: str = "gather"
    positions: str = "slice"
    first_token: str = "index"
    add: str = "operator"


def write_raw_bert(
    folder: str | os.PathLike,
    *,
    num_layers: int,
    hidden: int,
    heads: int,
    inner: int,
    vocab_size: int,
    max_positions: int,
    pre_layer_norm: bool = False,
    final_norm: bool = True,
    pooler: bool = True,
    names: Mapping[str, str] | None = None,
    notation: Notation | None = None,
    seed: int = 0,
) -> RawBert:
    """Write a BERT with random weights to `folder` and return the module that was written.

    Args:
        folder: the SavedModel folder to make.
        num_layers: number of blocks.
        hidden: width of the hidden states.
        heads: attention heads.
        inner: width inside the feed-forward layers.
        vocab_size: number of tokens; the vocabulary has that many lines.
        max_positions: rows of the position table.
        pre_layer_norm: normalise before attention and feed-forward layer.
        final_norm: with `pre_layer_norm`, normalise once more at the end.
        pooler: whether `pooled_output` is a tanh dense layer of the first token, or the first token itself.
        names: replaces entries of `NAMES`.
        notation: how the mathematics is written.
        seed: of the weights.
    """
    sizes = {
        "heads": heads,
        "num_layers": num_layers,
        "pre_layer_norm": pre_layer_norm,
        "final_norm": final_norm,
        "pooler": pooler,
    }
    module = RawBert(Weights({**NAMES, **(names or {})}, seed), notation or Notation(), **sizes)
    module.make_weights(hidden, inner, vocab_size, max_positions)
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = os.path.join(scratch, "vocab.txt")
        tokens = [*SPECIAL_TOKENS, *(f"word{i}" for i in range(vocab_size))][:vocab_size]
        with open(vocabulary, "w", encoding="utf-8") as file:
            file.write("\n".join(tokens) + "\n")
        module.vocab_file = tf.saved_model.Asset(vocabulary)
        module.do_lower_case = tf.Variable(True, trainable=False, name="do_lower_case")
        tf.saved_model.save(module, os.fspath(folder), signatures=module.serve)
    return module


class Weights(tf.Module):
    """Makes random variables, large enough that each of them matters, and keeps them by name."""

    def __init__(self, names: Mapping[str, str], seed: int) -> None:
        super().__init__()
        self._names = names
        self._generator = np.random.default_rng(seed)
        self.kept: dict[str, tf.Variable] = {}

    def __getitem__(self, key: tuple) -> tf.Variable:
        return self.kept[self._full_name(*key)]

    def make(self, role: str, part: str, block: int, shape: tuple[int, ...], spread: float, mean: float = 0.0) -> None:
        values = self._generator.standard_normal(shape, dtype=np.float32) * np.float32(spread) + np.float32(mean)
        name = self._full_name(role, part, block)
        self.kept[name] = tf.Variable(values, name=name)

    def make_dense(self, role: str, block: int, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        self.make(role, "slope", block, (*inputs, *outputs), math.prod(inputs) ** -0.5)
        self.make(role, "offset", block, outputs, 0.1)

    def make_norm(self, role: str, block: int, width: int) -> None:
        self.make(role, "stretch", block, (width,), 0.1, mean=1.0)
        self.make(role, "shift", block, (width,), 0.1)

    def _full_name(self, role: str, part: str, block: int = 0) -> str:
        return f"{self._names[role].format(block)}/{part}"


def _spec(name: str) -> tf.TensorSpec:
    return tf.TensorSpec((None, None), tf.int32, name=name)


_SPECS = {name: _spec(name) for name in ("input_word_ids", "input_mask", "input_type_ids")}


class RawBert(tf.Module):
    """The model itself; see `write_raw_bert`."""

    def __init__(
        self, weights: Weights, notation: Notation, heads, num_layers, pre_layer_norm, final_norm, pooler
    ) -> None:
        super().__init__()
        self.weights, self._notation, self._heads = weights, notation, heads
        self._num_layers, self._pre_layer_norm, self._pooler = num_layers, pre_layer_norm, pooler
        self._final_norm = pre_layer_norm and final_norm

    def make_weights(self, hidden: int, inner: int, vocab_size: int, max_positions: int) -> None:
        make = self.weights
        split = (hidden,) if self._notation.heads == "flat" else (self._heads, hidden // self._heads)
        for role, rows in {"words": vocab_size, "positions": max_positions, "types": 2}.items():
            make.make(role, "table", 0, (rows, hidden), 0.5)
        make.make_norm("entry", 0, hidden)
        for block in range(self._num_layers):
            for role in ("query", "key", "value"):
                make.make_dense(role, block, (hidden,), split)
            make.make_dense("attended", block, split, (hidden,))
            make.make_norm("middle", block, hidden)
            make.make_dense("inner", block, (hidden,), (inner,))
            make.make_dense("outer", block, (inner,), (hidden,))
            make.make_norm("exit", block, hidden)
        if self._final_norm:
            make.make_norm("last", 0, hidden)
        if self._pooler:
            make.make_dense("pooler", 0, (hidden,), (hidden,))

    @tf.function(input_signature=list(_SPECS.values()))
    def serve(self, input_word_ids, input_mask, input_type_ids):
        """Return the outputs for TF Hub's three inputs, by name: the signature."""
        inputs = {"input_word_ids": input_word_ids, "input_mask": input_mask, "input_type_ids": input_type_ids}
        return self(inputs)

    @tf.function(input_signature=[_SPECS])
    def __call__(self, inputs):
        """Return `pooled_output` and `sequence_output` for a dict, as TF Hub's text encoders do."""
        x = self._embed(inputs["input_word_ids"], inputs["input_type_ids"])
        bias = MASKS[self._notation.mask](inputs["input_mask"])
        for block in range(self._num_layers):
            if self._pre_layer_norm:
                x = self._add(x, self._attend(self._norm(x, "middle", block), bias, block))
                x = self._add(x, self._feed_forward(self._norm(x, "exit", block), block))
            else:
                x = self._norm(self._add(x, self._attend(x, bias, block)), "middle", block)
                x = self._norm(self._add(x, self._feed_forward(x, block)), "exit", block)
        if self._final_norm:
            x = self._norm(x, "last", 0)
        pooled = FIRST_TOKENS[self._notation.first_token](x)
        if self._pooler:
            pooled = tf.tanh(pooled @ self.weights["pooler", "slope"] + self.weights["pooler", "offset"])
        return {"pooled_output": pooled, "sequence_output": x}

    def _embed(self, ids, types):
        words = WORDS[self._notation.words](self.weights["words", "table"], ids)
        places = POSITIONS[self._notation.positions](self.weights["positions", "table"], tf.shape(ids)[1])
        x = self._add(self._add(words, tf.gather(self.weights["types", "table"], types)), places)
        return self._norm(x, "entry", 0)

    def _norm(self, x, role, block):
        stretch, shift = (self.weights[role, part, block] for part in ("stretch", "shift"))
        return NORMS[self._notation.norm](x, stretch, shift)

    def _add(self, x, y):
        return ADDS[self._notation.add](x, y)

    def _dense(self, x, role, block):
        slope, offset = (self.weights[role, part, block] for part in ("slope", "offset"))
        return DENSES[self._notation.dense](x, slope, offset)

    def _feed_forward(self, x, block):
        return self._dense(GELUS[self._notation.gelu](self._dense(x, "inner", block)), "outer", block)

    def _attend(self, x, bias, block):
        attend = self._attend_flat if self._notation.heads == "flat" else self._attend_with_axes
        return attend(x, bias, block)

    def _attend_flat(self, x, bias, block):
        """Attend by reshapes and transposes: `x` is (batch, seq, hidden)."""
        split, merge = SPLITS[self._notation.split], MERGES[self._notation.merge]
        query, key, value = (
            split(self._dense(x, role, block), self._heads, x.shape[-1]) for role in ("query", "key", "value")
        )
        scores = SCALES[self._notation.scale](query, key, x.shape[-1] // self._heads)
        weights = SOFTMAXES[self._notation.softmax](scores + bias)
        return self._dense(merge(weights @ value, tf.shape(x), x.shape[-1]), "attended", block)

    def _attend_with_axes(self, x, bias, block):
        """Attend by einsums: b batch, f and t from and to, n heads, h size of a head, d hidden."""
        query, key, value = (
            tf.einsum("bfd,dnh->bfnh", x, self.weights[role, "slope", block]) + self.weights[role, "offset", block]
            for role in ("query", "key", "value")
        )
        query *= query.shape[-1] ** -0.5
        weights = tf.nn.softmax(tf.einsum("bfnh,btnh->bnft", query, key) + bias)
        context = tf.einsum("bnft,btnh->bfnh", weights, value)
        projected = tf.einsum("bfnh,nhd->bfd", context, self.weights["attended", "slope", block])
        return projected + self.weights["attended", "offset", block]


def _moments(x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    return mean, tf.reduce_mean(tf.square(x - mean), -1, keepdims=True)


def _batch_normalization(x, stretch, shift):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, shift, stretch, EPSILON)


def _centred(x, stretch, shift):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) * stretch + shift


def _formula(x, stretch, shift):
    mean, variance = _moments(x)
    return stretch * (x - mean) / tf.sqrt(variance + EPSILON) + shift


def _deviation(x, stretch, shift):
    mean, variance = _moments(x)
    return (x - mean) / tf.sqrt(variance + EPSILON) * stretch + shift


def _own_moments(x, stretch, shift):
    mean, variance = _moments(x)
    return tf.nn.batch_normalization(x, mean, variance, shift, stretch, EPSILON)


def _reduce_variance(x, stretch, shift):
    mean, variance = tf.reduce_mean(x, -1, keepdims=True), tf.math.reduce_variance(x, -1, keepdims=True)
    return (x - mean) * (tf.math.rsqrt(variance + EPSILON) * stretch) + shift


def _difference_of_squares(x, stretch, shift):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x), -1, keepdims=True) - tf.square(mean)
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) * stretch + shift


NORMS: dict[str, Callable] = {
    "batch_normalization": _batch_normalization,
    "own_moments": _own_moments,
    "centred": _centred,
    "formula": _formula,
    "deviation": _deviation,
    "reduce_variance": _reduce_variance,
    "difference_of_squares": _difference_of_squares,
}

GELUS: dict[str, Callable] = {
    "tanh": lambda x: 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * tf.pow(x, 3)))),
    "tanh_cdf": lambda x: x * (0.5 * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))),
    "tanh_tf_sqrt": lambda x: 0.5 * x * (1.0 + tf.tanh(tf.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: x * tf.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)),
    "nn_approximate": lambda x: tf.nn.gelu(x, approximate=True),
    "nn_exact": lambda x: tf.nn.gelu(x, approximate=False),
    "erf": lambda x: x * 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0))),
    "erf_tf_sqrt": lambda x: x * 0.5 * (1.0 + tf.math.erf(x / tf.sqrt(2.0))),
    "erfc": lambda x: 0.5 * x * tf.math.erfc(-x * math.sqrt(0.5)),
    "relu": tf.nn.relu,
}


def _rows(x, kernel, bias):
    rows = tf.reshape(x, (-1, kernel.shape[0])) @ kernel + bias
    return tf.reshape(rows, tf.concat([tf.shape(x)[:-1], kernel.shape[1:]], 0))


DENSES: dict[str, Callable] = {
    "rows": _rows,
    "matmul": lambda x, kernel, bias: tf.matmul(x, kernel) + bias,
    "bias_add": lambda x, kernel, bias: tf.nn.bias_add(tf.matmul(x, kernel), bias),
    "bias_first": lambda x, kernel, bias: bias + tf.matmul(x, kernel),
    "einsum": lambda x, kernel, bias: tf.einsum("bsi,io->bso", x, kernel) + bias,
    "einsum_ellipsis": lambda x, kernel, bias: tf.einsum("...i,io->...o", x, kernel) + bias,
    "tensordot": lambda x, kernel, bias: tf.tensordot(x, kernel, 1) + bias,
    "tensordot_axes": lambda x, kernel, bias: tf.tensordot(x, kernel, [[2], [0]]) + bias,
}

SCALES: dict[str, Callable] = {
    "query": lambda query, key, size: tf.matmul(query * size**-0.5, key, transpose_b=True),
    "key": lambda query, key, size: tf.matmul(query, key * size**-0.5, transpose_b=True),
    "both": lambda query, key, size: tf.matmul(query * size**-0.25, key * size**-0.25, transpose_b=True),
    "product": lambda query, key, size: tf.matmul(query, key, transpose_b=True) * size**-0.5,
    "division": lambda query, key, size: tf.matmul(query, key, transpose_b=True) / math.sqrt(size),
    "division_tf_sqrt": lambda query, key, size: tf.matmul(query, key, transpose_b=True) / tf.sqrt(float(size)),
    "rsqrt": lambda query, key, size: tf.matmul(query, key, transpose_b=True) * tf.math.rsqrt(float(size)),
    "size_of_tensor": lambda query, key, size: (
        tf.matmul(query, key, transpose_b=True) / tf.sqrt(tf.cast(tf.shape(key)[-1], tf.float32))
    ),
    "transposed_key": lambda query, key, size: tf.matmul(query, tf.transpose(key, (0, 1, 3, 2))) * size**-0.5,
    "einsum": lambda query, key, size: tf.einsum("bnfh,bnth->bnft", query, key) * size**-0.5,
}


def _split(x, heads, width):
    """(batch, seq, hidden) → (batch, heads, seq, size)."""
    parts = tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1], heads, width // heads))
    return tf.transpose(parts, (0, 2, 1, 3))


SPLITS: dict[str, Callable] = {
    "transpose": _split,
    "stack": lambda x, heads, width: tf.stack(tf.split(x, heads, axis=-1), axis=1),
}


def _merge(context, shape, width):
    """(batch, heads, seq, size) → (batch, seq, hidden)."""
    return tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (shape[0], shape[1], width))


MERGES: dict[str, Callable] = {
    "static_width": _merge,
    "ensured": lambda context, shape, width: tf.ensure_shape(
        tf.reshape(tf.transpose(context, (0, 2, 1, 3)), shape), (None, None, width)
    ),
    "concat": lambda context, shape, width: tf.concat(tf.unstack(context, axis=1), axis=-1),
}


def _exponentials(x):
    powers = tf.exp(x - tf.reduce_max(x, axis=-1, keepdims=True))
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)


SOFTMAXES: dict[str, Callable] = {
    "nn": tf.nn.softmax,
    "positive_axis": lambda x: tf.nn.softmax(x, axis=3),
    "exponentials": _exponentials,
    "log_softmax": lambda x: tf.exp(tf.nn.log_softmax(x)),
}


def _reshaped(mask):
    shape = tf.shape(mask)
    return (1.0 - tf.cast(tf.reshape(mask, (shape[0], 1, 1, shape[1])), tf.float32)) * MASK_CONSTANT


def _expanded(mask):
    return (1.0 - tf.cast(tf.expand_dims(tf.expand_dims(mask, 1), 1), tf.float32)) * MASK_CONSTANT


def _broadcast(mask):
    shape = tf.shape(mask)
    from_to = tf.ones((shape[0], shape[1], 1)) * tf.cast(tf.reshape(mask, (shape[0], 1, shape[1])), tf.float32)
    return MASK_CONSTANT * (1.0 - tf.expand_dims(from_to, 1))


MASKS: dict[str, Callable] = {
    "reshaped": _reshaped,
    "expanded": _expanded,
    "broadcast": _broadcast,
    "newaxis": lambda mask: (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * MASK_CONSTANT,
    "newaxis_first": lambda mask: (1.0 - tf.cast(mask[:, tf.newaxis, tf.newaxis, :], tf.float32)) * MASK_CONSTANT,
    "minus_one": lambda mask: _expand(tf.cast(mask, tf.float32) - 1.0) * -MASK_CONSTANT,
    "minus": lambda mask: -_expand(1.0 - tf.cast(mask, tf.float32)) * -MASK_CONSTANT,
    "integer_difference": lambda mask: _expand(tf.cast(1 - mask, tf.float32)) * MASK_CONSTANT,
    "equals_zero": lambda mask: _expand(tf.cast(tf.equal(mask, 0), tf.float32)) * MASK_CONSTANT,
    "where": lambda mask: _expand(tf.where(tf.cast(mask, tf.bool), 0.0, MASK_CONSTANT)),
    "where_equal": lambda mask: _expand(tf.where(tf.equal(mask, 0), MASK_CONSTANT, 0.0)),
}


def _expand(mask):
    return tf.expand_dims(tf.expand_dims(mask, 1), 1)


WORDS: dict[str, Callable] = {
    "gather": tf.gather,
    "embedding_lookup": tf.nn.embedding_lookup,
    "one_hot": lambda table, ids: tf.one_hot(ids, table.shape[0]) @ table,
    "one_hot_rows": lambda table, ids: tf.reshape(
        tf.one_hot(tf.reshape(ids, (-1,)), table.shape[0]) @ table, (*tf.unstack(tf.shape(ids)), table.shape[1])
    ),
}

POSITIONS: dict[str, Callable] = {
    "slice": lambda table, length: table[:length],
    "slice_expanded": lambda table, length: tf.expand_dims(table[:length, :], 0),
    "slice_function": lambda table, length: tf.slice(table, (0, 0), (length, -1)),
    "newaxis": lambda table, length: table[tf.newaxis, :length],
    "range": lambda table, length: tf.gather(table, tf.range(length)),
    "range_expanded": lambda table, length: tf.gather(table, tf.expand_dims(tf.range(length), 0)),
}

FIRST_TOKENS: dict[str, Callable] = {
    "index": lambda x: x[:, 0],
    "index_all": lambda x: x[:, 0, :],
    "squeezed": lambda x: tf.squeeze(x[:, 0:1, :], axis=1),
    "slice": lambda x: tf.squeeze(tf.slice(x, (0, 0, 0), (-1, 1, -1)), axis=1),
    "gather": lambda x: tf.gather(x, 0, axis=1),
}

ADDS: dict[str, Callable] = {
    "operator": lambda x, y: x + y,
    "flipped": lambda x, y: y + x,
    "add_n": lambda x, y: tf.add_n([x, tf.broadcast_to(y, tf.shape(x))]),
}
