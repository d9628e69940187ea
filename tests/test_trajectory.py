"""Trajectory pooling: the formula, `adapt` beside NumPy's PCA, what it does not depend on, files, training, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder, BertTrend, LayerPooling, TrajectoryPooling, embed
from tests.common import SENTENCES, V4, random_inputs, to_numpy

LAYERS, HIDDEN, DIM = 3, 8, 5


def levels_of(texts, seed=0):
    """Return token means of all layers, correlated among layers and dimensions, of very different scales."""
    generator = np.random.default_rng(seed)
    width = (LAYERS + 1) * HIDDEN
    values = generator.normal(size=(texts, width)) @ generator.normal(size=(width, width)) + generator.normal(
        size=width
    )
    return (values.reshape(texts, LAYERS + 1, HIDDEN) * np.logspace(-2, 1, HIDDEN)).astype("float32")


def adapted(batches, **arguments):
    pooling = TrajectoryPooling(**{"dim": DIM, **arguments})
    pooling.adapt(batches)
    return pooling


def standardised(levels, like):
    steps = np.diff(np.float64(like), axis=1)
    return (np.diff(np.float64(levels), axis=1) - steps.mean(0)) / steps.std(0)


@pytest.mark.parametrize("texts", [20, 100])  # fewer than the steps are wide, and more
def test_adapt_is_numpys_pca_turned(texts):
    levels = levels_of(texts)
    pooling = adapted(np.array_split(levels, 4))
    rows = standardised(levels, levels).reshape(texts, -1)
    _, singular, components = np.linalg.svd(rows, full_matrices=False)
    variance = np.sum(singular[:DIM] ** 2) / texts / DIM
    expected = rows @ components[:DIM].T / np.sqrt(variance)
    got = to_numpy(pooling.project(tf.constant(levels)))
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, rtol=1e-4, atol=1e-4)  # the same up to a rotation
    assert np.mean(np.var(got, axis=0)) == pytest.approx(1, rel=1e-4)
    assert np.ptp(np.var(got, axis=0)) < np.ptp(np.var(expected, axis=0))  # the first component's lead is spread


@pytest.mark.parametrize("texts", [20, 100])
def test_order_and_batches_of_the_texts_make_no_difference(texts):
    levels = levels_of(texts)
    once = adapted([levels]).get_weights()
    again = adapted([levels]).get_weights()
    in_pieces = adapted(np.array_split(levels[np.random.default_rng(1).permutation(texts)], 7)).get_weights()
    for one, same, other in zip(once, again, in_pieces, strict=True):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_the_seed_turns_and_changes_no_distance():
    levels = levels_of(50)
    one, other = (to_numpy(adapted([levels], seed=seed).project(tf.constant(levels))) for seed in (0, 1))
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-4, atol=1e-4)
    assert np.abs(one - other).max() > 0.1


def test_few_texts_and_constant_dimensions():
    levels = levels_of(4)
    levels[:, :, 2] = 1e-30 * np.arange(LAYERS + 1)
    with pytest.warns(UserWarning, match="differ in 3 directions"):
        kernel = to_numpy(adapted([levels]).kernel)
    assert np.linalg.matrix_rank(kernel) == DIM  # the DCT fills up what four texts leave open
    assert np.isfinite(kernel).all()
    pooling = adapted([levels])
    pooling.adapt([levels_of(30, seed=3)])
    np.testing.assert_array_equal(pooling.kernel, adapted([levels_of(30, seed=3)]).kernel)  # nothing is left of before


@pytest.fixture
def encoder_case(small_config):
    keras.utils.set_random_seed(1)
    encoder, inputs = BertEncoder(small_config), random_inputs(small_config, [9, 4, 2], 12)
    return small_config, encoder, inputs, encoder(inputs)


@pytest.mark.parametrize("dim", [None, 24, 3])
def test_before_adapt_it_is_a_dct_over_the_layers(encoder_case, dim):
    config, _, inputs, outputs = encoder_case
    pooling = TrajectoryPooling(dim)
    got = to_numpy(pooling(outputs, inputs["input_mask"]))
    means = LayerPooling(range(config.num_layers + 1), combine="concat")(outputs, inputs["input_mask"])
    steps = np.diff(to_numpy(means).reshape(len(got), config.num_layers + 1, -1), axis=1)
    numbers = np.arange(config.num_layers)
    waves = np.cos(np.pi * np.outer([0, 1], numbers + 0.5) / config.num_layers)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    expected = np.einsum("fl,blh->bfh", waves, steps).reshape(len(got), -1)[:, : dim or config.hidden_size]
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def layer():
    layer = BertTrend(V4, pooling=["last_four_sum", TrajectoryPooling(6)], sequence_length=24, trainable=False)
    layer.adapt(SENTENCES)
    return layer


def test_bert_trend_adapts_to_texts_of_any_container(layer):
    weights = layer.get_weights()
    for texts in (iter(SENTENCES[::-1]), tf.data.Dataset.from_tensor_slices(SENTENCES).batch(4)):
        layer.adapt(texts, batch_size=3)
        for one, other in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    steps = np.diff(
        embed(SENTENCES, layer, pooling=LayerPooling([0, 1, 2, 3], combine="concat")).reshape(6, 4, -1), axis=1
    )
    np.testing.assert_allclose(to_numpy(layer.pooling.poolings[1].mean), steps.mean(axis=0), atol=1e-5)


def test_labels_are_no_texts(layer):
    for labels in ([0, 1, 1, 0], ["a", "b", "b", "a"]):
        data = tf.data.Dataset.from_tensor_slices((SENTENCES[:4], labels))
        with pytest.raises(ValueError, match="must be a data set of strings, got elements.*Leave out labels"):
            layer.adapt(data)


def test_what_was_adapted_is_in_embed_files_and_exports(layer, tmp_path):
    vectors = embed(SENTENCES, layer)
    np.testing.assert_allclose(vectors, to_numpy(layer(SENTENCES)), atol=1e-5)
    text = keras.Input((), dtype="string")
    model = keras.Model(text, layer(text))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(again(tf.constant(SENTENCES))), vectors, atol=1e-5)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(served.serve(tf.constant(SENTENCES)), vectors, atol=1e-5)


def test_the_kernel_alone_trains_on_a_frozen_encoder_and_nothing_where_the_layer_is_frozen(layer):
    for trainable, names in ((None, ["kernel"]), (False, [])):
        encoder = BertEncoder(layer.encoder.config)
        encoder.trainable = False
        other = BertTrend(encoder=encoder, pooling=TrajectoryPooling(6), trainable=trainable)
        assert [weight.name for weight in other.trainable_weights] == names


class TestErrors:
    def test_arguments(self, encoder_case):
        config, _, inputs, outputs = encoder_case
        with pytest.raises(ValueError, match="`dim`"):
            TrajectoryPooling(0)
        with pytest.raises(ValueError, match="`hidden_size` and `num_layers` both or neither"):
            TrajectoryPooling(hidden_size=8)
        with pytest.raises(ValueError, match="`dim` must be at most 64, .* got 65"):
            TrajectoryPooling(65).output_dim(config.hidden_size, config.num_layers)
        with pytest.raises(ValueError, match="made for an encoder with 2 blocks, 8 wide; this one has 4 blocks, 16"):
            TrajectoryPooling(4, hidden_size=8, num_layers=2)(outputs, inputs["input_mask"])

    def test_adapt(self):
        for batches, message in [
            ([], "two texts at least, got none"),
            ([levels_of(1)], "two texts at least, got one"),
            ([np.repeat(levels_of(1), 3, axis=0)], "texts that differ"),
            ([levels_of(3) * np.nan], "not finite"),
        ]:
            with pytest.raises(ValueError, match=message):
                TrajectoryPooling(DIM).adapt(batches)

    def test_layers_without_one(self):
        with pytest.raises(ValueError, match="`adapt` fits a TrajectoryPooling, but `pooling` is 'mean'"):
            BertTrend(V4, pooling="mean").adapt(SENTENCES)
