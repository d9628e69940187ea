"""Write a model back to the ecosystem: SavedModels with TF Hub's text encoder and preprocessing interfaces.

https://www.tensorflow.org/hub/common_saved_model_apis/text describes both. The encoder is written out in the plain
notation of published encoders (separate query, key and value, einsum, LayerNorm from moments): whatever reads those
reads this too, `keras_bert_trend.sources` included. For speed, export a model that contains the layer instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bert_trend._utils import complete_or_nothing
from keras_bert_trend.encoder.config import BertConfig
from keras_bert_trend.encoder.formula import Algebra
from keras_bert_trend.preprocessing.packing import pack_inputs
from keras_bert_trend.preprocessing.segments import with_rank
from keras_bert_trend.preprocessing.vocabulary import Vocabulary

_TOKENS = tf.TensorSpec([None, None], tf.int32)
_INPUTS = dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), _TOKENS)


def write_text_encoder(
    path: str,
    config: BertConfig,
    weights: Mapping[str, np.ndarray],
    preprocessor,
    overwrite: bool,
) -> None:
    """Write an encoder as a SavedModel.

    Args:
        path: str. The folder to write; it is complete or not there.
        config: `BertConfig`. The architecture.
        weights: mapping. google-research/bert's name → array, as `BertEncoder.named_weights` gives them.
        preprocessor: `BertPreprocessor` or `None`. Its vocabulary becomes the asset `vocab_file` or `sp_model_file`,
            its casing the variable `do_lower_case`. Two variables that TF Hub's interface does not have say what else
            it does to texts: `strip_accents`, and `bert_normalization`.
        overwrite: bool. Whether to replace an existing `path`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    with complete_or_nothing(path, overwrite) as folder, tempfile.TemporaryDirectory() as assets:
        encoder = _TextEncoder(config, weights)
        if preprocessor is not None:
            asset = tf.saved_model.Asset(_write_asset(preprocessor.vocabulary, assets))
            if preprocessor.vocabulary.asset_name == "vocab.txt":
                encoder.vocab_file = asset
            else:
                encoder.sp_model_file = asset
            flags = {
                "do_lower_case": preprocessor.lower_case,
                "strip_accents": preprocessor.strip_accents,
                "bert_normalization": preprocessor.normalization == "bert",
            }
            for name, flag in flags.items():
                setattr(encoder, name, tf.Variable(flag, trainable=False, name=name))
        # What can be called later is what is traced now.
        for training in (True, False):
            encoder.__call__.get_concrete_function(_INPUTS, training, None)
            encoder.call_with_attention.get_concrete_function(_INPUTS, training)
        tf.saved_model.save(encoder, folder, signatures={"serving_default": encoder.serve})


def write_text_preprocessing(path: str, preprocessor, sequence_length: int, overwrite: bool) -> None:
    """Write a preprocessing model: strings in, the encoder's inputs out.

    Args:
        path: str. The folder to write; it is complete or not there.
        preprocessor: `BertPreprocessor`. Its vocabulary and casing are written.
        sequence_length: int. The number of tokens that texts are padded or cut to.
        overwrite: bool. Whether to replace an existing `path`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    with complete_or_nothing(path, overwrite) as folder, tempfile.TemporaryDirectory() as assets:
        root = _TextPreprocessing(preprocessor, sequence_length, assets)
        pieces = [tf.RaggedTensorSpec([None, None], tf.int32), tf.RaggedTensorSpec([None, None, None], tf.int32, 2)]
        for spec in pieces:
            for segments in ([spec], [spec, spec]):
                for length in (tf.TensorSpec([], tf.int32), None):
                    root.bert_pack_inputs.get_concrete_function(segments, length)
        tf.saved_model.save(root, folder, signatures={"serving_default": root.serve})


def _write_asset(vocabulary: Vocabulary, folder: str) -> str:
    path = os.path.join(folder, vocabulary.asset_name)
    with open(path, "wb") as file:
        file.write(vocabulary.to_bytes())
    return path


class _Saved(tf.Module):
    """A module that saves its lists of variables: TF Hub's interface has attributes, `tf.Module` has properties."""

    variables: Any = ()
    trainable_variables: Any = ()
    regularization_losses: Any = ()


