"""keras_bert_trend, through its public names."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.base import MAX_LENGTH, Run, of_real_tokens, random_ids
from benchmarks.peers.tensorflow_base import STRINGS, TensorFlowAdapter, inputs_of
from keras_bert_trend import BertConfig, BertEncoder, BertPreprocessor, BertTrend, FusedAdamW, embed, export_onnx

IDS = [dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), tf.TensorSpec((None, None), tf.int32))]
BASE = {"num_layers": 12, "hidden": 768, "heads": 12, "inner": 3072, "vocab_size": 30522, "max_positions": 512}


class Adapter(TensorFlowAdapter):
    """Ours."""

    packages = ("keras_bert_trend", "tensorflow", "tensorflow-text", "keras", "numpy")

    def layer(self, pooling: str, length: int | None = None, trainable: bool = False) -> BertTrend:
        """Return the layer, padding to `length` or by default to the batch's longest."""
        options = {"sequence_length": length} if length else {"sequence_length": None, "max_length": MAX_LENGTH}
        return BertTrend("minilm", pooling=pooling, truncate=length is None, trainable=trainable, **options)

    def embed(self, pooling: str, way: str = "embed") -> Run:
        """Turn strings into embeddings.

        Args:
            pooling: str. The pooling's name.
            way: str. `"embed"`; `"layer"`, traced once, on batches sorted by characters; `"in order"`, on batches in
                the texts' own order; or `"padded"`, the same padded to 128 tokens.
        """
        layer = self.layer(pooling, MAX_LENGTH if way == "padded" else None)
        if way == "embed":
            options = {"batch_size": self.batch_size, "max_length": MAX_LENGTH, "show_progress": False}
            return lambda: embed(self.texts, layer, **options)
        traced = tf.function(lambda texts: layer(texts), input_signature=STRINGS)
        if way == "layer":
            return self.over_texts(traced)
        batches = [self.texts[i : i + self.batch_size] for i in range(0, len(self.texts), self.batch_size)]
        return lambda: np.concatenate([traced(tf.constant(batch)).numpy() for batch in batches])

    def states(self) -> Run:
        encoder = BertEncoder.from_handle("minilm", trainable=False)
        traced = tf.function(lambda inputs: encoder(inputs, return_attention_scores=True), input_signature=IDS)
        batches = self.arrays("states")

        def run():
            outputs = [traced(inputs_of(ids)) for ids in batches]
            states = [outputs[0]["embedding_output"], *outputs[0]["encoder_outputs"]]
            return lambda: of_real_tokens(np.stack(states), np.stack(outputs[0]["attention_scores"]), batches[0])

        return run

    def tokenize(self, batch_size: int, folder: str | None = None, length: int = MAX_LENGTH) -> Run:
        preprocessor = BertPreprocessor.from_handle(folder or self.minilm, sequence_length=length)
        return self.tokenizing(preprocessor.preprocess, batch_size)

    def train(self, pooling: str, length: int | None = None, jit_compile="auto", fused: bool = True) -> Run:
        layer = self.layer(pooling, length, trainable=True)
        ids, labels = self.arrays("train")
        if length:
            inputs, data = keras.Input((), dtype="string"), np.array(self.training_texts)
        else:
            data = {name: value.numpy() for name, value in inputs_of(ids).items()}
            inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in data}
        model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(layer(inputs)))
        optimizer = (FusedAdamW if fused else keras.optimizers.AdamW)(1e-5, weight_decay=0.01)
        model.compile(optimizer, "binary_crossentropy", jit_compile=jit_compile)
        return self.fitting(model, data, labels, layer.encoder.trainable_weights)

    def serve(self, pooling: str) -> Run:
        """Call an exported SavedModel with strings."""
        served = tf.saved_model.load(str(self.work / f"serving_{pooling}"))
        return self.over_texts(lambda texts: served.serve(texts))

    def encode(self, pooling: str, batch: int, length: int, layers: int) -> Run:
        """Turn token ids into embeddings; more layers than MiniLM has begin with its first again."""
        minilm = BertEncoder.from_handle("minilm")
        weights, available = minilm.named_weights(), minilm.config.num_layers
        encoder = BertEncoder(BertConfig.from_dict({**minilm.config.to_dict(), "num_layers": layers}), trainable=False)
        names = {
            name: re.sub(r"layer_(\d+)", lambda match: f"layer_{int(match[1]) % available}", name)
            for name in encoder.named_weights()
        }
        encoder.set_named_weights({name: weights[source] for name, source in names.items()})
        preprocessor = BertPreprocessor.from_handle("minilm")  # tells words from punctuation
        layer = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling=pooling, trainable=False)
        traced = tf.function(lambda inputs: layer(inputs), input_signature=IDS)
        inputs = inputs_of(random_ids(batch, length))
        return lambda: traced(inputs).numpy()

    def load(self, folder: str) -> Run:
        return lambda: BertEncoder.from_handle(self.work / folder)

    def export(self, tasks: list[str], train_length: int) -> Run:
        """Write what the others read: token ids, SavedModels, and how many tokens the texts have."""

        def run():
            layer = self.layer("mean")
            rows = layer.preprocessor.preprocess(tf.constant(self.texts))["input_word_ids"].numpy()
            lengths = np.count_nonzero(rows, axis=1)
            np.savez(self.work / "states.npz", *[rows[i, : lengths[i].max()] for i in self.batches(lengths)])
            examples = len(self.training_texts)
            ids = np.resize(rows[rows != 0], (examples, train_length))
            labels = (np.arange(examples) % 2).astype(np.float32)[:, None]
            np.savez(self.work / "train.npz", ids=ids, labels=labels)
            facts = {"tokens": lengths.tolist(), "config": layer.encoder.config.to_dict()}
            (self.work / "facts.json").write_text(json.dumps(facts))
            layer.encoder.export_text_encoder(self.work / "encoder", layer.preprocessor, overwrite=True)
            layer.preprocessor.export_text_preprocessing(
                self.work / "preprocessing", sequence_length=MAX_LENGTH, overwrite=True
            )
            for pooling in ("mean", "trend") if "serve" in tasks else ():
                text = keras.Input((), dtype="string")
                model = keras.Model(text, self.layer(pooling)(text))
                model.export(str(self.work / f"serving_{pooling}"), verbose=False)
            if "engines" in tasks:
                export_onnx(layer, self.work / "ours_mean.onnx", overwrite=True)
            if "import_base" in tasks:
                from tests.raw_bert import write_raw_bert

                write_raw_bert(self.work / "bert_base_with_random_weights", **BASE)  # 110 million random weights

        return run
