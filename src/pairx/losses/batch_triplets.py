"""Triplet losses of a labelled batch, without a list of its triplets.

Four functions and not one with a ``mining=``: each averages over something else (triplets, anchors, pairs), and a random choice of
triplets is a miner's answer (:mod:`pairx.mining`), which :func:`triplet` takes as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import checks
from .. import plan as plans
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss
from ._rows import along, below, places
from .triplets import MEAN_OVER, compared, gap, short

Array = Any
Walk = Callable[[Block, Any], tuple[Array, ...]]


class Triplets:
    """What these losses share: a batch, its margin, and the columns that can hold an anchor's positives."""

    def __init__(
        self,
        x: Array,
        labels: Any,
        y: Array | None,
        y_labels: Any,
        positives: Any,
        negatives: Any,
        how: scoring.Score,
        margin: Any,
        max_positives: int | None,
        max_bytes: int | str | None,
    ) -> None:
        self.a = core.arrays(x=x, y=y, quadratic=scoring.quadratic(how.metric, how.similarity))
        self.margin = self.a.number("margin", margin)
        self.bound = None if max_positives is None else checks.integer("max_positives", max_positives)
        self.batch = Batch(
            self.a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes
        )

    def each(self, function: Walk, buffers: int, count: bool = True) -> tuple[Array, ...]:
        """``function(block, margin)`` over blocks; where there is nobody, zeros."""
        a, batch = self.a, self.batch
        self.most = batch.most_positives() if count else None
        if self.bound is not None:
            if self.most is not None and self.most > self.bound:
                raise ValueError(f"max_positives={self.bound}: there is an anchor with {self.most} positives.")
            self.most = self.bound
        whole = () if isinstance(self.margin, float) else (self.margin,)
        if batch.n == 0 or batch.m == 0:
            zero = a.xp.sum(batch.x, axis=-1)
            return zero, a.xp.zeros_like(zero)
        return batch.each(lambda block, cut, whole: function(block, whole[0] if whole else self.margin), whole=whole, buffers=buffers)

    def pick(self, block: Block, d: Array) -> tuple[Array, Array, Array | None]:
        """Distances (b, p) of the positives, which of them there are, and their columns; None: all columns, as they stand."""
        if self.most is None:
            return d, block.positive, None
        columns, there = places(self.a, block.positive, max(self.most, 1))
        return along(self.a, d, columns), there, columns

    def answer(self, values: Array, sizes: Array, reduction: str, weights: Any, return_count: bool) -> Any:
        """Means of each anchor's terms, to that of all."""
        return core.reduce(self.a, values, reduction=reduction, weights=weights, active=sizes > 0, sizes=sizes, return_count=return_count)


def _distances(a: core.Arrays, block: Block, squared: bool) -> Array:
    """(b, n), of which all sums of a few are finite."""
    d = block.apart()
    if squared and block.score.metric != "sqeuclidean":
        d = d * d
    return d


def _how(metric: Any, similarity: str | None, squared: bool) -> scoring.Score:
    how = compared(metric, similarity, squared)
    return scoring.Score("sqeuclidean", None) if squared and how.metric in ("euclidean", "l2") else how


