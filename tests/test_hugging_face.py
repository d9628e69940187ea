"""From and to Hugging Face: folders written here are opened there, tokenizers written there are read here."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from keras_bert_trend import BertConfig, BertEncoder, BertPreprocessor, BertTrend, UnsupportedArchitectureError
from tests.common import SENTENCES, SHARED, V4, random_inputs, to_numpy


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder that `export_hugging_face` wrote, and what wrote it."""
    encoder, preprocessor = BertEncoder.from_handle(V4), BertPreprocessor.from_handle(V4, sequence_length=24)
    folder = tmp_path_factory.mktemp("written") / "bert"
    encoder.export_hugging_face(folder, preprocessor)
    return folder, encoder, preprocessor


def test_it_is_read_back(written):
    folder, encoder, preprocessor = written
    again = BertEncoder.from_handle(folder)
    for name, weight in encoder.named_weights().items():
        np.testing.assert_array_equal(again.named_weights()[name], weight)
    text = BertPreprocessor.from_handle(folder, sequence_length=24)
    for name, ids in preprocessor(SENTENCES).items():
        np.testing.assert_array_equal(text(SENTENCES)[name], ids)


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu"])
def test_transformers_opens_it(hidden_act, small_config, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = dataclasses.replace(small_config, hidden_act=hidden_act, initializer_range=0.3)
    encoder, inputs = BertEncoder(config), random_inputs(small_config, [9, 4], 12)
    encoder.export_hugging_face(tmp_path / "bert")
    model = transformers.BertModel.from_pretrained(tmp_path / "bert").eval()
    names = {"input_word_ids": "input_ids", "input_mask": "attention_mask", "input_type_ids": "token_type_ids"}
    with torch.no_grad():
        theirs = model(**{names[key]: torch.tensor(value).long() for key, value in inputs.items()})
    ours, real = encoder(inputs, training=False), inputs["input_mask"][:, :, None]
    np.testing.assert_allclose(ours["sequence_output"] * real, theirs.last_hidden_state.numpy() * real, atol=1e-5)
    np.testing.assert_allclose(ours["pooled_output"], theirs.pooler_output.numpy(), atol=1e-5)


def test_sentence_transformers_opens_it(written):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder, encoder, preprocessor = written
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    ours = BertTrend(encoder=encoder, preprocessor=preprocessor, pooling="mean")(SENTENCES)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_is_no_bert_is_not_written(tmp_path):
    albert = BertConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, share_layers=True)
    with pytest.raises(ValueError, match="shares its layers"):
        BertEncoder(albert).export_hugging_face(tmp_path / "albert")
    assert not (tmp_path / "albert").exists()


class TestTokenizerJson:
    def test_it_stands_in_for_a_vocabulary_file(self, written, tmp_path):
        folder, _, preprocessor = written
        shutil.copytree(folder, tmp_path / "bert")
        for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / "bert" / name).unlink()
        text = BertPreprocessor.from_handle(tmp_path / "bert", sequence_length=24)
        assert text.vocabulary == preprocessor.vocabulary
        assert (text.lower_case, text.strip_accents) == (preprocessor.lower_case, preprocessor.strip_accents)

    def test_ids_are_those_of_the_tokenizers_library(self, minilm_installed):
        tokenizers = pytest.importorskip("tokenizers")
        from keras_bert_trend.sources.minilm import find_minilm
        from keras_bert_trend.sources.tokenizer_json import read_tokenizer_json

        file = f"{find_minilm()}/tokenizer.json"
        theirs = tokenizers.Tokenizer.from_file(file)
        theirs.no_truncation()
        theirs.no_padding()
        ours = BertPreprocessor.from_source(read_tokenizer_json(file), sequence_length=None)
        odd = "a\u0092b\u200bc…\ue000\x00d \ufb01ne \u0130stanbul ÉCOLE\tx\ny\rz \ufffd\u2028漢字\u00a0K\u212a"
        texts = [*SENTENCES, odd]
        for name in ("sms_spam", "trec_questions", "sst2_train_sample"):
            path = SHARED / "data" / f"{name}.tsv"
            if path.exists():
                texts += path.read_text(encoding="utf-8").splitlines()
        ids = ours.tokenize(texts)
        expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
        assert ids.to_list() == expected

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("model", {"type": "BPE"}, "the model's type is 'BPE'"),
            ("model", {"continuing_subword_prefix": "_"}, "continuing_subword_prefix is '_'"),
            ("model", {"max_input_chars_per_word": 5}, "max_input_chars_per_word is 5"),
            ("normalizer", {"type": "Lowercase"}, "the normalizer's type is 'Lowercase'"),
            ("normalizer", {"clean_text": False}, "clean_text is False"),
            ("pre_tokenizer", {"type": "Whitespace"}, "the pre_tokenizer's type is 'Whitespace'"),
        ],
        ids=str,
    )
    def test_other_tokenizers_are_refused_by_name(self, part, change, message, written, tmp_path):
        shutil.copytree(written[0], tmp_path / "bert")
        (tmp_path / "bert" / "vocab.txt").unlink()
        file = tmp_path / "bert" / "tokenizer.json"
        fields = json.loads(file.read_text(encoding="utf-8"))
        fields[part].update(change)
        file.write_text(json.dumps(fields), encoding="utf-8")
        with pytest.raises(UnsupportedArchitectureError, match=message):
            BertTrend(tmp_path / "bert")

    @pytest.mark.parametrize("content", ["{}", "[]", "nonsense", '{"model": null}', '{"model": {"vocab": {"a": 1}}}'])
    def test_damaged_files_are_named(self, content, tmp_path):
        from keras_bert_trend.sources.tokenizer_json import read_tokenizer_json

        file = tmp_path / "tokenizer.json"
        file.write_text(content)
        with pytest.raises(ValueError, match="tokenizer.json"):
            read_tokenizer_json(str(file))


class TestSentenceTransformersFolder:
    @pytest.fixture
    def folder(self, written, tmp_path):
        shutil.copytree(written[0], tmp_path / "bert")
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (tmp_path / "bert" / "modules.json").write_text(json.dumps(modules))
        (tmp_path / "bert" / "1_Pooling").mkdir()
        (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
        return tmp_path / "bert"

    @pytest.mark.parametrize(
        ("modes", "pooling", "width"),
        [
            ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls", 32),
            ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean", 32),
            ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, ["cls", "max"], 64),
            ({"pooling_mode": "mean"}, "mean", 32),
        ],
        ids=str,
    )
    def test_its_pooling_and_length_are_the_defaults(self, modes, pooling, width, folder):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
        layer = BertTrend(folder)
        assert layer.preprocessor.sequence_length == 32
        assert layer.embedding_dim == width
        chosen = BertTrend(folder, pooling=pooling, sequence_length=32)
        np.testing.assert_array_equal(layer(SENTENCES), chosen(SENTENCES))
        assert BertTrend(folder, pooling="last_four_sum", sequence_length=16).preprocessor.sequence_length == 16

    def test_a_pooling_that_is_not_here_is_named(self, folder):
        modes = {"pooling_mode_weightedmean_tokens": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
        with pytest.raises(ValueError, match="got 'pooling_mode_weightedmean_tokens'"):
            BertTrend(folder)
        assert to_numpy(BertTrend(folder, pooling="mean")(SENTENCES)).shape == (len(SENTENCES), 32)
