"""Inside a ``tf.function`` and under XLA: one ``tf.while_loop`` over tiles of one size.

Sizes may be known only when it runs, so the tile is fitted to them by operations. XLA wants tiles of one size: the last one of
each axis overlaps the one before. The loop carries the result (or the gradients) and writes it in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import tensorflow as tf

from pairx import calls, engine
from pairx import plan as plans
from pairx.engine import Task
from pairx.plan import Tile

from . import namespace as xp
from .gradient import by_rows, given, inputs, symbolic
from .namespace.core import broadcast_dims

Array = Any
Size = Any
"""An int, or a 0-d tensor where only the run knows."""
INDEX = tf.int64
raw = tf.raw_ops


# --- sizes ----------------------------------------------------------------------------------------------------------------


def _least(a: Size, b: Size) -> Size:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tf.minimum(tf.cast(a, INDEX), tf.cast(b, INDEX))


def _most(a: Size, b: Size) -> Size:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tf.maximum(tf.cast(a, INDEX), tf.cast(b, INDEX))


def _product(sizes: Any) -> Size:
    found: Size = 1
    for n in sizes:
        found = found * n
    return found


def _packed(sizes: Any) -> Array:
    return tf.stack([tf.cast(n, INDEX) for n in sizes]) if len(sizes) else tf.zeros((0,), INDEX)


def _static(*sizes: Size) -> list[int | None]:
    return [n if isinstance(n, int) else None for n in sizes]


@dataclass(frozen=True)
class _Grid:
    """The tiles of one pass over a task."""

    task: Task
    block: Callable[..., Array]
    axes: tuple[Size, ...]
    tile: tuple[Size, ...]
    counts: tuple[Size, ...]
    gathers: bool
    """Rows are gathered by their numbers: chosen pairs, and the pairs of a condensed result."""
    folded: bool
    """Only tiles on and above the diagonal."""
    xla: bool

    @property
    def total(self) -> Size:
        """How many tiles."""
        *batch, k = self.counts[:-1] if self.folded else self.counts
        return _product(batch) * (k * (k + 1) // 2 if self.folded else k)


def _grid(task: Task, grad: bool) -> _Grid:
    plan = task.plan
    core = plan.core
    sx = xp.shape(task.x)
    sy = sx if task.y is None else xp.shape(task.y)
    gathers = plan.layout in ("chosen", "condensed")
    tile = plan.grad_tile if grad else plan.tile
    if plan.layout == "matrix":
        axes = (*broadcast_dims(sx[: -core - 1], sy[: -core - 1]), sx[-core - 1], sy[-core - 1])
    elif plan.layout == "rows":
        axes = broadcast_dims(sx[:-core], sy[:-core])
    elif plan.layout == "chosen":
        assert task.pairs is not None
        axes = (*broadcast_dims(sx[: -core - 1], sy[: -core - 1]), xp.shape(task.pairs[0])[0])
    else:
        n = sx[-core - 1]
        axes = (*sx[: -core - 1], n * (n - 1) // 2)
        tile = _positions(task, axes, grad)
    block = by_rows(task) if plan.layout == "condensed" else task.block
    fitted = _fitted(axes, tile, plan.layout == "matrix", _product(sx[-core:]))
    counts = tuple((n + _most(t, 1) - 1) // _most(t, 1) for n, t in zip(axes, fitted, strict=True))
    return _Grid(task, block, axes, fitted, counts, gathers, plan.symmetric, under_xla())


def _positions(task: Task, axes: tuple[Size, ...], grad: bool) -> tuple[int, ...]:
    """The tile of a condensed result: so many positions, and batches."""
    plan, rule = task.plan, task.rule
    assert rule is not None
    cost, grad_cost = calls.costs(rule, "array", plan.axes, xp.shape(task.x)[-1], int(rule.compute.size), True)
    assert grad_cost is not None
    chosen = grad_cost if grad else cost
    chosen = chosen._replace(pair=chosen.pair + 32)  # the numbers of its two rows
    guess = tuple(n if isinstance(n, int) else 1 << 40 for n in axes)
    limit = min(plan.max_bytes, task.backend.tile_bytes)
    return plans.fit(guess, chosen, "chosen", limit)


def _fitted(axes: tuple[Size, ...], tile: tuple[int, ...], matrix: bool, features: Size) -> tuple[Size, ...]:
    """A tile that was planned for unknown sizes, fitted to the real ones: where these are smaller, it takes whole batches.

    Unknown features were planned as 1024; bytes are nearly in proportion to them.
    """
    last = 2 if matrix else 1
    ratio: Any = None if isinstance(features, int) else 1024 / (tf.cast(features, tf.float64) + 8)

    def scaled(size: int, by: Any) -> Size:
        return size if by is None else _most(tf.cast(tf.cast(size, tf.float64) * by, INDEX), 1)

    if not matrix:
        room: Size = scaled(math.prod(tile), ratio)
        ends: list[Size] = [_least(room, axes[-1])]
        room = room // _most(ends[0], 1)
    else:
        tm, tn = (scaled(t, None if ratio is None else tf.sqrt(ratio)) for t in tile[-2:])
        whole = math.prod(tile[:-2])
        m, n = ends = [_least(tm, axes[-2]), _least(tn, axes[-1])]
        room = _least(whole * tm * tn // _most(m * n, 1), whole * (tm + tn) // _most(m + n, 1))
    for size in reversed(axes[:-last]):
        ends.insert(0, _least(_most(room, 1), size))
        room = room // _most(ends[0], 1)
    return tuple(ends)


def under_xla() -> bool:
    """Whether ``jit_compile=True`` is tracing."""
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

        return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))
    except (ImportError, AttributeError):
        return False


# --- reading and writing --------------------------------------------------------------------------------------------------


def _read(a: Array, starts: Any, sizes: Any) -> Array:
    """A box of an array; trailing axes that are not given stay whole."""
    shape = xp.shape(a)
    starts, sizes = (*starts, *(0,) * (len(shape) - len(starts))), (*sizes, *shape[len(sizes) :])
    if all(isinstance(n, int) and isinstance(size, int) and n == size for n, size in zip(shape, sizes, strict=True)):
        return a
    found = tf.slice(a, _packed(starts), _packed(sizes))
    found.set_shape(_static(*sizes))
    return found


def _write(out: Array, starts: Any, block: Array, xla: bool) -> Array:
    """``out`` with a box written, in place inside a loop."""
    rank = out.shape.rank
    begin = _packed((*starts, *(0,) * (rank - len(starts))))
    if xla:  # the other one needs constants there
        from tensorflow.compiler.tf2xla.python import xla as ops

        found = ops.dynamic_update_slice(out, block, begin)
    else:
        end = begin + tf.shape(block, out_type=INDEX)
        found = raw.TensorStridedSliceUpdate(input=out, begin=begin, end=end, strides=tf.ones_like(begin), value=block)
    found.set_shape(out.shape)
    return found


def _box(a: Array, core: int, starts: Any, sizes: Any) -> tuple[list[Any], list[Any]]:
    """Where a tile lies in an input: its axes of length 1, and those it has not, broadcast."""
    lead = xp.shape(a)[: a.shape.rank - core]
    starts, sizes = starts[len(starts) - len(lead) :], sizes[len(sizes) - len(lead) :]
    sizes = [_least(n, t) for n, t in zip(lead, sizes, strict=True)]
    return [_least(s, n - t) for n, t, s in zip(lead, sizes, starts, strict=True)], sizes


# --- one tile -------------------------------------------------------------------------------------------------------------


def _loop(grid: _Grid, step: Callable[..., tuple[Array, ...]], carried: tuple[Array, ...]) -> tuple[Array, ...]:
    """``carried = step(places, *carried)`` for each tile; of a folded grid, the diagonal comes last in the last column."""
    if isinstance(grid.total, int) and grid.total == 1:
        return step((0,) * len(grid.counts), *carried)
    zero = tf.constant(0, INDEX)
    if not grid.folded:

        def body(k: Array, *carried: Array) -> Any:
            return (k + 1, *step(_places(k, grid.counts), *carried))

        return tuple(tf.while_loop(lambda k, *_: k < grid.total, body, (zero, *carried), parallel_iterations=1)[1:])
    last = tf.cast(grid.counts[-1], INDEX)

    def fold(k: Array, row: Array, column: Array, *carried: Array) -> Any:
        batch = k // (last * (last + 1) // 2)
        carried = step((*_places(batch, grid.counts[:-2]), row, column), *carried)
        end = column + 1 == last
        following = tf.where(row + 1 == last, zero, row + 1)
        return (k + 1, tf.where(end, following, row), tf.where(end, following, column + 1), *carried)

    loop = tf.while_loop(lambda k, *_: k < grid.total, fold, (zero, zero, zero, *carried), parallel_iterations=1)
    return tuple(loop[3:])


def _places(k: Array, counts: tuple[Size, ...]) -> tuple[Size, ...]:
    found: list[Size] = []
    for count in reversed(counts):
        one = isinstance(count, int) and count == 1
        found.append(0 if one else k % count)
        k = k if one else k // count
    return tuple(reversed(found))


def _starts(grid: _Grid, places: Any) -> tuple[Size, ...]:
    return tuple(_least(p * t, n - t) for p, t, n in zip(places, grid.tile, grid.axes, strict=True))


def _numbers(grid: _Grid, starts: Any) -> tuple[Array, Array]:
    """The rows i and j of a tile of chosen pairs, or of positions in a condensed result."""
    task = grid.task
    if task.pairs is not None:
        i, j = (tf.cast(_read(p, starts[-1:], grid.tile[-1:]), INDEX) for p in task.pairs)
        return i, j
    k = xp.arange(grid.tile[-1], dtype=INDEX) + tf.cast(starts[-1], INDEX)
    k.set_shape(_static(grid.tile[-1]))
    n = tf.cast(xp.shape(task.x)[-task.plan.core - 1], INDEX)
    return engine.pair_at(xp, k, n, None)


def _cut(grid: _Grid, starts: Any, numbers: tuple[Array, Array] | None) -> tuple[Array, Array]:
    task, core = grid.task, grid.task.plan.core
    sides = (task.x, task.x if task.y is None else task.y)
    if numbers is not None:
        batch = starts[:-1], grid.tile[:-1]
        parts = (_read(a, *_box(a, core + 1, *batch)) for a in sides)
        x, y = (raw.GatherV2(params=p, indices=i, axis=p.shape.rank - core - 1) for p, i in zip(parts, numbers, strict=True))
        return x, y
    if task.plan.layout == "rows":
        x, y = (_read(a, *_box(a, core, starts, grid.tile)) for a in sides)
        return x, y
    x = _read(sides[0], *_box(sides[0], core, (*starts[:-2], starts[-2]), (*grid.tile[:-2], grid.tile[-2])))
    y = _read(sides[1], *_box(sides[1], core, (*starts[:-2], starts[-1]), (*grid.tile[:-2], grid.tile[-1])))
    return x, y


def _valid(grid: _Grid, numbers: tuple[Array, Array] | None, block: Array) -> Array:
    """NaN for a chosen pair out of range: the CPU raises by itself, but XLA would take a neighbour's row."""
    if numbers is None or grid.task.pairs is None:
        return block
    axis = -grid.task.plan.core - 1
    (i, j), x = numbers, grid.task.x
    y = x if grid.task.y is None else grid.task.y
    m, n = (tf.cast(xp.shape(a)[axis], INDEX) for a in (x, y))
    return xp.where((i >= 0) & (i < m) & (j >= 0) & (j < n), block, math.nan)


