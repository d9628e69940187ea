"""A SavedModel with several doors: each one answers in a process without this package as the layer does here."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import (
    BertConfig,
    BertEncoder,
    BertPreprocessor,
    BertTrend,
    TrendPooling,
    explain,
    export_saved_model,
)
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import hidden_states
from tests.common import ROOT, V4, run_fresh, to_numpy
from tests.test_cli import run

# Of no, one and many tokens; alone and three at a time.
LONG = "the bank of the river was good " * 5
BATCHES = [[""], ["bank"], [LONG], ["", "Hello, the naïve café is good!", "?!"]]
PAIRS = [(texts, list(reversed(texts))) for texts in BATCHES]

#: Asks every door of every export, with the libraries that each one needs and nothing else of TensorFlow Text.
CLIENT = """
    import json, sys
    import numpy as np
    sys.modules["keras_bert_trend"] = sys.modules["tensorflow_text"] = None
    import tensorflow as tf
    exports, requests, answers = sys.argv[1:]
    requests = dict(np.load(requests, allow_pickle=True))
    results = {}
    for name, (path, libraries) in json.loads(exports).items():
        for library in libraries:
            tf.load_op_library(library)
        loaded = tf.saved_model.load(path)
        for door, signature in loaded.signatures.items():
            _, inputs = signature.structured_input_signature
            batch = 0
            while all(f"{name}/{key}/{batch}" in requests for key in inputs):
                fed = {key: tf.constant(requests[f"{name}/{key}/{batch}"], spec.dtype) for key, spec in inputs.items()}
                for key, value in signature(**fed).items():
                    results[f"{name}/{door}/{key}/{batch}"] = value.numpy()
                if door != "serving_default":  # a function too, which takes the same by name
                    assert set(getattr(loaded, door)(**fed)) == set(signature.structured_outputs)
                batch += 1
    np.savez(answers, **results)
"""


def make_layer(vocabulary, pooling="mean", preprocessor=True, **lengths):
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_layers=1,  # tracing takes the time
        num_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    lengths = lengths or {"sequence_length": None, "max_length": 24, "truncate": True}
    preprocessor = BertPreprocessor(vocabulary, lower_case=True, **lengths) if preprocessor else None
    keras.utils.set_random_seed(1)
    encoder = BertEncoder(config)
    for variable in encoder.weights:  # fresh weights make vectors that look alike
        if "float" in variable.dtype:
            variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, seed=len(variable.path)))
    return BertTrend(encoder=encoder, preprocessor=preprocessor, pooling=pooling)


def strings(name):
    return keras.Input((), dtype="string", name=name)


class Holder(keras.Model):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.parts = [inner, keras.layers.Dense(3)]

    def call(self, texts):
        return {"scores": self.parts[1](self.parts[0](texts))}


def spam(layer):
    text = strings("message")
    return keras.Model(text, keras.layers.Dense(1, "sigmoid")(layer(text)))


def pairs(layer):
    texts = strings("question"), strings("answer")
    return keras.Model(texts, keras.Sequential([keras.Input((16,)), keras.layers.Dense(3, "softmax")])(layer(texts)))


def several(layer):
    """Two towers and a number: no door but `serve` would know which tower is meant."""
    text, size = strings("text"), keras.Input((2,), name="size of it")
    other = BertTrend(encoder=layer.encoder, preprocessor=layer.preprocessor, pooling="cls")
    x = keras.layers.Concatenate()([layer(text), other(text), size])
    return keras.Model([text, size], [keras.layers.Dense(2, name="a")(x), keras.layers.Dense(1, name="b")(x)])


def nested(layer):
    text = strings("anything")
    model = Holder(keras.Model(text, layer(text)))
    model(tf.constant(["built"]))
    return model


def without_bert():
    words = keras.layers.StringLookup(vocabulary=["bank", "good"], output_mode="one_hot")
    return keras.Sequential([strings("word"), words, keras.layers.Dense(2, "softmax")])


@pytest.fixture(scope="module")
def models(vocabulary):
    """Name → model, `BertTrend` layer if any, and arguments of the export."""
    layers = {
        "spam": make_layer(vocabulary, "smooth_trend"),
        "pairs": make_layer(vocabulary, sequence_length=20),
        "several": make_layer(vocabulary, "max"),
        "nested": make_layer(vocabulary, sequence_length=12),
        "ids": make_layer(vocabulary, preprocessor=False),
    }
    return {
        "spam": (spam(layers["spam"]), layers["spam"], {"labels": ["ham", "spam"]}),
        "pairs": (
            pairs(layers["pairs"]),
            layers["pairs"],
            {"labels": ["no", "yes", "who knows"], "fast_tokenizer": False},
        ),
        "several": (several(layers["several"]), layers["several"], {}),
        "nested": (nested(layers["nested"]), layers["nested"], {}),
        "ids": (layers["ids"], layers["ids"], {}),
        "without_bert": (without_bert(), None, {"labels": ["c", "d"]}),
    }


@pytest.fixture(scope="module")
def exports(models, tmp_path_factory):
    """Name → folder, and what the export returned."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        name: (folder / name, export_saved_model(model, folder / name, **options))
        for name, (model, _, options) in models.items()
    }


