"""Cross-validation of several arrays of features with a logistic regression, all on the same folds.

The statistics of `compare_poolings`: this module knows arrays, not texts or BERT. It needs scikit-learn and SciPy, so
it is imported on use.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy import stats
from sklearn.base import TransformerMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from keras_bert_trend._utils import progress_bar
from keras_bert_trend.evaluation.names import Metric

MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is not always enough; it stops where it has converged


class Scores(NamedTuple):
    """The scores of one array of features, fold by fold.

    Attributes:
        scores: float64 array `(splits,)`. The metric's.
        accuracies: float64 array `(splits,)`.
        converged: bool array `(splits,)`. Whether the fit converged.
    """

    scores: np.ndarray
    accuracies: np.ndarray
    converged: np.ndarray


class _Regression(LogisticRegression):
    """Fit in one thread, and keep in `converged_` what scikit-learn warns about.

    The products are so small that the threads of BLAS would wait for each other most of the time.
    """

    def fit(self, X, y):  # noqa: N803  (scikit-learn's name for it)
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
            warnings.simplefilter("always", ConvergenceWarning)
            super().fit(X, y)
        others = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
        for warning in others:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        self.converged_ = len(others) == len(caught)
        return self


def make_splits(
    classes: list, y: np.ndarray, groups: np.ndarray, folds: int, repeats: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training and test rows of every fold: classes in similar proportions, groups never split.

    Args:
        classes: list. The classes' names, for messages.
        y: int array `(n,)`. Each text's class, an index into `classes`.
        groups: int array `(n,)`. Each text's group.
        folds: int. The number of test parts of one cut.
        repeats: int. The number of cuts.
        seed: int. The seed of the first cut; the following cuts use the following numbers.

    Raises:
        ValueError: if a class has fewer groups than there are folds, or if a part of a fold lacks a class.
    """
    for number, name in enumerate(classes):
        count = len(np.unique(groups[y == number]))
        if count < folds:
            raise ValueError(
                f"`labels`: class {name!r} has {count} different texts or groups, fewer than folds={folds}."
            )
    splits = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
        splits += list(splitter.split(y, y, groups))
    for rows in (rows for split in splits for rows in split):
        missing = set(range(len(classes))) - set(y[rows].tolist())
        if missing:
            raise ValueError(
                f"`folds`={folds}: a fold has no text of class {classes[missing.pop()]!r}, so large are the groups. "
                "Use fewer folds."
            )
    return splits


def score_all(
    features: Mapping[str, tuple[TransformerMixin | None, np.ndarray]],
    baseline: str,
    y: np.ndarray,
    groups: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    metric: Metric,
    positive: int | None,
    inverse_regularization: float,
    n_jobs: int | None = None,
    show_progress: bool | None = False,
) -> dict[str, Scores]:
    """Score all features, and a baseline without features, on every split.

    Args:
        features: dict. Name → what is fitted to the training part before the standardisation, if anything, and float
            array `(n, width)`.
        baseline: str. The name of the classifier that always predicts the most frequent class of the training part.
        y: int array `(n,)`. The classes.
        groups: int array `(n,)`. What `"MAP"` ranks among.
        splits: list. Training and test rows.
        metric: str. The score: `"F1"`, `"macro-F1"`, `"accuracy"`, `"AUC"` or `"MAP"`.
        positive: int or `None`. The class of `"F1"` and `"MAP"`, and of `"AUC"` if there are two.
        inverse_regularization: float. scikit-learn's `C`.
        n_jobs: int or `None`. The number of processes, as in joblib. Defaults to `None`, no other process.
        show_progress: bool or `None`. Whether to show a progress bar; `None` shows it on a terminal. Defaults to
            `False`.
    """
    models = {name: _Regression(C=inverse_regularization, max_iter=MAX_ITERATIONS) for name in features}
    models[baseline] = DummyClassifier(strategy="most_frequent")
    results = {}
    with progress_bar(show_progress, len(models) * len(splits), "Scoring") as advance, Parallel(n_jobs) as parallel:
        for name, model in models.items():
            projection, rows = features.get(name, (None, np.zeros((len(y), 1))))
            pipeline = make_pipeline(*([] if projection is None else [projection]), StandardScaler(), model)
            found = parallel(
                delayed(_score)(clone(pipeline), rows, y, groups, train, test, metric, positive)
                for train, test in splits
            )
            results[name] = Scores(*map(np.array, zip(*found, strict=True)))
            advance(len(splits))
    return results


def _score(pipeline, rows, y, groups, train, test, metric, positive) -> tuple[float, float, bool]:
    """Return the score and the accuracy on the test part, and whether the fit converged."""
    pipeline.fit(rows[train], y[train])
    predicted, truth = pipeline.predict(rows[test]), y[test]
    accuracy = accuracy_score(truth, predicted)
    if metric == "accuracy":
        score = accuracy
    elif metric == "F1":
        score = f1_score(truth, predicted, pos_label=positive, zero_division=0)
    elif metric == "macro-F1":
        score = f1_score(truth, predicted, average="macro", zero_division=0)
    else:
        chances = pipeline.predict_proba(rows[test])
        if positive is None:
            score = roc_auc_score(truth, chances, multi_class="ovr")
        elif metric == "AUC":
            score = roc_auc_score(truth == positive, chances[:, positive])
        else:
            score = mean_average_precision(truth == positive, chances[:, positive], groups[test])
    return score, accuracy, getattr(pipeline[-1], "converged_", True)


def mean_average_precision(relevant: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean, over the groups that have both, of the average precision of the relevant among the others.

    Args:
        relevant: bool array `(n,)`.
        scores: float array `(n,)`. Ranks within a group, greatest first.
        groups: int array `(n,)`.
    """
    found = [
        average_precision_score(relevant[own], scores[own])
        for own in (groups == group for group in np.unique(groups))
        if relevant[own].any() and not relevant[own].all()
    ]
    return float(np.mean(found)) if found else 0.0


class Difference(NamedTuple):
    """The corrected resampled t-test of the mean of paired differences.

    Attributes:
        mean: float. The mean difference.
        low: float. The lower end of its 95 % interval.
        high: float. The upper end.
        p: float. Two-sided; NaN if all differences are equal and not zero: there is no variance to test by.
        above: float. The probability that the true difference is above zero (Corani and Benavoli 2015, "A Bayesian
            approach for comparing cross-validated algorithms", Machine Learning 100: with a flat prior the same t).
    """

    mean: float
    low: float
    high: float
    p: float
    above: float


def corrected_resampled_t_test(differences: np.ndarray, test_share: float) -> Difference:
    """Test whether paired differences between scores on resampled test parts are zero on average.

    Args:
        differences: float array `(n,)`. One for every test part, at least two.
        test_share: float. A test part's size divided by that of its training part.

    Source: Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52, §5.
    """
    count, mean, variance = len(differences), float(np.mean(differences)), np.var(differences, ddof=1)
    if np.ptp(differences) <= 1e-12:  # equal but for rounding
        return Difference(mean, mean, mean, np.nan if mean else 1.0, np.nan if mean else 0.5)
    spread = np.sqrt((1 / count + test_share) * variance)
    half = spread * stats.t.ppf(0.975, count - 1)
    t = mean / spread
    p, above = 2 * stats.t.sf(abs(t), count - 1), stats.t.cdf(t, count - 1)
    return Difference(mean, float(mean - half), float(mean + half), float(p), float(above))
