"""The kinds of transformer block: one class a file, and the table of their names, `BertConfig.block`."""

from keras_bert_trend.encoder.blocks.block import Block
from keras_bert_trend.encoder.blocks.mobile import Mobile
from keras_bert_trend.encoder.blocks.post_norm import PostNorm
from keras_bert_trend.encoder.blocks.pre_norm import PreNorm
from keras_bert_trend.encoder.blocks.talking_heads import TalkingHeads

__all__ = ["BLOCKS", "Block"]

BLOCKS: dict[str, type[Block]] = {
    "post_norm": PostNorm,
    "pre_norm": PreNorm,
    "talking_heads": TalkingHeads,
    "mobile": Mobile,
}
