"""What the training examples share: reading a table, a head on BERT, its optimizer, predicting, saving and serving."""

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

from keras_bert_trend import POOLING_NAMES, BertTrend, WarmupLinearDecay

HERE = Path(__file__).resolve().parent
SHARED_DATA = HERE.parent.parent / "shared" / "data"


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it was written, and the options' defaults."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def add_training_arguments(parser: argparse.ArgumentParser, **defaults) -> None:
    """Add the options that every training has.

    Args:
        parser: gets `--handle`, `--pooling`, `--max-length`, `--epochs`, `--batch-size`, `--learning-rate`,
            `--freeze-embeddings`, `--output` and `--seed`.
        **defaults: those of `pooling`, `max_length`, `epochs`, `batch_size`, `learning_rate` and `output`.
    """
    parser.add_argument("--handle", default="minilm", help="the BERT to start from")
    parser.add_argument("--pooling", choices=POOLING_NAMES, help="hidden states to one vector a text")
    parser.add_argument("--max-length", type=int, help="tokens a text, or a pair of them, is trimmed to")
    parser.add_argument("--epochs", type=int, help="times through the training part")
    parser.add_argument("--batch-size", type=int, help="texts a step")
    parser.add_argument("--learning-rate", type=float, help="the peak, after warm-up")
    parser.add_argument(
        "--freeze-embeddings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the static embedding, which a trend is measured from and rare words are few examples of",
    )
    parser.add_argument("--output", type=Path, help="folder for the trained model")
    parser.add_argument("--seed", type=int, default=0, help="of the head, dropout and shuffling")
    parser.set_defaults(**defaults)


def read_table(path: Path, labels: tuple[str, ...], columns: int) -> list[list[str]]:
    """Read a tab-separated UTF-8 file whose first column is a label.

    Args:
        path: the file. Its first line is passed over where it does not begin with a label: it is a header then.
        labels: what the first column may hold.
        columns: how many there are.

    Returns:
        The rows, each a list of `columns` strings. The last may have tabs inside.

    Exits with a message that names file and line where a row is none of these, and where the rows have one label only.
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
    """Return the data set `../shared/data/<name>`, or the small sample beside the examples where it is missing."""
    if (SHARED_DATA / name).is_file():
        return SHARED_DATA / name
    print(f"{SHARED_DATA / name} is not here: using the small sample instead. The scores say little then.")
    return HERE / "data" / sample


def make_bert(arguments: argparse.Namespace) -> BertTrend:
    """Make a layer whose BERT trains, from `add_training_arguments`' options."""
    return BertTrend(
        arguments.handle,
        pooling=arguments.pooling,
        sequence_length=None,  # pad to the longest of the batch
        max_length=arguments.max_length,
        truncate=True,
        trainable=True,
        freeze_embeddings=arguments.freeze_embeddings,
    )


def add_head(embedding, units: int, activation: str | None, name: str):
    """Put a dense layer on sentence embeddings `(batch, dim)`; returns `(batch, units)`."""
    x = keras.layers.LayerNormalization()(embedding)  # poolings differ in scale: a sum of four layers, a log ratio
    x = keras.layers.Dropout(0.1)(x)
    small = keras.initializers.TruncatedNormal(stddev=0.02)  # as BERT's own classifier starts
    return keras.layers.Dense(units, activation=activation, kernel_initializer=small, name=name)(x)


def compile_model(model: keras.Model, peak: float, steps: int, loss, metrics: list[keras.metrics.Metric]) -> None:
    """Compile with AdamW as BERT is fine-tuned with: warm-up over a tenth of the steps, then linear decay.

    Args:
        model: the model.
        peak: the highest learning rate.
        steps: those of the whole training.
        loss: as `keras.Model.compile` takes it.
        metrics: instances, whose variables are there already.
    """
    optimizer = keras.optimizers.AdamW(
        WarmupLinearDecay(peak, total_steps=steps, warmup_steps=steps // 10), weight_decay=0.01, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, loss=loss, metrics=metrics)
    # A step that finds variables missing is traced a second time when it has made them.
    model.optimizer.build(model.trainable_variables)


def batches(texts: np.ndarray, labels: np.ndarray, batch_size: int, shuffle: bool = False) -> tf.data.Dataset:
    """Batch texts as they come, or shuffled anew for every epoch: of short texts the layer computes little padding."""
    dataset = tf.data.Dataset.from_tensor_slices((texts.astype(str), labels))
    if shuffle:
        dataset = dataset.shuffle(len(texts), reshuffle_each_iteration=True)
    dataset = dataset.batch(batch_size).prefetch(2)
    # An iterator's autotuning thread ends only when it next wakes, after 10 ms, 20 ms … a minute, and an epoch with it.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def predict(model: keras.Model, *texts: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return the model's outputs `(n, units)` for its one or more string inputs `(n,)`, in the order given."""
    order = np.argsort([sum(map(len, row)) for row in zip(*texts, strict=True)])
    inputs = tuple(column[order].astype(str) for column in texts)
    dataset = tf.data.Dataset.from_tensor_slices((inputs if len(inputs) > 1 else inputs[0],)).batch(batch_size)
    predicted = model.predict(dataset)
    outputs = np.empty_like(predicted)
    outputs[order] = predicted
    return outputs


def save_and_export(model: keras.Model, folder: Path, name: str) -> None:
    """Write `<name>.keras` and the SavedModel, each under a temporary name first: never half there."""
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
    print("\nThe exported model, loaded in a fresh process that knows TensorFlow only:", flush=True)
    serve = [sys.executable, str(HERE / "serve_saved_model.py"), str(folder / "saved_model"), *arguments]
    subprocess.run(serve, check=True)
