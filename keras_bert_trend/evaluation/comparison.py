"""`compare_poolings`: which pooling suits a problem, by what a logistic regression makes of each one's embeddings.

    texts ──► one run of the encoder ──► every pooling's embeddings ──► the same folds for all ──► scores, tests

The folds, the fits and the test are `cross_validation`'s; how the result looks is `compare_views`'.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_bert_trend._utils import check_count
from keras_bert_trend.embedding.embed import embed
from keras_bert_trend.embedding.texts import open_texts
from keras_bert_trend.evaluation.cross_validation import (
    BASELINE,
    MAX_ITERATIONS,
    Scores,
    check_installed,
    corrected_resampled_t_test,
    make_splits,
    score_all,
)
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import POOLING_NAMES, Pooling


@dataclass(frozen=True, eq=False, repr=False)
class PoolingComparison:
    """How well each pooling's embeddings told the classes apart, best first.

    `print` it for a table; a notebook shows it as one; `plot()` draws it; `to_dict()` is JSON.

    Attributes:
        scores: pooling → its score on every fold's test part, float64 `(folds * repeats,)`, the best mean first. The
            row "majority class", which looks at no text, is among them at its place.
        accuracies: the same with the accuracy, whatever `metric` is.
        p_values: pooling → p of the paired test against the best, see `compare_poolings`; `None` for the best itself.
        widths: pooling → the width of its embeddings; `None` for the baseline.
        metric: `"F1"`, of the class `positive`, where there are two classes; `"macro-F1"` where there are more.
        positive: the class whose F1 it is; `None` with more than two classes.
        class_counts: class → number of texts.
        texts: number of texts.
        groups: number of groups, which by default are different texts.
        folds: as given, like the next three.
        repeats: how often the texts were cut into folds.
        seed: of the first cut.
        C: of the logistic regressions.
        notes: what a reader of the scores should know, one sentence each; often empty.
    """

    scores: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    p_values: dict[str, float | None]
    widths: dict[str, int | None]
    metric: str
    positive: Any
    class_counts: dict[Any, int]
    texts: int
    groups: int
    folds: int
    repeats: int
    seed: int
    C: float
    notes: tuple[str, ...]

    @property
    def best(self) -> str:
        """The pooling with the highest mean score."""
        return next(name for name in self.scores if name != BASELINE)

    @property
    def means(self) -> dict[str, float]:
        """Pooling → mean score over the folds."""
        return {name: float(np.mean(scores)) for name, scores in self.scores.items()}

    @property
    def spreads(self) -> dict[str, float]:
        """Pooling → standard deviation of the scores over the folds."""
        return {name: float(np.std(scores, ddof=1)) for name, scores in self.scores.items()}

    def __str__(self) -> str:
        from keras_bert_trend.evaluation.comparison_views import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"<PoolingComparison of {len(self.scores) - 1} poolings: best {self.best!r}>"

    def _repr_html_(self) -> str:
        from keras_bert_trend.evaluation.comparison_views import to_html

        return to_html(self)

    def plot(self):
        """Draw every pooling's score: the folds as points, their mean with one standard deviation to either side.

        Returns:
            a `matplotlib.figure.Figure`; `pyplot` and its global state are not touched.
            `figure.savefig("poolings.png")` writes it.

        Raises:
            ImportError: matplotlib is not installed; the extra `plot` does that.
        """
        from keras_bert_trend.evaluation.comparison_views import to_figure

        return to_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; `poolings` has a dict for each row of the table, in its order."""
        rows = [
            {
                "pooling": name,
                "width": self.widths[name],
                "mean": self.means[name],
                "spread": self.spreads[name],
                "p_vs_best": self.p_values[name],
                "scores": self.scores[name].tolist(),
                "accuracies": self.accuracies[name].tolist(),
            }
            for name in self.scores
        ]
        return {
            "metric": self.metric,
            "positive": self.positive,
            "best": self.best,
            "poolings": rows,
            "classes": [{"class": name, "texts": count} for name, count in self.class_counts.items()],
            **{name: getattr(self, name) for name in ("texts", "groups", "folds", "repeats", "seed", "C")},
            "notes": list(self.notes),
        }


