"""Texts from a file, read row by row: plain text, TSV, CSV, JSONL, or standard input."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from keras_bert_trend.cli.options import UsageError

FORMATS = ("text", "tsv", "csv", "jsonl")
_SUFFIXES = {".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

FORMATS_NOTE = """\
Input is UTF-8. --format says how it is read; by default the suffix does. `text` has one text a line, and an empty line
is a text; `tsv` is split at tabs, without quoting; `csv` is comma-separated, with quotes; `jsonl` has one JSON object a
line. Name a column by its number, from 1, or by its name in the header; name a JSONL field by its name.
"""
HEADER_NOTE = """\
The file is TSV, CSV or JSONL. Name a column by its number, from 1, or by its name in the header. If columns are given
by number, a first line whose label occurs on no other line is taken for a header; --header and --no-header decide it.
"""


def add_text_options(group) -> None:
    """Add the options that say where a file has its texts, for `open_texts`."""
    _add_format_options(group)
    group.add_argument(
        "--column", "--field", metavar="NAME", help="the text (default: the only column; the JSONL field `text`)"
    )
    _add_pair_option(group)


def add_labelled_options(group) -> None:
    """Add the options that say where a file has its labels and texts, for `open_labelled`."""
    _add_format_options(group)
    group.add_argument("--label-column", "--label-field", metavar="NAME", help="(default: 1; of JSONL: label)")
    group.add_argument("--text-column", "--text-field", metavar="NAME", help="(default: 2; of JSONL: text)")
    _add_pair_option(group)


def _add_format_options(group) -> None:
    group.add_argument("--format", choices=FORMATS, help="how the input is read (default: by its suffix)")
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a TSV or CSV names the columns (default: if columns are given by name)",
    )


def _add_pair_option(group) -> None:
    group.add_argument("--pair-column", "--pair-field", metavar="NAME", help="the second text of pairs")


@dataclass(frozen=True)
class TextFile:
    """A file, and the columns of it to read.

    Attributes:
        path: str. The file, or `-` for standard input.
        format: str. One of `FORMATS`.
        columns: tuple of str. Numbers from 1, or names, in the order that rows have them.
        header: bool or `None`. Whether the first line names the columns; `None`: if one of `columns` is a name.
        only_column: bool. Whether to raise if a TSV or CSV has several columns, because none was asked for.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    header: bool | None
    only_column: bool = False

    @property
    def has_header(self) -> bool:
        """Whether the first line is known to name the columns."""
        in_table = self.format in ("tsv", "csv")
        return bool(self.header) or (in_table and any(_position(column) is None for column in self.columns))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the columns of every row, one row at a time.

        Raises:
            UsageError: if a line cannot be read, with its number; or if there is no such column.
            OSError: if the file cannot be opened.
        """
        with self._open() as file:
            lines = self._decoded(file)
            if self.format == "text":
                yield from ((line,) for line in lines)
            elif self.format == "jsonl":
                yield from self._objects(lines)
            else:
                yield from self._table(self._split_csv(lines) if self.format == "csv" else _split_tsv(lines))

    def count(self) -> int | None:
        """Return about how many rows there are, for a progress bar; `None` if the file can be read only once."""
        if not os.path.isfile(self.path):
            return None
        with open(self.path, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
        return lines - self.has_header

    def _open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        return contextlib.nullcontext(sys.stdin.buffer) if self.path == "-" else open(self.path, "rb")

    def _decoded(self, file: Iterable[bytes]) -> Iterator[str]:
        """Yield lines without their ends. Only a line feed ends a line: texts may hold other separators."""
        for number, line in enumerate(file, start=1):
            if number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise UsageError(f"{self.path} begins with the byte order mark of UTF-16. Save it as UTF-8.")
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise UsageError(f"{self.path}, line {number} is not UTF-8: {error}. Save it as UTF-8.") from error

    def _objects(self, lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{self.path}, line {number}"
            try:
                value = json.loads(line)
            except RecursionError:
                raise UsageError(f"{where} is nested too deeply. Write one flat JSON object a line.") from None
            except ValueError as error:
                raise UsageError(f"{where} is not JSON: {error}. Write one JSON object a line.") from error
            fields = value if isinstance(value, dict) else {}
            yield tuple(_field(fields, name, where) for name in self.columns)

    def _table(self, numbered_rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[str, ...]]:
        positions = None
        for number, row in numbered_rows:
            if positions is None:
                if self.only_column and len(row) > 1:
                    raise UsageError(
                        f"{self.path} has {len(row)} columns; its first line is {row[:8]}. Say with --column which one "
                        "holds the text: its number, from 1, or its name, if the first line names the columns."
                    )
                positions = [self._find(column, row) for column in self.columns]
                if self.has_header:
                    continue
            if len(row) <= max(positions):
                raise UsageError(
                    f"{self.path}, line {number} has {len(row)} columns, but column {max(positions) + 1} is asked for. "
                    "Complete the line, or remove it."
                )
            yield tuple(row[position] for position in positions)

    def _split_csv(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(2**24)  # texts may be books
        reader = csv.reader((f"{line}\n" for line in lines), strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise UsageError(f"{self.path}, line {reader.line_num} is not CSV: {error}. Check its quotes.") from error

    def _find(self, column: str, first_row: list[str]) -> int:
        position = _position(column)
        if position is not None:
            return position
        if column not in first_row:
            raise UsageError(
                f"{self.path} has no column {column!r}; its first line is {first_row[:8]}. Give a number, from 1, or "
                "one of these names."
            )
        return first_row.index(column)


def open_texts(path: str, arguments: argparse.Namespace, pairs: bool = False) -> TextFile:
    """Return the file that texts are read from.

    Args:
        path: str. The file, or `-`.
        arguments: with the options of `add_text_options`.
        pairs: bool. Whether rows are pairs even without `--pair-column`. Defaults to `False`.

    Raises:
        UsageError: if columns of a file with one text a line are asked for.
    """
    pairs = pairs or arguments.pair_column is not None
    in_columns = pairs or arguments.column is not None
    file_format = arguments.format or _format_of(path, "tsv" if in_columns else "text")
    if file_format == "text" and in_columns:
        raise UsageError("A file with one text a line has no columns. Give another --format.")
    names = ("text", "pair") if file_format == "jsonl" else ("1", "2")
    columns = (arguments.column or names[0], arguments.pair_column or names[1])[: 2 if pairs else 1]
    return TextFile(path, file_format, columns, arguments.header, only_column=not in_columns)


def open_labelled(arguments: argparse.Namespace) -> TextFile:
    """Return the file that labels and texts are read from; a row is a label, a text, and the second text of a pair.

    Args:
        arguments: with `file` and the options of `add_labelled_options`.

    Raises:
        UsageError: if the file has one text a line.
    """
    file_format = arguments.format or _format_of(arguments.file, "tsv")
    if file_format == "text":
        raise UsageError("A file with one text a line has no labels. Give a TSV, CSV or JSONL file.")
    names = ("label", "text") if file_format == "jsonl" else ("1", "2")
    columns = (arguments.label_column or names[0], arguments.text_column or names[1])
    pair = (arguments.pair_column,) if arguments.pair_column else ()
    return TextFile(arguments.file, file_format, (*columns, *pair), arguments.header)


def read_labelled(source: TextFile) -> list[tuple[str, ...]]:
    """Read all rows of a file whose first column is a label.

    If nothing says whether there is a header, a first line whose label occurs on no other line is taken for one, with a
    warning: as a class of one text it could be neither trained nor compared.

    Raises:
        UsageError: if there are no rows, or a label is empty.
    """
    rows = list(source.rows())
    undecided = source.header is None and not source.has_header and source.format != "jsonl"
    if undecided and len(rows) > 1 and all(row[0] != rows[0][0] for row in rows[1:]):
        warnings.warn(
            f"the first line of {source.path} is taken for a header, because no other line has the label "
            f"{rows[0][0]!r}. Give --header to confirm that, --no-header if it is a text.",
            stacklevel=2,
        )
        rows = rows[1:]
    if not rows:
        raise UsageError(f"{source.path} has no rows. Each needs a label and a text.")
    for number, row in enumerate(rows, start=1):
        if not row[0].strip():
            raise UsageError(f"{source.path}, row {number} has an empty label. Give it a label, or remove it.")
    return rows


def check_unicode(text: str, where: str) -> str:
    """Return `text`, or raise `UsageError` if it holds half a surrogate pair and so cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where} is not valid Unicode: character {error.start + 1}, {text[error.start]!r}, is half of a surrogate "
            "pair. Remove it."
        ) from None
    return text


def in_chunks(rows: Iterable, size: int) -> Iterator[list]:
    """Yield lists of at most `size` rows."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _format_of(path: str, default: str) -> str:
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), default)


def _position(column: str) -> int | None:
    """Return a column's position, from 0, if it is given as a number from 1; `None` if it is a name."""
    return int(column) - 1 if column.isdecimal() and int(column) > 0 else None


def _field(fields: dict, name: str, where: str) -> str:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{where} has no field {name!r} with a text. Its fields are {list(fields)[:8]}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where}, field {name!r} is {value}, a missing value. Give a text, or remove the line.")
    return check_unicode(str(value), f"{where}, field {name!r}")


def _split_tsv(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    yield from enumerate((line.split("\t") for line in lines), start=1)
