"""What is compared: for every task its contenders, what their results must equal, and what the ratios are of.

A task is a function of the command line's options and of the `facts` that `ours.export` writes: the number of `tokens`
of every text, the encoder's `config`, and which `encoder` and `preprocessing` SavedModels `hub.load` reads.
"""

from __future__ import annotations

from functools import partial

from benchmarks.harness import ROOT, Contender, Task
from benchmarks.report import flops_of
from keras_bert_trend import POOLING_NAMES

MATMUL = 2048  # size of the plain matrix products, which show what the machine gives at this moment
PRODUCTS = [
    Contender("matrix product, TensorFlow", "ours", "matmul", {"size": MATMUL}),
    Contender("matrix product, PyTorch", "pytorch", "matmul", {"size": MATMUL}),
]
TRAIN_LENGTH, TRAIN_STEPS = 48, 8
SMALL = ROOT.parent / "shared" / "fixtures" / "preprocess_v3" / "saved_model"  # recorded from Google's


def work(facts, lengths=None, training=False) -> dict:
    """Return what one repetition works through: texts of these lengths, by default all."""
    lengths = lengths or facts["tokens"]
    flops = flops_of(facts["config"], lengths, training)
    return {"tokens": sum(lengths), "flops": flops, "limits": {one.label: 2 * MATMUL**3 for one in PRODUCTS}}


def columns(*labels: str) -> dict[str, str]:
    """Return a ratio column for each of these labels."""
    return {label: label for label in labels}


def ours(pooling: str, way: str = "embed", label: str = "") -> Contender:
    """Return one of our ways from strings to embeddings; see `peers.ours.Adapter.embed`."""
    options = {"pooling": pooling, "way": way}
    return Contender(label or f"ours, {way}, {pooling}", "ours", "embed", options, pooling)


def sentence_peers(facts) -> list[Contender]:
    """Return the peers that turn strings into mean embeddings, TF Hub's tutorial first."""
    models = {"encoder": facts["encoder"], "preprocessing": facts["preprocessing"]}
    return [
        Contender("hub.load, padded to 128 (tutorial)", "tf_hub", "embed", {"padded": True, **models}, "mean"),
        Contender("hub.load, batch's length", "tf_hub", "embed", {"padded": False, **models}, "mean"),
        Contender("KerasHub", "keras_hub", "embed", {}, "mean"),
        Contender("transformers, SDPA", "pytorch", "embed", {}, "mean"),
        Contender("transformers, eager", "pytorch", "embed", {"attention": "eager"}, "mean"),
        Contender("sentence-transformers", "sentence_transformers", "embed", {}, "normalized"),
        Contender("ONNX Runtime, fused", "onnx_runtime", "embed", {"graph": "bert_fused.onnx"}, "mean"),
        Contender("ONNX Runtime, as exported", "onnx_runtime", "embed", {"graph": "bert.onnx"}, "mean"),
    ]


def embed(options, facts) -> Task:
    """Strings to embeddings."""
    poolings = list(dict.fromkeys(["mean", *(options.poolings or ("trend", "last_four_sum"))]))
    note = """Tokenisation is included, with each library's fastest tokenizer. Ours, embed: `embed()` of the list of
texts; ours, layer: the layer as one traced function over batches sorted by characters. KerasHub computes the exact gelu
here, as MiniLM needs; as shipped it approximates. sentence-transformers normalises its vectors."""
    contenders = [
        *(ours(one, way) for way in ("embed", "layer") for one in poolings),
        *sentence_peers(facts),
        *PRODUCTS,
    ]
    references = columns(*(f"ours, embed, {pooling}" for pooling in poolings[:3]))
    return Task("Strings to embeddings", contenders, references, **work(facts), notes=[note])


def batching(options, facts) -> Task:
    """Compare `embed` with batches in the texts' own order."""
    contenders = [
        ours("mean", "embed", "embed"),
        ours("mean", "in order", "layer, in order, padded to the batch's longest"),
        ours("mean", "padded", "layer, in order, padded to 128"),
    ]
    return Task("What `embed` saves", contenders, columns("embed"), **work(facts))


def states(options, facts) -> Task:
    """Token ids to all hidden states and attention scores."""
    contenders = [
        Contender("ours, all states and scores", "ours", "states", {}, "states"),
        Contender("transformers, eager, all states and scores", "pytorch", "states", {}, "states"),
        Contender(
            "transformers, SDPA, last state only", "pytorch", "states", {"attention": "sdpa", "everything": False}
        ),
    ]
    title = "Token ids to all hidden states and attention scores"
    return Task(title, [*contenders, *PRODUCTS], columns(contenders[0].label), **work(facts))


