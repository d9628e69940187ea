"""`explain`: why trend pooling gives a sentence the vector it gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np

from keras_bert_trend.inspection.batch import Seen, TokenizedText, Word, as_layer, as_texts, see_in_batches
from keras_bert_trend.inspection.drawing import to_json
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import TrendPooling
from keras_bert_trend.preprocessing.vocabulary import PUNCTUATION

#: The edge cases of trend pooling.
EDGES = ("one_candidate", "only_punctuation", "empty")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What trend pooling saw in a text, and what it made of it.

    `print` it for a table; a notebook shows it as one; `plot()` draws it; `to_dict()` is JSON.

    Sources: Yuli Vasiliev 2022 and 2023, see `TrendPooling`.

    Attributes:
        text: the text as it was given.
        tokens: the tokens that the encoder saw, `[CLS]` and `[SEP]` included.
        token_spans: where each stands in the text, `(first character, the one after the last)`, or `None`: of a
            special token, and where a token begins or ends inside a character.
        words: the words of the text, each a `Word(text, span, positions)`; punctuation is none.
        candidates: what competes to be the anchor, each a `Word`: tokens, or words with `unit="word"`.
        rows: the attention that each candidate received, float `(rows, candidates)`.
        row_names: what each row is, "head 1" or "block 1".
        leaders: the candidate with most attention in each row, int `(rows,)`, an index into `candidates`; −1 where
            there is no candidate.
        runners_up: the same among the candidates other than the anchor; −1 where there is none.
        votes: how many of the rows that the anchor leads have this candidate as runner-up, int `(candidates,)`.
        anchor: the leader of the last row, one of `candidates`, or `None` for an empty text.
        related: the related word, the candidate with most votes; `None` where the anchor is the only candidate.
        anchor_trend: the anchor's trend, float `(hidden,)`; zeros without an anchor.
        related_trend: the related word's trend, float `(hidden,)`; zeros without a related word.
        embedding: what the pooling gives, float `(hidden,)`.
        edge: `None`, or which edge case this is: `"one_candidate"`, `"only_punctuation"` (which then takes the place of
            words) or `"empty"`.
        truncated: how many tokens of the text were cut off because it is too long for the layer.
        reading: see `TrendPooling`, also for the next three.
        unit: `"token"` or `"word"`.
        measure: `"log_ratio"`, `"asinh"` or `"difference"`.
        aggregation: `"anchor_related"`: the embedding is the sum of the two trends; `"attention"`: it is the mean of
            all candidates' trends, weighted by the last row, and the two only show which words lead.
    """

    text: str
    tokens: tuple[str, ...]
    token_spans: tuple[tuple[int, int] | None, ...]
    words: tuple[Word, ...]
    candidates: tuple[Word, ...]
    rows: np.ndarray
    row_names: tuple[str, ...]
    leaders: np.ndarray
    runners_up: np.ndarray
    votes: np.ndarray
    anchor: Word | None
    related: Word | None
    anchor_trend: np.ndarray
    related_trend: np.ndarray
    embedding: np.ndarray
    edge: str | None
    truncated: int
    reading: str
    unit: str
    measure: str
    aggregation: str

    def __str__(self) -> str:
        from keras_bert_trend.inspection.explanation_views import to_text

        return to_text(self)

    def __repr__(self) -> str:
        anchor, related = (word and word.text for word in (self.anchor, self.related))
        return f"<Explanation of {self.text!r}: anchor {anchor!r}, related word {related!r}>"

    def _repr_html_(self) -> str:
        from keras_bert_trend.inspection.explanation_views import to_html

        return to_html(self)

    def plot(self, top: int = 8):
        """Draw the attention received, the votes, and the largest elements of the trends.

        Args:
            top: how many elements of each trend, those of largest magnitude.

        Returns:
            a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched. `figure.savefig("words.png")`
            writes it.

        Raises:
            ImportError: matplotlib is not installed; the extra `plot` does that.
            ValueError: `top` is not positive.
        """
        from keras_bert_trend.inspection.explanation_views import to_figure

        return to_figure(self, top)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; `anchor` and `related` are indices into `candidates`, or `None`."""
        result = {field.name: to_json(getattr(self, field.name)) for field in fields(self)}
        for name in ("anchor", "related"):
            word = getattr(self, name)
            result[name] = None if word is None else self.candidates.index(word)
        return result


def explain(
    text_or_texts: str | Sequence[str],
    handle_or_layer: BertTrend | str | os.PathLike = "minilm",
    *,
    reading: str | None = None,
    unit: str | None = None,
    measure: str | None = None,
    batch_size: int = 32,
    truncate: bool = False,
) -> Explanation | list[Explanation]:
    """Say which words trend pooling chooses in a text, by which attention, and what vector comes of it.

    Example:
        >>> explanation = explain("I want an apple.", "minilm", reading="layers")
        >>> explanation.anchor.text, explanation.rows.shape, explanation.embedding.shape
        ('apple', (6, 4), (384,))

    Args:
        text_or_texts: a text, or a list of them.
        handle_or_layer: what `BertTrend` takes, or a `BertTrend` layer, which reads nothing anew. Where its pooling is
            a `TrendPooling` (or several poolings with one among them), that one is explained.
        reading: `"published"`, `"layers"` or `"all"`, see `TrendPooling`; by default the layer's, else `"published"`.
        unit: `"token"` or `"word"`; by default the layer's, else `"token"`.
        measure: `"log_ratio"`, `"asinh"` or `"difference"`; by default the layer's, else `"log_ratio"`.
        batch_size: how many texts go through the encoder at once.
        truncate: with a handle, cut off what is longer than the model instead of refusing it.

    Returns:
        An `Explanation`, or a list of them for a list of texts.

    Raises:
        ValueError: an argument is none of these, or a text is longer than the model.
        ImportError: the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    layer = as_layer(handle_or_layer, truncate)
    chosen = {"reading": reading, "unit": unit, "measure": measure}
    pooling = _pooling_of(layer, {name: value for name, value in chosen.items() if value is not None})
    explanations = []
    for seen in see_in_batches(layer, texts, batch_size, return_attention_received=True):
        explanations += _explain_batch(seen, pooling)
    return explanations[0] if single else explanations


