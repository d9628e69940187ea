"""What Keras makes of a formula's operations, for a layer whose variables are those of its weight table."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.ops import activation, dense, layer_norm, scale_and_shift
from keras_bert_trend.encoder.weight_table import Weight


class KerasAlgebra(Algebra):
    """The operations on tensors, with a layer's variables.

    Args:
        config: `BertConfig`. The architecture.
        layer: Keras layer. It has the variables as attributes.
        weights: iterable of `Weight`. The layer's rows of the weight table.
        training: bool or `None`. Whether it is training.
    """

    def __init__(self, config, layer: keras.layers.Layer, weights: Iterable[Weight], training) -> None:
        super().__init__(config)
        self._layer, self._training = layer, training
        self._attributes = {name: weight.attribute for weight in weights for name in weight.names}

    def weight(self, name):
        return getattr(self._layer, self._attributes[name])

    def dense(self, name, x):
        return dense(x, self.weight(f"{name}/kernel"), self.weight(f"{name}/bias"))

    def activate(self, x):
        return activation(x, self.config.hidden_act)

    def norm(self, name, x):
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        if self.config.normalization == "no_norm":
            return scale_and_shift(x, gamma, beta)
        return layer_norm(x, gamma, beta, self.config.layer_norm_epsilon, self._training)