def _hinged(a: core.Arrays, near: Array, there: Array, far: Array, negative: Array, margin: Any) -> tuple[Array, Array]:
    """Mean of those max(0, near + margin - far) over a row's positives and negatives that are above 0, and their number.

    Each negative is searched for among the sorted near + margin: those above it are its active ones. It adds their number times
    their mean less its own distance, so the whole is linear in the distances, and so is its gradient: no pair of a positive and a
    negative is ever formed.
    """
    xp = a.xp
    p, n = a.backend.shape(near)[-1], a.backend.shape(far)[-1]
    small = 2.0 ** -((p * n).bit_length() if isinstance(p, int) and isinstance(n, int) else 40)  # no sum overflows
    keys = xp.where(there, a.backend.detach(near) + margin, xp.full_like(near, math.inf))
    keys = a.backend.detach(keys)
    order = xp.argsort(keys, axis=-1)
    near = along(a, xp.where(there, near + margin, xp.zeros_like(near)), order)
    at = below(a, along(a, keys, order), far, equal=True)
    # Of the near ones from place k on: how many, and their mean.
    size = xp.expand_dims(numeric.number_of(xp, there, a.compute), axis=-1)
    left = size - xp.astype(xp.expand_dims(core.rows(a, p), axis=0), a.compute)
    left = xp.where(left > 0, left, xp.zeros_like(left))
    tails = xp.flip(xp.cumulative_sum(xp.flip(near * small, axis=-1), axis=-1), axis=-1)
    means = tails / (xp.where(left > 0, left, xp.ones_like(left)) * small)
    zero = xp.zeros_like(size)
    share = xp.where(negative, along(a, xp.concat([left * small, zero], axis=-1), at), xp.zeros_like(far))
    value = xp.sum(share * (along(a, xp.concat([means, zero], axis=-1), at) - far), axis=-1)
    active = xp.sum(share, axis=-1)
    return value / xp.where(active > 0, active, xp.ones_like(active)), active / small


def _soft(a: core.Arrays, near: Array, there: Array, far: Array, negative: Array, margin: Any) -> Array:
    """Sum of log(1 + e^(near + margin - far)) over a row's positives and negatives, one rank of positives after the other."""
    xp = a.xp
    near = near + margin

    def rank(cut: tuple[Array, ...], whole: tuple[Array, ...]) -> tuple[Array, ...]:
        near, there = (xp.expand_dims(c, axis=-1) for c in cut)  # (c, b, 1)
        far, negative = whole
        z = near - short(a, far)
        return (numeric.among(xp, there & negative, numeric.softplus(a, xp.where(there & negative, z, xp.zeros_like(z)))),)

    ranks = a.backend.blockwise(a.backend, rank, tuple(xp.matrix_transpose(v) for v in (near, there)), (far, negative), 1)
    return xp.sum(ranks[0], axis=0)


def mean_of(xp: Any, total: Array, size: Array) -> Array:
    """0 of nothing."""
    return total / xp.where(size > 0, size, xp.ones_like(size))


