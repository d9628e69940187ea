"""Texts with their tokens and words, and what the encoder returns for them: shared by all that people look at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert_trend._utils import check_count
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling.trend import group_pieces
from keras_bert_trend.preprocessing import BertPreprocessor
from keras_bert_trend.preprocessing.vocabulary import CONTINUATION, PUNCTUATION, SPECIAL


class Word(NamedTuple):
    """A word of a text, or a single token.

    Attributes:
        text: str. The word as the vocabulary spells it: lower-cased in an uncased model, its pieces joined. A single
            token keeps its mark, as in `"##ing"`.
        span: tuple of two ints, or `None`. The first character and the one after the last in the original text; `None`
            if the word begins or ends inside a character, or if its place is unknown.
        positions: tuple of ints. The positions of its tokens; 0 is `[CLS]`.
    """

    text: str
    span: tuple[int, int] | None
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """A text and the tokens that the encoder receives for it, with `[CLS]` and `[SEP]`, without padding.

    Attributes:
        text: str. The original text.
        tokens: tuple of str.
        kinds: uint8 array `(tokens,)`. Bits that say whether a token is special, punctuation or a continuation:
            `SPECIAL`, `PUNCTUATION` and `CONTINUATION` of `preprocessing.vocabulary`.
        surfaces: tuple of str. The tokens without the mark that joins them to the previous token.
        starts: tuple of int or `None`. Each token's first character in the text; `None` if unknown.
        ends: tuple of int or `None`. The character after each token's last; `None` if unknown.
        truncated: int. The number of tokens that were cut off.
    """

    text: str
    tokens: tuple[str, ...]
    kinds: np.ndarray
    surfaces: tuple[str, ...]
    starts: tuple[int | None, ...]
    ends: tuple[int | None, ...]
    truncated: int

    def span(self, positions: Sequence[int]) -> tuple[int, int] | None:
        """Return where adjacent tokens begin and end in the text."""
        start, end = self.starts[positions[0]], self.ends[positions[-1]]
        return None if start is None or end is None else (start, end)

    def token(self, position: int) -> Word:
        """Return one token, with its mark."""
        return Word(self.tokens[position], self.span([position]), (int(position),))

    def word(self, positions: Sequence[int]) -> Word:
        """Join the adjacent tokens of a word, without their marks."""
        return Word("".join(self.surfaces[p] for p in positions), self.span(positions), tuple(positions))

    def words(self, punctuation: bool = False) -> list[Word]:
        """Return the words, grouped as `TrendPooling(unit="word")` groups them.

        Args:
            punctuation: bool. Whether each punctuation sign counts as a word too.
        """
        ordinary = self.kinds & SPECIAL == 0
        signs = ordinary & (self.kinds & PUNCTUATION != 0)
        same, begins = group_pieces((ordinary & ~signs)[None], (self.kinds & CONTINUATION != 0)[None])
        same, begins = keras.ops.convert_to_numpy(same)[0], keras.ops.convert_to_numpy(begins)[0]
        groups = [np.flatnonzero(same[first]).tolist() for first in np.flatnonzero(begins)]
        if punctuation:
            groups = sorted(groups + [[sign] for sign in np.flatnonzero(signs).tolist()])
        return [self.word(group) for group in groups]


class EncodedBatch(NamedTuple):
    """A batch of texts with the encoder's inputs and outputs.

    Attributes:
        texts: list of `TokenizedText`.
        inputs: dict. The encoder's inputs, int32 arrays `(batch, seq)`.
        outputs: dict. The encoder's outputs.
    """

    texts: list[TokenizedText]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, Any]


def as_texts(text_or_texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """Return a list of texts, and whether the argument was a single text.

    Args:
        text_or_texts: str or iterable of str.

    Raises:
        ValueError: if it is neither.
    """
    single = isinstance(text_or_texts, str) or not isinstance(text_or_texts, Iterable)
    texts = [text_or_texts] if single else list(text_or_texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"`text` must be a str or a list of them, got {text!r}.")
    return texts, single


def as_layer(
    handle_or_layer: BertTrend | str | os.PathLike[str], truncate: bool, argument: str = "handle_or_layer"
) -> BertTrend:
    """Return a layer that takes texts: the given one, or a new one with the encoder that a handle names.

    Args:
        handle_or_layer: str, path or `BertTrend`.
        truncate: bool. Whether a new layer trims texts that are longer than the model.
        argument: str. The argument's name in the public function, for error messages.

    Raises:
        ValueError: if it is neither a handle nor a layer, or if the layer has no preprocessor.
    """
    if isinstance(handle_or_layer, str | os.PathLike):
        return BertTrend(handle_or_layer, sequence_length=None, truncate=truncate, trainable=False)
    if not isinstance(handle_or_layer, BertTrend):
        raise ValueError(f"`{argument}` must be a handle or a BertTrend layer, got {type(handle_or_layer).__name__}.")
    if handle_or_layer.preprocessor is None:
        raise ValueError("This BertTrend has no preprocessor: it accepts token ids only, not texts.")
    return handle_or_layer


def encode_batches(layer: BertTrend, texts: Sequence[str], batch_size: int, **flags: bool) -> Iterator[EncodedBatch]:
    """Run the encoder on texts, batch by batch.

    Args:
        layer: `BertTrend` with a preprocessor.
        texts: sequence of str.
        batch_size: int. The number of texts per batch.
        **flags: bool. The encoder's `return_…` arguments.

    Raises:
        ValueError: if `batch_size` is not a positive integer, or if a text is longer than the layer takes.
    """
    check_count("batch_size", batch_size)
    for first in range(0, len(texts), batch_size):
        batch = list(texts[first : first + batch_size])
        inputs = {name: array.numpy() for name, array in layer.preprocessor.preprocess(batch).items()}
        rows = zip(batch, inputs["input_word_ids"], inputs["input_mask"], strict=True)
        unpacked = [_unpack(layer.preprocessor, text, ids[mask > 0]) for text, ids, mask in rows]
        yield EncodedBatch(unpacked, inputs, layer.encoder(inputs, training=False, **flags))


def _unpack(preprocessor: BertPreprocessor, text: str, ids: np.ndarray) -> TokenizedText:
    """Return a text with the tokens of its row of ids, from which the padding was removed."""
    from keras_bert_trend.preprocessing.packing import special_token_count

    vocabulary = preprocessor.vocabulary
    starts, ends = preprocessor.token_offsets(text)
    tokens = tuple(vocabulary.tokens[i] for i in ids)
    kept = len(tokens) - special_token_count(1)
    return TokenizedText(
        text=text,
        tokens=tokens,
        kinds=vocabulary.token_kinds[ids],
        surfaces=tuple(vocabulary.surface(token) for token in tokens),
        starts=(None, *starts[:kept], None),
        ends=(None, *ends[:kept], None),
        truncated=len(starts) - kept,
    )
