"""Eager tensors: the tiles in a Python loop.

On the CPU everything but the tiles' own operations is NumPy's, on views: cutting, writing, adding up. A result is one
buffer, allocated once, aligned to 64 bytes and handed over by DLPack. TensorFlow has no eager write in place, so on
other devices blocks are joined at the end, which peaks at twice the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from pairx import engine
from pairx import plan as plans
from pairx.engine import Task
from pairx.plan import Tile
from pairx_backends.numpy import ALIGNED, aligned, quiet
from pairx_backends.numpy import BACKEND as NUMPY

from . import namespace as xp
from .gradient import direct
from .graph import compiled_backward

Array = Any
TILE_BYTES = 16 << 20
NOWHERE = nullcontext()


# --- NumPy and back -------------------------------------------------------------------------------------------------------


def view(t: Array) -> Any:
    """The memory of a CPU tensor as a read-only array."""
    if t.dtype == tf.bfloat16:  # no buffer protocol
        return np.asarray(tf.bitcast(t, tf.uint16)).view(t.dtype.as_numpy_dtype)
    return np.asarray(t)


def handed(a: Any) -> Array:
    """A tensor on the memory of an aligned array, which must not be written any more."""
    if a.size == 0 or a.ctypes.data % ALIGNED or not a.flags.c_contiguous:
        return tf.constant(a)
    if a.dtype.name == "bfloat16":
        return tf.bitcast(tf.experimental.dlpack.from_dlpack(a.view(np.uint16).__dlpack__()), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(a.__dlpack__())


def _on_host(task: Task) -> Task:
    """The same task on NumPy's views, for what is not the tiles' own."""
    pairs = None if task.pairs is None else tuple(view(p) for p in task.pairs)
    y = None if task.y is None else view(task.y)
    return replace(task, backend=NUMPY, x=view(task.x), y=y, pairs=pairs)


def is_host(x: Array) -> bool:
    return str(x.device).endswith("CPU:0")


# --- values ---------------------------------------------------------------------------------------------------------------


def forward(task: Task) -> Array:
    """The result, without a gradient."""
    plan = task.plan
    if plan.blocks == 0:
        return xp.zeros(plan.shape, dtype=task.dtype)
    if task.kernel is not None:
        host = replace(_on_host(task), aux=tuple(view(a) for a in task.aux))
        out = aligned(plan.shape, task.dtype.as_numpy_dtype)
        with quiet():
            engine.run(host, out)
        return handed(out)
    if not plan.axes or (plan.blocks == 1 and plan.layout != "condensed"):
        return direct(task, task.forward)
    if not is_host(task.x):
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

MANY = 48
"""From so many tiles on, tracing a loop costs less than it saves: an eager operation takes 15 to 30 us, and a tile has a
hundred of them."""


def backward(task: Task, g: Array, needed: tuple[bool, ...]) -> list[Array]:
    """Gradients of the inputs that need one, tile by tile."""
    plan = task.plan
    tiles = list(islice(plans.tiles(plan, grad=True), MANY if task.kernel is None else None))
    if (len(tiles) == MANY and task.kernel is None) or not is_host(task.x):
        return compiled_backward(task, g, needed)
    host, slope, there = _on_host(task), view(g), None if task.found is None else view(task.found)
    task = replace(task, kernel=engine.known(task, smooth=True))
    sides = [task.x] if task.y is None else [task.x, task.y]
    which = [0, 0] if task.y is None else [0, 1]
    sums = [_Sum(t, host) if need else None for t, need in zip(sides, needed, strict=False)]
    totals = [tf.zeros_like(a) for a in task.aux]
    asked = [sums[s] is not None for s in which] + list(needed[len(sides) :])

    def work(tile: Tile) -> None:
        parts = [tf.convert_to_tensor(p) for p in engine.cut(host, tile)]
        leaves = [*(p if (total := sums[s]) is None else tf.cast(p, total.dtype) for p, s in zip(parts, which, strict=True)), *task.aux]
        wanted = [leaf for leaf, ask in zip(leaves, asked, strict=True) if ask]
        if task.kernel is not None:
            shape = [b - a for a, b in tile.spans]
            found = None if there is None else engine.block(plan, tile, there, lambda spans: np.zeros(spans, there.dtype))
            grads = _in_machine_code(task, leaves, asked, _cotangent(host, tile, shape, slope), found)
            if grads is not None:
                collect(tile, grads)
                return
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wanted)
            block = task.block(*leaves)
        cotangent = tf.convert_to_tensor(_cotangent(host, tile, tuple(block.shape), slope))
        found = iter(tape.gradient(block, wanted, output_gradients=cotangent))
        collect(tile, [next(found) if ask else None for ask in asked])

    def collect(tile: Tile, grads: list[Array | None]) -> None:
        for k, grad in enumerate(grads):
            if grad is None:
                continue
            if k > 1:
                totals[k - 2] = totals[k - 2] + grad
            elif (total := sums[which[k]]) is not None:
                total.add(tile, "xy"[k], view(grad))

    with quiet():
        for tile in tiles:
            work(tile)
    found = [s.result() for s in sums if s is not None]
    return [*found, *(t for t, need in zip(totals, needed[len(sides) :], strict=True) if need)]


def _in_machine_code(task: Task, leaves: list[Array], asked: list[bool], cotangent: Any, distances: Any) -> list[Array | None] | None:
    """The gradients of a tile by the compiled engine; None if it cannot give them for this one."""
    assert task.rule is not None
    w = leaves[2] if task.rule.weighted else None
    wanted = [leaf for leaf, ask in zip(leaves, asked, strict=True) if ask]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(wanted)
        panels = [task.kernel.panels(task.backend, leaf, w) for leaf in leaves[:2]]
    sides = [[view(p) for p in side] for side in panels]
    needed = (asked[0], asked[1], w is not None and asked[2])
    found = task.kernel.pull(*sides, None if w is None else view(w), cotangent, needed, task.plan.threads, distances)
    if found is None:
        return None
    pulled = iter(tape.gradient([*panels[0], *panels[1]], wanted, output_gradients=[tf.constant(g) for side in found[:2] for g in side]))
    grads: list[Array | None] = [next(pulled) if ask else None for ask in asked]
    if needed[2] and found[2] is not None:
        own = tf.constant(found[2])
        grads[2] = own if grads[2] is None else grads[2] + own
    return grads


def _cotangent(task: Task, tile: Tile, shape: Sequence[int], g: Any) -> Any:
    """What a block is pulled back with."""
    plan = task.plan
    found = engine.block(plan, tile, g, lambda spans: np.zeros(spans, g.dtype))
    if plan.layout == "condensed":
        return found
    if tile.kind == "mirror":
        return found + engine.mirror(task, g[plans.mirrored(tile)])
    return np.where(np.eye(shape[-1], dtype=bool), np.zeros_like(found), found) if tile.kind == "diagonal" and plan.zero_self else found


class _Sum:
    """The gradient of one input, added up over the tiles in place; half precision in float32 if the budget has room."""

    def __init__(self, like: Array, host: Task) -> None:
        plan = self.plan = host.plan
        room = plan.max_bytes - (plan.scratch_bytes or 0)
        half = like.dtype in (tf.float16, tf.bfloat16)
        self.dtype = tf.float32 if half and 4 * math.prod(like.shape) <= room else like.dtype
        self.like, self.pairs = like, host.pairs
        self.total = aligned(tuple(like.shape), self.dtype.as_numpy_dtype)
        self.total[...] = 0

    def add(self, tile: Tile, side: Any, grad: Any) -> None:
        """Add the gradient of a tile's part."""
        part = plans.side(self.plan, tile, self.total.shape, side)
        if self.pairs is None:
            self.total[part] += grad
        else:
            rows = self.pairs[side == "y"][slice(*tile.spans[-1])]
            np.add.at(self.total[part], (..., rows, *(slice(None),) * self.plan.core), grad)

    def result(self) -> Array:
        """The whole."""
        if self.dtype == self.like.dtype:
            return handed(self.total)
        rounded = aligned(self.total.shape, self.like.dtype.as_numpy_dtype)
        rounded[...] = self.total
        return handed(rounded)
