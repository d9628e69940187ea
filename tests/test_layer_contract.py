"""Every public layer, every pooling and one of a user's own keep the contract, under every installed backend."""

import functools
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_bert_trend import (
    POOLING_NAMES,
    BertConfig,
    BertEncoder,
    BertPreprocessor,
    BertTrend,
    ClsPooling,
    ConcatPooling,
    LastFourConcat,
    LastFourSum,
    LayerPooling,
    MeanPooling,
    Pooling,
    TrajectoryPooling,
    TrendPooling,
)
from keras_bert_trend.encoder import INPUT_NAMES
from keras_bert_trend.pooling import get_pooling
from tests.common import ROOT
from tests.layer_contract import run_layer_contract

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "an", "apple", "bank", "##s", "the", "of", "river"]
KINDS = np.array([1, 1, 1, 1, 2, 0, 0, 0, 4, 0, 0, 0], "uint8")
CONFIG = BertConfig(
    vocab_size=len(TOKENS),
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
)
TEXTS = ["An apple.", "the banks of the river", ""]
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]], "int32")
IDS = np.array([[2, 5, 6, 4, 3, 0], [2, 7, 8, 10, 11, 3], [2, 3, 0, 0, 0, 0]], "int32")
INPUTS = dict(zip(INPUT_NAMES, (IDS, MASK, np.zeros_like(IDS)), strict=True))

only_text = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings need the TensorFlow backend")


def made_up_outputs() -> dict:
    """Return an encoder's outputs that float16 and bfloat16 hold exactly: no rounding moves an anchor."""
    generator = np.random.default_rng(0)
    (batch, length), layers, heads = IDS.shape, CONFIG.num_layers, CONFIG.num_heads

    def draw(*shape):
        return (generator.integers(1, 33, shape) * generator.choice([-1, 1], shape) / 16).astype("float32")

    states = [draw(batch, length, CONFIG.hidden_size) for _ in range(layers)]
    received = np.broadcast_to(np.arange(1.0, length + 1, dtype="float32"), (batch, layers, heads, length))
    return {
        "embedding_output": draw(batch, length, CONFIG.hidden_size),
        "encoder_outputs": states,
        "sequence_output": states[-1],
        "pooled_output": draw(batch, CONFIG.hidden_size),
        "attention_received": generator.permuted(received, axis=-1),
    }


def open_lengths(arguments):
    """Return `keras.Input`s for the arguments, whose batch and number of tokens are open."""

    def symbol(x):
        return keras.Input([None if size == IDS.shape[1] else size for size in x.shape[1:]], dtype=x.dtype.name)

    return keras.tree.map_structure(symbol, arguments)


@keras.saving.register_keras_serializable(package="layer_contract")
class OneOfTheUsersOwn(Pooling):
    """The sum of the last states, weighted by learned numbers: what CONTRIBUTING.md says is enough."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.gain = self.add_weight((width,), "ones", name="gain")

    def compute(self, outputs, input_mask, input_word_ids=None):
        states = outputs["sequence_output"]
        real = keras.ops.cast(input_mask, states.dtype)[:, :, None]
        return keras.ops.sum(states * real, axis=1) * keras.ops.cast(self.gain, states.dtype)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def preset(name):
    pooling = get_pooling(name, KINDS)
    pooling.create_weights(CONFIG.hidden_size, CONFIG.num_layers)  # Keras's harness counts them before a call
    config = {key: value for key, value in pooling.get_config().items() if key not in ("name", "trainable", "dtype")}
    return type(pooling), config


POOLINGS = {
    **{name: preset(name) for name in POOLING_NAMES},
    "layers": (LayerPooling, {"layers": [0, -1], "combine": "concat"}),
    "layers of tokens": (LayerPooling, {"layers": [0, 1], "level": "token"}),
    "last_four_sum of tokens": (LastFourSum, {"level": "token"}),
    "last_four_concat of tokens": (LastFourConcat, {"level": "token"}),
    "trend of words": (TrendPooling, {"token_kinds": KINDS, "unit": "word", "aggregation": "attention"}),
    "soft trend": (TrendPooling, {"token_kinds": KINDS, "measure": "signed_log", "aggregation": "soft"}),
    "a trajectory that trains": (TrajectoryPooling, {"dim": 5, "hidden_size": 8, "num_layers": 1}),
    "several": (ConcatPooling, lambda policy: {"poolings": [MeanPooling(), ClsPooling()], "dtype": policy}),
    "the user's own": (OneOfTheUsersOwn, {"width": CONFIG.hidden_size}),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling(name):
    arguments = (made_up_outputs(), MASK, IDS)
    mask = MASK == 1 if "of tokens" in name else None
    run_layer_contract(*POOLINGS[name], arguments, mask=mask, symbolic=open_lengths(arguments))


def test_encoder():
    run_layer_contract(BertEncoder, {"config": CONFIG}, (INPUTS,), mask=MASK == 1, symbolic=open_lengths((INPUTS,)))


def bert_trend(pooling, policy):
    encoder = BertEncoder(CONFIG, dtype=policy)
    preprocessor = BertPreprocessor(TOKENS, lower_case=True, sequence_length=6)
    return {"encoder": encoder, "preprocessor": preprocessor, "pooling": pooling, "dtype": policy}


def test_bert_trend_of_tokens_on_ids():
    kwargs = functools.partial(bert_trend, LastFourSum(level="token"))
    run_layer_contract(BertTrend, kwargs, (INPUTS,), mask=MASK == 1, symbolic=open_lengths((INPUTS,)))


@only_text
def test_bert_trend_on_strings():
    kwargs = functools.partial(bert_trend, "mean")  # in half precision trend pooling may choose another anchor
    run_layer_contract(BertTrend, kwargs, (keras.ops.convert_to_tensor(TEXTS),))


@only_text
def test_preprocessor():
    kwargs = {"vocabulary": TOKENS, "lower_case": True, "sequence_length": 6}
    run_layer_contract(BertPreprocessor, kwargs, (keras.ops.convert_to_tensor(TEXTS),))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_under_another_backend(backend):
    """All of the above in one process, where starting takes most of the time."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("this is another backend's process")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rs", __file__],
        # Most of JAX's time goes into compiling what runs once.
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout[-8000:]
