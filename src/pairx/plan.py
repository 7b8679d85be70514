"""The Plan: engine, tiles, bytes and threads of one call, decided before any work; and the options that steer it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, NamedTuple

from .backend import trace_constant
from .memory import free_ram

DEFAULT_MAX_BYTES = 256 * 2**20
"""Scratch above inputs and result, where neither the call nor :func:`options` says otherwise: 256 MiB."""

Layout = Literal["matrix", "condensed", "rows", "chosen"]


# --- options ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What :func:`options` sets; None leaves the default."""

    max_bytes: int | str | None = None
    engine: str | None = None
    threads: int | None = None
    precision: str | None = None


_OPTIONS: ContextVar[Options] = ContextVar("pairx_options", default=Options())  # noqa: B039
ENGINES = ("array", "native", "compiled")


@trace_constant
def current() -> Options:
    """The options in force here."""
    return _OPTIONS.get()


@contextmanager
def options(**settings: Any) -> Iterator[None]:
    """Settings for every pairx call in a block of code; an argument of the call itself wins.

    Parameters
    ----------
    max_bytes : int or str, optional
        Scratch memory above inputs and result: bytes, ``"64MB"`` (10**6) or ``"64MiB"`` (2**20).
    engine : {"array", "native", "compiled"}, optional
        Force an engine.
    threads : int, optional
        Threads of the compiled engine and of the NumPy backend. Default: ``OMP_NUM_THREADS``, else the processors this process may use.
    precision : {"exact", "fast"}, optional
        ``"fast"`` lets a traced call take the matrix product for Euclidean distances, with its cancellation.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> with pairx.options(max_bytes="1MiB", threads=1):
    ...     pairx.cdist(np.zeros((2, 3)), np.ones((1, 3)), "cityblock")
    array([[3.],
           [3.]])
    """
    unknown = set(settings) - set(Options.__dataclass_fields__)
    if unknown:
        raise TypeError(f"options: {unknown.pop()!r} is unknown; known: {', '.join(Options.__dataclass_fields__)}.")
    new = replace(current(), **settings)
    if new.max_bytes is not None:
        parse_bytes(new.max_bytes)
    choice("engine", new.engine, (None, *ENGINES))
    choice("precision", new.precision, (None, "exact", "fast"))
    if new.threads is not None and (not isinstance(new.threads, int) or new.threads < 1):
        raise ValueError(f"threads={new.threads!r}: expected a positive int.")
    token = _OPTIONS.set(new)
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse a value outside ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected {' or '.join(repr(a) for a in allowed if a is not None)}.")


_UNITS = {"": 1, "b": 1, **{u + "b": 1000**i for i, u in enumerate("kmgt", 1)}, **{u + "ib": 1024**i for i, u in enumerate("kmgt", 1)}}


def parse_bytes(value: int | str) -> int:
    """``"64MB"`` is 64 * 10**6 bytes and ``"64MiB"`` 64 * 2**20.

    >>> parse_bytes("1.5 kB")
    1500
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", value)
        if match and match[2].lower() in _UNITS:
            value = int(float(match[1]) * _UNITS[match[2].lower()])
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"max_bytes={value!r}: expected a positive int (bytes) or a text such as '64MB' or '64MiB'.")
    return value


@trace_constant
def thread_count() -> int:
    """Threads that a call may use: the option, else OMP_NUM_THREADS, else the processors of this process."""
    chosen = current().threads
    if chosen is not None:
        return chosen
    declared = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if declared.isdigit() and int(declared) > 0:
        return int(declared)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def human(n: int | float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


# --- the plan -----------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Scratch bytes of a tile: for each pair, and for each row of either side."""

    pair: int
    row: int
    fixed: int = 0

    def of(self, tile: tuple[int, ...], layout: Layout) -> int:
        """Bytes of a tile of that shape."""
        if layout in ("matrix", "condensed"):
            m, n = tile[-2], tile[-1]
            return int(math.prod(tile[:-2])) * (m * n * self.pair + (m + n) * self.row) + self.fixed
        return int(math.prod(tile)) * (self.pair + 2 * self.row) + self.fixed


