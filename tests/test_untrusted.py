"""A downloaded model is untrusted: what is damaged or hostile is refused, and never gives other numbers silently."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

from keras_bert_trend import BertEncoder, UnsupportedArchitectureError
from keras_bert_trend.sources import checkpoint, load_source
from keras_bert_trend.sources.saved_model import files
from keras_bert_trend.sources.source import reading
from tests.common import V4
from tests.test_checkpoints import write_table

FILES = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the recorded SavedModel whose files tests change, and put back."""
    folder = tmp_path_factory.mktemp("untrusted") / "model"
    shutil.copytree(V4, folder)
    return folder


@pytest.fixture(scope="module")
def original():
    source = load_source(V4)
    return source, dict(source.weights)


@st.composite
def damages(draw, length):
    """One change of `length` bytes: bits flipped, bytes removed, repeated, zeroed, or the end cut off."""
    start = draw(st.integers(0, length - 1))
    kind = draw(st.sampled_from(["flip", "cut", "remove", "repeat", "zero", "replace"]))
    span = slice(start, start + draw(st.sampled_from([1, 2, 8, 100, 5000])))

    def damage(content: bytes) -> bytes:
        head, middle, tail = content[: span.start], content[span], content[span.stop :]
        if kind == "flip":
            return head + bytes([middle[0] ^ 1 << start % 8]) + middle[1:] + tail
        middle = {"cut": b"", "remove": b"", "repeat": middle * 2, "zero": bytes(len(middle))}.get(kind, b"\xff" * 3)
        return head + middle + (b"" if kind == "cut" else tail)

    return damage


@pytest.mark.parametrize("fingerprint", [True, False], ids=["fingerprint", "no_fingerprint"])
@pytest.mark.parametrize("file", FILES)
@settings(max_examples=50)
@given(data=st.data())
def test_a_damaged_file_never_gives_other_numbers(folder, original, file, fingerprint, data):
    source, weights = original
    content = (V4 / file).read_bytes()
    damaged = data.draw(damages(len(content)))(content)
    (folder / file).write_bytes(damaged)
    if fingerprint:
        shutil.copyfile(V4 / "fingerprint.pb", folder / "fingerprint.pb")
    else:
        (folder / "fingerprint.pb").unlink(missing_ok=True)
    message = None
    try:
        read = load_source(folder)
        encoder = BertEncoder.from_source(read)
    except ValueError as error:
        message = str(error)
    finally:
        (folder / file).write_bytes(content)
    if message is not None:
        assert str(folder) in message
        return
    # Bytes that nothing depends on: names, functions that are not read, padding.
    assert read.config == source.config
    assert (read.vocabulary, read.lower_case) == (source.vocabulary, source.lower_case)
    for name, array in encoder.named_weights().items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


