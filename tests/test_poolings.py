"""Every pooling but the trend's rows: formula, padding, gradients, round trips, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import (
    POOLING_NAMES,
    BertEncoder,
    BertTrend,
    ClsPooling,
    ConcatPooling,
    LastFourConcat,
    LastFourSum,
    LayerPooling,
    MeanPooling,
    Pooling,
)
from keras_bert_trend.pooling import Needs, get_pooling, hidden_states, masked_mean
from tests.common import SENTENCES, V4, random_inputs, to_numpy

LENGTHS = [9, 4, 2]


@pytest.fixture
def case(small_config):
    """Outputs of an encoder, its inputs, and the hidden states as NumPy: `states[layer][row, token]`."""
    keras.utils.set_random_seed(1)
    inputs = random_inputs(small_config, LENGTHS, 12)
    outputs = BertEncoder(small_config)(inputs, return_attention_received=True)
    states = [to_numpy(x) for x in (outputs["embedding_output"], *outputs["encoder_outputs"])]
    return outputs, inputs, states


def kinds_of(config):
    kinds = np.zeros(config.vocab_size, "uint8")
    kinds[:5] = [1, 1, 1, 2, 4]
    return kinds


def pool(pooling, outputs, inputs):
    return to_numpy(pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"]))


def per_text(function, *states):
    """Apply a formula to each text's real tokens."""
    return np.stack([function(*(s[row, :length] for s in states)) for row, length in enumerate(LENGTHS)])


