"""Read TensorFlow's checkpoints. Their index is parsed and checked here, before TensorFlow reads a value.

TensorFlow trusts the index: a negative dimension in it ends the process. The index is a LevelDB table
(tensorflow/core/lib/io/table_format.txt) whose values are the `BundleEntryProto`s of tensor_bundle.proto.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from keras_bert_trend.sources.source import read_bytes

MAX_INDEX = 8 * 2**20  # bytes; BERT-large's index has 40 KiB, three times that with its optimizer's slots
MAX_VALUES = 100_000
MAX_KEY = 4096
MAX_RANK = 8
MAX_STRING = 64 * 2**20

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_FLOATS = ("float32", "float16", "bfloat16", "float64")


class TfCheckpoint:
    """The files of a checkpoint.

    Args:
        prefix: str. The part of their names before `.index` and `.data-…`.

    Raises:
        ValueError: if the index is missing or damaged.
    """

    def __init__(self, prefix: str) -> None:
        from tensorflow.core.protobuf import tensor_bundle_pb2

        self.prefix = prefix
        self._entries = {}
        try:
            table = _read_table(read_bytes(f"{prefix}.index", MAX_INDEX))
            key, content = next(table)
            header = tensor_bundle_pb2.BundleHeaderProto.FromString(content)
            if key or header.endianness or not 0 < header.num_shards < 100_000:
                raise ValueError("it does not begin as one")
            self._num_shards = header.num_shards
            for key, content in table:
                name = key.decode("utf-8", "backslashreplace")
                self._entries[name] = _checked(tensor_bundle_pb2.BundleEntryProto.FromString(content), name)
        except Exception as error:  # of the file, of the table, of protobuf
            raise ValueError(f"{prefix + '.index'!r} cannot be read as the index of a checkpoint: {error}") from error

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key → shape, of everything in it."""
        return {key: _shape(entry) for key, entry in self._entries.items()}

    def check(self, key: str, shape: tuple[int, ...] | None = None, dtype: int | None = None) -> str:
        """Check, without reading it, that a value is there and can be read.

        Args:
            key: str. The value's key.
            shape: tuple of int or `None`. The shape it must have. Defaults to `None`, any.
            dtype: int or `None`. The `DataType` it must have. Defaults to `None`, any floating point type.

        Returns:
            The dtype's name.

        Raises:
            ValueError: if it is not there, is of another shape or type, or lies outside its file.
        """
        from tensorflow.python.framework import dtypes

        entry = self._entries.get(key)
        if entry is None:
            raise ValueError(f"{self.prefix!r} holds no {key!r}.")
        if shape is not None and _shape(entry) != shape:
            raise ValueError(f"{self.prefix!r}: {key!r} has the shape {_shape(entry)} there, {shape} is expected.")
        found = dtypes.as_dtype(entry.dtype)
        if found.name not in _FLOATS if dtype is None else entry.dtype != dtype:
            expected = f"one of {_FLOATS}" if dtype is None else dtypes.as_dtype(dtype).name
            raise ValueError(f"{self.prefix!r}: {key!r} has the dtype {found.name} there, {expected} is expected.")
        if entry.slices:
            raise ValueError(f"{self.prefix!r}: {key!r} is stored in slices, which are not supported.")
        is_string = found == dtypes.string
        if not is_string and entry.size != math.prod(_shape(entry)) * found.size:
            raise ValueError(f"{self.prefix!r}: {key!r}, {_shape(entry)}, cannot have {entry.size} bytes.")
        file = self._file(entry)
        if not os.path.isfile(file) or entry.offset + entry.size > os.path.getsize(file):
            raise ValueError(f"{self.prefix!r}: {key!r} is not in {file!r}, which is missing or truncated.")
        if is_string:
            self._check_string(key, entry)
        return found.name

    def _check_string(self, key: str, entry) -> None:
        """Check that a string is as long as it says: TensorFlow would take the memory first."""
        if entry.shape.dim or entry.size > MAX_STRING:
            raise ValueError(f"{self.prefix!r}: {key!r} must be one string of at most {MAX_STRING} bytes.")
        with open(self._file(entry), "rb") as file:
            file.seek(entry.offset)
            length, start = _varint(file.read(min(10, entry.size)), 0)
        if start + 4 + length != entry.size:  # between them stands the length's checksum
            raise ValueError(f"{self.prefix!r}: {key!r} says that it is {length} bytes long.")

    def _file(self, entry) -> str:
        return f"{self.prefix}.data-{entry.shard_id:05d}-of-{self._num_shards:05d}"

    def read(self, key: str, dtype: int | None = None) -> Any:
        """Return a value as a TensorFlow tensor: unlike an array, a variable takes it over without a copy.

        Args:
            key: str. The value's key.
            dtype: int or `None`. As for `check`.

        Raises:
            ValueError: if `check` refuses it, or if its checksum is wrong.
        """
        import tensorflow as tf

        found = self.check(key, dtype=dtype)
        try:
            (value,) = tf.raw_ops.RestoreV2(
                prefix=self.prefix, tensor_names=[key], shape_and_slices=[""], dtypes=[tf.as_dtype(found)]
            )
        except Exception as error:  # TensorFlow raises several kinds for damaged data
            raise ValueError(f"{self.prefix!r}: the variables cannot be read: {error}") from error
        return value


