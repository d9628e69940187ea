"""Without padding the encoder computes what it does with it, and the layer leaves it out where nobody can tell."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops  # no public way leads to the registry of gradients

from keras_bert_trend import POOLING_NAMES, BertEncoder, BertPreprocessor, BertTrend, LastFourSum, Pooling, embed
from keras_bert_trend.encoder import ops as encoder_ops
from keras_bert_trend.pooling import get_pooling
from tests.common import EXACT_DTYPE, SENTENCES, random_inputs

LENGTHS = [9, 1, 12, 4]
POOLINGS = [*POOLING_NAMES, ["cls", "mean"]]


@pytest.fixture(scope="module")
def layer(encoder, vocabulary):
    def make(pooling, **arguments):
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=24)
        return BertTrend(encoder=encoder, preprocessor=preprocessor, pooling=pooling, **arguments)

    return make


def no_dropout(config, **arguments):
    config = dataclasses.replace(config, hidden_dropout=0.0, attention_dropout=0.0, num_layers=2)
    return BertEncoder(config, **arguments)


class TestEncoder:
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
    @pytest.mark.parametrize("traced", [False, True])
    def test_real_tokens_have_their_states_and_padding_zeros(self, traced, policy, small_config):
        encoder = BertEncoder(dataclasses.replace(small_config, num_layers=2), dtype=policy)
        inputs = random_inputs(small_config, LENGTHS, 12)
        run = tf.function(encoder.__call__) if traced else encoder
        full, real = (
            run(inputs, training=False, return_attention_received=True, skip_padding=skip) for skip in (False, True)
        )
        mask = inputs["input_mask"].astype(bool)
        tolerance = {"float32": 1e-6, "mixed_bfloat16": 2e-2, "mixed_float16": 2e-3, "float64": 1e-14}[policy]
        for one, other in zip(full["encoder_outputs"], real["encoder_outputs"], strict=True):
            assert one.dtype == other.dtype
            one, other = (np.asarray(tf.cast(states, "float64")) for states in (one, other))
            np.testing.assert_allclose(other[mask], one[mask], atol=tolerance)
            assert not other[~mask].any()
        for name in ("pooled_output", "attention_received"):
            one, other = (tf.cast(outputs[name], "float64") for outputs in (full, real))
            np.testing.assert_allclose(other, one, atol=10 * tolerance)

    @pytest.mark.parametrize("rematerialize", [False, True])
    @pytest.mark.parametrize("few", [False, True])
    def test_gradients(self, few, rematerialize, small_config):
        encoder = no_dropout(small_config, rematerialize=rematerialize)
        inputs = random_inputs(small_config, LENGTHS, 12)
        mask = tf.cast(inputs["input_mask"], "float32")[:, :, None]
        positions = {"last_block_tokens": lambda outputs: tf.zeros((len(LENGTHS), 1), tf.int32)} if few else {}
        variables = [variable.value for variable in encoder.trainable_variables]

        @tf.function
        def gradients(skip):
            with tf.GradientTape() as tape:
                outputs = encoder(inputs, training=True, skip_padding=skip, **positions)
                loss = tf.reduce_sum(tf.square(outputs["sequence_output"][..., ::3] * mask))
            return [
                tf.zeros(()) if gradient is None else tf.convert_to_tensor(gradient)
                for gradient in tape.gradient(loss, variables)
            ]

        for real, full in zip(gradients(True), gradients(False), strict=True):
            np.testing.assert_allclose(real, full, rtol=1e-3, atol=1e-5)

    def test_a_batch_without_padding_and_one_without_texts(self, small_config):
        encoder = BertEncoder(small_config)
        whole = random_inputs(small_config, [5, 5], 5)
        np.testing.assert_allclose(
            encoder(whole, skip_padding=True)["sequence_output"], encoder(whole)["sequence_output"], atol=1e-6
        )
        empty = {name: np.zeros((0, 5), np.int32) for name in whole}
        assert encoder(empty, skip_padding=True)["sequence_output"].shape == (0, 5, small_config.hidden_size)

    def test_attention_scores_cannot_be_asked_for(self, small_config):
        inputs = random_inputs(small_config, LENGTHS, 12)
        with pytest.raises(ValueError, match="`skip_padding` leaves out queries"):
            BertEncoder(small_config)(inputs, skip_padding=True, return_attention_scores=True)


class TestLayer:
    @pytest.mark.parametrize("name", POOLINGS, ids=str)
    def test_strings_have_the_embedding_of_their_padded_ids(self, name, layer):
        one = layer(name, trainable=False)
        padded = one(one.preprocessor(SENTENCES))
        run = tf.function(one.__call__)
        for embedding in (one(SENTENCES), run(tf.constant(SENTENCES))):
            np.testing.assert_allclose(embedding, padded, rtol=1e-5, atol=1e-4 if name == "trend" else 1e-5)

    def test_pairs_too(self, layer):
        one = layer("mean", trainable=False)
        pair = SENTENCES, SENTENCES[::-1]
        np.testing.assert_allclose(one(pair), one(one.preprocessor(pair)), atol=1e-5)

    def test_only_real_tokens_are_computed(self, layer, monkeypatch):
        rows, activation = [], encoder_ops.activation
        monkeypatch.setattr(
            "keras_bert_trend.encoder.keras_algebra.activation",
            lambda x, name: rows.append(x.shape[0]) or activation(x, name),
        )
        one = layer("mean", trainable=False)
        ids = one.preprocessor(SENTENCES)
        one(SENTENCES)
        assert set(rows) == {int(np.sum(ids["input_mask"]))}
        rows.clear()
        one(ids)  # ids may be compiled by XLA
        one(SENTENCES, return_all=True)
        assert set(rows) == {24 * len(SENTENCES)}

    def test_shapes_that_tell_the_padding_stay(self, layer):
        everything = layer("mean", trainable=False)(SENTENCES, return_all=True)
        assert everything["sequence_output"].shape[1] == everything["input_mask"].shape[1] == 24
        assert everything["attention_scores"][0].shape[2:] == (24, 24)
        assert layer(LastFourSum(level="token"), trainable=False)(SENTENCES).shape[1] == 24

    @pytest.mark.parametrize("nested", [False, True])
    def test_a_pooling_that_does_not_say_so_sees_the_padding(self, nested, layer):
        class Width(Pooling):
            def compute(self, outputs, input_mask, input_word_ids=None):
                states = outputs["sequence_output"]
                return tf.fill((tf.shape(states)[0], 1), float(states.shape[1]))

            def output_dim(self, hidden_size, num_layers):
                return 1

        one = layer(["cls", Width()] if nested else Width(), trainable=False)
        assert set(np.asarray(tf.function(one.__call__)(tf.constant(SENTENCES)))[:, -1]) == {24.0}

    def test_every_pooling_of_ours_does(self, vocabulary):
        for name in POOLING_NAMES:
            assert not get_pooling(name, vocabulary.token_kinds).needs.padding, name

    def test_a_preprocessor_of_ones_own_is_called(self, encoder, vocabulary):
        class Reversed(BertPreprocessor):
            def call(self, inputs):
                return super().call(tf.reverse(inputs, axis=[0]))

        own = Reversed(vocabulary, lower_case=True, sequence_length=24)
        layers = [
            BertTrend(encoder=encoder, preprocessor=one, pooling="mean", trainable=False)
            for one in (own, BertPreprocessor(vocabulary, lower_case=True, sequence_length=24))
        ]
        np.testing.assert_allclose(layers[0](SENTENCES), layers[1](SENTENCES)[::-1], atol=1e-5)

    @pytest.mark.parametrize("max_length", [None, 18])
    def test_nothing_is_padded_beyond_what_the_model_takes(self, max_length, small_config, vocabulary):
        config = dataclasses.replace(small_config, vocab_size=len(vocabulary), max_position_embeddings=20)
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=None, max_length=max_length)
        one = BertTrend(encoder=BertEncoder(config), preprocessor=preprocessor, pooling="mean", trainable=False)
        text = tf.constant(["a a a a a a a a a a a a a a a a"])
        assert preprocessor(text)["input_word_ids"].shape == (1, 18)
        for run in (one, tf.function(one.__call__)):
            np.testing.assert_allclose(run(text), one(preprocessor(text)), atol=1e-5)

    @pytest.mark.parametrize("name", ["trend", "cls", "mean"])
    def test_a_graph_that_knows_the_number_of_texts_has_the_same_numbers(self, name, layer):
        """As `predict` traces its first batch. Its vectors keep their known shape."""
        one, texts = layer(name, trainable=False), tf.constant(SENTENCES)
        known = tf.function(one.__call__).get_concrete_function(texts)
        unknown = tf.function(one.__call__, input_signature=[tf.TensorSpec((None,), tf.string)])
        np.testing.assert_array_equal(known(texts), unknown(texts))
        assert known.output_shapes == (len(SENTENCES), one.embedding_dim)

    def test_an_empty_batch_in_a_graph(self, layer):
        one = layer(["mean", "smooth_trend"], trainable=False)
        run = tf.function(one.__call__, input_signature=[tf.TensorSpec((None,), tf.string)])
        assert run(tf.constant([], tf.string)).shape == (0, 2 * one.encoder.config.hidden_size)

    def test_graphs_are_let_go(self, layer):
        """TensorFlow's registry of custom gradients would keep every graph, and the weights in it."""
        gradients = ops.gradient_registry.list()
        tf.function(layer("mean", trainable=False).__call__).get_concrete_function(tf.constant(SENTENCES))
        assert ops.gradient_registry.list() == gradients

    def test_training_reaches_every_weight(self, small_config, vocabulary):
        config = dataclasses.replace(small_config, vocab_size=len(vocabulary))
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=24)
        one = BertTrend(encoder=BertEncoder(config), preprocessor=preprocessor, pooling="mean")
        one.encoder.train_pooler = False  # `mean` does not read it
        text = keras.Input((), dtype="string")
        model = keras.Model(text, keras.layers.Dense(1)(one(text)))
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        before = [weight.numpy() for weight in model.trainable_weights]
        model.fit(tf.constant(SENTENCES), tf.range(float(len(SENTENCES))), batch_size=4, verbose=0)
        for old, weight in zip(before, model.trainable_weights, strict=True):
            assert np.any(old != weight.numpy()), weight.path