def _pooling_of(layer: BertTrend, arguments: dict[str, str]) -> TrendPooling:
    """Return the layer's trend pooling, with these arguments instead of its own; a published one where it has none."""
    for pooling in getattr(layer.pooling, "poolings", [layer.pooling]):
        if isinstance(pooling, TrendPooling):
            own = {name: getattr(pooling, name) for name in ("reading", "unit", "measure", "aggregation", "scale")}
            return TrendPooling(pooling.token_kinds, **{**own, **arguments}) if arguments else pooling
    return TrendPooling(layer.preprocessor.vocabulary.token_kinds, **arguments)


def _explain_batch(seen: Seen, pooling: TrendPooling) -> list[Explanation]:
    mask, ids = seen.inputs["input_mask"], seen.inputs["input_word_ids"]
    selection = pooling.select(seen.outputs, mask, ids)
    trends = _to_numpy(pooling.trends(seen.outputs, selection))
    embeddings = keras.ops.convert_to_numpy(pooling(seen.outputs, mask, input_word_ids=ids))
    selection = _to_numpy(selection)
    names = _row_names(pooling.reading, *seen.outputs["attention_received"].shape[1:3])
    return [
        _explain_text(
            text,
            pooling,
            {name: value if value is None else value[i] for name, value in selection.items()},
            names,
            anchor_trend=trends["anchor"][i],
            related_trend=trends["related"][i],
            embedding=embeddings[i],
        )
        for i, text in enumerate(seen.texts)
    ]


def _explain_text(
    text: TokenizedText, pooling: TrendPooling, selection: dict[str, Any], row_names: Sequence[str], **vectors
) -> Explanation:
    positions = np.flatnonzero(selection["candidates"])
    candidates = tuple(_candidate(text, position, selection["pieces"]) for position in positions)
    # From positions in the text to indices into the candidates.
    index = np.full(len(selection["candidates"]), -1)
    index[positions] = np.arange(len(positions))
    arrays = {
        "rows": selection["rows"][:, positions],
        "leaders": index[selection["leaders"]] if selection["has_anchor"] else np.full(len(row_names), -1),
        "runners_up": index[selection["runners_up"]] if selection["has_related"] else np.full(len(row_names), -1),
        "votes": selection["votes"][positions],
        **vectors,
    }
    for array in arrays.values():
        array.setflags(write=False)
    return Explanation(
        text=text.text,
        tokens=text.tokens,
        token_spans=tuple(text.span([position]) for position in range(len(text.tokens))),
        words=tuple(text.words()),
        candidates=candidates,
        row_names=tuple(row_names),
        anchor=candidates[index[selection["anchor"]]] if selection["has_anchor"] else None,
        related=candidates[index[selection["related"]]] if selection["has_related"] else None,
        edge=_edge(text.kinds[positions]),
        truncated=text.truncated,
        reading=pooling.reading,
        unit=pooling.unit,
        measure=pooling.measure,
        aggregation=pooling.aggregation,
        **arrays,
    )


def _candidate(text: TokenizedText, position: int, pieces: np.ndarray | None) -> Word:
    return text.token(position) if pieces is None else text.word(np.flatnonzero(pieces[position]).tolist())


def _edge(kinds: np.ndarray) -> str | None:
    """Return the edge case that candidates of these kinds are."""
    if not len(kinds):
        return "empty"
    if np.all(kinds & PUNCTUATION):
        return "only_punctuation"
    return "one_candidate" if len(kinds) == 1 else None


def _row_names(reading: str, blocks: int, heads: int) -> list[str]:
    if reading == "published":
        return [f"head {head + 1}" for head in range(heads)]
    if reading == "layers":
        return [f"block {block + 1}" for block in range(blocks)]
    return [f"block {block + 1} head {head + 1}" for block in range(blocks) for head in range(heads)]


def _to_numpy(tensors: dict[str, Any]) -> dict[str, np.ndarray | None]:
    convert = keras.ops.convert_to_numpy
    return {name: None if tensor is None else np.array(convert(tensor)) for name, tensor in tensors.items()}
