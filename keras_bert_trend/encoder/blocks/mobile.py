"""MobileBERT's block, narrower inside than outside, and its embeddings of three neighbouring words."""

from __future__ import annotations

from keras_bert_trend.encoder.blocks.block import Block
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.weight_table import Weight, dense, norm, table


class Mobile(Block):
    """Bottleneck, self-attention, a stack of feed-forward layers, and back (Sun et al. 2020, arXiv:2004.02984, §3).

        u = Norm(x W_u)          s = Norm(x W_s)          `bottleneck_size` wide
        u = Norm(u + Attention(Q, K of s, V of x) W_o)
        u = Norm(u + act(u W_1) W_2)                      `num_feed_forwards` times
        x = Norm(x + u W_x)

    Norm is a LayerNorm, or `x ⊙ gamma + beta` (`normalization="no_norm"`, the published students'). The form that key
    and query share a bottleneck in is the published one, and the only one here.
    """

    fields = ("bottleneck_size", "num_feed_forwards", "normalization")
    hidden_dropouts = 1
    reads_next_token = True
    hugging_face = "mobilebert"

    @staticmethod
    def weights(config, is_last: bool) -> list[Weight]:
        """Return the rows: query and key, which read the same, share one kernel."""
        outer, width, inner = config.hidden_size, config.bottleneck_size, config.intermediate_size
        query, key, value = (f"attention/self/{role}" for role in ("query", "key", "value"))
        weights = [
            *dense("bottleneck", "bottleneck", outer, width, "bottleneck/input/dense"),
            *norm("bottleneck_", "bottleneck_norm", width, "bottleneck/input/LayerNorm"),
            *dense("shared", "shared_bottleneck", outer, width, "bottleneck/attention/dense"),
            *norm("shared_", "shared_bottleneck_norm", width, "bottleneck/attention/LayerNorm"),
            *dense("qk", "query_key", width, width, query, key),
            *dense("v", "value", outer, width, value),
            *dense("attention", "attention_output", width, width, "attention/output/dense"),
            *norm("attention_", "attention_layer_norm", width, "attention/output/LayerNorm"),
        ]
        for prefix in _stack(config):
            short = prefix.replace("/", "_")
            weights += [
                *dense(f"{short}inner", f"{short}intermediate", width, inner, f"{prefix}intermediate/dense"),
                *dense(f"{short}output", f"{short}output", inner, width, f"{prefix}output/dense"),
                *norm(f"{short}output_", f"{short}output_layer_norm", width, f"{prefix}output/LayerNorm"),
            ]
        return [
            *weights,
            *dense("widening", "output_bottleneck", width, outer, "output/bottleneck/dense"),
            *norm("widening_", "output_bottleneck_norm", outer, "output/bottleneck/LayerNorm"),
        ]

    @staticmethod
    def compute(do: Algebra, x, config, is_last: bool):
        """Return the block's output."""
        own = do.chosen(x)
        u = do.norm("bottleneck/input/LayerNorm", do.dense("bottleneck/input/dense", own))
        shared = do.norm("bottleneck/attention/LayerNorm", do.dense("bottleneck/attention/dense", x))
        attended = do.attention(do.chosen(shared), shared, x)
        u = do.norm("attention/output/LayerNorm", do.add(u, do.dense("attention/output/dense", attended)))
        for prefix in _stack(config):
            inner = do.activate(do.dense(f"{prefix}intermediate/dense", u))
            u = do.norm(f"{prefix}output/LayerNorm", do.add(u, do.dense(f"{prefix}output/dense", inner)))
        widened = do.drop(do.dense("output/bottleneck/dense", u))
        return do.norm("output/bottleneck/LayerNorm", do.add(own, widened))

    @staticmethod
    def variants():
        """Yield the heights of the stack that are looked for."""
        for count in range(1, 9):
            yield {"num_feed_forwards": count}

    @staticmethod
    def embedding_weights(config) -> list[Weight]:
        """Return the rows: narrow word embeddings; position and type are as wide as the hidden states."""
        width = config.hidden_size
        return [
            *table("word_embeddings", "embeddings/word_embeddings", config.vocab_size, config.embedding_size),
            *table("position_embeddings", "embeddings/position_embeddings", config.max_position_embeddings, width),
            *table("type_embeddings", "embeddings/token_type_embeddings", config.type_vocab_size, width),
            *norm("", "layer_norm", width, "embeddings/LayerNorm"),
            *dense("projection", "projection", 3 * config.embedding_size, width, "embeddings/embedding_transformation"),
        ]

    @staticmethod
    def embed(do: Algebra, config):
        """Return `Norm([word of next, word, word before] W + type + position)`."""
        x = do.neighbours(do.lookup("embeddings/word_embeddings", "input_word_ids"))
        x = do.dense("embeddings/embedding_transformation", x)
        types = do.lookup("embeddings/token_type_embeddings", "input_type_ids")
        x = do.add(x, types, do.positions("embeddings/position_embeddings"))
        return do.drop(do.norm("embeddings/LayerNorm", x))

    @staticmethod
    def embedding_variants():
        """Yield the only form."""
        yield {}


def _stack(config) -> list[str]:
    """Return the prefixes of the feed-forward layers' names, google-research's: the last one has BERT's."""
    return [*(f"ffn_layer_{i}/" for i in range(config.num_feed_forwards - 1)), ""]
