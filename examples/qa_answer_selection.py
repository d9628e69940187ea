"""Rank the sentences that may answer a question: train BERT on pairs, compare, save, export, serve.

    python examples/qa_answer_selection.py                                       # TREC QA
    python examples/qa_answer_selection.py --data train.tsv --dev dev.tsv --pooling last_four_sum

The data is tab-separated: 1 or 0 (whether the sentence answers the question), question, sentence. By default it is TREC
QA in `../shared/data`; if that is missing, a small sample beside this script, whose scores say little. Without `--dev`
every fourth question of the data is kept for evaluation.

Of the sentences for TREC QA's 93 training questions, 348 are answers and 4,370 are not. So the model trains on groups:
an answer, and a few sentences that do not answer the same question, drawn anew in each epoch. The loss is the cross-
entropy of finding the answer in the group (Gao, Dai and Callan 2021, arXiv:2101.08751). That is what ranking asks for,
and no class is rare in it. `--batch-size` counts groups.

MAP and MRR are means over the questions with at least one positive and one negative candidate. Ties count
pessimistically: of candidates with the same score, negatives come first. Needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import training
from keras_bert_trend import BertTrend, embed


class Question(NamedTuple):
    """A question, its candidate sentences, and which of them answer it (1) or not (0)."""

    text: str
    candidates: list[str]
    labels: np.ndarray


def main() -> None:
    """Do the whole job."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    train, dev = read_data(arguments.data, arguments.dev)

    methods = {
        "random order (expected)": expected_at_random(dev),
        "BM25": rank_metrics(dev, bm25(dev)),
        "frozen mean, cosine": rank_metrics(dev, frozen_mean(dev, arguments.handle, arguments.max_length)),
    }
    num_groups = sum(int(question.labels.sum()) for question in train)
    arguments.batch_size = min(arguments.batch_size, num_groups)
    model = build_model(arguments, num_groups)
    fit(model, train, arguments)
    methods[f"trained, {arguments.pooling}"] = rank_metrics(dev, relevance(model, dev))
    report(methods)

    # Without the loss, which only this script defines: the saved model loads without it.
    training.save_and_export(keras.Model(model.inputs, model.outputs), arguments.output, "qa")
    shown = max(dev, key=lambda question: len(question.text))  # any will do
    print(f"\n{shown.text}")
    training.serve_in_fresh_process(arguments.output, "--question", shown.text, *shown.candidates[:8])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=training.HelpFormatter)
    parser.add_argument("--data", type=Path, help="tab-separated file: 1 or 0, question, sentence")
    parser.add_argument("--dev", type=Path, help="a file of the same form to evaluate on")
    parser.add_argument("--negatives", type=int, default=4, help="negatives in the group of each answer")
    training.add_training_arguments(
        parser,
        pooling="mean",
        max_length=96,
        epochs=2,
        batch_size=4,
        learning_rate=3e-5,
        output=Path("runs/qa"),
    )
    return parser.parse_args()


# Data


def read_data(data: Path | None, dev: Path | None) -> tuple[list[Question], list[Question]]:
    """Return the questions to train on and to evaluate on, each with both kinds of candidates."""
    if data is None:
        data = training.shared_or_sample("trec_qa_train.tsv", "qa_sample.tsv")
        if data.parent == training.SHARED_DATA and dev is None:
            dev = training.SHARED_DATA / "trec_qa_dev.tsv"
    train = read_questions(data)
    if dev is None:
        train, dev_questions = split_questions(train)
    else:
        dev_questions = read_questions(dev)
    if not train or not dev_questions:
        sys.exit(f"{dev or data}: both parts need questions with both kinds of candidates.")
    return train, dev_questions


def read_questions(path: Path) -> list[Question]:
    """Read the questions that have both positive and negative candidates, in the order of the file."""
    groups: dict[str, list] = {}
    for label, question, sentence in training.read_table(path, ("0", "1"), columns=3):
        groups.setdefault(question, []).append((sentence, int(label)))
    questions = []
    for text, candidates in groups.items():
        sentences, labels = zip(*candidates, strict=True)
        if 0 < sum(labels) < len(labels):
            questions.append(Question(text, list(sentences), np.array(labels)))
    count, positive = sum(len(q.labels) for q in questions), sum(int(q.labels.sum()) for q in questions)
    print(f"{path}: {len(questions)} of {len(groups)} questions have both; {count} candidates, {positive} answers")
    return questions


