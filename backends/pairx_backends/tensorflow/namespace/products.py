"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from . import dtypes as dt
from .core import cast, ints, ndim, normalize_axes, normalize_axis, pair, product, raw, shape
from .dtypes import Array
from .elementwise import conj
from .manipulation import matrix_transpose, moveaxis, reshape

__all__ = ["matmul", "matrix_transpose", "tensordot", "vecdot"]

_WITHOUT_KERNEL = frozenset((dt.int8, dt.int16, *dt.UNSIGNED))


def matmul(x1: Array, x2: Array, /) -> Array:
    """Matrix product over the last two axes; 1-D arguments are rows on the left, columns on the right."""
    x1, x2 = pair(x1, x2)
    rank1, rank2 = ndim(x1), ndim(x2)
    if rank1 == 2 and rank2 == 2 and x1.dtype not in _WITHOUT_KERNEL:
        return raw.MatMul(a=x1, b=x2)
    if rank1 == 0 or rank2 == 0:
        raise ValueError("matmul needs at least one dimension on both sides")
    if x1.dtype in _WITHOUT_KERNEL:  # modulo 2**64 the signed product is the same
        return cast(matmul(cast(x1, dt.int64), cast(x2, dt.int64)), x1.dtype)
    a = raw.ExpandDims(input=x1, axis=0) if rank1 == 1 else x1
    b = raw.ExpandDims(input=x2, axis=-1) if rank2 == 1 else x2
    result = raw.BatchMatMulV2(x=a, y=b)
    dropped = [-2] * (rank1 == 1) + [-1] * (rank2 == 1)
    return raw.Squeeze(input=result, axis=dropped) if dropped else result


def tensordot(x1: Array, x2: Array, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Array:
    """Sum of products over axes of both: the last n with the first n, or those named."""
    x1, x2 = pair(x1, x2)
    rank1, rank2 = ndim(x1), ndim(x2)
    if isinstance(axes, int):
        axes = (tuple(range(rank1 - axes, rank1)), tuple(range(axes)))
    over1, over2 = normalize_axes(axes[0], rank1), normalize_axes(axes[1], rank2)
    if len(over1) != len(over2):
        raise ValueError("as many axes of the one as of the other are needed")
    free1 = [a for a in range(rank1) if a not in over1]
    free2 = [a for a in range(rank2) if a not in over2]
    size1, size2 = shape(x1), shape(x2)
    for a, b in zip(over1, over2, strict=True):
        if isinstance(size1[a], int) and isinstance(size2[b], int) and size1[a] != size2[b]:
            raise ValueError(f"axis {a} has size {size1[a]}, axis {b} of the other array {size2[b]}")
    rows, columns = [size1[a] for a in free1], [size2[a] for a in free2]
    # explicit sizes: -1 cannot be told where another size is 0
    inner1, inner2 = product([size1[a] for a in over1]), product([size2[a] for a in over2])
    left = reshape(raw.Transpose(x=x1, perm=ints((*free1, *over1))), (product(rows), inner1))
    right = reshape(raw.Transpose(x=x2, perm=ints((*over2, *free2))), (inner2, product(columns)))
    return reshape(matmul(left, right), (*rows, *columns))


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Sum of conj(x1) * x2 over one axis; the others broadcast."""
    x1, x2 = pair(x1, x2)
    rank = min(ndim(x1), ndim(x2))
    if axis >= 0:  # counted in the broadcast arrays
        axis -= max(ndim(x1), ndim(x2))
    normalize_axis(axis, rank)
    n1, n2 = x1.shape[axis], x2.shape[axis]
    if n1 is not None and n2 is not None and n1 != n2:
        raise ValueError(f"the contracted sizes differ: {n1} and {n2}")
    x1, x2 = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)
    return raw.Sum(input=raw.Mul(x=conj(x1), y=x2), axis=-1)
