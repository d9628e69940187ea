"""Draw the pictures of the documentation with the code as it is.

    python docs/make_pictures.py                # into docs/images
    python docs/make_pictures.py --output DIR

Needs the extras `minilm` and `compare`. The picture of the attention page needs Chromium; without it the old one stays.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keras_bert_trend import (
    BertTrend,
    LayerPooling,
    TrajectoryPooling,
    attention,
    compare_poolings,
    embed,
    explain,
    layer_walk,
)

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "He went to the bank by the river."


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    layer = BertTrend("minilm", pooling="trend", trainable=False)
    draw_figures(layer, folder)
    draw_page(layer, folder)


def draw_figures(layer: BertTrend, folder: Path) -> None:
    """Draw what matplotlib draws."""
    heads = attention(SENTENCE, layer)
    with open(ROOT / "examples" / "data" / "sms_sample.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts, labels = [row["message"] for row in rows], [row["label"] for row in rows]
    poolings = ["mean", "smooth_trend", "cls", "trend"]
    figures = {
        "explanation": explain("I want an apple.", layer).plot(),
        "attention_head": heads.plot(layer=1, head=5),
        "attention_overview": heads.plot_overview(),
        "layer_walk": layer_walk(SENTENCE, layer).plot(),
        "trajectory": draw_trajectories(texts, labels, layer),
        "comparison": compare_poolings(texts, labels, layer, poolings=poolings, show_progress=False).plot(),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")


def draw_trajectories(texts: list[str], labels: list[str], layer: BertTrend) -> Figure:
    """Draw the way of every text through the layers, in the two dimensions of a trajectory pooling adapted to them.

    The projection is linear, so that the sum over the first steps is a point on the way to the embedding.
    """
    layers = layer.encoder.config.num_layers + 1
    levels = embed(texts, layer, pooling=LayerPooling(range(layers), combine="concat")).reshape(len(texts), layers, -1)
    pooling = TrajectoryPooling(2)
    pooling.adapt([levels])
    mean, scale, kernel = map(np.array, (pooling.mean, pooling.scale, pooling.kernel))
    steps = (np.diff(levels, axis=1) - mean) / scale
    moves = np.einsum("nlh,lhd->nld", steps, kernel.reshape(*mean.shape, 2))
    paths = np.cumsum(np.pad(moves, [(0, 0), (1, 0), (0, 0)]), axis=1)
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for label, colour in (("ham", "#1f6fb2"), ("spam", "#c8501e")):
        own = paths[np.array(labels) == label]
        axes.plot(*own.transpose(2, 1, 0), color=colour, alpha=0.2, linewidth=1)
        axes.plot(*own.mean(axis=0).T, color=colour, linewidth=2.5, marker="o", label=f"{label}, mean")
        axes.scatter(*own[:, -1].T, color=colour, s=18)
    axes.set(title="From layer 0, at the origin, to the embedding: 70 messages, two dimensions, no labels used")
    axes.set(xlabel="dimension 1", ylabel="dimension 2")
    axes.legend()
    return figure


def draw_page(layer: BertTrend, folder: Path) -> None:
    """Photograph the attention page, with the mouse on "bank"."""
    sys.path.append(str(ROOT))
    from tests.chromium import Page, find_chromium

    program = find_chromium()
    if program is None:
        print("Chromium is not installed: attention_page.png stays as it is.")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / "attention.html"
        attention(SENTENCE, layer).save_html(path, layer=1, head=5)
        with Page(program, Path(scratch) / "profile", width=1040, height=740) as page:
            page.open(path)
            page.point_at("document.querySelectorAll('#tokens label')[5]")
            page.screenshot(folder / "attention_page.png")


if __name__ == "__main__":
    main()
