"""A checkpoint's index is checked before TensorFlow reads it, whose C++ trusts what stands there."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from keras_bert_trend.sources import checkpoint
from keras_bert_trend.sources.checkpoint import TfCheckpoint
from tests.common import V4

FLOAT, INT = types_pb2.DT_FLOAT, types_pb2.DT_INT32
VALUES = {
    "a": np.arange(6, dtype="float32").reshape(2, 3),
    "ab": np.float16([1, 2]),
    "b": np.arange(3, dtype="int32"),
    "s": b"a string",
}


@pytest.fixture
def prefix(tmp_path):
    save(tmp_path / "values", VALUES)
    return str(tmp_path / "values")


def save(prefix, values):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def checksum(content):
    """Return LevelDB's masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def block(entries, restarts=(0,)):
    """Return a block of a LevelDB table whose keys share nothing, with its type and checksum."""
    content = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    content += b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts))) + b"\0"
    return content + checksum(content)


def write_table(path, entries, **options):
    data, meta = block(entries, **options), block([])
    index = block([(b"\xff", varint(0) + varint(len(data) - 5))])
    handles = varint(len(data)) + varint(len(meta) - 5) + varint(len(data) + len(meta)) + varint(len(index) - 5)
    footer = handles.ljust(40, b"\0") + checkpoint._MAGIC.to_bytes(8, "little")
    path.write_bytes(data + meta + index + footer)


def rewrite(prefix, change):
    """Write the index again with `change(key, entry)` applied to every `BundleEntryProto`."""
    path = Path(f"{prefix}.index")
    entries = []
    for key, content in checkpoint._read_table(path.read_bytes()):
        if key:
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(content)
            change(key.decode(), entry)
            content = entry.SerializeToString()
        entries.append((key, content))
    write_table(path, entries)


@pytest.mark.parametrize("prefix_of", ["written", "recorded"])
def test_same_values_as_tensorflow_reads(prefix, prefix_of):
    prefix = prefix if prefix_of == "written" else str(V4 / "variables" / "variables")
    mine, reader = TfCheckpoint(prefix), tf.train.load_checkpoint(prefix)
    assert mine.shapes == {key: tuple(shape) for key, shape in reader.get_variable_to_shape_map().items()}
    for key, dtype in reader.get_variable_to_dtype_map().items():
        value, expected = mine.read(key, dtype.as_datatype_enum).numpy(), reader.get_tensor(key)
        assert np.array_equal(value, expected), key


def test_an_index_of_many_blocks(tmp_path):
    values = {f"a/rather/long/name/of/a/variable/{i:05d}": np.float32(i) for i in range(12_000)}
    save(tmp_path / "many", values)
    assert list(TfCheckpoint(str(tmp_path / "many")).shapes) == list(values)


def test_a_table_written_by_hand_is_read_alike(prefix):
    rewrite(prefix, lambda key, entry: None)
    np.testing.assert_array_equal(TfCheckpoint(prefix).read("a"), VALUES["a"])
    np.testing.assert_array_equal(tf.train.load_checkpoint(prefix).get_tensor("a"), VALUES["a"])


def changed(**fields):
    def change(key, entry):
        if key == "a":
            for name, value in fields.items():
                setattr(entry, name, value)

    return change


def shaped(*sizes):
    def change(key, entry):
        if key == "a":
            del entry.shape.dim[:]
            for size in sizes:
                entry.shape.dim.add(size=size)

    return change


def sliced(key, entry):
    if key == "a":
        for _ in range(2):
            entry.slices.add().extent.add(start=0, length=2)


def unknown_rank(key, entry):
    entry.shape.unknown_rank = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shaped(-1, -6), "shape"),
        (shaped(2**62, 2**62), "shape"),
        (shaped(*[2**39] * 8), "cannot have 24 bytes"),
        (shaped(*[1] * 300), "shape"),
        (shaped(3, 3), "cannot have 24 bytes"),
        (unknown_rank, "shape"),
        (sliced, "stored in slices"),
        (changed(size=-1), "place"),
        (changed(offset=-8), "place"),
        (changed(offset=2**62, size=2**62), "place"),
        (changed(offset=10**9), "missing or truncated"),
        (changed(shard_id=7), "missing or truncated"),
        (changed(shard_id=-1), "place"),
        (changed(dtype=INT), "has the dtype int32 there"),
        (changed(dtype=types_pb2.DT_BFLOAT16), "cannot have 24 bytes"),
        (changed(dtype=99), "99|dtype"),
        (changed(crc32c=5), "variables cannot be read"),
    ],
)
def test_lies_about_a_value(prefix, change, reason):
    rewrite(prefix, change)
    with pytest.raises(ValueError, match=f"values.*{reason}"):
        TfCheckpoint(prefix).read("a")


@pytest.mark.parametrize(
    ("key", "dtype", "reason"), [("b", None, "int32"), ("a", INT, "float32"), ("x", None, "no 'x'")]
)
def test_other_dtypes_and_keys_than_expected(prefix, key, dtype, reason):
    with pytest.raises(ValueError, match=reason):
        TfCheckpoint(prefix).read(key, dtype)


def test_a_string_that_claims_to_be_longer(prefix):
    data = f"{prefix}.data-00000-of-00001"
    with open(data, "r+b") as file:
        at = file.read().index(b"a string")
        file.seek(at - 5)
        file.write(b"\x7f")
    with pytest.raises(ValueError, match="127 bytes long"):
        TfCheckpoint(prefix).read("s", types_pb2.DT_STRING)


class TestTables:
    """All ways through a table lead to the same entries, or it is refused."""

    def entries(self, prefix):
        path = Path(f"{prefix}.index")
        return path, list(checkpoint._read_table(path.read_bytes()))

    def test_keys_twice_and_out_of_order(self, prefix):
        path, entries = self.entries(prefix)
        for wrong in (entries[:2] + entries[1:], [entries[0], *entries[:0:-1]]):
            write_table(path, wrong)
            with pytest.raises(ValueError, match="not in order"):
                TfCheckpoint(prefix)

    @pytest.mark.parametrize("restart", [1, 7, 10_000])
    def test_a_search_that_begins_inside_an_entry(self, prefix, restart):
        path, entries = self.entries(prefix)
        write_table(path, entries, restarts=(0, restart))
        with pytest.raises(ValueError, match="damaged"):
            TfCheckpoint(prefix)

    def test_too_many_values(self, prefix, monkeypatch):
        monkeypatch.setattr(checkpoint, "MAX_VALUES", 2)
        with pytest.raises(ValueError, match="more than 2 values"):
            TfCheckpoint(prefix)

    def test_damaged_in_every_place(self, prefix):
        """Whichever byte is changed: an error of this package's, or the values that there are."""
        path, _ = self.entries(prefix)
        content = path.read_bytes()
        for at in range(len(content)):
            for flip in (1, 128):
                path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
                with contextlib.suppress(ValueError):
                    np.testing.assert_array_equal(TfCheckpoint(prefix).read("a"), VALUES["a"])

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"nothing\.index"):
            TfCheckpoint(str(tmp_path / "nothing"))
        shutil.copyfile(V4 / "saved_model.pb", tmp_path / "other.index")
        with pytest.raises(ValueError, match="cannot be read as the index"):
            TfCheckpoint(str(tmp_path / "other"))
