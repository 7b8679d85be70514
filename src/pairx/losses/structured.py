"""Losses of all pairs of an anchor together: multi-similarity, circle, lifted structure."""

from __future__ import annotations

import math
from typing import Any

from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import Arrays, Learnt, loss

Array = Any

_POSITIVE = {"positive": True, "zero_ok": False}


def _soft_sum(a: Arrays, z: Array, k: Any, mask: Array) -> Array:
    """log(1 + sum of e^(k z)) / k over the last axis, where ``mask``: 0 where nothing is."""
    xp = a.xp
    z = xp.where(mask, z, xp.full_like(z, -math.inf))
    if isinstance(a.backend.shape(z)[-1], int) and a.backend.shape(z)[-1] == 0:
        return xp.sum(z, axis=-1)
    top = numeric.hinge(a, a.backend.detach(xp.max(z, axis=-1)))  # the 1 is e^(k 0)
    rest = z - xp.expand_dims(top, axis=-1)
    rest = xp.where(mask, rest, xp.zeros_like(rest))
    total = xp.exp(-k * top) + numeric.among(xp, mask, xp.exp(k * rest))
    return top + xp.log(total) / k


def _some(xp: Any, block: Block) -> Array:
    """Which anchors have a positive or a negative."""
    either = block.positive | block.negative if block.either is None else block.either
    return xp.any(either, axis=-1)


