"""Is the related word joined to the anchor by an arc of syntax? Beside offsets, chance and heads.

UD English-EWT; words are joined by spaces, and punctuation is left out. A pair counts if either word is the other's
head. All pairs begin with an anchor, so that only the second word differs: the related word of a reading; the previous
and the next word; a random one; and the word that the anchor attends to most in one head, which is chosen on the odd
sentences and scored on the even ones, as everything is (Clark et al. 2019, arXiv:1906.04341, §4, scored heads on all
words).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np

from benchmarks.harness import say
from benchmarks.quality import encoders
from benchmarks.quality.data import FOLDER
from benchmarks.quality.report import Results
from keras_bert_trend import TrendPooling
from keras_bert_trend.inspection.batch import encode_batches
from keras_bert_trend.pooling.names import Reading

_FLAGS = {"return_attention_scores": True, "return_attention_received": True}


class Sentence(NamedTuple):
    """A parsed sentence: its words joined by spaces, where each begins, and each one's head, −1 for the root."""

    text: str
    starts: list[int]
    heads: list[int]


def read(path=FOLDER / "en_ewt-ud-dev.conllu") -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL-U file."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if not line.startswith("#")]
        rows = [row for row in rows if row[0].isdigit()]
        starts = np.cumsum([0, *(len(row[1]) + 1 for row in rows)])[:-1]
        yield Sentence(" ".join(row[1] for row in rows), starts.tolist(), [int(row[6]) - 1 for row in rows])


def run(options, results: Results) -> None:
    """Score every reading of every encoder."""
    for encoder in options.encoders:
        if not results.get("syntax", encoder):
            say(f"{encoder}: syntax")
            results.store(
                _score(encoders.load(encoder, options.work, pooling="mean", trainable=False)), "syntax", encoder
            )


def _score(layer) -> dict[str, dict]:
    """Return name → pairs, the share joined by an arc, and for a reading the share of anchors that are the root."""
    sentences = list(read())
    kinds, generator = layer.preprocessor.vocabulary.token_kinds, np.random.default_rng(0)
    poolings = {reading: TrendPooling(kinds, reading=reading, unit="word") for reading in get_args(Reading)}
    joined: dict[str, list] = {}
    roots: dict[str, list] = {}
    heads: dict[str, list] = {reading: [] for reading in poolings}  # (odd sentence, joined by each head)
    batches = encode_batches(layer, [sentence.text for sentence in sentences], 16, **_FLAGS)
    number = -1
    for batch in batches:
        mask, ids = batch.inputs["input_mask"], batch.inputs["input_word_ids"]
        scores = np.concatenate([np.asarray(block) for block in batch.outputs["attention_scores"]], axis=1)
        chosen = {name: pooling.select(batch.outputs, mask, ids) for name, pooling in poolings.items()}
        chosen = {name: {key: np.asarray(one[key]) for key in ("anchor", "related")} for name, one in chosen.items()}
        for row, text in enumerate(batch.texts):
            number += 1
            sentence, words = sentences[number], text.words()
            # The encoder's words and the treebank's differ ("don't", "e-mail"): by their first characters.
            parsed = [int(np.searchsorted(sentence.starts, word.span[0], side="right")) - 1 for word in words]
            if len(words) < 3 or text.truncated:
                continue
            at = {word.positions[0]: index for index, word in enumerate(words)}
            attention = _between_words(scores[row], words)
            arcs = _arcs(sentence, parsed)
            for reading, one in chosen.items():
                anchor, related = at[one["anchor"][row]], at[one["related"][row]]
                others = [index for index in range(len(words)) if index != anchor]
                by_head = arcs[anchor, _most(attention, anchor)]
                heads[reading].append((number % 2, by_head))
                if number % 2:
                    continue
                pairs = {
                    "related word": related,
                    "word before": anchor - 1 if anchor else 1,
                    "word after": anchor + 1 if anchor + 1 < len(words) else anchor - 1,
                    "random word": generator.choice(others),
                    "most attended, mean of all heads": _most(attention.mean(axis=0)[None], anchor)[0],
                    "most attended, both ways": _most((attention + attention.swapaxes(1, 2)).mean(0)[None], anchor)[0],
                    "rollout": _most(_rollout(attention, layer.encoder.config.num_heads)[None], anchor)[0],
                }
                for label, other in pairs.items():
                    joined.setdefault(f"{reading}: {label}", []).append(arcs[anchor, other])
                roots.setdefault(f"{reading}: related word", []).append(sentence.heads[parsed[anchor]] == -1)
    for reading, found in heads.items():
        odd = np.array([by_head for is_odd, by_head in found if is_odd])
        even = np.array([by_head for is_odd, by_head in found if not is_odd])
        best = int(odd.mean(axis=0).argmax())
        block, head = divmod(best, layer.encoder.config.num_heads)
        joined[f"{reading}: best head (block {block + 1}, head {head + 1})"] = even[:, best].tolist()
    return {
        label: {
            "pairs": len(found),
            "arc": float(np.mean(found)),
            "root": float(np.mean(roots[label])) if label in roots else None,
        }
        for label, found in sorted(joined.items())
    }


def _between_words(scores: np.ndarray, words) -> np.ndarray:
    """Return how much each word attends to each, `(heads, words, words)`: the sum over the pieces of the other."""
    member = np.zeros((len(words), scores.shape[-1]), np.float32)
    for index, word in enumerate(words):
        member[index, list(word.positions)] = 1
    return (member / member.sum(axis=1, keepdims=True)) @ scores @ member.T


def _arcs(sentence: Sentence, parsed: list[int]) -> np.ndarray:
    """Return which words are joined, bool `(words, words)`; pieces of one treebank word are not."""
    heads = np.array([sentence.heads[index] for index in parsed])
    index = np.array(parsed)
    down = heads[:, None] == index[None, :]
    return (down | down.T) & (index[:, None] != index[None, :])


def _most(attention: np.ndarray, anchor: int) -> np.ndarray:
    """Return the word that the anchor attends to most, itself left out, for every head."""
    row = attention[:, anchor].copy()
    row[:, anchor] = -1
    return row.argmax(axis=1)


def _rollout(attention: np.ndarray, num_heads: int) -> np.ndarray:
    """Return attention rollout among the words (Abnar and Zuidema 2020, arXiv:2005.00928, §3): `(words, words)`."""
    blocks = attention.reshape(-1, num_heads, *attention.shape[1:]).mean(axis=1)
    total = np.eye(attention.shape[1])
    for block in blocks:
        block = block / np.maximum(block.sum(axis=1, keepdims=True), 1e-9)
        total = (block + np.eye(len(block))) / 2 @ total
    return total
