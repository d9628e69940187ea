"""`keras-bert-trend predict`: texts to classes and their probabilities, by what `train` wrote."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.cli.models import KERAS_FILE, SAVED_MODEL, load_keras_model, read_labels
from keras_bert_trend.cli.options import UsageError, output_suffix, positive, refuse_existing
from keras_bert_trend.cli.reading import FORMATS_NOTE, add_format_options, in_chunks, open_texts
from keras_bert_trend.cli.start import import_tensorflow

HELP = "texts to classes, by what `train` wrote"
DESCRIPTION = f"""\
Print the most probable class of every text and its probability, in the texts' order, as TSV with a header (tabs and
line ends of the texts become spaces) or as JSONL. A single argument that names a file is read; others are texts. A
model of pairs takes texts two by two.

{FORMATS_NOTE}"""
EPILOG = """\
examples:
  keras-bert-trend predict spam_model "Win a prize now" "See you at noon"
  keras-bert-trend predict spam_model messages.txt --output predicted.tsv
  keras-bert-trend predict question_model questions.tsv --column text --all --output predicted.jsonl
  tail -f log.txt | keras-bert-trend predict spam_model/saved_model - --chunk-size 1
"""
_SUFFIXES = (".tsv", ".jsonl")
_CHUNK = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"the folder, or {KERAS_FILE} or {SAVED_MODEL} in it")
    parser.add_argument("texts", nargs="+", metavar="FILE|-|TEXT", help="a file, the standard input, or texts")
    parser.add_argument("--output", metavar="OUT", help=".tsv or .jsonl (default: TSV, printed)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--all", action="store_true", help="the probabilities of all classes")
    parser.add_argument("--jsonl", action="store_true", help="print JSONL")
    parser.add_argument(
        "--chunk-size", type=positive, default=_CHUNK, metavar="N", help=f"texts at once (default: {_CHUNK})"
    )
    group = parser.add_argument_group("input")
    add_format_options(group)
    group.add_argument(
        "--column", "--field", metavar="NAME", help="where the text is (default: the only one; of JSONL: text)"
    )
    group.add_argument(
        "--pair-column", "--pair-field", metavar="NAME", help="the second text (default: 2; of JSONL: pair)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Predict; see the module."""
    suffix = output_suffix(arguments.output, _SUFFIXES)
    refuse_existing(arguments)
    names, texts_per_row = read_labels(arguments.model)
    rows = _rows(arguments, texts_per_row)
    import_tensorflow(arguments.debug)
    from keras_bert_trend.cli.classifier import probabilities

    function = _function(arguments.model)
    with _destination(arguments) as file:
        write = _write_jsonl if arguments.jsonl or suffix == ".jsonl" else _write_tsv
        chunks = ((chunk, probabilities(function, chunk)) for chunk in in_chunks(rows, arguments.chunk_size))
        write(file, chunks, names, arguments.all)


def _rows(arguments: argparse.Namespace, texts_per_row: int) -> Iterable[tuple[str, ...]]:
    first = arguments.texts[0]
    if len(arguments.texts) == 1 and (first == "-" or os.path.isfile(first)):
        column, pair = arguments.column, arguments.pair_column
        if texts_per_row == 2:
            is_jsonl = first.endswith(".jsonl") or arguments.format == "jsonl"
            column, pair = column or ("text" if is_jsonl else "1"), pair or ("pair" if is_jsonl else "2")
        elif pair:
            raise UsageError("The model takes single texts: --pair-column has no place.")
        return open_texts(first, arguments.format, column, pair, arguments.header).rows()
    if len(arguments.texts) % texts_per_row:
        raise UsageError(f"The model takes pairs of texts: {len(arguments.texts)} is no even number.")
    return zip(*[iter(arguments.texts)] * texts_per_row, strict=True)


def _function(path: str):
    from keras_bert_trend.cli.classifier import keras_function, saved_model_function

    inside = os.path.join(path, KERAS_FILE)
    if path.endswith(".keras") or os.path.isfile(inside):
        return keras_function(load_keras_model(path if path.endswith(".keras") else inside))
    return saved_model_function(path)


@contextlib.contextmanager
def _destination(arguments: argparse.Namespace) -> Iterator[TextIO]:
    if not arguments.output:
        yield sys.stdout
        return
    with (
        complete_or_nothing(arguments.output, arguments.overwrite) as path,
        open(path, "w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


def _name(names: Sequence[str] | None, index: int) -> str:
    return str(index) if names is None else names[index]


def _write_tsv(file: TextIO, chunks, names: Sequence[str] | None, show_all: bool) -> None:
    header = None
    for rows, found in chunks:
        if header is None:
            classes = [_name(names, i) for i in range(found.shape[1])] if show_all else []
            header = ["label", "probability", *classes, *("text", "pair")[: len(rows[0])]]
            print(*map(_cell, header), sep="\t", file=file)
        for row, values in zip(rows, found, strict=True):
            best = int(values.argmax())
            numbers = [values[best], *(values if show_all else ())]
            cells = [_name(names, best), *(f"{number:.6f}" for number in numbers), *row]
            print(*map(_cell, cells), sep="\t", file=file)
        file.flush()
    if header is None:
        print("label", "probability", "text", sep="\t", file=file)


def _cell(text: str) -> str:
    return " ".join(text.split("\t")).replace("\r", " ").replace("\n", " ")


def _write_jsonl(file: TextIO, chunks, names: Sequence[str] | None, show_all: bool) -> None:
    for rows, found in chunks:
        for row, values in zip(rows, found, strict=True):
            best = int(values.argmax())
            result = {"label": _name(names, best), "probability": float(f"{values[best]:.6f}")}
            if show_all:
                result["probabilities"] = {_name(names, i): float(f"{value:.6f}") for i, value in enumerate(values)}
            print(
                json.dumps({**result, **dict(zip(("text", "pair"), row, strict=False))}, ensure_ascii=False), file=file
            )
        file.flush()
