"""Mining: who is worth comparing with whom, as plain index lists or masks that every loss takes.

    positives, negatives = pairx.mining.multi_similarity(x, labels)
    loss = pairx.losses.supcon(x, positives=positives, negatives=negatives)

    found = pairx.mining.distance_weighted(x, labels, rng=rng)
    loss = pairx.losses.triplet(x, triplets=found)

No gradient flows through mining. Distances are looked at in blocks of anchors, never as a whole.

The length of a list depends on values. Where these cannot be looked at (under jit, in a graph), ``size=`` says how many places each
anchor gets: lists then have rows * size entries, and a place that is not needed holds -1, which every loss passes over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from . import _mining as shared
from . import checks
from . import plan as plans
from ._mining import EUCLIDEAN, Lists, kept
from .losses import _score as scoring
from .losses._batch import Batch, Block
from .losses._core import Arrays
from .losses._rows import along, below, places
from .losses.batch_triplets import nearest_beyond
from .losses.triplets import tangent_of

Array = Any
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Miner:
    """One row of the table."""

    name: str
    function: Callable[..., Any]
    answers: str
    """"pairs": (anchors, candidates); "two pairs": those of positives and those of negatives; "triplets"; "mask"."""
    source: str
    embeddings: bool = True
    """Whether it looks at embeddings, or at labels alone."""
    random: bool = False


MINERS: dict[str, Miner] = {}


def _miner(answers: str, source: str, **facts: Any) -> Callable[[F], F]:
    def register(function: F) -> F:
        MINERS[function.__name__] = Miner(function.__name__, function, answers, source, **facts)
        return function

    return register


# --- from labels alone ---------------------------------------------------------------------------------------------------


def _mask(labels: Any, y_labels: Any, which: str, max_bytes: int | str | None) -> Array:
    a, batch, _ = shared.labels_only(labels, y_labels, max_bytes, None)
    if batch.m == 0 or batch.n == 0:
        return a.xp.zeros((batch.m, batch.n), dtype=a.xp.bool, device=a.backend.device(batch.x))
    return batch.each(lambda block, cut, whole: (getattr(block, which),), buffers=2)[0]


def _pairs(labels: Any, y_labels: Any, which: str, size: int | None, max_bytes: int | str | None) -> Lists:
    a, batch, size = shared.labels_only(labels, y_labels, max_bytes, size)
    size = shared.room(a, batch, size, False)
    return shared.lists(a, batch, lambda block, cut: shared.masked(a, block, getattr(block, which), size), 8, 2)


@_miner("mask", "rows that share a label", embeddings=False)
def positive_mask(labels: Any, y_labels: Any = None, *, max_bytes: int | str | None = None) -> Array:
    """Who is a positive of whom.

    Parameters
    ----------
    labels : array, shape (m,), (m, 1) or (m, classes)
        One label for each row; 0 and 1 in (m, classes) for several labels each: rows that share one are positives.
    y_labels : array, shape (n,), (n, 1) or (n, classes), optional
        Of other candidates. Without them the candidates are the rows themselves, and nobody is its own positive.
    max_bytes : int or str, optional
        Scratch above the result.

    Returns
    -------
    array of bool, shape (m, n)
        For ``positives=`` of every loss.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.positive_mask(np.array([0, 1, 0]))
    array([[False, False,  True],
           [False, False, False],
           [ True, False, False]])
    """
    return _mask(labels, y_labels, "positive", max_bytes)


@_miner("mask", "rows that share no label", embeddings=False)
def negative_mask(labels: Any, y_labels: Any = None, *, max_bytes: int | str | None = None) -> Array:
    """Who is a negative of whom: as :func:`positive_mask`.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.negative_mask(np.array([0, 1]), np.array([1, 1, 0]))
    array([[ True,  True, False],
           [False, False,  True]])
    """
    return _mask(labels, y_labels, "negative", max_bytes)


@_miner("pairs", "rows that share a label", embeddings=False)
def positive_pairs(labels: Any, y_labels: Any = None, *, size: int | None = None, max_bytes: int | str | None = None) -> Lists:
    """All positive pairs, as lists.

    Parameters
    ----------
    labels, y_labels, max_bytes
        As in :func:`positive_mask`.
    size : int, optional
        Places for each anchor (its first ``size`` positives), so that the lists have m * size entries whatever the labels are; -1
        where there is no pair. Needed under jit.

    Returns
    -------
    (anchors, candidates) : two arrays of integers, shape (pairs,)
        For ``positives=`` of every loss; sorted by anchor.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.positive_pairs(np.array([0, 1, 0]))
    (array([0, 2]), array([2, 0]))
    """
    return _pairs(labels, y_labels, "positive", size, max_bytes)


@_miner("pairs", "rows that share no label", embeddings=False)
def negative_pairs(labels: Any, y_labels: Any = None, *, size: int | None = None, max_bytes: int | str | None = None) -> Lists:
    """All negative pairs, as lists: as :func:`positive_pairs`.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.negative_pairs(np.array([0, 1, 0]))
    (array([0, 1, 1, 2]), array([1, 0, 2, 1]))
    """
    return _pairs(labels, y_labels, "negative", size, max_bytes)


# --- by distance ---------------------------------------------------------------------------------------------------------


@_miner("triplets", "Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5")
def batch_hard(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    metric: Any = None,
    similarity: str | None = None,
    max_bytes: int | str | None = None,
) -> Lists:
    """Each anchor with its farthest positive and its nearest negative.

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
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        Instead of a metric: farther is less similar.
    max_bytes : int or str, optional
        Scratch above inputs and result.

    Returns
    -------
    (anchors, positives, negatives) : three arrays of integers, shape (triplets,)
        For ``triplets=`` of :func:`pairx.losses.triplet`. Anchors without a positive or a negative are left out; under jit they are
        in it as -1, and the shape is (m,). Of several at the same distance, the first.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.batch_hard(np.array([[0.0], [1.0], [1.5], [5.0]]), [0, 0, 1, 1])
    (array([0, 1, 2, 3]), array([1, 0, 3, 2]), array([2, 2, 1, 1]))
    """
    how = scoring.score(metric, similarity, default_metric="euclidean")
    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, how, max_bytes, None, True, **told)
    xp = a.xp

    def anchors(block: Block, cut: Lists) -> Lists:
        d = block.apart()
        p = xp.argmax(xp.where(block.positive, d, xp.full_like(d, -math.inf)), axis=-1)
        n = xp.argmin(xp.where(block.negative, d, xp.full_like(d, math.inf)), axis=-1)
        there = xp.any(block.positive, axis=-1) & xp.any(block.negative, axis=-1)
        return kept(a, there, (block.index, p, n), size is not None)

    return shared.lists(a, batch, anchors, 8, 3)


@_miner("triplets", "Schroff et al. 2015, FaceNet, eq. 4; where no negative is farther: the farthest, as TensorFlow Addons")
def semi_hard(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    metric: Any = None,
    similarity: str | None = None,
    size: int | None = None,
    max_bytes: int | str | None = None,
) -> Lists:
    """Each positive pair with the nearest negative that is farther than its positive; else with the farthest negative.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, metric, similarity, max_bytes
        As in :func:`batch_hard`.
    size : int, optional
        Places for each anchor (its first ``size`` positives), -1 where there is none. Needed under jit.

    Returns
    -------
    (anchors, positives, negatives) : three arrays of integers, shape (triplets,)
        Pairs whose anchor has no negative are left out.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.semi_hard(np.array([[0.0], [1.0], [1.5], [5.0]]), [0, 0, 1, 1])
    (array([0, 1, 2, 3]), array([1, 0, 3, 2]), array([2, 3, 0, 1]))
    """
    how = scoring.score(metric, similarity, default_metric="euclidean")
    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, how, max_bytes, size, **told)
    width = shared.most_positives(a, batch, size)

    def anchors(block: Block, cut: Lists) -> Lists:
        d = block.apart()
        columns, there = places(a, block.positive, width)
        n, some = nearest_beyond(a, d, along(a, d, columns), block.negative)
        return kept(a, there & some, (a.xp.expand_dims(block.index, axis=-1), columns, n), size is not None)

    return shared.lists(a, batch, anchors, 16, 3)


@_miner("triplets", "all triplets of a batch, by how they stand to a margin")
def triplets(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: float = 0.2,
    kind: str = "all",
    metric: Any = None,
    similarity: str | None = None,
    size: int | None = None,
    max_bytes: int | str | None = None,
) -> Lists:
    """All triplets that a margin is not kept in. They are many: :func:`pairx.losses.triplet_batch_all` does without the list.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, metric, similarity, max_bytes
        As in :func:`batch_hard`.
    margin : float
        In distances: d(a, n) - d(a, p) <= margin. ``inf`` takes every triplet.
    kind : {"all", "hard", "semi-hard", "easy"}
        "hard": of these, where the negative is not farther than the positive; "semi-hard": where it is; "easy": all others.
    size : int, optional
        Places for each anchor (its first ``size`` triplets), -1 where there is none. Needed under jit.

    Returns
    -------
    (anchors, positives, negatives) : three arrays of integers, shape (triplets,)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.mining.triplets(np.array([[0.0], [1.0], [1.5], [5.0]]), [0, 0, 1, 1], kind="hard")
    (array([1, 2, 2]), array([0, 3, 3]), array([2, 0, 1]))
    """
    margin = checks.number("margin", margin)
    plans.choice("kind", kind, ("all", "hard", "semi-hard", "easy"))
    how = scoring.score(metric, similarity, default_metric="euclidean")

    def chosen(block: Block, columns: Array) -> Array:
        d = block.apart()
        near, far = a.xp.expand_dims(along(a, d, columns), axis=-1), a.xp.expand_dims(d, axis=1)
        if kind == "easy":
            return far - near > margin
        if kind == "hard":
            return (far - near <= margin) & (far <= near)
        return (far - near <= margin) & (far > near) if kind == "semi-hard" else far - near <= margin

    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, how, max_bytes, size, **told)
    return _triplets(a, batch, chosen, size, 3)


def _triplets(a: Arrays, batch: Batch, chosen: Callable[[Block, Array], Array], size: int | None, buffers: int) -> Lists:
    """Those triplets of each anchor that ``chosen(block, columns of positives)`` (b, p, n) says."""
    xp = a.xp
    width = shared.most_positives(a, batch, None if size is None else batch.n)

    def anchors(block: Block, cut: Lists) -> Lists:
        columns, there = places(a, block.positive, width)
        mask = chosen(block, columns) & xp.expand_dims(there, axis=-1) & xp.expand_dims(block.negative, axis=1)
        if size is None:
            row, rank, n = (xp.astype(v, xp.int64) for v in xp.nonzero(mask))
            p = xp.take(xp.reshape(columns, (-1,)), row * width + rank, axis=0)
            return xp.take(xp.astype(block.index, xp.int64), row, axis=0), p, n
        n = a.backend.shape(block.y)[0]
        at, there = places(a, xp.reshape(mask, (a.backend.shape(columns)[0], -1)), size)
        rank = at // n
        return kept(a, there, (xp.expand_dims(block.index, axis=-1), along(a, columns, rank), at - rank * n), True)

    return shared.lists(a, batch, anchors, 8 + buffers * width, 3)


@_miner("triplets", "Wang et al. 2017, Deep Metric Learning with Angular Loss")
def angular(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    angle: float = 20.0,
    size: int | None = None,
    max_bytes: int | str | None = None,
) -> Lists:
    """All triplets whose angle at the negative, atan(|a - p| / (2 |n - (a + p) / 2|)), is above a threshold.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, max_bytes
        As in :func:`batch_hard`; rows are brought to length 1.
    angle : float
        Degrees, above 0 and below 90.
    size : int, optional
        Places for each anchor (its first ``size`` triplets), -1 where there is none. Needed under jit.

    Returns
    -------
    (anchors, positives, negatives) : three arrays of integers, shape (triplets,)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    >>> pairx.mining.angular(x, [0, 0, 1, 2], angle=45.0)
    (array([0, 1]), array([1, 0]), array([2, 2]))
    """
    slope = 2.0 * tangent_of(angle, "angle")
    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, scoring.Score(None, "cosine"), max_bytes, size, **told)
    xp = a.xp

    def chosen(block: Block, columns: Array) -> Array:
        b, p = a.backend.shape(columns)
        partner = xp.take(block.y, xp.reshape(columns, (-1,)), axis=0)
        anchor = xp.reshape(xp.broadcast_to(xp.expand_dims(block.x, axis=1), (b, p, a.backend.shape(block.x)[-1])), (b * p, -1))
        wide = xp.reshape(EUCLIDEAN.paired_apart(a, anchor, partner), (b, p, 1))
        away = xp.reshape(EUCLIDEAN.apart(a, 0.5 * (anchor + partner), block.y, block.max_bytes), (b, p, -1))
        return wide > slope * away

    return _triplets(a, batch, chosen, size, 4)


@_miner("two pairs", "Wang et al. 2019, Multi-Similarity Loss, eq. 7-8")
def multi_similarity(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    epsilon: float = 0.1,
    metric: Any = None,
    similarity: str | None = None,
    size: int | None = None,
    max_bytes: int | str | None = None,
) -> tuple[Lists, Lists]:
    """Negatives more similar than the least similar positive, positives less similar than the most similar negative, by a margin.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, max_bytes
        As in :func:`batch_hard`.
    epsilon : float
        Negatives with s > min over positives - epsilon; positives with s < max over negatives + epsilon.
    similarity : {"cosine", "dot"}, optional
        Default "cosine".
    metric : str or callable, optional
        Minus this distance instead of a similarity.
    size : int, optional
        Places for each anchor (its first ``size`` positives, and negatives), -1 where there is none. Needed under jit.

    Returns
    -------
    ((anchors, positives), (anchors, negatives))
        Integers, for ``positives=`` and ``negatives=`` of every loss.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    >>> positives, negatives = pairx.mining.multi_similarity(x, [0, 0, 1, 1])
    >>> positives
    (array([2]), array([3]))
    >>> negatives
    (array([2, 2]), array([0, 1]))
    """
    epsilon = checks.number("epsilon", epsilon)
    how = scoring.score(metric, similarity, default_similarity="cosine")
    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, how, max_bytes, size, **told)
    xp = a.xp

    def anchors(block: Block, cut: Lists) -> Lists:
        s = block.alike()
        low = xp.min(xp.where(block.positive, s, xp.full_like(s, math.inf)), axis=-1, keepdims=True)
        high = xp.max(xp.where(block.negative, s, xp.full_like(s, -math.inf)), axis=-1, keepdims=True)
        hard = block.positive & (s < high + epsilon), block.negative & (s > low - epsilon)
        return (*shared.masked(a, block, hard[0], size), *shared.masked(a, block, hard[1], size))

    found = shared.lists(a, batch, anchors, 12, 4)
    return found[:2], found[2:]


@_miner("triplets", "Wu et al. 2017, Sampling Matters in Deep Embedding Learning, section 4", random=True)
def distance_weighted(
    x: Array,
    labels: Any = None,
    *,
    rng: Any,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    cutoff: float = 0.5,
    upper: float = 1.4,
    size: int | None = None,
    max_bytes: int | str | None = None,
) -> Lists:
    """Each positive pair with one negative, drawn so that all distances on the unit sphere are equally likely.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, max_bytes
        As in :func:`batch_hard`; rows are brought to length 1.
    rng : int, numpy.random.Generator, torch.Generator, jax.random.key or tf.random.Generator
        Of the library of ``x``, or NumPy's, or a seed: the same state gives the same triplets, whatever ``max_bytes`` is.
    cutoff : float
        Distances below it count as it.
    upper : float
        Negatives at this distance or farther are never drawn: they would have no loss.
    size : int, optional
        Places for each anchor (its first ``size`` positives), -1 where there is none. Needed under jit.

    Returns
    -------
    (anchors, positives, negatives) : three arrays of integers, shape (triplets,)
        Pairs whose anchor has no negative below ``upper`` are left out.

    Notes
    -----
    A negative at distance d has the weight 1 / q(d), q(d) = d^(dim - 2) (1 - d^2 / 4)^((dim - 3) / 2).

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> a, p, n = pairx.mining.distance_weighted(x, [0, 0, 1, 1], rng=0)
    >>> a, p
    (array([1, 2]), array([0, 3]))
    """
    cutoff = checks.number("cutoff", cutoff, positive=True, zero_ok=False)
    upper = checks.number("upper", upper, positive=True)
    told = {"labels": labels, "y_labels": y_labels, "positives": positives, "negatives": negatives}
    a, batch, size = shared.gather(x, y, scoring.Score(None, "cosine"), max_bytes, size, **told)
    xp = a.xp
    width = shared.most_positives(a, batch, size)
    d = a.backend.shape(batch.x)[-1]
    draws = xp.matrix_transpose(shared.uniform(a, rng, (width, batch.m)))  # a wider table begins with the same numbers, with a seed

    def anchors(block: Block, cut: Lists) -> Lists:
        columns, there = places(a, block.positive, width)
        gap = block.apart()  # 1 - cosine = |u - v|^2 / 2
        square = 2.0 * xp.where(gap > 0, gap, xp.zeros_like(gap))
        may = block.negative & (square < upper * upper) & (square < 4.0)
        square = xp.where(square < cutoff * cutoff, xp.full_like(square, cutoff * cutoff), square)
        rest = xp.where(may, 1.0 - 0.25 * square, xp.ones_like(square))
        weight = -0.5 * (d - 2.0) * xp.log(square) - 0.5 * (d - 3.0) * xp.log(rest)
        weight = xp.where(may, weight, xp.full_like(weight, -math.inf))
        top = xp.max(weight, axis=-1, keepdims=True)
        some = top > -math.inf
        shares = xp.where(may, xp.exp(weight - xp.where(some, top, xp.zeros_like(top))), xp.zeros_like(weight))
        sums = xp.cumulative_sum(shares, axis=-1)
        total = sums[:, -1:]
        target = cut[0] * total
        # A number that was rounded up to 1 would lie behind the last share.
        last = total * (1.0 - float(xp.finfo(total.dtype).eps))
        n = below(a, sums, xp.where(target < last, target, last), equal=True)
        n = xp.where(some, n, xp.zeros_like(n))
        return kept(a, there & some, (xp.expand_dims(block.index, axis=-1), columns, n), size is not None)

    return shared.lists(a, batch, anchors, 20, 3, cut=(draws,))
