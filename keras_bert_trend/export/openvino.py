"""Write a layer or a model for OpenVINO."""

from __future__ import annotations

import os

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.export.ids_path import IdsPath, check_backend, compare, engine
from keras_bert_trend.export.onnx import model_proto


def export_openvino(model_or_layer, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a layer or a model for OpenVINO, from token ids on: a folder with `model.xml` and `model.bin`.

    Inputs and outputs are those of `export_onnx`, of the same sizes and names, and the model is compared in the same
    way before the folder gets its name. Weights are stored in float32.

    OpenVINO computes in bfloat16 on CPUs that have it, and in float16 on GPUs, unless it is told otherwise. Give
    `{"INFERENCE_PRECISION_HINT": "f32"}` to `compile_model` for the model's own numbers, as the comparison does.

    Needs the extra `openvino` and the TensorFlow backend.

    Example:
        >>> export_openvino(BertTrend("minilm", pooling="mean"), "minilm_openvino")
        >>> model = openvino.Core().read_model("minilm_openvino/model.xml")
        >>> compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        >>> compiled(ids)["sentence_embedding"]

    Args:
        model_or_layer: `BertTrend`, or a model as `export_onnx` takes it.
        path: str or path. The folder to write; it is complete or not there.
        overwrite: bool. Whether to replace an existing `path`. Defaults to `False`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
        ImportError: if openvino, onnx or tf2onnx is not installed.
        RuntimeError: if Keras runs on another backend.
        ValueError: as `export_onnx` does.
    """
    check_backend("export_openvino", "tensorflow")
    openvino = engine("openvino", "openvino")
    engine("openvino", "onnx")
    ids_path = IdsPath(model_or_layer)
    core = openvino.Core()
    with complete_or_nothing(os.fspath(path), overwrite) as folder:
        os.mkdir(folder)
        file = os.path.join(folder, "model.xml")
        written = core.read_model(model_proto(ids_path).SerializeToString())
        openvino.save_model(written, file, compress_to_fp16=False)
        compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(inputs):
            results = compiled(inputs)
            return {output.get_any_name(): results[output] for output in compiled.outputs}

        compare(ids_path, run, "OpenVINO")
