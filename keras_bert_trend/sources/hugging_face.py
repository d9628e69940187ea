"""Read a Hugging Face folder: `config.json`, `model.safetensors` (or its shards), `vocab.txt`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.hugging_face_types import config_fields, find_model_type, tensor_names
from keras_bert_trend.sources.source import (
    LazyWeights,
    Source,
    UnsupportedArchitectureError,
    read_bytes,
    read_vocabulary_file,
)
from keras_bert_trend.sources.tokenizer_json import check_flag, read_normalizer, read_tokenizer_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
MAX_HEADER = 2 * 2**20  # bytes of a safetensors file's table of contents; BERT-large's has 40 KiB
MAX_JSON = 32 * 2**20  # bytes; a multilingual tokenizer.json has 10 MiB

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
_DTYPES = ("F32", "F16", "BF16", "F64")
# sentence-transformers' name of a pooling → this package's.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
# Tensors beside the encoder that its outputs do not depend on: position buffers and task heads.
_IGNORED = re.compile(
    r"^(embeddings\.(position|token_type)_ids|cls\.|classifier\.|qa_outputs\.|(sop|pre)_classifier\.|predictions\.|"
    r"(discriminator|generator)_predictions\.|generator_lm_head\.|vocab_(transform|layer_norm|projector)\.)"
)


class _Tensor(NamedTuple):
    """A tensor of a safetensors file: PyTorch's name, `(out, in)` kernels."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self, transposed: bool) -> np.ndarray:
        with safe_open(self.file, framework="numpy") as file:
            array = file.get_tensor(self.name)
        return (array.T if transposed else array).astype(np.float32, copy=False)


def read_hugging_face_model(path: str) -> Source:
    """Read a folder of a BERT, DistilBERT, ELECTRA, ALBERT or MobileBERT in Hugging Face's layout.

    The mask constant is −1e9: transformers masks with the smallest float, which gives the same float32 softmax. If the
    checkpoint has no pooler, `pooled_output` is the first token's last hidden state.

    Args:
        path: str. The folder.

    Raises:
        ValueError: if a file is missing, damaged, or does not fit the others.
        UnsupportedArchitectureError: if `config.json` describes another architecture, or a weight is quantised.
    """
    fields = read_json(os.path.join(path, "config.json"))
    model_type = _check_architecture(fields, path)
    tensors = _find_tensors(path)
    has_pooler = any(name in tensors for name in tensor_names("pooler/dense/kernel", model_type))
    config_file = os.path.join(path, "config.json")
    try:
        fields, others = config_fields(fields, model_type)
    except KeyError as error:
        raise ValueError(f"{config_file!r} lacks the field {error}.") from error
    config = bert_config(fields, config_file, _ACTIVATIONS, pooler="tanh" if has_pooler else "identity", **others)
    places = _find_places(tensors, config, model_type, path)
    pooling, sequence_length = _sentence_transformers(path)
    # ALBERT's tokenizer is not the one that TF Hub's models have: the folder is an encoder that takes ids.
    vocabulary, lower_case, strip_accents = (None, None, None) if model_type == "albert" else _text(path)
    return Source(
        config=config,
        weights=LazyWeights(
            {role: tensor.shape[::-1] if _is_transposed(role) else tensor.shape for role, tensor in places.items()},
            lambda role: places[role].read(_is_transposed(role)),
        ),
        vocabulary=vocabulary,
        lower_case=lower_case,
        strip_accents=strip_accents,
        normalization="bert",
        sequence_length=sequence_length,
        pooling=pooling,
        origin=path,
    )


def _text(path: str) -> tuple[tuple[str, ...] | None, bool | None, bool | None]:
    """Return vocabulary, lower case and strip accents, from `vocab.txt` or, if that is missing, `tokenizer.json`.

    transformers 5 and sentence-transformers 6 write only the latter.
    """
    vocabulary_file, tokenizer_file = (os.path.join(path, name) for name in ("vocab.txt", "tokenizer.json"))
    if os.path.isfile(vocabulary_file):
        return read_vocabulary_file(vocabulary_file), *_normalization(path)
    if os.path.isfile(tokenizer_file):
        text = read_tokenizer_json(tokenizer_file)
        return text.vocabulary, text.lower_case, text.strip_accents
    return None, *_normalization(path)


