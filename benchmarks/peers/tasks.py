"""What is compared: for every task its contenders, what their results must equal, and what the ratios are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .harness import Contender

POOLINGS = (
    "trend", "smooth_trend", "last_four_sum", "last_four_concat", "cls", "pooler", "mean", "max", "first_last_mean",
    "mean_std", "second_to_last",
)  # fmt: skip
MATMUL = 2048
#: How far a result may be from the first of its group.
TOLERANCE = 1e-4
LIMITS = ("matrix product, TensorFlow", "matrix product, PyTorch")


@dataclass
class Task:
    """One comparison."""

    title: str
    contenders: list[Contender]
    #: Labels of ours: each gives a column, the row's time as a multiple of it.
    references: list[str]
    #: What one repetition works through; tokens by label where it differs.
    work: dict[str, Any] = field(default_factory=dict)
    #: Promised ratios: (ours, peer, least multiple of our time that the peer takes).
    promises: list[tuple[str, str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def limits() -> list[Contender]:
    """Return the plain matrix products, which show what the machine gives at this moment."""
    return [
        Contender(LIMITS[0], "ours", "matmul", {"size": MATMUL}),
        Contender(LIMITS[1], "pytorch", "matmul", {"size": MATMUL}),
    ]


def embed_peers(method: str = "embed", fresh: bool = False, official: bool = False) -> list[Contender]:
    """Return the peers that make mean embeddings of strings."""
    written = _written(official)

    def contender(label, adapter, **options):
        return Contender(label, adapter, method, options, "normalized" if "sentence" in label else "mean", fresh)

    return [
        contender("hub.load, padded to 128 (tutorial)", "tf_hub", pooling="mean", padded=True, **written),
        contender("hub.load, batch's length", "tf_hub", pooling="mean", padded=False, **written),
        contender("KerasHub", "keras_hub", pooling="mean"),
        contender("transformers, SDPA", "pytorch", pooling="mean"),
        contender("transformers, eager", "pytorch", pooling="mean", attention="eager"),
        contender("sentence-transformers", "sentence_transformers"),
        contender("ONNX Runtime, fused", "onnx_runtime", pooling="mean", graph="bert_fused.onnx"),
        contender("ONNX Runtime, as exported", "onnx_runtime", pooling="mean", graph="bert.onnx"),
    ]


def _written(official: bool) -> dict[str, str]:
    """Return which SavedModels `hub.load` takes: those of Google's exporter, or those that this package wrote."""
    return {"encoder": "encoder_official", "preprocessing": "preprocessing_official"} if official else {}


def embed(poolings: list[str], official: bool) -> Task:
    """Strings → embeddings."""
    ours = [
        Contender(f"ours, embed, {pooling}", "ours", "embed", {"pooling": pooling, "way": "embed"}, pooling)
        for pooling in dict.fromkeys(["mean", *poolings])
    ]
    ours += [
        Contender(f"ours, layer, {pooling}", "ours", "embed", {"pooling": pooling, "way": "layer"}, pooling)
        for pooling in dict.fromkeys(["mean", *[one for one in ("trend", "last_four_sum") if one in poolings]])
    ]
    peers = embed_peers(official=official)
    if "cls" in poolings:
        peers.append(Contender("transformers, SDPA, [CLS]", "pytorch", "embed", {"pooling": "cls"}, "cls"))
    references = [f"ours, embed, {name}" for name in ("trend", "mean", "last_four_sum") if name in ("mean", *poolings)]
    plain = ("transformers, SDPA", "ONNX Runtime, fused", "ONNX Runtime, as exported")
    promises = []
    for pooling, least in (("trend", 1.25), ("mean", 1.0), ("last_four_sum", 1.0)):
        own = f"ours, embed, {pooling}"
        if own in references:
            promises += [(own, peer, least) for peer in plain]
            promises += [(own, "hub.load, padded to 128 (tutorial)", 7.0), (own, "KerasHub", 1.4)]
    return Task(
        "Strings to embeddings",
        [*ours, *peers, *limits()],
        references,
        {"tokens": "texts"},
        [promise for promise in promises if promise[2] < 7 or "trend" in promise[0]],
        [
            "Tokenisation is included everywhere, with each library's fastest tokenizer. ours, embed: `embed()` of the "
            "list of texts; ours, layer: the layer as one traced function over batches sorted by characters.",
            "KerasHub computes with the exact gelu here, as MiniLM does; as shipped it takes the approximation. "
            "sentence-transformers' vectors are normalized.",
        ],
    )


