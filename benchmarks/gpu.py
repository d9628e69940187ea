"""Encoder and pooling under JAX beside BERT in PyTorch with its fused attention (SDPA), on a GPU or other accelerator.

    python benchmarks/gpu.py                      # BERT-base, bfloat16; --help has the sizes
    python benchmarks/gpu.py --tiny               # a toy of it, to see on a CPU that all is there

Token ids to sentence embeddings, random weights, the same in both: they are compared, in float32, before anything is
timed. Needs JAX and PyTorch, not TensorFlow; transformers' BertModel is the peer where transformers is installed, else
the plain BERT below. The share is that of the fastest plain matrix product that either library reached here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
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
from peers.common import ROOT, markdown_table, ratio_of_rounds, write_file, write_json
from peers.report import flops_per_token, machine

sys.path.insert(0, str(ROOT))

from keras_bert_trend import POOLING_NAMES, BertConfig, BertEncoder, BertTrend, __version__
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling

MODELS = {
    "base": {"vocab_size": 30522},
    "minilm": {"vocab_size": 30522, "hidden_size": 384, "num_layers": 6, "intermediate_size": 1536},
    "tiny": {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64},
}
PEER = "PyTorch, mean"
CLOSE = 1e-3  # in float32; states are of the order of 1


def main() -> None:
    """Check, measure, print and write."""
    arguments = parse_arguments()
    config = BertConfig(hidden_act="gelu", hidden_dropout=0.0, attention_dropout=0.0, **MODELS[arguments.model])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = BertEncoder(config, dtype=keras.DTypePolicy(arguments.dtype), trainable=False, name="encoder")
    peer, peer_name = make_peer(config, encoder.named_weights(), device, arguments.plain)
    difference = check(config, encoder.named_weights(), peer, device)
    peer = peer.to(torch.float32 if arguments.dtype == "float32" else torch.bfloat16)
    peak = {name: matmul(arguments.matmul, arguments, device) for name, matmul in MATMULS.items()}
    print(f"matrix products: { {name: f'{value / 1e12:.1f} TFLOP/s' for name, value in peak.items()} }", flush=True)

    ways = {f"ours, {name}": our_way(encoder, name, config) for name in arguments.poolings}
    ways[PEER] = peer_way(peer, device)
    if arguments.compile:
        ways["PyTorch, mean, torch.compile"] = peer_way(torch.compile(peer, dynamic=False), device)
    shapes = [(batch, arguments.length) for batch in arguments.batches]
    shapes += [(arguments.batch, length) for length in arguments.lengths]
    records = [
        {"batch": batch, "length": length, "seconds": measure(ways, batch, length, config, arguments)}
        for batch, length in dict.fromkeys(shapes)
    ]
    results = {
        "machine": {**machine(), "device": device_name(), "jax_backend": jax.default_backend()},
        "versions": {"keras_bert_trend": __version__, **versions()},
        "peer": peer_name,
        "model": arguments.model,
        "config": config.to_dict(),
        "dtype": arguments.dtype,
        "largest_difference_float32": difference,
        "matmul": {"size": arguments.matmul, "flops_per_second": peak},
        "records": records,
    }
    report = as_markdown(results)
    print(report)
    write_json(arguments.output / f"{arguments.name}.json", results)
    write_file(arguments.output / f"{arguments.name}.md", report)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy: two layers, few shapes")
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--dtype", choices=("mixed_bfloat16", "bfloat16", "float32"), default="mixed_bfloat16")
    parser.add_argument("--poolings", nargs="+", choices=POOLING_NAMES, default=["mean", "trend", "last_four_sum"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8, 32, 128, 512], help="at --length")
    parser.add_argument("--lengths", nargs="*", type=int, default=[16, 32, 64, 128, 256, 512], help="at --batch")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10, help="calls that one measured repetition queues")
    parser.add_argument("--matmul", type=int, default=8192, help="size of the plain matrix product")
    parser.add_argument("--compile", action="store_true", help="PyTorch also through torch.compile")
    parser.add_argument("--plain", action="store_true", help="the plain BERT as the peer, even beside transformers")
    parser.add_argument("--name", default="gpu", help="of the results' files")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if arguments.tiny:
        tiny = {"model": "tiny", "batches": [2], "lengths": [8], "length": 8, "batch": 4, "rounds": 2, "calls": 2}
        vars(arguments).update(tiny, matmul=256)
    return arguments


# Ours


def our_way(encoder: BertEncoder, pooling: str, config: BertConfig) -> Callable:
    """Return ids → a function that starts one call and returns the embedding, compiled; weights are arguments."""
    kinds = np.zeros(config.vocab_size, np.int32)  # words all: what a token is costs nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = BertTrend(encoder=encoder, pooling=get_pooling(pooling, kinds), dtype=encoder.dtype_policy)
    weights = [variable.value for variable in layer.trainable_variables]
    frozen = [variable.value for variable in layer.non_trainable_variables]
    compiled = jax.jit(lambda weights, frozen, inputs: layer.stateless_call(weights, frozen, inputs, training=False)[0])

    def prepare(ids: np.ndarray):
        ids = jnp.asarray(ids, jnp.int32)
        inputs = dict(zip(INPUT_NAMES, (ids, jnp.ones_like(ids), jnp.zeros_like(ids)), strict=True))
        return lambda: compiled(weights, frozen, inputs)

    prepare.wait = jax.block_until_ready
    return prepare


def jax_matmul(size: int, arguments: argparse.Namespace, device: str) -> float:
    """Return the floating point operations a second of a plain matrix product by JAX."""
    dtype = jnp.float32 if arguments.dtype == "float32" else jnp.bfloat16
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in (0, 1))
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / best_seconds(lambda: product(a, b), jax.block_until_ready, arguments)


# The peer


def make_peer(config: BertConfig, weights: dict[str, np.ndarray], device: str, plain: bool):
    """Return BERT in PyTorch with these weights, and what it is."""
    torch.manual_seed(0)
    if importlib.util.find_spec("transformers") and not plain:
        from transformers import BertConfig as HuggingFaceConfig
        from transformers import BertModel

        hugging_face = HuggingFaceConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
        )
        hugging_face._attn_implementation = "sdpa"
        model, name = BertModel(hugging_face), f"transformers {metadata.version('transformers')} BertModel, SDPA"
    else:
        model, name = PlainBert(config), "the plain BERT with SDPA in benchmarks/gpu.py"
    state = {
        _hugging_face_name(role): torch.tensor(array.T if role.endswith("kernel") else array)
        for role, array in weights.items()
    }
    missing, unknown = model.load_state_dict(state, strict=False)
    lacking = [one for one in missing if "position_ids" not in one and "token_type_ids" not in one]
    if lacking or unknown:
        raise RuntimeError(f"The weights do not fit {name}: missing {lacking[:4]}, unknown {unknown[:4]}.")
    return model.to(device).eval(), name


def _hugging_face_name(role: str) -> str:
    name = role.replace("layer_", "layer.").replace("/", ".")
    for ours, theirs in (
        ("kernel", "weight"),
        ("gamma", "weight"),
        ("beta", "bias"),
        ("_embeddings", "_embeddings.weight"),
    ):
        if name.endswith(ours):
            name = name.removesuffix(ours) + theirs
    return name


class PlainBert(torch.nn.Module):
    """BERT as in `transformers`, same weights' names, no more than the last state is computed."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size

        def module(**children):
            return torch.nn.ModuleDict(children)

        def norm():
            return torch.nn.LayerNorm(width, config.layer_norm_epsilon)

        def linear(inputs=width, outputs=width):
            return torch.nn.Linear(inputs, outputs)

        self.heads = config.num_heads
        self.embeddings = module(
            word_embeddings=torch.nn.Embedding(config.vocab_size, width),
            position_embeddings=torch.nn.Embedding(config.max_position_embeddings, width),
            token_type_embeddings=torch.nn.Embedding(config.type_vocab_size, width),
            LayerNorm=norm(),
        )
        layers = [
            module(
                attention=torch.nn.ModuleDict(
                    {
                        "self": module(query=linear(), key=linear(), value=linear()),
                        "output": module(dense=linear(), LayerNorm=norm()),
                    }
                ),
                intermediate=module(dense=linear(width, inner)),
                output=module(dense=linear(inner, width), LayerNorm=norm()),
            )
            for _ in range(config.num_layers)
        ]
        self.encoder = module(layer=torch.nn.ModuleList(layers))
        self.pooler = module(dense=linear())

    def forward(self, input_ids, attention_mask):
        """Return the last state `(batch, length, hidden)`."""
        tables = self.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = tables["word_embeddings"](input_ids) + tables["position_embeddings"](positions)
        x = tables["LayerNorm"](x + tables["token_type_embeddings"].weight[0])
        mask = attention_mask[:, None, None, :].bool()
        for layer in self.encoder["layer"]:
            attention = layer["attention"]
            parts = [attention["self"][role](x) for role in ("query", "key", "value")]
            parts = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]
            context = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
            context = context.transpose(1, 2).flatten(2)
            x = attention["output"]["LayerNorm"](x + attention["output"]["dense"](context))
            inner = torch.nn.functional.gelu(layer["intermediate"]["dense"](x))
            x = layer["output"]["LayerNorm"](x + layer["output"]["dense"](inner))
        return x


