"""What is written is whole or not there, and the old stays until then: whatever fails, and whenever a process ends."""

import errno
import os
import shutil
import subprocess
import sys

import filelock
import pytest

from keras_bert_trend._utils import complete_or_nothing
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


def test_what_is_not_a_leftover_stays(tmp_path):
    for name in ("out.20240131", "out.20240131/old", "out.abcdefgh", "out.abcdefgh.unfinished"):
        (tmp_path / name).mkdir()
    with complete_or_nothing(str(tmp_path / "out"), False) as path:
        os.mkdir(path)
    assert sorted(os.listdir(tmp_path)) == ["out", "out.20240131", "out.abcdefgh"]
    assert os.listdir(tmp_path / "out.20240131") == ["old"]


def test_a_disk_without_locks_is_written(tmp_path, monkeypatch):
    def no_lock(self, timeout=None):
        open(self.lock_file, "w").close()
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_lock)
    with complete_or_nothing(str(tmp_path / "out"), False) as path:
        with complete_or_nothing(str(tmp_path / "out"), False) as other:  # which takes the first for a live process
            os.mkdir(other)
        shutil.rmtree(tmp_path / "out")
        os.mkdir(path)
    assert os.listdir(tmp_path) == ["out"]


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
