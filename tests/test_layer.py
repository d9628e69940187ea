"""`BertTrend` in every kind of model: shapes, training, invariance, saving, exporting, errors."""

import dataclasses
import functools
import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bert_trend import (
    POOLING_NAMES,
    BertEncoder,
    BertPreprocessor,
    BertTrend,
    LastFourSum,
    LayerPooling,
    MeanPooling,
)
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling
from tests.common import EXACT_DTYPE, SAME_BITS, SENTENCES, V4, assert_same, run_fresh, symbolic_inputs, to_numpy

MORE = [*SENTENCES, "the good river of the bank", "a", "I HAVE won a FREE prize; call now", "..", "is it a bank?"]


def make(pooling="smooth_trend", **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BertTrend(V4, pooling=pooling, **{"sequence_length": 32, **arguments})


def classifier(layer):
    text = keras.Input((), dtype="string", name="text")
    return keras.Model(text, keras.layers.Dense(1, "sigmoid")(layer(text)))


@pytest.mark.parametrize("pooling", [*POOLING_NAMES, ["mean", "trend"], LayerPooling([0, 1], combine="concat")])
def test_embedding_dim_is_known_before_the_first_call(pooling):
    layer = make(pooling)
    width = layer.embedding_dim
    assert layer(keras.Input((), dtype="string")).shape == (None, width)
    assert layer(SENTENCES).shape == (len(SENTENCES), width)


def test_strings_pairs_and_ids():
    layer = make(dtype=EXACT_DTYPE)
    ids = layer.preprocessor(SENTENCES)
    assert_same(layer(SENTENCES), layer(ids))
    pair = (SENTENCES, SENTENCES[::-1])
    assert_same(layer(pair), layer(layer.preprocessor(pair)))
    assert np.abs(to_numpy(layer(pair)) - to_numpy(layer(SENTENCES))).max() > 1e-2
    symbolic = layer((keras.Input((), dtype="string"), keras.Input((), dtype="string")))
    assert symbolic.shape == (None, 32)
    assert layer(symbolic_inputs()).shape == (None, 32)


def test_it_is_the_three_rooms_in_a_row():
    layer = make("trend", dtype=EXACT_DTYPE)
    inputs = layer.preprocessor(SENTENCES)
    outputs = layer.encoder(inputs, return_attention_received=True)
    expected = layer.pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])
    assert_same(layer(SENTENCES), expected)


def test_return_all():
    layer = make("mean", dtype=EXACT_DTYPE)
    everything = layer(SENTENCES, return_all=True)
    assert set(everything) == {
        *INPUT_NAMES,
        *("pooled_output", "default", "sequence_output", "encoder_outputs", "embedding_output"),
        *("attention_scores", "attention_received", "sentence_embedding"),
    }
    assert_same(everything["sentence_embedding"], layer(SENTENCES))
    assert set(make("mean", return_all=True)(SENTENCES)) == set(everything)
    symbolic = layer(keras.Input((), dtype="string"), return_all=True)
    assert symbolic["attention_received"].shape == (None, 3, 4, 32)


def test_sequential_and_subclassed_models():
    sequential = keras.Sequential([keras.Input((), dtype="string"), make(), keras.layers.Dense(2)])
    assert sequential.predict(tf.constant(SENTENCES), verbose=0).shape == (len(SENTENCES), 2)

    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.bert = make()
            self.head = keras.layers.Dense(1, "sigmoid")

        def call(self, text, training=None):
            return self.head(self.bert(text, training=training))

    model = Classifier()
    model.compile("sgd", "binary_crossentropy")
    data = tf.data.Dataset.from_tensor_slices((SENTENCES, [0.0, 1.0] * 3)).batch(3)
    model.fit(data, verbose=0)
    assert model.predict(tf.constant(SENTENCES), verbose=0).shape == (len(SENTENCES), 1)


