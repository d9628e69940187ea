"""The five data sets of `../shared/data`, and where their rows stand among the different texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT

FOLDER = ROOT.parent / "shared" / "data"
NAMES = {"trec": "TREC questions", "sms": "SMS spam", "sst2": "SST-2", "stsb": "STS-B", "qa": "TREC QA"}


@dataclass(frozen=True)
class DataSet:
    """One problem.

    Attributes:
        name: str. A key of `NAMES`.
        texts: list of str. The different texts.
        rows: int array `(n, 1)`, or `(n, 2)` for pairs. Each example's texts, as indices into `texts`.
        labels: int array `(n,)`, or float for STS-B.
        groups: int array `(n,)`. What must not be split between training and test: the text, or the question.
    """

    name: str
    texts: list[str]
    rows: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def sample(self, count: int | None) -> DataSet:
        """Return `count` examples drawn at random, of the same texts; pairs are drawn by whole groups."""
        if count is None or count >= len(self.rows):
            return self
        order = np.random.default_rng(0).permutation(np.unique(self.groups))
        sizes = np.cumsum([np.sum(self.groups == group) for group in order])
        kept = np.isin(self.groups, order[: int(np.searchsorted(sizes, count)) + 1])
        return replace(self, rows=self.rows[kept], labels=self.labels[kept], groups=self.groups[kept])


def read(name: str) -> DataSet:
    """Read one data set; of the pairs of TREC QA the questions with answers of both kinds."""
    files = {
        "sms": ["sms_spam.tsv"],
        "trec": ["trec_questions.tsv"],
        "sst2": ["sst2_train_sample.tsv"],
        "qa": ["trec_qa_train.tsv", "trec_qa_dev.tsv"],
        "stsb": ["stsb_dev.tsv"],
    }[name]
    lines = [line.split("\t") for file in files for line in _lines(FOLDER / file)]
    values, parts = [line[0] for line in lines], [line[1:] for line in lines]
    if name == "qa":
        kinds = {}
        for value, (question, _) in zip(values, parts, strict=True):
            kinds.setdefault(question, set()).add(value)
        kept = [number for number, (question, _) in enumerate(parts) if len(kinds[question]) == 2]
        values, parts = [values[number] for number in kept], [parts[number] for number in kept]
    number_of = {text: number for number, text in enumerate(sorted({text for part in parts for text in part}))}
    rows = np.array([[number_of[text] for text in part] for part in parts])
    if name == "stsb":
        # Sentences come back in other pairs: what hangs together stays together.
        return DataSet(name, list(number_of), rows, np.array(values, float), _connected(rows, len(number_of)))
    classes = {value: number for number, value in enumerate(sorted(set(values)))}
    if name == "sms":
        folded = [" ".join(part[0].casefold().split()) for part in parts]
        groups = np.unique(folded, return_inverse=True)[1]
    else:
        groups = rows[:, 0]
    return DataSet(name, list(number_of), rows, np.array([classes[value] for value in values]), groups)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]


def _connected(rows: np.ndarray, count: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(rows)), rows.T), shape=(count, count))
    return connected_components(graph, directed=False)[1][rows[:, 0]]
