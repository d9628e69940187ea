"""`keras-bert-trend export`: a trained model, or any handle, in the format of another program."""

from __future__ import annotations

import argparse
import importlib

from keras_bert_trend.cli.models import keras_file, load_keras_model, load_layer, read_labels
from keras_bert_trend.cli.options import UsageError, add_vocabulary_options
from keras_bert_trend.cli.output import add_output_options, check_output
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.pooling import POOLING_NAMES

HELP = "write a model for a server or another runtime"
DESCRIPTION = """\
Write a model in the format of another program: the folder of a SavedModel for TensorFlow Serving, which takes strings
and gives the names of the classes of a model that `train` wrote; or an ONNX, LiteRT or OpenVINO model, which takes
token ids. Written completely or not at all.
"""
EPILOG = """\
examples:
  keras-bert-trend export spam_model --to saved-model --output spam_export
  keras-bert-trend export spam_model/model.keras --to onnx --output spam.onnx
  keras-bert-trend export minilm --pooling mean --to saved-model --output embedder
"""

#: The functions of this package that write them.
_FUNCTIONS = {
    "saved-model": "export_saved_model",
    "onnx": "export_onnx",
    "litert": "export_litert",
    "openvino": "export_openvino",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what `train` wrote, a .keras file, or a handle")
    parser.add_argument("--to", choices=_FUNCTIONS, required=True, help="the format")
    add_output_options(parser, "PATH", "the folder or file to write", required=True)
    group = parser.add_argument_group("a handle's")
    group.add_argument("--pooling", choices=POOLING_NAMES, help="(default: smooth_trend, or what the model names)")
    add_vocabulary_options(group)


def run(arguments: argparse.Namespace) -> None:
    check_output(arguments)
    path = keras_file(arguments.model)
    given = [name for name in ("pooling", "vocabulary", "lower_case") if getattr(arguments, name) is not None]
    if path is not None and given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for a handle: {path} has its own.")
    import_tensorflow(arguments.debug)
    options = {}
    if path is None:
        model = load_layer(arguments)
        if arguments.pooling is not None:
            model = type(model)(encoder=model.encoder, preprocessor=model.preprocessor, pooling=arguments.pooling)
    else:
        model = load_keras_model(path)
        if arguments.to == "saved-model":  # the others have numbers alone
            options["labels"] = read_labels(path)[0]
    write = getattr(importlib.import_module("keras_bert_trend"), _FUNCTIONS[arguments.to])
    write(model, arguments.output, overwrite=arguments.overwrite, **options)