@pytest.mark.smoke
def test_fit_trains_bert_and_learns():
    """The point of the package: what holds a SavedModel leaves BERT frozen, and this does not."""
    keras.utils.set_random_seed(0)
    layer = make("smooth_trend")
    before = {name: value.copy() for name, value in layer.encoder.named_weights().items()}
    model = classifier(layer)
    model.compile(keras.optimizers.AdamW(3e-3), "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)  # or Keras traces the step twice
    texts = tf.constant(["the river is good", "call now"] * 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no weight without a gradient
        losses = model.fit(texts, np.array([0.0, 1.0] * 8), epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    moved = {n for n, value in layer.encoder.named_weights().items() if np.any(value != before[n])}
    assert moved == {name for name in before if "pooler" not in name}  # which smooth_trend does not use


def test_looking_inside_leaves_what_trains_as_it_is():
    """An optimizer is made for the weights that train: asking for everything afterwards may not add to them."""
    layer = make("mean", return_all=False)
    model = classifier(layer)
    model.compile("sgd", "binary_crossentropy")
    labels = np.array([0.0, 1.0] * 3)
    model.fit(tf.constant(SENTENCES), labels, verbose=0)
    trained = [weight.path for weight in layer.trainable_weights]
    layer(SENTENCES, return_all=True)
    layer(keras.Input((), dtype="string"), return_all=True)
    assert [weight.path for weight in layer.trainable_weights] == trained
    model.fit(tf.constant(SENTENCES), labels, verbose=0)
    asked_for = make("mean", return_all=True)  # here it may be trained on, so it trains
    assert {weight.path for weight in asked_for.trainable_weights} - set(trained)


def test_a_frozen_bert_stays_and_its_head_trains():
    layer = make("mean", trainable=False)
    before = layer.get_weights()
    model = classifier(layer)
    model.compile("sgd", "binary_crossentropy")
    head = model.layers[-1].get_weights()[0]
    model.fit(tf.constant(SENTENCES), np.array([0.0, 1.0] * 3), verbose=0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(model.layers[-1].get_weights()[0] != head)
    assert layer.trainable_weights == []


@pytest.mark.parametrize("arguments", [{"freeze_embeddings": True}, {"trainable_layers": 1}])
def test_freezing_arguments_reach_the_encoder(arguments):
    layer = make("pooler", **arguments)
    expected = BertEncoder(layer.encoder.config, **arguments)
    assert len(layer.trainable_weights) == len(expected.trainable_weights) < len(expected.weights)


def test_rematerialize_reaches_the_encoder():
    assert make("mean", rematerialize=True).encoder.rematerialize
    assert not make("mean").encoder.rematerialize


@pytest.mark.parametrize("pooling", [*POOLING_NAMES, ["smooth_trend", "mean_std"]])
def test_gradients_are_finite_for_every_weight(pooling):
    """Also for the empty text, one word, and punctuation only; each text alone, so that none hides behind another."""
    layer = make(pooling)
    head = tf.constant(np.random.default_rng(0).normal(size=(layer.embedding_dim, 1)).astype("float32"))
    for text in ["", "bank", "?!...", "I want an apple.", "zzz qqq"]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.tanh(layer([text]) @ head))
        variables = [weight.value for weight in layer.trainable_weights]
        for weight, gradient in zip(layer.trainable_weights, tape.gradient(loss, variables), strict=True):
            if gradient is not None:
                assert np.isfinite(tf.convert_to_tensor(gradient)).all(), (weight.path, text)


def test_trend_gradient_reaches_the_word_embeddings_and_layer_0():
    layer = make("trend")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(["i want an apple"]))
    tables = layer.encoder.embeddings.word_embeddings, *layer.encoder.blocks[0].trainable_weights
    for weight, gradient in zip(tables, tape.gradient(loss, [w.value for w in tables]), strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def pool_all(layer, inputs):
    """Return the embeddings of every pooling, from one run of the encoder."""
    outputs = layer.encoder(inputs, return_attention_received=True)
    return {
        name: pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])
        for name, pooling in poolings_of(layer).items()
    }


@functools.cache
def poolings_of(layer):
    """Return every pooling by name, made once: inside a graph none could create its weights."""
    poolings = {name: get_pooling(name, layer.preprocessor.vocabulary.token_kinds) for name in POOLING_NAMES}
    for pooling in poolings.values():
        pooling.create_weights(layer.encoder.config.hidden_size, layer.encoder.config.num_layers)
    return poolings


class TestInvariance:
    """Padding, batch order and batch composition change no embedding by more than 1e-5."""

    @staticmethod
    def worst_difference(layer):
        """Return by how much any embedding of `MORE` changes when it is got in other ways, per pooling."""
        ids = layer.preprocessor(MORE)
        plain = {name: to_numpy(value) for name, value in pool_all(layer, ids).items()}
        worst = dict.fromkeys(POOLING_NAMES, 0.0)

        def compare(inputs, rows):
            for name, value in pool_all(layer, inputs).items():
                worst[name] = max(worst[name], np.abs(to_numpy(value) - plain[name][rows]).max())

        compare({name: tf.pad(value, [[0, 0], [0, 25]]) for name, value in ids.items()}, slice(None))
        order = np.random.default_rng(0).permutation(len(MORE))
        compare(layer.preprocessor([MORE[i] for i in order]), order)
        for size in (1, 2, 5):
            for start in range(0, len(MORE), size):
                rows = slice(start, start + size)
                compare({name: value[rows] for name, value in ids.items()}, rows)
        return worst

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_eager(self, dtype):
        """The trends too, which magnify what is left of a state's rounding: none is, where products keep their bits."""
        worst = self.worst_difference(make("mean", dtype=dtype))
        if dtype == "float32" and not SAME_BITS:
            worst = {name: difference for name, difference in worst.items() if "trend" not in name}
        assert max(worst.values()) <= 1e-5, worst

    def test_in_a_graph(self):
        layer = make(["trend", "smooth_trend", "mean"], sequence_length=None, dtype=EXACT_DTYPE)
        embed = tf.function(lambda texts: layer(texts), input_signature=[tf.TensorSpec((None,), tf.string)])
        together = embed(tf.constant(MORE))
        for i, text in enumerate(MORE):
            np.testing.assert_allclose(embed(tf.constant([text]))[0], together[i], atol=1e-5)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=4))
