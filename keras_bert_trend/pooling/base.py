"""What every pooling is: a Keras layer from the encoder's outputs to one vector a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_bert_trend.encoder.ops import as_long_as, attach_mask, wide_dtype

#: What subclasses declared before `Needs`, and what takes its place.
_FORMER_HOOKS = {
    "requires": "attention_received, attention_scores or pooled_output",
    "attention_blocks": "attention_received",
    "skips_padding": "padding",
    "reads_few_tokens": "last_tokens",
    "tokens_read": "last_tokens",
}


@dataclass(frozen=True)
class Needs:
    """What a pooling reads of the encoder beside the hidden states. The encoder computes nothing else.

    Args:
        pooled_output: bool. Whether `pooled_output` is read.
        attention_scores: bool. Whether `attention_scores` are read.
        attention_received: bool or tuple of int. Whether `attention_received` is read, of all blocks or of those whose
            numbers (from 0) are given.
        last_tokens: callable or `None`. Set it if `compute` reads few tokens of the last layer and knows which before
            the last block has run: `last_tokens(outputs, input_mask, input_word_ids)` returns their positions, int32
            `(B, n)`, and the last block then computes these tokens alone. `outputs` holds what there is by then.
        padding: bool. Whether `compute` reads states at padding, or needs them to be as long as the texts were padded.
            If `False`, the states at padding may be zero, and `T` may be the length of the batch's longest text:
            `BertTrend` and `embed` then save the time that padding takes.
    """

    pooled_output: bool = False
    attention_scores: bool = False
    attention_received: bool | tuple[int, ...] = False
    last_tokens: Callable[[Mapping, Any, Any], Any] | None = None
    padding: bool = True

    @classmethod
    def join(cls, needs: Sequence[Needs]) -> Needs:
        """Return what several poolings need together."""
        received = [each.attention_received for each in needs if each.attention_received is not False]
        readers = [each.last_tokens for each in needs]
        return cls(
            pooled_output=any(each.pooled_output for each in needs),
            attention_scores=any(each.attention_scores for each in needs),
            attention_received=True if True in received else tuple(sorted(set().union(*received))) or False,
            last_tokens=functools.partial(_join_tokens, readers) if all(readers) else None,
            padding=any(each.padding for each in needs),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the encoder's outputs that are read beside the hidden states."""
        names = ("pooled_output", "attention_scores", "attention_received")
        return tuple(name for name in names if getattr(self, name) is not False)

    def encoder_arguments(self, num_layers: int, inputs: Mapping, *, skip_padding: bool = False) -> dict[str, Any]:
        """Return the call arguments that make `BertEncoder` compute this and nothing else.

        Args:
            num_layers: int. The encoder's number of blocks.
            inputs: dict. The encoder's inputs.
            skip_padding: bool. Leave padding out if no pooling reads it.
        """
        received = self.attention_received
        arguments = {
            "return_attention_scores": self.attention_scores,
            "return_attention_received": received if isinstance(received, bool) else list(received),
            "skip_padding": skip_padding and not self.padding,
        }
        # The tokens must be known before the last block: not if they follow from its own attention.
        read_late = received is True or (received and num_layers - 1 in received)
        if self.last_tokens is not None and not read_late:
            mask, ids = inputs["input_mask"], inputs["input_word_ids"]
            arguments["last_block_tokens"] = functools.partial(self.last_tokens, input_mask=mask, input_word_ids=ids)
        return arguments


def _join_tokens(readers: Sequence[Callable], outputs, input_mask, input_word_ids):
    return ops.concatenate([read(outputs, input_mask, input_word_ids) for read in readers], axis=1)


