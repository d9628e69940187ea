"""`explain`: why trend pooling gives a sentence the vector it gives."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, overload

import keras
import numpy as np

from keras_bert_trend._utils import check_count
from keras_bert_trend.inspection.batch import EncodedBatch, TokenizedText, Word, as_layer, as_texts, encode_batches
from keras_bert_trend.inspection.drawing import ROLE_COLOURS, aligned, draw_explanation, largest, one_line, to_json
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import TrendPooling, leaves
from keras_bert_trend.pooling.names import Aggregation, Measure, Reading, Unit
from keras_bert_trend.preprocessing.vocabulary import PUNCTUATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Edge = Literal["one_candidate", "only_punctuation", "empty"]

_ROWS_SHOWN = 16  # more rows than this do not fit a terminal: the table then shows the last one only
_MOVES_SHOWN = 5
_READINGS = {
    "published": "the heads of the first block",
    "layers": "the blocks, each the mean of its heads",
    "all": "all heads of all blocks",
    "attended": "the blocks, each the mean of its heads",
}
#: How often of 100 an arc of syntax joins anchor and related word: MiniLM on UD English-EWT, where one joins the anchor
#: and the word before it, and the anchor and a random word (docs/which_pooling.md).
_JOINED = {"published": (26, 52, 24), "layers": (41, 70, 31), "all": (43, 69, 30), "attended": (77, 70, 31)}
_EDGES = {
    "one_candidate": "One candidate: its trend alone is the embedding.",
    "only_punctuation": "No word, only punctuation, which takes the place of words.",
    "empty": "Nothing to choose from: the embedding is the zero vector.",
}


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What trend pooling reads in a text, and the vector that it makes of it.

    `print` shows a table, and so does a notebook; `plot()` draws a figure; `to_dict()` returns JSON values. Blocks and
    heads are counted from 1, in `row_names` too.

    Sources: Yuli Vasiliev, "Discovering trends in BERT embeddings of different levels for the task of semantic context
    determining" (2022) and "Generating sentence-level embedding based on the trends in token-level BERT embeddings"
    (2023).

    Attributes:
        text: str. The original text.
        tokens: tuple of str. The tokens that the encoder received, with `[CLS]` and `[SEP]`.
        token_spans: tuple. For each token its first character in the text and the one after its last; `None` for a
            special token, or if the token begins or ends inside a character.
        words: tuple of `Word(text, span, positions)`. The words of the text, without punctuation.
        candidates: tuple of `Word`. What competes to be the anchor: tokens, or words with `unit="word"`.
        rows: float array `(rows, candidates)`. The attention that each candidate receives.
        row_names: tuple of str. What each row is: "head 1", "block 1" or "block 1 head 1".
        leaders: int array `(rows,)`. The candidate with most attention in each row, an index into `candidates`; −1
            without a candidate.
        runners_up: int array `(rows,)`. The same among the candidates other than the anchor; −1 if there is none. With
            the reading `"attended"` what the anchor attends to most in this block.
        votes: int array `(candidates,)`. The number of rows led by the anchor with this candidate as runner-up; with
            `"attended"` the number of rows.
        anchor: `Word` or `None`. The leader of the last row, one of `candidates`; `None` for an empty text.
        related: `Word` or `None`. The related word: the candidate with most votes, with `"attended"` the one that the
            anchor attends to most in the mean of all blocks; `None` if the anchor is the only candidate.
        anchor_trend: float array `(hidden,)`. The anchor's trend; zeros without an anchor.
        related_trend: float array `(hidden,)`. The related word's trend; zeros without a related word.
        embedding: float array `(hidden,)`. The pooling's result.
        edge: str or `None`. The edge case, if any: `"one_candidate"`, `"only_punctuation"` (the punctuation then takes
            the place of words) or `"empty"`.
        truncated: int. The number of tokens cut off because the text is too long for the layer.
        reading: str. `"published"`, `"layers"`, `"all"` or `"attended"`: the rows of attention that are read.
        unit: str. `"token"` or `"word"`.
        measure: str. `"log_ratio"`, `"asinh"`, `"signed_log"` or `"difference"`: how a trend is measured.
        aggregation: str. With `"anchor_related"` the embedding is the sum of the two trends. With `"soft"` and
            `"attention"` it is a weighted sum of all candidates' trends; anchor and related word then only show which
            words lead.
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
    edge: Edge | None
    truncated: int
    reading: Reading
    unit: Unit
    measure: Measure
    aggregation: Aggregation

    def __str__(self) -> str:
        return _to_text(self)

    def __repr__(self) -> str:
        anchor, related = (word and word.text for word in (self.anchor, self.related))
        return f"<Explanation of {self.text!r}: anchor {anchor!r}, related word {related!r}>"

    def _repr_html_(self) -> str:
        return _to_html(self)

    def plot(self, top: int = 8) -> Figure:
        """Draw the attention received, the votes, and the largest elements of the trends.

        Args:
            top: int. The number of elements of each trend to draw, those of largest magnitude. Defaults to 8.

        Returns:
            A `matplotlib.figure.Figure`, made without `pyplot`. `figure.savefig("words.png")` writes it.

        Raises:
            ImportError: if matplotlib is not installed (the extra `plot`).
            ValueError: if `top` is not a positive integer.
        """
        check_count("top", top)
        return draw_explanation(
            self.text,
            _READINGS[self.reading],
            [word.text for word in self.candidates],
            self.rows,
            self.row_names,
            self.leaders,
            self.votes,
            {role: (self.candidates.index(word), trend) for role, word, trend in _chosen(self)},
            f"trend ({self.measure})",
            top,
            _EDGES["empty"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; `anchor` and `related` are indices into `candidates`, or `None`."""
        result = {field.name: to_json(getattr(self, field.name)) for field in fields(self)}
        for name in ("anchor", "related"):
            word = getattr(self, name)
            result[name] = None if word is None else self.candidates.index(word)
        return result


