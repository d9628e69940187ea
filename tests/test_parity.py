"""The encoder gives the numbers that the original exporters recorded."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES
from tests.common import RECORDED, SAME_BITS, fixture_folder, to_numpy

OUTPUTS = ["pooled_output", "sequence_output", "encoder_outputs", "embedding_output", "attention_scores"]


@pytest.mark.smoke
@pytest.mark.parametrize("prefix", ["", "edge_"], ids=["plain", "edge"])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("name", RECORDED)
def test_outputs_equal_the_recording(name, in_graph, prefix):
    folder = fixture_folder(name)
    drift = json.loads((folder / "info.json").read_text())["tf221"]["max_abs_diff"]
    encoder = BertEncoder.from_handle(folder / "saved_model")
    with np.load(folder / "expected.npz") as recorded:
        inputs = {key: tf.constant(recorded[prefix + key]) for key in INPUT_NAMES}
        run = tf.function(encoder.__call__) if in_graph else encoder
        outputs = run(inputs, return_attention_scores=True)
        layers = len(outputs["encoder_outputs"])
        assert len(recorded[prefix + "encoder_outputs"]) == layers + (name == "mobilebert")  # which begins with layer 0
        # Rows that no token is left of are another matter where the mask constant is small: see the next test.
        rows = recorded[prefix + "input_mask"].any(axis=1) | (encoder.config.attention_mask_constant < -1e8)
        for key in OUTPUTS:
            tolerance = max(2e-5, 3 * drift.get(prefix + key, 0.0))
            by_layer = key in ("encoder_outputs", "attention_scores")
            expected = recorded[prefix + key][-layers:] if by_layer else recorded[prefix + key]
            difference = np.abs(to_numpy(tf.stack(outputs[key])) - expected)
            difference = (difference[:, rows] if by_layer else difference[rows]).max()
            assert difference <= tolerance, f"{key}: {difference} > {tolerance}"
        np.testing.assert_array_equal(outputs["default"], outputs["pooled_output"])


@pytest.mark.parametrize("name", ["bert_v2_2020", "bert_v1_2019"])
def test_a_row_that_is_masked_entirely_is_off_by_one_rounding_of_a_score(name):
    """With −10000 on every score, float32 keeps steps of 2⁻¹⁰ of it, and the last bit of a product decides which.

    The original itself, run by a newer TensorFlow, is 5.6e-5 off its recording there (`bert_v2_2020/info.json`).
    """
    folder = fixture_folder(name)
    encoder = BertEncoder.from_handle(folder / "saved_model")
    with np.load(folder / "expected.npz") as recorded:
        inputs = {key: recorded["edge_" + key] for key in INPUT_NAMES}
        row = int(np.argmin(inputs["input_mask"].any(axis=1)))
        assert not inputs["input_mask"][row].any()
        outputs = encoder(inputs, return_attention_scores=True)
        scores = to_numpy(tf.stack(outputs["attention_scores"]))[:, row]
        expected = recorded["edge_attention_scores"][:, row]
        step = np.spacing(np.float32(10000))
        assert np.abs(np.log(scores) - np.log(expected)).max() < 1.2 * step
        for key in ("pooled_output", "sequence_output"):
            difference = np.abs(to_numpy(outputs[key])[row] - recorded["edge_" + key][row]).max()
            assert difference < step, key


@pytest.mark.parametrize("prefix", ["", "edge_"], ids=["plain", "edge"])
def test_a_tf1_checkpoint_gives_what_google_research_bert_computed(prefix):
    model = "uncased_L-3_H-32_A-4"
    folder = fixture_folder("google_tf1_checkpoint", model)
    encoder = BertEncoder.from_handle(folder / model)
    with np.load(folder / "expected.npz") as recorded:
        inputs = {key: recorded[prefix + key] for key in INPUT_NAMES}
        outputs = encoder(inputs, return_attention_scores=True)
        for key in OUTPUTS:  # what TensorFlow 1.15 computed, in float32
            difference = np.abs(to_numpy(tf.stack(outputs[key])) - recorded[f"{prefix}tf1_{key}"])
            # A row without real tokens, whose scores keep steps of 0.001, shows a processor's rounding: 2.5e-5 (AVX2).
            assert difference.max() <= (2e-5 if SAME_BITS else 3e-5), key


def test_the_recording_tells_wrong_models_apart(encoder, recorded):
    """The tolerance above means something: every constant that is read changes the numbers by much more."""
    import dataclasses

    inputs = {key: recorded[key] for key in INPUT_NAMES}
    for change in ({"hidden_act": "gelu"}, {"num_heads": 2}, {"layer_norm_epsilon": 1e-3}):
        other = BertEncoder(dataclasses.replace(encoder.config, **change))
        other.set_named_weights(encoder.named_weights())
        difference = np.abs(to_numpy(other(inputs)["sequence_output"]) - recorded["sequence_output"]).max()
        assert difference > 1e-4, change
    # The mask constant shows where a row is masked entirely.
    edge = {key: recorded["edge_" + key] for key in INPUT_NAMES}
    other = BertEncoder(dataclasses.replace(encoder.config, attention_mask_constant=-10000.0))
    other.set_named_weights(encoder.named_weights())
    scores = to_numpy(tf.stack(other(edge, return_attention_scores=True)["attention_scores"]))
    assert np.abs(scores - recorded["edge_attention_scores"]).max() > 1e-2


def test_attention_received_is_the_column_sum_over_real_queries(encoder, recorded):
    inputs = {key: recorded[key] for key in INPUT_NAMES}
    outputs = encoder(inputs, return_attention_received=True)
    queries = recorded["input_mask"][None, :, None, :, None]
    expected = (recorded["attention_scores"] * queries).sum(axis=3)  # (layers, batch, heads, key)
    np.testing.assert_allclose(outputs["attention_received"], expected.transpose(1, 0, 2, 3), atol=2e-5)


def test_outputs_that_were_not_asked_for_are_not_there(encoder, recorded):
    outputs = encoder({key: recorded[key] for key in INPUT_NAMES})
    assert "attention_scores" not in outputs
    assert "attention_received" not in outputs
