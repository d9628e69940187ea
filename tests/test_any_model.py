"""The layer as a citizen of Keras: any kind of model, texts in any shape, sharing and freezing without side effects."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder, BertPreprocessor, BertTrend, ConcatPooling, LastFourSum, TrendPooling
from tests.common import V4, random_inputs, run_fresh, to_numpy

TEXTS = np.array(["I want an apple.", "The bank of the river", "good!", "Hello"], dtype=object)
LABELS = np.array([0.0, 1.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def layer():
    """Shared: no test trains or changes it."""
    return BertTrend(V4, pooling="mean", sequence_length=16)


@pytest.fixture(scope="module")
def vectors(layer):
    return to_numpy(layer(tf.constant(TEXTS)))


def batches(features, labels=None):
    data = features if labels is None else (features, labels)
    return tf.data.Dataset.from_tensor_slices(data).batch(2)


@keras.saving.register_keras_serializable(package="any_model")
class OnStrings(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bert = BertTrend(V4, pooling="mean", sequence_length=16)
        self.head = keras.layers.Dense(1)

    def call(self, texts):
        return self.head(self.bert(texts))


@keras.saving.register_keras_serializable(package="any_model")
class OnIds(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = BertEncoder.from_handle(V4)
        self.head = keras.layers.Dense(1)

    def call(self, ids):
        return self.head(self.encoder(ids)["pooled_output"])


@keras.saving.register_keras_serializable(package="any_model")
class Nested(OnStrings):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        text = keras.Input((), dtype="string")
        self.bert = keras.Model(text, self.bert(text))


def sequential():
    return keras.Sequential([BertTrend(V4, pooling="mean", sequence_length=16), keras.layers.Dense(1)])


@pytest.mark.parametrize("make", [OnStrings, OnIds, Nested, sequential])
def test_models_without_an_input_train_and_reload(make, layer, tmp_path):
    features = TEXTS if make is not OnIds else {name: to_numpy(x) for name, x in layer.preprocessor(TEXTS).items()}
    model = make()
    model.compile("sgd", "mse")
    model.fit(batches(features, LABELS), verbose=0)
    expected = model.predict(batches(features), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(batches(features), verbose=0), expected)


def test_a_subclassed_model_exports_with_a_signature_of_strings(tmp_path):
    model = OnStrings()
    expected = model(tf.constant(TEXTS))
    signature = [tf.TensorSpec([None], tf.string, name="text")]
    model.export(tmp_path / "export", input_signature=signature, verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(served.serve(tf.constant(TEXTS)), expected, atol=1e-5)


class TestShapes:
    def test_a_column(self, layer, vectors):
        column = tf.constant(TEXTS[:, None])
        np.testing.assert_array_equal(layer(column), vectors)
        text = keras.Input((1,), dtype="string")
        model = keras.Model(text, layer(text))
        assert model.output_shape == (None, 32)
        np.testing.assert_allclose(model.predict(column, verbose=0), vectors, atol=1e-5)

    @pytest.mark.parametrize("sentences", [2, None])
    def test_documents(self, layer, vectors, sentences):
        documents = tf.constant(TEXTS.reshape(2, 2))
        text = keras.Input((sentences,), dtype="string")
        model = keras.Model(text, layer(text))
        assert model.output_shape == (None, sentences, 32)
        np.testing.assert_allclose(model.predict(documents, verbose=0), vectors.reshape(2, 2, 32), atol=1e-5)

    def test_documents_by_time_distributed(self, layer, vectors):
        text = keras.Input((2, 1), dtype="string")
        model = keras.Model(text, keras.layers.TimeDistributed(layer)(text))
        got = model.predict(tf.constant(TEXTS.reshape(2, 2, 1)), verbose=0)
        np.testing.assert_allclose(got, vectors.reshape(2, 2, 32), atol=1e-5)

    def test_one_text_before_batching(self, layer, vectors):
        ids = next(iter(tf.data.Dataset.from_tensor_slices(TEXTS).map(layer.preprocessor).batch(4)))
        np.testing.assert_allclose(layer(ids), vectors, atol=1e-5)

    def test_named_features(self, layer, vectors):
        np.testing.assert_array_equal(layer({"review": tf.constant(TEXTS)}), vectors)
        np.testing.assert_array_equal(layer([tf.constant(TEXTS)]), vectors)
        pairs = to_numpy(layer((TEXTS, TEXTS[::-1])))
        np.testing.assert_array_equal(layer({"sentence2": TEXTS, "sentence1": TEXTS[::-1]}), pairs)
        inputs = {name: keras.Input((), dtype="string", name=name) for name in ("sentence2", "sentence1")}
        model = keras.Model(inputs, layer(inputs))
        got = model.predict({"sentence1": tf.constant(TEXTS[::-1]), "sentence2": tf.constant(TEXTS)}, verbose=0)
        np.testing.assert_allclose(got, pairs, atol=1e-5)

    def test_two_numpy_strings_are_two_texts(self, layer, vectors):
        texts = list(np.array([str(text) for text in TEXTS[:2]]))
        np.testing.assert_allclose(layer(texts), vectors[:2], atol=1e-5)

    def test_errors(self, layer):
        with pytest.raises(ValueError, match=r"\(batch, sentences\); got shape \(1, 2, 2\)"):
            layer(tf.constant(TEXTS.reshape(1, 2, 2)))
        with pytest.raises(ValueError, match="RaggedTensor: call its to_tensor"):
            layer(tf.ragged.constant([["a"], ["b", "c"]]))
        ids = {name: tf.ragged.constant([[1, 2], [3]]) for name in ("input_word_ids", "input_mask", "input_type_ids")}
        with pytest.raises(ValueError, match="`input_word_ids` must be a dense tensor, got a RaggedTensor"):
            layer(ids)


def test_a_request_of_the_wrong_rank_raises_and_the_server_lives(layer, tmp_path):
    """Without a check in the graph the fast tokenizer's operation ends the process on a scalar string."""
    text = keras.Input((), dtype="string", name="text")
    keras.Model(text, layer(text)).export(tmp_path / "model", verbose=False)
    layer.preprocessor.export_text_preprocessing(tmp_path / "preprocessing", sequence_length=16)
    code = """
        import sys
        import tensorflow as tf, tensorflow_text
        from tensorflow.python.eager import context
        for path in sys.argv[1:]:
            loaded = tf.saved_model.load(path)
            serve = loaded.signatures["serving_default"]
            # As a server calls it: without Python's check of the signature.
            for texts in (tf.constant("one text"), tf.constant([["a", "b"]])):
                try:
                    serve._call_flat([texts], serve.captured_inputs)
                except (tf.errors.InvalidArgumentError, ValueError) as error:
                    print("refused")
        print("alive")
    """
    printed = run_fresh(code, tmp_path / "model", tmp_path / "preprocessing").split()
    assert printed == ["refused"] * 4 + ["alive"]


