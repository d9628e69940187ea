"""BERT frozen: a linear probe on every embedding, over repeated folds; what is adapted is adapted inside them."""

from __future__ import annotations

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from benchmarks.harness import say
from benchmarks.quality import data, features, probe
from benchmarks.quality.report import Results


def run(options, results: Results) -> None:
    """Score all embeddings of all encoders on all data sets; a data set's scores are stored at once."""
    for encoder in options.encoders:
        sets = {name: data.read(name) for name in data.NAMES}
        arrays = {name: features.read(one, encoder, options.work) for name, one in sets.items()}
        for name, one in sets.items():
            if results.has("frozen", encoder, name):
                continue
            others = arrays["trec" if name == "sms" else "sms"]["levels"]
            folds = list(probe.splits(one, options.repeats))
            say(f"{encoder}: {len(folds)} folds of {name}")
            found = Parallel(options.jobs)(
                delayed(_fold)(one, arrays[name], others, train, test, seed) for seed, (train, test) in enumerate(folds)
            )
            widths = {label: width for label, (width, _) in features.contenders(arrays[name], others).items()}
            scores = {label: [scores[label] for scores in found] for label in widths}
            results.store({"scores": scores, "widths": widths, "examples": len(one.rows)}, "frozen", encoder, name)


def _fold(one: data.DataSet, arrays, others, train, test, seed: int) -> dict[str, float]:
    """Return every embedding's score on one test part."""
    texts = np.setdiff1d(one.rows[train], one.rows[test])  # what is tested is not adapted to
    texts = np.random.default_rng(seed).permutation(texts)
    with threadpool_limits(1):
        contenders = features.contenders(arrays, others)
        return {name: probe.score(one, make(texts), train, test) for name, (_, make) in contenders.items()}
