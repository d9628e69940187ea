"""Several poolings side by side."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_bert_trend.pooling.base import Pooling


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class ConcatPooling(Pooling):
    """Several poolings side by side.

    Args:
        poolings: `Pooling` layers of sentence level.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: the list is empty, or holds something that is no sentence-level pooling.
    """

    def __init__(self, poolings: list[Pooling], **kwargs) -> None:
        super().__init__(**kwargs)
        if not poolings or not all(isinstance(pooling, Pooling) for pooling in poolings):
            raise ValueError(f"`poolings` must be a non-empty list of Pooling layers, got {poolings!r}.")
        if any(getattr(pooling, "level", "sentence") == "token" for pooling in poolings):
            raise ValueError("`poolings` must all pool to one vector a text; one of them has level='token'.")
        self.poolings = list(poolings)

    @property
    def requires(self) -> frozenset[str]:
        """Everything that any of the poolings requires."""
        return frozenset().union(*(pooling.requires for pooling in self.poolings))

    @property
    def attention_blocks(self) -> tuple[int, ...] | None:
        """The blocks that any of the poolings reads the attention of."""
        blocks = [pooling.attention_blocks for pooling in self.poolings if "attention_received" in pooling.requires]
        return None if None in blocks else tuple(sorted(set().union(*blocks)))

    @property
    def skips_padding(self) -> bool:
        """Whether all of the poolings do."""
        return all(pooling.skips_padding for pooling in self.poolings)

    def reads_few_tokens(self, num_layers):
        """Return whether all of the poolings do."""
        return all(pooling.reads_few_tokens(num_layers) for pooling in self.poolings)

    def tokens_read(self, outputs, input_mask, input_word_ids=None):
        """Return the positions that any of the poolings reads."""
        rest = input_mask, input_word_ids
        return ops.concatenate([pooling.tokens_read(outputs, *rest) for pooling in self.poolings], axis=1)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, sum of the widths)`."""
        return ops.concatenate(
            [pooling(outputs, input_mask, input_word_ids=input_word_ids) for pooling in self.poolings], axis=-1
        )

    def output_dim(self, hidden_size, num_layers):
        """Return the sum of the poolings' widths."""
        return sum(pooling.output_dim(hidden_size, num_layers) for pooling in self.poolings)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            **super().get_config(),
            "poolings": [keras.saving.serialize_keras_object(pooling) for pooling in self.poolings],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConcatPooling:
        """Rebuild the poolings, then this layer."""
        poolings = [keras.saving.deserialize_keras_object(pooling) for pooling in config["poolings"]]
        return cls(**{**config, "poolings": poolings})
