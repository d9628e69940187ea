"""Blocks of other kinds than BERT's keep what BERT's keep; `tests/test_parity.py` has their numbers."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import (
    POOLING_NAMES,
    BertConfig,
    BertEncoder,
    BertTrend,
    UnsupportedArchitectureError,
    embed,
    explain,
)
from keras_bert_trend.encoder.blocks import BLOCKS
from keras_bert_trend.encoder.lora import TARGETS
from keras_bert_trend.pooling import get_pooling
from keras_bert_trend.sources import load_source
from tests.common import SENTENCES, fixture_folder, random_inputs, run_fresh, to_numpy
from tests.fuzz.graph_edits import FLOAT, INTEGER
from tests.layer_contract import run_layer_contract
from tests.test_verification import behind, input_of, result_of, write_edited

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
}
MOBILE = {"block": "mobile", "bottleneck_size": 8, "num_feed_forwards": 2, "embedding_size": 6, "hidden_act": "relu"}
CONFIGS = {
    "pre_norm": BertConfig(**SIZES, block="pre_norm"),
    "final_norm": BertConfig(**SIZES, block="pre_norm", final_norm=True),
    "talking_heads": BertConfig(**SIZES, block="talking_heads"),
    "mobile": BertConfig(**SIZES, **MOBILE, normalization="no_norm"),
    "mobile_layer_norm": BertConfig(**SIZES, **MOBILE, pooler="identity"),
    "without_types": BertConfig(**SIZES, type_vocab_size=0),
}
KINDS = ["final_norm", "talking_heads", "mobile"]
every_config = pytest.mark.parametrize("name", CONFIGS)
every_kind = pytest.mark.parametrize("name", KINDS)


def make(name, **changes):
    """Return an encoder whose every weight matters, biases included: always the same."""
    keras.utils.set_random_seed(0)
    encoder = BertEncoder(dataclasses.replace(CONFIGS[name], **changes))
    generator = np.random.default_rng(0)
    weights = encoder.named_weights()
    encoder.set_named_weights({n: w + generator.normal(0, 0.1, w.shape).astype("f") for n, w in weights.items()})
    return encoder


def inputs_of(name, seq=12):
    inputs = random_inputs(CONFIGS[name], [9, 4, 1], seq)
    inputs["input_type_ids"][0, 5:9] = 1
    return inputs


def test_there_is_a_config_of_every_kind():
    assert {config.block for config in CONFIGS.values()} == set(BLOCKS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "parallel"}, "`block` must be one of"),
        ({"bottleneck_size": 8}, "`bottleneck_size` is of block='mobile' only, got 8"),
        ({"block": "talking_heads", "final_norm": True}, "`final_norm` is of block='pre_norm' only"),
        ({"block": "mobile"}, "`bottleneck_size` must be between 1 and hidden_size=16, got None"),
        ({**MOBILE, "bottleneck_size": 7}, "`num_heads` must divide `bottleneck_size`"),
        ({**MOBILE, "normalization": "rms"}, "`normalization` must be one of"),
        ({**MOBILE, "num_feed_forwards": 0}, "`num_feed_forwards` must be a positive integer"),
        ({"block": "pre_norm", "final_norm": True, "share_layers": True}, "`final_norm` must be False"),
    ],
    ids=str,
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        BertConfig(**{**SIZES, **fields})


@every_config
def test_what_is_left_out_changes_nothing(name):
    """Padding, and tokens of the last block that nobody reads; MobileBERT's tokens see the one after them, however."""
    encoder, inputs = make(name), inputs_of(name)
    whole = encoder(inputs, return_attention_scores=True, return_attention_received=True)
    real = inputs["input_mask"]
    skipped = encoder(inputs, skip_padding=True, return_attention_received=True)
    for one, other in zip(whole["encoder_outputs"], skipped["encoder_outputs"], strict=True):
        np.testing.assert_allclose(one * real[:, :, None], other, atol=1e-5)
    np.testing.assert_allclose(whole["attention_received"], skipped["attention_received"], atol=1e-5)
    received = [np.einsum("bnts,bt->bns", scores, real) for scores in whole["attention_scores"]]
    np.testing.assert_allclose(whole["attention_received"], np.stack(received, 1), atol=1e-5)
    places = tf.constant([[0, 3], [2, 0], [0, 0]])
    few = encoder(inputs, last_block_tokens=lambda outputs: places, skip_padding=True)["sequence_output"]
    expected = np.take_along_axis(to_numpy(whole["sequence_output"]), places.numpy()[:, :, None], 1)
    np.testing.assert_allclose(np.take_along_axis(few.numpy(), places.numpy()[:, :, None], 1), expected, atol=1e-5)
    longer = encoder(inputs_of(name, 15))
    np.testing.assert_allclose(longer["pooled_output"], whole["pooled_output"], atol=1e-5)


