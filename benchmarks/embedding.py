"""What `embed` saves, from strings to embeddings: against batches in the texts' own order, padded as people pad them.

    python benchmarks/embedding.py                # the SMS Spam Collection's messages, else the examples' sample

All ways run the same encoder as one traced function. Absolute times mean nothing on a shared machine; the ratios are
medians over rounds in which every way took its turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from peers.common import default_data, ratio_of_rounds, read_texts, write_json

from keras_bert_trend import BertTrend, __version__, embed

OWN = "`embed`"


def main() -> None:
    """Run all ways in turn and print the table."""
    arguments = parse_arguments()
    texts = read_texts(arguments.data, arguments.texts)
    ways = make_ways(arguments.handle, arguments.pooling, arguments.batch_size)
    results = {name: way(texts) for name, way in ways.items()}  # the first round traces
    distance = max(np.abs(result - results[OWN]).max() for result in results.values())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(texts)
            seconds[name].append(time.perf_counter() - start)

    versions = f"tensorflow {tf.__version__}, keras {keras.__version__}"
    print(f"keras_bert_trend {__version__}, {versions}, {platform.machine()}, {os.cpu_count()} cores")
    print(
        f"{len(texts)} messages of {arguments.data.name}, {arguments.handle}, {arguments.pooling}, batches of "
        f"{arguments.batch_size}, {arguments.rounds} rounds; largest difference {distance:.1e}\n"
    )
    print("| way | time, as a multiple of embed's (median) | 10 % … 90 % | texts/s (median) |\n|---|---|---|---|")
    for name, times in seconds.items():
        ratio = ratio_of_rounds(times, seconds[OWN])
        speed = len(texts) / statistics.median(times)
        print(f"| {name} | {ratio.median:.2f} | {ratio.low:.2f} … {ratio.high:.2f} | {speed:.0f} |")
    if arguments.json:
        write_json(arguments.json, seconds)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--handle", default="minilm")
    parser.add_argument("--pooling", default="last_four_sum")
    parser.add_argument("--texts", type=int, default=1024, help="how many messages; repeated where there are fewer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the raw numbers here")
    return parser.parse_args()


def make_ways(handle: str, pooling: str, batch_size: int) -> dict[str, Callable[[list[str]], np.ndarray]]:
    """Return name → a function from texts to embeddings."""
    longest = BertTrend(handle, pooling=pooling, sequence_length=None, max_length=128, truncate=True, trainable=False)
    fixed = BertTrend(handle, pooling=pooling, sequence_length=128, trainable=False)
    own = {"batch_size": batch_size, "max_length": 128, "show_progress": False}
    return {
        OWN: lambda texts: embed(texts, longest, **own),
        "layer, in order, padded to the batch's longest": in_order(longest, batch_size),
        "layer, in order, padded to 128": in_order(fixed, batch_size),
    }


def in_order(layer: BertTrend, batch_size: int) -> Callable[[list[str]], np.ndarray]:
    """Return the plain loop over batches, with the layer traced once."""
    traced = tf.function(lambda text: layer(text), input_signature=[tf.TensorSpec((None,), tf.string)])

    def run(texts: list[str]) -> np.ndarray:
        batches = (tf.constant(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size))
        return np.concatenate([traced(batch).numpy() for batch in batches])

    return run


if __name__ == "__main__":
    main()
