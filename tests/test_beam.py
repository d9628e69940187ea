"""Embedding on Apache Beam: every text once, under its key, with the vector that `embed` gives."""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_bert_trend import BertTrend, Embedder, embed
from keras_bert_trend.version import __version__
from tests.common import ROOT, SENTENCES, V4

beam = pytest.importorskip("apache_beam", reason="the extra beam is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

from apache_beam.ml.inference.base import RunInference  # noqa: E402

from keras_bert_trend.distributed.beam import EmbedTexts, TextEmbeddingHandler, _AsRecord, main  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.* were trimmed")
LONG = "the bank of the river is good " * 20
TEXTS = [*SENTENCES, "bank", LONG]
KEPT = collections.defaultdict(list)  # the runner works in this process


@pytest.fixture(scope="module")
def layer():
    return BertTrend(V4, pooling="mean", sequence_length=None, truncate=True, trainable=False)


def keep(element, name: str) -> None:
    KEPT[name].append(element)


def run(**collections) -> dict[str, int]:
    """Run the pipeline of some collections, keep their elements, and return what was counted."""
    KEPT.clear()
    for name, collection in collections.items():
        _ = collection | f"keep {name}" >> beam.Map(keep, name)
    result = collection.pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("keras_bert_trend"))["counters"]
    return {counter.key.metric.name: counter.result for counter in found}


@pytest.mark.parametrize("truncate", [True, False])
def test_keys_stay_with_their_vectors(layer, truncate):
    keyed = list(enumerate(TEXTS))
    wrong = [("none", None), ("number", 3), ("latin", "é".encode("latin-1"))]
    embedder = Embedder(V4, pooling="mean", truncate=truncate)
    pipeline = beam.Pipeline("FnApiRunner")
    texts = pipeline | beam.Create([*keyed[:5], *wrong, *keyed[5:], (0, TEXTS[0])])
    results = texts | EmbedTexts(embedder, batch_size=3)
    counts = run(embeddings=results.embeddings, rejected=results.rejected)
    fitting = len(TEXTS) - (not truncate)
    assert sorted(key for key, _ in KEPT["embeddings"]) == [0, *range(fitting)], "a key may occur twice"
    vectors = embed(TEXTS, layer)
    for key, vector in KEPT["embeddings"]:
        np.testing.assert_allclose(vector, vectors[key], atol=1e-5)
    reasons = {entry.key: entry.reason for entry in KEPT["rejected"]}
    assert reasons.pop("none") == "not a text: NoneType"
    assert reasons.pop("number") == "not a text: int"
    assert "not valid Unicode" in reasons.pop("latin")
    assert reasons == ({} if truncate else {len(TEXTS) - 1: "142 tokens, the limit is 64"})
    assert counts.pop("milliseconds") > 0
    tokens = np.minimum(embedder.token_counts([TEXTS[0], *TEXTS[:fitting]]), 64).sum()
    rejected = 3 + (not truncate)
    assert counts == {"texts": fitting + 1, "tokens": tokens, "trimmed": int(truncate), "rejected": rejected}


def test_run_inference(layer):
    handler = TextEmbeddingHandler(Embedder(V4, pooling="mean"), min_batch_size=4, max_batch_size=4)
    counts = run(results=beam.Pipeline("FnApiRunner") | beam.Create(SENTENCES) | RunInference(handler))
    results = sorted(KEPT["results"], key=lambda result: SENTENCES.index(result.example))
    assert [result.example for result in results] == SENTENCES
    assert {result.model_id for result in results} == {str(V4)}
    np.testing.assert_allclose([result.inference for result in results], embed(SENTENCES, layer), atol=1e-5)
    assert counts["texts"] == len(SENTENCES)


# The program


def write_lines(path, lines) -> None:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else f"{line}\n".encode() for line in lines))


def run_program(*arguments):
    main([*map(str, arguments), "--model", str(V4), "--pooling", "mean", "--runner", "FnApiRunner"])


def read(folder):
    return parquet.read_table(sorted(folder.glob("embeddings-*.parquet")))


def rejected(folder) -> list[dict]:
    return [json.loads(line) for file in folder.glob("rejected-*") for line in file.read_text().splitlines()]


def test_lines_of_text(layer, tmp_path, capsys):
    write_lines(tmp_path / "1.txt", ["bank", "", "naïve"])
    write_lines(tmp_path / "2.txt", [b"caf\xe9\n", "Hello\u2028there"])
    run_program("--input", tmp_path / "*.txt", "--output", tmp_path / "out", "--normalize")
    table = read(tmp_path / "out")
    texts = table["text"].to_pylist()
    assert sorted(texts) == ["", "Hello\u2028there", "bank", "naïve"]
    np.testing.assert_allclose(table["embedding"].to_pylist(), embed(texts, layer, normalize=True), atol=1e-5)
    facts = {"model": str(V4), "pooling": "mean", "version": __version__}
    assert table.schema.metadata == {f"keras_bert_trend.{k}".encode(): v.encode() for k, v in facts.items()}
    (reject,) = rejected(tmp_path / "out")
    assert "UnicodeDecodeError" in reject["reason"]
    assert "'texts': 4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_program("--input", tmp_path / "*.txt", "--output", tmp_path / "out")
    assert "has embeddings and rejected already" in capsys.readouterr().err