@dataclass(frozen=True)
class Plan:
    """The decision for one call. ``print`` it, or :func:`explain` a call to get it."""

    op: str
    metric: str
    backend: str
    device: str
    engine: str
    reason: str
    layout: Layout
    axes: tuple[Any, ...]
    """Sizes that the tiles walk: those of the result, and for a condensed result (..., n, n)."""
    shape: tuple[Any, ...]
    dtype: Any
    tile: tuple[int, ...]
    """Largest size of a tile along each of ``axes``; empty while sizes are unknown."""
    grad_tile: tuple[int, ...]
    """The same for the backward pass."""
    blocks: int | None
    scratch_bytes: int | None
    result_bytes: int | None
    max_bytes: int
    threads: int = 1
    symmetric: bool = False
    """One set, one triangle: the other is its mirror."""
    zero_self: bool = False
    core: int = 1
    """Trailing axes of the inputs that belong to one item: 1 for vectors, 2 for matrices."""
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        def sizes(shape: tuple[Any, ...]) -> str:
            return " x ".join(str(s) if isinstance(s, int) else "?" for s in shape) or "scalar"

        known = self.blocks is not None
        rows = [
            ("call", f"{self.op}, metric {self.metric}"),
            ("backend", f"{self.backend} on {self.device}, {self.threads} thread{'s' * (self.threads > 1)}"),
            ("engine", f"{self.engine}: {self.reason}"),
            ("result", f"{sizes(self.shape)} {self.dtype}, {human(self.result_bytes or 0) if known else 'size unknown until it runs'}"),
            ("tiles", f"{self.blocks} of at most {sizes(self.tile)}" if known else "chosen when it runs, by the same rule"),
            ("scratch", f"{human(self.scratch_bytes or 0) if known else '?'} of {human(self.max_bytes)} allowed"),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{name:<8} {text}" for name, text in rows)


def fit(axes: tuple[int, ...], cost: Cost, layout: Layout, limit: int, step: int = 8) -> tuple[int, ...]:
    """The largest tile under ``limit`` bytes: nearly square in the last two axes, then whole batches.

    A condensed result is walked in strips of whole rows, or in pieces of one row, so that each tile is one contiguous
    piece of it.
    """
    axes = tuple(max(1, a) for a in axes)
    one = [1] * len(axes)
    if layout in ("rows", "chosen"):
        tile = one
        room = max(1, (limit - cost.fixed) // max(1, cost.pair + 2 * cost.row))
        for i in reversed(range(len(axes))):
            tile[i] = min(axes[i], room)
            room //= tile[i]
        return tuple(tile)
    *batch, m, n = axes
    room = limit - cost.fixed
    if layout == "condensed":
        tn = min(n, max(1, (room - cost.row) // (cost.pair + cost.row)))
        tm = min(m, max(1, (room - tn * cost.row) // (tn * cost.pair + cost.row))) if tn == n else 1
    else:
        # m n pair + (m + n) row <= room, with m = n
        side = max(1, int((-cost.row + math.sqrt(cost.row**2 + cost.pair * max(room, 0))) / cost.pair)) if cost.pair else max(m, n)
        side = side // step * step or side
        tm = min(m, side)
        tn = min(n, max(1, (room - tm * cost.row) // (tm * cost.pair + cost.row)))
        tm = min(m, max(1, (room - tn * cost.row) // (tn * cost.pair + cost.row)))
        tm, tn = -(-m // -(-m // tm)), -(-n // -(-n // tn))  # tiles of one size: no thread waits for a late large one
    tile = [*one[:-2], tm, tn]
    if (tm, tn) == (m, n):
        each = tm * tn * cost.pair + (tm + tn) * cost.row
        left = max(1, room // max(1, each))
        for i in reversed(range(len(batch))):
            tile[i] = min(axes[i], left)
            left //= tile[i]
    return tuple(tile)


SHARED = 25_000_000
"""Pairs times features, and 16 more for the result, that are worth several threads: 0.4 ms of one, of which to wake another takes 0.05."""


def even(axes: tuple[int, ...], tile: tuple[int, ...], features: int, threads: int) -> tuple[int, ...]:
    """Fewer rows to a tile, so that each thread takes as many tiles. One tile is left alone if it is small, and many are even enough."""
    *_, m, n = axes
    *lead, tm, tn = tile
    pieces, others = -(-m // tm), math.prod([-(-a // t) for a, t in zip(axes, lead, strict=False)]) * -(-n // tn)
    if pieces * others >= 8 * threads or (pieces * others == 1 and math.prod(axes) * (features + 16) < SHARED):
        return tile
    pieces = next(k for k in range(pieces, pieces + threads) if k * others % threads == 0)
    return (*lead, -(-m // pieces), tn)


def smallest(axes: tuple[Any, ...], layout: Layout, cost: Cost, grad_cost: Cost | None) -> int:
    """Scratch bytes of the smallest tile, forward and backward."""
    one = (1,) * len(axes)
    return max(c.of(one, layout) for c in (cost, grad_cost or cost))


def allowance(max_bytes: int | str | None) -> tuple[int | str | None, int]:
    """The budget of a call as it was given, by itself or by the options, and in bytes."""
    chosen = max_bytes if max_bytes is not None else current().max_bytes
    return chosen, DEFAULT_MAX_BYTES if chosen is None else parse_bytes(chosen)


def make(
    *,
    axes: tuple[Any, ...],
    shape: tuple[Any, ...],
    layout: Layout,
    cost: Cost,
    grad_cost: Cost | None,
    itemsize: int,
    max_bytes: int | str | None,
    tile_bytes: int,
    grad_bytes: int | None = None,
    free: Callable[[], int | None] = free_ram,
    allocates: bool = True,
    threads: int = 1,
    features: int = 0,
    tiled: bool = True,
    **decided: Any,
) -> Plan:
    """Fit the tiles of one call into its budget; without ``tiled`` only the budget and the sizes are told.

    Raises
    ------
    ValueError
        If the budget is below the smallest tile; the message names the minimum.
    MemoryError
        If the result itself does not fit into the memory there is.
    """
    chosen, budget = allowance(max_bytes)
    symmetric = bool(decided.get("symmetric")) and layout == "matrix"
    unknown = not tiled or any(not isinstance(a, int) for a in (*axes, *shape))
    # Unknown sizes are met when the graph runs: plan for large ones, and the loops clamp the tile to what comes.
    guess = tuple(a if tiled and isinstance(a, int) else 1 << 20 for a in axes)
    one = (1,) * len(axes)
    least = smallest(axes, layout, cost, grad_cost)
    if math.prod(guess) and least > budget:
        raise ValueError(
            f"max_bytes={chosen!r} is below the smallest tile of this call: one pair needs {least} bytes of scratch"
            f"{' with its gradient' if grad_cost and grad_cost.of(one, layout) > budget else ''}."
        )
    if not tiled:
        return Plan(
            axes=axes, shape=shape, layout=layout, tile=(), grad_tile=(), blocks=None, scratch_bytes=None, result_bytes=None,
            max_bytes=budget, threads=threads, **decided,
        )  # fmt: skip
    result = 0 if unknown else math.prod(shape) * itemsize
    if allocates and result > (1 << 26):
        left = free()
        if left is not None and result > left:
            raise MemoryError(
                f"The result of shape {tuple(shape)} takes {result} bytes ({human(result)}), and {left} ({human(left)}) are free. "
                "Work on slices of the inputs, choose a smaller out_dtype, or let `pairx cdist -o out.npy` write it to disk."
            )
    limit = min(budget, tile_bytes)
    tile = fit(guess, cost, layout, max(limit, least)) if axes else ()
    if threads > 1 and layout == "matrix" and not symmetric and not unknown and 0 not in guess:
        tile = even(guess, tile, features, threads)
    grad_limit = limit if grad_bytes is None else min(budget, grad_bytes)
    grad_tile = fit(guess, grad_cost, layout, max(grad_limit, least)) if axes and grad_cost else tile
    if symmetric:
        side = min(max(tile[-2:]), int(math.sqrt(tile[-2] * tile[-1]))) or 1
        tile = (*tile[:-2], side, side)
        side = min(max(grad_tile[-2:]), int(math.sqrt(grad_tile[-2] * grad_tile[-1]))) or 1
        grad_tile = (*grad_tile[:-2], side, side)
    scratch = cost.of(tile, layout) if axes else cost.of((1,), "rows")
    threads = max(1, min(threads, budget // max(1, scratch)))
    if grad_cost:
        scratch = max(scratch, grad_cost.of(grad_tile, layout))
    plan = Plan(
        axes=axes, shape=shape, layout=layout, tile=tile, grad_tile=grad_tile, blocks=None, scratch_bytes=None, result_bytes=None,
        max_bytes=budget, threads=threads, **decided,
    )  # fmt: skip
    if unknown:
        return plan
    blocks = count(plan)
    threads = max(1, min(threads, blocks))
    return replace(plan, blocks=blocks, threads=threads, scratch_bytes=scratch * threads, result_bytes=result)


# --- tiles --------------------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """One piece of the work: where it starts and stops along each of the plan's axes."""

    spans: tuple[tuple[int, int], ...]
    kind: Literal["plain", "mirror", "diagonal"] = "plain"


def merged(plan: Plan) -> Plan:
    """Tiles of one thread put together, as many as would run at a time: for a kernel whose threads share a tile."""
    if plan.symmetric or plan.layout != "matrix":  # tiles that are squares, or pieces of rows
        return plan
    *lead, m, n = plan.tile
    return replace(plan, tile=(*lead, min(m * plan.threads, max(plan.axes[-2], 1)), n))


def _steps(size: int, step: int) -> list[tuple[int, int]]:
    return [(a, min(a + step, size)) for a in range(0, size, step)]


def count(plan: Plan) -> int:
    """How many tiles."""
    if 0 in plan.axes or 0 in plan.shape:
        return 0
    n = int(math.prod([-(-a // t) for a, t in zip(plan.axes, plan.tile, strict=True)]))
    if plan.symmetric and plan.layout == "matrix":
        k = -(-int(plan.axes[-1]) // plan.tile[-1])
        return n // (k * k) * (k * (k + 1) // 2)
    if plan.layout == "condensed" and plan.tile[-1] < plan.axes[-1]:
        width, size = plan.tile[-1], int(plan.axes[-1])
        lead = int(math.prod([-(-a // t) for a, t in zip(plan.axes[:-2], plan.tile, strict=False)]))
        return lead * sum(-(-(size - 1 - i) // width) for i in range(size - 1))
    return n


def tiles(plan: Plan, grad: bool = False) -> Iterator[Tile]:
    """The tiles in order; the last of each axis may be smaller."""
    size = plan.grad_tile if grad else plan.tile
    if 0 in plan.axes or 0 in plan.shape:
        return
    if plan.layout in ("rows", "chosen"):
        for spans in product(*(_steps(a, t) for a, t in zip(plan.axes, size, strict=True))):
            yield Tile(spans)
        return
    *batch, m, n = plan.axes
    for lead in product(*(_steps(a, t) for a, t in zip(batch, size, strict=False))):
        for rows in _steps(m, size[-2]):
            if plan.layout == "condensed":
                for a, b in _steps(n - rows[0] - 1, size[-1]):
                    yield Tile((*lead, rows, (rows[0] + 1 + a, rows[0] + 1 + b)))
            elif plan.symmetric:
                yield Tile((*lead, rows, rows), "diagonal")
                for a, b in _steps(n - rows[1], size[-1]):
                    yield Tile((*lead, rows, (rows[1] + a, rows[1] + b)), "mirror")
            else:
                for columns in _steps(n, size[-1]):
                    yield Tile((*lead, rows, columns))


def side(plan: Plan, tile: Tile, shape: tuple[int, ...], which: Literal["x", "y"]) -> tuple[slice, ...]:
    """The slices that cut an input of this shape for a tile; its axes of length 1 broadcast."""
    spans = tile.spans
    if plan.layout in ("matrix", "condensed"):
        spans = (*spans[:-2], spans[-2 if which == "x" else -1])
    elif plan.layout == "chosen":
        spans = spans[:-1]  # the rows themselves are gathered
    lead = shape[: len(shape) - plan.core - (plan.layout == "chosen")]
    spans = spans[len(spans) - len(lead) :]
    return tuple(slice(None) if n == 1 else slice(*s) for n, s in zip(lead, spans, strict=True))


def whole(tile: Tile) -> tuple[slice, ...]:
    """The slices of a tile in the result (not for a condensed one)."""
    return tuple(slice(*s) for s in tile.spans)


def mirrored(tile: Tile) -> tuple[slice, ...]:
    """The slices of its mirror image."""
    return tuple(slice(*s) for s in (*tile.spans[:-2], tile.spans[-1], tile.spans[-2]))


def condensed(plan: Plan, tile: Tile) -> tuple[tuple[slice, ...], list[tuple[int, int, int]]]:
    """Where a strip goes in a condensed result: its slices there, and ``(row, first column, length)`` of each piece.

    The pieces lie one after the other in that slice, since a strip holds whole rows or a part of one row.
    """
    n = plan.axes[-1]
    *lead, (i0, i1), (j0, j1) = tile.spans
    pieces = [(i - i0, max(i + 1, j0) - j0, j1 - max(i + 1, j0)) for i in range(i0, i1) if j1 > i + 1]

    start = i0 * n - i0 * (i0 + 1) // 2 + max(0, j0 - i0 - 1)  # of the pair (i0, i0 + 1), and the columns passed over
    return (*(slice(*s) for s in lead), slice(start, start + sum(p[2] for p in pieces))), pieces
