"""`keras-bert-trend train`, `predict` and `compare`: labelled texts to a classifier, and its classes by name."""

import contextlib
import io
import json
import os
import sys

import keras
import numpy as np
import pytest

from keras_bert_trend.cli import classifier
from keras_bert_trend.cli.reading import TextFile, read_labelled
from keras_bert_trend.embedding.keras_files import layer_of, load_keras_model
from tests.common import V4
from tests.test_cli import run

pytest.importorskip("sklearn")

from keras_bert_trend.cli.scores import draw_confusion, score, split, table

WORDS = {"river": "the river is good", "bank": "a great bank", 'größe, "x"': "hello I will"}
PAIRED = {"0": ("the river", "hello"), "1": ("the bank", "is great")}
OPTIONS = ("--model", V4, "--epochs", 2, "--pooling", "mean", "--learning-rate", 0.01, "--no-freeze-embeddings")


def table_of(rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three classes that a few words tell apart, every text twice."""
    rows = [(label, f"{text} {'and ' * (i % 3)}{'! ' * (i // 3)}") for i in range(12) for label, text in WORDS.items()]
    path = tmp_path_factory.mktemp("data") / "labelled.tsv"
    path.write_text("Class\tText\n" + table_of(rows * 2), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(labelled):
    """A trained folder, and what was printed."""
    output, (stdout, stderr) = labelled.parent / "model", (io.StringIO(), io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        from keras_bert_trend.cli import main

        status = main([str(part) for part in ("train", labelled, "--output", output, *OPTIONS, "--epochs", 6)])
    assert status == 0, stderr.getvalue()
    return output, stdout.getvalue(), stderr.getvalue()


def test_train_writes_everything(trained):
    output, printed, said = trained
    names = ["confusion_matrix.png", "labels.json", "metrics.json", "model.keras", "saved_model"]
    assert sorted(os.listdir(output)) == names
    assert (output / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rows"] == {"training": 56, "validation": 16}
    assert len(metrics["epochs"]) == 6
    assert metrics["settings"]["learning_rate"] == 0.01
    assert set(metrics["validation"]["classes"]) == set(WORDS)
    assert metrics["validation"]["accuracy"] == 1.0
    assert np.trace(metrics["validation"]["confusion"]) == 16
    assert "56 rows to train on, 16 to validate, 3 classes" in printed
    assert "macro F1" in printed
    assert said.count("\n") == 7, "a line for the guessed header, and one for each epoch"


@pytest.mark.parametrize("part", ["", "model.keras", "saved_model"])
def test_predict_gives_names(part, trained, capsys):
    status, out, err = run(capsys, "predict", trained[0] / part, "a great\tbank", "the river is good", "--all")
    assert (status, err) == (0, "")
    header, *rows = [line.split("\t") for line in out.split("\n")[:-1]]
    assert header == ["label", "probability", *sorted(WORDS), "text"]
    assert [(row[0], row[-1]) for row in rows] == [("bank", "a great bank"), ("river", "the river is good")]
    for row in rows:
        numbers = np.array(row[1:-1], float)
        assert numbers[0] == numbers[1:].max()
        assert numbers[1:].sum() == pytest.approx(1, abs=1e-5)


def test_predict_keeps_the_order_and_streams(trained, labelled, capsys, tmp_path, monkeypatch):
    rows = [line.split("\t") for line in labelled.read_text(encoding="utf-8").split("\n")[1:-1]]
    arguments = ["predict", trained[0], labelled, "--column", "Text", "--chunk-size", 7]
    assert run(capsys, *arguments, "--output", tmp_path / "a.jsonl")[0] == 0
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["label"], row["text"]) for row in found] == [tuple(row) for row in rows]
    assert all(0 < row["probability"] <= 1 for row in found)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a great bank\n\n")))
    status, out, _ = run(capsys, "predict", trained[0], "-", "--jsonl", "--all")
    first, second = (json.loads(line) for line in out.splitlines())
    assert status == 0
    assert (first["label"], second["text"]) == ("bank", "")
    assert list(first["probabilities"]) == sorted(WORDS)

    (tmp_path / "empty.txt").write_text("")
    assert run(capsys, "predict", trained[0], tmp_path / "empty.txt") == (0, "label\tprobability\ttext\n", "")


def test_the_trained_encoder_is_a_model_for_the_others(trained, capsys, tmp_path):
    status, out, _ = run(capsys, "info", trained[0], "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["classes"] == sorted(WORDS)
    assert facts["validation"]["accuracy"] == 1.0
    assert facts["pooling"] == "mean"
    (tmp_path / "a.txt").write_text("the bank\n")
    options = ("--model", trained[0], "--output", tmp_path / "a.npy")  # its own pooling
    assert run(capsys, "embed", tmp_path / "a.txt", *options)[0] == 0
    layer = layer_of(load_keras_model(str(trained[0] / "model.keras")), "")
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), layer(["the bank"]), atol=1e-5)


def test_pairs_and_a_validation_file(capsys, tmp_path):
    rows = [(label, first, f"{second} {'and ' * i}") for i in range(8) for label, (first, second) in PAIRED.items()]
    (tmp_path / "train.tsv").write_text(table_of(rows))
    (tmp_path / "dev.tsv").write_text(table_of(rows[:4]))
    columns = ("--label-column", 1, "--text-column", 2, "--pair-column", 3)
    arguments = ["train", tmp_path / "train.tsv", "--output", tmp_path / "m", *OPTIONS, *columns]
    status, out, err = run(capsys, *arguments, "--validation-file", tmp_path / "dev.tsv", "--freeze-bert")
    assert status == 0, err
    assert "4 rows of" in out
    assert "12 rows to train on, 4 to validate, 2 classes" in out
    predicted = []
    for part in ("model.keras", "saved_model"):
        status, out, err = run(capsys, "predict", tmp_path / "m" / part, "the river", "hello", "the bank", "is great")
        assert status == 0, err
        predicted.append(out)
        assert [line.split("\t")[2:] for line in out.splitlines()[1:]] == [
            ["the river", "hello"],
            ["the bank", "is great"],
        ]
    assert predicted[0] == predicted[1]
    assert run(capsys, "predict", tmp_path / "m", "the river")[0] == 2
    (tmp_path / "pairs.tsv").write_text("the river\thello\n")
    status, out, _ = run(capsys, "predict", tmp_path / "m", tmp_path / "pairs.tsv")
    assert out.splitlines() == predicted[0].splitlines()[:2]


def test_an_interrupted_training_leaves_nothing(labelled, capsys, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "fit", stop)
    assert run(capsys, "train", labelled, "--output", tmp_path / "m", *OPTIONS)[0] == 130
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(classifier, "fit", lambda *args: [])
    monkeypatch.setattr(keras.Model, "export", stop)
    assert run(capsys, "train", labelled, "--output", tmp_path / "m", *OPTIONS)[0] == 130
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("a\tx\na\ty\n", "has only one class, 'a'"),
        ("a\tx\na\ty\nb\tz\nb\tz\n", "The class 'b' has fewer than two different texts"),
        ("a\tx\na\n", "line 2 has 1 columns"),
        ("a\tx\n\ty\na\tx\n", "row 2 has an empty label"),
    ],
)
def test_data_that_cannot_be_trained_on(content, message, capsys, tmp_path):
    (tmp_path / "a.tsv").write_text(content)
    status, out, err = run(capsys, "train", tmp_path / "a.tsv", "--output", tmp_path / "m", *OPTIONS)
    assert (status, out) == (2, "")
    assert message in err
    assert os.listdir(tmp_path) == ["a.tsv"]


def test_a_label_that_is_not_a_number_is_refused(capsys, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"label": 0, "text": "x"}\n{"label": NaN, "text": "y"}\n')
    status, out, err = run(capsys, "compare", tmp_path / "a.jsonl", "--model", V4)
    assert (status, out) == (2, "")
    assert "a.jsonl, line 2, field 'label' is nan, a missing value. Give a text, or remove the line." in err


@pytest.mark.parametrize(
    ("content", "columns", "header", "count"),
    [
        ("label\ttext\na\tx\na\ty\n", ("1", "2"), None, 2),
        ("a\tx\na\ty\n", ("1", "2"), None, 2),
        ("a\tx\nb\ty\nb\tz\n", ("1", "2"), False, 3),
        ("a\tx\na\ty\n", ("1", "2"), True, 1),
        ("text\tlabel\nx\ta\n", ("label", "text"), None, 1),
    ],
)
def test_headers(content, columns, header, count, tmp_path):
    (tmp_path / "a.tsv").write_text(content)
    guessed = content.startswith("label") and header is None
    context = pytest.warns(UserWarning, match="--no-header if it is a text") if guessed else contextlib.nullcontext()
    with context:
        assert len(read_labelled(TextFile(str(tmp_path / "a.tsv"), "tsv", columns, header))) == count


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_keeps_shares_and_texts_together(seed):
    rows = [(label, f"{label} {i}") for label, count in (("a", 80), ("b", 20)) for i in range(count)] * 2
    train, validation = split(rows, 0.25, seed)
    assert sorted(train + validation) == sorted(rows)
    assert not {row[1:] for row in train} & {row[1:] for row in validation}
    assert [sum(row[0] == label for row in validation) for label in "ab"] == [40, 10]
    assert split(rows, 0.25, seed) == (train, validation)
    assert split(rows, 0.25, seed + 1) != (train, validation)


def test_scores():
    scores = score([0, 0, 1, 1], [0, 1, 1, 1], ["no", "yes", "never"])
    assert scores["accuracy"] == 0.75
    assert scores["classes"]["no"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert scores["classes"]["never"]["f1"] == 0
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert scores["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert "never" in table(scores)
    axes = draw_confusion(scores).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes", "never"]


# compare


def test_compare_prints_a_table_and_writes_data(labelled, capsys, tmp_path):
    options = ("--model", V4, "--pooling", "mean,cls", "--folds", 3, "--seed", 1)
    status, out, err = run(capsys, "compare", labelled, *options, "--output", tmp_path / "a.json")
    assert status == 0
    assert err.startswith("keras-bert-trend: warning: the first line of ")
    assert err.count("\n") == 1
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert {row["pooling"] for row in data["poolings"]} == {"mean", "cls", "majority class"}
    assert (data["folds"], data["seed"], data["texts"]) == (3, 1, 72)
    assert {row["class"] for row in data["classes"]} == set(WORDS)
    assert all(name in out for name in ("mean", "cls", data["metric"]))


def test_compare_takes_pairs_and_draws(capsys, tmp_path):
    rows = [{"label": label, "q": a, "a": f"{b} {'and ' * i}"} for i in range(6) for label, (a, b) in PAIRED.items()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--text-field", "q", "--pair-field", "a", "--model", V4, "--pooling", "mean", "--folds", 2)
    status, out, err = run(capsys, "compare", tmp_path / "a.jsonl", *columns, "--output", tmp_path / "a.png")
    assert status == 0, err
    assert "mean" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
