"""Is the related word joined to the anchor by an arc of syntax? Beside offsets, chance and heads.

UD English-EWT; words are joined by spaces, and punctuation is left out. A pair counts if either word is the other's
head. All pairs begin with an anchor, so that only the second word differs: the related word of a reading; the previous
and the next word; a random one; the word that the anchor attends to most in one head, which is chosen on the odd
sentences and scored on the even ones, as everything is (Clark et al. 2019, arXiv:1906.04341, §4, scored heads on all
words); and three readings that need no choice: attention rollout, attention weighted by the norm of what it moves, and
perturbed masking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np
import tensorflow as tf

from benchmarks.harness import say
from benchmarks.quality import encoders
from benchmarks.quality.data import FOLDER
from benchmarks.quality.report import Results
from keras_bert_trend import TrendPooling
from keras_bert_trend.inspection.batch import encode_batches
from keras_bert_trend.pooling.names import Reading

_FLAGS = {"return_attention_scores": True, "return_attention_received": True}


class Sentence(NamedTuple):
    """A parsed sentence: its words joined by spaces, where each begins, its head (−1 for the root) and the relation."""

    text: str
    starts: list[int]
    heads: list[int]
    relations: list[str]


def read(path=FOLDER / "en_ewt-ud-dev.conllu") -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL-U file."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if not line.startswith("#")]
        rows = [row for row in rows if row[0].isdigit()]
        starts = np.cumsum([0, *(len(row[1]) + 1 for row in rows)])[:-1]
        heads, relations = [int(row[6]) - 1 for row in rows], [row[7].partition(":")[0] for row in rows]
        yield Sentence(" ".join(row[1] for row in rows), starts.tolist(), heads, relations)


def run(options, results: Results) -> None:
    """Score every reading of every encoder."""
    for encoder in options.encoders:
        if not results.get("syntax", encoder):
            say(f"{encoder}: syntax")
            results.store(
                _score(encoders.load(encoder, options.work, pooling="mean", trainable=False)), "syntax", encoder
            )


def _score(layer) -> dict[str, dict]:
    """Return name → pairs and the share joined by an arc; of a reading's related words, how often by which relation.

    For a reading also the share of anchors that are the root, or its verb: an auxiliary or copula that hangs on it.
    """
    sentences = list(read())
    kinds, generator = layer.preprocessor.vocabulary.token_kinds, np.random.default_rng(0)
    poolings = {reading: TrendPooling(kinds, reading=reading, unit="word") for reading in get_args(Reading)}
    joined: dict[str, list] = {}
    roots: dict[str, list] = {}
    relations: dict[str, Counter] = {}
    heads: dict[str, list] = {reading: [] for reading in poolings}  # (odd sentence, joined by each head)
    mask_and_look = _PerturbedMasking(layer)
    batches = encode_batches(layer, [sentence.text for sentence in sentences], 16, **_FLAGS)
    number = -1
    for batch in batches:
        mask, ids = batch.inputs["input_mask"], batch.inputs["input_word_ids"]
        scores = np.concatenate([np.asarray(block) for block in batch.outputs["attention_scores"]], axis=1)
        norms = np.concatenate(list(_moved(layer.encoder, batch.outputs)), axis=1)
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
            weighted = _between_words(scores[row] * norms[row, :, None, :], words)
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
                    "most attended, weighted by values": _most(weighted.mean(axis=0)[None], anchor)[0],
                    "perturbed masking": mask_and_look(ids[row, : len(text.tokens)], words, anchor),
                }
                for label, other in pairs.items():
                    joined.setdefault(f"{reading}: {label}", []).append(arcs[anchor, other])
                head, label = sentence.heads[parsed[anchor]], f"{reading}: related word"
                verb = sentence.relations[parsed[anchor]] in ("aux", "cop") and sentence.heads[head] == -1
                roots.setdefault(label, []).append(head == -1 or verb)
                if arcs[anchor, related]:
                    lower = anchor if head == parsed[related] else related
                    relations.setdefault(label, Counter())[sentence.relations[parsed[lower]]] += 1
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
            "relations": dict(relations[label].most_common(8)) if label in relations else None,
        }
        for label, found in sorted(joined.items())
    }


def _between_words(scores: np.ndarray, words) -> np.ndarray:
    """Return how much each word attends to each, `(heads, words, words)`: the sum over the pieces of the other."""
    member = np.zeros((len(words), scores.shape[-1]), np.float32)
    for index, word in enumerate(words):
        member[index, list(word.positions)] = 1
    return (member / member.sum(axis=1, keepdims=True)) @ scores @ member.T


def _moved(encoder, outputs) -> Iterator[np.ndarray]:
    """Yield for every block the norm of what one unit of attention moves, `(batch, heads, seq)`.

    Source: Kobayashi et al. 2020, "Attention is not only a weight", arXiv:2004.10102, §3: `‖(x W_v + b_v) W_o‖`.
    """
    heads, size = encoder.config.num_heads, encoder.config.head_size
    inputs = [outputs["embedding_output"], *outputs["encoder_outputs"][:-1]]
    for block, x in zip(encoder.blocks, inputs, strict=True):
        kernel, bias = (np.split(np.asarray(w), 3, axis=-1)[2] for w in (block.qkv_kernel, block.qkv_bias))
        values = (np.asarray(x) @ kernel + bias).reshape(*x.shape[:2], heads, size)
        outward = np.asarray(block.attention_kernel).reshape(heads, size, -1)
        yield np.linalg.norm(np.einsum("btnh,nhd->bntd", values, outward, optimize=True), axis=-1)


class _PerturbedMasking:
    """The word whose masking changes the masked anchor's state most.

    Source: Wu et al. 2020, "Perturbed Masking", arXiv:2004.14786, §2, with the Euclidean distance.
    """

    def __init__(self, layer) -> None:
        self.mask = layer.preprocessor.vocabulary.tokens.index("[MASK]")

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def last(ids):
            inputs = {"input_word_ids": ids, "input_mask": tf.ones_like(ids), "input_type_ids": tf.zeros_like(ids)}
            return layer.encoder(inputs, training=False)["sequence_output"]

        self._last = last

    def __call__(self, ids: np.ndarray, words, anchor: int) -> int:
        masked = np.repeat(ids[None], len(words), axis=0)
        at = list(words[anchor].positions)
        masked[:, at] = self.mask
        for index, word in enumerate(words):  # the anchor's own row is the one to compare with
            masked[index, list(word.positions)] = self.mask
        states = self._last(masked).numpy()[:, at]
        return int(np.linalg.norm(states - states[anchor], axis=-1).mean(axis=1).argmax())


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