class _TextEncoder(_Saved):
    """An encoder in TensorFlow's own ops; `BertEncoder` is the same function."""

    def __init__(self, config: BertConfig, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self._config = config
        self._weights = {
            role: tf.Variable(_with_heads(role, np.asarray(array, np.float32), config), name=role)
            for role, array in weights.items()
        }
        self.variables = list(self._weights.values())
        self.trainable_variables = list(self._weights.values())
        self.regularization_losses = []

    @tf.function(autograph=False)
    def __call__(self, inputs, training=False, mask=None):  # Keras's own exports take `mask` too; none uses it
        outputs = self._encode(inputs, training)
        return {name: value for name, value in outputs.items() if not name.startswith("attention")}

    @tf.function(autograph=False)
    def call_with_attention(self, inputs, training=False):
        return self._encode(inputs, training)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32, name=name) for name in _INPUTS], autograph=False
    )
    def serve(self, input_word_ids, input_mask, input_type_ids):
        outputs = self._encode(dict(zip(_INPUTS, (input_word_ids, input_mask, input_type_ids), strict=True)), False)
        flat = {name: outputs[name] for name in ("pooled_output", "sequence_output", "embedding_output", "default")}
        return flat | {f"encoder_outputs_{i}": x for i, x in enumerate(outputs["encoder_outputs"])}

    def _encode(self, inputs, training):
        config = self._config
        do, last = _TensorFlow(config, self._weights, inputs, training), config.num_layers - 1
        x = config.kind.embed(do, config)
        outputs = {"embedding_output": x}
        layers, scores, received = [], [], []
        for layer in range(config.num_layers):
            do.prefix = f"encoder/layer_{0 if config.share_layers else layer}/"
            x = config.kind.compute(do, x, config, layer == last)
            layers.append(x)
            scores.append(do.probabilities)
            received.append(tf.einsum("abde,ad->abe", do.probabilities, do.mask))
        do.prefix = ""
        first = x[:, 0]
        pooled = tf.tanh(do.dense("pooler/dense", first)) if config.pooler == "tanh" else first
        return {
            **outputs,
            "pooled_output": pooled,
            "default": pooled,
            "sequence_output": x,
            "encoder_outputs": layers,
            "attention_scores": scores,
            "attention_received": tf.stack(received, axis=1),
        }


class _TensorFlow(Algebra):
    """TensorFlow computes the formulas, in the notation of published encoders."""

    def __init__(self, config: BertConfig, weights: Mapping[str, tf.Variable], inputs, training: bool) -> None:
        super().__init__(config)
        self.prefix = ""
        self._weights, self._inputs, self._training = weights, inputs, training
        self.mask = tf.cast(inputs["input_mask"], tf.float32)
        self._bias = ((1.0 - self.mask) * config.attention_mask_constant)[:, tf.newaxis, tf.newaxis, :]

    def weight(self, name):
        return self._weights[self.prefix + name]

    def lookup(self, name, ids):
        return tf.gather(self.weight(name), self._inputs[ids])

    def positions(self, name):
        return self.weight(name)[: tf.shape(self.mask)[1]][tf.newaxis]

    def neighbours(self, x):
        following, before = tf.pad(x[:, 1:], [[0, 0], [0, 1], [0, 0]]), tf.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return tf.concat([following, x, before], axis=2)

    def dense(self, name, x):
        kernel = self.weight(f"{name}/kernel")
        # A kernel has an axis for the heads after the attention, and before it.
        equation = {
            (2, 2): "ac,cd->ad",
            (3, 2): "abc,cd->abd",
            (3, 3): "abc,cde->abde",
            (4, 3): "abde,dec->abc",
        }[len(x.shape), len(kernel.shape)]
        return tf.einsum(equation, x, kernel) + self.weight(f"{name}/bias")

    def activate(self, x):
        return tf.nn.relu(x) if self.config.hidden_act == "relu" else tf.nn.gelu(x, self.config.hidden_act != "gelu")

    def norm(self, name, x):
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        if self.config.normalization == "no_norm":
            return x * gamma + beta
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, self.config.layer_norm_epsilon)

    def drop(self, x):
        return self._dropped(x, self.config.hidden_dropout)

    def _dropped(self, x, rate):
        return tf.nn.dropout(x, rate) if self._training and rate else x

    def attention(self, query, key, value, mixes=None):
        query, key, value = (
            self.dense(f"attention/self/{role}", x) for role, x in (("query", query), ("key", key), ("value", value))
        )
        query = query * self.config.head_size**-0.5
        scores = self._mixed(tf.einsum("aecd,abcd->acbe", key, query), mixes and mixes[0])
        self.probabilities = self._mixed(tf.nn.softmax(scores + self._bias), mixes and mixes[1])
        weights = self._dropped(self.probabilities, self.config.attention_dropout)
        return tf.einsum("acbe,aecd->abcd", weights, value)

    def _mixed(self, scores, name):
        return scores if name is None else tf.einsum("abcd,be->aecd", scores, self.weight(f"{name}/kernel"))


