"""Products: contractions in a batch, and similarities of all pairs of rows."""

from __future__ import annotations

import operator
from typing import Any

from . import checks
from .backend import Backend, find
from .calls import Call
from .distances import _run, matrix_task

Array = Any


def batch_dot(x: Array, y: Array, axes: int | tuple[int, int] | None = None, *, batch_ndim: int = 1, keepdims: bool = False) -> Array:
    """Contract one axis of ``x`` with one axis of ``y``, item by item of a batch.

    Parameters
    ----------
    x, y : array, shapes (batch, ...)
        Of one library, on one device, with the same batch axes; each has at least one axis more.
    axes : int or (int, int), optional
        The axis of ``x`` and that of ``y``; one int serves both. Negative axes count from the end of each operand. Default, as
        in Keras: the last axis of ``x`` with the last but one of ``y``, or its only one.
    batch_ndim : int
        How many leading axes are the batch; 0 for none.
    keepdims : bool
        Where no axis is left beside the batch, end in an axis of length 1, as Keras does.

    Returns
    -------
    array, shape (batch, free axes of x, free axes of y)
        The free axes are those that are neither batch nor contracted, in their order.

    Raises
    ------
    ValueError
        An axis that is out of range or in the batch; sizes that differ (batch axes do not broadcast).
    TypeError
        Axes that are not ints; dtypes without a common one.

    Notes
    -----
    The definition is that of keras.backend.batch_dot since Keras 2.2.5, with any number of batch axes. Integers stay
    integers and wrap, as in the Array API's matmul; booleans become the library's default float, or the dtype of the other
    side; half precision is accumulated in float32. The same shapes hold where sizes are unknown (``tf.function``).

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x, y = np.ones((5, 36, 8, 24)), np.ones((5, 36, 8, 24))
    >>> pairx.batch_dot(x, y, axes=1).shape
    (5, 8, 24, 8, 24)
    >>> pairx.batch_dot(x, y, axes=3, batch_ndim=2).shape
    (5, 36, 8, 8)
    """
    backend = find(x=x, y=y)
    xp = backend.xp
    x, y = backend.coerce(x, "x"), backend.coerce(y, "y")
    checks.same_device(backend, x=x, y=y)
    sx, sy = backend.shape(x), backend.shape(y)
    batch = operator.index(batch_ndim) if not isinstance(batch_ndim, bool) and hasattr(batch_ndim, "__index__") else -1
    if batch < 0:
        raise ValueError(f"batch_ndim={batch_ndim!r}: expected an int of 0 or more.")
    for name, shape in (("x", sx), ("y", sy)):
        checks.at_least(name, shape, batch + 1, f"{batch} of the batch and one to contract")
    for i in range(batch):
        checks.equal_size("x", sx, "y", sy, i, f"sizes of batch axis {i}")
    ax, ay = _pair(axes, len(sx), len(sy), batch)
    if isinstance(sx[ax], int) and isinstance(sy[ay], int) and sx[ax] != sy[ay]:
        raise ValueError(
            f"x has shape {checks.shown(sx)} and y {checks.shown(sy)}: axis {ax} of x and axis {ay} of y must agree, "
            f"got {sx[ax]} and {sy[ay]}."
        )
    compute, answer = _dtypes(backend, x, y)
    x, y = xp.astype(x, compute, copy=False), xp.astype(y, compute, copy=False)

    lead = tuple(range(batch))
    free_x = tuple(i for i in range(batch, len(sx)) if i != ax)
    free_y = tuple(i for i in range(batch, len(sy)) if i != ay)
    shared = tuple(b if isinstance(b, int) else a for a, b in zip(sx[:batch], sy[:batch], strict=True))
    left_sizes, right_sizes = tuple(sx[i] for i in free_x), tuple(sy[i] for i in free_y)
    left = _merge(xp, _permute(xp, x, (*lead, *free_x, ax)), shared, left_sizes, (sx[ax],), batch)
    right = _merge(xp, _permute(xp, y, (*lead, ay, *free_y)), (*shared, sy[ay]), right_sizes, (), batch + 1)
    result = xp.matmul(left, right)
    if len(free_x) > 1 or len(free_y) > 1:
        result = xp.reshape(result, (*shared, *left_sizes, *right_sizes))
    else:  # without a reshape: the sizes that are known stay so
        gone = tuple(i for i, free in ((-2, free_x), (-1, free_y)) if not free)
        if gone:
            result = xp.squeeze(result, axis=gone)
    if keepdims and not free_x and not free_y:
        result = xp.expand_dims(result, axis=-1)
    return xp.astype(result, answer, copy=False)


