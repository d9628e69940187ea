"""Read and write `tokenizer.json`, Hugging Face's description of a tokenizer, as far as it is BERT's WordPiece."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from keras_bert_trend.sources.source import TextSource, UnsupportedArchitectureError, read_bytes

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NORMALIZER = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
_MODEL = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}


def read_tokenizer_json(path: str) -> TextSource:
    """Read vocabulary and casing from a `tokenizer.json`.

    Args:
        path: str. The file.

    Raises:
        ValueError: if it cannot be read, or its ids are not 0, 1, 2, … each once.
        UnsupportedArchitectureError: if the tokenizer is not the one of BERT: another model, normalizer or
            pre-tokenizer, or a setting of theirs that changes ids.
    """
    try:
        fields = json.loads(read_bytes(path))
        model, normalizer = fields["model"], fields["normalizer"]
        pre_tokenizer = fields["pre_tokenizer"]
        found = {"pre_tokenizer": {"type": pre_tokenizer["type"]}}
        found["model"] = {name: model.get(name, value) for name, value in _MODEL.items()}
        found["normalizer"] = {name: normalizer.get(name, value) for name, value in _NORMALIZER.items()}
        vocabulary = model["vocab"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path!r} does not describe a WordPiece tokenizer: {type(error).__name__} {error}."
        ) from error
    wanted = {"pre_tokenizer": {"type": "BertPreTokenizer"}, "model": _MODEL, "normalizer": _NORMALIZER}
    for part, settings in wanted.items():
        for name, value in settings.items():
            if found[part][name] != value:
                raise UnsupportedArchitectureError(
                    f"{path!r}: the {part}'s {name} is {found[part][name]!r}; only BERT's tokenizer is supported, with "
                    f"{value!r}."
                )
    if not isinstance(vocabulary, dict) or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"{path!r}: the ids of its vocabulary must be 0, 1, 2, … each once.")
    lower_case = bool(normalizer.get("lowercase", True))
    strip_accents = normalizer.get("strip_accents")
    return TextSource(
        vocabulary=tuple(sorted(vocabulary, key=vocabulary.get)),
        lower_case=lower_case,
        strip_accents=lower_case if strip_accents is None else bool(strip_accents),
        origin=path,
    )


def write_tokenizer_files(
    folder: str, tokens: Sequence[str], lower_case: bool, strip_accents: bool, length: int
) -> None:
    """Write `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
        folder: str. Where to.
        tokens: list of str. The WordPiece vocabulary.
        lower_case: bool. Whether texts are lower-cased.
        strip_accents: bool. Whether accents are stripped.
        length: int. The longest text the model takes, in tokens.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    special = [token for token in _SPECIAL_TOKENS if token in ids]

    def template(*sequences: str) -> list[dict[str, Any]]:
        parts = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
        for number, sequence in enumerate(sequences):
            parts.append({"Sequence": {"id": sequence, "type_id": number}})
            parts.append({"SpecialToken": {"id": "[SEP]", "type_id": number}})
        return parts

    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in special
        ],
        "normalizer": {**_NORMALIZER, "strip_accents": strip_accents, "lowercase": lower_case},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template("A"),
            "pair": template("A", "B"),
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {**_MODEL, "vocab": ids},
    }
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lower_case,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": True,
        "model_max_length": length,
        **names,
    }
    for name, content in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", names),
    ):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{token}\n" for token in tokens)
