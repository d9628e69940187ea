"""From what `--model` names to a layer: a handle, a `.keras` file, or a folder written by `train`."""

from __future__ import annotations

import argparse
import json
import math
import os
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from keras_bert_trend.layer import BertTrend

#: What a folder written by `train` holds.
KERAS_FILE, SAVED_MODEL, METRICS_FILE, LABELS_FILE = "model.keras", "saved_model", "metrics.json", "labels.json"
CONFUSION_FILE = "confusion_matrix.png"
_MAX_CONFIG = 32 * 2**20  # bytes


def keras_file(path: str) -> str | None:
    """Return `path`, or the file in the folder `path`, if it is a `.keras` file; `None` for any other handle."""
    if path.endswith(".keras"):
        return path
    inside = os.path.join(path, KERAS_FILE)
    return inside if os.path.isfile(inside) else None


def load_keras_model(path: str) -> keras.Model:
    """Load a `.keras` file to run it, not to train it.

    Raises:
        ValueError: if there is no such file, or it cannot be loaded.
    """
    import keras

    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file.")
    try:
        _check_sizes(path)
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # a damaged zip, another version's configuration: Keras raises many things
        raise ValueError(f"{path} cannot be loaded: {str(error)[:300]}") from error


def _check_sizes(path: str) -> None:
    """Raise `ValueError` if a `.keras` file is too small to hold the BERT that it describes.

    Keras makes all variables before it reads one: a small file could ask for any amount of memory.
    """
    from keras_bert_trend.encoder.config import BertConfig

    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _MAX_CONFIG:
            raise ValueError(f"its config.json has more than {_MAX_CONFIG:,} bytes")
        pending = [json.loads(archive.read("config.json"))]
    while pending:
        value = pending.pop()
        if isinstance(value, dict) and "vocab_size" in value and "num_layers" in value:
            count = sum(map(math.prod, BertConfig.from_dict(value).weight_shapes().values()))
            if 2 * count > os.path.getsize(path):  # two bytes each, at least
                raise ValueError(f"it describes a BERT of {count:,} weights, which it is too small to hold")
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value


def layer_of(model: Any, path: str) -> BertTrend:
    """Return the first `BertTrend` layer of a model that was loaded from `path`.

    Raises:
        ValueError: if no such layer takes texts.
    """
    from keras_bert_trend.layer import BertTrend

    for layer in getattr(model, "layers", [model]):
        if isinstance(layer, BertTrend) and layer.preprocessor is not None:
            return layer
    raise ValueError(f"{path} has no BertTrend layer that takes texts.")


def load_layer(arguments: argparse.Namespace) -> BertTrend:
    """Return the layer that `--model`, `--vocabulary` and `--lower-case` name."""
    from keras_bert_trend.layer import BertTrend

    path = keras_file(arguments.model)
    if path is not None:
        return layer_of(load_keras_model(path), path)
    return BertTrend(
        arguments.model,
        sequence_length=None,
        truncate=True,
        trainable=False,
        vocabulary=arguments.vocabulary,
        lower_case=arguments.lower_case,
    )


def read_labels(path: str) -> tuple[list[str] | None, int]:
    """Return the names of a trained model's classes (`None` if they are not stored) and the number of texts in a row.

    Args:
        path: str. The folder written by `train`, or the `.keras` file or SavedModel in it.

    Raises:
        ValueError: if there is nothing at `path`.
    """
    if not os.path.exists(path):
        raise ValueError(f"{path} does not exist.")
    for folder in (path, os.path.dirname(os.path.abspath(path))):
        file = os.path.join(folder, LABELS_FILE)
        if os.path.isfile(file):
            with open(file, encoding="utf-8") as stored:
                content = json.load(stored)
            return content["labels"], content["texts_per_row"]
    return None, 1


def read_trained(folder: str) -> dict[str, Any]:
    """Return the classes and the scores of a model that `train` wrote."""
    facts: dict[str, Any] = {"classes": read_labels(folder)[0]}
    metrics = os.path.join(folder, METRICS_FILE)
    if os.path.isfile(metrics):
        with open(metrics, encoding="utf-8") as stored:
            scores = json.load(stored)["validation"]
        facts["validation"] = {name: round(scores[name], 4) for name in ("accuracy", "macro_f1")}
    return facts
