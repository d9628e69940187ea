"""The vocabulary and what its tokens are: special, punctuation, continuation of a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from keras_bert_trend.token_kinds import CONTINUATION, PUNCTUATION, SPECIAL


class Vocabulary:
    """An immutable WordPiece vocabulary: the tokens in the order of their ids.

    Attributes:
        tokens: the tokens.
        padding_token, unknown_token: their names here.
        asset_name: the file that other tools read this kind of vocabulary from.

    Args:
        tokens: the tokens; must hold `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`, and none twice.

    Raises:
        ValueError: a required token is missing, or a token stands there twice.
    """

    padding_token, unknown_token = "[PAD]", "[UNK]"
    asset_name = "vocab.txt"

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        required = (self.padding_token, self.unknown_token, "[CLS]", "[SEP]")
        missing = [token for token in required if token not in self._ids]
        if missing:
            raise ValueError(
                f"The vocabulary of {len(self.tokens)} tokens lacks {missing}: it is not the vocabulary of a BERT."
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

    def make_tokenizer(self, file: str | None = None):
        """Return a `tensorflow_text` tokenizer of normalised texts: `tokenize` gives ragged int32 ids.

        Args:
            file: where `to_bytes` was written to: a SavedModel then keeps it as an asset instead of as constants.
        """
        import tensorflow as tf
        import tensorflow_text

        if file is None:
            tokens = tf.lookup.KeyValueTensorInitializer(tf.constant(self.tokens), tf.range(len(self), dtype=tf.int64))
        else:
            whole_line, line_number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            tokens = tf.lookup.TextFileInitializer(file, tf.string, whole_line, tf.int64, line_number)
        table = tf.lookup.StaticHashTable(tokens, default_value=self.id_of(self.unknown_token))
        return tensorflow_text.BertTokenizer(table, lower_case=False, token_out_type=tf.int32)

    def make_fast_tokenizer(self):
        """Return what gives the same ids faster, ragged int32 `(batch, None)`; `None` where nothing does."""
        from keras_bert_trend.preprocessing.fast_wordpiece import FastWordPiece

        try:
            return FastWordPiece(self.tokens, self.unknown_token)
        except ValueError:
            return None

    def to_bytes(self) -> bytes:
        """Return the content of the file `asset_name`: one token a line."""
        return "".join(f"{token}\n" for token in self.tokens).encode("utf-8")

    def to_config(self) -> list[str] | str:
        """Return JSON values that `BertPreprocessor`'s configuration keeps; `as_vocabulary` takes them back."""
        return list(self.tokens)

    @cached_property
    def is_lower_case(self) -> bool:
        """Whether no ordinary token has an upper-case letter: the vocabulary of an uncased model."""
        return not any(token != token.lower() for token in self.tokens if not token.startswith(("[", "<")))

    @cached_property
    def token_kinds(self) -> np.ndarray:
        """What each token is, as a lookup table over ids: uint8 `(vocabulary size,)`.

        A kind is the sum of the bits `SPECIAL` (1), `PUNCTUATION` (2) and `CONTINUATION` (4); a token with none of
        them begins a word. `[UNK]` is an ordinary word. `[MASK]` is special: it stands for no word of the text.
        """
        special = {self.padding_token, "[CLS]", "[SEP]", "[MASK]"}
        kinds = (SPECIAL if token in special else self._kind_of(token) for token in self.tokens)
        return np.fromiter(kinds, dtype=np.uint8, count=len(self.tokens))

    def surface(self, token: str) -> str:
        """Return a token's own characters, without the mark of how it joins the token before it: "##ing" → "ing"."""
        return token.removeprefix("##") if len(token) > 2 else token

    def _kind_of(self, token: str) -> int:
        piece = self.surface(token)
        return (CONTINUATION if piece != token else 0) + (PUNCTUATION if is_punctuation(piece) else 0)


def is_punctuation(piece: str) -> bool:
    """Whether a piece has no character but punctuation, and one at least."""
    return bool(piece) and all(_is_punctuation(character) for character in piece)


def _is_punctuation(character: str) -> bool:
    """Tell punctuation as BERT's tokenizer does (google-research/bert `tokenization.py`, `_is_punctuation`).

    Every non-alphanumeric ASCII sign counts, `$` and `^` too, beside Unicode's categories P.
    """
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")
