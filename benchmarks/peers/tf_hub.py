"""TF Hub's way: `hub.load` of a preprocessing and an encoder SavedModel. Nothing of keras_bert_trend is imported."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text  # noqa: F401  (its ops)

from benchmarks.peers.base import MAX_LENGTH, Run
from benchmarks.peers.tensorflow_base import STRINGS, TensorFlowAdapter, masked_mean


class Adapter(TensorFlowAdapter):
    """SavedModels with TF Hub's text interfaces."""

    packages = ("tensorflow", "tensorflow-hub", "tensorflow-text")

    def embed(self, padded: bool, encoder: str, preprocessing: str) -> Run:
        """Turn strings into mean embeddings: padded to 128 as the tutorial does, or to each batch's longest."""
        preprocess = hub.load(str(self.work / preprocessing))
        model = hub.load(str(self.work / encoder))

        def pack(texts):
            tokens = preprocess.tokenize(texts)
            flat = tokens.merge_dims(1, -1) if tokens.shape.rank > 2 else tokens
            longest = tf.cast(tf.reduce_max(flat.row_lengths()), tf.int32) + 2
            return preprocess.bert_pack_inputs([tokens], tf.minimum(longest, MAX_LENGTH))

        def encode(texts):
            inputs = preprocess(texts) if padded else pack(texts)
            return masked_mean(model(inputs, False)["sequence_output"], inputs["input_mask"])

        traced = tf.function(encode, input_signature=STRINGS)
        traced.keep = (preprocess, model)  # a loaded object's variables live as long as it does
        return self.over_texts(traced)

    def tokenize(self, batch_size: int, folder: str) -> Run:
        return self.tokenizing(hub.load(str(self.work / folder)), batch_size)

    def load(self, folder: str) -> Run:
        return lambda: hub.load(str(self.work / folder))
