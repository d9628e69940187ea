"""BERT and head trained together on TREC questions: accuracy on the first test fold, three seeds.

AdamW at 1e-4 with warm-up and decay, batches of 32, two epochs; `--examples` bounds the training examples.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.harness import say
from benchmarks.quality import data, encoders, probe
from benchmarks.quality.report import Results
from keras_bert_trend import POOLING_NAMES, BertTrend, TrendPooling
from keras_bert_trend.optimizers import fine_tuning_optimizer

SEEDS, _EPOCHS, _BATCH = 3, 2, 32
_POOLINGS = ("mean", "last_four_sum", "smooth_trend", "soft trend", "trajectory")


def run(options, results: Results) -> None:
    """Fine-tune every pooling."""
    one = data.read("trec")
    train, test = next(probe.splits(one, 1))
    train = np.random.default_rng(0).permutation(train)[: options.examples]
    for encoder in options.encoders:
        stored = results.get("fine_tuning", encoder, "trec") or {}
        for name in _POOLINGS:
            if name not in stored:
                say(f"{encoder}: fine-tuning with {name} on {len(train)} questions")
                stored[name] = list(_accuracies(encoder, name, one, train, test, options.work))
                results.store(stored, "fine_tuning", encoder, "trec")


def _accuracies(encoder: str, name: str, one: data.DataSet, train, test, work):
    """Yield the accuracy for every seed."""
    texts = np.array(one.texts)[one.rows[:, 0]]
    layer = encoders.load(encoder, work, pooling=name if name in POOLING_NAMES else "mean")
    if name == "soft trend":
        kinds = layer.preprocessor.vocabulary.token_kinds
        soft = TrendPooling(kinds, measure="signed_log", aggregation="soft")
        layer = BertTrend(encoder=layer.encoder, preprocessor=layer.preprocessor, pooling=soft)
    if name == "trajectory":
        layer.adapt(texts[train].tolist())
    published = layer.get_weights()
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        layer.set_weights(published)
        text = keras.Input((), dtype="string")
        embedding = keras.layers.Dropout(0.1)(keras.layers.LayerNormalization()(layer(text)))
        model = keras.Model(text, keras.layers.Dense(int(one.labels.max()) + 1, "softmax")(embedding))
        steps = _EPOCHS * -(-len(train) // _BATCH)
        model.compile(fine_tuning_optimizer(1e-4, steps), "sparse_categorical_crossentropy")
        order = np.random.default_rng(seed).permutation(train)
        batches = tf.data.Dataset.from_tensor_slices((texts[order], one.labels[order])).batch(_BATCH)
        model.fit(batches, epochs=_EPOCHS, verbose=0)
        guesses = model.predict(tf.constant(texts[test]), batch_size=64, verbose=0).argmax(axis=1)
        yield float(np.mean(guesses == one.labels[test]))
