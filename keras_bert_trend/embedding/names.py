"""What arguments of `embed` may be, where it can be read without importing Keras."""

from typing import Literal

LongTexts = Literal["truncate", "error", "mean", "first_last"]
ComputeDtype = Literal["float32", "bfloat16"]
