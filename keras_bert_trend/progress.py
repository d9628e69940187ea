"""The progress bar of whatever goes over many texts."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def progress_bar(show: bool | None, total: int | None, what: str = "Embedding") -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on stderr, and give what advances it."""
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
