"""Which pooling suits which problem: `compare_poolings` on spam, question types and film reviews, BERT frozen.

Compares all poolings, and the mean beside `smooth_trend`. Spam is scored by the F1 of spam, film reviews by the F1 of
label 1, question types by the macro-F1. `--data` takes tab-separated files with a header: label, text.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import sklearn

from benchmarks import report
from benchmarks.harness import ROOT
from keras_bert_trend import POOLING_NAMES, BertTrend, __version__, compare_poolings

NAMES = ("sms_spam", "trec_questions", "sst2_train_sample")
DATA = [ROOT.parent / "shared" / "data" / f"{name}.tsv" for name in NAMES]


def main(argv: list[str]) -> int:
    """Compare on every data set, and print the tables."""
    parser = argparse.ArgumentParser(prog="run.py compare_poolings", description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, default=DATA)
    parser.add_argument("--handle", default="minilm")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--C", type=float, default=1.0, help="of the logistic regression (default: 1)")
    options = parser.parse_args(argv)
    layer = BertTrend(options.handle, pooling="mean", sequence_length=None, truncate=True, trainable=False)
    versions = f"keras_bert_trend {__version__}, keras {keras.__version__}, scikit-learn {sklearn.__version__}"
    print(f"{versions}; {report.machine()}; {options.handle}, C={options.C:g}")
    for path in options.data:
        rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
        labels, texts = zip(*rows, strict=True)
        choice = {"poolings": [*POOLING_NAMES, ["mean", "smooth_trend"]], "folds": options.folds}
        choice |= {"repeats": options.repeats, "C": options.C, "show_progress": None}
        print(f"\n{path.stem}\n\n{compare_poolings(texts, labels, layer, **choice)}", flush=True)
    return 0
