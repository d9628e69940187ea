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
            the blocks' outputs, `pooled_output`.
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
        expected = dict(zip(landmarks, _bert(config, weights, inputs), strict=True))
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
        "input_type_ids": generator.integers(config.type_vocab_size, size=mask.shape),
    }


def _bert(config: BertConfig, weights: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]):
    """Yield the embedding output, every block's output and the pooled output (Devlin et al. 2019)."""
    shapes = config.weight_shapes()

    def weight(role):
        return weights[role].reshape(shapes[role])

    def dense(role, x):
        return x @ weight(f"{role}/kernel") + weight(f"{role}/bias")

    def norm(role, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + config.layer_norm_epsilon)
        return x * weight(f"{role}/gamma") + weight(f"{role}/beta")

    def heads(x):
        return x.reshape(*x.shape[:2], config.num_heads, config.head_size).swapaxes(1, 2)

    ids, types = inputs["input_word_ids"], inputs["input_type_ids"]
    x = weights["embeddings/word_embeddings"][ids]
    x = x + weight("embeddings/token_type_embeddings")[types] + weight("embeddings/position_embeddings")[: ids.shape[1]]
    x = norm("embeddings/LayerNorm", x)
    if config.embedding_size != config.hidden_size:
        x = dense("encoder/embedding_hidden_mapping_in", x)
    yield x
    masked = (1 - inputs["input_mask"])[:, None, None, :] * config.attention_mask_constant
    for layer in range(config.num_layers):
        name = f"encoder/layer_{0 if config.share_layers else layer}"
        query, key, value = (heads(dense(f"{name}/attention/self/{role}", x)) for role in ("query", "key", "value"))
        scores = np.exp(_below_zero(query @ key.swapaxes(2, 3) / math.sqrt(config.head_size) + masked))
        context = scores / scores.sum(-1, keepdims=True) @ value
        context = context.swapaxes(1, 2).reshape(x.shape)
        x = norm(f"{name}/attention/output/LayerNorm", x + dense(f"{name}/attention/output/dense", context))
        inner = FUNCTIONS[config.hidden_act](dense(f"{name}/intermediate/dense", x))
        x = norm(f"{name}/output/LayerNorm", x + dense(f"{name}/output/dense", inner))
        yield x
    yield np.tanh(dense("pooler/dense", x[:, 0])) if config.pooler == "tanh" else x[:, 0]


def _below_zero(x: np.ndarray) -> np.ndarray:
    return x - x.max(-1, keepdims=True)
