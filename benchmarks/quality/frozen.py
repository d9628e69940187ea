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
        others = features.read(data.read("sms"), encoder, options.work)["levels"]
        for name in options.sets:
            one = data.read(name)
            arrays = features.read(one, encoder, options.work)
            one = one.sample(options.examples)
            stored = results.get("frozen", encoder, name) or {"scores": {}, "widths": {}, "examples": len(one.rows)}
            done = len(next(iter(stored["scores"].values()), []))
            folds = list(enumerate(probe.splits(one, options.repeats)))[done:]
            if not folds:
                continue
            say(f"{encoder}: {len(folds)} folds of {name}")
            found = Parallel(options.jobs)(delayed(_fold)(one, arrays, others, *fold) for fold in folds)
            for label, (width, _) in features.contenders(name, arrays, others).items():
                stored["scores"].setdefault(label, []).extend(scores[label] for scores in found)
                stored["widths"][label] = width
            results.store(stored, "frozen", encoder, name)


def _fold(one: data.DataSet, arrays, others, seed: int, rows: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Return every embedding's score on one test part."""
    train, test = rows
    texts = np.setdiff1d(one.rows[train], one.rows[test])  # what is tested is not adapted to
    texts = np.random.default_rng(seed).permutation(texts)
    with threadpool_limits(1):
        contenders = features.contenders(one.name, arrays, others)
        return {name: probe.score(one, make(texts), train, test) for name, (_, make) in contenders.items()}
