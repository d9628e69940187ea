"""Vocabulary and casing come out of preprocessing models and SentencePiece files, and texts become the same ids."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from tensorflow.core.protobuf import saved_model_pb2

from keras_bert_trend import BertPreprocessor, BertTrend, UnsupportedArchitectureError
from keras_bert_trend.preprocessing import SentencePieceVocabulary
from keras_bert_trend.preprocessing.vocabulary import CONTINUATION, PUNCTUATION, SPECIAL
from keras_bert_trend.sources import load_text_source
from tests.common import FIXTURES, V4, fixture_folder, run_fresh

SPIECE = FIXTURES / "sentencepiece" / "spiece.model"


@pytest.fixture(scope="module")
def recorded_pieces():
    return json.loads((SPIECE.parent / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def preprocessing_model(tmp_path):
    shutil.copytree(fixture_folder("preprocess_v3") / "saved_model", tmp_path / "model", copy_function=shutil.copyfile)
    return tmp_path / "model"


def edit_nodes(folder, change):
    """Apply `change(node)` to every node of every function of a SavedModel."""
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    file = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for function in proto.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            change(node)
    file.write_bytes(proto.SerializeToString())


class TestPreprocessingModel:
    def test_vocabulary_casing_and_length(self, preprocessing_model, vocabulary):
        layer = BertPreprocessor.from_handle(preprocessing_model)
        assert layer.vocabulary == vocabulary
        assert (layer.lower_case, layer.strip_accents, layer.sequence_length) == (True, True, 32)

    def test_same_ids(self, preprocessing_model):
        sentences = json.loads((FIXTURES / "preprocess_v3" / "sentences.json").read_text())["sentences"]
        got = BertPreprocessor.from_handle(preprocessing_model)(sentences)
        with np.load(FIXTURES / "preprocess_v3" / "expected.npz") as expected:
            for name, ids in got.items():
                np.testing.assert_array_equal(ids, expected[f"single32_{name}"])

    def test_casing_follows_the_graph(self, preprocessing_model):
        def rename(op):
            def change(node):
                if node.op == op:
                    node.op = "Identity"

            return change

        edit_nodes(preprocessing_model, rename("CaseFoldUTF8"))
        source = load_text_source(preprocessing_model)
        assert (source.lower_case, source.strip_accents) == (False, True)
        edit_nodes(preprocessing_model, rename("NormalizeUTF8"))
        assert load_text_source(preprocessing_model).strip_accents is False

    def test_it_is_the_vocabulary_of_a_layer(self, preprocessing_model, vocabulary, tmp_path):
        """An encoder that brings no vocabulary takes it, and the casing, from the preprocessing model."""
        bare = tmp_path / "bare"
        shutil.copytree(V4, bare)
        proto = saved_model_pb2.SavedModel.FromString((bare / "saved_model.pb").read_bytes())
        for reference in proto.meta_graphs[0].object_graph_def.nodes[0].children:
            if reference.local_name in ("vocab_file", "do_lower_case"):
                reference.local_name = "another"
        (bare / "saved_model.pb").write_bytes(proto.SerializeToString())
        (bare / "fingerprint.pb").unlink()
        with pytest.raises(ValueError, match="brings no vocabulary"):
            BertTrend(bare, pooling="mean")
        layer = BertTrend(bare, pooling="mean", vocabulary=preprocessing_model)
        assert layer.preprocessor.vocabulary == vocabulary
        assert (layer.preprocessor.lower_case, layer.preprocessor.sequence_length) == (True, 32)
        np.testing.assert_array_equal(
            layer(["An apple."]), BertTrend(V4, pooling="mean", sequence_length=32)(["An apple."])
        )

    def test_a_missing_vocabulary_file(self, preprocessing_model):
        shutil.rmtree(preprocessing_model / "assets")
        with pytest.raises(ValueError, match=r"vocab\.txt.*missing"):
            load_text_source(preprocessing_model)

    def test_other_tokenizers_are_refused(self, preprocessing_model):
        def change(node):
            if node.op == "WordpieceTokenizeWithOffsets":
                node.op = "FastWordpieceTokenizeWithOffsets"

        edit_nodes(preprocessing_model, change)
        with pytest.raises(UnsupportedArchitectureError, match="FastBertTokenizer"):
            load_text_source(preprocessing_model)


class TestSentencePiece:
    def test_ids_are_those_of_sentencepiece(self, recorded_pieces):
        layer = BertPreprocessor.from_handle(SPIECE)
        assert (layer.lower_case, layer.strip_accents) == (True, True)  # no piece has an upper-case letter
        assert layer.tokenize(tf.constant(recorded_pieces["sentences"])).to_list() == recorded_pieces["ids"]

    def test_packed_and_padded(self, recorded_pieces):
        got = BertPreprocessor.from_handle(SPIECE, sequence_length=14)((["bank"], ["I want an apple."]))
        first, second = recorded_pieces["ids"][3], recorded_pieces["ids"][0]
        cls, sep, pad = 2, 3, 0
        # 14 positions less three: four for "bank", seven of ten for the other.
        assert got["input_word_ids"].numpy().tolist() == [[cls, *first, sep, *second[:7], sep]]
        assert got["input_type_ids"].numpy().tolist() == [[0] * 6 + [1] * 8]
        single = BertPreprocessor.from_handle(SPIECE, sequence_length=8)(["bank"])
        assert single["input_word_ids"].numpy().tolist() == [[cls, *first, sep, pad, pad]]

    def test_what_pieces_are(self):
        vocabulary = SentencePieceVocabulary(SPIECE.read_bytes())
        kinds = dict(zip(vocabulary.tokens, vocabulary.token_kinds, strict=True))
        assert {token for token, kind in kinds.items() if kind & SPECIAL} == {"<pad>", "[CLS]", "[SEP]", "[MASK]"}
        assert kinds["▁"] == kinds["."] == PUNCTUATION
        assert kinds["▁you"] == kinds["<unk>"] == 0
        assert kinds["ing"] == CONTINUATION

    def test_config_and_keras_file(self, recorded_pieces, tmp_path):
        layer = BertPreprocessor.from_handle(SPIECE, sequence_length=12)
        json.dumps(layer.get_config())
        clone = BertPreprocessor.from_config(layer.get_config())
        assert clone.get_config() == layer.get_config()
        text = keras.Input((), dtype="string")
        keras.Model(text, layer(text)).save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        got = loaded.predict(tf.constant(recorded_pieces["sentences"]), verbose=0)
        np.testing.assert_array_equal(got["input_word_ids"], layer(recorded_pieces["sentences"])["input_word_ids"])

    def test_albert_from_text_to_vector_in_a_fresh_process(self, recorded_pieces, tmp_path):
        """Trend pooling and all, exported and served where only TensorFlow and TF.Text are imported."""
        layer = BertTrend(
            fixture_folder("albert") / "saved_model",
            pooling=["smooth_trend", "mean"],
            vocabulary=SPIECE,
            trainable=False,
        )
        text = keras.Input((), dtype="string")
        model = keras.Model(text, layer(text))
        model.export(tmp_path / "saved", verbose=False)
        expected = model.predict(tf.constant(recorded_pieces["sentences"]), verbose=0)
        code = """
        import sys, json, tensorflow as tf, tensorflow_text
        model = tf.saved_model.load(sys.argv[1])
        print(json.dumps(model.serve(tf.constant(json.loads(sys.argv[2]))).numpy().tolist()))
        """
        got = json.loads(run_fresh(code, tmp_path / "saved", json.dumps(recorded_pieces["sentences"])))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)

    def test_asset_of_an_encoder(self, tmp_path):
        """ALBERT brings its SentencePiece model as the asset `sp_model_file`."""
        model = tmp_path / "albert"
        shutil.copytree(fixture_folder("albert") / "saved_model", model, copy_function=shutil.copyfile)
        proto = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
        for reference in proto.meta_graphs[0].object_graph_def.nodes[0].children:
            if reference.local_name == "vocab_file":
                reference.local_name = "sp_model_file"
        (model / "saved_model.pb").write_bytes(proto.SerializeToString())
        (model / "fingerprint.pb").unlink()
        shutil.copyfile(SPIECE, model / "assets" / "vocab.txt")
        layer = BertTrend(model, pooling="mean", sequence_length=12)
        assert layer.preprocessor.vocabulary == SentencePieceVocabulary(SPIECE.read_bytes())
        assert layer(["I want an apple."]).shape == (1, 32)

    @pytest.mark.parametrize("lower_case", [True, False])
    def test_preprocessing_model_with_sentencepiece(self, recorded_pieces, tmp_path, lower_case):
        class Preprocessing(tf.Module):
            def __init__(self):
                super().__init__()
                self.tokenizer = tensorflow_text.SentencepieceTokenizer(SPIECE.read_bytes(), out_type=tf.int32)

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
            def __call__(self, texts):
                texts = tf.strings.regex_replace(tensorflow_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
                texts = tensorflow_text.case_fold_utf8(texts) if lower_case else texts
                ids = self.tokenizer.tokenize(texts).to_tensor(shape=[None, 20])
                return {"input_word_ids": ids, "input_mask": tf.ones_like(ids), "input_type_ids": tf.zeros_like(ids)}

        module = Preprocessing()
        tf.saved_model.save(module, tmp_path / "model", signatures=module.__call__)
        layer = BertPreprocessor.from_handle(tmp_path / "model")
        assert (layer.lower_case, layer.strip_accents, layer.sequence_length) == (lower_case, True, 20)
        assert layer.vocabulary == SentencePieceVocabulary(SPIECE.read_bytes())

    def test_errors(self, tmp_path):
        (tmp_path / "wrong.model").write_bytes(b"no model")
        with pytest.raises(ValueError, match="no SentencePiece model"):
            BertPreprocessor.from_handle(tmp_path / "wrong.model")
        with pytest.raises(ValueError, match="tokens or a SentencePiece model"):
            BertPreprocessor("vocab.txt", lower_case=True)


def test_files_as_vocabularies(vocabulary):
    source = load_text_source(FIXTURES / "preprocess_v3" / "vocab.txt")
    assert source.vocabulary == vocabulary.tokens
    assert (source.lower_case, source.sequence_length) == (None, None)
    assert load_text_source(V4).vocabulary == vocabulary.tokens
    assert load_text_source(V4).lower_case is True
    with pytest.raises(ValueError, match="does not exist"):
        load_text_source("nowhere/vocab.txt")


def test_the_vocabulary_of_an_encoder_that_is_not_supported():
    source = load_text_source(fixture_folder("talking_heads") / "saved_model")
    assert (len(source.vocabulary), source.lower_case) == (177, True)


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n", encoding="utf-8-sig")
    assert load_text_source(tmp_path / "vocab.txt").vocabulary == ("[PAD]", "[UNK]")


def test_a_vocabulary_that_is_not_utf8(tmp_path):
    """Inside a model too the error says which file, and is not one about the error."""
    model = tmp_path / "model"
    shutil.copytree(V4, model, copy_function=shutil.copyfile)
    (model / "assets" / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(ValueError, match=r"vocab\.txt' is not UTF-8"):
        load_text_source(model)
