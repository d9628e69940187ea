"""Options that several sub-commands share, and the types of their values."""

from __future__ import annotations

import argparse

from keras_bert_trend.pooling import POOLING_NAMES


class UsageError(ValueError):
    """An argument, or a file that it names, cannot be used. Exit status 2."""


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every sub-command."""
    group = parser.add_argument_group("general")
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on stderr (default: if stderr is a terminal)",
    )
    group.add_argument("--debug", action="store_true", help="show tracebacks and TensorFlow's messages")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose an encoder and its vocabulary."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="minilm", metavar="HANDLE", help="the encoder (default: minilm)")
    add_vocabulary_options(group)


def add_vocabulary_options(group) -> None:
    """Add the options that give a vocabulary to a model without one."""
    group.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="vocab.txt, SentencePiece model or preprocessing model, for a model without a vocabulary",
    )
    group.add_argument(
        "--lower-case",
        action=argparse.BooleanOptionalAction,
        help="whether to lower-case texts, for a model that does not say (default: if the vocabulary is lower case)",
    )


def add_poolings_option(group, use: str) -> None:
    """Add `--pooling`, which takes several names: separated by commas, or the option repeated.

    Args:
        group: the parser or group to add it to.
        use: str. What the poolings are used for, and the default.
    """
    group.add_argument(
        "--pooling",
        action="extend",
        type=pooling_names,
        metavar="NAME[,NAME]",
        help=f"{use}; any of {', '.join(POOLING_NAMES)}",
    )


def pooling_names(text: str) -> list[str]:
    """Read names of poolings, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in POOLING_NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is not a pooling; choose from {', '.join(POOLING_NAMES)}")
    return names


def positive(text: str) -> int:
    """Read a positive integer."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return number