def tokenize(options, facts) -> Task:
    """Strings to token ids, and the whole way to embeddings for its share."""
    contenders = []
    for size, words in ((len(facts["tokens"]), "all texts at once"), (32, "batches of 32")):
        folder = {"batch_size": size, "folder": facts["preprocessing"]}
        contenders += [
            Contender(f"ours, {words}", "ours", "tokenize", {"batch_size": size}, words),
            Contender(f"preprocessing SavedModel, {words}", "tf_hub", "tokenize", folder, words),
            Contender(f"Hugging Face tokenizers, {words}", "pytorch", "tokenize", {"batch_size": size}, words),
        ]
    contenders.append(ours("mean", label="ours, embed, mean (the whole)"))
    if SMALL.is_dir():
        folder = {"batch_size": 32, "folder": str(SMALL)}
        contenders += [
            Contender("ours, small vocabulary", "ours", "tokenize", {**folder, "length": 32}, "small"),
            Contender("Google's preprocessing SavedModel, small vocabulary", "tf_hub", "tokenize", folder, "small"),
        ]
    references = columns(*(one.label for one in contenders if one.method == "tokenize" and one.peer == "ours"))
    note = "All pad to 128 tokens (32 with the small vocabulary, as Google's recorded SavedModel does)."
    return Task("Tokenisation", contenders, references, **work(facts), notes=[note])


def train(options, facts) -> Task:
    """Fine-tune on token ids: forward, backward and AdamW over all weights."""
    texts = options.batch_size * TRAIN_STEPS
    contenders = [
        Contender("ours, fit, mean, FusedAdamW", "ours", "train", {"pooling": "mean"}, "train"),
        Contender("ours, fit, smooth_trend, FusedAdamW", "ours", "train", {"pooling": "smooth_trend"}, "train"),
        Contender("ours, fit, mean, FusedAdamW, jit_compile=False", "ours", "train",
                  {"pooling": "mean", "jit_compile": False}, "train"),
        Contender("ours, fit, mean, Keras's AdamW", "ours", "train", {"pooling": "mean", "fused": False}, "train"),
        Contender("KerasHub, fit", "keras_hub", "train", {}, "train"),
        Contender("KerasHub, fit, jit_compile=False", "keras_hub", "train", {"jit_compile": False}, "train"),
        Contender("PyTorch, loop, AdamW(fused=True)", "pytorch", "train", {}, "train"),
        Contender("PyTorch, loop, AdamW()", "pytorch", "train", {"fused": False}, "train"),
    ]  # fmt: skip
    return Task(
        f"Fine-tuning step ({options.batch_size} × {TRAIN_LENGTH} tokens)",
        [*contenders, *PRODUCTS],
        columns(contenders[0].label, contenders[1].label),
        **work(facts, [TRAIN_LENGTH] * texts, training=True),
        notes=[f"One repetition is `fit` over {TRAIN_STEPS} batches; dropout is on everywhere."],
    )


def train_messages(options, facts) -> Task:
    """Fine-tune on messages as they are: strings of different lengths, in the file's order."""
    count = options.batch_size * TRAIN_STEPS
    lengths = [min(facts["tokens"][i % len(facts["tokens"])], TRAIN_LENGTH) for i in range(count)]
    length = {"length": TRAIN_LENGTH}
    contenders = [
        Contender("ours, fit, mean", "ours", "train", {**length, "pooling": "mean"}, "train"),
        Contender("ours, fit, smooth_trend", "ours", "train", {**length, "pooling": "smooth_trend"}, "train"),
        Contender("KerasHub, fit", "keras_hub", "train", length, "train"),
        Contender("PyTorch, loop, padded to the longest", "pytorch", "train", length, "train"),
    ]
    note = f"""One repetition is `fit` over {TRAIN_STEPS} batches of messages, {sum(lengths) / count:.1f} tokens on
average, tokenisation included. KerasHub's preprocessing layer pads all to {TRAIN_LENGTH}, in the data set;
PyTorch's batches are padded to their longest; ours computes no padding."""
    return Task(
        f"Fine-tuning step on messages ({options.batch_size} of up to {TRAIN_LENGTH} tokens)",
        [*contenders, *PRODUCTS],
        columns(contenders[0].label, contenders[1].label),
        **work(facts, lengths, training=True),
        notes=[note],
    )


def serve(options, facts) -> Task:
    """Call exported SavedModels with strings."""
    contenders = [sentence_peers(facts)[0]]
    for pooling in ("mean", "trend"):
        export = Contender(f"our export, {pooling}", "ours", "serve", {"pooling": pooling}, pooling)
        contenders += [ours(pooling, "layer"), export]
    references = columns("our export, mean", "our export, trend")
    return Task("Serving: a SavedModel called with batches of strings", contenders, references, **work(facts))