# --- values ---------------------------------------------------------------------------------------------------------------


def forward(task: Task) -> Array:
    """The result."""
    grid = _grid(task, grad=False)

    def step(places: Any, out: Array) -> tuple[Array]:
        starts = _starts(grid, places)
        numbers = _numbers(grid, starts) if grid.gathers else None
        block = _valid(grid, numbers, grid.block(*_cut(grid, starts, numbers), *task.aux))
        block.set_shape(_static(*grid.tile))
        if not grid.folded:
            return (_write(out, starts, block, grid.xla),)
        # The last tile of an axis overlaps the one before: its tile on the diagonal comes last and mends its mirror image.
        same = tf.equal(places[-2], places[-1])
        block = tf.where(same, engine.settle(task, Tile((), "diagonal"), block), block)
        out = _write(out, starts, block, grid.xla)
        return (_write(out, (*starts[:-2], starts[-1], starts[-2]), engine.mirror(task, block), grid.xla),)

    if isinstance(grid.total, int) and grid.total == 1:
        starts = (0,) * len(grid.axes)
        numbers = _numbers(grid, starts) if grid.gathers else None
        block = _valid(grid, numbers, grid.block(*_cut(grid, starts, numbers), *task.aux))
        return engine.settle(task, Tile((), "diagonal"), block) if grid.folded else block
    return _loop(grid, step, (xp.zeros(grid.axes, dtype=task.dtype),))[0]


