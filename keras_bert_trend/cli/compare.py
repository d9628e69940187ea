"""`keras-bert-trend compare`: which pooling suits a problem."""

from __future__ import annotations

import argparse
import json

from keras_bert_trend.cli.models import load_layer
from keras_bert_trend.cli.options import (
    PICTURES,
    add_model_options,
    add_pooling_option,
    output_suffix,
    positive,
    refuse_existing,
    shows_progress,
)
from keras_bert_trend.cli.reading import add_labelled_options, open_labelled, read_labelled
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.cli.writing import write_shown

HELP = "which pooling suits labelled texts"
DESCRIPTION = """\
Score every pooling on labelled texts: features from the frozen encoder, logistic regression, stratified
cross-validation (the extra `compare`). Prints a table; --output writes it as data (.json) or as a picture
(.png, .svg, .pdf).

The file is TSV, CSV or JSONL. Columns are numbers from 1 or names; with numbers, a first line whose label no other line
has is taken for a header.
"""
EPILOG = """\
examples:
  keras-bert-trend compare messages.tsv
  keras-bert-trend compare questions.tsv --label-column label --text-column text --pooling mean,trend,cls --folds 10
  keras-bert-trend compare messages.tsv --output poolings.png
"""
_SUFFIXES = (".json", *PICTURES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("file", metavar="FILE", help="labels and texts; - is the standard input")
    parser.add_argument("--output", metavar="OUT", help=f"one of {', '.join(_SUFFIXES)}")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    group = parser.add_argument_group("input")
    add_labelled_options(group)
    add_model_options(parser)
    group = parser.add_argument_group("comparing")
    add_pooling_option(group, None, "the poolings to compare (default: all)")
    group.add_argument("--folds", type=positive, default=5, help="of the cross-validation (default: 5)")
    group.add_argument("--seed", type=int, default=0, help="of the folds (default: 0)")
    group.add_argument("--batch-size", type=positive, default=64, metavar="N", help="texts per batch (default: 64)")


def run(arguments: argparse.Namespace) -> None:
    """Compare; see the module."""
    suffix = output_suffix(arguments.output, _SUFFIXES)
    refuse_existing(arguments)
    rows = read_labelled(open_labelled(arguments))
    import_tensorflow(arguments.debug)
    from keras_bert_trend.evaluation.comparison import compare_poolings

    chosen = {} if arguments.pooling is None else {"poolings": arguments.pooling}
    comparison = compare_poolings(
        [row[1:] if len(row) > 2 else row[1] for row in rows],
        [row[0] for row in rows],
        model=load_layer(arguments),
        folds=arguments.folds,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        show_progress=shows_progress(arguments),
        **chosen,
    )
    print(comparison)
    if arguments.output:
        write_shown(comparison, arguments, suffix, lambda result, _: json.dumps(result.to_dict(), indent=1) + "\n")
