"""Low-rank adaptation: what trains, what it computes, what is saved."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder, BertTrend
from keras_bert_trend.encoder.lora import TARGETS
from tests.common import SENTENCES, V4, random_inputs, to_numpy


def randomize(encoder, seed=0):
    """Make the updates matter: at first B is zero."""
    generator = np.random.default_rng(seed)
    for weight in encoder.trainable_weights:
        weight.assign(generator.normal(0, 0.5, weight.shape))


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1)


@pytest.fixture
def inputs(small_config):
    return random_inputs(small_config, [9, 4, 2], 12)


def states(encoder, inputs, **arguments):
    return to_numpy(encoder(inputs, training=False, **arguments)["sequence_output"])


@pytest.mark.parametrize("target", [("query", "value"), ("key",), tuple(TARGETS)], ids=str)
def test_it_computes_what_the_merged_kernels_compute(target, small_config, inputs):
    encoder = BertEncoder(small_config)
    before = states(encoder, inputs)
    encoder.enable_lora(3, lora_alpha=6, target=target)
    np.testing.assert_allclose(states(encoder, inputs), before, atol=1e-6)
    assert len(encoder.trainable_weights) == 4 * 2 * len(target)
    randomize(encoder)
    merged = BertEncoder(small_config)
    merged.set_named_weights(encoder.named_weights())
    assert np.abs(states(merged, inputs) - before).max() > 1e-3
    np.testing.assert_allclose(states(encoder, inputs), states(merged, inputs), atol=1e-4)
    real = inputs["input_mask"][:, :, None]
    skipped = states(encoder, inputs, skip_padding=True)
    np.testing.assert_allclose(skipped, states(merged, inputs) * real, atol=1e-4)
    few = states(encoder, inputs, last_block_tokens=lambda outputs: tf.constant([[0, 1]] * 3))
    np.testing.assert_allclose(few[:, :2], states(merged, inputs)[:, :2], atol=1e-4)


def test_the_formula(small_config, inputs):
    """`W + (α / r) · A B`, for the query's third of the kernel."""
    encoder = BertEncoder(small_config)
    before = encoder.named_weights()
    encoder.enable_lora(2, lora_alpha=5, target=["query"])
    randomize(encoder)
    block = encoder.blocks[1]
    delta = 5 / 2 * to_numpy(block.query_lora_a) @ to_numpy(block.query_lora_b)
    after = encoder.named_weights()
    name = "encoder/layer_1/attention/self/query/kernel"
    np.testing.assert_allclose(after[name], before[name] + delta, atol=1e-6)
    for unchanged in (name.replace("query", "key"), name.replace("query", "value")):
        np.testing.assert_array_equal(after[unchanged], before[unchanged])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("rematerialize", [False, True])
def test_nothing_else_trains(policy, rematerialize, small_config, inputs):
    config = dataclasses.replace(small_config, num_layers=2)
    encoder = BertEncoder(config, rematerialize=rematerialize, dtype=policy)
    encoder.enable_lora(2)
    symbols = {name: keras.Input((12,), dtype="int32", name=name) for name in inputs}
    model = keras.Model(symbols, keras.layers.Dense(1)(encoder(symbols)["sequence_output"][:, 0]))
    model.compile("adam", "mse", jit_compile=False)
    values = {weight.path: to_numpy(weight) for weight in encoder.weights}
    for _ in range(2):  # B is zero at first, so A has no gradient in the first step
        model.train_on_batch(inputs, np.ones(3))
    for weight in encoder.weights:
        assert np.array_equal(to_numpy(weight), values[weight.path]) != ("lora" in weight.path), weight.path


def test_files_hold_the_merged_weights(tmp_path):
    layer = BertTrend(V4, pooling="mean", sequence_length=16)
    layer.enable_lora(2, target=["query", "intermediate"])
    randomize(layer.encoder)
    text = keras.Input((), dtype="string")
    model = keras.Model(text, keras.layers.Dense(1)(layer(text)))
    expected = model.predict(tf.constant(SENTENCES), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(tf.constant(SENTENCES), verbose=0), expected, atol=1e-4)
    names = [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in again.trainable_weights] == names
    model.save_weights(tmp_path / "model.weights.h5")
    plain = keras.Sequential([keras.Input((), dtype="string"), BertTrend(V4, pooling="mean", sequence_length=16)])
    plain.add(keras.layers.Dense(1))
    plain = keras.Model(plain.inputs, plain.outputs)
    plain.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(plain.predict(tf.constant(SENTENCES), verbose=0), expected, atol=1e-4)
    layer.encoder.export_text_encoder(tmp_path / "hub")
    read = BertEncoder.from_handle(tmp_path / "hub")
    ids = layer.preprocessor(SENTENCES)
    np.testing.assert_allclose(states(read, ids), states(layer.encoder, ids), atol=1e-4)


def test_freezing_and_thawing(small_config):
    encoder = BertEncoder(small_config, trainable_layers=1)
    encoder.enable_lora(2)
    assert len(encoder.trainable_weights) == 4  # of the last block alone
    encoder.trainable = False
    assert encoder.trainable_weights == []
    encoder.trainable = True
    assert all("lora" in weight.path for weight in encoder.trainable_weights)
    assert len(encoder.trainable_weights) == 4
    layer = BertTrend(V4, pooling="mean", trainable=False)
    layer.enable_lora(2)
    assert len(layer.trainable_weights) == 3 * 4


def test_errors(small_config):
    encoder = BertEncoder(small_config)
    for rank in (0, 1.5, True):
        with pytest.raises(ValueError, match="`rank` must be a positive integer"):
            encoder.enable_lora(rank)
    with pytest.raises(ValueError, match="`lora_alpha` must be a positive number"):
        encoder.enable_lora(2, lora_alpha=-1)
    for target in ("query", [], ["pooler"], ["key", "key"]):
        with pytest.raises(ValueError, match="`target` must be a list out of .*'query'"):
            encoder.enable_lora(2, target=target)
    encoder.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA is enabled already"):
        encoder.enable_lora(2)


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantizing_is_refused_instead_of_ignored(mode, small_config, inputs):
    encoder = BertEncoder(small_config)
    symbols = {name: keras.Input((12,), dtype="int32", name=name) for name in inputs}
    model = keras.Model(symbols, keras.layers.Dense(1)(encoder(symbols)["pooled_output"]))
    with pytest.raises(ValueError, match=f"cannot be quantized to '{mode}'.*mixed_bfloat16"):
        model.quantize(mode)