def request(name, layer, batch):
    """Return what is fed to every door of an export: input's name → array."""
    texts = np.array(BATCHES[batch], object)
    ids = {key: to_numpy(x) for key, x in layer.preprocessor(texts).items()} if layer else {}
    if name == "pairs":
        first, second = PAIRS[batch]
        return {"text": np.array(first, object), "text_pair": np.array(second, object), **ids}
    if name == "several":
        return {"text": texts, "size_of_it": np.ones((len(texts), 2), "float32"), **ids}
    return {"text": texts, **ids}


@pytest.fixture(scope="module")
def requests(models, vocabulary):
    tokens = make_layer(vocabulary)
    return {
        name: [request(name, tokens if name == "ids" else layer, i) for i in range(len(BATCHES))]
        for name, (_, layer, _) in models.items()
    }


@pytest.fixture(scope="module")
def answers(exports, requests, tmp_path_factory):
    """(name, door, output) → what a process without this package got for each batch."""
    folder = tmp_path_factory.mktemp("answers")
    flat = {
        f"{name}/{key}/{i}": value
        for name, batches in requests.items()
        for i, batch in enumerate(batches)
        for key, value in batch.items()
    }
    np.savez(folder / "requests.npz", **flat)
    libraries = {name: [str(path), sorted(set(needed.values()))] for name, (path, needed) in exports.items()}
    run_fresh(CLIENT, json.dumps(libraries), folder / "requests.npz", folder / "answers.npz")
    found = {}
    with np.load(folder / "answers.npz", allow_pickle=True) as results:
        for key, value in results.items():
            name, door, output, batch = key.split("/")
            found.setdefault((name, door), {}).setdefault(output, {})[int(batch)] = value
    return found


def answered(answers, name, door):
    """Yield the number of each batch with the door's outputs."""
    outputs = answers[name, door]
    for batch in range(len(BATCHES)):
        yield batch, {key: values[batch] for key, values in outputs.items()}


TEXT_DOORS = {"serve", "serving_default", "embed", "tokens", "encode", "explain"}


def test_doors(answers):
    doors = {}
    for name, door in answers:
        doors.setdefault(name, set()).add(door)
    every = dict.fromkeys(("spam", "pairs", "nested"), TEXT_DOORS)
    serve = {"serve", "serving_default"}
    assert doors == {**every, "several": serve, "ids": serve | {"encode"}, "without_bert": serve}


def as_fed(name, batch):
    """Return what the model takes, of what the door is fed."""
    values = [tf.constant(value) for key, value in batch.items() if key not in INPUT_NAMES]
    return {"pairs": tuple(values), "several": values}.get(name, values[0])


@pytest.mark.parametrize("name", ["spam", "pairs", "several", "nested", "without_bert"])
@pytest.mark.parametrize("door", ["serve", "serving_default"])
def test_serve_gives_the_models_outputs(name, door, models, requests, answers):
    model = models[name][0]
    expected_names = {"several": ("a", "b"), "nested": ("scores",)}.get(name, ("probability",))
    for batch, got in answered(answers, name, door):
        outputs = model(as_fed(name, requests[name][batch]), training=False)
        outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
        outputs = outputs if isinstance(outputs, list) else [outputs]
        assert set(got) - {"label"} == set(expected_names)
        for key, value in zip(expected_names, outputs, strict=True):
            np.testing.assert_allclose(got[key], value, atol=1e-5)


