"""One post-LayerNorm transformer block, with its attention in the open."""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.ops import activation, dense, layer_norm, wide_dtype
from keras_bert_trend.encoder.rows import AllPositions, in_whole_vectors
from keras_bert_trend.encoder.variables import add_weights


class _DrawnSeed(keras.random.SeedGenerator):
    """A seed that has been drawn, as `keras.random` takes seeds: without a state to move on."""

    def __init__(self, seed) -> None:
        # Not `super().__init__`, which creates a variable. Under PyTorch `keras.random` reads this attribute: drawn
        # anew where it is `None`.
        self._initial_seed = self._seed = seed

    def next(self, ordered=True):
        """Return the seed."""
        return self._seed


def _no_dropout(x, number):
    return x


class TransformerBlock(keras.layers.Layer):
    """Self-attention, add and norm, feed-forward, add and norm (Vaswani et al. 2017; Devlin et al. 2019).

        A = softmax(Q Kᵀ / √d + (1 − mask) · c)          c: `BertConfig.attention_mask_constant`
        x = LayerNorm(x + A V W_o)
        x = LayerNorm(x + act(x W_1) W_2)

    Query, key and value share one kernel `(hidden, 3 · hidden)`: one large matmul is faster than three.

    Args:
        config: `BertConfig`. The architecture.
        rematerialize: bool. Whether training keeps only the block's input for the backward pass and computes the rest
            again there (Chen et al. 2016, arXiv:1604.06174): less memory, a third more time. Defaults to `False`.
        values_follow: bool. Whether the weights are assigned after `build`, which then draws none. Defaults to `False`.
    """

    def __init__(
        self, config: BertConfig, *, rematerialize: bool = False, values_follow: bool = False, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.rematerialize = rematerialize
        self._values_follow = values_follow
        self.attention_seeds = keras.random.SeedGenerator() if config.attention_dropout else None
        self.hidden_seeds = keras.random.SeedGenerator() if config.hidden_dropout else None

    def build(self, input_shape=None) -> None:
        """Create the weights; the configuration fixes their shapes."""
        normal = functools.partial(keras.initializers.TruncatedNormal, stddev=self.config.initializer_range)
        add_weights(self, self.config.block_weights(), normal, self._values_follow)
        self.built = True

    def call(self, x, input_mask, training=None, positions=None, tokens=None):
        """Run the block.

        Args:
            x: `(batch, seq, hidden)`.
            input_mask: `(batch, seq)` int32, 1 for real tokens. (An integer, so that no policy casts it.)
            training: whether dropout acts.
            positions: int32 `(batch, n)`: compute these tokens only. They attend to all tokens as ever, and their
                states are the same numbers; what the other tokens would become is not computed.
            tokens: `RealTokens(input_mask)` leaves the padding out: its states are zero in the result, and its queries'
                probabilities mean nothing.

        Returns:
            `(batch, seq, hidden)` and the attention probabilities `(batch, heads, seq, seq)` in float32 (float64 under
            that policy), before dropout, as `[..., query, key]`. With `positions`, `n` takes the place of `seq` as the
            number of queries.
        """
        dropout = self._drawn_dropout() if training else _no_dropout

        def compute(x):
            return self._compute(x, input_mask, positions, tokens or AllPositions(), dropout, training)

        return keras.remat(compute)(x) if training and self.rematerialize else compute(x)

    def _drawn_dropout(self):
        """Return `dropout(x, number)` for the block's three; its seeds are drawn now, once.

        When the block is computed again, the same numbers must be dropped.
        """
        config = self.config
        rates = (config.attention_dropout, config.hidden_dropout, config.hidden_dropout)
        generators = (self.attention_seeds, self.hidden_seeds, self.hidden_seeds)
        seeds = [_DrawnSeed(generator.next()) if generator else None for generator in generators]

        def dropout(x, number):
            return keras.random.dropout(x, rates[number], seed=seeds[number]) if rates[number] else x

        return dropout

    def _compute(self, x, input_mask, positions, tokens, dropout, training):
        config = self.config
        # Matrices of tokens, not `(batch, seq, …)`: a reshape between a product, its bias, its activation and the sum
        # with the residual would keep TensorFlow from fusing them.
        if positions is None:
            chosen, chosen_tokens = x, tokens
            rows = tokens.rows(x)
            query, key, value = self._project(rows, tokens, x, "qkv")
        else:
            chosen, chosen_tokens = ops.take_along_axis(x, positions[:, :, None], axis=1), AllPositions()
            rows = chosen_tokens.rows(chosen)
            (query,) = self._project(rows, chosen_tokens, chosen, "q")
            key, value = self._project(tokens.rows(x), tokens, x, "kv")
        probabilities, context = self._attend(query, key, value, input_mask, dropout)
        attended = dense(chosen_tokens.rows(context), self.attention_kernel, self.attention_bias)
        rows = rows + dropout(attended, 1)
        rows = layer_norm(rows, self.attention_gamma, self.attention_beta, config.layer_norm_epsilon, training)

        inner = activation(dense(rows, self.inner_kernel, self.inner_bias), config.hidden_act)
        rows = rows + dropout(dense(inner, self.output_kernel, self.output_bias), 2)
        rows = layer_norm(rows, self.output_gamma, self.output_beta, config.layer_norm_epsilon, training)
        return chosen_tokens.spread(rows, chosen), probabilities

    def _project(self, rows, tokens, like, roles: str) -> list:
        """Return the query, key or value of the rows, by one product: `(batch, heads, tokens, size)` for each role."""
        config, width = self.config, self.config.hidden_size
        kernel, bias = self.qkv_kernel, self.qkv_bias
        if roles != "qkv":
            begin = "qkv".index(roles) * width
            columns = slice(begin, begin + len(roles) * width)
            kernel, bias = kernel[:, columns], bias[columns]
        projected = tokens.spread(dense(rows, kernel, bias), like)
        batch, length, _ = ops.shape(projected)
        apart = ops.reshape(projected, (batch, length, len(roles), config.num_heads, config.head_size))
        return ops.unstack(ops.transpose(apart, (2, 0, 3, 1, 4)))

    def _attend(self, query, key, value, input_mask, dropout):
        """Return the probabilities `(batch, heads, n, seq)` and the context `(batch, n, hidden)`."""
        # The softmax runs in float32 or wider: −1e9 does not exist in float16, and bfloat16 has 8 bits of mantissa.
        wide, length = wide_dtype(value), ops.shape(key)[2]
        # Sums over the keys, in whole vectors: what a text is padded to must not change the last bit.
        key, value = in_whole_vectors(key, axis=2), in_whole_vectors(value, axis=2)
        attention_bias = (1.0 - ops.cast(input_mask, wide)) * self.config.attention_mask_constant
        attention_bias = in_whole_vectors(attention_bias, axis=1, fill=-np.inf)  # also where no token is real
        products = ops.matmul(query * self.config.head_size**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        logits = ops.cast(products, wide) + attention_bias[:, None, None, :]
        probabilities = ops.softmax(logits, axis=-1)
        weights = dropout(ops.cast(probabilities, value.dtype), 0)
        probabilities = probabilities[..., :length]
        context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return probabilities, ops.reshape(context, (*ops.shape(context)[:2], self.config.hidden_size))

    def compute_output_shape(self, x_shape, input_mask_shape=None):
        """Return the shapes of `call`'s two results."""
        batch, length, _ = x_shape
        return tuple(x_shape), (batch, self.config.num_heads, length, length)
