"""Read a checkpoint of google-research/bert: `bert_model.ckpt`, `bert_config.json`, `vocab.txt`."""

from __future__ import annotations

import os
import re

from keras_bert_trend.sources.checkpoint import TfCheckpoint
from keras_bert_trend.sources.hugging_face import bert_config, read_json
from keras_bert_trend.sources.source import (
    LazyWeights,
    Source,
    UnsupportedArchitectureError,
    read_vocabulary_file,
)

CONFIG_FILE = "bert_config.json"

# google-research/bert, modeling.py: `gelu` there is the tanh approximation.
_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}
_MASK_CONSTANT = -10000.0  # modeling.py, attention_layer: the adder
_OPTIMIZER = re.compile(r"/(adam_[mv]|Adam|Adam_1|LAMB|LAMB_1)$")  # slots that training leaves in a checkpoint


def read_google_checkpoint(path: str) -> Source:
    """Read a TF1 checkpoint as google-research/bert publishes and writes it.

    Args:
        path: str. The folder, or the checkpoint itself (`…/bert_model.ckpt`) with `bert_config.json` and `vocab.txt`
            beside it.

    Raises:
        ValueError: if a file is missing, damaged, or does not fit the others.
        UnsupportedArchitectureError: if the checkpoint holds another architecture.
    """
    prefix = _find_checkpoint(path)
    folder = os.path.dirname(prefix)
    config_file, vocabulary_file = os.path.join(folder, CONFIG_FILE), os.path.join(folder, "vocab.txt")
    if not os.path.isfile(config_file):
        raise ValueError(f"{folder!r} has a checkpoint but no {CONFIG_FILE}.")
    checkpoint = TfCheckpoint(prefix)
    shapes = {
        name.removeprefix("bert/"): shape
        for name, shape in checkpoint.shapes.items()
        if name.startswith("bert/") and not _OPTIMIZER.search(name)
    }
    if not shapes:
        raise UnsupportedArchitectureError(
            f"{prefix!r} holds no variables of BERT, whose names begin with 'bert/'; supported are the checkpoints of "
            "google-research/bert, not those of ALBERT or ELECTRA."
        )

    def read(name):
        import tensorflow as tf

        return tf.cast(checkpoint.read(f"bert/{name}"), tf.float32)

    config = bert_config(read_json(config_file), config_file, _ACTIVATIONS, attention_mask_constant=_MASK_CONSTANT)
    return Source(
        config=config,
        weights=LazyWeights(shapes, read),
        vocabulary=read_vocabulary_file(vocabulary_file) if os.path.isfile(vocabulary_file) else None,
        lower_case=_lower_case(folder),
        origin=path,
    )


def _find_checkpoint(path: str) -> str:
    """Return the checkpoint's prefix: its path without `.index`."""
    if os.path.isfile(f"{path}.index"):
        return path
    found = sorted(name.removesuffix(".index") for name in os.listdir(path) if name.endswith(".index"))
    if "bert_model.ckpt" in found:
        found = ["bert_model.ckpt"]
    if len(found) != 1:
        raise ValueError(
            f"{path!r} holds no bert_model.ckpt.index"
            + (f", but {found}: give one of them, for example {os.path.join(path, found[0])!r}." if found else ".")
        )
    return os.path.join(path, found[0])


def _lower_case(folder: str) -> bool | None:
    """Read the casing from the folder's name, as google-research/bert does (tokenization.py), if the name shows it."""
    name = os.path.basename(os.path.abspath(folder))
    if re.match(r"(.*_)?uncased_L-|multilingual_L-|chinese_L-", name):
        return True
    return False if re.match(r"(.*_)?cased_L-", name) else None
