"""Options that several sub-commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable

#: `keras_bert_trend.POOLING_NAMES`, which cannot be asked without importing Keras; a test compares them.
POOLINGS = (
    "trend",
    "smooth_trend",
    "last_four_sum",
    "last_four_concat",
    "cls",
    "pooler",
    "mean",
    "max",
    "first_last_mean",
    "mean_std",
    "second_to_last",
)

PICTURES = (".png", ".svg", ".pdf")


class UsageError(Exception):
    """The arguments do not fit together: exit status 2."""


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add what every sub-command has."""
    group = parser.add_argument_group("general")
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on stderr (default: where that is a terminal)",
    )
    group.add_argument("--debug", action="store_true", help="show tracebacks, and all that TensorFlow says")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add which encoder to use."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="minilm", metavar="HANDLE", help="the encoder (default: minilm)")
    add_text_source_options(group)


def add_text_source_options(group) -> None:
    """Add where the vocabulary comes from, for a model that brings none."""
    group.add_argument(
        "--vocabulary", metavar="FILE", help="vocab.txt, SentencePiece model or preprocessing model, if none is brought"
    )
    group.add_argument(
        "--lower-case",
        action=argparse.BooleanOptionalAction,
        help="whether texts are lower-cased, for a model that does not say (default: as the vocabulary looks)",
    )


def add_pooling_option(parser, default: str | None, note: str) -> None:
    """Add `--pooling`: names separated by commas, or the option several times."""
    parser.add_argument(
        "--pooling",
        action="extend",
        type=pooling_names,
        metavar="NAME[,NAME]",
        help=f"{note}; one of {', '.join(POOLINGS)}" + (f" (default: {default})" if default else ""),
    )


def pooling_names(text: str) -> list[str]:
    """Read names separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in POOLINGS:
            raise argparse.ArgumentTypeError(f"{name!r} is no pooling, choose from {', '.join(POOLINGS)}")
    return names


def positive(text: str) -> int:
    """Read a positive integer."""
    with_error = argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    try:
        number = int(text)
    except ValueError:
        raise with_error from None
    if number < 1:
        raise with_error
    return number


def shows_progress(arguments: argparse.Namespace) -> bool:
    """Whether progress bars are shown: as asked for, else on a terminal."""
    return sys.stderr.isatty() if arguments.progress is None else arguments.progress


def output_suffix(path: str | None, suffixes: Iterable[str]) -> str:
    """Return the suffix of `--output`, "" without one.

    Raises:
        UsageError: it is none of `suffixes`.
    """
    suffix = os.path.splitext(path or "")[1].lower()
    if path and suffix not in suffixes:
        raise UsageError(f"--output {path!r} must end in one of {', '.join(suffixes)}.")
    return suffix


def refuse_existing(arguments: argparse.Namespace) -> None:
    """Refuse to replace what stands at `--output` before anything is computed.

    Raises:
        ValueError: there is something, and no `--overwrite`.
    """
    if arguments.output and os.path.exists(arguments.output) and not arguments.overwrite:
        raise ValueError(f"{arguments.output} exists already: give another name, or --overwrite.")
