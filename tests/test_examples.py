"""The examples do their whole job, on what comes with them."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, V4, load_example

EXAMPLE = ROOT / "examples" / "spam_classifier.py"


def run(*arguments, example=EXAMPLE, **environment):
    return subprocess.run(
        [sys.executable, example, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_spam_classifier_end_to_end(tmp_path):
    """With a tiny encoder of random weights: the whole way is walked, the score says nothing."""
    sample = ROOT / "examples" / "data" / "sms_sample.tsv"
    tiny = ("--handle", V4, "--max-length", 64, "--no-freeze-embeddings")
    result = run("--data", sample, *tiny, "--epochs", 2, "--batch-size", 8, "--output", tmp_path / "spam")
    assert result.returncode == 0, result.stderr[-4000:]
    assert "70 messages, 30 of them spam" in result.stdout
    assert re.search(r"^spam F1: [01]\.\d{3}$", result.stdout, flags=re.MULTILINE)
    served = re.findall(r"^(?:spam|ham) +[01]\.\d{3}  (\w+)", result.stdout, flags=re.MULTILINE)
    assert served == ["Congratulations", "Are", "URGENT"]
    assert sorted(os.listdir(tmp_path / "spam")) == ["saved_model", "spam.keras"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ham\thello\nnonsense\n", "line 2: expected 2 columns between tabs, the first of them 'ham' or 'spam'"),
        ("ham\thello\nham\tbye\n", "at least two of the labels 'ham', 'spam'"),
    ],
)
def test_data_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "data.tsv").write_text(content)
    result = run("--data", tmp_path / "data.tsv")
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_without_data_and_network_the_sample_is_used(monkeypatch):
    module = load_example("spam_classifier")

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(module, "SHARED_DATA", ROOT / "nowhere.tsv")
    monkeypatch.setattr(module.keras.utils, "get_file", no_network)
    path = module.find_data()
    assert path == module.SAMPLE_DATA
    texts, labels = module.read_messages(path)
    parts = module.split(texts, labels)
    assert sum(len(part[0]) for part in parts) == len(texts) == len({t for part in parts for t in part[0]})


def test_import_any_bert(tmp_path):
    example = ROOT / "examples" / "import_any_bert.py"
    result = run(V4, "--text", "an apple", "--output", tmp_path / "hub", example=example)
    assert result.returncode == 0, result.stderr[-4000:]
    assert re.search(r"attention_mask_constant +-1000000000.0", result.stdout)
    assert re.search(r"^  \[CLS\] +\d+\.\d{3} +\d+\.\d{3}$", result.stdout, flags=re.MULTILINE)
    assert "the weights are the same: True" in result.stdout
    assert sorted(os.listdir(tmp_path / "hub")) == ["encoder", "preprocessing"]

    result = run(tmp_path, example=example)
    assert result.returncode != 0
    assert "neither saved_model.pb nor config.json" in result.stderr
    assert "Traceback" not in result.stderr
