"""Vectors on their way to a file: a folder `OUT.partial` from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from keras_bert_trend._utils import lock_folder, put_in_place
from keras_bert_trend.cli.options import UsageError

_STATE, _VECTORS, _TEXTS = "state.json", "vectors", "texts.jsonl"
_BLOCK = 4096  # rows


class PartialVectors:
    """The rows computed so far, their texts, and the settings they were computed with.

    `vectors` holds the numbers row by row, `texts.jsonl` a line for each row. `state.json` says how many rows count:
    what was written after it is cut off.

    Args:
        folder: str. The folder, made if it does not exist.
        settings: dict. JSON values that decide the vectors. A run goes on only with the settings it was begun with.
        dim: int. The width of the vectors.
        dtype: the dtype of the vectors.
        keep_texts: bool. Whether to keep the texts too.
        restart: bool. Whether to forget the rows of an earlier run.

    Attributes:
        rows: int. How many rows there are.

    Raises:
        UsageError: if the folder is damaged.
        ValueError: if it belongs to a run with other settings, or if another process writes to it.
    """

    def __init__(self, folder: str, settings: dict[str, Any], dim: int, dtype, keep_texts: bool, restart: bool) -> None:
        self.folder, self.settings, self.keep_texts = folder, settings, keep_texts
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.rows = self._text_bytes = 0
        self._digest, self._digest_before = hashlib.sha256(), None
        os.makedirs(folder, exist_ok=True)
        self._files = contextlib.ExitStack()
        try:
            lock = lock_folder(folder)
            if lock is None:
                raise ValueError(f"{folder} is being written by another process. Wait for it, or stop it.")
            self._files.callback(lock.release)
            if restart:
                self._forget()
            self._read_state()
            self._vectors, self._texts = self._open(_VECTORS), self._open(_TEXTS)
            self._vectors.truncate(self._vector_bytes())
            self._texts.truncate(self._text_bytes)
        except BaseException:
            self._files.close()
            raise

    def skip(self, texts: Iterator[Sequence[str]]) -> None:
        """Take the texts of the rows that are there from an iterator.

        Raises:
            ValueError: if they are not the texts that the rows were computed from.
        """
        for text in itertools.islice(texts, self.rows):
            self._add_to_digest(text)
        if self.rows and self._digest.hexdigest() != self._digest_before:
            raise ValueError(
                f"{self.folder} was begun with another input: its first {self.rows} texts are not those of this run. "
                "Give the same input to go on, or --restart to begin anew."
            )

    def append(self, texts: Sequence[Sequence[str]], vectors: np.ndarray) -> None:
        """Add a chunk. Once this returns, the chunk stays, whatever happens to the process."""
        for text in texts:
            self._add_to_digest(text)
            if self.keep_texts:
                self._text_bytes += self._texts.write(json.dumps(text, ensure_ascii=False).encode() + b"\n")
        self._vectors.write(np.ascontiguousarray(vectors, dtype=self.dtype).data)
        for file in (self._texts, self._vectors):
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(vectors)
        state = {
            "settings": self.settings,
            "rows": self.rows,
            "text_bytes": self._text_bytes,
            "digest": self._digest.hexdigest(),
        }
        with open(self.path("new"), "w", encoding="utf-8") as file:
            json.dump(state, file)
        put_in_place(self.path("new"), self.path(_STATE))

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the rows in blocks `(at most 4096, dim)`."""
        with open(self.path(_VECTORS), "rb") as file:
            while len(block := np.fromfile(file, self.dtype, _BLOCK * self.dim)):
                yield block.reshape(-1, self.dim)

    def texts(self) -> Iterator[list[str]]:
        """Yield each row's text, as a list of one, or of two for a pair."""
        with open(self.path(_TEXTS), encoding="utf-8", newline="\n") as file:
            yield from map(json.loads, file)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def close(self) -> None:
        self._files.close()

    def remove(self) -> None:
        self._forget()  # first: without it, the rest is nothing to go on from
        self._files.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(_STATE))

    def _open(self, name: str) -> BinaryIO:
        return self._files.enter_context(open(self.path(name), "ab"))

    def _vector_bytes(self) -> int:
        return self.rows * self.dim * self.dtype.itemsize

    def _read_state(self) -> None:
        """Find out how far an earlier run came; without a state there is nothing to go on from."""
        if not os.path.exists(self.path(_STATE)):
            return
        try:
            with open(self.path(_STATE), encoding="utf-8") as file:
                state = json.load(file)
            before = dict(state["settings"])
            self.rows, self._text_bytes, self._digest_before = (
                int(state["rows"]), int(state["text_bytes"]), str(state["digest"]),
            )  # fmt: skip
            sizes = os.path.getsize(self.path(_VECTORS)), os.path.getsize(self.path(_TEXTS))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{_STATE}: {error!r}") from error
        changes = [
            f"{name} was {before.get(name)!r}, now {self.settings.get(name)!r}"
            for name in sorted({*before, *self.settings})
            if before.get(name) != self.settings.get(name)
        ]
        if changes:
            raise ValueError(
                f"{self.folder} was begun with other settings: {'; '.join(changes)}. Give the same settings to go on, "
                "or --restart to begin anew."
            )
        if sizes[0] < self._vector_bytes() or sizes[1] < self._text_bytes:
            raise self._damaged(f"it has fewer rows than {_STATE} says")

    def _damaged(self, what: str) -> UsageError:
        return UsageError(f"{self.folder} is damaged ({what}). Give --restart to begin anew.")

    def _add_to_digest(self, text: Sequence[str]) -> None:
        for segment in text:
            data = segment.encode()
            self._digest.update(len(data).to_bytes(8, "little") + data)