def states(official: bool) -> Task:
    """Token ids → all hidden states and attention scores."""
    ours, eager = "ours, all states and scores", "transformers, eager, all states and scores"
    return Task(
        "Token ids to all hidden states and attention scores",
        [
            Contender(ours, "ours", "states", {}, "states"),
            Contender(eager, "pytorch", "states", {"attention": "eager"}, "states"),
            Contender(
                "transformers, SDPA, last state only", "pytorch", "states", {"attention": "sdpa", "everything": False}
            ),
            *limits(),
        ],
        [ours],
        {"tokens": "texts"},
        [(ours, eager, 1.1)],
    )


def tokenize(preprocessing: str, fixture: str | None, texts: int) -> Task:
    """Strings → token ids."""
    ours = "ours, all texts at once"
    contenders = [
        Contender(ours, "ours", "tokenize", {"batch_size": texts}, "all"),
        Contender("ours, batches of 32", "ours", "tokenize", {"batch_size": 32}, "batches"),
        Contender("preprocessing SavedModel, all at once", "tf_hub", "tokenize",
                  {"batch_size": texts, "folder": preprocessing}, "all"),
        Contender("preprocessing SavedModel, batches of 32", "tf_hub", "tokenize",
                  {"batch_size": 32, "folder": preprocessing}, "batches"),
        Contender("Hugging Face tokenizers, all at once", "pytorch", "tokenize", {"batch_size": texts}, "all"),
        Contender("Hugging Face tokenizers, batches of 32", "pytorch", "tokenize", {"batch_size": 32}, "batches"),
        Contender("ours, embed, mean (the whole)", "ours", "embed", {"pooling": "mean"}),
    ]  # fmt: skip
    references = [ours, "ours, batches of 32"]
    promises = [
        (ours, "preprocessing SavedModel, all at once", 1.0),
        ("ours, batches of 32", "preprocessing SavedModel, batches of 32", 1.0),
    ]
    if fixture:
        small = "ours, the small vocabulary"
        recorded = "Google's preprocessing SavedModel, small vocabulary"
        contenders += [
            Contender(small, "ours", "tokenize", {"batch_size": 32, "handle": fixture, "length": 32}, "small"),
            Contender(recorded, "tf_hub", "tokenize", {"batch_size": 32, "folder": fixture}, "small"),
        ]
        references.append(small)
        promises.append((small, recorded, 1.0))
    notes = ["All pad to 128 tokens (32 with the small vocabulary, as Google's recorded SavedModel does)."]
    return Task("Tokenisation", contenders, references, {"tokens": "texts"}, promises, notes)


def train(batch: int, length: int, steps: int) -> Task:
    """One step of fine-tuning: forward, backward and AdamW over all weights."""

    def ours(label, pooling, **options):
        return Contender(label, "ours", "train", {"pooling": pooling, **options}, "train")

    mean, trend = "ours, fit, mean, FusedAdamW", "ours, fit, smooth_trend, FusedAdamW"
    peers = [
        Contender("KerasHub, fit", "keras_hub", "train", {}, "train"),
        Contender("KerasHub, fit, jit_compile=False", "keras_hub", "train", {"jit_compile": False}, "train"),
        Contender("PyTorch, loop, AdamW(fused=True)", "pytorch", "train", {"fused": True}, "train"),
        Contender("PyTorch, loop, AdamW()", "pytorch", "train", {"fused": False}, "train"),
    ]
    wanted = {"keras_hub": 1.6, "pytorch": 1.0}
    return Task(
        f"Fine-tuning step ({batch} × {length} tokens)",
        [
            ours(mean, "mean"),
            ours(trend, "smooth_trend"),
            ours("ours, fit, mean, FusedAdamW, jit_compile=False", "mean", jit_compile=False),
            ours("ours, fit, mean, Keras's AdamW", "mean", optimizer="AdamW"),
            *peers,
            *limits(),
        ],
        [mean, trend],
        {"tokens": batch * length * steps, "length": length, "training": True},
        [(one, peer.label, wanted[peer.adapter]) for one in (mean, trend) for peer in peers],
        [f"One repetition is `fit` over {steps} batches; dropout acts everywhere."],
    )


