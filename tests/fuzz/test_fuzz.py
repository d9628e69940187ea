"""Edited models are refused, or read as what TensorFlow computes of them; none takes the process.

The short form runs in the suite. `pytest -m fuzz -n 0` makes 5,000 edits of graphs and 2,000 of files, in hours.
"""

import pytest

from tests.fuzz import families
from tests.fuzz.runner import run

HERE = [family for family in families.FAMILIES if families.find(family)]
KINDS = 150


def check(level, first, count):
    report = run((level, HERE[seed % len(HERE)], seed) for seed in range(first, first + count))
    print(report)
    assert not report.bad, str(report)
    assert report.counts["refused"], str(report)
    return report


@pytest.mark.parametrize(("level", "count"), [("graph", 21), ("files", 14)])
def test_a_few_edits(level, count):
    check(level, 0, count)


@pytest.mark.fuzz
@pytest.mark.parametrize(("level", "count"), [("graph", 5000), ("files", 2000)])
def test_many_edits(level, count):
    report = check(level, 10_000, count)
    assert level == "files" or len(report.kinds) >= KINDS