def edit(folder, change):
    """Apply `change(meta_graph)` to a fresh copy of the recorded SavedModel in `folder`."""
    shutil.copytree(V4, folder)
    (folder / "fingerprint.pb").unlink()
    proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(proto.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


def nodes_of(meta_graph, op):
    return [node for f in meta_graph.graph_def.library.function for node in f.node_def if node.op == op]


class TestHostileGraphs:
    def test_an_operation_that_feeds_itself(self, tmp_path):
        def change(meta_graph):
            for node in nodes_of(meta_graph, "Tanh"):
                node.input[0] = f"{node.name}:y:0"

        edit(tmp_path / "model", change)
        with pytest.raises(ValueError, match="in a circle"):
            load_source(tmp_path / "model")

    def test_sums_of_sums_of_themselves(self, tmp_path):
        """2²⁰⁰ terms: to follow each would never end."""

        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                for node in [node for node in function.node_def if node.name.endswith("bert_encoder/add/add")]:
                    before = node.input[0]
                    for i in range(200):
                        function.node_def.add(name=f"double_{i}", op="AddV2", input=[before, before])
                        before = f"double_{i}:z:0"
                    node.input[0] = before

        edit(tmp_path / "model", change)
        with pytest.raises(UnsupportedArchitectureError):
            load_source(tmp_path / "model")

    def test_a_graph_of_too_many_operations(self, tmp_path):
        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                if "signature_wrapper" in function.signature.name:
                    before = next(iter(function.ret.values()))
                    for i in range(60_000):
                        function.node_def.add(name=f"n{i}", op="Neg", input=[before])
                        before = f"n{i}:y:0"
                    function.ret[next(iter(function.ret))] = before

        edit(tmp_path / "model", change)
        with pytest.raises(ValueError, match="more than 50000 operations"):
            load_source(tmp_path / "model")

    @pytest.mark.parametrize("bound", ["_MAX_SECONDS", "_MAX_WORK_SECONDS"])
    def test_a_model_that_takes_long(self, monkeypatch, bound):
        monkeypatch.setattr(files, bound, 0.01)
        with pytest.raises(ValueError, match=r"more than 0.01 seconds"):
            load_source(V4)

    def test_a_description_too_large_to_parse(self, tmp_path):
        shutil.copytree(V4, tmp_path / "model")
        with open(tmp_path / "model" / "saved_model.pb", "r+b") as file:
            file.truncate(65 * 2**20)  # sparse
        with pytest.raises(ValueError, match=r"saved_model\.pb.*larger than"):
            load_source(tmp_path / "model")

    def test_messages_within_messages(self, tmp_path):
        def length(n):
            return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + length(n >> 7)

        nested = b""
        for _ in range(5000):  # Struct in Struct: StructuredValue.tuple_value = 52, .values = 1
            nested = b"\x0a" + length(len(nested)) + nested
            nested = b"\xa2\x03" + length(len(nested)) + nested
        shutil.copytree(V4, tmp_path / "model")
        signature = b"\x22" + length(len(nested)) + nested  # SavedConcreteFunction.output_signature
        for field in (b"\x12", b"\x12", b"\x3a", b"\x12"):  # …concrete_functions, object_graph_def, meta_graphs
            signature = field + length(len(signature)) + signature
        (tmp_path / "model" / "saved_model.pb").write_bytes(signature)
        with pytest.raises(ValueError, match=r"saved_model\.pb"):
            load_source(tmp_path / "model")

    def test_a_shape_that_the_variables_do_not_have(self, tmp_path):
        """The message comes before any memory is taken for it."""

        def change(meta_graph):
            for node in meta_graph.object_graph_def.nodes:
                if node.HasField("variable") and node.variable.name.startswith("word_embeddings"):
                    node.variable.shape.dim[0].size = 2**40

        edit(tmp_path / "model", change)
        with pytest.raises(ValueError, match=r"word_embeddings.*\(177, 32\)|\[177, 32\].*1099511627776"):
            BertEncoder.from_handle(tmp_path / "model")

    def test_an_architecture_that_the_weights_do_not_have(self, tmp_path):
        def change(meta_graph):
            for node in meta_graph.object_graph_def.nodes:
                if node.HasField("variable") and "intermediate/kernel" in node.variable.name:
                    node.variable.shape.dim[1].size = 2**40

        edit(tmp_path / "model", change)
        with pytest.raises(ValueError, match=r"intermediate.*needs \(32, 1099511627776\)|1099511627776"):
            BertEncoder.from_handle(tmp_path / "model")

    def test_weights_that_are_not_finite(self, tmp_path):
        encoder = BertEncoder.from_handle(V4)
        encoder.blocks[1].inner_bias.assign(np.full(encoder.blocks[1].inner_bias.shape, np.nan))
        encoder.export_text_encoder(tmp_path / "model")
        with pytest.raises(ValueError, match="model.*encoder/layer_1/intermediate/dense/bias.*NaN"):
            BertEncoder.from_handle(tmp_path / "model")


def test_missing_and_exchanged_shards(tmp_path):
    shutil.copytree(V4, tmp_path / "model")
    data = tmp_path / "model" / FILES[2]
    data.unlink()
    with pytest.raises(ValueError, match="variables"):
        BertEncoder.from_handle(tmp_path / "model")
    tf.train.Checkpoint(x=tf.Variable(tf.zeros((500, 300)))).write(str(tmp_path / "other"))
    shutil.copyfile(tmp_path / "other.data-00000-of-00001", data)
    with pytest.raises(ValueError, match=r"variables/variables"):
        BertEncoder.from_handle(tmp_path / "model")


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), TypeError("unhashable")])
def test_errors_of_a_readers_inner_workings_name_the_model(error):
    with pytest.raises(ValueError, match=r"^'the/model'.*(invalid|unhashable)"), reading("the/model"):
        raise error


class TestVariables:
    """What the checkpoint says of a variable must be what `saved_model.pb` declares."""

    def test_another_dtype(self, tmp_path):
        def change(meta_graph):
            for node in meta_graph.object_graph_def.nodes:
                if node.HasField("variable") and "layer_1/intermediate/bias" in node.variable.name:
                    node.variable.dtype = types_pb2.DT_INT32

        edit(tmp_path / "model", change)
        with pytest.raises(ValueError, match=r"layer_1/intermediate/bias.*dtype float32 there, int32 is expected"):
            load_source(tmp_path / "model")

    def test_integers_for_weights(self, tmp_path):
        """With a right checksum: bytes do not tell what they are."""
        model = tmp_path / "model"
        edit(model, lambda meta_graph: None)
        path = model / "variables" / "variables.index"
        content = path.read_bytes()
        entries = list(checkpoint._read_table(content))
        key, value = next((key, value) for key, value in entries if key.startswith(b"variables/20/"))
        entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
        entry.dtype = types_pb2.DT_INT32
        write_table(path, [(k, entry.SerializeToString() if k == key else v) for k, v in entries])
        with pytest.raises(ValueError, match=r"dtype int32 there, float32 is expected"):
            BertEncoder.from_handle(model)
