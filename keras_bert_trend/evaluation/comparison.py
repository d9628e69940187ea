"""`compare_poolings`: which pooling suits a problem, by the scores of a logistic regression on its embeddings.

texts ──► one run of the encoder ──► every pooling's embeddings ──► the same folds for all ──► scores, tests
"""

from __future__ import annotations

import html
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from keras_bert_trend._utils import check_count
from keras_bert_trend.embedding.embed import embed
from keras_bert_trend.embedding.texts import open_texts
from keras_bert_trend.evaluation.names import Metric
from keras_bert_trend.inspection.batch import as_layer
from keras_bert_trend.inspection.drawing import BEST_COLOUR, aligned, draw_comparison, shortened
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.pooling import (
    POOLING_NAMES,
    ConcatPooling,
    LevelPooling,
    Pooling,
    TrajectoryPooling,
    get_pooling,
    leaves,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The row that looks at no text: it always predicts the most frequent class of the training part.
BASELINE = "majority class"

_CLASSES_SHOWN = 8
_FEW_TEXTS = 200  # fewer tell poolings apart only if they differ by several points


class Recommendation(NamedTuple):
    """What `PoolingComparison.recommend` advises; `str` of it is a sentence.

    Attributes:
        pooling: str. The pooling with the best mean score; of several with the same mean the narrowest.
        sure: float. The probability that it is truly better than the second best, by the corrected resampled t-test
            with a flat prior; NaN if every fold has the same difference.
        second: str or `None`. The second best; `None` if only one was compared.
        rivals: tuple of str. The poolings whose 95 % interval of the difference from the best reaches zero.
    """

    pooling: str
    sure: float
    second: str | None
    rivals: tuple[str, ...]

    def __str__(self) -> str:
        if self.second is None:
            return f"{self.pooling}: nothing else was compared."
        others = f" Not told apart from it: {', '.join(self.rivals)}." if self.rivals else ""
        if self.sure == 0.5:
            return f"{self.pooling}: as good as {self.second}, and no wider.{others}"
        sure = "in every fold alike" if np.isnan(self.sure) else f"with probability {self.sure:.2f}"
        return f"{self.pooling}: better than {self.second} {sure}.{others}"


@dataclass(frozen=True, eq=False, repr=False)
class PoolingComparison:
    """How well each pooling's embeddings tell the classes apart, best first.

    `print` shows a table, and so does a notebook; `plot()` draws a figure; `to_dict()` returns JSON values.

    Attributes:
        scores: dict. Pooling → its score on every fold's test part, float64 array `(folds * repeats,)`, sorted by mean.
            The row "majority class", which ignores the texts, is ranked among them.
        accuracies: dict. Pooling → its accuracy on every fold's test part, whatever `metric` is.
        differences: dict. Pooling → its mean difference from the best pooling, and the lower and upper end of the 95 %
            interval by the corrected resampled t-test; `None` for the best.
        p_values: dict. Pooling → p of that test, two-sided; `None` for the best, NaN if every fold has the same
            difference: there is no variance to test by.
        widths: dict. Pooling → the width of its embeddings; `None` for the baseline.
        metric: str. `"F1"`, `"macro-F1"`, `"accuracy"`, `"AUC"` or `"MAP"`.
        positive: str, int, bool or `None`. The class to find, for `"F1"`, `"AUC"` and `"MAP"`; `None` with more than
            two classes.
        class_counts: dict. Class → number of texts.
        texts: int. The number of texts.
        groups: int. The number of groups, by default of different texts.
        folds: int. The number of parts that the texts were cut into.
        repeats: int. How often the texts were cut.
        seed: int. The seed of the first cut.
        C: float. The inverse of the logistic regressions' regularisation.
        notes: tuple of str. What a reader of the scores should know; often empty.
    """

    scores: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    differences: dict[str, tuple[float, float, float] | None]
    p_values: dict[str, float | None]
    widths: dict[str, int | None]
    metric: Metric
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

    def recommend(self) -> Recommendation:
        """Name the pooling to take, and say how sure that is.

        The best was chosen by the scores that it is judged by, so that the probability is somewhat too high.
        """
        from keras_bert_trend.evaluation.cross_validation import corrected_resampled_t_test

        names = [name for name in self.scores if name != BASELINE]
        if len(names) == 1:
            return Recommendation(names[0], float("nan"), None, ())
        best, second = names[:2]
        test = corrected_resampled_t_test(self.scores[best] - self.scores[second], 1 / (self.folds - 1))
        return Recommendation(best, test.above, second, tuple(n for n in names[1:] if self.differences[n][2] >= 0))

    def __str__(self) -> str:
        return _to_text(self)

    def __repr__(self) -> str:
        return f"<PoolingComparison of {len(self.scores) - 1} poolings: best {self.best!r}>"

    def _repr_html_(self) -> str:
        return _to_html(self)

    def plot(self) -> Figure:
        """Draw every pooling's score: one point for each fold, and the mean with one standard deviation to either side.

        Returns:
            A `matplotlib.figure.Figure`, made without `pyplot`. `figure.savefig("poolings.png")` writes it.

        Raises:
            ImportError: if matplotlib is not installed (the extra `plot`).
        """
        return draw_comparison(
            {name: scores for name, scores in self.scores.items() if name != BASELINE},
            {name: _p(self, name) for name in self.scores},
            self.best,
            f"{shortened(_score_name(self), 40)}: {self.folds * self.repeats} folds, mean ± standard deviation",
            (BASELINE, self.means[BASELINE]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; `poolings` has one dict per row of the table, in its order."""
        rows = [
            {
                "pooling": name,
                "width": self.widths[name],
                "mean": self.means[name],
                "spread": self.spreads[name],
                "difference_from_best": self.differences[name] and list(self.differences[name]),
                "p_vs_best": None if _p(self, name) == "–" else self.p_values[name],
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
    texts: Iterable[Any],
    labels: Iterable[Any],
    model: BertTrend | str | os.PathLike[str] = "minilm",
    *,
    poolings: Sequence[Any] | Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    positive: Any = None,
    controls: bool = False,
    folds: int = 5,
    repeats: int = 1,
    groups: Iterable[Hashable] | None = None,
    C: float = 1.0,  # noqa: N803  (scikit-learn's name for it)
    seed: int = 0,
    batch_size: int = 64,
    n_jobs: int | None = None,
    show_progress: bool | None = False,
) -> PoolingComparison:
    """Compare poolings on a classification problem, with the encoder as it is: BERT stays frozen.

    One run of the encoder gives every pooling's embeddings. Each is scored by cross-validation, all on the same folds,
    with scikit-learn's `make_pipeline(StandardScaler(), LogisticRegression(C=C))`, fitted to the training part only.
    The folds have the classes in similar proportions, and never the same text in both training and test part
    (`StratifiedGroupKFold`): if texts occur twice, as hundreds of the SMS Spam Collection do, a classifier would be
    rewarded for remembering them.

    A `TrajectoryPooling` is adapted anew to the training part of every fold, whatever it was adapted to before. Weights
    of other poolings stay as they are: nothing is trained but the regressions.

    `differences` and `p_values` compare every pooling with the best, fold by fold, by the corrected resampled t-test
    (Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52; with repeated folds
    Bouckaert and Frank 2004, PAKDD): for the `J = folds * repeats` differences `d`

        t = mean(d) / √((1/J + 1/(folds − 1)) · var(d)),   two-sided, with J − 1 degrees of freedom

    The second term corrects for the training texts that folds share, which the plain paired t-test assumes to be
    independent. Read p with care. With five folds the test is weak, so a large p does not show that two poolings are
    equal. The best pooling was chosen by these very scores. And p is not corrected for the number of comparisons.
    `result.recommend()` puts it in a sentence. Below 200 texts a note warns that little can be told.

    Example:
        >>> spam = ["Win a prize now", "You have won a prize!", "Claim your prize: call now", "Win 500 pounds now"]
        >>> ham = ["See you at noon", "Are you at home?", "I am late, sorry", "Shall we have lunch at noon?"]
        >>> result = compare_poolings(spam + ham, ["spam"] * 4 + ["ham"] * 4, poolings=["mean", "cls"], folds=2)
        >>> result.metric, result.positive, result.scores["mean"].shape
        ('F1', 'spam', (2,))

    Args:
        texts: iterable of str, or anything else that `embed` accepts. Texts and embeddings are held in memory: with all
            poolings of a model 384 wide, 23 kB per text.
        labels: iterable of str, int or bool. One class for every text.
        model: str, path or `BertTrend`. The encoder: a handle as `BertTrend` takes it, or a layer with a preprocessor,
            whose own pooling is not looked at. Defaults to `"minilm"`.
        poolings: sequence, dict or `None`. What to compare: names, `Pooling` layers, and lists of them (concatenated,
            in one row called "mean + trend"); or a dict that gives each a name. Defaults to all `POOLING_NAMES`.
        metric: str or `None`. The score: `"F1"` of `positive`; `"macro-F1"`, the unweighted mean of the classes' F1;
            `"accuracy"`; `"AUC"`, the area under the ROC curve, with more than two classes the mean of each against the
            rest; `"MAP"`, the mean over the `groups` of the average precision of `positive`, for ranking. Defaults to
            `"F1"` with two classes and `"macro-F1"` with more.
        positive: str, int, bool or `None`. The class to find, if there are two classes. Defaults to 1 for labels 0 and
            1, `True` for `False` and `True`, "1" for "0" and "1"; for other labels to the rarer class, or to the one
            sorted last if both are equally frequent.
        controls: bool. Whether to add to every row with a `TrajectoryPooling` one of the same width that projects the
            last four layers instead of the steps: the difference is what the path gains, not the projection. Defaults
            to `False`.
        folds: int. The number of parts that the texts are cut into; each part is the test part once. Defaults to 5.
        repeats: int. How often the texts are cut, each time differently. Defaults to 1.
        groups: iterable or `None`. For every text a group that must not be split between training and test. Give groups
            if texts belong together, by author or template. Defaults to the text itself, ignoring case and white space,
            which few encoders see.
        C: float. The inverse of the logistic regressions' regularisation, the same for all poolings and not chosen by
            their scores; 0.01 suits many embeddings better. Defaults to scikit-learn's 1.0.
        seed: int. The seed of the folds. Defaults to 0.
        batch_size: int. The number of texts per batch of the encoder. Defaults to 64.
        n_jobs: int or `None`. The number of processes that fit logistic regressions, as in joblib; each takes seconds
            to start. Defaults to `None`, no other process.
        show_progress: bool or `None`. Whether to show progress bars on stderr; `None` shows them on a terminal, and in
            a notebook that has ipywidgets. Defaults to `False`.

    Returns:
        A `PoolingComparison`.

    Raises:
        ValueError: if an argument has none of these values; if `metric` does not fit the classes or lacks `groups`; if
            `texts`, `labels` and `groups` differ in length or are empty; if there is only one class; or if a class has
            fewer groups than there are folds.
        ImportError: if scikit-learn is not installed (the extra `compare`).
    """
    try:
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("Comparing needs scikit-learn (the extra `compare`): pip install scikit-learn") from error
    from keras_bert_trend.evaluation import cross_validation

    chosen = _named(poolings)
    layer = as_layer(model, truncate=True, argument="model")
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
    has_groups = groups is not None
    groups = map(_without_case_and_space, texts) if groups is None else _as_values("groups", groups, len(texts))
    classes, y = _numbered("labels", labels)
    if len(classes) < 2:
        raise ValueError(f"`labels` must have two classes at least, got {classes[0]!r} only.")
    group_names, group_numbers = _numbered("groups", groups)
    counts = np.bincount(y)
    target = _positive(classes, counts, positive)
    metric = _metric(metric, target, has_groups)
    splits = cross_validation.make_splits(classes, y, group_numbers, folds, repeats, seed)

    features, widths = _features(texts, layer, chosen, controls, batch_size, show_progress)
    results = cross_validation.score_all(
        features, BASELINE, y, group_numbers, splits, metric, target, C, n_jobs, show_progress
    )

    order = sorted(results, key=lambda name: (-np.mean(results[name].scores), widths.get(name, 0)))
    best = next(name for name in order if name != BASELINE)
    tests = {
        name: cross_validation.corrected_resampled_t_test(results[name].scores - results[best].scores, 1 / (folds - 1))
        for name in order
        if name != best
    }
    return PoolingComparison(
        scores={name: results[name].scores for name in order},
        accuracies={name: results[name].accuracies for name in order},
        differences={name: tests[name][:3] if name in tests else None for name in order},
        p_values={name: tests[name].p if name in tests else None for name in order},
        widths={name: widths.get(name) for name in order},
        metric=metric,
        positive=None if target is None else classes[target],
        class_counts=dict(zip(classes, counts.tolist(), strict=True)),
        texts=len(texts),
        groups=len(group_names),
        folds=folds,
        repeats=repeats,
        seed=seed,
        C=float(C),
        notes=tuple(_notes(order, {name: np.sum(~scores.converged) for name, scores in results.items()}, len(texts))),
    )


# What is compared


def _named(poolings) -> dict[str, Any]:
    """Return row name → pooling, as the caller named it."""
    if poolings is None:
        poolings = POOLING_NAMES
    if isinstance(poolings, str | Pooling) or not isinstance(poolings, Iterable):
        raise ValueError(f"`poolings` must be a list of poolings or a dict of them, got {poolings!r}.")
    values = list(poolings.values() if isinstance(poolings, Mapping) else poolings)
    own_names = list(map(_name_of, values))  # of a dict's too: raises for what is not a pooling
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


def _features(texts, layer, chosen: Mapping[str, Any], controls: bool, batch_size: int, show_progress):
    """Run the encoder once. Return row name → what each fold fits first, if anything, and its features; and the widths.

    A row that is adapted has the token means of all layers as features, beside the embeddings it is concatenated with.
    """
    config, kinds = layer.encoder.config, layer.preprocessor.vocabulary.token_kinds
    paths, others, run = {}, {}, {}
    for name, value in chosen.items():
        parts = leaves(get_pooling(value, kinds))
        paths[name] = [part for part in parts if isinstance(part, TrajectoryPooling)]
        others[name] = [part for part in parts if not isinstance(part, TrajectoryPooling)]
        for path in paths[name]:
            _check_path(name, path, chosen, controls, config)
        if not paths[name]:
            run[name] = value
        elif others[name]:
            run[name] = ConcatPooling(others[name], name=f"beside_{len(run)}")
    if any(paths.values()):
        run[None] = LevelPooling(name="all_layers")
    embedded = embed(
        texts, layer, pooling=list(run.values()), output="dict", batch_size=batch_size, show_progress=show_progress
    )
    arrays = dict(zip(run, embedded.values(), strict=True))

    features, widths = {}, {}
    for name in chosen:
        for control in (False, True) if controls and paths[name] else (False,):
            row = f"{name} (control)" if control else name
            beside = arrays.get(name)
            features[row], widths[row] = (None, beside), 0 if beside is None else beside.shape[1]
            if paths[name]:
                widths[row] += sum(path.output_dim(config.hidden_size, config.num_layers) for path in paths[name])
                features[row] = _projected(paths[name], arrays[None], beside, config.num_layers, control)
    return features, widths


def _check_path(name: str, path: TrajectoryPooling, chosen, controls: bool, config) -> None:
    if type(path) is not TrajectoryPooling:
        raise ValueError(
            f"`poolings`: {name!r} has a {type(path).__name__}; each fold makes a TrajectoryPooling, no subclass."
        )
    most = min(4, config.num_layers) * config.hidden_size
    if controls and path.dim is not None and path.dim > most:
        raise ValueError(f"`controls`: {name!r} has no control of its width {path.dim}; the widest has {most}.")
    if controls and f"{name} (control)" in chosen:
        raise ValueError(f"`poolings` must not have the name {f'{name} (control)'!r}: it is that of a control.")


def _projected(paths: list[TrajectoryPooling], levels: np.ndarray, beside: np.ndarray | None, num_layers, control):
    from sklearn.compose import ColumnTransformer

    from keras_bert_trend.evaluation.projection import Trajectory

    rows = levels if beside is None else np.hstack([levels, beside])
    parts = [
        (str(number), Trajectory(path.dim, path.seed, num_layers, control), slice(0, levels.shape[1]))
        for number, path in enumerate(paths)
    ]
    parts.append(("beside", "passthrough", slice(levels.shape[1], rows.shape[1])))
    return ColumnTransformer(parts), rows


def _metric(metric: Metric | None, target: int | None, has_groups: bool) -> Metric:
    """Return the metric, by default F1 of two classes and macro-F1 of more."""
    if metric is None:
        return "macro-F1" if target is None else "F1"
    if metric not in get_args(Metric):
        raise ValueError(f"`metric` must be one of {get_args(Metric)}, got {metric!r}.")
    if target is None and metric in ("F1", "MAP"):
        raise ValueError(f"`metric`={metric!r} needs two classes.")
    if metric == "MAP" and not has_groups:
        raise ValueError("`metric`='MAP' ranks within groups: give `groups`, one for every text (its question).")
    return metric


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
    """Return the distinct values, sorted to be independent of the texts' order, and the number of each value."""
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
    """Return the number of the positive class, or `None` if there are more than two."""
    if positive is not None:
        if len(classes) != 2 or positive not in classes:
            raise ValueError(f"`positive` must be one of two classes, got {positive!r}; the classes are {classes}.")
        return classes.index(positive)
    if len(classes) != 2:
        return None
    if classes in ([0, 1], ["0", "1"]):  # [False, True] is equal to [0, 1]
        return 1
    return 0 if counts[0] < counts[1] else 1


def _notes(order: list[str], unfinished: dict[str, int], texts: int) -> Iterable[str]:
    """Yield notes on the result, given the names in order and how many fits of each did not converge."""
    from keras_bert_trend.evaluation.cross_validation import MAX_ITERATIONS

    if texts < _FEW_TEXTS:
        yield f"Warning: {texts} texts tell poolings apart only if they differ by several points. Take 200 or more."
    if order[0] == BASELINE:
        yield "No pooling scores better than the majority class, which looks at no text."
    where = ", ".join(f"{name} ({count})" for name, count in unfinished.items() if count)
    if where:
        yield (
            f"The logistic regression had not converged after {MAX_ITERATIONS} iterations in folds of {where}: take a "
            "smaller `C`."
        )


# How a comparison is shown


def _to_text(comparison: PoolingComparison) -> str:
    """Return a table for a terminal: a line for each pooling, best first."""
    return "\n".join([*_head(comparison), "", *aligned(_table(comparison)), "", *_foot(comparison)])


def _to_html(comparison: PoolingComparison) -> str:
    """Return a table for a notebook."""
    escape = html.escape
    header, *rows = _table(comparison)
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    for name, *cells in rows:
        mark = f' style="color: {BEST_COLOUR}"' if name == comparison.best else ""
        lines.append(f"<th{mark}>{escape(name)}</th>" + "".join(f"<td{mark}>{cell}</td>" for cell in cells))
    head = "".join(f"<p>{escape(line)}</p>" for line in _head(comparison))
    foot = "".join(f"<p>{escape(line)}</p>" for line in _foot(comparison))
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return f"<div>{head}<table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table>{foot}</div>"


def _table(comparison: PoolingComparison) -> list[list[str]]:
    """Return the header and a row for each pooling."""
    rows = [["pooling", "width", comparison.metric, "±", "accuracy", "vs best", "95 % interval", "p"]]
    for name in comparison.scores:
        rows.append(
            [
                name,
                str(comparison.widths[name] or "–"),
                f"{comparison.means[name]:.3f}",
                f"{comparison.spreads[name]:.3f}",
                f"{np.mean(comparison.accuracies[name]):.3f}",
                *_difference(comparison, name),
                _p(comparison, name),
            ]
        )
    return rows


def _difference(comparison: PoolingComparison, name: str) -> tuple[str, str]:
    found = comparison.differences[name]
    return ("", "") if found is None else (f"{found[0]:+.3f}", f"{found[1]:+.3f} … {found[2]:+.3f}")


def _p(comparison: PoolingComparison, name: str) -> str:
    p = comparison.p_values[name]
    if p is None:
        return "best"
    if np.isnan(p):
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _score_name(comparison: PoolingComparison) -> str:
    return comparison.metric if comparison.positive is None else f"{comparison.metric} of {comparison.positive!r}"


def _head(comparison: PoolingComparison) -> list[str]:
    counts = sorted(comparison.class_counts.items(), key=lambda item: -item[1])
    classes = ", ".join(f"{name} {count:,}" for name, count in counts[:_CLASSES_SHOWN])
    more = f" and {len(counts) - _CLASSES_SHOWN} more" if len(counts) > _CLASSES_SHOWN else ""
    cuts = f"{comparison.folds} folds" + (f", cut {comparison.repeats} times" if comparison.repeats > 1 else "")
    return [
        f"{comparison.texts:,} texts in {comparison.groups:,} groups; {len(counts)} classes: {classes}{more}",
        f"{_score_name(comparison)} of a logistic regression on each pooling's embeddings, mean ± standard deviation "
        f"over {cuts}",
    ]


def _foot(comparison: PoolingComparison) -> list[str]:
    return [
        "Interval and p: corrected resampled t-test. With few folds it is weak: a large p does not say equal.",
        str(comparison.recommend()),
        *comparison.notes,
    ]
