"""The vocabulary and what its tokens are: special, punctuation, continuation of a word."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

# Bits of a token kind: what preprocessing writes into its lookup table and pooling reads from it.
SPECIAL = 1  # [CLS], [SEP], [PAD], [MASK]: not a word of the text
PUNCTUATION = 2
CONTINUATION = 4  # continues a word: "##ing"

_WORD_BEGINS = "\u2581"  # "▁", what SentencePiece writes for a space


class SpecialIds(NamedTuple):
    """The ids that packing adds.

    Attributes:
        padding: int. The id of `[PAD]`.
        start: int. The id of `[CLS]`.
        end: int. The id of `[SEP]`.
    """

    padding: int
    start: int
    end: int


class Vocabulary:
    """An immutable WordPiece vocabulary: the tokens in the order of their ids.

    Attributes:
        tokens: tuple of str. The tokens.
        padding_token, unknown_token: str. What this kind of vocabulary calls `[PAD]` and `[UNK]`.
        asset_name: str. The name of the file that other tools read this kind of vocabulary from.

    Args:
        tokens: iterable of str. The tokens, each once, with `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]` among them.

    Raises:
        ValueError: if a required token is missing, or a token occurs twice.
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
            KeyError: if the token is not in the vocabulary.
        """
        return self._ids[token]

    @cached_property
    def special_ids(self) -> SpecialIds:
        """The ids that packing adds to a text's tokens."""
        return SpecialIds(self.id_of(self.padding_token), self.id_of("[CLS]"), self.id_of("[SEP]"))

    def make_tokenizer(self, file: str | None = None):
        """Return a `tensorflow_text` tokenizer of normalised texts: `tokenize` gives ragged int32 ids.

        Args:
            file: str or `None`. A file that holds `to_bytes`. If given, a SavedModel keeps it as an asset; otherwise
                it keeps the tokens as constants. Defaults to `None`.
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
        """Return a tokenizer that gives the same ids faster, ragged int32 `(batch, None)`; `None` if there is none."""
        from keras_bert_trend.preprocessing.wordpiece import FastWordPiece

        try:
            return FastWordPiece(self.tokens, self.unknown_token)
        except ValueError:
            return None

    def to_bytes(self) -> bytes:
        """Return the content of the file `asset_name`: one token per line."""
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
        them begins a word. `[UNK]` is an ordinary word. `[MASK]` is special: it is not a word of the text.
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


class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model (Kudo and Richardson 2018, arXiv:1808.06226): its pieces, and how texts are cut into them.

    Attributes:
        model: bytes. The serialised model.

    Args:
        model: bytes. The serialised model, the content of a `.model` file.

    Raises:
        ValueError: if the bytes are not a SentencePiece model, or if its pieces lack `<pad>`, `<unk>`, `[CLS]` or
            `[SEP]`.
    """

    padding_token, unknown_token = "<pad>", "<unk>"
    asset_name = "spiece.model"

    def __init__(self, model: bytes) -> None:
        self.model = model
        super().__init__(_read_pieces(self.make_tokenizer()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentencePieceVocabulary) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    def make_tokenizer(self, file: str | None = None):
        """Return a `tensorflow_text` tokenizer of normalised texts; it keeps the model itself, whatever `file` is."""
        import tensorflow as tf
        import tensorflow_text

        try:
            return tensorflow_text.SentencepieceTokenizer(self.model, out_type=tf.int32)
        except tf.errors.OpError as error:
            raise ValueError(f"The {len(self.model)} bytes are no SentencePiece model: {error.message}") from error

    def make_fast_tokenizer(self) -> None:
        """Return `None`: SentencePiece has one tokenizer only."""

    def to_bytes(self) -> bytes:
        return self.model

    def to_config(self) -> list[str] | str:
        """Return the model in base64, since a configuration is JSON."""
        return base64.b64encode(self.model).decode("ascii")

    def surface(self, token: str) -> str:
        """Return a token's own characters, without the mark of the space before it: "▁the" → "the"."""
        return token.removeprefix(_WORD_BEGINS)

    def _kind_of(self, token: str) -> int:
        piece = self.surface(token)
        # A space alone is not a word, and punctuation does not continue one, even without a space before it.
        if not piece or is_punctuation(piece):
            return PUNCTUATION
        return CONTINUATION if piece == token and token != self.unknown_token else 0


def as_vocabulary(vocabulary: Vocabulary | Iterable[str] | bytes | str) -> Vocabulary:
    """Make a vocabulary of anything that stands for one.

    Args:
        vocabulary: iterable of str, bytes, str or `Vocabulary`. WordPiece tokens in the order of their ids, a
            serialised SentencePiece model, what `Vocabulary.to_config` returns, or a vocabulary.

    Raises:
        ValueError: if it is none of these, or lacks a token that a BERT needs.
    """
    if isinstance(vocabulary, Vocabulary):
        return vocabulary
    if isinstance(vocabulary, str):
        try:
            vocabulary = base64.b64decode(vocabulary, validate=True)
        except ValueError:
            raise ValueError(
                f"`vocabulary` must be tokens or a SentencePiece model, got {vocabulary[:60]!r}."
            ) from None
    return SentencePieceVocabulary(vocabulary) if isinstance(vocabulary, bytes) else Vocabulary(vocabulary)


def _read_pieces(tokenizer) -> list[str]:
    import tensorflow as tf

    with tf.init_scope():
        pieces = tokenizer.id_to_string(tf.range(tokenizer.vocab_size()))
        return [piece.decode("utf-8", "replace") for piece in pieces.numpy()]


def is_punctuation(piece: str) -> bool:
    """Whether a piece has at least one character and all its characters are punctuation."""
    return bool(piece) and all(_is_punctuation(character) for character in piece)


def _is_punctuation(character: str) -> bool:
    """Recognise punctuation as BERT's tokenizer does (google-research/bert `tokenization.py`, `_is_punctuation`).

    Every non-alphanumeric ASCII sign counts, `$` and `^` too, besides Unicode's categories P.
    """
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")
