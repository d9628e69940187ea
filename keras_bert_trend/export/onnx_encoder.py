"""Write an encoder as nodes of an ONNX graph, straight from the formulas: no converter in between.

A converter would carry along what TensorFlow needs (shapes asked for in every block, LayerNorms in parts). Here sizes
are copied (a `0` in ONNX's `Reshape`), and gelu, bias and scale stand in the forms that ONNX Runtime fuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.formula import Algebra


class OnnxEncoder(Algebra):
    """ONNX nodes that compute an encoder: states are names of tensors `(B, T, width)`.

    Args:
        config: `BertConfig`. The architecture.
        weights: mapping. google-research/bert's name → array, as `BertEncoder.named_weights` gives them.

    Attributes:
        nodes: list of `NodeProto`. They read the inputs `input_word_ids`, `input_mask` and `input_type_ids`.
        constants: dict. Name → array.
        outputs: dict. `embedding_output`, `pooled_output`, and `encoder_outputs_0`, `attention_scores_0`,
            `attention_received_0` … of every block → the name of the tensor.
    """

    def __init__(self, config: BertConfig, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(config)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._weights, self._prefix = weights, ""
        mask = self.op("Cast", "input_mask", to=TensorProto.FLOAT)
        queries = self.op("Unsqueeze", mask, self._constant([1, 2], np.int64))  # (B, 1, 1, T)
        missing = self.op("Sub", self._constant(1), queries)
        self._bias = self.op("Mul", missing, self._constant(config.attention_mask_constant))
        x = config.kind.embed(self, config)
        self.outputs = {"embedding_output": x}
        for number in range(config.num_layers):
            self._prefix = f"encoder/layer_{0 if config.share_layers else number}/"
            x = config.kind.compute(self, x, config, number == config.num_layers - 1)
            received = self.op("MatMul", queries, self.probabilities)  # (B, N, 1, T)
            self.outputs |= {
                f"encoder_outputs_{number}": x,
                f"attention_scores_{number}": self.probabilities,
                f"attention_received_{number}": self.op("Squeeze", received, self._constant([2], np.int64)),
            }
        self._prefix = ""
        first = self.op("Gather", x, self._constant(0, np.int64), axis=1)
        tanh = config.pooler == "tanh"
        self.outputs["pooled_output"] = self.op("Tanh", self.dense("pooler/dense", first)) if tanh else first

    def op(self, kind: str, *inputs: str, name: str = "", **attributes) -> str:
        """Add a node and return the name of its output."""
        name = name or f"bert/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def _constant(self, value, dtype=np.float32) -> str:
        name = f"bert/{np.dtype(dtype)}_{value}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def weight(self, name):
        name = self._prefix + name
        self.constants[f"bert/{name}"] = np.asarray(self._weights[name], np.float32)
        return f"bert/{name}"

    def lookup(self, name, ids):
        return self.op("Gather", self.weight(name), ids)

    def positions(self, name):
        length, zero = self.op("Shape", "input_word_ids", start=1, end=2), self._constant([0], np.int64)
        return self.op("Slice", self.weight(name), zero, length, zero)

    def neighbours(self, x):
        first, second, end, last = (self._constant([i], np.int64) for i in (0, 1, np.iinfo(np.int64).max, -1))
        following, before = self.op("Slice", x, second, end, second), self.op("Slice", x, first, last, second)
        following = self.op("Pad", following, self._constant([0, 0, 0, 0, 1, 0], np.int64))
        before = self.op("Pad", before, self._constant([0, 1, 0, 0, 0, 0], np.int64))
        return self.op("Concat", following, x, before, axis=-1)

    def dense(self, name, x):
        product = self.op("MatMul", x, self.weight(f"{name}/kernel"))
        return self.op("Add", product, self.weight(f"{name}/bias"))

    def activate(self, x):
        if self.config.hidden_act == "relu":
            return self.op("Relu", x)
        if self.config.hidden_act == "gelu":
            inner = self.op("Erf", self.op("Div", x, self._constant(math.sqrt(2))))
        else:
            cubes = self.op("Mul", self.op("Pow", x, self._constant(3)), self._constant(0.044715))
            inner = self.op("Tanh", self.op("Mul", self.op("Add", x, cubes), self._constant(math.sqrt(2 / math.pi))))
        both = self.op("Mul", x, self.op("Add", inner, self._constant(1)))
        return self.op("Mul", both, self._constant(0.5))

    def norm(self, name, x):
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        if self.config.normalization == "no_norm":
            return self.op("Add", self.op("Mul", x, gamma), beta)
        return self.op("LayerNormalization", x, gamma, beta, epsilon=self.config.layer_norm_epsilon)

    def attention(self, query, key, value, mixes=None):
        config = self.config
        apart = self._constant([0, 0, config.num_heads, config.head_size], np.int64)
        query, key, value = (
            self.op("Transpose", self.op("Reshape", self.dense(f"attention/self/{role}", x), apart), perm=axes)
            for role, x, axes in (
                ("query", query, (0, 2, 1, 3)),  # (B, N, T, H)
                ("key", key, (0, 2, 3, 1)),  # (B, N, H, T)
                ("value", value, (0, 2, 1, 3)),
            )
        )
        products = self.op("Mul", self.op("MatMul", query, key), self._constant(config.head_size**-0.5))
        logits = self.op("Add", self._mixed(products, mixes and mixes[0]), self._bias)
        self.probabilities = self._mixed(self.op("Softmax", logits, axis=-1), mixes and mixes[1])
        context = self.op("Transpose", self.op("MatMul", self.probabilities, value), perm=(0, 2, 1, 3))
        return self.op("Reshape", context, self._constant([0, 0, config.attention_width], np.int64))

    def _mixed(self, scores, name):
        if name is None:
            return scores
        return self.op("Einsum", scores, self.weight(f"{name}/kernel"), equation="bnts,nm->bmts")

    def add(self, x, *others):
        for other in others:
            x = self.op("Add", x, other)
        return x

    def multiply(self, x, y):
        return self.op("Mul", x, y)
