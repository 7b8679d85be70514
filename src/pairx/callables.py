"""Metrics that are functions of the caller: called once for each pair, as in SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

from . import checks
from .backend import Backend
from .calls import Call, asked

Array = Any
Function = Callable[..., Any]


def _arguments(backend: Backend, call: Call, x: Array, y: Array | None) -> tuple[dict[str, Any], Any]:
    """What the function is given beside two rows, and the dtype of the result."""
    for name, value, default in (
        ("engine", call.engine, None),
        ("precision", call.precision, None),
        ("zero", call.zero, "finite"),
        ("nan_policy", call.nan_policy, "propagate"),
    ):
        if value != default:
            raise ValueError(f"{name}={value!r}: a callable metric decides for itself; leave {name} away.")
    if asked():
        raise TypeError("explain: a callable metric is called pair by pair and has no plan.")
    checks.same_device(backend, x=x, y=y)
    _, answer = checks.dtypes(backend, None, call.out_dtype, x=x, y=y)
    return {**call.params, **({} if call.w is None else {"w": call.w})}, answer


def _is_dispatcher(function: Function) -> bool:
    """Whether Numba has compiled it: then it is called from a compiled loop."""
    return type(function).__module__.partition(".")[0] == "numba"


def _whole(
    backend: Backend,
    call: Call,
    x: Any,
    y: Any,
    function: Function,
    lead: tuple[int, ...],
    shape: tuple[int, ...],
    answer: Any,
    like: Array,
) -> Array:
    import numpy as np

    from pairx_backends.compiled import dispatchers

    found = np.empty(shape)
    for batch in np.ndindex(*lead):
        u, v = x[_own(batch, x.shape[:-2])], y[_own(batch, y.shape[:-2])]
        square = np.empty((len(u), len(v)))
        dispatchers.fill(function, u, v, square, above=len(shape) == len(lead) + 1)
        found[batch] = square if len(shape) > len(lead) + 1 else square[np.triu_indices(len(u), 1)]
    result = backend.xp.astype(backend.guest(found), answer)
    if call.out is None:
        return result
    out = checks.output(backend, call.out, shape, answer, x=like)
    out[...] = result
    return out


def _collect(backend: Backend, call: Call, values: list[Any], shape: tuple[int, ...], like: Array, answer: Any) -> Array:
    xp = backend.xp
    if not values:
        result = xp.zeros(shape, dtype=answer, device=backend.device(like))
    else:
        scalars = [backend.asarray(v, like, answer) for v in values]
        if any(math.prod(backend.shape(s)) != 1 for s in scalars):
            raise ValueError("metric: the function must return one number for two rows.")
        result = xp.reshape(xp.stack([xp.reshape(s, ()) for s in scalars]), shape)
    if call.out is None:
        return result
    out = checks.output(backend, call.out, shape, answer, x=like)
    out[...] = result
    return out


def _known(name: str, shape: tuple[Any, ...]) -> None:
    if not all(isinstance(s, int) for s in shape):
        raise ValueError(f"{name} has shape {checks.shown(shape)}: a callable metric needs known sizes.")


def matrix(backend: Backend, call: Call, x: Array, y: Array | None, function: Function, layout: str) -> Array:
    """cdist or pdist with a function of two rows."""
    params, answer = _arguments(backend, call, x, y)
    other = x if y is None else y
    sx, sy = backend.shape(x), backend.shape(other)
    _known("x", sx)
    _known("y", sy)
    lead = checks.broadcast(sx[:-2], sy[:-2])
    m, n = sx[-2], sy[-2]
    shape = (*lead, n * (n - 1) // 2) if layout == "condensed" else (*lead, m, n)
    if _is_dispatcher(function) and not (params or backend.traced(x, other) or backend.differentiated(x, other)):
        left, right = backend.host(x), backend.host(other)
        if type(left).__module__ == type(right).__module__ == "numpy":
            return _whole(backend, call, left, right, function, lead, shape, answer, x)
    values = []
    for batch in product(*map(range, lead)):
        u, v = x[(*_own(batch, sx[:-2]), ...)], other[(*_own(batch, sy[:-2]), ...)]
        for i in range(m):
            values += [function(u[i, :], v[j, :], **params) for j in range(i + 1 if layout == "condensed" else 0, n)]
    return _collect(backend, call, values, shape, x, answer)


def rows(backend: Backend, call: Call, x: Array, y: Array | None, function: Function, pairs: Any) -> Array:
    """paired with a function of two rows."""
    params, answer = _arguments(backend, call, x, y)
    other = x if y is None else y
    sx, sy = backend.shape(x), backend.shape(other)
    _known("x", sx)
    _known("y", sy)
    if pairs is None:
        lead = checks.broadcast(sx[:-1], sy[:-1])
        values = [function(x[(*_own(b, sx[:-1]), ...)], other[(*_own(b, sy[:-1]), ...)], **params) for b in product(*map(range, lead))]
        return _collect(backend, call, values, lead, x, answer)
    i, j = checks.indices(backend, pairs, x, sx[-2], sy[-2])
    lead = checks.broadcast(sx[:-2], sy[:-2])
    count = backend.shape(i)[0]
    values = [
        function(x[(*_own(b, sx[:-2]), int(i[k]), slice(None))], other[(*_own(b, sy[:-2]), int(j[k]), slice(None))], **params)
        for b in product(*map(range, lead))
        for k in range(count)
    ]
    return _collect(backend, call, values, (*lead, count), x, answer)


def _own(batch: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, ...]:
    """The position in an input whose batch axes broadcast."""
    return tuple(0 if size == 1 else b for b, size in zip(batch[len(batch) - len(lead) :], lead, strict=True))
