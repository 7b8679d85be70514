"""Losses of triplets that are told, row by row or by their numbers: is the anchor closer to its positive than to its negative?"""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from .. import plan as plans
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._core import loss

Array = Any

MEAN_OVER = ("all", "active")


def short(a: core.Arrays, far: Array) -> Array:
    """A distance that overflowed becomes the largest there is, so that nothing is inf - inf."""
    return a.xp.clip(far, None, float(a.xp.finfo(far.dtype).max))


def _smaller(xp: Any, p: Array, q: Array) -> Array:
    """The minimum of two; equal ones share the gradient."""
    return xp.where(p < q, p, xp.where(q < p, q, 0.5 * p + 0.5 * q))


def gap(a: core.Arrays, near: Array, far: Array, squared: bool) -> Array:
    """near - far, or the difference of their squares, which neither cancels nor overflows on the way."""
    far = short(a, far)
    return (near - far) * (0.5 * near + 0.5 * far) * 2.0 if squared else near - far


def difference_of_squares(a: core.Arrays, u: Array, v: Array) -> Array:
    """|u|^2 - |v|^2 of rows, whose slope is that of the squares themselves: no norm is differentiated where it is large or 0."""
    xp = a.xp
    fixed = [a.backend.detach(w) for w in (u, v)]
    plain = scoring.Score("euclidean", None)
    near, far = (plain.paired_apart(a, w, xp.zeros_like(w)) for w in fixed)
    up, down = (xp.sum((w + f) * (w - f), axis=-1) for w, f in zip((u, v), fixed, strict=True))  # 0, with a slope
    return gap(a, near, far, True) + up - down


def compared(metric: Any, similarity: str | None, squared: bool) -> scoring.Score:
    """How rows are compared; squares are of distances only."""
    how = scoring.score(metric, similarity, default_metric="euclidean")
    if squared and how.similarity is not None:
        raise ValueError(f"squared=True: of a metric, not of similarity={how.similarity!r}.")
    return how


def _answer(a: core.Arrays, values: Array, there: Array | None, mean_over: str, reduction: str, weights: Any, return_count: bool) -> Any:
    active = there
    if mean_over == "active":
        active = values != 0 if there is None else there & (values != 0)
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)


def _told(a: core.Arrays, triplets: Any, sizes: tuple[Any, ...]) -> tuple[Array, ...]:
    """Three index lists of one length; -1 stands for no triplet."""
    xp = a.xp
    try:
        lists = tuple(a.bring(t) for t in triplets)
        if len(lists) != 3:
            raise TypeError
    except TypeError:
        raise TypeError("triplets: expected three lists of row numbers, (anchors, positives, negatives).") from None
    for which, found, size in zip(("anchors", "positives", "negatives"), lists, sizes, strict=True):
        shape = a.backend.shape(found)
        if len(shape) != 1 or (a.backend.kind(a.backend, found.dtype) != "integral" and shape[0] != 0):
            raise TypeError(
                f"triplets: the {which} have shape {checks.shown(shape)} and dtype {checks.dtype_name(found.dtype)}: expected integers "
                "of shape (triplets,)."
            )
        if isinstance(shape[0], int) and shape[0] and isinstance(size, int) and not a.backend.traced(found):
            low, high = int(xp.min(found)), int(xp.max(found))
            if low < -1 or high >= size:
                raise IndexError(f"triplets: the {which} reach from {low} to {high}, and there are {size} rows (-1: no triplet).")
        checks.equal_size("triplets: anchors", a.backend.shape(lists[0]), which, shape, 0, "lengths")
    return tuple(xp.astype(t, xp.int64) for t in lists)


