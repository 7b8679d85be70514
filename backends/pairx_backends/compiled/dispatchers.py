"""Metrics that the caller has compiled with Numba: the loop over the pairs is compiled around them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = Any


@cache
def _loop() -> Any:
    import numba

    def loop(function: Any, x: Array, y: Array, out: Array, above: bool) -> None:
        for i in range(out.shape[0]):
            for j in range(i + 1 if above else 0, out.shape[1]):
                out[i, j] = function(x[i], y[j])

    return numba.njit(nogil=True)(loop)


def fill(function: Any, x: Array, y: Array, out: Array, above: bool) -> None:
    """``out[i, j] = function(x[i], y[j])`` for 2-d NumPy arrays; ``above`` leaves the diagonal and what is below it."""
    _loop()(function, np.ascontiguousarray(x), np.ascontiguousarray(y), out, above)
