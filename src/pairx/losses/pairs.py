"""Losses of pairs: those of one class are drawn together, others are pushed apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from .. import plan as plans
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._core import Arrays, Learnt, loss
from ._pairs import Terms, Who, answer
from ._score import Score

Array = Any
Params = dict[str, Any]


@dataclass(frozen=True)
class Contrast:
    """The term of a pair: near ones are pulled together, far ones pushed apart up to a margin."""

    hinge_on: str
    squared: bool
    half: bool

    def _power(self, a: Arrays, z: Array) -> Array:
        z = numeric.square(a.xp, z) if self.squared else z
        return 0.5 * z if self.half else z

    def near(self, a: Arrays, d: Array, p: Params) -> Array:
        """Of one class."""
        return self._power(a, numeric.hinge(a, d - p["positive_margin"]))

    def far(self, a: Arrays, d: Array, p: Params) -> Array:
        """Of different ones."""
        if self.hinge_on == "squared":
            z = numeric.hinge(a, p["margin"] - numeric.square(a.xp, numeric.hinge(a, d)))
            return 0.5 * z if self.half else z
        return self._power(a, numeric.hinge(a, p["margin"] - d))

    def __call__(self, a: Arrays, d: Array, same: Array, p: Params) -> Array:
        """Either, by a mask: with one hinge for both where both are powers of one."""
        if self.hinge_on == "squared":
            return a.xp.where(same, self.near(a, d, p), self.far(a, d, p))
        return self._power(a, numeric.hinge(a, a.xp.where(same, d - p["positive_margin"], p["margin"] - d)))


def _contrast(
    a: Arrays, who: Who, how: Score, *, margin: Any, positive_margin: Any, hinge_on: str, squared: bool, half: bool, once: bool, **rest: Any
) -> Any:
    plans.choice("hinge_on", hinge_on, ("distance", "squared"))
    term = Contrast(hinge_on, squared, half)
    learnt = Learnt(a, margin=margin, positive_margin=positive_margin)
    return answer(a, who, Terms(term.near, term.far, learnt, once=once, either=term), how, **rest)


@loss(
    "pairs",
    inputs="labels",
    unit="given pair; anchor, where all pairs are looked at",
    mean="pairs",
    formula=r"[\text{same}]\, d^2 + [\text{different}] \max(0, m - d)^2",
    source="Hadsell, Chopra and LeCun 2006, eq. 4; Weston, Ratle and Collobert 2008, eq. 3, with hinge_on='squared'",
    pairs=True,
)
def contrastive(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    same: Any = None,
    pairs: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 1.0,
    positive_margin: Any = 0.0,
    hinge_on: str = "distance",
    squared: bool = True,
    half: bool = False,
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Contrastive loss: pairs of one class are drawn together, others pushed apart up to a margin.

    =================  ==============================  =================  ====================
    ``hinge_on``       ``squared``                     same               different
    =================  ==============================  =================  ====================
    ``"distance"``     True                            d^2                max(0, m - d)^2
    ``"squared"``      True                            d^2                max(0, m - d^2)
    ``"distance"``     False (the L1 form)             d                  max(0, m - d)
    ``"squared"``      False                           d                  max(0, m - d^2)
    =================  ==============================  =================  ====================

    Parameters
    ----------
    x : array, shape (m, d)
        Rows; paired with each other, unless ``y`` is given.
    labels : array_like, shape (m,), (m, 1) or (m, classes)
        All pairs: rows with one label are the same; 0 and 1 in (m, classes) for several labels each.
    y : array, shape (n, d), optional
        The other side of the pairs. ``y_labels`` are theirs.
    same : array_like of booleans, 0 and 1, or shares in [0, 1], optional
        Shape (m,) or (m, 1): x and y row by row. (pairs,) with ``pairs``. (m, n), or (m, m) without y: a matrix W of all
        pairs, W near + (1 - W) far.
    pairs : (i, j), optional
        Rows i of x with rows j of y, or of x: integers (pairs,), with ``same`` or ``labels``.
    positives, negatives : (anchors, candidates) or mask (m, n), optional
        Two lists of indices (a miner's answer): these pairs, in this order, as often as they are listed. Masks: all
        pairs that are in them.
    margin : float or scalar array
        m, may be learnt.
    positive_margin : float or scalar array
        Pairs of the same class nearer than this are let alone: d becomes max(0, d - positive_margin).
    hinge_on : {"distance", "squared"}
        What is compared with the margin.
    squared : bool
        Terms squared, or linear in the distance.
    half : bool
        Half of it: Hadsell's 1/2.
    metric : str or callable, optional
        Default "euclidean".
    similarity : {"cosine", "dot"}, optional
        d = 1 - cosine, or minus the dot product.
    reduction : {"mean", "sum", "none"}
        "mean" over pairs. "none" has one value for each given pair, (pairs,); where all pairs are looked at, one for each
        anchor, (m,): the sum over its pairs. From ``labels`` or a matrix ``same`` of one set a pair has two anchors and
        each has half of it, so that the sum over the anchors has every pair once.
    weights : array_like, shape of "none", optional
        Of the given pairs, or of the anchors; a weighted mean divides by the sum over the pairs.
    return_count : bool
        Answer ``(loss, number of given pairs, or of anchors with a pair)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape (), (pairs,) or (m,)

    Raises
    ------
    TypeError, ValueError
        Arguments that say twice which pairs there are; shapes that would have to be broadcast; shares outside [0, 1].

    Notes
    -----
    The gradient is 0 at distance 0 and at the margin. No pairs: 0.

    References
    ----------
    Hadsell, Chopra and LeCun 2006, Dimensionality Reduction by Learning an Invariant Mapping, eq. 4 (``half=True``).
    Weston, Ratle and Collobert 2008, Deep Learning via Semi-Supervised Embedding, eq. 3 (``hinge_on="squared"``).

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0, 0.0], [0.0, 0.5], [0.3, 0.4]])
    >>> round(float(pairx.losses.contrastive(x, [0, 0, 1], reduction="sum")), 6)
    0.967544
    >>> pairx.losses.contrastive(x, pairs=([0, 0], [1, 2]), same=[1, 0], reduction="none")
    array([0.25, 0.25])
    """
    a = core.arrays(x=x, y=y, quadratic=scoring.quadratic(metric, similarity))
    return _contrast(
        a,
        Who(labels, y_labels, same, pairs, positives, negatives),
        scoring.score(metric, similarity, default_metric="euclidean"),
        margin=margin,
        positive_margin=positive_margin,
        hinge_on=hinge_on,
        squared=squared,
        half=half,
        once=True,
        reduction=reduction,
        weights=weights,
        return_count=return_count,
        max_bytes=max_bytes,
    )


