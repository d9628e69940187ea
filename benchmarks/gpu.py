"""Encoder and pooling under JAX beside BERT in PyTorch, on a GPU or another accelerator.

Token ids to sentence embeddings, with random weights that both share: they are compared in float32 before anything is
timed. Needs JAX and PyTorch, not TensorFlow. The peer is transformers' BertModel if transformers is installed, else the
plain BERT below.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some of the memory too

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from benchmarks import report
from benchmarks.harness import ROOT, orders, say
from keras_bert_trend import POOLING_NAMES, BertConfig, BertEncoder, BertTrend, __version__
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling

MODELS = {
    "base": {"vocab_size": 30522},
    "minilm": {"vocab_size": 30522, "hidden_size": 384, "num_layers": 6, "intermediate_size": 1536},
    "tiny": {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64},
}
TINY = {
    "model": "tiny",
    "batches": [2],
    "lengths": [8],
    "length": 8,
    "batch": 4,
    "rounds": 2,
    "calls": 2,
    "matmul": 256,
}
PEER = "PyTorch, mean"
LIMITS = ("matrix product, JAX", "matrix product, PyTorch")
CLOSE = 1e-3  # in float32; states are of the order of 1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main(argv: list[str]) -> int:
    """Check, measure, print and write."""
    options = parse(argv)
    config = BertConfig(hidden_act="gelu", hidden_dropout=0.0, attention_dropout=0.0, **MODELS[options.model])
    encoder = BertEncoder(config, dtype=keras.DTypePolicy(options.dtype), trainable=False)
    weights = encoder.named_weights()
    peer, peer_name = make_peer(config, weights, torch.float32, options.plain)
    difference = check(config, weights, peer)
    dtype = torch.float32 if options.dtype == "float32" else torch.bfloat16
    peer, _ = make_peer(config, weights, dtype, options.plain)

    # way → (ids → a function that starts one call, what waits for its result)
    ways = {f"ours, {name}": (ours(encoder, name), jax.block_until_ready) for name in options.poolings}
    ways[PEER] = (mean_of(peer), wait)
    if options.compile:
        ways[f"{PEER}, torch.compile"] = (mean_of(torch.compile(peer, dynamic=False)), wait)
    products = (jax_product(options.matmul, dtype), torch_product(options.matmul, dtype))
    ways |= dict(zip(LIMITS, zip(products, (jax.block_until_ready, wait), strict=True), strict=True))

    names = ("keras", "jax", "jaxlib", "torch", "transformers", "numpy")
    versions = {name: metadata.version(name) for name in names if importlib.util.find_spec(name)}
    results = report.new_results(options.name)
    results["versions"] = {"all": {"keras_bert_trend": __version__, **versions}}
    results["notes"] = [
        f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else 'no GPU'}, JAX on {jax.default_backend()}",
        f"token ids to embeddings; model {options.model} with random weights, {options.dtype}; the peer is {peer_name} "
        f"in {dtype}; largest difference in float32: {difference:.1e}",
        f"matrix products of {options.matmul} × {options.matmul}; times are of one of {options.calls} queued calls",
    ]
    shapes = [(batch, options.length) for batch in options.batches]
    shapes += [(options.batch, length) for length in options.lengths]
    for batch, length in dict.fromkeys(shapes):
        say(f"batch {batch}, length {length}")
        results["tasks"][f"{batch}x{length}"] = {
            "title": f"Batch {batch}, length {length}",
            "references": {PEER: PEER},
            "tokens": batch * length,
            "flops": report.flops_of(config.to_dict(), [length] * batch),
            "limits": dict.fromkeys(LIMITS, 2 * options.matmul**3),
            "fresh": False,
            "notes": [],
            "records": measure(ways, random_ids(batch, length, config), options),
        }
    report.write(results, options.output)
    print(report.as_markdown(results))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="run.py gpu", description=__doc__)
    add = parser.add_argument
    add("--tiny", action="store_true", help="a toy for any machine: two layers, few shapes")
    add("--model", choices=MODELS, default="base")
    add("--dtype", choices=("mixed_bfloat16", "bfloat16", "float32"), default="mixed_bfloat16")
    add("--poolings", nargs="+", choices=POOLING_NAMES, default=["mean", "trend", "last_four_sum"])
    add("--batches", nargs="*", type=int, default=[1, 8, 32, 128, 512], help="at --length")
    add("--lengths", nargs="*", type=int, default=[16, 32, 64, 128, 256, 512], help="at --batch")
    add("--length", type=int, default=128)
    add("--batch", type=int, default=64)
    add("--rounds", type=int, default=7)
    add("--calls", type=int, default=10, help="calls that one measured repetition queues (default: 10)")
    add("--matmul", type=int, default=8192, help="size of the plain matrix product (default: 8192)")
    add("--compile", action="store_true", help="PyTorch also through torch.compile")
    add("--plain", action="store_true", help="the plain BERT as the peer, even if transformers is installed")
    add("--name", default="gpu", help="of the results' files (default: gpu)")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR")
    options = parser.parse_args(argv)
    if options.tiny:
        vars(options).update(TINY)
    return options


def ours(encoder: BertEncoder, pooling: str) -> Callable:
    """Return ids → a function that starts one compiled call; weights are its arguments."""
    kinds = np.zeros(encoder.config.vocab_size, np.int32)  # all tokens are words: their kind costs nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = BertTrend(encoder=encoder, pooling=get_pooling(pooling, kinds), dtype=encoder.dtype_policy)
    weights = [[one.value for one in part] for part in (layer.trainable_variables, layer.non_trainable_variables)]
    compiled = jax.jit(lambda weights, inputs: layer.stateless_call(*weights, inputs, training=False)[0])

    def prepare(ids: np.ndarray):
        ids = jnp.asarray(ids, jnp.int32)
        inputs = dict(zip(INPUT_NAMES, (ids, jnp.ones_like(ids), jnp.zeros_like(ids)), strict=True))
        return lambda: compiled(weights, inputs)

    return prepare


def make_peer(config: BertConfig, weights: dict[str, np.ndarray], dtype: torch.dtype, plain: bool):
    """Return BERT in PyTorch with these weights, ids → the last state, and its name."""
    # PyTorch's kernels are (out, in).
    tensors = {name: torch.tensor(array.T if name.endswith("kernel") else array) for name, array in weights.items()}
    tensors = {name: tensor.to(DEVICE, dtype) for name, tensor in tensors.items()}
    if plain or not importlib.util.find_spec("transformers"):
        return plain_bert(config, tensors), "the plain BERT of benchmarks/gpu.py, SDPA,"
    from transformers import BertConfig as HuggingFaceConfig
    from transformers import BertModel

    sizes = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
    }
    model = BertModel(HuggingFaceConfig(**sizes, attn_implementation="sdpa")).to(DEVICE, dtype).eval()
    model.load_state_dict({_hugging_face_name(name): tensor for name, tensor in tensors.items()})
    name = f"transformers {metadata.version('transformers')} BertModel, SDPA,"
    return lambda ids: model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state, name


def _hugging_face_name(name: str) -> str:
    name = name.replace("layer_", "layer.").replace("/", ".")
    return re.sub(r"beta$", "bias", re.sub(r"kernel$|gamma$", "weight", re.sub(r"_embeddings$", r"\g<0>.weight", name)))


def plain_bert(config: BertConfig, weights: dict[str, torch.Tensor]) -> Callable:
    """Return ids `(B, T)` → the last state `(B, T, H)`, in as few operations as PyTorch offers."""

    def dense(x, name):
        return F.linear(x, weights[f"{name}/kernel"], weights[f"{name}/bias"])

    def norm(x, name):
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{name}/gamma"], weights[f"{name}/beta"], config.layer_norm_epsilon
        )

    def encode(ids):
        words, positions, types = (
            weights[f"embeddings/{name}_embeddings"] for name in ("word", "position", "token_type")
        )
        x = norm(words[ids] + positions[: ids.shape[1]] + types[0], "embeddings/LayerNorm")
        for i in range(config.num_layers):
            block = f"encoder/layer_{i}"
            parts = [dense(x, f"{block}/attention/self/{role}") for role in ("query", "key", "value")]
            parts = [part.unflatten(-1, (config.num_heads, -1)).transpose(1, 2) for part in parts]
            context = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
            x = norm(x + dense(context, f"{block}/attention/output/dense"), f"{block}/attention/output/LayerNorm")
            inner = F.gelu(dense(x, f"{block}/intermediate/dense"))
            x = norm(x + dense(inner, f"{block}/output/dense"), f"{block}/output/LayerNorm")
        return x

    return encode


def mean_of(encode: Callable) -> Callable:
    """Return ids → a function that starts one call of the peer and the mean over the tokens, which are all real."""

    def prepare(ids: np.ndarray):
        ids = torch.from_numpy(ids).to(DEVICE)

        @torch.inference_mode()
        def call():
            return encode(ids).mean(dim=1)

        return call

    return prepare


def wait(result: torch.Tensor) -> None:
    """Wait until everything queued on the device is done."""
    if result.is_cuda:
        torch.cuda.synchronize()


def jax_product(size: int, dtype: torch.dtype) -> Callable:
    """Return a plain matrix product by JAX, in the form of a way."""
    kind = jnp.float32 if dtype == torch.float32 else jnp.bfloat16
    a, b = (jax.random.normal(jax.random.key(i), (size, size), kind) for i in (0, 1))
    product = jax.jit(jnp.matmul)
    return lambda ids: lambda: product(a, b)


def torch_product(size: int, dtype: torch.dtype) -> Callable:
    """Return a plain matrix product by PyTorch, in the form of a way."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    return lambda ids: lambda: a @ b


