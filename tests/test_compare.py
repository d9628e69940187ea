"""`compare_poolings`: scikit-learn's own scores, on folds that are fair, shown in every form; and what it refuses."""

import html
import json
import pathlib
import sys
import warnings

import joblib
import numpy as np
import pytest

from keras_bert_trend import (
    POOLING_NAMES,
    BertTrend,
    ConcatPooling,
    LayerPooling,
    MeanPooling,
    PoolingComparison,
    TrajectoryPooling,
    compare_poolings,
    embed,
)
from keras_bert_trend.evaluation.comparison import BASELINE
from tests.common import V4
from tests.test_explain import draw, visible_text

pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_bert_trend.evaluation import cross_validation
from keras_bert_trend.evaluation.cross_validation import corrected_resampled_t_test, make_splits

SUBJECTS = ["bank", "river", "model", "token"]
RIVER = [f"the {a} of the {b} {n}" for n, a in enumerate(SUBJECTS) for b in SUBJECTS]  # 16
HELLO = [f"hello ! is {a} good or great {b} {n} ?" for n, a in enumerate(SUBJECTS) for b in SUBJECTS[1:]]  # 12
TEXTS, LABELS = [*RIVER, *HELLO], ["water"] * len(RIVER) + ["greeting"] * len(HELLO)


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, truncate=True, trainable=False)


@pytest.fixture(scope="module")
def result(layer) -> PoolingComparison:
    return compare_poolings(TEXTS, LABELS, layer, folds=4)


def quick(layer, **arguments) -> PoolingComparison:
    return compare_poolings(
        **{"texts": TEXTS, "labels": LABELS, "model": layer, "poolings": ["mean"], "folds": 2, **arguments}
    )


