"""`BertEncoder` as a Keras layer: arguments, errors, freezing, training, dtypes, round trips."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_bert_trend import BertConfig, BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.encoder import ops as encoder_ops
from tests.common import random_inputs, symbolic_inputs, to_numpy


@pytest.fixture
def inputs(small_config):
    return random_inputs(small_config, [9, 4, 2], 12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("num_layers", 1.5),
        ("num_heads", 3),
        ("hidden_act", "swish"),
        ("pooler", "max"),
        ("layer_norm_epsilon", 0.0),
        ("attention_mask_constant", 10.0),
        ("hidden_dropout", 1.0),
    ],
)
def test_config_refuses_what_no_bert_has(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        BertConfig(**{"vocab_size": 10, "hidden_size": 8, "num_heads": 2, field: value})


def test_config_round_trip_and_unknown_field(small_config):
    assert BertConfig.from_dict(small_config.to_dict()) == small_config
    with pytest.raises(ValueError, match="no field"):
        BertConfig.from_dict({"vocab_size": 10, "depth": 3})
    with pytest.raises(ValueError, match="vocab_size"):
        BertConfig.from_dict({})


def test_config_round_trip_keeps_every_argument(small_config):
    encoder = BertEncoder(small_config, freeze_embeddings=True, trainable_layers=2, train_pooler=False, name="mine")
    clone = BertEncoder.from_config(encoder.get_config())
    assert clone.get_config() == encoder.get_config()
    assert len(clone.trainable_weights) == len(encoder.trainable_weights)


def test_from_config_with_the_weights_gives_the_same_outputs(small_config, inputs):
    encoder = BertEncoder(small_config)
    clone = BertEncoder.from_config(encoder.get_config())
    clone.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(encoder(inputs)["sequence_output"], clone(inputs)["sequence_output"])


def names(weights):
    return {weight.path.split("/", 1)[1] for weight in weights}


def test_freezing(small_config):
    everything = BertEncoder(small_config)
    assert len(everything.trainable_weights) == len(everything.weights)
    assert BertEncoder(small_config, trainable=False).trainable_weights == []

    frozen = names(BertEncoder(small_config, freeze_embeddings=True).non_trainable_weights)
    assert frozen == {name for name in names(everything.weights) if name.startswith("embeddings/")}

    trained = names(BertEncoder(small_config, trainable_layers=1).trainable_weights)
    assert trained == {n for n in names(everything.weights) if n.startswith(("layer_3/", "pooler"))}
    assert names(BertEncoder(small_config, trainable_layers=0).trainable_weights) == {"pooler_kernel", "pooler_bias"}
    assert not {n for n in names(BertEncoder(small_config, train_pooler=False).trainable_weights) if "pooler" in n}


def test_unfreezing_keeps_to_the_arguments(small_config):
    encoder = BertEncoder(small_config, trainable_layers=1, freeze_embeddings=True)
    before = names(encoder.trainable_weights)
    encoder.trainable = False
    assert encoder.trainable_weights == []
    encoder.trainable = True
    assert names(encoder.trainable_weights) == before


@pytest.mark.parametrize("value", [-1, 5])
def test_trainable_layers_out_of_range(small_config, value):
    with pytest.raises(ValueError, match="`trainable_layers`"):
        BertEncoder(small_config, trainable_layers=value)


@pytest.mark.smoke
def test_training_moves_exactly_the_trainable_weights(small_config, inputs):
    encoder = BertEncoder(small_config, trainable_layers=2)
    before = [to_numpy(weight.value).copy() for weight in encoder.weights]
    symbolic = symbolic_inputs()
    model = keras.Model(symbolic, keras.layers.Dense(1)(encoder(symbolic)["pooled_output"]))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(inputs, np.ones((3, 1)), epochs=1, verbose=0)
    for weight, old in zip(encoder.weights, before, strict=True):
        moved = bool(np.any(to_numpy(weight.value) != old))
        assert moved == weight.trainable, weight.path


def test_dropout_acts_in_training_and_not_in_a_frozen_encoder(small_config, inputs):
    keras.utils.set_random_seed(0)
    encoder = BertEncoder(small_config)
    run = lambda training: to_numpy(encoder(inputs, training=training)["sequence_output"])  # noqa: E731
    np.testing.assert_array_equal(run(False), run(False))
    assert np.abs(run(True) - run(True)).max() > 1e-3
    encoder.trainable = False
    np.testing.assert_array_equal(run(True), run(False))


def test_dropout_rate_is_the_configured_one(small_config):
    """At rate p a fraction p of the embeddings is zero and the rest is scaled by 1 / (1 − p)."""
    import dataclasses

    keras.utils.set_random_seed(0)
    encoder = BertEncoder(dataclasses.replace(small_config, hidden_dropout=0.25))
    inputs = random_inputs(small_config, [24] * 64, 24)
    plain = to_numpy(encoder(inputs, training=False)["embedding_output"])
    dropped = to_numpy(encoder(inputs, training=True)["embedding_output"])
    assert abs((dropped == 0).mean() - 0.25) < 0.02
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], plain[kept] / 0.75, rtol=1e-5)


def test_symbolic_call_tells_the_shapes_and_dtypes_that_come_out(small_config, inputs):
    encoder = BertEncoder(small_config)
    symbolic = symbolic_inputs()
    flags = {"return_attention_scores": True, "return_attention_received": True}
    model = keras.Model(symbolic, encoder(symbolic, **flags))
    specs, values = model.output, model(inputs)
    assert set(specs) == set(values)
    for key, spec in specs.items():
        pairs = zip(spec, values[key], strict=True) if isinstance(spec, list) else [(spec, values[key])]
        for symbol, value in pairs:
            assert symbol.dtype == keras.backend.standardize_dtype(value.dtype), key
            assert len(symbol.shape) == len(value.shape), key
            assert all(s in (None, v) for s, v in zip(symbol.shape, value.shape, strict=True)), key


def test_unknown_batch_and_length_in_a_function(small_config, inputs):
    encoder = BertEncoder(small_config)
    spec = {name: tf.TensorSpec((None, None), tf.int32) for name in INPUT_NAMES}
    function = tf.function(lambda x: encoder(x)["sequence_output"], input_signature=[spec])
    for rows in (3, 1, 0):
        batch = {name: value[:rows] for name, value in inputs.items()}
        np.testing.assert_allclose(function(batch), encoder(batch)["sequence_output"], atol=1e-5)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 4e-2), ("float64", 1e-5)]
)
def test_other_dtypes(small_config, inputs, policy, tolerance):
    keras.utils.set_random_seed(2)  # half precision is as far off as the weights make it
    encoder = BertEncoder(small_config)
    other = BertEncoder(small_config, dtype=policy)
    other.set_named_weights(encoder.named_weights())
    outputs = other(inputs, return_attention_scores=True, return_attention_received=True)
    assert keras.backend.standardize_dtype(outputs["pooled_output"].dtype) == other.compute_dtype
    wide = "float64" if policy == "float64" else "float32"
    assert keras.backend.standardize_dtype(outputs["attention_received"].dtype) == wide
    for key in ("sequence_output", "pooled_output"):
        difference = to_numpy(ops.cast(outputs[key], "float64")) - to_numpy(encoder(inputs)[key])
        assert np.abs(difference).max() < tolerance


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_attention_that_chooses_words_is_not_rounded(small_config, inputs, policy):
    encoder = BertEncoder(small_config)
    half = BertEncoder(small_config, dtype=policy)
    half.set_named_weights(encoder.named_weights())
    flags = {"training": False, "return_attention_received": [0]}
    expected, outputs = encoder(inputs, **flags), half(inputs, **flags)
    np.testing.assert_array_equal(outputs["attention_received"], expected["attention_received"])
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs["encoder_outputs"]} == {half.compute_dtype}
    by_argument = encoder(inputs, compute_dtype=half.compute_dtype, **flags)
    np.testing.assert_array_equal(by_argument["sequence_output"], outputs["sequence_output"])


@pytest.mark.smoke
def test_fast_and_portable_forms_agree():
    x = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")
    bias = np.arange(5, dtype="float32")
    np.testing.assert_allclose(
        encoder_ops.dense(tf.constant(x), kernel, bias), encoder_ops.portable_dense(x, kernel, bias), atol=1e-6
    )


def test_layer_norm_and_activations_against_numpy():
    from math import erf, sqrt

    x = np.random.default_rng(0).normal(3.0, 2.0, size=(4, 16)).astype("float32")
    gamma, beta = np.linspace(0.5, 2, 16).astype("float32"), np.linspace(-1, 1, 16).astype("float32")
    wide = x.astype("float64")
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-12) * gamma + beta
    np.testing.assert_allclose(encoder_ops.layer_norm(tf.constant(x), gamma, beta, 1e-12), expected, atol=1e-5)

    exact = np.vectorize(lambda v: v * 0.5 * (1 + erf(v / sqrt(2))))(wide)
    tanh = wide * 0.5 * (1 + np.tanh(sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    np.testing.assert_allclose(encoder_ops.activation(tf.constant(x), "gelu"), exact, atol=1e-6)
    np.testing.assert_allclose(encoder_ops.activation(tf.constant(x), "gelu_tanh"), tanh, atol=1e-6)
    np.testing.assert_array_equal(encoder_ops.activation(tf.constant(x), "relu"), np.maximum(x, 0))


class TestErrors:
    def test_not_a_dict_and_missing_key(self, small_config, inputs):
        encoder = BertEncoder(small_config)
        with pytest.raises(ValueError, match="input_word_ids"):
            encoder(tf.constant(inputs["input_word_ids"]))
        with pytest.raises(ValueError, match="input_type_ids"):
            encoder({name: inputs[name] for name in INPUT_NAMES[:2]})

    def test_dtype_and_rank(self, small_config, inputs):
        encoder = BertEncoder(small_config)
        with pytest.raises(ValueError, match=r"`input_mask` must be an integer tensor, got dtype float32"):
            encoder({**inputs, "input_mask": inputs["input_mask"].astype("float32")})
        with pytest.raises(ValueError, match=r"`input_word_ids` must have rank 2"):
            encoder({**inputs, "input_word_ids": inputs["input_word_ids"][0]})

    def test_shapes_that_disagree(self, small_config, inputs):
        with pytest.raises(ValueError, match="same shape"):
            BertEncoder(small_config)({**inputs, "input_mask": inputs["input_mask"][:, :5]})

    def test_longer_than_the_model(self, small_config):
        too_long = random_inputs(small_config, [25], 25)
        with pytest.raises(ValueError, match=r"25 positions.*max_position_embeddings=24"):
            BertEncoder(small_config)(too_long)
        symbolic = symbolic_inputs(25)
        with pytest.raises(ValueError, match=r"max_position_embeddings=24"):
            BertEncoder(small_config)(symbolic)

    @pytest.mark.parametrize(("name", "value"), [("input_word_ids", 50), ("input_word_ids", -1), ("input_type_ids", 2)])
    def test_ids_out_of_range(self, small_config, inputs, name, value):
        wrong = {**inputs, name: inputs[name].copy()}
        wrong[name][1, 2] = value
        with pytest.raises(ValueError, match=rf"`{name}`.*got {value}"):
            BertEncoder(small_config)(wrong)

    def test_weights_that_do_not_fit(self, small_config):
        encoder = BertEncoder(small_config)
        weights = encoder.named_weights()
        with pytest.raises(ValueError, match="missing.*word_embeddings"):
            encoder.set_named_weights({k: v for k, v in weights.items() if k != "embeddings/word_embeddings"})
        with pytest.raises(ValueError, match="unknown.*extra"):
            encoder.set_named_weights({**weights, "extra": np.zeros(3)})
        with pytest.raises(ValueError, match="has shape"):
            encoder.set_named_weights({**weights, "pooler/dense/bias": np.zeros(3)})
        with pytest.raises(ValueError, match="NaN"):
            encoder.set_named_weights({**weights, "pooler/dense/bias": np.full(16, np.nan)})


def test_empty_batch(small_config, inputs):
    empty = {name: value[:0] for name, value in inputs.items()}
    assert BertEncoder(small_config)(empty)["pooled_output"].shape == (0, 16)


def test_identity_pooler(small_config, inputs):
    import dataclasses

    encoder = BertEncoder(dataclasses.replace(small_config, pooler="identity"))
    outputs = encoder(inputs)
    np.testing.assert_array_equal(outputs["pooled_output"], outputs["sequence_output"][:, 0])


def test_named_weights_come_back_as_they_were_set(small_config):
    encoder, other = BertEncoder(small_config), BertEncoder(small_config)
    weights = encoder.named_weights()
    other.set_named_weights(weights)
    for name, value in other.named_weights().items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    assert weights["encoder/layer_0/attention/self/key/kernel"].shape == (16, 16)


def test_initial_weights_are_assigned_and_nothing_is_drawn(small_config, inputs):
    original = BertEncoder(small_config)
    keras.utils.set_random_seed(3)
    copy = BertEncoder(small_config, weights=original.named_weights())
    np.testing.assert_array_equal(copy(inputs)["pooled_output"], original(inputs)["pooled_output"])
    after = keras.random.normal((3,))
    keras.utils.set_random_seed(3)
    BertEncoder(small_config)
    # A seeded program goes on with the same numbers, wherever its encoder's weights come from.
    np.testing.assert_array_equal(keras.random.normal((3,)), after)


@pytest.mark.parametrize("change", [{}, {"pooler": "identity"}, {"embedding_size": 8, "share_layers": True}])
def test_the_weight_table_names_every_variable_once(small_config, change):
    import dataclasses

    encoder = BertEncoder(dataclasses.replace(small_config, **change))
    shapes = {name: array.shape for name, array in encoder.named_weights().items()}
    assert shapes == encoder.config.weight_shapes()
    rows = [weight for part in encoder.config.weight_parts() for weight in part]
    assert len(rows) == len(encoder.weights) - sum("seed" in weight.path for weight in encoder.weights)
    assert sum(map(np.prod, shapes.values())) == sum(np.prod(weight.shape) for weight in encoder.trainable_weights)
