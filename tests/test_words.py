"""`word_vectors` and where words stand in a text."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import (
    BertPreprocessor,
    BertTrend,
    LayerPooling,
    TrendPooling,
    explain,
    word_vectors,
)
from keras_bert_trend.preprocessing import SentencePieceVocabulary
from tests.common import FIXTURES, SENTENCES, V4, to_numpy

TEXT = "The bankers of the river Bank, wasn't it?"


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, trainable=False)


@pytest.fixture(scope="module")
def seen(layer):
    outputs = layer([TEXT], return_all=True)
    return np.stack([to_numpy(states)[0] for states in (outputs["embedding_output"], *outputs["encoder_outputs"])])


def positions(layer, text, word):
    return next(list(each.positions) for each in explain(text, layer).words if each.text == word)


@pytest.mark.smoke
class TestWords:
    def test_pieces_are_joined_and_repeated_words_stay_apart(self, layer):
        records = word_vectors(TEXT, layer)
        assert [word for word, _, _ in records] == [
            "the",
            "bankers",
            "of",
            "the",
            "river",
            "bank",
            "wasn",
            "t",
            "it",
        ]
        assert [TEXT[start:end].lower() for _, (start, end), _ in records] == [word for word, _, _ in records]
        assert np.abs(records[0].vector - records[3].vector).max() > 1e-3

    def test_punctuation(self, layer):
        words = [word for word, _, _ in word_vectors(TEXT, layer, punctuation=True)]
        assert words == ["the", "bankers", "of", "the", "river", "bank", ",", "wasn", "'", "t", "it", "?"]
        assert word_vectors("?!", layer) == []
        assert len(word_vectors("?!", layer, punctuation=True)) == 2

    def test_they_are_those_of_trend_pooling(self, layer):
        """The recorded sentences, under the pooling's own grouping."""
        texts = json.loads((FIXTURES / "preprocess_v3" / "sentences.json").read_text(encoding="utf-8"))["sentences"]
        texts = [text for text in texts if len(text) < 60]
        ids = layer.preprocessor(texts)
        received = np.ones((len(texts), 1, 1, ids["input_mask"].shape[1]), "float32")
        pooling = TrendPooling(layer.preprocessor.vocabulary.token_kinds, unit="word")
        chosen = pooling.select({"attention_received": received}, ids["input_mask"], ids["input_word_ids"])
        begins, pieces = to_numpy(chosen["candidates"]), to_numpy(chosen["pieces"])
        for i, each in enumerate(explain(texts, layer)):
            if each.words:
                assert [word.positions[0] for word in each.words] == np.flatnonzero(begins[i]).tolist()
                for word in each.words:
                    assert list(word.positions) == np.flatnonzero(pieces[i, word.positions[0]]).tolist()


class TestVectors:
    def test_the_default_is_the_sum_of_the_last_four_layers(self, layer, seen):
        """This encoder has three blocks: all of them, and not the embedding output."""
        token = seen[1:].sum(axis=0)
        for combine, expected in {
            "first": lambda pieces: pieces[0],
            "mean": lambda pieces: pieces.mean(axis=0),
            "sum": lambda pieces: pieces.sum(axis=0),
        }.items():
            records = word_vectors(TEXT, layer, combine=combine)
            for word in ("bankers", "river"):
                got = next(vector for text, _, vector in records if text == word)
                np.testing.assert_allclose(got, expected(token[positions(layer, TEXT, word)]), rtol=1e-5, atol=1e-5)

    def test_layers(self, layer, seen):
        at = positions(layer, TEXT, "river")[0]
        for layers, expected in {
            (0,): seen[0],
            (-1,): seen[3],
            (1, 3): seen[1] + seen[3],
            LayerPooling([1, 2], combine="mean", level="token"): (seen[1] + seen[2]) / 2,
            LayerPooling([0, 3], combine="concat", level="token"): np.concatenate([seen[0], seen[3]], axis=-1),
        }.items():
            vector = next(vector for word, _, vector in word_vectors(TEXT, layer, layers=layers) if word == "river")
            np.testing.assert_allclose(vector, expected[at], rtol=1e-5, atol=1e-5)

    def test_dim_truncates(self, layer):
        whole, short = word_vectors(TEXT, layer), word_vectors(TEXT, layer, dim=5)
        for one, other in zip(whole, short, strict=True):
            assert other.vector.shape == (5,)
            np.testing.assert_array_equal(other.vector, one.vector[:5])

    def test_a_batch_is_its_texts_one_by_one(self, layer):
        for text, records in zip(SENTENCES, word_vectors(SENTENCES, layer, batch_size=4), strict=True):
            alone = word_vectors(text, layer)
            assert [record[:2] for record in records] == [record[:2] for record in alone]
            for one, other in zip(records, alone, strict=True):
                np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)

    def test_a_handle(self, layer):
        (one,), (other,) = word_vectors("bank", V4), word_vectors("bank", layer)
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"combine": "last"}, "`combine`"),
            ({"layers": []}, "`layers`"),
            ({"layers": [4]}, "`layers`"),
            ({"layers": LayerPooling([1])}, "level='token'"),
            ({"dim": 0}, "`dim`"),
            ({"dim": 33}, "`dim`.*32"),
            ({"text_or_texts": [1]}, "`text`"),
            ({"handle_or_layer": None}, "`handle_or_layer`"),
            ({"batch_size": 0}, "`batch_size`"),
        ],
    )
    def test_wrong_arguments(self, layer, arguments, message):
        with pytest.raises(ValueError, match=message):
            word_vectors(**{"text_or_texts": "the", "handle_or_layer": layer, **arguments})


