"""Peak memory of a call on tensors: the first GPU's where the call allocates there, else the CPU's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pairx.measure import cpu_peak_bytes


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included; see :mod:`pairx.measure`.

    On the CPU the figure is true with ``TF_ENABLE_ONEDNN_OPTS=0`` only: oneDNN's pool hides what it uses again.
    """
    if not tf.config.list_physical_devices("GPU"):
        return cpu_peak_bytes(function)
    memory = tf.config.experimental
    function()
    gc.collect()
    memory.reset_memory_stats("GPU:0")
    before = memory.get_memory_info("GPU:0")["current"]
    function()
    return int(memory.get_memory_info("GPU:0")["peak"] - before) or cpu_peak_bytes(function)
