"""Poolings over whole layers: any list of them, and the presets people know by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_bert_trend.pooling.base import Needs, Pooling, hidden_states, masked_mean

_COMBINE = ("sum", "mean", "concat")
_LEVELS = ("sentence", "token")


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class LayerPooling(Pooling):
    """Combine the hidden states of any layers, then average over the real tokens.

    Args:
        layers: layer numbers as in `H[l]`: 0 is the embedding output, 1 … L the blocks, −1 the last block.
        combine: `"sum"`, `"mean"` or `"concat"` of the layers.
        level: `"sentence"` averages over the real tokens, `(batch, width)`; `"token"` keeps one vector a token,
            `(batch, seq, width)`, zero at the padding.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: an argument is none of these; on the first call, a layer that the encoder does not have.
    """

    def __init__(self, layers: Sequence[int], *, combine: str = "mean", level: str = "sentence", **kwargs) -> None:
        super().__init__(**kwargs)
        if not layers or not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers):
            raise ValueError(f"`layers` must be a non-empty list of layer numbers, got {layers!r}.")
        if combine not in _COMBINE:
            raise ValueError(f"`combine` must be one of {_COMBINE}, got {combine!r}.")
        if level not in _LEVELS:
            raise ValueError(f"`level` must be one of {_LEVELS}, got {level!r}.")
        self.layers = tuple(layers)
        self.combine = combine
        self.level = level

    @property
    def needs(self) -> Needs:
        """At token level the result is as long as the texts were padded."""
        return Needs(padding=self.level == "token")

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, width)`, or `(batch, seq, width)` at token level."""
        states = hidden_states(outputs)
        chosen = [states[layer] for layer in self._resolve(len(states) - 1)]
        if self.combine == "concat":
            combined = ops.concatenate(chosen, axis=-1)
        else:
            combined = sum(chosen[1:], chosen[0])
            if self.combine == "mean":
                combined = combined / len(chosen)
        if self.level == "token":
            return combined * ops.cast(input_mask, combined.dtype)[:, :, None]
        return masked_mean(combined, input_mask)

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        """Return `hidden_size`, times the number of layers when they are concatenated."""
        return hidden_size * (len(self._resolve(num_layers)) if self.combine == "concat" else 1)

    def _resolve(self, num_layers: int) -> list[int]:
        for layer in self.layers:
            if not -num_layers - 1 <= layer <= num_layers:
                raise ValueError(
                    f"`layers` has {layer}, but this encoder has layers 0 (embedding output) to {num_layers}."
                )
        return [layer % (num_layers + 1) for layer in self.layers]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layers": list(self.layers), "combine": self.combine, "level": self.level}


class _LastFour(LayerPooling):
    """The last four blocks; all blocks of an encoder that has fewer."""

    combine_as: str

    def __init__(self, *, level: str = "sentence", **kwargs) -> None:
        super().__init__([-4, -3, -2, -1], combine=self.combine_as, level=level, **kwargs)

    def _resolve(self, num_layers):
        return list(range(max(1, num_layers - 3), num_layers + 1))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("layers", "combine")}


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class LastFourSum(_LastFour):
    """Sum of the last four encoder outputs: `Σ_{l>L−4} H[l, t]`, a token embedding; averaged for a sentence.

    Source: Devlin et al. 2019 (arXiv:1810.04805), §5.3, table 7 "Sum Last Four Hidden". An encoder with fewer than
    four blocks sums all of them.

    Args:
        level: `"sentence"` averages over the real tokens, `"token"` gives `(batch, seq, hidden)`.
        **kwargs: those of `keras.layers.Layer`.
    """

    combine_as = "sum"


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class LastFourConcat(_LastFour):
    """Concatenation of the last four encoder outputs, first to last: `(…, 4 · hidden)`.

    Source: Devlin et al. 2019 (arXiv:1810.04805), §5.3, table 7 "Concat Last Four Hidden". An encoder with fewer than
    four blocks concatenates all of them.

    Args:
        level: `"sentence"` averages over the real tokens, `"token"` gives `(batch, seq, 4 · hidden)`.
        **kwargs: those of `keras.layers.Layer`.
    """

    combine_as = "concat"


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class FirstLastMean(Pooling):
    """Mean over the real tokens of `(H[1, t] + H[L, t]) / 2`: the first and the last block.

    Source: Gao et al. 2021 (SimCSE, arXiv:2104.08821), pooler type `avg_first_last`.
    """

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`."""
        encoder_outputs = outputs["encoder_outputs"]
        return masked_mean((encoder_outputs[0] + encoder_outputs[-1]) / 2, input_mask)


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class SecondToLast(Pooling):
    """Mean over the real tokens of `H[L−1, t]` (Devlin et al. 2019, §5.3, "Second-to-Last Hidden")."""

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`; with a single block, `H[0]` is the second to last."""
        return masked_mean(hidden_states(outputs)[-2], input_mask)