class TestOffsets:
    @pytest.mark.parametrize("lower_case", [True, False])
    def test_they_index_the_text(self, vocabulary, lower_case):
        """Recorded sentences: what stands at the offsets, normalised, is the token."""
        preprocessor = BertPreprocessor(vocabulary, lower_case=lower_case, sequence_length=None)
        texts = json.loads((FIXTURES / "preprocess_v3" / "sentences.json").read_text(encoding="utf-8"))["sentences"]
        known = 0
        for text in texts:
            ids = preprocessor.tokenize([text])[0].numpy()
            starts, ends = preprocessor.token_offsets(text)
            assert len(starts) == len(ends) == len(ids)
            stand = [i for i in range(len(ids)) if starts[i] is not None and ends[i] is not None]
            assert all(0 <= starts[i] < ends[i] <= len(text) for i in stand)
            slices = tf.constant([text[starts[i] : ends[i]] for i in stand], tf.string)
            for i, normalized in zip(stand, preprocessor.normalize(slices).numpy(), strict=True):
                token = vocabulary.tokens[ids[i]]
                assert token == "[UNK]" or vocabulary.surface(token) == normalized.decode()
            known += len(stand)
        assert known > 100

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a\u200bthe it", ["a\u200bthe", "it"]),  # lower-casing drops it
            ("naïve nai\u0308ve café", ["naïve", "nai\u0308ve", "café"]),
            ("\u0301the bank", ["the", "bank"]),  # an accent on nothing
            ("Straße STRASSE", ["Straße", "STRASSE"]),
            ("x" * 120 + "\t the", ["x" * 120, "the"]),  # too long to be cut into pieces
            ("ΩΩ 中国😀it", ["ΩΩ", "中", "国", "😀it"]),
            ("  \nTHE\u00a0bank  ", ["THE", "bank"]),
        ],
    )
    def test_hard_cases(self, layer, text, words):
        assert [text[slice(*word.span)] for word in explain(text, layer).words] == words

    def test_control_characters(self, vocabulary):
        """In a cased text a control character of three bytes becomes a space of one."""
        preprocessor = BertPreprocessor(vocabulary, lower_case=False, sequence_length=None)
        assert preprocessor.token_offsets("a\u200bthe\u200b it") == ([0, 2, 7], [1, 5, 9])

    def test_accents_that_normalising_joins(self, vocabulary):
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, strip_accents=False, sequence_length=None)
        assert preprocessor.token_offsets("The e\u0301 bank") == ([0, 4, 7], [3, 6, 11])

    def test_a_token_that_begins_inside_a_character_has_none(self, layer):
        """Here "ß" becomes "ss", and that two tokens: each is half a character, the word is not."""
        each = explain("ß", layer)
        assert each.tokens == ("[CLS]", "s", "##s", "[SEP]")
        assert each.token_spans == (None, None, None, None)
        (word,) = each.words
        assert (word.text, word.span) == ("ss", (0, 1))

    def test_sentence_piece(self):
        vocabulary = SentencePieceVocabulary((FIXTURES / "sentencepiece" / "spiece.model").read_bytes())
        preprocessor = BertPreprocessor(vocabulary, lower_case=True, sequence_length=None)
        text = "  See YOU at the café!"
        tokens = [vocabulary.tokens[i] for i in preprocessor.tokenize([text])[0].numpy()]
        starts, ends = preprocessor.token_offsets(text)
        for token, start, end in zip(tokens, starts, ends, strict=True):
            if start is not None and token != "<unk>":
                normalized = preprocessor.normalize(tf.constant([text[start:end]])).numpy()[0].decode()
                assert normalized == vocabulary.surface(token)
        assert text[starts[0] :].startswith("See")

    def test_characters_that_cannot_be_followed(self, layer, monkeypatch):
        """Normalising the whole is not normalising its parts: better no offsets than wrong ones."""
        normalize = layer.preprocessor.normalize
        monkeypatch.setattr(layer.preprocessor, "normalize", lambda texts: normalize(texts) + " the")
        assert layer.preprocessor.token_offsets("the bank") == ([None] * 3, [None] * 3)
