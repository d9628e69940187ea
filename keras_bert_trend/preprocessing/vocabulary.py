"""The WordPiece vocabulary and what its tokens are: special, punctuation, continuation of a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from keras_bert_trend.token_kinds import CONTINUATION, PUNCTUATION, SPECIAL

_SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
_REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class Vocabulary:
    """An immutable WordPiece vocabulary: the tokens in the order of their ids.

    Args:
        tokens: the tokens; must hold `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`, and none twice.

    Raises:
        ValueError: a required token is missing, or a token stands there twice.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        missing = [token for token in _REQUIRED_TOKENS if token not in self._ids]
        if missing:
            raise ValueError(
                f"The vocabulary of {len(self.tokens)} tokens lacks {missing}: it is no BERT WordPiece vocabulary."
            )
        if len(self._ids) != len(self.tokens):
            twice = next(token for i, token in enumerate(self.tokens) if self._ids[token] != i)
            raise ValueError(f"The vocabulary holds the token {twice!r} twice.")

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"

    def id_of(self, token: str) -> int:
        """Return a token's id.

        Raises:
            KeyError: the token is not in the vocabulary.
        """
        return self._ids[token]

    @cached_property
    def is_lower_case(self) -> bool:
        """Whether no ordinary token has an upper-case letter: the vocabulary of an uncased model."""
        return not any(token != token.lower() for token in self.tokens if not token.startswith("["))

    @cached_property
    def token_kinds(self) -> np.ndarray:
        """What each token is, as a lookup table over ids: uint8 `(vocabulary size,)`.

        A kind is the sum of the bits `SPECIAL` (1), `PUNCTUATION` (2) and `CONTINUATION` (4); a token with none of
        them begins a word. `[UNK]` is an ordinary word. `[MASK]` is special: it stands for no word of the text.
        """
        kinds = np.zeros(len(self.tokens), dtype=np.uint8)
        for i, token in enumerate(self.tokens):
            if token in _SPECIAL_TOKENS:
                kinds[i] = SPECIAL
                continue
            piece = token.removeprefix("##") if len(token) > 2 else token
            if piece != token:
                kinds[i] += CONTINUATION
            if piece and all(_is_punctuation(character) for character in piece):
                kinds[i] += PUNCTUATION
        return kinds


def _is_punctuation(character: str) -> bool:
    """Tell punctuation as BERT's tokenizer does (google-research/bert `tokenization.py`, `_is_punctuation`).

    Every non-alphanumeric ASCII sign counts, `$` and `^` too, beside Unicode's categories P.
    """
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")
