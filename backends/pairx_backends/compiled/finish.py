"""What follows a matrix product, in machine code: from products and numbers of the rows to distances, in one pass.

The product is the library's own (``matmul``), some rows at a time, so that the pass finds it in the cache. A metric's definition is
traced as for the other kernels, and its ``finish`` is all that is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from pairx import engine
from pairx.checks import dtype_name
from pairx.engine import Rule
from pairx.metrics import METRICS, Metric
from pairx.threads import share_rows
from pairx_backends.numpy import BACKEND as NUMPY

from . import jit
from .definition import Definition, Slots
from .emit import Code, Value, module
from .kernel import Kernel
from .kernels import store
from .trace import order

Array = Any
Matmul = Callable[[Array, Array, Array], Any]
"""``matmul(a, b, out)`` on NumPy arrays, of which ``out`` is contiguous."""

STRIP = 1024
"""Rows of a product at a time: what it wrote is still in some cache when the distances take its place."""
TRIANGLE = 256
"""The same where only one triangle is wanted: little of the other is computed with it."""
PIECE = 1 << 16
"""Numbers that are worth a thread."""
OWN = 1 << 10
"""Up to so many bytes of a row this engine's own product is as fast as the library's, and shares the processors better."""
EXACT = 1 << 24
"""Up to here float32 holds every whole number."""
SLOW = {"tanh", "atan2", "sin", "cos"}
"""The C library computes these number by number: NumPy is faster."""


def product(rule: Rule, matmul: Matmul) -> Product | str:
    """What runs the products of a rule, or why the library's own operations do."""
    scalar = _SCALARS.get(dtype_name(rule.compute))
    if rule.metric.product != "dot" or not rule.matrix or scalar is None:
        return f"metric {rule.metric.name!r} has no plain product of real numbers"
    found = _product(rule.metric, tuple(sorted(rule.params.items())), scalar, rule.weighted, matmul)
    return found if found.worth else f"metric {rule.metric.name!r} has a finish that the library computes faster"


@lru_cache(256)
def _product(row: Metric, params: tuple[tuple[str, Any], ...], scalar: str, weighted: bool, matmul: Matmul) -> Product:
    return Product(row, params, scalar, weighted, matmul)


_SCALARS = {"float32": "float", "float64": "double"}


