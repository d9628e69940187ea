"""Read a Hugging Face BERT folder: `config.json`, `model.safetensors`, `vocab.txt`."""

from __future__ import annotations

import json
import os
import re
from functools import partial

import numpy as np
from safetensors import SafetensorError, safe_open

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.source import LazyWeights, Source, UnsupportedArchitectureError, read_vocabulary_file

WEIGHTS_FILE = "model.safetensors"

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
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
    fields = _read_json(os.path.join(path, "config.json"))
    weights_file = os.path.join(path, WEIGHTS_FILE)
    if not os.path.isfile(weights_file):
        raise ValueError(f"{path!r} has a config.json but no {WEIGHTS_FILE}.")
    try:
        with safe_open(weights_file, framework="numpy") as file:
            tensors = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights_file!r} cannot be read: {error}.") from error

    readers, unknown = {}, []
    for tensor in tensors:
        name = tensor.removeprefix("bert.")
        if _IGNORED.match(name):
            continue
        role, transposed = _role(name)
        if role is None:
            unknown.append(tensor)
        else:
            readers[role] = partial(_read_tensor, weights_file, tensor, transposed)
    if unknown:
        raise UnsupportedArchitectureError(f"{weights_file!r} holds tensors that BERT does not have: {unknown[:6]}.")

    vocabulary_file = os.path.join(path, "vocab.txt")
    vocabulary = read_vocabulary_file(vocabulary_file) if os.path.isfile(vocabulary_file) else None
    return Source(
        config=_config(fields, path, has_pooler="pooler/dense/kernel" in readers),
        weights=LazyWeights(readers),
        vocabulary=vocabulary,
        lower_case=_lower_case(path),
        origin=path,
    )


def _read_json(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path!r} cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path!r} must hold a JSON object, got {type(fields).__name__}.")
    return fields


def _config(fields: dict, path: str, has_pooler: bool) -> BertConfig:
    def refuse(reason):
        return UnsupportedArchitectureError(
            f"{path!r}: {reason}. Supported is model_type 'bert' with absolute positions, encoder only."
        )

    if fields.get("model_type", "bert") != "bert":
        raise refuse(f"config.json says model_type={fields['model_type']!r}")
    if fields.get("position_embedding_type", "absolute") != "absolute":
        raise refuse(f"config.json says position_embedding_type={fields['position_embedding_type']!r}")
    if fields.get("is_decoder") or fields.get("add_cross_attention"):
        raise refuse("config.json describes a decoder")
    if fields.get("hidden_act", "gelu") not in _ACTIVATIONS:
        raise refuse(f"config.json says hidden_act={fields['hidden_act']!r}, known are {sorted(_ACTIVATIONS)}")
    try:
        return BertConfig(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            num_layers=fields["num_hidden_layers"],
            num_heads=fields["num_attention_heads"],
            intermediate_size=fields["intermediate_size"],
            max_position_embeddings=fields["max_position_embeddings"],
            type_vocab_size=fields.get("type_vocab_size", 2),
            hidden_act=_ACTIVATIONS[fields.get("hidden_act", "gelu")],
            layer_norm_epsilon=fields.get("layer_norm_eps", 1e-12),
            hidden_dropout=fields.get("hidden_dropout_prob", 0.1),
            attention_dropout=fields.get("attention_probs_dropout_prob", 0.1),
            pooler="tanh" if has_pooler else "identity",
            initializer_range=fields.get("initializer_range", 0.02),
        )
    except KeyError as error:
        raise ValueError(f"{path!r}: config.json lacks the field {error}.") from error


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


def _read_tensor(path: str, tensor: str, transposed: bool) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        array = file.get_tensor(tensor)
    return (array.T if transposed else array).astype(np.float32, copy=False)


def _lower_case(path: str) -> bool | None:
    """Read the casing from `tokenizer_config.json`, else from `tokenizer.json`'s normalizer."""
    file = os.path.join(path, "tokenizer_config.json")
    if os.path.isfile(file) and "do_lower_case" in (fields := _read_json(file)):
        return bool(fields["do_lower_case"])
    file = os.path.join(path, "tokenizer.json")
    if os.path.isfile(file):
        normalizer = _read_json(file).get("normalizer") or {}
        if "lowercase" in normalizer:
            return bool(normalizer["lowercase"])
    return None
