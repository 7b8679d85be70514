"""Losses of stochastic neighbours: the softmax is over squared distances."""

from __future__ import annotations

from typing import Any

from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss

Array = Any


def _log_share(batch: Batch, scale: core.Scale, log: bool, **how: Any) -> Any:
    """-log of the share of the positives among all candidates, for each anchor; or minus the share."""
    a, xp = batch.a, batch.a.xp

    def plain(batch: Batch) -> Any:
        return batch.reduced(anchors, whole=scale.whole, buffers=8, **how)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        some = xp.any(block.positive, axis=-1)
        s = block.logits(scale.of(whole))
        inside, total = numeric.lse(a, s, block.positive), numeric.lse(a, s, block.other)
        zero = xp.zeros_like(total)
        value = xp.where(some, total, zero) - xp.where(some, inside, zero)
        return value if log else -xp.exp(-value), some

    if log and isinstance(scale.value, float):
        found = batch.in_machine_code("share_sum", plain, scale.of(), **how)
        if found is not None:
            return found
    return plain(batch)


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
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, squared=metric is None and similarity is None))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_metric="sqeuclidean")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, score=how, max_bytes=max_bytes)
    return _log_share(batch, scale, True, reduction=reduction, weights=weights, return_count=return_count)


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
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, squared=metric is None and similarity is None))
    how = scoring.score(metric, similarity, default_metric="sqeuclidean")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, score=how, max_bytes=max_bytes)
    scale = core.Scale(1.0, False)
    return _log_share(batch, scale, log, reduction=reduction, weights=weights, return_count=return_count)
