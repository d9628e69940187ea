"""From what `--model` names to a layer: a handle, a `.keras` file, or a folder written by `train`."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from keras_bert_trend.embedding.keras_files import layer_of, load_keras_model

if TYPE_CHECKING:
    from keras_bert_trend.layer import BertTrend

#: What a folder written by `train` holds.
KERAS_FILE, SAVED_MODEL, METRICS_FILE, LABELS_FILE = "model.keras", "saved_model", "metrics.json", "labels.json"
CONFUSION_FILE = "confusion_matrix.png"


def keras_file(path: str) -> str | None:
    """Return `path`, or the file in the folder `path`, if it is a `.keras` file; `None` for any other handle."""
    if path.endswith(".keras"):
        return path
    inside = os.path.join(path, KERAS_FILE)
    return inside if os.path.isfile(inside) else None


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
