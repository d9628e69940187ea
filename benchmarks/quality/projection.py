"""BERT frozen, a head trained by gradient descent, and the trajectory's kernel with it or not: five folds.

The head is a dense layer on the standardised embedding, behind dropout. The number of epochs is chosen inside the
training part, where the loss of a held-out quarter is least.
"""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.harness import say
from benchmarks.quality import data, features, probe
from benchmarks.quality.report import Results
from keras_bert_trend import TrajectoryPooling

SETS = ("trec", "sst2")
_EPOCHS = 20


class _Path(keras.layers.Layer):
    """A trajectory pooling on token means that were computed before."""

    def __init__(self, pooling: TrajectoryPooling) -> None:
        super().__init__()
        self.pooling = pooling

    def call(self, levels):
        return self.pooling.project(levels)


def run(options, results: Results) -> None:
    """Train every head on every fold."""
    for encoder in options.encoders:
        for name in SETS:
            if name not in options.sets or results.get("projection", encoder, name):
                continue
            one = data.read(name).sample(options.examples)
            levels = features.read(data.read(name), encoder, options.work)["levels"][one.rows[:, 0]].astype(np.float32)
            found: dict[str, list[float]] = {}
            for number, (train, test) in enumerate(probe.splits(one, 1)):
                say(f"{encoder}: heads on {name}, fold {number + 1}")
                for label, score in _fold(one, levels, train, test, number):
                    found.setdefault(label, []).append(score)
            results.store(found, "projection", encoder, name)


def _fold(one: data.DataSet, levels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int):
    """Yield every embedding's name and accuracy."""
    last = levels[:, -4:]
    rows = {"last_four_sum": last.sum(axis=1), "last_four_concat": last.reshape(len(last), -1)}
    fit, held = probe.split_training(one, train)
    shape = {"hidden_size": levels.shape[2], "num_layers": levels.shape[1] - 1}

    def standardised(vectors):
        def make(part):
            scale = vectors[part].std(axis=0)
            scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)  # MiniLM has dimensions that never move
            return (vectors - vectors[part].mean(axis=0)) / scale, None

        return make

    def path(adapted: bool, trainable: bool):
        def make(part):
            pooling = TrajectoryPooling(**shape)
            texts = np.random.default_rng(seed).permutation(part)[: features.ADAPT_TEXTS]
            steps = np.diff(levels[texts], axis=1)
            if adapted:
                pooling.adapt([levels[texts]])
            else:  # the DCT of the standardised steps, at the scale of the others
                pooling.mean.assign(steps.mean(axis=0))
                pooling.scale.assign(np.maximum(steps.std(axis=0), 1e-6))
                pooling.kernel.assign(pooling.kernel / np.std(pooling.project(levels[texts])))
            pooling.trainable = trainable
            return levels, pooling

        return make

    contenders = {name: standardised(vectors) for name, vectors in rows.items()}
    contenders["trajectory, adapted"] = path(True, False)
    contenders["trajectory, adapted, trained"] = path(True, True)
    contenders["trajectory, from the DCT, trained"] = path(False, True)
    for label, make in contenders.items():
        losses = _train(make(fit), one.labels, fit, _EPOCHS, seed, held)[1]
        made = make(train)
        model, _ = _train(made, one.labels, train, int(np.argmin(losses)) + 1, seed)
        guesses = model.predict(made[0][test], verbose=0).argmax(axis=1)
        yield label, float(np.mean(guesses == one.labels[test]))


def _train(made, labels, rows, epochs: int, seed: int, held=None):
    """Return the trained model, and the held-out loss after every epoch."""
    vectors, pooling = made
    keras.utils.set_random_seed(seed)
    layers = [keras.Input(vectors.shape[1:])] + ([] if pooling is None else [_Path(pooling)])
    head = [keras.layers.Dropout(0.2), keras.layers.Dense(int(labels.max()) + 1, "softmax")]
    model = keras.Sequential(layers + head)
    model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy")
    validation = None if held is None else (vectors[held], labels[held])
    history = model.fit(
        vectors[rows], labels[rows], batch_size=64, epochs=epochs, validation_data=validation, verbose=0
    ).history
    return model, history.get("val_loss")
