"""`keras-bert-trend explain`: which words trend pooling chooses in a text, and what comes of it."""

from __future__ import annotations

import argparse
import html
import json

from keras_bert_trend.cli.models import load_layer
from keras_bert_trend.cli.options import PICTURES, add_model_options, output_suffix, refuse_existing
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.cli.writing import write_shown

HELP = "what trend pooling sees in a text"
DESCRIPTION = """\
Show which words trend pooling chooses in a text, by which attention, and what vector comes of it: a table, or, with
--output, the same as text (.txt), a web page (.html), a picture (.png, .svg, .pdf; the extra `plot`) or data (.json).
"""
EPILOG = """\
examples:
  keras-bert-trend explain "I want an apple."
  keras-bert-trend explain "The embankment was unbelievably muddy." --unit word --reading layers
  keras-bert-trend explain "I want an apple." --output apple.png --overwrite
"""
_SUFFIXES = (".txt", ".html", ".json", *PICTURES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("text", metavar="TEXT", help="the text")
    parser.add_argument("--output", metavar="FILE", help=f"one of {', '.join(_SUFFIXES)} (default: a table, printed)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    group = parser.add_argument_group("trend pooling (default: the model's own, else as published)")
    group.add_argument("--reading", choices=("published", "layers", "all"), help="which rows of attention are read")
    group.add_argument("--unit", choices=("token", "word"), help="what competes: tokens, or words of several pieces")
    group.add_argument("--measure", choices=("log_ratio", "asinh", "difference"), help="how change is measured")
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Explain; see the module."""
    suffix = output_suffix(arguments.output, _SUFFIXES)
    refuse_existing(arguments)
    import_tensorflow(arguments.debug)
    from keras_bert_trend.inspection.explanation import explain

    chosen = {name: getattr(arguments, name) for name in ("reading", "unit", "measure")}
    explanation = explain(arguments.text, load_layer(arguments), **chosen)
    if not arguments.output:
        print(explanation)
        return
    write_shown(explanation, arguments, suffix, _as_text)
    print(f"wrote {arguments.output}")


def _as_text(explanation, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(explanation.to_dict(), ensure_ascii=False) + "\n"
    if suffix == ".html":
        title = html.escape(explanation.text[:80])
        head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        return f"{head}\n<body>{explanation._repr_html_()}</body></html>\n"
    return f"{explanation}\n"