# --- gradients ------------------------------------------------------------------------------------------------------------


def backward(task: Task, g: Array, needed: tuple[bool, ...]) -> list[Array]:
    """Gradients of the inputs that need one."""
    grid = _grid(task, grad=True)
    sides = (task.x,) if task.y is None else (task.x, task.y)
    which = (0, 0) if task.y is None else (0, 1)
    tensors = (*sides, *task.aux)
    wide = [tf.float32 if t.dtype in (tf.float16, tf.bfloat16) else t.dtype for t in tensors]
    carried = [tf.zeros(tf.shape(t), d) if need else None for t, d, need in zip(tensors, wide, needed, strict=True)]
    if grid.gathers and not grid.xla:  # memory of their own, which no constant shares: it is written in place
        carried = [None if c is None else raw.DeepCopy(x=c) for c in carried]
    asked = [needed[s] for s in which] + list(needed[len(sides) :])
    place = [*which, *range(len(sides), len(tensors))]

    def step(places: Any, *sums: Array) -> tuple[Array, ...]:
        left = iter(sums)
        totals = [next(left) if need else None for need in needed]
        starts = _starts(grid, places)
        numbers = _numbers(grid, starts) if grid.gathers else None
        leaves = [*_cut(grid, starts, numbers), *task.aux]
        # Each its own tensor of the loop's graph, x and y apart even if they are one.
        leaves = [tf.identity(tf.cast(leaf, wide[p]) if ask else leaf) for leaf, ask, p in zip(leaves, asked, place, strict=True)]
        wanted = [leaf for leaf, ask in zip(leaves, asked, strict=True) if ask]
        found = iter(symbolic(grid.block(*leaves), wanted, _cotangent(grid, places, starts, g)))
        for k, ask in enumerate(asked):
            if not ask:
                continue
            grad, at = next(found), place[k]
            totals[at] = totals[at] + grad if k > 1 else _add(grid, totals[at], grad, starts, k, numbers)
        return tuple(t for t in totals if t is not None)

    found = iter(_loop(grid, step, tuple(c for c in carried if c is not None)))
    return [tf.cast(next(found), t.dtype) for t, need in zip(tensors, needed, strict=True) if need]


