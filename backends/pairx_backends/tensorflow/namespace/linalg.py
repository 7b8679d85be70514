"""The linear algebra extension."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from . import dtypes as dt
from .core import broadcast_dims, cast, floating, floating_pair, ndim, normalize_axes, pair, raw, shape, tensor
from .dtypes import Array, DType
from .elementwise import abs as _abs
from .elementwise import conj, square, truth
from .manipulation import broadcast_to, expand_dims, matrix_transpose, reshape, roll, squeeze
from .products import matmul, tensordot, vecdot
from .reductions import max as _max
from .reductions import min as _min
from .reductions import sum as _sum

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power",
    "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot",
    "trace", "vecdot", "vector_norm",
]  # fmt: skip


class EighResult(NamedTuple):
    """What `eigh` answers."""

    eigenvalues: Array
    eigenvectors: Array


class QRResult(NamedTuple):
    """What `qr` answers."""

    Q: Array
    R: Array


class SlogdetResult(NamedTuple):
    """What `slogdet` answers."""

    sign: Array
    logabsdet: Array


class SVDResult(NamedTuple):
    """What `svd` answers."""

    U: Array
    S: Array
    Vh: Array


def _matrix(x: Any) -> Array:
    x = floating(x)
    if ndim(x) < 2:
        raise ValueError("a matrix is needed: at least two dimensions")
    return x


def _adjoint(x: Array) -> Array:
    return conj(matrix_transpose(x))


def _constant(value: float, x: Array) -> Array:
    return tf.constant(value, x.dtype)


# --- norms ---


def _root(x: Array, power: float) -> Array:
    """x ** power, with gradient 0 at 0: the mask stands before the power too, or XLA makes it NaN."""
    zero = raw.Equal(x=x, y=_constant(0, x))
    safe = raw.SelectV2(condition=zero, t=_constant(1, x), e=x)
    root = raw.Sqrt(x=safe) if power == 0.5 else raw.Pow(x=safe, y=_constant(power, x))
    at_zero = _constant(0 if power > 0 else math.inf, x)
    return raw.SelectV2(condition=zero, t=at_zero, e=root)


def vector_norm(x: Array, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Array:
    """The norm of vectors; the gradient at a zero vector is 0."""
    x = floating(x)
    axes = normalize_axes(axis, ndim(x))
    if ord == 2 and x.dtype not in dt.COMPLEX:
        return _root(_sum(square(x), axis=axes, keepdims=keepdims), 0.5)
    x = _abs(x)
    if ord == math.inf:
        return _max(x, axis=axes, keepdims=keepdims)
    if ord == -math.inf:
        return _min(x, axis=axes, keepdims=keepdims)
    if ord == 0:
        return _sum(cast(truth(x), x.dtype), axis=axes, keepdims=keepdims)
    if ord == 1:
        return _sum(x, axis=axes, keepdims=keepdims)
    powers = square(x) if ord == 2 else _root(x, ord)
    return _root(_sum(powers, axis=axes, keepdims=keepdims), 1 / ord)


def matrix_norm(x: Array, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Array:
    """The norm of matrices."""
    x = _matrix(x)
    if ord in ("fro", None):
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        along, extremum = (-2 if ord in (1, -1) else -1), (_max if ord in (1, math.inf) else _min)
        sums = _sum(_abs(x), axis=along, keepdims=True)
        result = extremum(sums, axis=-3 - along, keepdims=True)
    elif ord in (2, -2, "nuc"):
        values = expand_dims(svdvals(x), -1)
        reduce = {2: _max, -2: _min, "nuc": _sum}[ord]
        result = reduce(values, axis=-2, keepdims=True)
    else:
        raise ValueError(f"unknown matrix norm {ord!r}")
    return result if keepdims else squeeze(result, (-2, -1))


# --- decompositions ---


def svdvals(x: Array, /) -> Array:
    """Singular values, from the largest."""
    return tf.linalg.svd(_matrix(x), compute_uv=False)


def svd(x: Array, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition: x = U @ diag(S) @ Vh."""
    s, u, v = tf.linalg.svd(_matrix(x), full_matrices=full_matrices)
    return SVDResult(u, s, _adjoint(v))


def qr(x: Array, /, *, mode: str = "reduced") -> QRResult:
    """QR decomposition."""
    if mode not in ("reduced", "complete"):
        raise ValueError(f"mode is 'reduced' or 'complete', not {mode!r}")
    return QRResult(*tf.linalg.qr(_matrix(x), full_matrices=mode == "complete"))


def eigh(x: Array, /) -> EighResult:
    """Eigenvalues, ascending, and eigenvectors of Hermitian matrices."""
    values, vectors = tf.linalg.eigh(_matrix(x))
    return EighResult(_real(values), vectors)


def eigvalsh(x: Array, /) -> Array:
    """Eigenvalues, ascending, of Hermitian matrices."""
    return _real(tf.linalg.eigvalsh(_matrix(x)))


def _real(x: Array) -> Array:
    return tf.math.real(x) if x.dtype in dt.COMPLEX else x


