"""Let the n-th call that touches the disk below a folder go wrong: with an error, with Ctrl-C, or with SIGKILL.

Which calls there are is traced: Python audits those that open, rename or remove files; `os.fsync` is audited here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_bert_trend import _utils
from keras_bert_trend._utils import complete_or_nothing

EVENTS = {
    "open",
    "os.fsync",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.listdir",
    "os.scandir",
}


def fail() -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> None:
    """Be interrupted, as by Ctrl-C."""
    raise KeyboardInterrupt


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


class _Watch:
    folder: str | None = None
    trouble: Callable[[], None] | None = None
    place = count = 0
    is_installed = False


def _audit(event: str, arguments: tuple) -> None:
    if _Watch.folder is None or event not in EVENTS:
        return
    path = os.fsdecode(arguments[0]) if arguments and isinstance(arguments[0], str | bytes) else ""
    if os.path.isabs(path) and not path.startswith(_Watch.folder):
        return
    _Watch.count += 1
    if _Watch.count == _Watch.place:
        _Watch.trouble()


def _audited_fsync(descriptor: int) -> None:
    sys.audit("os.fsync", descriptor)
    _fsync(descriptor)


_fsync = os.fsync


@contextlib.contextmanager
def trouble_at(place: int, trouble: Callable[[], None], folder) -> Iterator[None]:
    """Let a call below a folder go wrong; number 0 is none. Afterwards, `calls()` says how many there were."""
    if not _Watch.is_installed:
        sys.addaudithook(_audit)  # for good: hooks cannot be taken away
        _Watch.is_installed = True
    _Watch.place, _Watch.count, _Watch.trouble = place, 0, trouble
    os.fsync, _Watch.folder = _audited_fsync, str(folder)
    try:
        yield
    finally:
        os.fsync, _Watch.folder = _fsync, None


def calls() -> int:
    """Return how many calls there were."""
    return _Watch.count


def in_a_child(function: Callable[[], int | None]) -> int:
    """Call a function in a process of its own, a copy of this one; return its exit status, negative for a signal."""
    process = os.fork()
    if not process:
        status = 70
        with contextlib.suppress(BaseException):
            status = function() or 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def write(path: Path, kind: str, content: str, overwrite: bool = True) -> None:
    with complete_or_nothing(str(path), overwrite) as new:
        put(Path(new), kind, content)


def put(path: Path, kind: str, content: str) -> None:
    if kind == "folder":
        path.mkdir()
        (path / "inside").mkdir()
        path = path / "inside" / "file"
    path.write_text(content)


def read(path: Path) -> tuple[str, str] | None:
    if not path.exists():
        return None
    kind = "folder" if path.is_dir() else "file"
    return kind, (path / "inside" / "file" if path.is_dir() else path).read_text()


def every_trouble(new: str, old: str | None, exchanges: bool) -> int:
    """Write a file or folder over another, with trouble at every call; return how many there are.

    Runs in a process that has imported nothing large, of which copies are cheap.
    """
    if not exchanges:
        _utils._exchange = lambda one, other: False
    place = number = 0
    while place <= number:
        for trouble in (fail, interrupt, kill):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "out"
                if old:
                    put(path, old, "old")

                def attempt(place=place, path=path, trouble=trouble):
                    with trouble_at(place, trouble, path.parent):
                        write(path, new, "new")

                if not place:
                    attempt()
                    number = calls()
                    break
                in_a_child(attempt)
                before, after = (old, "old") if old else None, (new, "new")
                what = f"{new} over {old}, exchanges: {exchanges}, {trouble.__name__} at call {place}"
                if trouble is not kill or exchanges:
                    assert read(path) in (before, after), (what, read(path))
                if old and read(path) != after:  # what was moved aside comes back, even if nothing is written
                    with contextlib.suppress(FileExistsError):
                        write(path, new, "new", overwrite=False)
                    assert read(path) == before, what
                write(path, new, "new")
                assert read(path) == after, what
                assert os.listdir(folder) == ["out"], what
        place += 1
    return number
