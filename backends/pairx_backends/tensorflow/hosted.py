"""The compiled engine inside a ``tf.function``, where it was asked for: eager calls, made when the graph runs.

Sizes are known then, so the plan is made there, too. It is one ``tf.py_function`` forward and one backward, both on the
processor. Python functions belong to a process: XLA does not compile them and a SavedModel does not hold them, which is
why nobody is given them unasked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from pairx import calls
from pairx import plan as plans
from pairx.backend import Backend
from pairx.engine import Rule, Task
from pairx.plan import Layout

from . import eager
from .gradient import inputs

Array = Any


def plain(rule: Rule) -> Rule:
    """The rule without a tensor of the graph: ``gamma`` is one where it is 1 / d and d is not known."""
    return replace(rule, params={k: 1.0 if tf.is_tensor(v) else v for k, v in rule.params.items()})


@dataclass(frozen=True)
class _Call:
    """A call without its tensors. TensorFlow keeps it for the life of the process, so it must not hold the graph."""

    backend: Backend
    rule: Rule
    layout: Layout
    one: bool
    """One set of rows."""
    op: str
    max_bytes: int
    threads: int
    open: tuple[str, ...]
    """Parameters that are 1 / d."""

    def task(self, tensors: Any, grad: bool) -> Task:
        """The call on eager tensors."""
        x, *aux = tensors
        y = None if self.one else aux.pop(0)
        rule, engine = self.rule, "compiled"
        d = int(x.shape[-1])
        if self.open:
            rule = replace(rule, params={k: 1.0 / max(d, 1) if k in self.open else v for k, v in rule.params.items()})
        backend = self.backend
        if grad:
            backend = replace(backend, differentiated=lambda *arrays: True)
            kernel = backend.compiler(rule, (x,), True)
            engine = engine if kernel.differentiable else "array"
        other = x if y is None else y
        axes = (*np.broadcast_shapes(tuple(x.shape[:-2]), tuple(other.shape[:-2])), int(x.shape[-2]), int(other.shape[-2]))
        return calls.assemble(
            backend, rule, self.layout, x, y, tuple(aux), axes, op=self.op, engine=engine, max_bytes=self.max_bytes, allocates=not grad
        )

    def values(self, *tensors: Array) -> Array:
        """What the forward calls."""
        with plans.options(threads=self.threads):
            return eager.forward(self.task(tensors, grad=False))

    def slopes(self, needed: tuple[bool, ...], g: Array, *tensors: Array) -> list[Array]:
        """What the backward calls."""
        with plans.options(threads=self.threads):
            return eager.backward(self.task(tensors, grad=True), g, needed)


def _call(task: Task) -> _Call:
    plan, rule = task.plan, task.rule
    assert rule is not None
    unknown = tuple(k for k, v in rule.params.items() if tf.is_tensor(v))
    return _Call(task.backend, plain(rule), plan.layout, task.y is None, plan.op, plan.max_bytes, plans.thread_count(), unknown)


def forward(task: Task) -> Array:
    """The result."""
    call = _call(task)
    with tf.device("CPU:0"):
        return tf.py_function(lambda *tensors: call.values(*tensors), inputs(task), task.dtype, name="pairx")


def backward(task: Task, g: Array, needed: tuple[bool, ...]) -> list[Array]:
    """Gradients of the inputs that need one."""
    call, tensors = _call(task), inputs(task)
    wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
    dtypes = [t.dtype for t in wanted]
    with tf.device("CPU:0"):
        found = list(tf.py_function(lambda *given: call.slopes(needed, *given), (g, *tensors), dtypes, name="pairx_slopes"))
    for grad, t in zip(found, wanted, strict=True):
        grad.set_shape(t.shape)
    return found