def _sentence_transformers(path: str) -> tuple[str | list[str] | None, int | None]:
    """Return the pooling and the length of a sentence-transformers folder; `None` and `None` for other folders."""
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


def _check_architecture(fields: dict, path: str) -> str:
    """Return the model type; refuse another architecture, and numbers that differ from those of the weights."""
    if str(fields.get("module", "")).startswith(("keras_hub", "keras_nlp")):
        raise UnsupportedArchitectureError(
            f"{path!r} is a preset of KerasHub's, which is not supported. Give the TF Hub SavedModel, the "
            "google-research/bert checkpoint or the Hugging Face folder that it was made of."
        )
    plain = {"position_embedding_type": "absolute"}
    absent = ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config", "auto_map")
    wrong = [name for name, value in plain.items() if fields.get(name, value) != value]
    wrong += [name for name in absent if fields.get(name)]
    if wrong:
        raise UnsupportedArchitectureError(
            f"{path!r}: config.json says {wrong[0]}={fields[wrong[0]]!r}. Supported are encoders with absolute "
            "positions, without code, pruning or quantisation of their own."
        )
    return find_model_type(fields, path)


def _find_tensors(path: str) -> dict[str, _Tensor]:
    """Return all tensors by name, of one `model.safetensors` or of shards with an index."""
    weights_file, index_file = os.path.join(path, WEIGHTS_FILE), os.path.join(path, INDEX_FILE)
    if os.path.isfile(weights_file):
        return _read_header(weights_file)
    if not os.path.isfile(index_file):
        advice = "."
        if os.path.isfile(os.path.join(path, "pytorch_model.bin")):
            advice = (
                ", only pytorch_model.bin, which could run code when it is read. Convert it where you trust it: "
                f"transformers.AutoModel.from_pretrained({path!r}).save_pretrained(NEW_FOLDER), and copy vocab.txt."
            )
        raise ValueError(f"{path!r} has a config.json but no {WEIGHTS_FILE} (nor {INDEX_FILE}){advice}")
    shards = read_json(index_file).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{index_file!r} lacks `weight_map`: tensor name to file name.")
    tensors = {}
    for shard in sorted(set(shards.values())):
        # The name comes from a downloaded file: it must not lead out of the folder.
        if shard != os.path.basename(shard) or not os.path.isfile(os.path.join(path, shard)):
            raise ValueError(f"{index_file!r} names the shard {shard!r}, which is no file beside it.")
        found = _read_header(os.path.join(path, shard))
        named = {tensor for tensor, place in shards.items() if place == shard}
        if lacking := sorted(named - set(found)):
            raise ValueError(f"{os.path.join(path, shard)!r} lacks tensors of {INDEX_FILE}: {lacking[:6]}.")
        tensors |= {name: found[name] for name in named}
    return tensors


def _read_header(path: str) -> dict[str, _Tensor]:
    """Return the tensors of a safetensors file by name, without reading one."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"{path!r} has a table of contents of {size:,} bytes, which no BERT has.")
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: _Tensor(path, n, str(s.get_dtype()), tuple(s.get_shape())) for n, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path!r} cannot be read: {error}.") from error


def _find_places(tensors: dict[str, _Tensor], config: BertConfig, model_type: str, path: str) -> dict[str, _Tensor]:
    """Return google-research/bert's names for the tensors; the caller checks which are missing."""
    places = {}
    for role in config.weight_shapes():
        found = [tensors[name] for name in tensor_names(role, model_type) if name in tensors]
        if len(found) > 1:
            raise ValueError(f"{path!r} holds {role!r} twice, as {[tensor.name for tensor in found]}.")
        if found and found[0].dtype not in _DTYPES:
            raise UnsupportedArchitectureError(
                f"{path!r}: {found[0].name!r} has the dtype {found[0].dtype}; supported are {', '.join(_DTYPES)}."
            )
        if found:
            places[role] = found[0]
    unknown = sorted(set(tensors) - {tensor.name for tensor in places.values()})
    unknown = [name for name in unknown if not _IGNORED.match(name.removeprefix(f"{model_type}."))]
    if unknown:
        raise UnsupportedArchitectureError(
            f"{path!r} holds tensors that the BERT of its config.json does not have: {unknown[:6]}."
        )
    return places


