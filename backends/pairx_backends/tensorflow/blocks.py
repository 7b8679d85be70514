"""Functions of blocks of rows, whose backward runs each block again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pairx.backend import Backend
from pairx.backend import _blocksum as eager_sum

from .gradient import recorded, traced

Array = Any
Arrays = tuple[Array, ...]
Function = Callable[[Arrays, Arrays], Arrays]


def blockwise(backend: Backend, function: Function, cut: Arrays, whole: Arrays, step: Any) -> Arrays:
    """See :class:`pairx.Backend`."""
    arrays, count = (*cut, *whole), len(cut)
    m = backend.shape(cut[0])[0]
    graph = traced(*arrays)
    if isinstance(m, int) and isinstance(step, int) and m <= step:
        return function(cut, whole)
    forward, backward = (_graph, _graph_back) if graph else (_eager, _eager_back)
    if not graph and not recorded(*arrays):
        return forward(function, arrays, count, step)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def call(*arrays: Array) -> Any:
        def back(*gs: Array) -> list[Array | None]:
            return _differentiable(function, arrays, count, step, gs, backward)

        return forward(function, tuple(map(tf.stop_gradient, arrays)), count, step), back

    return tuple(call(*map(tf.convert_to_tensor, arrays)))


def blocksum(backend: Backend, function: Any, cut: Arrays, whole: Arrays, step: Any, combine: Any = None) -> Arrays:
    """See :class:`pairx.Backend`."""
    arrays, count = (*cut, *whole), len(cut)
    m = backend.shape(cut[0])[0]
    graph = traced(*arrays)
    if isinstance(m, int) and isinstance(step, int) and m <= step:
        return tuple(function(cut, whole, None))
    if combine:
        arrays = tuple(map(tf.stop_gradient, arrays))

    def forward(*arrays: Array) -> Arrays:
        if graph:
            return _graph_sum(function, arrays, count, step, combine)
        return eager_sum(backend, function, arrays[:count], arrays[count:], step, combine)

    if combine or (not graph and not recorded(*arrays)):
        return forward(*arrays)

    def backward(_: Any, arrays: Arrays, count: int, step: Any, gs: Arrays) -> list[Array]:
        return (_graph_back if graph else _eager_back)(function, arrays, count, step, gs, True)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def call(*arrays: Array) -> Any:
        def back(*gs: Array) -> list[Array | None]:
            return _differentiable(lambda cut, whole: function(cut, whole, None), arrays, count, step, gs, backward)

        return forward(*map(tf.stop_gradient, arrays)), back

    return tuple(call(*map(tf.convert_to_tensor, arrays)))


def _floats(arrays: Arrays) -> list[Array]:
    return [a for a in arrays if a.dtype.is_floating]


def _differentiable(function: Function, arrays: Arrays, count: int, step: Any, gs: Arrays, backward: Any) -> list[Array | None]:
    """The gradients, whose own gradients go through plain operations on the whole."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def first(*given: Array) -> Any:
        gs, arrays = given[: len(gs_)], given[len(gs_) :]

        def second(*cotangents: Array) -> list[Array | None]:
            own = tuple(map(tf.identity, given))  # one array may stand in two places: each has a gradient of its own
            gs, arrays = own[: len(gs_)], own[len(gs_) :]
            wanted = _floats(own)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(wanted)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(_floats(arrays))
                    values = function(arrays[:count], arrays[count:])
                found = inner.gradient(list(values), _floats(arrays), output_gradients=list(gs), unconnected_gradients="zero")
            pulled = iter(outer.gradient(found, wanted, output_gradients=list(cotangents), unconnected_gradients="zero"))
            return [next(pulled) if a.dtype.is_floating else None for a in own]

        stopped = tuple(map(tf.stop_gradient, arrays))
        return tuple(backward(function, stopped, count, step, tuple(map(tf.stop_gradient, gs)))), second

    gs_ = gs
    found = iter(first(*gs, *arrays))
    return [next(found) if a.dtype.is_floating else None for a in arrays]


def _pull(function: Function, cut: Arrays, whole: Arrays, gs: Arrays) -> list[Array]:
    """Gradients of one block to its floating arrays."""
    leaves = _floats((*cut, *whole))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        values = function(cut, whole)
    return list(tape.gradient(list(values), leaves, output_gradients=list(gs), unconnected_gradients="zero"))


# --- eager --------------------------------------------------------------------------------------------------------------


def _eager(function: Function, arrays: Arrays, count: int, step: int) -> Arrays:
    cut, whole = arrays[:count], arrays[count:]
    pieces = [function(tuple(c[i : i + step] for c in cut), whole) for i in range(0, cut[0].shape[0], step)]
    return tuple(tf.concat(parts, 0) for parts in zip(*pieces, strict=True))


def _eager_back(function: Any, arrays: Arrays, count: int, step: int, gs: Arrays, summed: bool = False) -> list[Array]:
    cut, whole = arrays[:count], arrays[count:]
    first = len(_floats(cut))
    pieces: list[list[Array]] = [[] for _ in range(first)]
    totals: list[Array] | None = None
    for i in range(0, cut[0].shape[0], step):
        slopes = gs if summed else tuple(g[i : i + step] for g in gs)
        found = _pull((lambda c, w: function(c, w, None)) if summed else function, tuple(c[i : i + step] for c in cut), whole, slopes)
        for part, grad in zip(pieces, found[:first], strict=True):
            part.append(grad)
        totals = found[first:] if totals is None else [t + f for t, f in zip(totals, found[first:], strict=True)]
    return [*(tf.concat(p, 0) for p in pieces), *(totals or [])]


