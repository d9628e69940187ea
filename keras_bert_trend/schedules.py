"""The learning rate schedule that BERT is fine-tuned with."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to `peak` over the first steps, then fall linearly to zero at the last.

    Source: Devlin et al. 2019 (arXiv:1810.04805), appendix A.2; google-research/bert, `optimization.py`.

    Args:
        peak: the highest learning rate.
        total_steps: number of optimizer steps of the whole training.
        warmup_steps: how many of them rise; commonly a tenth.

    Raises:
        ValueError: `peak` is not positive, or the steps are not `0 <= warmup_steps < total_steps`.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int) -> None:
        if not peak > 0:
            raise ValueError(f"`peak` must be positive, got {peak!r}.")
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"`warmup_steps` must be at least 0 and less than `total_steps`, got {warmup_steps} of {total_steps}."
            )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        """Return the learning rate of a step (counted from 0), float32 scalar."""
        step = ops.cast(step, "float32")
        # Step 0 already learns: the first of n warm-up steps has 1/n of the peak.
        rising = (step + 1.0) / max(self.warmup_steps, 1)
        falling = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return self.peak * ops.maximum(ops.minimum(ops.minimum(rising, falling), 1.0), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}
