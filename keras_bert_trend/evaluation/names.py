"""The names that `compare_poolings` takes, for type checkers and messages."""

from typing import Literal

Metric = Literal["F1", "macro-F1", "accuracy", "AUC", "MAP"]
