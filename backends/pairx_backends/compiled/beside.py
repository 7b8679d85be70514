"""Kernels for rows of which more is computed before the pairs are looked at: logarithms, say, once for each row."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pairx.threads import share_rows

from .kernel import Kernel
from .known import ahead

Array = Any
BLOCK = 1 << 13
"""Numbers of some rows that are prepared at a time: in float64, so that nothing is lost before it matters. For several threads it is
twice as many, or they would wait for each other, since NumPy's calls were short."""


class Beside(Kernel):
    """A special kernel that reads, beside each number, what is known of it ahead.

    To prepare the rows takes a while, so a tile is large, and the threads share its rows and their preparation.
    """

    alone = True

    def values(self, x: Array, y: Array, w: Array | None, out: Array, upper: bool = False, threads: int = 1) -> None:
        """Distances of all rows of x and y, (m, d) and (n, d), into ``out``; ``upper``: half of them, and their mirror image."""
        (m, n), d, size = out.shape, x.shape[-1], self.dtype.itemsize
        if m == 0 or n == 0:
            return
        weights = np.ones(max(d, 1), self.dtype) if w is None else np.ascontiguousarray(w, self.dtype)
        count = np.array([d if w is None else weights.sum(dtype=self.dtype)], self.dtype)
        left, sx = self._side(x, w, "x", threads)
        right, sy = (self.packed(left), sx) if y is x and self.row.symmetric else self._side(y, w, "y", threads)
        sy = [np.concatenate([s, np.zeros(self.width, self.dtype)]) for s in sy]  # whole vectors are read

        def part(low: int, high: int) -> None:
            start = low if upper else 0
            given = {
                "m": high - low, "n": n - start, "d": d, "upper": upper, "out": out[low:, start:].ctypes.data,
                "stride": out.strides[0] // size, "w": weights.ctypes.data, "count": count.ctypes.data,
                "x0": left[low:].ctypes.data, "xs0": left.shape[1], "y0": right[start // self.width :].ctypes.data,
            }  # fmt: skip
            given |= {name: value.ctypes.data for name, value in self.free.items()}
            for side, first, numbers in (("x", low, sx), ("y", start, sy)):
                given |= {f"s{side}{p}": s[first:].ctypes.data for p, s in enumerate(numbers)}
            a = self.slots.array(given)
            self.function("forward")(a.ctypes.data)

        share_rows(part, m, threads, self.width)
        if upper:
            self.mirror(out)

    def _side(self, a: Array, w: Array | None, side: Literal["x", "y"], threads: int) -> tuple[Array, list[Array]]:
        """The rows of one side with what is computed ahead beside each number, those of y packed; and the numbers of the rows."""
        (n, d), count = a.shape, len(self.definition.recipe.beside(side))
        found = np.empty((n, d * count) if side == "x" else (-(-n // self.width), d * count, self.width), self.dtype)
        stats = [np.empty(n, self.dtype) for _ in range(self.definition.recipe.x_stats)]
        block = BLOCK if threads == 1 else 2 * BLOCK
        step = max(1, block // (max(d, 1) * self.width)) * self.width

        def part(low: int, high: int) -> None:
            for start in range(low, high, step):
                some, numbers = self._block(a[start : min(start + step, high)], w, side)
                for whole, own in zip(stats, numbers, strict=True):
                    whole[start : start + len(some)] = own
                if side == "x":
                    found[start : start + len(some)] = some
                else:
                    self.packed(some, found[start // self.width :])

        share_rows(part, n, threads, step)
        return found, stats

    def _block(self, a: Array, w: Array | None, side: Literal["x", "y"]) -> tuple[Array, list[Array]]:
        """The same of some rows, not packed."""
        x, kinds = np.ascontiguousarray(a, np.float64), self.definition.recipe.beside(side)
        numbers: list[Array] = []
        if self.pieces.prepare is not None:  # ordinary rows need no scaling before it
            (x,), stats = self.pieces.prepare(x, w)
            numbers = [s[..., 0] for s in stats]
        found = np.empty((*x.shape, len(kinds)), self.dtype)
        if "" in kinds:
            found[..., 0] = x
        for place, values in enumerate(ahead(self.definition.recipe.ahead, x, side), kinds.count("")):
            found[..., place] = values
        return found.reshape(len(x), -1), numbers
