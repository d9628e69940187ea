"""The page of an `AttentionMap`: whole, harmless, usable by keyboard, and true to the numbers."""

import base64
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest

from keras_bert_trend import AttentionMap, BertTrend, attention, attention_html
from tests.chromium import Page, find_chromium
from tests.common import V4
from tests.test_attention import SCRIPT, UNICODE, padded


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, trainable=False)


@pytest.fixture(scope="module")
def seen(layer) -> AttentionMap:
    return attention("The bankers of the river were good.", layer)


class Parsed(HTMLParser):
    """A page's elements `(tag, attributes)` in order, the texts of each kind of element, and whether tags match."""

    EMPTY = {"meta", "link", "input"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        for tag in set(self._open):
            self.texts[tag][-1] += text

    def all(self, tag: str, **attributes: str) -> list[dict]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture(scope="module")
def page(seen) -> Parsed:
    return Parsed(seen.to_html(layer=2, head=3))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed here")
    with Page(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


class TestPage:
    def test_controls(self, page, seen):
        assert page.all("html", lang="en")
        assert page.texts["title"] == [f"Attention: {seen.text}"]
        assert [option["value"] for option in page.all("option")] == [*"123", *"01234"]
        chosen = [option["value"] for option in page.all("option") if "selected" in option]
        assert chosen == ["2", "3"]
        assert [label.split()[0] for label in page.texts["label"][:2]] == ["Layer", "Head"]  # selects stand in labels
        assert [radio["value"] for radio in page.all("input", type="radio", name="token")] == [
            str(i) for i in range(len(seen.tokens))
        ]
        assert page.texts["legend"] == ["Token"]
        assert page.all("p", role="status", **{"aria-live": "polite"})

    def test_the_table_stands_without_javascript(self, page, seen):
        assert any("layer 2 of 3, head 3 of 4" in caption for caption in page.texts["caption"])
        assert len(page.all("th", scope="col")) == 3 + 1 + len(seen.tokens)
        assert len(page.all("th", scope="row")) == 2 * len(seen.tokens)
        values = [cell for cell in page.texts["td"] if cell]
        assert values == [f"{100 * value:.0f}" for value in seen.matrix(2, 3).ravel()]
        hidden = [attributes.get("id") for _, attributes in page.elements if "hidden" in attributes]
        assert hidden == ["controls", "tokens", "one"]  # what would do nothing

    def test_the_data_are_the_attention(self, page, seen):
        (data,) = (script for script in page.texts["script"] if script.startswith("{"))
        data = json.loads(data)
        assert data["tokens"] == list(seen.tokens)
        values = np.frombuffer(base64.b64decode(data["values"]), "<u2") / data["steps"]
        np.testing.assert_allclose(values.reshape(seen.attention.shape), seen.attention, atol=1 / 65535)

    def test_nothing_comes_from_elsewhere(self, page, seen):
        for _, attributes in page.elements:
            for name in ("src", "href", "action", "data", "poster", "srcset"):
                assert attributes.get(name, "data:").startswith("data:")
        text = seen.to_html()
        assert "//" not in text.replace("  // ", "")  # comments of the script
        assert "@import" not in text
        (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert policy["content"].startswith("default-src 'none'")

    @pytest.mark.parametrize("text", [SCRIPT, "</script><b>", "<!-- bank", "&amp; ]]>", '"quoted" $title', UNICODE, ""])
    def test_any_text_is_only_text(self, layer, text):
        each = attention(text, layer, pair=text)
        page, plain = Parsed(each.to_html()), Parsed(attention("the bank", layer).to_html())
        assert len(page.all("script")) == len(plain.all("script")) == 2
        assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
        assert page.texts["p"][:2] == [text or "(empty text)"] * 2
        tokens = [line for line in page.texts["bdi"][2:] if line]
        assert tokens[: len(each.tokens)] == list(each.tokens)

    def test_long_texts(self, layer):
        each = attention("the " * 60, layer)
        with pytest.raises(ValueError, match=r"`text` has 62 tokens, more than max_tokens=20.*MB.*raise max_tokens"):
            each.to_html(max_tokens=20)
        assert len(Parsed(each.to_html(max_tokens=62)).all("input")) == 62
        for wrong in (0, True, 2.5):
            with pytest.raises(ValueError, match="`max_tokens`"):
                each.to_html(max_tokens=wrong)

    def test_what_was_cut_off_is_said(self, layer):
        assert "4 of its tokens were cut off" in attention_html("the " * 8, padded(layer, 6))

    def test_the_function_is_the_method(self, layer, seen):
        assert attention_html(seen.text, layer, layer=1, head=2) == seen.to_html(1, 2)
        with pytest.raises(ValueError, match="max_tokens=5"):
            attention_html(seen.text, layer, max_tokens=5)

    def test_a_notebook_shows_the_page(self, seen):
        ((tag, attributes),) = Parsed(seen._repr_html_()).elements
        assert tag == "iframe"
        assert attributes["srcdoc"] == seen.to_html()
        assert attributes["sandbox"] == "allow-scripts"  # no way into the notebook
        much = np.zeros((1, 1, 200, 200), "float32")
        assert AttentionMap("the", None, ("the",) * 200, (0,) * 200, much, 0)._repr_html_() is None

    def test_the_file_is_complete_or_not_there(self, seen, tmp_path, monkeypatch):
        path = tmp_path / "page.html"
        seen.save_html(path, layer=2, head=3)
        assert path.read_text(encoding="utf-8") == seen.to_html(2, 3)
        seen.save_html(str(path))
        assert path.read_text(encoding="utf-8") == seen.to_html()

        def fail(*arguments):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            seen.save_html(path, layer=1)
        assert path.read_text(encoding="utf-8") == seen.to_html()
        assert os.listdir(tmp_path) == ["page.html"]
        with pytest.raises(FileNotFoundError):
            seen.save_html(tmp_path / "nowhere" / "page.html")


TAB, RIGHT, DOWN = ("Tab", 9), ("ArrowRight", 39), ("ArrowDown", 40)
MATRIX = "Array.from(document.querySelectorAll('#matrix td'), (cell) => Number(cell.textContent))"
DETAILS = "Array.from(document.querySelectorAll('#details td'), (cell) => parseFloat(cell.textContent))"
STATUS = "document.getElementById('status').textContent"


class TestBrowser:
    """The page in a headless Chromium: what it shows, by keyboard and mouse, and that it asks for nothing."""

    @pytest.fixture
    def each(self, layer, browser, tmp_path) -> AttentionMap:
        each = attention("The bank of the river.", layer, pair=SCRIPT)
        each.save_html(tmp_path / "page.html")
        browser.open(tmp_path / "page.html")
        return each

    def check(self, browser, each, layer, head, token) -> None:
        matrix = each.matrix(layer, head)
        np.testing.assert_allclose(np.reshape(browser.run(MATRIX), matrix.shape), 100 * matrix, atol=0.51)
        looks, looked_at = np.reshape(browser.run(DETAILS), (-1, 2)).T
        np.testing.assert_allclose(looks, 100 * matrix[token], atol=0.051)
        np.testing.assert_allclose(looked_at, 100 * matrix[:, token], atol=0.051)
        assert browser.complaints() == []

    def test_by_keyboard(self, browser, each):
        self.check(browser, each, 3, None, 1)
        browser.press(*TAB)  # a long text would be a stop of its own
        browser.press("ArrowUp", 38)  # layer 2
        browser.press(*TAB)
        browser.press(*DOWN)
        browser.press(*DOWN)  # head 2
        self.check(browser, each, 2, 2, 1)
        browser.press(*TAB)
        browser.press(*RIGHT)  # token 2
        self.check(browser, each, 2, 2, 2)
        most = each.tokens[each.matrix(2, 2)[2].argmax()]
        assert browser.run(STATUS).startswith(f"Layer 2 of 3, head 2 of 4. “bank” looks most at “{most}” ")
        assert "layer 2 of 3, head 2 of 4" in browser.run("document.querySelector('#matrix caption').textContent")

    def test_by_mouse(self, browser, each):
        before = browser.run(STATUS)
        browser.point_at("document.querySelectorAll('#tokens label')[4]")
        self.check(browser, each, 3, None, 4)
        assert browser.run(STATUS) == before  # a screen reader is not told of every movement
        browser.point_at("document.querySelector('h1')")
        self.check(browser, each, 3, None, 1)
        browser.point_at("document.querySelectorAll('#matrix td')[2]")
        assert browser.run("document.querySelector('#matrix td[title]').title").startswith("“[CLS]” looks at “bank”: ")

    def test_colours_follow_the_system(self, browser, each):
        background = "getComputedStyle(document.body).backgroundColor"
        moves = "getComputedStyle(document.querySelector('fieldset span')).transitionDuration"
        seen = set()
        for scheme, motion in (("light", "no-preference"), ("dark", "reduce")):
            browser.emulate(prefers_color_scheme=scheme, prefers_reduced_motion=motion)
            seen.add((browser.run(background), browser.run(moves) == "0s"))
        assert seen == {("rgb(255, 255, 255)", False), ("rgb(22, 24, 28)", True)}
        browser.emulate()
