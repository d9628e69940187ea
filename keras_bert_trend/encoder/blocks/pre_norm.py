"""The block that normalises what goes into a sub-layer, not what comes out: Model Garden's `norm_first=True`."""

from __future__ import annotations

from keras_bert_trend.encoder.blocks.post_norm import PostNorm
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.encoder.weight_table import Weight, norm


class PreNorm(PostNorm):
    """Norm, self-attention, add, norm, feed-forward, add (Xiong et al. 2020, arXiv:2002.04745).

        x = x + Attention(LayerNorm(x)) W_o
        x = x + act(LayerNorm(x) W_1) W_2

    The weights have `PostNorm`'s names, as in Model Garden. With `final_norm`, which some exports have, the last block
    ends with one more LayerNorm: `sequence_output` and the last of `encoder_outputs` are what follows it.
    """

    fields = ("final_norm",)
    hugging_face = None

    @staticmethod
    def weights(config, is_last: bool) -> list[Weight]:
        """Return `PostNorm`'s rows, and the final norm's."""
        final = norm("final_", "final_layer_norm", config.hidden_size, "final/LayerNorm")
        return PostNorm.weights(config, is_last) + (final if config.final_norm and is_last else [])

    @staticmethod
    def compute(do: Algebra, x, config, is_last: bool):
        """Return the block's output."""
        normed = do.norm("attention/output/LayerNorm", x)
        attended = do.attention(do.chosen(normed), normed, normed)
        x = do.add(do.chosen(x), do.drop(do.dense("attention/output/dense", attended)))
        inner = do.activate(do.dense("intermediate/dense", do.norm("output/LayerNorm", x)))
        x = do.add(x, do.drop(do.dense("output/dense", inner)))
        return do.norm("final/LayerNorm", x) if config.final_norm and is_last else x

    @staticmethod
    def variants():
        """Yield without and with a final norm."""
        yield {"final_norm": False}
        yield {"final_norm": True}
