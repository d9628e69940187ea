"""Read and write `tokenizer.json`, Hugging Face's description of a tokenizer, as far as it is BERT's WordPiece."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
        _check("pre_tokenizer", fields["pre_tokenizer"], {"type": "BertPreTokenizer"}, path)
        _check("model", model, _MODEL, path)
        lower_case, strip_accents = read_normalizer(normalizer, path)
        vocabulary = model["vocab"]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path!r} does not describe a WordPiece tokenizer: {type(error).__name__} {error}."
        ) from error
    if not isinstance(vocabulary, dict) or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"{path!r}: the ids of its vocabulary must be 0, 1, 2, … each once.")
    return TextSource(
        vocabulary=tuple(sorted(vocabulary, key=vocabulary.get)),
        lower_case=lower_case,
        strip_accents=strip_accents,
        normalization="bert",
        origin=path,
    )


def read_normalizer(normalizer: Mapping[str, Any], path: str) -> tuple[bool, bool]:
    """Read what a `tokenizer.json` does to texts before it splits them.

    Args:
        normalizer: mapping. The file's entry `normalizer`.
        path: str. The file, for messages.

    Returns:
        Whether texts are lower-cased, and whether accents are stripped.

    Raises:
        ValueError: if a flag is not one.
        UnsupportedArchitectureError: if it is not `BertNormalizer`, alone or in a sequence of one, or has a setting
            that changes ids.
    """
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    (step,) = steps if len(steps) == 1 else [{"type": [step.get("type") for step in steps]}]
    _check("normalizer", step, _NORMALIZER, path)
    lower_case = check_flag("lowercase", step.get("lowercase", True), path)
    strip_accents = step.get("strip_accents")
    return lower_case, lower_case if strip_accents is None else check_flag("strip_accents", strip_accents, path)


def check_flag(name: str, value: Any, path: str) -> bool:
    """Return a flag of a tokenizer's file, or raise `ValueError` if it is not one: `bool("false")` is true."""
    if not isinstance(value, bool):
        raise ValueError(f"{path!r}: {name} must be true or false, got {value!r}.")
    return value


def _check(part: str, found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> None:
    for name, value in wanted.items():
        if found.get(name, value) != value:
            raise UnsupportedArchitectureError(
                f"{path!r}: the {part}'s {name} is {found[name]!r}; only BERT's tokenizer is supported, with "
                f"{value!r}. Without the tokenizer's files, the folder is an encoder that takes ids."
            )


def write_tokenizer_files(
    folder: str, tokens: Sequence[str], lower_case: bool, strip_accents: bool, length: int
) -> None:
    """Write `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
        folder: str. The folder to write to.
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
