"""Edits of a model's files that know nothing of what stands in them, or only where the checksums are."""

from __future__ import annotations

import io
import random
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def edit(folder: Path, seed: int) -> tuple[str, Path]:
    """Change one of a model's files, or an archive of them.

    Args:
        folder: a SavedModel; its files are changed.
        seed: int. The same seed makes the same change.

    Returns:
        The kind of the edit, and what to read: the folder, or an archive beside it.
    """
    choose = random.Random(seed)
    what = choose.choice([*FILES, "index with checksums", "index with checksums", "archive"])
    if what == "archive":
        file = folder.with_suffix(".tar")
        kind, content = damage(_archive_of(folder), choose)
        file.write_bytes(content)
        return f"{kind} in an archive", file
    if what == "index with checksums":
        file = folder / FILES[1]
        file.write_bytes(lie(file.read_bytes(), choose))
        return "another byte in an index that is signed again", folder
    kind, content = damage((folder / what).read_bytes(), choose)
    (folder / what).write_bytes(content)
    return f"{kind} in {what.rpartition('/')[2]}", folder


def damage(content: bytes, choose: random.Random) -> tuple[str, bytes]:
    """Flip a bit, or cut, remove, repeat, zero or replace some bytes."""
    kind = choose.choice(["flip", "cut", "remove", "repeat", "zero", "replace"])
    start = choose.randrange(len(content))
    end = start + choose.choice([1, 2, 8, 100, 5000])
    head, middle, tail = content[:start], content[start:end], content[end:]
    if kind == "flip":
        middle = bytes([middle[0] ^ 1 << choose.randrange(8)]) + middle[1:]
    else:
        changed = {"repeat": middle * 2, "zero": bytes(len(middle)), "replace": choose.randbytes(len(middle))}
        middle = changed.get(kind, b"")
    return kind, head + middle + (b"" if kind == "cut" else tail)


def lie(index: bytes, choose: random.Random) -> bytes:
    """Change a byte of the entries in a checkpoint's index, and make its checksums right again.

    The index is a LevelDB table: blocks, each followed by its compression (none) and a masked CRC-32C, and a footer
    that tells where the block of blocks is.
    """
    content = bytearray(index)
    start, size = next(_blocks(index))
    place = start + choose.randrange(size)
    content[place] = choose.choice([content[place] ^ 1 << choose.randrange(8), choose.randrange(256)])
    for start, size in _blocks(index):
        content[start + size + 1 : start + size + 5] = struct.pack(
            "<I", _masked(_crc32c(content[start : start + size + 1]))
        )
    return bytes(content)


def _archive_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def _blocks(index: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and size of the table's blocks: of those with entries, then of the block that lists them."""
    place = len(index) - 48
    _, place = _varint(index, place)
    _, place = _varint(index, place)
    start, place = _varint(index, place)
    size, _ = _varint(index, place)
    end = start + size - 4 * (1 + struct.unpack("<I", index[start + size - 4 : start + size])[0])
    place = start
    while place < end:
        shared, place = _varint(index, place)
        unshared, place = _varint(index, place)
        length, place = _varint(index, place)
        assert shared == 0
        place += unshared
        block, after = _varint(index, place)
        yield block, _varint(index, after)[0]
        place += length
    yield start, size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
