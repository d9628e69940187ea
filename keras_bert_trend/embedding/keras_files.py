"""Models in `.keras` files, and the `BertTrend` layer in them."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from keras_bert_trend.layer import BertTrend

_MAX_CONFIG = 32 * 2**20  # bytes


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
    """Return the first `BertTrend` layer of a model, or of the models in it, that was loaded from `path`.

    Raises:
        ValueError: if no such layer takes texts.
    """
    from keras_bert_trend.layer import BertTrend

    for layer in _layers(model):
        if isinstance(layer, BertTrend) and layer.preprocessor is not None:
            return layer
    raise ValueError(f"{path} has no BertTrend layer that takes texts.")


def _layers(model: Any) -> Iterator[Any]:
    yield model
    for layer in getattr(model, "layers", ()):
        yield from _layers(layer)
