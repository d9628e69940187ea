"""`keras-bert-trend info`: what a model is."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from keras_bert_trend.cli.models import KERAS_FILE, keras_file, read_trained
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.embedding.keras_files import layer_of, load_keras_model

HELP = "describe a model"
DESCRIPTION = """\
Print a model's architecture, the number of its parameters, its vocabulary and casing, and where it was read from; for
an archive also the SHA-256 to pin it by (HANDLE#sha256=…); for a folder written by `train` the classes and the scores.
"""
EPILOG = """\
examples:
  keras-bert-trend info minilm
  keras-bert-trend info path/to/uncased_L-12_H-768_A-12 --json
  keras-bert-trend info spam_model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="HANDLE", help="the model")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    import_tensorflow(arguments.debug)
    path = keras_file(arguments.model)
    facts = _of_source(arguments.model) if path is None else _of_keras_file(path)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for name, value in facts.items():
        if isinstance(value, Mapping):
            print(f"\n{name}")
            for inner, number in value.items():
                print(f"  {inner:26} {_shown(number)}")
        else:
            print(f"{name:28} {_shown(value)}")


def _shown(value) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not said"}[value]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _of_source(handle: str) -> dict[str, Any]:
    from keras_bert_trend.sources import load_source
    from keras_bert_trend.sources.download import archive_sha256

    source = load_source(handle)
    sha256 = archive_sha256(handle)
    return {
        "origin": source.origin,
        **({"SHA-256 of the archive": sha256} if sha256 else {}),
        "parameters": sum(map(math.prod, source.config.weight_shapes().values())),
        "vocabulary": None if source.vocabulary is None else _described(source.vocabulary),
        "lower case": source.lower_case,
        "architecture": source.config.to_dict(),
    }


def _of_keras_file(path: str) -> dict[str, Any]:
    model = load_keras_model(path)
    layer = layer_of(model, path)
    facts = {
        "origin": path,
        "parameters": model.count_params(),
        "parameters of the encoder": layer.encoder.count_params(),
        "vocabulary": _described(layer.preprocessor.vocabulary),
        "lower case": layer.preprocessor.lower_case,
        "pooling": layer.pooling.name,
        "embedding width": layer.embedding_dim,
        "architecture": layer.encoder.config.to_dict(),
    }
    if os.path.basename(path) == KERAS_FILE:
        facts |= read_trained(os.path.dirname(path))
    return facts


def _described(vocabulary) -> str:
    from keras_bert_trend.preprocessing import SentencePieceVocabulary, as_vocabulary

    vocabulary = as_vocabulary(vocabulary)
    kind = "SentencePiece pieces" if isinstance(vocabulary, SentencePieceVocabulary) else "WordPiece tokens"
    return f"{len(vocabulary):,} {kind}"
