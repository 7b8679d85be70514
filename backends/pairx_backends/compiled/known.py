"""What the special kernels know of their numbers: how to tell it, and what it allows to be computed ahead, once for each row."""

from __future__ import annotations

import math
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


def ahead(kinds: tuple[str, ...], x: Any, side: Literal["x", "y"]) -> list[Any]:
    """The panels in ``Recipe.ahead``: the logarithm of 0 is very small on the right, and does not count on the left."""
    if not kinds:
        return []
    zero = None if x.min() > 0 else x == 0
    log = np.log(x if zero is None else np.where(zero, np.float32(1.0), x), dtype=np.float64)
    first = log.astype(np.float32)
    log -= first
    found = {"log": first, "rest": log.astype(np.float32)}
    del log
    if "inverse" in kinds:
        found["inverse"] = np.float32(1.0) / (x if zero is None else np.where(zero, np.float32(2.0**-120), x))
    if zero is not None:
        first[zero] = 0.0 if side == "x" else NOTHING
    return [found[kind] for kind in kinds]