class _SignalToNoise(Score):
    """var(x - y) / var(x), from centred rows; 0 where x has no variance."""

    symmetric = False

    def rows(self, a: Arrays, x: Array) -> Array:
        if isinstance(a.backend.shape(x)[-1], int) and a.backend.shape(x)[-1] == 0:
            return x
        x = x - a.backend.detach(x[:, :1])  # a constant row is exactly 0
        return x - a.xp.mean(x, axis=-1, keepdims=True)

    def apart(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        return self._ratio(a, super().apart(a, x, y, max_bytes), a.xp.expand_dims(self._size(a, x), axis=-1))

    def paired_apart(self, a: Arrays, x: Array, y: Array) -> Array:
        return self._ratio(a, super().paired_apart(a, x, y), self._size(a, x))

    def chosen_apart(self, a: Arrays, x: Array, y: Array, i: Array, j: Array, max_bytes: Any = None) -> Array:
        return self._ratio(a, super().chosen_apart(a, x, y, i, j, max_bytes), a.xp.take(self._size(a, x), i, axis=0))

    def _size(self, a: Arrays, x: Array) -> Array:
        return super().paired_apart(a, x, a.xp.zeros_like(x))

    def _ratio(self, a: Arrays, d: Array, size: Array) -> Array:
        """Both divided by the size first: their squares may not be representable, nor that of the size, which a quotient's slope has."""
        zero = size == 0
        size = a.xp.where(zero, a.xp.ones_like(size), size)
        unit = a.backend.detach(size)
        found = a.xp.where(zero, a.xp.zeros_like(d), (d / unit) / (size / unit))
        return found * found


@loss(
    "pairs",
    inputs="labels",
    unit="given pair; anchor, where all pairs are looked at",
    mean="pairs",
    formula=r"[\text{same}]\, d_{ij} + [\text{different}] \max(0, m - d_{ij}),"
    r" \quad d_{ij} = \frac{\mathrm{var}(x_i - x_j)}{\mathrm{var}(x_i)}",
    source="Yuan et al. 2019, Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, eq. 5 and 10",
    pairs=True,
)
def signal_to_noise(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    same: Any = None,
    pairs: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 1.0,
    positive_margin: Any = 0.0,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Contrastive loss of the signal-to-noise distance: the variance of the difference, in variances of the anchor.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors; paired with each other, unless ``y`` is given.
    labels, y, y_labels, same, pairs, positives, negatives
        Which pairs, as in :func:`contrastive`; the first of a pair is its anchor, the signal.
    margin, positive_margin : float or scalar array
        Pairs of different classes are pushed apart up to ``margin``; those of the same class are let alone when nearer
        than ``positive_margin``. May be learnt.
    reduction, weights, return_count, max_bytes
        As in :func:`contrastive`, but the distance is not symmetric: (i, j) and (j, i) are two pairs, and "none" has for
        each anchor the sum over all others.

    Returns
    -------
    array, shape (), (pairs,) or (m,)

    Notes
    -----
    An anchor without variance (all features equal) is at distance 0 from everybody, with gradient 0.
    The paper's penalty on the sum of the features is not part of it.

    References
    ----------
    Yuan et al. 2019, Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, eq. 5 and 10.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0, 2.0], [0.0, 3.0], [0.0, 1.0]])
    >>> pairx.losses.signal_to_noise(x, pairs=([0, 0], [1, 2]), same=[1, 0], reduction="none")
    array([0.25, 0.75])
    """
    a = core.arrays(x=x, y=y)
    return _contrast(
        a,
        Who(labels, y_labels, same, pairs, positives, negatives),
        _SignalToNoise("euclidean", None),
        margin=margin,
        positive_margin=positive_margin,
        hinge_on="distance",
        squared=False,
        half=False,
        once=False,
        reduction=reduction,
        weights=weights,
        return_count=return_count,
        max_bytes=max_bytes,
    )


@loss(
    "pairs",
    inputs="rows and target",
    unit="pair",
    mean="pairs",
    formula=r"[z = 1](1 - \cos(x, y)) + [z = -1] \max(0, \cos(x, y) - m)",
    source="torch.nn.functional.cosine_embedding_loss",
)
def cosine_embedding(
    x: Array,
    y: Array,
    target: Any,
    *,
    margin: Any = 0.0,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Cosine embedding loss, row by row: 1 - cos for those that belong together, max(0, cos - margin) for the others.

    Parameters
    ----------
    x, y : array, shape (n, d)
        Row i of x with row i of y.
    target : array_like, shape (n,) or (n, 1)
        1 or True: together. -1, 0 or False: apart.
    margin : float or scalar array
        Between -1 and 1; may be learnt.
    reduction : {"mean", "sum", "none"}
        "mean" over rows; "none" has shape (n,).
    weights : array_like, shape (n,), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, n)``.

    Returns
    -------
    array, shape () or (n,)

    Notes
    -----
    A zero vector has cosine 0 with everything, and gradient 0. Equal rows are at exactly 0.

    References
    ----------
    torch.nn.functional.cosine_embedding_loss

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])
    >>> pairx.losses.cosine_embedding(x, y, [1, -1], reduction="none")
    array([1., 1.])
    """
    a = core.arrays(x=x, y=y)
    xp = a.xp
    core.vectors(a, "x", "y")
    core.same_shape(a, "x", "y")
    m = Learnt(a, margin=margin)
    z = xp.astype(core.class_labels(a, target, a.shape("x")[0], "target", several=False), a.compute)
    if not a.backend.traced(z) and bool(xp.any((z != 1) & (z != 0) & (z != -1))):
        raise ValueError("target has other values than 1 (together) and -1 or 0 (apart).")
    apart = cosine_gap(a, scoring.unit(a, a["x"]), scoring.unit(a, a["y"]))
    far = numeric.hinge(a, 1.0 - apart - m.of(m.whole)["margin"])
    return core.reduce(a, xp.where(z == 1, apart, far), reduction=reduction, weights=weights, return_count=return_count)


