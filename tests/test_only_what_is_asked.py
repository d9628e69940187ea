"""The encoder computes no more than the pooling reads, and its operations are fused; the numbers stay what they are."""

import collections
import dataclasses
import importlib.util
import os
import platform

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_bert_trend import BertEncoder, BertPreprocessor, BertTrend, TrendPooling
from keras_bert_trend.encoder import ops as encoder_ops
from keras_bert_trend.pooling import Needs, get_pooling
from tests.common import SAME_BITS, SENTENCES, random_inputs, run_fresh, to_numpy

#: What a state's last bit may come to, in a trend too.
ROUNDING = 1e-6 if SAME_BITS else 1e-4

FEW = ["trend", "smooth_trend", "cls", "pooler", ["cls", "smooth_trend"]]
MANY = ["mean", "last_four_sum", ["cls", "mean"]]


@pytest.fixture(scope="module")
def ids(vocabulary):
    return BertPreprocessor(vocabulary, lower_case=True, sequence_length=24)(SENTENCES)


def pooled(encoder, pooling, ids, *, all_tokens):
    arguments = pooling.needs.encoder_arguments(encoder.config.num_layers, ids)
    if all_tokens:
        arguments = {"return_attention_received": True}
    outputs = encoder(ids, training=False, **arguments)
    return pooling(outputs, ids["input_mask"], input_word_ids=ids["input_word_ids"])


class TestLastBlock:
    @pytest.mark.parametrize("name", FEW, ids=str)
    def test_few_tokens_give_what_all_tokens_give(self, name, encoder, vocabulary, ids):
        pooling = get_pooling(name, vocabulary.token_kinds)
        assert "last_block_tokens" in pooling.needs.encoder_arguments(encoder.config.num_layers, ids)
        for run in (pooled, tf.function(pooled)):
            few, full = (run(encoder, pooling, ids, all_tokens=all_tokens) for all_tokens in (False, True))
            np.testing.assert_allclose(few, full, atol=ROUNDING)

    @pytest.mark.parametrize("name", FEW, ids=str)
    def test_a_text_alone_has_the_embedding_that_it_has_among_others(self, name, encoder, vocabulary, ids):
        pooling = get_pooling(name, vocabulary.token_kinds)
        signature = [{key: tf.TensorSpec((None, None), tf.int32) for key in ids}]
        run = tf.function(lambda x: pooled(encoder, pooling, x, all_tokens=False), input_signature=signature)
        together = run(ids)
        for row in range(len(SENTENCES)):
            alone = run({key: value[row : row + 1] for key, value in ids.items()})
            np.testing.assert_allclose(alone[0], together[row], atol=ROUNDING)

    @pytest.mark.parametrize("name", FEW, ids=str)
    def test_the_gradients_too(self, name, small_config, vocabulary):
        config = dataclasses.replace(small_config, hidden_dropout=0.0, attention_dropout=0.0)
        encoder, ids = BertEncoder(config), random_inputs(config, [9, 4, 2], 12)
        pooling = get_pooling(name, np.zeros(config.vocab_size, np.uint8))
        gradients = []
        for all_tokens in (False, True):
            with tf.GradientTape() as tape:
                loss = ops.sum(ops.square(pooled(encoder, pooling, ids, all_tokens=all_tokens)))
            values = tape.gradient(loss, [variable.value for variable in encoder.trainable_variables])
            gradients.append([None if value is None else tf.convert_to_tensor(value) for value in values])
        for few, full in zip(*gradients, strict=True):
            assert (few is None) == (full is None)
            if few is not None:
                np.testing.assert_allclose(few, full, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("name", MANY, ids=str)
    def test_poolings_that_read_all_tokens_get_them(self, name, vocabulary, ids):
        pooling = get_pooling(name, vocabulary.token_kinds)
        assert "last_block_tokens" not in pooling.needs.encoder_arguments(6, ids)

    @pytest.mark.parametrize(
        "arguments",
        [{"reading": "layers"}, {"reading": "all"}, {"unit": "word"}, {"aggregation": "attention"}],
        ids=str,
    )
    def test_trends_that_need_the_last_block_first(self, arguments, vocabulary, ids):
        pooling = TrendPooling(vocabulary.token_kinds, **arguments)
        assert "last_block_tokens" not in pooling.needs.encoder_arguments(6, ids)

    def test_a_single_block_is_first_and_last(self, small_config, vocabulary):
        encoder = BertEncoder(dataclasses.replace(small_config, num_layers=1))
        inputs = random_inputs(small_config, [9, 4], 12)
        for name in ("trend", "cls"):
            pooling = get_pooling(name, np.zeros(small_config.vocab_size, np.uint8))
            few, full = (pooled(encoder, pooling, inputs, all_tokens=all_tokens) for all_tokens in (False, True))
            np.testing.assert_allclose(few, full, atol=ROUNDING)

    def test_the_layer_computes_two_tokens_of_a_text(self, encoder, vocabulary, ids, monkeypatch):
        rows = []
        activation = encoder_ops.activation
        monkeypatch.setattr(
            "keras_bert_trend.encoder.keras_algebra.activation",
            lambda x, name: rows.append(x.shape[0]) or activation(x, name),
        )
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=24)
        layer = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling="trend", trainable=False)
        layer(ids)
        every = len(SENTENCES) * 24
        assert rows == [every] * (encoder.config.num_layers - 1) + [2 * len(SENTENCES)]
        rows.clear()
        layer(ids, return_all=True)
        assert rows == [every] * encoder.config.num_layers

    def test_states_that_are_not_computed_are_zero(self, encoder, ids):
        positions = tf.constant([[0, 3]] * len(SENTENCES))
        few = encoder(ids, last_block_tokens=lambda outputs: positions)["sequence_output"]
        full = encoder(ids)["sequence_output"]
        np.testing.assert_allclose(few[:, 0], full[:, 0], atol=1e-6)
        np.testing.assert_allclose(few[:, 3], full[:, 3], atol=1e-6)
        assert not np.any(np.delete(to_numpy(few), [0, 3], axis=1))

    def test_its_attention_cannot_be_asked_for(self, encoder, ids):
        for name in ("return_attention_scores", "return_attention_received"):
            with pytest.raises(ValueError, match="`last_block_tokens`"):
                encoder(ids, last_block_tokens=lambda outputs: None, **{name: True})


