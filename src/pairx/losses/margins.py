"""Softmax over classes by the cosine, with a margin for the own class."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._classes import Classes, classes, half_turn, norm, sines
from ._core import loss

Array = Any


def _best(xp: Any, s: Array) -> Array:
    return xp.max(s, axis=-1)


def _answer(found: Classes, target: Array, factor: Any, reduction: str, weights: Any, return_count: bool) -> Any:
    """Cross-entropy of factor * cosine, where the own class has factor * ``target`` instead."""
    a, xp = found.a, found.a.xp
    rest = found.rest(factor, lambda s: _best(xp, s))
    values = numeric.softplus(a, rest - scoring.bounded(a, factor * target))
    return core.reduce(a, values, reduction=reduction, weights=weights, active=found.active, return_count=return_count)


@loss(
    "proxies",
    inputs="proxies",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{\cos\theta_{y_i} / t}}{\sum_c e^{\cos\theta_c / t}}",
    source="Zhai and Wu 2018, Classification is a Strong Baseline for Deep Metric Learning, eq. 3",
    pairs=True,
)
def normalized_softmax(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    temperature: Any = 0.05,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Normalised softmax: cross-entropy of the cosines with each class's vector over a temperature.

    Parameters
    ----------
    x : array, shape (m, d)
    proxies : array, shape (classes, d)
        The classes' vectors: the transposed weight of a last layer without bias.
    labels : array_like of int, shape (m,) or (m, 1)
        Class numbers; a negative one is no class.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    reduction : {"mean", "sum", "none"}
        "mean" over rows with a class; "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of rows that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError
        A label of ``classes`` or above, where labels can be seen; shapes that do not fit.
    TypeError
        Labels that are not integers.

    Notes
    -----
    A row without a class contributes 0 and leaves the mean; with one class only the loss is 0.

    References
    ----------
    Zhai and Wu 2018, Classification is a Strong Baseline for Deep Metric Learning.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.normalized_softmax(np.array([[2.0, 0.0]]), np.eye(2), [0], temperature=1.0)), 6)
    0.313262
    """
    a = core.arrays(x=x, proxies=proxies)
    t = a.number("temperature", temperature, positive=True, zero_ok=False)
    found = classes(a, "proxies", labels, max_bytes)
    return _answer(found, found.cosines()[:, 0], 1.0 / t, reduction, weights, return_count)


