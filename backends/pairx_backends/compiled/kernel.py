"""The functions of one metric for one dtype: compiled when they are first needed, and called on arrays in main memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pairx import engine
from pairx import plan as plans
from pairx.backend import Backend
from pairx.calls import COMPILE_FROM
from pairx.checks import dtype_name
from pairx.engine import Rule, Task
from pairx.metrics import Metric
from pairx.plan import Tile
from pairx.threads import share_rows
from pairx_backends.numpy import BACKEND as NUMPY

from .known import Known, ahead, moderate, ordinary
from .layout import padded, panelled

if TYPE_CHECKING:
    from .definition import Definition
    from .prepare import Preparation

Array = Any
FREE = ("gamma",)
"""Parameters that enter as plain numbers: kernels take their values at the call."""


class Kernel:
    """The functions of one metric with its parameters, for one dtype; each is compiled when it is first needed."""

    grad_bytes = 16 << 20
    """Scratch of a tile of gradients, where the budget allows it."""
    alone = False
    """It shares out a tile between the threads itself: one tile at a time."""

    def __init__(
        self, row: Metric, params: tuple[tuple[str, Any], ...], scalar: str, weighted: bool, omit: bool, known: Known = ""
    ) -> None:
        from . import definition, jit, slopes

        self.dtype = np.dtype("float32" if scalar == "float" else "float64")
        self.row = row
        self.pieces = row.define(NUMPY.xp, **dict(params))
        self.prepared = self.pieces.prepare is not None or row.scale == "row"
        self.rule = Rule(row, dict(params), self.dtype, self.dtype, True, omit, weighted)
        probe = np.ones((1, 2), self.dtype)
        panels, stats = engine.rows(NUMPY, self.rule, self.pieces, probe, probe[0] if weighted else None)
        self.free = {k: np.array([v], self.dtype) for k, v in params if k in FREE}
        fixed = tuple(p for p in params if p[0] not in FREE)
        recipe = definition.Recipe(row, fixed, scalar, jit.lanes(scalar), weighted, omit, len(panels), len(stats), tuple(self.free), known)
        self.definition: Definition = definition.Definition(recipe)
        if known == "ordinary" and self.definition.ahead:
            self.definition = definition.Definition(replace(recipe, ahead=self.definition.ahead))
        if recipe.broad and self.definition.counted:  # comparisons of 64 bytes answer masks, which take an operation more
            self.definition = definition.Definition(replace(recipe, lanes=recipe.lanes // 2))
        self.width = self.definition.tile[1] * self.definition.recipe.lanes
        self.slots = definition.slots(self.definition.recipe)
        # A weighted sum with gaps has its weights in n and in what is present, too.
        self.differentiable = row.differentiable and not stats and not (weighted and omit)
        self.repairs = (row.scale in ("difference", "pair", "term") or weighted) and not self.definition.recipe.ahead
        self.sloped = not slopes.direct(self.definition)
        self._functions: dict[str, Callable[[int], int]] = {}
        self._ready = False

    @property
    def tile_bytes(self) -> int:
        """Scratch of a tile, where the budget allows it; large where its rows take long to prepare, which each tile does anew."""
        return 64 << 20 if self.special is not None and self.special.alone else 16 << 20

    @property
    def product_from(self) -> int:
        """From so many features on a matrix product is faster than differences, cancellation and all: measured, see docs/design.md."""
        return 4096 if self.definition.recipe.broad else 512

    @cached_property
    def special(self) -> Kernel | None:
        """The kernel for numbers of which something is known, where that takes less time: no tests, and logarithms ahead."""
        recipe = self.definition.recipe
        if recipe.known or recipe.omit:
            return None
        positive = self.row.domain == "nonnegative" and recipe.scalar == "float"
        known: Known = "moderate" if self.row.scale in ("pair", "term") else "ordinary" if positive else "present"
        given = (self.row, tuple(sorted(self.rule.params.items())), recipe.scalar, recipe.weighted, False, known)
        if known == "ordinary":
            from .beside import Beside

            rich = Beside(*given)
            return rich if rich.definition.recipe.ahead else None
        found = Kernel(*given)
        return found if found.definition.weight < self.definition.weight else None

    @property
    def invertible(self) -> bool:
        """Whether the derivative can be had from the distances, without computing them again."""
        return self.differentiable and self.sloped and self.definition.inverse is not None

    @property
    def smooth(self) -> bool:
        """Whether a special kernel has a derivative of its own."""
        return self.definition.recipe.ahead == ("log", "rest")

    def knowing(self, x: Array, y: Array, w: Array | None, smooth: bool = False) -> Kernel:
        """This kernel or the special one, by all numbers of a call: one tile must not get other bits than its neighbour.

        ``smooth``: for the gradient, in which a logarithm of 0 has no place.
        """
        found = self.special
        if found is None or (smooth and not found.smooth):
            return self
        if x.size * y.size <= COMPILE_FROM * x.shape[-1] and not found.ready():  # not worth waiting for
            return self
        if found.definition.recipe.known == "ordinary":
            return found if ordinary(x, y, w, smooth) else self
        if found.definition.recipe.known == "moderate":
            return found if moderate(x, y, *([] if w is None else [w])) else self
        return self if any(a.size and np.isnan(a.min()) for a in (x, y)) else found

    def _ahead(self, panels: list[Array], side: Literal["x", "y"]) -> list[Array]:
        """The panels, and those that are computed of them."""
        return panels + [a.astype(self.dtype) for a in ahead(self.definition.recipe.ahead, panels[0], side)]

    def text(self, name: str) -> str:
        """The LLVM text of a function."""
        from . import kernels, pullback, repair, slopes, small

        scalar = self.definition.recipe.scalar
        if name == "mirror":
            return kernels.mirror(scalar)
        if name == "pack":
            return kernels.pack(scalar, self.width)
        if name == "pull_xy":
            return pullback.pull_both(self.definition)
        if name.startswith("pull_"):
            return pullback.pull(self.definition, name[-1])  # type: ignore[arg-type]
        if name == "small":
            return small.small(self.definition, self.preparation if self.prepared else None)
        texts = {"forward": kernels.forward, "slope": slopes.slope, "worth": slopes.worth, "repair": repair.repair}
        return texts[name](self.definition)

    def function(self, name: str) -> Callable[[int], int]:
        """A function, compiled at its first use or read from where it was kept."""
        found = self._functions.get(name)
        if found is None:
            from . import jit

            what = f"{self.row.name} for {self.dtype.name} ({name})"
            kind = jit.LOCKED if name == "small" else jit.FREE
            found = self._functions[name] = jit.build(self.text(name), name.partition("_")[0], what, kind)
        return found

    def ready(self) -> bool:
        """Whether no compiler need be waited for."""
        from . import jit

        self._ready = self._ready or "forward" in self._functions or jit.kept(self._identity)
        return self._ready

    @cached_property
    def _identity(self) -> str:
        """Of the values' code: to write the text again takes longer than most calls."""
        from . import jit

        return jit.key(self.text("forward"))

    def fill(self, task: Task, tile: Tile, x: Array, y: Array, out: Array) -> None:
        """Write one tile of a walk where it belongs, in place if the result's memory allows it."""
        backend, plan = task.backend, task.plan
        left = backend.host(x)
        right = left if y is x else backend.host(y)
        w = backend.host(task.aux[0]) if self.rule.weighted else None
        diagonal = tile.kind == "diagonal"
        target = backend.host(out) if plan.layout == "matrix" and dtype_name(task.dtype) == self.dtype.name else None
        place = None if target is None else target[plans.whole(tile)]
        if place is None or (place.shape[-1] > 1 and place.strides[-1] != place.itemsize) or not place.flags.aligned:
            place = np.empty([b - a for a, b in tile.spans], self.dtype)
            self._batches(left, right, w, place, False, plan.threads)
            engine.store(task, tile, backend.guest(place), out)
            return
        self._batches(left, right, w, place, diagonal, plan.threads)
        if diagonal and plan.zero_self:
            i = np.arange(place.shape[-1])
            place[..., i, i] = np.where(np.isnan(place[..., i, i]), math.nan, 0.0)
        if tile.kind == "mirror":
            assert target is not None
            for at in np.ndindex(*place.shape[:-2]):
                lead = tuple(start + i for i, (start, _) in zip(at, tile.spans, strict=False))
                self.mirror(target[lead], *tile.spans[-2], *tile.spans[-1])

    def _batches(self, x: Array, y: Array, w: Array | None, out: Array, diagonal: bool, threads: int) -> None:
        """Each matrix of a batch; ``diagonal``: the upper triangle, and its mirror image."""
        for place in np.ndindex(*out.shape[:-2]):
            left, right = x[_own(place, x)], y[_own(place, y)]
            self.values(left, left if x is y else right, w, out[place], diagonal, threads)

    def rows(self, a: Array, w: Array | None) -> tuple[list[Array], list[Array]]:
        """The panels and numbers of the rows of one side, each with its features side by side."""
        a = np.asarray(a, self.dtype)
        if not self.prepared:
            return [a], []
        with NUMPY.quiet():
            panels, stats = engine.rows(NUMPY, self.rule, self.pieces, a, w)
        return list(panels), [np.ascontiguousarray(s[..., 0]) for s in stats]

    def packed(self, panel: Array, out: Array | None = None) -> Array:
        """(n, d) as panels of neighbouring rows."""
        n, d = panel.shape
        out = np.empty((-(-n // self.width), d, self.width), self.dtype) if out is None else out
        if out.size:
            if not panel.flags.aligned:
                panel = panel.copy()
            size = self.dtype.itemsize
            a = np.array([n, d, panel.ctypes.data, panel.strides[0] // size, panel.strides[1] // size, out.ctypes.data], np.int64)
            self.function("pack")(a.ctypes.data)
        return out

    def values(self, x: Array, y: Array, w: Array | None, out: Array, upper: bool = False, threads: int = 1) -> None:
        """Distances of all rows of x and y, (m, d) and (n, d), into ``out``, whose columns lie side by side.

        ``upper``: those above the diagonal, and their mirror image.
        """
        m, n = out.shape
        if m == 0 or n == 0:
            return
        xs, sx = self.rows(x, w)
        ys, sy = (xs, sx) if y is x else self.rows(y, w)
        d = xs[0].shape[-1]
        if d == 0 and self.rule.omit:  # nothing is missing where nothing is
            out[...] = 0.0
            return
        weights = np.ones(max(d, 1), self.dtype) if w is None else np.ascontiguousarray(w, self.dtype)
        count = np.array([x.shape[-1] if w is None else weights.sum(dtype=self.dtype)], self.dtype)
        sums = [self._sums(panel, w, pad) for panel, pad in ((xs[0], 0), (y, self.width))] if self.definition.apart else []
        self.compare(xs, [self.packed(panel) for panel in ys], out, weights, count, (sx, sy), sums, upper)
        if upper:
            self.mirror(out)

    def compare(
        self,
        xs: list[Array],
        ys: list[Array],
        out: Array,
        weights: Array,
        count: Array,
        stats: tuple[list[Array], list[Array]] = ([], []),
        sums: Sequence[Array] = (),
        upper: bool = False,
    ) -> None:
        """The same of prepared rows, of which those of y are packed; below the diagonal nothing where ``upper`` is set."""
        index = self.slots.index
        a = np.zeros(len(index), np.int64)
        sizes = (*out.shape, xs[0].shape[-1], upper)
        a[:8] = *sizes, out.ctypes.data, out.strides[0] // self.dtype.itemsize, weights.ctypes.data, count.ctypes.data
        for name, value in self.free.items():
            a[index[name]] = value.ctypes.data
        held = []
        for p, (left, right) in enumerate(zip(xs, ys, strict=True)):
            if left.strides[-1] != left.itemsize or not left.flags.aligned or left.strides[0] % left.itemsize:
                left = np.ascontiguousarray(left)
            held.append(left)
            a[index[f"x{p}"]], a[index[f"xs{p}"]] = left.ctypes.data, left.strides[0] // left.itemsize
            a[index[f"y{p}"]] = right.ctypes.data
        for p, (left, right) in enumerate(zip(*stats, strict=True)):
            right = np.concatenate([right, np.zeros(self.width, self.dtype)])  # whole vectors are read
            held += [left, right]
            a[index[f"sx{p}"]], a[index[f"sy{p}"]] = left.ctypes.data, right.ctypes.data
        for name, each in zip(("tx", "ty"), sums, strict=False):
            a[index[name]] = each.ctypes.data
        if self.function("forward")(a.ctypes.data) and self.repairs:
            self.function("repair")(a.ctypes.data)

    def _sums(self, a: Array, w: Array | None, pad: int) -> Array:
        """The sum of each row, as ``Definition.apart`` wants it; some zeros after the last."""
        found = np.zeros(a.shape[0] + pad, self.dtype)
        np.sum(np.asarray(a, self.dtype) if w is None else a * np.asarray(w, self.dtype), axis=-1, out=found[: a.shape[0]])
        return found

    def plain(self, x: Array, y: Array, out: Array) -> bool:
        """Whether they are NumPy matrices of the kernels' own dtype, or of booleans where that is the domain."""
        given = np.dtype(bool) if self.row.domain == "boolean" else self.dtype
        arrays = ((x, given), (y, given), (out, self.dtype))
        return all(type(a) is np.ndarray and a.dtype == t and a.ndim == 2 and a.flags.aligned and a.size for a, t in arrays)

    @cached_property
    def preparation(self) -> Preparation | None:
        """The rows' preparation as expressions; None: it is NumPy's."""
        return self._preparation(self.definition.recipe.scalar)

    def _preparation(self, scalar: str) -> Preparation | None:
        from . import jit
        from .prepare import Preparation

        try:
            return Preparation(self.rule, scalar, jit.lanes(scalar))
        except AttributeError:
            return None

    @property
    def short(self) -> bool:
        """Whether small calls have a way of their own. Of a ball each call looks whether the rows are in it."""
        return self.row.domain != "ball" and (not self.prepared or self.preparation is not None)

    @cached_property
    def wide(self) -> Kernel:
        """The same for float64."""
        return Kernel(self.row, tuple(sorted(self.rule.params.items())), "double", self.rule.weighted, self.rule.omit)

    def quick(self, x: Array, y: Array, out: Array) -> Callable[[Array, Array], Array] | None:
        """A function for more arrays with the same shapes, strides and dtypes, or None; ``out`` shows the result's."""
        from . import small

        return small.quick(self, x, y, out) if self.plain(x, y, out) and self.short else None

    def mirror(self, out: Array, top: int = 0, bottom: int | None = None, first: int = 0, stop: int | None = None) -> None:
        """The triangle below the diagonal from that above it; or only what comes of some rows and columns."""
        n = out.shape[0]
        given = [top, n if bottom is None else bottom, first, n if stop is None else stop]
        a = np.array([out.ctypes.data, out.strides[0] // self.dtype.itemsize, *given], np.int64)
        self.function("mirror")(a.ctypes.data)

    # --- gradients

    def panels(self, backend: Backend, x: Array, w: Array | None) -> list[Array]:
        """The panels of a row in the library's own operations, for it to differentiate."""
        rule = replace(self.rule, compute=getattr(backend.xp, self.dtype.name))
        pieces = self.row.define(backend.xp, **self.rule.params)
        return list(engine.rows(backend, rule, pieces, x, w)[0])

    def pull(
        self,
        xs: list[Array],
        ys: list[Array],
        w: Array | None,
        g: Array,
        needed: tuple[bool, bool, bool],
        threads: int = 1,
        distances: Array | None = None,
    ) -> tuple[list[Array], list[Array], Array | None] | None:
        """From the cotangents (..., m, n) of a tile to those of the panels of x, of y, and of the weights.

        ``distances``: those of the tile, if they are there still: most metrics need not compute them again.
        None: a distance overflowed or underflowed on the way, and the array engine's scaled form must be differentiated.
        """
        weigh = needed[2] and self.row.reduce == "sum"
        if g.ndim == 2 and all(a.ndim == 2 for a in (*xs, *ys)):
            return self._pull(self._ahead(xs, "x"), self._ahead(ys, "y"), w, g, (*needed[:2], weigh), threads, distances)
        gx, gy = [np.zeros(a.shape, self.dtype) for a in xs], [np.zeros(a.shape, self.dtype) for a in ys]
        gw = np.zeros(xs[0].shape[-1], self.dtype) if weigh else None
        for place in np.ndindex(*g.shape[:-2]):
            x_at, y_at = _own(place, xs[0]), _own(place, ys[0])
            mine, theirs = self._ahead([a[x_at] for a in xs], "x"), self._ahead([a[y_at] for a in ys], "y")
            there = None if distances is None else distances[place]
            found = self._pull(mine, theirs, w, g[place], (*needed[:2], gw is not None), threads, there)
            if found is None:
                return None
            for total, part in zip(gx, found[0], strict=True):
                total[x_at] += part
            for total, part in zip(gy, found[1], strict=True):
                total[y_at] += part
            if gw is not None:
                gw += found[2]
        return gx, gy, gw

    def _pull(
        self,
        xs: list[Array],
        ys: list[Array],
        w: Array | None,
        g: Array,
        needed: tuple[bool, bool, bool],
        threads: int,
        distances: Array | None,
    ) -> tuple[list[Array], list[Array], Array | None] | None:
        """The same for one matrix of a batch."""
        from . import pullback

        m, n = g.shape
        d, size = xs[0].shape[-1], self.dtype.itemsize
        given = self.definition.recipe.panels
        if not (m and n and d):
            nothing = [[np.zeros((rows, d), self.dtype) for _ in range(given)] for rows in (m, n)]
            return nothing[0], nothing[1], np.zeros(d, self.dtype) if needed[2] else None
        step = pullback.vectors(self.definition) * self.definition.recipe.lanes
        width = -(-d // step) * step
        # Features are shared where there is something for each thread; of a maximum each would look at every pair.
        together = needed[0] and needed[1] and (threads == 1 or (width >= threads * step and self.row.reduce != "max"))
        g = padded(g, n, self.dtype)
        if not self.sloped:
            worth, maxima, cs = g[None], g, g.strides[0] // size
        else:
            cs = -(-n // self.width) * self.width
            worth = np.empty((len(self.definition.terms), m, cs), self.dtype)
            maxima = np.empty((m, cs), self.dtype) if self.row.reduce == "max" else worth[0]
            if distances is None or distances.dtype != self.dtype or not self.invertible:
                valid = self._slope(xs, ys, w, padded(g, cs, self.dtype), worth, maxima, n, threads)
            else:
                valid = self._worth(distances, g, worth, threads)
            if not valid:
                return None
        xs, ys = ([panelled(a, step, self.dtype) for a in side] for side in (xs, ys))
        weights = np.ones(width, self.dtype) if w is None else padded(np.asarray(w)[None], width, self.dtype)[0]
        order = pullback.pull_slots(self.definition.recipe)

        def slots(own: list[Array], other: list[Array], total: list[Array], totals: list[Array], start: int = 0, **rest: int) -> Array:
            values = {"stop": width, "width": width, "plane": m * cs, "w": weights.ctypes.data, **rest}
            values |= {"own_rows": own[0].shape[1], "other_rows": other[0].shape[1]}
            for name, arrays, skip in (("own", own, start), ("other", other, 0), ("total", total, start), ("totals", totals, 0)):
                values |= {f"{name}{p}": panel.ctypes.data + skip * step * size for p, panel in enumerate(arrays)}
            return order.array(values)

        def pull(side: str, own: list[Array], other: list[Array], total: list[Array]) -> None:
            rows, columns, by_own, by_other = (n, m, 1, cs) if side == "y" else (m, n, cs, 1)
            function = self.function(f"pull_{side}")

            def part(start: int, stop: int) -> int:
                c, r = (data.ctypes.data + start * by_own * size for data in (worth, maxima))
                a = slots(own, other, total, [], start, m=stop - start, n=columns, c=c, r=r, by_own=by_own, by_other=by_other)
                return function(a.ctypes.data)

            share_rows(part, rows, threads)

        def both(start: int, stop: int) -> int:
            c, r = worth.ctypes.data, maxima.ctypes.data
            a = slots(xs, ys, px, py, m=m, n=n, c=c, r=r, by_own=cs, by_other=1, first=start, stop=stop)
            return self.function("pull_xy")(a.ctypes.data)

        px, py = ([np.zeros_like(a) for a in side[:given]] if need else [] for side, need in zip((xs, ys), needed[:2], strict=True))
        if together:
            share_rows(both, width, threads, step)
        else:
            if needed[0]:
                pull("x", xs, ys, px)
            if needed[1]:
                pull("y", ys, xs, py)
        gw = None
        if needed[2]:
            each = np.zeros_like(xs[0])
            pull("w", xs, ys, [each])
            gw = each.sum(axis=1).reshape(-1)[:d]
        xs = ys = []  # their panels are not needed any more
        gx, gy = (
            [np.swapaxes(a, 0, 1).reshape(rows, width)[:, :d] for a in side] or [np.zeros((rows, d), self.dtype) for _ in range(given)]
            for side, rows in ((px, m), (py, n))
        )
        return gx, gy, gw

    def _worth(self, distances: Array, g: Array, worth: Array, threads: int) -> bool:
        """The same as ``_slope`` does, from distances that are there already."""
        from . import slopes

        names, size = slopes.worth_slots(self.definition.recipe), self.dtype.itemsize
        m, n = distances.shape
        if not distances.flags.aligned or (n > 1 and distances.strides[1] != size) or distances.strides[0] % size:
            distances = np.ascontiguousarray(distances)

        def part(start: int, stop: int) -> int:
            given = {
                "m": stop - start, "n": n, "v": distances[start:].ctypes.data, "vs": distances.strides[0] // size,
                "g": g[start:].ctypes.data, "gs": g.strides[0] // size, "c": worth[0, start:].ctypes.data, "cs": worth.shape[2],
            }  # fmt: skip
            given |= {k: v.ctypes.data for k, v in self.free.items()}
            a = names.array(given)
            return self.function("worth")(a.ctypes.data)

        return not any(share_rows(part, m, threads))

    def _slope(
        self, xs: list[Array], ys: list[Array], w: Array | None, g: Array, worth: Array, maxima: Array, n: int, threads: int
    ) -> bool:
        """Fill in what each pair's terms are worth; False if a distance overflowed or underflowed."""
        from . import slopes

        names = slopes.slope_slots(self.definition.recipe)
        d, size = xs[0].shape[1], self.dtype.itemsize
        weights = np.ones(d, self.dtype) if w is None else np.ascontiguousarray(w, self.dtype)
        count = np.array([d if w is None else weights.sum(dtype=self.dtype)], self.dtype)
        xs, packed = [np.ascontiguousarray(a) for a in xs], [self.packed(a) for a in ys]
        (m, cs), gs = g.shape, g.strides[0] // size

        def part(start: int, stop: int) -> int:
            given = {
                "m": stop - start, "n": n, "d": d, "w": weights.ctypes.data, "count": count.ctypes.data, "gs": gs, "cs": cs,
                "plane": m * cs, "g": g.ctypes.data + start * gs * size, "c": worth.ctypes.data + start * cs * size,
                "r": maxima.ctypes.data + start * cs * size,
            }  # fmt: skip
            given |= {k: v.ctypes.data for k, v in self.free.items()}
            for p, (left, right) in enumerate(zip(xs, packed, strict=True)):
                given |= {f"x{p}": left.ctypes.data + start * d * size, f"xs{p}": d, f"y{p}": right.ctypes.data}
            a = names.array(given)
            return self.function("slope")(a.ctypes.data)

        return not any(share_rows(part, m, threads))


def _own(place: tuple[int, ...], a: Array) -> tuple[int, ...]:
    """The matrix of an input for a place in the batch, whose axes broadcast."""
    lead = a.shape[:-2]
    return tuple(0 if n == 1 else p for p, n in zip(place[len(place) - len(lead) :], lead, strict=True))
