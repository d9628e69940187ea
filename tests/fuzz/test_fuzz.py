"""Edited models are refused, or read as what TensorFlow computes of them; none takes the process.

The short form runs in the suite; for texts that is `test_fast_wordpiece.py`. `pytest -m fuzz -n 0` makes 5,000 edits of
graphs and 2,000 of files, and tokenises 100,000 texts in two ways, in hours.
"""

import random

import pytest

from tests import test_fast_wordpiece
from tests.common import RECORDED, find_fixture
from tests.fuzz.runner import run

HERE = [family for family in RECORDED if find_fixture(family)]
KINDS = 150


def check(levels, first, count):
    """Make `count` edits of every level, in turns."""
    seeds = range(first, first + count)
    report = run((level, HERE[seed % len(HERE)], seed) for seed in seeds for level in levels)
    print(report)
    assert not report.bad, str(report)
    assert report.counts["refused"], str(report)
    return report


def test_a_few_edits():
    check(["graph", "files"], 0, 12)


@pytest.mark.fuzz
@pytest.mark.parametrize(("level", "count"), [("graph", 5000), ("files", 2000)])
def test_many_edits(level, count):
    report = check([level], 10_000, count)
    assert level == "files" or len(report.kinds) >= KINDS


@pytest.mark.fuzz
@pytest.mark.parametrize("lower_case", [True, False])
def test_many_texts(lower_case):
    choose = random.Random(lower_case)
    parts = [*test_fast_wordpiece.TOKENS, *" \t\n.'-#…", "a" * 100, "a" * 101, "[MASK]", "##ing", "n't"]
    for _ in range(50):
        texts = []
        for _ in range(1000):
            characters = choose.choices(test_fast_wordpiece.UNICODE, k=choose.randrange(6))
            text = choose.choices(parts, k=choose.randrange(8)) + characters
            choose.shuffle(text)
            texts.append("".join(text).encode())
        test_fast_wordpiece.check(test_fast_wordpiece.TOKENS, texts, lower_case)
