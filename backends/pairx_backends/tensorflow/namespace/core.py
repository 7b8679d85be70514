"""Shapes that may be unknown, conversion of arguments, and promotion: what every other module stands on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from . import dtypes as dt
from .dtypes import Array, DType

raw = tf.raw_ops
Tensor = tf.Tensor
EagerTensor = tf.__internal__.EagerTensor
SCALARS = frozenset((bool, int, float, complex))
_INT32_MAX = 2**31 - 1


# --- shapes ---


def ndim(x: Array) -> int:
    """The number of axes, which must be known even in a graph."""
    rank = x.shape.rank
    if rank is None:
        raise ValueError(
            "a tensor of unknown rank: state the number of axes, for example with "
            "tf.ensure_shape(x, [None, None]) or in the input_signature of the tf.function"
        )
    return int(rank)


def shape(x: Array, /) -> tuple[Any, ...]:
    """The shape: ints where static, 0-d int64 tensors where only the run knows."""
    ndim(x)
    dims = x.shape.as_list()
    if None not in dims:
        return tuple(dims)
    dynamic = raw.Shape(input=x, out_type=tf.int64)  # int64: products of sizes outgrow int32
    return tuple(dynamic[i] if d is None else d for i, d in enumerate(dims))


def device(x: Array, /) -> str:
    """The device of a tensor ('' inside a graph)."""
    return str(x.device)


@lru_cache(maxsize=4096)
def _eager_ints(values: tuple[int, ...]) -> Array:
    wide = any(abs(v) > _INT32_MAX for v in values)
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(values, tf.int64 if wide else tf.int32, shape=[len(values)])


def ints(values: Sequence[int]) -> Array:
    """A 1-D tensor of axes or sizes. Eagerly it is remembered: a list costs an op 150 us, a tensor nothing."""
    values = tuple(values)
    if tf.executing_eagerly():
        return _eager_ints(values)
    wide = any(abs(v) > _INT32_MAX for v in values)
    return tf.constant(values, tf.int64 if wide else tf.int32, shape=[len(values)])


def dims(shape: Any) -> tuple[Any, ...]:
    """A shape argument (an int, or a sequence of ints and 0-d tensors) as a tuple of Python ints and tensors."""
    if isinstance(shape, (int, np.integer)) or (isinstance(shape, Tensor) and shape.shape.rank == 0):
        shape = (shape,)
    elif isinstance(shape, Tensor):
        shape = tf.unstack(shape)
    return tuple(d if isinstance(d, Tensor) and type(d) is not EagerTensor else operator.index(d) for d in shape)


def packed(shape: tuple[Any, ...]) -> Array:
    """`dims` as the 1-D tensor that TensorFlow's ops take."""
    if all(isinstance(d, int) for d in shape):
        return ints(shape)
    return tf.stack([tf.cast(d, tf.int64) for d in shape])


def product(shape: Sequence[Any]) -> Any:
    """The product of sizes: an int where all are static."""
    static, dynamic = 1, None
    for d in shape:
        if isinstance(d, int):
            static *= d
        else:
            dynamic = d if dynamic is None else dynamic * tf.cast(d, dynamic.dtype)
    return static if dynamic is None else dynamic * static


