"""Losses that compare rows with a learnt proxy, or several, of each class."""

from __future__ import annotations

from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._classes import class_numbers, classes, vectors_of
from ._core import loss

Array = Any


def _learnt(*values: Any) -> tuple[Array, ...]:
    """Those hyper-parameters that are arrays: blocks take them as such, so that gradients flow."""
    return tuple(v for v in values if not isinstance(v, float))


def _restored(values: tuple[Any, ...], whole: tuple[Array, ...]) -> list[Any]:
    """The hyper-parameters again, arrays from a block's own."""
    found = iter(whole)
    return [v if isinstance(v, float) else next(found) for v in values]


@loss(
    "proxies",
    inputs="proxies",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{-\lambda d(x_i, p_{y_i})^2}}{\sum_z e^{-\lambda d(x_i, p_z)^2}}",
    source="Movshovitz-Attias et al. 2017, No Fuss Distance Metric Learning using Proxies, eq. 6 (without the positive below)",
    pairs=True,
)
def proxy_nca(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    scale: Any = 1.0,
    include_positive: bool = True,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Proxy-NCA: the log share of a row's own proxy among all proxies.

    Parameters
    ----------
    x : array, shape (m, d)
    proxies : array, shape (classes, d)
        One for each class.
    labels : array_like of int, shape (m,) or (m, 1)
        Class numbers; a negative one is no class.
    scale : float or scalar array
        Multiplies distances (the inverse of a temperature); an array may be learnt.
    include_positive : bool
        Whether the own proxy counts in the denominator. The paper leaves it out, and its loss has no lower bound.
    similarity : {"cosine", "dot"}, optional
        Instead of minus the distance.
    metric : str or callable, optional
        A distance, taken as it is. Default: the squared Euclidean distance of rows and proxies of length 1.
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
        Labels that are not integers; both ``metric`` and ``similarity``.

    Notes
    -----
    A row without a class contributes 0 and leaves the mean. With one class only, each row's share is 1: 0.

    References
    ----------
    Movshovitz-Attias et al. 2017, No Fuss Distance Metric Learning using Proxies; with ``scale``, Teh et al. 2020, ProxyNCA++.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> proxies = np.eye(2)
    >>> round(float(pairx.losses.proxy_nca(np.array([[2.0, 0.0]]), proxies, [0])), 6)
    0.126928
    """
    a = core.arrays(x=x, proxies=proxies, **scoring.edges(metric, similarity, cosine=True))
    factor = a.number("scale", scale, positive=True)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    if metric is None and similarity is None:
        factor = 2.0 * factor  # |u - v|^2 = 2 - 2 u.v, and the constant cancels
    count, _ = vectors_of(a, "proxies", False)
    numbers = class_numbers(a, labels, count)
    batch = Batch(a, "x", "proxies", labels=numbers, y_labels=core.rows(a, count), score=how, max_bytes=max_bytes)

    def rows(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        s = scoring.bounded(a, block.alike() * (whole[0] if whole else factor))
        apart = numeric.lse(a, s, block.negative)
        own = numeric.among(xp, block.positive, s)
        if include_positive:
            return (numeric.softplus(a, apart - own),)
        none = xp.isinf(apart)
        return (xp.where(none, xp.zeros_like(own), xp.where(none, xp.zeros_like(apart), apart) - own),)

    values = batch.each(rows, whole=_learnt(factor))[0]
    return core.reduce(a, values, reduction=reduction, weights=weights, active=numbers >= 0, return_count=return_count)


@loss(
    "proxies",
    inputs="proxies",
    unit="proxy",
    mean="all proxies",
    formula=r"\frac{|P|}{|P^+|} \log(1 + \sum_{x \in X_p^+} e^{-\lambda (s(x, p) - m)}) "
    r"+ \log(1 + \sum_{x \in X_p^-} e^{\lambda (s(x, p) + m)})",
    source="Kim et al. 2020, Proxy Anchor Loss for Deep Metric Learning, eq. 4",
    pairs=True,
)
def proxy_anchor(
    x: Array,
    proxies: Array,
    labels: Any,
    *,
    scale: Any = 32.0,
    margin: Any = 0.1,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Proxy-anchor: each proxy pulls the rows of its class and pushes the others, the hardest most.

    Parameters
    ----------
    x : array, shape (m, d)
    proxies : array, shape (classes, d)
        One for each class.
    labels : array_like of int, shape (m,) or (m, 1)
        Class numbers; a row with a negative one takes no part.
    scale, margin : float or scalar array
        lambda (the paper's alpha) and m (its delta); arrays may be learnt.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "none" has shape (classes,). The paper divides the first term by the number of proxies that have a row and the second
        by the number of all proxies: here the first term of each is multiplied by the ratio of these two, so that the mean
        over all proxies is the paper's loss.
    weights : array_like, shape (classes,), optional
        Of the proxies; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of proxies)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (classes,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`proxy_nca`.

    Notes
    -----
    A sum over no rows is 0, and so is its term.

    References
    ----------
    Kim et al. 2020, Proxy Anchor Loss for Deep Metric Learning, eq. 4.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.proxy_anchor(x, x, [0, 1], scale=1.0, margin=0.0)), 6)
    1.006409
    """
    a = core.arrays(x=x, proxies=proxies, **scoring.edges(metric, similarity, cosine=True))
    settings = (a.number("scale", scale, positive=True), a.number("margin", margin))
    how = scoring.score(metric, similarity, default_similarity="cosine")
    count, _ = vectors_of(a, "proxies", False)
    numbers = class_numbers(a, labels, count)
    batch = Batch(a, "proxies", "x", labels=core.rows(a, count), y_labels=numbers, score=how, max_bytes=max_bytes)

    def each(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        taking, *learnt = whole
        by, m = _restored(settings, tuple(learnt))
        s = block.alike()
        pull = numeric.softplus(a, numeric.lse(a, scoring.bounded(a, by * (m - s)), block.positive))
        push = numeric.softplus(a, numeric.lse(a, scoring.bounded(a, by * (m + s)), block.negative & xp.expand_dims(taking, axis=0)))
        return pull, push, numeric.number_of(xp, block.positive, a.compute)

    xp = a.xp
    pull, push, members = batch.each(each, whole=(numbers >= 0, *_learnt(*settings)), buffers=10)
    some = xp.astype(a.backend.detach(members) > 0, a.compute)
    everybody, present = xp.sum(xp.ones_like(some)), xp.sum(some)
    values = pull * (everybody / xp.maximum(present, xp.ones_like(present))) + push
    return core.reduce(a, values, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "proxies",
    inputs="centers",
    unit="row",
    mean="rows with a class",
    formula=r"-\log\frac{e^{\lambda (S_{y_i} - m)}}{e^{\lambda (S_{y_i} - m)} + \sum_{c \neq y_i} e^{\lambda S_c}}, "
    r"\quad S_c = \sum_k \mathrm{softmax}_k(s_{ck} / \gamma)\, s_{ck}",
    source="Qian et al. 2019, SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, eq. 7",
    pairs=True,
)
def soft_triple(
    x: Array,
    centers: Array,
    labels: Any,
    *,
    scale: Any = 20.0,
    margin: Any = 0.01,
    gamma: Any = 0.1,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """SoftTriple: a softmax over classes that have several centers each, of which the nearest count most.

    Parameters
    ----------
    x : array, shape (m, d)
    centers : array, shape (classes, k, d)
        k for each class. Rows and centers are compared by the cosine.
    labels : array_like of int, shape (m,) or (m, 1)
        Class numbers; a negative one is no class.
    scale, margin, gamma : float or scalar array
        lambda, m (the paper's delta) and gamma; arrays may be learnt.
    reduction, weights, return_count, max_bytes
        As in :func:`proxy_nca`.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError, TypeError
        As in :func:`proxy_nca`.

    Notes
    -----
    The paper adds 0.2 times a regulariser of the centers: :func:`sparse_centers`.

    References
    ----------
    Qian et al. 2019, SoftTriple Loss, eq. 7.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> centers = np.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    >>> round(float(pairx.losses.soft_triple(np.array([[3.0, 0.0]]), centers, [0], scale=1.0)), 6)
    0.315961
    """
    a = core.arrays(x=x, centers=centers)
    by = a.number("scale", scale, positive=True)
    m, g = a.number("margin", margin), a.number("gamma", gamma, positive=True, zero_ok=False)
    found = classes(a, "centers", labels, max_bytes, several=True)
    xp = a.xp

    def merge(s: Array, g: Any) -> Array:
        z = s / g
        share = xp.exp(z - a.backend.detach(xp.max(z, axis=-1, keepdims=True)))
        return xp.sum(share * s, axis=-1) / xp.sum(share, axis=-1)

    rest = found.rest(by, merge, g, buffers=14)
    values = numeric.softplus(a, rest - scoring.bounded(a, by * (merge(found.cosines(), g) - m)))
    return core.reduce(a, values, reduction=reduction, weights=weights, active=found.active, return_count=return_count)


@loss(
    "proxies",
    inputs="only centers",
    unit="class",
    mean="all classes; 0 where each has one center",
    formula=r"\frac{1}{K (K - 1)} \sum_{s < t} \sqrt{2 - 2 \cos(w_c^s, w_c^t)}",
    source="Qian et al. 2019, SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, eq. 8",
)
def sparse_centers(centers: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Pull the centers of a class together, so that those it does not need become one.

    Parameters
    ----------
    centers : array, shape (classes, k, d)
        Compared as vectors of length 1.
    reduction : {"mean", "sum", "none"}
        "mean" over classes; "none" has shape (classes,).
    weights : array_like, shape (classes,), optional
        Of the classes; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of classes)``; it is 0 where k = 1.

    Returns
    -------
    array, shape () or (classes,)

    Raises
    ------
    ValueError
        ``centers`` that do not have three axes.

    Notes
    -----
    Two equal centers have gradient 0.

    References
    ----------
    Qian et al. 2019, SoftTriple Loss, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.sparse_centers(np.array([[[1.0, 0.0], [0.0, 2.0]]]))), 6)
    0.707107
    """
    from ..distances import cdist

    a = core.arrays(centers=centers)
    shape = a.shape("centers")
    if len(shape) != 3:
        raise ValueError(f"centers has shape {checks.shown(shape)}: expected (classes, centers, features).")
    xp, k = a.xp, shape[1]
    u = scoring.unit(a, a["centers"])
    total = xp.sum(cdist(u, metric="euclidean"), axis=(-2, -1))  # each pair twice
    values = total / (2 * k * (k - 1) if isinstance(k, int) and k > 1 else 1)
    active = xp.full_like(values, 1.0 if not isinstance(k, int) or k > 1 else 0.0) > 0
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)
