"""The benchmarks' own sums: who runs when, what a ratio is, what is refused; and the GPU benchmark's way as a toy."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from benchmarks.peers import tasks
from benchmarks.peers.checks import Checks
from benchmarks.peers.common import markdown_table, quantile, ratio_of_rounds, read_texts, write_json
from benchmarks.peers.harness import Contender, Worker, WorkerError, orders
from benchmarks.peers.report import as_markdown, flops_per_token, shares_of_limit
from tests.common import ROOT, run_fresh

CONFIG = {"hidden_size": 4, "intermediate_size": 16, "num_layers": 2}
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
    return {label: [{"seconds": one, "cpu_seconds": one, **more} for one in seconds]}


def test_every_contender_has_its_turn_once_a_round_and_not_always_in_the_same_place():
    rounds = orders("abcde", 40, seed=3)
    assert all(sorted(order) == list("abcde") for order in rounds)
    for label in "abcde":
        assert len({order.index(label) for order in rounds}) == 5
    assert rounds == orders("abcde", 40, seed=3)


def test_a_ratio_is_taken_within_each_round():
    # Every round has its own speed: the ratio of medians would be 3, no round has that.
    assert ratio_of_rounds([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == pytest.approx((2.0, 2.0, 2.8))
    with pytest.raises(ValueError, match="as many rounds"):
        ratio_of_rounds([1.0], [1.0, 2.0])


def test_quantiles_are_numpys():
    values = np.random.default_rng(0).random(11).tolist()
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))


def test_flops_count_the_matrix_products_of_the_blocks():
    length, width, inner, layers = 5, CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_layers"]
    products = [(length, width, width)] * 4 + [(length, width, inner), (length, inner, width)]
    products += [(length, width, length), (length, length, width)]  # scores, and their use
    whole = layers * sum(2 * m * k * n for m, k, n in products)
    assert flops_per_token(CONFIG, length) * length == whole
    assert flops_per_token(CONFIG, length, training=True) * length == 3 * whole


def test_share_of_the_limit_uses_the_faster_product_of_the_same_round():
    flops = 2 * tasks.MATMUL**3
    records = record("a", [2.0, 4.0]) | record(tasks.LIMITS[0], [1.0, 8.0]) | record(tasks.LIMITS[1], [3.0, 1.0])
    assert shares_of_limit(records, "a", flops).median == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_report_says_what_was_promised_and_what_was_measured(tmp_path):
    task = {
        "title": "A title",
        "rounds": 3,
        "references": ["ours", "ours that did not run"],
        "promises": [("ours", "peer", 1.5), ("ours", "peer", 2.5), ("ours", "peer that did not run", 9.0)],
        "work": {"tokens": 60},
        "notes": ["A note."],
        "records": record("ours", [1.0, 2.0, 3.0]) | record("peer", [2.0, 4.0, 6.0]),
    }
    results = {
        "name": "a run",
        "command": "python benchmarks/peers.py",
        "date": "today",
        "machine": {"cpu": "a CPU", "cores": 2, "system": "a system", "load_average_before": None},
        "threads": 2,
        "facts": {
            "texts": 4,
            "tokens": [15] * 4,
            "data": "x.tsv",
            "attended": 15.0,
            "batch_size": 2,
            "config": CONFIG,
        },
        "versions": {"ours": {"keras": "3"}},
        "notes": [],
        "tasks": {"embed": task},
    }
    report = as_markdown(results)
    assert "| embed: ours beside peer | 1.50 | 2.00 (2.00 … 2.00) | yes |" in report
    assert "| embed: ours beside peer | 2.50 | 2.00 (2.00 … 2.00) | no |" in report
    assert "did not run" not in report
    (row,) = [line for line in report.splitlines() if line.startswith("| peer ")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["peer", "4.0000", "4.0000", "15", "2.00 (2.00 … 2.00)"]
    write_json(tmp_path / "new" / "results.json", results)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


def test_tables_have_a_ruler_of_their_width():
    assert markdown_table(["a", "b"], [["x", 1]]).splitlines() == ["| a | b |", "| --- | ---: |", "| x | 1 |"]


@pytest.mark.parametrize("group", ["mean", "trend"])
def test_a_contender_with_other_numbers_does_not_take_part(group, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)

    def check(checks, label, array, check=group):
        np.savez(tmp_path / "result.npz", result=array)
        checks(Contender(label, "ours", "embed", {}, check), tmp_path / "result.npz")

    checks = Checks(1e-4)
    check(checks, "ours", vectors)
    check(checks, "same", vectors + 1e-5)
    assert checks.differences["same"] == pytest.approx(1e-5, rel=0.1)
    for wrong in (vectors + 1e-3, np.full_like(vectors, np.nan), vectors[:2]):
        with pytest.raises(ValueError, match="wrong"):
            check(checks, "wrong", wrong)
    if group == "mean":
        check(checks, "normalized", vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "normalized")
        with pytest.raises(ValueError, match="wrong"):
            check(checks, "wrong", vectors, "normalized")


def test_training_that_leaves_weights_as_they_are_is_refused(tmp_path):
    trained = {"loss": np.array([0.7]), "moved": np.array([True, True])}
    for wrong in ({"moved": np.array([True, False])}, {"loss": np.array([np.nan])}, {}):
        np.savez(tmp_path / "result.npz", **{**trained, **wrong})
        contender = Contender("fit", "ours", "train", {}, "train")
        if wrong:
            with pytest.raises(ValueError, match="fit: "):
                Checks(1e-4)(contender, tmp_path / "result.npz")
        else:
            Checks(1e-4)(contender, tmp_path / "result.npz")


def test_every_task_has_distinct_labels_and_promises_of_its_own_contenders():
    for task in (
        tasks.embed(list(tasks.POOLINGS), official=True),
        tasks.states(True),
        tasks.tokenize("folder", "fixture", 64),
        tasks.train(32, 48, 2),
        tasks.train_messages(2, 48, [5, 60, 7, 8]),
        tasks.serve(True),
        tasks.memory(False),
        tasks.grow("length", [16, 32], []),
        tasks.grow("pooling", [], ["mean", "trend"]),
    ):
        labels = [contender.label for contender in task.contenders]
        assert len(set(labels)) == len(labels)
        assert set(task.references) <= set(labels)
        assert {name for own, peer, _ in task.promises for name in (own, peer)} <= set(labels)


def test_a_worker_that_fails_says_why(tmp_path):
    with pytest.raises(WorkerError, match="nobody_adapter"):
        Worker("nobody", sys.executable, tmp_path, 1)


def test_texts_come_from_all_over_the_file(tmp_path):
    path = tmp_path / "texts.tsv"
    path.write_text("Label\tSMS\n" + "".join(f"ham\ttext {i}\n" for i in range(10)), encoding="utf-8")
    assert read_texts(path, 3) == ["text 0", "text 3", "text 6"]
    assert len(read_texts(path, 25)) == 25
    path.write_text("Label\tSMS\nham\tcafé\nham\tcoffee\n", encoding="utf-8")
    assert read_texts(path, 2, ascii_only=True) == ["coffee", "coffee"]


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
    arguments = ["--tiny", "--plain", "--output", str(tmp_path / "results")]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "| ours, trend |" in (tmp_path / "results" / "gpu.md").read_text(encoding="utf-8")
