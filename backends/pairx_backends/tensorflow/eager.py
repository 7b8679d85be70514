"""Eager tensors: the tiles in a Python loop.

On the CPU everything but the tiles' own operations is NumPy's, on views: cutting, writing, adding up. A result is one
buffer, allocated once, aligned to 64 bytes and handed over by DLPack. TensorFlow has no eager write in place, so on
other devices blocks are joined at the end, which peaks at twice the result.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from pairx import engine
from pairx import plan as plans
from pairx.engine import Task
from pairx.plan import Tile
from pairx_backends.numpy import BACKEND as NUMPY
from pairx_backends.numpy import quiet

from . import namespace as xp

Array = Any
TILE_BYTES = 4 << 20
NOWHERE = nullcontext()
_ALIGNED = 64  # TensorFlow aborts the process when it meets foreign data that are not


# --- NumPy and back -------------------------------------------------------------------------------------------------------


def view(t: Array) -> Any:
    """The memory of a CPU tensor as a read-only array."""
    if t.dtype == tf.bfloat16:  # no buffer protocol
        return np.asarray(tf.bitcast(t, tf.uint16)).view(t.dtype.as_numpy_dtype)
    return np.asarray(t)


def aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array that :func:`handed` can hand over."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


def handed(a: Any) -> Array:
    """A tensor on the memory of an aligned array, which must not be written any more."""
    if a.size == 0 or a.ctypes.data % _ALIGNED or not a.flags.c_contiguous:
        return tf.constant(a)
    if a.dtype.name == "bfloat16":
        return tf.bitcast(tf.experimental.dlpack.from_dlpack(a.view(np.uint16).__dlpack__()), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(a.__dlpack__())


def _on_host(task: Task) -> Task:
    """The same task on NumPy's views, for what is not the tiles' own."""
    pairs = None if task.pairs is None else tuple(view(p) for p in task.pairs)
    y = None if task.y is None else view(task.y)
    return replace(task, backend=NUMPY, x=view(task.x), y=y, pairs=pairs)


def _is_host(x: Array) -> bool:
    return str(x.device).endswith("CPU:0")


# --- values ---------------------------------------------------------------------------------------------------------------


def forward(task: Task) -> Array:
    """The result, without a gradient."""
    plan = task.plan
    if plan.blocks == 0:
        return xp.zeros(plan.shape, dtype=task.dtype)
    if not plan.axes or (plan.blocks == 1 and plan.layout != "condensed"):
        from .gradient import direct

        return direct(task, task.forward)
    if not _is_host(task.x):
        return _joined(task)
    host, out = _on_host(task), aligned(plan.shape, task.dtype.as_numpy_dtype)

    def work(tile: Tile) -> None:
        x, y = engine.cut(host, tile)
        block = task.forward(tf.convert_to_tensor(x), tf.convert_to_tensor(y), *task.aux)
        engine.store(host, tile, view(block), out)

    with quiet():
        for tile in plans.tiles(plan):
            work(tile)
    return handed(out)


def _joined(task: Task) -> Array:
    """The result on another device: the blocks, joined axis by axis."""
    plan = task.plan
    blocks = {}
    for tile in plans.tiles(plan):
        block = task.forward(*engine.cut(task, tile), *task.aux)
        if plan.layout == "condensed":
            place, pieces = plans.condensed(plan, tile)
            strips = [block[..., row, column : column + length] for row, column, length in pieces]
            blocks[(*tile.spans[:-2], (place[-1].start, place[-1].stop))] = tf.concat(strips, -1)
            continue
        block = engine.settle(task, tile, block)
        blocks[tile.spans] = block
        if tile.kind == "mirror":
            blocks[(*tile.spans[:-2], tile.spans[-1], tile.spans[-2])] = engine.mirror(task, block)

    for axis in reversed(range(len(plan.shape))):
        lines: dict[Any, list[Any]] = {}
        for spans in sorted(blocks):
            lines.setdefault(spans[:axis], []).append(blocks[spans])
        blocks = {spans: tf.concat(line, axis) if len(line) > 1 else line[0] for spans, line in lines.items()}
    return blocks[()]


# --- gradients ------------------------------------------------------------------------------------------------------------


def backward(task: Task, g: Array, needed: tuple[bool, ...]) -> list[Array]:
    """Gradients of the inputs that need one, tile by tile."""
    plan = task.plan
    host = _on_host(task) if _is_host(task.x) else None
    sides = [task.x] if task.y is None else [task.x, task.y]
    which = [0, 0] if task.y is None else [0, 1]
    sums: list[Any] = [_Sum(t, task, host) if need else None for t, need in zip(sides, needed, strict=False)]
    totals = [tf.zeros_like(a) for a in task.aux]
    slope = view(g) if host else g

    def work(tile: Tile) -> None:
        parts = [tf.convert_to_tensor(p) for p in engine.cut(host or task, tile)]
        parts = [p if sums[s] is None else tf.cast(p, sums[s].dtype) for p, s in zip(parts, which, strict=True)]
        leaves = [*parts, *task.aux]
        asked = [sums[s] is not None for s in which] + list(needed[len(sides) :])
        wanted = [leaf for leaf, ask in zip(leaves, asked, strict=True) if ask]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wanted)
            block = task.block(*leaves)
        cotangent = tf.convert_to_tensor(_cotangent(host or task, tile, tuple(block.shape), slope))
        found = iter(tape.gradient(block, wanted, output_gradients=cotangent))
        for k, ask in enumerate(asked):
            grad = next(found) if ask else None
            if grad is None:
                continue
            if k < 2:
                sums[which[k]].add(task, tile, "xy"[k], grad)
            else:
                totals[k - 2] = totals[k - 2] + grad

    with quiet():
        for tile in plans.tiles(plan, grad=True):
            work(tile)
    found = [s.result() for s in sums if s is not None]
    return [*found, *(t for t, need in zip(totals, needed[len(sides) :], strict=True) if need)]


def _cotangent(task: Task, tile: Tile, shape: tuple[int, ...], g: Any) -> Any:
    """What a block is pulled back with: the reverse of :func:`pairx.engine.store`. ``task`` and ``g`` are of one library."""
    plan, lib = task.plan, task.backend.xp
    if plan.layout == "condensed":
        place, pieces = plans.condensed(plan, tile)
        strip = g[place]
        # Each row of the block as a piece of the strip between zeros.
        rows = []
        for row, (at, length, column) in enumerate(_at(pieces, shape[-2])):
            del row
            zeros = [lib.zeros((*shape[:-2], size), dtype=g.dtype) for size in (column, shape[-1] - column - length)]
            rows.append(lib.concat([zeros[0], strip[..., at : at + length], zeros[1]], axis=-1))
        return lib.stack(rows, axis=-2)
    found = g[plans.whole(tile)]
    if tile.kind == "mirror":
        found = found + engine.mirror(task, g[plans.mirrored(tile)])
    elif tile.kind == "diagonal" and plan.zero_self:
        n = shape[-1]
        found = lib.where(lib.eye(n, dtype=lib.bool), lib.zeros_like(found), found)
    return found


def _at(pieces: list[tuple[int, int, int]], rows: int) -> list[tuple[int, int, int]]:
    """For each row of a block where its piece of the strip begins, how long it is, and at which column it goes."""
    found, at = [(0, 0, 0)] * rows, 0
    for row, column, length in pieces:
        found[row] = (at, length, column)
        at += length
    return found


class _Sum:
    """The gradient of one input, added up over the tiles: in place on the CPU."""

    def __init__(self, like: Array, task: Task, host: Task | None) -> None:
        half = like.dtype in (tf.float16, tf.bfloat16)
        room = task.plan.max_bytes - (task.plan.scratch_bytes or 0)
        self.like = like
        self.dtype = tf.float32 if half and 4 * math.prod(like.shape) <= room else like.dtype
        self.shape = tuple(like.shape)
        self.pairs = (host or task).pairs
        self.host = host is not None
        if self.host:
            self.total = aligned(self.shape, self.dtype.as_numpy_dtype)
            self.total[...] = 0
        else:
            self.total = tf.zeros(self.shape, self.dtype)

    def add(self, task: Task, tile: Tile, side: Any, grad: Array) -> None:
        """Add the gradient of a tile's part."""
        plan = task.plan
        part = plans.side(plan, tile, self.shape, side)
        rows = None if self.pairs is None else self.pairs[side == "y"][slice(*tile.spans[-1])]
        if self.host:
            if rows is None:
                self.total[part] += view(grad)
            else:
                np.add.at(self.total[part], (..., view(rows), *(slice(None),) * plan.core), view(grad))
            return
        lead = self.shape[: len(self.shape) - plan.core]
        spans = [range(*p.indices(n)) for p, n in zip(part, lead, strict=False)]
        grid = np.arange(math.prod(lead)).reshape(lead)[np.ix_(*spans)] if spans else np.arange(math.prod(lead)).reshape(lead)
        index = tf.constant(grid) if rows is None else tf.gather(tf.constant(grid), rows, axis=-1)
        core = self.shape[len(lead) :]
        flat = tf.reshape(self.total, (-1, *core))
        added = tf.tensor_scatter_nd_add(flat, tf.reshape(index, (-1, 1)), tf.reshape(grad, (-1, *core)))
        self.total = tf.reshape(added, self.shape)

    def result(self) -> Array:
        """The whole."""
        if not self.host:
            return tf.cast(self.total, self.like.dtype)
        if self.dtype == self.like.dtype:
            return handed(self.total)
        rounded = aligned(self.shape, self.like.dtype.as_numpy_dtype)
        rounded[...] = self.total
        return handed(rounded)
