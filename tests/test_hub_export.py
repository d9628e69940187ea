"""What is written back to TF Hub's interfaces works there, and reads back as the same model."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertConfig, BertEncoder, BertPreprocessor
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.sources import load_source
from tests.common import FIXTURES, V4, fixture_folder, random_inputs, to_numpy

SPIECE = FIXTURES / "sentencepiece" / "spiece.model"
SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_layers=3, num_heads=2, intermediate_size=32, max_position_embeddings=24
)
VARIANTS = {
    "bert": {},
    "exact gelu, other rates": {"hidden_act": "gelu", "hidden_dropout": 0.3, "attention_dropout": 0.2},
    "relu, another epsilon and mask": {
        "hidden_act": "relu",
        "layer_norm_epsilon": 1e-6,
        "attention_mask_constant": -10000.0,
    },
    "no pooler, no dropout": {"pooler": "identity", "hidden_dropout": 0.0, "attention_dropout": 0.0},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8, "share_layers": True},
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def any_export(request, tmp_path_factory):
    """An encoder, and the folder that it was exported to."""
    encoder = BertEncoder(dataclasses.replace(SMALL, **{"embedding_size": None, **request.param}))
    generator = np.random.default_rng(0)  # fresh weights have biases of zero, which could be exchanged unseen
    encoder.set_named_weights(
        {
            name: array + generator.normal(0, 0.2, array.shape).astype("float32")
            for name, array in encoder.named_weights().items()
        }
    )
    folder = tmp_path_factory.mktemp("export") / "model"
    encoder.export_text_encoder(folder)
    return encoder, folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An encoder and its preprocessing. Shared: what changes the files changes a copy."""
    folder = tmp_path_factory.mktemp("exported")
    encoder, preprocessor = BertEncoder.from_handle(V4), BertPreprocessor.from_handle(V4, sequence_length=20)
    encoder.export_text_encoder(folder / "encoder", preprocessor)
    preprocessor.export_text_preprocessing(folder / "preprocessing")
    return folder


class TestEncoder:
    @pytest.mark.parametrize("normalization", ["tf_text", "bert"])
    def test_texts_are_read_as_they_were(self, tmp_path, normalization):
        layer = BertPreprocessor.from_handle(V4, strip_accents=False, normalization=normalization)
        BertEncoder.from_handle(V4).export_text_encoder(tmp_path / "model", layer)
        again = BertPreprocessor.from_handle(tmp_path / "model")
        assert (again.lower_case, again.strip_accents, again.normalization) == (True, False, normalization)

    @pytest.mark.smoke
    def test_reads_back_as_the_same_model(self, any_export):
        encoder, folder = any_export
        read = load_source(folder)
        assert read.config == encoder.config
        for name, array in encoder.named_weights().items():
            np.testing.assert_array_equal(read.weights[name], array, err_msg=name)

    @pytest.mark.parametrize(
        "sizes",
        [
            {"hidden_size": 512, "num_heads": 8, "intermediate_size": 2048, "num_layers": 8},
            {"hidden_size": 768, "num_heads": 12, "embedding_size": 128, "share_layers": True, "num_layers": 12},
        ],
        ids=["wide", "albert"],
    )
    def test_rounding_in_many_wide_blocks_is_no_difference(self, tmp_path, sizes):
        """The reader computes the graph in float32: what adds up in real sizes must not look like another model."""
        config = BertConfig(vocab_size=200, max_position_embeddings=32, **{"intermediate_size": 3072, **sizes})
        BertEncoder(config).export_text_encoder(tmp_path / "model")
        assert load_source(tmp_path / "model").config == config

    def test_gives_the_same_outputs_to_plain_hub_load(self, any_export):
        import tensorflow_hub

        encoder, folder = any_export
        model = tensorflow_hub.load(str(folder))
        inputs = random_inputs(SMALL, [9, 4, 1], 12)
        expected = encoder(inputs, return_attention_scores=True, return_attention_received=True)
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        got, everything = model(tensors), model.call_with_attention(tensors, training=False)
        assert set(expected) - set(got) == {"attention_scores", "attention_received"}
        assert set(everything) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(tf.stack(everything[name]), to_numpy(tf.stack(value)), atol=4e-6, err_msg=name)
        np.testing.assert_allclose(got["pooled_output"], to_numpy(expected["pooled_output"]), atol=2e-6)
        served = model.signatures["serving_default"](**tensors)
        np.testing.assert_allclose(served["encoder_outputs_1"], to_numpy(expected["encoder_outputs"][1]), atol=2e-6)

    def test_trains_in_plain_tensorflow(self, exported, recorded):
        model = tf.saved_model.load(exported / "encoder")
        inputs = {name: tf.constant(recorded[name]) for name in INPUT_NAMES}
        first, again = (model(inputs, training=True)["sequence_output"] for _ in range(2))
        assert np.abs(first - again).max() > 0.1  # dropout acts
        np.testing.assert_array_equal(model(inputs)["sequence_output"], model(inputs, False, None)["sequence_output"])

        def loss():
            return tf.reduce_mean(tf.square(model(inputs)["pooled_output"] - 0.5))

        before = loss()
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, model.trainable_variables)
        assert len(gradients) == len(load_source(V4).weights)
        for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
            assert gradient is not None, variable.name
            variable.assign_sub(0.05 * tf.convert_to_tensor(gradient))
        assert loss() < before
        assert len(model.variables) == len(model.trainable_variables)
        assert len(model.regularization_losses) == 0

    def test_brings_vocabulary_and_casing(self, exported, vocabulary, encoder, tmp_path):
        source = load_source(exported / "encoder")
        assert source.vocabulary == vocabulary.tokens
        assert source.lower_case is True
        encoder.export_text_encoder(tmp_path / "albert", BertPreprocessor.from_handle(SPIECE))
        assert load_source(tmp_path / "albert").vocabulary == SPIECE.read_bytes()

    def test_a_fine_tuned_albert_goes_back(self, tmp_path):
        encoder = BertEncoder.from_handle(fixture_folder("albert") / "saved_model")
        for variable in encoder.trainable_variables:
            variable.assign(variable * 1.25)
        encoder.export_text_encoder(tmp_path / "model")
        again = BertEncoder.from_handle(tmp_path / "model")
        inputs = random_inputs(encoder.config, [9, 4], 12)
        np.testing.assert_array_equal(again(inputs)["sequence_output"], encoder(inputs)["sequence_output"])

    def test_a_mixed_precision_encoder_keeps_its_float32_weights(self, tmp_path):
        encoder = BertEncoder.from_handle(V4, dtype="mixed_bfloat16")
        encoder.export_text_encoder(tmp_path / "model")
        expected = load_source(V4).weights
        for name, array in load_source(tmp_path / "model").weights.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