@loss(
    "proxies",
    inputs="proxies",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{s (\cos\theta_{y_i} - m)}}{e^{s (\cos\theta_{y_i} - m)} + \sum_{c \neq y_i} e^{s \cos\theta_c}}",
    source="Wang et al. 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, eq. 4",
    pairs=True,
)
def cosface(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    scale: Any = 64.0,
    margin: Any = 0.35,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """CosFace: a softmax of cosines where the own class's must be larger by a margin.

    Parameters
    ----------
    x, proxies, labels
        As in :func:`normalized_softmax`.
    scale, margin : float or scalar array
        s and m; arrays may be learnt.
    reduction, weights, return_count, max_bytes
        As in :func:`normalized_softmax`.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`normalized_softmax`.

    References
    ----------
    Wang et al. 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, eq. 4.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.cosface(np.array([[2.0, 0.0]]), np.eye(2), [0], scale=1.0, margin=0.5)), 6)
    0.474077
    """
    a = core.arrays(x=x, proxies=proxies)
    by, m = a.number("scale", scale, positive=True), a.number("margin", margin)
    found = classes(a, "proxies", labels, max_bytes)
    return _answer(found, found.cosines()[:, 0] - m, by, reduction, weights, return_count)


def _arc(found: Classes, margin: float) -> Array:
    """(m, k) cos(theta + margin); beyond pi a line that goes on falling."""
    a, xp = found.a, found.a.xp
    c = found.cosines()
    turned = c * math.cos(margin) - sines(a, xp.expand_dims(found.batch.x, axis=1), found.own, c) * math.sin(margin)
    return xp.where(c >= -math.cos(margin), turned, c - margin * math.sin(margin))


@loss(
    "proxies",
    inputs="proxies",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{s \cos(\theta_{y_i} + m)}}{e^{s \cos(\theta_{y_i} + m)} + \sum_{c \neq y_i} e^{s \cos\theta_c}}",
    source="Deng et al. 2019, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, eq. 3",
    pairs=True,
)
def arcface(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    scale: Any = 64.0,
    margin: float = 0.5,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """ArcFace: a softmax of cosines where the angle with the own class's vector is taken larger by a margin.

    Parameters
    ----------
    x, proxies, labels
        As in :func:`normalized_softmax`.
    scale : float or scalar array
        s; an array may be learnt.
    margin : float
        m in radians, 0 to pi/2.
    reduction, weights, return_count, max_bytes
        As in :func:`normalized_softmax`.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`normalized_softmax`; a margin outside 0 to pi/2.

    Notes
    -----
    Where theta + m exceeds pi, cos(theta) - m sin(m) stands for cos(theta + m), as in the authors' code: the loss goes on growing
    with theta. Gradients are finite everywhere: the sine comes of |u - w| |u + w| / 2 for angles near 0 and pi, and at
    theta = 0 and pi, where the angle has a kink, it has slope 0.

    References
    ----------
    Deng et al. 2019, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, eq. 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.arcface(np.array([[2.0, 0.0]]), np.eye(2), [0], scale=1.0, margin=0.5)), 6)
    0.347685
    """
    a = core.arrays(x=x, proxies=proxies)
    by, m = a.number("scale", scale, positive=True), half_turn("margin", margin)
    found = classes(a, "proxies", labels, max_bytes)
    return _answer(found, _arc(found, m)[:, 0], by, reduction, weights, return_count)


@loss(
    "proxies",
    inputs="centers",
    unit="row",
    mean="rows with a class",
    formula=r"\mathrm{ArcFace\ with\ } \cos\theta_c = \max_k \cos(x_i, w_{ck})",
    source="Deng et al. 2020, Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces, eq. 3",
    pairs=True,
)
def subcenter_arcface(
    x: Array,
    centers: Array,
    labels: Any,
    *,
    scale: Any = 64.0,
    margin: float = 0.5,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Sub-center ArcFace: ArcFace with several vectors for each class, of which the nearest counts.

    Parameters
    ----------
    x : array, shape (m, d)
    centers : array, shape (classes, k, d)
        k for each class.
    labels, scale, margin, reduction, weights, return_count, max_bytes
        As in :func:`arcface`.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`arcface`.

    Notes
    -----
    Centers at the same angle share the gradient equally.

    References
    ----------
    Deng et al. 2020, Sub-center ArcFace, eq. 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> centers = np.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    >>> round(float(pairx.losses.subcenter_arcface(np.array([[3.0, 0.0]]), centers, [0], scale=1.0)), 6)
    0.347685
    """
    a = core.arrays(x=x, centers=centers)
    by, m = a.number("scale", scale, positive=True), half_turn("margin", margin)
    found = classes(a, "centers", labels, max_bytes, several=True)
    # cos(theta + m) falls with theta, also beyond pi, so the largest belongs to the nearest center.
    return _answer(found, _best(a.xp, _arc(found, m)), by, reduction, weights, return_count)


@loss(
    "proxies",
    inputs="proxies",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{s |x_i| \psi(\theta_{y_i})}}{e^{s |x_i| \psi(\theta_{y_i})} + \sum_{c \neq y_i} e^{s |x_i| \cos\theta_c}}, "
    r"\quad \psi(\theta) = (-1)^k \cos(m \theta) - 2 k, \quad k = \lfloor m \theta / \pi \rfloor",
    source="Liu et al. 2017, SphereFace: Deep Hypersphere Embedding for Face Recognition, eq. 7",
    pairs=True,
)
def sphereface(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    scale: Any = 1.0,
    margin: int = 4,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """SphereFace: a softmax of lengths times cosines where the angle with the own class's vector is multiplied by a margin.

    Parameters
    ----------
    x, proxies, labels
        As in :func:`normalized_softmax`; the rows' lengths count.
    scale : float or scalar array
        s; an array may be learnt.
    margin : int
        m, 1 or more.
    reduction, weights, return_count, max_bytes
        As in :func:`normalized_softmax`.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`normalized_softmax`; a margin that is no whole number of 1 or more.

    Notes
    -----
    cos(m theta) is taken as a polynomial of cos(theta), so there is no infinite slope at theta = 0 and pi. The annealing of the
    authors' training (a mixture with cos(theta)) is the caller's.

    References
    ----------
    Liu et al. 2017, SphereFace: Deep Hypersphere Embedding for Face Recognition, eq. 7.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.sphereface(np.array([[2.0, 0.0]]), np.eye(2), [0])), 6)
    0.126928
    """
    a = core.arrays(x=x, proxies=proxies)
    by, m = a.number("scale", scale, positive=True), checks.integer("margin", margin)
    if m < 1:
        raise ValueError(f"margin={margin!r}: expected an int of 1 or more.")
    found = classes(a, "proxies", labels, max_bytes)
    xp = a.xp
    c = found.cosines()[:, 0]
    before, turned = xp.ones_like(c), c
    for _ in range(m - 1):
        before, turned = turned, 2.0 * c * turned - before
    k = xp.zeros_like(c)
    for j in range(1, m):
        k = k + xp.astype(c <= math.cos(j * math.pi / m), a.compute)
    target = (1.0 - 2.0 * (k % 2.0)) * turned - 2.0 * k
    return _answer(found, target, scoring.bounded(a, by * norm(a, a["x"])), reduction, weights, return_count)
