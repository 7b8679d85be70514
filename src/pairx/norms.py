"""Norms of vectors and of matrices, and the norms of all differences of two sets of matrices.

The formulas stand once, in ``_vector`` and ``_matrix``, as functions of arrays alone; the public functions around them
check, move axes and, for all pairs, plan.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

from . import calls, checks
from . import plan as plans
from .backend import Backend, find
from .distances import _run
from .engine import Rule, Task, make_block, make_forward
from .memory import free_ram
from .metrics import METRICS, power, root
from .plan import Cost

Array = Any

MATRIX_ORDS: tuple[str | float, ...] = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf, "schatten")
"""What ``ord`` of a matrix norm may be; ``"schatten"`` takes ``p``."""


# --- of one array -------------------------------------------------------------------------------------------------------


def vector_norm(
    x: Array, *, axis: int | tuple[int, ...] | None = None, ord: float = 2, keepdims: bool = False, out_dtype: Any = None
) -> Array:
    r"""The p-norm :math:`(\sum_k |x_k|^p)^{1/p}` over some axes.

    Parameters
    ----------
    x : array, any shape
        Real or complex numbers; integers and booleans become the library's default float.
    axis : int or tuple of int, optional
        The axes whose entries form one vector. Default: all of them.
    ord : float
        0 counts the entries that are not 0, inf and -inf take the largest and the smallest magnitude; every other number is
        the power p, negative ones included (0 if any entry is 0).
    keepdims : bool
        Leave the reduced axes with length 1.
    out_dtype : dtype or str, optional
        A real dtype. Default: that of the magnitudes of ``x``.

    Returns
    -------
    array
        Real. Half precision is computed in float32.

    Raises
    ------
    ValueError
        An axis out of range or given twice, or ord=-inf over no entries.
    TypeError
        A dtype that is no number.

    Notes
    -----
    As numpy.linalg.vector_norm, but entries are divided by the largest magnitude first, so that nothing overflows or
    underflows where the answer is representable, and NaN propagates for ord=0 too. Gradients are finite: 0 at a zero
    vector and where the true slope is infinite (0 < p < 1 at 0), shared equally by ties of the largest magnitude.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.vector_norm(np.array([[3.0, 4.0], [0.0, 0.0]]), axis=-1)
    array([5., 0.])
    """
    backend = find(x=x)
    x = backend.coerce(x, "x")
    shape = backend.shape(x)
    axes = tuple(range(len(shape))) if axis is None else _axes(axis, len(shape))
    order = _order(ord)
    compute, answer = _dtypes(backend, out_dtype, x=x)
    xp = backend.xp
    if order == -math.inf and _nothing(tuple(shape[i] for i in axes)):
        raise ValueError(f"x has shape {checks.shown(shape)}: ord=-inf over no entries has no answer.")
    with backend.quiet():
        a = xp.astype(x, compute, copy=False)
        if not axes:  # each entry is a vector of its own
            a, axes, keepdims = xp.expand_dims(a, axis=-1), (-1,), False
        result = _vector(backend, a, axes, order, _nothing(shape))
        return xp.astype(result if keepdims else xp.squeeze(result, axis=axes), answer, copy=False)


def matrix_norm(
    x: Array,
    *,
    axis: tuple[int, int] = (-2, -1),
    ord: str | float = "fro",
    p: float | None = None,
    keepdims: bool = False,
    out_dtype: Any = None,
) -> Array:
    r"""Norms of matrices, over any two axes.

    Parameters
    ----------
    x : array, at least 2 axes
        Real or complex numbers; integers and booleans become the library's default float.
    axis : (int, int)
        The axes of the rows and of the columns.
    ord : {"fro", "nuc", 1, -1, 2, -2, inf, -inf, "schatten"}
        Frobenius; nuclear, the sum of the singular values; 1 and -1, the largest and smallest column sum of magnitudes; inf
        and -inf, the same of the rows; 2 and -2, the largest and smallest singular value; ``"schatten"``, the p-norm of the
        singular values.
    p : float, optional
        For ``ord="schatten"``: above 0, inf allowed. 1 is nuclear, 2 Frobenius, inf spectral.
    keepdims : bool
        Leave both axes with length 1.
    out_dtype : dtype or str, optional
        A real dtype. Default: that of the magnitudes of ``x``.

    Returns
    -------
    array
        Real. Half precision is computed in float32.

    Raises
    ------
    ValueError
        An unknown ord, axes that are not two, or a smallest value of no rows or columns.
    TypeError
        ``p`` without ``ord="schatten"`` or the other way round; a dtype that is no number.

    Notes
    -----
    As numpy.linalg.matrix_norm, scaled as in :func:`vector_norm`; a matrix with NaN has the norm NaN, one with an infinity
    the norm inf (-2: NaN), and they do not spoil their neighbours in a batch. Singular values below
    ``eps (r + c)`` times the largest count as 0 in the gradient (and for p < 1 in the value): the gradient of the nuclear norm is
    :math:`U_r V_r^H`, 0 at a zero matrix, finite at repeated singular values; equal largest (smallest) ones share that of
    2 and -2. Second derivatives of ``"nuc"``, 2, -2 and ``"schatten"`` are those of the library's own singular values: they need
    distinct ones.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.matrix_norm(np.array([[3.0, 0.0], [0.0, -4.0]]), ord="nuc")
    array(7.)
    >>> pairx.matrix_norm(np.ones((2, 2, 3)), ord=1)
    array([2., 2.])
    """
    backend = find(x=x)
    x = backend.coerce(x, "x")
    order, exponent = _matrix_order(ord, p)
    shape = backend.shape(x)
    checks.at_least("x", shape, 2, "(..., r, c)")
    axes = _axes(axis, len(shape))
    if len(axes) != 2:
        raise ValueError(f"axis={axis!r}: expected two axes, the rows' and the columns'.")
    compute, answer = _dtypes(backend, out_dtype, x=x)
    xp = backend.xp
    rest = tuple(i for i in range(len(shape)) if i not in axes)
    with backend.quiet():
        a = xp.astype(x, compute, copy=False)
        if (*rest, *axes) != tuple(range(len(shape))):
            a = xp.permute_dims(a, (*rest, *axes))
        result = xp.astype(_matrix(backend, a, order, exponent), answer, copy=False)
    if keepdims:
        for i in sorted(axes):
            result = xp.expand_dims(result, axis=i)
    return result


# --- of all differences -------------------------------------------------------------------------------------------------


def pairwise_matrix_norm(
    x: Array,
    y: Array | None = None,
    ord: str | float = "fro",
    *,
    p: float | None = None,
    out: Array | None = None,
    out_dtype: Any = None,
    max_bytes: int | str | None = None,
    engine: str | None = None,
) -> Array:
    """Norms of the difference of each matrix of ``x`` and each matrix of ``y``.

    Parameters
    ----------
    x : array, shape (..., n, r, c)
        Real or complex numbers; integers and booleans become the library's default float.
    y : array, shape (..., m, r, c), optional
        Of the same library, on the same device; batch axes broadcast. Default: ``x`` again, at half the work, with a result
        that is exactly symmetric and has an exact 0 on its diagonal.
    ord : {"fro", "nuc", 1, -1, 2, -2, inf, -inf, "schatten"}
        As in :func:`matrix_norm`.
    p : float, optional
        For ``ord="schatten"``.
    out : array, shape (..., n, m), optional
        Where to write the result, for libraries whose arrays can be written.
    out_dtype : dtype or str, optional
        A real dtype.
    max_bytes : int or str, optional
        Scratch memory above inputs and result, forward and backward; see :func:`pairx.cdist`.
    engine : {"array", "native"}, optional
        Force the differences, or (``"fro"`` of real matrices) the matrix product.

    Returns
    -------
    array, shape (..., n, m)

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in :func:`matrix_norm` and :func:`pairx.cdist`.

    Notes
    -----
    Differences are formed tile by tile. Frobenius is the Euclidean distance of the flattened matrices: it comes out of a
    matrix product where :func:`pairx.cdist` would take one.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.stack([np.zeros((2, 2)), np.eye(2)])
    >>> pairx.pairwise_matrix_norm(x, ord="nuc")
    array([[0., 2.],
           [2., 0.]])
    """
    backend = find(x=x, y=y)
    x, y = backend.coerce(x, "x"), None if y is None else backend.coerce(y, "y")
    order, exponent = _matrix_order(ord, p)
    sx = backend.shape(x)
    sy = sx if y is None else backend.shape(y)
    checks.at_least("x", sx, 3, "(..., n, r, c); for one matrix each use matrix_norm(x - y)")
    checks.at_least("y", sy, 3, "(..., m, r, c); for one matrix each use matrix_norm(x - y)")
    checks.equal_size("x", sx, "y", sy, -2, "numbers of rows")
    checks.equal_size("x", sx, "y", sy, -1, "numbers of columns")
    checks.same_device(backend, x=x, y=y)
    compute, answer = _dtypes(backend, out_dtype, x=x, y=y)
    chosen = engine if engine is not None else plans.current().engine
    plans.choice("engine", chosen, (None, *plans.ENGINES))
    if chosen == "compiled":
        raise ValueError("engine='compiled': norms of matrices are not compiled; leave engine away, or take 'array'.")
    axes = (*checks.broadcast(sx[:-3], sy[:-3]), sx[-3], sy[-3])
    _empty(order, sx)

    tensors = tuple(a for a in (x, y) if a is not None)
    traced, grad = backend.traced(*tensors), backend.differentiated(*tensors)
    size, entries = backend.itemsize(compute), sx[-2] * sx[-1]
    flat = order == "fro" and backend.kind(backend, compute) == "real floating"
    notes: tuple[str, ...] = ()
    if flat:
        fast = plans.current().precision == "fast"
        rule = Rule(METRICS["euclidean"], {}, compute, answer, True, fast=fast)
        one = tuple(slice(0, min(n, 1) if isinstance(n, int) else 1) for n in sx[:-2])
        first = _flatten(backend, x[(*one, ...)])  # an array with as many features
        name, reason = calls.uncompiled(backend, rule, chosen, traced, first)
        cost, grad_cost = calls.costs(rule, name, axes, entries, size, grad)
        # Cutting an array that is not contiguous makes the tile's rows a copy.
        cost = cost._replace(row=cost.row + _bytes(entries, size))
        notes = tuple(n for n in (backend.lowered(x),) if n)
    else:
        if chosen == "native":
            raise ValueError(f"engine='native': only ord='fro' of real matrices has a matrix product, not {ord!r}; leave engine away.")
        name, reason = chosen or "array", calls.AS_ASKED if chosen else "the norm needs each difference"
        cost, grad_cost = _costs(order, sx[-2:], size, grad)
    plan = plans.make(
        axes=axes,
        shape=axes,
        layout="matrix",
        cost=cost,
        grad_cost=grad_cost,
        itemsize=backend.itemsize(answer),
        max_bytes=max_bytes,
        tile_bytes=backend.tile_bytes,
        free=lambda: backend.free_bytes(backend.device(x)) or free_ram(),
        allocates=out is None and not backend.lazy,
        threads=plans.thread_count() if backend.threads and name == "array" else 1,
        op="pairwise_matrix_norm",
        metric=f"schatten (p={exponent})" if order == "schatten" else str(order),
        backend=backend.name,
        device=str(backend.device(x)) if not traced else "a traced device",
        engine=name,
        reason=reason,
        dtype=checks.dtype_name(answer),
        symmetric=y is None,
        zero_self=True,
        core=2,
        notes=notes,
    )
    if out is not None:
        out = checks.output(backend, out, axes, answer, x=x, y=y)
    if flat:
        room = max(1, min(plan.max_bytes, backend.tile_bytes) // 2 // (6 * _bytes(entries, size) + 64))
        rule = Rule(METRICS["euclidean"], {}, compute, answer, True, fast=fast, pair_room=room)
        block = _flat(backend, make_block(backend, rule, name))
        forward = _flat(backend, make_forward(backend, rule, name))
    else:
        block = forward = _differences(backend, order, exponent, compute, answer)
    key = ("matrix_norm", order, exponent, name, flat and fast, checks.dtype_name(compute), checks.dtype_name(answer))
    return _run(Task(plan, backend, x, y, (), block, forward, answer, out, key=key))


def _differences(backend: Backend, order: str | float, exponent: float, compute: Any, answer: Any) -> Callable[[Array, Array], Array]:
    xp = backend.xp

    def block(x: Array, y: Array) -> Array:
        x, y = xp.astype(x, compute, copy=False), xp.astype(y, compute, copy=False)
        difference = xp.expand_dims(x, axis=-3) - xp.expand_dims(y, axis=-4)
        return xp.astype(_matrix(backend, difference, order, exponent), answer, copy=False)

    return block


def _flat(backend: Backend, block: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    """The same on tiles of matrices: each becomes one row of features (a view, unless the tile is not contiguous)."""

    def flat(x: Array, y: Array) -> Array:
        return block(_flatten(backend, x), _flatten(backend, y))

    return flat


def _flatten(backend: Backend, x: Array) -> Array:
    *lead, r, c = backend.shape(x)
    return backend.xp.reshape(x, (*lead, r * c))  # no -1: it cannot be told where another size is 0


def _bytes(entries: Any, size: int) -> int:
    return (entries if isinstance(entries, int) else 1024) * size


def _costs(order: str | float, matrix: tuple[Any, ...], size: int, grad: bool) -> tuple[Cost, Cost | None]:
    """Scratch bytes for each pair and each matrix of a tile, forward and backward."""
    r, c = (n if isinstance(n, int) else 32 for n in matrix)
    whole, line = r * c * size, (r + c) * size
    spectral = order in ("nuc", 2, -2, "schatten")
    # The difference, its magnitude, the scaled and the masked one, and the copy that the decomposition destroys.
    pair = (5 * whole if spectral else 4 * whole) + 4 * line + 64
    back = (12 * whole if spectral else 8 * whole) + 12 * line + 128
    fixed = 8 * whole if spectral else 0  # LAPACK's work space
    row = 2 * whole + 64
    return Cost(pair, row, fixed), Cost(back, 2 * row, 2 * fixed) if grad else None


# --- the formulas -------------------------------------------------------------------------------------------------------


def _vector(backend: Backend, a: Array, axes: tuple[int, ...], order: float, empty: bool = False) -> Array:
    """The norm over axes, kept with length 1. Nothing but a comparison or a detached value looks at magnitudes."""
    xp = backend.xp
    a = xp.abs(a)
    if order == 1 or empty:
        total = xp.sum(a, axis=axes, keepdims=True)
        return total if order >= 0 else total + math.inf
    if order == math.inf:
        return xp.max(a, axis=axes, keepdims=True)
    if order == -math.inf:
        return xp.min(a, axis=axes, keepdims=True)
    if order == 0:
        counted = xp.where(a == 0, xp.zeros_like(a), xp.ones_like(a))
        return xp.sum(xp.where(a != a, a, counted), axis=axes, keepdims=True)
    magnitudes = a if order > 0 else xp.where(a == 0, math.inf, a)
    top = (xp.max if order > 0 else xp.min)(magnitudes, axis=axes, keepdims=True)
    scale = backend.detach(xp.where((top > 0) & (top < math.inf), top, 1.0))
    a = a / scale
    if order == 2:
        return scale * root(xp, xp.sum(a * a, axis=axes, keepdims=True))
    total = xp.sum(power(xp, a, order), axis=axes, keepdims=True)
    if order > 0:
        return scale * power(xp, total, 1 / order)
    nothing = total == 0  # every magnitude is infinite
    result = scale * xp.where(nothing, math.inf, xp.where(nothing, 1.0, total) ** (1 / order))
    return xp.where(xp.any(a == 0, axis=axes, keepdims=True) & (total == total), 0.0, result)


def _matrix(backend: Backend, a: Array, order: str | float, exponent: float) -> Array:
    """The norm over the last two axes."""
    xp = backend.xp
    shape = backend.shape(a)
    _empty(order, shape)
    empty = _nothing(shape)
    if order == "fro":
        result = _vector(backend, a, (-2, -1), 2, empty)
    elif empty:
        result = xp.sum(xp.abs(a), axis=(-2, -1), keepdims=True)
    elif order in ("nuc", 2, -2, "schatten"):
        return _spectral(backend, a, order, exponent)
    else:
        along = -2 if order in (1, -1) else -1
        sums = xp.sum(xp.abs(a), axis=along, keepdims=True)
        extremum = xp.max if order in (1, math.inf) else xp.min
        result = extremum(sums, axis=-3 - along, keepdims=True)
    return xp.squeeze(result, axis=(-2, -1))


def _spectral(backend: Backend, a: Array, order: str | float, exponent: float) -> Array:
    """Norms of the singular values.

    Only the singular values are differentiated, never the vectors: every library's derivative of them is u_k v_k^H, which is
    finite where they are repeated or 0. What is 0 within rounding is taken out of the gradient.
    """
    xp = backend.xp
    top = backend.detach(xp.max(xp.abs(a), axis=(-2, -1), keepdims=True))
    finite = top < math.inf  # a NaN or inf makes LAPACK fail, for the whole batch
    scale = xp.where(finite & (top > 0), top, 1.0)
    # The mask stands before the division, too: inf / 1 has a gradient that 0 does not silence.
    safe = xp.where(finite, a, 0.0) / xp.astype(scale, a.dtype, copy=False)
    # Transposed, rows are the columns that LAPACK asks for: XLA would turn all of the input around before a loop over it.
    s = xp.linalg.svdvals(xp.matrix_transpose(safe))
    r, c = backend.shape(a)[-2:]
    known = detached = backend.detach(s)
    eps = float(xp.finfo(s.dtype).eps)
    near = eps * (r + c) if isinstance(r + c, int) else eps * xp.astype(r + c, s.dtype)
    most = xp.max(detached, axis=-1, keepdims=True)
    rounding = near * most
    kept = detached > rounding
    if order in (2, -2):
        known = most if order == 2 else xp.min(detached, axis=-1, keepdims=True)
        hit = (xp.abs(detached - known) <= rounding) & kept
        count = xp.sum(xp.astype(hit, s.dtype), axis=-1, keepdims=True)
        share = xp.where(hit, s - detached, 0.0) / xp.where(count > 0, count, 1.0)
        result = known + xp.sum(share, axis=-1, keepdims=True)
    elif order == "nuc":
        result = xp.sum(detached + xp.where(kept, s - detached, 0.0), axis=-1, keepdims=True)
    else:
        rest = detached if exponent > 1 else xp.zeros_like(detached)  # 1e-17 ** 0.1 is no small number
        result = _vector(backend, xp.where(kept, s, rest), (-1,), exponent)
    result = scale * xp.expand_dims(result, axis=-1)
    result = xp.where(finite, result, top if order != -2 else math.nan)
    return xp.squeeze(result, axis=(-2, -1))


# --- arguments ----------------------------------------------------------------------------------------------------------


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    try:
        found = tuple(operator.index(a) for a in given)
    except TypeError:
        raise TypeError(f"axis={axis!r}: expected an int or a tuple of them.") from None
    for a in found:
        if not -ndim <= a < ndim:
            raise ValueError(f"axis={axis!r}: x has {ndim} axes, {-ndim} to {ndim - 1}.")
    found = tuple(a % ndim for a in found)
    if len(set(found)) < len(found):
        raise ValueError(f"axis={axis!r}: an axis is given twice.")
    return found


def _order(ord: Any) -> float:
    if isinstance(ord, (str, bool)) or ord is None:
        raise ValueError(f"ord={ord!r}: expected a number, inf or -inf; 'fro' and 'nuc' are norms of matrices: matrix_norm.")
    return checks.number("ord", ord)


def _matrix_order(ord: Any, p: Any) -> tuple[str | float, float]:
    """``ord`` as it stands in :data:`MATRIX_ORDS`, and the exponent; Schatten norms that have a name get it."""
    if isinstance(ord, bool) or not isinstance(ord, (str, Real)) or ord not in MATRIX_ORDS:
        raise ValueError(f"ord={ord!r}: expected {', '.join(map(repr, MATRIX_ORDS))}.")
    if (ord == "schatten") != (p is not None):
        raise TypeError(f"p={p!r} and ord={ord!r}: p is the exponent of ord='schatten', which needs it; no other takes it.")
    if p is None:
        return next(o for o in MATRIX_ORDS if o == ord), 0.0
    exponent = checks.number("p", p, positive=True, zero_ok=False)
    named: dict[float, str | float] = {1.0: "nuc", 2.0: "fro", math.inf: 2}
    return (named[exponent], 0.0) if exponent in named else ("schatten", exponent)


def _nothing(shape: tuple[Any, ...]) -> bool:
    """No entries, as far as sizes are known."""
    return any(isinstance(n, int) and n == 0 for n in shape)


def _empty(order: str | float, shape: tuple[Any, ...]) -> None:
    """Refuse a smallest value of nothing."""
    r, c = shape[-2:]
    nothing = {-1: c == 0, -math.inf: r == 0, -2: r == 0 or c == 0} if isinstance(r, int) and isinstance(c, int) else {}
    if not isinstance(order, str) and nothing.get(order, False):
        raise ValueError(f"x has shape {checks.shown(shape)}: ord={order} of matrices without rows or columns has no answer.")


def _dtypes(backend: Backend, out_dtype: Any, **arrays: Array) -> tuple[Any, Any]:
    """The dtype to compute in, which may be complex, and the real dtype of the answer."""
    compute, answer = checks.dtypes(backend, None, None, **arrays)
    if backend.kind(backend, compute) == "complex floating":
        answer = checks.as_dtype(backend, {"complex64": "float32", "complex128": "float64"}[checks.dtype_name(compute)])
    if out_dtype is not None:
        answer = checks.as_dtype(backend, out_dtype)
        if backend.kind(backend, answer) == "complex floating":
            raise TypeError(f"out_dtype={checks.dtype_name(answer)}: a norm is real.")
        if checks.dtype_name(answer) not in checks.HALF:
            compute = backend.xp.result_type(compute, answer)
    return compute, answer