def _is_transposed(role: str) -> bool:
    return role.endswith("/kernel")  # PyTorch keeps (out, in)


def _normalization(path: str) -> tuple[bool | None, bool | None]:
    """Read (lower case, strip accents) from `tokenizer_config.json`, else from `tokenizer.json`'s normalizer."""
    settings_file, tokenizer_file = (os.path.join(path, f"tokenizer{end}.json") for end in ("_config", ""))
    normalizer = read_json(tokenizer_file).get("normalizer") if os.path.isfile(tokenizer_file) else None
    read = read_normalizer(normalizer, tokenizer_file) if normalizer else (None, None)
    settings = read_json(settings_file) if os.path.isfile(settings_file) else {}
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    flags = {name: check_flag(name, settings[name], settings_file) for name in names if settings.get(name) is not None}
    if not flags.get("tokenize_chinese_chars", True):
        raise UnsupportedArchitectureError(
            f"{settings_file!r}: tokenize_chinese_chars is false; only BERT's tokenizer is supported, which takes them "
            "apart. Without the tokenizer's files, the folder is an encoder that takes ids."
        )
    if "do_lower_case" in settings:  # then `tokenizer_config.json` decides
        return flags.get("do_lower_case"), flags.get("strip_accents")
    return read[0], flags.get("strip_accents", read[1])


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: str. The file.

    Raises:
        ValueError: if the file cannot be read, is not JSON, or holds something other than an object.
    """
    try:
        fields = json.loads(read_bytes(path, MAX_JSON))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path!r} cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path!r} must hold a JSON object, got {type(fields).__name__}.")
    return fields


def bert_config(fields: Mapping[str, Any], path: str, activations: Mapping[str, str], **others: Any) -> BertConfig:
    """Make a `BertConfig` from the field names of google-research/bert, which Hugging Face took over.

    Args:
        fields: mapping. The content of `bert_config.json` or `config.json`.
        path: str. That file, for messages.
        activations: mapping. What the publisher's names of activations mean: `hidden_act` → `BertConfig.hidden_act`.
        **others: The fields of `BertConfig` that the file does not have.

    Raises:
        ValueError: if a field is missing or has a value that no BERT can have.
        UnsupportedArchitectureError: if the activation is another one.
    """
    hidden_act = fields.get("hidden_act", "gelu")
    if not isinstance(hidden_act, str) or hidden_act not in activations:
        raise UnsupportedArchitectureError(f"{path!r} says hidden_act={hidden_act!r}, known are {sorted(activations)}.")
    try:
        return BertConfig(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            num_layers=fields["num_hidden_layers"],
            num_heads=fields["num_attention_heads"],
            intermediate_size=fields["intermediate_size"],
            max_position_embeddings=fields["max_position_embeddings"],
            hidden_act=activations[hidden_act],
            layer_norm_epsilon=fields.get("layer_norm_eps", 1e-12),
            hidden_dropout=fields.get("hidden_dropout_prob", 0.1),
            attention_dropout=fields.get("attention_probs_dropout_prob", 0.1),
            initializer_range=fields.get("initializer_range", 0.02),
            **{"type_vocab_size": fields.get("type_vocab_size", 2), **others},
        )
    except KeyError as error:
        raise ValueError(f"{path!r} lacks the field {error}.") from error
    except ValueError as error:
        raise ValueError(f"{path!r}: {error}") from error