def test_labels(models, exports, answers):
    for name, threshold in (("spam", True), ("pairs", False), ("without_bert", False)):
        labels = models[name][2]["labels"]
        assert (exports[name][0] / "assets" / "labels.txt").read_text().splitlines() == labels
        for _, got in answered(answers, name, "serve"):
            scores = got["probability"]
            best = (scores[:, 0] >= 0.5).astype(int) if threshold else scores.argmax(axis=1)
            assert [label.decode() for label in got["label"]] == [labels[i] for i in best]


@pytest.mark.parametrize("name", ["spam", "pairs", "nested"])
def test_embed_and_tokens_are_the_layers(name, models, requests, answers):
    layer = models[name][1]
    for batch, got in answered(answers, name, "embed"):
        texts = PAIRS[batch] if name == "pairs" else BATCHES[batch]
        np.testing.assert_allclose(got["embedding"], layer(texts), atol=2e-5)
    for batch, got in answered(answers, name, "tokens"):
        texts = PAIRS[batch] if name == "pairs" else BATCHES[batch]
        for key, value in layer.preprocessor(texts).items():
            np.testing.assert_array_equal(got[key], value)


@pytest.mark.parametrize("name", ["spam", "ids"])
def test_encode_gives_every_layer(name, models, requests, answers):
    layer = models[name][1]
    for batch, got in answered(answers, name, "encode"):
        ids = {key: requests[name][batch][key] for key in INPUT_NAMES}
        outputs = layer.encoder(ids, training=False)
        np.testing.assert_allclose(got["pooled_output"], outputs["pooled_output"], atol=1e-5)
        np.testing.assert_allclose(got["sequence_output"], outputs["sequence_output"], atol=1e-5)
        np.testing.assert_allclose(got["hidden_states"], np.stack(hidden_states(outputs), axis=1), atol=1e-5)
    if name == "ids":
        for batch, got in answered(answers, name, "serve"):
            ids = {key: requests[name][batch][key] for key in INPUT_NAMES}
            np.testing.assert_allclose(got["embedding"], layer(ids), atol=1e-5)


@pytest.mark.parametrize("name", ["spam", "nested"])
def test_explain_chooses_the_same_words(name, models, answers):
    for batch, got in answered(answers, name, "explain"):
        for row, expected in enumerate(explain(BATCHES[batch], models[name][1], truncate=False)):
            tokens = [token.decode() for token in got["tokens"][row]]
            assert [token for token in tokens if token] == list(expected.tokens)
            candidates = np.flatnonzero(got["candidates"][row]).tolist()
            assert candidates == [word.positions[0] for word in expected.candidates]
            assert got["votes"][row][candidates].tolist() == expected.votes.tolist()
            for role in ("anchor", "related"):
                word = getattr(expected, role)
                assert got[role][row] == (-1 if word is None else word.positions[0])


def test_explain_of_a_pair_sees_both_texts(models, answers):
    layer = models["pairs"][1]
    ids = layer.preprocessor(PAIRS[3])
    pooling = TrendPooling(layer.preprocessor.vocabulary.token_kinds)
    outputs = layer.encoder(ids, training=False, return_attention_received=True)
    chosen = pooling.select(outputs, ids["input_mask"], ids["input_word_ids"])
    _, got = list(answered(answers, "pairs", "explain"))[3]
    np.testing.assert_array_equal(got["candidates"], chosen["candidates"])
    np.testing.assert_array_equal(got["votes"], chosen["votes"])


def test_operations_and_their_libraries(exports, models):
    fast = {"CaseFoldUTF8", "NormalizeUTF8", "FastWordpieceTokenizeWithOffsets"}
    classic = {"CaseFoldUTF8", "NormalizeUTF8", "RegexSplitWithOffsets", "WordpieceTokenizeWithOffsets"}
    assert set(exports["spam"][1]) == fast
    assert set(exports["pairs"][1]) == classic
    assert exports["without_bert"][1] == exports["ids"][1] == {}
    assert models["pairs"][1].preprocessor.fast_tokenizer  # as it was


