"""The peers' environments: one folder, a virtual environment in it for each `requirements-NAME.txt` here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .adapters import ENVIRONMENTS

HERE = Path(__file__).resolve().parent
PREFIX = "requirements-"


def names() -> list[str]:
    """Return the environments' names."""
    return sorted(path.stem.removeprefix(PREFIX) for path in HERE.glob(f"{PREFIX}*.txt"))


def set_up(folder: Path, wanted: list[str]) -> list[str]:
    """Make the environments, from PyPI; return the names of those that could not be made."""
    failed = []
    for name in wanted:
        print(f"{name}: {folder / name}", flush=True)
        python = interpreter(folder, name)
        requirements = str(HERE / f"{PREFIX}{name}.txt")
        try:
            if not python.is_file():
                subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", requirements], check=True)
        except subprocess.CalledProcessError as error:
            print(f"{name} could not be made: {error}", file=sys.stderr)
            failed.append(name)
    return failed


def interpreter(folder: Path, name: str) -> Path:
    """Return where the environment's Python is, whether or not it is there."""
    return folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def find_pythons(folder: Path | None) -> tuple[dict[str, str], list[str]]:
    """Return adapter → interpreter for those that can take part, and the others' names."""
    found, missing = {}, []
    for adapter, environment in ENVIRONMENTS.items():
        python = Path(sys.executable) if environment is None else folder and interpreter(folder, environment)
        if python and python.is_file():
            found[adapter] = str(python)
        else:
            missing.append(adapter)
    return found, missing
