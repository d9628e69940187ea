"""Fine-tune on TPUs: python examples/distributed/train_tpu.py, with KERAS_BACKEND=jax or tensorflow.

The model takes token ids of a fixed length, since XLA has no strings; texts become ids in the input pipeline. Under JAX
every process of a pod runs this program; under TensorFlow one machine controls all cores.
"""

import contextlib
import csv
from pathlib import Path

import keras
import tensorflow as tf

from keras_bert_trend import BertTrend, FusedAdamW, WarmupLinearDecay, distributed
from keras_bert_trend.encoder import INPUT_NAMES

LENGTH, BATCH, EPOCHS = 64, 64, 3
DATA = Path(__file__).parents[1] / "data" / "sms_sample.tsv"


def make_model(layer: BertTrend, steps: int) -> keras.Model:
    """Return a compiled classifier of token ids."""
    ids = {name: keras.Input((LENGTH,), dtype="int32", name=name) for name in INPUT_NAMES}
    model = keras.Model(ids, keras.layers.Dense(1, "sigmoid")(layer(ids)))
    optimizer = FusedAdamW(WarmupLinearDecay(1e-4, total_steps=steps, warmup_steps=steps // 10), weight_decay=0.01)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], jit_compile="auto")
    return model


def make_dataset(texts: list[str], labels: list[int], preprocessor) -> tf.data.Dataset:
    """Return full batches of token ids and labels."""
    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).shuffle(len(texts), seed=0)
    return dataset.batch(BATCH, drop_remainder=True).map(lambda text, label: (preprocessor(text), label)).prefetch(2)


def main() -> None:
    """Set up the devices, and train."""
    scope = contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        distributed.data_parallel()
    else:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        scope = tf.distribute.TPUStrategy(resolver).scope()
    with open(DATA, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts, labels = [text for _, text in rows], [int(label == "spam") for label, _ in rows]
    keras.config.set_dtype_policy("mixed_bfloat16")
    with scope:
        layer = BertTrend("minilm", pooling="mean", sequence_length=LENGTH)
        model = make_model(layer, steps=EPOCHS * (len(texts) // BATCH))
    model.fit(make_dataset(texts, labels, layer.preprocessor), epochs=EPOCHS)


if __name__ == "__main__":
    main()
