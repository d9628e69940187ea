"""`BertPreprocessor`: strings to the encoder's three inputs, as a Keras layer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_bert_trend.preprocessing.vocabulary import Vocabulary, as_vocabulary

_AUTO_LENGTH = 128


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class BertPreprocessor(keras.layers.Layer):
    """Strings, or pairs of strings, to `input_word_ids`, `input_mask` and `input_type_ids`.

    The tokens are those of TensorFlow Text's `BertTokenizer`, or of `SentencepieceTokenizer` where the vocabulary is a
    SentencePiece model (ALBERT): what the preprocessing models on TF Hub compute. A text becomes `[CLS] a [SEP]`, a
    pair `[CLS] a [SEP] b [SEP]` with type ids 0 and 1. Where a pair is too long the segments are trimmed in turns
    (round robin), so that neither is lost.

    The layer works inside a model, in `tf.data.Dataset.map`, and exported. Text needs TensorFlow: under another Keras
    backend use `preprocess`, which takes and returns TensorFlow tensors whatever the backend is.

    Example:
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "an", "apple", "."]
        >>> preprocessor = BertPreprocessor(tokens, lower_case=True, sequence_length=6)
        >>> preprocessor(["An apple."])["input_word_ids"].numpy().tolist()
        [[2, 4, 5, 6, 3, 0]]

    Args:
        vocabulary: the WordPiece tokens in the order of their ids, or a serialised SentencePiece model (`bytes`).
        lower_case: whether to lower-case first, as uncased models need.
        strip_accents: whether to strip accents too; by default where the text is lower-cased.
        sequence_length: pad and trim to this length; `None` pads to the longest text of the batch.
        max_length: the longest sequence the model takes; with `sequence_length=None` a longer text is an error,
            unless `truncate`.
        truncate: with `sequence_length=None`, trim texts to `max_length` instead of refusing longer ones.
        fast_tokenizer: whether WordPiece is computed by `FastWordpieceTokenizer`: the same ids, several times as fast.
            Set it to `False`, here or on the layer before exporting, where what serves the model lacks that operation
            but has those of `BertTokenizer`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: strings `(batch,)` (a tensor, a list of `str`, a NumPy array), or a tuple of two of them: pairs.

    Returns:
        dict of int32 tensors `(batch, seq)` under TF Hub's names.

    Raises:
        ValueError: the vocabulary is not a BERT's; `sequence_length` has no room for `[CLS]`, `[SEP]` and
            a token, or exceeds `max_length`; the input is not strings of rank 1; or a text is longer than
            `max_length` (inside a graph: `tf.errors.InvalidArgumentError`).
    """

    def __init__(
        self,
        vocabulary: Iterable[str] | bytes | Vocabulary,
        *,
        lower_case: bool,
        strip_accents: bool | None = None,
        sequence_length: int | None = 128,
        max_length: int | None = None,
        truncate: bool = False,
        fast_tokenizer: bool = True,
        **kwargs,
    ) -> None:
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        self.vocabulary = as_vocabulary(vocabulary)
        _check_lengths(sequence_length, max_length, truncate)
        self.lower_case = bool(lower_case)
        self.strip_accents = self.lower_case if strip_accents is None else bool(strip_accents)
        self.sequence_length = sequence_length
        self.max_length = max_length
        self.truncate = truncate
        self.fast_tokenizer = fast_tokenizer
        self.supports_jit = False  # XLA has no strings
        self._tokenizers = {}  # made on first use: TensorFlow is needed for text alone
        self.built = True

    @classmethod
    def from_handle(cls, handle: str | os.PathLike, *, sha256: str | None = None, **kwargs) -> BertPreprocessor:
        """Make a preprocessor with the vocabulary and the casing that `handle` names.

        Args:
            handle: a TF Hub preprocessing model, an encoder that brings its vocabulary, a `vocab.txt`, or a
                SentencePiece `.model`; see `keras_bert_trend.sources.load_text_source`.
            sha256: str or `None`. The SHA-256 that an archive, on this machine or behind a URL, must have. Defaults to
                `None`, any.
            **kwargs: as for `from_source`.

        Raises:
            ValueError: the handle names nothing that can be read, or no vocabulary.
        """
        from keras_bert_trend.sources import load_text_source

        return cls.from_source(load_text_source(handle, sha256), **kwargs)

    @classmethod
    def from_source(
        cls,
        source,
        *,
        lower_case: bool | None = None,
        strip_accents: bool | None = None,
        sequence_length: int | str | None = "auto",
        max_length: int | None = None,
        **kwargs,
    ) -> BertPreprocessor:
        """Make a preprocessor from a `keras_bert_trend.sources.TextSource`.

        Args:
            source: vocabulary and casing.
            lower_case: overrides the source's; where neither says, the vocabulary tells: lower-case tokens only.
            strip_accents: overrides the source's.
            sequence_length: as in the constructor; `"auto"` is the source's, else 128, and at most `max_length`.
            max_length: as in the constructor.
            **kwargs: the constructor's other arguments.

        Raises:
            ValueError: the source brings no vocabulary.
        """
        if source.vocabulary is None:
            raise ValueError(f"The model at {source.origin!r} brings no vocabulary: give `vocabulary`, its vocab.txt.")
        vocabulary = as_vocabulary(source.vocabulary)
        if strip_accents is None and lower_case in (None, source.lower_case):
            strip_accents = source.strip_accents
        if lower_case is None:
            lower_case = vocabulary.is_lower_case if source.lower_case is None else source.lower_case
        if sequence_length == "auto":
            sequence_length = source.sequence_length or _AUTO_LENGTH
            sequence_length = sequence_length if max_length is None else min(sequence_length, max_length)
        return cls(
            vocabulary,
            lower_case=lower_case,
            strip_accents=strip_accents,
            sequence_length=sequence_length,
            max_length=max_length,
            **kwargs,
        )

    def build(self, input_shape=None) -> None:
        """Do nothing: the layer has no weights."""

    def __call__(self, inputs, *args, **kwargs):
        """Accept what users hold: lists of `str` and NumPy string arrays become string tensors."""
        return super().__call__(to_string_tensors(inputs), *args, **kwargs)

    def call(self, inputs):
        """Return the three inputs; see the class."""
        return self.preprocess(inputs)

    def preprocess(self, inputs) -> dict[str, Any]:
        """Do what calling the layer does, as a TensorFlow function that any Keras backend may use.

        Args:
            inputs: as for calling the layer.

        Returns:
            dict of int32 TensorFlow tensors `(batch, seq)`.
        """
        import tensorflow as tf

        from keras_bert_trend.preprocessing.packing import pack_inputs

        segments = [self.tokenize(text) for text in _as_segments(to_string_tensors(inputs))]
        vocabulary = self.vocabulary
        if self.sequence_length is None:
            counts = tf.add_n([segment.row_lengths() for segment in segments]) + 1 + len(segments)  # (batch,)
            longest = tf.reduce_max(tf.concat([counts, [1 + len(segments)]], axis=0))  # defined for an empty batch
            if self.truncate:
                longest = tf.minimum(longest, self.max_length)
            elif self.max_length is not None:
                self._refuse_longer(longest, counts)
            length = tf.cast(longest, tf.int32)
        else:
            length = tf.constant(self.sequence_length, tf.int32)
        packed = pack_inputs(
            segments,
            length,
            start_id=vocabulary.id_of("[CLS]"),
            end_id=vocabulary.id_of("[SEP]"),
            padding_id=vocabulary.id_of(vocabulary.padding_token),
        )
        for tensor in packed.values():
            tensor.set_shape((None, self.sequence_length))
        return packed

    def _refuse_longer(self, longest, counts) -> None:
        import tensorflow as tf

        message = (
            f"more tokens than max_length={self.max_length}, which is the model's length unless it was set. "
            f"Set sequence_length={self.max_length} (or less) or truncate=True, or split the text."
        )
        if not tf.executing_eagerly():
            limit = tf.constant(self.max_length, longest.dtype)
            tf.debugging.assert_less_equal(longest, limit, message=f"A text has {message}")
        elif longest > self.max_length:
            raise ValueError(
                f"Text {int(tf.argmax(counts))} of the batch (from 0) has {int(longest)} tokens: {message}"
            )

    def tokenize(self, texts):
        """Return the texts' token ids, without special tokens, as a ragged int32 tensor `(batch, None)`."""
        tokenizer = (self._get_tokenizer("fast") if self.fast_tokenizer else None) or self._get_tokenizer("classic")
        tokens = tokenizer.tokenize(self.normalize(texts))
        return tokens.merge_dims(1, -1) if tokens.ragged_rank > 1 else tokens  # WordPiece: (batch, words, pieces)

    def token_offsets(self, text: str) -> tuple[list[int | None], list[int | None]]:
        """Find where the tokens of a text stand in it.

        The characters that normalising changes or drops are followed back one by one, so that the offsets index the
        text as it was given.

        Args:
            text: the text.

        Returns:
            The first character and the character after the last, of each token of `tokenize([text])`; `None` where
            the token begins or ends inside a character ("ß" becomes "ss", and may be cut), and everywhere where the
            characters cannot be followed.
        """
        from keras_bert_trend.preprocessing.offsets import find_offsets

        return find_offsets(self, self._get_tokenizer("classic"), text)

    def normalize(self, texts):
        """Lower-case and strip accents, with the ops that TF Hub's preprocessing models have; strings of any shape."""
        import tensorflow as tf
        import tensorflow_text

        if self.lower_case:
            texts = tensorflow_text.case_fold_utf8(texts)
        if self.strip_accents:
            texts = tf.strings.regex_replace(tensorflow_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
        return texts

    def export_text_preprocessing(
        self, path: str | os.PathLike, *, sequence_length: int | None = None, overwrite: bool = False
    ) -> None:
        """Write a SavedModel with TF Hub's interface of text preprocessing, for `hub.load` and TF Serving.

        It maps strings `(batch,)` to the dict of the three inputs; its `tokenize` gives ragged ids, with
        `tokenize.get_special_tokens_dict()`, and `bert_pack_inputs([ids, …], seq_length)` packs one or two segments.

        Args:
            path: the folder to write. It is complete or not there.
            sequence_length: what the one-step call pads to; by default this layer's, or 128 where that is `None`.
            overwrite: replace what stands at `path`.

        Raises:
            FileExistsError: `path` exists.
        """
        from keras_bert_trend.export.tf_hub import write_text_preprocessing

        length = sequence_length or self.sequence_length or _AUTO_LENGTH
        write_text_preprocessing(os.fspath(path), self, length, overwrite)

    def _get_tokenizer(self, kind: str):
        """Return the vocabulary's tokenizer, `"classic"` or `"fast"`; `None` where it has no fast one."""
        if kind not in self._tokenizers:
            import tensorflow as tf

            make = self.vocabulary.make_fast_tokenizer if kind == "fast" else self.vocabulary.make_tokenizer
            # Lifted out of any graph being traced: the table belongs to the layer, and is exported with it.
            with tf.init_scope():
                self._tokenizers[kind] = make()
        return self._tokenizers[kind]

    def compute_output_spec(self, inputs):
        """Return the result as symbolic tensors, without tracing."""
        batch = _as_segments(inputs)[0].shape[0]
        return {
            name: keras.KerasTensor((batch, self.sequence_length), dtype="int32")
            for name in ("input_word_ids", "input_mask", "input_type_ids")
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the vocabulary, so that clones and JSON round trips are complete."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary.to_config(),
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "sequence_length": self.sequence_length,
            "max_length": self.max_length,
            "truncate": self.truncate,
            "fast_tokenizer": self.fast_tokenizer,
        }

    def save_assets(self, directory: str) -> None:
        """Write the vocabulary into a `.keras` file as `vocab.txt` or `spiece.model`, which other tools read."""
        with open(os.path.join(directory, self.vocabulary.asset_name), "wb") as file:
            file.write(self.vocabulary.to_bytes())

    def load_assets(self, directory: str) -> None:
        """Check that the vocabulary file in a `.keras` file is the vocabulary of its configuration.

        Raises:
            ValueError: the two differ: the file was put together from two models.
        """
        name = self.vocabulary.asset_name
        with open(os.path.join(directory, name), "rb") as file:
            if file.read() != self.vocabulary.to_bytes():
                raise ValueError(f"{name} in the file's assets is not the vocabulary of its configuration.")


def to_string_tensors(inputs):
    """Turn Python strings and NumPy string arrays, alone or as a pair, into TensorFlow string tensors.

    Tensors and symbolic tensors pass through. A list of `str` is a batch of texts, never a pair.

    Raises:
        ValueError: a bare `str` instead of a batch, or an array of something other than strings.
    """
    if isinstance(inputs, str | bytes):
        raise ValueError(f"`inputs` must be a batch of strings: pass [{inputs!r}] instead of {inputs!r}.")
    if isinstance(inputs, list) and inputs and all(isinstance(element, list | tuple) for element in inputs):
        # `[[q1, a1], [q2, a2]]` and `[questions, answers]` look the same: with two pairs nothing would tell.
        raise ValueError("`inputs` is a list of lists: give pairs as a tuple of two batches, (firsts, seconds).")
    if isinstance(inputs, list | tuple):
        if all(hasattr(element, "shape") or isinstance(element, list | tuple) for element in inputs) and inputs:
            if len(inputs) != 2:
                raise ValueError(
                    f"`inputs` must be strings (batch,) or a pair of them, got a {type(inputs).__name__} "
                    f"of {len(inputs)}."
                )
            return tuple(to_string_tensors(segment) for segment in inputs)
        return _string_constant(np.array(inputs, dtype=object))
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "OUST":
            raise ValueError(f"`inputs` must be strings, got an array of dtype {inputs.dtype}.")
        return _string_constant(inputs.astype(object))
    return inputs


def _string_constant(array: np.ndarray):
    import tensorflow as tf

    for text in array.ravel():
        if not isinstance(text, str | bytes):
            raise ValueError(f"`inputs` must be strings, got {text!r} among them.")
    return tf.constant(array, dtype=tf.string)


def _as_segments(inputs) -> list:
    """Return the one or two segments of a call's input, checked for dtype and rank."""
    segments = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if len(segments) not in (1, 2):
        raise ValueError(f"`inputs` must be one string tensor or a pair of them, got {len(segments)}.")
    for segment in segments:
        dtype = keras.backend.standardize_dtype(segment.dtype)
        if dtype != "string":
            raise ValueError(f"`inputs` must be strings, got dtype {dtype}.")
        if len(segment.shape) != 1:
            raise ValueError(f"`inputs` must have rank 1, (batch,), got shape {tuple(segment.shape)}.")
    sizes = [segment.shape[0] for segment in segments if segment.shape[0] is not None]
    if len(set(sizes)) > 1:
        raise ValueError(f"The two segments of pairs must be as many, got {sizes[0]} and {sizes[1]} texts.")
    return segments


def _check_lengths(sequence_length: int | None, max_length: int | None, truncate: bool) -> None:
    for name, value in (("sequence_length", sequence_length), ("max_length", max_length)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 3):
            raise ValueError(f"`{name}` must be an int of at least 3 ([CLS], a token, [SEP]) or None, got {value!r}.")
    if sequence_length is not None and max_length is not None and sequence_length > max_length:
        raise ValueError(
            f"`sequence_length`={sequence_length} is more than `max_length`={max_length}, which is the model's length "
            "unless it was set."
        )
    if truncate and max_length is None:
        raise ValueError("`truncate=True` needs `max_length`, the length to trim to.")
