"""The quality benchmark's own sums: the probe is a logistic regression, folds split no group, arcs are as parsed."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality import probe, report, syntax
from benchmarks.quality.data import DataSet

CONLLU = """\
# text = I don't run.
1\tI\ti\tPRON\t_\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\trun\trun\tVERB\t_\t_\t0\troot\t_\t_
5\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_
"""
RELATIONS = ["nsubj", "aux", "advmod", "root", "punct"]


def data_set(count=300, classes=3) -> DataSet:
    labels = np.arange(count) % classes
    return DataSet("trec", [str(i) for i in range(count)], np.arange(count)[:, None], labels, np.arange(count) // 3)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns_logistic_regression(classes):
    one = data_set(classes=classes)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 6)) @ generator.normal(size=(6, 6)) + one.labels[:, None]
    train, test = np.arange(200), np.arange(200, 300)
    for inverse, logits in zip(
        (0.01, 1.0), probe.logistic(features, one.labels, train, test, (0.01, 1.0)), strict=True
    ):
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        # Two classes have two vectors here, and one there: the penalty is half.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse * (2 if classes == 2 else 1)))
        expected = model.fit(features[train], one.labels[train]).predict_proba(features[test])
        np.testing.assert_allclose(chances, expected, atol=0.01)


def test_folds_split_no_group_and_test_every_example_once_a_cut():
    one = data_set()
    for cut in range(2):
        tests = [test for _, test in list(probe.splits(one, 2))[5 * cut : 5 * cut + 5]]
        assert sorted(np.concatenate(tests)) == list(range(300))
    for train, test in probe.splits(one, 1):
        assert not set(one.groups[train]) & set(one.groups[test])
    half = one.sample(150)
    assert 150 <= len(half.rows) <= 153
    assert all(np.sum(half.groups == group) == 3 for group in half.groups)


def test_holm_against_its_definition():
    assert probe.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert probe.holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_treebank_is_read_and_its_arcs_join(tmp_path):
    (tmp_path / "x.conllu").write_text(CONLLU)
    (sentence,) = syntax.read(tmp_path / "x.conllu")
    assert sentence == ("I do n't run .", [0, 2, 5, 9, 13], [3, 3, 3, -1, 3], RELATIONS)
    arcs = syntax._arcs(sentence, [0, 1, 2, 2, 3])  # "n't" in two pieces
    assert arcs.astype(int).tolist() == [[0, 0, 0, 0, 1]] * 4 + [[1, 1, 1, 1, 0]]


def test_the_tables_have_every_row_and_the_interval(tmp_path):
    results = report.Results(tmp_path, "run.py quality --work DIR --repeats 1")
    scores = {"last_four_sum": [0.5, 0.6, 0.7], "trajectory": [0.6, 0.72, 0.8]}
    results.store({"scores": scores, "widths": dict.fromkeys(scores, 4), "examples": 9}, "frozen", "minilm", "trec")
    results.store({"mean": [0.5, 0.7]}, "fine_tuning", "minilm", "trec")
    again = report.Results(tmp_path, "another")
    assert again.get("frozen", "minilm", "trec")["scores"] == scores
    text = again.markdown()
    assert "| trajectory | 4 | 0.707 (+0.107" in text
    assert "`run.py quality --repeats 1`" in text
    assert "| mean | 0.600 (0.500 … 0.700) |" in text
