"""The examples do their whole job, on what comes with them."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.common import ROOT, V4, load_example

EXAMPLE = ROOT / "examples" / "spam_classifier.py"


def run(*arguments, example=EXAMPLE, **environment):
    return subprocess.run(
        [sys.executable, example, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_spam_classifier_end_to_end(tmp_path):
    """With a tiny encoder of random weights: the whole way is walked, the score says nothing."""
    sample = ROOT / "examples" / "data" / "sms_sample.tsv"
    tiny = ("--handle", V4, "--max-length", 64, "--no-freeze-embeddings")
    result = run("--data", sample, *tiny, "--epochs", 1, "--batch-size", 8, "--output", tmp_path / "spam")
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
def test_data_that_cannot_be_used(tmp_path, monkeypatch, content, message):
    (tmp_path / "data.tsv").write_text(content)
    monkeypatch.setattr(sys, "argv", ["spam_classifier.py", "--data", str(tmp_path / "data.tsv")])
    with pytest.raises(SystemExit, match=re.escape(message)):
        load_example("spam_classifier").main()


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


def test_import_any_bert(tmp_path, monkeypatch, capsys):
    main = load_example("import_any_bert").main
    hub = tmp_path / "hub"
    monkeypatch.setattr(sys, "argv", ["import_any_bert.py", str(V4), "--text", "an apple", "--output", str(hub)])
    main()
    printed = capsys.readouterr().out
    assert re.search(r"attention_mask_constant +-1000000000.0", printed)
    assert re.search(r"^  \[CLS\] +\d+\.\d{3} +\d+\.\d{3}$", printed, flags=re.MULTILINE)
    assert "the weights are the same: True" in printed
    assert sorted(os.listdir(hub)) == ["encoder", "preprocessing"]

    monkeypatch.setattr(sys, "argv", ["import_any_bert.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="neither saved_model.pb nor config.json"):
        main()


class TestBankSenses:
    EXAMPLE = ROOT / "examples" / "bank_senses.py"

    @pytest.fixture
    def module(self):
        import importlib.util

        spec = importlib.util.spec_from_file_location("bank_senses", self.EXAMPLE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_sentences(self, module):
        texts = [text for sentences in module.SENTENCES.values() for text in sentences]
        assert len(set(texts)) == 21
        assert [len(sentences) for sentences in module.SENTENCES.values()] == [7, 7, 7]
        for text in texts:
            assert len(re.findall(r"\bbank\b", text, flags=re.IGNORECASE)) == 1

    def test_measures(self, module):
        senses = np.array(["a", "a", "b", "b"])
        cosines = np.array([[1, 0.8, 0.1, 0.2], [0.8, 1, 0.3, 0.9], [0.1, 0.3, 1, 0.6], [0.2, 0.9, 0.6, 1]])
        names, means = module.averages(cosines, senses)
        assert names == ["a", "b"]
        np.testing.assert_allclose(means, [[0.8, 0.375], [0.375, 0.6]])
        np.testing.assert_allclose(module.within_and_between(cosines, senses), (0.7, 0.375))
        np.testing.assert_array_equal(module.nearest_neighbours(cosines), [1, 3, 3, 1])
        assert cosines[0, 0] == 1

    def test_the_senses_part_in_context(self, module, minilm_installed, tmp_path, monkeypatch, capsys):
        """The whole job; and the static embedding, which hardly knows, beside it."""
        pytest.importorskip("matplotlib")
        pytest.importorskip("sklearn")
        monkeypatch.setattr(sys, "argv", ["bank_senses.py", "--output", str(tmp_path)])
        module.main()
        printed = capsys.readouterr().out
        within, between = map(float, re.search(r"within a sense (\S+), between senses (\S+),", printed).groups())
        assert within > between
        right = int(re.search(r"the same sense: (\d+) of 21", printed)[1])
        assert right > 21 / 2  # a third by chance
        assert os.listdir(tmp_path) == ["bank_senses.png"]
        static = module.vectors_of_word(layers=[0])
        assert static.shape == (21, 384)
        senses = np.repeat(list(module.SENTENCES), 7)
        static_within, static_between = module.within_and_between(module.similarity(static), senses)
        assert static_within - static_between < within - between

    def test_a_model_that_is_not_there(self, module, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["bank_senses.py", "--model", "nowhere"])
        with pytest.raises(SystemExit, match="nowhere"):
            module.main()
