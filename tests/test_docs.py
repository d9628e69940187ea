"""What the documents say is what happens: the pages' code runs, their commands parse, docstrings' examples hold."""

import doctest
import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest

import keras_bert_trend
from keras_bert_trend.cli import build_parser, main
from tests import pages
from tests.common import ROOT
from tests.pages import PAGES, README

IMAGES = ROOT / "docs" / "images"
RUN = [page for page in PAGES if pages.python_blocks(page)]


# Python on the pages


@pytest.fixture
def eager_training(monkeypatch):
    """Run training steps eagerly: tracing one takes longer than everything else on a page."""
    compile_model = keras.Model.compile
    monkeypatch.setattr(keras.Model, "compile", functools.partialmethod(compile_model, run_eagerly=True))


@pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called")  # of a model loaded while `compile` is patched
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_python_on_the_pages_runs(page, minilm_installed, eager_training, monkeypatch, tmp_path_factory):
    pytest.importorskip("sklearn", reason="the extra compare is not installed")
    if page.name in pages.NEEDS:
        pytest.importorskip(pages.NEEDS[page.name], reason=f"{pages.NEEDS[page.name]} is not installed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.chdir(folder := tmp_path_factory.mktemp("page"))
    pages.run(page, folder)


def test_every_python_block_runs_or_is_marked_as_another_librarys():
    assert set(pages.CHECKS) <= {page.name for page in RUN}
    for page in PAGES:
        others = [block.info for block in pages.blocks(page) if "python" in block.info and block.info != "python"]
        assert all(".other" in info and "title=" in info for info in others), (page.name, others)


# Commands on the pages


def test_ci_runs_the_readmes_test_command():
    (command,) = (line for line in README.read_text(encoding="utf-8").split("\n") if line.endswith("-m pytest"))
    assert command in (ROOT / ".ci" / "run").read_text().split("\n")
    assert command in (ROOT / "CONTRIBUTING.md").read_text().split("\n")


def test_the_commands_on_the_pages_are_understood():
    parsed = set()
    for page in PAGES:
        for words in pages.commands(page):
            if words[:1] == ["keras-bert-trend"]:
                parsed.add(build_parser().parse_args(words[1:]).command)
            for word in words:
                assert not word.startswith("examples/") or (ROOT / word).exists(), (page.name, word)
    assert parsed == {"embed", "explain", "compare", "train", "predict", "export", "import", "info"}


@pytest.mark.parametrize("name", ["explain", "info"])
def test_quick_commands_run(name, minilm_installed, monkeypatch, tmp_path, capsys):
    (command,) = (
        words[1:]
        for words in pages.commands(ROOT / "docs" / "shell.md")
        if words[:2] == ["keras-bert-trend", name] and not {"--output", "--model"} & set(words)
    )
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    assert {"explain": "anchor        'want'", "info": "30,522"}[name] in capsys.readouterr().out


# The pages


def test_the_readme_is_short_and_speaks_of_what_everyone_has():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    assert "../shared" not in text


def test_every_pooling_is_in_the_table():
    named = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs" / "poolings.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert set(keras_bert_trend.POOLING_NAMES) <= set(named)


def test_every_public_name_is_in_the_api_reference():
    listed = re.findall(r"^::: keras_bert_trend\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(set(keras_bert_trend.__all__) - {"__version__"})


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert build.returncode == 0, build.stderr[-4000:]
    nav = (ROOT / "mkdocs.yml").read_text()
    assert all(page.name in nav for page in PAGES if page != README)


def test_the_pictures_are_drawn_by_the_code(minilm_installed, tmp_path):
    pytest.importorskip("sklearn", reason="the extra compare is not installed")
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    make_pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_pictures)
    layer = keras_bert_trend.BertTrend("minilm", pooling="trend", trainable=False)
    make_pictures.draw_figures(layer, tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()} | {"attention_page.png"}  # the one that takes a browser
    shown = {name for page in PAGES for name in re.findall(r"images/(\S+?\.png)", page.read_text(encoding="utf-8"))}
    assert drawn == shown == {path.name for path in IMAGES.iterdir()}
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 800_000


# Docstrings


@pytest.mark.parametrize(
    "module",
    [
        "encoder.bert_encoder",
        "preprocessing.preprocessor",
        "layer",
        "pooling.base",
        "embedding.embed",
        "embedding.embedder",
        "inspection.explanation",
        "inspection.word_vectors",
        "inspection.attention_map",
        "inspection.layer_walk",
        "evaluation.comparison",
    ],
)
def test_docstring_examples(module, request):
    if module not in ("encoder.bert_encoder", "preprocessing.preprocessor", "pooling.base"):
        request.getfixturevalue("minilm_installed")
    module = importlib.import_module(f"keras_bert_trend.{module}")
    results = doctest.testmod(module, extraglobs={"keras": keras, "np": np})
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_name_has_a_docstring_that_names_its_arguments():
    for name in keras_bert_trend.__all__:
        thing = getattr(keras_bert_trend, name)
        if inspect.isclass(thing):
            assert inspect.getdoc(thing), name
            own = "__init__" in vars(thing) and name != "Pooling"
            if own:
                parameters = set(inspect.signature(thing).parameters) - {"kwargs"}
                missing = {p for p in parameters if not re.search(rf"\b{p}\b", thing.__doc__)}
                assert not missing, (name, missing)
