"""Kill commands while they run, again and again, and look at what they leave.

    python -m tests.fuzz.kills --command train --kills 50

Half of the kills come at a random time, half at a random call that touches the disk. After each, the old output or the
new must be there, whole; the next run begins where this one was killed. In the end one run is let be: its output must
be whole, and nothing must lie beside it. Every run is a copy of this process, which has imported TensorFlow only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.fuzz.disk import calls, in_a_child, kill, trouble_at

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = str(ROOT / "tests" / "fixtures" / "bert_v4_like" / "saved_model")
WORDS = ["the", "river", "is", "good", "a", "great", "bank", "hello", "I", "will", "want", "an", "apple"]
COMMANDS = ("embed .npy", "embed .npz", "embed .parquet", "embed .jsonl", "train", "import", "export")


def make(command: str, folder: Path) -> Callable[[Path], int]:
    """Return what writes the output of a command; its input is written to a folder."""
    choose = random.Random(0)
    texts = [" ".join(choose.choices(WORDS, k=5)) for _ in range(60)]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    (folder / "texts.tsv").write_text("".join(f"{i % 2}\t{text}\n" for i, text in enumerate(texts)))
    name, _, _ = command.partition(" ")

    def run(output: Path) -> int:
        if name == "export":
            from keras_bert_trend import BertEncoder

            BertEncoder.from_handle(MODEL).export_hugging_face(output, overwrite=True)
            return 0
        from keras_bert_trend.cli import main

        options = {
            "embed": [folder / "texts.txt", "--model", MODEL, "--pooling", "mean", "--chunk-size", 5],
            "train": [folder / "texts.tsv", "--model", MODEL, "--pooling", "mean", "--epochs", 1, "--freeze-bert"],
            "import": [MODEL],
        }[name]
        return main([name, *map(str, options), "--output", str(output), "--overwrite"])

    return run


def content(command: str, output: Path) -> object:
    """Return what can be compared of an output, and read what can be read of it; `None` if it is not there."""
    if not output.exists():
        return None
    if output.is_file():
        return output.read_bytes()
    for file in output.rglob("*"):
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None, file
    for folder in {"import": [output / "encoder"], "export": [output]}.get(command, []):
        from keras_bert_trend.sources import load_source

        assert dict(load_source(folder).weights)
    return sorted(
        (str(file.relative_to(output)), file.is_dir() or file.stat().st_size > 0) for file in output.rglob("*")
    )


def run_and_kill(command: str, count: int, seed: int) -> str:
    """Run a command until it was killed so many times; return a report."""
    import tensorflow_text  # noqa: F401

    import keras_bert_trend.embedding  # noqa: F401

    choose = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        given, place = Path(scratch) / "in", Path(scratch) / "out"
        given.mkdir(), place.mkdir()
        run, output = make(command, given), place / f"output{command.partition(' ')[2]}"

        def measured() -> int:
            with trouble_at(0, kill, place):
                status = run(output)
            (given / "calls").write_text(str(calls()))
            return status

        begin = time.monotonic()
        assert quietly(measured) == 0, "it does not run undisturbed"
        seconds, number = time.monotonic() - begin, int((given / "calls").read_text())
        whole = in_a_child_asked(lambda: content(command, output))
        killed = finished = 0
        while killed < count:
            at_a_call = killed % 2
            call, delay = choose.randrange(1, number + 1), choose.uniform(0, seconds)

            def attempt(at_a_call=at_a_call, call=call, delay=delay) -> int:
                if not at_a_call:
                    threading.Timer(delay, kill).start()
                with trouble_at(call if at_a_call else 0, kill, place):
                    return run(output)

            status = quietly(attempt)
            killed, finished = killed + (status == -signal.SIGKILL), finished + (status == 0)
            assert status in (0, -signal.SIGKILL), f"after {killed} kills, it fails with {status}"
            found = in_a_child_asked(lambda: content(command, output))
            assert found == whole, f"after kill {killed}, {'call' if at_a_call else 'delay'} {call} {delay}: {found}"
        assert quietly(lambda: run(output)) == 0, "it does not run after the last kill"
        assert in_a_child_asked(lambda: content(command, output)) == whole
        left = sorted(os.listdir(place))
        assert left == [output.name], f"left behind: {left}"
    return f"{command}: {killed} killed of {killed + finished}, {number} calls, {seconds:.1f} s each: nothing lost"


def quietly(function: Callable[[], int]) -> int:
    """Call a function in a process of its own, which prints nothing; return its exit status."""

    def run() -> int:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        return function()

    return in_a_child(run)


def in_a_child_asked(function: Callable[[], object]) -> str:
    """Return the `repr` of what a function returns in a process of its own: this one must not run TensorFlow."""
    with tempfile.NamedTemporaryFile() as file:
        status = in_a_child(lambda: Path(file.name).write_text(repr(function())) and 0)
        assert status == 0, f"what was written cannot be read: {status}"
        return Path(file.name).read_text()


def main() -> None:
    """Run from the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", choices=COMMANDS, nargs="+", default=COMMANDS)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for command in arguments.command:
        print(run_and_kill(command, arguments.kills, arguments.seed), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
