"""Files for other engines compute what the model does, and load where there is neither Keras nor this package."""

import dataclasses
import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import (
    POOLING_NAMES,
    BertEncoder,
    BertTrend,
    MeanPooling,
    export_jax,
    export_litert,
    export_onnx,
    export_openvino,
)
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.export.ids_path import IdsPath, compare
from tests.common import V4, random_inputs, run_fresh
from tests.test_blocks import KINDS, make


def needs(*modules: str):
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


ONNX = needs("onnx", "onnxruntime", "tf2onnx")
OPENVINO = needs("openvino", "onnx", "tf2onnx")
LITERT = needs("ai_edge_litert")

RUN = """
import sys
import numpy as np

file, arrays, result = sys.argv[1:]
inputs = dict(np.load(arrays))
{run}
assert not {{"keras", "tensorflow", "keras_bert_trend", "tf2onnx"}} & set(sys.modules)
np.savez(result, **outputs)
"""
RUNS = {
    "onnx": """
import onnxruntime

session = onnxruntime.InferenceSession(file)
names = [output.name for output in session.get_outputs()]
feed = {name: x.astype("int64") if x.dtype == "int32" else x for name, x in inputs.items()}
outputs = dict(zip(names, session.run(names, feed)))
""",
    "openvino": """
import openvino

model = openvino.Core().read_model(f"{file}/model.xml")
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
results = compiled(inputs)
outputs = {output.get_any_name(): results[output] for output in compiled.outputs}
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter

outputs = Interpreter(file).get_signature_runner("serving_default")(**inputs)
""",
}


@pytest.fixture(scope="module")
def layer():
    return BertTrend(V4, pooling=["smooth_trend", "mean"], sequence_length=16)


@pytest.fixture(scope="module")
def model(layer):
    """Strings and numbers in, two named outputs out, with an activation that TensorFlow writes as `Erfc`."""
    text, numbers = keras.Input((), dtype="string", name="text"), keras.Input((3,), name="numbers")
    hidden = keras.layers.Dense(4, "gelu")(keras.layers.Concatenate()([layer(text), numbers]))
    return keras.Model([text, numbers], {"spam": keras.layers.Dense(1, "sigmoid")(hidden), "hidden": hidden})


@pytest.mark.parametrize(
    ("engine", "export"),
    [
        pytest.param("onnx", export_onnx, marks=ONNX),
        pytest.param("openvino", export_openvino, marks=OPENVINO),
        pytest.param("litert", lambda *args: export_litert(*args, batch_size=2), marks=LITERT),
    ],
)
def test_a_model_with_its_head_runs_elsewhere_and_gives_what_strings_give(engine, export, model, layer, tmp_path):
    export(model, tmp_path / "file")
    texts, numbers = tf.constant(["Hello, the bank is good!", "I want an apple."]), np.ones((2, 3), "float32")
    ids = {name: tensor.numpy() for name, tensor in layer.preprocessor(texts).items()}
    np.savez(tmp_path / "inputs.npz", **ids, numbers=numbers)
    run_fresh(RUN.format(run=RUNS[engine]), tmp_path / "file", tmp_path / "inputs.npz", tmp_path / "outputs.npz")
    with np.load(tmp_path / "outputs.npz") as outputs:
        expected = model([texts, tf.constant(numbers)])
        assert set(outputs) == set(expected) == {"spam", "hidden"}
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, atol=2e-5)


@ONNX
def test_onnx_has_every_pooling_and_standard_operations_alone(tmp_path):
    import onnx

    export_onnx(BertTrend(V4, pooling=list(POOLING_NAMES), trainable=False), tmp_path / "all.onnx")
    written = onnx.load(tmp_path / "all.onnx")
    assert {opset.domain: opset.version for opset in written.opset_import} == {"": 18}
    assert [x.name for x in written.graph.input] == list(INPUT_NAMES)
    assert [x.name for x in written.graph.output] == ["sentence_embedding"]


@ONNX
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_has_every_kind_of_block(kind, tmp_path):
    export_onnx(BertTrend(encoder=make(kind), pooling="mean"), tmp_path / "blocks.onnx")  # compares


@ONNX
def test_the_weights_of_shared_layers_are_written_once(small_config, tmp_path):
    one = dataclasses.replace(small_config, share_layers=True, embedding_size=8, hidden_act="gelu")
    export_onnx(BertTrend(encoder=BertEncoder(one), pooling="pooler"), tmp_path / "shared.onnx")
    weights = sum(np.prod(shape) for shape in one.weight_shapes().values())
    assert (tmp_path / "shared.onnx").stat().st_size < 4 * weights + 40_000


@ONNX
def test_attention_that_a_custom_pooling_reads_is_written(small_config, tmp_path):
    from keras_bert_trend.pooling import Needs, Pooling

    class Most(Pooling):
        needs = Needs(attention_scores=True, attention_received=(0, 2))

        def compute(self, outputs, input_mask, input_word_ids=None):
            received = keras.ops.sum(outputs["attention_received"], axis=(1, 2))[..., None]
            seen = outputs["attention_scores"][1][:, 0] @ outputs["sequence_output"]
            return keras.ops.max(seen * received, axis=1)

    export_onnx(BertTrend(encoder=BertEncoder(small_config), pooling=Most()), tmp_path / "custom.onnx")  # compares