def train_messages(batch: int, length: int, lengths: list[int]) -> Task:
    """One step of fine-tuning on messages as they are: strings in, of different lengths, in the order of the file."""
    options = {"length": length}
    mean, trend = (
        Contender(f"ours, fit, {pooling}", "ours", "train_messages", {**options, "pooling": pooling}, "train")
        for pooling in ("mean", "smooth_trend")
    )
    peers = [
        Contender("KerasHub, fit", "keras_hub", "train_messages", options, "train"),
        Contender("PyTorch, loop, padded to the longest", "pytorch", "train_messages", options, "train"),
    ]
    tokens = [min(one, length) for one in lengths]
    wanted = {"keras_hub": 1.6, "pytorch": 1.0}
    return Task(
        f"Fine-tuning step on messages ({batch} of up to {length} tokens)",
        [mean, trend, *peers, *limits()],
        [mean.label, trend.label],
        {"tokens": sum(tokens), "length": sum(one**2 for one in tokens) / sum(tokens), "training": True},
        [(one.label, peer.label, wanted[peer.adapter]) for one in (mean, trend) for peer in peers],
        [
            f"One repetition is `fit` over {len(tokens) // batch} batches of messages, {sum(tokens) / len(tokens):.1f} "
            "tokens on average, tokenisation included. KerasHub's preprocessing layer pads all to "
            f"{length}, in the data set; PyTorch's batches are padded to their longest; ours computes no padding."
        ],
    )


def serve(official: bool) -> Task:
    """Compare exported SavedModels, called with strings."""
    mean, trend = "our export, mean", "our export, trend"

    def ours(label, pooling):
        return Contender(label, "ours", "serve", {"pooling": pooling}, pooling)

    written = _written(official)
    reference = Contender("ours, layer, mean", "ours", "embed", {"pooling": "mean", "way": "layer"}, "mean")
    return Task(
        "Serving: a SavedModel called with batches of strings",
        [
            reference,
            ours(mean, "mean"),
            Contender("ours, layer, trend", "ours", "embed", {"pooling": "trend", "way": "layer"}, "trend"),
            ours(trend, "trend"),
            Contender(
                "hub.load, padded to 128 (tutorial)",
                "tf_hub",
                "embed",
                {"pooling": "mean", "padded": True, **written},
                "mean",
            ),
        ],
        [mean, trend],
        {"tokens": "texts"},
        [(trend, "hub.load, padded to 128 (tutorial)", 7.0)],
    )


def memory(official: bool) -> Task:
    """Compare peaks of resident memory, each in a process of its own."""
    ours = [
        Contender(f"ours, embed, {pooling}", "ours", "embed", {"pooling": pooling}, None, True)
        for pooling in ("mean", "trend", "last_four_sum")
    ]
    peers = [contender._replace(check=None) for contender in embed_peers(fresh=True, official=official)]
    return Task(
        "Peak of memory, strings to embeddings, each in a fresh process",
        [*ours, *peers],
        ["ours, embed, mean"],
        {"tokens": "texts", "memory": True},
        [],
        ["Times here include the first call's tracing, and are not for comparing."],
    )


def grow(axis: str, sizes: list[int], poolings: list[str]) -> Task:
    """How the cost grows along one axis: batch, length, layers or pooling."""
    base = {"batch": 8 if axis == "length" else 32, "length": 32, "layers": 6}
    contenders, tokens, references, pairs = [], {}, [], {}

    def add(label, adapter, shape, **options):
        contenders.append(
            Contender(label, adapter, "encode", {**shape, **options}, f"{shape}" if ok(options) else None)
        )
        tokens[label] = shape["batch"] * shape["length"]

    def ok(options):
        return options.get("pooling", "mean") == "mean"

    if axis == "pooling":
        for pooling in poolings:
            add(f"ours, {pooling}", "ours", base, pooling=pooling)
        add("transformers, SDPA, mean", "pytorch", base)
        references = ["ours, mean"]
    else:
        for size in sizes:
            shape = {**base, axis: size}
            add(f"{axis} {size}: ours, mean", "ours", shape, pooling="mean")
            add(f"{axis} {size}: ours, trend", "ours", shape, pooling="trend")
            add(f"{axis} {size}: transformers, SDPA", "pytorch", shape)
            pairs |= {label: f"{axis} {size}: ours, mean" for label in tokens if label not in pairs}
    fixed = ", ".join(f"{name} {value}" for name, value in base.items() if name != axis)
    return Task(f"Cost as {axis} grows ({fixed}; token ids to embeddings)", contenders, references,
                {"tokens": tokens, "pairs": pairs})  # fmt: skip
