"""The sources room: turn a handle into a `Source`, by reading files and never by running what they contain."""

from __future__ import annotations

import os

from keras_bert_trend.sources.source import LazyWeights, Source, UnsupportedArchitectureError

__all__ = ["LazyWeights", "Source", "UnsupportedArchitectureError", "load_source"]


def load_source(handle: str | os.PathLike) -> Source:
    """Read the model that a handle names.

    Args:
        handle: one of

            * `"minilm"`: the embedded default encoder (extra `minilm`)
            * a folder with `saved_model.pb`: a TF Hub text encoder
            * a folder with `bert_config.json` and `bert_model.ckpt`, or that checkpoint: google-research/bert
            * a folder with `config.json` and `model.safetensors` (or its shards): a Hugging Face BERT
            * an `http(s)://` URL of a TF Hub model: downloaded and cached by `tensorflow_hub.resolve`

    Raises:
        ValueError: the handle names nothing that can be read. `UnsupportedArchitectureError`, a `ValueError`, where
            a model was read but is no BERT encoder this package reproduces.
        ImportError: the weights of `"minilm"` are not installed.
    """
    if not isinstance(handle, str | os.PathLike) or not os.fspath(handle):
        raise ValueError(f"`handle` must be a name, a folder or a URL, got {handle!r}.")
    path = os.fspath(handle)
    if path == "minilm":
        from keras_bert_trend.sources.minilm import read_minilm

        return read_minilm()
    if path.startswith(("https://", "http://")):
        path = _download(path)
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        from keras_bert_trend.sources.tf_hub import read_tf_hub_model

        return read_tf_hub_model(path)
    from keras_bert_trend.sources.google_checkpoint import is_google_checkpoint, read_google_checkpoint

    if is_google_checkpoint(path):
        return read_google_checkpoint(path)
    if os.path.isfile(os.path.join(path, "config.json")):
        from keras_bert_trend.sources.hugging_face import read_hugging_face_model

        return read_hugging_face_model(path)
    found = "is a folder with neither saved_model.pb nor config.json nor bert_config.json"
    raise ValueError(
        f"`handle` {os.fspath(handle)!r} {found if os.path.isdir(path) else 'does not exist'}. "
        'Give "minilm", the folder of a TF Hub SavedModel, of a google-research/bert checkpoint or of a Hugging Face '
        "BERT, or a URL."
    )


def _download(url: str) -> str:
    import tensorflow_hub

    try:
        return tensorflow_hub.resolve(url)
    except Exception as error:  # urllib, tarfile and TensorFlow errors all come out of it
        raise ValueError(f"`handle` {url!r} could not be downloaded: {error}") from error
