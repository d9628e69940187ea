"""The encoder room: BERT itself, written with `keras.ops`, knowing nothing of text or files."""

from keras_bert_trend.encoder.bert_encoder import INPUT_NAMES, BertEncoder
from keras_bert_trend.encoder.config import BertConfig

__all__ = ["INPUT_NAMES", "BertConfig", "BertEncoder"]
