"""What the adapters share: the inputs on disk, batches of texts of similar length, comparable results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

Run = Callable[[], object]
MAX_LENGTH = 128
CLS, SEP = 101, 102  # of MiniLM's vocabulary, which is BERT's


class BaseAdapter:
    """One library. Each method is a task: it takes the task's options and returns a function that runs it once."""

    packages: Sequence[str] = ()

    def __init__(self, work: Path, threads: int) -> None:
        settings = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        self.work, self.threads = work, threads
        self.texts: list[str] = settings["texts"]
        self.batch_size: int = settings["batch_size"]
        self.minilm: str = settings["minilm"]

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that take part."""
        return {name: metadata.version(name) for name in self.packages}

    def batches(self, lengths: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield positions of texts, batch by batch, sorted by length."""
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def token_batches(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (positions, ids, mask) sorted by length in tokens, padded to each batch's longest."""
        for places in self.batches([len(one) for one in ids]):
            yield places, *pad([ids[i] for i in places])

    def state_ids(self) -> list[np.ndarray]:
        """Return the batches of token ids of the task `states`; 0 is padding."""
        with np.load(self.work / "ids.npz") as arrays:
            return [arrays[name] for name in arrays.files]

    def training_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids `(examples, length)` without padding, and labels `(examples, 1)`, float32."""
        with np.load(self.work / "train.npz") as arrays:
            return arrays["ids"], arrays["labels"]

    def training_messages(self) -> tuple[list[str], np.ndarray]:
        """Return as many texts, in the file's order, as `training_ids` has examples; and the labels."""
        _, labels = self.training_ids()
        return [self.texts[i % len(self.texts)] for i in range(len(labels))], labels


def in_order(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the vectors of (positions, vectors) in the texts' own order."""
    places, vectors = zip(*batches, strict=True)
    return np.concatenate(vectors)[np.argsort(np.concatenate(places))]


def pad(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask, int64, padded with 0 to the longest."""
    longest = max(map(len, ids))
    padded = np.array([[*one, *[0] * (longest - len(one))] for one in ids], np.int64)
    return padded, (padded != 0).astype(np.int64)


def mean_of_tokens(hidden, mask):
    """Return the mean `(B, H)` over the real tokens of `(B, T, H)`: of NumPy arrays, or of PyTorch's tensors."""
    return (mask[:, None] @ hidden)[:, 0] / mask.sum(1)[:, None]


def of_real_tokens(states: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return states `(L, B, T, H)` and scores `(L, B, N, query, key)` with zeros for padding.

    A model's output for padding has no meaning, and rounding may move it more than anything else.
    """
    real = ids != 0
    return {"states": states * real[None, :, :, None], "scores": scores * real[None, :, None, :, None]}


def random_ids(batch: int, length: int) -> np.ndarray:
    """Return random token ids `(batch, length)` between [CLS] and [SEP], the same in every process."""
    ids = np.random.default_rng(0).integers(1000, 29000, (batch, length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids
