"""Texts longer than the model: windows that overlap, whose tokens count once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertTrend, LastFourSum, embed, embed_stream
from keras_bert_trend.preprocessing.windows import cut_into_windows
from tests.common import V4

WORDS = ["the", "of", "and", "you", "that", "on", "his", "be", "call", "not"]
SIZE = 14  # tokens of a window of 16


def text(count: int, first: int = 0) -> str:
    return " ".join(WORDS[(first + i * (1 + i // 10)) % len(WORDS)] for i in range(count))


@pytest.fixture(scope="module")
def plain() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=16, trainable=False)


def windowed(plain: BertTrend, **arguments) -> BertTrend:
    parts = {"encoder": plain.encoder, "preprocessor": plain.preprocessor, "pooling": plain.pooling}
    return BertTrend(**{**parts, "windows": "mean", **arguments})


def by_hand(plain: BertTrend, words: list[str], starts: list[int], stride: int | None = None) -> np.ndarray:
    """The windows' embeddings one by one, and the mean that the definition gives."""
    ends = [min(start + SIZE, len(words)) for start in starts]
    holding = np.zeros(len(words))
    for start, end in zip(starts, ends, strict=True):
        holding[start:end] += 1
    weights = [np.sum(1 / holding[start:end]) for start, end in zip(starts, ends, strict=True)]
    vectors = plain([" ".join(words[start:end]) for start, end in zip(starts, ends, strict=True)])
    return np.average(vectors, axis=0, weights=weights)


@pytest.mark.parametrize("count", [0, 1, SIZE - 1, SIZE, SIZE + 1, 24, 25, 40, 53])
@pytest.mark.parametrize("stride", [1, 5, 14])
def test_layouts_are_those_of_the_definition_in_numpy_and_tensorflow(count, stride):
    starts, counts = np.array([0, 3, 3 + count]), np.array([3, count, 20])
    result = cut_into_windows(starts, counts, SIZE, stride, "mean", np)
    own = result.owners == 1
    beyond = max(count - SIZE, 0)
    expected = sorted({*range(0, beyond, stride), beyond})
    assert (result.starts[own] - 3).tolist() == expected
    assert (result.counts[own] == min(count, SIZE)).all()
    assert np.bincount(result.owners, result.weights) == pytest.approx([1, 1, 1])
    in_graphs = cut_into_windows(*map(tf.constant, (starts, counts)), SIZE, stride, "mean", tf)
    for one, other in zip(result, in_graphs, strict=True):
        np.testing.assert_allclose(one, other)


def test_windows_by_hand(plain):
    words = text(40).split()
    result = windowed(plain, stride=10)([" ".join(words), "they", ""])
    np.testing.assert_allclose(result[0], by_hand(plain, words, [0, 10, 20, 26]), atol=1e-6)
    np.testing.assert_allclose(result[1:], plain(["they", ""]), atol=1e-5)  # one window suffices: the plain result
    default = windowed(plain)([" ".join(words)])[0]
    np.testing.assert_allclose(default, by_hand(plain, words, [0, 11, 22, 26]), atol=1e-6)
    ends = windowed(plain, windows="first_last")([" ".join(words)])[0]
    np.testing.assert_allclose(ends, by_hand(plain, words, [0, 26]), atol=1e-6)
    near = windowed(plain, windows="first_last")([" ".join(words[:16])])[0]
    np.testing.assert_allclose(near, by_hand(plain, words[:16], [0, 2]), atol=1e-6)


@pytest.mark.parametrize("pooling", ["trend", "smooth_trend", "last_four_sum", "cls", ["mean", "max"]])
def test_a_text_that_fits_is_as_without_windows_and_no_batch_changes_a_text(plain, pooling):
    without = BertTrend(encoder=plain.encoder, preprocessor=plain.preprocessor, pooling=pooling)
    layer = windowed(plain, pooling=pooling)
    texts = [text(9), text(50), "", text(14, 3), text(27)]
    together = layer(texts)
    bound = 0.02 if pooling == "trend" else 1e-5  # the log ratio is ill-conditioned
    for number, one in enumerate(texts):
        difference = np.linalg.norm(layer([one])[0] - together[number])
        assert difference <= bound * np.linalg.norm(together[number])
    short = [0, 2, 3]
    plainly = without([texts[i] for i in short])
    assert np.linalg.norm(plainly - tf.gather(together, short)) <= bound * np.linalg.norm(plainly)


def test_no_limit_but_the_models_and_documents_of_sentences(plain):
    layer = BertTrend(V4, pooling="mean", sequence_length=None, max_length=16, windows="mean", trainable=False)
    np.testing.assert_allclose(layer([text(40)]), windowed(plain)([text(40)]), atol=1e-6)
    documents = layer(tf.constant([[text(40), "they"], ["", text(20)]]))
    assert documents.shape == (2, 2, layer.embedding_dim)
    np.testing.assert_allclose(documents[0, 0], layer([text(40)])[0], atol=1e-6)
    assert layer(tf.constant([], tf.string)).shape == (0, layer.embedding_dim)


