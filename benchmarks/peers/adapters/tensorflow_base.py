"""What the TensorFlow adapters share: threads, the matmul limit, traced functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from peers.adapters.base import BaseAdapter, Rows, Run

STRINGS = [tf.TensorSpec((None,), tf.string)]


class TensorFlowAdapter(BaseAdapter):
    """TensorFlow with the run's number of threads."""

    def __init__(self, work: Path, threads: int) -> None:
        super().__init__(work, threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)

    def matmul(self, size: int) -> Run:
        """Multiply plain float32 matrices: what the machine gives at this moment."""
        a, b = (tf.random.stateless_uniform((size, size), (0, i)) for i in (1, 2))
        product = tf.function(lambda a, b: tf.matmul(a, b))
        return lambda: product(a, b).numpy()[:1, :1]

    def over_texts(self, encode) -> Run:
        """Return what calls `encode`, strings to vectors, batch by batch, and puts the rows in order."""

        def run():
            rows = Rows(len(self.texts))
            for places, texts in self.text_batches():
                rows.put(places, encode(tf.constant(texts)).numpy())
            return rows.vectors

        return run

    def tokenizing(self, tokenize, batch_size: int) -> Run:
        """Return what tokenises all texts, so many at a time."""
        traced = tf.function(lambda texts: tokenize(texts)["input_word_ids"], input_signature=STRINGS)

        def run():
            for start in range(0, len(self.texts), batch_size):
                last = traced(tf.constant(self.texts[start : start + batch_size]))
            return {"last": last.numpy()}

        return run

    def fitting(self, model, data, labels, weights, preprocess=None) -> Run:
        """Return one epoch of `fit`, of batches that `preprocess` maps; its result says whether every weight moved."""
        before = [weight.numpy() for weight in weights]
        dataset = tf.data.Dataset.from_tensor_slices((data, labels)).batch(self.batch_size)
        if preprocess is not None:
            dataset = dataset.map(lambda texts, labels: (preprocess(texts), labels)).prefetch(2)
        # An iterator's autotuning thread ends only when it next wakes, after 10 ms, 20 ms … 2.56 s, so that `fit` would
        # idle at the end of an epoch: for as long as it had computed, at worst.
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.with_options(options)

        def run():
            history = model.fit(dataset, epochs=1, shuffle=False, verbose=0)

            def result():
                moved = [bool(np.any(old != weight.numpy())) for old, weight in zip(before, weights, strict=True)]
                return {"loss": np.array(history.history["loss"]), "moved": np.array(moved)}

            return result

        return run


def pooled(sequence_output, mask, pooling: str):
    """Pool by the mean over the real tokens, or by the first token."""
    if pooling == "cls":
        return sequence_output[:, 0]
    weights = tf.cast(mask, sequence_output.dtype)[:, :, tf.newaxis]
    return tf.reduce_sum(sequence_output * weights, axis=1) / tf.reduce_sum(weights, axis=1)


def inputs_of(ids: np.ndarray) -> dict:
    """Return the encoder's three inputs for ids padded with 0."""
    ids = tf.constant(ids, tf.int32)
    return {
        "input_word_ids": ids,
        "input_mask": tf.cast(ids != 0, tf.int32),
        "input_type_ids": tf.zeros_like(ids),
    }
