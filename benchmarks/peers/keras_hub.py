"""KerasHub's BertBackbone and BertTokenizer under the TensorFlow backend, with MiniLM's weights."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.peers.base import CLS, MAX_LENGTH, SEP, Run
from benchmarks.peers.tensorflow_base import STRINGS, TensorFlowAdapter, inputs_of, masked_mean

INPUT_NAMES = ("token_ids", "padding_mask", "segment_ids")


class Adapter(TensorFlowAdapter):
    """KerasHub."""

    packages = ("keras-hub", "keras", "tensorflow", "tensorflow-text")

    def backbone(self):
        """Return the backbone with MiniLM's exact gelu: KerasHub always takes the approximation."""
        backbone = keras_hub.models.BertBackbone.from_preset(self.minilm)
        for layer in backbone.layers:
            if isinstance(layer, keras_hub.layers.TransformerEncoder):
                layer._feedforward_intermediate_dense.activation = lambda x: keras.activations.gelu(x, False)
        return backbone

    def tokenizer(self):
        """Return its tokenizer."""
        return keras_hub.models.BertTokenizer(f"{self.minilm}/vocab.txt", lowercase=True)

    def embed(self) -> Run:
        backbone, tokenizer = self.backbone(), self.tokenizer()

        def encode(texts):
            tokens = tf.cast(tokenizer(texts), tf.int32)[:, : MAX_LENGTH - 2]
            rows = tf.fill([tf.shape(texts)[0], 1], 1)
            ids = tf.concat([rows * CLS, tokens, rows * SEP], axis=1).to_tensor()
            inputs = inputs_of(ids, INPUT_NAMES)
            return masked_mean(backbone(inputs, training=False)["sequence_output"], inputs["padding_mask"])

        return self.over_texts(tf.function(encode, input_signature=STRINGS))

    def train(self, length: int | None = None, jit_compile="auto") -> Run:
        """Fine-tune all weights, on token ids, or on texts that its preprocessing layer pads to one length."""
        ids, labels = self.arrays("train")
        data, preprocess = {name: value.numpy() for name, value in inputs_of(ids, INPUT_NAMES).items()}, None
        if length:
            data = np.array(self.training_texts)
            preprocess = keras_hub.models.BertTextClassifierPreprocessor(self.tokenizer(), sequence_length=length)
        backbone = self.backbone()
        hidden, mask = backbone.output["sequence_output"], backbone.input["padding_mask"]
        weights = keras.ops.cast(mask, hidden.dtype)[:, :, None]
        mean = keras.ops.sum(hidden * weights, axis=1) / keras.ops.sum(weights, axis=1)
        model = keras.Model(backbone.inputs, keras.layers.Dense(1, "sigmoid")(mean))
        model.compile(keras.optimizers.AdamW(1e-5, weight_decay=0.01), "binary_crossentropy", jit_compile=jit_compile)
        pooler = {id(weight) for weight in backbone.get_layer("pooled_dense").weights}
        weights = [weight for weight in backbone.trainable_weights if id(weight) not in pooler]
        return self.fitting(model, data, labels, weights, preprocess)
