"""Trend pooling: how the sentence's key words change between the static embedding and the last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder.ops import argmax, asinh, wide_dtype
from keras_bert_trend.pooling.base import Needs, Pooling
from keras_bert_trend.pooling.names import Aggregation, Measure, Reading, Unit
from keras_bert_trend.preprocessing.vocabulary import CONTINUATION, PUNCTUATION, SPECIAL

#: Smallest magnitude a hidden state counts with in the log ratio's *gradient*, 1/H, which would overflow otherwise (a
#: LayerNorm with a gain of 1e-33 makes such states: MiniLM has two). The value is the published one whatever H is.
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class TrendPooling(Pooling):
    """Trend-vector pooling (Vasiliev 2022, 2023).

    With hidden states `H[l, t]` (`l` = 0 the embedding output, L the last block), attention `A[l, h, query, key]`,
    attention received `c[l, h, k] = Σ_q A[l, h, q, k]` over the real queries, and *candidates*, the real tokens that
    are neither special nor punctuation:

    1. **Rows** `r[i, k]`, by `reading`: `"published"`: `i` = the heads of the first block (what the article's code
       does, and what its printed numbers show); `"layers"`: `i` = the blocks, each the mean of its heads (what its
       prose says); `"all"`: every (block, head); `"attended"`: those of `"layers"`.
    2. **Anchor**: `argmax_k r[last, k]`, the sentence's most important word.
    3. **Related word**: among the rows whose argmax is the anchor, the most frequent runner-up; ties go to the first.
       With `"attended"` what the anchor itself attends to most, `argmax_k Σ_l,h A[l, h, anchor, k]`: joined to the
       anchor by an arc of syntax far more often (docs/which_pooling.md).
    4. **Trend** of a token, by `measure`: `"log_ratio"`: `log(H[L, t] / H[0, t])`, 0 where the ratio is negative or
       either state is zero (published); `"asinh"`: `asinh(H[L, t] / s) − asinh(H[0, t] / s)`, which keeps the sign
       and has a bounded gradient: made for training; `"signed_log"`: the same of `sign(h) · log1p(|h| / s)`, which
       grows as slowly from zero on; `"difference"`: `H[L, t] − H[0, t]`.
    5. **Embedding**, by `aggregation`: `"anchor_related"`: trend(anchor) + trend(related) (published); `"soft"`:
       `Σ_k (a_k + b_k) · trend(k)` over all candidates, where the choice of the two words has a gradient;
       `"attention"`: `Σ_k w_k · trend(k)`, `w` = `r[last]` normalised to sum 1.

    The soft choice follows steps 2 and 3 with a softmax over the candidates in place of each argmax, at temperature τ:
    the anchor `a = softmax(r[last] / τ)`; how much row `i` votes, `v_i = Σ_k a_k · softmax(r[i] / τ)_k`; its runner-up
    `u_i = softmax((r[i] + log(1 − a)) / τ)`; the related word `b = Σ_i v_i · u_i / Σ_i v_i`. As τ → 0, `a` is the
    anchor, and `b` the runner-ups of the rows that it leads, each by its share of the votes: their majority is the
    published related word.

    One candidate gives its trend alone. Without a candidate (only punctuation) the real non-special tokens take
    their place. A text without those, the empty text, gives the zero vector. The value and its gradient are always
    finite.

    The log ratio is ill-conditioned where a state is near zero: a difference of `δ` in `H` is one of `δ / |H|` in the
    trend. Rounding in the encoder (about 1e-6 in float32) therefore shows in those elements.

    Sources: Yuli Vasiliev, "Discovering trends in BERT embeddings of different levels for the task of semantic context
    determining" (December 2022) and "Generating sentence-level embedding based on the trends in token-level BERT
    embeddings" (January 2023); code: github.com/nlptechbook/BERTembeddings. The measures `asinh` and `signed_log`,
    `layers`, `all`, `attended`, `soft`, `attention` and `word` are this package's.

    Args:
        token_kinds: what each token id is: uint8 `(vocabulary size,)`, `Vocabulary.token_kinds`.
        reading: `"published"`, `"layers"`, `"all"` or `"attended"`, which keeps all attention scores in memory.
        measure: `"log_ratio"`, `"asinh"`, `"signed_log"` or `"difference"`.
        aggregation: `"anchor_related"`, `"soft"` or `"attention"`.
        unit: `"token"` (published), or `"word"`: the attention received by a word is summed over its pieces, and its
            states are averaged.
        scale: `s` of the measures `asinh` and `signed_log`.
        temperature: float. τ of the soft choice, in units of attention received: 1 is what a token receives on average.
            Defaults to 0.1.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: an argument is none of these; `"attended"`, whose choice has no gradient, with `"soft"`; on a call,
            `input_word_ids` is missing.
    """

    def __init__(
        self,
        token_kinds: Sequence[int] | np.ndarray | str,
        *,
        reading: Reading = "published",
        measure: Measure = "log_ratio",
        aggregation: Aggregation = "anchor_related",
        unit: Unit = "token",
        scale: float = 0.1,
        temperature: float = 0.1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, allowed in (
            ("reading", reading, Reading),
            ("measure", measure, Measure),
            ("aggregation", aggregation, Aggregation),
            ("unit", unit, Unit),
        ):
            if value not in get_args(allowed):
                raise ValueError(f"`{name}` must be one of {get_args(allowed)}, got {value!r}.")
        if reading == "attended" and aggregation == "soft":
            raise ValueError("`aggregation`='soft' chooses by rows; `reading`='attended' does not.")
        for name, value in (("scale", scale), ("temperature", temperature)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        self.token_kinds = _parse_kinds(token_kinds)
        self.reading = reading
        self.measure = measure
        self.aggregation = aggregation
        self.unit = unit
        self.scale = float(scale)
        self.temperature = float(temperature)

    @property
    def needs(self) -> Needs:
        """The published reading knows its two words from the first block: the last one need not compute the others."""
        published = self.reading == "published"
        two_tokens = published and self.aggregation == "anchor_related" and self.unit == "token"
        attended = self.reading == "attended"
        return Needs(
            attention_received=(0,) if published else True,
            attention_scores=attended,
            last_tokens=self._anchor_and_related if two_tokens else None,
            padding=attended,  # the encoder returns scores of all positions or none
        )

    def _anchor_and_related(self, outputs, input_mask, input_word_ids):
        chosen = self.select(outputs, input_mask, input_word_ids)
        return ops.stack([chosen["anchor"], chosen["related"]], axis=1)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`."""
        chosen = self.select(outputs, input_mask, input_word_ids)
        if self.aggregation != "anchor_related":
            embedding = self._weighted(*_first_and_last(outputs), chosen)
        else:
            trends = self.trends(outputs, chosen)
            embedding = trends["anchor"] + trends["related"]
        return ops.cast(embedding, outputs["sequence_output"].dtype)

    def select(self, outputs: Mapping, input_mask, input_word_ids) -> dict[str, Any]:
        """Find the anchor and the related word: steps 1 to 3.

        Args:
            outputs: the encoder's outputs; `attention_received` is read, and `attention_scores` by `"attended"`.
            input_mask: `(batch, seq)`.
            input_word_ids: `(batch, seq)`.

        Returns:
            dict with `rows` `(batch, rows, seq)`, `candidates` bool `(batch, seq)` (with `unit="word"`: the first
            piece of each word), `anchor` and `related` int32 `(batch,)` positions, `has_anchor` and `has_related` bool
            `(batch,)`, `leaders` and `runners_up` int32 `(batch, rows)`: each row's highest candidate, and its highest
            but for the anchor (`"attended"`: what the anchor attends to most in this block); `votes` int32
            `(batch, seq)`: how many rows led by the anchor have this runner-up (`"attended"`: how many rows); and
            `pieces` bool `(batch, seq, seq)` (`None` for tokens): which positions make up one word.
        """
        if input_word_ids is None:
            raise ValueError("TrendPooling needs `input_word_ids`, to tell words from punctuation and special tokens.")
        candidates, continuation = self._candidates(input_mask, input_word_ids)
        rows, pieces = self._rows(outputs["attention_received"]), None
        if self.unit == "word":
            pieces, candidates = group_pieces(candidates, continuation)
            rows = ops.matmul(rows, ops.cast(pieces, rows.dtype))

        length = ops.shape(rows)[-1]
        positions = ops.arange(length, dtype="int32")
        among = ops.where(candidates[:, None, :], rows, -1.0)  # attention is never negative
        leaders = argmax(among)  # (batch, rows)
        anchor = leaders[:, -1]
        is_anchor = positions[None, :] == anchor[:, None]
        others = ops.logical_and(candidates, ops.logical_not(is_anchor))
        seconds = rows if self.reading != "attended" else _attended(outputs["attention_scores"], anchor, pieces)
        runners_up = argmax(ops.where(others[:, None, :], seconds, -1.0))
        voting = leaders == anchor[:, None]
        if self.reading == "attended":
            voting = ops.ones_like(voting)
        ballots = ops.logical_and(voting[:, :, None], runners_up[:, :, None] == positions[None, None, :])
        votes = ops.where(others, ops.sum(ops.cast(ballots, "int32"), axis=1), 0)
        return {
            "rows": rows,
            "candidates": candidates,
            "pieces": pieces,
            "anchor": anchor,
            "has_anchor": ops.any(candidates, axis=-1),
            "related": argmax(
                votes if self.reading != "attended" else ops.where(others, ops.mean(seconds, axis=1), -1.0)
            ),
            "has_related": ops.any(others, axis=-1),
            "votes": votes,
            "leaders": leaders,
            "runners_up": runners_up,
        }

    def trends(self, outputs: Mapping, chosen: Mapping) -> dict[str, Any]:
        """Measure the change of the anchor and of the related word: step 4.

        Args:
            outputs: the encoder's outputs; `embedding_output` and `sequence_output` are read.
            chosen: what `select` returned for them.

        Returns:
            dict with `anchor` and `related`, float32 (or float64) `(batch, hidden)`; zeros where there is no such word.
        """
        first, last = _first_and_last(outputs)
        return {
            name: self._trend_at(chosen[name], chosen[f"has_{name}"], first, last, chosen)
            for name in ("anchor", "related")
        }

    def _candidates(self, input_mask, input_word_ids):
        """Return which tokens are candidates and which continue a word, bool `(batch, seq)`."""
        ids = ops.cast(input_word_ids, "int32")  # Keras tries subclassed models on float32 placeholders

        def has(bit):  # a table for each: not every engine has operations on bits
            return ops.take(ops.convert_to_tensor(self.token_kinds & bit != 0), ids, axis=0)

        ordinary = ops.logical_and(ops.cast(input_mask, "bool"), ops.logical_not(has(SPECIAL)))
        words = ops.logical_and(ordinary, ops.logical_not(has(PUNCTUATION)))
        candidates = ops.where(ops.any(words, axis=-1, keepdims=True), words, ordinary)
        return candidates, has(CONTINUATION)

    def _rows(self, received):
        if self.reading == "published":
            return received[:, 0]
        if self.reading in ("layers", "attended"):
            return ops.mean(received, axis=2)
        shape = ops.shape(received)
        return ops.reshape(received, (shape[0], shape[1] * shape[2], shape[3]))

    def _trend_at(self, position, exists, first, last, chosen):
        """Return the trend of the unit at `position`, or zeros where there is none: `(batch, hidden)`."""
        if chosen["pieces"] is None:
            index = position[:, None, None]
            first = ops.squeeze(ops.take_along_axis(first, index, axis=1), axis=1)
            last = ops.squeeze(ops.take_along_axis(last, index, axis=1), axis=1)
        else:
            own = ops.take_along_axis(chosen["pieces"], position[:, None, None], axis=1)
            weights = ops.cast(ops.squeeze(own, axis=1), last.dtype)[:, :, None]
            count = ops.maximum(ops.sum(weights, axis=1), 1.0)
            first, last = ops.sum(weights * first, axis=1) / count, ops.sum(weights * last, axis=1) / count
        # Where there is no unit, equal constants stand in: trend 0, and no gradient to the states.
        exists = exists[:, None]
        one = ops.ones_like(last)
        return self._change(ops.where(exists, first, one), ops.where(exists, last, one))

    def _weighted(self, first, last, chosen):
        """Return the sum of all candidates' trends, weighted by attention or by the soft choice: `(batch, hidden)`."""
        if chosen["pieces"] is not None:
            weights = ops.cast(chosen["pieces"], last.dtype)
            count = ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1.0)
            first, last = ops.matmul(weights, first) / count, ops.matmul(weights, last) / count
        candidates = chosen["candidates"]
        one = ops.ones_like(last)
        change = self._change(
            ops.where(candidates[:, :, None], first, one), ops.where(candidates[:, :, None], last, one)
        )
        rows = ops.cast(chosen["rows"], last.dtype)
        if self.aggregation == "soft":
            weights = self._soft_choice(rows, candidates)
        else:
            received = ops.where(candidates, rows[:, -1], 0.0)
            total = ops.sum(received, axis=-1, keepdims=True)
            weights = received / ops.where(total > 0, total, ops.ones_like(total))
        return ops.sum(weights[:, :, None] * change, axis=1)

    def _soft_choice(self, rows, candidates):
        """Return the candidates' weights as anchor and as related word, summed: `(batch, seq)`."""

        def softmax(scores, among):
            shares = ops.softmax(ops.where(among, scores / self.temperature, -1e9), axis=-1)
            return ops.where(among, shares, 0.0)  # nothing where there is no candidate

        anchor = softmax(rows[:, -1], candidates)  # (batch, seq)
        leads = softmax(rows, candidates[:, None, :])  # (batch, rows, seq)
        votes = ops.sum(leads * anchor[:, None, :], axis=-1, keepdims=True)  # (batch, rows, 1)
        several = ops.sum(ops.cast(candidates, "int32"), axis=-1) > 1
        among = ops.logical_and(candidates, several[:, None])[:, None, :]
        others = ops.log(ops.maximum(1 - anchor, _EPSILON))[:, None, :]
        related = ops.sum(votes * softmax(rows + others, among), axis=1) / ops.maximum(ops.sum(votes, axis=1), _EPSILON)
        return anchor + related

    def _change(self, first, last):
        """Measure the change from `first` to `last`, element by element: step 4."""
        if self.measure == "difference":
            return last - first
        if self.measure == "asinh":
            return asinh(last / self.scale) - asinh(first / self.scale)
        if self.measure == "signed_log":
            return _signed_log(last / self.scale) - _signed_log(first / self.scale)
        # Signs, not a product: the product of two tiny states would underflow to zero.
        defined = ops.sign(first) * ops.sign(last) > 0
        one = ops.ones_like(last)
        # The undefined elements must not reach the logarithm, or their gradient would be NaN: log(1 / 1) stands in.
        numerator, denominator = ops.where(defined, ops.abs(last), one), ops.where(defined, ops.abs(first), one)
        ratio = numerator / denominator
        defined = ops.logical_and(ratio > 0, ops.isfinite(ratio))  # it may leave the numbers that float32 has
        exact = ops.log(ops.where(defined, ratio, one))
        bounded = ops.log(ops.maximum(numerator, _EPSILON) / ops.maximum(denominator, _EPSILON))
        return bounded + ops.stop_gradient(exact - bounded)  # the value of the one with the gradient of the other

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; the token kinds as one digit a token."""
        return {
            **super().get_config(),
            "token_kinds": (self.token_kinds + ord("0")).tobytes().decode("ascii"),
            "reading": self.reading,
            "measure": self.measure,
            "aggregation": self.aggregation,
            "unit": self.unit,
            "scale": self.scale,
            "temperature": self.temperature,
        }


def _attended(scores: Sequence, anchor, pieces):
    """Return how much the anchor attends to each position or word in every block, mean of its heads: `(B, L, T)`.

    A word's pieces attend on average, and are attended to together.

    Args:
        scores: list of `(B, N, T, T)`, for every block.
        anchor: int32 `(B,)`.
        pieces: bool `(B, T, T)`, or `None` for tokens.
    """
    blocks = ops.stack([ops.mean(block, axis=1) for block in scores], axis=1)  # (B, L, T, T)
    index = anchor[:, None, None]
    if pieces is None:
        return ops.squeeze(ops.take_along_axis(blocks, index[:, None], axis=2), axis=2)
    members = ops.cast(pieces, blocks.dtype)
    own = ops.take_along_axis(members, index, axis=1)[:, None]  # (B, 1, 1, T)
    row = ops.squeeze(ops.matmul(own, blocks), axis=2) / ops.maximum(ops.sum(own, axis=-1), 1.0)  # (B, L, T)
    return ops.matmul(row, members)


def _parse_kinds(token_kinds) -> np.ndarray:
    if isinstance(token_kinds, str):
        token_kinds = [int(digit) for digit in token_kinds]
    kinds = np.asarray(token_kinds)
    if kinds.ndim != 1 or kinds.size == 0 or kinds.dtype.kind not in "ui" or kinds.min() < 0 or kinds.max() > 7:
        raise ValueError(
            "`token_kinds` must be a one-dimensional array of integers in [0, 7], one per token id "
            f"(`Vocabulary.token_kinds`); got shape {kinds.shape}, dtype {kinds.dtype}."
        )
    return kinds.astype(np.uint8)


def _signed_log(x):
    """Return `sign(x) · log1p(|x|)`, whose gradient is `1 / (1 + |x|)`, at zero too."""
    sign = ops.where(x < 0, -ops.ones_like(x), ops.ones_like(x))
    return sign * ops.log1p(sign * x)


def _first_and_last(outputs):
    """Return the embedding output and the last hidden states, in float32 or wider."""
    wide = wide_dtype(outputs["sequence_output"])
    return ops.cast(outputs["embedding_output"], wide), ops.cast(outputs["sequence_output"], wide)


def group_pieces(candidates, continuation):
    """Return which candidates belong to the same word, and each word's first piece.

    A word is a candidate that continues nothing, with the continuations that directly follow it. A continuation that
    follows no candidate begins a word itself.

    Args:
        candidates: which tokens may belong to a word, bool `(batch, seq)`.
        continuation: which tokens continue one, bool `(batch, seq)`.

    Returns:
        bool `(batch, seq, seq)` and bool `(batch, seq)`.
    """
    before = ops.concatenate([ops.zeros_like(candidates[:, :1]), candidates[:, :-1]], axis=1)
    begins = ops.logical_and(candidates, ops.logical_not(ops.logical_and(continuation, before)))
    number = ops.cumsum(ops.cast(begins, "int32"), axis=1)
    same = number[:, :, None] == number[:, None, :]
    both = ops.logical_and(candidates[:, :, None], candidates[:, None, :])
    return ops.logical_and(same, both), begins
