"""Texts, in any form, to windows of UTF-8 segments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

_WINDOW_BYTES = 2**24  # a window has fewer texts where they are books


def open_texts(texts) -> tuple[Iterable, int | None]:
    """Return the texts, ready to be iterated over, and their number if it is known."""
    if isinstance(texts, str | bytes):
        raise ValueError(
            f"`texts` must be many texts: pass [{texts!r}], or pathlib.Path({texts!r}) for a file of them."
        )
    if isinstance(texts, os.PathLike):
        return _lines(texts), None
    if isinstance(texts, Mapping | set | frozenset):
        raise ValueError(f"`texts` must be texts in an order, got a {type(texts).__name__}.")
    if getattr(texts, "ndim", 1) != 1:  # a DataFrame would give its column names
        raise ValueError(
            f"`texts` must have one dimension, got shape {tuple(texts.shape)}. Pairs are tuples: list(zip(a, b))."
        )
    if hasattr(texts, "numpy"):
        texts = texts.numpy()
    if not isinstance(texts, Iterable):
        raise ValueError(f"`texts` must be a list, array, iterator or path of texts, got {texts!r}.")
    return texts, len(texts) if hasattr(texts, "__len__") else None


def _lines(path: os.PathLike) -> Iterator[bytes]:
    # Bytes, so that text that is not UTF-8 is reported with its line like any other; only "\n" ends a line.
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def windows(texts: Iterable, size: int) -> Iterator[list[tuple[bytes, ...]]]:
    """Yield lists of at most `size` texts, each one UTF-8 segment, or two for a pair."""
    window, length, segments_each = [], 0, None
    for position, text in enumerate(texts):
        segments = _as_segments(text, position)
        segments_each = segments_each or len(segments)
        if len(segments) != segments_each:
            raise ValueError(f"`texts` must be all texts or all pairs: position {position} is not what the first is.")
        window.append(segments)
        length += sum(map(len, segments))
        if len(window) == size or length >= _WINDOW_BYTES:
            yield window
            window, length = [], 0
    if window:
        yield window


def _as_segments(text, position: int) -> tuple[bytes, ...]:
    segments = text if isinstance(text, tuple) and len(text) == 2 else (text,)
    for segment in segments:
        if not isinstance(segment, str | bytes):
            raise ValueError(
                f"`texts` must hold strings, or pairs as tuples of two: position {position} is "
                f"{_shortened(text)} of type {type(text).__name__}."
            )
    try:
        return tuple(_as_utf8(segment) for segment in segments)
    except UnicodeError as error:
        raise ValueError(f"`texts` must hold valid Unicode: position {position}: {error}.") from error


def _as_utf8(text: str | bytes) -> bytes:
    if isinstance(text, str):
        return text.encode()
    text.decode()  # raises
    return text


def _shortened(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