def cosine_gap(a: Arrays, u: Array, v: Array) -> Array:
    """1 - cos of rows of length 1 or 0: by the difference, which is exact where they are near each other."""
    xp = a.xp
    zero = xp.astype(~(xp.any(u != 0, axis=-1) & xp.any(v != 0, axis=-1)), u.dtype)
    d = u - v
    return xp.where(zero > 0, xp.ones_like(zero), 0.5 * xp.sum(d * d, axis=-1))


@loss(
    "pairs",
    inputs="labels",
    unit="given pair; anchor, where all pairs are looked at",
    mean="pairs whose term is not 0",
    formula=r"\max(0, \alpha + z_{ij} (d_{ij} - \beta_i)) + \nu \beta_i, \quad z = \pm 1",
    source="Wu, Manmatha, Smola and Krähenbühl 2017, Sampling Matters in Deep Embedding Learning, eq. 7 and 8",
    pairs=True,
)
def margin(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    same: Any = None,
    pairs: Any = None,
    positives: Any = None,
    negatives: Any = None,
    margin: Any = 0.2,
    beta: Any = 1.2,
    beta_per: str = "anchor",
    nu: Any = 0.0,
    over: str = "active",
    metric: Any = None,
    similarity: str | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Margin loss: pairs of one class nearer than beta - margin, others farther than beta + margin; beta may be learnt.

    Parameters
    ----------
    x : array, shape (m, d)
        Anchors; paired with each other, unless ``y`` is given.
    labels, y, y_labels, same, pairs, positives, negatives
        Which pairs, as in :func:`contrastive`; the first of a pair is its anchor.
    margin : float or scalar array
        alpha, on both sides of the boundary.
    beta : float, scalar array, or array (m,) or (classes,)
        The boundary: one for all, one for each anchor, or with ``beta_per="class"`` one for each class, chosen by the
        anchor's label. The paper's beta_0 + beta_class + beta_image: add them up to (m,).
    beta_per : {"anchor", "class"}
        What an array ``beta`` has an entry for.
    nu : float or scalar array
        Adds nu * beta to each pair that takes part, so that a learnt beta does not grow.
    over : {"active", "all"}
        Which pairs take part: those whose hinge is not 0, as in the paper's code, or all.
    metric, similarity
        As in :func:`contrastive`.
    reduction, weights, return_count, max_bytes
        As in :func:`contrastive`, but every anchor has a beta, so (i, j) and (j, i) are two pairs. "mean" is over the pairs
        that take part.

    Returns
    -------
    array, shape (), (pairs,) or (m,)

    References
    ----------
    Wu, Manmatha, Smola and Krähenbühl 2017, Sampling Matters in Deep Embedding Learning, eq. 7 and 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[0.0, 0.0], [0.0, 1.5], [0.0, 1.0]])
    >>> round(float(pairx.losses.margin(x, [0, 0, 1])), 6)
    0.6
    """
    plans.choice("over", over, ("active", "all"))
    plans.choice("beta_per", beta_per, ("anchor", "class"))
    a = core.arrays(x=x, y=y, quadratic=scoring.quadratic(metric, similarity))
    learnt, own = {"margin": margin, "nu": nu}, {}
    core.vectors(a, "x")
    if isinstance(beta, bool | int | float) or all(n == 1 for n in a.backend.shape(a.bring(beta))):
        learnt["beta"] = beta
    else:
        own["beta"] = _betas(a, a.bring(beta, a.compute), beta_per, labels)

    def near(a: Arrays, d: Array, p: Params) -> Array:
        return numeric.hinge(a, d - p["beta"] + p["margin"])

    def far(a: Arrays, d: Array, p: Params) -> Array:
        return numeric.hinge(a, p["beta"] - d + p["margin"])

    def extra(a: Arrays, value: Array, p: Params) -> Array:
        return p["nu"] * p["beta"] + a.xp.zeros_like(value)

    plain = isinstance(nu, bool | int | float) and nu == 0
    terms = Terms(near, far, Learnt(a, **learnt), own, None if plain else extra, over == "active", once=False)
    return answer(
        a,
        Who(labels, y_labels, same, pairs, positives, negatives),
        terms,
        scoring.score(metric, similarity, default_metric="euclidean"),
        reduction=reduction,
        weights=weights,
        return_count=return_count,
        max_bytes=max_bytes,
    )


def _betas(a: Arrays, beta: Array, per: str, labels: Any) -> Array:
    """The beta of each anchor."""
    shape, m = a.backend.shape(beta), a.shape("x")[0]
    if len(shape) != 1 or (per == "anchor" and not core.fits(shape, (m,))):
        want = checks.shown((m,)) if per == "anchor" else "one for each class"
        raise ValueError(f"beta has shape {checks.shown(shape)}: expected a number, or {want} (beta_per={per!r}).")
    if per == "anchor":
        return beta
    if labels is None:
        raise TypeError("beta_per='class': pass labels, which choose the beta of each anchor.")
    own = core.class_labels(a, labels, m, several=False)
    if a.backend.kind(a.backend, own.dtype) != "integral":
        raise TypeError(f"labels has dtype {checks.dtype_name(own.dtype)}: beta_per='class' needs integers.")
    if not a.backend.traced(own) and isinstance(m, int) and m and bool(a.xp.any((own < 0) | (own >= shape[0]))):
        raise ValueError(f"labels reach outside 0 to {shape[0] - 1}, for which beta has an entry.")
    return a.xp.take(beta, own, axis=0)
