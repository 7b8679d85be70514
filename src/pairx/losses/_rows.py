"""Searching within rows: what the Array API has for one list, here for each row of a block."""

from __future__ import annotations

from typing import Any

from ._core import Arrays

Array = Any


def along(a: Arrays, x: Array, index: Array) -> Array:
    """x[i, index[i, k]] of (b, n) and (b, q), for indices from 0 to n - 1."""
    return a.xp.take_along_axis(x, index, axis=-1) if a.backend.along is None else a.backend.along(x, index)


def below(a: Arrays, keys: Array, values: Array, *, equal: bool) -> Array:
    """How many of the sorted keys of its row are below each value, or ``equal`` to it: (b, k), (b, q) -> (b, q) of int64.

    Without gradient; values must be finite. A halving search: as many passes over ``values`` as the number of keys has binary digits.
    """
    xp = a.xp
    keys, values = a.backend.detach(keys), a.backend.detach(values)
    count = a.backend.shape(keys)[-1]
    at = xp.zeros_like(values, dtype=xp.int64)
    if not isinstance(count, int):  # known when the graph runs
        for level in reversed(range(31)):
            ahead = at + 2**level
            inside = ahead <= count
            found = along(a, keys, xp.where(inside, ahead, xp.ones_like(ahead)) - 1)
            at = xp.where(inside & ((found <= values) if equal else (found < values)), ahead, at)
        return at
    if count == 0:
        return at
    steps = [2**level for level in reversed(range(count.bit_length()))]
    if 2 * steps[0] - 1 > count:  # room for every step; what is added is above all values
        beyond = xp.full_like(keys[:, :1], _largest(a, keys.dtype))
        keys = xp.concat([keys, xp.broadcast_to(beyond, (a.backend.shape(keys)[0], 2 * steps[0] - 1 - count))], axis=-1)
    for k, step in enumerate(steps):
        ahead = keys[:, step - 1 :]
        found = ahead[:, :1] if k == 0 else along(a, ahead, at)
        at = xp.where((found <= values) if equal else (found < values), at + step, at)
    return at


def _largest(a: Arrays, dtype: Any) -> Any:
    return float("inf") if a.backend.kind(a.backend, dtype) == "real floating" else int(a.xp.iinfo(dtype).max)


def places(a: Arrays, mask: Array, most: int) -> tuple[Array, Array]:
    """Where a row's mask holds: (b, n) -> the first ``most`` columns (b, most), and which of those there are."""
    xp = a.xp
    rank = xp.cumulative_sum(xp.astype(mask, xp.int32), axis=-1, dtype=xp.int32)
    b = a.backend.shape(mask)[0]
    wanted = xp.broadcast_to(xp.expand_dims(xp.arange(1, most + 1, dtype=xp.int32, device=_device(a)), axis=0), (b, most))
    found = below(a, rank, wanted, equal=False)
    there = wanted <= rank[:, -1:]
    return xp.where(there, found, xp.zeros_like(found)), there


def _device(a: Arrays) -> Any:
    return a.backend.device(next(v for v in a.values.values() if v is not None))
