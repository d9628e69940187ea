"""What is written is whole or not there, and the old stays until then: whatever fails, and whenever a process ends."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.common import ROOT, run_fresh
from tests.fuzz import disk, kills
from tests.test_cli import run
from tests.test_cli_embed import SUFFIXES, _loaded_once, file, layer  # noqa: F401  (fixtures)

KINDS = ("file", "folder")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are not copied on Windows")


MATRIX = [(new, old, exchanges) for new in KINDS for old in (None, *KINDS) for exchanges in (True, False)]
MAIN = [("folder", "folder", True), ("folder", "folder", False), ("file", "file", True)]


@pytest.mark.parametrize(
    "case", [*MAIN, *(pytest.param(case, marks=pytest.mark.fuzz) for case in MATRIX if case not in MAIN)], ids=str
)
def test_old_or_new_whatever_happens(case):
    assert int(run_fresh(f"from tests.fuzz.disk import every_trouble; print(every_trouble{case})")) > 10


@pytest.mark.parametrize("trouble", [disk.fail, disk.interrupt])
@pytest.mark.parametrize(
    ("suffix", "places"),
    [(".npz", 5), *(pytest.param(suffix, None, marks=pytest.mark.fuzz) for suffix in SUFFIXES)],
)
def test_embed_goes_on_from_every_call_that_fails(suffix, places, trouble, file, capsys, tmp_path):  # noqa: F811
    options = ("--chunk-size", 4, "--pooling", "mean", "--precision", "int8" if suffix == ".npz" else "float32")
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ("embed", file, "--output", folder / f"vectors{suffix}", *options)
    with disk.trouble_at(0, trouble, folder):
        assert run(capsys, *arguments)[0] == 0
    expected, count = arguments[3].read_bytes(), disk.calls()
    assert count > 40
    for place in range(1, count + 1, count // places if places else 1):
        shutil.rmtree(folder)
        folder.mkdir()
        with disk.trouble_at(place, trouble, folder):
            status = run(capsys, *arguments)[0]
        if arguments[3].exists():
            assert arguments[3].read_bytes() == expected, place
        else:
            assert status in (1, 130), place
        status, _, err = run(capsys, *arguments, "--overwrite")
        assert status == 0, (place, err)
        assert arguments[3].read_bytes() == expected, place
        assert os.listdir(folder) == [arguments[3].name], place


@pytest.mark.parametrize(
    ("command", "count"),
    [("embed .npy", 3), ("export", 3), *(pytest.param(name, 50, marks=pytest.mark.fuzz) for name in kills.COMMANDS)],
)
def test_killed_at_random(command, count):
    result = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kills", "--command", command, "--kills", str(count)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert f"{count} killed" in result.stdout
