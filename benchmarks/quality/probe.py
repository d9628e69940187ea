"""The linear probe: logistic regression whose `C` is chosen inside the training part, folds, and corrected tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import optimize
from scipy.special import logsumexp
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from benchmarks.quality.data import DataSet
from keras_bert_trend.evaluation.cross_validation import mean_average_precision

CS = (0.001, 0.01, 0.1)


def splits(data: DataSet, repeats: int, folds: int = 5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield training and test rows of `repeats` cuts into `folds`; no group is split."""
    for repeat in range(repeats):
        kind = GroupKFold if data.name == "stsb" else StratifiedGroupKFold
        yield from kind(folds, shuffle=True, random_state=repeat).split(data.rows, data.labels, data.groups)


def split_training(data: DataSet, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return three quarters of the training rows to fit to, and the others to choose by; no group is split."""
    inner = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    fit, held = next(inner.split(train, data.labels[train], data.groups[train]))
    return train[fit], train[held]


def score(data: DataSet, vectors: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the score on the test rows, by a classifier fitted to the training rows; STS-B needs none."""
    if data.name == "stsb":
        pairs = vectors[data.rows[test]]
        products = np.sum(pairs[:, 0] * pairs[:, 1], axis=1)
        cosines = products / np.maximum(np.prod(np.linalg.norm(pairs, axis=2), axis=1), 1e-12)
        return float(spearmanr(cosines, data.labels[test]).statistic)
    features = _features(data, vectors)
    fit, held = split_training(data, train)
    measure = _measure(data)
    found = [measure(held, scores) for scores in logistic(features, data.labels, fit, held, CS)]
    (scores,) = logistic(features, data.labels, train, test, [CS[int(np.argmax(found))]])
    return measure(test, scores)


def _features(data: DataSet, vectors: np.ndarray) -> np.ndarray:
    """Return an example's features: its vector; of a pair `|u − v|` and `u · v`, element by element."""
    if data.rows.shape[1] == 1:
        return vectors[data.rows[:, 0]]
    one, other = vectors[data.rows[:, 0]], vectors[data.rows[:, 1]]
    return np.hstack([np.abs(one - other), one * other])


def _measure(data: DataSet) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the score of rows by the logits `(rows, classes)`: F1 of spam, accuracy, or MAP over the questions."""

    def measure(rows, scores):
        labels, guesses = data.labels[rows], scores.argmax(axis=1)
        if data.name == "sms":
            return f1_score(labels, guesses)
        if data.name == "qa":
            return mean_average_precision(labels == 1, scores[:, 1] - scores[:, 0], data.groups[rows])
        return float(np.mean(labels == guesses))

    return measure


def logistic(features, labels, train, test, inverse_regularizations) -> list[np.ndarray]:
    """Return the test rows' logits `(rows, classes)` of a logistic regression, for every `C`.

    That of scikit-learn on standardised features, `Σ cross entropy + ‖W‖² / 2C`, the intercept free. Features turned to
    their principal components and scaled by the bound of Böhning (1992) on the curvature converge in tens of iterations
    where the plain ones take hundreds.
    """
    mean, scale = features[train].mean(axis=0), features[train].std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)
    rows = (features[train] - mean) / scale
    values, vectors = np.linalg.eigh(rows.T @ rows)
    rows, turned = rows @ vectors, ((features[test] - mean) / scale) @ vectors
    truth = np.eye(labels.max() + 1, dtype=rows.dtype)[labels[train]]
    weights, results = np.zeros((rows.shape[1], truth.shape[1])), []
    intercept = np.log(truth.mean(axis=0) + 1e-9)
    for inverse in inverse_regularizations:
        stretch = np.sqrt(np.maximum(values, 0) / 8 + 1 / inverse)[:, None]
        scaled = (rows / stretch.T).astype(np.float32)

        def loss(flat, scaled=scaled, stretch=stretch, inverse=inverse):
            flat = flat.reshape(-1, truth.shape[1])
            logits = scaled @ flat[:-1].astype(np.float32) + flat[-1]
            total = logsumexp(logits, axis=1, keepdims=True)
            residual = (np.exp(logits - total) - truth).astype(np.float32)
            penalised = flat[:-1] / (inverse * stretch**2)
            value = float(np.sum(total) - np.sum(logits * truth) + np.sum(penalised * flat[:-1]) / 2)
            return value, np.vstack([scaled.T @ residual + penalised, residual.sum(axis=0)]).ravel().astype(float)

        start = np.vstack([weights * stretch, intercept]).ravel()
        options = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-2}
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
        found = found.reshape(-1, truth.shape[1])
        weights, intercept = found[:-1] / stretch, found[-1]
        results.append(turned @ weights + intercept)
    return results


def holm(p_values: list[float]) -> list[float]:
    """Return p adjusted for their number by Holm (1979)."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()
