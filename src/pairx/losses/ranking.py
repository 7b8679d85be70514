"""Losses of how an anchor ranks its candidates."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss

Array = Any


def _cosine_batch(
    a: core.Arrays, labels: Any, y_labels: Any, positives: Any, negatives: Any, max_bytes: Any, how: scoring.Score | None = None
) -> Batch:
    return Batch(
        a,
        "x",
        "y",
        labels=labels,
        y_labels=y_labels,
        positives=positives,
        negatives=negatives,
        score=how or scoring.Score(None, "cosine"),
        max_bytes=max_bytes,
    )


def _weighted(a: core.Arrays, gap: Array, mask: Array, by: Any, constant: bool) -> Array:
    """Mean of the gaps in the mask, weighted by e^(by gap); 0 over nothing."""
    xp = a.xp
    z = scoring.bounded(a, xp.where(mask, gap, xp.zeros_like(gap)) * by)
    total = numeric.lse(a, z, mask)
    none = xp.isinf(total)
    total = xp.expand_dims(xp.where(none, xp.zeros_like(total), total), axis=-1)
    share = xp.exp(xp.where(mask, z - total, xp.zeros_like(z)))
    return numeric.among(xp, mask, (a.backend.detach(share) if constant else share) * gap)


@loss(
    "ranking",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive or a negative",
    formula=r"(1 - \lambda) \frac{\sum_{P^*} e^{T_p h} h}{\sum_{P^*} e^{T_p h}} "
    r"+ \lambda \frac{\sum_{N^*} e^{T_n g} g}{\sum_{N^*} e^{T_n g}}, "
    r"\quad h = d - (\alpha - m) > 0, \quad g = \alpha - d > 0",
    source="Wang et al. 2019, Ranked List Loss for Deep Metric Learning, eq. 2 to 7",
    pairs=True,
)
def ranked_list(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    alpha: Any = 1.2,
    margin: Any = 0.4,
    balance: Any = 0.5,
    positive_scale: Any = 0.0,
    negative_scale: Any = 10.0,
    constant_weights: bool = False,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Ranked list: negatives are pushed beyond ``alpha``, positives pulled within ``alpha - margin``, violators weighted.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        Other candidates. ``y_labels`` are theirs.
    positives, negatives : mask (m, n) or (anchors, candidates), optional
        Who is a positive and who a negative, instead of what labels say.
    alpha, margin : float or scalar array
        alpha and m.
    balance : float or scalar array
        lambda: the share of the negatives' term.
    positive_scale, negative_scale : float or scalar array
        T_p and T_n: by how much larger violations weigh more; 0 for a plain mean.
    constant_weights : bool
        Whether no gradient passes through the weights (the paper's eq. 8); the value is the same.
    similarity : {"cosine", "dot"}, optional
        1 - cosine or minus the dot product as a distance.
    metric : str or callable, optional
        A distance, taken as it is. Default: the Euclidean distance of rows of length 1.
    reduction : {"mean", "sum", "none"}
        "mean" over anchors with a positive or a negative; "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the anchors; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of anchors that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    A term without violators is 0. Violators at distance 0 count like all others.

    References
    ----------
    Wang et al. 2019, Ranked List Loss for Deep Metric Learning.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> round(float(pairx.losses.ranked_list(x, [0, 0, 1])), 6)
    0.604738
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity))
    core.vectors(a, *(["x", "y"] if y is not None else ["x"]))
    settings = (
        a.number("alpha", alpha),
        a.number("margin", margin),
        a.number("balance", balance),
        a.number("positive_scale", positive_scale),
        a.number("negative_scale", negative_scale),
    )
    if metric is None and similarity is None:
        a.values.update({k: scoring.unit(a, v) for k, v in a.values.items() if v is not None})
    how = scoring.score(metric, similarity, default_metric="euclidean")
    batch = _cosine_batch(a, labels, y_labels, positives, negatives, max_bytes, how)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp, found = a.xp, iter(whole)
        top, m, share, tp, tn = (v if isinstance(v, float) else next(found) for v in settings)
        d = scoring.bounded(a, block.apart())
        h, g = d - (top - m), top - d
        pull = _weighted(a, h, block.positive & ~(h <= 0), tp, constant_weights)  # NaN stays
        push = _weighted(a, g, block.negative & ~(g <= 0), tn, constant_weights)
        return (1.0 - share) * pull + share * push, numeric.number_of(xp, block.positive | block.negative, a.compute) > 0

    values, active = batch.each(anchors, whole=tuple(v for v in settings if not isinstance(v, float)), buffers=14)
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)


def _histograms(a: core.Arrays, s: Array, masks: tuple[Array, ...], bins: int) -> list[Array]:
    """(b, bins + 1) soft histograms of cosines over each row's candidates in each mask; nodes from -1 to 1.

    A value shares its 1 between the two nodes next to it, linearly. The node's number is split into two digits, so that sums over
    candidates are products of (b, sqrt(bins), n) arrays, not of (b, bins, n).
    """
    xp = a.xp
    place = xp.clip((s + 1.0) * (bins / 2), 0.0, float(bins))
    low = xp.clip(xp.floor(a.backend.detach(place)), 0.0, float(bins - 1))
    part = xp.expand_dims(place - low, axis=1)
    q = math.isqrt(bins - 1) + 1
    p = -(-bins // q)
    high = xp.floor((low + 0.5) / q)
    digit = xp.expand_dims(low - high * q, axis=1)
    device = a.backend.device(s)

    def digits(count: int) -> Array:
        return xp.reshape(xp.arange(count, dtype=a.compute, device=device), (1, count, 1))

    first = xp.astype(xp.expand_dims(high, axis=1) == digits(p), a.compute)
    found = []
    for mask in masks:
        second = xp.astype((digit == digits(q)) & xp.expand_dims(mask, axis=1), a.compute)
        sides = []
        for side in (1.0 - part, part):
            total = scoring.dots(a, first, second * side)
            sides.append(xp.reshape(total, (a.backend.shape(total)[0], p * q))[:, :bins])
        edge = xp.zeros_like(sides[0][:, :1])
        found.append(xp.concat([sides[0], edge], axis=1) + xp.concat([edge, sides[1]], axis=1))
    return found


def _bins(bins: int) -> int:
    if checks.integer("bins", bins) < 1:
        raise ValueError(f"bins={bins!r}: expected an int of 1 or more.")
    return bins


@loss(
    "ranking",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"1 - \frac{1}{|P(i)|} \sum_j \frac{h_j^+ H_j^+}{H_j}",
    source="Cakir et al. 2019, Deep Metric Learning to Rank, eq. 8",
    pairs=True,
)
def fast_ap(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    bins: int = 10,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """FastAP: 1 - the average precision of an anchor's candidates, from soft histograms of their squared distances.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives
        As in :func:`ranked_list`. Rows are compared by the squared Euclidean distance of rows of length 1, which is 0 to 4.
    bins : int
        How many bins 0 to 4 is cut into (10 bins have 11 nodes).
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

    Notes
    -----
    An anchor without positives contributes 0 and leaves the mean; one without negatives has 0.

    References
    ----------
    Cakir et al. 2019, Deep Metric Learning to Rank, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> round(float(pairx.losses.fast_ap(x, [0, 0, 1])), 6)
    0.5
    """
    a = core.arrays(x=x, y=y)
    count = _bins(bins)
    batch = _cosine_batch(a, labels, y_labels, positives, negatives, max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        near, far = _histograms(a, -block.alike(), (block.positive, block.negative), count)
        ranked, before = xp.cumulative_sum(near, axis=-1), xp.cumulative_sum(near + far, axis=-1)
        some = before > 0
        precision = xp.where(some, ranked, xp.zeros_like(ranked)) / xp.where(some, before, xp.ones_like(before))
        positive = numeric.number_of(xp, block.positive, a.compute)
        have = positive > 0
        found = xp.sum(near * precision, axis=-1) / xp.where(have, positive, xp.ones_like(positive))
        return 1.0 - found, have

    values, active = batch.each(anchors, buffers=8 * (math.isqrt(count) + 2))
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)


@loss(
    "ranking",
    inputs="labels",
    unit="batch",
    mean="the one batch",
    formula=r"\sum_r h_r^- \sum_{q \leq r} h_q^+",
    source="Ustinova and Lempitsky 2016, Learning Deep Embeddings with Histogram Loss, eq. 5",
    pairs=True,
)
def histogram(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    bins: int = 100,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Histogram loss: the probability that a negative pair is more alike than a positive one, from soft histograms.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives
        As in :func:`ranked_list`. Rows are compared by the cosine.
    bins : int
        How many bins -1 to 1 is cut into (100 bins have 101 nodes).
    reduction : {"mean", "sum", "none"}
        The batch is the one unit: all three have shape ().
    weights : array_like, shape (), optional
        Of the batch.
    return_count : bool
        Answer ``(loss, 1)``; 0 for a batch without a positive or without a negative pair, whose loss is 0.
    max_bytes : int or str, optional
        Scratch above inputs and gradients and two histograms for each anchor, forward and backward.

    Returns
    -------
    array, shape ()

    Notes
    -----
    Where a cosine is exactly a node's, the gradient is that of the bin above it.

    References
    ----------
    Ustinova and Lempitsky 2016, Learning Deep Embeddings with Histogram Loss.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> round(float(pairx.losses.histogram(x, [0, 0, 1], bins=2)), 6)
    1.0
    """
    a = core.arrays(x=x, y=y)
    count = _bins(bins)
    batch = _cosine_batch(a, labels, y_labels, positives, negatives, max_bytes)
    xp = a.xp

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        masks = (block.positive, block.negative)
        return (*_histograms(a, block.alike(), masks, count), *(numeric.number_of(xp, m, a.compute) for m in masks))

    alike, apart, pairs, others = (xp.sum(v, axis=0) for v in batch.each(anchors, buffers=8 * (math.isqrt(count) + 2)))
    pairs, others = a.backend.detach(pairs), a.backend.detach(others)
    one = xp.ones_like(pairs)
    value = xp.sum((apart / xp.maximum(others, one)) * xp.cumulative_sum(alike / xp.maximum(pairs, one)))
    active = (pairs > 0) & (others > 0)
    return core.reduce(a, value, reduction=reduction, weights=weights, active=active, return_count=return_count)