def _shape(entry) -> tuple[int, ...]:
    return tuple(dimension.size for dimension in entry.shape.dim)


def _checked(entry, name: str):
    """Return a `BundleEntryProto` whose numbers TensorFlow can take."""
    from tensorflow.python.framework import dtypes

    dtypes.as_dtype(entry.dtype)  # a `TypeError` where there is none with this number
    shape = _shape(entry)
    if entry.shape.unknown_rank or len(shape) > MAX_RANK or not all(0 <= size < 2**40 for size in shape):
        raise ValueError(f"{name!r} has the shape {shape[: MAX_RANK + 1]}")
    if min(entry.shard_id, entry.offset, entry.size) < 0 or entry.offset + entry.size >= 2**63:
        raise ValueError(f"{name!r} has the place {entry.shard_id, entry.offset, entry.size}")
    return entry


def _read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table, each key once.

    TensorFlow finds a key by bisection, so all ways through the table must lead to the same entries: keys ascend, and
    restart points, where a search may begin, stand where entries do.
    """
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise ValueError("it does not end as one")
    at = len(content) - _FOOTER
    for _ in range(2):  # the first handle is of the metaindex, which is empty
        offset, at = _varint(content, at)
        size, at = _varint(content, at)
    last, count = None, 0
    for _, handle in _read_block(content, offset, size):
        start, at = _varint(handle, 0)
        for key, value in _read_block(content, start, _varint(handle, at)[0]):
            if last is not None and key <= last:
                raise ValueError("its keys are not in order")
            last, count = key, count + 1
            if count > MAX_VALUES:
                raise ValueError(f"it has more than {MAX_VALUES:,} values")
            yield key, value


def _read_block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one block: each key says how much of the key before it shares."""
    block = content[offset : offset + size]
    if len(block) < size or size < 4 or content[offset + size : offset + size + 1] != b"\0":
        raise ValueError("a block is compressed, or lies outside the file")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    restarts = {int.from_bytes(block[i : i + 4], "little") for i in range(max(end, 0), size - 4, 4)}
    at, key, entries = 0, b"", []
    while at < end:
        start = at
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        stop = at + unshared + length
        if shared > len(key) or shared + unshared > MAX_KEY or stop > end:
            raise ValueError("an entry lies outside its block")
        key = key[:shared] + block[at : at + unshared]
        entries.append((key, block[at + unshared : stop]))
        restarts -= set() if shared else {start}
        at = stop
    if at != max(end, 0) or end < 0 or (entries and restarts):
        raise ValueError("a block is damaged")
    yield from entries


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number in LevelDB's notation, seven bits per byte, and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number has no end")
