"""Whether this machine computes in bfloat16, or only pretends to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import keras

from keras_bert_trend.embedding.names import ComputeDtype

_CPU_INFO = Path("/proc/cpuinfo")
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # Intel and AMD; Intel; Arm


def check_compute_dtype(compute_dtype: ComputeDtype | None) -> None:
    """Raise `ValueError` if it has none of its values, or is bfloat16 where that is slower and less exact at once."""
    if compute_dtype is not None and compute_dtype not in get_args(ComputeDtype):
        raise ValueError(f"`compute_dtype` must be None or one of {get_args(ComputeDtype)}, got {compute_dtype!r}.")
    if compute_dtype == "bfloat16" and _only_cpu() and _FLAGS.isdisjoint(flags := _cpu_flags()) and flags:
        raise ValueError(
            "`compute_dtype`='bfloat16' needs a processor that has it: this one has none of "
            f"{', '.join(sorted(_FLAGS))} and would emulate it, slower than float32. Leave `compute_dtype` out."
        )


def _only_cpu() -> bool:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())
    if backend == "torch":  # for which Keras lists no devices
        import torch

        return not torch.cuda.is_available()
    return all(name.startswith("cpu") for name in keras.distribution.list_devices())


def _cpu_flags() -> set[str]:
    """Return the processor's features by Linux's names; nothing where there is no such list."""
    text = _CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.is_file() else ""
    return {flag for line in re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE) for flag in line.split()}
