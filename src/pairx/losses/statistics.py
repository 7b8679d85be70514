"""Losses of a batch's statistics: variances and covariances of the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import checks
from . import _core as core
from . import _score as scoring
from ._core import loss

Array = Any


def _number(a: core.Arrays, n: Any) -> Array:
    """A size as a number of the computing dtype; it may be unknown until the graph runs."""
    like = next(v for v in a.values.values() if v is not None)
    one = a.xp.ones((), dtype=a.compute, device=a.backend.device(like))
    return one * n if isinstance(n, int) else a.xp.astype(n, a.compute)


def _centred(a: core.Arrays, x: Array) -> Array:
    """Columns with mean 0. Differences from the first row come first: a constant column is 0 exactly, not its rounding error."""
    xp = a.xp
    size = a.backend.shape(x)[0]
    if isinstance(size, int) and size == 0:
        return x
    n, moved = _number(a, size), x - a.backend.detach(x[:1, ...])
    return moved - xp.sum(moved / xp.maximum(n, xp.ones_like(n)), axis=0, keepdims=True)


def _features(
    a: core.Arrays, function: Callable[..., tuple[Array, ...]], x: Array, y: Array, max_bytes: Any, buffers: int = 8
) -> tuple[Array, ...]:
    """``function(products, same)`` for blocks (b, d) of the products of the features of ``x`` and ``y`` (d, rows): (b,) arrays."""
    xp, d = a.xp, a.backend.shape(x)[0]

    def run(cut: Any, whole: Any) -> tuple[Array, ...]:
        return function(scoring.dots(a, cut[0], whole[0]), xp.expand_dims(cut[1], axis=-1) == xp.expand_dims(whole[1], axis=0))

    room = core.budget(max_bytes)
    number = core.rows(a, d)
    return tuple(a.backend.blockwise(a.backend, run, (x, number), (y, number), core.block_rows(a, d, d, buffers, room)))


def _decorrelation(a: core.Arrays, x: Array, max_bytes: Any) -> Array:
    """Sum of squares of the products of different centred columns, of ``x`` (rows, d); +inf where that is not representable."""
    xp = a.xp
    columns = xp.matrix_transpose(x)
    size = a.backend.detach(xp.max(xp.concat([xp.abs(xp.reshape(x, (-1,))), xp.zeros_like(core.rows(a, 1), dtype=a.compute)])))
    size = xp.where((size > 0) & xp.isfinite(size), size, xp.ones_like(size))
    u = columns / size

    def block(c: Array, same: Array) -> tuple[Array, ...]:
        c = xp.where(same, xp.zeros_like(c), c)
        return (xp.sum(c * c, axis=-1),)

    total = xp.sum(_features(a, block, u, u, max_bytes)[0])
    with a.backend.quiet():  # +inf is an answer
        scale = (size * size) * (size * size)
        fixed = a.backend.detach(total)
        fits = xp.isfinite(scale * fixed) | xp.isnan(fixed)  # NaN stays
    return xp.where(fits, xp.where(fits, scale, xp.ones_like(scale)) * total, xp.full_like(total, float("inf")))


def _views(x: Array, y: Array) -> core.Arrays:
    a = core.arrays(x=x, y=y)
    core.vectors(a, "x", "y")
    core.same_shape(a, "x", "y")
    return a


@loss(
    "statistics",
    inputs="two views of a batch",
    unit="batch",
    mean="the one batch",
    formula=r"\frac{\lambda}{n d} \sum_i |x_i - y_i|^2 + \frac{\mu}{2 d} \sum_j [h(x^j) + h(y^j)] + \frac{\nu}{d} \sum_{j \neq k} "
    r"[C(x)_{jk}^2 + C(y)_{jk}^2], \quad h(z) = \max(0, 1 - \sqrt{\mathrm{Var}(z) + \epsilon})",
    source="Bardes et al. 2022, VICReg, eq. 6, divided as in the authors' code",
    pairs=True,
)
def vicreg(
    x: Array,
    y: Array,
    *,
    invariance: Any = 25.0,
    variance: Any = 25.0,
    covariance: Any = 1.0,
    target: Any = 1.0,
    eps: Any = 1e-4,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """VICReg: two views agree, each feature varies, and no two features vary together.

    Parameters
    ----------
    x, y : array, shape (n, d)
        Row i of both is one item.
    invariance, variance, covariance : float or scalar array
        Factors of the three terms: lambda, mu and nu.
    target : float or scalar array
        The standard deviation (the paper's gamma) above which a feature varies enough.
    eps : float
        Added to variances, above 0: part of the definition.
    reduction : {"mean", "sum", "none"}
        The batch is the one unit: all three have shape ().
    weights : array_like, shape (), optional
        Of the batch.
    return_count : bool
        Answer ``(loss, 1)``; 0 for a batch without rows.
    max_bytes : int or str, optional
        Scratch of the covariances, which are never (d, d) at once unless that fits.

    Returns
    -------
    array, shape ()

    Raises
    ------
    ValueError
        Shapes that are not the same.

    Notes
    -----
    As in the authors' code, the first term is a mean over features too, and the second a mean over both views: the paper's eq. 5
    and 6 are ``invariance=25 * d, variance=50``. Variances and covariances divide by n - 1; with fewer than two rows their
    terms are 0.

    References
    ----------
    Bardes, Ponce and LeCun 2022, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 2.0], [-1.0, -2.0]])
    >>> round(float(pairx.losses.vicreg(x, x)), 6)
    32.0
    """
    a = _views(x, y)
    xp = a.xp
    factors = [a.number(k, v) for k, v in (("invariance", invariance), ("variance", variance), ("covariance", covariance))]
    top, low = a.number("target", target), checks.number("eps", eps, positive=True, zero_ok=False)
    n, d = (_number(a, size) for size in a.shape("x"))
    one = xp.ones_like(n)
    features = xp.maximum(d, one)
    with a.backend.quiet():  # +inf is an answer
        gap = a["x"] - a["y"]
        result = factors[0] * (xp.sum(gap * gap) / (xp.maximum(n, one) * features))
        several = n > 1
        spare = xp.maximum(n - 1.0, one)
        for name in ("x", "y"):
            z = _centred(a, a[name])
            short = top - xp.sqrt(xp.sum(z * z, axis=0) / spare + low)
            hinge = xp.sum(xp.where(short > 0, short, xp.zeros_like(short))) / (2.0 * features)
            joint = _decorrelation(a, z / xp.sqrt(spare), max_bytes) / features
            terms = factors[1] * hinge + factors[2] * joint
            result = result + xp.where(several, terms, xp.zeros_like(terms))
    return core.reduce(a, result, reduction=reduction, weights=weights, active=n > 0, return_count=return_count)


@loss(
    "statistics",
    inputs="two views of a batch",
    unit="batch",
    mean="the one batch",
    formula=r"\sum_j (1 - C_{jj})^2 + \lambda \sum_{j \neq k} C_{jk}^2, \quad C_{jk} = \mathrm{corr}(x^j, y^k)",
    source="Zbontar et al. 2021, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, eq. 1 and 2",
    pairs=True,
)
def barlow_twins(
    x: Array,
    y: Array,
    *,
    redundancy: Any = 0.005,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Barlow Twins: the correlations of the features of two views become the identity.

    Parameters
    ----------
    x, y : array, shape (n, d)
        Row i of both is one item.
    redundancy : float or scalar array
        lambda; an array may be learnt.
    reduction : {"mean", "sum", "none"}
        The batch is the one unit: all three have shape ().
    weights : array_like, shape (), optional
        Of the batch.
    return_count : bool
        Answer ``(loss, 1)``; 0 for a batch of fewer than two rows, which has no correlations.
    max_bytes : int or str, optional
        Scratch of the correlations, which are never (d, d) at once unless that fits.

    Returns
    -------
    array, shape ()

    Raises
    ------
    ValueError
        Shapes that are not the same.

    Notes
    -----
    Correlations lie within -1 and 1, as in eq. 2. (The paper's pseudo-code mixes divisors n and n - 1, which makes them smaller by
    (n - 1) / n.) A constant feature correlates with nothing: its correlations are 0, with gradient 0. No epsilon is added.

    References
    ----------
    Zbontar et al. 2021, Barlow Twins: Self-Supervised Learning via Redundancy Reduction.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(pairx.losses.barlow_twins(x, x, redundancy=0.25)), 6)
    0.5
    """
    a = _views(x, y)
    xp = a.xp
    factor = a.number("redundancy", redundancy)
    first, second = (scoring.unit(a, xp.matrix_transpose(_centred(a, a[k]))) for k in ("x", "y"))

    def block(c: Array, same: Array) -> tuple[Array, ...]:
        zero = xp.zeros_like(c)
        own, cross = xp.where(same, 1.0 - c, zero), xp.where(same, zero, c)
        return xp.sum(own * own, axis=-1), xp.sum(cross * cross, axis=-1)

    own, cross = _features(a, block, first, second, max_bytes, buffers=10)
    result = xp.sum(own) + factor * xp.sum(cross)
    active = _number(a, a.shape("x")[0]) > 1
    return core.reduce(a, result, reduction=reduction, weights=weights, active=active, return_count=return_count)


