"""See into BERT, and put what you see straight into a Keras model.

    text → preprocessing → encoder → pooling → sentence embedding → any Keras head

`BertTrend` is the whole way as one Keras layer; `BertPreprocessor`, `BertEncoder` and the poolings are its parts.
Importing this package imports Keras, not TensorFlow: token ids work under every Keras backend.
"""

import os
import sys

from keras_bert_trend.version import __version__


def _is_the_command() -> bool:
    """Whether this process is the shell command: it reads its arguments before it waits for Keras and TensorFlow."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program == "-m":  # what `python -m` says before it has found the module
        return ("-m", "keras_bert_trend") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return program.removesuffix(".exe") == "keras-bert-trend"


if not _is_the_command():
    from keras_bert_trend.embedding.embed import embed, embed_stream, similarity
    from keras_bert_trend.encoder import BertConfig, BertEncoder
    from keras_bert_trend.evaluation.comparison import PoolingComparison, compare_poolings
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
        TrendPooling,
    )
    from keras_bert_trend.preprocessing import BertPreprocessor, Vocabulary
    from keras_bert_trend.sources import UnsupportedArchitectureError

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
