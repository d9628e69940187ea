"""`BertTrend`: preprocessing, encoder and pooling as the one layer that people add to a model."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from keras_bert_trend.encoder import INPUT_NAMES, BertEncoder
from keras_bert_trend.encoder.bert_encoder import check_input_names
from keras_bert_trend.encoder.ops import as_long_as, keep_mask, wide_dtype
from keras_bert_trend.encoder.rows import can_skip_padding, resized
from keras_bert_trend.pooling import (
    LevelPooling,
    Pooling,
    TrajectoryPooling,
    TrendPooling,
    get_pooling,
    leaves,
    run_encoder,
)
from keras_bert_trend.preprocessing import BertPreprocessor, Vocabulary
from keras_bert_trend.preprocessing.segments import as_segments, flattened, is_batch, to_string_tensors
from keras_bert_trend.preprocessing.windows import WindowKind, check_stride

_EVERYTHING = {"return_attention_scores": True, "return_attention_received": True}  # that the encoder has


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class BertTrend(keras.layers.Layer):
    """Strings (or token ids) to a sentence embedding, BERT included and trainable.

    Example:
        >>> layer = BertTrend("minilm", sequence_length=64)
        >>> text = keras.Input((), dtype="string", name="text")
        >>> model = keras.Model(text, keras.layers.Dense(1, "sigmoid")(layer(text)))
        >>> layer.embedding_dim
        384

    Args:
        handle: str or path. What `keras_bert_trend.sources.load_source` takes: `"minilm"`, a folder, a TF Hub URL.
            Leave it out to give `encoder` and `preprocessor` instead.
        pooling: str, `Pooling` or list of them. A name out of `keras_bert_trend.POOLING_NAMES`, a layer, or a list to
            concatenate. Defaults to the pooling that a sentence-transformers folder names, else to `"smooth_trend"`.
        sequence_length: int, `None` or `"auto"`. The length to pad and trim texts to; `None` pads to the longest text
            of each batch; `"auto"` is 128, or the model's length if that is less. If strings come in and one vector a
            text goes out, under TensorFlow, only attention computes padding, up to the batch's longest text, and a
            text's embedding does not depend on its batch. (A custom pooling declares that with `needs`.)
        max_length: int or `None`. With `sequence_length=None`, the longest text taken. Defaults to the model's length.
        truncate: bool. With `sequence_length=None`, whether to trim longer texts instead of refusing them.
        windows: str or `None`. What to do with texts longer than `sequence_length` (or `max_length`, or the model)
            instead: cut them into windows of that length that overlap, each between `[CLS]` and `[SEP]`, and average
            the windows' embeddings, of all of them (`"mean"`) or of the first and the last (`"first_last"`). Every
            token counts once: windows that share it share its weight. A text that fits is embedded as without. Pairs
            and ids are refused. Defaults to `None`.
        stride: int or `None`. With `windows="mean"`, the number of tokens from the start of a window to the start of
            the next, at most the window's tokens. Defaults to three quarters of them.
        trainable: bool or `None`. Whether BERT trains; see `BertEncoder`, also for the next three. With an `encoder`,
            `False` freezes what this layer computes (no gradient, no dropout) and leaves the encoder as it is for the
            others that share it; set `encoder.trainable` to freeze it for all. `None` follows the encoder.
        freeze_embeddings: bool. Whether to keep the embeddings as they are while the blocks train.
        trainable_layers: int or `None`. Train only the last `n` blocks.
        rematerialize: bool. In training, whether to compute the blocks again in the backward pass: less memory, more
            time.
        return_all: bool. Whether to return every output of the encoder beside the embedding, instead of the embedding
            alone.
        vocabulary: for a model that brings none: list of str (the WordPiece tokens), bytes (a serialised SentencePiece
            model), a `Vocabulary`, a `BertPreprocessor` whose vocabulary and casing to take, or what
            `keras_bert_trend.sources.load_text_source` takes: a `vocab.txt`, the handle of a preprocessing model.
        lower_case: bool or `None`. The casing, for a model that does not say; by default it follows the vocabulary.
        encoder: `BertEncoder`, instead of a handle. It may be shared; nothing about it is changed.
        preprocessor: `BertPreprocessor`, to go with `encoder`; without one the layer takes token ids only.
        **kwargs: `name`, `dtype` (a mixed precision policy too) and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: strings in any shape that `BertPreprocessor` takes, or the dict of `input_word_ids`, `input_mask` and
            `input_type_ids`, int `(B, T)`.
        return_all: bool or `None`. Overrides the constructor's, to look inside. Which weights train is decided by the
            constructor: the pooler trains if `return_all` was given there, or if the pooling reads it.
        training: bool or `None`. Whether dropout acts.

    Returns:
        The sentence embedding `(B, embedding_dim)`; `(embedding_dim,)` for one text, `(B, S, embedding_dim)` for
        documents of `S` sentences. With `return_all` a dict of all of `BertEncoder`'s outputs, `attention_scores` and
        `attention_received` included, the three inputs, and `sentence_embedding`; texts are `(B,)` then.

    Raises:
        ValueError: if the handle, pooling, length or vocabulary do not fit (see `load_source`, `BertPreprocessor`,
            `BertEncoder` and the poolings), or if arguments exclude each other.
        ImportError: if the weights of `"minilm"` are not installed.
    """

    def __init__(
        self,
        handle: str | os.PathLike | None = None,
        *,
        pooling: str | Pooling | Sequence[str | Pooling] | None = None,
        sequence_length: int | str | None = "auto",
        max_length: int | None = None,
        truncate: bool = False,
        windows: WindowKind | None = None,
        stride: int | None = None,
        trainable: bool | None = None,
        freeze_embeddings: bool = False,
        trainable_layers: int | None = None,
        rematerialize: bool = False,
        return_all: bool = False,
        vocabulary: Vocabulary | BertPreprocessor | Sequence[str] | bytes | str | os.PathLike | None = None,
        lower_case: bool | None = None,
        encoder: BertEncoder | None = None,
        preprocessor: BertPreprocessor | None = None,
        **kwargs,
    ) -> None:
        if (handle is None) == (encoder is None):
            raise ValueError("Give either `handle` or `encoder`, the one or the other.")
        super().__init__(trainable=trainable is not False, **kwargs)
        self._called_on: set[str] = set()
        if handle is not None:
            if preprocessor is not None:
                raise ValueError("`preprocessor` goes with `encoder`; with a handle, give `vocabulary`.")
            from keras_bert_trend.sources import load_source

            source = load_source(handle)
            pooling = source.pooling if pooling is None else pooling
            preprocessor = _make_preprocessor(source, vocabulary, lower_case, sequence_length, max_length, truncate)
            with keras.name_scope(self.name):  # every weight's path begins with this layer's name
                encoder = BertEncoder.from_source(
                    source,
                    freeze_embeddings=freeze_embeddings,
                    trainable_layers=trainable_layers,
                    rematerialize=rematerialize,
                    dtype=self.dtype_policy,
                    name="encoder",
                )
        else:
            _refuse_beside_encoder(
                sequence_length=(sequence_length, "auto"),
                max_length=(max_length, None),
                truncate=(truncate, False),
                freeze_embeddings=(freeze_embeddings, False),
                trainable_layers=(trainable_layers, None),
                rematerialize=(rematerialize, False),
                vocabulary=(vocabulary, None),
                lower_case=(lower_case, None),
            )
            if trainable and not encoder.trainable:
                raise ValueError("`trainable`=True, but the encoder is frozen: set encoder.trainable = True first.")
        if preprocessor is not None:
            _check_vocabulary(preprocessor.vocabulary, encoder)
        self.encoder = encoder
        self._made_encoder = handle is not None
        self.preprocessor = preprocessor
        pooling = "smooth_trend" if pooling is None else pooling
        token_kinds = None if preprocessor is None else preprocessor.vocabulary.token_kinds
        self.pooling = get_pooling(pooling, token_kinds)
        self.return_all = return_all
        self.windows, self.stride = windows, stride
        # Fails here, rather than in the first call, if the pooling does not fit the encoder.
        shape = (encoder.config.hidden_size, encoder.config.num_layers)
        self._embedding_dim = self.pooling.output_dim(*shape)
        self._check_windows()
        self.pooling.create_weights(*shape)
        if handle is not None:
            # Nothing else uses this encoder: a pooler that nobody reads would only be a weight without a gradient.
            encoder.train_pooler = return_all or self.pooling.needs.pooled_output
            if not self.trainable:
                encoder.trainable = self.pooling.trainable = False
        # Whoever gives a layer instead of a name has chosen it; a loaded `BertTrend` is made with layers too.
        trains_bert = self.trainable and encoder.trainable
        if trains_bert and not isinstance(pooling, Pooling) and _has_published_trend(self.pooling):
            warnings.warn(
                "Training BERT through pooling='trend': the published log ratio has a gradient that explodes near zero "
                "and dies where the sign flips. pooling='smooth_trend' has the same anchor and related word and trains "
                "well; keep 'trend' for a frozen BERT (trainable=False).",
                stacklevel=2,
            )
        self.built = True

    @property
    def embedding_dim(self) -> int:
        """Width of the sentence embedding, known before the first call."""
        return self._embedding_dim

    def build(self, input_shape=None) -> None:
        """Do nothing: the encoder's weights exist already."""

    @property
    def supports_jit(self) -> bool:
        """Whether a model that holds this layer may be compiled by XLA, which has no strings."""
        return self.preprocessor is None or self._called_on == {"ids"}

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        """Ignore what `keras.layers.Layer` sets."""

    @property
    def was_called_on_pairs(self) -> bool:
        """Whether this layer was called on pairs of texts: an export then takes pairs."""
        return "pairs" in self._called_on

    def __call__(self, inputs, *args, **kwargs):
        """Accept what users hold: lists of `str` and NumPy string arrays become string tensors."""
        kind = "ids" if _is_ids(inputs) else "strings"
        if self.preprocessor is not None:
            self._called_on.add(kind)
            self.preprocessor.note_call_on(kind)
            inputs = inputs if kind == "ids" else to_string_tensors(inputs)
            if isinstance(inputs, tuple):
                self._called_on.add("pairs")
        elif kind == "strings":
            raise ValueError(
                f"This BertTrend has no preprocessor: `inputs` must be a dict with the keys {list(INPUT_NAMES)}."
            )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, return_all=None, training=None):
        return_all = self.return_all if return_all is None else return_all
        if _is_ids(inputs):
            if self.windows is not None:
                raise ValueError(f"`inputs` must be strings: this layer has windows={self.windows!r}.")
            check_input_names(inputs)
            inputs = {name: as_long_as(inputs[name], inputs["input_word_ids"]) for name in INPUT_NAMES}
            return self._call_on_ids(inputs, return_all, training)
        segments = as_segments(to_string_tensors(inputs))
        shape = segments[0].shape
        flat = tuple(map(flattened, segments))
        if self.windows is None:
            ids = self.preprocessor.call(flat if len(flat) == 2 else flat[0])
            result = self._call_on_ids(ids, return_all, training, strings=True)
        else:
            result = self._call_on_windows(flat, return_all, training)
        if return_all or is_batch(shape):
            return result
        return ops.reshape(result, (*ops.shape(segments[0]), self.embedding_dim))

    def _call_on_windows(self, segments, return_all, training):
        if return_all or len(segments) == 2:
            what = "`return_all`" if return_all else "A pair"
            raise ValueError(f"{what} needs one sequence a text, but this layer has windows={self.windows!r}.")
        (texts,) = segments
        ids, windows = self.preprocessor.preprocess_windows(texts, self._longest, self.windows, self.stride)
        embeddings = self._call_on_ids(ids, False, training, strings=True)
        wide = wide_dtype(embeddings)
        weighted = ops.cast(embeddings, wide) * ops.cast(windows.weights, wide)[:, None]
        result = ops.cast(ops.segment_sum(weighted, windows.owners, ops.shape(texts)[0]), embeddings.dtype)
        if can_skip_padding():  # TensorFlow: elsewhere sizes are known
            result.set_shape((texts.shape[0], self.embedding_dim))
        return result

    @property
    def _longest(self) -> int:
        """The most tokens of a sequence, special tokens included."""
        preprocessor, positions = self.preprocessor, self.encoder.config.max_position_embeddings
        return preprocessor.sequence_length or preprocessor.max_length or positions

    def _check_windows(self) -> None:
        if self.windows is None:
            if self.stride is not None:
                raise ValueError(f"`stride` goes with windows='mean', got {self.stride!r} without.")
            return
        if self.windows not in get_args(WindowKind):
            raise ValueError(f"`windows` must be None or one of {get_args(WindowKind)}, got {self.windows!r}.")
        if self.preprocessor is None:
            raise ValueError("`windows` cuts texts, but this layer has no preprocessor.")
        if self.return_all:
            raise ValueError("`return_all` shows one sequence a text; it cannot be given with `windows`.")
        if getattr(self.pooling, "level", "sentence") == "token":
            raise ValueError("`windows` averages one vector a window; the pooling gives one a token.")
        from keras_bert_trend.preprocessing.packing import special_token_count

        check_stride(self.stride, self.windows, self._longest - special_token_count(1))

    def _call_on_ids(self, inputs, return_all, training, strings=False):
        if self.trainable:
            return self._compute(inputs, return_all, training, strings)
        outputs = self._compute(inputs, return_all, False, strings)
        return keras.tree.map_structure(lambda x: keep_mask(ops.stop_gradient(x), x), outputs)

    def _compute(self, inputs, return_all, training, strings):
        if return_all:
            outputs = self.encoder(inputs, training=training, **_EVERYTHING)
            return _everything(inputs, outputs, self._pool(outputs, inputs))
        # Of strings nobody sees how far they are padded, or what stands in the padding; and XLA has no strings.
        skip_padding = strings and not self.pooling.needs.padding and can_skip_padding()
        texts = inputs["input_mask"].shape[0]
        if skip_padding:
            inputs = self._without_needless_padding(inputs)
        outputs, (embedding,) = run_encoder(
            self.encoder, [self.pooling], inputs, training=training, skip_padding=skip_padding
        )
        if training is not False and self.encoder.trains_pooler and not self.pooling.needs.pooled_output:
            # A given encoder may train a pooler that nobody reads here. Its gradient is zero, not missing.
            # (`training` is `None` while a model trains whose `call` does not take it.)
            zero = 0 * ops.sum(outputs["pooled_output"], axis=-1, keepdims=True)
            zero = zero if len(embedding.shape) == 2 else zero[:, None]
            embedding = keep_mask(embedding + zero, embedding)
        if skip_padding:
            embedding.set_shape((texts, self.embedding_dim))
        return embedding

    def adapt(
        self, texts: Iterable[Any] | os.PathLike[str], *, batch_size: int = 64, show_progress: bool | None = False
    ) -> None:
        """Fit a `TrajectoryPooling` to texts, without labels; BERT stays as it is.

        A few hundred texts of the kind to be embedded do; use the training texts alone if a head is evaluated later.
        What was fitted before is lost. `.keras` files and exports hold the result.

        Example:
            >>> from keras_bert_trend import TrajectoryPooling
            >>> layer = BertTrend("minilm", pooling=TrajectoryPooling(dim=4), trainable=False)
            >>> layer.adapt(["I want an apple.", "See you at noon", "Win a prize now"])
            >>> layer(["You have won a prize!"]).shape
            TensorShape([1, 4])

        Args:
            texts: iterable of str, path or `tf.data.Dataset`. What `embed` accepts, or a dataset of strings, batched or
                not, without labels.
            batch_size: int. The number of texts per batch of the encoder. Defaults to 64.
            show_progress: bool or `None`. Whether to show a progress bar on stderr; `None` shows it on a terminal.
                Defaults to `False`.

        Raises:
            ValueError: if the pooling is not, and has no, `TrajectoryPooling`; if there are fewer than two texts; or as
                `embed` does.
        """
        from keras_bert_trend.embedding.embed import embed_stream

        adaptable = [pooling for pooling in leaves(self.pooling) if isinstance(pooling, TrajectoryPooling)]
        if not adaptable:
            raise ValueError(f"`adapt` fits a TrajectoryPooling, but `pooling` is {self.pooling.name!r}.")
        if hasattr(texts, "element_spec"):
            texts = _texts_of(texts)
        chunks = embed_stream(
            texts, self, pooling=LevelPooling(), chunk_size=1024, batch_size=batch_size, show_progress=show_progress
        )
        levels = (chunk.reshape(len(chunk), self.encoder.config.num_layers + 1, -1) for chunk in chunks)
        for pooling, each in zip(adaptable, itertools.tee(levels, len(adaptable)), strict=True):
            pooling.adapt(each)

    def enable_lora(
        self, rank: int, lora_alpha: float | None = None, target: Sequence[str] = ("query", "value")
    ) -> None:
        """Train low-rank updates of BERT's kernels instead of BERT itself; see `BertEncoder.enable_lora`.

        Args:
            rank: int. The rank of the updates.
            lora_alpha: float or `None`. Defaults to `rank`.
            target: list of str. What to adapt. Defaults to `("query", "value")`.
        """
        self.encoder.enable_lora(rank, lora_alpha, target)
        self.trainable = True

    def _pool(self, outputs, inputs):
        return self.pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])

    def compute_output_spec(self, inputs, return_all=None, training=None):
        """Return `call`'s result as symbolic tensors, without tracing."""
        return_all = self.return_all if return_all is None else return_all
        shape = ()
        if not _is_ids(inputs):
            shape = as_segments(to_string_tensors(inputs))[0].shape
            inputs = self.preprocessor.compute_output_spec(inputs)
            if not is_batch(shape):
                inputs = {name: keras.KerasTensor((None, x.shape[-1]), x.dtype) for name, x in inputs.items()}
        outputs = self.encoder.compute_output_spec(inputs, **(_EVERYTHING if return_all else {}))
        embedding = self.pooling.compute_output_spec(outputs, inputs["input_mask"])
        if return_all:
            return _everything(inputs, outputs, embedding)
        if shape and not is_batch(shape):
            return keras.KerasTensor((*shape, self.embedding_dim), embedding.dtype)
        return embedding

    def compute_mask(self, inputs, previous_mask):
        """Return `None`: a vector a text needs no mask, and the states of `return_all` bring theirs."""
        return None

    def compute_output_shape(self, input_shape):
        """Return the embedding's shape for strings, pairs of them, or the dict of ids of this shape."""
        if self.return_all:
            raise NotImplementedError("With return_all=True the result is a dict: use compute_output_spec.")
        if isinstance(input_shape, Mapping) and "input_word_ids" in input_shape:
            *texts, length = input_shape["input_word_ids"]
        else:
            if isinstance(input_shape, Mapping):
                input_shape = list(input_shape.values())
            *texts, length = self.preprocessor.compute_output_shape(input_shape)["input_mask"]
        tokens = [length] if getattr(self.pooling, "level", "sentence") == "token" else []
        return (*texts, *tokens, self.embedding_dim)

    def _without_needless_padding(self, inputs: Mapping) -> dict[str, Any]:
        padding_id = self.preprocessor.vocabulary.special_ids.padding
        return resized(inputs, padding_id, self._longest, self.encoder.config.kind.reads_next_token)

    def get_config(self) -> dict[str, Any]:
        """Return the three parts; the handle is not kept, nor needed again."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "preprocessor": None if self.preprocessor is None else serialize(self.preprocessor),
            "pooling": serialize(self.pooling),
            "return_all": self.return_all,
            "windows": self.windows,
            "stride": self.stride,
            "made_encoder": self._made_encoder,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BertTrend:
        made_encoder = config.get("made_encoder", True)  # version 0.1 did not say
        deserialize = keras.saving.deserialize_keras_object
        # What was given keeps its own paths; an encoder made from a handle has them below this layer's name.
        with keras.name_scope(config["name"]) if made_encoder else contextlib.nullcontext():
            encoder = deserialize(config["encoder"])
        parts = {name: deserialize(config[name]) for name in ("preprocessor", "pooling")}
        arguments = {key: value for key, value in config.items() if key != "made_encoder"}
        # A layer may train its pooling on a frozen encoder.
        trainable = config.get("trainable", True) and None
        layer = cls(**{**arguments, **parts, "encoder": encoder, "trainable": trainable})
        layer._made_encoder = made_encoder
        return layer


def _everything(inputs, outputs, embedding) -> dict[str, Any]:
    return {**{name: inputs[name] for name in INPUT_NAMES}, **outputs, "sentence_embedding": embedding}


def _is_ids(inputs) -> bool:
    return isinstance(inputs, Mapping) and not set(INPUT_NAMES).isdisjoint(inputs)


def _refuse_beside_encoder(**arguments: tuple[Any, Any]) -> None:
    """Raise `ValueError` if an argument that makes an encoder or a preprocessor is given beside those."""
    given = [name for name, (value, default) in arguments.items() if value is not default and value != default]
    if given:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in given)} cannot be given with `encoder`: set that on the BertEncoder "
            "or the BertPreprocessor."
        )


def _make_preprocessor(source, vocabulary, lower_case, sequence_length, max_length, truncate) -> BertPreprocessor:
    from keras_bert_trend.sources import TextSource, load_text_source

    longest = source.config.max_position_embeddings
    for name, value in (("sequence_length", sequence_length), ("max_length", max_length)):
        if isinstance(value, int | np.integer) and value > longest:
            raise ValueError(f"`{name}`={value} is longer than the model: it has {longest} positions.")
    text = source
    if isinstance(vocabulary, BertPreprocessor):
        text = TextSource(
            vocabulary=vocabulary.vocabulary,
            lower_case=vocabulary.lower_case,
            strip_accents=vocabulary.strip_accents,
            normalization=vocabulary.normalization,
            origin="vocabulary",
        )
    elif isinstance(vocabulary, str | os.PathLike):
        text = load_text_source(vocabulary)
    elif vocabulary is not None:
        text = TextSource(vocabulary=vocabulary, origin="vocabulary")
    strip_accents = None
    if lower_case is None:
        lower_case = text.lower_case if text.lower_case is not None else source.lower_case
        strip_accents = text.strip_accents if text.strip_accents is not None else source.strip_accents
    return BertPreprocessor.from_source(
        text,
        lower_case=lower_case,
        strip_accents=strip_accents,
        sequence_length=sequence_length,
        max_length=longest if max_length is None else max_length,
        truncate=truncate,
        normalization=text.normalization or source.normalization,
        name="preprocessor",
    )


def _texts_of(dataset):
    """Yield the texts of a data set of strings, batched or not."""
    if getattr(dataset.element_spec, "dtype", None) != "string":
        raise ValueError(
            f"`texts` must be a data set of strings, got elements {dataset.element_spec}. Leave out labels by "
            "texts.map(lambda text, label: text); pairs are given as an iterable of tuples."
        )
    return (text for batch in dataset.as_numpy_iterator() for text in np.ravel(batch))


def _check_vocabulary(vocabulary: Vocabulary, encoder: BertEncoder) -> None:
    tokens, rows = len(vocabulary), encoder.config.vocab_size
    # Some publishers round the table up for the hardware's sake; anything else is the wrong file.
    rounded_up = rows % 8 == 0 and 0 < rows - tokens < 128
    if tokens != rows and not rounded_up:
        raise ValueError(
            f"`vocabulary` has {tokens} tokens, but the model's word embeddings have {rows} rows: they belong to "
            "different models."
        )


def _has_published_trend(pooling: Pooling) -> bool:
    return any(isinstance(leaf, TrendPooling) and leaf.measure == "log_ratio" for leaf in leaves(pooling))
