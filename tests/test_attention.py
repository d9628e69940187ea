"""`attention` says what the encoder says, without the padding, and its figures show just that."""

import json
import sys

import numpy as np
import pytest

from keras_bert_trend import (
    AttentionMap,
    BertPreprocessor,
    BertTrend,
    attention,
    explain,
    layer_walk,
    plot_attention,
    plot_attention_overview,
)
from tests.common import SENTENCES, V4, to_numpy
from tests.test_explain import draw, visible_text

SCRIPT = "<script>alert('the bank & co')</script>"
UNICODE = "naïve שלום 東京 🙂 $5_ ^x"


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, trainable=False)


@pytest.fixture(scope="module")
def seen(layer) -> AttentionMap:
    return attention("The bankers of the river were good.", layer)


@pytest.fixture
def drawing() -> None:
    pytest.importorskip("matplotlib")


def inside(figure) -> None:
    """Check that nothing is cut off."""
    draw(figure)
    width, height = figure.bbox.size
    for artist in figure.axes + figure.texts:
        box = artist.get_tightbbox()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


def padded(layer: BertTrend, length: int) -> BertTrend:
    preprocessor = BertPreprocessor(layer.preprocessor.vocabulary, lower_case=True, sequence_length=length)
    return BertTrend(encoder=layer.encoder, preprocessor=preprocessor, pooling="mean", trainable=False)


@pytest.mark.parametrize("text", [*SENTENCES, UNICODE])
def test_it_is_the_encoders_attention(layer, text):
    outputs = layer([text], return_all=True)
    each = attention(text, layer)
    expected = np.stack([to_numpy(scores)[0] for scores in outputs["attention_scores"]])
    config = layer.encoder.config
    assert each.attention.shape == (config.num_layers, config.num_heads, len(each.tokens), len(each.tokens))
    assert each.attention.dtype == np.float32
    np.testing.assert_allclose(each.attention, expected, atol=1e-6)
    np.testing.assert_allclose(each.attention.sum(-1), 1, atol=1e-5)  # [query, key]
    np.testing.assert_allclose(each.attention.sum(-2), to_numpy(outputs["attention_received"])[0], atol=1e-5)
    assert (each.text, each.pair, each.truncated) == (text, None, 0)
    assert (each.tokens[0], each.tokens[-1]) == ("[CLS]", "[SEP]")
    assert set(each.segments) == {0}


def test_padding_is_left_out(layer, seen):
    each = attention(seen.text, padded(layer, 24))
    assert each.tokens == seen.tokens == ("[CLS]", "the", "bank", "##er", "##s", *each.tokens[5:])
    np.testing.assert_allclose(each.attention, seen.attention, atol=1e-6)


def test_pairs(layer):
    each = attention("the bank", layer, pair="of the river.")
    assert each.tokens == ("[CLS]", "the", "bank", "[SEP]", "of", "the", "river", ".", "[SEP]")
    assert each.segments == (0, 0, 0, 0, 1, 1, 1, 1, 1)
    expected = to_numpy(layer((["the bank"], ["of the river."]), return_all=True)["attention_scores"][1])[0]
    np.testing.assert_allclose(each.attention[1], expected, atol=1e-6)
    assert attention("the bank", layer, pair="").tokens == ("[CLS]", "the", "bank", "[SEP]", "[SEP]")


def test_what_was_cut_off_is_counted(layer):
    short = padded(layer, 6)
    assert attention("the bank of the river", short).truncated == 5 - 4
    assert attention("the bank of the river", short, pair="the bank").truncated == 7 - 3
    with pytest.raises(ValueError, match="truncate=True"):
        attention("the " * 70, layer)
    assert attention("the " * 70, V4, truncate=True).truncated == 70 - 62


def test_layers_and_heads_are_counted_from_one(seen):
    layers, heads = seen.attention.shape[:2]
    np.testing.assert_array_equal(seen.matrix(1, 2), seen.attention[0, 1])
    np.testing.assert_array_equal(seen.matrix(layers, heads), seen.attention[-1, -1])
    np.testing.assert_array_equal(seen.matrix(-layers, -heads), seen.attention[0, 0])
    np.testing.assert_allclose(seen.matrix(np.int64(2)), seen.attention[1].mean(0), atol=1e-7)
    np.testing.assert_array_equal(seen.matrix(), seen.matrix(layers))


