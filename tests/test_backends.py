"""The same encoder and poolings under JAX and PyTorch, on token ids, agree with TensorFlow; what else goes there."""

import importlib.util
import json

import numpy as np
import pytest

from keras_bert_trend import POOLING_NAMES, BertEncoder, BertPreprocessor
from keras_bert_trend.pooling import get_pooling
from tests.common import SENTENCES, run_fresh, to_numpy

# What a process with another backend runs: weights and ids come as files, since only TensorFlow reads SavedModels.
OTHER_BACKEND = """
import json, sys
import keras, numpy as np
from keras_bert_trend import POOLING_NAMES, BertConfig, BertEncoder, BertPreprocessor, FusedAdamW
from keras_bert_trend.pooling import get_pooling

folder = sys.argv[1]
case = dict(np.load(f"{folder}/case.npz"))
ids = {name: case[name] for name in ("input_word_ids", "input_mask", "input_type_ids")}


def compiled(run):
    if keras.backend.backend() != "jax":
        return run
    import jax

    return jax.jit(run)


def pooled(name, outputs, ids):
    return get_pooling(name, case["token_kinds"])(outputs, ids["input_mask"], input_word_ids=ids["input_word_ids"])


def make(**arguments):
    encoder = BertEncoder(BertConfig.from_dict(json.load(open(f"{folder}/config.json"))), **arguments)
    encoder.set_named_weights(dict(np.load(f"{folder}/weights.npz")))
    return encoder


encoder = make()


@compiled
def everything(ids):
    outputs = encoder(ids, return_attention_scores=True, return_attention_received=True)
    results = {name: outputs[name] for name in ("pooled_output", "embedding_output", "attention_received")}
    for name in ("encoder_outputs", "attention_scores"):
        results[name] = keras.ops.stack(outputs[name])
    return {**results, **{name: pooled(name, outputs, ids) for name in POOLING_NAMES}}


results = everything(ids)
if keras.backend.backend() == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)
wide = make(dtype="float64")
trend = compiled(lambda ids: pooled("trend", wide(ids, return_attention_received=True), ids))
results["trend_float64"] = trend(ids)
np.savez(f"{folder}/results.npz", **{k: keras.ops.convert_to_numpy(v) for k, v in results.items()})
said = {"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}

try:
    encoder(ids, skip_padding=True)
except NotImplementedError as error:
    said["skip_padding"] = str(error)

moved = []
for kind in (FusedAdamW, keras.optimizers.AdamW):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(kind(0.05, weight_decay=0.1), "mse")
    model.fit(np.eye(2), np.ones((2, 3)), epochs=3, verbose=0)
    moved.append(model.get_weights()[0])
said["FusedAdamW"] = float(np.abs(np.subtract(*moved)).max())

tokens, sentences = json.load(open(f"{folder}/texts.json"))
preprocessor = BertPreprocessor(tokens, lower_case=True, sequence_length=32)
from_list = preprocessor(sentences)
said["own_tensors"] = all(map(keras.ops.is_tensor, from_list.values()))
import tensorflow as tf

texts = tf.data.Dataset.from_tensor_slices(sentences)
made = {
    "preprocess": preprocessor.preprocess(sentences),
    "a list": {name: keras.ops.convert_to_numpy(x) for name, x in from_list.items()},
    "tf.data after batch": next(iter(texts.batch(6).map(preprocessor))),
    "tf.data before batch": next(iter(texts.map(preprocessor).batch(6))),
}
said["ids"] = {name: np.asarray(x["input_word_ids"]).tolist() for name, x in made.items()}

symbols = {name: keras.Input((None,), dtype="int32", name=name) for name in ids}
embedding = pooled("smooth_trend", encoder(symbols, return_attention_received=True), symbols)
model = keras.Model(symbols, keras.layers.Dense(1)(embedding))
model.compile("sgd", "mse")
before = encoder.blocks[0].qkv_kernel.numpy()
model.fit(texts.batch(6).map(lambda x: (preprocessor(x), tf.ones_like(x, "float32"))), verbose=0)
said["moved"] = float(np.abs(encoder.blocks[0].qkv_kernel.numpy() - before).max())
if keras.backend.backend() == "jax":  # for PyTorch Keras writes no SavedModel
    model.export(f"{folder}/export", format="tf_saved_model", verbose=False)
    served = tf.saved_model.load(f"{folder}/export")
    shorter = {name: array[:2, :20] for name, array in ids.items()}
    said["export"] = [float(np.abs(served.serve(x).numpy() - model(x)).max()) for x in (ids, shorter)]
print(json.dumps(said))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_same_numbers_as_tensorflow(backend, encoder, vocabulary, tmp_path):
    """In one process for each backend, where starting takes most of the time."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    ids = BertPreprocessor(vocabulary, lower_case=True, sequence_length=32)(SENTENCES)
    ids = {name: to_numpy(value) for name, value in ids.items()}
    np.savez(tmp_path / "case.npz", token_kinds=vocabulary.token_kinds, **ids)
    np.savez(tmp_path / "weights.npz", **encoder.named_weights())
    (tmp_path / "config.json").write_text(json.dumps(encoder.config.to_dict()))
    (tmp_path / "texts.json").write_text(json.dumps([vocabulary.tokens, SENTENCES]))
    said = json.loads(run_fresh(OTHER_BACKEND, tmp_path, KERAS_BACKEND=backend))
    assert (said["backend"], said["tensorflow"]) == (backend, False), "token ids need no TensorFlow"
    assert "TensorFlow backend only" in said["skip_padding"], "other backends must know sizes"
    # For PyTorch Keras has an AdamW of its own.
    assert said["FusedAdamW"] <= {"jax": 0.0, "torch": 1e-6}[backend], "it is Keras's own there"
    assert said["own_tensors"]
    for name, made in said["ids"].items():
        assert made == ids["input_word_ids"].tolist(), f"ids by {name}"
    assert said["moved"] > 0, "BERT trains, dropout included"
    if backend == "jax":
        np.testing.assert_allclose(said["export"], 0, atol=1e-5)

    outputs = encoder(ids, return_attention_scores=True, return_attention_received=True)
    with np.load(tmp_path / "results.npz") as results:
        for name in ("pooled_output", "embedding_output", "attention_received"):
            np.testing.assert_allclose(results[name], outputs[name], atol=1e-4, err_msg=name)
        for name in ("encoder_outputs", "attention_scores"):
            np.testing.assert_allclose(results[name], np.stack(outputs[name]), atol=1e-4, err_msg=name)
        for name in POOLING_NAMES:
            pooling = get_pooling(name, vocabulary.token_kinds)
            expected = to_numpy(pooling(outputs, ids["input_mask"], input_word_ids=ids["input_word_ids"]))
            tolerance = 1e-4
            if name == "trend":  # rounding of 1e-5 in the states, over their magnitude
                tolerance = trend_bound(pooling, outputs, ids)
            assert np.all(np.abs(results[name] - expected) <= tolerance), name

        wide = BertEncoder(encoder.config, dtype="float64")
        wide.set_named_weights(encoder.named_weights())
        outputs, pooling = wide(ids, return_attention_received=True), get_pooling("trend", vocabulary.token_kinds)
        expected = to_numpy(pooling(outputs, ids["input_mask"], input_word_ids=ids["input_word_ids"]))
        # Under PyTorch Keras computes some operations of float64 in float32.
        np.testing.assert_allclose(
            results["trend_float64"], expected, rtol=0, atol={"jax": 1e-6, "torch": 1e-4}[backend]
        )


def trend_bound(pooling, outputs, ids):
    """Return how far the log ratio may move when the states move by 1e-5, and never less than 1e-4."""
    chosen = pooling.select(outputs, ids["input_mask"], ids["input_word_ids"])
    bound, rows = 0.0, np.arange(len(ids["input_mask"]))
    for which in ("anchor", "related"):
        for name in ("embedding_output", "sequence_output"):
            bound = bound + 1e-5 / np.abs(to_numpy(outputs[name])[rows, to_numpy(chosen[which])])
    return np.maximum(bound, 1e-4)


def test_importing_the_package_imports_nothing_heavy_and_reading_minilm_needs_none_of_it(minilm_installed):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    code = """
    import sys, keras
    of_keras = set(sys.modules)  # with scikit-learn and matplotlib, where they are installed
    from keras_bert_trend import BertEncoder
    encoder = BertEncoder.from_handle("minilm")
    own = {name.partition(".")[0] for name in set(sys.modules) - of_keras}
    print(encoder.config.num_layers, "tensorflow" in sys.modules, *own & {"sklearn", "scipy", "matplotlib", "joblib"})
    """
    assert run_fresh(code, KERAS_BACKEND="jax").split() == ["6", "False"]