class TestPreprocessing:
    @pytest.mark.smoke
    def test_same_ids_as_recorded(self, exported):
        recorded = json.loads((FIXTURES / "preprocess_v3" / "sentences.json").read_text())
        model = tf.saved_model.load(exported / "preprocessing")
        first, second = (model.tokenize(tf.constant(column)) for column in zip(*recorded["pairs"], strict=True))
        got = {
            "single20": model(tf.constant(recorded["sentences"])),
            "pair12": model.bert_pack_inputs([first, second], seq_length=12),
            "pair32": model.bert_pack_inputs([first.merge_dims(1, 2), second.merge_dims(1, 2)], tf.constant(32)),
            "pair20": model.bert_pack_inputs([first, second]),
            "special": model.tokenize.get_special_tokens_dict(),
        }
        ids = {"start_of_sequence_id": 4, "end_of_segment_id": 5, "padding_id": 0, "mask_id": 6, "vocab_size": 177}
        assert got["special"] == ids  # those of the recorded model
        with np.load(FIXTURES / "preprocess_v3" / "expected.npz") as expected:
            for name in INPUT_NAMES:
                np.testing.assert_array_equal(got["pair12"][name], expected[f"pair12_{name}"])
                np.testing.assert_array_equal(got["pair32"][name], expected[f"pair32_{name}"])
        layer = BertPreprocessor.from_handle(V4, sequence_length=20)
        pairs = layer(tuple(list(column) for column in zip(*recorded["pairs"], strict=True)))
        np.testing.assert_array_equal(got["pair20"]["input_word_ids"], pairs["input_word_ids"])
        np.testing.assert_array_equal(got["single20"]["input_word_ids"], layer(recorded["sentences"])["input_word_ids"])

    @pytest.mark.parametrize("handle", [V4, SPIECE], ids=["wordpiece", "sentencepiece"])
    @pytest.mark.parametrize("lower_case", [True, False])
    @pytest.mark.parametrize("normalization", ["tf_text", "bert"])
    def test_reads_back_as_the_same_layer(self, tmp_path, handle, lower_case, normalization):
        chosen = {"lower_case": lower_case, "normalization": normalization}
        layer = BertPreprocessor.from_handle(handle, sequence_length=14, **chosen)
        layer.export_text_preprocessing(tmp_path / "model")
        again = BertPreprocessor.from_handle(tmp_path / "model")
        same = ("vocabulary", "lower_case", "strip_accents", "normalization", "sequence_length")
        assert {name: again.get_config()[name] for name in same} == {name: layer.get_config()[name] for name in same}

    def test_length(self, tmp_path):
        layer = BertPreprocessor.from_handle(V4, sequence_length=None)
        layer.export_text_preprocessing(tmp_path / "auto")
        layer.export_text_preprocessing(tmp_path / "chosen", sequence_length=9)
        assert BertPreprocessor.from_handle(tmp_path / "auto").sequence_length == 128
        assert BertPreprocessor.from_handle(tmp_path / "chosen").sequence_length == 9


class TestFiles:
    @pytest.fixture
    def copy(self, exported, tmp_path):
        return shutil.copytree(exported, tmp_path / "copy")

    def test_what_stands_there_is_kept_unless_told(self, copy, encoder):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            encoder.export_text_encoder(copy / "encoder")
        assert load_source(copy / "encoder").vocabulary is not None
        encoder.export_text_encoder(copy / "encoder", overwrite=True)
        assert load_source(copy / "encoder").vocabulary is None

    def test_a_failure_leaves_nothing_half_written(self, copy, encoder, monkeypatch):
        def fail(module, folder, **kwargs):
            tf.io.gfile.makedirs(folder)
            (copy / "seen").touch()
            raise OSError("no space left")

        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
        monkeypatch.setattr(tf.saved_model, "save", fail)
        for path in (copy / "encoder", copy / "another"):
            with pytest.raises(OSError, match="no space"):
                encoder.export_text_encoder(path, overwrite=True)
        (copy / "seen").unlink()  # it did try
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
