"""`keras-bert-trend embed`: every format, in order, in bounded memory, and the same file after any interruption."""

import io
import json
import os
import sys

import numpy as np
import pytest

from keras_bert_trend import BertTrend, embed
from keras_bert_trend.cli import embed as embed_command
from keras_bert_trend.cli import main, partial, vector_files
from tests.common import SENTENCES, V4
from tests.test_cli import run

TEXTS = [*SENTENCES, "the river", "", "ünïcödé 漢字 \u2028 is one line", "I will"]
SUFFIXES = list(vector_files.SUFFIXES)


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, sequence_length=None, truncate=True, trainable=False)


@pytest.fixture(autouse=True)
def _loaded_once(layer, monkeypatch):
    monkeypatch.setattr(embed_command, "load_layer", lambda arguments: layer)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


def read_back(path) -> tuple[list[str] | None, np.ndarray]:
    """Return the texts, where the file has them, and the vectors."""
    suffix = path.suffix
    if suffix == ".npy":
        return None, np.load(path)
    if suffix == ".npz":
        with np.load(path) as arrays:
            return None, arrays["embeddings"]
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        return [row["text"] for row in rows], np.array([row["embedding"] for row in rows])
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    vectors = table["embedding"].combine_chunks()
    width = vectors.type.list_size
    return table["text"].to_pylist(), vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary"])
def test_every_format_and_precision(suffix, precision, file, layer, capsys, tmp_path):
    output = tmp_path / f"vectors{suffix}"
    options = ("--precision", precision, "--pooling", "mean,max", "--normalize", "--truncate-dim", "20")
    status, out, err = run(capsys, "embed", file, "--output", output, *options, "--chunk-size", 4)
    assert (status, out) == (0, ""), err
    texts, vectors = read_back(output)
    assert texts in (None, TEXTS)
    chosen = {"pooling": ["mean", "max"], "normalize": True, "truncate_dim": 20}
    expected = embed(TEXTS, layer, **chosen, precision=precision)
    if suffix != ".jsonl":
        assert vectors.dtype == expected.dtype
    steps = {"int8": 1, "binary": 255}.get(precision, 1e-3 if precision == "float16" else 1e-5)  # rounding, at an edge
    assert vectors.shape == expected.shape
    assert np.all(np.abs(vectors.astype("float64") - expected.astype("float64")) <= steps)
    assert np.mean(vectors == expected.astype(vectors.dtype)) > 0.9 or precision.startswith("float")
    assert sorted(os.listdir(tmp_path)) == sorted([file.name, output.name])


def test_npy_is_what_numpy_writes(file, capsys, tmp_path):
    assert run(capsys, "embed", file, "--output", tmp_path / "a.npy", "--chunk-size", 3)[0] == 0
    buffer = io.BytesIO()
    np.save(buffer, np.load(tmp_path / "a.npy"))
    assert (tmp_path / "a.npy").read_bytes() == buffer.getvalue()


def test_int8_with_given_ranges_and_those_that_npz_keeps(file, layer, capsys, tmp_path):
    options = ("--precision", "int8", "--pooling", "mean")
    assert run(capsys, "embed", file, "--output", tmp_path / "a.npz", *options)[0] == 0
    with np.load(tmp_path / "a.npz") as arrays:
        np.save(tmp_path / "ranges.npy", arrays["ranges"])
        first = arrays["embeddings"]
    options = (*options, "--ranges", tmp_path / "ranges.npy")
    assert run(capsys, "embed", file, "--output", tmp_path / "b.npy", *options)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), first)


