"""`explain` says what `TrendPooling` does: the same words, the same numbers, in every form it is shown in."""

import html
import json
import sys

import keras
import numpy as np
import pytest

from keras_bert_trend import (
    BertConfig,
    BertEncoder,
    BertPreprocessor,
    BertTrend,
    Explanation,
    TrendPooling,
    explain,
)
from tests.common import SENTENCES, V4, to_numpy
from tests.test_trend import (
    PRINTED_LAST_WANT,
    PRINTED_ROWS,
    PRINTED_SUM,
    PRINTED_TREND_APPLE,
    PRINTED_TREND_WANT,
)

READINGS, UNITS = ("published", "layers", "all", "attended"), ("token", "word")


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="trend", sequence_length=None, trainable=False)


@pytest.fixture
def drawing() -> None:
    pytest.importorskip("matplotlib")


def with_pooling(layer: BertTrend, pooling) -> BertTrend:
    return BertTrend(encoder=layer.encoder, preprocessor=layer.preprocessor, pooling=pooling, trainable=False)


def draw(figure) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()


def visible_text(figure) -> list[str]:
    from matplotlib.text import Text

    draw(figure)
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


class PrintedEncoder(BertEncoder):
    """An encoder of "I want an apple." that says what the article prints, and states that give its trends."""

    def call(self, inputs, **flags):
        outputs = super().call(inputs, **flags)
        received = np.full((1, 1, 12, 7), 9.0, "float32")
        received[0, 0, :, 1:5] = PRINTED_ROWS
        first, last = np.ones((2, 1, 7, 12), "float32")
        for position, trend, state in (
            (2, PRINTED_TREND_WANT, PRINTED_LAST_WANT),
            (4, PRINTED_TREND_APPLE, [0.5] * 10),
        ):
            trend, state = np.array(trend), np.array(state)
            last[0, position, :10] = state
            first[0, position, :10] = np.where(trend == 0, -state, state / np.exp(trend))  # 0: the sign flips
        return {**outputs, "attention_received": received, "embedding_output": first, "sequence_output": last}


