"""keras_bert_trend, through its public names."""

from __future__ import annotations

import json
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_bert_trend
from keras_bert_trend import BertConfig, BertEncoder, BertPreprocessor, BertTrend, embed
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling
from peers.adapters.base import Run, layer_order, made_up_ids, of_real_tokens
from peers.adapters.tensorflow_base import STRINGS, TensorFlowAdapter, inputs_of

IDS = [dict.fromkeys(INPUT_NAMES, tf.TensorSpec((None, None), tf.int32))]


class Adapter(TensorFlowAdapter):
    """Ours."""

    packages = ("tensorflow", "tensorflow-text", "keras", "numpy")

    def versions(self) -> dict[str, str]:
        """Return the versions, the checked-out package's own among them."""
        return {"keras_bert_trend": keras_bert_trend.__version__, **super().versions()}

    def layer(self, pooling, **kwargs) -> BertTrend:
        """Return the layer, frozen and padding to the batch's longest unless told otherwise."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trend is compared in training too
            kwargs = {"trainable": False, "sequence_length": None, "max_length": self.max_length, **kwargs}
            return BertTrend("minilm", pooling=pooling, truncate=kwargs["sequence_length"] is None, **kwargs)

    def embed(self, pooling: str, way: str = "embed") -> Run:
        """Strings to embeddings: by `embed`, or by the layer as one traced function."""
        layer = self.layer(pooling)
        if way == "layer":
            return self.over_texts(tf.function(lambda texts: layer(texts), input_signature=STRINGS))
        options = {"batch_size": self.batch_size, "max_length": self.max_length, "show_progress": False}
        return lambda: embed(self.texts, layer, **options)

    def states(self) -> Run:
        """Token ids to all hidden states and attention scores."""
        encoder = BertEncoder.from_handle("minilm", trainable=False)
        traced = tf.function(
            lambda inputs: encoder(inputs, return_attention_scores=True, training=False), input_signature=IDS
        )
        batches = [inputs_of(ids) for ids in self.id_batches()]

        def run():
            outputs = [traced(inputs) for inputs in batches]
            first = outputs[0]
            return lambda: of_real_tokens(
                np.stack([first["embedding_output"], *first["encoder_outputs"]]),
                np.stack(first["attention_scores"]),
                batches[0]["input_word_ids"].numpy(),
            )

        return run

    def tokenize(self, batch_size: int, handle: str = "minilm", length: int | None = None) -> Run:
        """Strings to token ids, padded to 128 or to `length`."""
        source = handle if handle != "minilm" else self.minilm
        preprocessor = BertPreprocessor.from_handle(source, sequence_length=length or self.max_length)
        return self.tokenizing(preprocessor.preprocess, batch_size)

    def train(self, pooling: str, jit_compile: bool | str = "auto", optimizer: str = "FusedAdamW") -> Run:
        """Fine-tune everything through `compile` and `fit` on token ids, with our AdamW or Keras's."""
        ids, labels = self.training_data()
        layer = self.layer(pooling, trainable=True)
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
        data = {name: value.numpy() for name, value in inputs_of(ids).items()}
        return self._fit(layer, inputs, data, labels, optimizer, jit_compile)

    def train_messages(self, pooling: str, length: int) -> Run:
        """Fine-tune everything on messages, strings in."""
        texts, labels = self.training_messages()
        layer = self.layer(pooling, trainable=True, sequence_length=length)
        return self._fit(layer, keras.Input((), dtype="string"), np.array(texts), labels)

    def _fit(self, layer, inputs, data, labels, optimizer="FusedAdamW", jit_compile="auto") -> Run:
        model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(layer(inputs)))
        kind = keras_bert_trend.FusedAdamW if optimizer == "FusedAdamW" else keras.optimizers.AdamW
        model.compile(kind(1e-5, weight_decay=0.01), "binary_crossentropy", jit_compile=jit_compile)
        return self.fitting(model, data, labels, layer.encoder.trainable_weights)

    def serve(self, pooling: str) -> Run:
        """Call an exported SavedModel with strings; see `export`."""
        import tensorflow_text  # noqa: F401  (its ops)

        served = tf.saved_model.load(str(self.work / f"serving_{pooling}"))
        return self.over_texts(lambda texts: served.serve(texts))

    def encode(self, pooling: str, batch: int, length: int, layers: int) -> Run:
        """Token ids to embeddings, for the sweeps."""
        whole = BertEncoder.from_handle("minilm")
        config = BertConfig.from_dict({**whole.config.to_dict(), "num_layers": layers})
        encoder = BertEncoder(config, trainable=False)
        encoder.set_named_weights(_cut(whole.named_weights(), layers, whole.config.num_layers))
        kinds = self.layer("mean").preprocessor.vocabulary.token_kinds
        layer = BertTrend(encoder=encoder, pooling=get_pooling(pooling, kinds), trainable=False)
        traced = tf.function(lambda inputs: layer(inputs), input_signature=IDS)
        inputs = inputs_of(made_up_ids(batch, length))
        return lambda: traced(inputs).numpy()

    def export(self, encoder: bool, serving: list[str], train_length: int, train_examples: int) -> Run:
        """Write what the others need: SavedModels, token ids and how many tokens there are."""

        def run():
            layer = self.layer("mean")
            ids = [row[: int(row.argmin()) or None] for row in _rows(layer.preprocessor, self.texts)]
            batches = [
                layer.preprocessor.preprocess(tf.constant(texts))["input_word_ids"].numpy()
                for _, texts in self.text_batches()
            ]
            np.savez(self.work / "ids.npz", *batches)
            stream = np.concatenate(ids)
            stream = np.resize(stream, (train_examples, train_length))
            labels = (np.arange(train_examples) % 2).astype(np.float32)[:, None]
            np.savez(self.work / "train.npz", ids=stream, labels=labels)
            if encoder:
                layer.encoder.export_text_encoder(self.work / "encoder", layer.preprocessor, overwrite=True)
                layer.preprocessor.export_text_preprocessing(
                    self.work / "preprocessing", sequence_length=self.max_length, overwrite=True
                )
            for pooling in serving:
                text = keras.Input((), dtype="string")
                model = keras.Model(text, self.layer(pooling)(text))
                model.export(str(self.work / f"serving_{pooling}"), verbose=False)
            config = layer.encoder.config.to_dict()
            facts = {"tokens": [len(one) for one in ids], "config": config}
            (self.work / "facts.json").write_text(json.dumps(facts))

        return run

    def load(self, folder: str) -> Run:
        """Import a SavedModel, for its peak of memory."""
        return lambda: BertEncoder.from_handle(folder)


def _rows(preprocessor, texts) -> np.ndarray:
    ids = preprocessor.preprocess(tf.constant(texts))["input_word_ids"].numpy()
    return np.concatenate([ids, np.zeros((len(ids), 1), ids.dtype)], axis=1)


def _cut(weights: dict, layers: int, available: int) -> dict:
    kept = {name: array for name, array in weights.items() if not name.startswith("encoder/layer_")}
    for new, old in enumerate(layer_order(layers, available)):
        prefix = f"encoder/layer_{old}/"
        kept |= {
            f"encoder/layer_{new}/{name.removeprefix(prefix)}": array
            for name, array in weights.items()
            if name.startswith(prefix)
        }
    return kept