@loss(
    "triplets",
    inputs="labels",
    unit="anchor",
    mean="triplets with a loss above 0 (mean_over='all': all triplets)",
    formula=r"\sum_{p \in P(i)} \sum_{n \in N(i)} \max(0, d_{ip} - d_{in} + m)",
    source="Hermans et al. 2017, In Defense of the Triplet Loss, eq. 6",
    pairs=True,
)
def triplet_batch_all(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 0.2,
    squared: bool = False,
    soft: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    mean_over: str = "active",
    max_positives: int | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Triplet loss over all triplets of a labelled batch, without listing them.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors, and candidates of each other unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        Rows with one label are positives of each other; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        Other candidates (a queue, the other view). ``y_labels`` are theirs.
    positives, negatives : mask (m, n) or (anchors, candidates), optional
        Who is a positive and who a negative, instead of what labels say: a miner's answer, for instance.
    margin : float or scalar array
        An array may be learnt.
    squared : bool
        Squared distances.
    soft : bool
        log(1 + e^z) instead of max(0, z).
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        1 - cosine, or minus the dot product, instead of a distance.
    mean_over : {"active", "all"}
        What the mean divides by: the triplets whose loss is not 0, or all.
    max_positives : int, optional
        What no anchor has more positives than: of use under jit, where nobody can count them (those beyond it are lost there).
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,): the sum over each anchor's triplets.
    weights : array_like, shape (m,), optional
        Of the anchors: each of its triplets has that weight.
    return_count : bool
        Answer ``(loss, number of anchors with a triplet that counts)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    With the hinge, time goes with m n log(positives of an anchor), by sorting and sums of tails; with ``soft`` with the number of
    triplets. Where labels cannot be looked at (under jit, in a graph), every candidate is taken for a possible positive: m n log n,
    and for ``soft`` m n^2.

    References
    ----------
    Hermans et al. 2017, In Defense of the Triplet Loss, eq. 6.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [1.0], [1.5], [5.0]])
    >>> round(float(pairx.losses.triplet_batch_all(x, [0, 0, 1, 1], margin=1.0)), 6)  # of five triplets with a loss
    1.9
    """
    plans.choice("mean_over", mean_over, MEAN_OVER)
    how = _how(metric, similarity, squared)
    t = Triplets(x, labels, y, y_labels, positives, negatives, how, margin, max_positives, max_bytes)
    a, xp = t.a, t.a.xp

    def anchors(block: Block, m: Any) -> tuple[Array, ...]:
        d = _distances(a, block, squared)
        near, there, _ = t.pick(block, d)
        all_of = numeric.number_of(xp, there, a.compute) * numeric.number_of(xp, block.negative, a.compute)
        if soft:
            return mean_of(xp, _soft(a, near, there, d, block.negative, m), all_of), all_of
        value, active = _hinged(a, scoring.bounded(a, near), there, scoring.bounded(a, d), block.negative, m)
        # Beyond what can be represented: the loss, too.
        over = xp.any(there & xp.isinf(near), axis=-1) & (active > 0)
        value = xp.where(over, xp.full_like(value, math.inf), value)
        return (value, active) if mean_over == "active" else (value * mean_of(xp, active, all_of), all_of)

    values, sizes = t.each(anchors, buffers=24)
    return t.answer(values, sizes, reduction, weights, return_count)


@loss(
    "triplets",
    inputs="labels",
    unit="anchor",
    mean="anchors with a positive and a negative (mean_over='active': those with a loss above 0)",
    formula=r"\max(0, \max_{p \in P(i)} d_{ip} - \min_{n \in N(i)} d_{in} + m)",
    source="Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5",
    pairs=True,
)
def triplet_batch_hard(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 0.2,
    squared: bool = False,
    soft: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    mean_over: str = "all",
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Triplet loss of each anchor's farthest positive and nearest negative.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, margin, squared, soft, metric, similarity, max_bytes
        As in :func:`triplet_batch_all`.
    mean_over : {"all", "active"}
        What the mean divides by: the anchors with a positive and a negative, or those of them whose loss is not 0.
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the anchors; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of anchors that took part)``.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    Several farthest positives, or nearest negatives, share the gradient equally.

    References
    ----------
    Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [1.0], [1.5], [5.0]])
    >>> pairx.losses.triplet_batch_hard(x, [0, 0, 1, 1], margin=1.0, reduction="none")
    array([0.5, 1.5, 4. , 0.5])
    """
    plans.choice("mean_over", mean_over, MEAN_OVER)
    how = _how(metric, similarity, squared)
    t = Triplets(x, labels, y, y_labels, positives, negatives, how, margin, None, max_bytes)
    a, xp = t.a, t.a.xp

    def anchors(block: Block, m: Any) -> tuple[Array, ...]:
        d = _distances(a, block, squared)
        near, one = extreme(a, d, block.positive, True)
        far, other = extreme(a, d, block.negative, False)
        there = one & other
        z = gap(a, near, far, False) + m
        value = numeric.softplus(a, z) if soft else numeric.hinge(a, z)
        return xp.where(there, value, xp.zeros_like(value)), xp.astype(there, a.compute)

    values, there = t.each(anchors, buffers=12, count=False)
    there = there != 0 if mean_over == "all" else (there != 0) & (values != 0)
    return core.reduce(a, values, reduction=reduction, weights=weights, active=there, return_count=return_count)


