"""Hugging Face's `model_type`s: how each calls BERT's weights and fields, and what of it can be read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from keras_bert_trend.sources.source import UnsupportedArchitectureError


@dataclasses.dataclass(frozen=True)
class ModelType:
    """What differs from Hugging Face's BERT.

    Args:
        modules: tuple of (pattern, replacement). What is called otherwise than in BERT, as for `re.sub`.
        fields: mapping. BERT's field in `config.json` → the name that it has here.
        fixed: mapping. Field → the only value that is read; a missing field has it.
        config: mapping. Field of `BertConfig` → the field it is read from.
        constants: mapping. Field of `BertConfig` → its value in all such models.
    """

    modules: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


MODEL_TYPES: dict[str, ModelType] = {
    "bert": ModelType(),
    "distilbert": ModelType(
        modules=(
            (r"^encoder\.", "transformer."),
            (r"attention\.self\.(\w)\w*", r"attention.\1_lin"),
            (r"attention\.output\.dense", "attention.out_lin"),
            (r"attention\.output\.LayerNorm", "sa_layer_norm"),
            (r"intermediate\.dense", "ffn.lin1"),
            (r"(\d)\.output\.dense", r"\1.ffn.lin2"),
            (r"(\d)\.output\.LayerNorm", r"\1.output_layer_norm"),
        ),
        fields={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        constants={"type_vocab_size": 0},
    ),
    "electra": ModelType(
        modules=((r"^encoder\.embedding_hidden_mapping_in", "embeddings_project"),),
        config={"embedding_size": "embedding_size"},
    ),
    "albert": ModelType(
        modules=(
            (r"^encoder\.layer\.0", "encoder.albert_layer_groups.0.albert_layers.0"),
            (r"attention\.(self|output)\.", "attention."),
            (r"intermediate\.dense", "ffn"),
            (r"(\d)\.output\.dense", r"\1.ffn_output"),
            (r"(\d)\.output\.LayerNorm", r"\1.full_layer_layer_norm"),
            (r"pooler\.dense", "pooler"),
        ),
        fixed={"num_hidden_groups": 1, "inner_group_num": 1},
        config={"embedding_size": "embedding_size"},
        constants={"share_layers": True},
    ),
    "mobilebert": ModelType(
        modules=((r"ffn_layer\.", "ffn."),),
        fixed={
            "trigram_input": True,
            "use_bottleneck": True,
            "use_bottleneck_attention": False,
            "key_query_shared_bottleneck": True,
            "normalization_type": "no_norm",  # with "layer_norm" transformers has another epsilon in the embeddings
        },
        config={
            "embedding_size": "embedding_size",
            "bottleneck_size": "intra_bottleneck_size",
            "num_feed_forwards": "num_feedforward_networks",
        },
        constants={"block": "mobile", "normalization": "no_norm"},
    ),
}

_NEEDED = {
    "roberta": "positions that count from the padding id on, and a byte-level BPE tokenizer",
    "xlm-roberta": "positions that count from the padding id on, and fairseq's numbering of SentencePiece tokens",
    "mpnet": "a bias of relative positions in every attention, and positions that count from the padding id on",
    "deberta": "disentangled attention, whose scores add products of words and relative positions",
    "deberta-v2": "disentangled attention, whose scores add products of words and relative positions",
    "modernbert": "rotary positions, local attention, layers without biases, and a byte-level BPE tokenizer",
}


def find_model_type(fields: Mapping[str, Any], path: str) -> str:
    """Return the model type that `config.json` says.

    Raises:
        UnsupportedArchitectureError: if it is another, or a form of it that is not read.
    """
    name = fields.get("model_type", "bert")
    if name not in MODEL_TYPES:
        needed = f" It would need {_NEEDED[name]}." if name in _NEEDED else ""
        raise UnsupportedArchitectureError(
            f"{path!r}: config.json says model_type={name!r}. Supported are {', '.join(MODEL_TYPES)}.{needed}"
        )
    for field, value in MODEL_TYPES[name].fixed.items():
        if fields.get(field, value) != value:
            raise UnsupportedArchitectureError(
                f"{path!r}: config.json says {field}={fields[field]!r}; of {name}, {field}={value!r} is supported."
            )
    return name


def config_fields(fields: Mapping[str, Any], model_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields under BERT's names, and what of `BertConfig` BERT has no fields for.

    Raises:
        KeyError: if a field is missing.
    """
    kind = MODEL_TYPES[model_type]
    renamed = {bert: fields[name] for bert, name in kind.fields.items() if name in fields}
    others = {name: fields[field] for name, field in kind.config.items()}
    return {**fields, **renamed}, {**others, **kind.constants}


def tensor_names(role: str, model_type: str = "bert") -> list[str]:
    """Return what Hugging Face may call a weight of google-research/bert's, today's name first.

    Checkpoints converted early on say gamma and beta; those of models with a task's head begin with the model's name.
    """
    module, _, leaf = role.replace("layer_", "layer.").replace("/", ".").rpartition(".")
    leaves = {"kernel": ["weight"], "bias": ["bias"], "gamma": ["weight", "gamma"], "beta": ["bias", "beta"]}
    if leaf not in leaves:
        module, leaves = f"{module}.{leaf}", {leaf: ["weight"]}
    for pattern, replacement in MODEL_TYPES[model_type].modules:
        module = re.sub(pattern, replacement, module)
    return [f"{prefix}{module}.{end}" for prefix in ("", f"{model_type}.") for end in leaves[leaf]]
