"""Embed a column of texts on Ray Data: python examples/distributed/embed_ray.py IN.parquet OUT."""

import sys

import ray

from keras_bert_trend import Embedder


class Embed:
    """An actor: it loads the model once, and embeds batch after batch."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder.warm_up()

    def __call__(self, batch: dict) -> dict:
        return {**batch, "embedding": self.embedder(batch["text"])}


def embed(table: ray.data.Dataset, embedder: Embedder, actors: int) -> ray.data.Dataset:
    """Return the table with a column `embedding`, by actors with a core each."""
    pool = ray.data.ActorPoolStrategy(size=actors)
    return table.map_batches(Embed, fn_constructor_args=(embedder,), batch_size=1024, compute=pool)


if __name__ == "__main__":
    embedder = Embedder("minilm", pooling="mean", threads=1)
    embed(ray.data.read_parquet(sys.argv[1]), embedder, actors=2).write_parquet(sys.argv[2])