def stored(folder) -> int:
    """Return the bytes of all numbers in an export's variables."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return sum(types[key].size * int(np.prod(shape)) for key, shape in shapes.items() if types[key].is_floating)


def test_weights_are_stored_once_or_by_halves(exports, models, requests, tmp_path, capsys):
    for name in ("spam", "ids"):
        model = models[name][0]
        floats = [variable for variable in model.variables if "float" in variable.dtype]
        assert stored(exports[name][0]) == 4 * sum(int(np.prod(variable.shape)) for variable in floats)
    export_saved_model(model, tmp_path / "half", float16_weights=True)
    assert "with the doors serve, encode" in capsys.readouterr().out
    assert stored(tmp_path / "half") == sum(
        int(np.prod(variable.shape)) * (2 if len(variable.shape) > 1 else 4) for variable in floats
    )
    ids = {key: tf.constant(value) for key, value in requests["ids"][3].items() if key in INPUT_NAMES}
    half, whole = tf.saved_model.load(tmp_path / "half").serve(**ids)["embedding"], model(ids)
    np.testing.assert_allclose(half, whole, atol=1e-2)
    assert np.abs(half - whole).max() > 0


@pytest.fixture(scope="module")
def loaded(exports):
    return tf.saved_model.load(exports["spam"][0])


def test_what_a_server_does_not_check_is_refused_in_the_graph(loaded):
    def ask(door, *values):
        function = loaded.signatures[door]
        function._call_flat([tf.constant(value) for value in values], function.captured_inputs)

    for door in ("serving_default", "embed", "tokens", "explain"):
        for value in ("one text", [["a", "b"]]):
            with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=r"text_must_have_rank_1|rank|shape"):
                ask(door, value)
    for length in (0, 25):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1 to 24 tokens"):
            ask("encode", *[np.zeros((1, length), "int32")] * 3)


def test_warm_up_requests(exports, loaded):
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api")
    inputs = {}
    for record in tf.data.TFRecordDataset(str(exports["spam"][0] / "assets.extra" / "tf_serving_warmup_requests")):
        request = log.PredictionLog.FromString(record.numpy()).predict_log.request
        fed = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        assert loaded.signatures[request.model_spec.signature_name](**fed)
        inputs[request.model_spec.signature_name] = sorted(fed)
    assert inputs == {door: sorted(INPUT_NAMES) if door == "encode" else ["text"] for door in TEXT_DOORS}


def test_the_contract_of_a_request(exports):
    """What TensorFlow Serving finds for a PredictRequest: the signature, its tensors' names and types."""
    predict = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((exports["pairs"][0] / "saved_model.pb").read_bytes())
    assert list(saved.meta_graphs[0].meta_info_def.tags) == ["serve"]
    request = predict.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "qa", "serving_default"
    for key in ("text", "text_pair"):
        request.inputs[key].CopyFrom(tf.make_tensor_proto(["Who?", "The bank."]))
    signature = saved.meta_graphs[0].signature_def[request.model_spec.signature_name]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(request.inputs) == set(signature.inputs)
    for key, value in request.inputs.items():
        assert value.dtype == signature.inputs[key].dtype
        assert [dim.size for dim in signature.inputs[key].tensor_shape.dim] == [-1]
    assert set(signature.outputs) == {"probability", "label"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the libraries have other names")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_c_program_with_the_libraries_alone(exports, answers, tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    path, needed = exports["spam"]
    home, program = tf.sysconfig.get_lib(), str(tmp_path / "classify")
    link = ["-L", home, "-l:libtensorflow_framework.so.2", "-l:libtensorflow_cc.so.2", f"-Wl,-rpath,{home}"]
    source = str(ROOT / "examples" / "serving" / "c" / "classify.c")
    subprocess.run(
        ["cc", "-Wall", "-Werror", source, "-o", program, "-I", tf.sysconfig.get_include(), *link], check=True
    )

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    tensors = [signature.inputs["text"].name, *(signature.outputs[key].name for key in ("label", "probability"))]
    command = [program, str(path), *tensors, *sorted(set(needed.values())), "--", *BATCHES[3]]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    _, expected = list(answered(answers, "spam", "serve"))[3]
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [(label, text) for label, _, text in rows] == [
        (label.decode(), text) for label, text in zip(expected["label"], BATCHES[3], strict=True)
    ]
    np.testing.assert_allclose([float(row[1]) for row in rows], expected["probability"][:, 0], atol=2e-6)


class TestRefusals:
    @pytest.fixture
    def layer(self, models):
        return models["spam"][1]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["ham"], "two or more different"),
            (["ham", "ham"], "two or more different"),
            (["ham", "s\npam"], "of one line"),
            (["a", "b", "c"], "has 3 names, but the model's output of width 1 stands for 2"),
        ],
    )
    def test_labels_that_do_not_fit(self, labels, message, models, tmp_path):
        with pytest.raises(ValueError, match=message):
            export_saved_model(models["spam"][0], tmp_path / "model", labels=labels)
        assert os.listdir(tmp_path) == []

    def test_labels_without_a_classifier(self, layer, models, tmp_path):
        with pytest.raises(ValueError, match="gives an embedding"):
            export_saved_model(layer, tmp_path / "model", labels=["a", "b"])
        with pytest.raises(ValueError, match="a model with one output"):
            export_saved_model(models["several"][0], tmp_path / "model", labels=["a", "b"])
        text = strings("text")
        linear = keras.Model(text, keras.layers.Dense(1)(layer(text)))
        with pytest.raises(ValueError, match="comes from 'linear'. End the model in a sigmoid"):
            export_saved_model(linear, tmp_path / "model", labels=["a", "b"])
        taken = keras.Model(text, {"label": keras.layers.Dense(1, "sigmoid")(layer(text))})
        with pytest.raises(ValueError, match="the model has one of this name"):
            export_saved_model(taken, tmp_path / "model", labels=["a", "b"])

    def test_models_of_which_the_inputs_are_not_known(self, layer, tmp_path):
        with pytest.raises(ValueError, match="must be a Keras model or a BertTrend layer, got Dense"):
            export_saved_model(keras.layers.Dense(1), tmp_path / "model")
        with pytest.raises(ValueError, match="never built"):
            export_saved_model(keras.Sequential([layer, keras.layers.Dense(1)]), tmp_path / "model")
        model = Holder(keras.layers.Dense(2))
        model(np.ones((1, 2)))
        with pytest.raises(ValueError, match="Nothing says what"):
            export_saved_model(model, tmp_path / "model")

    def test_a_weight_beyond_float16(self, tmp_path):
        model = without_bert()
        model.layers[-1].kernel.assign(np.full((3, 2), 1e5))
        with pytest.raises(ValueError, match="beyond float16"):
            export_saved_model(model, tmp_path / "model", float16_weights=True)

    def test_what_stands_there_is_kept_unless_told_or_if_it_fails(self, tmp_path, monkeypatch):
        model, path = without_bert(), tmp_path / "model"
        export_saved_model(model, path)
        before = (path / "saved_model.pb").read_bytes()
        with pytest.raises(FileExistsError, match="overwrite=True"):
            export_saved_model(model, path)

        def fail(root, folder, signatures):
            os.mkdir(folder)
            raise OSError("no space left")

        monkeypatch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(OSError, match="no space left"):
            export_saved_model(model, path, overwrite=True)
        assert os.listdir(tmp_path) == ["model"]
        assert (path / "saved_model.pb").read_bytes() == before


