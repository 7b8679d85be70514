"""Shape manipulation and indexing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from . import dtypes as dt
from .core import (
    Tensor,
    broadcast_dims,
    cast,
    describe,
    dims,
    ints,
    ndim,
    normalize_axes,
    normalize_axis,
    packed,
    product,
    promote,
    raw,
    shape,
    tensor,
)
from .dtypes import Array


def reshape(x: Array, /, shape: Any, *, copy: bool | None = None) -> Array:
    """`x` in another shape; entries may be 0-d tensors, one may be -1."""
    return raw.Reshape(tensor=tensor(x), shape=packed(dims(shape)))


def broadcast_to(x: Array, /, shape: Any) -> Array:
    """`x` repeated along its axes of size 1, to `shape`."""
    x, target = tensor(x), dims(shape)
    # only what is static on both sides may be skipped
    if all(isinstance(d, int) for d in target) and x.shape.rank is not None and tuple(x.shape.as_list()) == target:
        return x
    return raw.BroadcastTo(input=x, shape=packed(target))


def broadcast_arrays(*arrays: Array) -> list[Array]:
    """All arrays in their common shape."""
    tensors = [tensor(x) for x in arrays]
    target = broadcast_dims(*map(shape, tensors))
    return [broadcast_to(x, target) for x in tensors]


def expand_dims(x: Array, /, axis: int) -> Array:
    """A new axis of size 1."""
    x = tensor(x)
    rank = ndim(x) + 1
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} is out of bounds for a result of {rank} dimensions")
    return raw.ExpandDims(input=x, axis=axis)


def squeeze(x: Array, /, axis: Any) -> Array:
    """`x` without the axes given, which must have size 1."""
    x = tensor(x)
    axes = normalize_axes(axis, ndim(x))
    if wrong := [a for a in axes if x.shape[a] not in (1, None)]:
        raise ValueError(f"axes {wrong} of shape {describe(shape(x))} do not have size 1")
    return raw.Squeeze(input=x, axis=axes) if axes else x


def permute_dims(x: Array, /, axes: Sequence[int]) -> Array:
    """`x` with its axes in another order."""
    x = tensor(x)
    order = normalize_axes(tuple(axes), ndim(x))
    if len(order) != ndim(x):
        raise ValueError(f"{len(order)} axes for an array of {ndim(x)} dimensions")
    return raw.Transpose(x=x, perm=ints(order))


def moveaxis(x: Array, source: Any, destination: Any, /) -> Array:
    """`x` with some axes moved, the others in order."""
    x = tensor(x)
    rank = ndim(x)
    sources, targets = normalize_axes(source, rank), normalize_axes(destination, rank)
    if len(sources) != len(targets):
        raise ValueError("as many sources as destinations are needed")
    order = [a for a in range(rank) if a not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return raw.Transpose(x=x, perm=ints(order))


def matrix_transpose(x: Array, /) -> Array:
    """The last two axes swapped."""
    x = tensor(x)
    rank = ndim(x)
    if rank < 2:
        raise ValueError("a matrix is needed: at least two dimensions")
    return raw.Transpose(x=x, perm=ints((*range(rank - 2), rank - 1, rank - 2)))


def flip(x: Array, /, *, axis: Any = None) -> Array:
    """The elements of some axes in reverse."""
    x = tensor(x)
    return raw.ReverseV2(tensor=x, axis=ints(normalize_axes(axis, ndim(x))))


def roll(x: Array, /, shift: Any, *, axis: Any = None) -> Array:
    """The elements of some axes shifted around; without an axis, of the whole array."""
    x = tensor(x)
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, axis=0), shape(x))
    axes = tuple(normalize_axis(a, ndim(x)) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    shifts = tuple(shift) if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ValueError("as many shifts as axes are needed")
    return raw.Roll(input=x, shift=packed(dims(shifts)), axis=ints(axes)) if axes else x


def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """Arrays joined along an axis; None flattens them first."""
    parts = promote(arrays)
    if axis is None:
        parts, axis = [reshape(x, (-1,)) for x in parts], 0
    axis = normalize_axis(axis, ndim(parts[0]))
    return raw.ConcatV2(values=parts, axis=axis) if len(parts) > 1 else parts[0]


def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Arrays joined along a new axis."""
    parts = promote(arrays)
    return raw.Pack(values=parts, axis=normalize_axis(axis, ndim(parts[0]) + 1))


