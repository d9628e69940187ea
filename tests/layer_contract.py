"""What every layer of this package keeps, and every pooling of a user's own may be held to: one contract, one helper.

It stands on the harness that Keras tests its own layers with, and adds what a layer meets in people's models: masks,
dtype policies, freezing, sharing, files, exports, subclassed and sequential models.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import ops, tree
from keras.src.testing import TestCase  # Keras has no public name for it

from tests.common import to_numpy

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
#: What rounding to 8 bits (bfloat16) and 11 bits (float16) may change in values of about 1.
TOLERANCES = {"float32": 1e-6, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}


@keras.saving.register_keras_serializable(package="layer_contract")
class Score(keras.layers.Layer):
    """One number a row out of any structure of outputs: a head for layers of every kind."""

    def build(self, input_shape=None):
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def call(self, outputs):
        first = ops.cast(tree.flatten(outputs)[0], self.compute_dtype)
        return self.scale * ops.mean(first, axis=tuple(range(1, len(first.shape))))[:, None]

    def compute_mask(self, inputs, previous_mask):
        return None

    def compute_output_spec(self, outputs):
        return keras.KerasTensor((tree.flatten(outputs)[0].shape[0], 1), self.compute_dtype)


@keras.saving.register_keras_serializable(package="layer_contract")
class Subclassed(keras.Model):
    """A model that holds the layer and gives it its first argument, a structure, by position."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.score = Score()

    def call(self, inputs):
        return self.score(self.layer(*inputs) if isinstance(inputs, tuple | list) else self.layer(inputs))

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def run_layer_contract(layer_cls, init_kwargs, arguments, *, mask=None, symbolic=None, policies=POLICIES):
    """Assert that a layer is at home in Keras.

    Args:
        layer_cls: class. The layer's.
        init_kwargs: dict, or function. The constructor's arguments, or a function from a dtype policy's name to them,
            where they hold layers, whose policy is their own.
        arguments: tuple. The positional arguments of a call: tensors, or structures of them, `(B, …)`.
        mask: bool array `(B, T)` or `None`. What outputs with one vector a token must carry as Keras mask.
        symbolic: tuple or `None`. `arguments` as `keras.Input`s. By default only the batch is open.
        policies: tuple of str. The dtype policies to run under.
    """
    contract = _Contract(layer_cls, init_kwargs, arguments, mask, symbolic)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a gradient that does not exist, a mask that is destroyed
        warnings.filterwarnings("ignore", "`shuffle=True` was passed")  # Keras's harness does that
        contract.keras_harness()
        contract.masks()
        contract.shapes()
        contract.dtype_policies(policies)
        contract.freezing()
        contract.sharing_in_a_file()
        contract.export()
        contract.subclassed()
        if len(arguments) == 1:
            contract.sequential()
    contract.doCleanups()