@pytest.mark.parametrize(
    "ranges",
    [
        np.array([[0.0, np.nan], [1, 1]]),
        np.array([[0.0, 2], [1, 1]]),
        np.zeros(2),
        np.array([["a"], ["b"]]),
        b"",
        b"text",
    ],
)
def test_ranges_that_cannot_be_used(ranges, file, capsys, tmp_path):
    path = tmp_path / "ranges.npy"
    path.write_bytes(ranges) if isinstance(ranges, bytes) else np.save(path, ranges)
    options = ("--precision", "int8", "--ranges", path)
    status, out, err = run(capsys, "embed", file, "--output", tmp_path / "a.npy", *options)
    assert (status, out) == (2, "")
    assert f"--ranges {str(path)!r} must be a .npy file of finite numbers" in err


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.tsv", 'label\ttext\nx\tthe bank\ny\t"good\nz\t\n', ["--column", "text"]),
        ("a.tsv", 'x\tthe bank\ny\t"good\nz\t\n', ["--column", "2"]),
        ("a.tsv", '1\ttext\nx\tthe bank\ny\t"good\nz\t\n', ["--column", "2", "--header"]),
        ("a.csv", 'text,label\r\nthe bank,x\r\n"""good",y\r\n"",z\r\n', ["--column", "text"]),
        ("a.jsonl", '{"text": "the bank"}\n\n{"text": "\\"good"}\n{"text": ""}\n', []),
        ("a.dat", '{"a": 1, "q": "the bank"}\n{"q": "\\"good"}\n{"q": ""}', ["--format", "jsonl", "--field", "q"]),
        ("a.txt", '\ufeffthe bank\r\n"good\r\n\r\n', []),
        ("-", 'the bank\n"good\n\n', []),
    ],
)
def test_inputs(name, content, options, layer, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    else:
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    status, _, err = run(capsys, "embed", name, "--output", "a.out.jsonl", "--pooling", "mean", *options)
    assert status == 0, err
    texts, vectors = read_back(tmp_path / "a.out.jsonl")
    assert texts == ["the bank", '"good', ""]
    np.testing.assert_allclose(vectors, embed(texts, layer, pooling="mean"), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", b"good\n\xff\n", [], "a.txt, line 2 is not UTF-8"),
        ("a.txt", "good".encode("utf-16"), [], "a.txt begins with the byte order mark of UTF-16. Save it as UTF-8"),
        ("a.tsv", b"a\tb\nc\n", ["--column", "2"], "a.tsv, line 2 has 1 columns, but column 2 is asked for"),
        ("a.tsv", b"ham\tgood\n", [], "a.tsv has 2 columns; its first line is ['ham', 'good']. Say with --column"),
        ("a.tsv", b"a\tb\n", ["--column", "text"], "a.tsv has no column 'text'; its first line is ['a', 'b']"),
        ("a.tsv", b"a\tb\n", ["--column", "²"], "a.tsv has no column '²'; its first line is ['a', 'b']. Give a number"),
        ("a.tsv", b"a\tb\n", ["--column", "0"], "a.tsv has no column '0'"),
        ("a.jsonl", b'{"text": "a"}\nb\n', [], "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 200_000 + b"\n", [], "a.jsonl, line 2 is nested too deeply"),
        (
            "a.jsonl",
            b'{"text": null, "a": 1}\n',
            [],
            "line 1 has no field 'text' with a text. Its fields are ['text', 'a']",
        ),
        ("a.jsonl", b'{"text": NaN}\n', [], "a.jsonl, line 1, field 'text' is nan"),
        ("a.jsonl", b'{"text": "ab\\ud800"}\n', [], "a.jsonl, line 1, field 'text' is not valid Unicode: character 3"),
        ("a.csv", b'"a\n', [], "a.csv, line 1 is not CSV"),
    ],
)
def test_inputs_that_cannot_be_read(name, content, options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    status, out, err = run(capsys, "embed", name, "--output", "b.npy", *options)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "b.npy").exists()
    if "line 2" not in message:  # found before the model was read
        assert not (tmp_path / "b.npy.partial").exists()


def test_pairs(layer, capsys, tmp_path):
    (tmp_path / "a.tsv").write_text("q\ta\nthe bank\tis good\nriver\t\n")
    arguments = ("embed", tmp_path / "a.tsv", "--column", "q", "--pair-column", "a", "--output", tmp_path / "a.jsonl")
    assert run(capsys, *arguments, "--pooling", "mean")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(row["text"], row["pair"]) for row in rows] == [("the bank", "is good"), ("river", "")]
    expected = embed([("the bank", "is good"), ("river", "")], layer, pooling="mean")
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], "float32"), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_no_texts_give_no_rows(suffix, precision, capsys, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    output = tmp_path / f"vectors{suffix}"
    status, _, err = run(capsys, "embed", tmp_path / "empty.txt", "--output", output, "--precision", precision)
    assert status == 0, err
    texts, vectors = read_back(output)
    assert not texts
    assert len(vectors) == 0
    if suffix != ".jsonl":
        assert (vectors.shape, vectors.dtype) == ((0, 32), precision)


def interrupted(monkeypatch, method: str, calls: int, owner=partial.PartialVectors):
    """Let Ctrl-C come in the `calls`-th call of a function, before it does anything, or halfway in `append`."""
    original = getattr(owner, method)
    count = 0

    def interrupt(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            if method == "append":  # the rows are half written, and do not count
                args[0]._vectors.write(b"half a row")
                args[0]._vectors.flush()
                args[0]._texts.write(b'["half a te')
                args[0]._texts.flush()
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, interrupt)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resumed_runs_give_the_same_file(suffix, file, capsys, tmp_path, monkeypatch):
    options = ("--chunk-size", 3, "--pooling", "mean", "--precision", "int8" if suffix == ".npz" else "float32")
    assert run(capsys, "embed", file, "--output", tmp_path / f"whole{suffix}", *options)[0] == 0
    expected = (tmp_path / f"whole{suffix}").read_bytes()

    output = tmp_path / f"again{suffix}"
    stops = [("append", 1, 0), ("append", 1, 0), ("append", 3, 6), ("skip", 1, 6), ("vectors", 1, len(TEXTS))]
    for method, calls, rows in [*stops, ("write_vectors", 1, len(TEXTS))]:
        owner = embed_command if method == "write_vectors" else partial.PartialVectors
        with monkeypatch.context() as patch:
            interrupted(patch, method, calls, owner)
            status, _, err = run(capsys, "embed", file, "--output", output, *options)
        assert status == 130
        assert f"interrupted. {rows} texts are done" in err
        assert not output.exists()
    status, _, err = run(capsys, "embed", file, "--output", output, *options)
    assert status == 0
    assert f"going on after {len(TEXTS)} texts" in err
    assert output.read_bytes() == expected
    assert not (tmp_path / f"again{suffix}.partial").exists()


@pytest.fixture
def stopped(file, capsys, tmp_path, monkeypatch):
    """A run that was stopped after six texts; returns its arguments."""
    arguments = ["embed", file, "--output", tmp_path / "a.npy", "--chunk-size", 3, "--pooling", "mean"]
    with monkeypatch.context() as patch:
        interrupted(patch, "append", 3)
        assert run(capsys, *arguments)[0] == 130
    return arguments


def test_other_settings_or_another_input_are_refused(stopped, file, capsys, tmp_path):
    for options, name in [
        (["--pooling", "max"], "pooling"),
        (["--normalize"], "normalize"),
        (["--chunk-size", 4], "chunk"),
    ]:
        status, _, err = run(capsys, *stopped[:-2], *options)
        assert status == 1
        assert "was begun with other settings" in err
        assert name in err
    file.write_text("other\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    status, _, err = run(capsys, *stopped)
    assert status == 1
    assert "its first 6 texts are not those of this run" in err
    file.write_text("the bank\n")
    assert run(capsys, *stopped)[0] == 1, "shorter than what is done"
    assert run(capsys, *stopped, "--restart")[0] == 0
    assert np.load(tmp_path / "a.npy").shape == (1, 32)
    status, _, err = run(capsys, *stopped)
    assert status == 1
    assert "exists already" in err
    assert run(capsys, *stopped, "--overwrite")[0] == 0


def test_a_damaged_or_busy_partial_run(stopped, capsys, tmp_path):
    folder = tmp_path / "a.npy.partial"
    if sys.platform != "win32":
        import fcntl

        with open(folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            status, _, err = run(capsys, *stopped)
        assert status == 1
        assert "another process" in err
    state = (folder / "state.json").read_text()
    for damaged in ("", "[]", '{"rows": "x"}', state[:-20], state.replace('"rows": 6', '"rows": 7')):
        (folder / "state.json").write_text(damaged)
        status, out, err = run(capsys, *stopped)
        assert (status, out) == (2, "")
        assert "a.npy.partial is damaged (" in err
        assert "Give --restart to begin anew." in err
    (folder / "state.json").unlink()  # as if it had been killed before the first chunk
    status, _, err = run(capsys, *stopped)
    assert status == 0, err
    assert "going on" not in err
    assert np.load(tmp_path / "a.npy").shape == (len(TEXTS), 32)


def test_other_ranges_are_other_settings(file, capsys, tmp_path, monkeypatch):
    """However many dimensions there are: NumPy shortens what it prints of large arrays."""
    ranges = np.stack([np.full(704, -9.0), np.full(704, 9.0)])  # 22 poolings, each 32 wide
    np.save(tmp_path / "ranges.npy", ranges)
    poolings = ",".join(["mean", "max"] * 11)
    options = ("--pooling", poolings, "--precision", "int8", "--ranges", tmp_path / "ranges.npy", "--chunk-size", 3)
    arguments = ("embed", file, "--output", tmp_path / "a.npy", *options)
    with monkeypatch.context() as patch:
        interrupted(patch, "append", 2)
        assert run(capsys, *arguments)[0] == 130
    ranges[1, 300] = 8
    np.save(tmp_path / "ranges.npy", ranges)
    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "ranges was" in err


def test_trimmed_texts_are_one_warning(capsys, tmp_path):
    (tmp_path / "long.txt").write_text("good " * 100 + "\n")
    status, out, err = run(capsys, "embed", tmp_path / "long.txt", "--output", tmp_path / "a.npy", "--max-length", 8)
    assert (status, out) == (0, "")
    assert err.startswith("keras-bert-trend: warning: 1 of 1 texts have more than 8 tokens and were trimmed.")
    assert err.count("\n") == 2


def test_long_texts_in_windows(layer, capsys, tmp_path):
    (tmp_path / "long.txt").write_text("good " * 30 + "\n")
    options = ("--max-length", 8, "--long-texts", "mean", "--stride", 4)
    status, _, err = run(capsys, "embed", tmp_path / "long.txt", "--output", tmp_path / "a.npy", *options)
    assert (status, "trimmed" in err) == (0, False)
    expected = embed(["good " * 30], layer, max_length=8, long_texts="mean", stride=4)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-6)


def test_progress_when_asked_for(file, capsys, tmp_path):
    assert "Embedding" not in run(capsys, "embed", file, "--output", tmp_path / "a.npy")[2]
    assert f"{len(TEXTS)}/{len(TEXTS)}" in run(capsys, "embed", file, "--output", tmp_path / "b.npy", "--progress")[2]


def test_the_model_may_have_changed(stopped, capsys, monkeypatch):
    other = BertTrend(V4, sequence_length=None, truncate=True, trainable=False)
    variable = other.encoder.weights[0]
    variable.assign(variable + 1)
    monkeypatch.setattr(embed_command, "load_layer", lambda arguments: other)
    status, _, err = run(capsys, *stopped)
    assert status == 1
    assert "model was" in err


def test_main_is_what_the_script_calls():
    assert main(["embed", "--help"]) == 0
