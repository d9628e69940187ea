"""`BertTrend`: preprocessing, encoder and pooling as the one layer that people add to a model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_bert_trend.encoder import INPUT_NAMES, BertEncoder
from keras_bert_trend.encoder.rows import can_skip_padding, resized
from keras_bert_trend.pooling import Pooling, TrendPooling, get_pooling, run_encoder
from keras_bert_trend.preprocessing import BertPreprocessor, Vocabulary
from keras_bert_trend.preprocessing.preprocessor import to_string_tensors

_EVERYTHING = {"return_attention_scores": True, "return_attention_received": True}  # that the encoder has

_warned_about_training = False


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class BertTrend(keras.layers.Layer):
    """Strings (or token ids) to a sentence embedding, BERT included and trainable.

    Example:
        >>> layer = BertTrend("minilm", pooling="smooth_trend", sequence_length=64)
        >>> text = keras.Input((), dtype="string")
        >>> model = keras.Model(text, keras.layers.Dense(1, "sigmoid")(layer(text)))
        >>> layer.embedding_dim
        384

    Args:
        handle: what `keras_bert_trend.sources.load_source` takes: `"minilm"`, a folder, a TF Hub URL. Leave it out to
            give `encoder` and `preprocessor` instead.
        pooling: a name (`keras_bert_trend.POOLING_NAMES`), a list of names (concatenated) or a `Pooling` layer.
        sequence_length: pad and trim texts to this length; `None` pads to the longest of each batch; `"auto"` is 128,
            or the model's length where that is less. Where strings come in and one vector a text goes out, under
            TensorFlow, only attention computes padding, up to the batch's longest text, and a text's embedding does not
            depend on its batch. (A custom pooling declares that with `needs`.)
        max_length: with `sequence_length=None`, the longest text taken; the model's length by default.
        truncate: with `sequence_length=None`, trim longer texts instead of refusing them.
        trainable: whether BERT trains; see `BertEncoder`, also for the next three.
        freeze_embeddings: keep the embeddings as they are while the blocks train.
        trainable_layers: train only the last `n` blocks.
        rematerialize: in training, compute the blocks again in the backward pass: less memory, more time.
        return_all: return every output of the encoder beside the embedding, instead of the embedding alone.
        vocabulary: for a model that brings none: the WordPiece tokens, a serialised SentencePiece model, or what
            `keras_bert_trend.sources.load_text_source` takes: a `vocab.txt`, the handle of a preprocessing model.
        lower_case: the casing, for a model that does not say; by default it follows the vocabulary.
        encoder: a `BertEncoder`, instead of a handle.
        preprocessor: a `BertPreprocessor`, instead of a handle; without one the layer takes token ids only.
        **kwargs: `name`, `dtype` (a mixed precision policy too) and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: strings `(batch,)`, a pair (tuple) of them, or the dict of `input_word_ids`, `input_mask` and
            `input_type_ids`, int `(batch, seq)`.
        return_all: overrides the constructor's, to look inside. Which weights train is decided by the constructor: the
            pooler trains where `return_all` was given there, or where the pooling reads it.
        training: whether dropout acts.

    Returns:
        The sentence embedding `(batch, embedding_dim)`; with `return_all` a dict of all of `BertEncoder`'s outputs,
        `attention_scores` and `attention_received` included, the three inputs, and `sentence_embedding`.

    Raises:
        ValueError: the handle, pooling, length or vocabulary do not fit; see `load_source`, `BertPreprocessor`,
            `BertEncoder` and the poolings.
        ImportError: the weights of `"minilm"` are not installed.
    """

    def __init__(
        self,
        handle: str | os.PathLike | None = None,
        *,
        pooling: str | Pooling | Sequence[str | Pooling] = "trend",
        sequence_length: int | str | None = "auto",
        max_length: int | None = None,
        truncate: bool = False,
        trainable: bool = True,
        freeze_embeddings: bool = False,
        trainable_layers: int | None = None,
        rematerialize: bool = False,
        return_all: bool = False,
        vocabulary: Vocabulary | Sequence[str] | bytes | str | os.PathLike | None = None,
        lower_case: bool | None = None,
        encoder: BertEncoder | None = None,
        preprocessor: BertPreprocessor | None = None,
        **kwargs,
    ) -> None:
        if (handle is None) == (encoder is None):
            raise ValueError("Give either `handle` or `encoder`, the one or the other.")
        super().__init__(**kwargs)
        if handle is not None:
            from keras_bert_trend.sources import load_source

            source = load_source(handle)
            encoder = BertEncoder.from_source(
                source,
                freeze_embeddings=freeze_embeddings,
                trainable_layers=trainable_layers,
                rematerialize=rematerialize,
                dtype=self.dtype_policy,
                name="encoder",
            )
            preprocessor = _make_preprocessor(source, vocabulary, lower_case, sequence_length, max_length, truncate)
        if preprocessor is not None:
            _check_vocabulary(preprocessor.vocabulary, encoder)
        self.encoder = encoder
        self.preprocessor = preprocessor
        token_kinds = None if preprocessor is None else preprocessor.vocabulary.token_kinds
        self.pooling = get_pooling(pooling, token_kinds)
        self.return_all = return_all
        self._called_on_strings = False
        # Fails here, rather than in the first call, where the pooling does not fit the encoder.
        self._embedding_dim = self.pooling.output_dim(encoder.config.hidden_size, encoder.config.num_layers)
        if handle is not None:
            # Nothing else uses this encoder: a pooler that nobody reads would only be a weight without a gradient.
            encoder.train_pooler = return_all or self.pooling.needs.pooled_output
        if handle is not None or not trainable:
            self.trainable = trainable
            encoder.trainable = trainable
        # Whoever gives a layer instead of a name has chosen it; a loaded `BertTrend` is made with layers too.
        chosen = isinstance(pooling, Pooling)
        if self.trainable and encoder.trainable and not chosen and _is_published_trend(self.pooling):
            _warn_about_training()
        self.built = True

    @property
    def embedding_dim(self) -> int:
        """Width of the sentence embedding, known before the first call."""
        return self._embedding_dim

    def build(self, input_shape=None) -> None:
        """Do nothing: the encoder's weights exist already."""

    def __call__(self, inputs, *args, **kwargs):
        """Accept what users hold: lists of `str` and NumPy string arrays become string tensors."""
        if not isinstance(inputs, Mapping):
            if self.preprocessor is None:
                raise ValueError(
                    f"This BertTrend has no preprocessor: `inputs` must be a dict with the keys {list(INPUT_NAMES)}."
                )
            inputs = to_string_tensors(inputs)
            self._called_on_strings = True
        if self.preprocessor is not None:
            # XLA has no strings. A model of token ids never runs the preprocessor, and may be compiled.
            self.preprocessor.supports_jit = not self._called_on_strings
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, return_all=None, training=None):
        """Return the embedding, or everything; see the class."""
        return_all = self.return_all if return_all is None else return_all
        strings = not isinstance(inputs, Mapping)
        if strings:
            inputs = self.preprocessor(inputs)
        if return_all:
            outputs = self.encoder(inputs, training=training, **_EVERYTHING)
            return _everything(inputs, outputs, self._pool(outputs, inputs))
        # Of strings nobody sees how far they are padded, or what stands in the padding; and XLA has no strings.
        skip_padding = strings and not self.pooling.needs.padding and can_skip_padding()
        texts = inputs["input_mask"].shape[0]
        if skip_padding:
            inputs = self._without_needless_padding(inputs)
        (embedding,) = run_encoder(self.encoder, [self.pooling], inputs, training=training, skip_padding=skip_padding)
        if skip_padding:
            embedding.set_shape((texts, self.embedding_dim))
        return embedding

    def _pool(self, outputs, inputs):
        return self.pooling(outputs, inputs["input_mask"], input_word_ids=inputs["input_word_ids"])

    def compute_output_spec(self, inputs, return_all=None, training=None):
        """Return `call`'s result as symbolic tensors, without tracing."""
        return_all = self.return_all if return_all is None else return_all
        if not isinstance(inputs, Mapping):
            inputs = self.preprocessor.compute_output_spec(inputs)
        outputs = self.encoder.compute_output_spec(inputs, **(_EVERYTHING if return_all else {}))
        embedding = self.pooling.compute_output_spec(outputs, inputs["input_mask"])
        return _everything(inputs, outputs, embedding) if return_all else embedding

    def _without_needless_padding(self, inputs: Mapping) -> dict[str, Any]:
        preprocessor, positions = self.preprocessor, self.encoder.config.max_position_embeddings
        padding_id = preprocessor.vocabulary.special_ids.padding
        return resized(inputs, padding_id, preprocessor.sequence_length or preprocessor.max_length or positions)

    def get_config(self) -> dict[str, Any]:
        """Return the three parts; the handle is not kept, nor needed again."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "preprocessor": None if self.preprocessor is None else serialize(self.preprocessor),
            "pooling": serialize(self.pooling),
            "return_all": self.return_all,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BertTrend:
        """Rebuild the three parts, then this layer."""
        deserialize = keras.saving.deserialize_keras_object
        parts = {name: deserialize(config[name]) for name in ("encoder", "preprocessor", "pooling")}
        return cls(**{**config, **parts})


def _everything(inputs, outputs, embedding) -> dict[str, Any]:
    return {**{name: inputs[name] for name in INPUT_NAMES}, **outputs, "sentence_embedding": embedding}


def _make_preprocessor(source, vocabulary, lower_case, sequence_length, max_length, truncate) -> BertPreprocessor:
    from keras_bert_trend.sources import TextSource, load_text_source

    longest = source.config.max_position_embeddings
    for name, value in (("sequence_length", sequence_length), ("max_length", max_length)):
        if isinstance(value, int) and value > longest:
            raise ValueError(f"`{name}`={value} is longer than the model: it has {longest} positions.")
    text = source
    if isinstance(vocabulary, str | os.PathLike):
        text = load_text_source(vocabulary)
    elif vocabulary is not None:
        text = TextSource(vocabulary=vocabulary, origin="vocabulary")
    if lower_case is None:
        lower_case = text.lower_case if text.lower_case is not None else source.lower_case
    return BertPreprocessor.from_source(
        text,
        lower_case=lower_case,
        sequence_length=sequence_length,
        max_length=longest if max_length is None else max_length,
        truncate=truncate,
        name="preprocessor",
    )


def _check_vocabulary(vocabulary: Vocabulary, encoder: BertEncoder) -> None:
    tokens, rows = len(vocabulary), encoder.config.vocab_size
    # Some publishers round the table up for the hardware's sake; anything else is the wrong file.
    rounded_up = rows % 8 == 0 and 0 < rows - tokens < 128
    if tokens != rows and not rounded_up:
        raise ValueError(
            f"`vocabulary` has {tokens} tokens, but the model's word embeddings have {rows} rows: they belong to "
            "different models."
        )


def _is_published_trend(pooling: Pooling) -> bool:
    parts = getattr(pooling, "poolings", [pooling])
    return any(isinstance(part, TrendPooling) and part.measure == "log_ratio" for part in parts)


def _warn_about_training() -> None:
    """Say once a process what was measured: training through the published log ratio can collapse."""
    global _warned_about_training
    if not _warned_about_training:
        _warned_about_training = True
        warnings.warn(
            "Training BERT through pooling='trend': the published log ratio has a gradient that explodes near zero and "
            "dies where the sign flips. pooling='smooth_trend' has the same anchor and related word and trains well; "
            "keep 'trend' for a frozen BERT (trainable=False).",
            stacklevel=4,
        )
