"""`keras-bert-trend train`: labelled texts, or pairs, to a classifier that trains BERT, and its scores."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import Any

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.cli.models import CONFUSION_FILE, KERAS_FILE, LABELS_FILE, METRICS_FILE, SAVED_MODEL
from keras_bert_trend.cli.options import UsageError, add_model_options, positive
from keras_bert_trend.cli.output import add_output_options, check_output
from keras_bert_trend.cli.reading import HEADER_NOTE, TextFile, add_labelled_options, open_labelled, read_labelled
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.pooling import POOLING_NAMES
from keras_bert_trend.version import __version__

HELP = "train a classifier on labelled texts"
DESCRIPTION = f"""\
Train a classifier of texts, or of pairs of texts, BERT included (needs the extra `compare`). Writes the folder DIR with
{KERAS_FILE}, {SAVED_MODEL}/, {LABELS_FILE}, {METRICS_FILE} and {CONFUSION_FILE}, completely or not at all. Prints the
scores on the validation part. The model is that of the last epoch: the scores choose nothing.

{HEADER_NOTE}
--seed draws the validation part, the same share of every class. A text that occurs several times is in one part only.
"""
EPILOG = """\
examples:
  keras-bert-trend train messages.tsv --output spam_model
  keras-bert-trend train questions.tsv --label-column label --text-column text --output question_model --epochs 4
  keras-bert-trend train qa.tsv --label-column label --text-column question --pair-column answer --output qa_model
  keras-bert-trend train messages.tsv --output quick_model --trainable-layers 2 --pooling mean --learning-rate 5e-5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="labels and texts; - is standard input")
    add_output_options(parser, "DIR", "the folder to write", required=True)
    group = parser.add_argument_group("input")
    add_labelled_options(group)
    group.add_argument("--validation-file", metavar="FILE", help="validate on these rows, with the same columns")
    group.add_argument(
        "--validation-split", type=_share, default=0.2, metavar="X", help="else on this share of FILE (default: 0.2)"
    )
    add_model_options(parser)
    group = parser.add_argument_group("training")
    group.add_argument("--pooling", choices=POOLING_NAMES, default="smooth_trend", help="(default: smooth_trend)")
    group.add_argument("--max-length", type=positive, metavar="N", help="trim texts to N tokens (default: 128)")
    group.add_argument("--epochs", type=positive, default=3, help="(default: 3)")
    group.add_argument("--batch-size", type=positive, default=16, metavar="N", help="(default: 16)")
    group.add_argument(
        "--learning-rate", type=float, default=1.5e-4, metavar="X",
        help="AdamW's peak after warm-up (default: 1.5e-4, for minilm; larger BERTs want 2e-5 to 5e-5)",
    )  # fmt: skip
    group.add_argument("--dropout", type=float, default=0.1, metavar="X", help="before the classes (default: 0.1)")
    group.add_argument(
        "--seed", type=int, default=0, help="seed of the split, the new weights and the order (default: 0)"
    )
    group.add_argument("--freeze-bert", action="store_true", help="train the classes only")
    group.add_argument("--trainable-layers", type=int, metavar="N", help="train only the last N blocks of BERT")
    group.add_argument(
        "--freeze-embeddings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the token, position and type embeddings as they are (default: --freeze-embeddings)",
    )


def run(arguments: argparse.Namespace) -> None:
    check_output(arguments)
    source = open_labelled(arguments)
    if arguments.validation_file == "-":
        raise UsageError("--validation-file cannot be standard input. Give a file.")
    from keras_bert_trend.cli.scores import draw_confusion, score, split, table

    train, validation = _parts(arguments, source, split)
    names = sorted({row[0] for row in train})
    import_tensorflow(arguments.debug)
    from keras_bert_trend.cli import classifier

    with complete_or_nothing(arguments.output, arguments.overwrite) as folder:
        os.mkdir(folder)
        print(f"{len(train)} rows to train on, {len(validation)} to validate, {len(names)} classes", flush=True)
        model = classifier.build(arguments, len(train), len(names), texts_per_row=len(train[0]) - 1)
        history = classifier.fit(model, train, validation, names, arguments)
        predict = classifier.keras_function(model)
        probabilities = classifier.probabilities(predict, [row[1:] for row in validation])
        scores = score([names.index(row[0]) for row in validation], probabilities.argmax(axis=1), names)
        print(table(scores))

        model.save(os.path.join(folder, KERAS_FILE))
        model.export(os.path.join(folder, SAVED_MODEL), verbose=False)
        draw_confusion(scores).savefig(os.path.join(folder, CONFUSION_FILE))
        _write_json(os.path.join(folder, LABELS_FILE), {"labels": names, "texts_per_row": len(train[0]) - 1})
        _write_json(os.path.join(folder, METRICS_FILE), {
            "validation": scores,
            "rows": {"training": len(train), "validation": len(validation)},
            "epochs": history,
            "settings": _settings(arguments),
        })  # fmt: skip
    print(f"wrote {arguments.output}")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


def _parts(arguments: argparse.Namespace, source: TextFile, split) -> tuple[list, list]:
    """Return the rows to train on and those to validate, without a text in both."""
    rows = read_labelled(source)
    if len({row[0] for row in rows}) < 2:
        raise UsageError(f"{source.path} has only one class, {rows[0][0]!r}. Training needs two or more.")
    if not arguments.validation_file:
        return split(rows, arguments.validation_split, arguments.seed)
    validation = read_labelled(dataclasses.replace(source, path=arguments.validation_file))
    held_out = {row[1:] for row in validation}
    train = [row for row in rows if row[1:] not in held_out]
    if len(train) < len(rows):
        print(f"{len(rows) - len(train)} rows of {source.path} are left out: their texts are in the validation file")
    unknown = {row[0] for row in validation} - {row[0] for row in train}
    if unknown or not train:
        raise UsageError(
            f"{arguments.validation_file} has classes without a row to train on: {sorted(unknown)[:5]}. Train on some "
            "of their texts, or leave the classes out."
        )
    return train, validation


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    left_out = {"run", "command", "progress", "debug", "overwrite", "output"}
    return {**{name: value for name, value in vars(arguments).items() if name not in left_out}, "version": __version__}


def _write_json(path: str, value) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
