"""Losses of two views: row i of y belongs to row i of x."""

from __future__ import annotations

from typing import Any

from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss
from .softmax import _each_pair

Array = Any


def _infonce(
    batch: Batch,
    scale: core.Scale,
    negatives: Array | None = None,
    negatives_mask: Array | None = None,
    in_batch: bool = True,
    **how: Any,
) -> Any:
    """log of the sum over candidates of e^(s_ik - s_ii), for each anchor."""
    a, xp, score = batch.a, batch.a.xp, batch.score
    each = negatives is not None and len(a.backend.shape(negatives)) == 3
    mine = tuple(v for v in (negatives, negatives_mask) if each and v is not None)
    theirs = tuple(v for v in (negatives, negatives_mask) if not each and v is not None)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        by = scale.of(whole)
        s = score.paired_logits(a, block.x, cut[0], by)
        parts = [numeric.lse(a, block.logits(by)) if in_batch else s]
        if negatives is not None:
            there, *mask = cut[1:] if each else whole[: len(theirs)]
            if each:
                found = scoring.bounded(a, _against_own(a, score, block.x, there, by))
            else:
                found = score.logits(a, block.x, there, by, block.max_bytes)
            valid = None if not mask else mask[0] if each else xp.broadcast_to(mask[0], a.backend.shape(found))
            parts.append(numeric.lse(a, found, valid))
        total = parts[0] if len(parts) == 1 else numeric.lse(a, xp.stack(parts, axis=-1))
        return total - s, xp.ones_like(s, dtype=xp.bool)

    k = 0 if negatives is None else a.backend.shape(negatives)[-2]
    wide = k // max(batch.n, 1) if isinstance(k, int) and isinstance(batch.n, int) else 1
    return batch.reduced(anchors, cut=(batch.y, *mine), whole=(*theirs, *scale.whole), buffers=4 * (1 + wide), **how)


def _against_own(a: core.Arrays, score: scoring.Score, x: Array, own: Array, scale: Any) -> Array:
    """(b, k) scores of each anchor against its own k candidates."""
    xp = a.xp
    if score.similarity is not None:
        return xp.squeeze(xp.matmul(own, xp.expand_dims(x * scale, axis=-1)), axis=-1)
    from ..distances import paired

    x = xp.broadcast_to(xp.expand_dims(x, axis=1), a.backend.shape(own))
    return -scale * paired(x, own, score.metric)


def _told(a: core.Arrays, score: scoring.Score, mask: Any) -> tuple[Array | None, Array | None]:
    """Explicit negatives, prepared, and which of them count."""
    from .. import checks

    if a["negatives"] is None:
        if mask is not None:
            raise TypeError("negatives_mask: there are no negatives; leave it away.")
        return None, None
    shape, m = a.shape("negatives"), a.shape("x")[0]
    if len(shape) not in (2, 3) or not core.fits(shape[-1:], a.shape("x")[-1:]) or (len(shape) == 3 and not core.fits(shape[:1], (m,))):
        rows = checks.shown((m, "k", a.shape("x")[-1])).replace("?", "k")
        raise ValueError(f"negatives has shape {checks.shown(shape)}: expected (k, features), or {rows}: k for each anchor.")
    prepared = score.rows(a, a["negatives"])
    if mask is None:
        return prepared, None
    valid = core.truth(a, mask)
    if not core.fits(a.backend.shape(valid), shape[:-1]):
        raise ValueError(f"negatives_mask has shape {checks.shown(a.backend.shape(valid))}: expected {checks.shown(shape[:-1])}.")
    return prepared, valid