class TestSharing:
    def test_a_second_layer_leaves_a_shared_encoder_as_it_is(self, layer):
        encoder = BertEncoder.from_handle(V4)
        parts = {"encoder": encoder, "preprocessor": layer.preprocessor, "pooling": "mean"}
        training = BertTrend(**parts)
        frozen = BertTrend(**parts, trainable=False)
        assert len(training.trainable_weights) == len(encoder.trainable_weights) == 43
        assert frozen.trainable_weights == []
        with tf.GradientTape(persistent=True) as tape:
            losses = [tf.reduce_sum(each(tf.constant(TEXTS), training=True)) for each in (training, frozen)]
        variables = [variable.value for variable in encoder.trainable_variables]
        assert all(gradient is not None for gradient in tape.gradient(losses[0], variables))
        assert all(gradient is None for gradient in tape.gradient(losses[1], variables))
        np.testing.assert_allclose(frozen(TEXTS, training=True), frozen(TEXTS), atol=1e-5)

    def test_a_frozen_layer_adds_nothing_to_train_to_a_model(self):
        text = keras.Input((), dtype="string")
        head = keras.layers.Dense(1)
        model = keras.Model(text, head(BertTrend(V4, pooling="mean", trainable=False)(text)))
        assert [weight.path for weight in model.trainable_weights] == [weight.path for weight in head.weights]

    def test_a_frozen_encoder_is_not_said_to_train(self):
        encoder = BertEncoder.from_handle(V4, trainable=False)
        with pytest.raises(ValueError, match="`trainable`=True, but the encoder is frozen: set encoder.trainable"):
            BertTrend(encoder=encoder, pooling="mean", trainable=True)
        assert BertTrend(encoder=encoder, pooling="mean").trainable_weights == []

    @pytest.mark.parametrize("frozen", ["block", "embeddings", "all", "all but a block"])
    def test_what_is_frozen_stays_frozen(self, frozen, tmp_path):
        layer = BertTrend(V4, pooling="mean", sequence_length=16)
        encoder = layer.encoder
        if frozen.startswith("all"):
            layer.trainable = False
        if "block" in frozen:
            encoder.blocks[0].trainable = frozen == "all but a block"
        if frozen == "embeddings":
            encoder.embeddings.trainable = False
        text = keras.Input((), dtype="string")
        model = keras.Model(text, layer(text))
        model.save(tmp_path / "model.keras")
        flags = [weight.trainable for weight in model.weights]
        assert len(set(flags)) == (1 if frozen == "all" else 2)
        for again in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
            assert [weight.trainable for weight in again.weights] == flags

    def test_a_layer_on_ids_does_not_let_a_string_model_be_compiled(self):
        preprocessor = BertPreprocessor.from_handle(V4, sequence_length=16)
        encoder = BertEncoder.from_handle(V4)
        first, second = (BertTrend(encoder=encoder, preprocessor=preprocessor, pooling="mean") for _ in range(2))
        text = keras.Input((), dtype="string")
        model = keras.Model(text, keras.layers.Dense(1)(first(text)))
        ids = {name: keras.Input((16,), dtype="int32", name=name) for name in preprocessor(TEXTS)}
        on_ids = keras.Model(ids, second(ids))
        assert second.supports_jit
        assert not first.supports_jit
        assert not preprocessor.supports_jit
        model.compile("sgd", "mse")
        model.fit(tf.constant(TEXTS), LABELS, verbose=0)
        assert on_ids.predict(preprocessor(TEXTS), verbose=0).shape == (4, 32)

    def test_a_model_of_ids_may_be_compiled(self, layer):
        own = BertTrend.from_config(layer.get_config())
        assert not own.supports_jit  # nobody knows yet what it will be called on
        own(layer.preprocessor(TEXTS))
        assert own.supports_jit
        assert own.preprocessor.supports_jit

    def test_a_pooler_that_nobody_reads_has_a_gradient_of_zero(self):
        encoder = BertEncoder.from_handle(V4)
        preprocessor = BertPreprocessor.from_handle(V4, sequence_length=16)
        text = keras.Input((), dtype="string")
        embedding = BertTrend(encoder=encoder, preprocessor=preprocessor)(text)
        model = keras.Model(text, keras.layers.Dense(1)(embedding))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        before = to_numpy(encoder.pooler_kernel)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(tf.constant(TEXTS), LABELS, verbose=0)
        np.testing.assert_array_equal(encoder.pooler_kernel, before)


