"""`keras-bert-trend import`: any handle to local SavedModels with TF Hub's interfaces."""

from __future__ import annotations

import argparse
import os
import sys

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.cli.models import keras_file, load_layer
from keras_bert_trend.cli.options import add_vocabulary_options, positive
from keras_bert_trend.cli.output import add_output_options, check_output
from keras_bert_trend.cli.start import import_tensorflow

HELP = "write any BERT to a local folder, for TF Hub"
DESCRIPTION = """\
Write DIR/encoder and DIR/preprocessing: SavedModels with the interfaces of TF Hub's text encoders and their
preprocessing, for `hub.load`, and as handles of this package. A model without a vocabulary has no preprocessing, unless
--vocabulary gives one. Of a `.keras` file, or a folder written by `train`, the fine-tuned encoder is written.
"""
EPILOG = """\
examples:
  keras-bert-trend import minilm --output my_bert
  keras-bert-trend import kaggle:tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-128-a-2 --output small_bert
  keras-bert-trend import encoder_without_words.tar.gz --vocabulary vocab.txt --lower-case --output my_bert
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="HANDLE", help="the model")
    add_output_options(parser, "DIR", "the folder to write", required=True)
    parser.add_argument(
        "--sequence-length",
        type=positive,
        metavar="N",
        help="the tokens that the preprocessing pads and trims to (default: 128)",
    )
    add_vocabulary_options(parser)


def run(arguments: argparse.Namespace) -> None:
    check_output(arguments)
    import_tensorflow(arguments.debug)
    encoder, preprocessor = _load(arguments)
    with complete_or_nothing(arguments.output, arguments.overwrite) as folder:
        os.mkdir(folder)
        encoder.export_text_encoder(os.path.join(folder, "encoder"), preprocessor)
        if preprocessor is not None:
            length = arguments.sequence_length or min(128, encoder.config.max_position_embeddings)
            preprocessor.export_text_preprocessing(os.path.join(folder, "preprocessing"), sequence_length=length)
    print(os.path.join(arguments.output, "encoder"))
    if preprocessor is not None:
        print(os.path.join(arguments.output, "preprocessing"))
    else:
        print("The model has no vocabulary, so there is no preprocessing. Give one with --vocabulary.", file=sys.stderr)


def _load(arguments: argparse.Namespace):
    if keras_file(arguments.model) is None and arguments.vocabulary is None:
        from keras_bert_trend.encoder import BertEncoder
        from keras_bert_trend.sources import load_source

        source = load_source(arguments.model)
        if source.vocabulary is None:
            return BertEncoder.from_source(source), None
    layer = load_layer(arguments)
    return layer.encoder, layer.preprocessor
