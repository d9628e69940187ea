"""The classifier that `train` makes and `predict` runs: BERT, a pooling, a softmax.

Import it late: it imports Keras and TensorFlow.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bert_trend._utils import progress_bar
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.optimizers import fine_tuning_optimizer
from keras_bert_trend.sources import load_source

_DEFAULT_LENGTH = 128
_LONG = [600, 1200]  # bytes

#: From columns of texts, string tensors `(batch,)`, to probabilities `(batch, classes)`.
Function = Callable[..., Any]


def build(arguments: argparse.Namespace, rows: int, classes: int, texts_per_row: int) -> keras.Model:
    """Put a softmax on BERT's sentence embedding, and compile the model for fine-tuning.

    Args:
        arguments: those of `train`.
        rows: int. How many rows are trained on.
        classes: int. How many classes there are.
        texts_per_row: int. 1, or 2 for pairs.
    """
    keras.utils.set_random_seed(arguments.seed)
    bert = BertTrend(
        arguments.model,
        pooling=arguments.pooling,
        sequence_length=None,  # pad to the longest text of the batch
        max_length=arguments.max_length or _default_length(arguments.model),
        truncate=True,
        trainable=not arguments.freeze_bert,
        freeze_embeddings=arguments.freeze_embeddings and arguments.trainable_layers is None,
        trainable_layers=arguments.trainable_layers,
        vocabulary=arguments.vocabulary,
        lower_case=arguments.lower_case,
    )
    inputs = [keras.Input((), dtype="string", name=name) for name in ("text", "pair")[:texts_per_row]]
    x = bert(inputs[0] if texts_per_row == 1 else tuple(inputs))
    x = keras.layers.LayerNormalization()(x)  # poolings differ in scale: a sum of four layers, a log ratio
    x = keras.layers.Dropout(arguments.dropout)(x)
    small = keras.initializers.TruncatedNormal(stddev=0.02)  # as BERT's own classifier starts
    x = keras.layers.Dense(classes, activation="softmax", kernel_initializer=small, dtype="float32", name="classes")(x)
    model = keras.Model(inputs[0] if texts_per_row == 1 else inputs, x)

    steps = arguments.epochs * -(-rows // arguments.batch_size)
    optimizer = fine_tuning_optimizer(arguments.learning_rate, steps)
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=[accuracy])
    optimizer.build(model.trainable_variables)  # a step that has to make them is traced twice
    return model


def _default_length(handle: str) -> int:
    return min(_DEFAULT_LENGTH, load_source(handle).config.max_position_embeddings)


def fit(
    model: keras.Model,
    train: Sequence[tuple[str, ...]],
    validation: Sequence[tuple[str, ...]],
    names: Sequence[str],
    arguments: argparse.Namespace,
) -> list[dict[str, float]]:
    """Train, print a line for each epoch to stderr, and return the loss and accuracy of each."""
    steps = arguments.epochs * -(-len(train) // arguments.batch_size)
    with progress_bar(arguments.progress, steps, "Training") as advance, warnings.catch_warnings():
        # How many batches there are is known once the first epoch is over.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        report = _Report(arguments.epochs, advance)
        model.fit(
            _batches(train, names, arguments.batch_size, shuffle=True),
            validation_data=_batches(validation, names, 64),
            epochs=arguments.epochs,
            shuffle=False,  # the dataset does it
            verbose=0,
            callbacks=[report],
        )
    return report.epochs


def _batches(rows: Sequence[tuple[str, ...]], names: Sequence[str], batch_size: int, shuffle: bool = False):
    """Batch texts in their order, or shuffled anew for each epoch; long texts share batches with long texts.

    Attention's cost grows with the square of the longest text in the batch. Nothing else is padded.
    """
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
    # An epoch ends with its iterator's autotuning thread, which sleeps longer each time, up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class _Report(keras.callbacks.Callback):
    """Advances the bar, and prints a line for each epoch."""

    def __init__(self, count: int, advance: Callable[[int], Any]) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []
        self._count, self._advance = count, advance

    def on_train_batch_end(self, batch, logs=None) -> None:
        self._advance(1)

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.epochs.append({name: float(value) for name, value in (logs or {}).items()})
        values = "  ".join(f"{name} {value:.4f}" for name, value in self.epochs[-1].items())
        print(f"epoch {epoch + 1}/{self._count}  {values}", file=sys.stderr, flush=True)


def keras_function(model: keras.Model) -> Function:
    """Return a Keras model as a function, traced once."""
    count = len(model.inputs)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * count, autograph=False)
    def predict(*columns):
        return model(columns[0] if count == 1 else list(columns), training=False)

    return predict


def saved_model_function(path: str) -> Function:
    """Return the function served by a SavedModel that `train` or `model.export` wrote.

    Raises:
        ValueError: if there is no such SavedModel, or it cannot be loaded.
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
    """Return the probabilities of each row, float32 `(rows, classes)`, in the order of the rows.

    Args:
        function: what `keras_function` or `saved_model_function` returned.
        rows: sequence of tuples. One or two texts each.
        batch_size: int. How many rows, of similar length, are computed at once. Defaults to `64`.
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