def check(config: BertConfig, weights: dict[str, np.ndarray], peer: Callable) -> float:
    """Return how far ours is from the peer in float32.

    Raises:
        RuntimeError: They do not compute the same.
    """
    ids = random_ids(4, min(24, config.max_position_embeddings), config)
    encoder = BertEncoder(config, dtype="float32", trainable=False)
    encoder.set_named_weights(weights)
    with jax.default_matmul_precision("highest"):
        vectors = np.asarray(ours(encoder, "mean")(ids)())
    difference = float(np.abs(vectors - mean_of(peer)(ids)().cpu().numpy()).max())
    if not difference <= CLOSE:
        raise RuntimeError(f"Ours and PyTorch differ by {difference:.1e}; {CLOSE:.0e} is allowed.")
    return difference


def random_ids(batch: int, length: int, config: BertConfig) -> np.ndarray:
    """Return random token ids `(batch, length)`, int64."""
    return np.random.default_rng(0).integers(1, config.vocab_size, (batch, length))


def measure(ways: dict, ids: np.ndarray, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return way → the seconds of one call, round by round, in an order shuffled anew in every round."""
    calls = {name: (prepare(ids), wait) for name, (prepare, wait) in ways.items()}
    for call, wait_for in calls.values():
        for _ in range(2):  # compiles
            wait_for(call())
    records = {name: [] for name in ways}
    for number, order in enumerate(orders(list(ways), options.rounds), 1):
        for name in order:
            call, wait_for = calls[name]
            start = time.perf_counter()
            for _ in range(options.calls):
                result = call()
            wait_for(result)
            records[name].append({"seconds": (time.perf_counter() - start) / options.calls, "round": number})
    return records
