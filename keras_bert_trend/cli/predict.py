"""`keras-bert-trend predict`: texts to classes and their probabilities, by a model that `train` wrote."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from typing import TextIO

from keras_bert_trend.cli.models import KERAS_FILE, SAVED_MODEL, keras_file, read_labels
from keras_bert_trend.cli.options import UsageError, positive
from keras_bert_trend.cli.output import add_output_options, check_output, open_output
from keras_bert_trend.cli.reading import FORMATS_NOTE, add_text_options, check_unicode, in_chunks, open_texts
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.embedding.keras_files import load_keras_model

HELP = "classify texts with what `train` wrote"
DESCRIPTION = f"""\
Print the most probable class of each text and its probability, in the order of the texts: as TSV with a header (tabs
and line ends in texts become spaces) or as JSONL. A single argument that names a file is read; other arguments are
texts. A model of pairs takes texts two by two; of a file, columns 1 and 2, or the JSONL fields `text` and `pair`.

{FORMATS_NOTE}"""
EPILOG = """\
examples:
  keras-bert-trend predict spam_model "Win a prize now" "See you at noon"
  keras-bert-trend predict spam_model messages.txt --output predicted.tsv
  keras-bert-trend predict question_model questions.tsv --column text --all --output predicted.jsonl
  tail -f log.txt | keras-bert-trend predict spam_model/saved_model - --chunk-size 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"the folder, or {KERAS_FILE} or {SAVED_MODEL} in it")
    parser.add_argument("texts", nargs="+", metavar="FILE|-|TEXT", help="a file, standard input, or texts")
    add_output_options(parser, "OUT", ".tsv or .jsonl (default: print TSV)")
    parser.add_argument("--all", action="store_true", help="give the probabilities of all classes")
    parser.add_argument("--jsonl", action="store_true", help="print JSONL")
    parser.add_argument("--chunk-size", type=positive, default=1024, metavar="N", help="texts at once (default: 1024)")
    add_text_options(parser.add_argument_group("input"))


def run(arguments: argparse.Namespace) -> None:
    suffix = check_output(arguments, (".tsv", ".jsonl"))
    names, texts_per_row = read_labels(arguments.model)
    rows = _rows(arguments, texts_per_row)
    import_tensorflow(arguments.debug)
    from keras_bert_trend.cli.classifier import keras_function, probabilities, saved_model_function

    path = keras_file(arguments.model)
    function = saved_model_function(arguments.model) if path is None else keras_function(load_keras_model(path))
    with open_output(arguments) as file:
        write = _write_jsonl if arguments.jsonl or suffix == ".jsonl" else _write_tsv
        chunks = ((chunk, probabilities(function, chunk)) for chunk in in_chunks(rows, arguments.chunk_size))
        write(file, chunks, names, arguments.all)


def _rows(arguments: argparse.Namespace, texts_per_row: int) -> Iterable[tuple[str, ...]]:
    first = arguments.texts[0]
    if len(arguments.texts) == 1 and (first == "-" or os.path.isfile(first)):
        if arguments.pair_column and texts_per_row == 1:
            raise UsageError("The model takes single texts. Leave out --pair-column.")
        return open_texts(first, arguments, pairs=texts_per_row == 2).rows()
    if len(arguments.texts) % texts_per_row:
        raise UsageError(f"The model takes pairs of texts. Give an even number of texts, not {len(arguments.texts)}.")
    texts = (check_unicode(text, f"Text {number}") for number, text in enumerate(arguments.texts, start=1))
    return list(zip(*[texts] * texts_per_row, strict=True))


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
            result |= zip(("text", "pair"), row, strict=False)
            print(json.dumps(result, ensure_ascii=False), file=file)
        file.flush()
