"""The embeddings: what turns ids into the states that enter the first block."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.keras_algebra import KerasAlgebra
from keras_bert_trend.encoder.ops import as_long_as, refuse_to_quantize
from keras_bert_trend.encoder.variables import add_weights


class BertEmbeddings(keras.layers.Layer):
    """Turn ids into the *static* embedding that enters the first block, by the formula of the block's kind.

    Args:
        config: `BertConfig`. The architecture.
        values_follow: bool. Whether the weights are assigned after `build`, which then draws none. Defaults to `False`.
    """

    def __init__(self, config: BertConfig, *, values_follow: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self._values_follow = values_follow
        self.dropout = keras.layers.Dropout(config.hidden_dropout, dtype=self.variable_dtype, name="dropout")

    def build(self, input_shape=None) -> None:
        """Create the weights; the configuration fixes their shapes."""
        normal = keras.initializers.TruncatedNormal(stddev=self.config.initializer_range)
        add_weights(self, self.config.embedding_weights(), lambda: normal, self._values_follow)
        self.built = True

    def quantize(self, mode=None, **kwargs) -> None:
        refuse_to_quantize(mode)

    def call(self, input_word_ids, input_type_ids, training=None):
        """Return the embedding output.

        Args:
            input_word_ids: int tensor `(batch, seq)`.
            input_type_ids: int tensor `(batch, seq)`.
            training: bool or `None`. Whether dropout acts. Defaults to `None`, Keras's own setting.

        Returns:
            A float tensor `(batch, seq, hidden)`, float32 under mixed precision too.
        """
        ids = {"input_word_ids": input_word_ids, "input_type_ids": input_type_ids}
        return self.config.kind.embed(_Embedding(self, ids, training), self.config)

    def compute_output_shape(self, input_word_ids_shape, input_type_ids_shape=None):
        """Return `(batch, seq, hidden)`."""
        return (*input_word_ids_shape, self.config.hidden_size)


class _Embedding(KerasAlgebra):
    """Keras runs the embeddings' formula, on `(batch, seq, width)`."""

    def __init__(self, layer: BertEmbeddings, ids, training) -> None:
        super().__init__(layer.config, layer, layer.config.embedding_weights(), training)
        self._ids = ids

    def lookup(self, name, ids):
        return ops.take(self.weight(name), self._ids[ids], axis=0)

    def positions(self, name):
        ids = self._ids["input_word_ids"]
        return ops.expand_dims(as_long_as(self.weight(name), ids, axis=0)[: ops.shape(ids)[1]], 0)

    def neighbours(self, x):
        following = ops.pad(x[:, 1:], [[0, 0], [0, 1], [0, 0]])
        before = ops.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return ops.concatenate([following, x, before], axis=-1)

    def drop(self, x):
        return self._layer.dropout(x, training=self._training)

    def dense(self, name, x):
        # Of matrices, as everywhere: see `ops.dense`.
        rows = super().dense(name, ops.reshape(x, (-1, x.shape[-1])))
        return ops.reshape(rows, (*ops.shape(x)[:-1], rows.shape[-1]))
