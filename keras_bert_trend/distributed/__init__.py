"""The distributed room: what runs on many workers, by engines that exist.

`beam` is bulk embedding on Apache Beam, `training` is `fit` under `tf.distribute`, `sharding` is for JAX's devices.
"""

from typing import TYPE_CHECKING

from keras_bert_trend._utils import lazy_attributes

if TYPE_CHECKING:
    from keras_bert_trend.distributed.sharding import bert_layout_map, data_parallel
    from keras_bert_trend.distributed.training import fit

__all__ = ["bert_layout_map", "data_parallel", "fit"]

__getattr__ = lazy_attributes(__name__, {"bert_layout_map": "sharding", "data_parallel": "sharding", "fit": "training"})