@loss(
    "softmax",
    inputs="views",
    unit="pair",
    mean="pairs",
    formula=r"-\log\frac{e^{s_{ii}/t}}{\sum_k e^{s_{ik}/t}}",
    source="van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding, eq. 4",
    pairs=True,
)
def info_nce(
    x: Array,
    y: Array,
    *,
    negatives: Array | None = None,
    negatives_mask: Any = None,
    in_batch: bool = True,
    symmetric: bool = False,
    temperature: Any = 0.1,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """InfoNCE: the log share of row i of ``y`` among all candidates of row i of ``x``.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors.
    y : array, shape (m, d)
        Their positives, row by row; the others' positives are negatives.
    negatives : array, shape (k, d) or (m, k, d), optional
        More negatives, for all anchors (a queue) or for each its own.
    negatives_mask : array_like, shape (k,) or (m, k), optional
        Which of these count: a queue that is not yet full.
    in_batch : bool
        Whether the other rows of ``y`` are negatives; False leaves ``negatives`` alone (MoCo).
    symmetric : bool
        The mean of both directions, x among y and y among x; the explicit negatives take part in both.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the pairs; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of pairs)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If both ``similarity`` and ``metric`` are given.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    References
    ----------
    van den Oord et al. 2018, eq. 4; He et al. 2020, Momentum Contrast, eq. 1.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.info_nce(x, x, temperature=1.0)), 6)
    0.313262
    >>> round(float(pairx.losses.info_nce(x, x, negatives=-x, temperature=1.0, in_batch=False)), 6)
    0.407606
    """
    a = core.arrays(x=x, y=y, negatives=negatives, **scoring.edges(metric, similarity, cosine=True))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    more, mask = _told(a, how, negatives_mask)

    def way(first: str, second: str) -> Any:
        batch = Batch(a, first, second, paired=True, score=how, max_bytes=max_bytes)
        return _infonce(batch, scale, more, mask, in_batch, reduction=reduction, weights=weights, return_count=return_count)

    return _both(way, return_count) if symmetric else way("x", "y")


def _both(way: Any, return_count: bool) -> Any:
    """The mean of x among y and y among x."""
    one, two = way("x", "y"), way("y", "x")
    if return_count:
        return 0.5 * one[0] + 0.5 * two[0], one[1]
    return 0.5 * one + 0.5 * two


@loss(
    "softmax",
    inputs="views",
    unit="pair",
    mean="pairs",
    formula=r"-\frac{1}{2}\log\frac{e^{s_{ii}/t}}{\sum_k e^{s_{ik}/t}} - \frac{1}{2}\log\frac{e^{s_{ii}/t}}{\sum_k e^{s_{ki}/t}}",
    source="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, figure 3",
    pairs=True,
)
def clip(
    x: Array,
    y: Array,
    *,
    temperature: Any = None,
    logit_scale: Any = None,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """CLIP: the mean of InfoNCE from images to texts and from texts to images.

    Parameters
    ----------
    x, y : array, shape (m, d)
        Embeddings of images and of texts, row by row.
    temperature : float or scalar array, optional
        t > 0, 0.07 unless ``logit_scale`` is given; an array may be learnt.
    logit_scale : float or scalar array, optional
        1 / t instead: what the similarities are multiplied by. A model that learns its logarithm passes the exponential.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the pairs; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of pairs)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If both ``temperature`` and ``logit_scale``, or both ``similarity`` and ``metric`` are given.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    References
    ----------
    Radford et al. 2021, figure 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.clip(x, x, logit_scale=1.0)), 6)
    0.313262
    """
    if temperature is not None and logit_scale is not None:
        raise TypeError("temperature and logit_scale: pass one of them; logit_scale is 1 / temperature.")
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    if logit_scale is None:
        scale = core.temperature(a, 0.07 if temperature is None else temperature)
    else:
        scale = core.Scale(a.number("logit_scale", logit_scale), False)
    how = scoring.score(metric, similarity, default_similarity="cosine")

    def way(first: str, second: str) -> Any:
        batch = Batch(a, first, second, paired=True, score=how, max_bytes=max_bytes)
        return _infonce(batch, scale, reduction=reduction, weights=weights, return_count=return_count)

    return _both(way, return_count)


@loss(
    "softmax",
    inputs="views",
    unit="row of x",
    mean="rows of x",
    formula=r"-\sum_j \log\sigma(z_{ij} (t s_{ij} + b)), \quad z_{ii} = 1, z_{ij} = -1",
    source="Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, section 3.2",
    pairs=True,
)
def siglip(
    x: Array,
    y: Array,
    *,
    scale: Any = 10.0,
    bias: Any = -10.0,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """SigLIP: each pair by itself is told to match or not; no softmax.

    Parameters
    ----------
    x, y : array, shape (m, d)
        Embeddings of images and of texts, row by row.
    scale : float or scalar array
        t, which multiplies the similarities; an array may be learnt.
    bias : float or scalar array
        b, added to them; an array may be learnt.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "mean" divides by m, not by m^2; "none" has shape (m,): sums over the columns.
    weights : array_like, shape (m,), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of rows)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If both ``similarity`` and ``metric`` are given.
    ValueError
        If shapes do not fit, or ``max_bytes`` is below one row of candidates.

    References
    ----------
    Zhai et al. 2023, section 3.2 and algorithm 1.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.siglip(x, x, scale=1.0, bias=0.0)), 6)
    1.006409
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    by = core.Scale(a.number("scale", scale), False)
    offset = core.Scale(a.number("bias", bias), False)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(a, "x", "y", paired=True, score=how, max_bytes=max_bytes)

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        factor, shift = by.of(whole[: len(by.whole)]), offset.of(whole[len(by.whole) :])
        own = how.paired_logits(a, block.x, cut[0], factor) + shift
        others = xp.sum(numeric.softplus(a, block.without_paired(block.logits(factor) + shift)), axis=-1)
        return others + numeric.softplus(a, -own), xp.ones_like(own, dtype=xp.bool)

    return batch.reduced(
        anchors,
        cut=(batch.y,),
        whole=(*by.whole, *offset.whole),
        buffers=8,
        reduction=reduction,
        weights=weights,
        return_count=return_count,
    )


@loss(
    "softmax",
    inputs="views",
    unit="row of either view, x first",
    mean="rows of both views",
    formula=r"-s_{ip}/t + \log\sum_{k \neq i, p} e^{s_{ik}/t}, \quad p \text{ the other view of } i",
    source="Yeh et al. 2022, Decoupled Contrastive Learning, section 3",
    pairs=True,
)
def decoupled(
    x: Array,
    y: Array,
    *,
    temperature: Any = 0.1,
    similarity: str | None = None,
    metric: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Decoupled contrastive learning: NT-Xent of two views without the positive in the denominator.

    Parameters
    ----------
    x, y : array, shape (m, d)
        Two views, row by row. Each of the 2m rows is an anchor; the 2m - 2 rows of the others are its negatives.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    reduction : {"mean", "sum", "none"}
        "mean" over the 2m rows; "none" has shape (2m,).
    weights : array_like, shape (2m,), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of rows that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (2m,)

    Raises
    ------
    TypeError
        If both ``similarity`` and ``metric`` are given.
    ValueError
        If shapes do not fit, the temperature is not above 0, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    It may be below 0. Without any negatives (m = 1) a row contributes 0 and leaves the mean.

    References
    ----------
    Yeh et al. 2022, section 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.decoupled(x, x, temperature=1.0)), 6)
    -0.306853
    """
    a = core.arrays(x=x, y=y, **scoring.edges(metric, similarity, cosine=True))
    scale = core.temperature(a, temperature)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    batch = Batch(a, "x", "y", paired=True, score=how, max_bytes=max_bytes)
    view, partner = batch.both_views()

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp, by = a.xp, scale.of(whole)
        theirs = xp.expand_dims(cut[1], axis=-1) != xp.expand_dims(block.columns, axis=0)
        total = numeric.lse(a, block.logits(by), block.other & theirs)
        some = ~xp.isinf(total)
        value = xp.where(some, total, xp.zeros_like(total)) - how.paired_logits(a, block.x, cut[0], by)
        return xp.where(some, value, xp.zeros_like(value)), some

    return batch.reduced(
        anchors, cut=(view, partner), whole=scale.whole, buffers=5, reduction=reduction, weights=weights, return_count=return_count
    )


@loss(
    "softmax",
    inputs="views",
    unit="anchor, the sum over its positives",
    mean="pairs of an anchor and a positive",
    formula=r"\log(1 + \sum_{n \neq p} e^{x_i \cdot y_n - x_i \cdot y_p})",
    source="Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, eq. 7",
    pairs=True,
)
def n_pair(
    x: Array,
    y: Array | None = None,
    *,
    labels: Any = None,
    y_labels: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Multi-class N-pair: the positive's dot product against those of the others' positives.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, of m classes unless labels say otherwise.
    y : array, shape (m, d), or (n, d) with labels
        Positives, row by row. With labels, candidates; without ``y``, the rows of ``x`` are candidates of each other.
    labels, y_labels : array_like, shape (m,) and (n,), optional
        Then each pair of one label is a positive pair, and the candidates of other labels are its negatives.
    reduction : {"mean", "sum", "none"}
        "mean" over positive pairs; "none" gives each anchor's sum over its positives, shape (m,).
    weights : array_like, shape (m,), optional
        Of the anchors; a weighted mean divides by the sum of the weights of the pairs.
    return_count : bool
        Answer ``(loss, number of anchors with a positive)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    TypeError
        If there is neither ``y`` nor labels.
    ValueError
        If shapes do not fit, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    The plain dot product, as in the paper, which keeps it small by a penalty on the norms: add ``(x ** 2).sum()`` times a
    coefficient of yours.

    References
    ----------
    Sohn 2016, eq. 7.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.n_pair(x, x)), 6)
    0.313262
    """
    a = core.arrays(x=x, y=y, quadratic=True, bounded=True)
    how = scoring.score(None, "dot")
    scale = core.Scale(1.0, False)
    given: dict[str, Any] = {"reduction": reduction, "weights": weights, "return_count": return_count}
    if labels is None and y is not None:
        return _infonce(Batch(a, "x", "y", paired=True, score=how, max_bytes=max_bytes), scale, **given)
    if labels is None:
        raise TypeError("y: pass the positives, or labels.")
    batch = Batch(a, "x", "y", labels=labels, y_labels=y_labels, score=how, max_bytes=max_bytes)
    return _each_pair(batch, scale, False, **given)