@pytest.mark.parametrize("call", ["matrix", "plot", "to_html"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 0}, "`layer` must be 1 to 3, got 0: the embedding output"),
        ({"layer": 4}, "`layer` must be 1 to 3.*got 4"),
        ({"layer": -4}, "`layer`.*got -4"),
        ({"layer": "last"}, "`layer`.*got 'last'"),
        ({"layer": True}, "`layer`.*got True"),
        ({"layer": None}, "`layer`.*got None"),
        ({"head": 0}, "`head` must be 1 to 4.*got 0"),
        ({"head": 5}, "`head`.*got 5"),
        ({"head": 1.5}, "`head`.*got 1.5"),
    ],
)
@pytest.mark.usefixtures("drawing")
def test_wrong_layers_and_heads(seen, call, arguments, message):
    assert seen.attention.shape[:2] == (3, 4)
    with pytest.raises(ValueError, match=message):
        getattr(seen, call)(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": 3}, "`text`"),
        ({"text": ["the", "bank"]}, "`text`"),
        ({"pair": b"the"}, "`pair`"),
        ({"model": 3}, "`model`"),
    ],
)
def test_wrong_arguments(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        attention(**{"text": "the", "model": layer, **arguments})


def test_json_has_everything(layer, seen):
    for each in (seen, attention("", layer), attention(UNICODE, layer, pair=SCRIPT)):
        data = json.loads(json.dumps(each.to_dict(), allow_nan=False))
        assert data == each.to_dict()
        assert list(data) == list(AttentionMap.__dataclass_fields__)
        np.testing.assert_array_equal(np.array(data["attention"], "float32"), each.attention)
        assert data["tokens"] == list(each.tokens)


def test_it_cannot_be_changed(seen):
    with pytest.raises(AttributeError):
        seen.text = "another"
    with pytest.raises(ValueError, match="read-only"):
        seen.attention[0] = 0
    assert f"3 layers, 4 heads, {len(seen.tokens)} tokens" in repr(seen)


@pytest.mark.usefixtures("drawing")
class TestFigures:
    def test_one_head(self, seen):
        figure = seen.plot(2, 3)
        axes, bar = figure.axes
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), seen.matrix(2, 3))
        assert [label.get_text() for label in axes.get_yticklabels()] == list(seen.tokens)
        assert [label.get_text() for label in axes.get_xticklabels()] == list(seen.tokens)
        shown = visible_text(figure)
        assert {"layer 2 of 3, head 3 of 4", seen.text, "from", "to"} <= set(shown)
        assert "attention" in bar.get_ylabel()
        assert "layer 3 of 3, mean of 4 heads" in visible_text(seen.plot())
        assert "layer 3 of 3, head 4 of 4" in visible_text(seen.plot(-1, -1))

    def test_numbers_where_there_is_room(self, layer, seen):
        each = attention("the bank", layer)
        texts = [text.get_text() for text in each.plot(1, 1).axes[0].texts]
        assert texts == [f"{value:.2f}".removeprefix("0") for value in each.matrix(1, 1).ravel()]
        assert not attention("the " * 30, layer).plot().axes[0].texts

    def test_overview(self, seen):
        figure = seen.plot_overview()
        axes, _ = figure.axes
        layers, heads = seen.attention.shape[:2]
        assert len(axes.images) == layers * heads
        for image in axes.images:
            left, right, bottom, top = image.get_extent()
            here = seen.attention[round((bottom + top) / 2) - 1, round((left + right) / 2) - 1]
            np.testing.assert_array_equal(image.get_array(), here)
            assert image.get_clim() == (0, 1)
        assert axes.get_ylim() == (layers + 0.5, 0.5)  # the first layer stands on top
        shown = visible_text(figure)
        assert {"layer", "head", seen.text, *map(str, range(1, heads + 1))} <= set(shown)

    def test_the_functions_draw_what_the_map_draws(self, layer):
        text, pair = "the bank", "the river"
        each = attention(text, layer, pair=pair)
        for figure, expected in (
            (plot_attention(text, layer, layer=1, head=2, pair=pair), each.plot(1, 2)),
            (plot_attention(text, layer, pair=pair), each.plot()),
            (plot_attention_overview(text, layer, pair=pair), each.plot_overview()),
        ):
            got, wanted = figure.axes[0].images, expected.axes[0].images
            assert len(got) == len(wanted) > 0
            np.testing.assert_array_equal(got[-1].get_array(), wanted[-1].get_array())
            assert figure.axes[0].get_title() == expected.axes[0].get_title()
            assert figure.get_suptitle() == f"{text} — {pair}"

    @pytest.mark.filterwarnings("ignore:Glyph")  # a font that has everything is not at hand everywhere
    @pytest.mark.parametrize("text", ["", "$ ? $ _^", "a" * 200, "the " * 60, UNICODE])
    def test_any_text_is_drawn_inside_the_figure(self, layer, text):
        each = attention(text, layer)
        inside(each.plot())
        if not text:
            inside(each.plot_overview())  # no token stands in it

    def test_installed_fonts_help_out(self, layer, seen, monkeypatch):
        """matplotlib's own font has no Chinese, Japanese or Korean."""
        from matplotlib import font_manager, rcParams

        monkeypatch.setattr(font_manager.fontManager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans JP"])
        for figure in (seen.plot(), seen.plot_overview(), explain("bank", layer).plot(), layer_walk("a", layer).plot()):
            for text in (figure.axes[0].get_yticklabels()[0], figure._suptitle):
                assert text.get_fontfamily() == [*rcParams["font.family"], "Noto Sans JP"]

    def test_without_matplotlib(self, seen, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        for call in (seen.plot, seen.plot_overview):
            with pytest.raises(ImportError, match="pip install matplotlib"):
                call()


@pytest.mark.smoke
def test_minilm(minilm_installed):
    each = attention("I want an apple.", "minilm")
    assert each.tokens == ("[CLS]", "i", "want", "an", "apple", ".", "[SEP]")
    assert each.attention.shape == (6, 12, 7, 7)
