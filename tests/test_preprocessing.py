"""Text to ids: equal to the recorded preprocessing model, in every place a Keras layer is used."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bert_trend import BertPreprocessor, Vocabulary
from keras_bert_trend.preprocessing.packing import trimmed_counts
from keras_bert_trend.preprocessing.vocabulary import CONTINUATION, PUNCTUATION, SPECIAL
from tests.common import FIXTURES, SENTENCES, V4, run_fresh

NAMES = ("input_word_ids", "input_mask", "input_type_ids")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "an", "apple", ".", "##s", "$", "##.", "##"]


@pytest.fixture(scope="module")
def texts():
    return json.loads((FIXTURES / "preprocess_v3" / "sentences.json").read_text())


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "preprocess_v3" / "expected.npz") as arrays:
        return dict(arrays)


def preprocessor(vocabulary, **arguments):
    return BertPreprocessor(vocabulary, lower_case=True, **arguments)


@pytest.mark.smoke
@pytest.mark.parametrize("length", [32, 12, 5])
class TestRecording:
    def check(self, got, expected, prefix):
        for name in NAMES:
            np.testing.assert_array_equal(got[name], expected[f"{prefix}_{name}"], err_msg=name)
            assert got[name].dtype == tf.int32

    def test_sentences(self, vocabulary, texts, expected, length):
        got = preprocessor(vocabulary, sequence_length=length)(texts["sentences"])
        self.check(got, expected, f"single{length}")

    def test_pairs(self, vocabulary, texts, expected, length):
        first, second = zip(*texts["pairs"], strict=True)
        got = preprocessor(vocabulary, sequence_length=length)((list(first), list(second)))
        self.check(got, expected, f"pair{length}")

    def test_in_a_dataset(self, vocabulary, texts, expected, length):
        layer = preprocessor(vocabulary, sequence_length=length)
        batches = list(tf.data.Dataset.from_tensor_slices(texts["sentences"]).batch(7).map(layer))
        got = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in NAMES}
        self.check(got, expected, f"single{length}")

    def test_in_a_model(self, vocabulary, texts, expected, length):
        text = keras.Input((), dtype="string")
        model = keras.Model(text, preprocessor(vocabulary, sequence_length=length)(text))
        self.check(
            {k: tf.constant(v) for k, v in model.predict(tf.constant(texts["sentences"]), verbose=0).items()},
            expected,
            f"single{length}",
        )


def test_padding_to_the_longest(vocabulary, texts, expected):
    layer = preprocessor(vocabulary, sequence_length=None)
    got = layer(texts["sentences"])
    longest = got["input_word_ids"].shape[1]
    assert int(tf.reduce_max(tf.reduce_sum(got["input_mask"], axis=1))) == longest
    fixed = preprocessor(vocabulary, sequence_length=longest + 3)(texts["sentences"])
    for name in NAMES:
        np.testing.assert_array_equal(fixed[name][:, :longest], got[name])
        assert not np.any(fixed[name][:, longest:])


def test_truncating_to_the_longest_allowed(vocabulary, texts, expected):
    got = preprocessor(vocabulary, sequence_length=None, max_length=12, truncate=True)(texts["sentences"])
    for name in NAMES:
        np.testing.assert_array_equal(got[name], expected[f"single12_{name}"])


def test_a_longer_text_than_the_model_is_refused(vocabulary):
    layer = preprocessor(vocabulary, sequence_length=None, max_length=6)
    fits, too_long = ["bank of the river"], ["bank of the river", "bank of the river is good"]
    assert layer(fits)["input_word_ids"].shape == (1, 6)
    message = "more tokens than max_length=6.*truncate=True"
    with pytest.raises(ValueError, match=message):
        layer(too_long)
    in_graph = tf.function(layer.__call__)
    assert in_graph(tf.constant(fits))["input_word_ids"].shape == (1, 6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_graph(tf.constant(too_long))


@pytest.mark.parametrize("make", [list, np.array, lambda s: np.array(s, dtype=object), tf.constant, tuple])
def test_what_users_hold_is_taken(vocabulary, make):
    layer = preprocessor(vocabulary, sequence_length=16)
    expected = layer(tf.constant(SENTENCES))["input_word_ids"]
    np.testing.assert_array_equal(layer(make(SENTENCES))["input_word_ids"], expected)


def test_segments_that_are_not_as_many(vocabulary):
    layer = preprocessor(vocabulary, sequence_length=8)
    run = tf.function(lambda a, b: layer((a, b)), input_signature=[tf.TensorSpec((None,), tf.string)] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be as many"):
        run(tf.constant(["a"]), tf.constant(["a", "b", "c"]))


def test_empty_batch(vocabulary):
    for length, width in ((8, 8), (None, 2)):
        layer = preprocessor(vocabulary, sequence_length=length)
        for empty in ([], tf.constant([], dtype=tf.string)):
            assert layer(empty)["input_mask"].shape == (0, width)
        assert layer((tf.constant([], tf.string), tf.constant([], tf.string)))["input_mask"].shape[0] == 0


class TestErrors:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("a text", r"batch of strings: pass \['a text'\]"),
            ([1, 2], "must be strings, got 1"),
            (["a", None], "must be strings, got None"),
            (np.arange(3), "dtype int64"),
            (tf.constant([1, 2]), "dtype int32"),
            (tf.constant([[["a"]]]), r"\(batch, sentences\); got shape \(1, 1, 1\)"),
            ((["a"], ["b"], ["c"]), "got a tuple of 3"),
            ([["a", "b"], ["c", "d"]], r"list of lists.*\(firsts, seconds\)"),
            ((["a", "b"], ["c"]), "got 2 and 1 texts"),
        ],
    )
    def test_input(self, vocabulary, wrong, message):
        with pytest.raises(ValueError, match=message):
            preprocessor(vocabulary)(wrong)

    @pytest.mark.parametrize("length", [0, 2, True, 7.0])
    def test_sequence_length(self, vocabulary, length):
        with pytest.raises(ValueError, match="`sequence_length` must be an int of at least 3"):
            preprocessor(vocabulary, sequence_length=length)

    def test_lengths_that_do_not_fit(self, vocabulary):
        with pytest.raises(ValueError, match="`max_length`=64"):
            preprocessor(vocabulary, sequence_length=128, max_length=64)
        with pytest.raises(ValueError, match="needs `max_length`"):
            preprocessor(vocabulary, sequence_length=None, truncate=True)

    def test_vocabulary(self):
        with pytest.raises(ValueError, match=r"lacks \['\[CLS\]', '\[SEP\]'\]"):
            Vocabulary(["[PAD]", "[UNK]", "a"])
        with pytest.raises(ValueError, match="'an' twice"):
            Vocabulary([*TOKENS, "an"])


def test_token_kinds():
    kinds = dict(zip(TOKENS, Vocabulary(TOKENS).token_kinds, strict=True))
    assert {t for t, k in kinds.items() if k & SPECIAL} == {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
    assert {t for t, k in kinds.items() if k & PUNCTUATION} == {".", "$", "##.", "##"}
    assert {t for t, k in kinds.items() if k & CONTINUATION} == {"##s", "##."}


def test_casing_of_a_vocabulary():
    assert Vocabulary(TOKENS).is_lower_case
    assert not Vocabulary([*TOKENS, "Apple"]).is_lower_case


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8), st.integers(0, 60))
@settings(max_examples=60)
def test_round_robin_against_taking_turns(lengths, budget):
    def take_turns(first, second):
        kept = [0, 0]
        while sum(kept) < budget and (kept[0] < first or kept[1] < second):
            for i, available in enumerate((first, second)):
                if kept[i] < available and sum(kept) < budget:
                    kept[i] += 1
        return kept

    first, second = (tf.constant(column, tf.int64) for column in zip(*lengths, strict=True))
    got = tf.stack(trimmed_counts([first, second], tf.constant(budget + 3, tf.int64), tf), axis=1).numpy().tolist()
    assert got == [take_turns(*pair) for pair in lengths]


def test_config_round_trip(vocabulary):
    layer = preprocessor(vocabulary, sequence_length=None, max_length=40, truncate=True, name="mine")
    clone = BertPreprocessor.from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()
    np.testing.assert_array_equal(clone(SENTENCES)["input_word_ids"], layer(SENTENCES)["input_word_ids"])


@pytest.mark.smoke
def test_keras_file_carries_the_vocabulary_as_an_asset(vocabulary, tmp_path):
    text = keras.Input((), dtype="string")
    model = keras.Model(text, preprocessor(vocabulary, sequence_length=16)(text))
    file = tmp_path / "model.keras"
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        (asset,) = (name for name in archive.namelist() if os.path.basename(name) == "vocab.txt")
        assert archive.read(asset).decode().split("\n")[:-1] == list(vocabulary.tokens)
    loaded = keras.models.load_model(file)
    np.testing.assert_array_equal(
        loaded.predict(tf.constant(SENTENCES), verbose=0)["input_word_ids"],
        model.predict(tf.constant(SENTENCES), verbose=0)["input_word_ids"],
    )

    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "mixed.keras", "w") as mixed:
        for name in archive.namelist():
            mixed.writestr(name, archive.read(name) if name != asset else "[PAD]\n")
    with pytest.raises(ValueError, match="not the vocabulary of its configuration"):
        keras.models.load_model(tmp_path / "mixed.keras")


def test_operations_of_an_export(vocabulary, tmp_path):
    """Packing is core TensorFlow: of TF.Text, the exported graph has only what splits text into word pieces."""
    from tensorflow.core.protobuf import saved_model_pb2

    text = keras.Input((), dtype="string")
    layer = preprocessor(vocabulary)
    model = keras.Model(text, layer(text))
    fast, classic = {"FastWordpieceTokenizeWithOffsets"}, {"RegexSplitWithOffsets", "WordpieceTokenizeWithOffsets"}
    for name, expected in (("fast", fast), ("classic", classic)):
        layer.fast_tokenizer = name == "fast"
        model.export(tmp_path / name, verbose=False)
        proto = saved_model_pb2.SavedModel.FromString((tmp_path / name / "saved_model.pb").read_bytes())
        ops = {node.op for f in proto.meta_graphs[0].graph_def.library.function for node in f.node_def}
        assert {op for op in ops if "Wordpiece" in op or "Split" in op or "TFText" in op or "Trim" in op} == expected
    code = """
    import json, sys, tensorflow as tf, tensorflow_text
    for folder in sys.argv[2:]:
        saved = tf.saved_model.load(folder)
        print(json.dumps(saved.serve(tf.constant(json.loads(sys.argv[1])))["input_word_ids"].numpy().tolist()))
    """
    for served in run_fresh(code, json.dumps(SENTENCES), tmp_path / "fast", tmp_path / "classic").splitlines():
        np.testing.assert_array_equal(json.loads(served), layer(SENTENCES)["input_word_ids"])


@pytest.mark.parametrize("texts", [["a", "b \ud800"], np.array(["a", "b \ud800"]), (["a", "b"], ["a", "b \ud800"])])
def test_half_of_a_surrogate_pair_is_named(texts):
    layer = BertPreprocessor.from_handle(V4, sequence_length=8)
    with pytest.raises(ValueError, match=r"in text 1 \(from 0\), character 2, '\\ud800', is half of a surrogate pair"):
        layer(texts)
