"""What reading a model gives: its architecture, its named weights, and what the preprocessing needs to know."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

from keras_bert_trend.encoder.config import BertConfig

Normalization = Literal["tf_text", "bert"]


class UnsupportedArchitectureError(ValueError):
    """The model was read, but this package does not reproduce its architecture's numbers."""


class LazyWeights(Mapping[str, Any]):
    """Weights by name, each read from disk when it is asked for, so that a model is never in memory twice.

    Args:
        shapes: mapping. Name → shape, known without reading a weight.
        read: function. Returns a weight by name: an array, or what NumPy takes over without a copy (on TensorFlow, a
            tensor).
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Any]) -> None:
        self.shapes = dict(shapes)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        if name not in self.shapes:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes  # `Mapping` would read the weight to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSource:
    """How a model turns texts into ids.

    Args:
        vocabulary: tuple of str, bytes or `None`. The WordPiece tokens in the order of their ids, or a serialised
            SentencePiece model; `None` if the model has neither.
        lower_case: bool or `None`. Whether texts are lower-cased first; `None` if the model does not say.
        strip_accents: bool or `None`. Whether accents are stripped first; `None` if the model does not say.
        normalization: str or `None`. `normalization` of `BertPreprocessor`; `None` if the model does not say.
        sequence_length: int or `None`. The number of tokens that the model pads to, if it says.
        origin: str. Where it was read from, for messages.
    """

    vocabulary: tuple[str, ...] | bytes | None
    lower_case: bool | None = None
    strip_accents: bool | None = None
    normalization: Normalization | None = None
    sequence_length: int | None = None
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(TextSource):
    """A BERT model as read from a handle; no Keras object, nothing executed.

    Args:
        config: `BertConfig`. The architecture.
        weights: `LazyWeights`. google-research/bert's name without the leading `bert/` → float32 array; kernels are
            `(in, out)`.
        pooling: str, list of str or `None`. The pooling that the model was trained with, if its files say so.
        **text: The fields of `TextSource`.
    """

    config: BertConfig
    weights: LazyWeights
    pooling: str | list[str] | None = None


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error while a model is read into a `ValueError` that names the model.

    A downloaded file may be damaged in any way, even on purpose: no bare exception from its reader reaches the user.

    Args:
        path: str. The model, as the user knows it.
    """
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except ValueError as error:
        if path in str(error):
            raise
        kind = UnsupportedArchitectureError if isinstance(error, UnsupportedArchitectureError) else ValueError
        raise kind(f"{path!r}: {error}") from error
    except Exception as error:
        raise ValueError(f"{path!r} is damaged, or not a model: {type(error).__name__}: {error}") from error


def read_bytes(path: str, limit: int = 64 * 2**20) -> bytes:
    """Read a whole file.

    Args:
        path: str. The file.
        limit: int. The most bytes it may have; a downloaded file is not trusted to be small. Defaults to 64 MiB.

    Raises:
        ValueError: if it cannot be read, or is larger.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read: {error}.") from error
    if len(content) > limit:
        raise ValueError(f"{path!r} is larger than {limit:,} bytes, which no BERT's is.")
    return content


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of a whole file, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def read_vocabulary_file(path: str) -> tuple[str, ...]:
    """Read a `vocab.txt`: one WordPiece token per line; the line number is the id.

    Args:
        path: str. The file. A byte order mark at its beginning is not part of the first token.

    Raises:
        ValueError: if the file cannot be read, or is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The vocabulary {path!r} is not UTF-8: {error}.") from error
    # Not `splitlines`: multilingual vocabularies hold U+2028 and U+0085 as tokens.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)
