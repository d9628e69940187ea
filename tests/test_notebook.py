"""The tour runs from a clean copy of the examples, and was committed with outputs worth looking at."""

import base64
import re
import shutil

import pytest

from tests.common import ROOT
from tests.notebook import execute

nbformat = pytest.importorskip("nbformat")

TOUR = ROOT / "examples" / "tour.ipynb"
PNG = b"\x89PNG\r\n\x1a\n"

#: What the cells with these calls show.
KINDS = {
    "explanation = explain(": "text/html",
    "explanation.plot(": "image/png",
    "heads.plot(": "image/png",
    "heads.plot_overview(": "image/png",
    "heads.save_html(": "text/html",
    "layer_walk(": "image/png",
    "vectors = vectors_of_word(": "image/png",
    "comparison = compare_poolings(": "text/html",
    "comparison.plot(": "image/png",
}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook, call: str) -> list:
    (cell,) = (cell for cell in code_cells(notebook) if call in cell.source)
    return cell.outputs


def printed_by(notebook) -> str:
    return "".join(
        output.text for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "stream"
    )


def check(notebook) -> None:
    """Check what holds of the tour each time it has run."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number, "executed from top to bottom, in one kernel"
        assert cell.outputs, cell.source
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), output
            assert output.get("name") != "stderr", output.get("text")
    for call, kind in KINDS.items():
        shown = outputs_of(notebook, call)[-1].data
        assert kind in shown
        assert shown["text/plain"]
        if kind == "image/png":
            assert base64.b64decode(shown[kind]).startswith(PNG)


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(TOUR, as_version=4)


def test_it_was_committed_executed(stored):
    nbformat.validate(stored)
    check(stored)


def test_its_outputs_are_small_and_say_nothing_of_the_machine(stored):
    assert TOUR.stat().st_size < 1_000_000
    text = TOUR.read_text(encoding="utf-8")
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"(?<![\w.<])/(tmp|home|Users|root|work|usr|opt|var|private)\b", text)
    assert not re.search(r"[A-Z]:\\\\", text)
    assert not re.search(r"\b0x[0-9a-f]{6,}", text), "an object's address changes each time"
    assert not any(cell.metadata for cell in stored.cells), "times change each time"


def test_it_runs_from_a_clean_copy(minilm_installed, tmp_path):
    for name in ("nbclient", "ipykernel", "matplotlib", "sklearn"):
        pytest.importorskip(name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted((tmp_path / "examples").rglob("*"))
    executed = execute(tmp_path / "examples" / "tour.ipynb")
    check(executed)
    printed = printed_by(executed)
    right, of = map(int, re.search(r"^(\d+) of (\d+) right", printed, flags=re.MULTILINE).groups())
    assert of == 14
    assert right >= 12  # 11 are ham: so many are right who always say so
    assert "the loaded .keras file says the same to 1e-5: True" in printed
    assert sorted(path.name for path in (tmp_path / "runs" / "tour").iterdir()) == [
        "attention.html",
        "bank.png",
        "spam.keras",
        "spam_saved_model",
    ]
    after = [path for path in sorted((tmp_path / "examples").rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


@pytest.mark.parametrize("start", [".", "examples", "examples/data"])
def test_it_finds_the_repository_wherever_it_is_started(stored, start, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    shutil.copy(TOUR, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / start)
    names: dict = {}
    for cell in code_cells(stored)[:2]:
        exec(cell.source, names)
    assert names["ROOT"] == tmp_path
    assert len(names["messages"]) == 70
