"""Peak memory of a call on CuPy arrays, seen by a hook in its memory pool."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import cupy


class _Peak(cupy.cuda.MemoryHook):  # type: ignore[misc]
    """Adds up what is allocated and freed; ``mem_size`` is what the pool really hands out."""

    name = "PairxPeak"

    def __init__(self) -> None:
        self.held = self.peak = 0

    def malloc_postprocess(self, **kwargs: Any) -> None:
        self.held += kwargs["mem_size"]
        self.peak = max(self.peak, self.held)

    def free_postprocess(self, **kwargs: Any) -> None:
        self.held -= kwargs["mem_size"]


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included."""
    function()
    gc.collect()
    hook = _Peak()
    with hook:
        function()
    return int(hook.peak)