def _most(a: core.Arrays, batch: Batch) -> Any:
    """The largest number of positives of an anchor, where that can be seen; else the number of candidates."""
    xp, backend = a.xp, a.backend
    same = batch.same
    if batch.positives is None and same is not None and len(backend.shape(same.whole[0])) == 1:
        theirs = same.whole[0]
        if backend.traced(theirs) or 0 in backend.shape(theirs):
            return batch.n
        ordered = xp.sort(theirs)
        found = xp.max(xp.searchsorted(ordered, ordered, side="right") - xp.searchsorted(ordered, ordered, side="left"))
    else:
        if backend.traced(*(v for r in (same, batch.positives) if r is not None for v in (*r.cut, *r.whole)), batch.x, batch.y):
            return batch.n
        counts = batch.each(lambda block, cut, whole: (numeric.number_of(xp, block.positive, a.compute),))[0]
        if 0 in backend.shape(counts):
            return batch.n
        found = xp.max(backend.detach(counts))
    return batch.n if backend.traced(found) else min(max(int(found), 1), batch.n)


@loss(
    "ranking",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"1 - \frac{1}{|P(i)|} \sum_{j \in P(i)} \frac{1 + \sum_{k \in P(i), k \neq j} \sigma((s_{ik} - s_{ij}) / t)}"
    r"{1 + \sum_{k \in P(i) \cup N(i), k \neq j} \sigma((s_{ik} - s_{ij}) / t)}",
    source="Brown et al. 2020, Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, eq. 5",
    pairs=True,
)
def smooth_ap(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    temperature: Any = 0.01,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Smooth-AP: 1 - the average precision of an anchor's candidates, with a sigmoid for each comparison of two.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives
        As in :func:`ranked_list`.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
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

    Notes
    -----
    An anchor without positives contributes 0 and leaves the mean; one without negatives has 0. An anchor is no candidate of its own;
    it is one if the rows are passed again as ``y``, which is what the authors' code computes.

    Each of an anchor's positives is compared with all candidates, a tile at a time. Under a tracer that hides the labels (``jit`` with
    labels as an argument) nobody knows how many positives there will be, and every candidate takes the time of one.

    References
    ----------
    Brown et al. 2020, Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, eq. 5.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> round(float(pairx.losses.smooth_ap(x, [0, 0, 1])), 6)
    0.5
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    t = a.number("temperature", temperature, positive=True, zero_ok=False)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = _cosine_batch(a, labels, y_labels, positives, negatives, max_bytes, how)
    most, xp = _most(a, batch), a.xp

    def above(s: Array, mask: Array, mine: Array, t: Any) -> Array:
        """(c, b) 1 + how many in the mask are more alike than ``mine``, which is one of them and has 1/2 from itself."""
        z = scoring.bounded(a, xp.expand_dims(s, axis=0) - xp.expand_dims(mine, axis=-1)) / (2.0 * t)
        return 0.5 + numeric.among(xp, xp.expand_dims(mask, axis=0), 0.5 + 0.5 * xp.tanh(z))

    def terms(cut: Any, whole: Any) -> tuple[Array, ...]:
        (mine, real), (s, candidate, near, part, *learnt) = cut, whole
        scale = learnt[0] if learnt else t
        found = above(near, part, mine, scale) / above(s, candidate, mine, scale)
        return (xp.where(real, found, xp.zeros_like(found)),)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        s = scoring.bounded(a, block.alike())
        count = numeric.number_of(xp, block.positive, a.compute)
        have = count > 0
        near = xp.sort(xp.where(block.positive, s, xp.full_like(s, -math.inf)), axis=-1, descending=True)
        near = near if most is batch.n else near[:, :most]
        real = xp.expand_dims(xp.arange(most, dtype=a.compute, device=a.backend.device(s)), axis=0) < xp.expand_dims(count, axis=-1)
        near = xp.where(real, near, xp.zeros_like(near))
        b, n = a.backend.shape(s)
        step = core.block_rows(a, None, b * n, 6, batch.budget)
        cuts = (xp.matrix_transpose(near), xp.matrix_transpose(real))
        found = a.backend.blockwise(a.backend, terms, cuts, (s, block.positive | block.negative, near, real, *whole), step)[0]
        return 1.0 - xp.sum(found, axis=0) / xp.where(have, count, xp.ones_like(count)), have

    values, active = batch.each(anchors, whole=() if isinstance(t, float) else (t,), buffers=16)
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)
