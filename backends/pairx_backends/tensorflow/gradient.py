"""The gradient of a whole call: tiles computed again in the backward, and plain operations for what lies beyond."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from pairx import engine
from pairx.engine import Task
from pairx.plan import Tile

from . import namespace as xp

Array = Any
Forward = Callable[[Task], Array]
Backward = Callable[[Task, Array, tuple[bool, ...]], list[Array]]

EAGER = tf.__internal__.EagerTensor
KEPT = 1 << 20
"""A call of one tile with less scratch than this is left to the tape, which keeps its intermediate results."""


def traced(*arrays: Array) -> bool:
    """Whether these are symbols of a graph, or would become some."""
    return not tf.executing_eagerly() or any(not isinstance(a, EAGER) for a in arrays)


def recorded(*arrays: Array) -> bool:
    """Whether a tape watches any of these eager tensors, or a forward accumulator has a tangent of one."""
    floats = [a for a in arrays if a.dtype.is_floating or a.dtype.is_complex]
    try:
        from tensorflow.python.eager import record

        return bool(floats) and record.could_possibly_record() and (record.should_record_backprop(floats) or _tangents(floats))
    except (ImportError, AttributeError):  # no public function tells: a gradient that nobody asks for costs little
        return bool(floats)


def _tangents(arrays: list[Array]) -> bool:
    try:
        from tensorflow.python.eager import forwardprop_util

        return bool(forwardprop_util.pack_tangents(arrays).tangents)
    except (ImportError, AttributeError):
        return False


def inputs(task: Task) -> tuple[Array, ...]:
    """The tensors of a task, in the order in which :func:`given` takes them."""
    return tuple(a for a in (task.x, task.y, *task.aux) if a is not None)


def given(task: Task, tensors: Any) -> Task:
    """The same task on other tensors."""
    x, *rest = tensors
    y = rest.pop(0) if task.y is not None else None
    return replace(task, x=x, y=y, aux=tuple(rest))


def by_rows(task: Task) -> Callable[..., Array]:
    """The function of a tile of single pairs, for a task whose own is one of all pairs."""
    assert task.rule is not None
    return engine.make_block(task.backend, replace(task.rule, matrix=False))


def direct(task: Task, block: Callable[..., Array] | None = None) -> Array:
    """The whole call as one tile of ordinary operations."""
    plan, x, other = task.plan, task.x, task.x if task.y is None else task.y
    block = block or task.block
    axis = -plan.core - 1
    if plan.layout == "condensed":
        n = xp.shape(x)[axis]
        k = xp.arange(n * (n - 1) // 2, dtype=tf.int64)
        i, j = engine.pair_at(xp, k, n, None)
        return by_rows(task)(xp.take(x, i, axis=axis), xp.take(x, j, axis=axis), *task.aux)
    if task.pairs is not None:
        x, other = (xp.take(a, index, axis=axis) for a, index in zip((x, other), task.pairs, strict=True))
    result = block(x, other, *task.aux)
    if plan.symmetric:
        return engine.settle(task, Tile((), "diagonal"), result)
    static = all(isinstance(n, int) for n in plan.shape)
    return xp.broadcast_to(result, plan.shape) if static and tuple(result.shape.as_list()) != tuple(plan.shape) else result


def small(task: Task) -> bool:
    """One tile, forward and backward, that a tape may keep within the overhead that a budget allows."""
    plan = task.plan
    if not plan.axes or plan.blocks == 0:
        return True
    return plan.blocks == 1 and tuple(plan.grad_tile) == tuple(plan.axes) and (plan.scratch_bytes or 0) <= KEPT


def attach(task: Task, forward: Forward, backward: Backward) -> Array:
    """The result of ``forward``, whose gradient is ``backward``'s."""
    tensors = inputs(task)
    symbolic = traced(*tensors)
    if (small(task) and task.kernel is None) or _tangents(list(tensors)):
        return _shaped(task, direct(task))
    floats = tuple(bool(t.dtype.is_floating or t.dtype.is_complex) for t in tensors)
    needed = floats if symbolic else tuple(f and recorded(t) for f, t in zip(floats, tensors, strict=True))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def call(*tensors: Array) -> Any:
        result = forward(given(task, map(tf.stop_gradient, tensors)))
        # Of most metrics the derivative can be told from the distances, which need not be computed again.
        kept = result if not symbolic and engine.kept(task, result.dtype.size * math.prod(result.shape)) else None

        def back(g: Array) -> list[Array | None]:
            found = iter(_pull(replace(_here(task), found=kept), backward, g, _own(tensors), needed))
            return [next(found) if need else None for need in needed]

        return result, back

    return _shaped(task, call(*tensors))


def _own(tensors: tuple[Array, ...]) -> tuple[Array, ...]:
    """In a graph, tensors of this very graph: that of a derivative sees no further than the graph before it."""
    return tuple(map(tf.identity, tensors)) if traced(*tensors) else tensors


def _here(task: Task) -> Task:
    return task if task.pairs is None else replace(task, pairs=_own(task.pairs))


def _pull(task: Task, backward: Backward, g: Array, tensors: tuple[Array, ...], needed: tuple[bool, ...]) -> Any:
    """Gradients of the tensors that need one. Their own gradients go through plain operations on the whole."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def first(g: Array, *tensors: Array) -> Any:
        def second(*cotangents: Array) -> list[Array | None]:
            pulled = iter(_second(task, g, tensors, needed, list(cotangents)))
            return [next(pulled), *(next(pulled) if need else None for need in needed)]

        constant = given(task, map(tf.stop_gradient, tensors))
        return backward(constant, tf.stop_gradient(g), needed), second

    return first(g, *tensors)


def _second(task: Task, g: Array, tensors: tuple[Array, ...], needed: tuple[bool, ...], cotangents: list[Array]) -> Any:
    """From the cotangents of the gradients to those of ``g`` and the tensors."""
    if traced(g, *tensors):
        g, *tensors = _own((g, *tensors))  # type: ignore[assignment]
        wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = symbolic(direct(given(task, tensors)), wanted, g)
        return symbolic(found, [g, *wanted], cotangents)
    g, *tensors = map(tf.identity, (g, *tensors))  # type: ignore[assignment]  # x may be y: each has a gradient of its own
    wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch([g, *wanted])
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(wanted)
            value = direct(given(task, tensors))
        found = inner.gradient(value, wanted, output_gradients=g, unconnected_gradients="zero")
        found = [tf.convert_to_tensor(f) for f in found]  # what rows were gathered from has slices
    return outer.gradient(found, [g, *wanted], output_gradients=cotangents, unconnected_gradients="zero")


def symbolic(value: Any, wanted: list[Array], g: Any) -> list[Array]:
    """Gradients inside a graph. A tape would find none where a derivative is built: TensorFlow stops all tapes meanwhile."""
    return [tf.convert_to_tensor(f) for f in tf.gradients(value, wanted, grad_ys=g, unconnected_gradients="zero")]


def _shaped(task: Task, result: Array) -> Array:
    """The result with what is known of its shape."""
    result.set_shape([n if isinstance(n, int) else None for n in task.plan.shape])
    return result
