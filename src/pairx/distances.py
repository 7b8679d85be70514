"""cdist, pdist, paired, squareform and gram: from a call to a task, and from the task to its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import calls
from . import checks as check
from . import plan as plans
from .backend import find, of_type, trace_constant
from .calls import Call
from .engine import Task, pair_at
from .metrics import lookup
from .plan import Layout

Array = Any
Metric = str | Callable[[Array, Array], Any]


def cdist(
    x: Array,
    y: Array | None = None,
    metric: Metric = "euclidean",
    *,
    out: Array | None = None,
    w: Array | None = None,
    out_dtype: Any = None,
    zero: str = "finite",
    nan_policy: str = "propagate",
    max_bytes: int | str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    **params: Any,
) -> Array:
    """Distances between each row of ``x`` and each row of ``y``.

    Parameters
    ----------
    x : array, shape (..., m, d)
        Any array of NumPy, CuPy, PyTorch, TensorFlow, JAX, Dask or array_api_strict; lists are NumPy.
    y : array, shape (..., n, d), optional
        Of the same library, on the same device; batch axes broadcast. Default: ``x`` again, at half the work for a
        symmetric metric, with a result that is exactly symmetric and has an exact 0 on its diagonal.
    metric : str or callable
        A name or alias in :data:`pairx.METRICS`, or ``f(u, v)`` for two rows, as in SciPy.
    out : array, shape (..., m, n), optional
        Where to write the result, for libraries whose arrays can be written.
    w : array, shape (d,), optional
        Weights of the features, 0 or more.
    out_dtype : dtype or str, optional
        Default: the dtype of the inputs; for integers the library's default float.
    zero : {"finite", "scipy"}
        What to answer where a formula is 0/0: the useful finite value, or SciPy's own (NaN, inf).
    nan_policy : {"propagate", "omit", "raise"}
        ``"omit"`` leaves out features that are NaN in either row and scales the sum up by d / present.
    max_bytes : int or str, optional
        Scratch memory above inputs and result, forward and backward: bytes, ``"64MB"`` or ``"64MiB"``. Default 256 MiB,
        or as :func:`pairx.options` says.
    engine : {"array", "native", "compiled"}, optional
        Force the broadcast of differences, the matrix product, or machine code (extra ``jit``).
    precision : {"exact", "fast"}, optional
        ``"fast"`` takes a matrix product without computing again what cancellation spoilt.
    **params
        The metric's own: ``p`` (minkowski), ``V`` (seuclidean), ``VI`` or ``cov`` (mahalanobis), ``base`` (jensenshannon),
        ``normalize`` (hamming, kl_divergence); or what a callable takes.

    Returns
    -------
    array, shape (..., m, n)
        In the library, on the device and in the dtype of the inputs.

    Raises
    ------
    TypeError
        Two libraries in one call, or a dtype that the metric does not take.
    ValueError
        Shapes, parameters or values that do not fit, or a budget below one pair.
    MemoryError
        The result itself does not fit, before any work.

    Notes
    -----
    Formulas and sources stand in the table of metrics, ``pairx.METRICS[name].formula``. Gradients pass through PyTorch,
    TensorFlow and JAX, are finite at distance 0, and keep to the budget, too.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.cdist(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0]]))
    array([[0.],
           [5.]])
    """
    key = None
    if type(y) is type(x) and out is None and w is None and _short(type(x)) and (backend := of_type(type(x))).unwatched(x, y):
        # What was decided for arrays like these is not decided again.
        a, b = backend.host(x), backend.host(y)
        key = (a.shape, b.shape, a.strides, b.strides, a.dtype, b.dtype, a.flags.aligned, b.flags.aligned, metric, out_dtype, zero,
               nan_policy, max_bytes, engine, precision, backend.name, *sorted(params.items()))  # fmt: skip
        try:
            known = _QUICK.get(key)
        except TypeError:  # an argument that cannot be right: it will be told so
            key = known = None
        if known is not None and known[0] is plans.current() and not calls.asked():
            return backend.guest(known[1](a, b))
    call = Call("cdist", out, w, out_dtype, zero, nan_policy, max_bytes, engine, precision, params)
    task = matrix_task(call, x, y, metric, "matrix")
    result = _run(task)
    if isinstance(task, Task) and task.plan.blocks == 1 and nan_policy != "raise":
        _remember(key, task, x, y, result)
    return result


def pdist(
    x: Array,
    metric: Metric = "euclidean",
    *,
    out: Array | None = None,
    w: Array | None = None,
    out_dtype: Any = None,
    zero: str = "finite",
    nan_policy: str = "propagate",
    max_bytes: int | str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    **params: Any,
) -> Array:
    """Distances between each two rows of ``x``, condensed: row by row the part above the diagonal.

    Parameters
    ----------
    x : array, shape (..., n, d)
        The rows; see :func:`cdist` for this and all other parameters.
    metric, out, w, out_dtype, zero, nan_policy, max_bytes, engine, precision, **params
        As in :func:`cdist`.

    Returns
    -------
    array, shape (..., n (n - 1) / 2)
        :func:`squareform` makes it square.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.pdist(np.array([[0.0], [1.0], [3.0]]), "cityblock")
    array([1., 3., 2.])
    """
    call = Call("pdist", out, w, out_dtype, zero, nan_policy, max_bytes, engine, precision, params)
    return _run(matrix_task(call, x, None, metric, "condensed"))


def paired(
    x: Array,
    y: Array | None = None,
    metric: Metric = "euclidean",
    *,
    pairs: Any = None,
    out: Array | None = None,
    w: Array | None = None,
    out_dtype: Any = None,
    zero: str = "finite",
    nan_policy: str = "propagate",
    max_bytes: int | str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    **params: Any,
) -> Array:
    """Distances row by row, or of chosen pairs of rows.

    Parameters
    ----------
    x : array, shape (..., d), or (..., m, d) with ``pairs``
        The one side; two vectors give a scalar.
    y : array, shape (..., d), or (..., n, d) with ``pairs``
        The other side; leading axes broadcast. With ``pairs`` it may be left away: ``x`` again.
    pairs : (i, j), optional
        Two integer arrays of shape (P,): distances of ``x[..., i[k], :]`` and ``y[..., j[k], :]``. Only a tile of them
        is gathered at a time.
    metric, out, w, out_dtype, zero, nan_policy, max_bytes, engine, precision, **params
        As in :func:`cdist`.

    Returns
    -------
    array, shape (...) or (..., P)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    >>> pairx.paired(x, x[::-1])
    array([1., 0., 1.])
    >>> pairx.paired(x, pairs=([0, 1], [1, 1]))
    array([5., 0.])
    """
    call = Call("paired", out, w, out_dtype, zero, nan_policy, max_bytes, engine, precision, params)
    if pairs is None and y is None:
        raise TypeError("paired needs y, or pairs=(i, j) to choose pairs of rows of x.")
    backend = find(x=x, y=y)
    x, y = backend.coerce(x, "x"), None if y is None else backend.coerce(y, "y")
    if callable(metric):
        from .callables import rows

        return rows(backend, call, x, y, metric, pairs)
    sx = backend.shape(x)
    sy = sx if y is None else backend.shape(y)
    if pairs is None:
        check.at_least("x", sx, 1, "(..., d)")
        check.at_least("y", sy, 1, "(..., d)")
        check.equal_size("x", sx, "y", sy, -1, "numbers of features")
        return _run(call.task(backend, lookup(metric), "rows", x, y, check.broadcast(sx[:-1], sy[:-1])))
    check.at_least("x", sx, 2, "(..., m, d)")
    check.at_least("y", sy, 2, "(..., n, d)")
    check.equal_size("x", sx, "y", sy, -1, "numbers of features")
    i, j = check.indices(backend, pairs, x, sx[-2], sy[-2])
    lead = check.broadcast(sx[:-2], sy[:-2])
    return _run(call.task(backend, lookup(metric), "chosen", x, y, (*lead, backend.shape(i)[0]), pairs=(i, j)))


def gram(
    x: Array,
    y: Array | None = None,
    kernel: str = "rbf",
    *,
    out: Array | None = None,
    w: Array | None = None,
    out_dtype: Any = None,
    max_bytes: int | str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    **params: Any,
) -> Array:
    """Kernel matrix between the rows of ``x`` and ``y``, by the names and defaults of scikit-learn.

    Parameters
    ----------
    x, y : array, shapes (..., m, d) and (..., n, d)
        As in :func:`cdist`.
    kernel : str
        linear, polynomial, sigmoid, rbf, laplacian, cosine, chi2 or additive_chi2.
    out, w, out_dtype, max_bytes, engine, precision
        As in :func:`cdist`.
    **params
        ``gamma`` (default 1 / d; chi2: 1), ``degree`` (3) and ``coef0`` (1), where the kernel has them.

    Returns
    -------
    array, shape (..., m, n)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.gram(np.array([[0.0], [1.0]]), kernel="rbf", gamma=1.0).round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])
    """
    call = Call("gram", out, w, out_dtype, "finite", "propagate", max_bytes, engine, precision, params)
    return _run(matrix_task(call, x, y, kernel, "matrix", kind="kernel"))


def squareform(x: Array, force: str = "no", checks: bool = True) -> Array:
    """From a condensed vector of distances to the square matrix, or back.

    Parameters
    ----------
    x : array, shape (..., n (n - 1) / 2) or (..., n, n)
        Where the last two axes are equal it is taken for matrices, else for condensed vectors.
    force : {"no", "tomatrix", "tovector"}
        Say which it is: a batch of condensed vectors may happen to be square.
    checks : bool
        Refuse a matrix that is not symmetric or has no zero diagonal (eager arrays only).

    Returns
    -------
    array, shape (..., n, n) or (..., n (n - 1) / 2)

    Raises
    ------
    ValueError
        If the length of a condensed vector is not n (n - 1) / 2 for any n, or the checks fail.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.squareform(np.array([1.0, 2.0, 3.0]))
    array([[0., 1., 2.],
           [1., 0., 3.],
           [2., 3., 0.]])
    """
    plans.choice("force", force, ("no", "tomatrix", "tovector"))
    backend = find(x=x)
    xp, x = backend.xp, backend.coerce(x, "x")
    shape = backend.shape(x)
    check.at_least("x", shape, 1, "(..., n (n - 1) / 2)")
    square = len(shape) > 1 and isinstance(shape[-1], int) and shape[-1] == shape[-2]
    to_vector = force == "tovector" or (force == "no" and square)
    if to_vector and not square:
        raise ValueError(f"x has shape {check.shown(shape)}: expected square matrices in the last two axes.")
    if not isinstance(shape[-1], int):
        raise ValueError(f"x has shape {check.shown(shape)}: squareform needs to know its last axis.")
    with backend.quiet():
        device = backend.device(x)
        if to_vector:
            n = shape[-1]
            if checks and not backend.traced(x):
                off = xp.max(xp.abs(x - xp.matrix_transpose(x))) if math.prod(shape) else 0.0
                top = xp.max(xp.abs(xp.linalg.diagonal(x))) if math.prod(shape) else 0.0
                if bool(off > 1e-8) or bool(top > 1e-8):
                    raise ValueError("x is not a distance matrix: it must be symmetric with a zero diagonal (checks=False skips this).")
            k = xp.arange(n * (n - 1) // 2, device=device)
            i, j = pair_at(xp, k, n, device)
            return xp.take(xp.reshape(x, (*shape[:-2], n * n)), i * n + j, axis=-1)
        n = (1 + math.isqrt(1 + 8 * shape[-1])) // 2
        if n * (n - 1) // 2 != shape[-1]:
            raise ValueError(f"x has {shape[-1]} entries in its last axis, which is not n (n - 1) / 2 for any n.")
        if n == 1:
            return xp.zeros((*shape[:-1], 1, 1), dtype=x.dtype, device=device)
        i = xp.expand_dims(xp.arange(n, device=device), axis=1)
        j = xp.expand_dims(xp.arange(n, device=device), axis=0)
        low, high = xp.minimum(i, j), xp.maximum(i, j)
        index = xp.where(low == high, xp.zeros_like(low + high), low * n - low * (low + 1) // 2 + high - low - 1)
        full = xp.reshape(xp.take(x, xp.reshape(index, (-1,)), axis=-1), (*shape[:-1], n, n))
        return xp.where(low == high, xp.zeros_like(full), full)


def matrix_task(call: Call, x: Array, y: Array | None, metric: Metric, layout: Layout, kind: str = "distance") -> Task | Array:
    """The task of all pairs; the result itself, of a metric that is the caller's own function."""
    backend = find(x=x, y=y)
    x, y = backend.coerce(x, "x"), None if y is None else backend.coerce(y, "y")
    sx = backend.shape(x)
    sy = sx if y is None else backend.shape(y)
    check.at_least("x", sx, 2, "(..., m, d); for two vectors use paired")
    check.at_least("y", sy, 2, "(..., n, d); for two vectors use paired")
    if callable(metric):
        from .callables import matrix

        return matrix(backend, call, x, y, metric, layout)
    check.equal_size("x", sx, "y", sy, -1, "numbers of features")
    row = lookup(metric, kind)
    lead = check.broadcast(sx[:-2], sy[:-2])
    return call.task(backend, row, layout, x, y, (*lead, sx[-2], sy[-2]))


