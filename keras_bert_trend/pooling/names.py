"""What the arguments of `TrendPooling` may be, where it can be read without importing Keras."""

from typing import Literal

Reading = Literal["published", "layers", "all", "attended"]
Measure = Literal["log_ratio", "asinh", "signed_log", "difference"]
Aggregation = Literal["anchor_related", "soft", "attention"]
Unit = Literal["token", "word"]
