"""Versions that are said in several places are the same everywhere."""

import re

from keras_bert_trend import __version__
from tests.common import ROOT


def test_citation_and_changelog_name_the_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest.group(1) in (__version__, "Unreleased")


def test_ci_tests_the_oldest_versions_that_are_allowed():
    allowed = (ROOT / "setup.py").read_text(encoding="utf-8")
    tested = dict(re.findall(r"\b([a-z-]+)==([\d.]+?)(?:\.0)? ", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    assert set(tested) == {"tensorflow", "tensorflow-text", "keras"}
    for name, version in tested.items():
        assert re.search(rf'"{name}>={re.escape(version)}["<,]', allowed), (name, version)