@dataclass(frozen=True)
class _Pass:
    """What a compiled backward depends on beside its tensors."""

    key: Hashable
    needed: tuple[bool, ...]
    specs: tuple[Any, ...]
    task: Task = field(compare=False)
    """Without its tensors."""


@lru_cache(maxsize=64)
def _compiled(kept: _Pass) -> Any:
    n = len(kept.needed)

    def call(g: Array, *tensors: Array) -> list[Array]:
        pairs = (tensors[n], tensors[n + 1]) if len(tensors) > n else None
        return backward(replace(given(kept.task, tensors[:n]), pairs=pairs), g, kept.needed)

    return tf.function(call, autograph=False).get_concrete_function(*kept.specs)


def compiled_backward(task: Task, g: Array, needed: tuple[bool, ...]) -> list[Array]:
    """The same for eager tensors: traced once for each kind of call, then many times faster than operation by operation."""
    rule = task.rule
    key: Hashable = task.key
    if rule is not None:
        bare: Any = replace(rule, metric=None, params=None)  # type: ignore[arg-type]
        key = (rule.metric.kind, rule.metric.name, rule.metric.define, tuple(sorted(rule.params.items())), bare)
    without = replace(task, x=None, y=None if task.y is None else True, aux=(), out=None, pairs=None)
    tensors = (g, *inputs(task), *(task.pairs or ()))
    specs = tuple(tf.TensorSpec(t.shape, t.dtype) for t in tensors)
    return list(_compiled(_Pass((key, task.plan, task.dtype), needed, specs, without))(*tensors))


