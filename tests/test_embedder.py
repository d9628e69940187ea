"""`Embedder`: what `embed` gives, from an object that travels to other processes and loads once in each."""

import pickle
import threading
import warnings

import keras
import numpy as np
import pytest

from keras_bert_trend import BertTrend, Embedder, MeanPooling, embed, embed_stream
from keras_bert_trend.embedding import embedder as embedder_module
from tests.common import SENTENCES, V4, run_fresh, to_numpy


@pytest.fixture(scope="module")
def layer() -> BertTrend:
    return BertTrend(V4, pooling="mean", sequence_length=None, truncate=True, trainable=False)


@pytest.fixture(scope="module")
def expected(layer) -> np.ndarray:
    return embed(SENTENCES, layer)


def counted(function, calls: list):
    def counting(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return counting


def test_it_gives_what_embed_gives(layer, expected):
    embedder = Embedder(layer)
    np.testing.assert_array_equal(embedder(SENTENCES), expected)
    np.testing.assert_array_equal(np.concatenate(list(embedder.stream(SENTENCES))), expected)
    options = {"pooling": ["cls", "max"], "normalize": True, "truncate_dim": 5, "precision": "float16"}
    np.testing.assert_array_equal(Embedder(layer, **options)(SENTENCES), embed(SENTENCES, layer, **options))
    assert set(Embedder(layer, pooling=["cls", "max"])(SENTENCES, output="dict")) == {"cls", "max"}
    streamed = embed_stream(SENTENCES, layer, chunk_size=4)
    for mine, theirs in zip(embedder.stream(SENTENCES, chunk_size=4), streamed, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_copies_are_small_and_load_once(monkeypatch, expected):
    loads = []
    monkeypatch.setattr(embedder_module, "as_layer", counted(embedder_module.as_layer, loads))
    stored = pickle.dumps(Embedder(V4, pooling="mean"))
    assert len(stored) < 1000
    copies = [pickle.loads(stored) for _ in range(3)]
    assert loads == []
    results = []
    threads = [threading.Thread(target=lambda copy=copy: results.append(copy(SENTENCES))) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-6)
    again = pickle.loads(pickle.dumps(copies[0]))
    assert again is copies[0], "a copy of a copy too"
    for _ in range(3):
        pickle.loads(pickle.dumps(Embedder(V4)))
    assert len(embedder_module._copies) <= 2


def test_layers_and_poolings_travel(layer, expected):
    np.testing.assert_allclose(pickle.loads(pickle.dumps(Embedder(layer)))(SENTENCES), expected, atol=1e-6)
    copy = pickle.loads(pickle.dumps(Embedder(V4, pooling=MeanPooling(), normalize=True)))
    np.testing.assert_allclose(copy(SENTENCES), embed(SENTENCES, layer, normalize=True), atol=1e-6)


def test_keras_files(layer, tmp_path):
    text = keras.Input((), dtype="string")
    inner = keras.Model(text, layer(text))
    model = keras.Sequential([keras.Input((), dtype="string"), inner, keras.layers.Dense(2)])
    expected = to_numpy(inner(np.array(SENTENCES)))
    for name, saved in {"model": model, "layer": layer}.items():
        path = tmp_path / f"{name}.keras"
        keras.saving.save_model(saved, path)
        np.testing.assert_allclose(Embedder(path)(SENTENCES), expected, atol=1e-5)
    np.testing.assert_allclose(embed(SENTENCES, str(path)), expected, atol=1e-5)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="no BertTrend layer"):
        embed(SENTENCES, tmp_path / "other.keras")


def test_errors():
    for arguments in ({"threads": 0}, {"batch_size": 0}, {"threads": True}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Embedder(V4, **arguments)
    missing = Embedder("nowhere.keras")
    for _ in range(2):
        with pytest.raises(ValueError, match="nowhere.keras is not a file"):
            missing(["bank"])
    with pytest.raises(ValueError, match="a handle or a BertTrend layer"):
        Embedder(keras.layers.Dense(1))(["bank"])


def test_the_warning_about_long_texts_points_to_the_caller(layer):
    for call in (
        lambda: Embedder(layer, max_length=4)(SENTENCES),
        lambda: list(Embedder(layer, max_length=4).stream(SENTENCES)),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [entry.filename for entry in caught if "were trimmed" in str(entry.message)] == [__file__]


def test_threads_are_set_before_tensorflow_starts(expected, tmp_path):
    code = """
        import sys
        import numpy as np
        from keras_bert_trend import Embedder
        embedder = Embedder(sys.argv[1], pooling="mean", threads=1).warm_up()
        import tensorflow as tf
        settings = tf.config.threading
        assert settings.get_intra_op_parallelism_threads() == settings.get_inter_op_parallelism_threads() == 1
        Embedder(sys.argv[1], threads=1).layer
        try:
            Embedder(sys.argv[1], threads=2).layer
        except ValueError as error:
            print(error)
        np.save(sys.argv[2], embedder(sys.argv[3:]))
    """
    printed = run_fresh(code, V4, tmp_path / "vectors.npy", *SENTENCES)
    assert "`threads`=2 comes too late" in printed
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-6)