def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """The slices along an axis, whose size must be known."""
    x = tensor(x)
    axis = normalize_axis(axis, ndim(x))
    if (n := x.shape[axis]) is None:
        raise ValueError(f"unstack needs a known size of axis {axis} in shape {describe(shape(x))}")
    return tuple(raw.Unpack(value=x, num=n, axis=axis))


def tile(x: Array, repetitions: Sequence[Any], /) -> Array:
    """`x` repeated as a whole along each axis."""
    x, reps = tensor(x), dims(repetitions)
    missing = len(reps) - ndim(x)
    if missing > 0:
        x = reshape(x, (1,) * missing + shape(x))
    if x.dtype == dt.uint16:  # no kernel
        return cast(tile(cast(x, dt.int32), reps), dt.uint16)
    return raw.Tile(input=x, multiples=packed((1,) * -missing + reps))


def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Each element of an axis repeated; without an axis, of the flat array."""
    x = tensor(x)
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    axis = normalize_axis(axis, ndim(x))
    if isinstance(repeats, Tensor) and ndim(repeats) > 0:
        counts = broadcast_to(repeats, (shape(x)[axis],))
        # positions instead of tf.repeat, which builds a mask of n x max(repeats)
        ends = tf.cumsum(cast(counts, dt.int64))
        total = raw.Sum(input=cast(counts, dt.int64), axis=0)
        positions = tf.searchsorted(ends, tf.range(total, dtype=dt.int64), side="right", out_type=dt.int64)
        return raw.GatherV2(params=x, indices=positions, axis=axis)
    size = list(shape(x))
    x = broadcast_to(raw.ExpandDims(input=x, axis=axis + 1), (*size[: axis + 1], repeats, *size[axis + 1 :]))
    return reshape(x, (*size[:axis], product((size[axis], *dims(repeats))), *size[axis + 1 :]))


# --- indexing ---


def _wrapped(indices: Any, size: Any) -> Array:
    """Indices with the negative ones counted from the end."""
    indices = tensor(indices)
    if indices.dtype not in dt.INTEGERS:
        raise IndexError(f"indices are integers, not {indices.dtype.name}")
    if indices.dtype in dt.UNSIGNED:
        return cast(indices, dt.int64)
    if indices.dtype not in (dt.int32, dt.int64):
        indices = cast(indices, dt.int32)
    shifted = raw.AddV2(x=indices, y=tf.cast(size, indices.dtype))
    return raw.SelectV2(condition=raw.Less(x=indices, y=tf.constant(0, indices.dtype)), t=shifted, e=indices)


def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """The elements of one axis at some positions."""
    x = tensor(x)
    if axis is None:
        if ndim(x) != 1:
            raise ValueError("take needs an axis, except of a 1-D array")
        axis = 0
    axis = normalize_axis(axis, ndim(x))
    return raw.GatherV2(params=x, indices=_wrapped(indices, shape(x)[axis]), axis=axis)


def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """The elements at positions that differ from lane to lane; the other axes broadcast."""
    x, indices = tensor(x), tensor(indices)
    rank = ndim(x)
    if ndim(indices) != rank:
        raise ValueError(f"indices of {ndim(indices)} dimensions for an array of {rank}")
    axis = normalize_axis(axis, rank)
    last = rank - 1
    x, indices = moveaxis(x, axis, last), moveaxis(indices, axis, last)
    size, count = shape(x), shape(indices)
    lanes = broadcast_dims(size[:-1], count[:-1])
    x, indices = broadcast_to(x, (*lanes, size[-1])), broadcast_to(indices, (*lanes, count[-1]))
    result = raw.GatherV2(params=x, indices=_wrapped(indices, size[-1]), axis=last, batch_dims=last)
    return moveaxis(result, last, axis)


def diff(x: Array, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Array:
    """The n-th differences along an axis."""
    x = tensor(x)
    axis = normalize_axis(axis, ndim(x))
    if prepend is not None or append is not None:
        x = concat([p for p in (prepend, x, append) if p is not None], axis=axis)
    if x.dtype == dt.bool:
        raise TypeError("diff needs numbers, not booleans")
    for _ in range(n):
        before: list[slice] = [slice(None)] * axis
        x = raw.Sub(x=x[(*before, slice(1, None))], y=x[(*before, slice(None, -1))])
    return x
