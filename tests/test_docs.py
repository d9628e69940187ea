"""What the documents say is what happens: README's code runs, its commands are CI's, docstrings' examples hold."""

import doctest
import importlib
import os
import re
import subprocess
import sys

import pytest

import keras_bert_trend
from tests.common import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command():
    (command,) = (line for line in README.split("\n") if line.endswith("-m pytest"))
    assert command in (ROOT / ".ci" / "run").read_text().split("\n")
    assert command in (ROOT / "CONTRIBUTING.md").read_text().split("\n")


def test_the_readmes_python_runs(minilm_installed, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 11
    checks = """
assert seen["attention_scores"][0].shape == (1, 12, 16, 16)
assert seen["attention_received"].shape == (1, 6, 12, 16)
assert seen["encoder_outputs"][3].shape == seen["embedding_output"].shape == (1, 16, 384)
assert seen["sentence_embedding"].shape == (1, 384)
assert (explanation.anchor.text, explanation.related.text) == ("want", "i")
assert (word, start, end, vector.shape) == ("bank", 22, 26, (50,))
assert heads.attention.shape == (6, 12, len(heads.tokens), len(heads.tokens))
assert vectors.shape == (3, 384) and chunk.shape == (2, 384)
assert set(comparison.scores) == {"mean", "cls", "mean + trend", "majority class"}
assert [weight.path for weight in mixed.trainable_weights] == [mixed.pooling.mix.path]
cosines = similarity(vectors)
assert cosines[0, 2] > cosines[0, 1]
"""
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks) + checks)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert (tmp_path / "spam.keras").is_file()
    for name in ("apple.png", "head.png", "heads.png", "attention.html", "poolings.png"):
        assert (tmp_path / name).is_file()
    for folder in ("spam_saved_model", "my_bert", "my_preprocessing"):
        assert (tmp_path / folder / "saved_model.pb").is_file()


def test_the_readme_names_every_pooling():
    table = README[README.index("## Poolings") : README.index("The **anchor**")]
    assert set(keras_bert_trend.POOLING_NAMES) <= set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "module",
    [
        "encoder.bert_encoder",
        "preprocessing.preprocessor",
        "layer",
        "pooling.base",
        "embedding.embed",
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
    import keras
    import numpy

    results = doctest.testmod(module, extraglobs={"keras": keras, "np": numpy})
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_name_has_a_docstring_that_names_its_arguments():
    import inspect

    for name in keras_bert_trend.__all__:
        thing = getattr(keras_bert_trend, name)
        if inspect.isclass(thing):
            assert inspect.getdoc(thing), name
            own = "__init__" in vars(thing) and name != "Pooling"
            if own:
                parameters = set(inspect.signature(thing).parameters) - {"kwargs"}
                missing = {p for p in parameters if not re.search(rf"\b{p}\b", thing.__doc__)}
                assert not missing, (name, missing)
