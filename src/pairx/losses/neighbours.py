"""Losses of stochastic neighbours: the softmax is over squared distances."""

from __future__ import annotations

import math
from typing import Any

from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss

Array = Any


def _log_share(batch: Batch, squared: bool, scale: core.Scale, log: bool, **how: Any) -> Any:
    """-log of the share of the positives among all candidates, for each anchor; or minus the share."""
    a, xp = batch.a, batch.a.xp

    def nearest(d: Array, mask: Array | None, by: Any) -> tuple[Array, Array]:
        """The smallest distance r, and log sum of e^(-(d^2 - r^2)/t): what overflows is far, and e^-inf is 0."""
        here = d if mask is None else xp.where(mask, d, xp.full_like(d, math.inf))
        r = a.backend.detach(xp.min(here, axis=-1, keepdims=True))
        r = xp.where(xp.isinf(r), xp.zeros_like(r), r)
        z = -((d - r) * ((d + r) * by))
        if mask is not None:
            z = xp.where(mask, z, xp.full_like(z, -math.inf))
        return xp.squeeze(r, axis=-1), numeric.lse(a, z)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        by = scale.of(whole)
        positive, others = block.positive, block.other
        some = xp.any(positive, axis=-1)
        if isinstance(batch.n, int) and batch.n == 0:
            return xp.sum(block.x, axis=-1), some
        if squared:
            d = scoring.bounded(a, block.apart())
            # Where the square overflows, the loss is inf or the pair does not count: inf - inf must not enter the gradient.
            d = xp.where(d > float(xp.finfo(d.dtype).max) ** 0.5 / 4, a.backend.detach(d), d)
            r, inside = nearest(d, positive, by)
            q, total = nearest(d, others, by)
            between = (r - q) * ((r + q) * by)
        else:
            s = block.logits(by)
            inside, total = numeric.lse(a, s, positive), numeric.lse(a, s, others)
            between = xp.zeros_like(total)
        zero = xp.zeros_like(total)
        value = between + xp.where(some, total, zero) - xp.where(some, inside, zero)
        return value if log else -xp.exp(-value), some

    return batch.reduced(anchors, whole=scale.whole, buffers=10, **how)


def _score(metric: Any, similarity: str | None) -> tuple[scoring.Score, bool]:
    """Squared Euclidean distances are squares of Euclidean ones here: a difference of squares overflows only where it is large."""
    squared = similarity is None and (metric is None or metric == "sqeuclidean")
    return scoring.score("euclidean" if squared else metric, similarity), squared


@loss(
    "softmax",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"-\log\frac{\sum_{j \in P(i)} e^{-d_{ij}^2/t}}{\sum_{k \neq i} e^{-d_{ik}^2/t}}",
    source="Frosst et al. 2019, Analyzing and Improving Representations with the Soft Nearest Neighbor Loss, eq. 1",
    pairs=True,
)
def soft_nearest_neighbors(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    temperature: Any = 1.0,
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Soft nearest neighbours: the log probability that a random neighbour has the anchor's label.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        Other candidates. ``y_labels`` are theirs.
    positives : mask (m, n) or (anchors, candidates), optional
        Who is a positive, instead of what labels say.
    temperature : float or scalar array
        t > 0, which divides the squared distance; an array may be learnt.
    metric : str or callable, optional
        The distance; default "sqeuclidean".
    similarity : {"cosine", "dot"}, optional
        Instead of minus a distance.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a positive; "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the anchors; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of anchors that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If there are neither labels nor positives, or both ``similarity`` and ``metric``.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    The sum over the positives is inside the logarithm: one close positive is enough. In ``supcon`` the mean is outside.
    An anchor without positives contributes 0 and leaves the mean.

    References
    ----------
    Salakhutdinov and Hinton 2007, Learning a Nonlinear Embedding by Preserving Class Neighbourhood Structure; Frosst et al. 2019, eq. 1.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [0.0], [1.0]])
    >>> round(float(pairx.losses.soft_nearest_neighbors(x, [0, 0, 1])), 6)
    0.313262
    """
    a = core.arrays(x=x, y=y, quadratic=similarity == "dot")
    scale = core.temperature(a, temperature)
    how, squared = _score(metric, similarity)
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, score=how, max_bytes=max_bytes)
    return _log_share(batch, squared, scale, True, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "softmax",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"-\log p_i, \quad p_i = \frac{\sum_{j \in P(i)} e^{-d_{ij}^2}}{\sum_{k \neq i} e^{-d_{ik}^2}}",
    source="Goldberger et al. 2005, Neighbourhood Components Analysis, section 2",
    pairs=True,
)
def nca(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    log: bool = True,
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Neighbourhood components: the probability that a random neighbour has the anchor's label.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        Other candidates. ``y_labels`` are theirs.
    positives : mask (m, n) or (anchors, candidates), optional
        Who is a positive, instead of what labels say.
    log : bool
        -log p; False: -p, the paper's first objective, which counts the expected number of right neighbours.
    metric : str or callable, optional
        The distance; default "sqeuclidean".
    similarity : {"cosine", "dot"}, optional
        Instead of minus a distance.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a positive; "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the anchors; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of anchors that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If there are neither labels nor positives, or both ``similarity`` and ``metric``.
    ValueError
        If shapes do not fit, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    An anchor without positives contributes 0 and leaves the mean.

    References
    ----------
    Goldberger et al. 2005, section 2.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [0.0], [1.0]])
    >>> round(float(pairx.losses.nca(x, [0, 0, 1], log=False)), 6)
    -0.731059
    """
    a = core.arrays(x=x, y=y, quadratic=similarity == "dot")
    how, squared = _score(metric, similarity)
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, score=how, max_bytes=max_bytes)
    scale = core.Scale(1.0, False)
    return _log_share(batch, squared, scale, log, reduction=reduction, weights=weights, return_count=return_count)
