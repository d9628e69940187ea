"""See into BERT, and put what you see straight into a Keras model.

    text → preprocessing → encoder → pooling → sentence embedding → any Keras head

`BertTrend` is the whole way as one Keras layer; `BertPreprocessor`, `BertEncoder` and the poolings are its parts.
Importing this package imports neither Keras nor TensorFlow: each public name is loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING

import wrapt

from keras_bert_trend._utils import lazy_attributes
from keras_bert_trend.version import __version__

if TYPE_CHECKING:  # for editors and type checkers; at run time `_MODULES` says where each name lives
    from keras_bert_trend.embedding.embed import embed, embed_stream, similarity
    from keras_bert_trend.embedding.embedder import Embedder
    from keras_bert_trend.encoder import BertConfig, BertEncoder
    from keras_bert_trend.evaluation.comparison import PoolingComparison, compare_poolings
    from keras_bert_trend.export.jax import export_jax
    from keras_bert_trend.export.litert import export_litert
    from keras_bert_trend.export.onnx import export_onnx
    from keras_bert_trend.export.openvino import export_openvino
    from keras_bert_trend.export.saved_model import export_saved_model
    from keras_bert_trend.inspection.attention_map import (
        AttentionMap,
        attention,
        attention_html,
        plot_attention,
        plot_attention_overview,
    )
    from keras_bert_trend.inspection.explanation import Explanation, explain
    from keras_bert_trend.inspection.layer_walk import LayerWalk, layer_walk
    from keras_bert_trend.inspection.word_vectors import word_vectors
    from keras_bert_trend.layer import BertTrend
    from keras_bert_trend.optimizers import FusedAdamW, WarmupLinearDecay
    from keras_bert_trend.pooling import (
        POOLING_NAMES,
        ClsPooling,
        ConcatPooling,
        FirstLastMean,
        LastFourConcat,
        LastFourSum,
        LayerPooling,
        MaxPooling,
        MeanPooling,
        MeanStdPooling,
        PoolerPooling,
        Pooling,
        SecondToLast,
        TrajectoryPooling,
        TrendPooling,
    )
    from keras_bert_trend.preprocessing import BertPreprocessor, Vocabulary
    from keras_bert_trend.sources import UnsupportedArchitectureError

_MODULES = {
    "AttentionMap": "inspection.attention_map",
    "BertConfig": "encoder",
    "BertEncoder": "encoder",
    "BertPreprocessor": "preprocessing",
    "BertTrend": "layer",
    "ClsPooling": "pooling",
    "ConcatPooling": "pooling",
    "Embedder": "embedding.embedder",
    "Explanation": "inspection.explanation",
    "FirstLastMean": "pooling",
    "FusedAdamW": "optimizers",
    "LastFourConcat": "pooling",
    "LastFourSum": "pooling",
    "LayerPooling": "pooling",
    "LayerWalk": "inspection.layer_walk",
    "MaxPooling": "pooling",
    "MeanPooling": "pooling",
    "MeanStdPooling": "pooling",
    "POOLING_NAMES": "pooling",
    "PoolerPooling": "pooling",
    "Pooling": "pooling",
    "PoolingComparison": "evaluation.comparison",
    "SecondToLast": "pooling",
    "TrajectoryPooling": "pooling",
    "TrendPooling": "pooling",
    "UnsupportedArchitectureError": "sources",
    "Vocabulary": "preprocessing",
    "WarmupLinearDecay": "optimizers",
    "attention": "inspection.attention_map",
    "attention_html": "inspection.attention_map",
    "compare_poolings": "evaluation.comparison",
    "embed": "embedding.embed",
    "embed_stream": "embedding.embed",
    "explain": "inspection.explanation",
    "export_jax": "export.jax",
    "export_litert": "export.litert",
    "export_onnx": "export.onnx",
    "export_openvino": "export.openvino",
    "export_saved_model": "export.saved_model",
    "layer_walk": "inspection.layer_walk",
    "plot_attention": "inspection.attention_map",
    "plot_attention_overview": "inspection.attention_map",
    "similarity": "embedding.embed",
    "word_vectors": "inspection.word_vectors",
}

__all__ = [
    "POOLING_NAMES",
    "AttentionMap",
    "BertConfig",
    "BertEncoder",
    "BertPreprocessor",
    "BertTrend",
    "ClsPooling",
    "ConcatPooling",
    "Embedder",
    "Explanation",
    "FirstLastMean",
    "FusedAdamW",
    "LastFourConcat",
    "LastFourSum",
    "LayerPooling",
    "LayerWalk",
    "MaxPooling",
    "MeanPooling",
    "MeanStdPooling",
    "PoolerPooling",
    "Pooling",
    "PoolingComparison",
    "SecondToLast",
    "TrajectoryPooling",
    "TrendPooling",
    "UnsupportedArchitectureError",
    "Vocabulary",
    "WarmupLinearDecay",
    "__version__",
    "attention",
    "attention_html",
    "compare_poolings",
    "embed",
    "embed_stream",
    "explain",
    "export_jax",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_saved_model",
    "layer_walk",
    "plot_attention",
    "plot_attention_overview",
    "similarity",
    "word_vectors",
]

__getattr__ = lazy_attributes(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _RegisteredLater:
    """Stand for a class under its registered name until a `.keras` file asks for it."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def from_config(self, config):
        return getattr(importlib.import_module(self._module), self._name).from_config(config)


@wrapt.when_imported("keras")
def _register_names(keras) -> None:
    """Let Keras know the classes that a `.keras` file may name: it looks names up and imports nothing itself."""
    from keras_bert_trend.pooling import __all__ as poolings

    known = keras.saving.get_custom_objects()
    for name, module in {**_MODULES, **dict.fromkeys(poolings, "pooling")}.items():
        if name[0].isupper() and module in ("encoder", "layer", "optimizers", "pooling", "preprocessing"):
            known.setdefault(f"{__name__}>{name}", _RegisteredLater(f"{__name__}.{module}", name))
