"""What the TensorFlow adapters share: threads, the plain matrix product, loops over texts and over training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.peers.base import BaseAdapter, Run, in_order

STRINGS = [tf.TensorSpec((None,), tf.string)]


class TensorFlowAdapter(BaseAdapter):
    """TensorFlow with the run's number of threads."""

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.constant(0.0)  # the first tensor sets up the devices: before memory is measured

    def matmul(self, size: int) -> Run:
        """Multiply plain float32 matrices."""
        a, b = (tf.random.stateless_uniform((size, size), (0, i)) for i in (1, 2))
        product = tf.function(lambda a, b: tf.matmul(a, b))
        return lambda: product(a, b).numpy()[:1, :1]

    def over_texts(self, encode) -> Run:
        """Call `encode`, strings to vectors, on batches sorted by characters, as one can before tokenising."""

        def run():
            batches = self.batches([len(text) for text in self.texts])
            return in_order((i, encode(tf.constant([self.texts[j] for j in i])).numpy()) for i in batches)

        return run

    def tokenizing(self, tokenize, batch_size: int) -> Run:
        """Tokenise all texts, `batch_size` at a time; the result is the last batch."""
        traced = tf.function(lambda texts: tokenize(texts)["input_word_ids"], input_signature=STRINGS)
        starts = range(0, len(self.texts), batch_size)
        return lambda: [traced(tf.constant(self.texts[i : i + batch_size])).numpy() for i in starts][-1]

    def fitting(self, model, data, labels, weights, preprocess=None) -> Run:
        """Run one epoch of `fit` on batches that `preprocess` maps; its result says whether every weight moved."""
        before = [weight.numpy() for weight in weights]
        dataset = tf.data.Dataset.from_tensor_slices((data, labels)).batch(self.batch_size)
        if preprocess is not None:
            dataset = dataset.map(lambda texts, labels: (preprocess(texts), labels)).prefetch(2)
        # An iterator ends only when its autotuning thread next wakes, after 10 ms, 20 ms … 2.56 s: `fit` would idle at
        # the end of an epoch, at worst for as long as it had computed.
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.with_options(options)

        def run():
            history = model.fit(dataset, epochs=1, shuffle=False, verbose=0)
            return lambda: {
                "loss": np.array(history.history["loss"]),
                "moved": np.array([np.any(a != b.numpy()) for a, b in zip(before, weights, strict=True)]),
            }

        return run


def masked_mean(hidden, mask):
    """Return the mean `(B, H)` over the real tokens of `(B, T, H)`."""
    weights = tf.cast(mask, hidden.dtype)[:, :, tf.newaxis]
    return tf.reduce_sum(hidden * weights, axis=1) / tf.reduce_sum(weights, axis=1)


def inputs_of(ids: np.ndarray, names=("input_word_ids", "input_mask", "input_type_ids")) -> dict[str, tf.Tensor]:
    """Return the encoder's three inputs, under these names, for ids padded with 0."""
    ids = tf.cast(ids, tf.int32)
    return dict(zip(names, (ids, tf.cast(ids != 0, tf.int32), tf.zeros_like(ids)), strict=True))
