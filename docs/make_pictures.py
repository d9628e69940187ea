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

from keras_bert_trend import BertTrend, attention, compare_poolings, explain, layer_walk

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
        "comparison": compare_poolings(texts, labels, layer, poolings=poolings, show_progress=False).plot(),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")


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