@ONNX
def test_a_separate_preprocessor_and_encoder_are_cut_apart(layer, tmp_path):
    text = keras.Input((), dtype="string")
    ids = layer.preprocessor(text)
    outputs = layer.encoder(ids)
    pooled = keras.layers.GlobalAveragePooling1D()(outputs["sequence_output"])  # reads the states' mask
    pooled = keras.layers.Concatenate()([pooled, MeanPooling()(outputs, ids["input_mask"])])
    kind = keras.layers.Dense(2, name="kind")(pooled)
    model = keras.Model(text, {"kind": kind, "states": outputs["sequence_output"]})
    export_onnx(model, tmp_path / "parts.onnx")
    path, texts = IdsPath(model), tf.constant(["Hello", "the bank"])
    np.testing.assert_allclose(path.model(layer.preprocessor(texts))["kind"], model(texts)["kind"], atol=1e-5)


class TestRefusals:
    @ONNX
    def test_what_comes_out_wrong_or_cannot_be_written_gets_no_name(self, layer, tmp_path):
        @keras.saving.register_keras_serializable("tests")
        class Unknown(keras.layers.Layer):
            def call(self, x):
                return tf.math.lgamma(x)

        with pytest.raises(ValueError, match="Lgamma"):
            export_onnx(keras.Sequential([layer, Unknown()]), tmp_path / "file")
        assert not any(tmp_path.iterdir())

    def test_a_difference_is_found_at_the_size_that_has_it(self, layer):
        path = IdsPath(layer)

        def run(inputs):
            outputs = {name: np.array(x) for name, x in path.model(inputs).items()}
            if inputs["input_mask"].shape == (3, 17):
                outputs["sentence_embedding"] *= 1.001
            return outputs

        with pytest.raises(ValueError, match="An engine computes something else than the model, at 3 × 17 tokens"):
            compare(path, run, "An engine")

    def test_models_that_cannot_be_cut(self, layer):
        text, other = keras.Input((), dtype="string"), keras.Input((), dtype="string")
        for model, message in (
            (layer.encoder, "functional keras.Model"),
            (keras.Sequential([keras.layers.Dense(1)]), "functional keras.Model"),
            (keras.Model([text, other], [layer(text), layer(other)]), "2 such calls"),
            (keras.Model([text, other], [layer(text), layer.preprocessor(other)["input_mask"]]), "elsewhere"),
            (BertTrend(encoder=layer.encoder, pooling="mean", return_all=True), "return_all"),
            (BertTrend(V4, pooling="mean", windows="mean"), "windows='mean'"),
            (BertTrend(V4, pooling="mean", dtype="mixed_bfloat16"), "bfloat16"),
        ):
            with pytest.raises(ValueError, match=message):
                IdsPath(model)

    @LITERT
    def test_litert_refuses_sizes_beyond_the_model(self, layer, tmp_path):
        with pytest.raises(ValueError, match="`sequence_length`=65 is longer than the model"):
            export_litert(layer, tmp_path / "file", sequence_length=65)
        with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
            export_litert(layer, tmp_path / "file", sequence_length=8, batch_size=0)

    @ONNX
    def test_an_existing_file_stays(self, layer, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(FileExistsError):
            export_onnx(layer, tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize("export", [export_onnx, export_openvino, export_litert])
    def test_a_missing_library_is_named_with_its_extra(self, export, layer, tmp_path, monkeypatch):
        extra = export.__name__.removeprefix("export_")
        monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
        arguments = {"sequence_length": 8} if export is export_litert else {}
        with pytest.raises(ImportError, match=rf'pip install "keras_bert_trend\[{extra}\]"'):
            export(layer, tmp_path / "file", **arguments)

    def test_jax_needs_its_backend(self, layer):
        with pytest.raises(RuntimeError, match="KERAS_BACKEND=jax"):
            export_jax(layer)


@needs("jax")
def test_jax_lowers_for_tpus_and_the_program_runs_without_keras(layer, small_config, tmp_path):
    inputs = random_inputs(small_config, [9, 4], 9)
    np.savez(tmp_path / "inputs.npz", **inputs)
    np.save(tmp_path / "kinds.npy", layer.preprocessor.vocabulary.token_kinds)
    run_fresh(
        """
        import sys
        import numpy as np
        from keras_bert_trend import BertConfig, BertEncoder, BertTrend, export_jax
        from keras_bert_trend.pooling import get_pooling

        folder, config = sys.argv[1], BertConfig.from_dict(eval(sys.argv[2]))
        pooling = get_pooling(["smooth_trend", "mean"], np.load(f"{folder}/kinds.npy"))
        layer = BertTrend(encoder=BertEncoder(config), pooling=pooling)
        exported = export_jax(layer)
        assert exported.platforms == ("cpu", "cuda", "tpu")
        open(f"{folder}/program", "wb").write(exported.serialize())
        np.savez(f"{folder}/expected.npz", layer(dict(np.load(f"{folder}/inputs.npz"))))
        """,
        tmp_path,
        small_config.to_dict(),
        KERAS_BACKEND="jax",
    )
    run_fresh(
        """
        import sys
        import numpy as np
        from jax import export

        program = export.deserialize(bytearray(open(f"{sys.argv[1]}/program", "rb").read()))
        outputs = program.call(dict(np.load(f"{sys.argv[1]}/inputs.npz")))
        expected = np.load(f"{sys.argv[1]}/expected.npz")["arr_0"]
        assert np.abs(outputs["sentence_embedding"] - expected).max() < 1e-4 and "keras" not in sys.modules
        """,
        tmp_path,
    )
