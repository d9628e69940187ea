"""Texts in any form that users have them in, to one or two string tensors of the same shape."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_bert_trend.encoder.ops import is_placeholder


class NotStringsError(ValueError, NotImplementedError):
    """A symbolic input is not of strings.

    Also a `NotImplementedError`: `keras.Sequential` without an `Input` first tries its layers on float32, and goes on
    without a functional model if one of them raises that.
    """


def to_string_tensors(inputs):
    """Turn Python strings and NumPy string arrays, alone or as a pair, into TensorFlow string tensors.

    Tensors and symbolic tensors pass through. A list of `str` is a batch of texts, never a pair; a dict of one or two
    named features is taken as its values, in order.

    Raises:
        ValueError: if `inputs` is a bare `str` instead of a batch, or an array of something other than strings.
    """
    if isinstance(inputs, str | bytes):
        raise ValueError(f"`inputs` must be a batch of strings: pass [{inputs!r}] instead of {inputs!r}.")
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, list) and inputs and all(isinstance(element, list | tuple) for element in inputs):
        # `[[q1, a1], [q2, a2]]` and `[questions, answers]` look the same, so two pairs would be ambiguous.
        raise ValueError("`inputs` is a list of lists: give pairs as a tuple of two batches, (firsts, seconds).")
    if isinstance(inputs, list | tuple):
        if inputs and all(map(_is_batch_of_texts, inputs)):
            if len(inputs) > 2:
                raise ValueError(
                    f"`inputs` must be strings (batch,) or a pair of them, got a {type(inputs).__name__} "
                    f"of {len(inputs)}."
                )
            segments = tuple(to_string_tensors(segment) for segment in inputs)
            return segments if len(segments) == 2 else segments[0]
        return _string_constant(np.array(inputs, dtype=object))
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "OUST":
            raise ValueError(f"`inputs` must be strings, got an array of dtype {inputs.dtype}.")
        return _string_constant(inputs.astype(object))
    return inputs


def _is_batch_of_texts(element) -> bool:
    return isinstance(element, list | tuple) or (hasattr(element, "shape") and not isinstance(element, np.generic))


def _string_constant(array: np.ndarray):
    import tensorflow as tf

    for text in array.ravel():
        if not isinstance(text, str | bytes):
            raise ValueError(f"`inputs` must be strings, got {text!r} among them.")
    try:
        return tf.constant(array, dtype=tf.string)
    except ValueError:  # TensorFlow does not say which
        for position, text in enumerate(array.ravel()):
            _check_unicode(text, position)
        raise


def _check_unicode(text: str | bytes, position: int) -> None:
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"`inputs` must be valid Unicode: in text {position} (from 0), character {error.start}, "
                f"{text[error.start]!r}, is half of a surrogate pair."
            ) from None


def as_segments(inputs) -> list:
    """Return the one or two string tensors of a call's input, checked for dtype and shape.

    Raises:
        ValueError: if they are not strings, of rank 0, 1 or 2, or if the two segments of pairs differ in shape.
    """
    segments = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if len(segments) not in (1, 2):
        raise ValueError(f"`inputs` must be one string tensor or a pair of them, got {len(segments)}.")
    segments = [_as_strings(segment) for segment in segments]
    shapes = [segment.shape for segment in segments]
    for shape in shapes:
        if _rank(shape) is not None and _rank(shape) > 2:
            raise ValueError(
                "`inputs` must be strings (batch,), (batch, 1) or, for documents, (batch, sentences); got shape "
                f"{tuple(shape)}."
            )
    if len({_rank(shape) for shape in shapes} - {None}) > 1:
        raise ValueError(f"The two segments of pairs must have the same rank, got {shapes[0]} and {shapes[1]}.")
    if None not in map(_rank, shapes):
        for sizes in zip(*map(tuple, shapes), strict=True):
            if len(set(sizes) - {None}) > 1:
                raise ValueError(f"The two segments of pairs must be as many, got {sizes[0]} and {sizes[1]} texts.")
    return segments


def _as_strings(segment):
    if is_ragged(segment):
        raise ValueError("`inputs` must be a dense string tensor, got a RaggedTensor: call its to_tensor() first.")
    dtype = keras.backend.standardize_dtype(segment.dtype)
    if dtype == "string":
        return segment
    if is_placeholder(segment):
        import tensorflow as tf

        return tf.cast(segment, tf.string)
    message = f'`inputs` must be strings, got dtype {dtype}: declare them with keras.Input((), dtype="string").'
    raise (NotStringsError if isinstance(segment, keras.KerasTensor) else ValueError)(message)


def is_ragged(tensor) -> bool:
    """Whether `tensor` is a `tf.RaggedTensor`, without importing TensorFlow."""
    return hasattr(tensor, "row_splits")


def has_symbols(inputs) -> bool:
    """Whether `inputs` holds a `keras.KerasTensor`."""
    return any(isinstance(element, keras.KerasTensor) for element in keras.tree.flatten(inputs))


def is_batch(shape) -> bool:
    """Whether strings of this shape are one text per row: `(B,)`, a column `(B, 1)`, or of unknown rank."""
    return _rank(shape) in (None, 1) or (_rank(shape) == 2 and shape[1] == 1)


def _rank(shape) -> int | None:
    return shape.rank if hasattr(shape, "rank") else len(shape)


def flattened(segment):
    """Return strings of any shape as `(n,)`."""
    import tensorflow as tf

    rank = _rank(segment.shape)
    return segment if rank in (None, 1) else tf.reshape(with_rank(segment, rank), [-1])


def with_rank(texts, rank: int):
    """Return a string tensor, of which a graph checks the rank when it runs.

    A server does not check a request against the signature's rank, and `FastWordpieceTokenizeWithOffsets` ends the
    process with a segmentation fault on a scalar. (The rewriter folds an assertion on `tf.rank`, which the signature
    promises; it keeps this operation.)
    """
    import tensorflow as tf

    texts = tf.convert_to_tensor(texts, tf.string)
    return texts if tf.executing_eagerly() else tf.ensure_shape(texts, [None] * rank)