def _cotangent(grid: _Grid, places: Any, starts: Any, g: Array) -> Array:
    """What a block is pulled back with: zero where an earlier tile of its axis has been."""
    plan = grid.task.plan
    found = _read(g, starts, grid.tile)
    own = None
    rank = len(grid.axes)
    for axis, (p, t, start) in enumerate(zip(places, grid.tile, starts, strict=True)):
        if isinstance(p, int) and p == 0:
            continue
        mine = tf.reshape(tf.range(tf.cast(t, INDEX), dtype=INDEX) + start >= p * t, (-1, *(1,) * (rank - 1 - axis)))
        own = mine if own is None else own & mine
    if grid.folded:
        same = tf.equal(places[-2], places[-1])
        mirrored = engine.mirror(grid.task, _read(g, (*starts[:-2], starts[-1], starts[-2]), grid.tile))
        found = tf.where(same, found, found + mirrored)
        if plan.zero_self:
            index = tf.range(tf.cast(grid.tile[-1], INDEX), dtype=INDEX)
            diagonal = same & (tf.expand_dims(index, 1) == tf.expand_dims(index, 0))
            found = tf.where(diagonal, tf.zeros_like(found), found)
    return found if own is None else tf.where(own, found, tf.zeros_like(found))


def _add(grid: _Grid, total: Array, grad: Array, starts: Any, side: int, numbers: tuple[Array, Array] | None) -> Array:
    """Add the gradient of a tile's part where it belongs."""
    core = grid.task.plan.core
    if numbers is None:
        own = starts if grid.task.plan.layout == "rows" else (*starts[:-2], starts[-2 + side])
        size = grid.tile if grid.task.plan.layout == "rows" else (*grid.tile[:-2], grid.tile[-2 + side])
        begin, sizes = _box(total, core, own, size)
        return _write(total, begin, _read(total, begin, sizes) + grad, grid.xla)
    begin, sizes = _box(total, core + 1, starts[:-1], grid.tile[:-1])
    *lead, m = xp.shape(total)[: total.shape.rank - core]
    rows, step = numbers[side], tf.cast(m, INDEX)
    for axis in reversed(range(len(lead))):  # the place of each gathered row among all rows of all batches
        at = (tf.range(tf.cast(sizes[axis], INDEX), dtype=INDEX) + begin[axis]) * step
        rows = rows + tf.reshape(at, (-1, *(1,) * (len(lead) - axis)))
        step = step * tf.cast(lead[axis], INDEX)
    inner = xp.shape(total)[total.shape.rank - core :]
    flat = xp.reshape(total, (_product((*lead, m)), *inner))
    values = xp.reshape(grad, (tf.size(rows, out_type=INDEX), *inner))
    if grid.xla:
        flat = tf.tensor_scatter_nd_add(flat, tf.reshape(rows, (-1, 1)), values)
    else:  # the other one copies the whole each time
        flat = raw.InplaceAdd(x=flat, i=tf.cast(tf.reshape(rows, (-1,)), tf.int32), v=values)
    found = xp.reshape(flat, xp.shape(total))
    found.set_shape(total.shape)
    return found
