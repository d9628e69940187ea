"""What every source gives: an architecture, named weights, and what the preprocessing needs to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from keras_bert_trend.encoder.config import BertConfig


class UnsupportedArchitectureError(ValueError):
    """The model was read, but is not an architecture whose numbers this package reproduces."""


class LazyWeights(Mapping[str, np.ndarray]):
    """Weights by name, each read from disk when asked for, so that a model is never in memory twice.

    Args:
        readers: name → function that reads the array.
    """

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


@dataclasses.dataclass(frozen=True)
class Source:
    """A BERT model as read from a handle; no Keras object, nothing executed.

    Args:
        config: the architecture.
        weights: google-research/bert names without the leading `bert/` → float32 arrays, kernels `(in, out)`.
        vocabulary: the WordPiece tokens in the order of their ids, or `None` where the model brings none.
        lower_case: whether the text is lower-cased before WordPiece, or `None` where the model does not say.
        origin: where it was read from, for messages.
    """

    config: BertConfig
    weights: Mapping[str, np.ndarray]
    vocabulary: tuple[str, ...] | None
    lower_case: bool | None
    origin: str


def read_vocabulary_file(path: str) -> tuple[str, ...]:
    """Read a `vocab.txt`: one WordPiece token per line, the line number is the id.

    Raises:
        ValueError: the file is not UTF-8.
    """
    with open(path, "rb") as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"The vocabulary {path!r} is not UTF-8: {error}.") from error
    # Not `splitlines`: multilingual vocabularies hold U+2028 and U+0085 as tokens.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)
