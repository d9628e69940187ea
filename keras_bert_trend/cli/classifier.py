"""The classifier that `train` makes and `predict` runs: BERT, a pooling, a softmax. Imports Keras and TensorFlow."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bert_trend.layer import BertTrend
from keras_bert_trend.optimizers import WarmupLinearDecay

_DEFAULT_LENGTH = 128
_LONG = [600, 1200]  # bytes: attention's cost grows with the square of the batch's longest text

#: Columns of texts, string tensors `(batch,)`, to probabilities `(batch, classes)`.
Function = Callable[..., Any]


def build(arguments: argparse.Namespace, rows: int, classes: int, texts_per_row: int) -> keras.Model:
    """Put a softmax on BERT's sentence embedding, and compile with AdamW, warm-up and linear decay.

    Args:
        arguments: of `train`.
        rows: how many are trained on.
        classes: how many there are.
        texts_per_row: 1, or 2 for pairs.
    """
    keras.utils.set_random_seed(arguments.seed)
    bert = BertTrend(
        arguments.model,
        pooling=arguments.pooling,
        sequence_length=None,  # pad to the longest of the batch
        max_length=arguments.max_length or _default_length(arguments.model),
        truncate=True,
        trainable=not arguments.freeze_bert,
        freeze_embeddings=arguments.freeze_embeddings and arguments.trainable_layers is None,
        trainable_layers=arguments.trainable_layers,
        vocabulary=arguments.vocabulary,
        lower_case=arguments.lower_case,
    )
    names = ["text"] if texts_per_row == 1 else ["text", "pair"]
    inputs = [keras.Input((), dtype="string", name=name) for name in names]
    x = bert(inputs[0] if texts_per_row == 1 else tuple(inputs))
    x = keras.layers.LayerNormalization()(x)  # poolings differ in scale: a sum of four layers, a log ratio
    x = keras.layers.Dropout(arguments.dropout)(x)
    small = keras.initializers.TruncatedNormal(stddev=0.02)  # as BERT's own classifier starts
    x = keras.layers.Dense(classes, activation="softmax", kernel_initializer=small, dtype="float32", name="classes")(x)
    model = keras.Model(inputs[0] if texts_per_row == 1 else inputs, x)

    steps = arguments.epochs * -(-rows // arguments.batch_size)
    optimizer = keras.optimizers.AdamW(
        WarmupLinearDecay(arguments.learning_rate, total_steps=steps, warmup_steps=steps // 10),
        weight_decay=0.01,
        global_clipnorm=1.0,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=[accuracy])
    # A step that finds variables missing is traced a second time when it has made them.
    model.optimizer.build(model.trainable_variables)
    return model


def _default_length(handle: str) -> int:
    from keras_bert_trend.sources import load_source

    return min(_DEFAULT_LENGTH, load_source(handle).config.max_position_embeddings)


def fit(
    model: keras.Model,
    train: Sequence[tuple[str, ...]],
    validation: Sequence[tuple[str, ...]],
    names: Sequence[str],
    arguments: argparse.Namespace,
    show_progress: bool,
) -> list[dict[str, float]]:
    """Train, and return every epoch's loss and accuracy; a line for each is on stderr."""
    report = _Report(arguments.epochs, -(-len(train) // arguments.batch_size), show_progress)
    try:
        with warnings.catch_warnings():  # how many batches there are is known when the first epoch is over
            warnings.filterwarnings("ignore", "Your input ran out of data")
            model.fit(
                _batches(train, names, arguments.batch_size, shuffle=True),
                validation_data=_batches(validation, names, 64),
                epochs=arguments.epochs,
                shuffle=False,  # the dataset does it
                verbose=0,
                callbacks=[report],
            )
    finally:
        report.stop()
    return report.history_of_epochs


def _batches(rows: Sequence[tuple[str, ...]], names: Sequence[str], batch_size: int, shuffle: bool = False):
    """Batch texts as they come, or shuffled anew for every epoch, but long ones apart: little else is padded."""
    index = {name: i for i, name in enumerate(names)}
    columns = tuple(tf.constant(column) for column in list(zip(*rows, strict=True))[1:])
    labels = np.array([index[row[0]] for row in rows], "int32")
    dataset = tf.data.Dataset.from_tensor_slices((columns if len(columns) > 1 else columns[0], labels))
    if shuffle:
        dataset = dataset.shuffle(len(rows), reshuffle_each_iteration=True)
    dataset = dataset.bucket_by_sequence_length(
        lambda texts, label: sum(map(tf.strings.length, tf.nest.flatten(texts))),
        _LONG,
        [batch_size] * (len(_LONG) + 1),
        padded_shapes=(((),) * len(columns) if len(columns) > 1 else (), ()),
    ).prefetch(2)
    # An iterator's autotuning thread ends only when it next wakes, after 10 ms, 20 ms … a minute, and an epoch with it.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class _Report(keras.callbacks.Callback):
    """A line for each epoch, and a bar for all of them."""

    def __init__(self, epochs: int, steps: int, show_progress: bool) -> None:
        super().__init__()
        from rich import console, progress

        self.history_of_epochs: list[dict[str, float]] = []
        self._epochs = epochs
        self._bar = progress.Progress(
            progress.TextColumn("Training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console.Console(stderr=True),
            disable=not show_progress,
        )
        self._task = self._bar.add_task("Training", total=epochs * steps)

    def on_train_begin(self, logs=None) -> None:
        self._bar.start()

    def on_train_batch_end(self, batch, logs=None) -> None:
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch, logs=None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.history_of_epochs.append(logs)
        values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        print(f"epoch {epoch + 1}/{self._epochs}  {values}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leave the terminal as it was, after an interruption too."""
        self._bar.stop()


def keras_function(model: keras.Model) -> Function:
    """Return a Keras model as a function of columns of texts, traced once."""
    count = len(model.inputs)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * count, autograph=False)
    def predict(*columns):
        return model(columns[0] if count == 1 else list(columns), training=False)

    return predict


def saved_model_function(path: str) -> Function:
    """Return what a SavedModel that `train` or `model.export` wrote serves, as a function of columns of texts.

    Raises:
        ValueError: there is none, or it cannot be loaded.
    """
    import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

    try:
        served = tf.saved_model.load(path)
        serve = served.serve
    except Exception as error:
        raise ValueError(
            f"{path} is neither what `train` wrote nor a SavedModel that serves texts: {str(error)[:300]}"
        ) from error

    def predict(*columns, _kept=served):  # the functions live as long as what they were loaded with
        return serve(columns[0] if len(columns) == 1 else list(columns))

    return predict


def probabilities(function: Function, rows: Sequence[tuple[str, ...]], batch_size: int = 64) -> np.ndarray:
    """Return every row's probabilities, float32 `(rows, classes)`, in the order given.

    Args:
        function: from columns of texts to probabilities.
        rows: one or two texts each.
        batch_size: rows at once; those of like length go together.
    """
    order = np.argsort([sum(map(len, row)) for row in rows], kind="stable")
    results = []
    for start in range(0, len(rows), batch_size):
        batch = [rows[i] for i in order[start : start + batch_size]]
        results.append(np.asarray(function(*(tf.constant(column) for column in zip(*batch, strict=True)))))
    found = np.concatenate(results)
    result = np.empty_like(found)
    result[order] = found
    return result
