"""The code on the documentation's pages, and what must hold after it has run."""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.common import ROOT, V4

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

# Pages that train or export without showing a number: they run on a small recorded BERT in place of MiniLM.
SMALL = {"quick_start.md", "classify.md", "save_and_serve.md", "tutorials.md"}

# Pages whose code needs a library that the tests do not install.
NEEDS = {"search.md": "faiss"}

# What must hold after a page has run, in its own names.
CHECKS = {
    "README.md": """
assert inside["attention_scores"][0].shape == (1, 12, 16, 16)
assert inside["attention_received"].shape == (1, 6, 12, 16)
assert inside["encoder_outputs"][3].shape == inside["embedding_output"].shape == (1, 16, 384)
assert inside["sentence_embedding"].shape == (1, 384)
assert (explanation.anchor.text, explanation.related.text) == ("want", "i")
assert vectors.shape == (3, 384) and similarity(vectors)[0].argsort()[1] == 2
""",
    "quick_start.md": "assert scores.shape == loaded.predict(tf.constant(['Hello'])).shape == (1, 1)",
    "classify.md": "assert probabilities.shape == (2, 6) and len(pairs.inputs) == 2",
    "rank.md": 'assert best == "Jane Austen was born in Steventon, Hampshire."',
    "embed.md": """
assert messages[order[0]] == "Win a prize now"
assert small.dtype == "int8" and set(both) == {"mean", "cls"} and chunk.shape == (2, 384)
assert (word, span, vector.shape) == ("bank", (22, 26), (50,))
""",
    "search.md": """
assert [messages[row] for row in rows[0]] == ["You have won a prize!"] and index.ntotal == 12
""",
    "poolings.md": """
assert family(["I want an apple."]).shape == (1, 384) and tokens(["I want an apple."]).shape == (1, 32, 384)
assert set(comparison.scores) == {"mean", "cls", "mean + trend", "majority class"}
assert [weight.path for weight in mixed.trainable_weights] == [mixed.pooling.mix.path]
""",
    "look_inside.md": """
assert (explanation.anchor.text, explanation.anchor.span) == ("want", (2, 6))
assert heads.attention.shape == (6, 12, 14, 14) and len(heads.tokens) == 14
assert walk.steps.shape == (6, 8)
""",
    "open_any_bert.md": "assert len(outputs['attention_scores']) == len(outputs['encoder_outputs']) == 6",
    "fine_tune.md": "assert blocks == 24 and adapted == 73_728 and layer.dtype_policy.name == 'mixed_bfloat16'",
    "save_and_serve.md": """
assert answer["probability"].shape == (2, 1) and answer["label"].numpy()[0] in (b"ham", b"spam")
assert served.embed(tf.constant(["Win a prize now"]))["embedding"].shape == (1, layer.embedding_dim)
assert encoder.config == layer.encoder.config and preprocessor.sequence_length == 128
""",
    "tutorials.md": """
assert results.shape == (2, 1) and similarities.shape == (3, 3)
packed, label = next(iter(dataset))
assert packed["input_word_ids"].shape == (2, 32) and packed["input_type_ids"].numpy().max() == 1
""",
    "migrate.md": "assert outputs['sequence_output'].shape == (1, 128, 384) and scores.shape == (2, 2)",
}


class Block(NamedTuple):
    """A fenced block: what stands behind its fence, its lines, and the number of the first of them."""

    info: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found, text = [], page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        found.append(Block(match.group(1).strip(), match.group(2), text[: match.start(2)].count("\n") + 1))
    return found


def python_blocks(page: Path) -> list[Block]:
    """Return the blocks that must run; another library's code is marked `.other`."""
    return [block for block in blocks(page) if block.info == "python"]


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command in the shell blocks; of a pipe each part."""
    lines = [line for block in blocks(page) if block.info == "bash" for line in block.text.splitlines()]
    parts = [part for line in lines for part in re.split(r" \| | && ", line)]
    return [shlex.split(part, comments=True) for part in parts]


def run(page: Path, folder: Path) -> None:
    """Run a page's blocks in one namespace and a folder that holds the repository's examples; check the result."""
    names = {"__name__": "__main__"}
    os.symlink(ROOT / "examples", folder / "examples")
    for block in python_blocks(page):
        text = block.text.replace('"minilm"', repr(str(V4))) if page.name in SMALL else block.text
        # Empty lines before it, so that a traceback shows the line of the page.
        exec(compile("\n" * (block.line - 1) + text, page, "exec"), names)
    exec(CHECKS.get(page.name, ""), names)
    assert os.listdir(folder) == ["examples"], f"{page.name} leaves files behind: {os.listdir(folder)}"
