"""What every room needs: argument checks, files that are whole or not there, a progress bar, lazy names."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
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
    """Yield a temporary name beside `path`, and rename it to `path` once everything is written.

    Args:
        path: str. The file or folder to write.
        overwrite: bool. Whether to replace an existing `path`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
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
