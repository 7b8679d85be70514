"""Peak memory of a call on tensors: the GPUs' where the call allocates there, else the CPU's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from pairx.measure import cpu_peak_bytes


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included; see :mod:`pairx.measure`."""
    devices = range(torch.cuda.device_count())
    if not devices:
        return cpu_peak_bytes(function)
    function()
    gc.collect()
    before = []
    for i in devices:
        torch.cuda.synchronize(i)
        torch.cuda.reset_peak_memory_stats(i)
        before.append(torch.cuda.memory_allocated(i))
    function()
    grown = 0
    for i in devices:
        torch.cuda.synchronize(i)
        grown += torch.cuda.max_memory_allocated(i) - before[i]
    return grown or cpu_peak_bytes(function)
