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
from keras_bert_trend.preprocessing.packing import pack_inputs
from keras_bert_trend.preprocessing.segments import with_rank
from keras_bert_trend.preprocessing.vocabulary import Vocabulary

_TOKENS = tf.TensorSpec([None, None], tf.int32)
_INPUTS = dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), _TOKENS)


def write_text_encoder(
    path: str,
    config: BertConfig,
    weights: Mapping[str, np.ndarray],
    vocabulary: Vocabulary | None,
    lower_case: bool | None,
    overwrite: bool,
) -> None:
    """Write an encoder as a SavedModel.

    Args:
        path: str. The folder to write; it is complete or not there.
        config: `BertConfig`. The architecture.
        weights: mapping. google-research/bert's name → array, as `BertEncoder.named_weights` gives them.
        vocabulary: `Vocabulary` or `None`. Becomes the asset `vocab_file` or `sp_model_file`.
        lower_case: bool or `None`. Becomes the variable `do_lower_case`.
        overwrite: bool. Whether to replace an existing `path`.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
    """
    with complete_or_nothing(path, overwrite) as folder, tempfile.TemporaryDirectory() as assets:
        encoder = _TextEncoder(config, weights)
        if vocabulary is not None:
            asset = tf.saved_model.Asset(_write_asset(vocabulary, assets))
            if vocabulary.asset_name == "vocab.txt":
                encoder.vocab_file = asset
            else:
                encoder.sp_model_file = asset
        if lower_case is not None:
            encoder.do_lower_case = tf.Variable(lower_case, trainable=False, name="do_lower_case")
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
    """BERT, ALBERT or ELECTRA in TensorFlow's own ops; `BertEncoder` is the same function."""

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
        mask = tf.cast(inputs["input_mask"], tf.float32)
        bias = ((1.0 - mask) * config.attention_mask_constant)[:, tf.newaxis, tf.newaxis, :]
        x = self._embed(inputs["input_word_ids"], inputs["input_type_ids"], training)
        outputs = {"embedding_output": x}
        layers, scores, received = [], [], []
        for layer in range(config.num_layers):
            x, probabilities = self._block(f"encoder/layer_{0 if config.share_layers else layer}", x, bias, training)
            layers.append(x)
            scores.append(probabilities)
            received.append(tf.einsum("abde,ad->abe", probabilities, mask))
        first = x[:, 0]
        pooled = tf.tanh(self._dense("pooler/dense", "ac,cd->ad", first)) if config.pooler == "tanh" else first
        return {
            **outputs,
            "pooled_output": pooled,
            "default": pooled,
            "sequence_output": x,
            "encoder_outputs": layers,
            "attention_scores": scores,
            "attention_received": tf.stack(received, axis=1),
        }

    def _embed(self, ids, types, training):
        tables = {role: self._weights[f"embeddings/{role}_embeddings"] for role in ("word", "position", "token_type")}
        x = tf.gather(tables["word"], ids) + tf.gather(tables["token_type"], types)
        x = x + tables["position"][: tf.shape(ids)[1]][tf.newaxis]
        x = self._drop(self._norm("embeddings/LayerNorm", x), self._config.hidden_dropout, training)
        if self._config.embedding_size == self._config.hidden_size:
            return x
        return self._dense("encoder/embedding_hidden_mapping_in", "abc,cd->abd", x)

    def _block(self, name, x, bias, training):
        config = self._config
        query, key, value = (
            self._dense(f"{name}/attention/self/{role}", "abc,cde->abde", x) for role in ("query", "key", "value")
        )
        query = query * config.head_size**-0.5
        probabilities = tf.nn.softmax(tf.einsum("aecd,abcd->acbe", key, query) + bias)
        attention = self._drop(probabilities, config.attention_dropout, training)
        context = tf.einsum("acbe,aecd->abcd", attention, value)
        attended = self._dense(f"{name}/attention/output/dense", "abde,dec->abc", context)
        attended = self._drop(attended, config.hidden_dropout, training)
        x = self._norm(f"{name}/attention/output/LayerNorm", x + attended)
        inner = _activate(self._dense(f"{name}/intermediate/dense", "abc,cd->abd", x), config.hidden_act)
        output = self._dense(f"{name}/output/dense", "abd,dc->abc", inner)
        return self._norm(f"{name}/output/LayerNorm", x + self._drop(output, config.hidden_dropout, training)), (
            probabilities
        )

    def _dense(self, name, equation, x):
        return tf.einsum(equation, x, self._weights[f"{name}/kernel"]) + self._weights[f"{name}/bias"]

    def _norm(self, name, x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        gamma, beta = self._weights[f"{name}/gamma"], self._weights[f"{name}/beta"]
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, self._config.layer_norm_epsilon)

    def _drop(self, x, rate, training):
        return tf.nn.dropout(x, rate) if training and rate else x


def _with_heads(role: str, array: np.ndarray, config: BertConfig) -> np.ndarray:
    """Split the axis of the heads in two, as published encoders do: nothing else in them shows the number of heads."""
    heads = (config.num_heads, config.head_size)
    if "attention/self/" in role:
        return array.reshape(*array.shape[:-1], *heads)
    return array.reshape(*heads, -1) if role.endswith("attention/output/dense/kernel") else array


def _activate(x, name: str):
    if name == "relu":
        return tf.nn.relu(x)
    return tf.nn.gelu(x, approximate=name == "gelu_tanh")


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