# --- graph: one loop, whose number of blocks may be known only when it runs ----------------------------------------------


def _loop(cut: Arrays, step: Any) -> tuple[Any, Any, Any, Any]:
    """Rows, blocks, rows of a block, and where block i starts: the last overlaps, since XLA wants blocks of one size."""
    m = cut[0].shape[0] if cut[0].shape[0] is not None else tf.shape(cut[0])[0]
    if isinstance(m, int) and isinstance(step, int):
        blocks = max(1, -(-m // step))
        size = -(-m // blocks)
        return m, blocks, size, lambda i: tf.minimum(i * size, m - size)
    step = tf.cast(step, tf.int32)
    blocks = tf.maximum((m + step - 1) // step, 1)
    size = (m + blocks - 1) // blocks
    return m, blocks, size, lambda i: tf.minimum(i * size, m - size)


def _cut(c: Array, start: Any, size: Any) -> Array:
    """Rows from ``start`` on; XLA takes a slice of a known size only as such."""
    found = tf.slice(c, tf.concat([[start], tf.zeros([len(c.shape) - 1], tf.int32)], 0), tf.concat([[size], tf.shape(c)[1:]], 0))
    found.set_shape([size if isinstance(size, int) else None, *c.shape[1:]])
    return found


def _join(room: Any, m: Any, blocks: Any, size: Any, rows: Any) -> Array:
    """Blocks to rows, without those that the last repeats."""
    stacked = room.stack()
    rest = tf.shape(stacked)[2:]
    done = (blocks - 1) * size
    head = tf.reshape(stacked[:-1], tf.concat([[done], rest], 0))
    joined = tf.concat([head, stacked[-1][size - (m - done) :]], 0)
    joined.set_shape([rows, *stacked.shape[2:]])
    return joined


def _element(size: Any, like: Array) -> list[Any]:
    return [size if isinstance(size, int) else None, *like.shape[1:]]


def _graph(function: Function, arrays: Arrays, count: int, step: Any) -> Arrays:
    cut, whole = arrays[:count], arrays[count:]
    m, blocks, size, start_of = _loop(cut, step)
    like = function(tuple(c[:1] for c in cut), whole)  # for its shapes: the graph drops what nobody reads
    rooms = [tf.TensorArray(v.dtype, size=blocks, element_shape=_element(size, v), infer_shape=False) for v in like]

    def body(i: Array, rooms: Any) -> Any:
        start = start_of(i)
        values = function(tuple(_cut(c, start, size) for c in cut), whole)
        return i + 1, [r.write(i, v) for r, v in zip(rooms, values, strict=True)]

    _, rooms = tf.while_loop(lambda i, _: i < blocks, body, (tf.constant(0), rooms), parallel_iterations=1)
    return tuple(_join(r, m, blocks, size, cut[0].shape[0]) for r in rooms)


def _graph_sum(function: Any, arrays: Arrays, count: int, step: Any, combine: Any) -> Arrays:
    cut, whole = arrays[:count], arrays[count:]
    _, blocks, size, start_of = _loop(cut, step)

    def block(i: Any) -> Arrays:
        start = start_of(i)
        return tuple(function(tuple(_cut(c, start, size) for c in cut), whole, start + tf.range(size) >= i * size))

    def body(i: Array, total: Any) -> Any:
        found = block(i)
        total = combine(tuple(total), found) if combine else [t + f for t, f in zip(total, found, strict=True)]
        return i + 1, list(total)

    first = list(block(tf.constant(0)))
    _, total = tf.while_loop(lambda i, _: i < blocks, body, (tf.constant(1), first), parallel_iterations=1)
    return tuple(total)


def _graph_back(function: Any, arrays: Arrays, count: int, step: Any, gs: Arrays, summed: bool = False) -> list[Array]:
    cut, whole = arrays[:count], arrays[count:]
    m, blocks, size, start_of = _loop(cut, step)
    floats = _floats(cut)
    rooms = [tf.TensorArray(c.dtype, size=blocks, element_shape=_element(size, c), infer_shape=False) for c in floats]
    totals = [tf.zeros_like(w) for w in _floats(whole)]

    def body(i: Array, rooms: Any, totals: Any) -> Any:
        start = start_of(i)
        mine = start + tf.range(size) >= i * size  # what the last block repeats has been pulled back already
        if summed:
            found = _pull(lambda c, w: function(c, w, mine), tuple(_cut(c, start, size) for c in cut), whole, gs)
        else:
            slopes = [_cut(g, start, size) for g in gs]
            slopes = [tf.where(tf.reshape(mine, [-1] + [1] * (len(g.shape) - 1)), g, tf.zeros_like(g)) for g in slopes]
            found = _pull(function, tuple(_cut(c, start, size) for c in cut), whole, tuple(slopes))
        first = [r.write(i, f) for r, f in zip(rooms, found[: len(floats)], strict=True)]
        return i + 1, first, [tf.ensure_shape(t + f, t.shape) for t, f in zip(totals, found[len(floats) :], strict=True)]

    _, rooms, totals = tf.while_loop(lambda i, *_: i < blocks, body, (tf.constant(0), rooms, totals), parallel_iterations=1)
    return [*(_join(r, m, blocks, size, c.shape[0]) for r, c in zip(rooms, floats, strict=True)), *totals]
