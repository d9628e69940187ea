"""Write an encoder as the Hugging Face folder of a BERT or a MobileBERT, for transformers and its relatives."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save_file

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.sources.hugging_face_types import MODEL_TYPES, tensor_names
from keras_bert_trend.sources.tokenizer_json import write_tokenizer_files

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def write_hugging_face(
    path: str, config: BertConfig, weights: Mapping[str, np.ndarray], preprocessor, overwrite: bool
) -> None:
    """Write an encoder; see `BertEncoder.export_hugging_face`."""
    model_type = config.kind.hugging_face
    if model_type is None:
        raise ValueError(f"Hugging Face has no model with block={config.block!r}: export_text_encoder writes it.")
    if config.share_layers or (model_type == "bert" and config.embedding_size != config.hidden_size):
        raise ValueError(
            "Only BERT can be written as a Hugging Face BERT: this encoder shares its layers or has embeddings "
            "narrower than its states (ALBERT, ELECTRA)."
        )
    if model_type == "mobilebert" and config.normalization != "no_norm":
        raise ValueError(f"Hugging Face's MobileBERT has no_norm in the place of {config.normalization!r}.")
    if not config.type_vocab_size:
        raise ValueError("Only BERT can be written as a Hugging Face BERT: this encoder has no types (DistilBERT).")
    if preprocessor is not None and preprocessor.vocabulary.asset_name != "vocab.txt":
        raise ValueError("`preprocessor` has a SentencePiece vocabulary; Hugging Face's BERT has WordPiece.")
    tensors = {tensor_names(name, model_type)[0]: _as_stored(name, array) for name, array in weights.items()}
    with complete_or_nothing(path, overwrite) as folder:
        os.mkdir(folder)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(_fields(config, preprocessor), file, indent=2)
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        if preprocessor is not None:
            write_tokenizer_files(
                folder,
                preprocessor.vocabulary.tokens,
                lower_case=preprocessor.lower_case,
                strip_accents=preprocessor.strip_accents,
                length=config.max_position_embeddings,
            )


def _fields(config: BertConfig, preprocessor) -> dict:
    padding = 0 if preprocessor is None else preprocessor.vocabulary.special_ids.padding
    model_type = config.kind.hugging_face
    kind = MODEL_TYPES[model_type]
    return {
        "architectures": [{"bert": "BertModel", "mobilebert": "MobileBertModel"}[model_type]],
        "model_type": model_type,
        **kind.fixed,
        **{field: getattr(config, name) for name, field in kind.config.items()},
        **({"classifier_activation": config.pooler == "tanh"} if model_type == "mobilebert" else {}),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": _ACTIVATIONS[config.hidden_act],
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": config.layer_norm_epsilon,
        "pad_token_id": padding,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }


def _as_stored(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float32)
    return np.ascontiguousarray(array.T if name.endswith("/kernel") else array)  # PyTorch keeps (out, in)
