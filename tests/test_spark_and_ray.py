"""The examples for Spark and Ray Data, on 10,000 texts: what `embed` gives."""

import os
import sys

import numpy as np
import pandas
import pytest

from keras_bert_trend import Embedder, embed
from tests.common import ROOT, SAME_BITS, SENTENCES, V4

pytestmark = pytest.mark.distributed
WORDS = " ".join(SENTENCES).split()
TEXTS = [" ".join(WORDS[number % 7 : number % 20 + 1]) + f" {number}" for number in range(10_000)]


@pytest.fixture
def examples(monkeypatch):
    """Let the workers find the examples and the package."""
    folder = str(ROOT / "examples" / "distributed")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, str(ROOT)]))


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return embed(TEXTS, V4, pooling="mean")


def check(table: pandas.DataFrame, expected: np.ndarray) -> None:
    table = table.sort_values("id")
    assert table["id"].tolist() == list(range(len(TEXTS)))
    assert table["text"].tolist() == TEXTS
    # Batches of other texts round differently without AVX-512; 1.07e-6 was seen.
    np.testing.assert_allclose(np.stack(table["embedding"]), expected, rtol=0, atol=1e-6 if SAME_BITS else 2e-6)


def test_spark(examples, expected, monkeypatch):
    sql = pytest.importorskip("pyspark.sql", reason="Spark is not installed")
    import embed_spark

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        table = spark.createDataFrame(list(enumerate(TEXTS)), "id long, text string").repartition(4)
        embedding = embed_spark.embedding(Embedder(V4, pooling="mean", threads=1))
        rows = table.withColumn("embedding", embedding("text")).collect()
    finally:
        spark.stop()
    check(pandas.DataFrame([row.asDict() for row in rows]), expected)


def test_ray(examples, expected):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    import embed_ray

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
    try:
        table = ray.data.from_items([{"id": i, "text": text} for i, text in enumerate(TEXTS)])
        embedded = embed_ray.embed(table, Embedder(V4, pooling="mean", threads=1), actors=2)
        check(embedded.to_pandas(), expected)
    finally:
        ray.shutdown()