def extreme(a: core.Arrays, d: Array, mask: Array, largest: bool) -> tuple[Array, Array]:
    """The largest or smallest of a row where ``mask``, 0 where nothing is, and where something is; equal ones share the gradient."""
    xp = a.xp
    fixed = xp.where(mask, a.backend.detach(d), xp.full_like(d, -math.inf if largest else math.inf))
    top = xp.max(fixed, axis=-1, keepdims=True) if largest else xp.min(fixed, axis=-1, keepdims=True)
    best = mask & ((fixed == top) | xp.isnan(fixed))  # NaN stays
    count = xp.sum(xp.astype(best, d.dtype), axis=-1)
    some = count > 0
    return numeric.among(xp, best, d) / xp.where(some, count, xp.ones_like(count)), some


@loss(
    "triplets",
    inputs="labels",
    unit="anchor",
    mean="positive pairs whose anchor has a negative (mean_over='active': those with a loss above 0)",
    formula=r"\sum_{p \in P(i)} \max(0, d_{ip} - d_{in(p)} + m), \quad n(p) = \arg\min_{n : d_{in} > d_{ip}} d_{in}",
    source="Schroff et al. 2015, FaceNet, eq. 4; where no negative is farther: the farthest, as TensorFlow Addons",
    pairs=True,
)
def triplet_semi_hard(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 1.0,
    squared: bool = False,
    soft: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    mean_over: str = "all",
    max_positives: int | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Triplet loss of each positive pair with its semi-hard negative: the nearest that is farther than the positive.

    Where no negative is farther, it is the farthest there is.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, margin, squared, soft, metric, similarity, max_positives, max_bytes
        As in :func:`triplet_batch_all`.
    mean_over : {"all", "active"}
        What the mean divides by: the positive pairs whose anchor has a negative, or those of them whose loss is not 0.
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,): the sum over each anchor's positives.
    weights : array_like, shape (m,), optional
        Of the anchors: each of its pairs has that weight.
    return_count : bool
        Answer ``(loss, number of anchors with a pair that counts)``.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    Of several negatives at the same distance one is taken, and has the gradient. A batch without positive pairs gives 0, where
    TensorFlow Addons gives NaN.

    References
    ----------
    Schroff et al. 2015, FaceNet, eq. 4; ``triplet_semihard_loss`` of TensorFlow Addons.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0], [1.0], [1.5], [5.0]])
    >>> pairx.losses.triplet_semi_hard(x, [0, 0, 1, 1], reduction="none")
    array([0.5, 0. , 3. , 0.5])
    """
    plans.choice("mean_over", mean_over, MEAN_OVER)
    how = _how(metric, similarity, squared)
    t = Triplets(x, labels, y, y_labels, positives, negatives, how, margin, max_positives, max_bytes)
    a, xp = t.a, t.a.xp

    def anchors(block: Block, m: Any) -> tuple[Array, ...]:
        d = _distances(a, block, squared)
        near, there, _ = t.pick(block, d)
        far, some = nearest_beyond(a, d, near, block.negative)
        there = there & some
        far = along(a, d, far)
        z = xp.where(there, gap(a, near, far, False) + m, xp.zeros_like(near))
        value = numeric.softplus(a, z) if soft else numeric.hinge(a, z)
        size = numeric.number_of(xp, there & (value != 0) if mean_over == "active" else there, a.compute)
        return mean_of(xp, numeric.among(xp, there, value), size), size

    values, sizes = t.each(anchors, buffers=16)
    return t.answer(values, sizes, reduction, weights, return_count)


def nearest_beyond(a: core.Arrays, d: Array, near: Array, negative: Array) -> tuple[Array, Array]:
    """The column of the nearest negative farther than each of ``near`` (b, p), else the farthest; and which rows have one (b, 1)."""
    xp = a.xp
    top = float(xp.finfo(d.dtype).max)
    d = xp.clip(a.backend.detach(d), None, top)
    keys = xp.where(negative, d, xp.full_like(d, math.inf))
    order = xp.argsort(keys, axis=-1)
    size = xp.expand_dims(numeric.number_of(xp, negative, xp.int64), axis=-1)
    at = below(a, along(a, keys, order), xp.clip(near, None, top), equal=True)
    last = xp.where(size > 0, size - 1, size)
    return along(a, order, xp.where(at > last, last, at)), size > 0
