"""Functions of blocks of rows, whose backward runs each block again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pairx.backend import Backend
from pairx.backend import _blocksum as eager

Arrays = tuple[Any, ...]


def _at(cut: Arrays, start: Any, size: int) -> Arrays:
    return tuple(lax.dynamic_slice_in_dim(c, start, size) for c in cut)


def blocksum(backend: Backend, function: Any, cut: Arrays, whole: Arrays, step: int, combine: Any = None) -> Arrays:
    """See :class:`pairx.Backend`."""
    m = cut[0].shape[0]
    if m <= step:
        return tuple(function(cut, whole, None))
    if combine:
        cut, whole = lax.stop_gradient((cut, whole))
    if not backend.traced(*cut, *whole):
        return eager(backend, lambda *given: jax.block_until_ready(function(*given)), cut, whole, step, combine)
    count = -(-m // step)
    size = -(-m // count)

    def block(cut: Arrays, whole: Arrays, i: Any) -> Arrays:
        start = jnp.minimum(i * size, m - size)
        return tuple(function(_at(cut, start, size), whole, start + jnp.arange(size) >= i * size))

    once = jax.checkpoint(block, prevent_cse=False)

    def body(total: Arrays, i: Any) -> Any:
        found = once(cut, whole, i)
        return (combine(total, found) if combine else tuple(t + f for t, f in zip(total, found, strict=True))), None

    return tuple(lax.scan(body, once(cut, whole, 0), jnp.arange(1, count))[0])


def blockwise(backend: Backend, function: Callable[[Arrays, Arrays], Arrays], cut: Arrays, whole: Arrays, step: int) -> Arrays:
    """See :class:`pairx.Backend`. The last block overlaps the one before, so that one size serves all."""
    m = cut[0].shape[0]
    if m <= step:
        return function(cut, whole)
    count = -(-m // step)
    size = -(-m // count)

    if backend.traced(*cut, *whole):
        block = jax.checkpoint(lambda cut, whole, i: function(_at(cut, jnp.minimum(i * size, m - size), size), whole), prevent_cse=False)
        found = lax.map(lambda i: block(cut, whole, i), jnp.arange(count))
        done = (count - 1) * size
        return tuple(jnp.concatenate([f[:-1].reshape(done, *f.shape[2:]), f[-1][size - (m - done) :]]) for f in found)
    pieces = [jax.block_until_ready(function(tuple(c[i : i + size] for c in cut), whole)) for i in range(0, m, size)]
    return tuple(jnp.concatenate(parts) for parts in zip(*pieces, strict=True))
