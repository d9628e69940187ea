"""Vectors in the format that a file's suffix names, written block by block."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from keras_bert_trend.cli.partial import PartialVectors, npy_blocks, npy_header, npy_shape

#: suffix → whether the file holds the texts too
SUFFIXES = {".npy": False, ".npz": False, ".parquet": True, ".jsonl": True}
_TEXT_NAMES = ("text", "pair")
_ROW_GROUP = 4096


def quantize_file(vectors_file: str) -> tuple[str, np.ndarray]:
    """Write float32 vectors as int8, each dimension cut into steps between the least and greatest value of all.

    Returns:
        The new file's path, and the least and greatest values `(2, dim)`, float32.
    """
    from keras_bert_trend.embedding.vectors import quantized

    shape, dtype = npy_shape(vectors_file)
    least, greatest = np.full(shape[1], np.inf, dtype), np.full(shape[1], -np.inf, dtype)
    for block in npy_blocks(vectors_file):
        least, greatest = np.minimum(least, block.min(axis=0)), np.maximum(greatest, block.max(axis=0))
    ranges = np.stack([least, greatest]) if shape[0] else np.zeros((2, shape[1]), dtype)
    path = f"{vectors_file}.int8"
    with open(path, "wb") as file:
        file.write(npy_header(np.int8, shape))
        for block in npy_blocks(vectors_file):
            file.write(quantized(block, "int8", ranges).tobytes())
    return path, ranges


def write_vectors(suffix: str, partial: PartialVectors, vectors_file: str, extra: Mapping[str, np.ndarray]) -> str:
    """Write complete vectors as a file of this format, inside the partial run's folder.

    Args:
        suffix: one of `SUFFIXES`.
        partial: the run, finished.
        vectors_file: the `.npy` file with the vectors.
        extra: further arrays, which only `.npz` has room for.

    Returns:
        The path of what was written, to be renamed.
    """
    path = os.path.join(partial.folder, "output")
    write: Callable = {".npy": _write_npy, ".npz": _write_npz, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[
        suffix
    ]
    write(path, partial, vectors_file, extra)
    return path


def _write_npy(path, partial, vectors_file, extra) -> None:
    os.replace(vectors_file, path)


def _write_npz(path, partial, vectors_file, extra) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        # Without a time of its own, so that the same vectors are the same file.
        with open(vectors_file, "rb") as source, _member(archive, "embeddings") as target:
            shutil.copyfileobj(source, target, 2**20)
        for name, array in extra.items():
            with _member(archive, name) as target:
                np.lib.format.write_array(target, array)


def _member(archive: zipfile.ZipFile, name: str):
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _write_jsonl(path, partial, vectors_file, extra) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for texts, block in _blocks(partial, vectors_file):
            for text, vector in zip(texts, block, strict=True):
                names = json.dumps(dict(zip(_TEXT_NAMES, text, strict=False)), ensure_ascii=False)
                # `str` of a float32 is the shortest number that reads back the same; `tolist` would double its length.
                file.write(f'{names[:-1]}, "embedding": [{", ".join(map(str, vector))}]}}\n')


def _write_parquet(path, partial, vectors_file, extra) -> None:
    pa, parquet = import_pyarrow()
    names = _TEXT_NAMES[: partial.settings["texts per row"]]
    (_, dim), dtype = npy_shape(vectors_file)
    kind = pa.list_(pa.from_numpy_dtype(dtype), dim)
    schema = pa.schema([*((name, pa.string()) for name in names), ("embedding", kind)])
    with parquet.ParquetWriter(path, schema) as writer:
        for texts, block in _blocks(partial, vectors_file):
            columns = [pa.array([text[i] for text in texts], pa.string()) for i in range(len(names))]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
            writer.write_table(pa.Table.from_arrays([*columns, vectors], schema=schema))


def _blocks(partial: PartialVectors, vectors_file: str) -> Iterator[tuple[list[list[str]], np.ndarray]]:
    texts = partial.texts()
    for block in npy_blocks(vectors_file, _ROW_GROUP):
        yield list(itertools.islice(texts, len(block))), block


def import_pyarrow():
    """Return PyArrow and its module for Parquet.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('Parquet files need PyArrow: pip install "keras_bert_trend[parquet]".') from error
    return pyarrow, pyarrow.parquet
