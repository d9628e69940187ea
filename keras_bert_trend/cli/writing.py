"""Results that can be drawn or written down, to the file that `--output` names."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.cli.options import PICTURES


def write_shown(result: Any, arguments: argparse.Namespace, suffix: str, as_text: Callable[[Any, str], str]) -> None:
    """Write a result as a picture, or as text.

    Args:
        result: has `plot()`, which returns a matplotlib figure.
        arguments: with `output` and `overwrite`.
        suffix: of the output.
        as_text: result and suffix to the file's content, where that is no picture.
    """
    is_picture = suffix in PICTURES
    content = result.plot() if is_picture else as_text(result, suffix)
    with complete_or_nothing(arguments.output, arguments.overwrite) as path:
        if is_picture:
            content.savefig(path, format=suffix[1:])
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