def test_the_shell_writes_what_train_wrote(tmp_path, capsys):
    folder = tmp_path / "trained"
    folder.mkdir()
    without_bert().save(folder / "model.keras")
    (folder / "labels.json").write_text(json.dumps({"labels": ["ham", "spam"], "texts_per_row": 1}))
    command = ("export", folder, "--to", "saved-model", "--output", tmp_path / "out")
    status, out, err = run(capsys, *command)
    assert (status, err) == (0, "")
    assert f"wrote {tmp_path / 'out'} with the doors serve" in out
    assert set(tf.saved_model.load(tmp_path / "out").serve(tf.constant(["a"]))) == {"probability", "label"}
    assert run(capsys, *command)[0] == 1  # exists
    assert run(capsys, *command[:-1], tmp_path / "other", "--pooling", "mean")[0] == 2
    assert sorted(os.listdir(tmp_path)) == ["out", "trained"]


def test_the_shell_writes_a_handle_with_a_pooling(tmp_path, capsys, monkeypatch):
    written = []
    monkeypatch.setattr("keras_bert_trend.export_saved_model", lambda model, path, **options: written.append(model))
    command = ("export", V4, "--to", "saved-model", "--output", tmp_path / "out")
    assert run(capsys, *command, "--pooling", "cls") == run(capsys, *command) == (0, "", "")
    assert [layer.pooling.name for layer in written] == ["cls", "smooth_trend"]