class TestArguments:
    @pytest.mark.parametrize(
        "argument",
        [
            {"sequence_length": 99},
            {"max_length": 99},
            {"truncate": True},
            {"vocabulary": "nonsense"},
            {"lower_case": True},
            {"freeze_embeddings": True},
            {"trainable_layers": 1},
            {"rematerialize": True},
        ],
        ids=str,
    )
    def test_what_makes_an_encoder_is_refused_beside_one(self, argument, layer):
        (name,) = argument
        with pytest.raises(ValueError, match=f"`{name}` cannot be given with `encoder`"):
            BertTrend(encoder=layer.encoder, preprocessor=layer.preprocessor, **argument)

    def test_a_preprocessor_is_refused_beside_a_handle(self, layer):
        with pytest.raises(ValueError, match="`preprocessor` goes with `encoder`"):
            BertTrend(V4, preprocessor=layer.preprocessor)

    def test_numpy_integers_are_integers(self):
        layer = BertTrend(V4, sequence_length=np.int64(16), trainable_layers=np.int32(1))
        assert layer.preprocessor.sequence_length == 16
        assert BertTrend.from_config(layer.get_config()).get_config() == layer.get_config()

    def test_a_preprocessor_or_a_vocabulary_as_vocabulary(self, layer, vectors):
        for vocabulary in (layer.preprocessor, layer.preprocessor.vocabulary):
            own = BertTrend(V4, pooling="mean", sequence_length=16, vocabulary=vocabulary)
            np.testing.assert_array_equal(own(TEXTS), vectors)


