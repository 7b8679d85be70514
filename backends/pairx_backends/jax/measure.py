"""Peak memory of a call on JAX arrays: the first device's where the call allocates there, else the CPU's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pairx.measure import cpu_peak_bytes


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included; see :mod:`pairx.measure`.

    None where the device would not be filled up to its peak so far, above which alone the call can be seen.
    """

    def call() -> None:
        jax.block_until_ready(function())

    device = jax.local_devices()[0]
    if device.platform == "cpu" or device.memory_stats() is None:
        return cpu_peak_bytes(call)
    call()
    gc.collect()
    # A device's peak cannot be reset: bytes are held until it is reached, so that whatever the call takes raises it.
    before = device.memory_stats()
    with jax.default_device(device):
        held = jnp.zeros(max(0, before["peak_bytes_in_use"] - before["bytes_in_use"]), jnp.uint8).block_until_ready()
    full = device.memory_stats()
    if full["peak_bytes_in_use"] > full["bytes_in_use"]:
        return None
    call()
    grown = device.memory_stats()["peak_bytes_in_use"] - full["bytes_in_use"]
    del held
    return int(grown) or cpu_peak_bytes(call)
