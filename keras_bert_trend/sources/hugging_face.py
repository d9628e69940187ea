"""Read a Hugging Face BERT folder: `config.json`, `model.safetensors` (or its shards), `vocab.txt`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.source import (
    LazyWeights,
    Source,
    UnsupportedArchitectureError,
    read_bytes,
    read_vocabulary_file,
)
from keras_bert_trend.sources.tokenizer_json import read_tokenizer_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
# sentence-transformers' name of a pooling → this package's.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
# Tensors beside the encoder that its outputs do not depend on: position buffers and task heads.
_IGNORED = re.compile(r"^(embeddings\.position_ids|embeddings\.token_type_ids|cls\.|classifier\.|qa_outputs\.)")


def read_hugging_face_model(path: str) -> Source:
    """Read a BERT folder in Hugging Face's layout.

    The mask constant is −1e9 (transformers masks with the smallest float, which gives the same float32 softmax).
    Where the checkpoint has no pooler, `pooled_output` is the first token's last hidden state.

    Args:
        path: the folder.

    Raises:
        ValueError: a file is missing, damaged, or does not fit the others.
        UnsupportedArchitectureError: `config.json` describes something other than an encoder-only BERT.
    """
    fields = read_json(os.path.join(path, "config.json"))
    files = _find_tensors(path)
    places, unknown = {}, []
    for tensor, file in files.items():
        name = tensor.removeprefix("bert.")
        if _IGNORED.match(name):
            continue
        role, transposed = _role(name)
        if role is None:
            unknown.append(tensor)
        elif role in places:
            raise ValueError(f"{path!r} holds {role!r} twice, with and without the prefix 'bert.'.")
        else:
            places[role] = (file, tensor, transposed)
    if unknown:
        raise UnsupportedArchitectureError(f"{path!r} holds tensors that BERT does not have: {unknown[:6]}.")

    pooling, sequence_length = _sentence_transformers(path)
    vocabulary, lower_case, strip_accents = _text(path)
    return Source(
        config=_config(fields, path, has_pooler="pooler/dense/kernel" in places),
        weights=LazyWeights(
            {role: _tensor_shape(*place) for role, place in places.items()},
            lambda role: _read_tensor(*places[role]),
        ),
        vocabulary=vocabulary,
        lower_case=lower_case,
        strip_accents=strip_accents,
        sequence_length=sequence_length,
        pooling=pooling,
        origin=path,
    )


def _text(path: str) -> tuple[tuple[str, ...] | None, bool | None, bool | None]:
    """Return vocabulary, lower case and strip accents: of `vocab.txt`, or of `tokenizer.json` if there is none.

    transformers 5 and sentence-transformers 6 write the latter alone.
    """
    vocabulary_file, tokenizer_file = (os.path.join(path, name) for name in ("vocab.txt", "tokenizer.json"))
    if os.path.isfile(vocabulary_file):
        return read_vocabulary_file(vocabulary_file), *_normalization(path)
    if os.path.isfile(tokenizer_file):
        text = read_tokenizer_json(tokenizer_file)
        return text.vocabulary, text.lower_case, text.strip_accents
    return None, *_normalization(path)


def _sentence_transformers(path: str) -> tuple[str | list[str] | None, int | None]:
    """Return the pooling and the length of a sentence-transformers folder; `None` and `None` for another."""
    modules_file = os.path.join(path, "modules.json")
    if not os.path.isfile(modules_file):
        return None, None
    try:
        modules = json.loads(read_bytes(modules_file))
        folders = [module["path"] for module in modules if module["type"].endswith(".Pooling")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{modules_file!r} cannot be read: {type(error).__name__} {error}.") from error
    pooling = None
    # The name comes from a downloaded file: it must not lead out of the folder.
    if folders and folders[0] and folders[0] == os.path.basename(folders[0]):
        fields = read_json(os.path.join(path, folders[0], "config.json"))
        chosen = [
            _POOLINGS.get(name, name) for name in fields if name.startswith("pooling_mode_") and fields[name] is True
        ]
        if isinstance(fields.get("pooling_mode"), str):  # since sentence-transformers 6
            chosen = fields["pooling_mode"].split("+")
        pooling = chosen[0] if len(chosen) == 1 else chosen or None
    length_file = os.path.join(path, "sentence_bert_config.json")
    length = read_json(length_file).get("max_seq_length") if os.path.isfile(length_file) else None
    return pooling, length if isinstance(length, int) and length >= 3 else None


def _config(fields: dict, path: str, has_pooler: bool) -> BertConfig:
    def refuse(reason):
        return UnsupportedArchitectureError(
            f"{path!r}: config.json {reason}. Supported is model_type 'bert' with absolute positions, encoder only."
        )

    if fields.get("model_type", "bert") != "bert":
        raise refuse(f"says model_type={fields['model_type']!r}")
    if fields.get("position_embedding_type", "absolute") != "absolute":
        raise refuse(f"says position_embedding_type={fields['position_embedding_type']!r}")
    if fields.get("is_decoder") or fields.get("add_cross_attention"):
        raise refuse("describes a decoder")
    pooler = "tanh" if has_pooler else "identity"
    return bert_config(fields, os.path.join(path, "config.json"), _ACTIVATIONS, pooler=pooler)


def _find_tensors(path: str) -> dict[str, str]:
    """Return tensor name → the file it stands in, for one `model.safetensors` or for shards with an index."""
    weights_file, index_file = os.path.join(path, WEIGHTS_FILE), os.path.join(path, INDEX_FILE)
    if os.path.isfile(weights_file):
        return dict.fromkeys(_tensor_names(weights_file), weights_file)
    if not os.path.isfile(index_file):
        raise ValueError(f"{path!r} has a config.json but no {WEIGHTS_FILE} (nor {INDEX_FILE}).")
    shards = read_json(index_file).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{index_file!r} lacks `weight_map`: tensor name to file name.")
    for shard in sorted(set(shards.values())):
        # The name comes from a downloaded file: it must not lead out of the folder.
        if shard != os.path.basename(shard) or not os.path.isfile(os.path.join(path, shard)):
            raise ValueError(f"{index_file!r} names the shard {shard!r}, which is no file beside it.")
        lacking = {tensor for tensor, place in shards.items() if place == shard}
        lacking -= set(_tensor_names(os.path.join(path, shard)))
        if lacking:
            raise ValueError(f"{os.path.join(path, shard)!r} lacks tensors of {INDEX_FILE}: {sorted(lacking)[:6]}.")
    return {tensor: os.path.join(path, shard) for tensor, shard in shards.items()}


def _tensor_names(file_name: str) -> list[str]:
    try:
        with safe_open(file_name, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file_name!r} cannot be read: {error}.") from error


def _role(name: str) -> tuple[str | None, bool]:
    """Return the google-research/bert name for a Hugging Face tensor, and whether it is stored transposed."""
    parts = name.split(".")
    leaf = parts[-1]
    if parts[0] == "embeddings" and len(parts) == 3:
        if parts[1] in _EMBEDDINGS and leaf == "weight":
            return f"embeddings/{parts[1]}", False
        if parts[1] == "LayerNorm":
            return _norm_role("embeddings/LayerNorm", leaf)
    if parts[:2] == ["encoder", "layer"] and len(parts) > 4:
        prefix = "/".join(["encoder", f"layer_{parts[2]}", *parts[3:-1]])
        return _norm_role(prefix, leaf) if parts[-2] == "LayerNorm" else _dense_role(prefix, leaf)
    if parts[:2] == ["pooler", "dense"]:
        return _dense_role("pooler/dense", leaf)
    return None, False


def _norm_role(prefix: str, leaf: str) -> tuple[str | None, bool]:
    # Checkpoints converted early on say gamma and beta.
    role = {"weight": "gamma", "bias": "beta", "gamma": "gamma", "beta": "beta"}.get(leaf)
    return (f"{prefix}/{role}" if role else None), False


def _dense_role(prefix: str, leaf: str) -> tuple[str | None, bool]:
    if leaf == "weight":
        return f"{prefix}/kernel", True  # PyTorch keeps (out, in)
    return (f"{prefix}/bias" if leaf == "bias" else None), False


def _tensor_shape(path: str, tensor: str, transposed: bool) -> tuple[int, ...]:
    with safe_open(path, framework="numpy") as file:
        shape = tuple(file.get_slice(tensor).get_shape())
    return shape[::-1] if transposed else shape


def _read_tensor(path: str, tensor: str, transposed: bool) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        array = file.get_tensor(tensor)
    return (array.T if transposed else array).astype(np.float32, copy=False)


def _normalization(path: str) -> tuple[bool | None, bool | None]:
    """Read (lower case, strip accents) from `tokenizer_config.json`, else from `tokenizer.json`'s normalizer."""
    file = os.path.join(path, "tokenizer_config.json")
    if os.path.isfile(file) and "do_lower_case" in (fields := read_json(file)):
        return bool(fields["do_lower_case"]), fields.get("strip_accents")
    file = os.path.join(path, "tokenizer.json")
    if os.path.isfile(file):
        normalizer = read_json(file).get("normalizer") or {}
        if "lowercase" in normalizer:
            return bool(normalizer["lowercase"]), normalizer.get("strip_accents")
    return None, None


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ValueError: the file cannot be read, is no JSON, or holds something other than an object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path!r} cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path!r} must hold a JSON object, got {type(fields).__name__}.")
    return fields


