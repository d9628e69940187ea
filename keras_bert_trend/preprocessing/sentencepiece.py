"""SentencePiece vocabularies, which ALBERT uses instead of WordPiece."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from keras_bert_trend.preprocessing.vocabulary import Vocabulary, is_punctuation
from keras_bert_trend.token_kinds import CONTINUATION, PUNCTUATION

_WORD_BEGINS = "\u2581"  # "▁", what SentencePiece writes for a space


class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model (Kudo and Richardson 2018, arXiv:1808.06226): its pieces, and how texts are cut into them.

    Attributes:
        model: the serialised model, as it stands in a `.model` file.

    Args:
        model: the serialised model.

    Raises:
        ValueError: the bytes are no SentencePiece model, or its pieces lack `<pad>`, `<unk>`, `[CLS]` or `[SEP]`.
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
        """Return `None`: the one tokenizer there is."""

    def to_bytes(self) -> bytes:
        """Return the content of the file `asset_name`."""
        return self.model

    def to_config(self) -> list[str] | str:
        """Return the model in base64, since a configuration is JSON."""
        return base64.b64encode(self.model).decode("ascii")

    def surface(self, token: str) -> str:
        """Return a token's own characters, without the mark of the space before it: "▁the" → "the"."""
        return token.removeprefix(_WORD_BEGINS)

    def _kind_of(self, token: str) -> int:
        piece = self.surface(token)
        # A space alone stands for no word; and punctuation continues none, though no space comes before it.
        if not piece or is_punctuation(piece):
            return PUNCTUATION
        return CONTINUATION if piece == token and token != self.unknown_token else 0


def as_vocabulary(vocabulary: Vocabulary | Iterable[str] | bytes | str) -> Vocabulary:
    """Make a vocabulary of what stands for one.

    Args:
        vocabulary: WordPiece tokens in the order of their ids, a serialised SentencePiece model, the value of
            `Vocabulary.to_config`, or a vocabulary already.

    Raises:
        ValueError: it is none of these, or lacks a token that a BERT needs.
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