class TestAttentionReceived:
    def test_of_some_blocks(self, encoder, ids):
        everything = encoder(ids, return_attention_received=True)["attention_received"]
        some = encoder(ids, return_attention_received=[1])["attention_received"]
        np.testing.assert_array_equal(some, everything[:, 1:2])

    def test_published_trend_reads_the_first_block_only(self, vocabulary, ids):
        published, layers = (TrendPooling(vocabulary.token_kinds, reading=name) for name in ("published", "layers"))
        assert published.needs.encoder_arguments(6, ids)["return_attention_received"] == [0]
        assert (
            Needs.join([published.needs, layers.needs]).encoder_arguments(6, ids)["return_attention_received"] is True
        )

    @pytest.mark.parametrize("blocks", [[99], [-1], [1, 0], [0, 0]], ids=str)
    def test_blocks_that_are_none(self, blocks, encoder, ids):
        with pytest.raises(ValueError, match="`return_attention_received`"):
            encoder(ids, return_attention_received=blocks)


def fused_operations(function, *arguments) -> collections.Counter:
    """Return how often each operation stands in the graphs that TensorFlow made of the function, after rewriting."""
    from tensorflow.python.eager import context  # no public way leads to the rewritten graph

    context.enable_graph_collection()
    try:
        function(*arguments)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_graph_collection()
    counter: collections.Counter = collections.Counter()
    for graph in graphs:
        rewritten = graph.post_optimization_graph
        for node in [*rewritten.node, *(node for part in rewritten.library.function for node in part.node_def)]:
            fused = [name.decode() for name in node.attr["fused_ops"].list.s]
            counter["+".join([node.op, *fused])] += 1
    return counter


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0",
    reason="oneDNN, whose operations these are, is not here",
)
@pytest.mark.skipif(not encoder_ops.runs_on_onednn(), reason="TensorFlow does not use oneDNN on this processor")
class TestFusing:
    def check(self, counter, layers, gelu):
        assert counter[f"_FusedMatMul+BiasAdd+{gelu}"] == layers
        assert counter["_FusedMatMul+BiasAdd+Add"] >= layers  # after attention it does not know the shapes to be equal
        assert counter["_MklLayerNorm"] == 2 * layers + 1
        assert not counter["Erf"] + counter["Erfc"] + counter["Tanh"] + counter["Mean"]

    @pytest.mark.parametrize(("act", "fused"), [("gelu", "GeluExact"), ("gelu_tanh", "GeluApproximate")])
    def test_in_a_function(self, act, fused, small_config):
        encoder = BertEncoder(dataclasses.replace(small_config, hidden_act=act))
        inputs = {name: tf.constant(value) for name, value in random_inputs(small_config, [9, 4], 12).items()}
        run = tf.function(
            lambda inputs: encoder(inputs, training=False)["sequence_output"],
            input_signature=[{name: tf.TensorSpec((None, 12), tf.int32) for name in inputs}],
            autograph=False,
        )
        self.check(fused_operations(run, inputs), small_config.num_layers, fused)

    def test_in_an_exported_model(self, encoder, vocabulary, tmp_path):
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=24)
        layer = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling="mean")
        text = keras.Input((), dtype="string")
        keras.Model(text, layer(text)).export(tmp_path / "model", verbose=False)
        served = tf.saved_model.load(tmp_path / "model")
        counter = fused_operations(served.serve, tf.constant(SENTENCES))
        self.check(counter, encoder.config.num_layers, "GeluApproximate")

    def test_fused_layer_norm_has_the_formulas_numbers_row_by_row(self):
        generator = np.random.default_rng(0)
        x = generator.normal(3.0, 2.0, (37, 48)).astype("float32")
        gamma, beta = generator.normal(size=(2, 48)).astype("float32")
        normalise = tf.function(
            lambda x: encoder_ops.layer_norm(x, gamma, beta, 1e-12), input_signature=[tf.TensorSpec((None, 48))]
        )
        assert fused_operations(normalise, x)["_MklLayerNorm"] == 1
        wide = x.astype("float64")
        expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True) * gamma + beta
        np.testing.assert_allclose(normalise(x), expected, atol=1e-5)
        for rows in (1, 3, 8, 36):
            np.testing.assert_array_equal(normalise(x[:rows]), normalise(x)[:rows])
        assert normalise(x[:0]).shape == (0, 48)