class TestDefaults:
    def test_training_through_the_default_does_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer = BertTrend(V4)
        assert layer.trainable
        assert layer.pooling.measure == "asinh"

    @pytest.mark.parametrize("pooling", ["trend", ["mean", ["cls", "trend"]]])
    def test_training_through_trend_warns_at_the_users_line(self, pooling):
        for _ in range(2):  # each time: whether to show a warning twice is for `warnings` to say
            with pytest.warns(UserWarning, match="smooth_trend") as caught:
                BertTrend(V4, pooling=pooling)
            assert [warning.filename for warning in caught] == [__file__]

    def test_a_frozen_or_a_chosen_trend_does_not_warn(self, layer):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            BertTrend(V4, pooling="trend", trainable=False)
            chosen = BertTrend(V4, pooling=TrendPooling(layer.preprocessor.vocabulary.token_kinds))
            BertTrend.from_config(chosen.get_config())


class TestMasks:
    def test_what_follows_ignores_padding(self, small_config):
        encoder, inputs = BertEncoder(small_config), random_inputs(small_config, [9, 4], 12)
        symbols = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
        states = LastFourSum(level="token")(encoder(symbols), symbols["input_mask"])
        fourth = encoder(symbols)["encoder_outputs"][3]
        heads = [keras.layers.GlobalAveragePooling1D()(states), keras.layers.LSTM(3)(fourth)]
        model = keras.Model(symbols, heads)
        longer = {name: np.pad(array, [(0, 0), (0, 8)]) for name, array in inputs.items()}
        for padded, plain in zip(model.predict(longer, verbose=0), model.predict(inputs, verbose=0), strict=True):
            np.testing.assert_allclose(padded, plain, atol=1e-5)

    def test_return_all_carries_masks(self, layer):
        outputs = layer(TEXTS, return_all=True)
        for states in (outputs["embedding_output"], outputs["sequence_output"], *outputs["encoder_outputs"]):
            np.testing.assert_array_equal(states._keras_mask, outputs["input_mask"] == 1)
        assert getattr(outputs["sentence_embedding"], "_keras_mask", None) is None


class TestNames:
    def test_every_weights_path_is_its_own(self, tmp_path):
        text = keras.Input((), dtype="string")
        towers = [BertTrend(V4, pooling="mean", name=f"tower{i}")(text) for i in range(2)]
        model = keras.Model(text, keras.layers.Concatenate()(towers))
        paths = [weight.path for weight in model.weights]
        assert len(set(paths)) == len(paths)
        assert "tower0/encoder/layer_2/query_key_value_kernel" in paths
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert [weight.path for weight in again.weights] == paths
        model.compile("sgd", "mse")
        model.get_state_tree()


def test_shapes_are_known_without_a_call(layer, small_config):
    assert layer.compute_output_shape((None,)) == (None, 32)
    assert layer.compute_output_shape((None, 5)) == (None, 5, 32)
    assert layer.compute_output_shape([(None,), (None,)]) == (None, 32)
    ids = dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), (None, 9))
    assert layer.compute_output_shape(ids) == (None, 32)
    shapes = BertEncoder(small_config).compute_output_shape(ids)
    assert shapes["encoder_outputs"] == [(None, 9, 16)] * 4
    assert shapes["pooled_output"] == (None, 16)
    assert ConcatPooling([LastFourSum()]).compute_output_shape(shapes, (None, 9)) == (None, 16)
    assert layer.preprocessor.compute_output_shape((None,))["input_mask"] == (None, 16)
