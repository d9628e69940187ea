"""Cross-validation of several arrays of features with a logistic regression, all on the same folds.

The statistics of `compare_poolings`: this module knows arrays, not texts or BERT. It needs scikit-learn and SciPy, so
it is imported on use.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import StratifiedGroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from keras_bert_trend._utils import progress_bar

MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is not always enough; it stops where it has converged


class Scores(NamedTuple):
    """The scores of one array of features, fold by fold.

    Attributes:
        scores: float64 array `(splits,)`. F1 or macro-F1.
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
    features: Mapping[str, np.ndarray],
    baseline: str,
    y: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    positive: int | None,
    inverse_regularization: float,
    n_jobs: int | None = None,
    show_progress: bool | None = False,
) -> dict[str, Scores]:
    """Score every array of features, and a baseline without features, on every split.

    Args:
        features: dict. Name → float array `(n, width)`.
        baseline: str. The name of the classifier that always predicts the most frequent class of the training part.
        y: int array `(n,)`. The classes.
        splits: list. Training and test rows.
        positive: int or `None`. The class whose F1 is the score; `None` for the macro-F1.
        inverse_regularization: float. scikit-learn's `C`.
        n_jobs: int or `None`. The number of processes, as in joblib. Defaults to `None`, no other process.
        show_progress: bool or `None`. Whether to show a progress bar; `None` shows it on a terminal. Defaults to
            `False`.
    """
    f1 = {"average": "macro"} if positive is None else {"pos_label": positive}
    scoring = {"score": make_scorer(f1_score, **f1, zero_division=0), "accuracy": "accuracy"}
    models = {name: _Regression(C=inverse_regularization, max_iter=MAX_ITERATIONS) for name in features}
    models[baseline] = DummyClassifier(strategy="most_frequent")
    results = {}
    with progress_bar(show_progress, len(models) * len(splits), "Scoring") as advance:
        for name, model in models.items():
            result = cross_validate(
                make_pipeline(StandardScaler(), model),
                features.get(name, np.zeros((len(y), 1))),
                y,
                cv=splits,
                scoring=scoring,
                n_jobs=n_jobs,
                return_estimator=True,
                error_score="raise",
            )
            converged = np.array([getattr(fitted[-1], "converged_", True) for fitted in result["estimator"]])
            results[name] = Scores(result["test_score"], result["test_accuracy"], converged)
            advance(len(splits))
    return results


def corrected_resampled_t_test(differences: np.ndarray, test_share: float) -> float:
    """Return the two-sided p of paired differences between scores on resampled test parts.

    If all differences are equal, there is no variance to test with: p is 1 if they are zero, else 0.

    Args:
        differences: float array `(n,)`. One for every test part, at least two.
        test_share: float. A test part's size divided by that of its training part.

    Source: Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52, §5.
    """
    count, mean, variance = len(differences), np.mean(differences), np.var(differences, ddof=1)
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    t = mean / np.sqrt((1 / count + test_share) * variance)
    return float(2 * stats.t.sf(abs(t), count - 1))
