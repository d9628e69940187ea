"""Train a spam classifier with BERT inside, save it, export it, and serve it from a fresh process.

    python examples/spam_classifier.py                       # the SMS Spam Collection, three epochs
    python examples/spam_classifier.py --data mine.tsv --pooling last_four_sum

The data is a tab-separated file: `ham` or `spam`, then the message. By default it is `../shared/data/sms_spam.tsv`,
else it is fetched from the UCI archive, else it is a small sample beside this script, whose score says little.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import training

SHARED_DATA = training.SHARED_DATA / "sms_spam.tsv"
SAMPLE_DATA = training.HERE / "data" / "sms_sample.tsv"
UCI_ARCHIVE = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"

MESSAGES = [
    "Congratulations! You have won a 1000 pound prize. Call 09061701461 now to claim, valid 12 hours only.",
    "Are we still meeting for lunch tomorrow?",
    "URGENT! Your mobile number has been awarded a free ringtone. Txt WIN to 80086 to claim. 150p/msg",
]


def main() -> None:
    """Do the whole job."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    texts, labels = read_messages(arguments.data or find_data())
    train, validation, test = split(texts, labels)
    print(f"{len(train[0])} messages to train on, {len(validation[0])} to validate, {len(test[0])} to test")

    model = build_model(arguments, num_examples=len(train[0]))
    model.fit(
        training.batches(*train, arguments.batch_size, shuffle=True),
        validation_data=training.batches(*validation, arguments.batch_size),
        epochs=arguments.epochs,
        shuffle=False,  # the dataset does it
    )
    report(test, training.predict(model, test[0])[:, 0], train[0])

    training.save_and_export(model, arguments.output, "spam")
    training.serve_in_fresh_process(arguments.output, *MESSAGES)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=training.HelpFormatter)
    parser.add_argument("--data", type=Path, help="tab-separated file: ham or spam, then the message")
    training.add_training_arguments(
        parser,
        pooling="smooth_trend",
        max_length=128,
        epochs=3,
        batch_size=16,
        learning_rate=1e-4,
        output=Path("runs/spam"),
    )
    return parser.parse_args()


def find_data() -> Path:
    """Return the path of the SMS Spam Collection, or of the sample if the collection cannot be fetched."""
    if SHARED_DATA.is_file():
        return SHARED_DATA
    try:
        folder = keras.utils.get_file("sms_spam_collection", UCI_ARCHIVE, extract=True)
        return next(Path(folder).rglob("SMSSpamCollection"))
    except Exception as error:  # no network, no archive: urllib raises many things
        print(f"The SMS Spam Collection could not be fetched ({error}); using the small sample instead.")
        return SAMPLE_DATA


def read_messages(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the messages and their labels (1 = spam)."""
    rows = training.read_table(path, ("ham", "spam"), columns=2)
    texts = np.array([text for _, text in rows], dtype=object)
    labels = np.array([label == "spam" for label, _ in rows], dtype="float32")
    print(f"{path}: {len(texts)} messages, {sum(labels):.0f} of them spam")
    return texts, labels


def split(texts, labels):
    """Split into training, validation and test.

    Every fifth message tests, and every twenty-fifth validates. The file's order decides, so no seed can be picked.
    """
    number = np.arange(len(texts))
    test, validation = number % 5 == 4, number % 25 == 0
    return [(texts[part], labels[part]) for part in (~test & ~validation, validation, test)]


def build_model(arguments, num_examples) -> keras.Model:
    """Put one unit on BERT's sentence embedding, and train both."""
    text = keras.Input((), dtype="string", name="text")
    spam = training.add_head(training.make_bert(arguments)(text), units=1, activation="sigmoid", name="spam")
    model = keras.Model(text, spam)
    steps = arguments.epochs * -(-num_examples // arguments.batch_size)
    metrics = [keras.metrics.BinaryAccuracy("accuracy")]
    training.compile_model(model, arguments.learning_rate, steps, "binary_crossentropy", metrics)
    return model


def report(test, probabilities, train_texts) -> None:
    """Print the accuracy, and the precision, recall and F1 of spam.

    The collection repeats hundreds of messages, so some test messages are in the training part too. The usual figure
    counts them; the last line does not.
    """
    texts, labels = test
    predicted = probabilities >= 0.5
    precision, recall, f1 = spam_scores(labels, predicted)
    print(f"\naccuracy: {np.mean(predicted == labels):.4f}")
    print(f"spam precision: {precision:.3f}")
    print(f"spam recall: {recall:.3f}")
    print(f"spam F1: {f1:.3f}")
    seen = set(train_texts)
    unseen = np.array([text not in seen for text in texts])
    f1_unseen = spam_scores(labels[unseen], predicted[unseen])[2]
    print(f"spam F1 on the {unseen.sum()} test messages that are not in the training part: {f1_unseen:.3f}")


def spam_scores(labels, predicted) -> tuple[float, float, float]:
    """Return the precision, recall and F1 of spam; 0 if undefined."""
    hits = float(np.sum(predicted & (labels == 1)))
    precision, recall = hits / max(predicted.sum(), 1), hits / max(labels.sum(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


if __name__ == "__main__":
    main()
