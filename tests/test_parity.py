"""The encoder gives the numbers that the original exporters recorded."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES
from tests.conftest import fixture_folder, to_numpy

MODELS = ["bert_v4_like", "bert_v3_2020", "bert_exact_gelu"]
OUTPUTS = ["pooled_output", "sequence_output", "encoder_outputs", "embedding_output", "attention_scores"]


@pytest.mark.parametrize("prefix", ["", "edge_"], ids=["plain", "edge"])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_the_recording(name, in_graph, prefix):
    folder = fixture_folder(name)
    drift = json.loads((folder / "info.json").read_text())["tf221"]["max_abs_diff"]
    encoder = BertEncoder.from_handle(folder / "saved_model")
    with np.load(folder / "expected.npz") as recorded:
        inputs = {key: tf.constant(recorded[prefix + key]) for key in INPUT_NAMES}
        run = tf.function(encoder.__call__) if in_graph else encoder
        outputs = run(inputs, return_attention_scores=True)
        assert len(outputs["encoder_outputs"]) == len(recorded[prefix + "encoder_outputs"])
        for key in OUTPUTS:
            tolerance = max(2e-5, 3 * drift.get(prefix + key, 0.0))
            difference = np.abs(to_numpy(tf.stack(outputs[key])) - recorded[prefix + key]).max()
            assert difference <= tolerance, f"{key}: {difference} > {tolerance}"
        np.testing.assert_array_equal(outputs["default"], outputs["pooled_output"])


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
