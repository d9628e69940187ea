"""What a SavedModel computes is proved: what is a BERT only on small numbers and short texts is refused."""

import random
import shutil

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_bert_trend import UnsupportedArchitectureError
from keras_bert_trend.sources import load_source
from tests.common import V4
from tests.fuzz import graph_edits
from tests.fuzz.graph_edits import FLOAT, INTEGER, Editor


@pytest.fixture
def edited(tmp_path):
    """Return a function that changes the recorded model and gives the folder."""

    return lambda change: write_edited(V4, tmp_path, change)


def write_edited(model, tmp_path, change):
    """Change a copy of a model and return its folder."""
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "fingerprint.pb").unlink()
    file = tmp_path / "model" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    editor = Editor(proto.meta_graphs[0], random.Random(0))
    change(editor)
    file.write_bytes(proto.SerializeToString())
    return tmp_path / "model"


def behind(operator, dtype, place):
    """Return a change: an operator behind a place of every door."""

    def change(editor):
        for door in editor.doors:
            editor.put_behind(door, place(door), operator, dtype)

    return change


def input_of(role):
    return lambda door: door.inputs()[role]


def result_of(op, number=0):
    return lambda door: door.result([node for node in door.in_order() if node.op == op][number])


@pytest.mark.parametrize("role", ["ids", "mask", "types"])
@pytest.mark.parametrize("operator", sorted(INTEGER.keys() - {"identity", "int64"}))
def test_inputs_reach_their_use_unchanged(edited, role, operator):
    with pytest.raises(UnsupportedArchitectureError):
        load_source(edited(behind(operator, tf.int32, input_of(role))))


@pytest.mark.parametrize(
    "operator", ["clip_10", "clip_30", "times_1.00001", "cubed_a_little", "zero_beyond_8", "noisy"]
)
@pytest.mark.parametrize("place", ["Mul", "Tanh", "Softmax", "Einsum", "Rsqrt", "BiasAdd", "MatMul", "ReadVariableOp"])
def test_no_operation_stands_between_that_may_change_a_value(edited, place, operator):
    with pytest.raises(UnsupportedArchitectureError):
        load_source(edited(behind(operator, tf.float32, result_of(place))))


@pytest.mark.parametrize("operator", ["half", "bfloat16"])
def test_lower_precision_is_refused_by_name(edited, operator):
    with pytest.raises(
        UnsupportedArchitectureError, match=f"computes in {'float16' if operator == 'half' else operator}"
    ):
        load_source(edited(behind(operator, tf.float32, result_of("Einsum"))))


@pytest.mark.parametrize("door", ["serving", "call"])
@pytest.mark.parametrize("operator", ["plus_0.001", "times_1.0003", "clip_30", "normalised", "zero_beyond_8"])
def test_every_output_of_every_door_is_compared(edited, door, operator):
    def change(editor):
        for one in editor.doors:
            if one.name == door:
                name = one.function.signature.output_arg[2].name
                editor.put_behind(one, one.function.ret[name], operator, tf.float32, only_output=name)

    name = "signature 'serving_default'" if door == "serving" else "calling it"
    with pytest.raises(UnsupportedArchitectureError, match=name):
        load_source(edited(change))


@pytest.mark.parametrize("door", ["serving", "call"])
@pytest.mark.parametrize("pair", [(0, 5), (1, 2), (3, 5)])
def test_outputs_have_their_names(edited, door, pair):
    def change(editor):
        for one in editor.doors:
            if one.name == door:
                function = one.path[0]
                ret, (first, second) = function.ret, [function.signature.output_arg[i].name for i in pair]
                ret[first], ret[second] = ret[second], ret[first]

    if pair == (3, 5):  # the last block's output and the sequence output are one value
        load_source(edited(change))
        return
    with pytest.raises(UnsupportedArchitectureError, match="gives"):
        load_source(edited(change))


@pytest.mark.parametrize("seed", range(8))
def test_a_function_that_writes_is_refused(edited, seed):
    def change(editor):
        editor.choose.seed(seed)
        editor.assign(editor.doors[seed % 2 :][:1])

    with pytest.raises(UnsupportedArchitectureError, match=r"runs Assign\w*VariableOp"):
        load_source(edited(change))


# Made of constants, so that a reader computes them; behind an activation, where it looks for numbers.
LARGE = {
    "Pow": lambda: tf.fill([2**14, 1], 1.0) ** tf.fill([1, 2**14], 2.0),
    "Fill": lambda: tf.fill([2**16, 2**16], 1.0),
    "Einsum": lambda: tf.einsum("a,b->ab", tf.fill([2**16], 1.0), tf.fill([2**16], 1.0)),
    "Pack": lambda: tf.stack([tf.fill([2**22], 1.0)] * 64),
    "ConcatV2": lambda: tf.concat([tf.fill([2**22], 1.0)] * 64, 0),
    "GatherV2": lambda: tf.gather(tf.fill([1, 2**12], 1.0), tf.fill([2**20], 0)),
}
SLOW = {
    "MatMul": lambda: tf.fill([2**13, 2**11], 1.0) @ tf.fill([2**11, 2**13], 1.0),
    "Erf": lambda: tf.math.erf(tf.fill([2**25], 1.0)),
}


@pytest.mark.parametrize("name", [*LARGE, *SLOW])
def test_what_would_take_too_much_is_not_computed(edited, monkeypatch, name):
    monkeypatch.setitem(FLOAT, name, lambda x, ids: x * tf.reduce_sum((LARGE | SLOW)[name]()))
    monkeypatch.setattr(graph_edits, "_TRACED", {})
    folder = edited(behind(name, tf.float32, result_of("Tanh", 1)))
    with pytest.raises(ValueError, match=r"more than 1 GiB" if name in LARGE else r"more than 10 seconds"):
        load_source(folder)
