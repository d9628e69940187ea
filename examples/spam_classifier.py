"""Train a spam classifier with BERT inside, save it, export it, and serve it from a fresh process.

    python examples/spam_classifier.py                       # the SMS Spam Collection, three epochs
    python examples/spam_classifier.py --data mine.tsv --pooling last_four_sum

The data is a tab-separated file: `ham` or `spam`, then the message. Without `--data` it is looked for in
`../shared/data/sms_spam.tsv`, else fetched from the UCI archive, else a small sample beside this script is used, so
that the command always runs (its score says little then).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_bert_trend import POOLING_NAMES, BertTrend, WarmupLinearDecay

HERE = Path(__file__).resolve().parent
SHARED_DATA = HERE.parent.parent / "shared" / "data" / "sms_spam.tsv"
SAMPLE_DATA = HERE / "data" / "sms_sample.tsv"
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
        batches(train, arguments.batch_size, shuffle=True),
        validation_data=batches(validation, arguments.batch_size),
        epochs=arguments.epochs,
        shuffle=False,  # the dataset does it
    )
    report(test, predict(model, test[0]), train[0])

    arguments.output.mkdir(parents=True, exist_ok=True)
    save_and_export(model, arguments.output)
    print("\nThe exported model, loaded in a fresh process that knows TensorFlow only:")
    serve = [sys.executable, str(HERE / "serve_saved_model.py"), str(arguments.output / "saved_model"), *MESSAGES]
    subprocess.run(serve, check=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="tab-separated file: ham or spam, then the message")
    parser.add_argument("--handle", default="minilm", help="the BERT to start from (default: minilm)")
    parser.add_argument("--pooling", default="smooth_trend", choices=POOLING_NAMES)
    parser.add_argument("--max-length", type=int, default=128, help="tokens a message is trimmed to")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1.5e-4, help="the peak, after warm-up")
    parser.add_argument(
        "--freeze-embeddings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the static embedding, which a trend is measured from and rare words are few examples of",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/spam"), help="folder for the trained model")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def find_data() -> Path:
    """Return the SMS Spam Collection, or the sample where it can be had nowhere."""
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
    texts, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        label, _, text = line.rstrip("\r").partition("\t")
        if label in ("ham", "spam"):
            texts.append(text)
            labels.append(float(label == "spam"))
        elif line.strip() and number > 1:  # the first line may be a header
            sys.exit(f"{path}, line {number}: expected 'ham' or 'spam', a tab and a message, got {line[:60]!r}.")
    if len(set(labels)) < 2:
        sys.exit(f"{path}: there must be both ham and spam to learn from.")
    print(f"{path}: {len(texts)} messages, {sum(labels):.0f} of them spam")
    return np.array(texts, dtype=object), np.array(labels, dtype="float32")


def split(texts, labels):
    """Split 80/20 into training and test, and take a few of the training part for validation.

    Every fifth message tests and every twenty-fifth validates: the order of the file decides, and no seed can be chosen
    to please.
    """
    number = np.arange(len(texts))
    test, validation = number % 5 == 4, number % 25 == 0
    return [(texts[part], labels[part]) for part in (~test & ~validation, validation, test)]


def batches(part, batch_size, shuffle=False):
    """Batch messages of similar length together, so that little is padded."""
    dataset = tf.data.Dataset.from_tensor_slices((part[0].astype(str), part[1]))
    if shuffle:
        dataset = dataset.shuffle(len(part[0]), reshuffle_each_iteration=True)
    bounds = [50, 100, 150]  # bytes; few, since length alone tells much of ham and spam, and a batch should have both
    return dataset.bucket_by_sequence_length(
        lambda text, label: tf.strings.length(text), bounds, [batch_size] * (len(bounds) + 1), padded_shapes=((), ())
    ).prefetch(tf.data.AUTOTUNE)


def build_model(arguments, num_examples) -> keras.Model:
    """Put one unit on BERT's sentence embedding; everything trains."""
    text = keras.Input((), dtype="string", name="text")
    bert = BertTrend(
        arguments.handle,
        pooling=arguments.pooling,
        sequence_length=None,  # pad to the longest of the batch
        max_length=arguments.max_length,
        truncate=True,
        trainable=True,
        freeze_embeddings=arguments.freeze_embeddings,
    )
    x = keras.layers.LayerNormalization()(bert(text))  # poolings differ in scale: a sum of four layers, a log ratio
    x = keras.layers.Dropout(0.1)(x)
    small = keras.initializers.TruncatedNormal(stddev=0.02)  # as BERT's own classifier starts
    spam = keras.layers.Dense(1, activation="sigmoid", kernel_initializer=small, name="spam")(x)
    model = keras.Model(text, spam)

    steps = arguments.epochs * -(-num_examples // arguments.batch_size)
    optimizer = keras.optimizers.AdamW(
        WarmupLinearDecay(arguments.learning_rate, total_steps=steps, warmup_steps=steps // 10),
        weight_decay=0.01,
        global_clipnorm=1.0,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def predict(model, texts) -> np.ndarray:
    """Return each message's probability of being spam, in the order given."""
    order = np.argsort([len(text) for text in texts])
    probabilities = np.empty(len(texts), dtype="float32")
    dataset = tf.data.Dataset.from_tensor_slices(texts[order].astype(str)).batch(64)
    probabilities[order] = model.predict(dataset)[:, 0]
    return probabilities


def report(test, probabilities, train_texts) -> None:
    """Print accuracy, and precision, recall and F1 of the spam class.

    The collection holds hundreds of messages more than once, so that some of the test part stands in the training
    part too. The usual figure counts them; the last line leaves them out.
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
    print(f"spam F1 on the {unseen.sum()} test messages that do not stand in the training part too: {f1_unseen:.3f}")


def spam_scores(labels, predicted) -> tuple[float, float, float]:
    """Return precision, recall and F1 of the spam class; 0 where undefined."""
    hits = float(np.sum(predicted & (labels == 1)))
    precision, recall = hits / max(predicted.sum(), 1), hits / max(labels.sum(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def save_and_export(model, folder) -> None:
    """Write `spam.keras` and the SavedModel, each under a temporary name first, so that neither is ever half there."""
    model.save(folder / "writing.keras")
    os.replace(folder / "writing.keras", folder / "spam.keras")
    shutil.rmtree(folder / "writing_saved_model", ignore_errors=True)
    model.export(folder / "writing_saved_model", verbose=False)
    shutil.rmtree(folder / "saved_model", ignore_errors=True)
    os.replace(folder / "writing_saved_model", folder / "saved_model")
    print(f"\nwrote {folder / 'spam.keras'} and {folder / 'saved_model'}")


if __name__ == "__main__":
    main()
