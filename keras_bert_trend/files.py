"""Files are written to a temporary name and renamed: nothing is ever half there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def complete_or_nothing(path: str, overwrite: bool) -> Iterator[str]:
    """Give a temporary name beside `path` for a file or a folder, and rename that when all is written.

    Args:
        path: the file or folder to be written.
        overwrite: replace what stands there.

    Raises:
        FileExistsError: `path` exists.
    """
    path = os.path.abspath(path)
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"`path` {path!r} exists already. Give another one, or overwrite=True.")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=os.path.basename(path) + ".", dir=os.path.dirname(path))
    try:
        written = os.path.join(temporary, "new")
        yield written
        if os.path.exists(path):
            os.replace(path, os.path.join(temporary, "old"))
        os.replace(written, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
