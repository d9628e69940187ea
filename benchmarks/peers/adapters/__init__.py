"""One module a contender: how each library does what the tasks ask for."""

from __future__ import annotations

import importlib
from pathlib import Path

#: adapter → the environment it runs in; `None` is the interpreter that runs the comparison.
ENVIRONMENTS = {
    "ours": None,
    "tf_hub": None,
    "keras_hub": "keras_hub",
    "pytorch": "torch",
    "sentence_transformers": "torch",
    "onnx_runtime": "torch",
    "model_garden": "model_garden",
}


def make_adapter(name: str, work: Path, threads: int):
    """Return the adapter of this name, its framework imported and set to so many threads."""
    module = importlib.import_module(f"peers.adapters.{name}_adapter")
    return module.Adapter(work, threads)
