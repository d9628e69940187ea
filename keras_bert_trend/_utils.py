"""What every room needs: argument checks, files that are whole or not there, a progress bar, lazy names."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


def check_count(name: str, value) -> None:
    """Raise `ValueError` unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


@contextlib.contextmanager
def complete_or_nothing(path: str, overwrite: bool) -> Iterator[str]:
    """Yield a temporary name near `path`, and give it the name `path` once everything is written.

    It is written in a folder beside `path`, `path.xxxxxxxx.unfinished`. A process that is killed leaves that folder
    behind; the next one that writes `path` removes it.

    Args:
        path: str. The file or folder to write.
        overwrite: bool. Whether to replace an existing `path`. Until the new one is complete, the old one stays.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _collect_leftovers(path)
    _check_free(path, overwrite)
    with _workplace(path) as folder:
        written = os.path.join(folder, "new")
        yield written
        _check_free(path, overwrite)
        put_in_place(written, path)


def put_in_place(new: str, path: str) -> None:
    """Give a complete file or folder its final name, and what had that name before, if anything, the name of the new.

    At every instant, the old or the new stands under `path`. Where a system cannot exchange two folders at once (any
    but Linux), the old one is called `old`, beside the new, for a moment.

    Args:
        new: str. The file or folder, on the same file system as `path`.
        path: str. Its name from now on.
    """
    for folder, _, files in os.walk(new):
        for name in files:
            synchronize(os.path.join(folder, name))
        synchronize(folder)
    if not os.path.isdir(new):
        synchronize(new)
    if os.path.lexists(path) and (os.path.isdir(new) or os.path.isdir(path)):
        if not _exchange(new, path):
            os.rename(path, os.path.join(os.path.dirname(new), "old"))
            os.rename(new, path)
    else:
        os.replace(new, path)
    synchronize(os.path.dirname(path))


def synchronize(path: str) -> None:
    """Have the system write a file, or the names in a folder, to the disk: the next rename must not come before."""
    if os.name != "nt":  # Windows has no such call for a folder, nor for a file that is open for reading
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"`path` {path!r} exists already. Give another one, or overwrite=True.")


def _exchange(one: str, other: str) -> bool:
    """Exchange two names at once; return whether the system can."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


_UNFINISHED = ".unfinished"  # no file of a user's ends so after eight random characters


@contextlib.contextmanager
def _workplace(path: str) -> Iterator[str]:
    """Make a folder beside `path`, keep it locked while it is used, and clear it away."""
    parent, name = os.path.split(path)
    while True:
        folder = tempfile.mkdtemp(prefix=f"{name}.", suffix=_UNFINISHED, dir=parent)
        lock = lock_folder(folder)
        if lock is not None:
            break  # else another process took it for a leftover meanwhile
    try:
        yield folder
    finally:
        _clear_away(folder, path, lock)


def _collect_leftovers(path: str) -> None:
    """Clear away the workplaces of processes that were killed while they wrote `path`."""
    parent, name = os.path.split(path)
    for entry in os.listdir(parent):
        folder = os.path.join(parent, entry)
        if not re.fullmatch(re.escape(name) + r"\.[a-z0-9_]{8}" + re.escape(_UNFINISHED), entry):
            continue
        with contextlib.suppress(OSError):  # nothing in it yet; also a live process may have taken its last step
            if not os.listdir(folder):
                os.rmdir(folder)
            elif set(os.listdir(folder)) <= {"lock", "new", "old"}:
                lock = lock_folder(folder)
                if lock is not None and lock.is_locked:
                    _clear_away(folder, path, lock)


def lock_folder(folder: str):
    """Return a lock on a folder, or `None` if another process has it. The system unlocks those of killed processes.

    Where the file system has no locks (NFS without its daemon), it returns a lock that is not `is_locked`.

    Args:
        folder: str. The folder; the lock is a file in it.
    """
    import filelock

    file = os.path.join(folder, "lock")
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, FileNotFoundError):
        return None
    except (OSError, NotImplementedError):
        return lock
    if os.path.exists(file):
        return lock
    lock.release()
    return None


def _clear_away(folder: str, path: str, lock) -> None:
    """Remove a workplace; put back what stood under `path`, if the new one did not come there."""
    old = os.path.join(folder, "old")
    if os.path.lexists(old) and not os.path.lexists(path):
        os.rename(old, path)
    lock.release()  # Windows removes no file that is open
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def progress_bar(show: bool | None, total: int | None, what: str = "Embedding") -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on stderr and yield the function that advances it.

    Args:
        show: bool or `None`. Whether to show it; `None` shows it on a terminal, and in a notebook that has ipywidgets.
        total: int or `None`. The number of steps, if known.
        what: str. The description in front of the bar.
    """
    from rich import console, progress

    screen = console.Console(stderr=True)
    if show is None:  # not `screen.is_terminal`: FORCE_COLOR makes a log one
        # In a notebook Rich draws with ipywidgets, and warns at every turn where they are missing.
        widgets = screen.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        show = widgets or (sys.stderr is not None and sys.stderr.isatty())
    if not show:
        yield lambda count: None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=screen) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` (PEP 562) that imports each public name on first use.

    Args:
        package: str. The package's `__name__`.
        modules: dict. Public name → the module of the package that defines it.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # found without this function next time
        return value

    return __getattr__
