"""`layer_walk` measures how far words move between the encoder's own states, in every form it is shown in."""

import html
import json
import sys

import numpy as np
import pytest

from keras_bert_trend import BertPreprocessor, BertTrend, LayerWalk, layer_walk, word_vectors
from keras_bert_trend.inspection.batch import Word
from tests.common import SENTENCES, V4, to_numpy
from tests.test_attention import inside
from tests.test_explain import visible_text

TEXT = "The bankers of the river!"
ARRAYS = ("steps", "cosines", "cosines_to_start")


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, trainable=False)


@pytest.fixture
def drawing() -> None:
    pytest.importorskip("matplotlib")


def states_of(layer: BertTrend, text: str) -> np.ndarray:
    outputs = layer([text], return_all=True)
    return np.stack([to_numpy(state)[0] for state in (outputs["embedding_output"], *outputs["encoder_outputs"])])


def cosine(a, b) -> float:
    return a @ b / np.sqrt((a @ a) * (b @ b))


def check(walk: LayerWalk, states: np.ndarray) -> None:
    """Compare with the states `(L + 1, words, hidden)`."""
    layers, words = len(states) - 1, states.shape[1]
    for name in ARRAYS:
        assert getattr(walk, name).shape == (layers, words)
    for i in range(layers):
        for w in range(words):
            before, after, start = states[i, w], states[i + 1, w], states[0, w]
            np.testing.assert_allclose(walk.steps[i, w], np.sqrt(np.sum((after - before) ** 2)), rtol=1e-4)
            np.testing.assert_allclose(walk.cosines[i, w], cosine(after, before), atol=1e-5)
            np.testing.assert_allclose(walk.cosines_to_start[i, w], cosine(after, start), atol=1e-5)


@pytest.mark.smoke
def test_words(layer):
    walk = layer_walk(TEXT, layer)
    assert [(word.text, word.span) for word in walk.words] == [
        (word.word, word.span) for word in word_vectors(TEXT, layer)
    ]
    assert [word.positions for word in walk.words] == [(1,), (2, 3, 4), (5,), (6,), (7,)]
    states = states_of(layer, TEXT)
    check(walk, np.stack([states[:, list(word.positions)].mean(1) for word in walk.words], axis=1))


def test_tokens(layer):
    walk = layer_walk(TEXT, layer, unit="token")
    assert [word.text for word in walk.words] == [
        "[CLS]",
        "the",
        "bank",
        "##er",
        "##s",
        *TEXT[12:-1].split(),
        "!",
        "[SEP]",
    ]
    check(walk, states_of(layer, TEXT))


def test_a_batch_is_its_texts_one_by_one(layer):
    walks = layer_walk(SENTENCES, layer, unit="token", batch_size=4)
    assert [walk.text for walk in walks] == SENTENCES
    for walk in walks[:2] + walks[-1:]:
        alone = layer_walk(walk.text, layer, unit="token")
        assert walk.words == alone.words
        for name in ARRAYS:
            np.testing.assert_allclose(getattr(walk, name), getattr(alone, name), atol=1e-5)
    assert layer_walk([], layer) == []


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("text", ["", "?!"])
def test_a_text_without_words(layer, text):
    walk = layer_walk(text, layer)
    assert walk.words == ()
    assert walk.steps.shape == (layer.encoder.config.num_layers, 0)
    for shown in (str(walk), walk._repr_html_(), "\n".join(visible_text(walk.plot()))):
        assert "No word here" in shown
    assert len(layer_walk(text, layer, unit="token").words) == 2 + len(text)


def test_what_was_cut_off_is_said(layer):
    short = BertPreprocessor(layer.preprocessor.vocabulary, lower_case=True, sequence_length=4)
    walk = layer_walk("the bank of the river", BertTrend(encoder=layer.encoder, preprocessor=short, pooling="mean"))
    assert ([word.text for word in walk.words], walk.truncated) == (["the", "bank"], 3)
    assert "last 3 tokens were cut off" in str(walk)
    assert "last 3 tokens were cut off" in walk._repr_html_()


