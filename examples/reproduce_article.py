"""Print the tables of the articles that introduced trend pooling beside those of another encoder.

    python examples/reproduce_article.py                               # the embedded default, minilm
    python examples/reproduce_article.py --model path/to/bert-base-uncased

The articles: Yuli Vasiliev, "Discovering trends in BERT embeddings of different levels for the task of semantic context
determining" (2022) and "Generating sentence-level embedding based on the trends in token-level BERT embeddings" (2023).
Their numbers are those of bert-base-uncased. If the model given is that one, in any format, each number is checked; the
model is recognised by its shape and its attention. The numbers of another model can be compared in form only. What
follows from the printed numbers alone is always recomputed with this package and checked.

Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_bert_trend import BertTrend, TrendPooling, explain, similarity
from keras_bert_trend.preprocessing.vocabulary import PUNCTUATION, SPECIAL

TEXTS = ["I want an apple.", "I want an orange.", "I want an adventure."]
PAIRS = [("apple", "orange"), ("apple", "adventure"), ("orange", "adventure")]
DIMENSIONS = 10  # as many as the articles print


@dataclass(frozen=True)
class Numbers:
    """What the articles print about the text "I want an apple.".

    Attributes:
        words: the candidates.
        rows: attention received, `(rows, candidates)`.
        leaders: the argmax of each row.
        runners_up: in the rows led by the anchor, the argmax of the other words, counted without the anchor.
        anchor, related: two of the words.
        last: the first ten dimensions of "want" in the last layer, `(10,)`.
        anchor_trend, related_trend, embedding: the first ten dimensions of the trends and of their sum, `(10,)`.
        trend_cosines: the cosines of the trends of "want" (ten dimensions) in each two of the three texts, `(3,)`.
        last_cosines: the same for the last layer.
    """

    words: tuple[str, ...]
    rows: np.ndarray
    leaders: np.ndarray
    runners_up: np.ndarray
    anchor: str
    related: str
    last: np.ndarray
    anchor_trend: np.ndarray
    related_trend: np.ndarray
    embedding: np.ndarray
    trend_cosines: np.ndarray
    last_cosines: np.ndarray


# fmt: off
ARTICLE = Numbers(
    words=("i", "want", "an", "apple"),
    rows=np.array([
        [0.99275106, 1.00205731, 0.76726311, 0.72082734], [0.7479955, 1.16846883, 0.63782167, 1.39036024],
        [1.23037624, 0.40373796, 0.57493907, 0.25739866], [1.319888, 1.21090519, 1.37013197, 0.7479018],
        [0.48407069, 1.15729702, 0.54152751, 0.57587731], [0.47308242, 0.61861634, 0.46330488, 0.47692096],
        [1.23776317, 1.2546916, 0.92190945, 1.2607218], [1.19664812, 0.51989007, 0.48901123, 0.65525496],
        [0.5389185, 0.98384732, 0.8789593, 0.98946768], [0.75819892, 0.80689037, 0.5612824, 1.10385513],
        [0.14660755, 1.10911655, 0.84521955, 1.00496972], [0.77081972, 0.79827666, 0.45695013, 0.36948431],
    ]),
    leaders=np.array([1, 3, 0, 2, 1, 1, 3, 0, 3, 3, 1, 1]),
    runners_up=np.array([0, 2, 2, 2, 0]),
    anchor="want",
    related="apple",
    last=np.array([0.44462553, 0.21318859, 1.1400639, -0.05000957, 0.43685108,
                   0.91370475, -0.6992555, 0.13507934, -0.42180806, -0.66882026]),
    anchor_trend=np.array([0, 0, 0, 0, -0.79848075, 0.6715901, 0.30298436, -1.6455574, 0.1162319, 0]),
    related_trend=np.array([3.753544, 1.4458075, -0.56288993, -0.44559467, 0.9137548, 0.33285233, 0, 0, 0, 0]),
    embedding=np.array([3.753544, 1.4458075, -0.56288993, -0.44559467, 0.11527407,
                        1.0044425, 0.30298436, -1.6455574, 0.1162319, 0]),
    trend_cosines=np.array([0.9640, 0.4168, 0.3458]),
    last_cosines=np.array([0.9870, 0.8981, 0.8874]),
)
# fmt: on

#: How far a number may be off: float32's rounding through twelve layers, and the digits printed. A trend divides by
#: states as small as 0.005, which multiplies their rounding error.
TOLERANCES = {"rows": 1e-4, "last": 1e-4, "embedding": 1e-3, "trend_cosines": 1e-3, "last_cosines": 1e-4}
TOLERANCES |= {"anchor_trend": 1e-3, "related_trend": 1e-3}
SAME_MODEL = 0.01  # between models, attention received differs by far more


class Check(NamedTuple):
    """A name in `Numbers`, its difference from the article (of words: 0 or 1), and how large that may be."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough."""
        return self.difference <= self.tolerance


