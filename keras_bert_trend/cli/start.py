"""A quiet start: nothing of TensorFlow's log on the terminal, and one line for each warning."""

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
    """Print each warning as one line on stderr, and silence TensorFlow.

    Args:
        debug: bool. Whether to leave everything as it is.
    """
    if debug:
        yield
        return
    # TensorFlow's C++ log, if TensorFlow is not imported yet. It logs missing GPUs and CPU features as errors; what
    # really fails raises an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning)
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # by tensorflow_hub
        warnings.showwarning = _show_in_one_line
        yield


def import_tensorflow(debug: bool) -> None:
    """Import TensorFlow and its text ops before anything else does, and show what they print only if that fails.

    Until its log is set up, TensorFlow prints to file descriptor 2 at any log level. It logs an error when it first
    looks for a GPU and finds none.

    Args:
        debug: bool. Whether to let TensorFlow print.
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
    """Send file descriptor 2 to a file, and print the file if an exception is raised."""
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