class TestScores:
    def test_every_pooling_and_the_baseline_best_first(self, result):
        assert set(result.scores) == {*POOLING_NAMES, BASELINE}
        for per_name in (result.accuracies, result.p_values, result.widths, result.means, result.spreads):
            assert list(per_name) == list(result.scores)
        means = list(result.means.values())
        assert means == sorted(means, reverse=True)
        assert result.best == next(iter(result.scores))
        assert [name for name, p in result.p_values.items() if p is None] == [result.best]
        assert (result.widths["mean"], result.widths["mean_std"], result.widths[BASELINE]) == (32, 64, None)

    def test_what_is_easy_is_learned(self, result):
        assert (result.metric, result.positive) == ("F1", "greeting")
        assert result.class_counts == {"greeting": 12, "water": 16}
        assert result.means["mean"] > 0.9
        assert np.all(result.scores[BASELINE] == 0)
        assert result.differences[BASELINE][2] < -0.5

    def test_random_labels_give_no_winner(self, layer):
        labels = np.random.default_rng(0).permutation(LABELS)
        result = compare_poolings(TEXTS, labels, layer, poolings=["mean", "cls", "max"])
        assert all(p is None or p > 0.05 for name, p in result.p_values.items() if name != BASELINE)
        assert all(0.2 < np.mean(values) < 0.8 for values in result.accuracies.values())

    @pytest.mark.parametrize("classes", [2, 3])
    def test_they_are_scikit_learns(self, layer, classes):
        from sklearn.metrics import f1_score, make_scorer
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
        from threadpoolctl import threadpool_limits

        y = np.array([(i + i // 5) % classes for i in range(len(TEXTS))])  # hard: scores other than 1
        groups = np.arange(len(TEXTS)) // 2
        result = quick(layer, labels=y, poolings=["trend"], groups=groups, folds=3, repeats=2, C=0.3, seed=5)
        average = {"average": "macro"} if classes == 3 else {"pos_label": 1}
        features = embed(TEXTS, layer, pooling="trend")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
        folds = [StratifiedGroupKFold(3, shuffle=True, random_state=seed) for seed in (5, 6)]
        for scores, scoring in ((result.scores, make_scorer(f1_score, **average)), (result.accuracies, "accuracy")):
            with threadpool_limits(1):  # as there: threads would wait for each other
                expected = [
                    cross_val_score(model, features, y, groups=groups, scoring=scoring, cv=cut) for cut in folds
                ]
            np.testing.assert_allclose(scores["trend"], np.concatenate(expected))
        assert 0 < result.means["trend"] < 1
        assert result.metric == ("macro-F1" if classes == 3 else "F1")

    def test_combinations_layers_and_the_same_folds_for_all(self, layer):
        labels = np.random.default_rng(2).permutation(LABELS)
        own = LayerPooling([-1], name="own")  # the mean, under another name
        result = quick(layer, labels=labels, poolings=["mean", ["mean", "smooth_trend"], own], folds=4)
        assert set(result.scores) == {"mean", "mean + smooth_trend", "own", BASELINE}
        assert result.widths["mean + smooth_trend"] == 64
        np.testing.assert_array_equal(result.scores["own"], result.scores["mean"])
        if result.best != "mean + smooth_trend":
            assert {result.p_values["own"], result.p_values["mean"]} == {None, 1.0}

    def test_the_order_of_the_texts_changes_nothing(self, layer):
        order = np.random.default_rng(1).permutation(len(TEXTS))
        labels = np.array([i % 3 for i in range(len(TEXTS))])
        plain = quick(layer, labels=labels)
        other = quick(layer, texts=np.array(TEXTS)[order], labels=labels[order])
        np.testing.assert_allclose(other.scores["mean"], plain.scores["mean"])

    def test_processes_change_nothing(self, layer):
        with joblib.parallel_config(backend="threading"):
            np.testing.assert_array_equal(quick(layer, n_jobs=2).scores["mean"], quick(layer).scores["mean"])


class TestTrajectory:
    def test_every_fold_adapts_to_its_own_training_part(self, layer):
        """By hand: adapt to the training part, standardise, regress; beside another pooling, and for the control."""
        labels = np.array([i % 3 for i in range(len(TEXTS))])
        poolings = {
            "path": TrajectoryPooling(4, seed=3),
            "both": ["mean", TrajectoryPooling(4, seed=3, name="of both")],
        }
        result = quick(layer, labels=labels, poolings=poolings, folds=3, controls=True, metric="accuracy")
        assert result.widths == {"path": 4, "path (control)": 4, "both": 36, "both (control)": 36, BASELINE: None}
        levels = embed(TEXTS, layer, pooling=LayerPooling(range(4), combine="concat")).reshape(len(TEXTS), 4, -1)
        mean = embed(TEXTS, layer, pooling="mean")
        numbers = {text: number for number, text in enumerate(sorted(TEXTS))}
        groups = np.array([numbers[text] for text in TEXTS])
        splits = make_splits([0, 1, 2], labels, groups, folds=3, repeats=1, seed=0)
        expected = {"path": [], "both": []}
        for train, test in splits:
            pooling = TrajectoryPooling(4, seed=3)
            pooling.adapt([levels[train]])
            path = np.array(pooling.project(levels))
            for name, features in (("path", path), ("both", np.hstack([path, mean]))):
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
                expected[name].append(model.fit(features[train], labels[train]).score(features[test], labels[test]))
        for name, scores in expected.items():
            np.testing.assert_allclose(result.scores[name], scores, atol=1e-6)

    def test_an_adapted_layer_is_not_changed(self, layer):
        pooling = TrajectoryPooling(4)
        other = BertTrend(encoder=layer.encoder, preprocessor=layer.preprocessor, pooling=pooling)
        other.adapt(TEXTS)
        before = pooling.get_weights()
        quick(other, poolings=[pooling])
        for one, same in zip(pooling.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, same)


class TestMetrics:
    def test_auc_and_map_are_scikit_learns(self, layer):
        from sklearn.metrics import average_precision_score, roc_auc_score

        labels = np.random.default_rng(3).permutation(LABELS)
        for metric in ("AUC", "MAP", "accuracy", "macro-F1"):
            result = quick(layer, labels=labels, metric=metric, groups=np.arange(len(TEXTS)) // 4)
            assert result.metric == metric
            assert 0 < result.means["mean"] < 1
        relevant, scores = np.array([1, 0, 0, 1, 0, 1, 1]) == 1, np.array([0.3, 0.9, 0.1, 0.2, 0.5, 0.6, 0.4])
        groups = np.array([0, 0, 0, 1, 1, 2, 2])  # the last has nothing to be told apart from
        expected = [average_precision_score(relevant[own], scores[own]) for own in ([0, 1, 2], [3, 4])]
        assert cross_validation.mean_average_precision(relevant, scores, groups) == pytest.approx(np.mean(expected))
        y, splits = np.arange(len(TEXTS)) % 2, [(np.arange(0, 20), np.arange(20, len(TEXTS)))]
        rows = np.random.default_rng(0).normal(size=(len(TEXTS), 3))
        found = cross_validation.score_all({"x": (None, rows)}, BASELINE, y, y, splits, "AUC", 1, 1.0)
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:20], y[:20])
        assert found["x"].scores == pytest.approx([roc_auc_score(y[20:], model.decision_function(rows[20:]))])

    def test_what_does_not_fit(self, layer):
        for arguments, message in (
            ({"metric": "F2"}, "`metric` must be one of"),
            ({"metric": "MAP"}, "give `groups`"),
            ({"metric": "F1", "labels": [i % 3 for i in range(len(TEXTS))]}, "needs two classes"),
        ):
            with pytest.raises(ValueError, match=message):
                quick(layer, **arguments)


def test_recommendation_says_how_sure_it_is(result, layer):
    advice = result.recommend()
    names = [name for name in result.scores if name != BASELINE]
    assert (advice.pooling, advice.second) == (result.best, names[1])
    assert all(result.differences[name][2] >= 0 for name in advice.rivals)
    assert advice.pooling in str(advice)
    assert str(advice) in str(result)
    assert "Take 200 or more" in str(result)
    assert quick(layer).recommend().second is None


def test_of_equals_the_narrowest_is_recommended_and_said_to_be_equal(layer):
    twice = ConcatPooling([MeanPooling(), MeanPooling()], name="twice")
    result = quick(layer, poolings=[twice, "mean"])
    np.testing.assert_array_equal(result.scores["mean"], result.scores["twice"])  # the classes are far apart
    assert result.recommend().pooling == "mean"
    assert str(result.recommend()).startswith("mean: as good as twice, and no wider.")


class TestFolds:
    def test_groups_stay_together_and_classes_in_proportion(self):
        y, groups = np.repeat([0, 1], [40, 20]), np.arange(60) // 2
        splits = make_splits(["a", "b"], y, groups, folds=5, repeats=2, seed=0)
        assert len(splits) == 10
        for train, test in splits:
            assert sorted([*train, *test]) == list(range(60))
            assert not set(groups[train]) & set(groups[test])
            assert np.bincount(y[test]).tolist() == [8, 4]
        for cut in (splits[:5], splits[5:]):
            assert sorted(np.concatenate([test for _, test in cut])) == list(range(60))
        assert any(set(splits[0][1]) != set(test) for _, test in splits[5:])

    def test_the_same_text_is_never_in_both_parts(self, layer, monkeypatch):
        seen = {}

        def spy(features, baseline, y, groups, splits, *arguments):
            seen["splits"] = splits
            return original(features, baseline, y, groups, splits, *arguments)

        original = cross_validation.score_all
        monkeypatch.setattr(cross_validation, "score_all", spy)
        texts = [*TEXTS, *(f" {text.upper().replace(' ', '  ')}" for text in TEXTS)]
        result = quick(layer, texts=texts, labels=LABELS * 2, folds=4)
        assert (result.texts, result.groups) == (2 * len(TEXTS), len(TEXTS))
        for train, test in seen["splits"]:
            assert not set(train % len(TEXTS)) & set(test % len(TEXTS))


class TestTest:
    differences = np.array([0.01, 0.03, -0.01, 0.02, 0.04])

    def test_without_common_training_texts_it_is_the_paired_t_test(self):
        from scipy import stats

        expected = stats.ttest_1samp(self.differences, 0).pvalue
        assert corrected_resampled_t_test(self.differences, 0.0).p == pytest.approx(expected)

    def test_the_correction(self):
        """Nadeau and Bengio: 1/J becomes 1/J + n_test / n_train."""
        from scipy import stats

        t = stats.ttest_1samp(self.differences, 0).statistic * np.sqrt((1 / 5) / (1 / 5 + 1 / 4))
        assert corrected_resampled_t_test(self.differences, 1 / 4).p == pytest.approx(2 * stats.t.sf(t, 4))
        assert corrected_resampled_t_test(-self.differences, 1 / 4).p == pytest.approx(2 * stats.t.sf(t, 4))

    def test_without_variance(self):
        assert corrected_resampled_t_test(np.zeros(5), 1 / 4) == (0, 0, 0, 1, 0.5)
        alike = np.array([0.8, 0.9, 0.7, 0.6, 0.5]) - np.array([0.7, 0.8, 0.6, 0.5, 0.4])  # but for rounding
        assert np.isnan(corrected_resampled_t_test(alike, 1 / 4).p)
        without_spread = corrected_resampled_t_test(np.ones(5), 1 / 4)
        assert without_spread[:3] == (1, 1, 1)
        assert np.isnan([without_spread.p, without_spread.above]).all()

    def test_it_is_what_the_result_has(self, result):
        name = list(result.scores)[-2]
        differences = result.scores[result.best] - result.scores[name]
        assert result.p_values[name] == corrected_resampled_t_test(differences, 1 / 3).p


@pytest.mark.parametrize(
    ("negative", "positive", "given", "expected"),
    [
        (0, 1, None, 1),
        ("0", "1", None, "1"),
        (False, True, None, True),
        (np.int64(0), np.float32(1), None, 1),
        ("water", "greeting", None, "greeting"),  # the rarer
        ("greeting", "water", None, "water"),
        (b"ham", b"spam", None, "spam"),
        ("water", "greeting", "water", "water"),
        (0, 1, 0, 0),
    ],
)
def test_the_positive_class(layer, negative, positive, given, expected):
    labels = [negative] * len(RIVER) + [positive] * len(HELLO)
    result = quick(layer, labels=labels, positive=given)
    assert result.positive == expected
    assert f"F1 of {result.positive!r}" in str(result)


def test_of_two_classes_of_one_size_the_last_is_positive(layer):
    assert quick(layer, labels=["b", "a"] * (len(TEXTS) // 2)).positive == "b"


def test_holders_of_texts_and_labels(layer, tmp_path):
    pandas = pytest.importorskip("pandas")
    expected = quick(layer).scores["mean"]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    for texts, labels in (
        (iter(TEXTS), iter(LABELS)),
        (pandas.Series(TEXTS, index=range(9, 9 + len(TEXTS))), pandas.Series(LABELS)),
        (np.array(TEXTS), np.array(LABELS)),
        (path, tuple(LABELS)),
        ([text.encode() for text in TEXTS], pandas.Categorical(LABELS)),
    ):
        np.testing.assert_array_equal(quick(layer, texts=texts, labels=labels).scores["mean"], expected)
    assert quick(layer, texts=[(text, "hello") for text in TEXTS]).groups == len(TEXTS)


def test_a_fit_that_does_not_converge_is_a_note_not_a_warning(layer, monkeypatch):
    monkeypatch.setattr(cross_validation, "MAX_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = quick(layer)
    note = result.notes[-1]
    assert "not converged" in note
    assert "mean (2)" in note
    assert note in str(result)


def test_losing_to_the_baseline_is_said(layer):
    labels = ["rare" if i % 7 == 0 else "often" for i in range(len(TEXTS))]
    result = quick(layer, labels=labels, positive="often", poolings=["trend"])
    assert next(iter(result.scores)) == BASELINE
    assert result.best == "trend"
    assert "No pooling scores better than the majority class" in str(result)


def test_progress(layer, capfd):
    quick(layer)
    assert capfd.readouterr().err == ""
    quick(layer, show_progress=True)
    captured = capfd.readouterr().err
    assert "Embedding" in captured
    assert "Scoring" in captured


ODD = {"<b>$_^": "mean", "[bold]é[/bold]": "cls", "a" * 99: "max"}  # markup of all kinds, and long


@pytest.fixture(scope="module")
def odd(layer) -> PoolingComparison:
    return quick(layer, labels=["<i>", "$x$"] * (len(TEXTS) // 2), poolings=ODD, folds=3)


class TestViews:
    def test_table(self, result):
        lines = str(result).split("\n")
        assert "28 texts in 28 groups; 2 classes: water 16, greeting 12" in lines
        start = next(i for i, line in enumerate(lines) if line.startswith("pooling"))
        assert lines[start].split() == [
            *("pooling", "width", "F1", "±", "accuracy", "vs", "best", "95", "%", "interval", "p")
        ]
        rows = lines[start + 1 : start + 1 + len(result.scores)]
        assert [row.split("  ")[0] for row in rows] == list(result.scores)
        assert rows[0].split()[-1] == "best"
        for name, row in zip(result.scores, rows, strict=True):
            assert f" {result.means[name]:.3f}  {result.spreads[name]:.3f}" in row
        assert len({len(line) for line in (lines[start], *rows)}) == 1, "columns stand under each other"
        assert repr(result) == f"<PoolingComparison of {len(POOLING_NAMES)} poolings: best {result.best!r}>"

    def test_any_names(self, odd):
        for name in ODD:
            assert name in str(odd)
            assert html.escape(name) in odd._repr_html_()
        assert "<b>" not in odd._repr_html_()
        assert "<i>" not in odd._repr_html_()

    def test_json(self, result):
        data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert data == result.to_dict()
        assert [row["pooling"] for row in data["poolings"]] == list(result.scores)
        for row in data["poolings"]:
            assert row["scores"] == result.scores[row["pooling"]].tolist()
            assert row["mean"] == result.means[row["pooling"]]
        assert (data["best"], data["metric"], data["positive"]) == (result.best, "F1", "greeting")

    def test_the_figure_shows_the_scores(self, result):
        pytest.importorskip("matplotlib")
        figure = result.plot()
        shown = visible_text(figure)
        assert {*POOLING_NAMES} <= set(shown)
        points = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == result.folds]
        names = [name for name in result.scores if name != BASELINE]
        np.testing.assert_array_equal(points, [result.scores[name] for name in names])
        assert any("majority class: 0.000" in text for text in shown)

    def test_the_figure_holds_any_names(self, odd):
        pytest.importorskip("matplotlib")
        figure = odd.plot()
        draw(figure)
        (axes,) = figure.axes
        box, (width, height) = axes.get_tightbbox(), figure.bbox.size
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
        assert axes.bbox.width > width / 4
        if "matplotlib.pyplot" in sys.modules:
            assert not sys.modules["matplotlib.pyplot"].get_fignums()

    def test_without_matplotlib(self, result, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match="the extra `plot`"):
            result.plot()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "`texts` is empty"),
        ({"texts": "bank"}, r"pass \['bank'\]"),
        ({"texts": ["bank", 3], "labels": "ab"}, "`labels` must be a list"),
        ({"texts": [*TEXTS[:-1], 3]}, "position 27 is 3"),
        ({"labels": LABELS[1:]}, "`labels` must have one for every text: got 27 for 28 texts"),
        ({"labels": ["a"] * 28}, "two classes at least, got 'a' only"),
        ({"labels": ["a"] * 27 + ["b"]}, "class 'b' has 1 different texts or groups, fewer than folds=2"),
        ({"labels": [*LABELS[1:], None]}, "`labels` must have no gaps: position 27 is None"),
        ({"labels": [*LABELS[1:], float("nan")]}, "`labels` must have no gaps: position 27 is nan"),
        ({"labels": [*LABELS[1:], 3]}, "`labels` must be all strings or all numbers"),
        ({"labels": np.zeros((28, 2))}, "`labels` must be a list or 1-D array"),
        ({"positive": "spam"}, r"`positive` must be one of two classes, got 'spam'; .*\['greeting', 'water'\]"),
        ({"labels": ["a", "b", "c", "d"] * 7, "positive": "a"}, "`positive` must be one of two classes"),
        ({"groups": [0]}, "`groups` must have one for every text: got 1"),
        ({"groups": [0] * 28}, "1 different texts or groups"),
        ({"poolings": "mean"}, "`poolings` must be a list"),
        ({"poolings": []}, "`poolings` must not be empty"),
        ({"poolings": ["median"]}, "`poolings` must hold names out of .*got 'median'"),
        ({"poolings": {"own": "median"}}, "`poolings` must hold names"),
        ({"poolings": [["mean", "median"]]}, "`poolings` must hold names"),
        ({"poolings": ["mean", "mean"]}, "every name once"),
        ({"poolings": {BASELINE: "mean"}}, "other than 'majority class'"),
        ({"folds": 1}, "`folds` must be 2 at least"),
        ({"folds": 2.5}, "`folds` must be a positive integer"),
        ({"repeats": 0}, "`repeats` must be a positive integer"),
        ({"C": 0}, "`C` must be a positive number"),
        ({"C": "1"}, "`C` must be a positive number"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_what_does_not_fit_is_named(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(layer, **arguments)


def test_groups_too_large_for_the_folds(layer):
    labels, groups = ["a", "b"] * 4, [0, 0, 0, 0, 0, 1, 0, 2]
    with pytest.raises(ValueError, match="class 'a' has 1 different"):
        quick(layer, texts=TEXTS[:8], labels=labels, groups=groups)


def test_without_scikit_learn(layer, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="the extra `compare`"):
        quick(layer)


def test_a_file_that_is_not_there(layer):
    with pytest.raises(FileNotFoundError):
        quick(layer, texts=pathlib.Path("nowhere.txt"))
