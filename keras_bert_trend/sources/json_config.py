"""Read the configuration that google-research/bert and Hugging Face write beside a BERT's weights, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.source import UnsupportedArchitectureError


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
