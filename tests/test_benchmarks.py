"""The benchmarks' own sums: who runs when, what a ratio is, what is refused; and the GPU benchmark as a toy."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import report
from benchmarks.checks import Checks
from benchmarks.harness import Contender, Task, Worker, WorkerError, orders, run_interleaved
from benchmarks.peers.base import in_order, mean_of_tokens, pad
from benchmarks.run import read_texts
from benchmarks.tasks import TASKS
from tests.common import ROOT, run_fresh

CONFIG = {"hidden_size": 4, "intermediate_size": 16, "num_layers": 2}
OPTIONS = SimpleNamespace(
    poolings=None, batch_size=2, batches=[1, 2], lengths=[16, 32], layers=[1, 12], saved_model=None
)
FACTS = {"tokens": [5, 60, 7, 8], "config": CONFIG, "encoder": "encoder", "preprocessing": "preprocessing"}
# A process in which TensorFlow cannot be imported, as where it is not installed.
WITHOUT_TENSORFLOW = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_text", "tensorflow_hub"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def record(label: str, seconds: list[float], **more) -> dict:
    return {label: [{"seconds": one, "cpu_seconds": one, "others": 0.25, **more} for one in seconds]}


def make_task(records: dict, **more) -> dict:
    task = {"title": "A title", "references": {"ours": "ours"}, "tokens": 60, "flops": 0, "limits": {}, "notes": []}
    return {**task, "fresh": False, "records": records, **more}


def test_every_contender_has_its_turn_once_a_round_and_not_always_in_the_same_place():
    rounds = orders("abcde", 40, seed=3)
    assert all(sorted(order) == list("abcde") for order in rounds)
    for label in "abcde":
        assert len({order.index(label) for order in rounds}) == 5
    assert rounds == orders("abcde", 40, seed=3)


class FakeWorker:
    """Stands for a peer's process: counts what it is asked."""

    def __init__(self, peer: str, log: list) -> None:
        self.peer, self.log = peer, log
        log.append((peer, "start"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.append((self.peer, "end"))

    def make(self, contender, warm_up=2, output=None):
        self.log.append((contender.label, "make", warm_up))

    def measure(self, label):
        self.log.append((label, "measure"))
        return {"seconds": 1.0}


@pytest.mark.parametrize("fresh", [False, True])
def test_peers_share_a_process_unless_each_repetition_has_its_own(fresh, tmp_path):
    log = []
    contenders = [Contender("a", "x", "embed"), Contender("b", "x", "embed"), Contender("c", "y", "embed")]
    task = Task("A title", contenders, {}, fresh=fresh)
    records = run_interleaved(task, 3, lambda peer: FakeWorker(peer, log), None, tmp_path)
    assert list(records) == ["a", "b", "c"]
    assert all([one["round"] for one in some] == [1, 2, 3] for some in records.values())
    assert all(sorted(records[label][i]["place"] for label in "abc") == [0, 1, 2] for i in range(3))
    # In fresh processes the first round fills the disk's cache and does not count.
    assert log.count(("a", "measure")) == (4 if fresh else 3)
    assert log.count(("x", "start")) == log.count(("x", "end")) == (8 if fresh else 1)
    assert {entry[2] for entry in log if entry[1] == "make"} == {0 if fresh else 2}


def test_a_ratio_is_taken_within_each_round():
    # Every round has its own speed: the ratio of medians would be 3, no round has that.
    assert report.ratio_of_rounds([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == pytest.approx((2.0, 2.0, 2.8))
    with pytest.raises(ValueError, match="longer"):
        report.ratio_of_rounds([1.0], [1.0, 2.0])


def test_flops_count_the_matrix_products_of_the_blocks():
    width, inner, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_layers"]

    def products(length):
        shapes = [(length, width, width)] * 4 + [(length, width, inner), (length, inner, width)]
        shapes += [(length, width, length), (length, length, width)]  # scores, and their use
        return layers * sum(2 * m * k * n for m, k, n in shapes)

    assert report.flops_of(CONFIG, [5, 9]) == products(5) + products(9)
    assert report.flops_of(CONFIG, [5], training=True) == 3 * products(5)


def test_share_of_the_limit_uses_the_faster_product_of_the_same_round():
    records = record("a", [2.0, 4.0]) | record("p", [1.0, 8.0]) | record("q", [3.0, 1.0])
    task = make_task(records, flops=100, limits={"p": 100, "q": 100, "not installed": 100})
    assert report.shares_of_limit(task, "a") == pytest.approx([1 / 2, 1 / 4])


def cells(text: str, label: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_report_has_times_and_ratios(tmp_path):
    records = record("ours", [1.0, 2.0, 3.0]) | record("peer", [2.0, 4.0, 6.0]) | record("product", [1e-9] * 3)
    references = {"ours": "ours", "who did not run": "absent"}
    task = make_task(records, references=references, limits={"product": 100}, notes=["A note."])
    results = {**report.new_results("a_run"), "versions": {"ours": {"keras": "3"}}, "tasks": {"embed": task}}
    report.write(results, tmp_path / "new")
    text = (tmp_path / "new" / "a_run.md").read_text(encoding="utf-8")
    assert cells(text, "contender")[-2:] == ["share of matrix product's speed", "time ÷ ours"]
    assert cells(text, "peer")[:4] == ["peer", "4.0000", "4.0000", "15"]
    assert cells(text, "peer")[-1] == "2.00 (2.00 … 2.00)"
    assert cells(text, "product")[3:] == ["100 GFLOP/s", "", ""]
    assert "3 rounds" in text
    assert "25%" in text
    assert "A note." in text
    assert json.loads((tmp_path / "new" / "a_run.json").read_text(encoding="utf-8"))["tasks"]["embed"] == task


def test_report_of_fresh_processes_has_memory_above_the_imports():
    mebibyte = 2**20
    records = record("ours", [1.0], peak=300 * mebibyte, kept=250 * mebibyte, held=200 * mebibyte)
    records |= record("peer", [3.0], peak=500 * mebibyte, kept=400 * mebibyte, held=300 * mebibyte)
    row = cells(report.task_table(make_task(records, fresh=True)), "peer")
    assert row[4:] == ["500", "200", "100", "3.00 (3.00 … 3.00)", "2.00 (2.00 … 2.00)"]


@pytest.mark.parametrize("group", ["mean", "trend"])
def test_a_contender_with_other_numbers_does_not_take_part(group, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    checks = Checks()

    def check(label, array, check=group):
        np.savez(tmp_path / "result.npz", result=array)
        checks(Contender(label, "ours", "embed", {}, check), tmp_path / "result.npz")

    check("ours", vectors)
    check("same", vectors + 1e-5)
    assert checks.differences["same"] == pytest.approx(1e-5, rel=0.1)
    for wrong in (vectors + 1e-3, np.full_like(vectors, np.nan), vectors[:2]):
        with pytest.raises(ValueError, match="wrong"):
            check("wrong", wrong)
    if group == "mean":
        check("normalized", vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "normalized")
        with pytest.raises(ValueError, match="wrong"):
            check("wrong", vectors, "normalized")


def test_training_that_leaves_weights_as_they_are_is_refused(tmp_path):
    trained = {"loss": np.array([0.7]), "moved": np.array([True, True])}
    contender = Contender("fit", "ours", "train", {}, "train")
    for wrong in ({"moved": np.array([True, False])}, {"loss": np.array([np.nan])}):
        np.savez(tmp_path / "result.npz", **{**trained, **wrong})
        with pytest.raises(ValueError, match="fit: "):
            Checks()(contender, tmp_path / "result.npz")
    np.savez(tmp_path / "result.npz", **trained)
    Checks()(contender, tmp_path / "result.npz")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_distinct_labels_and_references_among_them(name):
    task = TASKS[name](OPTIONS, FACTS)
    labels = [contender.label for contender in task.contenders]
    assert len(set(labels)) == len(labels)
    for reference in task.references.values():
        assert {reference} <= set(labels) if isinstance(reference, str) else set(reference) == set(labels)
    if isinstance(task.tokens, dict):
        assert set(task.tokens) == set(labels)


def test_a_worker_that_fails_says_why(tmp_path):
    with pytest.raises(WorkerError, match="nobody"):
        Worker("nobody", sys.executable, tmp_path, 1)


def test_texts_come_from_all_over_the_file_and_are_ascii(tmp_path):
    path = tmp_path / "texts.tsv"
    path.write_text("Label\tSMS\n" + "".join(f"ham\ttext {i}\n" for i in range(10)), encoding="utf-8")
    assert read_texts(path, 3) == ["text 0", "text 3", "text 6"]
    assert len(read_texts(path, 25)) == 25
    path.write_text("Label\tSMS\nham\tcafé\nham\tcoffee\n", encoding="utf-8")
    assert read_texts(path, 2) == ["coffee", "coffee"]


def test_batches_come_back_in_order_and_padding_changes_no_mean():
    vectors = np.arange(8.0).reshape(4, 2)
    assert np.array_equal(in_order([(np.array([3, 0]), vectors[[3, 0]]), (np.array([1, 2]), vectors[1:3])]), vectors)
    ids, mask = pad([[5], [7, 8, 9]])
    assert ids.tolist() == [[5, 0, 0], [7, 8, 9]]
    hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    expected = np.stack([hidden[0, 0], hidden[1].mean(axis=0)])
    assert np.allclose(mean_of_tokens(hidden, mask.astype(np.float32)), expected, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_encoder_and_trend_pooling_run_where_tensorflow_is_not_installed():
    code = """
    import jax, numpy as np
    from keras_bert_trend import BertConfig, BertEncoder, BertTrend, TrendPooling
    config = BertConfig(vocab_size=9, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
    layer = BertTrend(encoder=BertEncoder(config), pooling=TrendPooling([1, 2, 0, 0, 0, 0, 0, 0, 0]), trainable=False)
    ids = np.array([[1, 2, 3, 4]])
    inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
    weights = [[v.value for v in part] for part in (layer.trainable_variables, layer.non_trainable_variables)]
    vector = jax.jit(lambda w: layer.stateless_call(*w, inputs)[0])(weights)
    print(vector.shape, bool(np.isfinite(vector).all()), "tensorflow" in sys.modules)
    """
    printed = run_fresh(WITHOUT_TENSORFLOW + textwrap.dedent(code), KERAS_BACKEND="jax")
    assert printed.strip() == "(1, 8) True False"


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "torch")), reason="needs JAX and PyTorch"
)
def test_gpu_benchmark_runs_without_tensorflow(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    toy = {"model": "tiny", "batches": 2, "lengths": 8, "rounds": 2, "calls": 2, "matmul": 64}
    arguments = [f"--{name}={value}" for name, value in {**toy, "output": tmp_path / "results"}.items()]
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "gpu", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-4000:]
    text = (tmp_path / "results" / "gpu.md").read_text(encoding="utf-8")
    assert text.count("| ours, trend |") == text.count("| PyTorch |") == 2
