"""What the adapters share: the inputs on disk, batches of like lengths, versions, results on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

Run = Callable[[], object]
CLS, SEP = 101, 102  # of MiniLM's vocabulary, which is BERT's


class BaseAdapter:
    """One library. A task is a method that takes the task's options and returns what runs it once."""

    packages: Sequence[str] = ()

    def __init__(self, work: Path, threads: int) -> None:
        self.work, self.threads = work, threads
        self.settings = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        self.texts: list[str] = self.settings["texts"]
        self.batch_size: int = self.settings["batch_size"]
        self.max_length: int = self.settings["max_length"]
        self.minilm: str = self.settings["minilm"]

    def versions(self) -> dict[str, str]:
        """Return the versions of what matters here."""
        return {name: metadata.version(name) for name in self.packages}

    def write(self, path: str, result) -> None:
        """Write a run's result, or what it returns when called: arrays by name, for the check."""
        result = result() if callable(result) else result
        arrays = result if isinstance(result, dict) else {"result": result}
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})

    def text_batches(self) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield (positions, texts) by length in characters: what one can sort by before tokenising."""
        order = np.argsort([len(text) for text in self.texts], kind="stable")
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            yield places, [self.texts[i] for i in places]

    def token_batches(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (positions, ids, mask) by length in tokens, padded to each batch's longest."""
        order = np.argsort([len(one) for one in ids], kind="stable")
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            yield places, *pad([ids[i] for i in places])

    def id_batches(self) -> list[np.ndarray]:
        """Return the batches of token ids that `states` takes; 0 is padding."""
        with np.load(self.work / "ids.npz") as arrays:
            return [arrays[name] for name in arrays.files]

    def training_data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids `(examples, length)` without padding, and labels `(examples, 1)`, float32."""
        with np.load(self.work / "train.npz") as arrays:
            return arrays["ids"], arrays["labels"]

    def training_messages(self) -> tuple[list[str], np.ndarray]:
        """Return as many texts, in the order of the file, as `training_data` has examples; and the labels."""
        _, labels = self.training_data()
        return [self.texts[i % len(self.texts)] for i in range(len(labels))], labels


def pad(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask, int64, padded with 0 to the longest."""
    longest = max(map(len, ids))
    padded = np.zeros((len(ids), longest), np.int64)
    mask = np.zeros_like(padded)
    for row, one in enumerate(ids):
        padded[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return padded, mask


def of_real_tokens(states: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return states `(layers, batch, seq, hidden)` and scores `(layers, batch, heads, query, key)`, 0 for padding.

    What a model says of padding has no meaning, and rounding may move it more than anything else.
    """
    real = ids != 0
    return {"states": states * real[None, :, :, None], "scores": scores * real[None, :, None, :, None]}


def made_up_ids(batch: int, length: int) -> np.ndarray:
    """Return random token ids `(batch, length)` between [CLS] and [SEP], the same in every process."""
    ids = np.random.default_rng(0).integers(1000, 29000, (batch, length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids


def layer_order(layers: int, available: int) -> list[int]:
    """Return which of the model's blocks make up one of `layers`: cut off, or begun anew where it has too few."""
    return [i % available for i in range(layers)]


class Rows:
    """Collect batches of vectors in the texts' own order."""

    def __init__(self, count: int) -> None:
        self.count, self.vectors = count, None

    def put(self, places: np.ndarray, vectors: np.ndarray) -> None:
        """Set the rows of one batch."""
        if self.vectors is None:
            self.vectors = np.empty((self.count, vectors.shape[1]), np.float32)
        self.vectors[places] = vectors
