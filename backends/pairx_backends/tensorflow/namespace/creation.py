"""Creation functions."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from . import dtypes as dt
from .core import SCALARS, Tensor, broadcast_dims, cast, dims, ints, ndim, packed, raw, scalar, shape, tensor
from .dtypes import Array, DType

_FAR = 2**62  # beyond every diagonal, and no overflow


def _on(device: str | None) -> Any:
    # tf.device(None) would undo the caller's own scope
    return contextlib.nullcontext() if device is None else tf.device(device)


def asarray(obj: Any, /, *, dtype: DType | None = None, device: str | None = None, copy: bool | None = None) -> Array:
    """Anything array-like as a tensor. A tensor is immutable, so only `copy=True` makes a new one."""
    with _on(device):
        if type(obj) in SCALARS and dtype is not None:
            wanted = tf.as_dtype(dtype)
            if dt.weak_dtype(obj, wanted) == wanted:
                return scalar(obj, wanted)
        if isinstance(obj, (list, tuple)) and dtype is not None and _is_plain(obj):
            return tf.constant(np.asarray(obj, tf.as_dtype(dtype).as_numpy_dtype))
        # convert_to_tensor may share an array's memory, tf.constant copies
        x = tf.constant(obj) if isinstance(obj, np.ndarray) and copy is not False else tensor(obj)
        if dtype is not None:
            x = cast(x, tf.as_dtype(dtype))
        if copy or (device is not None and isinstance(obj, Tensor)):
            x = tf.identity(x)
        return x


def _is_plain(obj: Any) -> bool:
    return all(_is_plain(o) if isinstance(o, (list, tuple)) else not isinstance(o, (Tensor, tf.Variable)) for o in obj)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Array:
    """A tensor from any object that speaks DLPack."""
    if copy is False:
        view = np.from_dlpack(x)
        if view.size and view.ctypes.data % 64:
            raise BufferError("TensorFlow shares only memory that is aligned to 64 bytes: let it copy")
        return tf.experimental.dlpack.from_dlpack(x.__dlpack__())
    # through NumPy: TensorFlow aborts the process on foreign memory that is not 64-byte aligned
    return asarray(np.from_dlpack(x), device=device, copy=True)


def astype(x: Array, dtype: DType, /, *, copy: bool = True, device: str | None = None) -> Array:
    """`x` converted; a complex array loses its imaginary part in a real dtype."""
    with _on(device):
        x = cast(tensor(x), tf.as_dtype(dtype))
        return x if device is None else tf.identity(x)


def full(shape: Any, fill_value: Any, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """An array of one value."""
    with _on(device):
        value = asarray(fill_value, dtype=dtype)
        return raw.Fill(dims=packed(dims(shape)), value=value)


def zeros(shape: Any, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """An array of zeros."""
    return full(shape, 0, dtype=dtype or dt.default_float, device=device)


def ones(shape: Any, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """An array of ones."""
    return full(shape, 1, dtype=dtype or dt.default_float, device=device)


empty = zeros  # TensorFlow hands out no uninitialised memory


def full_like(x: Array, /, fill_value: Any, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """An array of one value with the shape of `x`."""
    with _on(device):
        value = asarray(fill_value, dtype=dtype or x.dtype)
        static = x.shape.is_fully_defined()
        return raw.Fill(dims=ints(x.shape.as_list()) if static else raw.Shape(input=x), value=value)


def zeros_like(x: Array, /, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """Zeros with the shape of `x`."""
    if dtype is None and device is None:
        return raw.ZerosLike(x=x)
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Array, /, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """Ones with the shape of `x`."""
    return full_like(x, 1, dtype=dtype, device=device)


empty_like = zeros_like


def _range(n: Any) -> Array:
    n = tf.constant(n, tf.int64) if isinstance(n, int) else tf.cast(n, tf.int64)
    return raw.Range(start=tf.constant(0, tf.int64), limit=n, delta=tf.constant(1, tf.int64))


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: DType | None = None, device: str | None = None) -> Array:
    """Evenly spaced values; the arguments may be 0-d tensors."""
    if stop is None:
        start, stop = 0, start
    values = (start, stop, step)
    with _on(device):
        if all(type(v) in SCALARS for v in values):
            n = max(0, math.ceil((stop - start) / step))
            if any(isinstance(v, float) for v in values):
                # in float64, so that float32 rounds but once
                x = start + step * tf.cast(_range(n), dt.float64)
                return cast(x, dtype or dt.default_float)
            ends = (int(start), int(start + n * step))
            if dtype is None:
                dtype = max((dt.scalar_dtype(e) for e in ends), key=lambda d: d.size)
            work = dtype if dtype in (dt.int32, dt.int64) else dt.int64
            return cast(_bounded_range(ends[0], step, n, work), dtype)
        tensors = [tensor(v) for v in values]
        work = dt.result_type(*(t if isinstance(v, Tensor) else v for v, t in zip(values, tensors, strict=True)))
        if work in dt.INTEGERS:  # a size: as weak as the int that it is eagerly
            work, dtype = dt.int64, dtype or dt.default_int
        a, b, c = (cast(t, work) for t in tensors)
        return cast(raw.Range(start=a, limit=b, delta=c), dtype or work)


def _bounded_range(start: int, step: int, n: int, dtype: DType) -> Array:
    lo, hi = dt.LIMITS[dtype]
    if lo <= start + n * step <= hi and abs(step) <= hi and lo <= start <= hi:
        args = (tf.constant(v, dtype) for v in (start, start + n * step, step))
        return raw.Range(start=next(args), limit=next(args), delta=next(args))
    # the end itself does not fit (uint64, or the last int64): count, then scale with wrap-around
    wrap = [(v + 2**63) % 2**64 - 2**63 for v in (start, step)]
    return cast(tf.constant(wrap[0], tf.int64) + tf.constant(wrap[1], tf.int64) * _range(n), dtype)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: DType | None = None, device: str | None = None, endpoint: bool = True
) -> Array:
    """`num` evenly spaced values; the ends are exact."""
    with _on(device):
        if dtype is None:
            is_complex = any(isinstance(v, complex) for v in (start, stop))
            dtype = dt.result_type(start, stop, 1j if is_complex else 1.0)
        work = dtype if dtype in dt.COMPLEX else dt.float64
        a, b = cast(tensor(start), work), cast(tensor(stop), work)
        if type(start) in SCALARS and type(stop) in SCALARS:
            a, b = tf.constant(start, work), tf.constant(stop, work)
        steps = num - 1 if endpoint else num
        if isinstance(num, int):
            steps = max(steps, 1)
        t = cast(_range(num), work) / tf.cast(steps, work)
        x = a * (1 - t) + b * t  # exact at both ends, and no overflow of b - a
        return cast(x, dtype)


def eye(n_rows: Any, n_cols: Any = None, /, *, k: int = 0, dtype: DType | None = None, device: str | None = None) -> Array:
    """Ones on one diagonal; the sizes may be 0-d tensors."""
    k = max(-_FAR, min(k, _FAR))
    with _on(device):
        rows, cols = _range(n_rows), _range(n_rows if n_cols is None else n_cols)
        return cast(tf.expand_dims(rows + k, -1) == cols, dtype or dt.default_float)


def _band(x: Array, k: int, lower: bool) -> Array:
    if ndim(x) < 2:
        raise ValueError("a matrix is needed: at least two dimensions")
    k = max(-_FAR, min(k, _FAR))
    n, m = shape(x)[-2:]
    distance = _range(m) - tf.expand_dims(_range(n) + k, -1)
    return raw.SelectV2(condition=distance <= 0 if lower else distance >= 0, t=x, e=tf.zeros([], x.dtype))


def tril(x: Array, /, *, k: int = 0) -> Array:
    """`x` with zeros above diagonal `k`."""
    return _band(x, k, lower=True)


def triu(x: Array, /, *, k: int = 0) -> Array:
    """`x` with zeros below diagonal `k`."""
    return _band(x, k, lower=False)


def meshgrid(*arrays: Array, indexing: str = "xy") -> list[Array]:
    """Coordinate arrays from 1-D ones."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"indexing is 'xy' or 'ij', not {indexing!r}")
    if indexing == "xy" and len(arrays) > 1:
        swapped = meshgrid(arrays[1], arrays[0], *arrays[2:], indexing="ij")
        return [swapped[1], swapped[0], *swapped[2:]]
    rank = len(arrays)
    columns = [raw.Reshape(tensor=x, shape=ints((-1, *(1,) * (rank - 1 - i)))) for i, x in enumerate(arrays)]
    target = packed(broadcast_dims(*map(shape, columns)))
    return [raw.BroadcastTo(input=x, shape=target) for x in columns]
