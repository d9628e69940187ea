"""Labelled rows split, and predicted classes scored. Needs the extra `compare`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from keras_bert_trend.cli.options import UsageError

try:
    import matplotlib  # noqa: F401  (if it is missing, say so before training)
    from sklearn import metrics, model_selection
except ImportError as error:
    raise ImportError('This needs scikit-learn and matplotlib: pip install "keras_bert_trend[compare]".') from error


def split(rows: Sequence[tuple[str, ...]], share: float, seed: int) -> tuple[list, list]:
    """Split rows of a label and texts into a training and a validation part, with the same share of every class.

    Rows with the same texts, counted with the class of the first, stay together: no text is in both parts.

    Args:
        rows: sequence of tuples. A label, and one or two texts.
        share: float. The share of the validation part.
        seed: int. The seed of the draw.

    Raises:
        UsageError: if a class has a single text.
        ValueError: if a part would be too small to have every class.
    """
    label_of: dict[tuple[str, ...], str] = {}
    for row in rows:
        label_of.setdefault(row[1:], row[0])
    counts = Counter(label_of.values())
    single = [label for label in {row[0] for row in rows} if counts[label] < 2]
    if single:
        raise UsageError(
            f"The class {single[0]!r} has fewer than two different texts, so it cannot be split. Add texts, or leave "
            "the class out."
        )
    _, held_out = model_selection.train_test_split(
        list(label_of), test_size=share, random_state=seed, stratify=list(label_of.values())
    )
    held_out = set(held_out)
    return [row for row in rows if row[1:] not in held_out], [row for row in rows if row[1:] in held_out]


def score(true: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Return the accuracy, the macro F1, the scores of each class (0 if undefined), and the confusion matrix.

    Args:
        true: sequence of int. The class of each text, an index into `names`.
        predicted: sequence of int. The predicted class of each text.
        names: sequence of str. The names of the classes.
    """
    indices = range(len(names))
    columns = metrics.precision_recall_fscore_support(true, predicted, labels=indices, zero_division=0)
    keys = ("precision", "recall", "f1", "support")
    return {
        "accuracy": float(metrics.accuracy_score(true, predicted)),
        "macro_f1": float(columns[2].mean()),
        "classes": {
            name: dict(zip(keys, (float(p), float(r), float(f), int(n)), strict=True))
            for name, p, r, f, n in zip(names, *columns, strict=True)
        },
        "confusion": metrics.confusion_matrix(true, predicted, labels=indices).tolist(),
    }


def table(scores: dict[str, Any]) -> str:
    """Return the scores as a table for a terminal."""
    width = max(len("macro F1"), *(len(name) for name in scores["classes"]))
    lines = [f"{'class':{width}}  precision  recall     F1  texts"]
    for name, row in scores["classes"].items():
        lines.append(
            f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}  {row['support']:5}"
        )
    return "\n".join(
        [*lines, f"{'accuracy':{width}}  {scores['accuracy']:.4f}", f"{'macro F1':{width}}  {scores['macro_f1']:.4f}"]
    )


def draw_confusion(scores: dict[str, Any]):
    """Return a `matplotlib.figure.Figure` of the confusion matrix, with a row for each true class."""
    import numpy as np
    from matplotlib.figure import Figure

    names = list(scores["classes"])
    size = 3.5 + 0.5 * len(names)
    figure = Figure(figsize=(size, size * 0.85), layout="constrained")
    axes = figure.subplots()
    display = metrics.ConfusionMatrixDisplay(np.array(scores["confusion"]), display_labels=names)
    display.plot(ax=axes, cmap="Blues", xticks_rotation="vertical" if len(names) > 6 else "horizontal")
    axes.set_title(f"accuracy {scores['accuracy']:.3f}, macro F1 {scores['macro_f1']:.3f}")
    return figure