def broadcast_dims(*shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The broadcast shape. Unknown sizes are compared at run time, never taken for equal."""
    rank = max(map(len, shapes), default=0)
    result = []
    for i in range(-rank, 0):
        sizes = [s[i] for s in shapes if len(s) >= -i]
        static = {d for d in sizes if isinstance(d, int) and d != 1}
        if len(static) > 1:
            raise ValueError(f"shapes that do not broadcast: {', '.join(map(describe, shapes))}")
        dynamic = [d for d in sizes if not isinstance(d, int)]
        if static or not dynamic:
            result.append(static.pop() if static else 1)
            continue
        size = dynamic[0]
        for other in dynamic[1:]:
            size = tf.where(size == 1, other, size)
        result.append(size)
    return tuple(result)


def describe(shape: Sequence[Any]) -> str:
    """A shape for an error message."""
    return "(" + ", ".join(str(d) if isinstance(d, int) else "?" for d in shape) + ")"


def normalize_axis(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    axis = operator.index(axis)
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} is out of bounds for an array of {rank} dimensions")
    return axis % rank


def normalize_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """One axis, several, or None for all, counted from the front."""
    if axis is None:
        return tuple(range(rank))
    axes = tuple(normalize_axis(a, rank) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"repeated axis in {axis}")
    return axes


# --- arguments ---


def cast(x: Array, dtype: DType) -> Array:
    """`x` as `dtype`, without an op where it already is."""
    return x if x.dtype == dtype else raw.Cast(x=x, DstT=dtype)


def scalar(value: complex, dtype: DType) -> Array:
    """A Python scalar as a 0-d tensor; an int that does not fit is an error, not a wrap."""
    if isinstance(value, bool) and dtype != dt.bool:
        value = int(value)
    if dtype in dt.INTEGERS:
        lo, hi = dt.LIMITS[dtype]
        if not lo <= value <= hi:  # type: ignore[operator]
            raise OverflowError(f"the Python integer {value} is out of bounds for {dtype.name}")
    elif dtype == dt.bool:
        value = bool(value)
    elif value == 0 or isinstance(value, complex):
        # an eager tf.constant is remembered by value, and -0.0 == 0.0: it may answer the other zero
        return tf.constant(np.asarray(value, dtype.as_numpy_dtype))
    return tf.constant(value, dtype)


def tensor(x: Any) -> Array:
    """Any argument as a tf.Tensor."""
    if isinstance(x, Tensor):
        return x
    if type(x) in SCALARS:
        return scalar(x, dt.scalar_dtype(x))
    if isinstance(x, (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices)):
        raise TypeError(f"a {type(x).__name__} is not a dense tensor: convert it first (tf.sparse.to_dense, to_tensor())")
    if isinstance(x, (list, tuple)):
        return _from_sequence(x)
    return tf.convert_to_tensor(x)


def _leaves(x: Any) -> list[Any]:
    return [leaf for item in x for leaf in _leaves(item)] if isinstance(x, (list, tuple)) else [x]


def _from_sequence(x: Any) -> Array:
    leaves = _leaves(x)
    if any(isinstance(leaf, (Tensor, tf.Variable)) for leaf in leaves):
        return tf.convert_to_tensor(x)  # packed by ops, so that gradients flow
    array = np.asarray(x)
    if any(isinstance(leaf, (np.generic, np.ndarray)) for leaf in leaves):
        return tf.constant(array)
    if array.dtype.kind == "i":
        lo, hi = dt.LIMITS[dt.default_int]
        fits = array.size == 0 or (array.min() >= lo and array.max() <= hi)
        return tf.constant(array, dt.default_int if fits else dt.int64)
    kinds = {"f": dt.default_float, "c": dt.default_complex}
    return tf.constant(array, kinds.get(array.dtype.kind))


def pair(x1: Any, x2: Any) -> tuple[Array, Array]:
    """Two arguments as tensors of one dtype, by the standard's tables; Python scalars are weak."""
    first, second = isinstance(x1, Tensor), isinstance(x2, Tensor)
    if not first and type(x1) not in SCALARS:
        x1, first = tensor(x1), True
    if not second and type(x2) not in SCALARS:
        x2, second = tensor(x2), True
    if first and second:
        d1, d2 = x1.dtype, x2.dtype
        if d1 is d2:
            return x1, x2
        dtype = dt.promote_dtypes(d1, d2)
        return cast(x1, dtype), cast(x2, dtype)
    if first:
        dtype = dt.weak_dtype(x2, x1.dtype)
        return cast(x1, dtype), scalar(x2, dtype)
    if second:
        dtype = dt.weak_dtype(x1, x2.dtype)
        return scalar(x1, dtype), cast(x2, dtype)
    dtype = dt.result_type(x1, x2)
    return scalar(x1, dtype), scalar(x2, dtype)


def promote(arrays: Sequence[Any]) -> list[Array]:
    """Several arguments as tensors of one dtype."""
    tensors = [tensor(x) for x in arrays]
    dtype = dt.result_type(*(x if type(x) in SCALARS else t for x, t in zip(arrays, tensors, strict=True)))
    return [cast(x, dtype) for x in tensors]


def floating(x: Any) -> Array:
    """`x` as a real or complex floating tensor: integers and booleans take the default float."""
    x = tensor(x)
    return x if x.dtype in dt.INEXACT else raw.Cast(x=x, DstT=dt.default_float)


def floating_pair(x1: Any, x2: Any) -> tuple[Array, Array]:
    """`pair`, then `floating`."""
    x1, x2 = pair(x1, x2)
    return floating(x1), floating(x2)