def cholesky(x: Array, /, *, upper: bool = False) -> Array:
    """Cholesky factor of positive definite matrices."""
    factor = raw.Cholesky(input=_matrix(x))
    return _adjoint(factor) if upper else factor


# --- equations ---


def inv(x: Array, /) -> Array:
    """Inverse."""
    return raw.MatrixInverse(input=_matrix(x))


def det(x: Array, /) -> Array:
    """Determinant (XLA has no kernel for it)."""
    return raw.MatrixDeterminant(input=_matrix(x))


def slogdet(x: Array, /) -> SlogdetResult:
    """Sign and logarithm of the magnitude of the determinant (XLA has no kernel for it)."""
    sign, logarithm = raw.LogMatrixDeterminant(input=_matrix(x))
    return SlogdetResult(sign, _real(logarithm))


def solve(x1: Array, x2: Array, /) -> Array:
    """The solution of x1 @ x = x2; a 1-D x2 is one vector, otherwise the leading axes broadcast."""
    x1, x2 = floating_pair(x1, x2)
    x1 = _matrix(x1)
    vector = ndim(x2) == 1
    if vector:
        x2 = expand_dims(x2, -1)
    batch = broadcast_dims(shape(x1)[:-2], shape(x2)[:-2])
    if batch:
        x1, x2 = broadcast_to(x1, (*batch, *shape(x1)[-2:])), broadcast_to(x2, (*batch, *shape(x2)[-2:]))
    result = raw.MatrixSolve(matrix=x1, rhs=x2)
    return squeeze(result, -1) if vector else result


def _cutoff(s: Array, x: Array, rtol: Any) -> Array:
    """Singular values up to this one count as zero."""
    if rtol is None:
        sizes = [tf.cast(n, s.dtype) for n in shape(x)[-2:]]
        rtol = tf.maximum(*sizes) * _constant(dt.finfo(s.dtype).eps, s)
    else:
        rtol = expand_dims(cast(tensor(rtol), s.dtype), -1)
    return rtol * _max(s, axis=-1, keepdims=True)


def pinv(x: Array, /, *, rtol: Any = None) -> Array:
    """Pseudo-inverse."""
    x = _matrix(x)
    u, s, vh = svd(x, full_matrices=False)
    kept = s > _cutoff(s, x, rtol)
    inverse = tf.where(kept, 1 / tf.where(kept, s, _constant(1, s)), _constant(0, s))
    return matmul(_adjoint(vh) * expand_dims(cast(inverse, x.dtype), -2), _adjoint(u))


def matrix_rank(x: Array, /, *, rtol: Any = None) -> Array:
    """How many singular values are not small."""
    x = _matrix(x)
    s = svdvals(x)
    return _sum(cast(s > _cutoff(s, x, rtol), dt.index_dtype), axis=-1)


def matrix_power(x: Array, n: int, /) -> Array:
    """x multiplied by itself n times; the inverse for n < 0."""
    x = _matrix(x)
    if n < 0:
        return matrix_power(inv(x), -n)
    if n == 0:
        return tf.linalg.set_diag(raw.ZerosLike(x=x), tf.ones_like(diagonal(x)))
    result = None
    while n:
        if n & 1:
            result = x if result is None else matmul(result, x)
        n >>= 1
        if n:
            x = matmul(x, x)
    return result


# --- the rest ---


def diagonal(x: Array, /, *, offset: int = 0) -> Array:
    """A diagonal of each matrix; empty beyond the corners."""
    x = tensor(x)
    rows, columns = shape(x)[-2:]
    size = columns if offset >= 0 else rows
    if isinstance(size, int) and abs(offset) >= size:
        return tf.zeros((*shape(x)[:-2], 0), x.dtype) if x.shape.is_fully_defined() else x[..., 0, :0]
    return raw.MatrixDiagPartV3(input=x, k=offset, padding_value=tf.zeros([], x.dtype), align="RIGHT_LEFT")


def trace(x: Array, /, *, offset: int = 0, dtype: DType | None = None) -> Array:
    """Sum of a diagonal."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def outer(x1: Array, x2: Array, /) -> Array:
    """All products of the elements of two 1-D arrays."""
    x1, x2 = pair(x1, x2)
    if ndim(x1) != 1 or ndim(x2) != 1:
        raise ValueError("outer needs two 1-D arrays")
    return raw.Mul(x=reshape(x1, (-1, 1)), y=x2)


def cross(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Cross product along an axis of size 3; the others broadcast."""
    x1, x2 = pair(x1, x2)
    normalize_axes(axis, min(ndim(x1), ndim(x2)))
    if axis >= 0:
        axis -= max(ndim(x1), ndim(x2))
    for x in (x1, x2):
        if x.shape[axis] not in (3, None):
            raise ValueError(f"cross needs axis {axis} to have size 3, not {x.shape[axis]}")

    def turned(x: Array, by: int) -> Array:
        return roll(x, -by, axis=axis)

    return turned(x1, 1) * turned(x2, 2) - turned(x1, 2) * turned(x2, 1)
