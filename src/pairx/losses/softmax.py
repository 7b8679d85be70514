"""Losses of a softmax over candidates, where labels or masks say who the positives are."""

from __future__ import annotations

from typing import Any

from .. import plan as plans
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss

Array = Any


@loss(
    "softmax",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"-\frac{1}{|P(i)|} \sum_{j \in P(i)} \log\frac{e^{s_{ij}/t}}{\sum_{k \neq i} e^{s_{ik}/t}}",
    source="Khosla et al. 2020, Supervised Contrastive Learning, eq. 2",
    pairs=True,
)
def supcon(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    y_mask: Any = None,
    positives: Any = None,
    negatives: Any = None,
    temperature: Any = 0.1,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Supervised contrastive loss: the mean over an anchor's positives of their log share among all candidates.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        Other candidates (a queue, the other view). ``y_labels`` are theirs.
    y_mask : array_like, shape (n,), optional
        Which rows of ``y`` count: a memory that is not yet full.
    positives, negatives : mask (m, n) or (anchors, candidates), optional
        Who is a positive and who a negative, instead of what labels say: a miner's answer, for instance.
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

    Raises
    ------
    TypeError
        If there are neither labels nor positives, or both ``similarity`` and ``metric``.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    An anchor without positives contributes 0 and leaves the mean.

    References
    ----------
    Khosla et al. 2020, Supervised Contrastive Learning, eq. 2.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.supcon(x, [0, 0, 1], temperature=1.0)), 6)
    0.313262
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(
        a,
        "x",
        "y",
        labels=labels,
        y_labels=y_labels,
        y_mask=y_mask,
        positives=positives,
        negatives=negatives,
        score=how,
        max_bytes=max_bytes,
    )
    told = positives is not None or negatives is not None

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        s = block.logits(scale.of(whole))
        count = numeric.number_of(xp, block.positive, a.compute)
        some = xp.where(count > 0, count, xp.ones_like(count))
        total = numeric.lse(a, s, block.positive | block.negative if told else block.other)
        value = xp.where(count > 0, total, xp.zeros_like(total)) - numeric.among(xp, block.positive, s) / some
        return value, count > 0

    return batch.reduced(anchors, whole=scale.whole, buffers=5, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "softmax",
    inputs="labels",
    unit="anchor, the sum over its positives",
    mean="pairs of an anchor and a positive",
    formula=r"-\sum_{j \in P(i)} \log\frac{e^{s_{ij}/t}}{e^{s_{ij}/t} + \sum_{k \in N(i)} e^{s_{ik}/t}}",
    source="Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations, eq. 1",
    pairs=True,
)
def nt_xent(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    y_mask: Any = None,
    positives: Any = None,
    negatives: Any = None,
    temperature: Any = 0.1,
    keep_positives: bool = False,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Normalised temperature-scaled cross-entropy: each positive pair against the anchor's negatives.

    ``nt_xent(x, y=y)`` is SimCLR's: two views of m samples, where each of the 2m rows looks for its other view among the 2m - 1
    other rows. ``nt_xent(x, labels)`` takes every pair of one label; an anchor's other positives are left out of the denominator.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors.
    labels : array_like, shape (m,), (m, 1) or (m, classes), optional
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, optional
        Without labels the other view (m, d), row by row; with ``y_labels`` other candidates (n, d), such as a memory.
    y_mask : array_like, shape (n,), optional
        Which rows of ``y`` count: a memory that is not yet full.
    positives, negatives : mask (m, n) or (anchors, candidates), optional
        Who is a positive and who a negative, instead of what labels say.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    keep_positives : bool
        Whether the anchor's other positives stay in the denominator.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "mean" over pairs of an anchor and a positive; "none" gives each anchor's sum over its positives, shape (m,), or (2m,) for
        two views.
    weights : array_like, one for each anchor, optional
        A pair weighs what its anchor weighs.
    return_count : bool
        Answer ``(loss, number of anchors with a positive)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (anchors,)

    Raises
    ------
    TypeError
        If there are neither labels nor positives nor another view, or both ``similarity`` and ``metric``.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    O(m n): for each anchor the log-sum-exp of its negatives once, then a softplus for each positive; no list of pairs times
    negatives. A pair without negatives costs 0; an anchor without positives leaves the mean.

    References
    ----------
    Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair Loss Objective; Chen et al. 2020, A Simple Framework for
    Contrastive Learning of Visual Representations, eq. 1.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.nt_xent(x, [0, 0, 1], temperature=1.0)), 6)
    0.313262
    >>> round(float(pairx.losses.nt_xent(x[:2], y=x[1:], temperature=1.0)), 6)
    1.171149
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    if labels is None and positives is None and y is not None:
        return _two_views(a, how, scale, reduction, weights, return_count, max_bytes)
    batch = Batch(
        a,
        "x",
        "y",
        labels=labels,
        y_labels=y_labels,
        y_mask=y_mask,
        positives=positives,
        negatives=negatives,
        score=how,
        max_bytes=max_bytes,
    )
    return _each_pair(batch, scale, keep_positives, reduction=reduction, weights=weights, return_count=return_count)