def compare_poolings(
    texts: Iterable,
    labels: Iterable,
    model: BertTrend | str | os.PathLike = "minilm",
    *,
    poolings: Sequence | Mapping[str, Any] | None = None,
    positive: Any = None,
    folds: int = 5,
    repeats: int = 1,
    groups: Iterable[Hashable] | None = None,
    C: float = 1.0,  # noqa: N803  (scikit-learn's name for it)
    seed: int = 0,
    batch_size: int = 64,
    n_jobs: int | None = None,
    show_progress: bool | None = False,
) -> PoolingComparison:
    """Say which pooling suits a classification problem, with the encoder as it is: nothing of BERT trains here.

    One run of the encoder gives every pooling's embeddings. Each is scored by cross-validation, all on the same folds,
    with scikit-learn's `make_pipeline(StandardScaler(), LogisticRegression(C=C))`, fitted to the training part alone.
    The folds have the classes in like proportions, and never the same text in both the training and the test part
    (`StratifiedGroupKFold`): where texts stand twice, as hundreds of the SMS Spam Collection do, a classifier would be
    rewarded for remembering them.

    The score is the F1 of one class where there are two, else the macro-F1: the unweighted mean of the classes' F1.

    `p_values` tests every pooling against the best, fold by fold, by the corrected resampled t-test (Nadeau and Bengio
    2003, "Inference for the generalization error", Machine Learning 52; with repeated folds Bouckaert and Frank 2004,
    PAKDD): for the `J = folds * repeats` differences `d`

        t = mean(d) / √((1/J + 1/(folds − 1)) · var(d)),   two-sided, with J − 1 degrees of freedom

    where the second term makes up for the folds' common training texts, which the plain paired t-test takes for
    independent. Read it with care: from five folds it is weak, so that a large p does not say that two poolings are
    equal; the best was chosen by these very scores; and p is not corrected for the number of comparisons.

    Example:
        >>> spam = ["Win a prize now", "You have won a prize!", "Claim your prize: call now", "Win 500 pounds now"]
        >>> ham = ["See you at noon", "Are you at home?", "I am late, sorry", "Shall we have lunch at noon?"]
        >>> result = compare_poolings(spam + ham, ["spam"] * 4 + ["ham"] * 4, poolings=["mean", "cls"], folds=2)
        >>> result.metric, result.positive, result.scores["mean"].shape
        ('F1', 'spam', (2,))

    Args:
        texts: as in `embed`; all are held in memory, and so are the embeddings: with all poolings of a model 384 wide,
            23 kB a text.
        labels: a class for every text: `str`, `int` or `bool`.
        model: a `BertTrend` with a preprocessor, or what `BertTrend` takes as its handle.
        poolings: what to compare: names, `Pooling` layers, and lists of them (concatenated: one row, called
            "mean + trend"); or a dict of them, by the names that the rows shall have. By default all `POOLING_NAMES`.
        positive: the class whose F1 is the score, where there are two. By default 1 of the labels 0 and 1, `True` of
            `False` and `True`, "1" of "0" and "1"; of others the rarer class; and of two that are equally frequent the
            one that is sorted last.
        folds: how many parts the texts are cut into, each of which tests once.
        repeats: how often they are cut, each time differently.
        groups: for every text, what it must not be separated from: texts of the same group are together in training or
            in test. By default the text itself, without regard to case and white space, which few encoders see. Give
            them where texts hang together otherwise, by author or template.
        C: the inverse of the logistic regressions' regularisation. The default is scikit-learn's, the same for all
            poolings and not chosen by their scores; 0.01 suits many embeddings better.
        seed: of the folds.
        batch_size: texts per batch of the encoder, as in `embed`.
        n_jobs: as in joblib: how many processes fit logistic regressions. Each takes seconds to start.
        show_progress: whether progress bars are on stderr; `None` shows them on a terminal, and in a
            notebook that has ipywidgets.

    Returns:
        a `PoolingComparison`.

    Raises:
        ValueError: an argument does not fit; `texts`, `labels` or `groups` differ in length or are empty; there is one
            class only; or a class has fewer groups than there are folds.
        ImportError: scikit-learn is not installed; the extra `compare` does that.
    """
    check_installed()
    chosen = _named(poolings)
    for name, count, least in (("folds", folds, 2), ("repeats", repeats, 1)):
        check_count(name, count)
        if count < least:
            raise ValueError(f"`{name}` must be {least} at least, got {count}.")
    if isinstance(C, bool) or not isinstance(C, int | float) or not 0 < C < float("inf"):
        raise ValueError(f"`C` must be a positive number, got {C!r}.")
    texts = list(open_texts(texts)[0])
    if not texts:
        raise ValueError("`texts` is empty.")
    labels = _as_values("labels", labels, len(texts))
    groups = map(_without_case_and_space, texts) if groups is None else _as_values("groups", groups, len(texts))
    classes, y = _numbered("labels", labels)
    if len(classes) < 2:
        raise ValueError(f"`labels` must have two classes at least, got {classes[0]!r} only.")
    group_names, group_numbers = _numbered("groups", groups)
    counts = np.bincount(y)
    target = _positive(classes, counts, positive)
    splits = make_splits(classes, y, group_numbers, folds, repeats, seed)

    arrays = embed(
        texts,
        model,
        pooling=list(chosen.values()),
        output="dict",
        batch_size=batch_size,
        show_progress=show_progress,
    )
    features = dict(zip(chosen, arrays.values(), strict=True))
    results = score_all(features, y, splits, target, C, n_jobs, show_progress)

    order = sorted(results, key=lambda name: -np.mean(results[name].scores))
    best = next(name for name in order if name != BASELINE)
    return PoolingComparison(
        scores={name: results[name].scores for name in order},
        accuracies={name: results[name].accuracies for name in order},
        p_values={
            name: None
            if name == best
            else corrected_resampled_t_test(results[best].scores - results[name].scores, 1 / (folds - 1))
            for name in order
        },
        widths={name: features[name].shape[1] if name in features else None for name in order},
        metric="macro-F1" if target is None else "F1",
        positive=None if target is None else classes[target],
        class_counts=dict(zip(classes, counts.tolist(), strict=True)),
        texts=len(texts),
        groups=len(group_names),
        folds=folds,
        repeats=repeats,
        seed=seed,
        C=float(C),
        notes=tuple(_notes(order, results)),
    )