def same(one, other):
    """Check that two arrays are equal: to the bit where that was measured, else nearly."""
    cpu = Path("/proc/cpuinfo")
    exact = cpu.is_file() and " avx512f" in cpu.read_text()
    np.testing.assert_allclose(one, other, rtol=0, atol=0 if exact else 1e-5)


@pytest.mark.parametrize(
    ("name", "sequence_length"),
    [("trend", 128), ("trend", 50), ("trend", None), ("mean", 128), ("mean", 50), ("last_four_sum", None)],
)
def test_a_text_has_one_embedding(name, sequence_length, minilm_installed):
    """Alone, among others, in another order, and by `embed`; the published log ratio would show a changed last bit."""
    layer = BertTrend("minilm", pooling=name, trainable=False, sequence_length=sequence_length, dtype=EXACT_DTYPE)
    texts = [*SENTENCES, " ".join(SENTENCES), " ".join(SENTENCES[:3]), "word " * 34, "word " * 47, ""]
    run = tf.function(lambda x: layer(x, training=False), input_signature=[tf.TensorSpec((None,), tf.string)])
    together = run(tf.constant(texts))
    same(tf.concat([run(tf.constant([text])) for text in texts], axis=0), together)
    same(run(tf.constant(texts[::-1]))[::-1], together)
    same(embed(texts, layer, show_progress=False), together)
