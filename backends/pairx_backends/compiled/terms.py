"""The sum over all pairs of one set of a term of their distance, and its gradient. The term is a loss's own text, run once on symbols."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import jit, slopes
from .definition import Slots
from .emit import Code, module
from .kernel import Kernel
from .trace import derivatives
from .walk import identities, possible, walked

Array = Any
Term = Callable[[Any, Any, Any, dict[str, Any]], Any]


def total(
    x: Array, kernel: Kernel, labels: Array, max_bytes: int, mean: bool, term: Term, numbers: dict[str, float], *, slope: bool
) -> tuple[float, Array | None] | None:
    """The mean or the sum of ``term(a, distance, same, numbers)`` over each two rows of x, and its gradient if that is asked for.

    ``labels`` are integers. None: the kernel or the budget is none for this, a compiler is not worth waiting for, or a distance
    overflowed or underflowed.
    """
    n, d = x.shape
    if not possible(kernel, n, d, max_bytes):
        return None
    code = source(kernel, term, tuple(numbers))
    if not code.worth(n * n * d):
        return None
    ids, sums = identities(labels, kernel), np.zeros(n, kernel.dtype)
    given = np.array([2.0 / (n * (n - 1)) if mean else 1.0, *numbers.values()], kernel.dtype)

    def follow(rows: slice, first: int, out: Array) -> int:
        a = _SLOTS.array(
            {
                "m": out.shape[0], "n": out.shape[1], "first": rows.start - first, "d": out.ctypes.data,
                "stride": out.strides[0] // out.itemsize, "own": ids[rows].ctypes.data, "other": ids[first:].ctypes.data,
                "given": given.ctypes.data, "sums": sums[rows].ctypes.data,
            }
        )  # fmt: skip
        return int(code.function(a.ctypes.data))

    good, gradient = walked(x, kernel, max_bytes, follow, upper=True, slope=slope)
    return (float(np.sum(sums, dtype=np.float64)), gradient) if good else None


_SLOTS = Slots("m", "n", "first", "d", "stride", "own", "other", "given", "sums")


@lru_cache(256)
def source(kernel: Kernel, term: Term, names: tuple[str, ...]) -> jit.Source:
    """The function that follows the distances."""
    return jit.Source(_text(kernel, term, names), "terms", f"a loss of {kernel.row.name} for {kernel.dtype.name}")


def _text(kernel: Kernel, term: Term, names: tuple[str, ...]) -> str:
    """``sums[i] = sum over j > i + first of the term``; d becomes what the joined terms are worth. Answers whether a distance is odd."""
    graph, recipe = kernel.definition.graph, kernel.definition.recipe
    symbols = SimpleNamespace(xp=graph, backend=SimpleNamespace(natives={}))
    v, share = graph.input("v"), graph.input("share")
    same = graph.input("own") == graph.input("other")
    value = term(symbols, v, same, {name: graph.input(name) for name in names}) * share
    (slope,) = derivatives(value, [v], 1.0)
    code = Code(recipe.scalar, recipe.lanes)
    m, n, first, stride = (_SLOTS.read(code, s) for s in ("m", "n", "first", "stride"))
    d, own, other, given, sums = (_SLOTS.read(code, s, "ptr") for s in ("d", "own", "other", "given", "sums"))
    numbers = {name: code.spread(code.load(code.at(given, str(k)), code.scalar)) for k, name in enumerate(("share", *names))}
    odd, summed = code.room("i64"), code.room(code.vector)
    code.store("0", "i64", odd)
    last = code.count(n)
    with code.loop("0", m) as i:
        code.store(code.constant(0.0), code.vector, summed)
        mine = code.spread(code.load(code.at(own, i), code.scalar))
        diagonal, row = code.count(code.put(f"add i64 {i}, {first}")), code.put(f"mul i64 {i}, {stride}")
        with code.loop("0", n, recipe.lanes) as j:
            at = code.at(d, code.put(f"add i64 {row}, {j}"))
            column = code.ints("add", code.count(j), code.lane)
            after, there = (code.put(f"icmp {how} {code.whole} {column}, {end}") for how, end in (("sgt", diagonal), ("slt", last)))
            used = code.put(f"and {code.truth} {after}, {there}")
            inputs = {"v": code.load(at, code.vector, 4), "own": mine, "other": code.load(code.at(other, j), code.vector, 4)} | numbers
            found, g = code.expressions([value, slope], inputs)
            found = code.arith("add", code.load(summed, code.vector), code.choose(used, found, code.constant(0.0)))
            code.store(found, code.vector, summed)
            g = slopes.worth_of(code, kernel.definition, inputs["v"], g, odd, used)
            code.store(code.choose(used, g, code.constant(0.0)), code.vector, at, 4)
        code.store(code.added(code.load(summed, code.vector)), code.scalar, code.at(sums, i))
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("terms", "ptr %a", "i64")])