def import_(options, facts, folder: str | None = None) -> Task:
    """Read a SavedModel: MiniLM's, the one of `--saved-model`, or `folder`."""
    folder = str(folder or options.saved_model or facts["encoder"])
    contenders = [
        Contender("ours, from_handle", "ours", "load", {"folder": folder}),
        Contender("hub.load", "tf_hub", "load", {"folder": folder}),
    ]
    notes = [f"The SavedModel {folder}. Time begins after Python's imports."]
    title = "Import of a SavedModel, each in a fresh process"
    return Task(title, contenders, columns("hub.load"), fresh=True, notes=notes)


def memory(options, facts) -> Task:
    """Compare the peaks of resident memory of `embed`'s contenders."""
    contenders = [*map(ours, ("mean", "trend", "last_four_sum")), *sentence_peers(facts)]
    title = "Peak of memory, strings to embeddings, each in a fresh process"
    note = "Times include the first call's tracing: do not compare them."
    return Task(title, contenders, columns("ours, embed, mean"), **work(facts), fresh=True, notes=[note])


def pooling(options, facts) -> Task:
    """Compare what each pooling costs, from strings and from token ids."""
    shape = {"batch": 32, "length": 32, "layers": 6}
    contenders = [Contender("ids: transformers, SDPA, mean", "pytorch", "encode", shape, "ids: mean")]
    for one in options.poolings or POOLING_NAMES:
        contenders += [
            ours(one, "layer", f"strings: ours, layer, {one}"),
            Contender(f"ids: ours, {one}", "ours", "encode", {**shape, "pooling": one}, f"ids: {one}"),
        ]
    ids = {one.label: one.method == "encode" for one in contenders}
    references = {label: "ids: ours, mean" if ids[label] else "strings: ours, layer, mean" for label in ids}
    tokens = {label: 32 * 32 if ids[label] else sum(facts["tokens"]) for label in ids}
    return Task("What each pooling costs", contenders, {"ours, mean": references}, tokens)


def sweep(axis: str, options, facts) -> Task:
    """Compare how the cost of token ids to embeddings grows with the batch, the length or the layers."""
    base = {"batch": 8 if axis == "length" else 32, "length": 32, "layers": 6}
    contenders, references, tokens = [], {}, {}
    for size in {"batch": options.batches, "length": options.lengths, "layers": options.layers}[axis]:
        shape = {**base, axis: size}
        for name, peer, details, check in (
            ("ours, mean", "ours", {"pooling": "mean"}, str(size)),
            ("ours, trend", "ours", {"pooling": "trend"}, None),
            ("transformers, SDPA", "pytorch", {}, str(size)),
        ):
            label = f"{axis} {size}: {name}"
            contenders.append(Contender(label, peer, "encode", {**shape, **details}, check))
            references[label] = f"{axis} {size}: ours, mean"
            tokens[label] = shape["batch"] * shape["length"]
    fixed = ", ".join(f"{name} {value}" for name, value in base.items() if name != axis)
    title = f"Cost as {axis} grows ({fixed}; token ids to embeddings)"
    return Task(title, contenders, {"ours, mean, of the same shape": references}, tokens)


def engines(options, facts) -> Task:
    """Compare our ONNX file with transformers' own export, both in ONNX Runtime: token ids to mean embeddings."""
    contenders, references, tokens = [], {}, {}
    for batch in (1, 8, 32):
        for name, graph in (
            ("ours", "ours_mean.onnx"),
            ("transformers, as exported", "bert.onnx"),
            ("transformers, fused", "bert_fused.onnx"),
        ):
            label = f"batch {batch}: {name}"
            details = {"graph": graph, "batch": batch, "length": 24, "times": 64 // batch}
            contenders.append(Contender(label, "onnx_runtime", "encode", details, str(batch)))
            references[label], tokens[label] = f"batch {batch}: ours", 64 * 24
    title = "ONNX files in ONNX Runtime (64 texts of 24 tokens; token ids to mean embeddings)"
    return Task(title, contenders, {"ours, of the same batch": references}, tokens)


#: name → a function of options and facts that returns the `Task`.
TASKS = {
    **{
        one.__name__: one
        for one in (embed, batching, states, tokenize, train, train_messages, serve, memory, pooling, engines)
    },
    "import": import_,
    "import_base": partial(import_, folder="bert_base_with_random_weights"),
    **{axis: partial(sweep, axis) for axis in ("batch", "length", "layers")},
}