FORMULAS = {
    "last_four_sum": lambda h0, h1, h2, h3, h4: (h1 + h2 + h3 + h4).mean(axis=0),
    "last_four_concat": lambda h0, h1, h2, h3, h4: np.concatenate([h1, h2, h3, h4], axis=-1).mean(axis=0),
    "cls": lambda h0, h1, h2, h3, h4: h4[0],
    "mean": lambda h0, h1, h2, h3, h4: h4.mean(axis=0),
    "max": lambda h0, h1, h2, h3, h4: h4.max(axis=0),
    "first_last_mean": lambda h0, h1, h2, h3, h4: ((h1 + h4) / 2).mean(axis=0),
    "mean_std": lambda h0, h1, h2, h3, h4: np.concatenate([h4.mean(axis=0), h4.std(axis=0)]),
    "second_to_last": lambda h0, h1, h2, h3, h4: h3.mean(axis=0),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(case, small_config, name):
    outputs, inputs, states = case
    pooling = get_pooling(name)
    expected = per_text(FORMULAS[name], *states)
    np.testing.assert_allclose(pool(pooling, outputs, inputs), expected, atol=2e-6)
    assert pooling.output_dim(small_config.hidden_size, small_config.num_layers) == expected.shape[-1]


def test_pooler(case):
    outputs, inputs, _ = case
    np.testing.assert_array_equal(pool(get_pooling("pooler"), outputs, inputs), outputs["pooled_output"])


@pytest.mark.parametrize("layers", [[0], [-1], [1, 3], [-2, 0, 2]])
@pytest.mark.parametrize(
    ("combine", "function"),
    [
        ("sum", lambda *s: np.sum(s, axis=0)),
        ("mean", lambda *s: np.mean(s, axis=0)),
        ("concat", lambda *s: np.concatenate(s, axis=-1)),
    ],
)
def test_any_layers(case, layers, combine, function):
    outputs, inputs, states = case
    chosen = [states[layer] for layer in layers]
    sentence = pool(LayerPooling(layers, combine=combine), outputs, inputs)
    np.testing.assert_allclose(sentence, per_text(lambda *s: function(*s).mean(axis=0), *chosen), atol=2e-6)
    token = pool(LayerPooling(layers, combine=combine, level="token"), outputs, inputs)
    expected = function(*chosen) * inputs["input_mask"][:, :, None]
    np.testing.assert_allclose(token, expected, atol=2e-6)


def test_last_four_at_token_level(case, small_config):
    outputs, inputs, states = case
    mask = inputs["input_mask"][:, :, None]
    np.testing.assert_allclose(pool(LastFourSum(level="token"), outputs, inputs), sum(states[1:]) * mask, atol=2e-6)
    concat = pool(LastFourConcat(level="token"), outputs, inputs)
    np.testing.assert_allclose(concat, np.concatenate(states[1:], axis=-1) * mask, atol=2e-6)


def test_last_four_of_an_encoder_with_three_blocks_is_all_of_them(encoder):
    inputs = random_inputs(encoder.config, LENGTHS, 12)
    outputs = encoder(inputs)
    expected = per_text(lambda *h: sum(h).mean(axis=0), *map(to_numpy, outputs["encoder_outputs"]))
    np.testing.assert_allclose(pool(LastFourSum(), outputs, inputs), expected, atol=1e-5)
    assert LastFourConcat().output_dim(32, 3) == 96


def test_concatenation(case, small_config):
    outputs, inputs, _ = case
    kinds = kinds_of(small_config)
    both = get_pooling(["mean", "trend", MeanPooling()], kinds)
    parts = [pool(get_pooling(name, kinds), outputs, inputs) for name in ("mean", "trend", "mean")]
    np.testing.assert_array_equal(pool(both, outputs, inputs), np.concatenate(parts, axis=-1))
    assert both.output_dim(16, 4) == 48
    assert both.needs == Needs(attention_received=(0,), padding=False)


@pytest.mark.parametrize("name", POOLING_NAMES)
def test_padding_is_ignored(small_config, name):
    """The encoder sees the same texts with more padding, filled with other ids."""
    keras.utils.set_random_seed(2)
    encoder, pooling = BertEncoder(small_config), get_pooling(name, kinds_of(small_config))
    inputs = random_inputs(small_config, LENGTHS, 9)
    longer = {key: np.pad(value, [(0, 0), (0, 8)]) for key, value in inputs.items()}
    longer["input_word_ids"][longer["input_mask"] == 0] = 7
    plain = pool(pooling, encoder(inputs, return_attention_received=True), inputs)
    padded = pool(pooling, encoder(longer, return_attention_received=True), longer)
    np.testing.assert_allclose(padded, plain, atol=1e-5)


@pytest.mark.parametrize("name", POOLING_NAMES)
def test_rows_without_a_real_token_are_finite(small_config, name):
    encoder, pooling = BertEncoder(small_config), get_pooling(name, kinds_of(small_config))
    inputs = random_inputs(small_config, [0, 3], 5)
    pooled = pool(pooling, encoder(inputs, return_attention_received=True), inputs)
    assert np.isfinite(pooled).all()
    if name not in ("cls", "pooler"):
        np.testing.assert_array_equal(pooled[0], 0)


@pytest.mark.parametrize("name", POOLING_NAMES)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(small_config, name, policy):
    keras.utils.set_random_seed(3)
    full = BertEncoder(small_config)
    half = BertEncoder(small_config, dtype=policy)
    half.set_named_weights(full.named_weights())
    inputs = random_inputs(small_config, LENGTHS, 12)
    pooling = get_pooling(name, kinds_of(small_config))
    pooled = pooling(
        half(inputs, return_attention_received=True), inputs["input_mask"], input_word_ids=inputs["input_word_ids"]
    )
    assert keras.backend.standardize_dtype(pooled.dtype) == half.compute_dtype
    assert np.isfinite(to_numpy(tf.cast(pooled, "float32"))).all()


@pytest.mark.smoke
@pytest.mark.parametrize("name", POOLING_NAMES)
def test_config_round_trip(case, small_config, name):
    outputs, inputs, _ = case
    pooling = get_pooling(name, kinds_of(small_config))
    clone = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pooling))
    assert clone.get_config() == pooling.get_config()
    np.testing.assert_array_equal(pool(clone, outputs, inputs), pool(pooling, outputs, inputs))


def test_concatenation_config_round_trip(case, small_config):
    outputs, inputs, _ = case
    pooling = ConcatPooling([LayerPooling([0, -1], combine="concat"), get_pooling("trend", kinds_of(small_config))])
    clone = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pooling))
    np.testing.assert_array_equal(pool(clone, outputs, inputs), pool(pooling, outputs, inputs))


def test_a_pooling_of_ones_own(case):
    """What CONTRIBUTING.md says about adding a pooling is enough."""

    class SecondToken(Pooling):
        def compute(self, outputs, input_mask, input_word_ids=None):
            return outputs["sequence_output"][:, 1]

    outputs, inputs, states = case
    np.testing.assert_array_equal(pool(get_pooling(SecondToken()), outputs, inputs), states[-1][:, 1])