_PLAIN: set[type] = set()
"""Types of arrays whose calls may be repeated without a plan: those that a small call has been compiled for."""
_QUICK: dict[Any, tuple[plans.Options, Callable[[Array, Array], Array], int]] = {}
"""Form of a call -> the options it came under, its function, and the bytes that this keeps."""
KEPT = 16 << 20
"""Bytes that all of them keep."""
SMALL = 1 << 18
"""Terms of a call that takes less time than its plan."""


@trace_constant
def _short(kind: type) -> bool:
    """Whether calls on arrays of a type may be repeated so; torch.compile need not look again when there are more types."""
    return kind in _PLAIN


def _remember(key: Any, task: Task, x: Array, y: Array, result: Array) -> None:
    """Keep the function of a small call between two sets, for arrays of the same form."""
    if task.y is None or task.aux or task.out is not None or calls.asked() or len(task.plan.shape) != 2:
        return
    if math.prod(task.plan.shape) * task.x.shape[-1] > SMALL or task.x is not x or task.y is not y:
        return
    kernel, backend = task.kernel, task.backend
    if type(x) is not type(y) or not backend.unwatched(x, y):
        return
    native = kernel is None and task.rule is not None and task.plan.engine == "native"
    if native:
        after = backend.product(task.rule, (x, y))
        kernel = None if isinstance(after, str) else after
    if kernel is None or (native and not kernel.ready()):
        return
    a, b, found = (backend.host(v) for v in (x, y, result))
    if not kernel.plain(a, b, found):
        return
    _PLAIN.add(type(x))
    quick = kernel.quick(a, b, found) if key is not None else None
    if quick is not None:
        size = 2 * (a.nbytes + b.nbytes)  # the rows, prepared and packed
        if len(_QUICK) >= 1024 or size + sum(kept for *_, kept in list(_QUICK.values())) > KEPT:
            _QUICK.clear()
        _QUICK[key] = plans.current(), quick, size


def _run(task: Task | Array) -> Array:
    if not isinstance(task, Task):
        return task
    if calls.asked():
        return task.plan
    return task.backend.run(task)