class TestPrintedNumbers:
    @pytest.fixture
    def printed(self) -> Explanation:
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "i", "want", "an", "apple", "."]
        config = BertConfig(vocab_size=9, hidden_size=12, num_layers=1, num_heads=12, intermediate_size=12)
        preprocessor = BertPreprocessor(tokens, lower_case=True, sequence_length=None)
        layer = BertTrend(encoder=PrintedEncoder(config, trainable=False), preprocessor=preprocessor, pooling="trend")
        return explain("I want an apple.", layer)

    def test_selection(self, printed):
        assert printed.tokens == ("[CLS]", "i", "want", "an", "apple", ".", "[SEP]")
        assert [word.text for word in printed.candidates] == ["i", "want", "an", "apple"]
        np.testing.assert_allclose(printed.rows, PRINTED_ROWS, rtol=1e-6)
        np.testing.assert_array_equal(printed.leaders, [1, 3, 0, 2, 1, 1, 3, 0, 3, 3, 1, 1])
        # The article counts the runner-ups without the anchor: i 0, an 1, apple 2.
        voting = printed.runners_up[printed.leaders == 1]
        np.testing.assert_array_equal(voting - (voting > 1), [0, 2, 2, 2, 0])
        np.testing.assert_array_equal(printed.votes, [2, 0, 0, 3])
        assert (printed.anchor.text, printed.anchor.span, printed.anchor.positions) == ("want", (2, 6), (2,))
        assert (printed.related.text, printed.related.span, printed.related.positions) == ("apple", (10, 15), (4,))

    def test_trends(self, printed):
        np.testing.assert_allclose(printed.anchor_trend[:10], PRINTED_TREND_WANT, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(printed.related_trend[:10], PRINTED_TREND_APPLE, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(printed.embedding[:10], PRINTED_SUM, rtol=1e-5, atol=1e-6)

    def test_the_table_has_it_all(self, printed):
        lines = str(printed).split("\n")
        (want,) = (line for line in lines if line.startswith("want "))
        values = [f"{value:.2f}" for value in PRINTED_ROWS[:, 1]]
        assert want.split()[1:] == [
            *(f"{value}*" if leader == 1 else value for value, leader in zip(values, printed.leaders, strict=True)),
            "5",
            "0",
            "anchor",
        ]
        (apple,) = (line for line in lines if line.startswith("apple "))
        assert apple.endswith("related word")
        assert apple.count("+") == 3
        assert "'apple' (token 4, characters 10 to 15): second in 3 of the 5 heads that the anchor leads" in str(
            printed
        )


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("reading", READINGS)
def test_the_embedding_is_the_poolings(layer, reading, unit):
    """Edge cases included: an empty text, punctuation only, one word."""
    # Of a state near zero the log ratio multiplies the rounding of an encoder that leaves padding out.
    for measure, tolerance in {"log_ratio": 5e-4, "asinh": 1e-5}.items():
        kinds = layer.preprocessor.vocabulary.token_kinds
        pooling = TrendPooling(kinds, reading=reading, unit=unit, measure=measure)
        expected = to_numpy(with_pooling(layer, pooling)(SENTENCES))
        got = explain(SENTENCES, layer, reading=reading, unit=unit, measure=measure)
        np.testing.assert_allclose([each.embedding for each in got], expected, atol=tolerance)
        for each in got:
            np.testing.assert_allclose(each.anchor_trend + each.related_trend, each.embedding, atol=1e-6)
            assert each.rows.shape == (len(each.row_names), len(each.candidates))


def test_what_the_layer_pools_with_is_explained(layer):
    kinds = layer.preprocessor.vocabulary.token_kinds
    pooling = TrendPooling(kinds, reading="layers", unit="word", measure="asinh", aggregation="attention", scale=0.3)
    text = SENTENCES[4]
    for chosen in (pooling, ["mean", pooling], ["mean", ["cls", [pooling]]]):
        own = with_pooling(layer, chosen)
        each = explain(text, own)
        assert (each.reading, each.unit, each.measure, each.aggregation) == ("layers", "word", "asinh", "attention")
        np.testing.assert_allclose(each.embedding, to_numpy(own([text]))[0, -32:], atol=1e-5)
    assert "weighted by block 3" in str(each)
    soft = TrendPooling(kinds, measure="signed_log", aggregation="soft")
    assert "all trends, weighted as anchor and as related word" in str(explain(text, with_pooling(layer, soft)))
    changed = explain(text, own, reading="all")
    assert (changed.reading, changed.unit, changed.aggregation) == ("all", "word", "attention")
    assert explain(text, with_pooling(layer, "mean")).reading == "published"


def test_a_batch_is_its_texts_one_by_one(layer):
    whole = explain(SENTENCES, layer, batch_size=4)
    for text, each in zip(SENTENCES, whole, strict=True):
        alone = explain(text, layer)
        assert (each.text, each.tokens, each.words, each.candidates, each.edge) == (
            alone.text,
            alone.tokens,
            alone.words,
            alone.candidates,
            alone.edge,
        )
        assert (each.anchor, each.related) == (alone.anchor, alone.related)
        np.testing.assert_allclose(each.rows, alone.rows, atol=1e-5)
        np.testing.assert_allclose(each.embedding, alone.embedding, atol=1e-4)  # a log ratio is ill-conditioned
    assert explain([], layer) == []


@pytest.mark.parametrize(
    ("text", "edge", "candidates"),
    [
        ("", "empty", []),
        (" \n ", "empty", []),
        ("?!", "only_punctuation", ["?", "!"]),
        ("?", "only_punctuation", ["?"]),
        ("bank!", "one_candidate", ["bank"]),
        ("the bank", None, ["the", "bank"]),
    ],
)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.usefixtures("drawing")
def test_edges(layer, text, edge, candidates, unit):
    each = explain(text, layer, unit=unit)
    assert each.edge == edge
    assert [word.text for word in each.candidates] == candidates
    assert (each.anchor is None) == (not candidates)
    assert (each.related is None) == (len(candidates) < 2)
    assert np.all(each.leaders == -1) == (not candidates)
    assert np.all(each.runners_up == -1) == (len(candidates) < 2)
    if not candidates:
        np.testing.assert_array_equal(each.embedding, 0)
    for shown in (str(each), each._repr_html_(), repr(each)):
        assert shown
    assert visible_text(each.plot())
    json.dumps(each.to_dict(), allow_nan=False)


def test_tokens_and_words_as_candidates(layer):
    text = "The bankers make a token."
    tokens, words = explain(text, layer), explain(text, layer, unit="word")
    assert [word.text for word in tokens.candidates] == ["the", "bank", "##er", "##s", "make", "a", "token"]
    assert [word.text for word in words.candidates] == ["the", "bankers", "make", "a", "token"]
    assert tokens.words == words.words == words.candidates
    assert [text[slice(*word.span)] for word in tokens.candidates] == ["The", "bank", "er", "s", "make", "a", "token"]
    pieces = [word.positions for word in words.candidates if word.text == "bankers"]
    assert pieces == [(2, 3, 4)]
    np.testing.assert_allclose(words.rows[:, 1], tokens.rows[:, 1:4].sum(axis=1), rtol=1e-5)


def test_what_was_cut_off_is_said(layer):
    short = BertPreprocessor(layer.preprocessor.vocabulary, lower_case=True, sequence_length=4)
    each = explain("the bank of the river", BertTrend(encoder=layer.encoder, preprocessor=short, pooling="trend"))
    assert (each.tokens, each.truncated) == (("[CLS]", "the", "bank", "[SEP]"), 3)
    assert each.token_spans == (None, (0, 3), (4, 8), None)
    assert "its last 3 tokens were cut off" in str(each)
    assert explain("the " * 70, V4, truncate=True).truncated == 70 - 62
    with pytest.raises(ValueError, match="truncate=True"):
        explain("the " * 70, V4)


def test_json_has_everything(layer):
    for text in SENTENCES:
        each = explain(text, layer, unit="word")
        data = json.loads(json.dumps(each.to_dict(), allow_nan=False))
        assert data == each.to_dict()
        assert list(data) == list(Explanation.__dataclass_fields__)
        for name in ("rows", "leaders", "runners_up", "votes", "embedding", "anchor_trend", "related_trend"):
            np.testing.assert_array_equal(np.array(data[name]).reshape(getattr(each, name).shape), getattr(each, name))
        for name in ("anchor", "related"):
            word = getattr(each, name)
            assert (data[name] is None) == (word is None)
            assert word is None or data["candidates"][data[name]]["text"] == word.text


def test_html_is_escaped(layer):
    text = "<script>alert('the bank & co')</script>"
    shown = explain(text, layer)._repr_html_()
    assert "<script" not in shown
    assert html.escape(text) in shown
    only = explain("<&>", layer)._repr_html_()
    assert "<th" in only
    assert "&lt;</th>" in only
    assert "&amp;</th>" in only


def test_columns_stand_under_each_other(layer):
    lines = str(explain("the 中 bank 日本 was good", layer)).split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("token"))
    table = lines[first : lines.index("", first)]
    wide = [sum(2 if ord(character) > 0x2E80 else 1 for character in line[: line.index(".")]) for line in table[1:]]
    assert len(set(wide)) == 1


@pytest.mark.usefixtures("drawing")
class TestFigure:
    def test_labels(self, layer):
        each = explain("The bank of the river was good", layer)
        shown = visible_text(each.plot(top=3))
        for label in (*(word.text for word in each.candidates), *each.row_names, each.text, "votes"):
            assert label in shown
        assert f"anchor: {each.anchor.text}" in shown
        assert f"related word: {each.related.text}" in shown
        largest = np.argsort(-np.abs(each.anchor_trend))[:3]
        assert {str(dimension) for dimension in largest} <= set(shown)

    def test_the_bars_are_the_votes(self, layer):
        each = explain("The bank of the river was good", layer)
        (votes,) = (axes for axes in each.plot().axes if axes.get_ylabel() == "votes")
        np.testing.assert_array_equal([bar.get_height() for bar in votes.patches], each.votes)

    @pytest.mark.parametrize("text", ["$ ? $ _^", "a" * 200, "the " * 50, "bank", ""])
    def test_any_text_is_drawn_inside_the_figure(self, layer, text):
        """No formula is read into "$", and no label is cut off."""
        figure = explain(text, layer, reading="all").plot()
        draw(figure)
        width, height = figure.bbox.size
        for artist in figure.axes + figure.texts:
            box = artist.get_tightbbox()
            assert box.x0 >= -1
            assert box.y0 >= -1
            assert box.x1 <= width + 1
            assert box.y1 <= height + 1

    def test_pyplot_is_not_touched(self, layer):
        import matplotlib

        backend = matplotlib.rcParams._get_backend_or_none()
        explain("the bank", layer).plot()
        assert matplotlib.rcParams._get_backend_or_none() == backend
        if "matplotlib.pyplot" in sys.modules:
            assert not sys.modules["matplotlib.pyplot"].get_fignums()

    def test_a_notebook_shows_the_picture(self, layer):
        """Without `pyplot` nobody else would: Jupyter prints the size of other figures."""
        assert explain("the bank", layer).plot()._repr_png_().startswith(b"\x89PNG")

    def test_errors(self, layer, monkeypatch):
        each = explain("the bank", layer)
        with pytest.raises(ValueError, match="`top`"):
            each.plot(top=0)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match="pip install matplotlib"):
            each.plot()


