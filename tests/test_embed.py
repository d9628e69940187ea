"""`embed`: what one call on a single text gives, for many texts, in order, in bounded memory, traced once."""

import contextlib
import gc
import importlib.util
import sys
import threading
import warnings
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bert_trend import (
    POOLING_NAMES,
    BertTrend,
    ClsPooling,
    LastFourSum,
    MeanPooling,
    embed,
    embed_stream,
    similarity,
)
from keras_bert_trend.embedding import bfloat16, compiled
from keras_bert_trend.embedding import texts as embedded_texts
from keras_bert_trend.embedding.batches import padded_lengths, plan_batches
from keras_bert_trend.pooling import get_pooling
from tests.common import SENTENCES, V4, run_fresh, to_numpy

WORDS = ["the", "bank", "of", "river", "is", "good", "great", "model", "I", "will", "hello", "!"]  # a token each
LIMIT = 64  # positions of the recorded model


def text_of(words: int, offset: int = 0) -> str:
    return " ".join(WORDS[(offset + i) % len(WORDS)] for i in range(words))


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return make_layer(pooling="mean")


def make_layer(**kwargs) -> BertTrend:
    return BertTrend(V4, **{"sequence_length": None, "truncate": True, "trainable": False, **kwargs})


class CountingMean(MeanPooling):
    """Counts how often it is traced, and keeps the shapes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shapes = []

    def compute(self, outputs, input_mask, input_word_ids=None):
        self.shapes.append(tuple(input_mask.shape))
        return super().compute(outputs, input_mask, input_word_ids)


# What comes out


TEXTS = [*SENTENCES, *(text_of(n, n) for n in (1, 9, 30, 55))]


@pytest.fixture(scope="module")
def alone(layer) -> list:
    """What the layer sees in each of `TEXTS`, called on it alone."""
    return [layer([text], return_all=True) for text in TEXTS]


@pytest.mark.smoke
@pytest.mark.parametrize("name", POOLING_NAMES)
def test_equals_the_layer_on_single_texts(name, layer, alone, vocabulary):
    vectors = embed(TEXTS, layer, pooling=name, batch_size=4)
    assert vectors.dtype == np.float32
    pooling = get_pooling(name, vocabulary.token_kinds)
    expected = [to_numpy(pooling(seen, seen["input_mask"], seen["input_word_ids"])) for seen in alone]
    tolerance = {"trend": 2e-4, "smooth_trend": 2e-5}.get(name, 1e-5)  # the log ratio is ill-conditioned: README
    np.testing.assert_allclose(vectors, np.concatenate(expected), atol=tolerance, rtol=0)


@settings(max_examples=10)
@given(
    texts=st.lists(st.one_of(st.text(max_size=40), st.integers(0, 70).map(text_of)), max_size=10),
    batch_size=st.integers(1, 5),
)
def test_order_and_identity_for_any_texts(texts, batch_size, layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trimmed
        vectors = embed(texts, layer, batch_size=batch_size)
        chunks = list(embed_stream(texts, layer, batch_size=batch_size, chunk_size=3))
    assert vectors.shape == (len(texts), layer.embedding_dim)
    assert [len(chunk) for chunk in chunks] == [len(texts[i : i + 3]) for i in range(0, len(texts), 3)]
    for i, text in enumerate(texts):
        expected = single(text, layer)
        np.testing.assert_allclose(vectors[i], expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(chunks[i // 3][i % 3], expected, atol=1e-5, rtol=0)


def single(text: str, layer: BertTrend) -> np.ndarray:
    return to_numpy(layer([text]))[0]


def test_pairs_are_packed_and_trimmed_as_the_preprocessor_does(layer):
    lengths = [(1, 1), (0, 3), (70, 2), (2, 70), (70, 70), (31, 31), (33, 40)]
    pairs = [(text_of(a, 1), text_of(b, 2)) for a, b in lengths]
    with pytest.warns(UserWarning, match="5 of 7 texts have more than 64 tokens"):
        vectors = embed(pairs, layer, batch_size=3)
    expected = to_numpy(layer(([a for a, _ in pairs], [b for _, b in pairs])))
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


def test_dropout_is_off_even_where_bert_trains():
    layer = make_layer(pooling="mean", trainable=True)
    assert layer.encoder.config.hidden_dropout > 0
    np.testing.assert_array_equal(embed(SENTENCES, layer), embed(SENTENCES, layer))
    assert layer.encoder.trainable, "the layer is left as it was"


def test_a_handle_is_as_good_as_a_layer(layer):
    np.testing.assert_allclose(embed(SENTENCES, V4, pooling="mean"), embed(SENTENCES, layer), atol=1e-6)
    np.testing.assert_allclose(embed(SENTENCES, str(V4)), embed(SENTENCES, layer, pooling="smooth_trend"), atol=1e-4)


def test_poolings_override_the_layers_own(layer):
    apart = embed(SENTENCES, layer, pooling=["cls", "smooth_trend"], output="dict")
    assert list(apart) == ["cls", "smooth_trend"]
    both = embed(SENTENCES, layer, pooling=["cls", "smooth_trend"])
    np.testing.assert_allclose(both, np.concatenate(list(apart.values()), axis=1), atol=1e-6)
    own = embed(SENTENCES, layer, pooling=ClsPooling())
    np.testing.assert_allclose(own, apart["cls"], atol=1e-6)
    nested = embed(SENTENCES, layer, pooling=[["cls"], "smooth_trend"])
    np.testing.assert_allclose(nested, both, atol=1e-6)
    assert list(embed(SENTENCES, layer, output="dict")) == [layer.pooling.name]


def test_a_trend_pooling_named_for_a_trainable_layer_does_not_warn_about_training():
    layer = make_layer(pooling="mean", trainable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed([], layer, pooling="trend")


def test_tensorflow_output(layer):
    import tensorflow as tf

    result = embed(SENTENCES, layer, output="tf")
    assert isinstance(result, tf.Tensor)
    np.testing.assert_array_equal(result, embed(SENTENCES, layer))


def test_mixed_precision_gives_float32():
    layer = make_layer(pooling="mean", dtype="mixed_bfloat16")
    assert embed(SENTENCES, layer).dtype == np.float32


@pytest.mark.parametrize("stored", ["float32", "int8", "binary"])
def test_no_texts(layer, stored):
    width = layer.embedding_dim // 8 if stored == "binary" else layer.embedding_dim
    for texts in ([], (), iter([]), np.array([], dtype=object)):
        assert embed(texts, layer, precision=stored).shape == (0, width)
    assert embed([], layer, pooling="last_four_concat", truncate_dim=5).shape == (0, 5)
    assert list(embed_stream([], layer)) == []


# What goes in


class Series:
    """The part of a pandas Series that could mislead: its own index, positions that are labels."""

    ndim = 1

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, label):
        raise KeyError(label)


@pytest.mark.parametrize(
    "hold",
    [
        tuple,
        np.array,
        pytest.param(lambda texts: np.array(texts, object), id="object array"),
        Series,
        iter,
        pytest.param(lambda texts: (text for text in texts), id="generator"),
        pytest.param(lambda texts: [text.encode() for text in texts], id="bytes"),
        pytest.param(lambda texts: map(np.str_, texts), id="np.str_"),
    ],
)
def test_any_holder_of_texts(hold, layer):
    np.testing.assert_array_equal(embed(hold(SENTENCES), layer), embed(SENTENCES, layer))


def test_pandas(layer):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(SENTENCES, index=range(10, 10 + len(SENTENCES)))
    np.testing.assert_array_equal(embed(series, layer), embed(SENTENCES, layer))
    with pytest.raises(ValueError, match="position 1 is"):
        embed(pandas.Series(["bank", None]), layer)
    with pytest.raises(ValueError, match=r"one dimension, got shape \(6, 1\)"):
        embed(series.to_frame(), layer)


def test_a_string_tensor(layer):
    import tensorflow as tf

    np.testing.assert_array_equal(embed(tf.constant(SENTENCES), layer), embed(SENTENCES, layer))


def test_a_file_of_texts(layer, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffbank\n\nnaïve\r\nHello\u2028there".encode())
    np.testing.assert_array_equal(embed(path, layer), embed(["bank", "", "naïve", "Hello\u2028there"], layer))
    path.write_bytes(b"bank\n\xff\xfe\n")
    with pytest.raises(ValueError, match="position 1"):
        embed(path, layer)
    with pytest.raises(FileNotFoundError):
        embed(tmp_path / "missing.txt", layer)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("bank", r"pass \['bank'\]"),
        (b"bank", r"pass \[b'bank'\]"),
        (["bank", None], "position 1 is None of type NoneType"),
        (["bank", "a", 3.5], "position 2 is 3.5 of type float"),
        ([float("nan")], "position 0 is nan"),
        ([["a", "b"]], r"position 0 is \['a', 'b'\] of type list"),
        ([("a", "b", "c")], "position 0"),
        ([("a", None)], "position 0"),
        (["a", ("b", "c")], "all texts or all pairs: position 1"),
        (["a", "\ud800"], "valid Unicode: position 1"),
        ({"a": 1}, "got a dict"),
        ({"a"}, "got a set"),
        (np.array([["a", "b"]]), r"one dimension, got shape \(1, 2\)"),
        (np.array("a"), r"one dimension, got shape \(\)"),
        (7, "got 7"),
    ],
)
def test_what_is_no_text_is_named(texts, message, layer):
    with pytest.raises(ValueError, match=message):
        embed(texts, layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": True}, "`batch_size`"),
        ({"max_length": 2}, "`max_length` must be between 3 and 64"),
        ({"max_length": 65}, "`max_length` must be between 3 and 64"),
        ({"truncate_dim": 0}, "`truncate_dim`"),
        ({"truncate_dim": 10_000}, "`truncate_dim`=10000 is more than"),
        ({"precision": "int4"}, "`precision` must be one of"),
        ({"output": "torch"}, "`output` must be"),
        ({"pooling": "median"}, "`pooling` must be one of"),
        ({"pooling": []}, "`pooling`"),
        ({"pooling": ["cls", "cls"], "output": "dict"}, "a name once each"),
        ({"pooling": LastFourSum(level="token")}, "a vector per token"),
        ({"ranges": np.zeros((2, 3))}, '`ranges` is for precision="int8"'),
        ({"ranges": np.zeros((2, 3)), "precision": "int8"}, r"\(2, 32\), got shape \(2, 3\)"),
        ({"ranges": {}, "precision": "int8"}, "`ranges` lacks"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, layer):
    with pytest.raises(ValueError, match=message):
        embed(["bank"], layer, **arguments)


def test_wrong_models_are_named(encoder):
    with pytest.raises(ValueError, match="a handle or a BertTrend layer, got Dense"):
        embed(["bank"], keras.layers.Dense(1))
    with pytest.raises(ValueError, match="no preprocessor"):
        embed(["bank"], BertTrend(encoder=encoder, pooling="mean"))
    with pytest.raises(ValueError, match="nowhere"):
        embed(["bank"], "nowhere")


def test_a_stream_checks_its_arguments_when_it_is_called(layer):
    for arguments in ({"chunk_size": 0}, {"precision": "int8"}, {"batch_size": -1}):
        with pytest.raises(ValueError):
            embed_stream(["bank"], layer, **arguments)


# Long texts


def test_long_texts_are_trimmed_with_one_warning(layer):
    texts = [text_of(3), text_of(100), text_of(LIMIT - 2), text_of(99)]
    with pytest.warns(UserWarning, match="2 of 4 texts have more than 64 tokens and were trimmed") as caught:
        vectors = embed(texts, layer)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_allclose(vectors, to_numpy(layer(texts)), atol=1e-5)
    with pytest.warns(UserWarning, match="2 of 4 texts") as caught:
        list(embed_stream(texts, layer, chunk_size=1))
    assert len(caught) == 1


def test_long_texts_are_refused_where_asked(layer):
    with pytest.raises(ValueError, match="position 5 has 102 tokens, the limit is 64"):
        list(embed_stream([*SENTENCES[:5], text_of(100)], layer, chunk_size=2, truncate=False))


def test_lengths_follow_the_layer_or_the_argument():
    text = text_of(40)
    layer = make_layer(pooling="mean", sequence_length=16)
    with pytest.warns(UserWarning, match="more than 16 tokens"):
        trimmed = embed([text], layer)
    np.testing.assert_allclose(trimmed, to_numpy(layer([text])), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = embed([text], layer, max_length=LIMIT)
    np.testing.assert_allclose(whole, embed([text], V4, pooling="mean"), atol=1e-5)


# Batches


def test_the_padded_lengths_are_few():
    assert padded_lengths(24).tolist() == [8, 16, 24]
    assert padded_lengths(20).tolist() == [8, 16, 20]
    lengths = padded_lengths(512)
    assert lengths.tolist() == [*range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64)]
    assert len(lengths) == 20


@given(st.lists(st.integers(2, 512), max_size=200), st.integers(1, 70), st.booleans())
def test_every_text_is_in_one_batch_that_fits_it(lengths, batch_size, few_shapes):
    lengths = np.array(lengths, int)
    grid = padded_lengths(512) if few_shapes else np.arange(1, 513)
    batches = plan_batches(lengths, batch_size, grid)
    assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(len(lengths))) if batches else True
    for rows, padded in batches:
        assert len(rows) <= batch_size
        assert len(rows) == 1 or len(rows) * padded <= batch_size * 128
        assert np.all(lengths[rows] <= padded)
        assert few_shapes or padded == lengths[rows].max()
        assert np.all(2 * grid[np.searchsorted(grid, lengths[rows])] > padded)


def test_one_trace_for_every_shape_and_every_call():
    layer, pooling = make_layer(pooling="mean"), CountingMean()
    texts = [text_of(n % 200, n) for n in range(400)]  # 200 different lengths
    for size in (7, 64):
        with pytest.warns(UserWarning, match="trimmed"):
            embed(texts, layer, pooling=pooling, batch_size=size)
    list(embed_stream(texts[:30], layer, pooling=pooling))
    assert pooling.shapes == [(None, None)]


def test_xla_compiles_few_shapes(layer):
    texts = [text_of(n, n) for n in (0, 3, 12)]  # two padded lengths
    pooling = CountingMean()
    vectors = embed(texts, layer, pooling=pooling, jit_compile=True, batch_size=4)
    assert pooling.shapes == [(None, None)]
    np.testing.assert_allclose(vectors, embed(texts, layer), atol=1e-5)


def test_trained_weights_are_seen():
    layer = make_layer(pooling="mean", trainable=True)
    before = embed(SENTENCES, layer)
    layer.encoder.weights[-1].assign(layer.encoder.weights[-1] + 1)
    after = embed(SENTENCES, layer)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, to_numpy(layer(SENTENCES, training=False)), atol=1e-5)


def test_a_layer_is_let_go():
    layer = make_layer(pooling="mean")
    embed(["bank"], layer)
    seen = weakref.ref(layer), weakref.ref(layer.encoder)
    del layer
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


def test_functions_kept_for_a_layer_are_bounded(layer, monkeypatch):
    monkeypatch.setattr(compiled, "_KEPT_FUNCTIONS", 2)
    for _ in range(3):
        embed(["bank"], layer, pooling=MeanPooling())
    assert len(compiled._functions[layer.encoder]) <= 2


# Streams


def test_a_stream_takes_no_more_than_two_chunks_ahead(layer):
    pulled = yielded = 0

    def texts():
        nonlocal pulled
        for number in range(100_000):
            pulled += 1
            assert pulled - yielded <= 2 * 4096
            yield WORDS[number % 7]

    stream = embed_stream(texts(), layer, batch_size=1024)
    assert pulled == 0, "nothing is taken before it is asked for"
    words = embed(WORDS[:7], layer)
    for chunk in stream:
        assert len(chunk) == 4096 or yielded + len(chunk) == 100_000
        np.testing.assert_allclose(chunk, words[(yielded + np.arange(len(chunk))) % 7], atol=1e-5)
        yielded += len(chunk)
    assert yielded == pulled == 100_000


def test_texts_are_pulled_in_the_callers_thread(layer):
    def texts():
        for text in SENTENCES:
            assert threading.current_thread() is threading.main_thread()
            yield text

    assert len(embed(texts(), layer)) == len(SENTENCES)


def test_windows_of_books_are_smaller(layer, monkeypatch):
    monkeypatch.setattr(embedded_texts, "_WINDOW_BYTES", 100)
    texts = [text_of(n, n) for n in (3, 50, 2, 1, 30)]
    chunks = list(embed_stream(texts, layer))
    assert [len(chunk) for chunk in chunks] == [2, 3]
    np.testing.assert_allclose(np.concatenate(chunks), embed(texts, layer), atol=1e-5)


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("keras_bert_trend")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_leaves_nothing_running(error, layer):
    def texts():
        yield from SENTENCES
        raise error("stop")

    with pytest.raises(error):
        list(embed_stream(texts(), layer, chunk_size=2, show_progress=True))
    assert not own_threads()
    assert len(embed(SENTENCES, layer)) == len(SENTENCES)


def test_a_stream_that_is_left_early_stops(layer):
    with contextlib.closing(embed_stream(iter(SENTENCES), layer, chunk_size=1)) as stream:
        next(stream)
        assert own_threads()
    assert not own_threads()


# Progress


def test_progress(layer, capfd):
    embed(SENTENCES, layer, show_progress=False)
    embed(SENTENCES, layer)  # no terminal here
    list(embed_stream(SENTENCES, layer))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    embed(SENTENCES, layer, show_progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "6/6" in captured.err


def test_no_progress_and_no_warning_in_a_notebook_that_cannot_show_it(layer, monkeypatch, capfd, recwarn):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    embed(SENTENCES, layer)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not recwarn.list


# Vectors


def test_normalize_and_truncate_dim(layer):
    plain = embed(SENTENCES, layer)
    short = embed(SENTENCES, layer, truncate_dim=5)
    np.testing.assert_array_equal(short, plain[:, :5])
    unit = embed(SENTENCES, layer, truncate_dim=5, normalize=True)
    np.testing.assert_allclose(unit, short / np.linalg.norm(short, axis=1, keepdims=True), rtol=1e-6)
    assert not np.any(embed([""], layer, pooling="trend", normalize=True)), "the zero vector stays"


def test_half_precision_and_bits(layer):
    plain = embed(SENTENCES, layer)
    half = embed(SENTENCES, layer, precision="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, plain.astype(np.float16))
    bits = embed(SENTENCES, layer, precision="binary", truncate_dim=12)
    assert (bits.dtype, bits.shape) == (np.uint8, (len(SENTENCES), 2))
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1, count=12), plain[:, :12] > 0)


def quantize_as_sentence_transformers(embeddings, ranges):
    """`sentence_transformers.util.quantization.quantize_embeddings(precision="int8")`."""
    steps = (ranges[1] - ranges[0]) / 255
    return ((embeddings - ranges[0]) / steps - 128).astype(np.int8)


def test_int8(layer):
    plain = embed(SENTENCES, layer)
    own = np.stack([plain.min(axis=0), plain.max(axis=0)])
    result = embed(SENTENCES, layer, precision="int8")
    assert (result.dtype, result.shape) == (np.int8, plain.shape)
    np.testing.assert_array_equal(result, quantize_as_sentence_transformers(plain, own))

    given_ranges = np.stack([own[0] - 1, own[1] + 1])
    result = embed(SENTENCES, layer, precision="int8", ranges=given_ranges)
    np.testing.assert_array_equal(result, quantize_as_sentence_transformers(plain, given_ranges))
    (chunk,) = embed_stream(SENTENCES, layer, precision="int8", ranges=given_ranges)
    np.testing.assert_array_equal(chunk, result)

    clipped = embed(SENTENCES, layer, precision="int8", ranges=own * 0.5)
    assert set(clipped[np.abs(plain) > np.abs(own).max(axis=0)]) <= {-128, 127}
    assert set(embed(["bank"], layer, precision="int8").flat) == {-128}, "ranges without width"


def test_int8_of_several_poolings(layer):
    poolings = ["cls", "max"]
    apart = embed(SENTENCES, layer, pooling=poolings, output="dict")
    ranges = {name: np.stack([vectors.min(axis=0), vectors.max(axis=0)]) for name, vectors in apart.items()}
    calibrated = embed(SENTENCES, layer, pooling=poolings, output="dict", precision="int8")
    told = embed(SENTENCES, layer, pooling=poolings, output="dict", precision="int8", ranges=ranges)
    for name in poolings:
        assert calibrated[name].dtype == np.int8
        np.testing.assert_array_equal(calibrated[name], told[name])


# Similarity


def test_similarity_is_its_formula():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(4, 7)).astype("float32"), generator.normal(size=(3, 7)).astype("float32")
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(similarity(a, b), a @ b.T / norms, atol=1e-6)
    np.testing.assert_allclose(similarity(a, b, "dot"), a @ b.T, atol=1e-5)
    distances = np.linalg.norm(a[:, None] - b, axis=-1)
    np.testing.assert_allclose(similarity(a, b, metric="euclidean"), -distances, atol=1e-6)
    for metric in ("cosine", "dot", "euclidean"):
        own = similarity(a, metric=metric)
        assert (own.shape, own.dtype) == ((4, 4), np.float32)
        np.testing.assert_array_equal(own, own.T)
    assert similarity(a[0], b[0]).shape == (1, 1)


@given(
    st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3), min_size=1)
)
def test_similarity_is_never_nan(vectors):
    vectors = [*vectors, [0.0, 0.0, 0.0]]
    for metric in ("cosine", "dot", "euclidean"):
        with np.errstate(over="ignore"):
            assert not np.isnan(similarity(vectors, metric=metric)).any()
    cosines = similarity(vectors)
    assert np.all(np.abs(cosines) <= 1)
    assert not np.any(cosines[-1])


def test_similarity_names_what_is_wrong():
    with pytest.raises(ValueError, match="`metric` must be one of"):
        similarity([[1.0]], metric="manhattan")
    with pytest.raises(ValueError, match="same width"):
        similarity(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="`a` must be vectors of numbers"):
        similarity(["a", "b"])
    with pytest.raises(ValueError, match="`a` must be vectors"):
        similarity(np.ones((2, 3, 4)))


# Other backends

OTHER_BACKEND = """
import sys
import keras, numpy as np
from keras_bert_trend import BertPreprocessor, BertTrend, BertEncoder, embed
folder, texts = sys.argv[1], open(sys.argv[1] + "/texts.txt").read().split("\\n")
layer = BertTrend("minilm", pooling="mean", sequence_length=None, truncate=True, trainable=False)
np.save(folder + "/vectors.npy", embed(texts, layer, batch_size=4))
layer.encoder.weights[-1].assign(layer.encoder.weights[-1] + 1)
np.save(folder + "/changed.npy", embed(texts, layer, batch_size=4))
print(keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend, minilm_installed, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    texts = [text for text in SENTENCES if text]
    Path(tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    assert run_fresh(OTHER_BACKEND, tmp_path, KERAS_BACKEND=backend, PYTHONUTF8="1").split() == [backend]
    vectors = np.load(tmp_path / "vectors.npy")
    np.testing.assert_allclose(vectors, embed(texts, "minilm", pooling="mean"), atol=1e-4)
    assert np.abs(np.load(tmp_path / "changed.npy") - vectors).max() > 1e-3, "trained weights are seen"


class TestBfloat16:
    """On processors that have it; the numbers are the same where it is emulated."""

    @pytest.fixture(autouse=True)
    def _has_it(self, monkeypatch, tmp_path):
        (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx2 amx_bf16 amx_tile\n")
        monkeypatch.setattr(bfloat16, "_CPU_INFO", tmp_path / "cpuinfo")

    @pytest.mark.parametrize("pooling", ["mean", "last_four_sum", "cls", "smooth_trend", "trajectory"])
    def test_close_to_float32(self, layer, pooling):
        texts = [text for text in SENTENCES if text]  # an empty one has no direction to compare
        plain = embed(texts, layer, pooling=pooling)
        half = embed(texts, layer, pooling=pooling, compute_dtype="bfloat16")
        assert half.dtype == np.float32
        assert np.any(half != plain)
        assert np.diag(similarity(plain, half)).min() > 0.999

    def test_the_policy_does_the_same(self, layer):
        mixed = make_layer(pooling="smooth_trend", sequence_length=None, dtype="mixed_bfloat16")
        expected = embed(SENTENCES, make_layer(pooling="smooth_trend", sequence_length=None), compute_dtype="bfloat16")
        np.testing.assert_array_equal(embed(SENTENCES, mixed), expected)

    def test_refused_where_it_would_be_emulated(self, layer, tmp_path):
        (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx2 avx512f\n")
        with pytest.raises(ValueError, match="needs a processor that has it"):
            embed(SENTENCES, layer, compute_dtype="bfloat16")
        embed(SENTENCES[:1], layer, compute_dtype="float32")

    def test_unknown_names(self, layer):
        with pytest.raises(ValueError, match="`compute_dtype` must be None or one of"):
            embed(SENTENCES, layer, compute_dtype="float16")
