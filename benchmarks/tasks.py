"""What is compared: for every task its contenders, what their results must equal, and what the ratios are of.

A task is a function of the command line's options and of the `facts` that `ours.export` writes: the number of `tokens`
of every text, the encoder's `config`, and which `encoder` and `preprocessing` SavedModels `hub.load` reads.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.harness import ROOT, Contender, Task
from benchmarks.report import flops_of

POOLINGS = (
    "trend", "smooth_trend", "last_four_sum", "last_four_concat", "cls", "pooler", "mean", "max", "first_last_mean",
    "mean_std", "second_to_last",
)  # fmt: skip
MATMUL = 2048  # size of the plain matrix products
LIMITS = dict.fromkeys(("matrix product, TensorFlow", "matrix product, PyTorch"), 2 * MATMUL**3)
TRAIN_LENGTH, TRAIN_STEPS = 48, 8
SMALL_VOCABULARY = ROOT.parent / "shared" / "fixtures" / "preprocess_v3" / "saved_model"  # recorded from Google's


def limits() -> list[Contender]:
    """Return the plain matrix products, which show what the machine gives at this moment."""
    return [
        Contender(label, peer, "matmul", {"size": MATMUL})
        for label, peer in zip(LIMITS, ("ours", "pytorch"), strict=True)
    ]


def references(*labels: str) -> dict[str, str]:
    """Return a ratio column for each of these labels."""
    return {label: label for label in labels}


def tutorial(facts: dict, padded: bool = True) -> Contender:
    """Return `hub.load` of two SavedModels: padded to 128 as in TF Hub's tutorial, or to the batch's longest."""
    label = f"hub.load, {'padded to 128 (tutorial)' if padded else 'batch’s length'}"
    options = {"padded": padded, "encoder": facts["encoder"], "preprocessing": facts["preprocessing"]}
    return Contender(label, "tf_hub", "embed", options, "mean")


def sentence_peers(facts: dict) -> list[Contender]:
    """Return the peers that turn strings into mean embeddings."""
    return [
        tutorial(facts),
        tutorial(facts, padded=False),
        Contender("KerasHub", "keras_hub", "embed", {}, "mean"),
        Contender("transformers, SDPA", "pytorch", "embed", {}, "mean"),
        Contender("transformers, eager", "pytorch", "embed", {"attention": "eager"}, "mean"),
        Contender("sentence-transformers", "sentence_transformers", "embed", {}, "normalized"),
        Contender("ONNX Runtime, fused", "onnx_runtime", "embed", {"graph": "bert_fused.onnx"}, "mean"),
        Contender("ONNX Runtime, as exported", "onnx_runtime", "embed", {"graph": "bert.onnx"}, "mean"),
    ]


def ours(pooling: str, way: str = "embed", title: str = "") -> Contender:
    """Return one of our ways from strings to embeddings; see `peers.ours.Adapter.embed`."""
    options = {"pooling": pooling, "way": way}
    return Contender(title or f"ours, {way}, {pooling}", "ours", "embed", options, pooling)


def embed(options: Namespace, facts: dict) -> Task:
    """Strings to embeddings."""
    poolings = list(dict.fromkeys(["mean", *(options.poolings or ("trend", "last_four_sum"))]))
    return Task(
        "Strings to embeddings",
        [*(ours(one, way) for way in ("embed", "layer") for one in poolings), *sentence_peers(facts), *limits()],
        references(*(f"ours, embed, {pooling}" for pooling in poolings[:3])),
        sum(facts["tokens"]),
        flops_of(facts["config"], facts["tokens"]),
        LIMITS,
        notes=[
            "Tokenisation is included, with each library's fastest tokenizer. Ours, embed: `embed()` of the list of "
            "texts; ours, layer: the layer as one traced function over batches sorted by characters. KerasHub computes "
            "the exact gelu here, as MiniLM needs; as shipped it approximates. sentence-transformers normalises."
        ],
    )


def batching(options: Namespace, facts: dict) -> Task:
    """Compare `embed` with batches in the texts' own order."""
    ways = {
        "embed": "embed",
        "in order": "layer, in order, padded to the batch's longest",
        "padded": "layer, in order, padded to 128",
    }
    contenders = [ours("mean", way, title) for way, title in ways.items()]
    return Task("What `embed` saves", contenders, references("embed"), sum(facts["tokens"]))


