"""The example does the whole job, on the sample that comes with it."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "spam_classifier.py"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, EXAMPLE, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_spam_classifier_end_to_end(minilm_installed, tmp_path):
    sample = ROOT / "examples" / "data" / "sms_sample.tsv"
    result = run("--data", sample, "--epochs", 6, "--batch-size", 8, "--output", tmp_path / "spam")
    assert result.returncode == 0, result.stderr[-4000:]
    assert "70 messages, 30 of them spam" in result.stdout
    f1 = float(re.search(r"^spam F1: (0\.\d{3}|1\.000)$", result.stdout, flags=re.MULTILINE).group(1))
    assert f1 >= 0.6  # 14 messages to test on: one mistake costs 0.1
    served = re.findall(r"^(spam|ham) +\d\.\d{3}  (\w+)", result.stdout, flags=re.MULTILINE)
    assert [first for _, first in served] == ["Congratulations", "Are", "URGENT"]
    assert sorted(os.listdir(tmp_path / "spam")) == ["saved_model", "spam.keras"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("ham\thello\nnonsense\n", "line 2: expected 'ham' or 'spam'"), ("ham\thello\nham\tbye\n", "both ham and spam")],
)
def test_data_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "data.tsv").write_text(content)
    result = run("--data", tmp_path / "data.tsv")
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_without_data_and_network_the_sample_is_used(monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("spam_classifier", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(module, "SHARED_DATA", ROOT / "nowhere.tsv")
    monkeypatch.setattr(module.keras.utils, "get_file", no_network)
    path = module.find_data()
    assert path == module.SAMPLE_DATA
    texts, labels = module.read_messages(path)
    parts = module.split(texts, labels)
    assert sum(len(part[0]) for part in parts) == len(texts) == len({t for part in parts for t in part[0]})
