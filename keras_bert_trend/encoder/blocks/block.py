"""`Block`: what a kind of transformer block says of itself. It holds no weights and imports no framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.weight_table import Weight, dense, norm, table


class Block:
    """A kind of transformer block, and the embeddings below it: the weights and the formula of each.

    Attributes:
        fields: fields of `BertConfig` that are this kind's own; they keep their defaults in all other kinds.
        hidden_dropouts: how often `compute` drops hidden states.
        reads_next_token: whether a token's embedding depends on the token after it, be it padding.
        hugging_face: Hugging Face's `model_type` of encoders with such blocks, or `None`.
    """

    fields: tuple[str, ...] = ()
    hidden_dropouts = 2
    reads_next_token = False
    hugging_face: str | None = None

    @staticmethod
    def weights(config, is_last: bool) -> list[Weight]:
        """Return a block's rows of the weight table, named within the block.

        Args:
            config: `BertConfig`. The architecture.
            is_last: bool. Whether it is the encoder's last block.
        """
        raise NotImplementedError

    @staticmethod
    def compute(do: Algebra, x, config, is_last: bool):
        """Return a block's output of its input `(B, T, hidden)`.

        Of `config` it reads only what `variants` lists: a reader of graphs knows no more.
        """
        raise NotImplementedError

    @staticmethod
    def variants() -> Iterator[dict[str, Any]]:
        """Yield what of the configuration decides the form of `compute`, with the values a reader is to try."""
        yield {}

    @staticmethod
    def embedding_weights(config) -> list[Weight]:
        """Return the embeddings' rows of the weight table."""
        width = config.embedding_size
        weights = [
            *table("word_embeddings", "embeddings/word_embeddings", config.vocab_size, width),
            *table("position_embeddings", "embeddings/position_embeddings", config.max_position_embeddings, width),
        ]
        if config.type_vocab_size:
            weights += table("type_embeddings", "embeddings/token_type_embeddings", config.type_vocab_size, width)
        weights += norm("", "layer_norm", width, "embeddings/LayerNorm")
        if width != config.hidden_size:
            # google-research/albert's name; ELECTRA calls it embeddings_project.
            name = "encoder/embedding_hidden_mapping_in"
            weights += dense("projection", "projection", width, config.hidden_size, name)
        return weights

    @staticmethod
    def embed(do: Algebra, config):
        """Return the embedding output: word + type + position, LayerNorm, and a projection if the tables are narrow.

        (Devlin et al. 2019, figure 2; Lan et al. 2020, arXiv:1909.11942, §3.1; Clark et al. 2020, arXiv:2003.10555.)
        """
        terms = [do.lookup("embeddings/word_embeddings", "input_word_ids")]
        if config.type_vocab_size:
            terms.append(do.lookup("embeddings/token_type_embeddings", "input_type_ids"))
        x = do.add(*terms, do.positions("embeddings/position_embeddings"))
        x = do.drop(do.norm("embeddings/LayerNorm", x))
        if config.embedding_size == config.hidden_size:
            return x
        return do.dense("encoder/embedding_hidden_mapping_in", x)

    @staticmethod
    def embedding_variants() -> Iterator[dict[str, Any]]:
        """Yield what of the configuration decides the form of `embed`, as `variants`."""
        for types in (1, 0):
            for width in (1, 2):
                yield {"type_vocab_size": types, "embedding_size": 1, "hidden_size": width}