def states(options: Namespace, facts: dict) -> Task:
    """Token ids to all hidden states and attention scores."""
    everything = "ours, all states and scores"
    last = {"attention": "sdpa", "everything": False}
    return Task(
        "Token ids to all hidden states and attention scores",
        [
            Contender(everything, "ours", "states", {}, "states"),
            Contender("transformers, eager, all states and scores", "pytorch", "states", {}, "states"),
            Contender("transformers, SDPA, last state only", "pytorch", "states", last),
            *limits(),
        ],
        references(everything),
        sum(facts["tokens"]),
        flops_of(facts["config"], facts["tokens"]),
        LIMITS,
    )


def tokenize(options: Namespace, facts: dict) -> Task:
    """Strings to token ids, and the whole way to embeddings for its share."""
    contenders, columns = [], []
    for size, words in ((len(facts["tokens"]), "all texts at once"), (32, "batches of 32")):
        batch = {"batch_size": size}
        folder = {"folder": facts["preprocessing"]}
        columns.append(f"ours, {words}")
        contenders += [
            Contender(columns[-1], "ours", "tokenize", batch, words),
            Contender(f"preprocessing SavedModel, {words}", "tf_hub", "tokenize", {**batch, **folder}, words),
            Contender(f"Hugging Face tokenizers, {words}", "pytorch", "tokenize", batch, words),
        ]
    if SMALL_VOCABULARY.is_dir():
        folder = str(SMALL_VOCABULARY)
        small = {"batch_size": 32, "handle": folder, "length": 32}
        columns.append("ours, small vocabulary")
        contenders += [
            Contender(columns[-1], "ours", "tokenize", small, "small"),
            Contender("Google's preprocessing SavedModel, small vocabulary", "tf_hub", "tokenize",
                      {"batch_size": 32, "folder": folder}, "small"),
        ]  # fmt: skip
    return Task(
        "Tokenisation",
        [*contenders, ours("mean", title="ours, embed, mean (the whole)")],
        references(*columns),
        sum(facts["tokens"]),
        notes=["All pad to 128 tokens (32 with the small vocabulary, as Google's recorded SavedModel does)."],
    )


def train(options: Namespace, facts: dict) -> Task:
    """Fine-tune on token ids: forward, backward and AdamW over all weights."""
    texts = options.batch_size * TRAIN_STEPS

    def contender(label: str, peer: str, **details: Any) -> Contender:
        return Contender(label, peer, "train", details, "train")

    mean, trend = "ours, fit, mean, FusedAdamW", "ours, fit, smooth_trend, FusedAdamW"
    return Task(
        f"Fine-tuning step ({options.batch_size} × {TRAIN_LENGTH} tokens)",
        [
            contender(mean, "ours", pooling="mean"),
            contender(trend, "ours", pooling="smooth_trend"),
            contender(f"{mean}, jit_compile=False", "ours", pooling="mean", jit_compile=False),
            contender("ours, fit, mean, Keras's AdamW", "ours", pooling="mean", optimizer="AdamW"),
            contender("KerasHub, fit", "keras_hub"),
            contender("KerasHub, fit, jit_compile=False", "keras_hub", jit_compile=False),
            contender("PyTorch, loop, AdamW(fused=True)", "pytorch", fused=True),
            contender("PyTorch, loop, AdamW()", "pytorch", fused=False),
            *limits(),
        ],
        references(mean, trend),
        texts * TRAIN_LENGTH,
        flops_of(facts["config"], [TRAIN_LENGTH] * texts, training=True),
        LIMITS,
        notes=[f"One repetition is `fit` over {TRAIN_STEPS} batches; dropout is on everywhere."],
    )


def train_messages(options: Namespace, facts: dict) -> Task:
    """Fine-tune on messages as they are: strings of different lengths, in the file's order."""
    count = options.batch_size * TRAIN_STEPS
    lengths = [min(facts["tokens"][i % len(facts["tokens"])], TRAIN_LENGTH) for i in range(count)]

    def contender(label: str, peer: str, **details: Any) -> Contender:
        return Contender(label, peer, "train_messages", {"length": TRAIN_LENGTH, **details}, "train")

    return Task(
        f"Fine-tuning step on messages ({options.batch_size} of up to {TRAIN_LENGTH} tokens)",
        [
            contender("ours, fit, mean", "ours", pooling="mean"),
            contender("ours, fit, smooth_trend", "ours", pooling="smooth_trend"),
            contender("KerasHub, fit", "keras_hub"),
            contender("PyTorch, loop, padded to the longest", "pytorch"),
            *limits(),
        ],
        references("ours, fit, mean", "ours, fit, smooth_trend"),
        sum(lengths),
        flops_of(facts["config"], lengths, training=True),
        LIMITS,
        notes=[
            f"One repetition is `fit` over {TRAIN_STEPS} batches of messages, {sum(lengths) / count:.1f} tokens on "
            f"average, tokenisation included. KerasHub's preprocessing layer pads all to {TRAIN_LENGTH}, in the data "
            "set; PyTorch's batches are padded to their longest; ours computes no padding."
        ],
    )


