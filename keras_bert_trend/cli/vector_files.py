"""Vectors in the format that a file's suffix names, written block by block."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.format import open_memmap

from keras_bert_trend.cli.partial import PartialVectors

#: Suffix → whether the file holds the texts too.
SUFFIXES = {".npy": False, ".npz": False, ".parquet": True, ".jsonl": True}
_TEXT_NAMES = ("text", "pair")


def write_vectors(suffix: str, partial: PartialVectors, quantize: bool) -> str:
    """Write the vectors of a complete run to a file in the run's folder, and return its path.

    Args:
        suffix: str. One of `SUFFIXES`.
        partial: `PartialVectors`. The run.
        quantize: bool. Whether to turn the float32 vectors into int8, 255 steps between the least and the greatest
            value of each dimension. A `.npz` file keeps these values as `ranges`, float32 `(2, dim)`.
    """
    path = partial.path("output")
    vectors = _Vectors(partial, _ranges(partial) if quantize else None)
    {".npy": _write_npy, ".npz": _write_npz, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[suffix](path, vectors)
    return path


@dataclass
class _Vectors:
    """The rows of a run, as they are written: in float32, or quantised to int8 if `ranges` are given."""

    partial: PartialVectors
    ranges: np.ndarray | None

    @property
    def dtype(self) -> np.dtype:
        return self.partial.dtype if self.ranges is None else np.dtype(np.int8)

    def blocks(self) -> Iterator[np.ndarray]:
        from keras_bert_trend.embedding.vectors import quantized

        for block in self.partial.vectors():
            yield block if self.ranges is None else quantized(block, "int8", self.ranges)

    def blocks_with_texts(self) -> Iterator[tuple[list[list[str]], np.ndarray]]:
        texts = self.partial.texts()
        for block in self.blocks():
            yield list(itertools.islice(texts, len(block))), block


def _ranges(partial: PartialVectors) -> np.ndarray:
    """Return the least and the greatest value of each dimension, `(2, dim)`; zeros without rows."""
    if not partial.rows:
        return np.zeros((2, partial.dim), partial.dtype)
    extremes = [np.stack([block.min(axis=0), block.max(axis=0)]) for block in partial.vectors()]
    least, greatest = np.stack(extremes, axis=1)
    return np.stack([least.min(axis=0), greatest.max(axis=0)])


def _write_npy(path: str, vectors: _Vectors) -> None:
    open_memmap(path, "w+", vectors.dtype, (vectors.partial.rows, vectors.partial.dim))
    start = 0
    for block in vectors.blocks():
        # Mapped anew for each block: what a map has read or written counts as the process's memory.
        open_memmap(path)[start : start + len(block)] = block
        start += len(block)


def _write_npz(path: str, vectors: _Vectors) -> None:
    arrays = {"embeddings": vectors.partial.path("embeddings.npy")}
    _write_npy(arrays["embeddings"], vectors)
    if vectors.ranges is not None:
        arrays["ranges"] = vectors.partial.path("ranges.npy")
        np.save(arrays["ranges"], vectors.ranges)
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in arrays.items():
            # A `ZipInfo` without a time: the same vectors give the same file.
            member = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
            with open(file, "rb") as source, member:
                shutil.copyfileobj(source, member, 2**20)


def _write_jsonl(path: str, vectors: _Vectors) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for texts, block in vectors.blocks_with_texts():
            for text, vector in zip(texts, block, strict=True):
                names = json.dumps(dict(zip(_TEXT_NAMES, text, strict=False)), ensure_ascii=False)
                # `str` of a float32 is the shortest number that reads back the same; `tolist` would double its length.
                file.write(f'{names[:-1]}, "embedding": [{", ".join(map(str, vector))}]}}\n')


def _write_parquet(path: str, vectors: _Vectors) -> None:
    pa, parquet = import_pyarrow()
    names = _TEXT_NAMES[: vectors.partial.settings["texts per row"]]
    embedding = pa.list_(pa.from_numpy_dtype(vectors.dtype), vectors.partial.dim)
    schema = pa.schema([*((name, pa.string()) for name in names), ("embedding", embedding)])
    with parquet.ParquetWriter(path, schema) as writer:
        for texts, block in vectors.blocks_with_texts():
            columns = [pa.array([text[i] for text in texts], pa.string()) for i in range(len(names))]
            embeddings = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
            writer.write_table(pa.Table.from_arrays([*columns, embeddings], schema=schema))


def import_pyarrow():
    """Return `pyarrow` and `pyarrow.parquet`.

    Raises:
        ImportError: if PyArrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('Parquet files need PyArrow: pip install "keras_bert_trend[parquet]".') from error
    return pyarrow, pyarrow.parquet