def test_a_model_with_windows_trains_saves_and_exports(tmp_path):
    layer = BertTrend(V4, pooling="smooth_trend", sequence_length=16, windows="mean", stride=9)
    inputs = keras.Input((), dtype="string", name="text")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile("sgd", "mse")
    texts = tf.constant([text(40), text(5)])
    before = layer.get_weights()
    model.fit(texts, tf.constant([1.0, 0.0]), verbose=0)
    assert any(np.any(old != new) for old, new in zip(before, layer.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.layers[1].windows, loaded.layers[1].stride) == ("mean", 9)
    expected = model(texts)
    np.testing.assert_allclose(loaded(texts), expected, atol=1e-6)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(served.serve(texts), expected, atol=1e-5)


def test_mixed_precision_averages_in_float32(plain):
    layer = BertTrend(V4, pooling="mean", sequence_length=16, windows="mean", dtype="mixed_bfloat16", trainable=False)
    result = layer([text(40)])
    assert result.dtype == tf.bfloat16
    assert np.ptp(tf.cast(result - tf.cast(windowed(plain)([text(40)]), tf.bfloat16), tf.float32)) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"windows": "max"}, r"`windows` must be None or one of"),
        ({"windows": None, "stride": 3}, "`stride` goes with"),
        ({"windows": "first_last", "stride": 3}, "`stride` goes with 'mean'"),
        ({"stride": 15}, "`stride` must be between 1 and 14"),
        ({"stride": 0}, "`stride` must be between 1 and 14"),
        ({"return_all": True}, "`return_all`"),
        ({"pooling": LastFourSum(level="token")}, "one a token"),
        ({"preprocessor": None}, "no preprocessor"),
    ],
)
def test_what_does_not_fit_is_refused(plain, arguments, message):
    with pytest.raises(ValueError, match=message):
        windowed(plain, **arguments)


def test_pairs_and_ids_are_refused(plain):
    layer = windowed(plain)
    with pytest.raises(ValueError, match="pair"):
        layer((["a"], ["b"]))
    with pytest.raises(ValueError, match="must be strings"):
        layer(plain.preprocessor(["a"]))


class TestEmbed:
    TEXTS = (text(40), "they", "", text(80, 2), text(14))

    @pytest.mark.parametrize("kind", ["mean", "first_last"])
    def test_is_what_the_layer_computes(self, plain, kind):
        layer = windowed(plain, windows=kind)
        expected = layer(list(self.TEXTS))
        np.testing.assert_allclose(embed(self.TEXTS, plain, long_texts=kind, batch_size=2), expected, atol=1e-5)
        np.testing.assert_allclose(embed(self.TEXTS, layer), expected, atol=1e-5)  # the layer's own
        trimmed = embed(self.TEXTS, plain, long_texts="truncate")
        np.testing.assert_allclose(trimmed[[1, 2, 4]], expected.numpy()[[1, 2, 4]], atol=1e-5)

    def test_takes_the_layers_stride_and_its_own(self, plain):
        layer = windowed(plain, stride=7)
        np.testing.assert_allclose(embed(self.TEXTS, layer), layer(list(self.TEXTS)), atol=1e-5)
        own = embed(self.TEXTS, layer, long_texts="mean", stride=3)
        np.testing.assert_allclose(own, windowed(plain, stride=3)(list(self.TEXTS)), atol=1e-5)

    def test_progress_counts_texts(self, plain, capsys):
        embed(self.TEXTS, plain, long_texts="mean", show_progress=True)
        assert "5/5" in capsys.readouterr().err

    def test_a_stream_and_several_poolings(self, plain):
        arguments = {"long_texts": "mean", "pooling": ["mean", "cls"]}
        chunks = list(embed_stream(self.TEXTS, plain, chunk_size=2, **arguments))
        assert [len(chunk) for chunk in chunks] == [2, 2, 1]
        np.testing.assert_allclose(np.concatenate(chunks), embed(self.TEXTS, plain, **arguments), atol=1e-5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"long_texts": "max"}, "`long_texts` must be None or one of"),
            ({"long_texts": "mean", "truncate": False}, "give one of them"),
            ({"long_texts": "mean", "stride": 15}, "`stride` must be between 1 and 14"),
            ({"stride": 3}, "`stride` goes with 'mean'"),
            ({"long_texts": "error"}, "position 0 has 42 tokens"),
            ({"texts": [(text(40), "they")], "long_texts": "mean"}, "pairs are trimmed or refused"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, plain, arguments, message):
        with pytest.raises(ValueError, match=message):
            embed(**{"texts": self.TEXTS, "model": plain, **arguments})
