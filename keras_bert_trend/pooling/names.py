"""What the arguments of `TrendPooling` may be, where it can be read without importing Keras."""

from typing import Literal

Reading = Literal["published", "layers", "all"]
Measure = Literal["log_ratio", "asinh", "difference"]
Aggregation = Literal["anchor_related", "attention"]
Unit = Literal["token", "word"]
