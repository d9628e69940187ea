"""tf-models-official: writes MiniLM's weights as SavedModels, with the exporter of TF Hub's models. It is not timed."""

from __future__ import annotations

import os
import re

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
from official.legacy.bert import configs
from official.nlp.tools import export_tfhub_lib
from safetensors.numpy import load_file

from benchmarks.peers.base import MAX_LENGTH, Run
from benchmarks.peers.tensorflow_base import TensorFlowAdapter

SIZES = {
    "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip
#: Model Garden's names → Hugging Face's.
NAMES = [
    (r"word_embeddings/embeddings", "embeddings.word_embeddings.weight"),
    (r"position_embedding/embeddings", "embeddings.position_embeddings.weight"),
    (r"type_embeddings/embeddings", "embeddings.token_type_embeddings.weight"),
    (r"embeddings/layer_norm/(\w+)", r"embeddings.LayerNorm.\1"),
    (r"transformer/layer_(\d+)/self_attention/attention_output/(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"transformer/layer_(\d+)/self_attention/(query|key|value)/(\w+)", r"encoder.layer.\1.attention.self.\2.\3"),
    (r"transformer/layer_(\d+)/self_attention_layer_norm/(\w+)", r"encoder.layer.\1.attention.output.LayerNorm.\2"),
    (r"transformer/layer_(\d+)/(intermediate|output)/(\w+)", r"encoder.layer.\1.\2.dense.\3"),
    (r"transformer/layer_(\d+)/output_layer_norm/(\w+)", r"encoder.layer.\1.output.LayerNorm.\2"),
    (r"pooler_transform/(\w+)", r"pooler.dense.\1"),
]
LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


class Adapter(TensorFlowAdapter):
    """The exporter."""

    packages = ("tf-models-official", "tensorflow", "tf_keras", "tensorflow-text")

    def export(self) -> Run:
        """Write `encoder_official` and `preprocessing_official`."""

        def run():
            weights = load_file(f"{self.minilm}/model.safetensors")
            # The name "gelu" is the approximation there.
            config = configs.BertConfig(**SIZES, hidden_act=lambda x: tf.nn.gelu(x, approximate=False))
            encoder = export_tfhub_lib.get_bert_encoder(config)
            for weight in encoder.weights:
                array = weights[_hugging_face_name(weight.name.removesuffix(":0"))]
                array = array.T if weight.name.endswith("/kernel:0") else array
                weight.assign(array.reshape(weight.shape))
            checkpoint = tf.train.Checkpoint(model=encoder, encoder=encoder).save(str(self.work / "official_ckpt"))
            text = {"vocab_file": f"{self.minilm}/vocab.txt", "do_lower_case": True}
            export_tfhub_lib.export_model(
                str(self.work / "encoder_official"),
                bert_config=config, model_checkpoint_path=checkpoint, with_mlm=False, **text,
            )  # fmt: skip
            export_tfhub_lib.export_preprocessing(
                str(self.work / "preprocessing_official"),
                tokenize_with_offsets=False, default_seq_length=MAX_LENGTH, **text,
            )  # fmt: skip

        return run


def _hugging_face_name(name: str) -> str:
    for pattern, replacement in NAMES:
        if match := re.fullmatch(pattern, name):
            stem, _, leaf = match.expand(replacement).rpartition(".")
            return f"{stem}.{LEAVES.get(leaf, leaf)}"
    raise ValueError(f"The exporter's encoder has a weight of an unknown name, {name!r}.")