def test_it_cannot_be_changed(layer):
    each = explain("the bank", layer)
    with pytest.raises(AttributeError):
        each.text = "another"
    with pytest.raises(ValueError, match="read-only"):
        each.rows[0, 0] = 1


@pytest.mark.usefixtures("drawing")
def test_half_precision(layer):
    half = BertTrend(V4, pooling="trend", sequence_length=None, trainable=False, dtype="mixed_bfloat16")
    each = explain(SENTENCES[0], half)
    np.testing.assert_allclose(each.embedding.astype("float32"), to_numpy(half([SENTENCES[0]]))[0].astype("float32"))
    json.dumps(each.to_dict(), allow_nan=False)
    assert visible_text(each.plot())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_or_texts": 3}, "`text`"),
        ({"text_or_texts": [b"the"]}, "`text`"),
        ({"text_or_texts": [("the", "bank")]}, "`text`"),
        ({"reading": "heads"}, "`reading`"),
        ({"unit": "letter"}, "`unit`"),
        ({"measure": "log"}, "`measure`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"handle_or_layer": 3}, "`handle_or_layer`"),
        ({"handle_or_layer": keras.layers.Dense(1)}, "`handle_or_layer`"),
    ],
)
def test_wrong_arguments(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        explain(**{"text_or_texts": "the", "handle_or_layer": layer, **arguments})


def test_a_layer_without_text(layer):
    with pytest.raises(ValueError, match="no preprocessor"):
        explain("the", BertTrend(encoder=layer.encoder, pooling="mean"))


@pytest.mark.smoke
def test_minilm(minilm_installed):
    each = explain("I want an apple.", "minilm", reading="layers")
    assert each.rows.shape == (6, 4)
    assert each.embedding.shape == (384,)
    assert [word.text for word in each.words] == ["i", "want", "an", "apple"]


def test_a_handle_is_explained_as_published(layer):
    """`BertTrend`'s default is made for training; what the article prints is the log ratio."""
    by_handle, by_layer = explain(SENTENCES[0], V4), explain(SENTENCES[0], layer, measure="log_ratio")
    assert (by_handle.measure, by_handle.reading, by_handle.anchor) == ("log_ratio", "published", by_layer.anchor)
