"""Texts, their tokens and their words, and what the encoder says of them: what `explain` and `word_vectors` share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling.trend import group_pieces
from keras_bert_trend.preprocessing import BertPreprocessor
from keras_bert_trend.preprocessing.vocabulary import CONTINUATION, PUNCTUATION, SPECIAL


class Word(NamedTuple):
    """A word of a text, or a token of it.

    Attributes:
        text: as the vocabulary has it: lower-cased in an uncased model, the pieces of a word joined; a single token
            keeps its mark, "##ing".
        span: first character and the one after the last, in the text as it was given; `None` where a token begins or
            ends inside a character, or where that is not known.
        positions: the positions of its tokens.
    """

    text: str
    span: tuple[int, int] | None
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """A text and the tokens that the encoder sees of it, `[CLS]` and `[SEP]` included, padding left out.

    Attributes:
        text: the text as it was given.
        tokens: its tokens.
        kinds: what each is, uint8 `(tokens,)`, see `Vocabulary.token_kinds`.
        surfaces: each without the mark of how it joins the one before.
        starts, ends: where each stands in the text, see `BertPreprocessor.token_offsets`.
        truncated: how many more tokens the text has, which were cut off.
    """

    text: str
    tokens: tuple[str, ...]
    kinds: np.ndarray
    surfaces: tuple[str, ...]
    starts: tuple[int | None, ...]
    ends: tuple[int | None, ...]
    truncated: int

    def span(self, positions: Sequence[int]) -> tuple[int, int] | None:
        """Return where tokens that stand side by side begin and end in the text."""
        start, end = self.starts[positions[0]], self.ends[positions[-1]]
        return None if start is None or end is None else (start, end)

    def token(self, position: int) -> Word:
        """Return a token, with its mark."""
        return Word(self.tokens[position], self.span([position]), (int(position),))

    def word(self, positions: Sequence[int]) -> Word:
        """Join the tokens of a word, which stand side by side; no mark stays."""
        return Word("".join(self.surfaces[p] for p in positions), self.span(positions), tuple(positions))

    def words(self, punctuation: bool = False) -> list[Word]:
        """Return the words, grouped as `TrendPooling(unit="word")` groups them.

        Args:
            punctuation: whether each punctuation sign counts as a word too.
        """
        ordinary = self.kinds & SPECIAL == 0
        signs = ordinary & (self.kinds & PUNCTUATION != 0)
        same, begins = group_pieces((ordinary & ~signs)[None], (self.kinds & CONTINUATION != 0)[None])
        same, begins = keras.ops.convert_to_numpy(same)[0], keras.ops.convert_to_numpy(begins)[0]
        groups = [np.flatnonzero(same[first]).tolist() for first in np.flatnonzero(begins)]
        if punctuation:
            groups = sorted(groups + [[sign] for sign in np.flatnonzero(signs).tolist()])
        return [self.word(group) for group in groups]


class Seen(NamedTuple):
    """A batch that went through the encoder.

    Attributes:
        texts: the batch's texts.
        inputs: the encoder's inputs.
        outputs: the encoder's outputs.
    """

    texts: list[TokenizedText]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, Any]


def as_texts(text_or_texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """Return a list of texts, and whether a single one was given.

    Raises:
        ValueError: it is neither a `str` nor a sequence of them.
    """
    single = isinstance(text_or_texts, str) or not isinstance(text_or_texts, Iterable)
    texts = [text_or_texts] if single else list(text_or_texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"`text` must be a str or a list of them, got {text!r}.")
    return texts, single


def as_layer(
    handle_or_layer: BertTrend | str | os.PathLike, truncate: bool, argument: str = "handle_or_layer"
) -> BertTrend:
    """Return a layer that takes texts: the one given, or a new one with the encoder that the handle names.

    Args:
        handle_or_layer: a handle or a layer.
        truncate: whether a new layer trims texts that are longer than the model.
        argument: what the caller's user knows it by, for messages.

    Raises:
        ValueError: it is neither, or the layer takes token ids only.
    """
    if isinstance(handle_or_layer, str | os.PathLike):
        return BertTrend(handle_or_layer, sequence_length=None, truncate=truncate, trainable=False)
    if not isinstance(handle_or_layer, BertTrend):
        raise ValueError(f"`{argument}` must be a handle or a BertTrend layer, got {type(handle_or_layer).__name__}.")
    if handle_or_layer.preprocessor is None:
        raise ValueError("This BertTrend has no preprocessor: it knows no text, only token ids.")
    return handle_or_layer


def see_in_batches(layer: BertTrend, texts: Sequence[str], batch_size: int, **flags: bool) -> Iterator[Seen]:
    """Send texts through the encoder, batch by batch.

    Args:
        layer: a layer that takes texts.
        texts: the texts.
        batch_size: how many texts go through the encoder at once.
        **flags: the encoder's `return_…` arguments.

    Raises:
        ValueError: `batch_size` is not positive, or a text is longer than the layer takes.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}.")
    for first in range(0, len(texts), batch_size):
        batch = list(texts[first : first + batch_size])
        inputs = {name: array.numpy() for name, array in layer.preprocessor.preprocess(batch).items()}
        rows = zip(batch, inputs["input_word_ids"], inputs["input_mask"], strict=True)
        seen = [_tokenized(layer.preprocessor, text, ids[mask > 0]) for text, ids, mask in rows]
        yield Seen(seen, inputs, layer.encoder(inputs, training=False, **flags))


def _tokenized(preprocessor: BertPreprocessor, text: str, ids: np.ndarray) -> TokenizedText:
    vocabulary = preprocessor.vocabulary
    starts, ends = preprocessor.token_offsets(text)
    tokens = tuple(vocabulary.tokens[i] for i in ids)
    kept = len(tokens) - 2  # beside [CLS] and [SEP]
    return TokenizedText(
        text=text,
        tokens=tokens,
        kinds=vocabulary.token_kinds[ids],
        surfaces=tuple(vocabulary.surface(token) for token in tokens),
        starts=(None, *starts[:kept], None),
        ends=(None, *ends[:kept], None),
        truncated=len(starts) - kept,
    )
