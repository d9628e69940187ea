"""Which pooling suits which problem: `compare_poolings` on spam, question types and film reviews, BERT frozen.

    python benchmarks/compare_poolings.py                              # the three data sets of ../shared/data
    python benchmarks/compare_poolings.py --data sms_spam mine.tsv     # one of them by name, and a file of yours

A file is tab-separated, label and text, with a header line. All poolings are compared, and the mean beside
`smooth_trend`. Spam is scored by the F1 of spam, film reviews by the F1 of label 1, question types by the macro-F1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import sklearn

from keras_bert_trend import POOLING_NAMES, BertTrend, __version__, compare_poolings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DATA = {name: SHARED / f"{name}.tsv" for name in ("sms_spam", "trec_questions", "sst2_train_sample")}


def main() -> None:
    """Compare on every data set, and print the tables."""
    arguments = parse_arguments()
    layer = BertTrend(arguments.handle, pooling="mean", sequence_length=None, truncate=True, trainable=False)
    versions = f"keras {keras.__version__}, scikit-learn {sklearn.__version__}"
    print(f"keras_bert_trend {__version__}, {versions}, {platform.machine()}; {arguments.handle}, C={arguments.C:g}")
    results = {}
    for data in arguments.data:
        texts, labels = read(DATA.get(data, Path(data)))
        result = compare_poolings(
            texts,
            labels,
            layer,
            poolings=[*POOLING_NAMES, ["mean", "smooth_trend"]],
            folds=arguments.folds,
            repeats=arguments.repeats,
            C=arguments.C,
            n_jobs=arguments.n_jobs,
            show_progress=None,
        )
        print(f"\n{Path(data).name}\n\n{result}", flush=True)
        results[data] = result.to_dict()
        if arguments.figures:
            arguments.figures.mkdir(parents=True, exist_ok=True)
            result.plot().savefig(arguments.figures / f"{Path(data).stem}.png")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), help=f"files, or out of {', '.join(DATA)}")
    parser.add_argument("--handle", default="minilm")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--C", type=float, default=1.0, help="of the logistic regression (default: 1, as scikit-learn)")
    parser.add_argument("--n-jobs", type=int, help="processes that fit logistic regressions")
    parser.add_argument("--figures", type=Path, help="also draw the figures into this folder")
    parser.add_argument("--json", type=Path, help="also write every fold's score here")
    return parser.parse_args()


def read(path: Path) -> tuple[list[str], list[str]]:
    """Return texts and labels."""
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    return [text for _, text in rows], [label for label, _ in rows]


if __name__ == "__main__":
    main()