@settings(max_examples=25)
def test_any_unicode_text_has_a_finite_embedding_that_its_neighbours_do_not_change(any_text_layer, texts):
    together = to_numpy(any_text_layer(tf.constant(texts)))
    assert np.isfinite(together).all()
    alone = np.concatenate([to_numpy(any_text_layer(tf.constant([text]))) for text in texts])
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.fixture(scope="module")
def any_text_layer():
    """The layer as one graph, which is what makes many calls quick."""
    layer = make("smooth_trend", dtype=EXACT_DTYPE)
    return tf.function(lambda texts: layer(texts), input_signature=[tf.TensorSpec((None,), tf.string)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_with_xla(dtype):
    layer = make("mean", dtype=dtype)
    ids = layer.preprocessor(MORE)
    expected = pool_all(layer, ids)
    for name, value in tf.function(lambda x: pool_all(layer, x), jit_compile=True)(ids).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minilm_compiled_with_xla(dtype, minilm_installed):
    """A compiler's sums round otherwise, and the log ratio divides that by a state: it needs float64 to be the same."""
    layer = BertTrend("minilm", pooling="mean", trainable=False, sequence_length=24, dtype=dtype)
    ids = layer.preprocessor(MORE)
    expected = pool_all(layer, ids)
    for name, value in tf.function(lambda x: pool_all(layer, x), jit_compile=True)(ids).items():
        if (name, dtype) != ("trend", "float32"):
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_a_model_of_strings_is_not_compiled_with_xla():
    layer = make("mean")
    assert not layer.preprocessor.supports_jit
    layer(symbolic_inputs())
    assert layer.preprocessor.supports_jit
    layer(keras.Input((), dtype="string"))
    assert not layer.preprocessor.supports_jit


@pytest.mark.smoke
def test_training_step_compiled_with_xla_on_ids(encoder, vocabulary):
    one_block = BertEncoder(
        dataclasses.replace(encoder.config, num_layers=1), train_pooler=False
    )  # XLA is slow on each
    preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=32)
    layer = BertTrend(encoder=one_block, preprocessor=preprocessor, pooling="smooth_trend")
    inputs = symbolic_inputs(32)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns where it goes on without XLA
        model.compile("sgd", "mse", jit_compile=True)
    assert model.jit_compile
    ids = {name: to_numpy(value) for name, value in layer.preprocessor(SENTENCES).items()}
    assert np.isfinite(model.fit(ids, np.zeros((len(SENTENCES), 1)), verbose=0).history["loss"][0])


@pytest.mark.smoke
class TestRoundTrips:
    """Save or export here, load elsewhere."""

    def test_in_a_fresh_process(self, tmp_path):
        """An export needs TensorFlow only and may be moved; a `.keras` file needs this package. One process for all."""
        models = {pooling: classifier(make(pooling)) for pooling in ("trend", "smooth_trend")}
        models["two"] = classifier(make(["mean", "last_four_sum"]))
        models["open length"] = classifier(make("trend", sequence_length=None))
        for name in ("trend", "open length"):
            models[name].export(tmp_path / "exported" / name, verbose=False)
        moved = tmp_path / "elsewhere" / "models"
        moved.parent.mkdir()
        shutil.move(tmp_path / "exported", moved)
        for name in ("trend", "smooth_trend", "two"):
            models[name].save(tmp_path / f"{name}.keras")
        code = """
        import json, sys
        import tensorflow as tf, tensorflow_text
        texts, exported, saved = json.loads(sys.argv[1])
        texts = tf.constant(texts)
        models = {name: tf.saved_model.load(path) for name, path in exported.items()}
        served = {name: model.serve(texts).numpy().tolist() for name, model in models.items()}
        assert not [name for name in sys.modules if name.startswith("keras_bert_trend")]
        import keras, keras_bert_trend
        models = {name: keras.models.load_model(path) for name, path in saved.items()}
        loaded = {name: model.predict(texts, verbose=0).tolist() for name, model in models.items()}
        print(json.dumps([served, loaded]))
        """
        exported = {name: str(moved / name) for name in ("trend", "open length")}
        saved = {name: str(tmp_path / f"{name}.keras") for name in ("trend", "smooth_trend", "two")}
        served, loaded = json.loads(run_fresh(code, json.dumps([MORE, exported, saved])))
        expected = {name: model.predict(tf.constant(MORE), verbose=0) for name, model in models.items()}
        for results, tolerance in ((served, 1e-5), (loaded, 1e-6)):
            for name, result in results.items():
                np.testing.assert_allclose(result, expected[name], rtol=0, atol=tolerance, err_msg=name)

    def test_saved_file_needs_no_handle(self, tmp_path):
        """The folder the weights came from is gone when the file is loaded."""
        shutil.copytree(V4, tmp_path / "source")
        layer = BertTrend(tmp_path / "source", pooling="mean", sequence_length=16)
        model = classifier(layer)
        model.save(tmp_path / "model.keras")
        expected = model.predict(tf.constant(SENTENCES), verbose=0)
        shutil.rmtree(tmp_path / "source")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(tf.constant(SENTENCES), verbose=0), expected)
        assert str(tmp_path) not in json.dumps(layer.get_config())

    def test_config_and_clone(self):
        layer = make(["trend", "mean"], trainable_layers=1, return_all=False, name="bert")
        clone = BertTrend.from_config(layer.get_config())
        assert clone.get_config() == layer.get_config()
        assert len(clone.trainable_weights) == len(layer.trainable_weights)
        clone.set_weights(layer.get_weights())
        np.testing.assert_array_equal(clone(SENTENCES), layer(SENTENCES))

        model = classifier(layer)
        copied = keras.models.clone_model(model)
        copied.set_weights(model.get_weights())
        np.testing.assert_array_equal(
            copied.predict(tf.constant(SENTENCES), verbose=0), model.predict(tf.constant(SENTENCES), verbose=0)
        )

    def test_frozen_state_survives(self, tmp_path):
        model = classifier(make("mean", trainable=False))
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert len(loaded.trainable_weights) == len(model.trainable_weights) == 2


