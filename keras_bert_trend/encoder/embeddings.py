"""The embeddings: word + position + type, LayerNorm, dropout, and a projection if the tables are narrower."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.ops import as_long_as, dense, layer_norm, refuse_to_quantize
from keras_bert_trend.encoder.variables import add_weights


class BertEmbeddings(keras.layers.Layer):
    """Turn ids into the *static* embedding that enters the first block (Devlin et al. 2019, figure 2).

    Tables narrower than the hidden states are projected after LayerNorm and dropout (Lan et al. 2020, arXiv:1909.11942,
    §3.1; Clark et al. 2020, arXiv:2003.10555).

    Args:
        config: `BertConfig`. The architecture.
        values_follow: bool. Whether the weights are assigned after `build`, which then draws none. Defaults to `False`.
    """

    def __init__(self, config: BertConfig, *, values_follow: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self._values_follow = values_follow
        self.dropout = keras.layers.Dropout(config.hidden_dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape=None) -> None:
        """Create the weights; the configuration fixes their shapes."""
        normal = keras.initializers.TruncatedNormal(stddev=self.config.initializer_range)
        add_weights(self, self.config.embedding_weights(), lambda: normal, self._values_follow)
        self.built = True

    def quantize(self, mode=None, **kwargs) -> None:
        refuse_to_quantize(mode)

    @property
    def _is_projected(self) -> bool:
        return self.config.embedding_size != self.config.hidden_size

    def call(self, input_word_ids, input_type_ids, training=None):
        """Return the embedding output.

        Args:
            input_word_ids: int tensor `(batch, seq)`.
            input_type_ids: int tensor `(batch, seq)`.
            training: bool or `None`. Whether dropout acts. Defaults to `None`, Keras's own setting.

        Returns:
            A float tensor `(batch, seq, hidden)`.
        """
        length = ops.shape(input_word_ids)[1]
        x = ops.take(self.word_embeddings, input_word_ids, axis=0)
        x = x + ops.take(self.type_embeddings, input_type_ids, axis=0)
        positions = as_long_as(self.position_embeddings, x, axis=0)
        x = x + ops.expand_dims(positions[:length], 0)
        x = layer_norm(x, self.gamma, self.beta, self.config.layer_norm_epsilon, training)
        x = self.dropout(x, training=training)
        if not self._is_projected:
            return x
        rows = ops.reshape(x, (-1, self.config.embedding_size))
        rows = dense(rows, self.projection_kernel, self.projection_bias)
        return ops.reshape(rows, (*ops.shape(x)[:-1], self.config.hidden_size))

    def compute_output_shape(self, input_word_ids_shape, input_type_ids_shape=None):
        """Return `(batch, seq, hidden)`."""
        return (*input_word_ids_shape, self.config.hidden_size)
