"""The sum over all pairs of one set of a term of their distance, and its gradient, without a result of all pairs.

Some rows at a time are compared with themselves and all after them. A loop over these distances, while a cache holds them, puts in
the place of each what its joined term is worth in the sum, and ``pull_xy`` takes that to the rows' gradients. The term is a
loss's own text, run once on symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from pairx import plan as plans
from pairx.threads import share_rows

from . import jit, pullback
from .definition import Slots
from .emit import Code, module
from .kernel import Kernel
from .trace import derivatives

Array = Any
Term = Callable[[Any, Any, Any, dict[str, Any]], Any]
EXACT = 1 << 24
"""Labels are compared as floats; from here on they could be equal as float32 and no more as integers."""
BLOCK_BYTES = 2 << 20
"""Distances of some rows at a time: what a processor's second cache holds."""


def total(
    x: Array, kernel: Kernel, labels: Array, term: Term, numbers: dict[str, float], share: float, max_bytes: int, *, slope: bool
) -> tuple[float, Array | None] | None:
    """``share`` times the sum of ``term(a, distance, same, numbers)`` over each two rows of x, and its gradient if that is asked for.

    ``labels`` are integers. None: the kernel or the budget is none for this, a compiler is not worth waiting for, or a distance
    overflowed or underflowed.
    """
    n, d = x.shape
    if d == 0 or not _possible(kernel) or _least(kernel, n, d) > max_bytes:
        return None
    code = source(kernel, term, tuple(numbers))
    if not code.worth(n * n * d):
        return None
    threads = plans.thread_count() if n * n * (d + 16) >= plans.SHARED else 1
    size, width = kernel.dtype.itemsize, kernel.width
    x = np.ascontiguousarray(x, kernel.dtype)
    if max(abs(int(labels.max())), abs(int(labels.min()))) >= EXACT:
        labels = np.unique(labels, return_inverse=True)[1]
    ids = np.concatenate([labels, np.zeros(width)], dtype=kernel.dtype)  # whole vectors are read
    given = np.array([share, *numbers.values()], kernel.dtype)
    left = min(BLOCK_BYTES, max_bytes - _least(kernel, n, d)) // (size * width * (n + width))
    step = width * max(1, min(left, -(-256 // width)))
    packed = kernel.packed(x)
    weights, count = np.ones(d, kernel.dtype), np.array([d], kernel.dtype)
    distances = np.empty((min(step, n), -(-n // width) * width), kernel.dtype)
    sums, names = np.zeros(n, kernel.dtype), _SLOTS
    bad: list[int] = []
    features = pullback.vectors(kernel.definition) * kernel.definition.recipe.lanes
    panels = kernel.panelled(x, features) if slope else x
    slopes = np.zeros_like(panels) if slope else panels
    order, all_features = pullback.pull_slots(kernel.definition.recipe), -(-d // features) * features

    for start in range(0, n, step):
        stop = min(start + step, n)
        block = distances[: stop - start, : -(-(n - start) // width) * width]

        def compare(low: int, high: int, start: int = start, block: Array = block) -> None:
            out = block[low:high, : n - start]
            kernel.compare([x[start + low : start + high]], [packed[start // width :]], out, weights, count)
            a = names.array(
                {
                    "m": high - low, "n": n - start, "first": low, "d": out.ctypes.data, "stride": block.strides[0] // size,
                    "own": ids[start + low :].ctypes.data, "other": ids[start:].ctypes.data, "given": given.ctypes.data,
                    "sums": sums[start + low :].ctypes.data,
                }
            )  # fmt: skip
            bad.append(code.function(a.ctypes.data))

        def pull(low: int, high: int, start: int = start, stop: int = stop, block: Array = block) -> None:
            place = panels.ctypes.data + start * features * size
            into = slopes.ctypes.data + start * features * size
            a = order.array(
                {
                    "m": stop - start, "n": n - start, "upper": True, "own_rows": n, "other_rows": n,
                    "first": low, "stop": high, "width": all_features, "w": weights.ctypes.data,
                    "c": block.ctypes.data, "by_own": block.strides[0] // size, "by_other": 1,
                    "own0": place, "other0": place, "total0": into, "totals0": into,
                }
            )  # fmt: skip
            kernel.function("pull_xy")(a.ctypes.data)

        share_rows(compare, stop - start, threads, 32)
        if any(bad):
            return None
        if slope:
            share_rows(pull, all_features, threads, features)
    answer = float(np.sum(sums, dtype=np.float64))
    return answer, None if not slope else np.swapaxes(slopes, 0, 1).reshape(n, all_features)[:, :d]


def _possible(kernel: Kernel) -> bool:
    """Whether the distances of a kernel tell its gradient, and its rows are as they come."""
    told = kernel.differentiable and (not kernel.sloped or kernel.invertible)
    return told and not kernel.prepared and kernel.special is None and kernel.row.reduce == "sum" and not kernel.free


def _least(kernel: Kernel, n: int, d: int) -> int:
    """Scratch bytes of a call with as few rows at a time as there may be."""
    return kernel.dtype.itemsize * (n + kernel.width) * (kernel.width + 4 * (d + 32))


_SLOTS = Slots("m", "n", "first", "d", "stride", "own", "other", "given", "sums")


@lru_cache(256)
def source(kernel: Kernel, term: Term, names: tuple[str, ...]) -> jit.Source:
    """The function that follows the distances."""
    return jit.Source(_text(kernel, term, names), "terms", f"a loss of {kernel.row.name} for {kernel.dtype.name}")


def _text(kernel: Kernel, term: Term, names: tuple[str, ...]) -> str:
    """``sums[i] = sum over j > i + first of the term``; d becomes what the joined terms are worth. Answers whether a distance is odd."""
    definition = kernel.definition
    recipe, graph = definition.recipe, definition.graph
    symbols = SimpleNamespace(xp=graph, backend=SimpleNamespace(natives={}))
    v, share = graph.input("v"), graph.input("share")
    same = graph.input("own") == graph.input("other")
    value = term(symbols, v, same, {name: graph.input(name) for name in names}) * share
    (slope,) = derivatives(value, [v], 1.0)
    if kernel.sloped:
        (worth,) = derivatives(definition.result, definition.reduced, graph.input("g"))
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
            if kernel.sloped:
                assert definition.inverse is not None
                (reduced,) = code.expressions([definition.inverse], inputs)
                (g,) = code.expressions([worth], {"r0": reduced, "g": g})
                bad = pullback.distrusted(code, definition, inputs["v"], reduced)
                if bad is not None:
                    pullback.note(code, odd, code.put(f"and {code.truth} {bad}, {used}"))
            code.store(code.choose(used, g, code.constant(0.0)), code.vector, at, 4)
        code.store(code.added(code.load(summed, code.vector)), code.scalar, code.at(sums, i))
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("terms", "ptr %a", "i64")])
