"""How far each supported source is from what the original computed.

Each folder of fixtures holds a SavedModel (or a checkpoint) and what its exporter's own model gave for it
(`expected.npz`). All outputs are compared: pooled, sequence, every layer, embedding, attention. `edge` is a batch with
holes in its mask and a row without any token. That row is reported apart: where the mask constant is −10000, float32
keeps only steps of 2⁻¹⁰ of its scores. `gradient` is the largest relative difference of a weight's gradient.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks import report
from benchmarks.harness import ROOT
from keras_bert_trend import BertEncoder, UnsupportedArchitectureError
from keras_bert_trend.encoder import INPUT_NAMES

SOURCES = {
    "bert_v4_like": "TF Hub BERT v4, 2024 (Model Garden 2.20)",
    "bert_exact_gelu": "the same with exact gelu",
    "bert_v3_2020": "TF Hub BERT v3, 2020 (Model Garden 2.4)",
    "bert_v2_2020": "TF Hub BERT v2, 2020 (Model Garden 2.2)",
    "bert_v1_2019": "TF Hub BERT v1, 2019 (Model Garden 0.0.3)",
    "electra_small_like": "ELECTRA (Model Garden 2.20)",
    "albert": "ALBERT (Model Garden 2.20)",
    "google_tf1_checkpoint": "google-research/bert checkpoint (TF 1.15)",
    "talking_heads": "talking-heads attention (Model Garden 2.20)",
    "mobilebert": "MobileBERT (Model Garden 2.20)",
}
OUTPUTS = ("pooled_output", "sequence_output", "encoder_outputs", "embedding_output", "attention_scores")


def main(argv: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="run.py parity", description=__doc__)
    parser.add_argument("--fixtures", type=Path, default=ROOT.parent / "shared" / "fixtures", metavar="DIR")
    fixtures = parser.parse_args(argv).fixtures
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}"
    print(f"{versions}; {report.machine()}\n")
    print("| source | status | plain | edge | row without tokens | gradient |\n|---|---|---|---|---|---|")
    for name, title in SOURCES.items():
        print(f"| {title} | {' | '.join(measure(fixtures / name))} |", flush=True)
    return 0


def measure(folder: Path) -> list[str]:
    """Return one source's cells."""
    (model,) = (path for path in folder.iterdir() if path.is_dir())
    try:
        encoder = BertEncoder.from_handle(model)
    except UnsupportedArchitectureError:
        return ["refused", "", "", "", ""]
    with np.load(folder / "expected.npz") as arrays:
        recorded = dict(arrays)
    plain, _ = differences(encoder, recorded, "")
    edge, without = differences(encoder, recorded, "edge_")
    gradient = gradient_difference(encoder, model, recorded) if model.name == "saved_model" else None
    return ["read", *(f"{value:.1e}" if value is not None else "–" for value in (plain, edge, without, gradient))]


def differences(encoder, recorded, prefix) -> tuple[float, float | None]:
    """Return the largest difference of all outputs: in rows with tokens, and in rows without."""
    outputs = encoder({name: recorded[prefix + name] for name in INPUT_NAMES}, return_attention_scores=True)
    real = recorded[prefix + "input_mask"].any(axis=1)
    largest = {True: 0.0, False: 0.0}
    for name in OUTPUTS:
        expected = recorded.get(f"{prefix}tf1_{name}", recorded[prefix + name])
        if name == "encoder_outputs":  # MobileBERT's begin with the embedding output
            expected = expected[-encoder.config.num_layers :]
        difference = np.abs(np.array(tf.stack(outputs[name])) - expected)
        difference = np.moveaxis(difference, 1, 0) if name in ("encoder_outputs", "attention_scores") else difference
        for row, is_real in zip(difference, real, strict=True):
            largest[bool(is_real)] = max(largest[bool(is_real)], float(row.max()))
    return largest[True], None if real.all() else largest[False]


def gradient_difference(encoder, model, recorded) -> float:
    """Return the largest relative difference of the gradients of a loss on `pooled_output`, over all weights."""
    original = tf.saved_model.load(model)  # this repository's own recordings: here the original has to run
    inputs = [tf.constant(recorded[name]) for name in INPUT_NAMES]

    def dense(gradients):  # without those of variables that the loss does not depend on
        return [np.array(tf.convert_to_tensor(gradient)) for gradient in gradients if gradient is not None]

    target = np.random.default_rng(0).normal(size=recorded["pooled_output"].shape).astype("float32")
    with tf.GradientTape() as tape:
        try:
            pooled = original(dict(zip(INPUT_NAMES, inputs, strict=True)), training=False)["pooled_output"]
        except ValueError:  # v1 and v2 take a list and return one
            pooled = original(inputs, training=False)[0]
        loss = tf.reduce_sum(tf.square(pooled - target))
    theirs = dense(tape.gradient(loss, original.trainable_variables))
    with tf.GradientTape() as tape:
        pooled = encoder(dict(zip(INPUT_NAMES, inputs, strict=True)), training=False)["pooled_output"]
        loss = tf.reduce_sum(tf.square(pooled - target))
    ours = BertEncoder(encoder.config)  # takes the gradients apart: query, key and value are one variable here
    for variable, gradient in zip(
        ours.trainable_variables, tape.gradient(loss, encoder.trainable_variables), strict=True
    ):
        variable.assign(tf.convert_to_tensor(gradient))
    # Each of the original's gradients belongs to the nearest of ours. The key's bias has none: a constant added to all
    # scores changes no softmax.
    parts = list(ours.named_weights().values())
    largest = max(np.linalg.norm(g) for g in parts)
    worst = 0.0
    for gradient in theirs:
        if np.linalg.norm(gradient) > 1e-5 * largest:
            same = [part for part in parts if part.size == gradient.size]
            distance = min(np.linalg.norm(part.ravel() - gradient.ravel()) for part in same)
            worst = max(worst, distance / np.linalg.norm(gradient))
    return float(worst)