def _walk(
    a: core.Arrays, how: scoring.Score, triplets: Any, function: Any, extra: tuple[Array, ...], max_bytes: int | str | None
) -> tuple[Array, Array]:
    """``function(x, y, z, *extra)`` of the rows that the lists name, a block of triplets at a time: values, and which there are."""
    xp = a.xp
    core.vectors(a, "anchor", "positive", "negative")
    x = how.rows(a, a["anchor"])
    y = x if a["positive"] is None else how.rows(a, a["positive"])
    z = y if a["negative"] is None else how.rows(a, a["negative"])
    sizes = tuple(a.backend.shape(v)[0] for v in (x, y, z))
    lists = _told(a, triplets, sizes)
    m, d = a.backend.shape(lists[0])[0], a.backend.shape(x)[-1]
    none = tuple(isinstance(s, int) and s == 0 for s in sizes)
    if any(none) or (isinstance(m, int) and m == 0):  # every entry is -1 then
        zero = xp.zeros_like(xp.astype(lists[0], a.compute)) + 0.0 * sum(xp.sum(v) for v in (x, y, z))
        return zero, lists[0] != lists[0]

    def run(cut: tuple[Array, ...], whole: tuple[Array, ...]) -> tuple[Array, ...]:
        there = (cut[0] >= 0) & (cut[1] >= 0) & (cut[2] >= 0)
        rows = [xp.take(v, xp.where(i < 0, xp.zeros_like(i), i), axis=0) for v, i in zip(whole, cut, strict=False)]
        value = function(*rows, *whole[3:])
        return xp.where(there, value, xp.zeros_like(value)), there

    step = core.block_rows(a, m, d, 12, core.budget(max_bytes))
    found = a.backend.blockwise(a.backend, run, lists, (x, y, z, *extra), step)
    return found[0], found[1]


def _sets(a: core.Arrays) -> None:
    """Rows beside rows, of one shape."""
    if a["positive"] is None or a["negative"] is None:
        raise TypeError("positive, negative: pass both, row by row, or triplets=(anchors, positives, negatives).")
    core.same_shape(a, "anchor", "positive")
    core.same_shape(a, "anchor", "negative")
    if len(a.shape("anchor")) < 1:
        raise ValueError("anchor has shape (): expected (..., features).")


