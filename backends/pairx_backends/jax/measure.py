"""Peak memory of a call on JAX arrays: the default device's if it keeps statistics, else the CPU's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import jax

from pairx.measure import cpu_peak_bytes


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included; see :mod:`pairx.measure`.

    A device's peak cannot be reset: None where an earlier call of this process went higher than this one.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu" or device.memory_stats() is None:
        return cpu_peak_bytes(lambda: jax.block_until_ready(function()))
    gc.collect()
    before = device.memory_stats()
    jax.block_until_ready(function())
    peak = device.memory_stats()["peak_bytes_in_use"]
    return int(peak - before["bytes_in_use"]) if peak > before["peak_bytes_in_use"] else None