class _Contract(TestCase):
    def __init__(self, layer_cls, init_kwargs, arguments, mask, symbolic):
        super().__init__()
        self.layer_cls = layer_cls
        self.init_kwargs = init_kwargs
        self.arguments = tree.map_structure(ops.convert_to_tensor, arguments)
        self.mask = mask
        self.symbolic = symbolic or tree.map_structure(
            lambda x: keras.Input(x.shape[1:], dtype=keras.backend.standardize_dtype(x.dtype)), arguments
        )

    def make(self, policy="float32"):
        keras.utils.set_random_seed(0)
        if callable(self.init_kwargs):
            return self.layer_cls(**self.init_kwargs(policy))
        return self.layer_cls(**self.init_kwargs, dtype=policy)

    def called(self, layer):
        return layer(*self.arguments)

    def assert_same(self, actual, expected, tolerance=0.0):
        tree.assert_same_structure(actual, expected)
        for one, other in zip(tree.flatten(actual), tree.flatten(expected), strict=True):
            np.testing.assert_allclose(numbers(one), numbers(other), rtol=0, atol=tolerance)

    def keras_harness(self):
        self.run_class_serialization_test(self.make())
        kwargs = self.init_kwargs("float32") if callable(self.init_kwargs) else self.init_kwargs
        adapted = on_tuples(self.layer_cls, self.arguments)
        self.run_layer_test(
            adapted,
            kwargs,
            input_data=tuple(tree.flatten(self.arguments)),
            run_training_check=bool(self.make().trainable_weights),  # Keras warns where there are none
            supports_masking=True if self.mask is not None else None,
            custom_objects={adapted.__name__: adapted},
        )

    def assert_masks(self, outputs):
        for output in tree.flatten(outputs):
            own = getattr(output, "_keras_mask", None)
            if self.mask is None or len(output.shape) < 3:
                assert own is None
            else:
                np.testing.assert_array_equal(to_numpy(own), self.mask)

    def masks(self):
        layer = self.make()
        outputs = self.called(layer)
        self.assert_masks(outputs)
        if self.mask is not None:  # in a functional model too
            states = tree.flatten(layer(*self.symbolic))
            number = next(i for i, x in enumerate(states) if len(x.shape) == 3)
            mean = keras.layers.GlobalAveragePooling1D()
            model = keras.Model(tree.flatten(self.symbolic), mean(states[number]))
            expected = mean(tree.flatten(outputs)[number], mask=ops.convert_to_tensor(self.mask))
            self.assert_same(model(tree.flatten(self.arguments)), expected, 1e-6)

    def shapes(self):
        layer = self.make()
        eager = shapes_of(self.called(layer))
        specs = tree.map_structure(lambda x: keras.KerasTensor(x.shape, keras_dtype(x)), self.arguments)
        assert shapes_of(layer.compute_output_spec(*specs)) == eager
        assert as_shapes(layer.compute_output_shape(*tree.map_structure(lambda x: tuple(x.shape), specs))) == eager
        open_sizes = shapes_of(layer(*self.symbolic))
        assert shapes_of(layer.compute_output_spec(*self.symbolic)) == open_sizes
        computed = layer.compute_output_shape(*tree.map_structure(lambda x: tuple(x.shape), self.symbolic))
        assert as_shapes(computed) == open_sizes
        tree.assert_same_structure(tree.map_structure(lambda _: 0, self.called(layer)), layer(*self.symbolic))
        for shape, known in zip(open_sizes, eager, strict=True):
            assert len(shape) == len(known)
            assert all(size in (None, other) for size, other in zip(shape, known, strict=True))

    def dtype_policies(self, policies):
        expected = self.called(self.make())
        weights = self.make().get_weights()
        for policy in policies:
            layer = self.make(policy)
            layer.set_weights(weights)
            assert {weight.dtype for weight in layer.weights if "float" in weight.dtype} <= {"float32"}
            compute = keras.DTypePolicy(policy).compute_dtype
            arguments = tree.map_structure(
                lambda x, dtype=compute: ops.cast(x, dtype) if "float" in keras_dtype(x) else x, self.arguments
            )
            outputs = layer(*arguments)
            specs = tree.map_structure(lambda x: keras.KerasTensor(x.shape, keras_dtype(x)), arguments)
            for output, spec in zip(
                tree.flatten(outputs), tree.flatten(layer.compute_output_spec(*specs)), strict=True
            ):
                assert keras_dtype(output) == spec.dtype
                assert keras_dtype(output) in (compute, "int32")
                assert np.isfinite(numbers(output)).all()
            self.assert_same(outputs, expected, TOLERANCES[policy])

    def freezing(self):
        layer = self.make()
        self.called(layer)
        flags = [weight.trainable for weight in layer.weights]
        layer.trainable = False
        assert layer.trainable_weights == []
        again = self.layer_cls.from_config(layer.get_config())
        assert again.trainable_weights == []
        assert len(again.weights) == len(flags)
        outputs = layer(*self.arguments, **training(layer))  # without dropout
        self.assert_masks(outputs)
        self.assert_same(outputs, self.called(layer), 1e-6)
        layer.trainable = True
        assert [weight.trainable for weight in layer.weights] == flags

    def sharing_in_a_file(self):
        layer = self.make()
        inputs = tree.flatten(self.symbolic)
        others = tree.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), self.symbolic)
        outputs = tree.flatten([layer(*self.symbolic), layer(*others)])
        model = keras.Model(inputs + tree.flatten(others), outputs)
        assert len(model.weights) == len(layer.weights)
        paths = [weight.path for weight in model.weights]
        assert len(set(paths)) == len(paths)
        data = tree.flatten(self.arguments) * 2
        expected = model(data)
        self.assert_same(expected, tree.flatten([self.called(layer)] * 2), 1e-6)
        path = self.get_temp_dir() + "/model.keras"
        model.save(path)
        again = keras.models.load_model(path)
        self.assert_same(again(data), expected)
        assert [weight.path for weight in again.weights] == paths

    def export(self):
        backend = keras.backend.backend()
        # For PyTorch Keras writes no SavedModel. For JAX it takes open lengths of several arguments for different ones.
        if backend == "torch" or (backend == "jax" and len(self.arguments) > 1):
            return
        tf = pytest.importorskip("tensorflow")
        inputs = tree.flatten(self.symbolic)
        model = keras.Model(inputs, tree.flatten(self.make()(*self.symbolic)))
        path = self.get_temp_dir() + "/export"
        model.export(path, format="tf_saved_model", verbose=False)
        served = tf.saved_model.load(path)
        for times in (1, 2):
            data = [np.concatenate([np.asarray(x)] * times) for x in tree.flatten(self.arguments)]
            got = served.serve([tf.constant(x) for x in data])
            expected = model([ops.convert_to_tensor(x) for x in data])
            self.assert_same(tree.flatten(got), tree.flatten(expected), 1e-5)

    def subclassed(self):
        one = len(self.arguments) == 1
        data = self.arguments[0] if one else self.arguments
        self._train_and_reload(Subclassed(self.make()), data)

    def sequential(self):
        self._train_and_reload(keras.Sequential([self.make(), Score()]), self.arguments[0])

    def _train_and_reload(self, model, data):
        model.compile("sgd", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
        targets = np.zeros((len(tree.flatten(data)[0]), 1), "float32")
        model.fit(data, targets, verbose=0)
        expected = model(data)
        path = self.get_temp_dir() + "/model.keras"
        model.save(path)
        self.assert_same(keras.models.load_model(path)(data), expected)


def on_tuples(layer_cls, arguments):
    """Return the class with one flat tuple in and one out.

    Keras's harness spreads a dict over keyword arguments, and trains from a generator, which takes no lists.
    """

    def packed(inputs):
        return tree.pack_sequence_as(arguments, list(inputs))

    class OnTuples(layer_cls):
        def __call__(self, inputs, **kwargs):
            return tuple(tree.flatten(super().__call__(*packed(inputs), **kwargs)))

        def compute_output_spec(self, *inputs, **kwargs):
            inputs = packed(inputs[0]) if isinstance(inputs[0], tuple) else inputs
            return super().compute_output_spec(*inputs, **kwargs)

    return OnTuples


def training(layer) -> dict[str, bool]:
    return {"training": True} if layer._call_has_training_arg else {}


def keras_dtype(tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def numbers(tensor) -> np.ndarray:
    tensor = ops.cast(tensor, "float32") if "float" in keras_dtype(tensor) else tensor
    return to_numpy(tensor)


def shapes_of(structure) -> list[tuple]:
    return [tuple(x.shape) for x in tree.flatten(structure)]


def as_shapes(structure) -> list[tuple]:
    """Return the shapes in a structure of shapes, flat."""
    if isinstance(structure, dict):
        structure = [structure[name] for name in sorted(structure)]
    if isinstance(structure, tuple) and all(size is None or isinstance(size, int) for size in structure):
        return [structure]
    return [shape for each in structure for shape in as_shapes(each)]