@every_kind
def test_every_pooling_and_every_weight_trains(name):
    encoder, inputs = make(name), inputs_of(name)
    kinds = np.zeros(CONFIGS[name].vocab_size, "uint8")
    with tf.GradientTape() as tape:
        outputs = encoder(inputs, training=True, return_attention_received=True)
        pooled = [
            get_pooling(pooling, kinds)(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])
            for pooling in POOLING_NAMES
        ]
        loss = tf.add_n([tf.reduce_sum(x) for x in pooled if x is not pooled[POOLING_NAMES.index("trend")]])
    assert all(np.isfinite(to_numpy(x)).all() for x in pooled)
    gradients = tape.gradient(loss, encoder.trainable_variables)
    without = [v.path for v, g in zip(encoder.trainable_variables, gradients, strict=True) if g is None]
    assert not without
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)


@every_kind
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(name, policy):
    inputs = inputs_of(name)
    encoder = BertEncoder(dataclasses.replace(CONFIGS[name], initializer_range=0.05), dtype=policy)
    wide = BertEncoder(encoder.config)
    wide.set_named_weights(encoder.named_weights())
    narrow, expected = encoder(inputs, return_attention_scores=True), wide(inputs, return_attention_scores=True)
    assert narrow["sequence_output"].dtype == keras.DTypePolicy(policy).compute_dtype
    for key in ("sequence_output", "attention_scores"):
        one, other = (tf.cast(tf.stack(outputs[key]), "float32") for outputs in (narrow, expected))
        np.testing.assert_allclose(one, other, atol=0.1)


def test_the_layer_contract():
    """Of MobileBERT, whose block differs most: the contract takes 20 s a kind."""
    config = dataclasses.replace(CONFIGS["mobile"], num_layers=1, initializer_range=0.02)
    inputs = random_inputs(config, [6, 4, 2], 6)
    run_layer_contract(BertEncoder, {"config": config}, (inputs,), mask=inputs["input_mask"] == 1)


@pytest.mark.parametrize("name", ["final_norm", "mobile", "without_types"])
def test_written_back_and_read_again(name, tmp_path):
    encoder, inputs = make(name, num_layers=1), inputs_of(name)
    encoder.export_text_encoder(tmp_path / "hub")
    again = BertEncoder.from_handle(tmp_path / "hub")
    assert dataclasses.replace(again.config, initializer_range=0.3) == encoder.config
    for role, weight in encoder.named_weights().items():
        np.testing.assert_array_equal(again.named_weights()[role], weight)
    loaded = tf.saved_model.load(tmp_path / "hub")
    theirs = loaded.call_with_attention({key: tf.constant(value) for key, value in inputs.items()}, False)
    ours = encoder(inputs, return_attention_scores=True, return_attention_received=True)
    for key, values in ours.items():
        np.testing.assert_allclose(tf.stack(theirs[key]), tf.stack(values), atol=2e-5, err_msg=key)


@every_kind
def test_low_rank_updates(name):
    encoder, inputs = make(name), inputs_of(name)
    before = to_numpy(encoder(inputs, training=False)["sequence_output"])
    encoder.enable_lora(2, target=tuple(TARGETS))
    np.testing.assert_allclose(encoder(inputs, training=False)["sequence_output"], before, atol=1e-5)
    for variable in encoder.trainable_weights:
        variable.assign(np.random.default_rng(1).normal(0, 0.3, variable.shape))
    after = to_numpy(encoder(inputs, training=False)["sequence_output"])
    assert np.abs(after - before).max() > 1e-2
    merged = BertEncoder(CONFIGS[name])
    merged.set_named_weights(encoder.named_weights())
    np.testing.assert_allclose(merged(inputs)["sequence_output"], after, atol=1e-4)


def test_under_jax(tmp_path):
    pytest.importorskip("jax")
    for name in KINDS:
        np.savez(tmp_path / f"{name}_weights.npz", **make(name).named_weights())
        np.savez(tmp_path / f"{name}_inputs.npz", **inputs_of(name))
    code = """
        import sys
        import jax, numpy as np
        from keras_bert_trend import BertConfig, BertEncoder
        for name, config in eval(sys.argv[2]).items():
            encoder = BertEncoder(BertConfig(**config), weights=dict(np.load(f"{sys.argv[1]}/{name}_weights.npz")))
            inputs = dict(np.load(f"{sys.argv[1]}/{name}_inputs.npz"))
            outputs = jax.jit(lambda x: encoder(x, return_attention_scores=True))(inputs)
            np.savez(f"{sys.argv[1]}/{name}.npz", outputs["sequence_output"], outputs["attention_scores"][1])
        """
    configs = {name: CONFIGS[name].to_dict() for name in KINDS}
    run_fresh(code, tmp_path, repr(configs), KERAS_BACKEND="jax")
    for name in KINDS:
        ours = make(name)(inputs_of(name), return_attention_scores=True)
        with np.load(tmp_path / f"{name}.npz") as theirs:
            np.testing.assert_allclose(ours["sequence_output"], theirs["arr_0"], atol=1e-4)
            np.testing.assert_allclose(ours["attention_scores"][1], theirs["arr_1"], atol=2e-5)


