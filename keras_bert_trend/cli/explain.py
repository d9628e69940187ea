"""`keras-bert-trend explain`: which words trend pooling chooses in a text, and what comes of it."""

from __future__ import annotations

import argparse
import html
import json
import os

from keras_bert_trend.cli.models import load_layer
from keras_bert_trend.cli.options import UsageError, add_model_options
from keras_bert_trend.cli.start import import_tensorflow
from keras_bert_trend.files import complete_or_nothing

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
_PICTURES = (".png", ".svg", ".pdf")
_SUFFIXES = (".txt", ".html", ".json", *_PICTURES)


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
    suffix = os.path.splitext(arguments.output or "")[1].lower()
    if arguments.output and suffix not in _SUFFIXES:
        raise UsageError(f"--output {arguments.output!r} must end in one of {', '.join(_SUFFIXES)}.")
    if arguments.output and os.path.exists(arguments.output) and not arguments.overwrite:
        raise ValueError(f"{arguments.output} exists already: give another name, or --overwrite.")
    import_tensorflow(arguments.debug)
    from keras_bert_trend.explain import explain

    chosen = {name: getattr(arguments, name) for name in ("reading", "unit", "measure")}
    explanation = explain(arguments.text, load_layer(arguments), **chosen)
    if not arguments.output:
        print(explanation)
        return
    figure = explanation.plot() if suffix in _PICTURES else None
    with complete_or_nothing(arguments.output, arguments.overwrite) as path:
        if figure is not None:
            figure.savefig(path, format=suffix[1:])
            return
        with open(path, "w", encoding="utf-8") as file:
            file.write(_as_text(explanation, suffix))


def _as_text(explanation, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(explanation.to_dict(), ensure_ascii=False) + "\n"
    if suffix == ".html":
        title = html.escape(explanation.text[:80])
        head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        return f"{head}\n<body>{explanation._repr_html_()}</body></html>\n"
    return f"{explanation}\n"
