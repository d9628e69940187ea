"""The shell command: what every sub-command takes, prints and refuses, and with which exit status."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_bert_trend import BertTrend, embed, explain
from keras_bert_trend.cli import main
from tests.common import ROOT, SENTENCES, V4, run_fresh

MODEL = ("--model", str(V4))


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command in this process; return its exit status, stdout and stderr."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


COMMANDS = ("embed", "explain", "compare", "train", "predict", "export", "import", "info")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples(name, capsys):
    status, out, err = run(capsys, name, "--help")
    assert (status, err) == (0, "")
    assert f"keras-bert-trend {name}" in out.partition("examples:")[2]


def test_help_and_wrong_usage_need_no_keras():
    arguments = [
        *([name, "--help"] for name in COMMANDS),
        ["--version"],
        ["embed", "a.txt", "--output", "a.xlsx"],
        ["embed", "a.txt", "--output", "a.npy", "--pooling", "mode"],
        ["explain", "text", "--measure", "mode"],
    ]
    code = """
        import json, sys
        from keras_bert_trend.cli import main
        statuses = [main(arguments) for arguments in json.loads(sys.argv[1])]
        assert "keras" not in sys.modules and "tensorflow" not in sys.modules
        print(json.dumps(statuses))
    """
    printed = run_fresh(code, json.dumps(arguments))
    assert json.loads(printed.split("\n")[-2]) == [0] * 9 + [2] * 3


def test_a_script_may_be_called_like_the_command(tmp_path):
    script = tmp_path / "keras-bert-trend"
    script.write_text(
        "from keras_bert_trend import POOLING_NAMES, UnsupportedArchitectureError\nprint(POOLING_NAMES[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=900)
    assert (ended.returncode, ended.stdout) == (0, "trend\n"), ended.stderr


def test_a_process_says_nothing_but_its_result(tmp_path):
    command = [sys.executable, "-m", "keras_bert_trend", "explain", "the bank", *MODEL]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ended = subprocess.run(
        [*command, "--reading", "layers"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{explain('the bank', V4, reading='layers')}\n"


def test_the_reader_of_a_pipe_may_go_away(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert main(["info", str(V4)]) == 0


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
        ["explain", "text", "--output", ""],
        ["train", "a.tsv", "--output", ""],
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


@pytest.mark.parametrize(
    "command", [["embed", "a.txt"], ["explain", "text"], ["compare", "a.tsv"], ["predict", "m", "t"]]
)
def test_a_folder_is_not_replaced_by_a_file(command, capsys, tmp_path):
    suffix = {"embed": ".npy", "explain": ".html", "compare": ".json", "predict": ".tsv"}[command[0]]
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    status, out, err = run(capsys, *command, "--output", folder, "--overwrite")
    assert (status, out) == (2, "")
    assert "is a folder. Give a file name that ends in " in err
    assert suffix in err
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("arguments", "which"), [(["explain", "ok\udcff"], "TEXT"), (["predict", V4, "good", "ok\udcff"], "Text 2")]
)
def test_a_text_that_is_not_unicode_is_named(arguments, which, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert f"{which} is not valid Unicode: character 3, '\\udcff', is half of a surrogate pair" in err


@pytest.mark.smoke
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
    assert "SHA-256" not in out


def test_info_prints_what_pins_an_archive(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    file = shutil.make_archive(str(tmp_path / "model"), "gztar", V4)
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    for handle in (file, f"{file}#sha256={sha256}"):
        status, out, _ = run(capsys, "info", handle)
        assert status == 0
        assert sha256 in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 10**9}, "`num_layers` must be at most 1000"),
        ({"vocab_size": 10**12}, "which it is too small to hold"),
        ({"hidden_size": 2**20}, "which it is too small to hold"),
    ],
)
def test_a_keras_file_that_describes_more_than_it_holds(change, message, capsys, tmp_path):
    text = keras.Input((), dtype="string")
    keras.Model(text, BertTrend(V4, sequence_length=8)(text)).save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    ((name, value),) = change.items()
    found = re.sub(rb'"%s": \d+' % name.encode(), b'"%s": %d' % (name.encode(), value), files["config.json"])
    with zipfile.ZipFile(tmp_path / "large.keras", "w") as archive:
        for name, content in (files | {"config.json": found}).items():
            archive.writestr(name, content)
    assert run(capsys, "info", tmp_path / "small.keras")[0] == 0
    status, out, err = run(capsys, "info", tmp_path / "large.keras")
    assert (status, out) == (1, "")
    assert "large.keras cannot be loaded: " in err
    assert message in err


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
