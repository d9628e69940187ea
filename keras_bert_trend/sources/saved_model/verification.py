"""Check what was read of a SavedModel: with made-up weights its graph has to give the numbers that a BERT gives.

The reader follows operations. Whether their axes, shapes and types, the cutting into heads and the putting together
are those of a BERT is seen here, by computing both with NumPy: the graph, operation by operation (`arithmetic.py`), and
the formulas. A model that differs in any way that shows in its outputs is found out, however it is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.saved_model.arithmetic import CannotComputeError, compute, erf
from keras_bert_trend.sources.saved_model.dataflow import Dataflow, Key

_TOLERANCE = 1e-3  # in float32, rounding differs by 1e-5 after 24 blocks; what is computed otherwise by 0.01 and more
_BATCH, _LENGTH = 2, 4

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Where in the graph the values are that a BERT's have to be equal to.

    Args:
        embedding_output: input of the first block.
        encoder_outputs: the blocks' outputs.
        pooled_output: the pooler's.
    """

    embedding_output: Key
    encoder_outputs: tuple[Key, ...]
    pooled_output: Key

    def named(self) -> dict[str, Key]:
        """Return the values by name, in the order that they are computed in."""
        blocks = {f"encoder_outputs[{i}]": key for i, key in enumerate(self.encoder_outputs)}
        return {"embedding_output": self.embedding_output, **blocks, "pooled_output": self.pooled_output}


def find_difference(
    graph: Dataflow,
    landmarks: Landmarks,
    config: BertConfig,
    variables: Mapping[str, tuple[Key, tuple[int, ...]]],
    arguments: Mapping[str, Key],
) -> str | None:
    """Compare the graph with a BERT on made-up weights and inputs.

    Args:
        graph: the dataflow that was read.
        landmarks: the values to compare.
        config: the architecture that was read.
        variables: role → the variable and its shape in the SavedModel.
        arguments: `input_word_ids`, … → the argument that was read to be it.

    Returns:
        What differs, in words; `None` where nothing does.
    """
    kernels = [shape for role, (_, shape) in variables.items() if role.endswith("kernel")]
    numbers = _Numbers(kernels, config.hidden_size)
    weights = {role: numbers.weight(role, shape, i) for i, (role, (_, shape)) in enumerate(variables.items())}
    inputs = _make_up_inputs(config)
    given = {key: weights[role] for role, (key, _) in variables.items()}
    given |= {key: inputs[name] for name, key in arguments.items()}
    expected = _bert(config, weights, inputs)
    for (name, key), right in zip(landmarks.named().items(), expected, strict=True):
        # One after the other, each from the one before: nothing is computed twice, and the first difference is named.
        try:
            (value,) = compute(graph, [key], given)
        except CannotComputeError as error:
            return f"{name} cannot be computed: {error}"
        if value.size != right.size:
            return f"{name} has the shape {value.shape} instead of {right.shape}"
        difference = np.abs(value.reshape(right.shape) - right).max()
        if not difference < _TOLERANCE * max(1.0, np.abs(right).max()):
            return f"{name} is not what a BERT of this architecture gives: it is off by {difference:.2g}"
        given[key] = value
    return None


class _Numbers:
    """Made-up weights that take next to no time and memory: windows on a few rows of random numbers.

    Args:
        shapes: of all the kernels there will be.
        width: of the hidden states; kernels are scaled so that theirs and attention's scores stay about 1.
    """

    def __init__(self, shapes: Iterable[tuple[int, ...]], width: int) -> None:
        count = 40_009  # a prime: the multiple of no width
        self._normal = np.random.default_rng(20190711).normal(size=count).astype(np.float32)
        largest = max((math.prod(shape) for shape in shapes), default=1)
        # One matrix after the other is multiplied with: where all lie in the same megabytes, these stay in the cache.
        self._kernels = np.resize(self._normal / np.float32(math.sqrt(width)), largest + 1009)

    def weight(self, role: str, shape: tuple[int, ...], number: int) -> np.ndarray:
        """Return the weight that is number so-and-so."""
        start = 131 * number % 1009
        count = math.prod(shape)
        if role.endswith("kernel"):
            return self._kernels[start : start + count].reshape(shape)
        if len(shape) > 1:
            # Rows are read from tables, one by one: neighbours may share their numbers, seven places on.
            numbers = np.resize(self._normal, start + 7 * shape[0] + math.prod(shape[1:]))[start:]
            strides = (7 * 4, *(4 * math.prod(shape[i + 1 :]) for i in range(1, len(shape))))
            return np.lib.stride_tricks.as_strided(numbers, shape, strides, writeable=False)
        return np.float32(role.endswith("gamma")) + np.float32(0.3) * np.resize(self._normal[start:], shape)


def _make_up_inputs(config: BertConfig) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    length = min(_LENGTH, config.max_position_embeddings)
    mask = np.ones((_BATCH, length), np.int64)
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
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(config.layer_norm_epsilon))
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
    masked = (1 - inputs["input_mask"].astype(np.float32))[:, None, None, :] * config.attention_mask_constant
    for layer in range(config.num_layers):
        name = f"encoder/layer_{0 if config.share_layers else layer}"
        query, key, value = (heads(dense(f"{name}/attention/self/{role}", x)) for role in ("query", "key", "value"))
        scores = np.exp(_below_zero(query @ key.swapaxes(2, 3) / math.sqrt(config.head_size) + masked))
        context = scores / scores.sum(-1, keepdims=True) @ value
        context = context.swapaxes(1, 2).reshape(x.shape)
        x = norm(f"{name}/attention/output/LayerNorm", x + dense(f"{name}/attention/output/dense", context))
        inner = ACTIVATIONS[config.hidden_act](dense(f"{name}/intermediate/dense", x))
        x = norm(f"{name}/output/LayerNorm", x + dense(f"{name}/output/dense", inner))
        yield x
    yield np.tanh(dense("pooler/dense", x[:, 0])) if config.pooler == "tanh" else x[:, 0]


def _below_zero(x: np.ndarray) -> np.ndarray:
    return x - x.max(-1, keepdims=True)