@overload
def explain(
    text_or_texts: str,
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    reading: Reading | None = None,
    unit: Unit | None = None,
    measure: Measure | None = None,
    batch_size: int = 32,
    truncate: bool = False,
) -> Explanation: ...
@overload
def explain(
    text_or_texts: list[str] | tuple[str, ...],
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    reading: Reading | None = None,
    unit: Unit | None = None,
    measure: Measure | None = None,
    batch_size: int = 32,
    truncate: bool = False,
) -> list[Explanation]: ...
def explain(
    text_or_texts: str | Sequence[str],
    handle_or_layer: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    reading: Reading | None = None,
    unit: Unit | None = None,
    measure: Measure | None = None,
    batch_size: int = 32,
    truncate: bool = False,
) -> Explanation | list[Explanation]:
    """Show which words trend pooling chooses in a text, by which attention, and the vector that results.

    Blocks and heads are counted from 1.

    Example:
        >>> explanation = explain("I want an apple.", "minilm", reading="layers")
        >>> explanation.anchor.text, explanation.rows.shape, explanation.embedding.shape
        ('apple', (6, 4), (384,))

    Args:
        text_or_texts: str or sequence of str. One text, or several.
        handle_or_layer: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a
            preprocessor. If the layer's pooling is a `TrendPooling`, or a concatenation that contains one, that pooling
            is explained. Defaults to `"minilm"`.
        reading: str or `None`. The rows of attention to read: `"published"` (the heads of the first block), `"layers"`
            (the blocks, each the mean of its heads), `"all"` (every head of every block), or `"attended"` (as
            `"layers"`, but the related word is what the anchor attends to most). Defaults to the layer's, else
            `"published"`.
        unit: str or `None`. What competes: `"token"` or `"word"`. Defaults to the layer's, else `"token"`.
        measure: str or `None`. The trend from first state to last: `"log_ratio"`, `"asinh"`, `"signed_log"` or
            `"difference"`. Defaults to the layer's, else `"log_ratio"`.
        batch_size: int. The number of texts per batch of the encoder. Defaults to 32.
        truncate: bool. With a handle, trim texts that are longer than the model instead of raising an error. Defaults
            to `False`.

    Returns:
        An `Explanation`, or a list of them for several texts.

    Raises:
        ValueError: if an argument has none of these values, or if a text is longer than the model.
        ImportError: if the weights of `"minilm"` are not installed.
    """
    texts, single = as_texts(text_or_texts)
    layer = as_layer(handle_or_layer, truncate)
    if measure is None and layer is not handle_or_layer:
        measure = "log_ratio"  # a handle has not chosen `BertTrend`'s default, which is made for training
    chosen = {"reading": reading, "unit": unit, "measure": measure}
    pooling = _pooling_of(layer, {name: value for name, value in chosen.items() if value is not None})
    explanations = []
    flags = {"return_attention_received": True, "return_attention_scores": pooling.reading == "attended"}
    for batch in encode_batches(layer, texts, batch_size, **flags):
        explanations += _explain_batch(batch, pooling)
    return explanations[0] if single else explanations


