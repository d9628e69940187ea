"""One post-LayerNorm transformer block, with its attention in the open."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.backend_ops import activation, dense, layer_norm
from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.initial_values import starting_at
from keras_bert_trend.numerics import wide_dtype


class TransformerBlock(keras.layers.Layer):
    """Self-attention, add and norm, feed-forward, add and norm (Vaswani et al. 2017; Devlin et al. 2019).

        A = softmax(Q Kᵀ / √d + (1 − mask) · c)          c: `BertConfig.attention_mask_constant`
        x = LayerNorm(x + A V W_o)
        x = LayerNorm(x + act(x W_1) W_2)

    Query, key and value share one kernel `(hidden, 3 · hidden)`: one large matmul is faster than three.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BertConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.attention_dropout = keras.layers.Dropout(
            config.attention_dropout, dtype=self.dtype_policy, name="attention_dropout"
        )
        self.hidden_dropout = keras.layers.Dropout(
            config.hidden_dropout, dtype=self.dtype_policy, name="hidden_dropout"
        )

    def build(self, input_shape=None) -> None:
        """Create the block's weights; the shapes come from the configuration."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        roles = [f"attention/self/{role}" for role in ("query", "key", "value")]
        self.qkv_kernel, self.qkv_bias = self._add_dense("query_key_value", width, 3 * width, *roles)
        self.attention_kernel, self.attention_bias = self._add_dense(
            "attention_output", width, width, "attention/output/dense"
        )
        self.attention_gamma, self.attention_beta = self._add_norm("attention_layer_norm", "attention/output/LayerNorm")
        self.inner_kernel, self.inner_bias = self._add_dense("intermediate", width, inner, "intermediate/dense")
        self.output_kernel, self.output_bias = self._add_dense("output", inner, width, "output/dense")
        self.output_gamma, self.output_beta = self._add_norm("output_layer_norm", "output/LayerNorm")
        self.built = True

    def _start(self, default, *roles):
        return starting_at(default, *(f"encoder/{self.name}/{role}" for role in roles))

    def _add_dense(self, name, inputs, outputs, *roles):
        normal = keras.initializers.TruncatedNormal(stddev=self.config.initializer_range)
        kernel, bias = (
            self._start(d, *(f"{r}/{p}" for r in roles)) for d, p in ((normal, "kernel"), ("zeros", "bias"))
        )
        return (
            self.add_weight((inputs, outputs), kernel, name=f"{name}_kernel"),
            self.add_weight((outputs,), bias, name=f"{name}_bias"),
        )

    def _add_norm(self, name, role):
        # `autocast=False`: LayerNorm runs in float32 under every mixed precision policy.
        width = self.config.hidden_size
        gamma, beta = self._start("ones", f"{role}/gamma"), self._start("zeros", f"{role}/beta")
        return (
            self.add_weight((width,), gamma, name=f"{name}_gamma", autocast=False),
            self.add_weight((width,), beta, name=f"{name}_beta", autocast=False),
        )

    def call(self, x, input_mask, training=None):
        """Run the block.

        Args:
            x: `(batch, seq, hidden)`.
            input_mask: `(batch, seq)` int32, 1 for real tokens. (An integer, so that no policy casts it.)
            training: whether dropout acts.

        Returns:
            `(batch, seq, hidden)` and the attention probabilities `(batch, heads, seq, seq)` in float32 (float64 under
            that policy), before dropout, as `[..., query, key]`.
        """
        config = self.config
        probabilities, context = self._attend(x, input_mask, training)
        attended = dense(context, self.attention_kernel, self.attention_bias)
        attended = self.hidden_dropout(attended, training=training)
        x = layer_norm(x + attended, self.attention_gamma, self.attention_beta, config.layer_norm_epsilon)

        inner = activation(dense(x, self.inner_kernel, self.inner_bias), config.hidden_act)
        output = self.hidden_dropout(dense(inner, self.output_kernel, self.output_bias), training=training)
        x = layer_norm(x + output, self.output_gamma, self.output_beta, config.layer_norm_epsilon)
        return x, probabilities

    def _attend(self, x, input_mask, training):
        heads, size = self.config.num_heads, self.config.head_size
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        qkv = ops.reshape(dense(x, self.qkv_kernel, self.qkv_bias), (batch, length, 3, heads, size))
        query = ops.transpose(qkv[:, :, 0] * size**-0.5, (0, 2, 1, 3))  # (batch, heads, seq, size)
        key = ops.transpose(qkv[:, :, 1], (0, 2, 3, 1))  # (batch, heads, size, seq)
        value = ops.transpose(qkv[:, :, 2], (0, 2, 1, 3))
        # The softmax runs in float32 or wider: −1e9 does not exist in float16, and bfloat16 has 8 bits of mantissa.
        wide = wide_dtype(x)
        attention_bias = (1.0 - ops.cast(input_mask, wide)) * self.config.attention_mask_constant
        logits = ops.cast(ops.matmul(query, key), wide) + attention_bias[:, None, None, :]
        probabilities = ops.softmax(logits, axis=-1)
        weights = self.attention_dropout(ops.cast(probabilities, value.dtype), training=training)
        context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return probabilities, ops.reshape(context, (batch, length, heads * size))

    def compute_output_shape(self, x_shape, input_mask_shape=None):
        """Return the shapes of `call`'s two results."""
        batch, length, _ = x_shape
        return tuple(x_shape), (batch, self.config.num_heads, length, length)

    def named_variables(self, index: int) -> dict[str, keras.Variable | tuple[keras.Variable, int]]:
        """Return the variables under google-research/bert's names (without the leading `bert/`).

        Query, key and value are thirds of one variable: their entries are `(variable, which third)`.
        """
        prefix = f"encoder/layer_{index}"
        named = {
            f"{prefix}/attention/output/dense/kernel": self.attention_kernel,
            f"{prefix}/attention/output/dense/bias": self.attention_bias,
            f"{prefix}/attention/output/LayerNorm/gamma": self.attention_gamma,
            f"{prefix}/attention/output/LayerNorm/beta": self.attention_beta,
            f"{prefix}/intermediate/dense/kernel": self.inner_kernel,
            f"{prefix}/intermediate/dense/bias": self.inner_bias,
            f"{prefix}/output/dense/kernel": self.output_kernel,
            f"{prefix}/output/dense/bias": self.output_bias,
            f"{prefix}/output/LayerNorm/gamma": self.output_gamma,
            f"{prefix}/output/LayerNorm/beta": self.output_beta,
        }
        for third, role in enumerate(("query", "key", "value")):
            named[f"{prefix}/attention/self/{role}/kernel"] = (self.qkv_kernel, third)
            named[f"{prefix}/attention/self/{role}/bias"] = (self.qkv_bias, third)
        return named
