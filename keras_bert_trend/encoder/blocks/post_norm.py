"""The block of BERT, ALBERT and ELECTRA."""

from __future__ import annotations

from keras_bert_trend.encoder.blocks.block import Block
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.weight_table import Weight, dense, norm


class PostNorm(Block):
    """Self-attention, add and norm, feed-forward, add and norm (Vaswani et al. 2017; Devlin et al. 2019).

    A = softmax(Q Kᵀ / √d + (1 − mask) · c)          c: `BertConfig.attention_mask_constant`
    x = LayerNorm(x + A V W_o)
    x = LayerNorm(x + act(x W_1) W_2)
    """

    hugging_face = "bert"

    @staticmethod
    def weights(config, is_last: bool) -> list[Weight]:
        """Return the rows: query, key and value share one kernel, as one large product is faster than three."""
        width, inner = config.hidden_size, config.intermediate_size
        attention = (f"attention/self/{role}" for role in ("query", "key", "value"))
        return [
            *dense("qkv", "query_key_value", width, width, *attention),
            *dense("attention", "attention_output", width, width, "attention/output/dense"),
            *norm("attention_", "attention_layer_norm", width, "attention/output/LayerNorm"),
            *dense("inner", "intermediate", width, inner, "intermediate/dense"),
            *dense("output", "output", inner, width, "output/dense"),
            *norm("output_", "output_layer_norm", width, "output/LayerNorm"),
        ]

    @staticmethod
    def compute(do: Algebra, x, config, is_last: bool):
        """Return the block's output."""
        own = do.chosen(x)
        attended = do.dense("attention/output/dense", do.attention(own, x, x))
        x = do.norm("attention/output/LayerNorm", do.add(own, do.drop(attended)))
        inner = do.activate(do.dense("intermediate/dense", x))
        return do.norm("output/LayerNorm", do.add(x, do.drop(do.dense("output/dense", inner))))