def main() -> None:
    """Do the whole job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", metavar="HANDLE", help="a folder, an archive, a URL, minilm")
    model = parser.parse_args().model

    print("From the printed numbers alone, recomputed by this package:")
    passed = show_checks(compare(recompute(), ARTICLE))
    try:
        layer = BertTrend(model, pooling="trend", sequence_length=None, trainable=False)
        ours = look(layer)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    config = layer.encoder.config
    shape = (config.num_layers, config.hidden_size, config.num_heads)
    print(f"\n{model} has {shape[0]} layers, is {shape[1]} wide and has {shape[2]} heads.")
    if is_the_articles_model(ours, shape):
        print("This is the article's model, bert-base-uncased. Its numbers against the printed ones:")
        passed &= show_checks(compare(vars(ours), ARTICLE))
    else:
        print("This is not the article's model; its numbers are shown for comparison of form only.")
    show(ours, model)
    if not passed:
        sys.exit("A check failed.")


def recompute() -> dict[str, np.ndarray | str]:
    """Find the two words in the printed matrix, and the sum of the printed trends, with `TrendPooling`."""
    ids = np.arange(7)[None]  # [CLS] i want an apple . [SEP]
    received = np.full((1, 1, 12, 7), 9.0, "float32")  # more than any word receives: it must not count
    received[0, 0, :, 1:5] = ARTICLE.rows
    # States whose log ratios are the printed trends. The sign flips where the article has 0.
    last = np.ones((1, 7, DIMENSIONS), "float32")
    first = last.copy()
    for position, trend in ((2, ARTICLE.anchor_trend), (4, ARTICLE.related_trend)):
        first[0, position] = np.where(trend == 0, -1, np.exp(-trend))
    outputs = {
        "attention_received": received,
        "embedding_output": first,
        "sequence_output": last,
        "encoder_outputs": [last],
    }
    pooling = TrendPooling(np.array([SPECIAL, 0, 0, 0, 0, PUNCTUATION, SPECIAL], "uint8"))
    chosen = pooling.select(outputs, np.ones_like(ids), ids)
    names = ("anchor", "related", "leaders", "runners_up")
    chosen = {name: keras.ops.convert_to_numpy(chosen[name])[0] - 1 for name in names}  # "i" is word 0, token 1
    return {
        "leaders": chosen["leaders"],
        "runners_up": among_others(chosen["leaders"], chosen["runners_up"], chosen["anchor"]),
        "anchor": ARTICLE.words[chosen["anchor"]],
        "related": ARTICLE.words[chosen["related"]],
        "embedding": keras.ops.convert_to_numpy(pooling(outputs, np.ones_like(ids), input_word_ids=ids))[0],
    }


def among_others(leaders: np.ndarray, runners_up: np.ndarray, anchor: int) -> np.ndarray:
    """Return the runners-up of the rows led by the anchor, counted without the anchor, as in the article."""
    runners_up = runners_up[leaders == anchor]
    return runners_up - (runners_up > anchor)


def look(layer: BertTrend) -> Numbers:
    """Return the numbers of an encoder."""
    explanation = explain(TEXTS[0], layer, reading="published", unit="token", measure="log_ratio")
    want = explanation.words[1].positions[0]
    seen = layer(TEXTS, return_all=True)
    position, here = np.full(len(TEXTS), want, "int32"), np.ones(len(TEXTS), bool)
    at_want = {"anchor": position, "has_anchor": here, "related": position, "has_related": here, "pieces": None}
    trends = keras.ops.convert_to_numpy(layer.pooling.trends(seen, at_want)["anchor"])
    last = keras.ops.convert_to_numpy(seen["sequence_output"])[:, want]
    return Numbers(
        words=tuple(word.text for word in explanation.candidates),
        rows=explanation.rows,
        leaders=explanation.leaders,
        runners_up=among_others(explanation.leaders, explanation.runners_up, explanation.leaders[-1]),
        anchor=explanation.anchor.text,
        related=explanation.related.text,
        last=last[0, :DIMENSIONS],
        anchor_trend=explanation.anchor_trend[:DIMENSIONS],
        related_trend=explanation.related_trend[:DIMENSIONS],
        embedding=explanation.embedding[:DIMENSIONS],
        trend_cosines=pairwise_cosines(trends[:, :DIMENSIONS]),
        last_cosines=pairwise_cosines(last[:, :DIMENSIONS]),
    )


def pairwise_cosines(vectors: np.ndarray) -> np.ndarray:
    """Return the cosines of `PAIRS`, given one vector per text."""
    cosines = similarity(vectors)
    return np.array([cosines[0, 1], cosines[0, 2], cosines[1, 2]])


def is_the_articles_model(ours: Numbers, shape: tuple[int, int, int]) -> bool:
    """Return whether (layers, width, heads) and the attention are those of bert-base-uncased."""
    if shape != (12, 768, 12) or ours.rows.shape != ARTICLE.rows.shape:
        return False
    return bool(np.max(np.abs(ours.rows - ARTICLE.rows)) < SAME_MODEL)


def compare(ours: dict, article: Numbers) -> list[Check]:
    """Compare numbers with the article's, by name."""
    checks = []
    for name, value in ours.items():
        expected = getattr(article, name)
        if name in TOLERANCES:
            difference = float(np.max(np.abs(value - expected)))
        else:  # words and places of words
            difference = float(not np.array_equal(value, expected))
        checks.append(Check(name, difference, TOLERANCES.get(name, 0)))
    return checks