def peer_way(model: torch.nn.Module, device: str) -> Callable:
    """Return ids → a function that starts one call and returns the mean over the tokens."""

    def prepare(ids: np.ndarray):
        ids = torch.from_numpy(ids.astype(np.int64)).to(device)
        mask = torch.ones_like(ids)

        @torch.inference_mode()
        def call():
            states = model(ids, attention_mask=mask)
            states = states if isinstance(states, torch.Tensor) else states.last_hidden_state
            weights = mask[:, :, None].to(states.dtype)
            return (states * weights).sum(dim=1) / weights.sum(dim=1)

        return call

    prepare.wait = torch_wait
    return prepare


def torch_wait(result) -> None:
    """Wait until everything queued on the device is done."""
    if result.is_cuda:
        torch.cuda.synchronize()


def torch_matmul(size: int, arguments: argparse.Namespace, device: str) -> float:
    """Return the floating point operations a second of a plain matrix product by PyTorch."""
    dtype = torch.float32 if arguments.dtype == "float32" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: a @ b, torch_wait, arguments)


MATMULS = {"JAX": jax_matmul, "PyTorch": torch_matmul}


# Both


def check(config: BertConfig, weights: dict[str, np.ndarray], peer: torch.nn.Module, device: str) -> float:
    """Return how far ours is from the peer in float32.

    Raises:
        RuntimeError: they do not compute the same.
    """
    ids = made_up(4, min(24, config.max_position_embeddings), config)
    encoder = BertEncoder(config, dtype="float32", trainable=False)
    encoder.set_named_weights(weights)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(our_way(encoder, "mean", config)(ids)())
    difference = float(np.abs(ours - peer_way(peer, device)(ids)().float().cpu().numpy()).max())
    if not difference <= CLOSE:
        raise RuntimeError(f"Ours and PyTorch differ by {difference:.1e}; {CLOSE:.0e} is allowed.")
    return difference


