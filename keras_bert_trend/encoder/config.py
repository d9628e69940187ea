"""`BertConfig`: everything that decides a BERT encoder's shapes and numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras_bert_trend.encoder.blocks import BLOCKS, Block
from keras_bert_trend.encoder.weight_table import Weight, dense

HIDDEN_ACTS = ("gelu", "gelu_tanh", "relu")
POOLERS = ("tanh", "identity")
NORMALIZATIONS = ("layer_norm", "no_norm")
MAX_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The architecture of a BERT encoder.

    Field names follow google-research/bert's `BertConfig`. Nothing here says where the weights come from: the same
    configuration describes a new encoder and an imported one.

    Args:
        vocab_size: int. The rows of the word embedding table.
        hidden_size: int. The width of every hidden state. Defaults to 768.
        num_layers: int. The number of transformer blocks, at most 1,000. Defaults to 12.
        num_heads: int. The attention heads of a block; divides `hidden_size`. Defaults to 12.
        intermediate_size: int. The width of the feed-forward layer inside a block. Defaults to 3072.
        max_position_embeddings: int. The rows of the position table: the longest sequence. Defaults to 512.
        type_vocab_size: int. The rows of the token type table; 0 if there is none (DistilBERT), so that
            `input_type_ids` change nothing. Defaults to 2.
        hidden_act: str. `"gelu"` (exact, with erf), `"gelu_tanh"` (Google's tanh approximation) or `"relu"`. Defaults
            to `"gelu_tanh"`.
        layer_norm_epsilon: float. What every LayerNorm adds to the variance. Defaults to 1e-12.
        attention_mask_constant: float. The negative number *added* to the attention logits of masked keys: −10000 in
            models of 2018–2020, −1e9 in Model Garden's later ones. Defaults to −1e9.
        hidden_dropout: float. The dropout rate after the embeddings and after each sub-layer, in training. Defaults to
            0.1.
        attention_dropout: float. The dropout rate of the attention probabilities, in training. Defaults to 0.1.
        pooler: str. `"tanh"` (dense and tanh on the first token) or `"identity"` (the first token as it is). Defaults
            to `"tanh"`.
        initializer_range: float. The standard deviation of the truncated normal that new weights are drawn from.
            Defaults to 0.02.
        embedding_size: int or `None`. The width of the embedding tables (ALBERT, ELECTRA). If it differs from
            `hidden_size`, a dense layer follows the embeddings' LayerNorm. Defaults to `None`, `hidden_size`.
        share_layers: bool. Whether one transformer block is applied `num_layers` times (ALBERT). Defaults to `False`.
        block: str. The kind of transformer block: `"post_norm"` (BERT, ALBERT, ELECTRA), `"pre_norm"`,
            `"talking_heads"` or `"mobile"` (MobileBERT). Defaults to `"post_norm"`.
        final_norm: bool. Of `"pre_norm"`: whether the last block ends with one more LayerNorm. Defaults to `False`.
        bottleneck_size: int or `None`. Of `"mobile"`: the width inside a block, which `num_heads` divides there.
            Defaults to `None`.
        num_feed_forwards: int. Of `"mobile"`: the feed-forward layers of a block. Defaults to 1.
        normalization: str. Of `"mobile"`: `"layer_norm"`, or `"no_norm"` for `x ⊙ gamma + beta` in its place. Defaults
            to `"layer_norm"`.

    Raises:
        ValueError: if a field has a value that no BERT encoder can have; the message names the field.
    """

    vocab_size: int
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu_tanh"
    layer_norm_epsilon: float = 1e-12
    attention_mask_constant: float = -1e9
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    pooler: str = "tanh"
    initializer_range: float = 0.02
    embedding_size: int | None = None
    share_layers: bool = False
    block: str = "post_norm"
    final_norm: bool = False
    bottleneck_size: int | None = None
    num_feed_forwards: int = 1
    normalization: str = "layer_norm"

    def __post_init__(self) -> None:
        if self.embedding_size is None:
            object.__setattr__(self, "embedding_size", self.hidden_size)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "max_position_embeddings",
            "embedding_size",
            "num_feed_forwards",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
        if isinstance(self.type_vocab_size, bool) or not (
            isinstance(self.type_vocab_size, int) and self.type_vocab_size >= 0
        ):
            raise ValueError(f"`type_vocab_size` must be an integer of at least 0, got {self.type_vocab_size!r}.")
        if self.num_layers > MAX_LAYERS:  # a downloaded configuration must not take the memory
            raise ValueError(f"`num_layers` must be at most {MAX_LAYERS}, got {self.num_layers}.")
        self._check_block()
        if self.attention_width % self.num_heads:
            width = "hidden_size" if self.bottleneck_size is None else "bottleneck_size"
            raise ValueError(
                f"`num_heads` must divide `{width}`: got num_heads={self.num_heads}, {width}={self.attention_width}."
            )
        if self.hidden_act not in HIDDEN_ACTS:
            raise ValueError(f"`hidden_act` must be one of {HIDDEN_ACTS}, got {self.hidden_act!r}.")
        if self.pooler not in POOLERS:
            raise ValueError(f"`pooler` must be one of {POOLERS}, got {self.pooler!r}.")
        if not (math.isfinite(self.layer_norm_epsilon) and self.layer_norm_epsilon > 0):
            raise ValueError(f"`layer_norm_epsilon` must be positive, got {self.layer_norm_epsilon!r}.")
        if not (math.isfinite(self.attention_mask_constant) and self.attention_mask_constant < 0):
            raise ValueError(
                f"`attention_mask_constant` must be negative and finite, got {self.attention_mask_constant!r}."
            )
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)!r}.")

    def _check_block(self) -> None:
        if self.block not in BLOCKS:
            raise ValueError(f"`block` must be one of {tuple(BLOCKS)}, got {self.block!r}.")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in {name for kind in BLOCKS.values() for name in kind.fields} - set(self.kind.fields):
            if getattr(self, name) != defaults[name]:
                owners = [block for block, kind in BLOCKS.items() if name in kind.fields]
                raise ValueError(f"`{name}` is of block={owners[0]!r} only, got {getattr(self, name)!r}.")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"`normalization` must be one of {NORMALIZATIONS}, got {self.normalization!r}.")
        size = self.bottleneck_size
        if "bottleneck_size" in self.kind.fields and (
            isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= self.hidden_size
        ):
            raise ValueError(f"`bottleneck_size` must be between 1 and hidden_size={self.hidden_size}, got {size!r}.")
        if "bottleneck_size" in self.kind.fields and not self.type_vocab_size:
            raise ValueError(f"`type_vocab_size` must be positive with block={self.block!r}, got 0.")
        if self.final_norm and self.share_layers:
            raise ValueError("`final_norm` must be False where all layers share their weights, got True.")

    @property
    def kind(self) -> type[Block]:
        """The class of the transformer blocks."""
        return BLOCKS[self.block]

    @property
    def num_blocks(self) -> int:
        """How many blocks have weights of their own."""
        return 1 if self.share_layers else self.num_layers

    @property
    def attention_width(self) -> int:
        """Width of all attention heads side by side."""
        return self.hidden_size if self.bottleneck_size is None else self.bottleneck_size

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.attention_width // self.num_heads

    def embedding_weights(self) -> list[Weight]:
        """Return the embeddings' rows of the weight table."""
        return self.kind.embedding_weights(self)

    def block_weights(self, is_last: bool = False) -> list[Weight]:
        """Return a transformer block's rows of the weight table, named within the block."""
        return self.kind.weights(self, is_last)

    def pooler_weights(self) -> list[Weight]:
        """Return the pooler's rows of the weight table, if it has any."""
        width = self.hidden_size
        return dense("pooler", "pooler", width, width, "pooler/dense") if self.pooler == "tanh" else []

    def weight_parts(self) -> list[list[Weight]]:
        """Return the weight table layer by layer: the embeddings, every distinct block, the pooler."""
        blocks = [
            [weight.below(f"encoder/layer_{layer}") for weight in self.block_weights(layer == self.num_layers - 1)]
            for layer in range(self.num_blocks)
        ]
        return [self.embedding_weights(), *blocks, self.pooler_weights()]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight under its google-research/bert name (without the leading `bert/`)."""
        return {name: weight.shape for part in self.weight_parts() for weight in part for name in weight.names}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BertConfig:
        """Build a configuration from `to_dict`'s result.

        Raises:
            ValueError: if `fields` holds a name that is not a field, or lacks a required one.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"BertConfig has no field {unknown}; its fields are {sorted(known)}.")
        if "vocab_size" not in fields:
            raise ValueError("BertConfig needs the field `vocab_size`.")
        return cls(**fields)
