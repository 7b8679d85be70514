"""Searching, sorting and sets. NaN is larger than everything, as in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from . import dtypes as dt
from .core import cast, ndim, normalize_axis, pair, raw, shape, tensor
from .dtypes import Array
from .elementwise import isnan, truth
from .manipulation import moveaxis, reshape, take_along_axis


def where(condition: Array, x1: Any, x2: Any, /) -> Array:
    """x1 where the condition holds, x2 elsewhere."""
    x1, x2 = pair(x1, x2)
    return raw.SelectV2(condition=tensor(condition), t=x1, e=x2)


def nonzero(x: Array, /) -> tuple[Array, ...]:
    """The positions of what is not zero, one array for each axis."""
    positions = raw.Where(condition=truth(x))
    return tuple(raw.Unpack(value=positions, num=ndim(x), axis=1))


def _keys(x: Array) -> Array:
    """Integers in the order of `x`: TensorFlow's sorting and searching ops mishandle NaN."""
    if x.dtype in dt.COMPLEX:
        raise TypeError("complex numbers have no order")
    if x.dtype == dt.bool:
        return cast(x, dt.int32)
    if x.dtype not in dt.FLOATS:
        return x
    x = x if x.dtype.size >= 4 else cast(x, dt.float32)
    dtype = dt.int32 if x.dtype.size == 4 else dt.int64
    largest = dt.LIMITS[dtype][1]
    x = tf.where(x == 0, tf.zeros([], x.dtype), x)  # -0 equals 0
    bits = raw.Bitcast(input=x, type=dtype)
    ordered = tf.where(bits < 0, raw.BitwiseXor(x=bits, y=tf.constant(largest, dtype)), bits)
    return tf.where(raw.IsNan(x=x), tf.constant(largest, dtype), ordered)


def _order(keys: Array, descending: bool) -> Array:
    """The stable order of the last axis."""
    if not descending:  # top_k sorts downwards, and equal ones by position
        keys = tf.bitwise.invert(keys)
    return tf.math.top_k(keys, k=shape(keys)[-1]).indices


def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The order of the elements along an axis."""
    x = tensor(x)
    axis = normalize_axis(axis, ndim(x))
    last = ndim(x) - 1
    return cast(moveaxis(_order(moveaxis(_keys(x), axis, last), descending), last, axis), dt.index_dtype)


def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The elements along an axis in order."""
    x = tensor(x)
    return take_along_axis(x, argsort(x, axis=axis, descending=descending), axis=axis)


def _arg_extremum(x: Any, op: Any, axis: int | None, keepdims: bool) -> Array:
    x = tensor(x)
    rank = ndim(x)
    if axis is None:
        flat = _arg_extremum(reshape(x, (-1,)), op, 0, False)
        return reshape(flat, (1,) * rank) if keepdims else flat
    axis = normalize_axis(axis, rank)
    result = op(input=x, dimension=axis, output_type=dt.index_dtype)
    if x.dtype in dt.FLOATS:
        nans = isnan(x)
        first = raw.ArgMax(input=nans, dimension=axis, output_type=dt.index_dtype)
        result = raw.SelectV2(condition=raw.Any(input=nans, axis=axis), t=first, e=result)
    return raw.ExpandDims(input=result, axis=axis) if keepdims else result


def argmax(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """The position of the first maximum, or of the first NaN."""
    return _arg_extremum(x, raw.ArgMax, axis, keepdims)


def argmin(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """The position of the first minimum, or of the first NaN."""
    return _arg_extremum(x, raw.ArgMin, axis, keepdims)


def searchsorted(x1: Array, x2: Array, /, *, side: str = "left", sorter: Array | None = None) -> Array:
    """Where the elements of x2 would go in the sorted 1-D array x1."""
    if side not in ("left", "right"):
        raise ValueError(f"side is 'left' or 'right', not {side!r}")
    x1, x2 = pair(x1, x2)
    if sorter is not None:
        x1 = raw.GatherV2(params=x1, indices=sorter, axis=0)
    values = reshape(_keys(x2), (-1,))
    found = tf.searchsorted(_keys(x1), values, side=side, out_type=dt.index_dtype)
    return reshape(found, shape(x2))


# --- sets ---


class UniqueAll(NamedTuple):
    """What `unique_all` answers."""

    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCounts(NamedTuple):
    """What `unique_counts` answers."""

    values: Array
    counts: Array


class UniqueInverse(NamedTuple):
    """What `unique_inverse` answers."""

    values: Array
    inverse_indices: Array


def _sorted_flat(x: Any) -> tuple[Array, Array, Array]:
    """The flat elements in order, that order, and where a new value begins (each NaN is one)."""
    flat = reshape(x, (-1,))
    if flat.dtype in dt.COMPLEX:
        parts = argsort(tf.math.imag(flat))
        order = tf.gather(parts, argsort(tf.gather(tf.math.real(flat), parts)))
    else:
        order = argsort(flat)
    values = tf.gather(flat, order)
    first = tf.ones_like(values[:1], tf.bool)
    return values, order, tf.concat([first, raw.NotEqual(x=values[1:], y=values[:-1])], 0)


def unique_values(x: Array, /) -> Array:
    """The distinct values, in order."""
    values, _, new = _sorted_flat(tensor(x))
    return tf.boolean_mask(values, new)


def unique_all(x: Array, /) -> UniqueAll:
    """The distinct values, their first positions, the way back, and how often each occurs."""
    x = tensor(x)
    values, order, new = _sorted_flat(x)
    group = tf.cumsum(cast(new, dt.index_dtype)) - 1
    inverse = tf.gather(group, argsort(order))
    starts = reshape(raw.Where(condition=new), (-1,))
    counts = tf.concat([starts[1:], tf.shape(values, out_type=dt.index_dtype)], 0) - starts
    return UniqueAll(tf.gather(values, starts), tf.gather(order, starts), reshape(inverse, shape(x)), counts)


def unique_counts(x: Array, /) -> UniqueCounts:
    """The distinct values, and how often each occurs."""
    result = unique_all(x)
    return UniqueCounts(result.values, result.counts)


def unique_inverse(x: Array, /) -> UniqueInverse:
    """The distinct values, and the way back."""
    result = unique_all(x)
    return UniqueInverse(result.values, result.inverse_indices)