def bert_config(fields: Mapping[str, Any], path: str, activations: Mapping[str, str], **others: Any) -> BertConfig:
    """Make a `BertConfig` from the field names of google-research/bert, which Hugging Face took over.

    Args:
        fields: the content of `bert_config.json` or `config.json`.
        path: that file, for messages.
        activations: what the publisher's names of activations mean: `hidden_act` → `BertConfig.hidden_act`.
        **others: fields of `BertConfig` that stand in no file.

    Raises:
        ValueError: a field is missing or has a value that no BERT can have.
        UnsupportedArchitectureError: the activation is another one.
    """
    hidden_act = fields.get("hidden_act", "gelu")
    if hidden_act not in activations:
        raise UnsupportedArchitectureError(f"{path!r} says hidden_act={hidden_act!r}, known are {sorted(activations)}.")
    try:
        return BertConfig(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            num_layers=fields["num_hidden_layers"],
            num_heads=fields["num_attention_heads"],
            intermediate_size=fields["intermediate_size"],
            max_position_embeddings=fields["max_position_embeddings"],
            type_vocab_size=fields.get("type_vocab_size", 2),
            hidden_act=activations[hidden_act],
            layer_norm_epsilon=fields.get("layer_norm_eps", 1e-12),
            hidden_dropout=fields.get("hidden_dropout_prob", 0.1),
            attention_dropout=fields.get("attention_probs_dropout_prob", 0.1),
            initializer_range=fields.get("initializer_range", 0.02),
            **others,
        )
    except KeyError as error:
        raise ValueError(f"{path!r} lacks the field {error}.") from error
    except ValueError as error:
        raise ValueError(f"{path!r}: {error}") from error
