"""Several poolings side by side."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_bert_trend.pooling.base import Needs, Pooling


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
    def needs(self) -> Needs:
        """What any of the poolings needs."""
        return Needs.join([pooling.needs for pooling in self.poolings])

    def create_weights(self, hidden_size: int, num_layers: int) -> None:
        """Create those of the poolings."""
        for pooling in self.poolings:
            pooling.create_weights(hidden_size, num_layers)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, sum of the widths)`."""
        return ops.concatenate(
            [pooling(outputs, input_mask, input_word_ids=input_word_ids) for pooling in self.poolings], axis=-1
        )

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        return sum(pooling.output_dim(hidden_size, num_layers) for pooling in self.poolings)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "poolings": [keras.saving.serialize_keras_object(pooling) for pooling in self.poolings],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConcatPooling:
        poolings = [keras.saving.deserialize_keras_object(pooling) for pooling in config["poolings"]]
        return cls(**{**config, "poolings": poolings})


def leaves(pooling: Pooling) -> list[Pooling]:
    """Return the poolings that are concatenated, at any depth; of another pooling itself."""
    if isinstance(pooling, ConcatPooling):
        return [leaf for part in pooling.poolings for leaf in leaves(part)]
    return [pooling]