def made_up(batch: int, length: int, config: BertConfig) -> np.ndarray:
    """Return random token ids `(batch, length)`."""
    return np.random.default_rng(0).integers(1, config.vocab_size, (batch, length))


def measure(ways: dict[str, Callable], batch: int, length: int, config, arguments) -> dict[str, list[float]]:
    """Return way → seconds of one call, round by round, the ways in turn."""
    ids = made_up(batch, length, config)
    calls = {name: way(ids) for name, way in ways.items()}
    for name, call in calls.items():
        for _ in range(2):  # compiles
            ways[name].wait(call())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        names = list(calls)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            for _ in range(arguments.calls):
                result = calls[name]()
            ways[name].wait(result)
            seconds[name].append((time.perf_counter() - start) / arguments.calls)
    print(f"batch {batch}, length {length} done", flush=True)
    return seconds


def best_seconds(call: Callable, wait: Callable, arguments) -> float:
    """Return the least time of one call."""
    wait(call())
    times = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(arguments.calls):
            result = call()
        wait(result)
        times.append((time.perf_counter() - start) / arguments.calls)
    return min(times)


def device_name() -> str:
    """Return the accelerator's name, or that there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    names = ("keras", "jax", "jaxlib", "torch", "transformers", "numpy")
    return {name: metadata.version(name) for name in names if importlib.util.find_spec(name)}


def as_markdown(results: dict) -> str:
    """Return the report."""
    peak = max(results["matmul"]["flops_per_second"].values())
    products = ", ".join(f"{name} {value / 1e12:.2f}" for name, value in results["matmul"]["flops_per_second"].items())
    lines = [
        "# Token ids to embeddings, JAX beside PyTorch",
        "",
        f"{results['machine']['device']}, JAX on {results['machine']['jax_backend']}; "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
        f"Model {results['model']} with random weights, {results['dtype']}; the peer is {results['peer']}, in "
        f"{'float32' if results['dtype'] == 'float32' else 'bfloat16'}. Largest difference in float32: "
        f"{results['largest_difference_float32']:.1e}. Plain product of matrices of {results['matmul']['size']}: "
        f"{products} TFLOP/s. Medians over rounds in turn; the last column is the peer's time as a multiple of ours.",
        "",
    ]  # fmt: skip
    rows = []
    for record in results["records"]:
        tokens = record["batch"] * record["length"]
        flops = tokens * flops_per_token(results["config"], record["length"])
        for name, times in record["seconds"].items():
            median = statistics.median(times)
            ratio = "" if name == PEER else ratio_of_rounds(record["seconds"][PEER], times)
            row = [name, record["batch"], record["length"], f"{median * 1e3:.3f}", f"{tokens / median:,.0f}"]
            rows.append([*row, f"{flops / median / peak:.3f}", ratio])
    header = ["way", "batch", "length", "ms", "tokens/s", "share of the product's speed", f"times as fast as {PEER}"]
    return "\n".join(lines) + "\n" + markdown_table(header, rows) + "\n"


if __name__ == "__main__":
    main()
