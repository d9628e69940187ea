"""`keras-bert-trend compare`: which pooling suits a problem."""

from __future__ import annotations

import argparse
import json

from keras_bert_trend.cli.models import load_layer
from keras_bert_trend.cli.options import add_model_options, add_poolings_option, positive
from keras_bert_trend.cli.output import PICTURES, add_output_options, check_output, write_result
from keras_bert_trend.cli.reading import HEADER_NOTE, add_labelled_options, open_labelled, read_labelled
from keras_bert_trend.cli.start import import_tensorflow

HELP = "find the pooling that suits labelled texts"
DESCRIPTION = f"""\
Score each pooling on labelled texts: features from the frozen encoder, logistic regression, stratified
cross-validation (needs the extra `compare`). Prints a table; --output writes it as data (.json) or as a picture
(.png, .svg, .pdf).

{HEADER_NOTE}"""
EPILOG = """\
examples:
  keras-bert-trend compare messages.tsv
  keras-bert-trend compare questions.tsv --label-column label --text-column text --pooling mean,trend,cls --folds 10
  keras-bert-trend compare messages.tsv --output poolings.png
"""
_SUFFIXES = (".json", *PICTURES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="labels and texts; - is standard input")
    add_output_options(parser, "OUT", f"one of {', '.join(_SUFFIXES)}")
    add_labelled_options(parser.add_argument_group("input"))
    add_model_options(parser)
    group = parser.add_argument_group("comparing")
    add_poolings_option(group, "the poolings to compare (default: all)")
    group.add_argument("--folds", type=positive, default=5, help="folds of the cross-validation (default: 5)")
    group.add_argument("--seed", type=int, default=0, help="seed of the folds (default: 0)")
    group.add_argument("--batch-size", type=positive, default=64, metavar="N", help="texts per batch (default: 64)")


def run(arguments: argparse.Namespace) -> None:
    suffix = check_output(arguments, _SUFFIXES)
    rows = read_labelled(open_labelled(arguments))
    import_tensorflow(arguments.debug)
    from keras_bert_trend.evaluation.comparison import compare_poolings

    comparison = compare_poolings(
        [row[1:] if len(row) > 2 else row[1] for row in rows],
        [row[0] for row in rows],
        load_layer(arguments),
        poolings=arguments.pooling,
        folds=arguments.folds,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        show_progress=arguments.progress,
    )
    print(comparison)
    if arguments.output:
        write_result(arguments, suffix, comparison, lambda result, _: json.dumps(result.to_dict(), indent=1) + "\n")
