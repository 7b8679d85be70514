"""log sum of e^s over rows, where a mask says so, and what its slope is made of: two looks at each row, while a cache holds it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from pairx import plan as plans
from pairx.threads import share_rows

from . import jit
from .definition import Slots
from .emit import Code, Value, module
from .instructions import BITS

Array = Any
TINY = {"float": 2.0**-103, "double": 2.0**-970}
"""Products with less are subnormal, and slow."""
WORTH = 16
"""One number takes as long as so many terms of a distance."""


def log_sum_exp(s: Array, mask: Array | None, slope: bool) -> tuple[Array, Array, Array | None] | None:
    """Of s (m, n): the values (m,), factors (m,), and with ``slope`` the numbers whose product with their row's factor is the slope.

    A row with nothing in it is -inf, and one with infinity inf, both with slope 0; NaN stays. None: arrays that lie otherwise, or so
    few numbers that a compiler is not worth waiting for.
    """
    if s.dtype not in (np.float32, np.float64) or not all(a is None or _lies(a) for a in (s, mask)):
        return None
    (m, n), size = s.shape, s.dtype.itemsize
    code = source(s.dtype.name, mask is not None)
    if not code.worth(m * n * WORTH):
        return None
    tops, totals = np.empty(m, s.dtype), np.empty(m, s.dtype)
    shares = np.empty((m, n), s.dtype) if slope else None

    def part(low: int, high: int) -> None:
        into = np.empty((1, n), s.dtype) if shares is None else shares[low:]
        given = {
            "m": high - low, "n": n, "s": s[low:].ctypes.data, "by_s": s.strides[0] // size, "shares": into.ctypes.data,
            "by_shares": 0 if shares is None else n, "tops": tops[low:].ctypes.data, "totals": totals[low:].ctypes.data,
        }  # fmt: skip
        if mask is not None:
            given |= {"mask": mask[low:].ctypes.data, "by_mask": mask.strides[0]}
        a = _SLOTS.array(given)
        code.function(a.ctypes.data)

    share_rows(part, m, plans.thread_count() if m * n * WORTH >= plans.SHARED else 1, 1)
    with np.errstate(all="ignore"):
        odd = np.isinf(tops) & ~np.isnan(totals)
        return np.where(odd, tops, tops + np.log(totals)), np.where(odd, 0.0, 1.0 / totals), shares


def _lies(a: Array) -> bool:
    size = a.itemsize
    return bool(a.ndim == 2 and a.size and a.flags.aligned and (a.shape[1] == 1 or a.strides[1] == size) and a.strides[0] % size == 0)


_SLOTS = Slots("m", "n", "s", "by_s", "mask", "by_mask", "shares", "by_shares", "tops", "totals")


@lru_cache
def source(dtype: str, masked: bool) -> jit.Source:
    """The function for float32 or float64."""
    scalar = "float" if dtype == "float32" else "double"
    return jit.Source(_text(scalar, jit.lanes(scalar), masked), "softmax", f"log-sum-exp for {dtype}")


def _text(scalar: str, lanes: int, masked: bool) -> str:
    code = Code(scalar, 1)
    m, n, by_s, by_mask, by_shares = (_SLOTS.read(code, name) for name in ("m", "n", "by_s", "by_mask", "by_shares"))
    s, mask, shares, tops, totals = (_SLOTS.read(code, name, "ptr") for name in ("s", "mask", "shares", "tops", "totals"))
    even = code.put(f"and i64 {n}, {-lanes}")
    # What is left after the last whole vector goes one by one.
    parts = [(lanes, "0", even), (1, even, n)] if lanes > 1 else [(1, "0", n)]
    rooms = {width: [code.room(f"<{width} x {scalar}>" if width > 1 else scalar) for _ in range(2)] for width, _, _ in parts}

    def read(row: Value, told: Value, j: Value) -> Value:
        """Some numbers of a row, -inf where nothing counts."""
        found = code.load(code.at(row, j), code.vector, BITS[scalar][0] // 8)
        if not masked:
            return found
        counts = code.load(code.at(told, j, "i8"), code.of("i8"), 1)
        counts = code.put(f"icmp ne {code.of('i8')} {counts}, {code.splat('0', 'i8')}")
        return code.choose(counts, found, code.constant(-math.inf))

    with code.loop("0", m) as i:
        row, told = code.at(s, code.put(f"mul i64 {i}, {by_s}")), code.at(mask, code.put(f"mul i64 {i}, {by_mask}"), "i8")
        target = code.at(shares, code.put(f"mul i64 {i}, {by_shares}"))
        for code.lanes, start, stop in parts:
            best = rooms[code.lanes][0]
            code.store(code.constant(-math.inf), code.vector, best)
            with code.loop(start, stop, code.lanes) as j:
                code.store(code.larger(code.load(best, code.vector), read(row, told, j)), code.vector, best)  # NaN is in the sum
        tallest = []
        for code.lanes, _, _ in parts:
            tallest.append(code.topmost(code.load(rooms[code.lanes][0], code.vector)))
        code.lanes = 1
        top = tallest[0] if len(tallest) == 1 else code.larger(*tallest)
        odd = code.compare("oeq", code.abs(top), code.constant(math.inf))
        base = code.choose(odd, code.constant(0.0), top)
        for code.lanes, start, stop in parts:
            summed = rooms[code.lanes][1]
            code.store(code.constant(0.0), code.vector, summed)
            bases, none = code.spread(base), code.spread(odd, "i1")
            with code.loop(start, stop, code.lanes) as j:
                e = code.exp_below(code.arith("sub", read(row, told, j), bases))
                code.store(code.arith("add", code.load(summed, code.vector), e), code.vector, summed)
                small = code.put(f"or {code.truth} {none}, {code.compare('olt', e, code.constant(TINY[scalar]))}")
                code.store(code.choose(small, code.constant(0.0), e), code.vector, code.at(target, j), BITS[scalar][0] // 8)
        sums = []
        for code.lanes, _, _ in parts:
            sums.append(code.added(code.load(rooms[code.lanes][1], code.vector)))
        code.lanes = 1
        code.store(sums[0] if len(sums) == 1 else code.arith("add", *sums), scalar, code.at(totals, i))
        code.store(top, scalar, code.at(tops, i))
    code.do("ret i64 0")
    return module([code], [code.function("softmax", "ptr %a", "i64")])
