"""JAX on eight virtual devices: what one device gives; and lowered for a TPU, which is not here."""

import textwrap

import pytest

from tests.common import ROOT, run_fresh

pytest.importorskip("jax", reason="JAX is not installed")

SETUP = """
    import sys
    import jax, keras
    import numpy as np
    from keras_bert_trend import BertConfig, BertEncoder, BertTrend, distributed
    from keras_bert_trend.encoder import INPUT_NAMES

    CONFIG = BertConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32,
                        max_position_embeddings=16, hidden_dropout=0.0, attention_dropout=0.0)
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 13, (80, 1))
    mask = (np.arange(12) < lengths).astype("int32")
    ids = {"input_word_ids": generator.integers(1, 64, mask.shape, dtype="int32") * mask, "input_mask": mask,
           "input_type_ids": 0 * mask}
    labels = (ids["input_word_ids"].sum(1, keepdims=True) % 2).astype("float32")

    def make():
        keras.utils.set_random_seed(0)
        layer = BertTrend(encoder=BertEncoder(CONFIG), pooling="mean")
        inputs = {name: keras.Input((12,), dtype="int32", name=name) for name in INPUT_NAMES}
        model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(layer(inputs)))
        model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
        return model

    def losses(model):
        return [float(model.train_on_batch({k: v[i : i + 8] for k, v in ids.items()}, labels[i : i + 8]))
                for i in range(0, 80, 8)]

    assert len(jax.devices()) == 8
    one = make()
    outputs, expected = one.predict(ids, batch_size=16, verbose=0), losses(one)
"""
EIGHT = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


def test_data_parallel_training_gives_one_devices_losses():
    code = """
        distribution = distributed.data_parallel()
        assert keras.distribution.distribution() is distribution
        model = make()
        assert len(model.trainable_weights[0].value.sharding.device_set) == 8
        np.testing.assert_allclose(losses(model), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(model.predict(ids, batch_size=16, verbose=0), one.predict(ids, verbose=0), atol=1e-5)
    """
    run_fresh(_both(code), **EIGHT)


@pytest.mark.distributed
def test_weights_are_divided_and_move_to_another_mesh(tmp_path):
    code = """
        def parallel(shape):
            mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"), keras.distribution.list_devices())
            layouts = distributed.bert_layout_map(mesh)
            keras.distribution.set_distribution(
                keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
            )
            return make()

        model = parallel((2, 4))
        encoder = model.layers[-2].encoder
        size = sum(weight.value.nbytes for weight in encoder.weights)
        arrays = [weight.value for weight in encoder.weights]
        divided = sum(array.nbytes for array in arrays if not array.sharding.is_fully_replicated)
        assert divided >= 0.9 * size, divided / size
        kernel = encoder.weights[7].value
        assert kernel.addressable_shards[0].data.size * 4 == kernel.size
        np.testing.assert_allclose(model.predict(ids, batch_size=16, verbose=0), outputs, rtol=0, atol=1e-5)
        np.testing.assert_allclose(losses(model), expected, rtol=0, atol=1e-5)
        model.save_weights(sys.argv[1])
        trained = model.predict(ids, batch_size=16, verbose=0)
        other = parallel((4, 2))
        other.load_weights(sys.argv[1])
        np.testing.assert_allclose(other.predict(ids, batch_size=16, verbose=0), trained, rtol=0, atol=1e-5)
        kernel = other.layers[-2].encoder.weights[7].value
        assert kernel.addressable_shards[0].data.size * 2 == kernel.size
        try:
            distributed.bert_layout_map(keras.distribution.DeviceMesh((8,), ("batch",)))
        except ValueError as error:
            print(error)
    """
    printed = run_fresh(_both(code), tmp_path / "model.weights.h5", **EIGHT)
    assert 'an axis named "model"' in printed


def test_the_example_is_lowered_for_a_tpu():
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import jax, keras, numpy as np
        import train_tpu
        from keras_bert_trend import BertConfig, BertEncoder, BertTrend

        keras.config.set_dtype_policy("mixed_bfloat16")
        config = BertConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32,
                            max_position_embeddings=64)
        model = train_tpu.make_model(BertTrend(encoder=BertEncoder(config), pooling="mean"), steps=10)
        model.optimizer.build(model.trainable_variables)
        ids = {name: np.ones((8, 64), "int32") for name in train_tpu.INPUT_NAMES}
        state = model._get_jax_state(trainable_variables=True, non_trainable_variables=True,
                                     optimizer_variables=True, metrics_variables=True)
        step = jax.jit(lambda state, data: model.train_step(state, data))
        lowered = jax.export.export(step, platforms=["tpu"])(state, (ids, np.zeros((8, 1), "float32")))
        print(lowered.platforms, len(lowered.mlir_module()) > 10_000)
    """
    printed = run_fresh(code, ROOT / "examples" / "distributed", KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert printed.split() == ["('tpu',)", "True"]


def _both(code: str) -> str:
    return textwrap.dedent(SETUP) + textwrap.dedent(code)
