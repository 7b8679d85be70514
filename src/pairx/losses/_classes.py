"""What losses share that compare rows with one or several learnt vectors of each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block

Array = Any


def class_numbers(a: core.Arrays, labels: Any, classes: Any) -> Array:
    """(m,) class numbers; a negative one is no class, and its row takes no part."""
    xp, backend = a.xp, a.backend
    found = core.class_labels(a, labels, a.shape("x")[0], several=False)
    if backend.kind(backend, found.dtype) != "integral":
        if backend.shape(found) != (0,):
            raise TypeError(f"labels has dtype {checks.dtype_name(found.dtype)}: expected class numbers, which are integers.")
    elif isinstance(classes, int) and not backend.traced(found) and backend.shape(found) != (0,):
        top = xp.max(found)
        if not backend.traced(top) and int(top) >= classes:
            raise ValueError(f"labels reach {int(top)}, and there are {classes} classes: 0 to {classes - 1}, or negative for none.")
    return xp.astype(found, xp.int32)


def vectors_of(a: core.Arrays, name: str, several: bool) -> tuple[Any, Any]:
    """How many classes there are, and how many vectors each has; checked."""
    core.vectors(a, "x")
    shape = a.shape(name)
    if len(shape) != (3 if several else 2):
        want = "(classes, centers, features)" if several else "(classes, features)"
        raise ValueError(f"{name} has shape {checks.shown(shape)}: expected {want}.")
    checks.equal_size("x", a.shape("x"), name, shape, -1, "numbers of features")
    if 0 in [n for n in shape[:-1] if isinstance(n, int)]:
        raise ValueError(f"{name} has shape {checks.shown(shape)}: expected at least one vector for each of at least one class.")
    return shape[0], shape[1] if several else 1


@dataclass(frozen=True)
class Classes:
    """Unit rows against unit vectors of the classes."""

    a: core.Arrays
    batch: Batch
    classes: Any
    centers: Any
    own: Array
    """(m, k, d) the unit vectors of each row's class."""
    active: Array
    """(m,) rows that have a class."""

    def cosines(self) -> Array:
        """(m, k) with the vectors of the own class."""
        return self.a.xp.sum(self.a.xp.expand_dims(self.batch.x, axis=1) * self.own, axis=-1)

    def rest(self, factor: Any, merge: Any, *learnt: Any, buffers: int = 6) -> Array:
        """(m,) log sum of e^(factor s) over the other classes; ``merge(s, *learnt)`` makes one s of a class's k."""
        a, xp = self.a, self.a.xp
        k = self.centers

        def rows(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
            s, other = block.alike(), block.negative
            if not isinstance(k, int) or k != 1:
                size = a.backend.shape(s)
                s = xp.reshape(s, (size[0], self.classes, k))
                other = xp.reshape(other, (size[0], self.classes, k))[..., 0]
                s = merge(s, *whole)
            return (numeric.lse(a, s * xp.expand_dims(cut[0], axis=-1), other),)

        each = scoring.bounded(a, factor * xp.ones_like(self.own[:, 0, 0]))
        constants = [v for v in learnt if isinstance(v, float)]
        given, merge_ = tuple(v for v in learnt if not isinstance(v, float)), merge
        if constants:
            merge = lambda s, *whole: merge_(s, *constants)  # noqa: E731
        return self.batch.each(rows, cut=(each,), whole=given, buffers=buffers)[0]


def classes(a: core.Arrays, name: str, labels: Any, max_bytes: Any, several: bool = False) -> Classes:
    """The call's rows, its vectors ``a[name]`` and who belongs to which, checked."""
    xp = a.xp
    count, k = vectors_of(a, name, several)
    numbers = class_numbers(a, labels, count)
    if several:
        shape = a.shape(name)
        a.values[name] = xp.reshape(a[name], (count * k, shape[-1]))
    kinds = core.rows(a, count * k)
    batch = Batch(
        a,
        "x",
        name,
        labels=numbers,
        y_labels=kinds // k if several else kinds,
        score=scoring.Score(None, "cosine"),
        max_bytes=max_bytes,
    )
    active = numbers >= 0
    grouped = xp.reshape(batch.y, (count, k, a.backend.shape(batch.y)[-1]))
    own = xp.take(grouped, xp.where(active, numbers, xp.zeros_like(numbers)), axis=0)
    return Classes(a, batch, count, k, own, active)


def lengths(a: core.Arrays, v: Array) -> Array:
    """2-norms over the last axis, gradient 0 at 0; for vectors whose squares neither overflow nor underflow."""
    xp = a.xp
    square = xp.sum(v * v, axis=-1)
    zero = square == 0
    return xp.where(zero, xp.zeros_like(square), xp.sqrt(xp.where(zero, xp.ones_like(square), square)))


def sines(a: core.Arrays, u: Array, w: Array, c: Array) -> Array:
    """Sine of the angle of unit vectors whose cosine is ``c``: |u - w| |u + w| / 2 near the ends, where 1 - c^2 has no digits left
    and an infinite slope."""
    xp = a.xp
    inner = xp.abs(c) < 0.5
    ends = 0.5 * lengths(a, u - w) * lengths(a, u + w)
    return xp.where(inner, xp.sqrt(xp.where(inner, 1.0 - c * c, xp.ones_like(c))), ends)


def norm(a: core.Arrays, x: Array) -> Array:
    """(m,) 2-norms of any rows: nothing overflows, gradient 0 at 0."""
    from ..engine import largest

    xp = a.xp
    if isinstance(a.backend.shape(x)[-1], int) and a.backend.shape(x)[-1] == 0:
        return xp.sum(x, axis=-1)
    top = a.backend.detach(largest(xp, x))
    return lengths(a, x / top) * xp.squeeze(top, axis=-1)


def half_turn(name: str, value: Any) -> Any:
    """An angle of 0 to pi / 2, as a number."""
    found = checks.number(name, value, positive=True)
    if found > math.pi / 2:
        raise ValueError(f"{name}={value!r}: expected radians, 0 to pi/2.")
    return found
