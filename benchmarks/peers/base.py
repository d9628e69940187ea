"""What the adapters share: the inputs on disk, batches of texts of similar length, comparable results.

An adapter's methods are the tasks. Each takes the task's options and returns a function that runs the task once:

    embed      strings to embeddings                states   token ids to hidden states and attention scores
    tokenize   strings to token ids, padded         train    `fit` of all weights, on token ids or (`length`) on texts
    encode     random token ids to embeddings       load     a SavedModel is read
    matmul     a plain float32 matrix product       export   models are written that others read
"""

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
    """One library."""

    packages: Sequence[str] = ()

    def __init__(self, work: Path, threads: int) -> None:
        settings = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        self.work, self.threads = work, threads
        self.texts: list[str] = settings["texts"]
        self.training_texts: list[str] = settings["training_texts"]
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

    def hugging_face_tokenizer(self, length: int = MAX_LENGTH):
        """Return MiniLM's tokenizer of the library `tokenizers`, trimming but not padding."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(f"{self.minilm}/tokenizer.json")
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        return tokenizer

    def over_tokens(self, encode) -> Run:
        """Tokenise all texts in one call, on all cores; call `encode(ids, mask)` on batches sorted by length."""
        tokenizer = self.hugging_face_tokenizer()

        def run():
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(self.texts)]
            batches = self.batches([len(one) for one in ids])
            return in_order((places, encode(*pad([ids[i] for i in places]))) for places in batches)

        return run

    def arrays(self, name: str) -> list[np.ndarray]:
        """Return the arrays that `ours.export` wrote.

        Args:
            name: str. `"states"`: batches of token ids, padded with 0. `"train"`: ids `(examples, T)` without padding,
                and float32 labels `(examples, 1)`.
        """
        with np.load(self.work / f"{name}.npz") as arrays:
            return [arrays[key] for key in arrays.files]


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
    """Return states `(L, B, T, H)` and scores `(L, B, N, T, T)` with zeros for padding.

    A model's output for padding has no meaning, and rounding may move it more than anything else.
    """
    real = ids != 0
    return {"states": states * real[None, :, :, None], "scores": scores * real[None, :, None, :, None]}


def random_ids(batch: int, length: int) -> np.ndarray:
    """Return random token ids `(batch, length)` between [CLS] and [SEP], the same in every process."""
    ids = np.random.default_rng(0).integers(1000, 29000, (batch, length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids
