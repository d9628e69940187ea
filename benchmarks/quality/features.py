"""What every text gives in one run of the encoder, and the embeddings that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from keras import ops

from benchmarks.harness import say
from benchmarks.quality import encoders
from benchmarks.quality.data import DataSet
from keras_bert_trend import MeanStdPooling, TrajectoryPooling, embed
from keras_bert_trend.evaluation.projection import levels_with_steps
from keras_bert_trend.pooling import LevelPooling

ADAPT_TEXTS = 1000  # of the training part, at most


class _StdOfLastFour(MeanStdPooling):
    """Mean and standard deviation over the tokens of the sum of the last four blocks."""

    def compute(self, outputs, input_mask, input_word_ids=None):
        return super().compute({"sequence_output": sum(outputs["encoder_outputs"][-4:])}, input_mask)


def read(data: DataSet, encoder: str, work: Path) -> dict[str, np.ndarray]:
    """Return arrays for `data.texts`: token means of all layers `(n, L + 1, hidden)`, and embeddings by name."""
    path = work / f"{encoder}-{data.name}.npz"
    if not path.is_file():
        say(f"{encoder}: {len(data.texts)} texts of {data.name}")
        layer = encoders.load(encoder, work, pooling="mean", trainable=False)
        poolings = [LevelPooling(name="levels"), _StdOfLastFour(name="last_four_std")]
        arrays = embed(data.texts, layer, pooling=[*poolings, "smooth_trend", "trend"], output="dict")
        arrays["levels"] = arrays["levels"].reshape(len(data.texts), layer.encoder.config.num_layers + 1, -1)
        np.savez(path, **arrays)
    with np.load(path) as file:
        return dict(file)


def projected(blocks: np.ndarray, fit: np.ndarray, dim: int) -> np.ndarray:
    """Project blocks `(n, B, hidden)` as `TrajectoryPooling` projects steps, adapted to the rows `fit`."""
    levels = levels_with_steps(blocks.astype(np.float64))
    pooling = TrajectoryPooling(dim)
    pooling.adapt([levels[fit]])
    return ops.convert_to_numpy(pooling.project(ops.convert_to_tensor(levels.astype(np.float32))))


def contenders(name: str, arrays: dict[str, np.ndarray], other: np.ndarray) -> dict[str, tuple[int, Callable]]:
    """Return name → width and a function from the texts to adapt to, as rows, to all embeddings.

    Args:
        name: str. The data set's.
        arrays: dict. What `read` returned.
        other: float array `(n, L + 1, hidden)`. Token means of texts of another kind.
    """
    levels = arrays["levels"]
    hidden, last = levels.shape[-1], levels[:, -4:]
    steps = np.diff(levels, axis=1)

    def fixed(vectors):
        return vectors.shape[-1], lambda fit: vectors

    def from_others(fit):
        rows = np.random.default_rng(0).permutation(len(other))[:ADAPT_TEXTS]
        both = np.concatenate([np.diff(other[rows], axis=1), steps])
        return projected(both, np.arange(len(rows)), hidden)[len(rows) :]

    def first(count, dim=hidden):
        return dim, lambda fit: projected(steps, fit[:count], dim)

    found = {
        "last_four_sum": fixed(last.sum(axis=1)),
        "mean": fixed(levels[:, -1]),
        "smooth_trend": fixed(arrays["smooth_trend"]),
        "trend": fixed(arrays["trend"]),
        "trajectory": first(ADAPT_TEXTS),
        "trajectory, double": first(ADAPT_TEXTS, 2 * hidden),
        "last_four_sum ⊕ std": fixed(arrays["last_four_std"]),
        "PCA of last_four_concat": (2 * hidden, lambda fit: projected(last, fit[:ADAPT_TEXTS], 2 * hidden)),
        "PCA of all layers": (2 * hidden, lambda fit: projected(levels, fit[:ADAPT_TEXTS], 2 * hidden)),
    }
    if name != "qa":  # where the features of a pair are twice as wide
        found["last_four_concat"] = fixed(last.reshape(len(last), -1))
    if name == "trec":  # how few texts do, and whether texts of another kind do
        found |= {f"trajectory, {count} texts": first(count) for count in (100, 500, 2500)}
        found["trajectory, 1000 of SMS"] = (hidden, from_others)
    return found