def _with_heads(role: str, array: np.ndarray, config: BertConfig) -> np.ndarray:
    """Split the axis of the heads in two, as published encoders do: nothing else in them shows the number of heads."""
    heads = (config.num_heads, config.head_size)
    if "attention/self/" in role:
        return array.reshape(*array.shape[:-1], *heads)
    return array.reshape(*heads, -1) if role.endswith("attention/output/dense/kernel") else array


class _Tokenize(_Saved):
    """The sub-object `tokenize`: turns strings `(batch,)` into ragged ids, and has the ids that packing needs."""

    def __init__(self, preprocessor, assets: str) -> None:
        super().__init__()
        vocabulary = preprocessor.vocabulary
        self._normalize = preprocessor.normalize
        self._tokenizer = vocabulary.make_tokenizer(_write_asset(vocabulary, assets))
        ids = {
            "start_of_sequence_id": "[CLS]",
            "end_of_segment_id": "[SEP]",
            "padding_id": vocabulary.padding_token,
            "mask_id": "[MASK]",
        }
        self.special_ids = {name: vocabulary.id_of(token) for name, token in ids.items() if token in vocabulary.tokens}
        self._special_tokens = {**self.special_ids, "vocab_size": len(vocabulary)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def __call__(self, texts):
        return self._tokenizer.tokenize(self._normalize(with_rank(texts, 1)))

    @tf.function(input_signature=[], autograph=False)
    def get_special_tokens_dict(self):
        return {name: tf.constant(value, tf.int32) for name, value in self._special_tokens.items()}


class _TextPreprocessing(_Saved):
    """Turns strings into the encoder's inputs, in one step or in two: `tokenize`, then `bert_pack_inputs`."""

    def __init__(self, preprocessor, sequence_length: int, assets: str) -> None:
        super().__init__()
        self.tokenize = _Tokenize(preprocessor, assets)
        self._sequence_length = sequence_length
        self._special_ids = preprocessor.vocabulary.special_ids

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def __call__(self, sentences):
        return self._pack([self.tokenize(sentences)], self._sequence_length)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="sentences")], autograph=False)
    def serve(self, sentences):
        return self._pack([self.tokenize(sentences)], self._sequence_length)

    @tf.function(autograph=False)
    def bert_pack_inputs(self, inputs, seq_length=None):
        return self._pack(inputs, self._sequence_length if seq_length is None else seq_length)

    def _pack(self, segments, length):
        flat = [segment.merge_dims(1, -1) if segment.ragged_rank > 1 else segment for segment in segments]
        packed = pack_inputs(flat, tf.convert_to_tensor(length, tf.int32), self._special_ids)
        for tensor in packed.values():
            tensor.set_shape((None, length if isinstance(length, int) else None))
        return packed