def _each_pair(batch: Batch, scale: core.Scale, keep_positives: bool, **how: Any) -> Any:
    """Sum over the positives j of an anchor of log(1 + sum over negatives of e^(s_ik - s_ij))."""
    a, xp = batch.a, batch.a.xp

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        s = block.logits(scale.of(whole))
        positive = block.positive
        count = numeric.number_of(xp, positive, a.compute)
        if keep_positives:
            total = numeric.lse(a, s, positive | block.negative)
            value = xp.where(count > 0, total * count, xp.zeros_like(total)) - numeric.among(xp, positive, s)
            return xp.where(count > 0, value, xp.zeros_like(value)), count > 0, count
        total = numeric.lse(a, s, block.negative)
        some = ~xp.isinf(total)
        total = xp.expand_dims(xp.where(some, total, xp.zeros_like(total)), axis=-1)
        value = numeric.among(xp, positive, numeric.softplus(a, total - s))
        return xp.where(some, value, xp.zeros_like(value)), count > 0, count

    return batch.reduced(anchors, whole=scale.whole, buffers=9, **how)


def _two_views(
    a: core.Arrays, score: scoring.Score, scale: core.Scale, reduction: str, weights: Any, return_count: bool, max_bytes: Any
) -> Any:
    """All rows of both views against all others."""
    batch = Batch(a, "x", "y", paired=True, score=score, max_bytes=max_bytes)
    view, _ = batch.both_views()

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp, by = a.xp, scale.of(whole)
        value = numeric.lse(a, block.logits(by), block.other) - score.paired_logits(a, block.x, cut[0], by)
        return value, xp.ones_like(value, dtype=xp.bool)

    return batch.reduced(
        anchors, cut=(view,), whole=scale.whole, buffers=4, reduction=reduction, weights=weights, return_count=return_count
    )


@loss(
    "softmax",
    inputs="positives",
    unit="anchor",
    mean="anchors with a positive",
    formula=r"-\log\frac{\sum_{j \in P(i)} e^{s_{ij}/t}}{\sum_{j \in P(i)} e^{s_{ij}/t} + \sum_{k \in N(i)} e^{s_{ik}/t}}",
    source="Miech et al. 2020, End-to-End Learning of Visual Representations from Uncurated Instructional Videos, eq. 1 (MIL-NCE)",
    pairs=True,
)
def multi_positive(
    x: Array,
    positives: Any,
    *,
    y: Array | None = None,
    negatives: Any = None,
    temperature: Any = 0.1,
    average: str = "inside",
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """InfoNCE with several positives for an anchor, which a mask or a list of pairs names.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors.
    positives : mask (m, n), or (anchors, candidates)
        Who belongs to whom. An anchor is never its own positive where ``y`` is not given.
    y : array, shape (n, d), optional
        Candidates; without it the anchors are candidates of each other.
    negatives : mask (m, n) or (anchors, candidates), optional
        Default: all others.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    average : {"inside", "outside"}
        "inside" the logarithm: the share of all positives together (MIL-NCE); an anchor may settle on some of
        them. "outside": the mean of their
        log shares, a cross-entropy against the uniform distribution on the positives (StableRep, SupCon).
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

    Raises
    ------
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    References
    ----------
    Miech et al. 2020, eq. 1; Tian et al. 2023, StableRep, eq. 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x, y = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.multi_positive(x, [[1, 1, 0]], y=y, temperature=1.0)), 6)
    0.168848
    """
    plans.choice("average", average, ("inside", "outside"))
    if average == "outside":
        return supcon(
            x,
            y=y,
            positives=positives,
            negatives=negatives,
            temperature=temperature,
            similarity=similarity,
            metric=metric,
            reduction=reduction,
            weights=weights,
            return_count=return_count,
            max_bytes=max_bytes,
        )
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(a, "x", "y", positives=positives, negatives=negatives, score=how, max_bytes=max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        s = block.logits(scale.of(whole))
        inside = numeric.lse(a, s, block.positive)
        some = ~xp.isinf(inside)
        total = numeric.lse(a, s, block.other if negatives is None else block.positive | block.negative)
        zero = xp.zeros_like(total)
        return xp.where(some, total, zero) - xp.where(some, inside, zero), some

    return batch.reduced(anchors, whole=scale.whole, buffers=7, reduction=reduction, weights=weights, return_count=return_count)
