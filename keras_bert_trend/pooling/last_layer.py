"""Poolings over the last layer's tokens: first token, pooler, mean, max, mean and standard deviation."""

from __future__ import annotations

import keras
from keras import ops

from keras_bert_trend.encoder.ops import wide_dtype
from keras_bert_trend.pooling.base import Needs, Pooling, masked_mean


def _first_token(outputs, input_mask, input_word_ids):
    """Return the position of [CLS], `(B, 2)`."""
    # Twice: a product with one row runs in another kernel than one with many, and rounds differently.
    return ops.zeros_like(ops.stack([input_mask[:, 0]] * 2, axis=1), dtype="int32")


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class ClsPooling(Pooling):
    """The last hidden state of the first token, [CLS]: `H[L, 0]` (Devlin et al. 2019, §3)."""

    needs = Needs(last_tokens=_first_token, padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`."""
        return outputs["sequence_output"][:, 0]


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class PoolerPooling(Pooling):
    """The encoder's `pooled_output`: `tanh(W · H[L, 0] + b)` (google-research/bert, `modeling.py`, `pooler`)."""

    needs = Needs(pooled_output=True, last_tokens=_first_token, padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`."""
        return outputs["pooled_output"]


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class MeanPooling(Pooling):
    """Mean of `H[L, t]` over the real tokens, [CLS] and [SEP] included.

    Source: Reimers and Gurevych 2019 (Sentence-BERT, arXiv:1908.10084), §3.
    """

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`."""
        return masked_mean(outputs["sequence_output"], input_mask)


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class MaxPooling(Pooling):
    """Maximum of `H[L, t]` over the real tokens, dimension by dimension (Reimers and Gurevych 2019)."""

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, hidden)`; a row without real tokens gives zeros."""
        states = outputs["sequence_output"]
        real = ops.cast(input_mask, "bool")[:, :, None]
        # Any number below every hidden state does; −1e4 exists in float16 too.
        highest = ops.max(ops.where(real, states, ops.cast(-1e4, states.dtype)), axis=1)
        return ops.where(ops.any(real, axis=1), highest, ops.zeros_like(highest))


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class MeanStdPooling(Pooling):
    """Mean and standard deviation of `H[L, t]` over the real tokens, side by side: `(batch, 2 · hidden)`.

    "Statistics pooling" (Snyder et al. 2017, "Deep Neural Network Embeddings for Text-Independent Speaker
    Verification"). The standard deviation is the population's, `√(Σ(x − mean)² / n)`.
    """

    needs = Needs(padding=False)

    def compute(self, outputs, input_mask, input_word_ids=None):
        """Return `(batch, 2 · hidden)`; one token has standard deviation zero."""
        states = outputs["sequence_output"]
        states = ops.cast(states, wide_dtype(states))
        mean = masked_mean(states, input_mask)
        variance = masked_mean(ops.square(states - mean[:, None]), input_mask)
        # The root's gradient is infinite at zero: the masked branch must not even see a zero.
        positive = variance > 0
        std = ops.where(positive, ops.sqrt(ops.where(positive, variance, ops.ones_like(variance))), 0.0)
        return ops.cast(ops.concatenate([mean, std], axis=-1), outputs["sequence_output"].dtype)

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        return 2 * hidden_size
