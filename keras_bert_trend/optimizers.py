"""What BERT is fine-tuned with: AdamW, a form of it with one operation per variable, and the learning rate schedule."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to `peak` over the first steps, then fall linearly to zero at the last.

    Source: Devlin et al. 2019 (arXiv:1810.04805), appendix A.2; google-research/bert, `optimization.py`.

    Args:
        peak: float. The highest learning rate.
        total_steps: int. The number of optimizer steps of the whole training.
        warmup_steps: int. The number of steps over which the learning rate rises, commonly a tenth of all.

    Raises:
        ValueError: if `peak` is not positive, or unless `0 <= warmup_steps < total_steps`.
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
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}


def fine_tuning_optimizer(peak: float, total_steps: int) -> keras.optimizers.AdamW:
    """Return AdamW as BERT is fine-tuned with: decay of the weight matrices only, gradients clipped to norm 1.

    The learning rate rises over a tenth of the steps. Source: google-research/bert, `optimization.py`.

    Args:
        peak: float. The highest learning rate.
        total_steps: int. The number of optimizer steps of the whole training.
    """
    schedule = WarmupLinearDecay(peak, total_steps=total_steps, warmup_steps=total_steps // 10)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


@keras.saving.register_keras_serializable(package="keras_bert_trend")
class FusedAdamW(keras.optimizers.AdamW):
    """Keras's AdamW, with one operation per variable under TensorFlow instead of a dozen.

    It takes the same arguments and gives the same numbers up to rounding, with one exception: the gradient of a word
    that occurs several times in a batch is summed before it is squared, as in the formula; Keras squares each
    occurrence separately. (Kingma and Ba 2015, arXiv:1412.6980, in the form at the end of §2; Loshchilov and Hutter
    2019, arXiv:1711.05101.)

    A BERT has tens of millions of weights, and every step moves all of them, even the word embeddings that a batch does
    not contain (momentum lasts, weights decay). This optimizer reads and writes each weight once per step instead of
    once for every operation of the formula. Under other backends, and with `amsgrad`, it is Keras's own AdamW.

    Args:
        *args: The arguments of `keras.optimizers.AdamW`.
        **kwargs: The arguments of `keras.optimizers.AdamW`.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Update a variable and its two moments."""
        if self.amsgrad or keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index, dtype = self._get_variable_index(variable), variable.dtype
        step = ops.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),  # which sums the slices of an embedding's gradient
        )
