"""The embeddings: word + position + type, LayerNorm, dropout, and a projection where the tables are narrower."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.initial_values import starting_at
from keras_bert_trend.encoder.ops import dense, layer_norm


class BertEmbeddings(keras.layers.Layer):
    """Ids to the *static* embedding that enters the first block (Devlin et al. 2019, figure 2).

    Tables narrower than the hidden states are projected after LayerNorm and dropout (Lan et al. 2020, arXiv:1909.11942,
    §3.1; Clark et al. 2020, arXiv:2003.10555).

    Args:
        config: the architecture.
    """

    def __init__(self, config: BertConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.dropout = keras.layers.Dropout(config.hidden_dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape=None) -> None:
        """Create the three tables and the LayerNorm's weights; the shapes come from the configuration."""
        config = self.config
        normal = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        width = config.embedding_size
        self.word_embeddings = self.add_weight(
            (config.vocab_size, width), starting_at(normal, "embeddings/word_embeddings"), name="word_embeddings"
        )
        self.position_embeddings = self.add_weight(
            (config.max_position_embeddings, width),
            starting_at(normal, "embeddings/position_embeddings"),
            name="position_embeddings",
        )
        self.type_embeddings = self.add_weight(
            (config.type_vocab_size, width),
            starting_at(normal, "embeddings/token_type_embeddings"),
            name="token_type_embeddings",
        )
        # `autocast=False`: LayerNorm runs in float32 under every mixed precision policy.
        self.gamma = self.add_weight(
            (width,), starting_at("ones", "embeddings/LayerNorm/gamma"), name="layer_norm_gamma", autocast=False
        )
        self.beta = self.add_weight(
            (width,), starting_at("zeros", "embeddings/LayerNorm/beta"), name="layer_norm_beta", autocast=False
        )
        if self._is_projected:
            self.projection_kernel = self.add_weight(
                (width, config.hidden_size),
                starting_at(normal, "encoder/embedding_hidden_mapping_in/kernel"),
                name="projection_kernel",
            )
            self.projection_bias = self.add_weight(
                (config.hidden_size,),
                starting_at("zeros", "encoder/embedding_hidden_mapping_in/bias"),
                name="projection_bias",
            )
        self.built = True

    @property
    def _is_projected(self) -> bool:
        return self.config.embedding_size != self.config.hidden_size

    def call(self, input_word_ids, input_type_ids, training=None):
        """Return the embedding output `(batch, seq, hidden)` for two int tensors `(batch, seq)`."""
        length = ops.shape(input_word_ids)[1]
        x = ops.take(self.word_embeddings, input_word_ids, axis=0)
        x = x + ops.take(self.type_embeddings, input_type_ids, axis=0)
        x = x + ops.expand_dims(self.position_embeddings[:length], 0)
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

    def named_variables(self) -> dict[str, keras.Variable]:
        """Return the variables under the names of google-research/bert (without the leading `bert/`)."""
        named = {
            "embeddings/word_embeddings": self.word_embeddings,
            "embeddings/position_embeddings": self.position_embeddings,
            "embeddings/token_type_embeddings": self.type_embeddings,
            "embeddings/LayerNorm/gamma": self.gamma,
            "embeddings/LayerNorm/beta": self.beta,
        }
        if self._is_projected:
            # google-research/albert's name; ELECTRA calls it embeddings_project.
            named["encoder/embedding_hidden_mapping_in/kernel"] = self.projection_kernel
            named["encoder/embedding_hidden_mapping_in/bias"] = self.projection_bias
        return named