def test_mixed_precision_policy_reaches_every_part():
    keras.config.set_dtype_policy("mixed_float16")
    layer = make("trend")
    assert layer.encoder.compute_dtype == "float16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    embedding = layer(MORE)
    assert embedding.dtype == tf.float16
    assert np.isfinite(embedding).all()


def test_an_encoder_and_a_preprocessor_of_ones_own(small_config, encoder, vocabulary):
    preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=12)
    layer = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling=LastFourSum(level="token"))
    assert layer(SENTENCES).shape == (len(SENTENCES), 12, 32)

    ids_only = BertTrend(encoder=encoder, pooling=MeanPooling())
    assert ids_only(preprocessor(SENTENCES)).shape == (len(SENTENCES), 32)
    with pytest.raises(ValueError, match="no preprocessor"):
        ids_only(SENTENCES)
    with pytest.raises(ValueError, match="needs a vocabulary"):
        BertTrend(encoder=encoder, pooling="trend")


def test_empty_batch_gives_an_empty_result():
    for length in (16, None):
        layer = make(sequence_length=length)
        assert layer([]).shape == (0, 32)
        assert layer(tf.constant([], tf.string)).shape == (0, 32)


def test_default_length_fits_the_model():
    assert BertTrend(V4, pooling="mean").preprocessor.sequence_length == 64  # its positions; 128 where there are more


