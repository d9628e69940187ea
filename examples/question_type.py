"""What does a question ask for? Six classes, BERT trained end to end, beside a frozen BERT; saved, exported, served.

    python examples/question_type.py                       # TREC questions
    python examples/question_type.py --data mine.tsv --pooling last_four_sum

The classes (Li and Roth 2002): ABBR an abbreviation or what it stands for, DESC a description or reason, ENTY a thing,
HUM a person or group, LOC a place, NUM a number or date. The data is tab-separated: class, question. By default it is
`../shared/data/trec_questions.tsv`; if that is missing, a small sample beside this script, whose score says little.
Needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import training
from keras_bert_trend import BertTrend, embed

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, classification_report, f1_score
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError:
    sys.exit("This example needs scikit-learn: pip install 'keras_bert_trend[examples]'")

CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")

QUESTIONS = ["Who was the first person on the moon ?", "How tall is the Eiffel Tower ?", "What does BERT stand for ?"]


def main() -> None:
    """Do the whole job."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    data = arguments.data or training.shared_or_sample("trec_questions.tsv", "question_sample.tsv")
    train, test = split(*read_questions(data))
    print(f"{len(train[0])} questions to train on, {len(test[0])} to test")

    frozen = frozen_mean(train, test[0], arguments.handle)
    model = build_model(arguments, num_examples=len(train[0]))
    model.fit(
        training.batches(*train, arguments.batch_size, shuffle=True),
        epochs=arguments.epochs,
        shuffle=False,  # the dataset does it
    )
    report(test[1], frozen, training.predict(model, test[0]).argmax(axis=1), arguments.pooling)

    training.save_and_export(model, arguments.output, "question_type")
    training.serve_in_fresh_process(arguments.output, "--labels", ",".join(CLASSES), *QUESTIONS)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=training.HelpFormatter)
    parser.add_argument("--data", type=Path, help="tab-separated file: class, question")
    training.add_training_arguments(
        parser,
        pooling="smooth_trend",
        max_length=64,
        epochs=3,
        batch_size=16,
        learning_rate=1e-4,
        output=Path("runs/question_type"),
    )
    return parser.parse_args()


def read_questions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the questions and the indices of their classes. Of questions that differ only in casing, keep the first."""
    rows = training.read_table(path, CLASSES, columns=2)
    once = {}
    for label, text in rows:
        once.setdefault(text.strip().lower(), (label, text))
    labels, texts = zip(*once.values(), strict=True)
    print(f"{path}: {len(rows)} questions, {len(rows) - len(texts)} of them repeated and left out")
    return np.array(texts, dtype=object), np.array([CLASSES.index(label) for label in labels])


def split(texts: np.ndarray, labels: np.ndarray):
    """Split 80/20 into training and test, with the same share of each class in both. `--seed` changes nothing here."""
    try:
        train, test = train_test_split(np.arange(len(texts)), test_size=0.2, stratify=labels, random_state=0)
    except ValueError as error:
        sys.exit(f"The questions cannot be split with every class on both sides: {error}")
    return (texts[train], labels[train]), (texts[test], labels[test])


def frozen_mean(train, test_texts: np.ndarray, handle: str) -> np.ndarray:
    """Predict with a logistic regression on mean-pooled embeddings of the BERT as published."""
    layer = BertTrend(handle, pooling="mean", sequence_length=None, truncate=True, trainable=False)
    # The best of C = 1, 0.1 and 0.01 on a fifth of TREC's training part, trained on the rest.
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    classifier.fit(embed(train[0], layer), train[1])
    return classifier.predict(embed(test_texts, layer))


def build_model(arguments, num_examples: int) -> keras.Model:
    """Put six units on BERT's sentence embedding, and train both."""
    text = keras.Input((), dtype="string", name="text")
    kinds = training.add_head(training.make_bert(arguments)(text), len(CLASSES), activation="softmax", name="kind")
    model = keras.Model(text, kinds)
    steps = arguments.epochs * -(-num_examples // arguments.batch_size)
    metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    training.compile_model(model, arguments.learning_rate, steps, "sparse_categorical_crossentropy", metrics)
    return model


def report(labels: np.ndarray, frozen: np.ndarray, trained: np.ndarray, pooling: str) -> None:
    """Print the precision, recall and F1 of each class, and the accuracy and macro-F1 of both methods.

    ABBR is so rare that accuracy hardly notices it; macro-F1, the mean of the classes' F1, does.
    """
    numbers = {"labels": range(len(CLASSES)), "zero_division": 0}
    print(f"\n{classification_report(labels, trained, target_names=CLASSES, digits=3, **numbers)}")
    print(f"{'method':36} accuracy  macro-F1")
    methods = {"frozen mean, logistic regression": frozen, f"trained, {pooling}": trained}
    for name, predicted in methods.items():
        macro_f1 = f1_score(labels, predicted, average="macro", **numbers)
        print(f"{name:36} {accuracy_score(labels, predicted):8.3f}  {macro_f1:8.3f}")
    print(f"\nquestion type macro-F1: {macro_f1:.3f}")


if __name__ == "__main__":
    main()
