"""Vectors on their way to a file: a folder `OUT.partial` beside it, from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

_STATE, VECTORS, TEXTS = "state.json", "vectors.npy", "texts.jsonl"


class PartialVectors:
    """Rows that were computed, their texts, and what they were computed with.

    The folder holds `vectors.npy`, whose header is completed at the end, `texts.jsonl` and `state.json`, which says how
    many rows count: what was written after it is cut off.

    Args:
        folder: the folder.
        settings: what decides the vectors, JSON values. Another run may go on only with the same.
        dim: width of the vectors.
        dtype: their dtype.
        keep_texts: whether the texts are kept beside them.

    Attributes:
        rows: how many rows are there.

    Raises:
        ValueError: the folder is from a run with other settings, or another process is writing to it.
    """

    def __init__(self, folder: str, settings: dict[str, Any], dim: int, dtype, keep_texts: bool) -> None:
        self.folder, self.settings, self.keep_texts = folder, settings, keep_texts
        self.dim, self.dtype = dim, np.dtype(dtype)
        self._digest = hashlib.sha256()
        self.rows = self._text_bytes = 0
        os.makedirs(folder, exist_ok=True)
        self._files = contextlib.ExitStack()
        try:
            _lock(self._open("lock", "ab"), folder)
            state = self._read_state()
            mode = "r+b" if state else "w+b"
            self._vectors, self._texts = self._open(VECTORS, mode), self._open(TEXTS, mode)
        except BaseException:
            self._files.close()
            raise
        if state:
            self.rows, self._text_bytes, self._expected = state["rows"], state["text_bytes"], state["digest"]
        self._cut()

    def skip(self, texts: Iterator[Sequence[str]]) -> None:
        """Take the texts that are done from an iterator.

        Raises:
            ValueError: they are not those that the rows were computed from.
        """
        done = self.rows
        for _ in range(done):
            text = next(texts, None)
            if text is None:
                break
            self._add_to_digest(text)
        if done and self._digest.hexdigest() != self._expected:
            raise ValueError(
                f"{self.folder} was begun with another input: its first {done} texts are not those of this run. "
                "--restart begins anew."
            )

    def append(self, texts: Sequence[Sequence[str]], vectors: np.ndarray) -> None:
        """Add a chunk: afterwards it is there, whatever happens to the process."""
        for text in texts:
            self._add_to_digest(text)
            if self.keep_texts:
                self._texts.write(json.dumps(text, ensure_ascii=False).encode() + b"\n")
        self._vectors.write(np.ascontiguousarray(vectors, dtype=self.dtype).data)
        for file in (self._texts, self._vectors):
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(vectors)
        self._text_bytes = self._texts.tell()
        state = {
            "settings": self.settings,
            "rows": self.rows,
            "text_bytes": self._text_bytes,
            "digest": self._digest.hexdigest(),
        }
        with open(self._path("new"), "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(self._path("new"), self._path(_STATE))

    def finish(self) -> str:
        """Complete `vectors.npy`; return its path."""
        self._vectors.seek(0)
        self._vectors.write(self._header())
        self._files.close()
        return self._path(VECTORS)

    def texts(self) -> Iterator[list[str]]:
        """Yield the text of every row, as a list of one, or of two for pairs."""
        with open(self._path(TEXTS), encoding="utf-8", newline="\n") as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        """Close the files; the folder stays."""
        self._files.close()

    def remove(self) -> None:
        """Remove the folder."""
        self._files.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self, name: str, mode: str) -> BinaryIO:
        return self._files.enter_context(open(self._path(name), mode))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read_state(self) -> dict[str, Any] | None:
        """Return how far another run came; `None` where there is nothing to go on from."""
        try:
            with open(self._path(_STATE), encoding="utf-8") as file:
                state = json.load(file)
            complete = len(self._header()) + state["rows"] * self.dim * self.dtype.itemsize
            other = sorted(
                name
                for name in {*self.settings, *state["settings"]}
                if self.settings.get(name) != state["settings"].get(name)
            )
            if other:
                was, now = (
                    {name: settings.get(name) for name in other} for settings in (state["settings"], self.settings)
                )
                raise ValueError(
                    f"{self.folder} was begun with other settings: {was}, now {now}. Give the same to go on, or "
                    "--restart to begin anew."
                )
            sizes = (os.path.getsize(self._path(VECTORS)), os.path.getsize(self._path(TEXTS)))
        except (FileNotFoundError, KeyError, json.JSONDecodeError):
            return None
        return state if sizes[0] >= complete and sizes[1] >= state["text_bytes"] else None

    def _cut(self) -> None:
        """Remove what was written after the last state."""
        header = self._header()
        self._vectors.truncate(len(header) + self.rows * self.dim * self.dtype.itemsize)
        self._vectors.seek(0)
        self._vectors.write(header)
        self._vectors.seek(0, os.SEEK_END)
        self._texts.truncate(self._text_bytes)
        self._texts.seek(0, os.SEEK_END)

    def _header(self) -> bytes:
        return npy_header(self.dtype, (self.rows, self.dim))

    def _add_to_digest(self, text: Sequence[str]) -> None:
        for segment in text:
            data = segment.encode()
            self._digest.update(len(data).to_bytes(8, "little") + data)


def _lock(file, folder: str) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{folder} is being written by another process.") from error


def npy_header(dtype, shape: tuple[int, int]) -> bytes:
    """Return the header of a `.npy` file; NumPy leaves room for the row count: its size does not depend on that."""
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def npy_shape(path: str) -> tuple[tuple[int, int], np.dtype]:
    """Return shape and dtype of a `.npy` file."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def npy_blocks(path: str, rows: int = 4096) -> Iterator[np.ndarray]:
    """Yield the rows of a `.npy` file block by block; a memory map would count as memory once it is read."""
    (_, dim), dtype = npy_shape(path)
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while len(block := np.fromfile(file, dtype, rows * dim)):
            yield block.reshape(-1, dim)
