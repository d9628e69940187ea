"""The sources room: turn a handle into a `Source`, by reading files and never by running what they contain."""

from __future__ import annotations

import os
from collections.abc import Callable

from keras_bert_trend.sources.download import ARCHIVE_SUFFIXES, HANDLE_FORMS, HUB_NAME, NO_HUB_NAMES, resolve_handle
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


def load_source(handle: str | os.PathLike) -> Source:
    """Read the model that a handle names.

    Args:
        handle: one of

            * `"minilm"`: the embedded default encoder (extra `minilm`)
            * a folder with `saved_model.pb`: a TF Hub text encoder
            * a folder with `bert_config.json` and `bert_model.ckpt`, or that checkpoint: google-research/bert
            * a folder with `config.json` and `model.safetensors` (or its shards): a Hugging Face BERT
            * what `resolve_handle` makes such a folder of: a `.tar.gz` file, an `http(s)://` URL of a TF Hub model,
              `kaggle:owner/model/framework/variation[/version]`, a `gs://` folder

    Raises:
        ValueError: the handle names nothing that can be read. `UnsupportedArchitectureError`, a `ValueError`, where
            a model was read but is no BERT encoder this package reproduces.
        ImportError: the weights of `"minilm"` are not installed.
    """
    path = _check_handle(handle)
    if path == "minilm":
        from keras_bert_trend.sources.minilm import read_minilm

        return read_minilm()
    path = resolve_handle(path)
    read = _find_reader(path)
    if read is None:
        found, advice = "does not exist", HANDLE_FORMS
        if os.path.isdir(path):
            found = "is a folder with neither saved_model.pb nor config.json nor bert_config.json"
        elif os.path.exists(path):
            found = "is a file: give the folder that the model lies in"
        elif HUB_NAME.fullmatch(path):
            advice = f"{HANDLE_FORMS} {NO_HUB_NAMES}"
        raise ValueError(f"`handle` {path!r} {found}. {advice}")
    with reading(path):
        return read(path)


def load_text_source(handle: str | os.PathLike) -> TextSource:
    """Read how a model turns texts into ids: its vocabulary, its casing.

    Args:
        handle: a `vocab.txt`, a SentencePiece `.model`, a TF Hub preprocessing model, or what `load_source` takes.

    Raises:
        ValueError: the handle names nothing that can be read; see `load_source`.
    """
    path = _check_handle(handle)
    if os.path.isfile(path) and not path.endswith(ARCHIVE_SUFFIXES):
        is_sentencepiece = path.endswith(".model")
        return TextSource(vocabulary=read_bytes(path) if is_sentencepiece else read_vocabulary_file(path), origin=path)
    path = path if path == "minilm" else resolve_handle(path)
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        from keras_bert_trend.sources.saved_model.encoder import read_tf_hub_text
        from keras_bert_trend.sources.saved_model.files import SavedModelFiles
        from keras_bert_trend.sources.saved_model.preprocessing import is_preprocessing, read_tf_hub_preprocessing

        with reading(path):
            files = SavedModelFiles(path)
            return read_tf_hub_preprocessing(files) if is_preprocessing(files) else read_tf_hub_text(files)
    return load_source(path)


def _check_handle(handle) -> str:
    if not isinstance(handle, str | os.PathLike) or not os.fspath(handle):
        raise ValueError(f"`handle` must be a name, a folder or a URL, got {handle!r}.")
    return os.fspath(handle)


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
