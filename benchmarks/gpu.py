"""Encoder and pooling under JAX beside BERT in PyTorch, on a GPU or another accelerator.

Token ids to sentence embeddings, with random weights that all share: they are compared in float32 before anything is
timed. Needs JAX and PyTorch, not TensorFlow. The peers are the plain BERT below, and transformers' BertModel if
transformers is installed; both use PyTorch's fused attention (SDPA).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
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
from benchmarks.worker import measure
from keras_bert_trend import POOLING_NAMES, BertConfig, BertEncoder, BertTrend, __version__
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling

MODELS = {
    "base": {"vocab_size": 30522},
    "minilm": {"vocab_size": 30522, "hidden_size": 384, "num_layers": 6, "intermediate_size": 1536},
    "tiny": {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64},
}
LIMITS = ("matrix product, JAX", "matrix product, PyTorch")
CLOSE = 1e-3  # in float32; states are of the order of 1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Way = Callable[[np.ndarray], Callable[[], None]]  # ids → what queues some calls and waits for the last


def main(argv: list[str]) -> int:
    """Check, measure, print and write."""
    parser = argparse.ArgumentParser(prog="run.py gpu", description=__doc__)
    add = parser.add_argument
    add("--model", choices=MODELS, default="base")
    add("--dtype", choices=("mixed_bfloat16", "bfloat16", "float32"), default="mixed_bfloat16")
    add("--poolings", nargs="+", choices=POOLING_NAMES, default=["mean", "trend", "last_four_sum"])
    add("--batches", nargs="*", type=int, default=[1, 8, 32, 128, 512], help="of 128 tokens")
    add("--lengths", nargs="*", type=int, default=[16, 32, 64, 128, 256, 512], help="in batches of 64")
    add("--rounds", type=int, default=7)
    add("--calls", type=int, default=10, help="calls that one measured repetition queues (default: 10)")
    add("--matmul", type=int, default=8192, help="size of the plain matrix product (default: 8192)")
    add("--compile", action="store_true", help="the plain BERT also through torch.compile")
    add("--name", default="gpu", help="of the results' files (default: gpu)")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR")
    options = parser.parse_args(argv)
    config = BertConfig(hidden_act="gelu", hidden_dropout=0.0, attention_dropout=0.0, **MODELS[options.model])
    encoder = BertEncoder(config, dtype=keras.DTypePolicy(options.dtype), trainable=False)
    weights = encoder.named_weights()
    differences = check(config, weights)

    dtype = torch.float32 if options.dtype == "float32" else torch.bfloat16
    encode = peers(config, weights, dtype)
    if options.compile:
        encode["PyTorch, torch.compile"] = torch.compile(encode["PyTorch"], dynamic=False)
    ways = {f"ours, {pooling}": ours(encoder, pooling, options.calls) for pooling in options.poolings}
    ways |= {name: mean_of(one, options.calls) for name, one in encode.items()}
    ways |= dict(zip(LIMITS, products(options.matmul, dtype, options.calls), strict=True))

    results = report.new_results(options.name)
    names = ("keras", "jax", "jaxlib", "torch", "transformers", "numpy")
    versions = {name: metadata.version(name) for name in names if importlib.util.find_spec(name)}
    results["versions"] = {"all": {"keras_bert_trend": __version__, **versions}}
    results["notes"] = [
        f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else 'no GPU'}, JAX on {jax.default_backend()}",
        f"model {options.model} with random weights; ours in {options.dtype}, PyTorch in {dtype}",
        f"largest differences from ours in float32: {differences}",
        f"one repetition is {options.calls} queued calls; matrix products of {options.matmul} × {options.matmul}",
    ]
    shapes = [(batch, 128) for batch in options.batches] + [(64, length) for length in options.lengths]
    for batch, length in dict.fromkeys(shapes):
        say(f"batch {batch}, length {length}")
        torch.compiler.reset()  # else torch.compile gives up after eight shapes
        runs = {name: way(random_ids(batch, length, config)) for name, way in ways.items()}
        for run in [*runs.values(), *runs.values()]:  # compiles
            run()
        records = {name: [] for name in ways}
        for order in orders(list(ways), options.rounds):
            for name in order:
                records[name].append(measure(runs[name]))
        results["tasks"][f"{batch} × {length}"] = {
            "title": f"Batch {batch}, length {length}: token ids to embeddings",
            "references": {name: name for name in encode},
            "tokens": batch * length * options.calls,
            "flops": report.flops_of(config.to_dict(), [length] * batch) * options.calls,
            "limits": dict.fromkeys(LIMITS, 2 * options.matmul**3 * options.calls),
            "fresh": False,
            "notes": [],
            "records": records,
        }
    report.write(results, options.output)
    print(report.as_markdown(results))
    return 0


def repeat(call: Callable, wait: Callable, calls: int) -> Callable[[], None]:
    """Return what queues `call` so many times and waits for the last result."""
    return lambda: wait([call() for _ in range(calls)][-1])


def ours(encoder: BertEncoder, pooling: str, calls: int) -> Way:
    """Return our way, compiled; weights are its arguments."""
    kinds = np.zeros(encoder.config.vocab_size, np.int32)  # all tokens are words: their kind costs nothing
    layer = BertTrend(encoder=encoder, pooling=get_pooling(pooling, kinds), dtype=encoder.dtype_policy)
    weights = [[one.value for one in part] for part in (layer.trainable_variables, layer.non_trainable_variables)]
    compiled = jax.jit(lambda weights, inputs: layer.stateless_call(*weights, inputs, training=False)[0])

    def prepare(ids: np.ndarray):
        ids = jnp.asarray(ids, jnp.int32)
        inputs = dict(zip(INPUT_NAMES, (ids, jnp.ones_like(ids), jnp.zeros_like(ids)), strict=True))
        return repeat(lambda: compiled(weights, inputs), jax.block_until_ready, calls)

    return prepare


def mean_of(encode: Callable, calls: int) -> Way:
    """Return a peer's way: the last state, and its mean over the tokens, which are all real."""

    def prepare(ids: np.ndarray):
        ids = torch.from_numpy(ids).to(DEVICE)
        return repeat(torch.inference_mode()(lambda: encode(ids).mean(dim=1)), wait, calls)

    return prepare


