"""The sum over one set of minus the logarithm of what an anchor's class has of the softmax over all others, and its gradient."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from . import jit, slopes
from .definition import Slots
from .emit import Code, module
from .kernel import Kernel
from .softmax import TINY
from .walk import identities, possible, walked

Array = Any


def total(
    x: Array, kernel: Kernel, labels: Array, max_bytes: int, mean: bool, scale: float, *, slope: bool
) -> tuple[float, Array | None] | None:
    """Of log sum e^(-scale d) over all others less that over those of the anchor's class: the mean over anchors that have such, or the sum.

    ``labels`` are integers. None as of ``terms.total``.
    """
    n, d = x.shape
    if not possible(kernel, n, d, max_bytes - 4 * n * kernel.dtype.itemsize):
        return None
    code = source(kernel)
    if not code.worth(n * n * d):
        return None
    ids = identities(labels, kernel)
    _, place, counts = np.unique(ids[:n], return_inverse=True, return_counts=True)
    some = counts[place] > 1
    weights = some / np.float64(max(some.sum(), 1) if mean else 1.0)
    worth = weights.astype(kernel.dtype)
    tops, sums = np.empty((2, n), kernel.dtype), np.empty((2, n), kernel.dtype)
    given = np.array([-scale], kernel.dtype)

    def follow(rows: slice, first: int, out: Array) -> int:
        shelves = np.empty((2, -(-n // kernel.width) * kernel.width), kernel.dtype)
        a = _SLOTS.array(
            {
                "m": out.shape[0], "n": out.shape[1], "first": rows.start - first, "d": out.ctypes.data,
                "stride": out.strides[0] // out.itemsize, "own": ids[rows].ctypes.data, "other": ids[first:].ctypes.data,
                "scale": given.ctypes.data, "worth": worth[rows].ctypes.data,
                "tops": tops[0, rows].ctypes.data, "near_tops": tops[1, rows].ctypes.data,
                "sums": sums[0, rows].ctypes.data, "near_sums": sums[1, rows].ctypes.data,
                "shelf": shelves[0].ctypes.data, "near_shelf": shelves[1].ctypes.data,
            }
        )  # fmt: skip
        return int(code.function(a.ctypes.data))

    good, gradient = walked(x, kernel, max_bytes - 4 * n * kernel.dtype.itemsize, follow, upper=False, slope=slope)
    if not good:
        return None
    with np.errstate(all="ignore"):
        each, near = tops.astype(np.float64) + np.log(sums, dtype=np.float64)
    return float(np.sum(np.where(some, weights * (each - near), 0.0))), gradient


_SLOTS = Slots(
    "m", "n", "first", "d", "stride", "own", "other", "scale", "worth", "tops", "sums", "near_tops", "near_sums", "shelf", "near_shelf"
)


@lru_cache(256)
def source(kernel: Kernel) -> jit.Source:
    """The function that follows the distances."""
    return jit.Source(_text(kernel), "shares", f"shares of {kernel.row.name} for {kernel.dtype.name}")


def _text(kernel: Kernel) -> str:
    """Of each row the largest and the sum of all others and of its class, and what the joined terms are worth in the place of d."""
    definition, recipe = kernel.definition, kernel.definition.recipe
    code = Code(recipe.scalar, recipe.lanes)
    m, n, first, stride = (_SLOTS.read(code, s) for s in ("m", "n", "first", "stride"))
    d, own, other, worth = (_SLOTS.read(code, s, "ptr") for s in ("d", "own", "other", "worth"))
    scale = code.spread(code.load(_SLOTS.read(code, "scale", "ptr"), code.scalar))
    kinds = ("", "near_")  # all others, and those of the anchor's class
    tops, sums, shelves = ([_SLOTS.read(code, kind + s, "ptr") for kind in kinds] for s in ("tops", "sums", "shelf"))
    odd, best, summed = code.room("i64"), [code.room(code.vector) for _ in kinds], [code.room(code.vector) for _ in kinds]
    code.store("0", "i64", odd)
    last, zero, nothing = code.count(n), code.constant(0.0), code.constant(-math.inf)
    with code.loop("0", m) as i:
        mine = code.spread(code.load(code.at(own, i), code.scalar))
        self, row = code.count(code.put(f"add i64 {i}, {first}")), code.put(f"mul i64 {i}, {stride}")

        def look(j: str, row: str = row, self: str = self, mine: str = mine) -> tuple[str, str, list[str]]:
            """Where some distances lie, these, and who is another, and of the same class."""
            at, column = code.at(d, code.put(f"add i64 {row}, {j}")), code.ints("add", code.count(j), code.lane)
            apart, there = (code.put(f"icmp {how} {code.whole} {column}, {end}") for how, end in (("ne", self), ("slt", last)))
            used = code.put(f"and {code.truth} {apart}, {there}")
            same = code.compare("oeq", mine, code.load(code.at(other, j), code.vector, 4))
            return at, code.load(at, code.vector, 4), [used, code.put(f"and {code.truth} {used}, {same}")]

        for place in best:
            code.store(nothing, code.vector, place)
        with code.loop("0", n, recipe.lanes) as j:
            _, v, masks = look(j)
            s = code.arith("mul", v, scale)
            large = code.compare("oeq", code.abs(s), code.constant(math.inf))
            slopes.note(code, odd, code.put(f"and {code.truth} {large}, {masks[0]}"))
            for place, mask in zip(best, masks, strict=True):
                code.store(code.larger(code.load(place, code.vector), code.choose(mask, s, nothing)), code.vector, place)
        bases = []
        for place, into in zip(best, tops, strict=True):
            top = code.topmost(code.load(place, code.vector))
            code.store(top, code.scalar, code.at(into, i))
            top = code.spread(top)
            bases.append(code.choose(code.compare("oeq", top, nothing), zero, top))
        for place in summed:
            code.store(zero, code.vector, place)
        with code.loop("0", n, recipe.lanes) as j:
            _, v, masks = look(j)
            s = code.arith("mul", v, scale)
            for base, mask, place, shelf in zip(bases, masks, summed, shelves, strict=True):
                e = code.choose(mask, code.exp_below(code.arith("sub", s, base)), zero)
                code.store(code.arith("add", code.load(place, code.vector), e), code.vector, place)
                small = code.compare("olt", e, code.constant(TINY[recipe.scalar]))
                code.store(code.choose(small, zero, e), code.vector, code.at(shelf, j), 4)
        weight = code.arith("mul", code.spread(code.load(code.at(worth, i), code.scalar)), scale)
        factors = []
        for place, into in zip(summed, sums, strict=True):
            whole = code.added(code.load(place, code.vector))
            code.store(whole, code.scalar, code.at(into, i))
            whole = code.spread(whole)
            none = code.compare("oeq", whole, zero)
            factors.append(code.choose(none, zero, code.arith("div", weight, code.choose(none, code.constant(1.0), whole))))
        with code.loop("0", n, recipe.lanes) as j:
            at, v, masks = look(j)
            parts = [code.arith("mul", code.load(code.at(shelf, j), code.vector, 4), f) for shelf, f in zip(shelves, factors, strict=True)]
            g = slopes.worth_of(code, definition, v, code.arith("sub", *parts), odd, masks[0])
            code.store(code.choose(masks[0], g, zero), code.vector, at, 4)
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("shares", "ptr %a", "i64")])
