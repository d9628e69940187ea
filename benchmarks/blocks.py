"""Time blocks of each kind on token ids, beside their own SavedModel through `tf.saved_model.load`, in turns."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks import report
from keras_bert_trend import BertConfig, BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES

SIZES = {"vocab_size": 30522, "hidden_size": 256, "num_layers": 4, "num_heads": 4, "intermediate_size": 1024}
CONFIGS = {
    "post_norm": BertConfig(**SIZES),
    "pre_norm": BertConfig(**SIZES, block="pre_norm"),
    "talking_heads": BertConfig(**SIZES, block="talking_heads"),
    "mobile": BertConfig(  # the published widths
        **{**SIZES, "hidden_size": 512, "intermediate_size": 512},
        block="mobile",
        embedding_size=128,
        bottleneck_size=128,
        num_feed_forwards=4,
        normalization="no_norm",
        hidden_act="relu",
    ),
}


def main(argv: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="run.py blocks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=48)
    options = parser.parse_args(argv)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}; {report.machine()}")
    print(f"batches of {options.batch} texts of {options.length} tokens, random weights\n")
    print("| block | encoder / SavedModel, time | 10 % – 90 % | largest difference |\n|---|---|---|---|")
    for name, config in CONFIGS.items():
        ratios, difference = compare(config, options)
        low, *_, high = statistics.quantiles(ratios, n=10)
        print(f"| {name} | {statistics.median(ratios):.2f} | {low:.2f} – {high:.2f} | {difference:.1e} |", flush=True)
    return 0


def compare(config: BertConfig, options) -> tuple[list[float], float]:
    """Return the ratios of the times, round by round, and how far the results are apart."""
    encoder = BertEncoder(config)
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (options.batch, options.length)).astype("int32")
    inputs = dict(zip(INPUT_NAMES, map(tf.constant, (ids, ids * 0 + 1, ids * 0)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        encoder.export_text_encoder(f"{folder}/model")
        loaded = tf.saved_model.load(f"{folder}/model")
    specs = {name: tf.TensorSpec((None, None), tf.int32, name=name) for name in INPUT_NAMES}
    ours = tf.function(lambda x: encoder(x, training=False)["pooled_output"], input_signature=[specs], autograph=False)
    theirs = tf.function(lambda x: loaded(x, training=False)["pooled_output"], input_signature=[specs], autograph=False)
    difference = float(np.abs(ours(inputs).numpy() - theirs(inputs).numpy()).max())
    ratios = []
    for number in range(options.rounds + 2):
        seconds = {}
        for run in (ours, theirs) if number % 2 else (theirs, ours):
            start = time.perf_counter()
            run(inputs).numpy()
            seconds[run] = time.perf_counter() - start
        if number >= 2:  # warm by then
            ratios.append(seconds[ours] / seconds[theirs])
    return ratios, difference