def show_checks(checks: list[Check]) -> bool:
    """Print the checks; return whether all of them passed."""
    for check in checks:
        print(f"  {check.name:14} {'pass' if check.passed else 'FAIL'}   largest difference {check.difference:.1e}")
    return all(check.passed for check in checks)


def show(ours: Numbers, model: str) -> None:
    """Print the article's tables beside ours."""
    print(f"\n{TEXTS[0]!r}: the article's numbers (bert-base-uncased) on the left, those of {model} on the right.")
    print("\nAttention received in the heads of the first block")
    left, right = ("".join(f"{word[:9]:>10}" for word in numbers.words) for numbers in (ARTICLE, ours))
    print(f"{'':8}{left}   |{right}")
    for head, rows in enumerate(zip_longest(ARTICLE.rows, ours.rows, fillvalue=()), start=1):
        left, right = ("".join(f"{value:10.4f}" for value in row) for row in rows)
        print(f"head {head:<3}{left:40}   |{right}")

    print()
    for name, title in (("leaders", "row argmax"), ("runners_up", "runner-ups"), ("anchor", "anchor")):
        print(f"{title:12} {getattr(ARTICLE, name)!s:28} | {getattr(ours, name)}")
    print(f"{'related word':12} {ARTICLE.related:28} | {ours.related}")

    names = ("last", "anchor_trend", "related_trend", "embedding")
    titles = [
        [f"{'want'} last", f"{numbers.anchor} trend", f"{numbers.related} trend", "sum"] for numbers in (ARTICLE, ours)
    ]
    print("\nThe first ten dimensions: 'want' in the last layer, the trends of the two words, and their sum")
    left, right = ("".join(f"{title[:13]:>14}" for title in row) for row in titles)
    print(f"{'':4}{left}   |{right}")
    for dimension in range(min(DIMENSIONS, len(ours.last))):
        values = [[getattr(numbers, name)[dimension] for name in names] for numbers in (ARTICLE, ours)]
        left, right = ("".join(f"{value:14.6f}" for value in row) for row in values)
        print(f"{dimension:<4}{left}   |{right}")

    print("\nCosines of 'want' (first ten dimensions) between the texts that end in")
    print(f"{'':20}{'trend':>10}{'last layer':>12}   |{'trend':>10}{'last layer':>12}")
    for i, (one, other) in enumerate(PAIRS):
        left, right = (f"{n.trend_cosines[i]:10.4f}{n.last_cosines[i]:12.4f}" for n in (ARTICLE, ours))
        print(f"{one + ', ' + other:20}{left}   |{right}")


if __name__ == "__main__":
    main()
