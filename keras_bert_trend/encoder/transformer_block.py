"""One transformer block as a Keras layer, with its attention in the open."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.keras_algebra import KerasAlgebra
from keras_bert_trend.encoder.lora import LowRank, layers_of, low_rank_product, merged
from keras_bert_trend.encoder.ops import dense, refuse_to_quantize, wide_dtype
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
    """One transformer block, of the kind that the configuration names: `encoder/blocks/` has the formulas.

    Args:
        config: `BertConfig`. The architecture.
        is_last: bool. Whether it is the encoder's last block. Defaults to `False`.
        rematerialize: bool. Whether training keeps only the block's input for the backward pass and computes the rest
            again there (Chen et al. 2016, arXiv:1604.06174): less memory, a third more time. Defaults to `False`.
        values_follow: bool. Whether the weights are assigned after `build`, which then draws none. Defaults to `False`.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        is_last: bool = False,
        rematerialize: bool = False,
        values_follow: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # it computes in the dtype of `x`
        self.config = config
        self.is_last = is_last
        self.rematerialize = rematerialize
        self._values_follow = values_follow
        self._weights_in_order = config.block_weights(is_last)
        # Of every kernel: the variable that it is in, and which of those side by side in it.
        self._places = {
            name: (weight.attribute, part)
            for weight in self._weights_in_order
            for part, name in enumerate(weight.names)
            if name.endswith("/kernel")
        }
        self._lora_layers: dict[str, str] = {}  # what a low-rank update is called → its dense layer
        self.lora_scale = 1.0
        self.attention_seeds = keras.random.SeedGenerator() if config.attention_dropout else None
        self.hidden_seeds = keras.random.SeedGenerator() if config.hidden_dropout else None

    def build(self, input_shape=None) -> None:
        """Create the weights; the configuration fixes their shapes."""
        normal = functools.partial(keras.initializers.TruncatedNormal, stddev=self.config.initializer_range)
        add_weights(self, self._weights_in_order, normal, self._values_follow)
        self.built = True

    def call(self, x, input_mask, training=None, positions=None, tokens=None):
        """Run the block.

        Args:
            x: `(batch, seq, hidden)`. Its dtype is that of the products.
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
        """Return `dropout(x, number)`: 0 is attention's, then the hidden states'. Its seeds are drawn now, once.

        When the block is computed again, the same numbers must be dropped.
        """
        config = self.config
        count = config.kind.hidden_dropouts
        rates = (config.attention_dropout, *[config.hidden_dropout] * count)
        generators = (self.attention_seeds, *[self.hidden_seeds] * count)
        seeds = [_DrawnSeed(generator.next()) if generator else None for generator in generators]

        def dropout(x, number):
            return keras.random.dropout(x, rates[number], seed=seeds[number]) if rates[number] else x

        return dropout

    def _compute(self, x, input_mask, positions, tokens, dropout, training):
        do = _Run(self, x, input_mask, positions, tokens, dropout, training)
        rows = self.config.kind.compute(do, do.start, self.config, self.is_last)
        return do.spread(rows), do.probabilities

    def dense(self, rows, names: Sequence[str]):
        """Return dense layers of the rows, side by side: of one variable, one after the other in it."""
        attribute, first = self._places[f"{names[0]}/kernel"]
        parts = range(first, first + len(names))
        kernel, bias = getattr(self, attribute), getattr(self, attribute.removesuffix("kernel") + "bias")
        width = kernel.shape[-1] // self._parts_of(attribute)
        if len(parts) < self._parts_of(attribute):
            columns = slice(first * width, (first + len(parts)) * width)
            kernel, bias = kernel[:, columns], bias[columns]
        result = dense(rows, kernel, bias)
        updates = self._updates_of(attribute)
        return result + low_rank_product(rows, updates, parts, self.lora_scale) if updates else result

    def _parts_of(self, attribute: str) -> int:
        return sum(place == attribute for place, _ in self._places.values())

    def enable_lora(self, rank: int, lora_alpha: float, target: Sequence[str]) -> None:
        self._tracker.unlock()  # as Keras's own layers do for the same purpose
        names = [name.removesuffix("/kernel") for name in self._places]
        for one in target:
            for called, name in layers_of(one, names).items():
                attribute, _ = self._places[f"{name}/kernel"]
                rows, columns = getattr(self, attribute).shape
                gaussian = keras.initializers.RandomNormal(stddev=rows**-0.5)
                a = self.add_weight((rows, rank), gaussian, name=f"{called}_lora_a", autocast=False)
                shape = (rank, columns // self._parts_of(attribute))
                b = self.add_weight(shape, "zeros", name=f"{called}_lora_b", autocast=False)
                setattr(self, f"{called}_lora_a", a)
                setattr(self, f"{called}_lora_b", b)
                self._lora_layers[called] = name
        self._tracker.lock()
        self.lora_scale = lora_alpha / rank

    def _updates_of(self, attribute: str | None = None) -> list[LowRank]:
        """Return the low-rank updates of what a variable holds, or all."""
        places = {called: self._places[f"{name}/kernel"] for called, name in self._lora_layers.items()}
        return [
            LowRank(getattr(self, f"{called}_lora_a"), getattr(self, f"{called}_lora_b"), part)
            for called, (place, part) in places.items()
            if attribute in (None, place)
        ]

    def _lora_variables(self) -> set[int]:
        return {id(variable) for update in self._updates_of() for variable in (update.a, update.b)}

    def freeze_all_but_lora(self) -> None:
        """Let nothing but the low-rank updates train."""
        for variable in self.weights:
            variable.trainable = id(variable) in self._lora_variables()

    def merged_value(self, variable: keras.Variable):
        """Return a variable's value, a kernel's with its low-rank updates."""
        for attribute in {attribute for attribute, _ in self._places.values()}:
            if variable is getattr(self, attribute):
                parts = range(self._parts_of(attribute))
                return merged(variable.value, self._updates_of(attribute), parts, self.lora_scale)
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
        for update in self._updates_of():
            update.b.assign(ops.zeros_like(update.b))

    def quantize(self, mode=None, **kwargs) -> None:
        refuse_to_quantize(mode)

    def compute_output_shape(self, x_shape, input_mask_shape=None):
        """Return the shapes of `call`'s two results."""
        batch, length, _ = x_shape
        return tuple(x_shape), (batch, self.config.num_heads, length, length)