@loss(
    "statistics",
    inputs="a batch",
    unit="batch",
    mean="the one batch",
    formula=r"\frac{1}{2} \sum_{j \neq k} C_{jk}^2, \quad C = \frac{1}{n} \sum_i (x_i - \bar x) (x_i - \bar x)^T",
    source="Cogswell et al. 2016, Reducing Overfitting in Deep Networks by Decorrelating Representations, eq. 2",
    pairs=True,
)
def decov(
    x: Array,
    *,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """DeCov: half the sum of the squared covariances of different features.

    Parameters
    ----------
    x : array, shape (n, d)
    reduction : {"mean", "sum", "none"}
        The batch is the one unit: all three have shape ().
    weights : array_like, shape (), optional
        Of the batch.
    return_count : bool
        Answer ``(loss, 1)``; 0 for a batch without rows.
    max_bytes : int or str, optional
        Scratch of the covariances, which are never (d, d) at once unless that fits.

    Returns
    -------
    array, shape ()

    Raises
    ------
    ValueError
        An ``x`` that does not have two axes.

    Notes
    -----
    Covariances divide by n. +inf, with gradient 0, where the sum is not representable.

    References
    ----------
    Cogswell et al. 2016, Reducing Overfitting in Deep Networks by Decorrelating Representations, eq. 2.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.decov(np.array([[1.0, 2.0], [-1.0, -2.0]]))), 6)
    4.0
    """
    a = core.arrays(x=x)
    core.vectors(a, "x")
    xp = a.xp
    n = _number(a, a.shape("x")[0])
    result = 0.5 * _decorrelation(a, _centred(a, a["x"]) / xp.sqrt(xp.maximum(n, xp.ones_like(n))), max_bytes)
    return core.reduce(a, result, reduction=reduction, weights=weights, active=n > 0, return_count=return_count)
