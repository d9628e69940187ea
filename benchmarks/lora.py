"""Fine-tune on spam in full and with LoRA, epoch by epoch in turns: F1, time per step, trainable parameters, memory."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import keras
import numpy as np

from benchmarks.harness import ROOT

sys.path.insert(0, str(ROOT / "examples"))

import spam_classifier
import training

RATES = {"full": 1e-4, "LoRA": 1e-3}  # peak learning rates


def build(kind: str, rank: int, epochs: int, examples: int) -> keras.Model:
    """Return the example's model; with LoRA nothing else of BERT trains."""
    keras.utils.set_random_seed(0)
    arguments = argparse.Namespace(
        handle="minilm",
        pooling="smooth_trend",
        max_length=128,
        freeze_embeddings=True,
        lora_rank=rank if kind == "LoRA" else None,
        epochs=epochs,
        batch_size=16,
        learning_rate=RATES[kind],
    )
    return spam_classifier.build_model(arguments, examples)


def main(argv: list[str]) -> int:
    """Train both, print the table; `--memory KIND` prints one kind's peak memory instead."""
    parser = argparse.ArgumentParser(prog="run.py lora", description=__doc__)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--memory", choices=RATES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    train, _, test = spam_classifier.split(*spam_classifier.read_messages(spam_classifier.find_data()))
    if options.memory:
        model = build(options.memory, options.rank, 1, len(train[0]))
        model.fit(training.batches(*(part[:640] for part in train), 16), verbose=0)
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        return 0

    models = {kind: build(kind, options.rank, options.epochs, len(train[0])) for kind in RATES}
    data = {kind: training.batches(*train, 16, shuffle=True) for kind in models}
    for model in models.values():  # traced before the clock runs; nothing is learnt
        model.evaluate(training.batches(*(part[:16] for part in train), 16), verbose=0)
        model.make_train_function()
    seconds = {kind: [] for kind in models}
    for _ in range(options.epochs):
        for kind, model in models.items():
            start = time.perf_counter()
            model.fit(data[kind], shuffle=False, verbose=0)
            seconds[kind].append(time.perf_counter() - start)
    print(f"\nrank {options.rank}, {options.epochs} epochs, {len(train[0])} messages, in turns")
    print("        trainable parameters       spam F1  seconds per epoch (each)          peak memory")
    for kind, model in models.items():
        trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        total = model.count_params()
        f1 = spam_classifier.spam_scores(test[1], training.predict(model, test[0])[:, 0] >= 0.5)[2]
        run = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "lora"]
        command = [*run, "--memory", kind, "--rank", str(options.rank)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        memory = int(printed.split()[-1]) / 2**20
        times = ", ".join(f"{value:.0f}" for value in seconds[kind])
        print(f"{kind:<6}  {trained:>10,} ({trained / total:6.2%})    {f1:.3f}    {times:<30}  {memory:.2f} GiB")
    return 0
