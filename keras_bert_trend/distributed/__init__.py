"""The distributed room: what runs on many workers, by engines that exist."""

from typing import TYPE_CHECKING

from keras_bert_trend._utils import lazy_attributes

if TYPE_CHECKING:
    from keras_bert_trend.distributed.training import fit

__all__ = ["fit"]

__getattr__ = lazy_attributes(__name__, {"fit": "training"})