def products(size: int, dtype: torch.dtype, calls: int) -> tuple[Way, Way]:
    """Return the plain matrix products of JAX and PyTorch."""
    kind = jnp.float32 if dtype == torch.float32 else jnp.bfloat16
    a, b = (jax.random.normal(jax.random.key(i), (size, size), kind) for i in (0, 1))
    c, d = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    product = jax.jit(jnp.matmul)
    runs = repeat(lambda: product(a, b), jax.block_until_ready, calls), repeat(lambda: c @ d, wait, calls)
    return tuple(lambda ids, run=run: run for run in runs)


def wait(result: torch.Tensor) -> torch.Tensor:
    """Wait until everything queued on PyTorch's device is done."""
    if result.is_cuda:
        torch.cuda.synchronize()
    return result


def peers(config: BertConfig, weights: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, Callable]:
    """Return name → token ids `(B, T)` to the last state `(B, T, H)` in PyTorch, with these weights."""
    # PyTorch's kernels are (out, in).
    tensors = {name: torch.tensor(array.T if name.endswith("kernel") else array) for name, array in weights.items()}
    tensors = {name: tensor.to(DEVICE, dtype) for name, tensor in tensors.items()}
    encode = {"PyTorch": plain_bert(config, tensors)}
    if importlib.util.find_spec("transformers"):
        import transformers

        sizes = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size}
        sizes |= {"num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads}
        sizes |= {"intermediate_size": config.intermediate_size, "attn_implementation": "sdpa"}
        model = transformers.BertModel(transformers.BertConfig(**sizes)).to(DEVICE, dtype).eval()
        names = {name: name.replace("layer_", "layer.").replace("/", ".") for name in tensors}
        for ours, theirs in (("_embeddings$", "_embeddings.weight"), ("(kernel|gamma)$", "weight"), ("beta$", "bias")):
            names = {key: re.sub(ours, theirs, name) for key, name in names.items()}
        model.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
        encode["transformers"] = lambda ids: model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return encode


def plain_bert(config: BertConfig, weights: dict[str, torch.Tensor]) -> Callable:
    """Return BERT in as few operations as PyTorch offers."""

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
        x = norm(words[ids] + positions[: ids.shape[1]] + types[0], "embeddings/LayerNorm")  # (B, T, H)
        for i in range(config.num_layers):
            block = f"encoder/layer_{i}"
            parts = [dense(x, f"{block}/attention/self/{role}") for role in ("query", "key", "value")]
            parts = [part.unflatten(-1, (config.num_heads, -1)).transpose(1, 2) for part in parts]  # (B, N, T, H/N)
            context = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)  # (B, T, H)
            x = norm(x + dense(context, f"{block}/attention/output/dense"), f"{block}/attention/output/LayerNorm")
            inner = F.gelu(dense(x, f"{block}/intermediate/dense"))
            x = norm(x + dense(inner, f"{block}/output/dense"), f"{block}/output/LayerNorm")
        return x

    return encode


def check(config: BertConfig, weights: dict[str, np.ndarray]) -> dict[str, float]:
    """Return how far each peer is from ours in float32.

    Raises:
        RuntimeError: They do not compute the same.
    """
    ids = random_ids(4, 24, config)
    encoder = BertEncoder(config, dtype="float32", trainable=False)
    encoder.set_named_weights(weights)
    with jax.default_matmul_precision("highest"):
        vectors = np.asarray(ours(encoder, "mean", 1)(ids)())
    results = {name: mean_of(one, 1)(ids)() for name, one in peers(config, weights, torch.float32).items()}
    differences = {name: float(np.abs(vectors - result.cpu().numpy()).max()) for name, result in results.items()}
    if not all(difference <= CLOSE for difference in differences.values()):
        raise RuntimeError(f"PyTorch differs from ours by {differences}; {CLOSE:.0e} is allowed.")
    return differences


def random_ids(batch: int, length: int, config: BertConfig) -> np.ndarray:
    """Return random token ids `(B, T)`, int64."""
    return np.random.default_rng(0).integers(1, config.vocab_size, (batch, length))
