"""What the tests share: where the fixtures are, and how to run code in a fresh process."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_bert_trend import BertConfig
from keras_bert_trend.encoder import INPUT_NAMES

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
SHARED = ROOT.parent / "shared"
V4 = FIXTURES / "bert_v4_like" / "saved_model"
#: The encoders that Google's exporters wrote, with their outputs.
RECORDED = (
    "bert_v4_like",
    "bert_exact_gelu",
    "bert_v3_2020",
    "bert_v2_2020",
    "bert_v1_2019",
    "electra_small_like",
    "albert",
    "talking_heads",
    "mobilebert",
)


def _has_avx512() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512f" in cpuinfo.read_text()


#: Whether TensorFlow's products give a text the same bits alone and among others: those for AVX-512 do. Others
#: round differently, so that exactness is shown in float64 there.
SAME_BITS = _has_avx512()
EXACT_DTYPE = "float32" if SAME_BITS else "float64"

SENTENCES = [
    "I want an apple.",
    "",
    "?!...",
    "bank",
    "The bank of the river was good, wasn't it?",
    "Hello, the naïve café is good!",
]


def find_fixture(name: str, model: str = "saved_model") -> Path | None:
    """Return a recorded model's folder: the copy in this repository, else the shared one, else `None`."""
    found = (base / name for base in (FIXTURES, SHARED / "fixtures") if (base / name / model).is_dir())
    return next(found, None)


def fixture_folder(name: str, model: str = "saved_model") -> Path:
    """Return a recorded model's folder, or skip."""
    folder = find_fixture(name, model)
    if folder is None:
        pytest.skip(f"the shared fixture {name} is not here")
    return folder


def run_fresh(code: str, *arguments: str, **environment: str) -> str:
    """Run Python code in a new process, in an empty environment of its own, and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def load_example(name: str):
    """Import an example, which finds its neighbours as it does when it is run."""
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def random_inputs(config: BertConfig, lengths, seq: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return encoder inputs with rows of these lengths, padded to `seq`."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), seq), "int32")
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = generator.integers(1, config.vocab_size, length)
        mask[row, :length] = 1
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": np.zeros_like(ids)}


def symbolic_inputs(seq: int | None = None) -> dict[str, keras.KerasTensor]:
    return {name: keras.Input((seq,), dtype="int32", name=name) for name in INPUT_NAMES}


def to_numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def assert_same(actual, expected) -> None:
    """Assert that two results of `EXACT_DTYPE` are the same, to the last bit if this processor allows that."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0 if SAME_BITS else 1e-8)
