"""`BertPreprocessor`: strings to the encoder's three inputs, as a Keras layer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, get_args

import keras
import numpy as np

from keras_bert_trend.preprocessing.segments import (
    as_segments,
    flattened,
    has_symbols,
    is_batch,
    to_string_tensors,
    with_rank,
)
from keras_bert_trend.preprocessing.vocabulary import Vocabulary, as_vocabulary
from keras_bert_trend.preprocessing.windows import WindowKind, cut_into_windows, default_stride, token_indices
from keras_bert_trend.sources.source import Normalization

_AUTO_LENGTH = 128
#: What `BertNormalizer` drops (huggingface/tokenizers, normalizers/bert.rs): control, format and private characters.
_DROPPED = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{fffd}\p{Cf}\p{Co}]"


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class BertPreprocessor(keras.layers.Layer):
    """Strings, or pairs of strings, to `input_word_ids`, `input_mask` and `input_type_ids`.

    Tokens are those of TensorFlow Text's `BertTokenizer`, or of `SentencepieceTokenizer` if the vocabulary is a
    SentencePiece model (ALBERT), as in the preprocessing models on TF Hub. A text becomes `[CLS] a [SEP]`, a pair
    `[CLS] a [SEP] b [SEP]` with type ids 0 and 1. If a pair is too long, its segments are trimmed in turn (round
    robin), so that neither is lost.

    The layer works inside a model, in `tf.data.Dataset.map` (before or after `batch`, under every Keras backend), and
    in an export. Strings need TensorFlow: a model of another backend takes the ids instead.

    Example:
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "an", "apple", "."]
        >>> preprocessor = BertPreprocessor(tokens, lower_case=True, sequence_length=6)
        >>> preprocessor(["An apple."])["input_word_ids"].numpy().tolist()
        [[2, 4, 5, 6, 3, 0]]

    Args:
        vocabulary: list of str, bytes or `Vocabulary`. The WordPiece tokens in the order of their ids, or a serialised
            SentencePiece model.
        lower_case: bool. Whether to lower-case first, as uncased models need.
        strip_accents: bool or `None`. Whether to strip accents too. Defaults to `lower_case`.
        sequence_length: int or `None`. The length to pad and trim to; `None` pads to the longest text of the batch.
            Defaults to 128.
        max_length: int or `None`. The longest sequence the model takes. With `sequence_length=None` a longer text is an
            error unless `truncate` is set.
        truncate: bool. With `sequence_length=None`, whether to trim texts to `max_length` instead of refusing longer
            ones. Defaults to `False`.
        normalization: str. How characters change before tokenization. `"tf_text"`, as in TF Hub's preprocessing
            models: control characters become spaces, and lower case is Unicode's NFKC case folding, which turns "…"
            into "...". `"bert"`, as in Hugging Face's `BertNormalizer`: control characters are dropped, every Unicode
            space counts as a space, and lower case changes only letters. Defaults to `"tf_text"`; a model read from a
            Hugging Face folder has `"bert"`.
        fast_tokenizer: bool. Whether to compute WordPiece with `FastWordpieceTokenizer`: the same ids, several times as
            fast. Set it to `False`, here or on the layer before exporting, if the server lacks that operation but has
            those of `BertTokenizer`. Defaults to `True`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: strings in any of these shapes: `(B,)`; a column `(B, 1)`; one text `()`, in a graph such as
            `tf.data.Dataset.map`; documents `(B, S)` of `S` sentences. As a tensor, NumPy array or list of `str`. A
            pair is a tuple of two of these, or a dict of one or two named features, taken in the order of the dict.

    Returns:
        dict of int32 tensors `(B, T)` under TF Hub's names; `(T,)` for one text, `(B, S, T)` for documents.

    Raises:
        ValueError: if the vocabulary is not a BERT's; if `sequence_length` has no room for `[CLS]`, `[SEP]` and a
            token, or exceeds `max_length`; if the input is not strings in one of these shapes; or if a text is longer
            than `max_length` (inside a graph: `tf.errors.InvalidArgumentError`).
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
        normalization: Normalization = "tf_text",
        fast_tokenizer: bool = True,
        **kwargs,
    ) -> None:
        if normalization not in get_args(Normalization):
            raise ValueError(f"`normalization` must be one of {get_args(Normalization)}, got {normalization!r}.")
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        self.vocabulary = as_vocabulary(vocabulary)
        self.sequence_length, self.max_length = _check_lengths(sequence_length, max_length, truncate)
        self.lower_case = bool(lower_case)
        self.strip_accents = self.lower_case if strip_accents is None else bool(strip_accents)
        self.normalization = normalization
        self.truncate = truncate
        self.fast_tokenizer = fast_tokenizer
        self._called_on = set()
        self._tokenizers = {}  # made on first use: TensorFlow is needed for text alone
        self.built = True

    @classmethod
    def from_handle(cls, handle: str | os.PathLike, *, sha256: str | None = None, **kwargs) -> BertPreprocessor:
        """Make a preprocessor with the vocabulary and the casing that `handle` names.

        Args:
            handle: str or path. A TF Hub preprocessing model, an encoder that has a vocabulary, a `vocab.txt`, or a
                SentencePiece `.model`; see `keras_bert_trend.sources.load_text_source`.
            sha256: str or `None`. The SHA-256 that an archive, on this machine or behind a URL, must have. Defaults to
                `None`, any.
            **kwargs: The arguments of `from_source`.

        Raises:
            ValueError: if the handle names nothing that can be read, or has no vocabulary.
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
        normalization: Normalization | None = None,
        **kwargs,
    ) -> BertPreprocessor:
        """Make a preprocessor from a `keras_bert_trend.sources.TextSource`.

        Args:
            source: `TextSource`. The vocabulary and the casing.
            lower_case: bool or `None`. As in the constructor. Defaults to the source's; if the source does not say, to
                whether the vocabulary has lower-case tokens only.
            strip_accents: bool or `None`. As in the constructor. Defaults to the source's.
            sequence_length: int, `None` or `"auto"`. As in the constructor; `"auto"` is the source's, else 128, and at
                most `max_length`. Defaults to `"auto"`.
            max_length: int or `None`. As in the constructor. Defaults to `None`.
            normalization: str or `None`. As in the constructor. Defaults to the source's.
            **kwargs: The other arguments of the constructor.

        Raises:
            ValueError: if the source has no vocabulary.
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
            normalization=normalization or source.normalization or "tf_text",
            **kwargs,
        )

    def build(self, input_shape=None) -> None:
        """Do nothing: the layer has no weights."""

    @property
    def supports_jit(self) -> bool:
        """Whether a model that holds this layer may be compiled by XLA, which does not support strings.

        True only if a `BertTrend` layer holds it and was called on ids, and nothing was called on strings.
        """
        return self._called_on == {"ids"}

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        """Ignore what `keras.layers.Layer` sets."""

    def note_call_on(self, kind: str) -> None:
        """Remember that this layer, or a layer that holds it, was called on `"strings"` or on `"ids"`."""
        self._called_on.add(kind)

    def __call__(self, inputs, *args, **kwargs):
        """Accept what users hold, and work in `tf.data` pipelines under every backend."""
        self.note_call_on("strings")
        if keras.backend.backend() == "tensorflow" or has_symbols(inputs):
            return super().__call__(to_string_tensors(inputs), *args, **kwargs)
        import tensorflow as tf

        outputs = self.preprocess(inputs)
        if tf.executing_eagerly():
            outputs = {name: keras.ops.convert_to_tensor(tensor.numpy()) for name, tensor in outputs.items()}
        return outputs

    def call(self, inputs):
        return self.preprocess(inputs)

    def preprocess(self, inputs) -> dict[str, Any]:
        """Do what calling the layer does, with TensorFlow tensors whatever the Keras backend is.

        Args:
            inputs: strings in any shape that the layer takes.

        Returns:
            dict of int32 TensorFlow tensors, as the layer returns them.
        """
        import tensorflow as tf

        segments = as_segments(to_string_tensors(inputs))
        shape = segments[0].shape
        flat = [flattened(segment) for segment in segments]
        packed = self._pack([self.tokenize(texts) for texts in flat])
        if is_batch(shape):
            return packed
        outer = tf.shape(segments[0])
        result = {}
        for name, tensor in packed.items():
            result[name] = tf.reshape(tensor, tf.concat([outer, tf.shape(tensor)[1:]], axis=0))
            result[name].set_shape((*shape, self.sequence_length))
        return result

    def preprocess_windows(self, texts, length: int, kind: WindowKind, stride: int | None = None):
        """Cut texts that are too long into windows; see `BertTrend` for the arguments.

        Args:
            texts: string tensor `(B,)`.
            length: int. The length of a window, special tokens included.
            kind: str. `"mean"` or `"first_last"`.
            stride: int or `None`. The tokens from the start of a window to the start of the next.

        Returns:
            What `preprocess` returns, of `W` windows; and `Windows`, which says whose each is and what it weighs.
        """
        import tensorflow as tf

        from keras_bert_trend.preprocessing.packing import special_token_count

        size = length - special_token_count(1)
        tokens = self.tokenize(texts)
        windows = cut_into_windows(
            tf.cast(tokens.row_starts(), tf.int32),
            tf.cast(tokens.row_lengths(), tf.int32),
            size,
            default_stride(size) if stride is None else stride,
            kind,
            tf,
        )
        values = tf.gather(tokens.values, token_indices(windows.starts, windows.counts, tf))
        return self._pack([tf.RaggedTensor.from_row_lengths(values, windows.counts, validate=False)]), windows

    def _pack(self, segments):
        import tensorflow as tf

        from keras_bert_trend.preprocessing.packing import pack_inputs, special_token_count

        if self.sequence_length is None:
            special = special_token_count(len(segments))
            counts = tf.add_n([segment.row_lengths() for segment in segments]) + special  # (B,)
            longest = tf.reduce_max(tf.concat([counts, [special]], axis=0))  # defined for an empty batch
            if self.truncate:
                longest = tf.minimum(longest, self.max_length)
            elif self.max_length is not None:
                self._refuse_longer(longest, counts)
            length = tf.cast(longest, tf.int32)
        else:
            length = tf.constant(self.sequence_length, tf.int32)
        packed = pack_inputs(segments, length, self.vocabulary.special_ids)
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
        """Return the token ids of strings `(B,)`, without special tokens, as a ragged int32 tensor `(B, None)`."""
        texts = with_rank(texts, 1)
        tokenizer = (self._get_tokenizer("fast") if self.fast_tokenizer else None) or self._get_tokenizer("classic")
        tokens = tokenizer.tokenize(self.normalize(texts))
        return tokens.merge_dims(1, -1) if tokens.ragged_rank > 1 else tokens  # WordPiece: (batch, words, pieces)

    def token_offsets(self, text: str) -> tuple[list[int | None], list[int | None]]:
        """Find where each token of a text begins and ends.

        Characters that normalising changes or drops are traced back one by one, so that the offsets index the original
        text.

        Args:
            text: str. The text.

        Returns:
            Two lists with an entry for each token of `tokenize([text])`: its first character, and the character after
            its last. An entry is `None` if the token begins or ends inside a character ("ß" becomes "ss", which may be
            cut in two). All entries are `None` if the characters cannot be traced back.
        """
        from keras_bert_trend.preprocessing.offsets import find_offsets

        return find_offsets(self, self._get_tokenizer("classic"), text)

    def normalize(self, texts):
        """Lower-case and strip accents as `normalization` says; strings of any shape."""
        import tensorflow as tf
        import tensorflow_text

        if self.normalization == "bert":
            texts = tf.strings.regex_replace(tf.strings.regex_replace(texts, _DROPPED, ""), r"\p{Z}", " ")
        elif self.lower_case:
            texts = tensorflow_text.case_fold_utf8(texts)
        if self.strip_accents:
            texts = tf.strings.regex_replace(tensorflow_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
        if self.lower_case and self.normalization == "bert":
            texts = tf.strings.lower(texts, encoding="utf-8")
        return texts

    def export_text_preprocessing(
        self, path: str | os.PathLike, *, sequence_length: int | None = None, overwrite: bool = False
    ) -> None:
        """Write a SavedModel with TF Hub's interface of text preprocessing, for `hub.load` and TF Serving.

        It maps strings `(batch,)` to the dict of the three inputs; its `tokenize` gives ragged ids, with
        `tokenize.get_special_tokens_dict()`, and `bert_pack_inputs([ids, …], seq_length)` packs one or two segments.

        Args:
            path: str or path. The folder to write; it is complete or not there.
            sequence_length: int or `None`. The length that the one-step call pads to. Defaults to this layer's, or 128
                if that is `None`.
            overwrite: bool. Whether to replace an existing `path`. Defaults to `False`.

        Raises:
            FileExistsError: if `path` exists and `overwrite` is false.
        """
        from keras_bert_trend.export.tf_hub import write_text_preprocessing

        length = sequence_length or self.sequence_length or _AUTO_LENGTH
        write_text_preprocessing(os.fspath(path), self, length, overwrite)

    def _get_tokenizer(self, kind: str):
        """Return the vocabulary's tokenizer, `"classic"` or `"fast"`; `None` if it has no fast one."""
        if kind not in self._tokenizers:
            import tensorflow as tf

            make = self.vocabulary.make_fast_tokenizer if kind == "fast" else self.vocabulary.make_tokenizer
            # Lifted out of any graph being traced: the table belongs to the layer, and is exported with it.
            with tf.init_scope():
                self._tokenizers[kind] = make()
        return self._tokenizers[kind]

    def compute_output_spec(self, inputs):
        """Return the result as symbolic tensors, without tracing."""
        shapes = self.compute_output_shape([segment.shape for segment in as_segments(to_string_tensors(inputs))])
        return {name: keras.KerasTensor(shape, dtype="int32") for name, shape in shapes.items()}

    def compute_output_shape(self, input_shape) -> dict[str, tuple[int | None, ...]]:
        """Return the shapes of the three inputs for strings of this shape, or pairs of them."""
        nested = isinstance(input_shape, list | tuple) and input_shape and isinstance(input_shape[0], list | tuple)
        shape = tuple(input_shape[0] if nested else input_shape)
        shape = (*shape[:1], self.sequence_length) if is_batch(shape) else (*shape, self.sequence_length)
        return dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), shape)

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
            "normalization": self.normalization,
            "fast_tokenizer": self.fast_tokenizer,
        }

    def save_assets(self, directory: str) -> None:
        """Write the vocabulary into a `.keras` file as `vocab.txt` or `spiece.model`, which other tools read."""
        with open(os.path.join(directory, self.vocabulary.asset_name), "wb") as file:
            file.write(self.vocabulary.to_bytes())

    def load_assets(self, directory: str) -> None:
        """Check that the vocabulary file in a `.keras` file is the vocabulary of its configuration.

        Raises:
            ValueError: if the two differ, because the file was put together from two models.
        """
        name = self.vocabulary.asset_name
        with open(os.path.join(directory, name), "rb") as file:
            if file.read() != self.vocabulary.to_bytes():
                raise ValueError(f"{name} in the file's assets is not the vocabulary of its configuration.")


def _check_lengths(
    sequence_length: int | None, max_length: int | None, truncate: bool
) -> tuple[int | None, int | None]:
    checked = []
    for name, value in (("sequence_length", sequence_length), ("max_length", max_length)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 3):
            raise ValueError(f"`{name}` must be an int of at least 3 ([CLS], a token, [SEP]) or None, got {value!r}.")
        checked.append(None if value is None else int(value))
    if None not in checked and checked[0] > checked[1]:
        raise ValueError(
            f"`sequence_length`={sequence_length} is more than `max_length`={max_length}, which is the model's length "
            "unless it was set."
        )
    if truncate and max_length is None:
        raise ValueError("`truncate=True` needs `max_length`, the length to trim to.")
    return checked[0], checked[1]