@loss(
    "pairs",
    inputs="labels",
    unit="anchor",
    mean="anchors with a pair",
    formula=r"\frac{1}{\alpha} \log\Big(1 + \sum_{j \in P(i)} e^{-\alpha (s_{ij} - \lambda)}\Big)"
    r" + \frac{1}{\beta} \log\Big(1 + \sum_{k \in N(i)} e^{\beta (s_{ik} - \lambda)}\Big)",
    source="Wang et al. 2019, Multi-Similarity Loss with General Pair Weighting, eq. 15",
    pairs=True,
)
def multi_similarity(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    alpha: Any = 2.0,
    beta: Any = 50.0,
    base: Any = 0.5,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Multi-similarity loss: smooth maxima over an anchor's positives below, and its negatives above, a similarity.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels, y, y_labels, positives, negatives
        As in :func:`supcon`. The paper's mining of pairs is not part of it: pass its answer as ``positives`` and
        ``negatives``.
    alpha, beta : float or scalar array
        Above 0: how much the hardest positives and negatives count.
    base : float or scalar array
        lambda.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a pair; "none" has shape (m,).
    weights, return_count, max_bytes
        As in :func:`supcon`.

    Returns
    -------
    array, shape () or (m,)

    References
    ----------
    Wang et al. 2019, Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, eq. 15.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.multi_similarity(x, [0, 0, 1], base=1.0)), 6)
    0.231049
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    xp = a.xp
    learnt = Learnt(a, {"alpha": _POSITIVE, "beta": _POSITIVE}, alpha=alpha, beta=beta, base=base)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        p = learnt.of(whole)
        z = block.alike() - p["base"]
        value = _soft_sum(a, -z, p["alpha"], block.positive) + _soft_sum(a, z, p["beta"], block.negative)
        return value, _some(xp, block)

    return batch.reduced(anchors, whole=learnt.whole, buffers=12, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "pairs",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive and a negative",
    formula=r"\log\Big(1 + \sum_{k \in N(i)} e^{\gamma [s_{ik} + m]_+ (s_{ik} - m)}"
    r" \sum_{j \in P(i)} e^{-\gamma [1 + m - s_{ij}]_+ (s_{ij} - 1 + m)}\Big)",
    source="Sun et al. 2020, Circle Loss: A Unified Perspective of Pair Similarity Optimization, eq. 8",
    pairs=True,
)
def circle(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 0.4,
    gamma: Any = 80.0,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Circle loss: every similarity is weighted by how far it is from its optimum.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels, y, y_labels, positives, negatives
        As in :func:`supcon`.
    margin : float or scalar array
        m, the relaxation: optima 1 + m and -m, boundaries 1 - m and m. The paper takes 0.25 for faces and persons, 0.4 for
        retrieval of fine-grained images.
    gamma : float or scalar array
        Scale, above 0. The paper takes 256 for faces, 128 for persons, 80 for retrieval.
    similarity : {"cosine", "dot"}, optional
        Default "cosine", for which the optima are meant.
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a positive and a negative; "none" has shape (m,).
    weights, return_count, max_bytes
        As in :func:`supcon`.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    The weights [1 + m - s]+ and [s + m]+ are constants of the gradient, as in the paper's eq. 10 and its code: the gradient
    is not that of the formula with the weights as functions of s.

    References
    ----------
    Sun et al. 2020, Circle Loss: A Unified Perspective of Pair Similarity Optimization, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.circle(x, [0, 0, 1], gamma=1.0)), 6)
    0.545893
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    xp = a.xp
    learnt = Learnt(a, {"gamma": _POSITIVE}, margin=margin, gamma=gamma)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        p = learnt.of(whole)
        m = p["margin"]
        s = block.alike()
        still = a.backend.detach(s)
        near = scoring.bounded(a, numeric.hinge(a, 1.0 + m - still) * (1.0 - m - s) * p["gamma"])
        far = scoring.bounded(a, numeric.hinge(a, still + m) * (s - m) * p["gamma"])
        active = xp.any(block.positive, axis=-1) & xp.any(block.negative, axis=-1)
        both = [xp.where(active, numeric.lse(a, z, mask), 0.0) for z, mask in ((near, block.positive), (far, block.negative))]
        return xp.where(active, numeric.softplus(a, both[0] + both[1]), 0.0), active

    return batch.reduced(anchors, whole=learnt.whole, buffers=14, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "pairs",
    inputs="labels",
    unit="anchor",
    mean="positive pairs",
    formula=r"\frac{1}{2|P|} \sum_{(i,j) \in P} \max(0, L_{ij})^2, \quad L_{ij} = d_{ij}"
    r" + \log\Big(\sum_{k \in N(i)} e^{m - d_{ik}} + \sum_{l \in N(j)} e^{m - d_{jl}}\Big)",
    source="Song, Xiang, Jegelka and Savarese 2016, Deep Metric Learning via Lifted Structured Feature Embedding, eq. 3 and 4",
    pairs=True,
)
def lifted_structure(
    x: Array,
    labels: Any = None,
    *,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 1.0,
    hard: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Lifted structured loss: each positive pair against the nearest negatives of both of its rows.

    Parameters
    ----------
    x : array, shape (m, d)
        The batch.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        As in :func:`supcon`.
    positives, negatives : mask (m, m) or (anchors, candidates), optional
        Instead of what labels say; each entry is a pair.
    margin : float or scalar array
        m, may be learnt.
    hard : bool
        L = d + max(max over k of (m - d_ik), max over l of (m - d_jl)) instead of the smooth bound (the paper's eq. 4), its
        logarithm of a sum of exponentials.
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        d = 1 - cosine, or minus the dot product.
    reduction : {"mean", "sum", "none"}
        "mean" over the positive pairs. "none" has shape (m,): for each anchor the sum over its positives of
        max(0, L)^2 / 2. From labels a pair has two anchors and each has half of it.
    weights, return_count, max_bytes
        As in :func:`supcon`.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    A pair without negatives contributes 0, and counts. Time and memory are those of all pairs, not of pairs x negatives.

    References
    ----------
    Song, Xiang, Jegelka and Savarese 2016, Deep Metric Learning via Lifted Structured Feature Embedding, eq. 3 and 4.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> round(float(pairx.losses.lifted_structure(x, [0, 0, 1], hard=True)), 6)
    0.5
    """
    a = core.arrays(x=x, **scoring.edges(metric, similarity))
    xp = a.xp
    learnt = Learnt(a, margin=margin)
    how = scoring.score(metric, similarity, default_metric="euclidean")
    batch = Batch(a, "x", None, labels=labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes)
    low = -float(xp.finfo(a.compute).max) / 8

    def hardest(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        z = learnt.of(whole)["margin"] - scoring.bounded(a, block.apart())
        if hard:
            z = xp.where(block.negative, z, xp.full_like(z, low))
            top = xp.sum(z, axis=-1) if isinstance(batch.n, int) and batch.n == 0 else xp.max(z, axis=-1)
        else:
            top = numeric.lse(a, z, block.negative)
        some = xp.any(block.negative, axis=-1)
        return xp.where(some, top, xp.full_like(top, low)), some

    top, some = batch.each(hardest, whole=learnt.whole, buffers=8)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        d = block.apart()
        mine, theirs = xp.expand_dims(cut[0], axis=-1), xp.expand_dims(whole[0], axis=0)
        joint = xp.maximum(mine, theirs)
        if not hard:
            joint = joint + xp.log1p(xp.exp(-xp.abs(mine - theirs)))
        against = block.positive & (xp.expand_dims(cut[1], axis=-1) | xp.expand_dims(whole[1], axis=0))
        z = numeric.hinge(a, xp.where(against, d + joint, xp.zeros_like(d)))
        count = numeric.number_of(xp, block.positive, a.compute)
        return half * 0.5 * xp.sum(numeric.square(xp, z), axis=-1), count > 0, half * count

    half = 0.5 if positives is None and negatives is None else 1.0
    return batch.reduced(
        anchors, cut=(top, some), whole=(top, some), buffers=12, reduction=reduction, weights=weights, return_count=return_count
    )


@loss(
    "pairs",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"\Big[\log \sum_{j \in P(i)} e^{d_{ij}} + \log \sum_{k \in N(i)} e^{m - d_{ik}}\Big]_+",
    source="Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss for Person Re-Identification, eq. 8",
    pairs=True,
)
def generalized_lifted_structure(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 1.0,
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Lifted structured loss with all positives of an anchor at once.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels, y, y_labels, positives, negatives
        As in :func:`supcon`.
    margin : float or scalar array
        m, may be learnt.
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        d = 1 - cosine, or minus the dot product.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a positive; "none" has shape (m,).
    weights, return_count, max_bytes
        As in :func:`supcon`.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    An anchor without positives contributes 0 and leaves the mean; without negatives it contributes 0 and stays.

    References
    ----------
    Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss for Person Re-Identification, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> pairx.losses.generalized_lifted_structure(x, [0, 0, 1], reduction="none")
    array([0., 1., 0.])
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity))
    xp = a.xp
    learnt = Learnt(a, margin=margin)
    how = scoring.score(metric, similarity, default_metric="euclidean")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        d = scoring.bounded(a, block.apart())
        some = xp.any(block.positive, axis=-1)
        both = some & xp.any(block.negative, axis=-1)
        near = xp.where(both, numeric.lse(a, d, block.positive), 0.0)
        far = xp.where(both, numeric.lse(a, learnt.of(whole)["margin"] - d, block.negative), 0.0)
        return numeric.hinge(a, near + far), some

    return batch.reduced(anchors, whole=learnt.whole, buffers=12, reduction=reduction, weights=weights, return_count=return_count)
