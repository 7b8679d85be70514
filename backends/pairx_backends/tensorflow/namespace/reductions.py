"""Reductions and cumulative functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import dtypes as dt
from .core import EagerTensor, cast, floating, ints, ndim, normalize_axes, normalize_axis, product, raw, shape, tensor
from .dtypes import Array, DType
from .elementwise import square, truth


def _axes(x: Array, axis: Any) -> Array:
    return ints(normalize_axes(axis, ndim(x)))


def _summand(x: Any, dtype: DType | None) -> Array:
    """`x` in the dtype to sum in: integers no narrower than the default."""
    x = tensor(x)
    if dtype is None and x.dtype not in dt.INEXACT:
        dtype = x.dtype if x.dtype.size >= 4 else dt.uint32 if x.dtype in dt.UNSIGNED else dt.default_int
    return x if dtype is None else cast(x, tf.as_dtype(dtype))


def sum(x: Array, /, *, axis: Any = None, dtype: DType | None = None, keepdims: bool = False) -> Array:
    """Sum; 0 where there is nothing."""
    x = _summand(x, dtype)
    return raw.Sum(input=x, axis=_axes(x, axis), keep_dims=keepdims)


def prod(x: Array, /, *, axis: Any = None, dtype: DType | None = None, keepdims: bool = False) -> Array:
    """Product; 1 where there is nothing."""
    x = _summand(x, dtype)
    return raw.Prod(input=x, axis=_axes(x, axis), keep_dims=keepdims)


def _extremum(x: Any, op: Any, axis: Any, keepdims: bool) -> Array:
    x = tensor(x)
    if x.dtype == dt.bool:
        return cast(_extremum(cast(x, dt.uint8), op, axis, keepdims), dt.bool)
    axes = _axes(x, axis)
    result = op(input=x, axis=axes, keep_dims=keepdims)
    # Eager kernels on the CPU propagate NaN. XLA drops it, and no other device promises anything.
    if x.dtype not in dt.FLOATS or (type(x) is EagerTensor and "CPU" in x.device):
        return result
    spoilt = raw.Any(input=raw.IsNan(x=x), axis=axes, keep_dims=keepdims)
    return raw.SelectV2(condition=spoilt, t=tf.constant(math.nan, x.dtype), e=result)


def max(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Maximum; NaN propagates; the lowest value of the dtype where there is nothing."""
    return _extremum(x, raw.Max, axis, keepdims)


def min(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Minimum; NaN propagates; the highest value of the dtype where there is nothing."""
    return _extremum(x, raw.Min, axis, keepdims)


def mean(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Mean; NaN where there is nothing."""
    x = floating(x)
    return raw.Mean(input=x, axis=_axes(x, axis), keep_dims=keepdims)


def var(x: Array, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Variance over count - correction; NaN where that is not positive."""
    x = floating(x)
    axes = normalize_axes(axis, ndim(x))
    index = ints(axes)
    centred = raw.Sub(x=x, y=raw.Mean(input=x, axis=index, keep_dims=True))
    if x.dtype in dt.COMPLEX:
        centred = tf.abs(centred)
    if not correction:
        return raw.Mean(input=square(centred), axis=index, keep_dims=keepdims)
    total = raw.Sum(input=square(centred), axis=index, keep_dims=keepdims)
    size = shape(x)
    count = tf.cast(product([size[a] for a in axes]), total.dtype) - tf.cast(correction, total.dtype)
    return total / tf.where(count > 0, count, tf.constant(math.nan, total.dtype))


def std(x: Array, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """Standard deviation."""
    return raw.Sqrt(x=var(x, axis=axis, correction=correction, keepdims=keepdims))


def all(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Whether all are true."""
    x = truth(x)
    return raw.All(input=x, axis=_axes(x, axis), keep_dims=keepdims)


def any(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Whether any is true."""
    x = truth(x)
    return raw.Any(input=x, axis=_axes(x, axis), keep_dims=keepdims)


def count_nonzero(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """How many are not zero."""
    x = cast(truth(x), dt.index_dtype)
    return raw.Sum(input=x, axis=_axes(x, axis), keep_dims=keepdims)


# --- cumulative ---


def _cumulative(x: Any, op: Callable[..., Array], axis: int | None, dtype: DType | None, initial: int | None) -> Array:
    x = _summand(x, dtype)
    if axis is None:
        if ndim(x) != 1:
            raise ValueError("a cumulative function needs an axis, except of a 1-D array")
        axis = 0
    axis = normalize_axis(axis, ndim(x))
    result = op(x=x, axis=axis)
    if initial is None:
        return result
    padding = [[int(a == axis), 0] for a in range(ndim(x))]
    return tf.pad(result, padding, constant_values=tf.constant(initial, x.dtype))


def cumulative_sum(x: Array, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False) -> Array:
    """Running sum."""
    return _cumulative(x, raw.Cumsum, axis, dtype, 0 if include_initial else None)


def cumulative_prod(x: Array, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False) -> Array:
    """Running product."""
    return _cumulative(x, raw.Cumprod, axis, dtype, 1 if include_initial else None)