@pytest.mark.parametrize("name", ["talking_heads", "mobilebert"])
def test_texts(name, tmp_path):
    """`embed` leaves padding out, and gives what the layer gives of ids padded to the same length as the original."""
    layer = BertTrend(fixture_folder(name) / "saved_model", pooling="mean", sequence_length=32)
    texts = [*SENTENCES, "." * 14, "." * 29]
    ids = layer.preprocessor(texts)
    assert {16, 31} <= set(to_numpy(ids["input_mask"]).sum(1))  # nothing, and one, is left to pad to a whole vector
    expected = to_numpy(layer(ids))
    np.testing.assert_allclose(layer(tf.constant(texts)), expected, atol=2e-5)
    np.testing.assert_allclose(embed(texts, layer), expected, atol=2e-5)
    text = keras.Input((), dtype="string")
    model = keras.Model(text, layer(text))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(tf.constant(texts)), expected, atol=2e-5)
    explained = explain("The bank of the river.", layer)
    assert explained.anchor is not None


@pytest.mark.parametrize("name", ["talking_heads", "mobilebert"])
@pytest.mark.parametrize(
    ("operator", "dtype", "place"),
    [
        ("clip_10", tf.float32, result_of("Einsum", 7)),
        ("times_1.00001", tf.float32, result_of("Softmax")),
        ("zero_beyond_8", tf.float32, result_of("Mul", 3)),
        (sorted(INTEGER.keys() - {"identity", "int64"})[0], tf.int32, input_of("mask")),
    ],
    ids=["product", "softmax", "factor", "mask"],
)
def test_an_edited_graph_is_refused(name, operator, dtype, place, tmp_path):
    assert operator in FLOAT or operator in INTEGER
    folder = write_edited(fixture_folder(name) / "saved_model", tmp_path, behind(operator, dtype, place))
    with pytest.raises(UnsupportedArchitectureError):
        load_source(folder)


@pytest.mark.parametrize("name", ["pre_norm", "talking_heads"])
def test_what_hugging_face_does_not_have(name, tmp_path):
    with pytest.raises(ValueError, match=f"Hugging Face has no model with block='{name}'"):
        make(name).export_hugging_face(tmp_path / "folder")


@pytest.mark.parametrize("name", ["distilbert", "electra", "albert", "mobilebert", "mobilebert_without_pooler"])
def test_hugging_face_folders(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "attn_implementation": "eager",
    }
    bottleneck = {"embedding_size": 8, "intra_bottleneck_size": 8, "num_feedforward_networks": 3}
    config, model = {
        "distilbert": (transformers.DistilBertConfig(**sizes), transformers.DistilBertModel),
        "electra": (transformers.ElectraConfig(**sizes, embedding_size=8), transformers.ElectraModel),
        "albert": (transformers.AlbertConfig(**sizes, embedding_size=8), transformers.AlbertModel),
        "mobilebert": (transformers.MobileBertConfig(**sizes, **bottleneck), transformers.MobileBertModel),
        "mobilebert_without_pooler": (
            transformers.MobileBertConfig(**sizes, **bottleneck, classifier_activation=False),
            transformers.MobileBertModel,
        ),
    }[name]
    model = model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "theirs")
    encoder = BertEncoder.from_handle(tmp_path / "theirs")
    inputs = inputs_of("mobile")
    names = {"input_word_ids": "input_ids", "input_mask": "attention_mask", "input_type_ids": "token_type_ids"}
    arguments = {names[key]: torch.tensor(value).long() for key, value in inputs.items()}
    if name == "distilbert":
        del arguments["token_type_ids"]
    with torch.no_grad():
        theirs = model(**arguments, output_hidden_states=True, output_attentions=True)
    ours, real = encoder(inputs, return_attention_scores=True), inputs["input_mask"]
    states = [ours["embedding_output"], *ours["encoder_outputs"]]
    for one, other in zip(states, theirs.hidden_states, strict=True):
        other = other.numpy() * real[:, :, None]
        np.testing.assert_allclose(one * real[:, :, None], other, rtol=0, atol=2e-5 * max(1, np.abs(other).max()))
    for one, other in zip(ours["attention_scores"], theirs.attentions, strict=True):
        rows = real[:, None, :, None]
        np.testing.assert_allclose(one * rows, other.numpy() * rows, atol=2e-5)
    if getattr(theirs, "pooler_output", None) is not None:
        np.testing.assert_allclose(ours["pooled_output"], theirs.pooler_output.numpy(), atol=2e-5)
    if config.model_type == "mobilebert":
        encoder.export_hugging_face(tmp_path / "ours")
        again = transformers.MobileBertModel.from_pretrained(tmp_path / "ours").state_dict()
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(again[key].numpy(), value.numpy())