class TestErrors:
    def test_handle_and_encoder(self, encoder):
        with pytest.raises(ValueError, match="either `handle` or `encoder`"):
            BertTrend()
        with pytest.raises(ValueError, match="either `handle` or `encoder`"):
            BertTrend(V4, encoder=encoder)

    def test_wrong_handle(self, tmp_path):
        with pytest.raises(ValueError, match="does not exist"):
            BertTrend(tmp_path / "nowhere")
        for name in ("bert-base-uncased", "google-bert/bert-base-uncased"):
            with pytest.raises(ValueError, match=f"'{name}' does not exist.*Hugging Face: nothing is downloaded"):
                BertTrend(name)

    def test_lengths(self):
        for arguments in ({"sequence_length": 65}, {"sequence_length": None, "max_length": 65}):
            with pytest.raises(ValueError, match="longer than the model"):
                BertTrend(V4, pooling="mean", **arguments)

    def test_longer_text_than_the_model(self):
        layer = make("mean", sequence_length=None)
        with pytest.raises(ValueError, match=r"Text 1 of the batch .* has 122 tokens: more tokens than max_length=64"):
            layer(["bank", "bank of the river " * 30])
        assert make("mean", sequence_length=None, truncate=True)(["bank of the river " * 30]).shape == (1, 32)

    @pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: (*t, "more")])
    def test_vocabulary_of_another_model(self, vocabulary, change):
        with pytest.raises(ValueError, match=r"`vocabulary` has 17[68] tokens, .* 177 rows"):
            BertTrend(V4, pooling="mean", vocabulary=change(vocabulary.tokens))

    def test_no_vocabulary(self, tmp_path):
        shutil.copytree(V4, tmp_path / "model")
        from tensorflow.core.protobuf import saved_model_pb2

        file = tmp_path / "model" / "saved_model.pb"
        proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        for child in proto.meta_graphs[0].object_graph_def.nodes[0].children:
            if child.local_name == "vocab_file":
                child.local_name = "something_else"
        file.write_bytes(proto.SerializeToString())
        (tmp_path / "model" / "fingerprint.pb").unlink()
        with pytest.raises(ValueError, match="brings no vocabulary"):
            BertTrend(tmp_path / "model")
        given = BertTrend(tmp_path / "model", pooling="mean", vocabulary=V4 / "assets" / "vocab.txt")
        assert given.preprocessor.lower_case is True

    def test_inputs(self):
        layer = make("mean")
        with pytest.raises(ValueError, match="batch of strings"):
            layer("one text")
        with pytest.raises(ValueError, match="input_mask"):
            layer({"input_word_ids": tf.constant([[1]])})
        with pytest.raises(ValueError, match=r"\(batch, sentences\); got shape \(1, 1, 1\)"):
            layer(tf.constant([[["a"]]]))
        with pytest.raises(ValueError, match="dtype float32"):
            layer(tf.constant([1.0]))
