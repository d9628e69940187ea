"""The embedding room: many texts to vectors.

Data flows through `texts`, `batches`, `compiled` (one function for all shapes) and `vectors`; `runner` puts them
together. `embedder` is a model with its options, for workers, and `embed` is what people call.
"""

from typing import TYPE_CHECKING

from keras_bert_trend._utils import lazy_attributes

if TYPE_CHECKING:
    from keras_bert_trend.embedding.embedder import Embedder

__all__ = ["Embedder"]

__getattr__ = lazy_attributes(__name__, {"Embedder": "embedder"})
