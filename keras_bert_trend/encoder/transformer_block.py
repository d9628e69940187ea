"""One post-LayerNorm transformer block, with its attention in the open."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.lora import TARGETS, LowRank, low_rank_product, merged
from keras_bert_trend.encoder.ops import activation, dense, layer_norm, refuse_to_quantize, wide_dtype
from keras_bert_trend.encoder.rows import AllPositions, in_whole_vectors
from keras_bert_trend.encoder.variables import add_weights


class _DrawnSeed(keras.random.SeedGenerator):
    """A seed that has been drawn, as `keras.random` takes seeds: without a state to move on."""

    def __init__(self, seed) -> None:
        # Not `super().__init__`, which creates a variable. Under PyTorch `keras.random` reads this attribute: drawn
        # anew where it is `None`.
        self._initial_seed = self._seed = seed

    def next(self, ordered=True):
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
        self.lora_targets: tuple[str, ...] = ()
        self.lora_scale = 1.0
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
        attended = self._dense(chosen_tokens.rows(context), "attention")
        rows = rows + dropout(attended, 1)
        rows = layer_norm(rows, self.attention_gamma, self.attention_beta, config.layer_norm_epsilon, training)

        inner = activation(self._dense(rows, "inner"), config.hidden_act)
        rows = rows + dropout(self._dense(inner, "output"), 2)
        rows = layer_norm(rows, self.output_gamma, self.output_beta, config.layer_norm_epsilon, training)
        return chosen_tokens.spread(rows, chosen), probabilities

    def _dense(self, rows, name: str, thirds: Sequence[int] = (0, 1, 2)):
        """Return one of the block's dense layers of the rows; of query, key and value those wanted, side by side."""
        kernel, bias = getattr(self, f"{name}_kernel"), getattr(self, f"{name}_bias")
        if len(thirds) < 3:
            width = self.config.hidden_size
            columns = slice(thirds[0] * width, (thirds[-1] + 1) * width)
            kernel, bias = kernel[:, columns], bias[columns]
        result = dense(rows, kernel, bias)
        updates = self._updates_of(f"{name}_kernel")
        return result + low_rank_product(rows, updates, thirds, self.lora_scale) if updates else result

    def enable_lora(self, rank: int, lora_alpha: float, target: Sequence[str]) -> None:
        self._tracker.unlock()  # as Keras's own layers do for the same purpose
        for name in target:
            attribute, third = TARGETS[name]
            rows, columns = getattr(self, attribute).shape
            gaussian = keras.initializers.RandomNormal(stddev=rows**-0.5)
            columns = columns if third is None else columns // 3
            a = self.add_weight((rows, rank), gaussian, name=f"{name}_lora_a")
            b = self.add_weight((rank, columns), "zeros", name=f"{name}_lora_b")
            setattr(self, f"{name}_lora_a", a)
            setattr(self, f"{name}_lora_b", b)
        self._tracker.lock()
        self.lora_targets = tuple(target)
        self.lora_scale = lora_alpha / rank

    def _updates_of(self, *attributes: str) -> list[LowRank]:
        return [
            LowRank(getattr(self, f"{name}_lora_a"), getattr(self, f"{name}_lora_b"), TARGETS[name][1])
            for name in self.lora_targets
            if TARGETS[name][0] in attributes
        ]

    def _all_updates(self) -> list[LowRank]:
        return self._updates_of(*(attribute for attribute, _ in TARGETS.values()))

    def _lora_variables(self) -> set[int]:
        return {id(variable) for update in self._all_updates() for variable in (update.a, update.b)}

    def freeze_all_but_lora(self) -> None:
        """Let nothing but the low-rank updates train."""
        for variable in self.weights:
            variable.trainable = id(variable) in self._lora_variables()

    def merged_value(self, variable: keras.Variable):
        """Return a variable's value, a kernel's with its low-rank updates."""
        for attribute in {attribute for attribute, _ in TARGETS.values()}:
            if variable is getattr(self, attribute):
                return merged(variable.value, self._updates_of(attribute), self.lora_scale)
        return variable.value

    def _base_variables(self) -> list[keras.Variable]:
        own = self._lora_variables()
        return [variable for variable in self.weights if id(variable) not in own]

    def save_own_variables(self, store) -> None:
        """Save the weights, low-rank updates merged into them: a file is the same with and without."""
        for number, variable in enumerate(self._base_variables()):
            store[str(number)] = ops.convert_to_numpy(self.merged_value(variable))

    def load_own_variables(self, store) -> None:
        """Load the weights; low-rank updates start anew, from zero."""
        variables = self._base_variables()
        if len(store.keys()) != len(variables):
            raise ValueError(
                f"Layer {self.name!r} has {len(variables)} weights, but {len(store.keys())} were saved for it."
            )
        for number, variable in enumerate(variables):
            variable.assign(store[str(number)])
        for update in self._all_updates():
            update.b.assign(ops.zeros_like(update.b))

    def quantize(self, mode=None, **kwargs) -> None:
        refuse_to_quantize(mode)

    def _project(self, rows, tokens, like, roles: str) -> list:
        """Return the query, key or value of the rows, by one product: `(batch, heads, tokens, size)` for each role."""
        config = self.config
        thirds = ["qkv".index(role) for role in roles]
        projected = tokens.spread(self._dense(rows, "qkv", thirds), like)
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
