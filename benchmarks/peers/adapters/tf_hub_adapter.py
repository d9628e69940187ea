"""TF Hub's way: `hub.load` of a preprocessing and an encoder SavedModel. Nothing of keras_bert_trend is imported."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text  # noqa: F401  (its ops)

from peers.adapters.base import Run
from peers.adapters.tensorflow_base import STRINGS, TensorFlowAdapter, pooled


class Adapter(TensorFlowAdapter):
    """SavedModels with TF Hub's text interfaces."""

    packages = ("tensorflow", "tensorflow-hub", "tensorflow-text")

    def embed(self, pooling: str, padded: bool, encoder: str = "encoder", preprocessing: str = "preprocessing") -> Run:
        """Strings to embeddings: padded to 128 as the tutorial does, or to each batch's longest."""
        preprocess = hub.load(str(self.work / preprocessing))
        model = hub.load(str(self.work / encoder))

        def encode(texts):
            inputs = preprocess(texts) if padded else self._packed(preprocess, texts)
            outputs = model(inputs, False)
            return pooled(outputs["sequence_output"], inputs["input_mask"], pooling)

        traced = tf.function(encode, input_signature=STRINGS)
        traced.keep = (preprocess, model)  # a loaded object's variables live as long as it does
        return self.over_texts(traced)

    def _packed(self, preprocess, texts):
        tokens = preprocess.tokenize(texts)
        flat = tokens.merge_dims(1, -1) if tokens.shape.rank > 2 else tokens
        longest = tf.reduce_max(flat.row_lengths()) + 2
        length = tf.cast(tf.minimum(longest, self.max_length), tf.int32)
        return preprocess.bert_pack_inputs([tokens], length)

    def tokenize(self, batch_size: int, folder: str) -> Run:
        """Strings to token ids, padded to 128."""
        return self.tokenizing(hub.load(folder), batch_size)

    def load(self, folder: str) -> Run:
        """Import a SavedModel, for its peak of memory."""
        return lambda: hub.load(folder)