def test_the_table_has_it_all(layer):
    walk = layer_walk("the bank 日本 was", layer)
    lines = str(walk).split("\n")
    for name in ARRAYS:
        for word, values in zip(walk.words, getattr(walk, name).T, strict=True):
            assert [word.text, *(f"{value:.2f}" for value in values)] in [line.split() for line in lines]
    heads = [line.split()[1:] for line in lines if line.startswith("word ")]
    assert heads == [["0→1", "1→2", "2→3"], ["0→1", "1→2", "2→3"], ["1", "2", "3"]]


def test_many_layers_fit_a_terminal():
    values = np.linspace(0, 1, 24)[:, None]
    walk = LayerWalk("the", (Word("the", (0, 3), (1,)),), 100 * values, values, values, 0, "word")
    assert max(map(len, str(walk).split("\n"))) <= 100
    assert [f"{value:.2f}" for value in values[:, 0]] == " ".join(
        line for line in str(walk).split("Cosine of each")[1].split("\n") if line.startswith("the ")
    ).replace("the", "").split()


def test_html_is_escaped(layer):
    text = "<script>alert('the bank & co')</script>"
    shown = layer_walk(text, layer, unit="token")._repr_html_()
    assert "<script" not in shown
    assert html.escape(text) in shown
    assert '<th scope="row">&lt;</th>' in shown
    assert shown.count("<caption>") == shown.count("<table>") == 3


def test_json_has_everything(layer):
    for walk in layer_walk(SENTENCES, layer):
        data = json.loads(json.dumps(walk.to_dict(), allow_nan=False))
        assert data == walk.to_dict()
        assert list(data) == list(LayerWalk.__dataclass_fields__)
        assert [word["text"] for word in data["words"]] == [word.text for word in walk.words]
        for name in ARRAYS:
            np.testing.assert_array_equal(np.reshape(data[name], getattr(walk, name).shape), getattr(walk, name))


@pytest.mark.usefixtures("drawing")
def test_the_figure_shows_the_arrays(layer):
    walk = layer_walk(TEXT, layer)
    figure = walk.plot()
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 3
    for image, name in zip(images, ARRAYS, strict=True):
        np.testing.assert_array_equal(image.get_array(), getattr(walk, name).T)
    assert {*(word.text for word in walk.words), walk.text, "1", "2", "3", "layer"} <= set(visible_text(figure))


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("text", ["$ ? $ _^", "a" * 200, "the " * 60, "bank"])
def test_any_text_is_drawn_inside_the_figure(layer, text):
    inside(layer_walk(text, layer, unit="token").plot())


def test_without_matplotlib(layer, monkeypatch):
    walk = layer_walk(TEXT, layer)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        walk.plot()


def test_half_precision():
    half = BertTrend(V4, pooling="mean", sequence_length=None, trainable=False, dtype="mixed_bfloat16")
    walk = layer_walk(TEXT, half)
    assert walk.steps.dtype == np.float64
    assert np.all(walk.steps > 0)
    json.dumps(walk.to_dict(), allow_nan=False)


def test_it_cannot_be_changed(layer):
    walk = layer_walk(TEXT, layer)
    with pytest.raises(AttributeError):
        walk.text = "another"
    with pytest.raises(ValueError, match="read-only"):
        walk.steps[0, 0] = 1
    assert repr(walk) == f"<LayerWalk of {TEXT!r}: 5 words, 3 layers>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_or_texts": 3}, "`text`"),
        ({"text_or_texts": [b"the"]}, "`text`"),
        ({"model": 3}, "`model`"),
        ({"unit": "letter"}, "`unit`"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_wrong_arguments(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer_walk(**{"text_or_texts": "the", "model": layer, **arguments})