class _Run(KerasAlgebra):
    """Keras runs a block's formula: states are rows, matrices of tokens.

    Not `(batch, seq, …)`: a reshape between a product, its bias, its activation and the sum with the residual would
    keep TensorFlow from fusing them.
    """

    def __init__(self, block: TransformerBlock, x, input_mask, positions, tokens, dropout, training) -> None:
        super().__init__(block.config, block, block._weights_in_order, training)
        self.start = tokens.rows(x)
        self._x, self._mask, self._tokens, self._dropout = x, input_mask, tokens, dropout
        self._positions, self._dropped = positions, 0
        self._chosen = x if positions is None else self._at_positions(x)
        self._chosen_tokens = tokens if positions is None else AllPositions()

    def _at_positions(self, states):
        return ops.take_along_axis(states, self._positions[:, :, None], axis=1)

    def spread(self, rows):
        """Return the rows of the chosen tokens as `(batch, n, width)`."""
        return self._chosen_tokens.spread(rows, self._chosen)

    def chosen(self, x):
        if self._positions is None:
            return x
        states = self._chosen if x is self.start else self._at_positions(self._tokens.spread(x, self._x))
        return self._chosen_tokens.rows(states)

    def dense(self, name, x):
        return self._layer.dense(x, [name])

    def drop(self, x):
        self._dropped += 1
        return self._dropout(x, self._dropped)

    def attention(self, query, key, value, mixes=None):
        if self._positions is None and query is key is value:
            query, key, value = self._project(query, ["query", "key", "value"])
        elif self._positions is None and query is key:
            query, key = self._project(query, ["query", "key"])
            (value,) = self._project(value, ["value"])
        elif key is value:
            (query,) = self._project(query, ["query"])
            key, value = self._project(key, ["key", "value"])
        else:
            (query,), (key,), (value,) = (
                self._project(rows, [role]) for role, rows in (("query", query), ("key", key), ("value", value))
            )
        return self._chosen_tokens.rows(self._attend(query, key, value, mixes))

    def _project(self, rows, roles: list[str]) -> list:
        """Return the query, key or value of the rows, by one product: `(batch, heads, tokens, size)` for each role."""
        config = self.config
        projected = self._layer.dense(rows, [f"attention/self/{role}" for role in roles])
        tokens, like = (self._chosen_tokens, self._chosen) if "query" in roles else (self._tokens, self._x)
        projected = tokens.spread(projected, like)
        batch, length, _ = ops.shape(projected)
        apart = ops.reshape(projected, (batch, length, len(roles), config.num_heads, config.head_size))
        return ops.unstack(ops.transpose(apart, (2, 0, 3, 1, 4)))

    def _attend(self, query, key, value, mixes):
        """Return the context `(batch, n, width)`, and keep the probabilities `(batch, heads, n, seq)`."""
        # The softmax runs in float32 or wider: −1e9 does not exist in float16, and bfloat16 has 8 bits of mantissa.
        wide, length = wide_dtype(value), ops.shape(key)[2]
        # Sums over the keys, in whole vectors: what a text is padded to must not change the last bit.
        key, value = in_whole_vectors(key, axis=2), in_whole_vectors(value, axis=2)
        attention_bias = (1.0 - ops.cast(self._mask, wide)) * self.config.attention_mask_constant
        attention_bias = in_whole_vectors(attention_bias, axis=1, fill=-np.inf)  # also where no token is real
        products = ops.matmul(query * self.config.head_size**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        logits = self._mixed(ops.cast(products, wide), mixes and mixes[0]) + attention_bias[:, None, None, :]
        probabilities = self._mixed(ops.softmax(logits, axis=-1), mixes and mixes[1])
        weights = self._dropout(ops.cast(probabilities, value.dtype), 0)
        self.probabilities = probabilities[..., :length]
        context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return ops.reshape(context, (*ops.shape(context)[:2], self.config.attention_width))

    def _mixed(self, scores, name: str | None):
        """Return `(batch, heads, n, seq)` with its heads mixed by a kernel, if any."""
        if name is None:
            return scores
        return ops.einsum("bnts,nm->bmts", scores, ops.cast(self.weight(f"{name}/kernel"), scores.dtype))
