"""Fine-tuning is the original's too: the same gradients, and the same outputs after a step of SGD along them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bert_trend import BertEncoder
from keras_bert_trend.encoder import INPUT_NAMES
from tests.common import RECORDED, fixture_folder, to_numpy

GRADIENT_TOLERANCE = 1e-4
OUTPUT_TOLERANCE = 2e-5
LEARNING_RATE = 0.001


@pytest.mark.parametrize("name", RECORDED)
def test_gradients_and_an_sgd_step_equal_the_original(name):
    folder = fixture_folder(name)
    original = tf.saved_model.load(str(folder / "saved_model"))
    if not getattr(original, "trainable_variables", None):
        pytest.skip(f"{name} has no trainable variables")
    encoder = BertEncoder.from_handle(folder / "saved_model")
    with np.load(folder / "expected.npz") as recorded:
        inputs = {key: tf.constant(recorded[key]) for key in INPUT_NAMES}
    before = run_original(original, inputs)
    target = np.random.default_rng(0).normal(size=before[0].shape)

    variables = by_role(encoder, original.trainable_variables)
    theirs = gradients(lambda: run_original(original, inputs)[0], list(variables.values()), target)
    if all(gradient is None for gradient in theirs):
        pytest.skip(f"{name} gives no gradients")
    ours = gradients(lambda: encoder(inputs, training=False)["pooled_output"], encoder.trainable_variables, target)
    assert_same_gradients(named(encoder, ours), dict(zip(variables, map(to_numpy, theirs), strict=True)))

    # Each takes its own step, along its own gradients; no weight moves so far that rounding grows with it.
    learning_rate = min(LEARNING_RATE, 0.01 / max(float(np.abs(to_numpy(gradient)).max()) for gradient in theirs))
    for variable, gradient in zip(variables.values(), theirs, strict=True):
        variable.assign_sub(learning_rate * gradient)
    keras.optimizers.SGD(learning_rate).apply(ours, encoder.trainable_variables)
    after, outputs = run_original(original, inputs), encoder(inputs, training=False)
    for index, key in enumerate(("pooled_output", "sequence_output")):
        difference = np.abs(to_numpy(outputs[key]) - to_numpy(after[index])).max()
        assert difference <= OUTPUT_TOLERANCE, f"{key}: {difference}"
        # That says something only where the step moved the outputs by much more.
        moved = np.abs(to_numpy(after[index]) - to_numpy(before[index])).max()
        assert moved > 1000 * OUTPUT_TOLERANCE, f"{key} moved by {moved} only"


def run_original(original, inputs):
    """Return `(pooled_output, sequence_output)`: the models of 2019 and early 2020 take a list and return these two."""
    ((arguments, *_), _) = original.__call__.concrete_functions[0].structured_input_signature
    if isinstance(arguments, dict):
        outputs = original(inputs, training=False)
        return outputs["pooled_output"], outputs["sequence_output"]
    return tuple(original([inputs[key] for key in INPUT_NAMES], training=False))


def by_role(encoder, variables):
    """Return the original's variables under the roles that the reader found for them, matched by their values.

    The weights are random, so no two are equal. Where heads are an axis of their own, the order is still the same.
    """
    values = [variable.numpy().ravel() for variable in variables]
    matched = {}
    for role, weight in encoder.named_weights().items():
        (matched[role],) = [i for i, value in enumerate(values) if np.array_equal(value, weight.ravel())]
    assert sorted(matched.values()) == list(range(len(variables)))  # every variable has a role, no role shares one
    return {role: variables[i] for role, i in matched.items()}


def gradients(run, variables, target):
    """Return the dense gradients of `sum((run() − target)²)`, `None` for a variable that has none."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(run() - tf.constant(target, tf.float32)))
    return [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]


def named(encoder, values):
    """Return one array per trainable variable under the names of the weights: query, key and value come apart."""
    holder = BertEncoder(encoder.config)
    for variable, value in zip(holder.trainable_variables, values, strict=True):
        variable.assign(value)
    return holder.named_weights()


def assert_same_gradients(ours, theirs):
    assert set(ours) == set(theirs)
    largest = max(np.linalg.norm(gradient) for gradient in theirs.values())
    for role, gradient in theirs.items():
        difference = np.linalg.norm(ours[role].ravel() - gradient.ravel())
        # A key's bias adds the same number to all scores of a query, and softmax ignores it: its gradient is zero, and
        # what is computed is rounding noise of both. So it is held against the largest gradient there is.
        scale = largest if role.endswith("self/key/bias") else np.linalg.norm(gradient)
        assert difference <= GRADIENT_TOLERANCE * scale, f"{role}: {difference / scale}"
