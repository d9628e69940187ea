"""The fast tokenizer's ids are those of `BertTokenizer`: for all of Unicode, for any bytes, with odd vocabularies."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bert_trend import BertPreprocessor, Vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = list("abcé中#'.")
WORDS = ["ab", "##bc", "a.b", "##'s", "##", "中中", "[MASK]"]
TOKENS = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
UNICODE = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def both(tokens, texts, lower_case):
    """Return ids and row splits by the fast and by the classic tokenizer."""
    vocabulary = Vocabulary(tokens)
    found = []
    for fast in (True, False):
        layer = BertPreprocessor(vocabulary, lower_case=lower_case, fast_tokenizer=fast)
        ids = layer.tokenize(tf.constant(texts, tf.string))
        assert ids.dtype == tf.int32
        found.append((ids.flat_values.numpy(), ids.row_splits.numpy()))
    return found


def check(tokens, texts, lower_case):
    (fast, fast_splits), (classic, classic_splits) = both(tokens, texts, lower_case)
    np.testing.assert_array_equal(fast_splits, classic_splits)
    np.testing.assert_array_equal(fast, classic)


@pytest.fixture(scope="module", autouse=True)
def really_two_ways():
    """What these tests compare must not be one tokenizer twice."""
    vocabulary = Vocabulary(TOKENS)
    assert vocabulary.make_fast_tokenizer() is not None
    assert type(vocabulary.make_fast_tokenizer()) is not type(vocabulary.make_tokenizer())


@pytest.mark.parametrize("lower_case", [True, False])
def test_every_code_point(lower_case):
    check(TOKENS, [f"a{character}b".encode() for character in UNICODE], lower_case)


texts_of_all_kinds = st.lists(
    st.one_of(
        st.sampled_from(TOKENS),
        st.text(max_size=8),
        st.text(alphabet="\u00a0\u2028\u1680\ue000\t\n \u200d\u0301ÀÉｆ", max_size=4),
        st.sampled_from([" ", "...", "a" * 99, "a" * 100, "a" * 101, "é" * 51, "[MASK]", "##ing", "n't", "[unused1]"]),
    ),
    max_size=10,
).map("".join)


@given(st.lists(texts_of_all_kinds, min_size=1, max_size=20), st.booleans())
@settings(max_examples=60)
def test_texts(texts, lower_case):
    check(TOKENS, [text.encode() for text in texts], lower_case)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20), st.booleans())
@settings(max_examples=60)
def test_bytes_that_are_no_text(texts, lower_case):
    check(TOKENS, texts, lower_case)


pieces = st.text(alphabet="abé中'.-#", max_size=4)


@given(
    st.lists(st.one_of(pieces, pieces.map("##{}".format), st.sampled_from(["a\u00a0b", "\ue000", "a b", " "]))),
    st.lists(st.text(alphabet="abé中'.-# \u00a0\ue000", max_size=20), min_size=1, max_size=10),
)
@settings(max_examples=60)
def test_odd_vocabularies(tokens, texts):
    """With tokens that no text can give, with characters that are spaces to one tokenizer and letters to the other."""
    check(list(dict.fromkeys([*SPECIAL, *tokens])), [text.encode() for text in texts], lower_case=False)


@pytest.mark.parametrize("token", ["a\u00a0b", "##\u2028", "\ue000", " ", "a\tb", "\u200d"], ids=ascii)
def test_vocabularies_that_it_does_not_take(token):
    assert Vocabulary([*TOKENS, token]).make_fast_tokenizer() is None


def test_vocabulary_without_a_word():
    assert Vocabulary(SPECIAL).make_fast_tokenizer() is None


def test_empty_batch():
    layer = BertPreprocessor(TOKENS, lower_case=True, sequence_length=8)
    assert layer(tf.constant([], tf.string))["input_word_ids"].shape == (0, 8)
