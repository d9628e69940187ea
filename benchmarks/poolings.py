"""What each pooling costs, from strings to embeddings, as a ratio to the mean's time in the same interleaved run.

    python benchmarks/poolings.py                 # the SMS Spam Collection's messages, else the examples' sample

Absolute times mean nothing on a shared machine; the ratios are medians over rounds in which every pooling took its
turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from peers.common import default_data, ratio_of_rounds, read_texts, write_json

from keras_bert_trend import POOLING_NAMES, BertTrend, __version__


def main() -> None:
    """Run all poolings in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handle", default="minilm")
    parser.add_argument("--batches", type=int, default=8, help="batches of 32 messages a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the raw numbers here")
    arguments = parser.parse_args()

    path = default_data()
    chosen = sorted(read_texts(path, 32 * arguments.batches), key=len)
    batches = [tf.constant(chosen[i : i + 32]) for i in range(0, len(chosen), 32)]

    encoders = {}
    for name in POOLING_NAMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = BertTrend(arguments.handle, pooling=name, sequence_length=None, truncate=True, trainable=False)
        signature = [tf.TensorSpec((None,), tf.string)]
        encoders[name] = tf.function(lambda text, layer=layer: layer(text), input_signature=signature)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(arguments.rounds + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            for batch in batches:
                encode(batch).numpy()
            if number:  # the first round traces
                seconds[name].append(time.perf_counter() - start)

    print(
        f"keras_bert_trend {__version__}, tensorflow {tf.__version__}, keras {keras.__version__}, {platform.machine()}"
    )
    print(
        f"{os.cpu_count()} cores, {len(chosen)} messages of {path.name} in batches of 32, {arguments.rounds} rounds\n"
    )
    print("| pooling | time, as a multiple of mean's (median) | 10 % … 90 % |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = ratio_of_rounds(times, seconds["mean"])
        print(f"| {name} | {ratio.median:.2f} | {ratio.low:.2f} … {ratio.high:.2f} |")
    if arguments.json:
        write_json(arguments.json, seconds)


if __name__ == "__main__":
    main()
