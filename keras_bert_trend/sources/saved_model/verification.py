"""Check what was read of a SavedModel: with made-up weights its graph has to give the numbers that a BERT gives.

The reader follows operations, and has seen that none stands between the parts that may change a value (`patterns.py`).
Whether their axes and shapes, the cutting into heads and the putting together are those of a BERT is seen here, by
computing both with NumPy, in double precision: the graph, operation by operation (`arithmetic.py`), and the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.sources.saved_model.arithmetic import CannotComputeError, compute, erf
from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key

# Relative to the largest number of a value. Every block starts from the formulas' values, so that nothing adds up, and
# the weights keep all numbers near 1: what is left is the rounding of the graph's constants to float32, 6e-8 each.
_TOLERANCE = 1e-6
_SIZES = ((2, 5), (3, 4))  # batch and length: a constant in a shape fits one of them at most

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


def find_difference(
    graph: Dataflow,
    landmarks: Mapping[str, Key],
    outputs: Mapping[Key, str],
    config: BertConfig,
    variables: Mapping[str, tuple[Key, tuple[int, ...]]],
    arguments: Mapping[str, Key],
) -> str | None:
    """Compare the graph with a BERT on made-up weights and inputs.

    Args:
        graph: the dataflow that was read.
        landmarks: the values that a BERT has, by name, in the order in which they are computed: `embedding_output`,
            the blocks' outputs, `pooled_output`; `attention_scores/0`, … if they are wanted.
        outputs: the graph's outputs, and which of these values each is.
        config: the architecture that was read.
        variables: role → the variable and its shape in the SavedModel.
        arguments: `input_word_ids`, … → the argument that was read to be it.

    Returns:
        What differs, in words; `None` where nothing does.
    """
    kernels = [shape for role, (_, shape) in variables.items() if role.endswith("kernel")]
    numbers = _Numbers(kernels, config.hidden_size)
    weights = {role: numbers.weight(role, shape, i) for i, (role, (_, shape)) in enumerate(variables.items())}
    for batch, length in _SIZES:
        inputs = _make_up_inputs(config, batch, min(length, config.max_position_embeddings))
        given = {key: weights[role] for role, (key, _) in variables.items()}
        given |= {key: inputs[name] for name, key in arguments.items()}
        expected = _bert(config, weights, inputs)
        try:
            # One after the other, each from the one before: nothing is computed twice, the first difference is named.
            for name, key in landmarks.items():
                (value,) = compute(graph, [key], given)
                difference = _difference(value, expected[name])
                if difference:
                    return f"{name} {difference}"
                given[key] = expected[name].reshape(value.shape)  # inside, states may be (batch · seq, hidden)
            for name, value in zip(outputs.values(), compute(graph, outputs, given), strict=True):
                if value.shape != expected[name].shape or _difference(value, expected[name]):
                    return f"output {name} has the shape {value.shape} instead of {expected[name].shape}"
        except CannotComputeError as error:
            return f"{name} cannot be computed: {error}"
    return None


def _difference(value: np.ndarray, right: np.ndarray) -> str | None:
    if value.size != right.size:
        return f"has the shape {value.shape} instead of {right.shape}"
    difference = np.abs(value.reshape(right.shape) - right).max() / max(1.0, np.abs(right).max())
    if difference < _TOLERANCE:
        return None
    return f"is not what a BERT of this architecture gives: it is off by {difference:.2g}"


class _Numbers:
    """Made-up weights that take next to no time and memory: windows on a few rows of random numbers.

    Args:
        shapes: of all the kernels there will be.
        width: of the hidden states; kernels are scaled so that theirs and attention's scores stay about 1.
    """

    def __init__(self, shapes: Iterable[tuple[int, ...]], width: int) -> None:
        count = 40_009  # a prime: the multiple of no width
        self._normal = np.random.default_rng(20190711).normal(size=count)
        largest = max((math.prod(shape) for shape in shapes), default=1)
        # One matrix after the other is multiplied with: where all lie in the same megabytes, these stay in the cache.
        self._kernels = np.resize(self._normal / math.sqrt(width), largest + 1009)

    def weight(self, role: str, shape: tuple[int, ...], number: int) -> np.ndarray:
        """Return the weight that is number so-and-so."""
        start = 131 * number % 1009
        count = math.prod(shape)
        if role.endswith("kernel"):
            return self._kernels[start : start + count].reshape(shape)
        if len(shape) > 1:
            # Rows are read from tables, one by one: neighbours may share their numbers, seven places on.
            numbers = np.resize(self._normal, start + 7 * shape[0] + math.prod(shape[1:]))[start:]
            strides = (7 * 8, *(8 * math.prod(shape[i + 1 :]) for i in range(1, len(shape))))
            return np.lib.stride_tricks.as_strided(numbers, shape, strides, writeable=False)
        return role.endswith("gamma") + 0.3 * np.resize(self._normal[start:], shape)


def _make_up_inputs(config: BertConfig, batch: int, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    mask = np.ones((batch, length), np.int64)
    mask[0, 1:2] = 0
    mask[1, length - length // 2 :] = 0
    return {
        "input_word_ids": generator.integers(config.vocab_size, size=mask.shape),
        "input_mask": mask,
        "input_type_ids": generator.integers(config.type_vocab_size or 2, size=mask.shape),
    }


def _bert(config: BertConfig, weights: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]):
    """Return every value that a BERT has, by the formulas of its blocks."""
    do, last = _Numbers64(config, weights, inputs), config.num_layers - 1
    x = config.kind.embed(do, config)
    values = {"embedding_output": x}
    for layer in range(config.num_layers):
        do.prefix = f"encoder/layer_{0 if config.share_layers else layer}/"
        values[f"encoder_outputs/{layer}"] = x = config.kind.compute(do, x, config, layer == last)
        values[f"attention_scores/{layer}"] = do.probabilities
    do.prefix = ""
    values["pooled_output"] = np.tanh(do.dense("pooler/dense", x[:, 0])) if config.pooler == "tanh" else x[:, 0]
    return values


class _Numbers64(Algebra):
    """NumPy computes the formulas, in double precision."""

    def __init__(self, config: BertConfig, weights, inputs) -> None:
        super().__init__(config)
        self.prefix = ""
        self._weights, self._inputs, self._shapes = weights, inputs, config.weight_shapes()

    def weight(self, name):
        return self._weights[self.prefix + name].reshape(self._shapes[self.prefix + name])

    def lookup(self, name, ids):
        return self.weight(name)[self._inputs[ids]]

    def positions(self, name):
        return self.weight(name)[: self._inputs["input_mask"].shape[1]]

    def neighbours(self, x):
        nothing = np.zeros_like(x[:, :1])
        following, before = (np.concatenate(two, axis=1) for two in ((x[:, 1:], nothing), (nothing, x[:, :-1])))
        return np.concatenate([following, x, before], axis=-1)

    def dense(self, name, x):
        return x @ self.weight(f"{name}/kernel") + self.weight(f"{name}/bias")

    def activate(self, x):
        return FUNCTIONS[self.config.hidden_act](x)

    def norm(self, name, x):
        if self.config.normalization == "layer_norm":
            x = x - x.mean(-1, keepdims=True)
            x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + self.config.layer_norm_epsilon)
        return x * self.weight(f"{name}/gamma") + self.weight(f"{name}/beta")

    def attention(self, query, key, value, mixes=None):
        query, key, value = (
            self._heads(self.dense(f"attention/self/{role}", x))
            for role, x in (("query", query), ("key", key), ("value", value))
        )
        scores = self._mixed(query @ key.swapaxes(2, 3) / math.sqrt(self.config.head_size), mixes and mixes[0])
        scores = scores + (1 - self._inputs["input_mask"])[:, None, None, :] * self.config.attention_mask_constant
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        self.probabilities = self._mixed(scores / scores.sum(-1, keepdims=True), mixes and mixes[1])
        context = (self.probabilities @ value).swapaxes(1, 2)
        return context.reshape(*context.shape[:2], self.config.attention_width)

    def _heads(self, x):
        return x.reshape(*x.shape[:2], self.config.num_heads, self.config.head_size).swapaxes(1, 2)

    def _mixed(self, scores, name):
        return scores if name is None else np.einsum("bnts,nm->bmts", scores, self.weight(f"{name}/kernel"))
