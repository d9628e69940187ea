"""Do the vectors of one word tell its senses apart? "bank" in 21 sentences: an institution, a river side, to rely on.

    python examples/bank_senses.py                                    # minilm, the sum of the last four layers
    python examples/bank_senses.py --layers 0 --output runs/static    # the static embedding (word and position)
    python examples/bank_senses.py --model path/to/bert_en_uncased --layers -1

Prints how similar the 21 vectors of "bank" are (cosine), within a sense and between senses, and how often the nearest
other vector has the same sense. Draws the similarities and a map of the vectors. Needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bert_trend import similarity, word_vectors

WORD = "bank"
SENTENCES = {
    "institution": [
        "The bank charges a fee for every transfer abroad.",
        "She opened a savings account at the bank near the station.",
        "Our bank raised the interest rate on mortgages again.",
        "He works as a clerk in a small bank.",
        "The robbers escaped from the bank with two bags of cash.",
        "You can pay the cheque in at any branch of the bank.",
        "The government had to rescue the bank during the crisis.",
    ],
    "river side": [
        "We sat on the bank and watched the water flow by.",
        "The canoe was pulled up onto the muddy bank.",
        "Willows grow along the northern bank of the stream.",
        "An otter slid down the bank into the river.",
        "The flood washed away a part of the bank.",
        "He cast his fishing line from the grassy bank.",
        "They swam across to the opposite bank of the lake.",
    ],
    "rely on": [
        "You can bank on her to keep a promise.",
        "Do not bank on good weather in April.",
        "I would not bank on the train being punctual.",
        "The team can bank on the support of its fans.",
        "We bank on your help with the move next week.",
        "Never bank on luck when you have to sit an exam.",
        "They bank on winning the next election.",
    ],
}


def main() -> None:
    """Do the whole job."""
    arguments = parse_arguments()
    senses = np.repeat(list(SENTENCES), [len(sentences) for sentences in SENTENCES.values()])
    try:
        vectors = vectors_of_word(arguments.model, arguments.layers)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    cosines = similarity(vectors)
    report(cosines, senses)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "bank_senses.png"
    save_figure(draw(vectors, cosines, senses), path)
    print(f"\nwrote {path}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="what BertTrend takes: a folder, a URL, minilm (default)")
    layers = "layers to sum, 0 the embedding output, -1 the last block (default: the last four blocks)"
    parser.add_argument("--layers", type=int, nargs="+", help=layers)
    parser.add_argument("--output", type=Path, default=Path("runs/bank"), help="folder for the figure")
    return parser.parse_args()


def vectors_of_word(model="minilm", layers=None) -> np.ndarray:
    """Return the vector of "bank" in each sentence, `(21, hidden)`, in the order of `SENTENCES`."""
    texts = [text for sentences in SENTENCES.values() for text in sentences]
    found = []
    for text, words in zip(texts, word_vectors(texts, model, layers=layers), strict=True):
        vectors = [each.vector for each in words if each.word.lower() == WORD]
        if len(vectors) != 1:
            raise ValueError(f"This model does not see {WORD!r} as one word of {text!r}.")
        found += vectors
    return np.stack(found).astype("float32")


def averages(cosines: np.ndarray, senses: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the senses, and the mean cosine between sentences of each two, `(senses, senses)`."""
    names = list(dict.fromkeys(senses.tolist()))
    pairs = ~np.eye(len(senses), dtype=bool)
    table = [[cosines[np.outer(senses == a, senses == b) & pairs].mean() for b in names] for a in names]
    return names, np.array(table)


def within_and_between(cosines: np.ndarray, senses: np.ndarray) -> tuple[float, float]:
    """Return the mean cosine of two sentences with the same sense, and of two with different ones."""
    same = senses[:, None] == senses[None]
    return float(cosines[same & ~np.eye(len(senses), dtype=bool)].mean()), float(cosines[~same].mean())


def nearest_neighbours(cosines: np.ndarray) -> np.ndarray:
    """Return the position of the other vector that is most similar to each."""
    others = cosines.astype("float64")  # a copy
    np.fill_diagonal(others, -np.inf)
    return others.argmax(axis=1)


def report(cosines: np.ndarray, senses: np.ndarray) -> None:
    """Print the similarities, their averages, and the senses of the nearest neighbours."""
    names, means = averages(cosines, senses)
    neighbours = nearest_neighbours(cosines)
    right = senses[neighbours] == senses
    table = Table(title=f'How similar the vector of "{WORD}" is to those of each sense: mean cosine')
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("nearest vector's sense")
    number = 0
    for name, row in zip(names, means, strict=True):
        for text in SENTENCES[name]:
            others = np.arange(len(senses)) != number
            cells = [f"{cosines[number, others & (senses == other)].mean():.3f}" for other in names]
            nearest = senses[neighbours[number]]
            table.add_row(text, *cells, nearest if right[number] else f"{nearest} (wrong)")
            number += 1
        table.add_row(f"all: {name}", *(f"{value:.3f}" for value in row), style="bold", end_section=True)
    Console().print(table)

    within, between = within_and_between(cosines, senses)
    print(f"within a sense {within:.3f}, between senses {between:.3f}, difference {within - between:+.3f}")
    print(f"nearest vector of the same sense: {right.sum()} of {len(right)} ({right.mean():.1%})")


def draw(vectors: np.ndarray, cosines: np.ndarray, senses: np.ndarray):
    """Draw the similarities, ordered by sense, and the vectors on their two principal components."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    names = list(dict.fromkeys(senses.tolist()))
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    heat, scatter = figure.subplots(1, 2)

    image = heat.imshow(cosines, cmap="viridis", vmin=cosines.min(), vmax=1)
    figure.colorbar(image, ax=heat, label="cosine", fraction=0.046, pad=0.02)
    counts = [int(np.sum(senses == name)) for name in names]
    ends = np.cumsum(counts)
    middles = ends - np.array(counts) / 2 - 0.5
    heat.set_xticks(middles, names)
    heat.set_yticks(middles, names, rotation=90, va="center")
    heat.tick_params(length=0)
    for end in ends[:-1]:
        heat.axhline(end - 0.5, color="white", linewidth=2)
        heat.axvline(end - 0.5, color="white", linewidth=2)
    heat.set_title(f'Cosine of the vectors of "{WORD}" in {len(senses)} sentences')

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # as the cosine sees them
    pca = PCA(n_components=2, svd_solver="full")
    points = pca.fit_transform(unit)
    for name, marker, colour in zip(names, "os^", ("#0072b2", "#009e73", "#d55e00"), strict=True):
        chosen = points[senses == name]
        scatter.scatter(*chosen.T, s=70, marker=marker, color=colour, edgecolor="black", linewidth=0.6, label=name)
    shares = pca.explained_variance_ratio_
    scatter.set(xlabel=f"component 1 ({shares[0]:.0%} of variance)", ylabel=f"component 2 ({shares[1]:.0%})")
    scatter.set_title("The vectors on their two principal components")
    scatter.legend()
    return figure


def save_figure(figure, path: Path) -> None:
    """Write the figure under a temporary name first, so that the file is never half written."""
    temporary = path.with_name(f"writing_{path.name}")
    figure.savefig(temporary, dpi=100)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