def split_questions(questions: list[Question]) -> tuple[list[Question], list[Question]]:
    """Keep every fourth question, with all its candidates, for evaluation."""
    return [q for i, q in enumerate(questions) if i % 4 != 3], questions[3::4]


# Metrics


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean precision at the ranks of the positives."""
    ranks = positive_ranks(labels, scores)
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def reciprocal_rank(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return 1 / the rank of the first positive."""
    return float(1 / positive_ranks(labels, scores)[0])


def positive_ranks(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the ranks of the positives, from 1; among equal scores the negatives come first."""
    order = np.lexsort((labels, -np.asarray(scores, dtype=np.float64)))  # by score, then by label
    return np.flatnonzero(np.asarray(labels)[order]) + 1


def rank_metrics(questions: list[Question], scores: list[np.ndarray]) -> np.ndarray:
    """Return the average precision and the reciprocal rank of each question, `(questions, 2)`."""
    pairs = zip(questions, scores, strict=True)
    return np.array([(average_precision(q.labels, s), reciprocal_rank(q.labels, s)) for q, s in pairs])


def expected_at_random(questions: list[Question]) -> np.ndarray:
    """Return what `rank_metrics` gives on average if all orders of the candidates are equally likely.

    Of n candidates, r of them positive, the one at rank i is positive with probability r / n, and then (i − 1)(r − 1) /
    (n − 1) of those before it are: E[AP] = Σ_i (1 + (i − 1)(r − 1) / (n − 1)) / (i n). The first positive is at rank i
    with probability C(n − i, r − 1) / C(n, r).
    """
    expected = []
    for question in questions:
        n, r = len(question.labels), int(question.labels.sum())
        ranks = np.arange(1, n + 1)
        precision = np.sum((1 + (ranks - 1) * (r - 1) / (n - 1)) / ranks) / n
        expected.append((precision, sum(comb(n - i, r - 1) / comb(n, r) / i for i in range(1, n + 1))))
    return np.array(expected)


# Baselines: functions from questions to the scores of each one's candidates


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def bm25(questions: list[Question]) -> list[np.ndarray]:
    """Score by BM25 (Robertson et al. 1995), with the word statistics of all candidates of all questions."""
    try:
        from rank_bm25 import BM25Okapi
    except ImportError:
        sys.exit("The BM25 baseline needs rank-bm25: pip install 'keras_bert_trend[examples]'")
    number = {s: i for i, s in enumerate(dict.fromkeys(s for q in questions for s in q.candidates))}
    index = BM25Okapi([words(sentence) for sentence in number])
    return [index.get_scores(words(q.text))[[number[s] for s in q.candidates]] for q in questions]


def frozen_mean(questions: list[Question], handle: str, max_length: int) -> list[np.ndarray]:
    """Score by the cosine of question and sentence, each the mean of its tokens, from the BERT as published."""
    layer = BertTrend(handle, pooling="mean", sequence_length=None, truncate=True, trainable=False)
    settings = {"max_length": max_length, "normalize": True}
    asked = embed([q.text for q in questions], layer, **settings)
    sentences = embed([s for q in questions for s in q.candidates], layer, **settings)
    return [own @ vector for own, vector in zip(by_question(questions, sentences), asked, strict=True)]


def by_question(questions: list[Question], rows: np.ndarray) -> list[np.ndarray]:
    """Cut the rows of all candidates into one array per question."""
    return np.split(rows, np.cumsum([len(q.labels) for q in questions])[:-1])


# The model


def build_model(arguments, num_groups: int) -> keras.Model:
    """Score by a head on the embedding of the pair, plus the cosine of the two embeddings alone, and train all of it.

    One BERT embeds all three. The head on the pair starts near zero, so the model starts at the frozen baseline: a few
    questions are enough to improve on that, not to learn from nothing what an answer is.
    """
    question = keras.Input((), dtype="string", name="question")
    sentence = keras.Input((), dtype="string", name="sentence")
    bert = training.make_bert(arguments)
    together = training.add_head(bert((question, sentence)), units=1, activation=None, name="together")
    cosine = keras.layers.Dot(axes=1, normalize=True)([bert(question), bert(sentence)])
    # Cosines differ by tenths; the loss needs scores that differ by ones.
    apart = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(10.0), name="apart")(cosine)
    model = keras.Model([question, sentence], keras.layers.Add(name="relevance")([together, apart]))
    steps = arguments.epochs * (num_groups // arguments.batch_size)
    loss = answer_among(1 + arguments.negatives)
    training.compile_model(model, arguments.learning_rate, steps, loss, metrics=[])
    return model


def answer_among(size: int) -> Callable:
    """Return the loss of groups of `size` rows: the cross-entropy of finding the row labelled 1."""

    def find_the_answer(labels, scores):
        return ops.categorical_crossentropy(
            ops.reshape(labels, (-1, size)), ops.reshape(scores, (-1, size)), from_logits=True
        )

    return find_the_answer


def fit(model: keras.Model, questions: list[Question], arguments) -> None:
    """Train on groups drawn anew in each epoch."""
    generator = np.random.default_rng(arguments.seed)
    size = 1 + arguments.negatives
    epochs = [draw_groups(questions, arguments.negatives, generator) for _ in range(arguments.epochs)]
    steps = len(epochs[0]) // arguments.batch_size
    # Whole batches only, so that each epoch has its own groups.
    groups = [group for epoch in epochs for group in epoch[: steps * arguments.batch_size]]
    asked, sentences = zip(*(row for group in groups for row in group), strict=True)
    labels = np.tile(np.arange(size) == 0, len(groups)).astype("float32")[:, None]
    dataset = tf.data.Dataset.from_tensor_slices(((list(asked), list(sentences)), labels))
    dataset = dataset.batch(arguments.batch_size * size).prefetch(tf.data.AUTOTUNE)
    model.fit(dataset, epochs=arguments.epochs, steps_per_epoch=steps, shuffle=False)


def draw_groups(questions: list[Question], negatives: int, generator) -> list[list[tuple[str, str]]]:
    """Return a group of (question, sentence) for each answer: the answer, then `negatives` that are not.

    Negatives are drawn from the same question's candidates, without repetition if there are enough.
    """
    groups = []
    for question in questions:
        others = np.flatnonzero(question.labels == 0)
        for answer in np.flatnonzero(question.labels):
            drawn = generator.choice(others, negatives, replace=len(others) < negatives)
            groups.append([(question.text, question.candidates[i]) for i in (answer, *drawn)])
    generator.shuffle(groups)
    return groups


def relevance(model: keras.Model, questions: list[Question]) -> list[np.ndarray]:
    """Score the candidates of all questions with the model."""
    rows = [(q.text, sentence) for q in questions for sentence in q.candidates]
    asked, sentences = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    return by_question(questions, training.predict(model, asked, sentences)[:, 0])


def report(methods: dict[str, np.ndarray]) -> None:
    """Print the MAP and MRR of each method, and how far the last one leads.

    The interval comes from the bootstrap over questions (Sakai 2006).
    """
    *_, trained = methods.values()
    draws = np.random.default_rng(0).integers(len(trained), size=(10_000, len(trained)))
    print(f"\n{'method':26} {'MAP':>6} {'MRR':>6}   trained MAP is higher by (95 % over {len(trained)} questions)")
    for name, metrics in methods.items():
        mean_precision, mean_reciprocal = metrics.mean(axis=0)
        line = f"{name:26} {mean_precision:6.3f} {mean_reciprocal:6.3f}"
        if metrics is not trained:
            lead = (trained - metrics)[:, 0]
            low, high = np.percentile(lead[draws].mean(axis=1), [2.5, 97.5])
            line += f"   {lead.mean():+.3f} ({low:+.3f} to {high:+.3f})"
        print(line)
    print(f"\nQA MAP: {trained.mean(axis=0)[0]:.3f}\nQA MRR: {trained.mean(axis=0)[1]:.3f}")


if __name__ == "__main__":
    main()