@keras.saving.register_keras_serializable(package="tests")
class ScalarMix(Pooling):
    """A pooling that learns: the mean of all layers, weighted (Peters et al. 2018, §3.2)."""

    needs = Needs(padding=False)

    def __init__(self, num_layers, **kwargs):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.mix = self.add_weight((num_layers + 1,), "zeros", name="mix")

    def compute(self, outputs, input_mask, input_word_ids=None):
        states = hidden_states(outputs)
        weights = keras.ops.cast(keras.ops.softmax(self.mix), states[0].dtype)
        return sum(weights[i] * masked_mean(h, input_mask) for i, h in enumerate(states))

    def get_config(self):
        return {**super().get_config(), "num_layers": self.num_layers}


def test_a_pooling_that_learns(tmp_path):
    layer = BertTrend(V4, pooling=ScalarMix(num_layers=3), sequence_length=24)
    layer.encoder.trainable = False
    text = keras.Input((), dtype="string")
    model = keras.Model(text, keras.layers.Dense(1)(layer(text)))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    texts = tf.constant(SENTENCES)
    model.fit(texts, tf.range(float(len(SENTENCES))), epochs=2, verbose=0)
    mix = layer.pooling.mix.numpy()
    assert np.all(np.abs(mix) > 0.01)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.layers[1].pooling.mix.numpy(), mix)
    np.testing.assert_array_equal(again.predict(texts, verbose=0), model.predict(texts, verbose=0))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_a_pooling_that_learns_under_other_dtypes(dtype):
    layer = BertTrend(V4, pooling=ScalarMix(num_layers=3), sequence_length=24, dtype=dtype)
    assert layer(SENTENCES).dtype == layer.compute_dtype


class TestErrors:
    def test_names(self):
        with pytest.raises(ValueError, match=r"`pooling` must be one of .*'trend'.*got 'median'"):
            get_pooling("median")
        with pytest.raises(ValueError, match="`pooling`"):
            get_pooling(3)
        with pytest.raises(ValueError, match="needs a vocabulary"):
            get_pooling("trend")

    def test_another_width_than_promised(self, case):
        class Both(Pooling):
            def compute(self, outputs, input_mask, input_word_ids=None):
                return keras.ops.concatenate([outputs["sequence_output"][:, 0]] * 2, axis=-1)

        outputs, inputs, _ = case
        with pytest.raises(ValueError, match=r"Both.compute returned 32 dimensions, .* 16: override output_dim"):
            Both()(outputs, inputs["input_mask"])

    def test_what_needs_does_not_name(self, small_config):
        class Received(Pooling):
            def compute(self, outputs, input_mask, input_word_ids=None):
                return outputs["attention_received"][:, 0, 0]

        encoder, inputs = BertEncoder(small_config), random_inputs(small_config, LENGTHS, 12)
        with pytest.raises(
            ValueError, match="Received.compute reads 'attention_received', .* Needs.attention_received="
        ):
            Received()(encoder(inputs), inputs["input_mask"])

    def test_weights_in_build(self):
        with pytest.raises(TypeError, match="Late.build would never be called: .* in __init__"):

            class Late(Pooling):
                def build(self, input_shape):
                    self.q = self.add_weight((3,))

    def test_hooks_that_needs_has_replaced(self):
        with pytest.raises(TypeError, match=r"Former.requires is no longer read: .* Needs.* attention_received"):

            class Former(Pooling):
                requires = frozenset({"attention_received"})

    def test_layers(self, case):
        outputs, inputs, _ = case
        with pytest.raises(ValueError, match="`layers`"):
            LayerPooling([])
        with pytest.raises(ValueError, match="`combine`"):
            LayerPooling([1], combine="max")
        with pytest.raises(ValueError, match="`level`"):
            LayerPooling([1], level="word")
        with pytest.raises(ValueError, match=r"`layers` has 5, but this encoder has layers 0 .* to 4"):
            LayerPooling([5])(outputs, inputs["input_mask"])

    def test_concatenation(self):
        with pytest.raises(ValueError, match="`poolings`"):
            ConcatPooling([])
        with pytest.raises(ValueError, match="level='token'"):
            ConcatPooling([ClsPooling(), LastFourSum(level="token")])