# What is compared


def _named(poolings) -> dict[str, Any]:
    """Return row name → what stands for the pooling."""
    if poolings is None:
        poolings = POOLING_NAMES
    if isinstance(poolings, str | Pooling) or not isinstance(poolings, Iterable):
        raise ValueError(f"`poolings` must be a list of poolings or a dict of them, got {poolings!r}.")
    values = list(poolings.values() if isinstance(poolings, Mapping) else poolings)
    own_names = list(map(_name_of, values))  # of a dict's too: says what is no pooling
    names = list(poolings) if isinstance(poolings, Mapping) else own_names
    if not names:
        raise ValueError("`poolings` must not be empty.")
    if any(len(set(each)) < len(values) for each in (names, own_names)):
        raise ValueError(f"`poolings` must have every pooling and every name once, got {own_names}.")
    if not all(isinstance(name, str) and name != BASELINE for name in names):
        raise ValueError(f"`poolings` must be named by strings other than {BASELINE!r}, got {names}.")
    return dict(zip(names, values, strict=True))


def _name_of(pooling) -> str:
    if isinstance(pooling, Pooling):
        return pooling.name
    if isinstance(pooling, list | tuple) and pooling:
        return " + ".join(map(_name_of, pooling))
    if isinstance(pooling, str) and pooling in POOLING_NAMES:
        return pooling
    raise ValueError(
        f"`poolings` must hold names out of {list(POOLING_NAMES)}, lists of them, or Pooling layers; got {pooling!r}."
    )


def _as_values(name: str, values, count: int) -> list:
    """Return labels or groups as a list of Python values."""
    values = values.numpy() if hasattr(values, "numpy") else values
    if isinstance(values, str | bytes) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) != 1:
        raise ValueError(f"`{name}` must be a list or 1-D array, one for every text, got {type(values).__name__}.")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    values = [value.decode() if isinstance(value, bytes) else value for value in values]
    if len(values) != count:
        raise ValueError(f"`{name}` must have one for every text: got {len(values)} for {count} texts.")
    for position, value in enumerate(values):
        if value is None or (value == value) is not True:  # NaN or pandas' NA
            raise ValueError(f"`{name}` must have no gaps: position {position} is {value!r}.")
    return values


def _numbered(name: str, values: Iterable) -> tuple[list, np.ndarray]:
    """Return the different values, sorted, so that the texts' order changes nothing, and each one's number."""
    values = list(values)
    try:
        different = sorted(set(values))
    except TypeError as error:
        raise ValueError(f"`{name}` must be all strings or all numbers: {error}.") from error
    numbers = {value: number for number, value in enumerate(different)}
    return different, np.array([numbers[value] for value in values])


def _without_case_and_space(text) -> tuple[str, ...]:
    segments = text if isinstance(text, tuple) else (text,)
    segments = (segment.decode(errors="replace") if isinstance(segment, bytes) else segment for segment in segments)
    return tuple(" ".join(str(segment).casefold().split()) for segment in segments)


def _positive(classes: list, counts: np.ndarray, positive) -> int | None:
    """Return the number of the positive class, or `None` where there are more than two."""
    if positive is not None:
        if len(classes) != 2 or positive not in classes:
            raise ValueError(f"`positive` must be one of two classes, got {positive!r}; the classes are {classes}.")
        return classes.index(positive)
    if len(classes) != 2:
        return None
    if classes in ([0, 1], ["0", "1"]):  # [False, True] is equal to [0, 1]
        return 1
    return 0 if counts[0] < counts[1] else 1


def _notes(order: list[str], results: dict[str, Scores]) -> Iterable[str]:
    if order[0] == BASELINE:
        yield "No pooling scores better than the majority class, which looks at no text."
    stopped = {name: np.sum(~scores.converged) for name, scores in results.items() if not np.all(scores.converged)}
    if stopped:
        where = ", ".join(f"{name} ({count})" for name, count in stopped.items())
        yield (
            f"The logistic regression had not converged after {MAX_ITERATIONS} iterations in folds of {where}: take a "
            "smaller `C`."
        )
