"""Judge models of our own making: are they read, and as what TensorFlow computes of the same files?

    python -m tests.fuzz.judge    # reads paths, one a line; answers each with a line of JSON

It runs in a process of its own: `tf.saved_model.load` executes what stands in a file, and a file may take the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_bert_trend import BertEncoder
from keras_bert_trend.sources import Source, load_source
from keras_bert_trend.sources.download import resolve_handle
from tests.fuzz.families import batches, louder

NAMES = ("input_word_ids", "input_mask", "input_type_ids")
QUIET, LOUD = 3e-5, 5e-3  # relative; unchanged models are off by 2e-6, and with louder weights by 1e-3
SECONDS = 60  # of processor time, for reading one
MEMORY = 2**30  # bytes, beside twice the file's size
UNIT = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes


def outputs_of(model, inputs) -> dict[str, dict]:
    """Return what `__call__` and `serving_default` give, by the names that TF Hub has for it."""
    try:
        called = model(inputs, training=False)
    except (TypeError, ValueError):
        called = model([inputs[name] for name in NAMES], training=False)
    served = model.signatures["serving_default"](**inputs)
    served = [served[name] for name in sorted(served)]
    if isinstance(called, dict):
        layers, scores = called.pop("encoder_outputs"), called.pop("attention_scores", None)
        # MobileBERT gives its attention scores, too, and its `encoder_outputs` begins with the embedding output.
        layers = layers if scores is None else layers[-len(scores) :]
        called |= dict(enumerate(layers))
        served = [value for value in served if value.shape.rank < 4]
        before = ["embedding_output"] * (len(served) - 3 - len(layers))
        names = ["default", *before, *range(len(layers)), "pooled_output", "sequence_output"]
    else:
        names = ["pooled_output", "sequence_output"]
        called = dict(zip(names, called, strict=False))
    return {"call": called, "serving": dict(zip(names, served, strict=False))}


def difference(theirs: dict[str, dict], ours: dict) -> tuple[float, str]:
    """Return the largest relative difference, and the output that has it."""
    known = ours | dict(enumerate(ours["encoder_outputs"]))
    worst = (0.0, "")
    for door, outputs in theirs.items():
        for key, value in outputs.items():
            if key not in known:
                continue
            one, other = np.asarray(value, np.float64), np.asarray(known[key], np.float64)
            if one.shape != other.shape:
                return float("inf"), f"{door}:{key} has the shape {one.shape}, not {other.shape}"
            off = float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))
            worst = max(worst, (off if off == off else float("inf"), f"{door}:{key}"))
    return worst


def read(path: str) -> tuple[Source | None, dict[str, str]]:
    """Return what is read, or why nothing is."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # the process ends with it
    try:
        return load_source(path), {}
    except ValueError as error:
        return None, {"verdict": "refused", "why": str(error)}
    except Exception as error:
        return None, {"verdict": "broken", "why": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def judge(path: str) -> dict[str, str]:
    """Return the verdict on a model, and why."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source, answer = read(path)
    taken = UNIT * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if taken > MEMORY + 2 * sum(file.stat().st_size for file in [Path(path), *Path(path).rglob("*")]):
        return {"verdict": "stuck", "why": f"it takes {taken:,} bytes"}
    if source is None:
        return answer
    try:
        model = tf.saved_model.load(resolve_handle(path))
        encoder = BertEncoder.from_source(source)
        made = batches(source.config)
        for inputs in made:
            off, where = difference(outputs_of(model, inputs), encoder(inputs))
            if off > QUIET:
                return {"verdict": "wrong", "why": f"{where} is off by {off:.2g}"}
        for variable in model.variables:
            variable.assign(louder(variable.numpy()))
        encoder.set_named_weights({name: louder(array) for name, array in encoder.named_weights().items()})
        off, where = difference(outputs_of(model, made[0]), encoder(made[0]))
        if off > LOUD:
            return {"verdict": "wrong", "why": f"with louder weights, {where} is off by {off:.2g}"}
    except Exception as error:  # the edit made no model that TensorFlow takes
        return {"verdict": "invalid", "why": f"{type(error).__name__}: {error}"}
    return {"verdict": "equal", "why": ""}


def main() -> None:
    """Answer one path after the other."""
    for line in sys.stdin:
        answer = judge(line.strip())
        print(json.dumps({**answer, "why": answer["why"][-400:]}), flush=True)


if __name__ == "__main__":
    main()
