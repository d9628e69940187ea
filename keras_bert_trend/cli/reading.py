"""Files of texts, read row by row: plain text, TSV, CSV, JSONL, or the standard input."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from keras_bert_trend.cli.options import UsageError

FORMATS = ("text", "tsv", "csv", "jsonl")
_SUFFIXES = {".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

FORMATS_NOTE = """\
Input is UTF-8; its format follows the suffix, or --format: `text` has one text a line (an empty line is a text); `tsv`
is split at tabs, and knows no quotes; `csv` is comma-separated with quotes; `jsonl` has one JSON object a line. Columns
are numbers from 1, or names from a header; fields of JSONL are names.
"""


@dataclass(frozen=True)
class Input:
    """Which columns of which file.

    Attributes:
        path: the file, or `-` for the standard input.
        format: one of `FORMATS`.
        columns: numbers from 1 or names, in the order that rows have them.
        header: whether the first line names the columns; `None`: it does where `columns` are names.
        sole: nobody said which column; a TSV or CSV must have one only then.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    header: bool | None
    sole: bool = False

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the columns of every row, one row at a time.

        Raises:
            ValueError: a line is no UTF-8, no JSON, or has no such column (the message has its number); or there are
            several columns where `sole`.
            OSError: the file cannot be read.
        """
        with self._open() as file:
            lines = _decoded(file, self.path)
            if self.format == "text":
                yield from ((line,) for line in lines)
            elif self.format == "jsonl":
                yield from self._objects(lines)
            else:
                yield from self._table(lines)

    def count(self) -> int | None:
        """Return the number of lines, for a progress bar; `None` where reading them would use them up."""
        if not os.path.isfile(self.path):
            return None
        with open(self.path, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
        return lines - bool(self.header or self._named())

    def _open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        return contextlib.nullcontext(sys.stdin.buffer) if self.path == "-" else open(self.path, "rb")

    def _named(self) -> bool:
        return self.format in ("tsv", "csv") and not all(column.isdigit() for column in self.columns)

    def _objects(self, lines: Iterator[str]) -> Iterator[tuple[str, ...]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: no JSON: {error}.") from error
            row = tuple(value.get(name) if isinstance(value, dict) else None for name in self.columns)
            for name, text in zip(self.columns, row, strict=True):
                if isinstance(text, bool) or not isinstance(text, str | int | float):
                    raise ValueError(f"{self.path}, line {number}: no field {name!r} with a text in it: {line[:60]!r}.")
            row = tuple(map(str, row))
            if any("\ud800" <= character <= "\udfff" for text in row for character in text):
                raise ValueError(f"{self.path}, line {number}: half a surrogate pair, which is no Unicode text.")
            yield row

    def _table(self, lines: Iterator[str]) -> Iterator[tuple[str, ...]]:
        split = self._split_csv if self.format == "csv" else _split_tsv
        indices = None
        for number, row in split(lines):
            if indices is None:
                if self.sole and len(row) > 1:
                    raise ValueError(
                        f"{self.path} has {len(row)} columns; its first line is {row[:8]}. Say with --column which one "
                        "holds the text: its number, from 1, or its name, where the first line names them."
                    )
                indices = [self._index(column, row) for column in self.columns]
                if self.header or self._named():
                    continue
            if len(row) <= max(indices):
                raise ValueError(
                    f"{self.path}, line {number}: {len(row)} columns, where column {max(indices) + 1} is asked for."
                )
            yield tuple(row[index] for index in indices)

    def _split_csv(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(2**24)  # texts may be books
        reader = csv.reader((f"{line}\n" for line in lines), strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise ValueError(f"{self.path}, line {reader.line_num}: no CSV: {error}.") from error

    def _index(self, column: str, first_row: list[str]) -> int:
        if column.isdigit() and int(column) > 0:
            return int(column) - 1
        if column not in first_row:
            raise ValueError(f"{self.path} has no column {column!r}; its first line is {first_row[:8]}.")
        return first_row.index(column)


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a file is read."""
    parser.add_argument("--format", choices=FORMATS, help="how the input is read (default: by its suffix)")
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a TSV or CSV names the columns (default: where columns are given by name)",
    )


def add_labelled_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a file of labelled texts is read, for `open_labelled`."""
    add_format_options(parser)
    parser.add_argument("--label-column", "--label-field", metavar="NAME", help="(default: 1; of JSONL: label)")
    parser.add_argument("--text-column", "--text-field", metavar="NAME", help="(default: 2; of JSONL: text)")
    parser.add_argument("--pair-column", "--pair-field", metavar="NAME", help="the second text of pairs")


def open_texts(
    path: str,
    file_format: str | None,
    column: str | None,
    pair_column: str | None,
    header: bool | None,
) -> Input:
    """Return where texts come from; pairs have two columns.

    Args:
        path: a file, or `-`.
        file_format: one of `FORMATS`, or `None`: by the suffix, and TSV where a column is asked for.
        column: a number from 1, a name, or `None`: the only column, the field "text".
        pair_column: the second text of pairs.
        header: see `Input`.

    Raises:
        UsageError: the options do not fit the format.
    """
    file_format = file_format or format_of(path, "tsv" if column or pair_column else "text")
    if file_format == "text" and (column or pair_column):
        raise UsageError("A file with one text a line has no columns: give --format.")
    columns = (column or ("text" if file_format == "jsonl" else "1"), *((pair_column,) if pair_column else ()))
    return Input(path, file_format, columns, header, sole=not (column or pair_column))


def open_labelled(arguments: argparse.Namespace) -> Input:
    """Return where labelled texts come from: a label, a text, and the second text of pairs.

    Raises:
        UsageError: the file has one text a line.
    """
    file_format = arguments.format or format_of(arguments.file, "tsv")
    if file_format == "text":
        raise UsageError("Labelled texts come as tsv, csv or jsonl.")
    names = ("label", "text") if file_format == "jsonl" else ("1", "2")
    columns = (arguments.label_column or names[0], arguments.text_column or names[1])
    pair = (arguments.pair_column,) if arguments.pair_column else ()
    return Input(arguments.file, file_format, (*columns, *pair), arguments.header)


def read_labelled(source: Input) -> list[tuple[str, ...]]:
    """Read rows of a label and one or two texts; a header is told by its label, which no other row has.

    Args:
        source: its first column is the label.

    Raises:
        ValueError: there are no rows, or a label is empty.
    """
    rows = list(source.rows())
    unknown = source.header is None and source.format in ("tsv", "csv") and all(map(str.isdigit, source.columns))
    if unknown and len(rows) > 1 and all(row[0] != rows[0][0] for row in rows[1:]):
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{source.path} has no rows.")
    for number, row in enumerate(rows, start=1):
        if not row[0].strip():
            raise ValueError(f"{source.path}, row {number}: the label is empty.")
    return rows


def format_of(path: str, default: str) -> str:
    """Return the format that a file's suffix stands for."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), default)


def _split_tsv(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    yield from enumerate((line.split("\t") for line in lines), start=1)


def _decoded(file: Iterable[bytes], path: str) -> Iterator[str]:
    """Yield lines without their ends; only a line feed ends one, for texts may hold other separators."""
    for number, line in enumerate(file, start=1):
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: no UTF-8: {error}.") from error


def in_chunks(rows: Iterable, size: int) -> Iterator[list]:
    """Yield lists of at most `size` rows."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk
