"""The preprocessing room: text to ids; knows nothing of encoders and poolings."""

from keras_bert_trend.preprocessing.preprocessor import BertPreprocessor
from keras_bert_trend.preprocessing.sentencepiece import SentencePieceVocabulary, as_vocabulary
from keras_bert_trend.preprocessing.vocabulary import Vocabulary

__all__ = ["BertPreprocessor", "SentencePieceVocabulary", "Vocabulary", "as_vocabulary"]
