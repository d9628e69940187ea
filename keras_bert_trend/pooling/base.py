"""What every pooling is: a Keras layer from the encoder's outputs to one vector a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_bert_trend.encoder.ops import wide_dtype

_ON_REQUEST = ("attention_scores", "attention_received")


class Pooling(keras.layers.Layer):
    """Base of the poolings: the encoder's output dict and the mask in, `(batch, embedding_dim)` out.

    A pooling of your own overrides `compute` and `output_dim`, and `requires` where it needs more than the hidden
    states. It must ignore padding exactly, and use `keras.ops` only. It is faster where it can set `skips_padding`.
    Weights that it trains are made in `__init__` (`add_weight`): the encoder's sizes are arguments then. They stay what
    they are under mixed precision, and `BertTrend`'s `dtype` is not theirs: cast them to the states' dtype.

    Example:
        >>> from keras_bert_trend.pooling import hidden_states, masked_mean
        >>> @keras.saving.register_keras_serializable(package="mine")
        ... class FirstBlock(Pooling):
        ...     skips_padding = True
        ...
        ...     def compute(self, outputs, input_mask, input_word_ids=None):
        ...         return masked_mean(hidden_states(outputs)[1], input_mask)

    Call arguments:
        outputs: `BertEncoder`'s result, of which `compute` may read without more ado `embedding_output`,
            `encoder_outputs` and `sequence_output` (`hidden_states` has them in order), and what `requires` names.
        input_mask: `(batch, seq)`, 1 for real tokens.
        input_word_ids: `(batch, seq)`; needed by poolings that look at words (`TrendPooling`).

    Returns:
        `(batch, output_dim)`.

    Raises:
        ValueError: the encoder was not asked for what `requires` names; `compute` reads attention that `requires` does
            not name, or returned another width than `output_dim` promises.
        TypeError: a subclass defines `build`, which is never called.
    """

    #: Encoder outputs that `compute` reads beside the hidden states: `"pooled_output"`, `"attention_received"`,
    #: `"attention_scores"`.
    requires: frozenset[str] = frozenset()

    #: Of `"attention_received"`, the blocks that are read, from 0; `None` is all of them.
    attention_blocks: tuple[int, ...] | None = None

    #: Whether `compute` may get states without the padding's: zero where the encoder leaves it out, and of a length
    #: that is open in a graph, that of the batch's longest text (in 16s) instead of `sequence_length`. The mask says as
    #: ever what is real. `BertTrend` and `embed` then save the time that padding takes.
    skips_padding: bool = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            # Keras builds by the shapes of a call, of which a pooling has dozens, and `BertTrend` is complete before.
            raise TypeError(f"{cls.__name__}.build would never be called: make the weights of a pooling in __init__.")

    def __init__(self, **kwargs) -> None:
        # `autocast=False`: attention sums come in float32, and must stay so under mixed precision.
        super().__init__(autocast=False, **kwargs)
        self.built = True

    def build(self, *args, **kwargs) -> None:
        """Do nothing: no weight depends on the input's shape."""

    def compute(self, outputs: Mapping, input_mask, input_word_ids=None):
        """Return the pooled tensor; override this."""
        raise NotImplementedError

    def reads_few_tokens(self, num_layers: int) -> bool:
        """Whether `compute` reads only few tokens of the last layer, those that `tokens_read` tells."""
        return False

    def tokens_read(self, outputs: Mapping, input_mask, input_word_ids=None):
        """Return the positions that `compute` reads of the last layer's states: int32 `(batch, n)`.

        Args:
            outputs: the encoder's outputs before the last block.
            input_mask: `(batch, seq)`.
            input_word_ids: `(batch, seq)`.
        """
        raise NotImplementedError

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        """Return the width of the result for an encoder of this shape."""
        return hidden_size

    def call(self, outputs, input_mask, input_word_ids=None):
        """Check that the outputs are there, and pool them."""
        missing = sorted(name for name in self.requires if name not in outputs)
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs the encoder's {missing}: call the encoder with "
                + ", ".join(f"return_{name}=True" for name in missing)
                + "."
            )
        try:
            pooled = self.compute(outputs, input_mask, input_word_ids)
        except KeyError as error:
            if error.args[0] not in _ON_REQUEST:
                raise
            raise ValueError(
                f"{type(self).__name__}.compute reads {error.args[0]!r}, which the encoder computes for poolings only "
                "whose `requires` names it: add it there."
            ) from None
        promised = self._width(outputs)
        if pooled.shape[-1] not in (promised, None):
            raise ValueError(
                f"{type(self).__name__}.compute returned {pooled.shape[-1]} dimensions, where its output_dim says "
                f"{promised}: override output_dim too."
            )
        return pooled

    def _width(self, outputs) -> int:
        return self.output_dim(outputs["sequence_output"].shape[-1], len(outputs["encoder_outputs"]))

    def compute_output_spec(self, outputs, input_mask, input_word_ids=None):
        """Return the result as a symbolic tensor, without tracing."""
        sequence = outputs["sequence_output"]
        width = self._width(outputs)
        shape = (sequence.shape[0], width)
        if getattr(self, "level", "sentence") == "token":
            shape = (*sequence.shape[:2], width)
        return keras.KerasTensor(shape, dtype=sequence.dtype)


def encoder_arguments(
    poolings: Sequence[Pooling], num_layers: int, inputs: Mapping, *, skip_padding: bool = False
) -> dict[str, Any]:
    """Return what to call an encoder with, beside the inputs, so that it computes no more than these poolings read.

    Args:
        poolings: what will be called on the outputs.
        num_layers: the encoder's number of blocks.
        inputs: the encoder's inputs.
        skip_padding: leave padding out where all of the poolings take that. A compiler would not.
    """
    required = frozenset().union(*(pooling.requires for pooling in poolings))
    readers = [pooling for pooling in poolings if "attention_received" in pooling.requires]
    received: bool | list[int] = bool(readers)
    if readers and all(pooling.attention_blocks is not None for pooling in readers):
        received = sorted(set().union(*(pooling.attention_blocks for pooling in readers)))
    arguments = {
        "return_attention_scores": "attention_scores" in required,
        "return_attention_received": received,
        "skip_padding": skip_padding and all(pooling.skips_padding for pooling in poolings),
    }
    if all(pooling.reads_few_tokens(num_layers) for pooling in poolings):
        rest = inputs["input_mask"], inputs["input_word_ids"]
        arguments["last_block_tokens"] = lambda outputs: ops.concatenate(
            [pooling.tokens_read(outputs, *rest) for pooling in poolings], axis=1
        )
    return arguments


def hidden_states(outputs: Mapping) -> list:
    """Return the embedding output and all encoder outputs: layer 0 … layer L, each `(batch, seq, hidden)`."""
    return [outputs["embedding_output"], *outputs["encoder_outputs"]]


def masked_mean(states, input_mask):
    """Average over the real tokens: `(batch, seq, hidden)` → `(batch, hidden)`; a row without any gives zeros.

    The sum runs in float32 or wider, so that long texts lose nothing under mixed precision.
    """
    weights = ops.cast(input_mask, wide_dtype(states))[:, :, None]
    total = ops.sum(ops.cast(states, weights.dtype) * weights, axis=1)
    return ops.cast(total / ops.maximum(ops.sum(weights, axis=1), 1.0), states.dtype)