def serve(options: Namespace, facts: dict) -> Task:
    """Call exported SavedModels with strings."""
    contenders = []
    for pooling in ("mean", "trend"):
        export = Contender(f"our export, {pooling}", "ours", "serve", {"pooling": pooling}, pooling)
        contenders += [ours(pooling, "layer"), export]
    return Task(
        "Serving: a SavedModel called with batches of strings",
        [*contenders, tutorial(facts)],
        references("our export, mean", "our export, trend"),
        sum(facts["tokens"]),
    )


def import_(options: Namespace, facts: dict, folder: str = "", title: str = "MiniLM") -> Task:
    """Read a SavedModel."""
    details = {"folder": folder or facts["encoder"]}
    return Task(
        f"Import of a SavedModel ({title}), each in a fresh process",
        [
            Contender("ours, from_handle", "ours", "load", details),
            Contender("hub.load", "tf_hub", "load", details),
        ],
        references("hub.load"),
        fresh=True,
        notes=["Time and memory begin after Python's imports."],
    )


def memory(options: Namespace, facts: dict) -> Task:
    """Compare the peaks of resident memory of `embed`'s contenders."""
    contenders = [*map(ours, ("mean", "trend", "last_four_sum")), *sentence_peers(facts)]
    return Task(
        "Peak of memory, strings to embeddings, each in a fresh process",
        contenders,
        references("ours, embed, mean"),
        sum(facts["tokens"]),
        fresh=True,
        notes=["Times include the first call's tracing: do not compare them."],
    )


def pooling(options: Namespace, facts: dict) -> Task:
    """Compare what each pooling costs, from token ids (32 × 32) and from strings."""
    shape = {"batch": 32, "length": 32, "layers": 6}
    contenders, columns, tokens = [], {}, {}
    for one in options.poolings or POOLINGS:
        encode = {**shape, "pooling": one}
        contenders += [Contender(f"ids, ours, {one}", "ours", "encode", encode, f"ids, {one}"),
                       ours(one, "layer", f"strings, ours, {one}")]  # fmt: skip
    contenders.append(Contender("ids, transformers, SDPA, mean", "pytorch", "encode", shape, "ids, mean"))
    for contender in contenders:
        kind = contender.label.partition(",")[0]
        columns[contender.label] = f"{kind}, ours, mean"
        tokens[contender.label] = 32 * 32 if kind == "ids" else sum(facts["tokens"])
    return Task("What each pooling costs", contenders, {"ours, mean": columns}, tokens)


def sweep(axis: str, options: Namespace, facts: dict) -> Task:
    """Compare how the cost of token ids to embeddings grows with the batch, the length or the layers."""
    base = {"batch": 8 if axis == "length" else 32, "length": 32, "layers": 6}
    contenders, columns, tokens = [], {}, {}
    for size in getattr(options, {"batch": "batches", "length": "lengths", "layers": "layers"}[axis]):
        shape = {**base, axis: size}
        for name, peer, details, check in (
            ("ours, mean", "ours", {"pooling": "mean"}, str(size)),
            ("ours, trend", "ours", {"pooling": "trend"}, None),
            ("transformers, SDPA", "pytorch", {}, str(size)),
        ):
            label = f"{axis} {size}: {name}"
            contenders.append(Contender(label, peer, "encode", {**shape, **details}, check))
            columns[label] = f"{axis} {size}: ours, mean"
            tokens[label] = shape["batch"] * shape["length"]
    fixed = ", ".join(f"{name} {value}" for name, value in base.items() if name != axis)
    title = f"Cost as {axis} grows ({fixed}; token ids to embeddings)"
    return Task(title, contenders, {"ours, mean, of the same shape": columns}, tokens)


TASKS: dict[str, Callable[[Namespace, dict], Task]] = {
    "embed": embed,
    "batching": batching,
    "states": states,
    "tokenize": tokenize,
    "train": train,
    "train_messages": train_messages,
    "serve": serve,
    "import": import_,
    "import_base": partial(import_, folder="base", title="BERT-base, random weights"),
    "memory": memory,
    "pooling": pooling,
    "batch": partial(sweep, "batch"),
    "length": partial(sweep, "length"),
    "layers": partial(sweep, "layers"),
}
