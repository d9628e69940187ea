"""See into BERT, and put what you see straight into a Keras model.

    text → preprocessing → encoder → pooling → sentence embedding → any Keras head

`BertTrend` is the whole way as one Keras layer; `BertPreprocessor`, `BertEncoder` and the poolings are its parts.
Importing this package imports Keras, not TensorFlow: token ids work under every Keras backend.
"""

from keras_bert_trend.attention import (
    AttentionMap,
    attention,
    attention_html,
    plot_attention,
    plot_attention_overview,
)
from keras_bert_trend.compare import PoolingComparison, compare_poolings
from keras_bert_trend.embed import embed, embed_stream, similarity
from keras_bert_trend.encoder import BertConfig, BertEncoder
from keras_bert_trend.explain import Explanation, explain
from keras_bert_trend.layer import BertTrend
from keras_bert_trend.layer_walk import LayerWalk, layer_walk
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
    TrendPooling,
)
from keras_bert_trend.preprocessing import BertPreprocessor, Vocabulary
from keras_bert_trend.schedules import WarmupLinearDecay
from keras_bert_trend.sources import UnsupportedArchitectureError
from keras_bert_trend.version import __version__
from keras_bert_trend.words import word_vectors

__all__ = [
    "POOLING_NAMES",
    "AttentionMap",
    "BertConfig",
    "BertEncoder",
    "BertPreprocessor",
    "BertTrend",
    "ClsPooling",
    "ConcatPooling",
    "Explanation",
    "FirstLastMean",
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
    "layer_walk",
    "plot_attention",
    "plot_attention_overview",
    "similarity",
    "word_vectors",
]
