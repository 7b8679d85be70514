"""Functions of blocks of rows, whose backward runs each block again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pairx.backend import Backend

Arrays = tuple[Any, ...]


def blockwise(backend: Backend, function: Callable[[Arrays, Arrays], Arrays], cut: Arrays, whole: Arrays, step: int) -> Arrays:
    """See :class:`pairx.Backend`. The last block overlaps the one before, so that one size serves all."""
    m = cut[0].shape[0]
    if m <= step:
        return function(cut, whole)
    count = -(-m // step)
    size = -(-m // count)

    def at(cut: Arrays, start: Any) -> Arrays:
        return tuple(lax.dynamic_slice_in_dim(c, start, size) for c in cut)

    if backend.traced(*cut, *whole):
        block = jax.checkpoint(lambda cut, whole, i: function(at(cut, jnp.minimum(i * size, m - size)), whole), prevent_cse=False)
        found = lax.map(lambda i: block(cut, whole, i), jnp.arange(count))
        done = (count - 1) * size
        return tuple(jnp.concatenate([f[:-1].reshape(done, *f.shape[2:]), f[-1][size - (m - done) :]]) for f in found)
    pieces = [jax.block_until_ready(function(tuple(c[i : i + size] for c in cut), whole)) for i in range(0, m, size)]
    return tuple(jnp.concatenate(parts) for parts in zip(*pieces, strict=True))
