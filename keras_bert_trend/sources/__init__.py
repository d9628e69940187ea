"""The sources room: turn a handle into a `Source`, by reading files and never by running what they contain."""

from __future__ import annotations

import os
from collections.abc import Callable

from keras_bert_trend.sources.download import HANDLE_FORMS, HUB_NAME, NO_HUB_NAMES, resolve_handle
from keras_bert_trend.sources.source import (
    LazyWeights,
    Source,
    TextSource,
    UnsupportedArchitectureError,
    read_bytes,
    read_vocabulary_file,
    reading,
)

__all__ = ["LazyWeights", "Source", "TextSource", "UnsupportedArchitectureError", "load_source", "load_text_source"]


def load_source(handle: str | os.PathLike, sha256: str | None = None) -> Source:
    """Read the model that a handle names.

    Args:
        handle: str or path. One of

            * `"minilm"`: the embedded default encoder (extra `minilm`)
            * a folder with `saved_model.pb`: a TF Hub text encoder
            * a folder with `bert_config.json` and `bert_model.ckpt`, or that checkpoint: google-research/bert
            * a folder with `config.json` and `model.safetensors` (or its shards): a Hugging Face BERT
            * a `.tar.gz` file of such a folder, an `http(s)://` URL of a TF Hub model,
              `kaggle:owner/model/framework/variation[/version]`, a `gs://` folder

        sha256: str or `None`. The SHA-256 that an archive, on this machine or behind a URL, must have; the same as
            `#sha256=…` at the handle's end. Defaults to `None`, any.

    Raises:
        ValueError: if the handle names nothing that can be read. `UnsupportedArchitectureError`, a `ValueError`, if a
            model was read that is no BERT encoder this package reproduces.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    path = _resolve(handle, sha256)
    if path == "minilm":
        from keras_bert_trend.sources.minilm import read_minilm

        return read_minilm()
    read = _find_reader(path)
    if read is None:
        raise ValueError(f"`handle` {path!r} {_what_it_is(path)}")
    with reading(path):
        return read(path)


def load_text_source(handle: str | os.PathLike, sha256: str | None = None) -> TextSource:
    """Read how a model turns texts into ids: its vocabulary, its casing.

    Args:
        handle: str or path. A `vocab.txt`, a SentencePiece `.model`, a TF Hub preprocessing model, or anything that
            `load_source` takes.
        sha256: str or `None`. As for `load_source`.

    Raises:
        ValueError: if the handle names nothing that can be read.
    """
    path = _resolve(handle, sha256)
    if os.path.isfile(path) and not path.endswith(".keras"):
        is_sentencepiece = path.endswith(".model")
        return TextSource(vocabulary=read_bytes(path) if is_sentencepiece else read_vocabulary_file(path), origin=path)
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        from keras_bert_trend.sources.saved_model.encoder import read_tf_hub_text
        from keras_bert_trend.sources.saved_model.files import SavedModelFiles
        from keras_bert_trend.sources.saved_model.preprocessing import is_preprocessing, read_tf_hub_preprocessing

        with reading(path):
            files = SavedModelFiles(path)
            return read_tf_hub_preprocessing(files) if is_preprocessing(files) else read_tf_hub_text(files)
    return load_source(path)


def _resolve(handle: str | os.PathLike, sha256: str | None) -> str:
    """Return the path on this machine of what the handle names, or `"minilm"`."""
    if not isinstance(handle, str | os.PathLike) or not os.fspath(handle):
        raise ValueError(f"`handle` must be a name, a folder or a URL, got {handle!r}.")
    path, _, pin = os.fspath(handle).partition("#sha256=")
    if pin and sha256 and pin.lower() != sha256.lower():
        raise ValueError(f"`handle` {handle!r} and `sha256` {sha256!r} contradict each other.")
    return resolve_handle(path, sha256 or pin or None)


def _find_reader(path: str) -> Callable[[str], Source] | None:
    """Tell by its files what a folder holds; readers are imported where they are needed."""
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        from keras_bert_trend.sources.saved_model.encoder import read_tf_hub_model

        return read_tf_hub_model
    if os.path.isfile(f"{path}.index") or os.path.isfile(os.path.join(path, "bert_config.json")):
        from keras_bert_trend.sources.google_checkpoint import read_google_checkpoint

        return read_google_checkpoint
    if os.path.isfile(os.path.join(path, "config.json")):
        from keras_bert_trend.sources.hugging_face import read_hugging_face_model

        return read_hugging_face_model
    return None


def _what_it_is(path: str) -> str:
    """Say why a path is not a model, and what to do."""
    if path.endswith((".keras", ".h5")):
        return "is a file of Keras's: open it with keras.models.load_model, after importing keras_bert_trend."
    if os.path.isdir(path):
        return f"is a folder with neither saved_model.pb nor config.json nor bert_config.json. {HANDLE_FORMS}"
    if os.path.exists(path):
        return f"is a file: give the folder that the model lies in. {HANDLE_FORMS}"
    return f"does not exist. {HANDLE_FORMS}" + (f" {NO_HUB_NAMES}" if HUB_NAME.fullmatch(path) else "")
