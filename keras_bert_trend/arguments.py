"""The check that several functions make of their arguments."""

from __future__ import annotations

import numpy as np


def check_count(name: str, value) -> None:
    """Refuse what is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