def _pooling_of(layer: BertTrend, arguments: dict[str, str]) -> TrendPooling:
    """Return the layer's trend pooling (the published one if it has none), with these arguments in place of its own."""
    pooling = next((leaf for leaf in leaves(layer.pooling) if isinstance(leaf, TrendPooling)), None)
    if pooling is None:
        return TrendPooling(layer.preprocessor.vocabulary.token_kinds, **arguments)
    names = ("reading", "unit", "measure", "aggregation", "scale", "temperature")
    own = {name: getattr(pooling, name) for name in names}
    return TrendPooling(pooling.token_kinds, **{**own, **arguments}) if arguments else pooling


def _explain_batch(batch: EncodedBatch, pooling: TrendPooling) -> list[Explanation]:
    mask, ids = batch.inputs["input_mask"], batch.inputs["input_word_ids"]
    selection = pooling.select(batch.outputs, mask, ids)
    trends = _to_numpy(pooling.trends(batch.outputs, selection))
    embeddings = keras.ops.convert_to_numpy(pooling(batch.outputs, mask, input_word_ids=ids))
    selection = _to_numpy(selection)
    names = _row_names(pooling.reading, *batch.outputs["attention_received"].shape[1:3])
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
        for i, text in enumerate(batch.texts)
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


def _edge(kinds: np.ndarray) -> Edge | None:
    """Return the edge case that candidates of these kinds are."""
    if not len(kinds):
        return "empty"
    if np.all(kinds & PUNCTUATION):
        return "only_punctuation"
    return "one_candidate" if len(kinds) == 1 else None


def _row_names(reading: Reading, blocks: int, heads: int) -> list[str]:
    if reading == "published":
        return [f"head {head + 1}" for head in range(heads)]
    if reading in ("layers", "attended"):
        return [f"block {block + 1}" for block in range(blocks)]
    return [f"block {block + 1} head {head + 1}" for block in range(blocks) for head in range(heads)]


def _to_numpy(tensors: dict[str, Any]) -> dict[str, np.ndarray | None]:
    convert = keras.ops.convert_to_numpy
    return {name: None if tensor is None else np.array(convert(tensor)) for name, tensor in tensors.items()}


# How an explanation is shown


def _chosen(explanation: Explanation) -> list[tuple[str, Word, np.ndarray]]:
    """Return role, word and trend of the anchor and of the related word, those that there are."""
    words = (
        ("anchor", explanation.anchor, explanation.anchor_trend),
        ("related word", explanation.related, explanation.related_trend),
    )
    return [(role, word, trend) for role, word, trend in words if word is not None]


def _role(explanation: Explanation, word: Word) -> str:
    return next((role for role, chosen, _ in _chosen(explanation) if chosen == word), "")


def _to_text(explanation: Explanation) -> str:
    """Return a table for a terminal: a line for each candidate, a column for each row of attention."""
    lines = [one_line(explanation.text), ""]
    if explanation.candidates:
        lines += [f"Attention received in {_READINGS[explanation.reading]} (reading={explanation.reading!r})", ""]
        lines += [*_table_lines(explanation), "", *_choice_lines(explanation)]
    return "\n".join([*lines, *_embedding_lines(explanation), *_notes(explanation)])


def _table_lines(explanation: Explanation) -> list[str]:
    shown = range(len(explanation.rows)) if len(explanation.rows) <= _ROWS_SHOWN else [len(explanation.rows) - 1]
    names = [explanation.row_names[row].replace("block ", "b").replace("head ", "h") for row in shown]
    lines = [[explanation.unit, *(f"{name} " for name in names), "leads", "votes", ""]]
    leads = np.bincount(explanation.leaders, minlength=len(explanation.candidates))
    for i, word in enumerate(explanation.candidates):
        cells = [f"{explanation.rows[row, i]:.2f}{_mark(explanation, row, i)}" for row in shown]
        lines.append([word.text, *cells, str(leads[i]), str(explanation.votes[i]), _role(explanation, word)])
    return [*aligned(lines, left=(0, -1)), "", _legend(explanation)]


def _legend(explanation: Explanation) -> str:
    second = "second to the anchor, where the anchor has most"
    if explanation.reading == "attended":
        second = "what the anchor attends to most"
    return f"* most attention in this {_row_noun(explanation)}   + {second}"


def _row_noun(explanation: Explanation) -> str:
    return "block" if explanation.reading in ("layers", "attended") else "head"


