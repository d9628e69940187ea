"""Execute a notebook as Jupyter does, but so that its outputs are the same each time it says the same.

    python -m tests.notebook examples/tour.ipynb    # executes it and writes the outputs into it

What differs from Jupyter: no cell is marked with the time it ran, and what TensorFlow's C++ code logs, with process
numbers and about this machine, goes to the terminal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def execute(path: Path):
    """Return the notebook with the outputs of a fresh kernel of this Python, in the notebook's folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,  # a kernel beside other tests takes its time
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # The version of the Python that happened to run it.
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def write(notebook, path: Path) -> None:
    """Write a notebook under a temporary name first, so that it is never half there."""
    import nbformat

    temporary = path.with_name(f"writing_{path.name}")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["examples/tour.ipynb"]:
        write(execute(Path(name).resolve()), Path(name))
