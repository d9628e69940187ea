"""Fixtures. What they need is imported in them: the process that only hands out tests to workers is ready sooner."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import HealthCheck, settings

# How fast this machine is proves nothing, and fixtures of a module are shared on purpose.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("untimed")


def pytest_collection_finish(session) -> None:
    """Tell Python that what was imported lives: tracing makes many objects, and it would look through all of them."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def vocabulary():
    from keras_bert_trend import Vocabulary
    from keras_bert_trend.sources.source import read_vocabulary_file
    from tests.common import V4

    return Vocabulary(read_vocabulary_file(V4 / "assets" / "vocab.txt"))


@pytest.fixture(scope="session")
def recorded():
    """The inputs and outputs recorded of bert_v4_like, as NumPy arrays."""
    import numpy as np

    from tests.common import FIXTURES

    with np.load(FIXTURES / "bert_v4_like" / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def encoder():
    """The recorded model. Shared: tests do not train it."""
    from keras_bert_trend import BertEncoder
    from tests.common import V4

    return BertEncoder.from_handle(V4)


@pytest.fixture
def small_config():
    from keras_bert_trend import BertConfig

    return BertConfig(
        vocab_size=50, hidden_size=16, num_layers=4, num_heads=2, intermediate_size=32, max_position_embeddings=24
    )


@pytest.fixture(scope="session")
def minilm_installed() -> None:
    from keras_bert_trend.sources.minilm import find_minilm

    try:
        find_minilm()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _float32_policy():
    import keras

    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
