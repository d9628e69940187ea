"""What BERT is fine-tuned with: the fused AdamW is Keras's in numbers and in files; the schedule's shape."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import FusedAdamW, WarmupLinearDecay


def small_model():
    keras.utils.set_random_seed(0)
    ids = keras.Input((3,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(16, 4)(ids))
    return keras.Model(ids, keras.layers.Dense(1)(keras.layers.Dense(5, "tanh")(x)))


def trained(optimizer, epochs=3, **kwargs):
    model = small_model()
    model.compile(optimizer, "mse", **kwargs)
    model.fit(IDS, GOALS, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


# No word twice in a batch of four; three rows of the table are never touched, and decay, no more.
IDS, GOALS = np.arange(24).reshape(8, 3) % 13, np.linspace(-1, 1, 8)
ARGUMENTS = {"weight_decay": 0.1, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6}


@pytest.mark.parametrize(
    ("more", "jit_compile"),
    [
        ({}, False),
        ({}, True),
        ({"amsgrad": True}, False),
        ({"clipnorm": 0.1}, False),
        ({"gradient_accumulation_steps": 2}, False),
        ({"gradient_accumulation_steps": 2}, True),
        ({"weight_decay": 0.0}, False),
        ({"use_ema": True}, False),
    ],
    ids=str,
)
def test_it_moves_every_weight_as_keras_does(more, jit_compile):
    arguments = {**ARGUMENTS, **more}
    fused, plain = (
        trained(kind(WarmupLinearDecay(0.05, 6, 2), **arguments), jit_compile=jit_compile)
        for kind in (FusedAdamW, keras.optimizers.AdamW)
    )
    for a, b, start in zip(fused.get_weights(), plain.get_weights(), small_model().get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        if more.get("gradient_accumulation_steps") is None:
            assert np.abs(a - start).max() > 0.01
    for a, b in zip(fused.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)


def test_a_word_that_occurs_twice_has_one_gradient():
    moved = []
    for kind, dense in ((FusedAdamW, False), (keras.optimizers.AdamW, True)):
        table = keras.Variable(np.ones((4, 2), "float32"))
        optimizer = kind(0.05, **ARGUMENTS)
        optimizer.build([table])
        for _ in range(3):
            slices = tf.IndexedSlices(tf.constant([[1.0, -2.0], [3.0, 0.5]]), tf.constant([2, 2]), tf.constant([4, 2]))
            optimizer.apply([tf.convert_to_tensor(slices) if dense else slices])
        moved.append(table.numpy())
    np.testing.assert_allclose(*moved, rtol=1e-5)


@pytest.mark.smoke
def test_one_operation_a_variable():
    model = small_model()
    optimizer = FusedAdamW(0.01, **ARGUMENTS)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        optimizer.apply([tf.ones_like(variable.value) for variable in model.trainable_variables])

    operations = [node.op for node in step.get_concrete_function().graph.as_graph_def().node]
    assert operations.count("ResourceApplyAdam") == len(model.trainable_variables)
    assert "Sqrt" not in operations


def test_mixed_precision_scales_the_loss_around_it():
    keras.config.set_dtype_policy("mixed_float16")
    model = trained(FusedAdamW(0.05, **ARGUMENTS), jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert np.abs(model.get_weights()[0] - small_model().get_weights()[0]).max() > 0.01


@pytest.mark.smoke
def test_a_saved_model_goes_on_where_it_was(tmp_path):
    model = trained(FusedAdamW(WarmupLinearDecay(0.05, 60, 6), **ARGUMENTS), jit_compile=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer, FusedAdamW)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, again):
        one.fit(IDS, GOALS, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_schedule_rises_and_falls_linearly():
    schedule = WarmupLinearDecay(0.1, total_steps=10, warmup_steps=4)
    rates = [float(schedule(step)) for step in range(12)]
    np.testing.assert_allclose(rates[:4], [0.025, 0.05, 0.075, 0.1], rtol=1e-6)
    np.testing.assert_allclose(np.diff(rates[4:11]), -0.1 / 6, rtol=1e-5)
    assert rates[10] == rates[11] == 0
    assert WarmupLinearDecay.from_config(schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("arguments", "named"), [((0, 10, 1), "peak"), ((1e-4, 10, 10), "warmup_steps"), ((1e-4, 10, -1), "warmup_steps")]
)
def test_a_schedule_that_cannot_be(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        WarmupLinearDecay(*arguments)
