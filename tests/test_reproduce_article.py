"""`reproduce_article.py`: what it says is checked is checked, and what is not the article's model is called so."""

import dataclasses
import sys

import numpy as np
import pytest

from keras_bert_trend import BertTrend, TrendPooling
from tests import test_trend as printed
from tests.common import V4, load_example, to_numpy

article = load_example("reproduce_article")
ARTICLE = article.ARTICLE


def test_the_articles_numbers_are_those_that_trend_pooling_is_tested_with():
    np.testing.assert_array_equal(ARTICLE.rows, printed.PRINTED_ROWS)
    np.testing.assert_array_equal(ARTICLE.last, printed.PRINTED_LAST_WANT)
    np.testing.assert_array_equal(ARTICLE.anchor_trend, printed.PRINTED_TREND_WANT)
    np.testing.assert_array_equal(ARTICLE.related_trend, printed.PRINTED_TREND_APPLE)
    np.testing.assert_array_equal(ARTICLE.embedding, printed.PRINTED_SUM)


def test_what_follows_from_the_printed_numbers_alone():
    recomputed = article.recompute()
    assert set(recomputed) == {"leaders", "runners_up", "anchor", "related", "embedding"}
    assert all(check.passed for check in article.compare(recomputed, ARTICLE))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anchor", "an"),
        ("leaders", np.roll(ARTICLE.leaders, 1)),
        ("runners_up", ARTICLE.runners_up[:-1]),
        ("embedding", ARTICLE.embedding + 0.01),
    ],
)
def test_a_wrong_number_fails_its_check_and_no_other(name, value):
    wrong = dataclasses.replace(ARTICLE, **{name: value})
    failed = [check.name for check in article.compare(vars(wrong), ARTICLE) if not check.passed]
    assert failed == [name]


def test_the_articles_model_is_known_by_shape_and_numbers():
    rounded = dataclasses.replace(ARTICLE, rows=ARTICLE.rows + 1e-5)
    other = dataclasses.replace(ARTICLE, rows=ARTICLE.rows[:, ::-1])
    assert article.is_the_articles_model(rounded, (12, 768, 12))
    assert not article.is_the_articles_model(rounded, (12, 384, 12))
    assert not article.is_the_articles_model(other, (12, 768, 12))


@pytest.fixture(scope="module")
def layer():
    return BertTrend(V4, pooling="trend", sequence_length=None, trainable=False)


def test_an_encoders_own_numbers(layer):
    """The words are found by the layer's pooling; the cosines are those of its states, by the article's expression."""
    ours = article.look(layer)
    seen = layer(article.TEXTS, return_all=True)
    assert isinstance(layer.pooling, TrendPooling)
    np.testing.assert_allclose(ours.embedding, to_numpy(seen["sentence_embedding"])[0, :10], atol=1e-5)
    assert ours.rows.shape == (layer.encoder.config.num_heads, len(ours.words))
    first, last = (to_numpy(seen[name])[:, 2, :10] for name in ("embedding_output", "sequence_output"))
    np.testing.assert_allclose(ours.last, last[0], atol=1e-6)
    trend = printed.article_trend(first, last)
    for got, vectors in ((ours.trend_cosines, trend), (ours.last_cosines, last)):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(got, [unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]], atol=1e-4)


def run(monkeypatch, capsys, model):
    monkeypatch.setattr(sys, "argv", ["reproduce_article.py", "--model", str(model)])
    article.main()
    return capsys.readouterr().out


def test_another_model_is_shown_and_called_so(monkeypatch, capsys, layer):
    monkeypatch.setattr(article, "BertTrend", lambda *args, **kwargs: layer)
    output = run(monkeypatch, capsys, V4)
    assert "This is not the article's model; its numbers are shown for comparison of form only." in output
    assert "FAIL" not in output
    assert output.count("pass ") == 5
    assert "head 12     0.7708    0.7983    0.4570    0.3695" in output


def test_the_articles_model_is_checked(monkeypatch, capsys, layer):
    class BertBase:
        encoder = type("encoder", (), {"config": type("config", (), {"num_layers": 12, "hidden_size": 768})})

    BertBase.encoder.config.num_heads = 12
    monkeypatch.setattr(article, "BertTrend", lambda *args, **kwargs: BertBase)
    monkeypatch.setattr(article, "look", lambda layer: dataclasses.replace(ARTICLE, last=ARTICLE.last + 1e-6))
    output = run(monkeypatch, capsys, "bert-base-uncased")
    assert "This is the article's model" in output
    assert "FAIL" not in output

    monkeypatch.setattr(article, "look", lambda layer: dataclasses.replace(ARTICLE, last=ARTICLE.last + 0.01))
    with pytest.raises(SystemExit, match="A check failed"):
        run(monkeypatch, capsys, "bert-base-uncased")
    assert "last           FAIL" in capsys.readouterr().out


def test_a_handle_that_is_none(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit, match="neither saved_model.pb nor config.json"):
        run(monkeypatch, capsys, tmp_path)
