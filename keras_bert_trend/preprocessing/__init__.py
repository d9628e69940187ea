"""The preprocessing room: text to ids; knows nothing of encoders and poolings."""

from keras_bert_trend.preprocessing.preprocessor import BertPreprocessor
from keras_bert_trend.preprocessing.vocabulary import SentencePieceVocabulary, Vocabulary, as_vocabulary

__all__ = ["BertPreprocessor", "SentencePieceVocabulary", "Vocabulary", "as_vocabulary"]
