"""The block of TF Hub's talking-heads models: heads that are mixed, and a gated feed-forward layer."""

from __future__ import annotations

from keras_bert_trend.encoder.blocks.post_norm import PostNorm
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.weight_table import Weight, dense, kernel

_MIXES = ("attention/pre_softmax", "attention/post_softmax")


class TalkingHeads(PostNorm):
    """Talking-heads attention (Shazeer et al. 2020, arXiv:2003.02436) and gated gelu (Shazeer 2020, arXiv:2002.05202).

        A = softmax((Q Kᵀ / √d) P + (1 − mask) · c) R         P, R `(heads, heads)` mix the heads
        x = LayerNorm(x + A V W_o)
        x = LayerNorm(x + (act(x W_1) ⊙ x W_g) W_2)

    Attention scores are `A`, what multiplies the values: rows do not sum to 1, and numbers may be negative.
    """

    hugging_face = None

    @staticmethod
    def weights(config, is_last: bool) -> list[Weight]:
        """Return `PostNorm`'s rows, the mixing kernels and the gate's."""
        heads = config.num_heads
        return [
            *PostNorm.weights(config, is_last),
            *(kernel(f"{name.rpartition('/')[2]}_kernel", heads, heads, name) for name in _MIXES),
            *dense("gate", "gate", config.hidden_size, config.intermediate_size, "gate/dense"),
        ]

    @staticmethod
    def compute(do: Algebra, x, config, is_last: bool):
        """Return the block's output."""
        own = do.chosen(x)
        attended = do.dense("attention/output/dense", do.attention(own, x, x, _MIXES))
        x = do.norm("attention/output/LayerNorm", do.add(own, do.drop(attended)))
        inner = do.multiply(do.activate(do.dense("intermediate/dense", x)), do.dense("gate/dense", x))
        return do.norm("output/LayerNorm", do.add(x, do.drop(do.dense("output/dense", inner))))