def similarity(
    x: Array,
    y: Array | None = None,
    kind: str = "cosine",
    *,
    w: Array | None = None,
    out: Array | None = None,
    out_dtype: Any = None,
    max_bytes: int | str | None = None,
    engine: str | None = None,
) -> Array:
    """Similarity of each row of ``x`` and each row of ``y``.

    Parameters
    ----------
    x, y : array, shapes (..., m, d) and (..., n, d)
        As in :func:`pairx.cdist`; without ``y``, ``x`` again.
    kind : {"cosine", "dot"}
        The cosine of the angle, 0 for a zero row, clipped to [-1, 1]; or the inner product, conjugated on the left.
    w : array, shape (d,), optional
        Weights of the features, 0 or more.
    out, out_dtype, max_bytes, engine
        As in :func:`pairx.cdist`.

    Returns
    -------
    array, shape (..., m, n)

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in :func:`pairx.cdist`.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.similarity(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]]))
    array([[1., 0.],
           [0., 0.]])
    """
    if not isinstance(kind, str):
        raise TypeError(f"kind={kind!r}: expected 'cosine' or 'dot'; for a function of your own use cdist.")
    call = Call("similarity", out, w, out_dtype, "finite", "propagate", max_bytes, engine, None, {})
    return _run(matrix_task(call, x, y, kind, "matrix", kind="similarity"))


def _pair(axes: Any, x_ndim: int, y_ndim: int, batch: int) -> tuple[int, int]:
    """Both axes, counted from the front."""
    if axes is None:
        return x_ndim - 1, y_ndim - 1 if y_ndim == batch + 1 else y_ndim - 2
    given = tuple(axes) if isinstance(axes, (tuple, list)) else (axes, axes)
    try:
        pair = tuple(operator.index(a) for a in given)
    except TypeError:
        raise TypeError(f"axes={axes!r}: expected an int, or two of them; one axis of each operand is contracted.") from None
    if len(pair) != 2:
        raise ValueError(f"axes={axes!r}: expected an int, or one for x and one for y.")
    found = []
    for name, axis, ndim in (("x", pair[0], x_ndim), ("y", pair[1], y_ndim)):
        if not -ndim <= axis < ndim:
            raise ValueError(f"axes={axes!r}: {name} has {ndim} axes, {-ndim} to {ndim - 1}.")
        if axis % ndim < batch:
            raise ValueError(
                f"axes={axes!r}: axis {axis} of {name} is in the batch (batch_ndim={batch}), which cannot be contracted; "
                "choose a later axis or a smaller batch_ndim."
            )
        found.append(axis % ndim)
    return found[0], found[1]


def _permute(xp: Any, a: Array, order: tuple[int, ...]) -> Array:
    return a if order == tuple(range(len(order))) else xp.permute_dims(a, order)


def _merge(xp: Any, a: Array, before: tuple[Any, ...], free: tuple[Any, ...], after: tuple[Any, ...], at: int) -> Array:
    """The free axes, which start at ``at``, as one."""
    if len(free) == 1:
        return a
    if not free:
        return xp.expand_dims(a, axis=at)
    size = free[0]
    for n in free[1:]:
        size = size * n
    return xp.reshape(a, (*before, size, *after))


def _dtypes(backend: Backend, x: Array, y: Array) -> tuple[Any, Any]:
    """The dtype to compute in and that of the answer: integers stay integers."""
    kinds = {backend.kind(backend, a.dtype) for a in (x, y)}
    if "integral" in kinds and kinds <= {"integral", "bool"}:
        whole = [a.dtype for a in (x, y) if backend.kind(backend, a.dtype) == "integral"]
        try:
            found = backend.xp.result_type(*whole)
        except Exception:
            found = None
        if found is None or backend.kind(backend, found) != "integral":
            raise TypeError(
                f"x has dtype {checks.dtype_name(x.dtype)} and y {checks.dtype_name(y.dtype)}: no integer dtype holds both; convert one."
            )
        return found, found
    return checks.dtypes(backend, None, None, x=x, y=y)
