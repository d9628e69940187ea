"""How the command starts: TensorFlow's chatter kept off the terminal, warnings as one line each."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_start(debug: bool) -> Iterator[None]:
    """Run a sub-command with warnings that are one line on stderr, and with TensorFlow as quiet as errors allow.

    Args:
        debug: leave everything as it is.
    """
    if debug:
        yield
        return
    # TensorFlow's C++ log, where it is not imported yet. Its "errors" are about missing GPUs and CPU features: what
    # fails comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning)
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # said by tensorflow_hub to nobody here
        warnings.showwarning = _show_in_one_line
        yield


def import_tensorflow(debug: bool) -> None:
    """Import TensorFlow and its text ops before anything else does; what it says meanwhile is shown only if it fails.

    Before its log is set up, TensorFlow prints to file descriptor 2 whatever the log level is, and complains as an
    error that there is no GPU when it first looks for one.

    Args:
        debug: let it say everything.
    """
    if debug or "tensorflow" in sys.modules:
        return
    with _kept_stderr():
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (registers the ops of saved models)

        tf.config.list_physical_devices()
        tf.get_logger().setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def _kept_stderr() -> Iterator[None]:
    """Send file descriptor 2 to a file, and print that if an exception comes."""
    sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _show_in_one_line(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"keras-bert-trend: warning: {' '.join(str(message).split())}", file=sys.stderr)
