"""What the training examples share: read a table, put a head on BERT, compile, predict, save and serve."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_bert_trend import POOLING_NAMES, BertTrend
from keras_bert_trend.optimizers import fine_tuning_optimizer

HERE = Path(__file__).resolve().parent
SHARED_DATA = HERE.parent.parent / "shared" / "data"


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and adds the options' defaults."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def add_training_arguments(parser: argparse.ArgumentParser, **defaults) -> None:
    """Add the options that every training has.

    Args:
        parser: the parser to add them to.
        **defaults: the defaults of `pooling`, `max_length`, `epochs`, `batch_size`, `learning_rate` and `output`.
    """
    parser.add_argument("--handle", default="minilm", help="the BERT to start from")
    parser.add_argument("--pooling", choices=POOLING_NAMES, help="how hidden states become one vector a text")
    parser.add_argument("--max-length", type=int, help="trim texts and pairs to this many tokens")
    parser.add_argument("--epochs", type=int, help="passes through the training part")
    parser.add_argument("--batch-size", type=int, help="texts per step")
    parser.add_argument("--learning-rate", type=float, help="the peak, after warm-up")
    parser.add_argument(
        "--freeze-embeddings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the embedding tables, which trends start from and few texts would train",
    )
    parser.add_argument("--lora-rank", type=int, help="train low-rank updates of this rank instead of BERT itself")
    parser.add_argument("--output", type=Path, help="folder for the trained model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the head, dropout and shuffling")
    parser.set_defaults(**defaults)


def read_table(path: Path, labels: tuple[str, ...], columns: int) -> list[list[str]]:
    """Read a tab-separated UTF-8 file whose first column is a label.

    Args:
        path: Path. The file. A first line that does not begin with a label is a header.
        labels: tuple of str. The labels.
        columns: int. The number of columns; the last may have tabs inside.

    Returns:
        The rows, each a list of `columns` strings.

    Exits with a message if a row does not fit, naming its line, or if all rows have the same label.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        row = line.rstrip("\r").split("\t", columns - 1)
        if len(row) == columns and row[0] in labels:
            rows.append(row)
        elif line.strip() and number > 1:
            sys.exit(
                f"{path}, line {number}: expected {columns} columns between tabs, the first of them "
                f"{' or '.join(map(repr, labels))}, got {line[:60]!r}."
            )
    if len({row[0] for row in rows}) < 2:
        sys.exit(f"{path}: there must be at least two of the labels {', '.join(map(repr, labels))} to learn from.")
    return rows


def shared_or_sample(name: str, sample: str) -> Path:
    """Return the data set `../shared/data/<name>`, or, if it is missing, the small sample beside the examples."""
    if (SHARED_DATA / name).is_file():
        return SHARED_DATA / name
    print(f"{SHARED_DATA / name} is not here: using the small sample instead. The scores say little then.")
    return HERE / "data" / sample


def make_bert(arguments: argparse.Namespace) -> BertTrend:
    """Make a layer whose BERT trains, or the low-rank updates of its kernels."""
    bert = BertTrend(
        arguments.handle,
        pooling=arguments.pooling,
        sequence_length=None,  # pad to the longest text of the batch
        max_length=arguments.max_length,
        truncate=True,
        trainable=True,
        freeze_embeddings=arguments.freeze_embeddings,
    )
    if arguments.lora_rank is not None:
        bert.enable_lora(arguments.lora_rank)
    return bert


def add_head(embedding, units: int, activation: str | None, name: str):
    """Put a dense layer on sentence embeddings `(batch, dim)` and return its outputs `(batch, units)`."""
    x = keras.layers.LayerNormalization()(embedding)  # poolings differ in scale: a sum of four layers, a log ratio
    x = keras.layers.Dropout(0.1)(x)
    small = keras.initializers.TruncatedNormal(stddev=0.02)  # as BERT's own classifier starts
    return keras.layers.Dense(units, activation=activation, kernel_initializer=small, name=name)(x)


def compile_model(model: keras.Model, peak: float, steps: int, loss, metrics: list[keras.metrics.Metric]) -> None:
    """Compile a model for fine-tuning.

    Args:
        model: `keras.Model`. The model.
        peak: float. The highest learning rate.
        steps: int. The steps of the whole training.
        loss: the loss, as `keras.Model.compile` takes it.
        metrics: list of `keras.metrics.Metric`. Instances: a step that has to make their variables is traced twice.
    """
    optimizer = fine_tuning_optimizer(peak, steps)
    model.compile(optimizer, loss=loss, metrics=metrics)
    optimizer.build(model.trainable_variables)  # for the same reason


def batches(texts: np.ndarray, labels: np.ndarray, batch_size: int, shuffle: bool = False) -> tf.data.Dataset:
    """Batch texts in their order, or shuffled anew for each epoch; the layer computes little of the padding."""
    dataset = tf.data.Dataset.from_tensor_slices((texts.astype(str), labels))
    if shuffle:
        dataset = dataset.shuffle(len(texts), reshuffle_each_iteration=True)
    dataset = dataset.batch(batch_size).prefetch(2)
    # An epoch ends with its iterator's autotuning thread, which sleeps longer each time, up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def predict(model: keras.Model, *texts: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return the model's outputs `(n, units)` for one or more string inputs `(n,)`, in their order."""
    order = np.argsort([sum(map(len, row)) for row in zip(*texts, strict=True)])
    inputs = tuple(column[order].astype(str) for column in texts)
    dataset = tf.data.Dataset.from_tensor_slices((inputs if len(inputs) > 1 else inputs[0],)).batch(batch_size)
    predicted = model.predict(dataset)
    outputs = np.empty_like(predicted)
    outputs[order] = predicted
    return outputs


def save_and_export(model: keras.Model, folder: Path, name: str) -> None:
    """Write `<name>.keras` and `saved_model`, each under a temporary name first: neither is ever half written."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "writing.keras")
    os.replace(folder / "writing.keras", folder / f"{name}.keras")
    shutil.rmtree(folder / "writing_saved_model", ignore_errors=True)
    model.export(folder / "writing_saved_model", verbose=False)
    shutil.rmtree(folder / "saved_model", ignore_errors=True)
    os.replace(folder / "writing_saved_model", folder / "saved_model")
    print(f"\nwrote {folder / f'{name}.keras'} and {folder / 'saved_model'}")


def serve_in_fresh_process(folder: Path, *arguments: str) -> None:
    """Run `serve_saved_model.py` on what `save_and_export` wrote."""
    print("\nThe exported model, loaded in a fresh process that has only TensorFlow:", flush=True)
    serve = [sys.executable, str(HERE / "serve_saved_model.py"), str(folder / "saved_model"), *arguments]
    subprocess.run(serve, check=True)
