"""The shell command: what every sub-command takes, prints and refuses, and with which exit status."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_bert_trend import POOLING_NAMES, embed, explain
from keras_bert_trend.cli import main
from keras_bert_trend.cli.options import POOLINGS
from tests.common import ROOT, SENTENCES, V4

MODEL = ("--model", str(V4))


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command in this process; return its exit status, stdout and stderr."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_help_and_wrong_usage_need_no_tensorflow(tmp_path):
    code = (
        "import sys; from keras_bert_trend.cli import main; status = main(); sys.exit('keras' in sys.modules or status)"
    )
    (tmp_path / "keras-bert-trend").write_text(code)  # what the console script does, under its name

    def status(*arguments):
        command = [sys.executable, str(tmp_path / "keras-bert-trend"), *arguments]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
        )

    for name in ("embed", "explain", "compare", "train", "predict", "import", "info"):
        helped = status(name, "--help")
        assert (helped.returncode, helped.stderr) == (0, "")
        assert f"keras-bert-trend {name}" in helped.stdout.partition("examples:")[2]
    assert status("--version").stdout.startswith("keras-bert-trend ")
    assert status("embed", "a.txt", "--output", "a.xlsx").returncode == 2
    assert "is no pooling" in status("embed", "a.txt", "--output", "a.npy", "--pooling", "mode").stderr


def test_a_process_says_nothing_but_its_result(tmp_path):
    """TensorFlow's start is silent, the reader of a pipe may go away, and Keras finds the layers of a trained model."""
    command = [sys.executable, "-m", "keras_bert_trend", "explain", "the bank", *MODEL]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ended = subprocess.run(
        [*command, "--reading", "layers"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{explain('the bank', V4, reading='layers')}\n"


def test_the_reader_of_a_pipe_may_go_away(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert main(["info", str(V4)]) == 0


def test_the_options_know_every_pooling():
    assert POOLINGS == POOLING_NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "nowhere.txt", "--output", "a.npy"], "nowhere.txt: No such file or directory"),
        (["info", "nowhere"], "'nowhere' does not exist"),
        (["predict", "nowhere", "text"], "nowhere does not exist"),
        (["import", "nowhere", "--output", "folder"], "'nowhere' does not exist"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"keras-bert-trend {arguments[0]}: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []
    with pytest.raises((OSError, ValueError)):
        main([*arguments, "--debug"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explain"],
        ["explain", "text", "--output", "a.doc"],
        ["embed", "a.txt", "--output", "a.npy", "--batch-size", "0"],
        ["embed", "a.txt", "--output", "a.npy", "--ranges", "r.npy"],
        ["embed", "a.txt", "--format", "text", "--column", "1", "--output", "a.npy"],
        ["train", "a.tsv", "--output", "m", "--validation-split", "1"],
        ["train", "a.tsv", "--output", "m", "--validation-file", "-"],
        ["compare", "a.tsv", "--output", "a.npy"],
        ["predict", "m", "text", "--output", "a.npy"],
    ],
)
def test_wrong_usage(arguments, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert "error: " in err.split("\n")[-2]


def test_info(capsys):
    status, out, _ = run(capsys, "info", V4, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["architecture"]["num_heads"] == 4
    assert facts["parameters"] == 34_528
    assert facts["vocabulary"].startswith("177 ")
    assert facts["lower case"] is True
    status, out, _ = run(capsys, "info", V4)
    assert status == 0
    assert "34,528" in out


@pytest.mark.parametrize("suffix", [".txt", ".html", ".json", ".png"])
def test_explain_to_a_file(suffix, capsys, tmp_path):
    text = "Hello, <the naïve café> is good!"
    path = tmp_path / f"explained{suffix}"
    arguments = ["explain", text, *MODEL, "--output", path, "--unit", "word", "--measure", "asinh"]
    assert run(capsys, *arguments) == (0, f"wrote {path}\n", "")
    expected = explain(text, V4, unit="word", measure="asinh")
    if suffix == ".png":
        assert path.read_bytes().startswith(b"\x89PNG")
    elif suffix == ".json":
        assert json.loads(path.read_text()) == json.loads(json.dumps(expected.to_dict()))
    elif suffix == ".txt":
        assert path.read_text() == f"{expected}\n"
    else:
        page = path.read_text()
        assert page.startswith("<!doctype html>")
        assert expected._repr_html_() in page
        assert "<the na" not in page
    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "exists already" in err
    assert os.listdir(tmp_path) == [path.name]


def test_import(capsys, tmp_path):
    status, out, err = run(capsys, "import", V4, "--output", tmp_path / "bert", "--sequence-length", 16)
    assert (status, err) == (0, "")
    encoder, preprocessing = out.split()
    np.testing.assert_array_equal(embed(SENTENCES, encoder), embed(SENTENCES, V4))
    from keras_bert_trend import BertPreprocessor

    assert BertPreprocessor.from_handle(preprocessing).sequence_length == 16
    assert run(capsys, "import", V4, "--output", tmp_path / "bert")[0] == 1
    assert os.listdir(tmp_path) == ["bert"]