class Product(Kernel):
    """The functions of one metric of plain products, for one dtype."""

    special = None
    alone = True

    def __init__(self, row: Metric, params: tuple[tuple[str, Any], ...], scalar: str, weighted: bool, matmul: Matmul) -> None:
        super().__init__(row, params, scalar, weighted, False)
        self.matmul = matmul
        self.differentiable = False
        self.counts = row.domain == "boolean" and not weighted
        """The products are whole numbers."""

    @cached_property
    def worth(self) -> bool:
        """Whether something follows the product, and machine code is good at it: powers of negative numbers are whole and small there."""
        nodes = order([self.definition.result])
        powers = [n.value for n in nodes if n.op == "pow"]
        easy = all(p * 4 % 1 == 0 and 0 < p <= 4 for p in powers)
        return easy and not self.definition.linear and not any(n.op in SLOW for n in nodes)

    def text(self, name: str) -> str:
        """The LLVM text of a function."""
        kind, _, scalar = name.partition("_")
        if kind == "prepare":
            found = self._preparation(scalar)
            assert found is not None
            return found.text()
        return finish(self.definition, scalar) if kind == "finish" else super().text(name)

    def ready(self) -> bool:
        """Whether no compiler need be waited for."""
        return self._kept or all(name in self._functions for name in self.names)

    @cached_property
    def _kept(self) -> bool:
        return all(jit.kept(jit.key(self.text(name))) for name in self.names) and self.own.ready()

    @property
    def _given(self) -> str:
        return "float" if self.counts else self.definition.recipe.scalar

    @property
    def own(self) -> Dot:
        """The products of small rows."""
        return dot(self._given)

    @property
    def names(self) -> tuple[str, ...]:
        """The functions of its own that a call needs."""
        first = (f"prepare_{self._given}",) if self.prepared and self.preparation is not None else ()
        return *first, f"finish_{self._given}", "mirror"

    def values(self, x: Array, y: Array, w: Array | None, out: Array, upper: bool = False, threads: int = 1) -> None:
        """Distances of all rows of x and y, (m, d) and (n, d), into ``out``, whose columns lie side by side.

        ``upper``: those above the diagonal, and their mirror image.
        """
        (m, n), d = out.shape, x.shape[-1]
        if m == 0 or n == 0:
            return
        dtype = np.dtype(np.float32) if self.counts and d <= EXACT else self.dtype
        own = dot(_SCALARS[dtype.name]) if 0 < d * dtype.itemsize <= OWN else None
        with NUMPY.quiet():
            left, sx = self._side(x, w, dtype, threads)
            right, sy = (left, sx) if y is x else self._side(y, w, dtype, threads)
            if w is not None:
                left = [p * w for p in left]
            step = max(128, own.width) if own is not None else min(TRIANGLE, max(m // 8, 32)) if upper else STRIP
            count = np.array([d if w is None else w.sum(dtype=self.dtype)], self.dtype)
            if own is not None:
                right = [own.packed(p) for p in right]

            def strip(top: int, bottom: int, shelves: list[Array]) -> tuple[Array, tuple[Array, ...], tuple[list[Array], list[Array]]]:
                """The place of some rows of the result, their products (the first in that place, if it fits), and numbers of the rows."""
                start = top if upper else 0
                place = out[top:bottom, start:]
                spare = iter([place] * (dtype == out.dtype) + shelves)

                def multiply(a: Array, b: Array) -> Array:
                    found = next(spare, None)
                    if found is None:
                        shelves.append(found := np.empty((bottom - top) * n, dtype))
                    if found is not place:
                        found = found[: place.size].reshape(place.shape)
                    if own is None:
                        self.matmul(a, b.T, found)
                    else:
                        own.product(a, b, found)
                    return found

                block = 1 if own is None else own.width
                rows = [_Rows(multiply, p[top:bottom]) for p in left] + [_Rows(multiply, p[start // block :]) for p in right]
                return place, self.pieces.terms(*rows), ([s[top:] for s in sx], [s[start:] for s in sy])

            def strips(low: int, high: int) -> None:
                """A thread's own products."""
                shelves: list[Array] = []
                for top in range(low, high, step):
                    bottom = min(top + step, high)
                    place, reduced, stats = strip(top, bottom, shelves)
                    self._finish(place, reduced, stats, count, 0, place.shape[1])
                    if upper:
                        self.mirror(out, top, bottom, top)

            if own is not None:
                share_rows(strips, m, threads, -(-max(PIECE // n, 1) // step) * step)
                return
            shelves: list[Array] = []
            for top in range(0, m, step):
                bottom = min(top + step, m)
                found = strip(top, bottom, shelves)

                def part(low: int, high: int, found: Any = found, top: int = top, bottom: int = bottom) -> None:
                    self._finish(found[0], found[1], found[2], count, low, high)
                    if upper:
                        self.mirror(out, top, bottom, top + low, top + high)

                # The block on the diagonal is one piece: there a thread would write what another one reads.
                share_rows(part, found[0].shape[1], threads, max(PIECE // (bottom - top), bottom - top if upper else 1))

    def _finish(
        self, out: Array, reduced: tuple[Array, ...], stats: tuple[list[Array], list[Array]], count: Array, low: int, high: int
    ) -> None:
        """The columns from ``low`` to ``high``."""
        size, given = self.dtype.itemsize, reduced[0].dtype
        values = {"m": out.shape[0], "n": high - low, "out": out.ctypes.data + low * size, "stride": out.strides[0] // size}
        values |= {"count": count.ctypes.data} | {name: value.ctypes.data for name, value in self.free.items()}
        for t, r in enumerate(reduced):
            values |= {f"r{t}": r.ctypes.data + low * r.itemsize, f"rs{t}": r.strides[0] // r.itemsize}
        for p, (left, right) in enumerate(zip(*stats, strict=True)):
            values |= {f"sx{p}": left.ctypes.data, f"sy{p}": right.ctypes.data + low * size}
        a = np.array([values[name] for name in slots(self.definition).names], np.int64)
        self.function(f"finish_{_SCALARS[given.name]}")(a.ctypes.data)

    def _side(self, a: Array, w: Array | None, dtype: Any, threads: int) -> tuple[list[Array], list[Array]]:
        """The panels and numbers of the rows of one side."""
        (n, d), recipe, size = a.shape, self.definition.recipe, dtype.itemsize
        a = np.asarray(a, dtype)
        if a.strides[-1] != size or a.strides[0] % size or not a.flags.aligned:
            a = np.ascontiguousarray(a)
        if not self.prepared:
            return [a], []
        if self.preparation is None or d == 0:
            panels, stats = engine.rows(NUMPY, replace(self.rule, compute=dtype), self.pieces, a, w)
            found = [s[..., 0] for s in stats]
        else:
            run = self.function(f"prepare_{_SCALARS[dtype.name]}")
            panels = (a,) if self.preparation.same else tuple(np.empty((n, d), dtype) for _ in range(recipe.panels))
            found = [np.empty(n, dtype) for _ in range(recipe.x_stats)]

            def part(low: int, high: int) -> None:
                given = [high - low, d, a.ctypes.data + low * a.strides[0], a.strides[0] // size, 0 if w is None else w.ctypes.data]
                given += [whole[low:].ctypes.data for whole in (*panels, *found)]
                slots = np.array(given, np.int64)
                run(slots.ctypes.data)

            share_rows(part, n, threads, max(PIECE // d, 1))
        # Of the numbers whole vectors are read.
        return list(panels), [np.concatenate([s, np.zeros(recipe.lanes, s.dtype)], dtype=self.dtype) for s in found]


class Dot(Kernel):
    """Products of this engine's own: of rows that fit into the first cache, beside each other on threads that share nothing."""

    def product(self, x: Array, y: Array, out: Array) -> None:
        """``x @ y.T``, of rows whose features lie side by side and packed rows."""
        size, index = self.dtype.itemsize, self.slots.index
        one = np.ones(1, self.dtype)
        a = np.zeros(len(index), np.int64)
        a[:8] = *out.shape, x.shape[1], 0, out.ctypes.data, out.strides[0] // size, one.ctypes.data, one.ctypes.data
        a[index["x0"]], a[index["xs0"]], a[index["y0"]] = x.ctypes.data, x.strides[0] // size, y.ctypes.data
        self.function("forward")(a.ctypes.data)


@lru_cache
def dot(scalar: str) -> Dot:
    """The products of a type of numbers."""
    return Dot(METRICS["inner_product"], (), scalar, False, False)


@dataclass(frozen=True)
class _Rows:
    """Some rows of one side: times those of the other they are their matrix product, as ``terms`` has it."""

    multiply: Callable[[Array, Array], Array]
    rows: Array

    def __mul__(self, other: _Rows) -> Array:
        return self.multiply(self.rows, other.rows)


# --- the text -----------------------------------------------------------------------------------------------------------


def slots(definition: Definition) -> Slots:
    """The arguments of ``finish``."""
    recipe = definition.recipe
    names = ["m", "n", "out", "stride", "count", *recipe.free]
    names += [f"{s}{t}" for t in range(len(definition.terms)) for s in ("r", "rs")]
    names += [f"{s}{p}" for p in range(recipe.x_stats) for s in ("sx", "sy")]
    return Slots(*names)


def finish(definition: Definition, given: str) -> str:
    """``out[i, j]`` from the joined terms ``r[i, j]``, which are numbers of type ``given``, and the numbers of the rows."""
    recipe = definition.recipe
    code, names = Code(recipe.scalar, recipe.lanes), slots(definition)
    terms, lanes = range(len(definition.terms)), recipe.lanes
    m, n, out, stride = (names.read(code, s, "ptr" if s == "out" else "i64") for s in ("m", "n", "out", "stride"))
    fixed = {"n": code.spread(code.load(names.read(code, "count", "ptr"), code.scalar))}
    fixed |= {name: code.spread(code.load(names.read(code, name, "ptr"), code.scalar)) for name in recipe.free}
    whole = code.put(f"and i64 {n}, {-lanes}")
    with code.loop("0", m) as i:
        sources = [code.at(names.read(code, f"r{t}", "ptr"), code.put(f"mul i64 {i}, {names.read(code, f'rs{t}')}"), given) for t in terms]
        target = code.at(out, code.put(f"mul i64 {i}, {stride}"))
        for p in range(recipe.x_stats):
            fixed[f"sx{p}"] = code.spread(code.load(code.at(names.read(code, f"sx{p}", "ptr"), i), code.scalar))

        def vector(j: Value, loaded: list[Value], fixed: dict[str, Value] = fixed, target: Value = target) -> None:
            inputs = fixed | {f"r{t}": code.widened(v, given) for t, v in enumerate(loaded)}
            for p in range(recipe.x_stats):
                inputs[f"sy{p}"] = code.load(code.at(names.read(code, f"sy{p}", "ptr"), j), code.vector, 4)
            (value,) = code.expressions([definition.result], inputs)
            store(code, value, code.at(target, j), code.put(f"sub i64 {n}, {j}"))

        with code.loop("0", whole, lanes) as j:
            vector(j, [code.load(code.at(s, j, given), code.of(given), 4) for s in sources])
        with code.when(code.put(f"icmp slt i64 {whole}, {n}")):  # at the right edge only what there is
            shelves = [code.room(code.of(given)) for _ in terms]
            for source, shelf in zip(sources, shelves, strict=True):
                with code.loop(whole, n) as j:
                    code.store(code.load(code.at(source, j, given), given), given, code.at(shelf, code.put(f"sub i64 {j}, {whole}"), given))
            vector(whole, [code.load(shelf, code.of(given)) for shelf in shelves])
    code.do("ret i64 0")
    return module([code], [code.function("finish", "ptr noalias %a", "i64")])