class Pooling(keras.layers.Layer):
    """Base class of the poolings: the encoder's outputs and the mask in, one vector a text out.

    Subclass it, implement `compute` with `keras.ops`, and set `needs` if it reads more than the hidden states. Override
    `output_dim` if the result is not `hidden_size` wide, and `get_config` if the constructor has arguments. `compute`
    must ignore padding. Create weights in `__init__` (`add_weight`), or in `create_weights` if their shapes depend on
    the encoder; `BertTrend`'s `dtype` does not apply to them, so cast them to the states' dtype.

    Example:
        >>> from keras_bert_trend.pooling import Needs, hidden_states, masked_mean
        >>> @keras.saving.register_keras_serializable(package="mine")
        ... class FirstBlock(Pooling):
        ...     needs = Needs(padding=False)
        ...
        ...     def compute(self, outputs, input_mask, input_word_ids=None):
        ...         return masked_mean(hidden_states(outputs)[1], input_mask)

    Call arguments:
        outputs: dict. `BertEncoder`'s result: `embedding_output`, `encoder_outputs`, `sequence_output` (`hidden_states`
            lists them in order), and what `needs` names.
        input_mask: int `(B, T)`. 1 for real tokens.
        input_word_ids: int `(B, T)`. The token ids; only poolings that look at words use them.

    Returns:
        `(B, output_dim)`.

    Raises:
        ValueError: if the encoder was not asked for what `needs` names, if `compute` reads attention that `needs` does
            not name, or if it returns another width than `output_dim`.
        TypeError: if a subclass defines `build`, which is never called, or a hook that `needs` has replaced.
    """

    #: What `compute` reads beside the hidden states: a `Needs`, or a property that returns one.
    needs: Needs = Needs()

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            # Keras builds by the shapes of a call, of which a pooling has dozens, and `BertTrend` is complete before.
            raise TypeError(
                f"{cls.__name__}.build would never be called: create the weights in __init__ or create_weights."
            )
        for hook, argument in _FORMER_HOOKS.items():
            if hook in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{hook} is no longer read: declare it in one place, needs = Needs(…), with the "
                    f"argument {argument} (keras_bert_trend.pooling.Needs)."
                )

    def __init__(self, **kwargs) -> None:
        # `autocast=False`: attention sums come in float32, and must stay so under mixed precision.
        super().__init__(autocast=False, **kwargs)
        self.built = True

    def build(self, *args, **kwargs) -> None:
        """Do nothing: no weight depends on the input's shape."""

    def create_weights(self, hidden_size: int, num_layers: int) -> None:
        """Create the weights whose shapes depend on the encoder; called before every call, so create them once."""

    def compute(self, outputs: Mapping, input_mask, input_word_ids=None):
        """Return the pooled tensor; override this."""
        raise NotImplementedError

    def output_dim(self, hidden_size: int, num_layers: int) -> int:
        """Return the width of the result for an encoder of this shape."""
        return hidden_size

    def __call__(self, outputs, *args, **kwargs):
        """Create the weights first: a call may be traced, where none can be made."""
        self.create_weights(outputs["sequence_output"].shape[-1], len(outputs["encoder_outputs"]))
        return super().__call__(outputs, *args, **kwargs)

    def call(self, outputs, input_mask, input_word_ids=None):
        needed = self.needs.outputs
        missing = [name for name in needed if name not in outputs]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs the encoder's {missing}: call the encoder with "
                + ", ".join(f"return_{name}=True" for name in missing)
                + "."
            )
        input_mask = as_long_as(input_mask, outputs["sequence_output"])
        if input_word_ids is not None:
            input_word_ids = as_long_as(input_word_ids, outputs["sequence_output"])
        try:
            pooled = self.compute(outputs, input_mask, input_word_ids)
        except KeyError as error:
            if error.args[:1] not in (("attention_scores",), ("attention_received",)) or error.args[0] in needed:
                raise
            raise ValueError(
                f"{type(self).__name__}.compute reads {error.args[0]!r}, which the encoder computes only if asked: "
                f"set needs = Needs({error.args[0]}=True)."
            ) from None
        promised = self._width(outputs)
        if pooled.shape[-1] not in (promised, None):
            raise ValueError(
                f"{type(self).__name__}.compute returned {pooled.shape[-1]} dimensions, but its output_dim says "
                f"{promised}: override output_dim too."
            )
        if self._per_token:
            attach_mask(pooled, input_mask)
        return pooled

    def _width(self, outputs) -> int:
        return self.output_dim(outputs["sequence_output"].shape[-1], len(outputs["encoder_outputs"]))

    def compute_output_spec(self, outputs, input_mask, input_word_ids=None):
        """Return the result as a symbolic tensor, without tracing."""
        shapes = {"sequence_output": outputs["sequence_output"].shape, "encoder_outputs": outputs["encoder_outputs"]}
        return keras.KerasTensor(self.compute_output_shape(shapes), dtype=outputs["sequence_output"].dtype)

    def compute_output_shape(self, outputs_shape, input_mask_shape=None, input_word_ids_shape=None):
        """Return the result's shape for encoder outputs of these shapes."""
        *outer, hidden_size = outputs_shape["sequence_output"]
        width = self.output_dim(hidden_size, len(outputs_shape["encoder_outputs"]))
        return (*outer[: 2 if self._per_token else 1], width)

    def compute_mask(self, inputs, previous_mask):
        """Return `None`: one vector a text needs no mask, and `call` attaches it to one vector a token."""
        return None

    @property
    def _per_token(self) -> bool:
        return getattr(self, "level", "sentence") == "token"


def run_encoder(
    encoder,
    poolings: Sequence[Pooling],
    inputs: Mapping,
    *,
    training: bool | None = None,
    skip_padding: bool = False,
    compute_dtype: str | None = None,
) -> tuple[dict[str, Any], list]:
    """Run an encoder and pool its outputs, computing no more than the poolings read.

    Args:
        encoder: `BertEncoder`.
        poolings: list of `Pooling`.
        inputs: dict. The encoder's three inputs, int `(B, T)`.
        training: bool or `None`. Whether dropout acts.
        skip_padding: bool. Leave padding out if none of the poolings reads it.
        compute_dtype: str or `None`. The dtype of the encoder's products; defaults to that of its policy.

    Returns:
        The encoder's outputs, and a list of `(B, output_dim)`, one for each pooling.
    """
    needs = Needs.join([pooling.needs for pooling in poolings])
    arguments = needs.encoder_arguments(encoder.config.num_layers, inputs, skip_padding=skip_padding)
    if compute_dtype is not None:
        arguments["compute_dtype"] = compute_dtype
    outputs = encoder(inputs, training=training, **arguments)
    mask, ids = inputs["input_mask"], inputs["input_word_ids"]
    return outputs, [pooling(outputs, mask, input_word_ids=ids) for pooling in poolings]


def hidden_states(outputs: Mapping) -> list:
    """Return the embedding output and all encoder outputs: layer 0 … layer L, each `(B, T, hidden)`."""
    return [outputs["embedding_output"], *outputs["encoder_outputs"]]


def masked_mean(states, input_mask) -> Any:
    """Average over the real tokens: `(B, T, hidden)` → `(B, hidden)`; a row without any gives zeros.

    The sum runs in float32 or wider, so that long texts lose nothing under mixed precision.
    """
    weights = ops.cast(input_mask, wide_dtype(states))[:, :, None]
    total = ops.sum(ops.cast(states, weights.dtype) * weights, axis=1)
    return ops.cast(total / ops.maximum(ops.sum(weights, axis=1), 1.0), states.dtype)
