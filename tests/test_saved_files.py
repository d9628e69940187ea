"""Files that an earlier version saved load with this one and give the numbers they gave (`fixtures/saved_0_1_0`)."""

import json
import operator
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the ops of exported models)

from keras_bert_trend import BertEncoder, FusedAdamW, WarmupLinearDecay
from tests.common import FIXTURES, run_fresh
from tests.fixtures.saved_0_1_0 import write

FOLDER = FIXTURES / "saved_0_1_0"

#: The names in `.keras` files of version 0.1.0, written out: renaming a class must not rename them.
REGISTERED = [
    "keras_bert_trend>BertEncoder",
    "keras_bert_trend>BertPreprocessor",
    "keras_bert_trend>BertTrend",
    "keras_bert_trend>ClsPooling",
    "keras_bert_trend>ConcatPooling",
    "keras_bert_trend>FirstLastMean",
    "keras_bert_trend>FusedAdamW",
    "keras_bert_trend>LastFourConcat",
    "keras_bert_trend>LastFourSum",
    "keras_bert_trend>LayerPooling",
    "keras_bert_trend>MaxPooling",
    "keras_bert_trend>MeanPooling",
    "keras_bert_trend>MeanStdPooling",
    "keras_bert_trend>PoolerPooling",
    "keras_bert_trend>SecondToLast",
    "keras_bert_trend>TrendPooling",
    "keras_bert_trend>WarmupLinearDecay",
]


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # The log ratio divides rounding errors by states near zero.
        tolerance = 1e-4 if name == "sentence_pieces sentence_embedding" else 1e-6
        np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def starting_with(expected, *names):
    return {key: value for key, value in expected.items() if key.split()[0] in names}


@pytest.mark.parametrize("imports", ["keras_bert_trend, keras", "keras, keras_bert_trend"])
def test_keras_files_need_no_other_import(expected, tmp_path, imports):
    code = """
    import json, pathlib, sys
    folder, result, names = sys.argv[1:]
    missing = [name for name in json.loads(names) if keras.saving.get_registered_object(name) is None]
    assert not missing, missing
    models = {path.stem: keras.models.load_model(path) for path in pathlib.Path(folder).glob("*.keras")}
    import numpy
    from tests.fixtures.saved_0_1_0.write import observe
    numpy.savez(result, **observe(models))
    """
    code = f"import {imports}\n{textwrap.dedent(code)}"
    run_fresh(code, FOLDER, tmp_path / "got.npz", json.dumps(REGISTERED))
    with np.load(tmp_path / "got.npz") as got:
        assert_same(dict(got), starting_with(expected, "classifier", "token_ids", "sentence_pieces"))


def test_training_goes_on_where_it_was(expected):
    model = keras.models.load_model(FOLDER / "classifier.keras")
    assert isinstance(model.optimizer, FusedAdamW)
    assert isinstance(model.optimizer._learning_rate, WarmupLinearDecay)
    assert model.optimizer.iterations == 4
    assert_same(write.train(model), starting_with(expected, "trained"))


def test_weights_load_into_a_model_built_anew():
    built, loaded = write.classifier(), keras.models.load_model(FOLDER / "classifier.keras")
    built.optimizer.build(built.trainable_variables)
    built.load_weights(FOLDER / "classifier.weights.h5")
    for group in ("trainable_variables", "non_trainable_variables", "optimizer.variables"):
        for variable, same in zip(*map(operator.attrgetter(group), (built, loaded)), strict=True):
            np.testing.assert_array_equal(variable, same, err_msg=f"{group}: {same.path}")
    texts = tf.constant(write.TEXTS)
    np.testing.assert_array_equal(built(texts), loaded(texts))


def test_exports_load_in_plain_tensorflow(expected):
    model, encoder = (tf.saved_model.load(FOLDER / name) for name in ("exported_model", "exported_encoder"))
    got = {
        "exported_model": model.serve(tf.constant(write.TEXTS)),
        **write.flat("exported_encoder", encoder(write.INPUTS)),
    }
    assert_same(got, starting_with(expected, "exported_model", "exported_encoder"))


def test_an_exported_encoder_is_a_handle(expected):
    encoder = BertEncoder.from_handle(FOLDER / "exported_encoder")
    assert_same(write.flat("from_handle", encoder(write.INPUTS)), starting_with(expected, "from_handle"))
