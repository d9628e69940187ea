"""Unpack a tar archive that is not trusted: files and folders only, all below one folder, within limits."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import Any, BinaryIO

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")

GIB = 2**30
CHUNK = 2**20
MAX_FILES = 10_000
MAX_UNPACKED = 20 * GIB  # BERT-large is 1.3 GiB
# Weights hardly compress, text does by 3; only zeros reach gzip's 1000. A small archive may still hold 1 GiB of them.
MAX_RATIO, ALWAYS_ALLOWED = 100, GIB
MAX_HEADER, MAX_HEADERS = 64 * 2**10, 32 * 2**20  # bytes of one header, and of all


class Budget:
    """How many files and bytes may still be written.

    Args:
        size: int. The number of bytes.
    """

    def __init__(self, size: int) -> None:
        self.size, self._left, self._files = size, size, MAX_FILES

    def spend(self, size: int) -> None:
        """Subtract one file of `size` bytes. Raise `ValueError` if that is too much."""
        self._left -= size
        self._files -= 1
        if self._left < 0:
            raise ValueError(f"it unpacks to more than the {self.size / GIB:.1f} GiB that its size is allowed")
        if self._files < 0:
            raise ValueError(f"it holds more than {MAX_FILES:,} files")


class _Headers:
    """The stream as `tarfile` sees it: it reads headers only, of limited size.

    Args:
        stream: binary file. The tar stream, without compression.
    """

    def __init__(self, stream: Any) -> None:
        self.seek, self.tell, self._stream, self._left = stream.seek, stream.tell, stream, MAX_HEADERS

    def read(self, size: int = -1) -> bytes:
        self._left -= size
        if not 0 <= size <= MAX_HEADER or self._left < 0:
            raise ValueError("it has a header of an impossible size")
        return self._stream.read(size)


def unpack(file: BinaryIO, folder: str) -> None:
    """Unpack a tar archive, gzipped or not.

    Args:
        file: binary file. The archive.
        folder: str. An empty folder to unpack it into.

    Raises:
        ValueError: if the file is not an archive, is damaged or truncated, holds anything but files and folders with
            names below `folder`, or holds too much. "It" in the message is the archive.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if compressed else file
    budget = Budget(min(MAX_UNPACKED, max(ALWAYS_ALLOWED, MAX_RATIO * size)))
    complaint, files = "it is no .tar.gz or .tar archive", 0
    try:
        with tarfile.open(fileobj=_Headers(stream), mode="r:") as archive:
            complaint = "it is a truncated or damaged archive"
            while (member := archive.next()) is not None:
                files += _write_member(member, stream, folder, budget)
                archive.members.clear()  # what headers say may take memory
            _check_end(stream, archive.offset, budget)
    except EOFError as error:
        raise ValueError(f"it is a truncated archive ({error})") from error
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, RecursionError) as error:
        raise ValueError(f"{complaint} ({error})") from error
    if not files:
        raise ValueError("it is an archive without any file")


def _write_member(member: tarfile.TarInfo, stream: Any, folder: str, budget: Budget) -> bool:
    """Write one member, without its owner, mode and time; return whether it is a file.

    It is stricter than `tarfile.data_filter`, which allows links and rewrites names that lead outside.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or os.path.splitdrive(member.name)[0]:
        raise ValueError(f"it is refused: its member {member.name!r} would be written outside the model's folder")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ValueError(
            f"it is refused: its member {member.name!r} is no plain file and no folder, but a link, a device or sparse"
        )
    budget.spend(member.size)
    target = os.path.join(folder, *path.parts)
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        return False
    os.makedirs(os.path.dirname(target), exist_ok=True)
    stream.seek(member.offset_data)
    left = member.size
    with open(target, "xb") as file:
        while left:
            chunk = stream.read(min(left, CHUNK))
            if not chunk:
                raise tarfile.ReadError("unexpected end of data")
            file.write(chunk)
            left -= len(chunk)
    return True


def _check_end(stream: Any, offset: int, budget: Budget) -> None:
    """Check that the archive ends with its mark, and read the rest, so that gzip compares its checksum.

    `tarfile` mistakes a damaged or missing header for the end.
    """
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without the end-of-archive mark")
    while chunk := stream.read(CHUNK):
        budget.spend(len(chunk))