def test_jsonl_keeps_the_records(layer, tmp_path):
    good = [{"id": 1, "said": "bank", "more": None}, {"id": 2, "said": "river", "more": {"a": [1]}}]
    lines = [
        *good,
        {"id": "x", "said": "good"},
        {"id": 4, "said": None},
        {"id": 5},
        {"id": 6, "said": LONG},
        7,
        "\ud800",
    ]
    write_lines(tmp_path / "in.jsonl", [*map(json.dumps, lines), "nonsense"])
    arguments = ("--column", "said", "--reject-long", "--precision", "float16")
    run_program("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out", *arguments)
    rows = sorted(read(tmp_path / "out").to_pylist(), key=lambda row: row["id"])
    vectors = embed(["bank", "river"], layer, precision="float16")
    np.testing.assert_allclose([row.pop("embedding") for row in rows], vectors, atol=1e-2)
    assert rows == good
    reasons = sorted(reject["reason"].partition(":")[0] for reject in rejected(tmp_path / "out"))
    arrow, tokens = "ArrowInvalid", "142 tokens, the limit is 64"
    assert reasons == [tokens, arrow, "JSONDecodeError", "UnicodeEncodeError", "ValueError", "ValueError", "not a text"]


@pytest.mark.parametrize(
    "line",
    [b'{"text": "a", "word": 1}', b'{"text": "a", "id": %d}' % 2**70, b"[" * 100_000],
    ids=["type", "size", "depth"],
)
def test_whatever_is_wrong_with_a_line_is_its_own_error(line):
    import pyarrow as pa

    schema = pa.schema([("text", pa.string()), ("word", pa.string()), ("id", pa.int64())])
    (result,) = _AsRecord("jsonl", "text", schema).process(line)
    assert result.tag == "rejected"


def test_parquet_to_parquet(layer, tmp_path, capsys):
    import pyarrow as pa

    days = pa.array([1, 2, 3], pa.date32())
    parquet.write_table(pa.table({"day": days, "text": ["bank", None, "river"]}), tmp_path / "in.parquet")
    run_program("--input", tmp_path / "in.parquet", "--output", tmp_path / "out")
    table = read(tmp_path / "out").sort_by("day")
    assert table.schema.names == ["day", "text", "embedding"]
    assert table["day"].to_pylist() == [days[0].as_py(), days[2].as_py()]
    np.testing.assert_allclose(table["embedding"].to_pylist(), embed(["bank", "river"], layer), atol=1e-5)
    assert [reject["reason"] for reject in rejected(tmp_path / "out")] == ["not a text: NoneType"]
    for arguments, message in {
        ("--input", tmp_path / "in.parquet", "--column", "body"): "--column body is not in",
        ("--input", tmp_path / "out" / "*.parquet"): "has a column `embedding` already",
        ("--input", tmp_path / "none.txt"): "matches no file",
    }.items():
        with pytest.raises(SystemExit):
            run_program(*arguments, "--output", tmp_path / "new")
        assert message in capsys.readouterr().err


# Two worker processes


def start_program(folder) -> subprocess.Popen:
    command = [sys.executable, "-m", "keras_bert_trend.distributed.beam", "--input", folder / "in.txt"]
    command += ["--output", folder / "out", "--model", V4, "--pooling", "mean", "--threads", "1"]
    workers = ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    return subprocess.Popen([*command, *workers], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(process) -> float:
    import psutil

    with contextlib.suppress(psutil.Error):
        if process.name().startswith("python"):
            return sum(process.cpu_times()[:2])
    return 0


@pytest.mark.distributed
def test_two_workers_share_the_work_and_a_killed_one_loses_nothing(layer, tmp_path):
    """Beam's direct runner repeats no bundle: the run fails and writes nothing, and the next one writes everything."""
    psutil = pytest.importorskip("psutil")
    texts = [f"{number} {' '.join(SENTENCES)}"[: 20 + number % 40] for number in range(40_000)]
    write_lines(tmp_path / "in.txt", texts)
    program = start_program(tmp_path)
    killed = None
    while program.poll() is None:
        time.sleep(0.2)
        workers = [child for child in psutil.Process(program.pid).children(recursive=True) if cpu_seconds(child)]
        # The start takes a worker some 10 s of CPU time; a pipe to it means that it has been given work.
        if killed is None and len(workers) == 2 and min(map(cpu_seconds, workers)) > 14:
            killed = workers[0].pid
            os.kill(killed, signal.SIGKILL)
    assert killed is not None
    assert program.returncode != 0
    assert not list((tmp_path / "out").glob("embeddings-*"))
    assert start_program(tmp_path).wait() == 0
    shards = [parquet.read_table(file) for file in sorted((tmp_path / "out").glob("embeddings-*"))]
    assert [shard.num_rows for shard in shards] == [20_000, 20_000]
    table = read(tmp_path / "out").sort_by("text")
    assert table["text"].to_pylist() == sorted(texts)
    np.testing.assert_allclose(table["embedding"].to_pylist()[:500], embed(sorted(texts)[:500], layer), atol=1e-5)
