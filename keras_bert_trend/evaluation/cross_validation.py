"""Cross-validation of several arrays of features with a logistic regression, all on the same folds.

Where `compare_poolings` does its statistics: this module knows arrays, no texts and no BERT.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_bert_trend._utils import progress_bar

#: The row that looks at no text: always the class that the training part has most of.
BASELINE = "majority class"

MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is not always enough; it stops where it has converged


def check_installed() -> None:
    """Raise an `ImportError` that says what to install, where scikit-learn is missing."""
    try:
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("Comparing needs scikit-learn (the extra `compare`): pip install scikit-learn") from error


class Scores(NamedTuple):
    """What one array of features gave, fold by fold.

    Attributes:
        scores: F1 or macro-F1, float64 `(splits,)`.
        accuracies: float64 `(splits,)`.
        converged: whether the fit came to its end, bool `(splits,)`.
    """

    scores: np.ndarray
    accuracies: np.ndarray
    converged: np.ndarray


def make_splits(
    classes: list, y: np.ndarray, groups: np.ndarray, folds: int, repeats: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training and test rows of every fold: classes in like proportions, groups never torn apart.

    Args:
        classes: the classes' names, for messages.
        y: each text's class, int `(n,)`, an index into `classes`.
        groups: each text's group, int `(n,)`.
        folds: test parts of one cut.
        repeats: cuts.
        seed: of the first cut; the next have the next numbers.

    Raises:
        ValueError: a class has fewer groups than there are folds, or a part of a fold lacks a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

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
    y: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    positive: int | None,
    inverse_regularization: float,
    n_jobs: int | None = None,
    show_progress: bool | None = False,
) -> dict[str, Scores]:
    """Score every array of features, and `BASELINE`, on every split.

    Args:
        features: name → `(n, width)`.
        y: classes, int `(n,)`.
        splits: training and test rows.
        positive: the class whose F1 is the score; `None` for the macro-F1.
        inverse_regularization: scikit-learn's `C`.
        n_jobs: processes, as in joblib.
        show_progress: as in `embed`.
    """
    from joblib import Parallel, delayed

    features = {**features, BASELINE: None}
    tasks = [
        delayed(_score_fold)(array, y, train, test, positive, inverse_regularization)
        for array in features.values()
        for train, test in splits
    ]
    results = []
    with progress_bar(show_progress, len(tasks), "Scoring") as advance:
        for result in Parallel(n_jobs, return_as="generator")(tasks):
            results.append(result)
            advance(1)
    by_pooling = np.reshape(results, (len(features), len(splits), 3))
    return {
        name: Scores(scores, accuracies, converged > 0)
        for name, (scores, accuracies, converged) in zip(features, by_pooling.swapaxes(1, 2), strict=True)
    }


def _score_fold(features, y, train, test, positive, inverse_regularization) -> tuple[float, float, bool]:
    """Return score and accuracy on the test rows, and whether the fit converged; the baseline's without features."""
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if features is None:
        features, classifier = np.zeros((len(y), 1)), DummyClassifier(strategy="most_frequent")
    else:
        logistic_regression = LogisticRegression(C=inverse_regularization, max_iter=MAX_ITERATIONS)
        classifier = make_pipeline(StandardScaler(), logistic_regression)
    # One thread: the products are so small that BLAS' threads wait for each other most of the time.
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always", ConvergenceWarning)
        predicted = classifier.fit(features[train], y[train]).predict(features[test])
    others = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if positive is None:
        score = f1_score(y[test], predicted, average="macro", zero_division=0)
    else:
        score = f1_score(y[test], predicted, pos_label=positive, zero_division=0)
    return score, accuracy_score(y[test], predicted), len(others) == len(caught)


def corrected_resampled_t_test(differences: np.ndarray, test_share: float) -> float:
    """Return the two-sided p of paired differences between scores on resampled test parts.

    Args:
        differences: one for every test part, `(n,)`, n ≥ 2.
        test_share: a test part's size divided by that of its training part.

    Where all differences are the same there is no variance to test by: p is 1 if they are zero, else 0.

    Source: Nadeau and Bengio 2003, §5; see `compare_poolings`.
    """
    from scipy import stats

    count, mean, variance = len(differences), np.mean(differences), np.var(differences, ddof=1)
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    t = mean / np.sqrt((1 / count + test_share) * variance)
    return float(2 * stats.t.sf(abs(t), count - 1))