def _mark(explanation: Explanation, row: int, candidate: int) -> str:
    """Return the mark of a cell: the leader of its row, or the runner-up that gets a vote."""
    if explanation.leaders[row] == candidate:
        return "*"
    voting = explanation.reading == "attended" or explanation.leaders[row] == explanation.leaders[-1]
    return "+" if voting and explanation.runners_up[row] == candidate else " "


def _choice_lines(explanation: Explanation) -> list[str]:
    anchor, related = explanation.anchor, explanation.related
    lines = [f"anchor        {anchor.text!r}{_place(anchor)}: most attention in {explanation.row_names[-1]}, the last"]
    if related is not None:
        votes = explanation.votes[explanation.candidates.index(related)]
        led = int(np.sum(explanation.leaders == explanation.leaders[-1]))
        why = f"second in {votes} of the {led} {_row_noun(explanation)}s that the anchor leads"
        if explanation.reading == "attended":
            why = f"what the anchor attends to most, in {votes} of {len(explanation.rows)} blocks and on average"
        lines.append(f"related word  {related.text!r}{_place(related)}: {why}")
    for _, word, trend in _chosen(explanation):
        moves = "  ".join(f"[{i}] {trend[i]:+.2f}" for i in largest(trend, _MOVES_SHOWN))
        lines.append(f"trend         {word.text!r} moves most in {moves}")
    return lines


def _place(word: Word) -> str:
    where = "" if word.span is None else f", characters {word.span[0]} to {word.span[1]}"
    return f" (token {word.positions[0]}{where})"


def _embedding_lines(explanation: Explanation) -> list[str]:
    if not explanation.candidates:
        return []
    size, nonzero = explanation.embedding.size, np.count_nonzero(explanation.embedding)
    made_of = "the trends' sum" if explanation.related is not None else "the anchor's trend"
    if explanation.aggregation == "attention":
        made_of = f"the mean of all trends, weighted by {explanation.row_names[-1]}"
    if explanation.aggregation == "soft":
        made_of = "all trends, weighted as anchor and as related word"
    return [f"embedding     {size} dimensions, {nonzero} of them not zero: {made_of}"]


def _notes(explanation: Explanation) -> list[str]:
    notes = [_EDGES[explanation.edge]] if explanation.edge else []
    if explanation.related is not None:
        joined, before, random = _JOINED[explanation.reading]
        notes.append(
            f"How far to trust the pair: in English sentences an arc of syntax joins {joined} of 100 such pairs, and "
            f"of 100 anchors {before} to the word before, {random} to a random word (MiniLM)."
        )
    if explanation.truncated:
        notes.append(f"The text is too long for the layer: its last {explanation.truncated} tokens were cut off.")
    return notes


def _to_html(explanation: Explanation) -> str:
    """Return a table for a notebook: a line for each row of attention, as the article prints it."""
    escape = html.escape
    parts = [f"<p><b>{escape(one_line(explanation.text))}</b></p>"]
    if explanation.candidates:
        where = f"Attention received in {_READINGS[explanation.reading]}"
        legend = _legend(explanation).replace("   ", "&emsp;")  # HTML shows several spaces as one
        parts.append(f'<p>{where} (reading "{explanation.reading}")</p>{_html_table(explanation)}<p>{legend}</p>')
        lines = [*_choice_lines(explanation), *_embedding_lines(explanation)]
        parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")
    parts += [f"<p>{escape(note)}</p>" for note in _notes(explanation)]
    return "<div>" + "".join(parts) + "</div>"


def _html_table(explanation: Explanation) -> str:
    head = "".join(
        f"<th{_html_colour(_role(explanation, word))}>{html.escape(word.text)}</th>" for word in explanation.candidates
    )
    highest = max(float(explanation.rows.max()), 1e-9)
    lines = []
    for row, (name, values) in enumerate(zip(explanation.row_names, explanation.rows, strict=True)):
        cells = "".join(
            f'<td style="background: rgba(128, 128, 128, {0.6 * value / highest:.2f})">'
            f"{value:.2f}{_mark(explanation, row, i)}</td>"
            for i, value in enumerate(values)
        )
        lines.append(f"<tr><th>{name}</th>{cells}</tr>")
    votes = "".join(f"<td>{vote}</td>" for vote in explanation.votes)
    return (
        '<div style="overflow: auto; max-height: 40em"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}<tr><th>votes</th>{votes}</tr></tbody>"
        "</table></div>"
    )


def _html_colour(role: str) -> str:
    return f' style="color: {ROLE_COLOURS[role]}" title="{role}"' if role else ""