@loss(
    "triplets",
    inputs="triplet rows",
    unit="triplet",
    mean="triplets (mean_over='active': those with a loss above 0)",
    formula=r"\max(0, d(a, p) - d(a, n) + m)",
    source="Schroff et al. 2015, FaceNet, eq. 3 (squared); Balntas et al. 2016, eq. 3-5 (swap); Hermans et al. 2017 (soft)",
)
def triplet(
    anchor: Array,
    positive: Array | None = None,
    negative: Array | None = None,
    *,
    triplets: Any = None,
    margin: Any = 1.0,
    squared: bool = False,
    soft: bool = False,
    swap: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    mean_over: str = "all",
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Triplet loss: the anchor should be closer to its positive than to its negative, by a margin.

    Parameters
    ----------
    anchor, positive, negative : array, shape (..., d)
        Row by row, all of one shape.
    triplets : (anchors, positives, negatives), optional
        Three integer arrays of shape (triplets,), as a miner answers them: rows of ``anchor``, of ``positive`` (default: of
        ``anchor`` again) and of ``negative`` (default: of ``positive``). Only a block of them is gathered at a time. An entry of
        -1 is no triplet: it counts nowhere.
    margin : float or scalar array
        An array may be learnt.
    squared : bool
        Squared distances, as in FaceNet.
    soft : bool
        log(1 + e^z) instead of max(0, z).
    swap : bool
        The smaller of d(a, n) and d(p, n), which share the gradient where they are equal.
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        1 - cosine, or minus the dot product, instead of a distance.
    mean_over : {"all", "active"}
        What the mean divides by: all triplets, or those whose loss is not 0.
    reduction : {"mean", "sum", "none"}
        "none" has shape (...) or (triplets,).
    weights : array_like, shape (...) or (triplets,), optional
        Of the triplets; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of triplets that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients for ``triplets``, forward and backward.

    Returns
    -------
    array, shape (), (...) or (triplets,)

    Raises
    ------
    ValueError
        Shapes that differ: nothing is broadcast.
    IndexError
        A number of a row that is not there.

    Notes
    -----
    Nothing is added to the difference of two rows, where PyTorch's ``triplet_margin_loss`` adds 1e-6.

    References
    ----------
    Schroff et al. 2015, FaceNet, eq. 3; Balntas et al. 2016, Learning local feature descriptors with triplets; Hermans et al.
    2017, In defense of the triplet loss.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> a, p, n = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
    >>> float(pairx.losses.triplet(a, p, n))
    0.5
    >>> x = np.concatenate([a, p, n])
    >>> round(float(pairx.losses.triplet(x, triplets=([0, 1], [1, 0], [2, 2]))), 6)  # the second: 5 - sqrt(11.25) + 1
    1.572949
    """
    a = core.arrays(anchor=anchor, positive=positive, negative=negative, quadratic=scoring.quadratic(metric, similarity, squared))
    m = a.number("margin", margin)
    how = compared(metric, similarity, squared)
    plans.choice("mean_over", mean_over, MEAN_OVER)

    def values(x: Array, y: Array, z: Array, m: Any = m) -> Array:
        if squared and not swap and how.metric in ("euclidean", "l2"):
            found = difference_of_squares(a, x - y, x - z) + m
        else:
            near, far = how.paired_apart(a, x, y), how.paired_apart(a, x, z)
            if swap:
                far = _smaller(a.xp, far, how.paired_apart(a, y, z))
            found = gap(a, near, far, squared) + m
        return numeric.softplus(a, found) if soft else numeric.hinge(a, found)

    if triplets is not None:
        found, there = _walk(a, how, triplets, values, () if isinstance(m, float) else (m,), max_bytes)
        return _answer(a, found, there, mean_over, reduction, weights, return_count)
    _sets(a)
    return _answer(a, values(*(how.rows(a, v) for v in a.values.values())), None, mean_over, reduction, weights, return_count)


@loss(
    "triplets",
    inputs="triplet rows",
    unit="triplet",
    mean="triplets (mean_over='active': those with a loss above 0)",
    formula=r"\max(0, \|a - p\|^2 - 4 \tan^2(\alpha) \|n - \tfrac{a + p}{2}\|^2)",
    source="Wang et al. 2017, Deep Metric Learning with Angular Loss, eq. 6",
)
def triplet_angular(
    anchor: Array,
    positive: Array | None = None,
    negative: Array | None = None,
    *,
    triplets: Any = None,
    alpha: float = 45.0,
    normalize: bool = False,
    mean_over: str = "all",
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Angular loss of triplets: the angle at the negative, of the triangle with the pair's centre, should be below ``alpha``.

    :func:`angular` is its smooth form over a labelled batch.

    Parameters
    ----------
    anchor, positive, negative : array, shape (..., d)
        Row by row, all of one shape.
    triplets : (anchors, positives, negatives), optional
        Three integer arrays of shape (triplets,), as in :func:`triplet`.
    alpha : float
        Degrees, above 0 and below 90.
    normalize : bool
        Rows are brought to length 1 first.
    mean_over, reduction, weights, return_count, max_bytes
        As in :func:`triplet`.

    Returns
    -------
    array, shape (), (...) or (triplets,)

    References
    ----------
    Wang et al. 2017, Deep Metric Learning with Angular Loss, eq. 6.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> a, p, n = np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]]), np.array([[0.5, 0.0]])
    >>> round(float(pairx.losses.triplet_angular(a, p, n)), 6)  # 2^2 - 4 * 0.5^2
    3.0
    """
    a = core.arrays(anchor=anchor, positive=positive, negative=negative)
    tangent = tangent_of(alpha)
    how = scoring.Score(None, "cosine") if normalize else scoring.Score("euclidean", None)
    plans.choice("mean_over", mean_over, MEAN_OVER)

    def values(x: Array, y: Array, z: Array) -> Array:
        return numeric.hinge(a, difference_of_squares(a, x - y, tangent * ((z - x) + (z - y))))  # twice the way to the centre

    if triplets is not None:
        found, there = _walk(a, how, triplets, values, (), max_bytes)
        return _answer(a, found, there, mean_over, reduction, weights, return_count)
    _sets(a)
    return _answer(a, values(*(how.rows(a, v) for v in a.values.values())), None, mean_over, reduction, weights, return_count)


def tangent_of(alpha: float, name: str = "alpha") -> float:
    """Of an angle in degrees."""
    angle = checks.number(name, alpha, positive=True, zero_ok=False)
    if angle >= 90:
        raise ValueError(f"{name}={alpha!r}: expected degrees, above 0 and below 90.")
    return math.tan(math.radians(angle))
