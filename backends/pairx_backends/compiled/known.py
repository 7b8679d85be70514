"""What the special kernels know of their numbers: how to tell it, and what it allows to be computed ahead, once for each row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Known = Literal["", "ordinary", "moderate", "present"]
"""Of all numbers: nothing, that they are 0 or ordinary, or 0 or moderate (see the functions), or that none is NaN."""
NOTHING = -(2.0**100)
"""What stands for the logarithm of 0: no number times it overflows, and any is more than ``HUGE``."""
HUGE = 2.0**59
"""More than a sum over ordinary numbers, and less than any of them against 0: that is infinite."""


LEAST = 2.0**-30
"""The least moderate number but 0; the largest is its inverse."""


def moderate(*arrays: Any) -> bool:
    """Whether no number is negative, and the others are 0 or such that a product of several neither overflows nor loses digits."""

    def inside(a: Any) -> bool:
        low = float(a.min())
        least = low if low > 0 else float(np.min(a, where=a > 0, initial=1.0))
        return low >= 0 and least >= LEAST and float(a.max()) <= 1 / LEAST

    return all(a.size and inside(a) for a in arrays)


def ordinary(x: Any, y: Any, w: Any, positive: bool) -> bool:
    """Whether all numbers, as they are or as parts of their row's sum, are so far from the ends of float32 that ``HUGE`` works.

    0 may be among them unless ``positive`` is asked for.
    """

    def least(a: Any) -> float:
        low = a.min()
        if positive or low != 0:
            return float(low) if low > 0 else math.nan
        return float(np.min(a, where=a > 0, initial=1.0))

    if not (x.size and y.size and x.shape[-1] < 2**18):
        return False
    low, high, some = min(least(x), least(y)), max(float(x.max()), float(y.max())), y.min() == 0
    if w is not None and (some or not (w.max() < 2.0**7 and w.min() >= 0)):
        return False
    return high < 2.0**27 and low >= (2.0**-40 if some else 2.0**-60) and high * x.shape[-1] < low * (2.0**40 if some else 2.0**90)


def ahead(kinds: tuple[str, ...], x: Any, side: Literal["x", "y"]) -> Iterator[Any]:
    """What ``Recipe.ahead`` names, of numbers in float32 or float64.

    half_log: half of the logarithm, up to a constant; low: what rounding to float32 takes away; inverse: STEPS / x; log and rest:
    the logarithm, and what rounding takes from it. That of 0 is very small on the right, and does not count on the left.
    Each is valid until the next is asked for.
    """
    if not kinds:
        return
    zero = None if x.min() > 0 else x == 0
    log = np.log(x if zero is None else np.where(zero, x.dtype.type(1.0), x), dtype=np.float64)
    if "half_log" in kinds:
        # In differences only. A number's part of its row's sum is about 1 / d, and so this is near 0, where float32 is finest.
        log += math.log(x.shape[-1])
        log *= 0.5
        yield log
        np.subtract(x, x.astype(np.float32), out=log)
        yield log
        yield np.divide(STEPS, x if zero is None else np.where(zero, 2.0**-120, x), out=log)
        return
    first = log.astype(np.float32)
    log -= first
    if zero is not None:
        first[zero] = 0.0 if side == "x" else NOTHING
    yield first
    yield log


STEPS = 4.6
"""Rounded, and at most 3, ``STEPS`` times a number from 0 to 1 is its place among the four pieces of :func:`pieces`."""


@lru_cache(1)
def pieces(degree: int = 5) -> list[list[float]]:
    """What ``Code.jensen`` needs, as polynomials of ``STEPS * s``, through Chebyshev's nodes of each piece: off by 3e-7 at most.

    With f(t) = t log t, they are -(f(1 - s/2) - f(1 - s) / 2) / s and, of the last piece, -f(1 - s/2) / s alone. The first is 0 at 0.
    """

    def part(s: Any, share: float) -> Any:
        return (-(1 - s / 2) * np.log1p(-s / 2) + share * (1 - s) * np.log1p(-s)) / s

    found = []
    for low, high in ((0.0, 0.5), (0.5, 1.5), (1.5, 2.5), (2.5, STEPS)):
        first = int(low == 0)
        count = degree + 1 - first
        at = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count))
        powers = at[:, None] ** np.arange(first, degree + 1)
        found.append([0.0] * first + np.linalg.solve(powers, part(at / STEPS, 0.0 if high == STEPS else 0.5)).tolist())
    return found
