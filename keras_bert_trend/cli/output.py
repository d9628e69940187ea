"""`--output`: checked before anything is computed, written completely or not at all."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.cli.options import UsageError

PICTURES = (".png", ".svg", ".pdf")


def add_output_options(parser: argparse.ArgumentParser, name: str, help: str, required: bool = False) -> None:
    """Add `--output` and `--overwrite`."""
    parser.add_argument("--output", required=required, metavar=name, help=help)
    parser.add_argument("--overwrite", action="store_true", help=f"replace {name}")


def check_output(arguments: argparse.Namespace, suffixes: Sequence[str] = ()) -> str:
    """Check `--output` and return its suffix.

    Args:
        arguments: with `output` and `overwrite`.
        suffixes: sequence of str. The suffixes that the file may have; empty if `--output` is a folder.

    Returns:
        str. The file's suffix in lower case; "" for a folder, or without `--output`.

    Raises:
        UsageError: if a file's name has another suffix or belongs to a folder, or if the name is empty.
        ValueError: if `--output` exists and `--overwrite` is not given.
    """
    path = arguments.output
    if path is None:
        return ""
    if not path:
        raise UsageError("--output is empty. Give it a name.")
    if suffixes and os.path.isdir(path):
        raise UsageError(f"--output {path!r} is a folder. Give a file name that ends in {', '.join(suffixes)}.")
    suffix = os.path.splitext(path)[1].lower() if suffixes else ""
    if suffixes and suffix not in suffixes:
        raise UsageError(f"--output {path!r} must end in one of {', '.join(suffixes)}.")
    if os.path.exists(path) and not arguments.overwrite:
        raise ValueError(f"{path} exists already. Give another name, or --overwrite.")
    return suffix


@contextlib.contextmanager
def open_output(arguments: argparse.Namespace) -> Iterator[TextIO]:
    """Open `--output` for text, or standard output if it is not given."""
    if arguments.output is None:
        yield sys.stdout
        return
    with (
        complete_or_nothing(arguments.output, arguments.overwrite) as path,
        open(path, "w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


def write_result(arguments: argparse.Namespace, suffix: str, result: Any, to_text: Callable[[Any, str], str]) -> None:
    """Write a result to `--output`, or print it: as a picture if the suffix is one of `PICTURES`, else as text.

    Args:
        arguments: with `output` and `overwrite`.
        suffix: str. What `check_output` returned.
        result: has `plot()`, which returns a matplotlib figure.
        to_text: function from the result and the suffix to the content of a text file.
    """
    if suffix in PICTURES:
        figure = result.plot()
        with complete_or_nothing(arguments.output, arguments.overwrite) as path:
            figure.savefig(path, format=suffix[1:])
        return
    text = to_text(result, suffix)
    with open_output(arguments) as file:
        file.write(text)
