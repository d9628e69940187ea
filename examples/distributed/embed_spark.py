"""Embed a column of texts on Spark: spark-submit examples/distributed/embed_spark.py IN.parquet OUT.parquet."""

import sys
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType

from keras_bert_trend import Embedder


def embedding(embedder: Embedder):
    """Return a function of a column of texts. Every Python worker of Spark's loads the model once."""

    @pandas_udf(ArrayType(FloatType()))
    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for texts in batches:
            yield pd.Series(list(embedder(texts)))

    return embed


if __name__ == "__main__":
    spark = SparkSession.builder.getOrCreate()
    embed = embedding(Embedder("minilm", pooling="mean", threads=1))
    table = spark.read.parquet(sys.argv[1])
    table.withColumn("embedding", embed("text")).write.parquet(sys.argv[2])
