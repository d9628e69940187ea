"""KerasHub's BertBackbone and BertTokenizer under the TensorFlow backend, with MiniLM's weights."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from peers.adapters.base import CLS, SEP, Run, made_up_ids
from peers.adapters.tensorflow_base import TensorFlowAdapter, pooled

INPUTS = [dict.fromkeys(("token_ids", "padding_mask", "segment_ids"), tf.TensorSpec((None, None), tf.int32))]


class Adapter(TensorFlowAdapter):
    """KerasHub."""

    packages = ("keras-hub", "keras", "tensorflow", "tensorflow-text")

    def backbone(self):
        """Return the backbone, with the exact gelu that MiniLM has: KerasHub always takes the approximation."""
        backbone = keras_hub.models.BertBackbone.from_preset(self.minilm)
        for layer in backbone.layers:
            if isinstance(layer, keras_hub.layers.TransformerEncoder):
                layer._feedforward_intermediate_dense.activation = _exact_gelu
        return backbone

    def embed(self, pooling: str) -> Run:
        """Strings to embeddings: its tokenizer, its backbone, each as one traced function."""
        backbone = self.backbone()
        tokenizer = keras_hub.models.BertTokenizer(f"{self.minilm}/vocab.txt", lowercase=True)

        def encode(texts):
            tokens = tf.cast(tokenizer(texts), tf.int32)[:, : self.max_length - 2]
            rows = tf.fill([tf.shape(texts)[0], 1], 1)
            ids = tf.concat([rows * CLS, tokens, rows * SEP], axis=1).to_tensor()
            inputs = _renamed(ids)
            hidden = backbone(inputs, training=False)["sequence_output"]
            return pooled(hidden, inputs["padding_mask"], pooling)

        return self.over_texts(tf.function(encode, input_signature=[tf.TensorSpec((None,), tf.string)]))

    def train(self, jit_compile: bool | str = "auto") -> Run:
        """Fine-tune everything through `compile` and `fit` on token ids."""
        ids, labels = self.training_data()
        data = {name: value.numpy() for name, value in _renamed(tf.constant(ids, tf.int32)).items()}
        return self._fit(data, labels, jit_compile)

    def train_messages(self, length: int, jit_compile: bool | str = "auto") -> Run:
        """Fine-tune everything on messages, which its preprocessing layer pads to the one length that it has."""
        texts, labels = self.training_messages()
        tokenizer = keras_hub.models.BertTokenizer(f"{self.minilm}/vocab.txt", lowercase=True)
        preprocess = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=length)
        return self._fit(np.array(texts), labels, jit_compile, preprocess)

    def _fit(self, data, labels, jit_compile, preprocess=None) -> Run:
        backbone = self.backbone()
        hidden, mask = backbone.output["sequence_output"], backbone.input["padding_mask"]
        weights = keras.ops.cast(mask, hidden.dtype)[:, :, None]
        mean = keras.ops.sum(hidden * weights, axis=1) / keras.ops.sum(weights, axis=1)
        model = keras.Model(backbone.inputs, keras.layers.Dense(1, "sigmoid")(mean))
        model.compile(keras.optimizers.AdamW(1e-5, weight_decay=0.01), "binary_crossentropy", jit_compile=jit_compile)
        pooler = {id(weight) for weight in backbone.get_layer("pooled_dense").weights}
        weights = [weight for weight in backbone.trainable_weights if id(weight) not in pooler]
        return self.fitting(model, data, labels, weights, preprocess)

    def encode(self, batch: int, length: int) -> Run:
        """Token ids to mean embeddings, for the sweeps."""
        backbone = self.backbone()
        inputs = _renamed(tf.constant(made_up_ids(batch, length), tf.int32))

        @tf.function(input_signature=INPUTS)
        def encode(inputs):
            return pooled(backbone(inputs, training=False)["sequence_output"], inputs["padding_mask"], "mean")

        return lambda: encode(inputs).numpy()


def _exact_gelu(x):
    return keras.activations.gelu(x, approximate=False)


def _renamed(ids) -> dict:
    return {"token_ids": ids, "padding_mask": tf.cast(ids != 0, tf.int32), "segment_ids": tf.zeros_like(ids)}
