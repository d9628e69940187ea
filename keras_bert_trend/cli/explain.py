"""`keras-bert-trend explain`: which words trend pooling chooses in a text, and the vector that follows."""

from __future__ import annotations

import argparse
import html
import json
from typing import get_args

from keras_bert_trend.cli.models import keras_file, load_layer
from keras_bert_trend.cli.options import add_model_options
from keras_bert_trend.cli.output import PICTURES, add_output_options, check_output, write_result
from keras_bert_trend.cli.reading import check_unicode
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.pooling.names import Measure, Reading, Unit

HELP = "show what trend pooling sees in a text"
DESCRIPTION = """\
Show which words trend pooling chooses in a text, by which attention, and the vector that follows: a table, or, with
--output, the same as text (.txt), web page (.html), picture (.png, .svg, .pdf; needs the extra `plot`) or data (.json).
"""
EPILOG = """\
examples:
  keras-bert-trend explain "I want an apple."
  keras-bert-trend explain "The embankment was unbelievably muddy." --unit word --reading layers
  keras-bert-trend explain "I want an apple." --output apple.png --overwrite
"""
_SUFFIXES = (".txt", ".html", ".json", *PICTURES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="the text")
    add_output_options(parser, "FILE", f"one of {', '.join(_SUFFIXES)} (default: print a table)")
    group = parser.add_argument_group("trend pooling (default: that of the model; as published for a handle)")
    group.add_argument("--reading", choices=get_args(Reading), help="which rows of attention are read")
    group.add_argument("--unit", choices=get_args(Unit), help="what competes: tokens, or words of several pieces")
    group.add_argument("--measure", choices=get_args(Measure), help="how change is measured")
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> None:
    suffix = check_output(arguments, _SUFFIXES)
    text = check_unicode(arguments.text, "TEXT")
    import_tensorflow(arguments.debug)
    from keras_bert_trend.inspection.explanation import explain

    chosen = {name: getattr(arguments, name) for name in ("reading", "unit", "measure")}
    if chosen["measure"] is None and keras_file(arguments.model) is None:
        chosen["measure"] = "log_ratio"  # as `explain` does of a handle
    write_result(arguments, suffix, explain(text, load_layer(arguments), **chosen), _to_text)
    if arguments.output:
        print(f"wrote {arguments.output}")


def _to_text(explanation, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(explanation.to_dict(), ensure_ascii=False) + "\n"
    if suffix == ".html":
        title = html.escape(explanation.text[:80])
        head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        return f"{head}\n<body>{explanation._repr_html_()}</body></html>\n"
    return f"{explanation}\n"