class TestRematerialize:
    def gradients(self, config, inputs, rematerialize, policy="float32"):
        keras.utils.set_random_seed(1)
        encoder = BertEncoder(dataclasses.replace(config, num_layers=2), rematerialize=rematerialize, dtype=policy)

        @tf.function(autograph=False)
        def step():
            with tf.GradientTape() as tape:
                loss = ops.sum(ops.square(encoder(inputs, training=True)["sequence_output"][:, 0, :5]))
            return loss, [tf.cast(tf.convert_to_tensor(g), "float32") for g in tape.gradient(loss, variables)]

        variables = [
            v.value for v in encoder.trainable_variables if not v.path.endswith(("pooler_kernel", "pooler_bias"))
        ]
        return step()

    def test_same_loss_and_gradients_with_dropout(self, small_config):
        config = dataclasses.replace(small_config, hidden_dropout=0.3, attention_dropout=0.3)
        inputs = random_inputs(config, [9, 4, 2], 12)
        (kept_loss, kept), (loss, again) = (self.gradients(config, inputs, flag) for flag in (False, True))
        np.testing.assert_allclose(loss, kept_loss, rtol=1e-5)
        assert len(kept) == len(again)
        for a, b in zip(kept, again, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision(self, policy, small_config):
        """Keras casts variables where a layer is called, and the backward pass calls none."""
        inputs = random_inputs(small_config, [9, 4, 2], 12)
        (kept_loss, kept), (loss, again) = (self.gradients(small_config, inputs, f, policy) for f in (False, True))
        np.testing.assert_allclose(float(loss), float(kept_loss), rtol=1e-2)
        for a, b in zip(kept, again, strict=True):
            np.testing.assert_allclose(a, b, rtol=0.1, atol=0.1)

    def test_survives_the_configuration(self, small_config):
        encoder = BertEncoder(small_config, rematerialize=True)
        again = BertEncoder.from_config(encoder.get_config())
        assert again.rematerialize
        assert all(block.rematerialize for block in again.blocks)


# What XLA sets aside for a run is known once it is compiled: the same number every time, unlike a process's memory.
MEMORY = """
import jax, keras, numpy as np
from keras_bert_trend import BertConfig, BertEncoder
from keras_bert_trend.pooling import Needs, get_pooling

def temporary_bytes(layers, name, length=512):
    small = {"vocab_size": 50, "hidden_size": 16, "num_heads": 4, "intermediate_size": 32}
    encoder = BertEncoder(BertConfig(num_layers=layers, **small))
    pooling = get_pooling(name, np.zeros(50, np.uint8))

    def run(ids):
        inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        outputs = encoder(inputs, training=False, **pooling.needs.encoder_arguments(layers, inputs))
        return pooling(outputs, inputs["input_mask"], input_word_ids=ids)

    compiled = jax.jit(run).lower(jax.ShapeDtypeStruct((2, length), "int32")).compile()
    return compiled.memory_analysis().temp_size_in_bytes

matrix = 2 * 4 * 512 * 512 * 4
for name in ("mean", "last_four_sum", "smooth_trend"):
    print(name, (temporary_bytes(6, name) - temporary_bytes(4, name)) / matrix)
"""


def test_attention_is_not_kept_from_block_to_block():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    for line in run_fresh(MEMORY, KERAS_BACKEND="jax").splitlines():
        name, matrices = line.split()
        assert float(matrices) < 0.25, f"{name}: two more blocks keep {matrices} attention matrices more"
