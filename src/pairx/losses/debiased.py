"""Losses that know their negatives may be false, or that name a noise: debiased InfoNCE, noise contrastive estimation."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Batch, Block
from ._core import loss
from .views import _against_own

Array = Any


@loss(
    "softmax",
    inputs="views",
    unit="row of either view, x first",
    mean="rows of both views",
    formula=r"-\log\frac{e^{s_{ip}/t}}{e^{s_{ip}/t} + N g}, \quad g = \max\left(\frac{\frac{1}{N}\sum_k w_k e^{s_{ik}/t} "
    r"- \eta \frac{1}{M}\sum_j e^{s_{ij}/t}}{1 - \eta}, e^{-1/t}\right), \quad w_k \propto e^{\beta s_{ik}}",
    source="Chuang et al. 2020, Debiased Contrastive Learning, eq. 8; Robinson et al. 2021, Hard Negative Samples, section 3",
    pairs=True,
)
def debiased_info_nce(
    x: Array,
    y: Array,
    *,
    positives: Array | None = None,
    positive_prior: float = 0.1,
    hardness: float = 0.0,
    temperature: Any = 0.5,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Debiased InfoNCE of two views: some of the others are of the anchor's class, which the denominator makes up for.

    Parameters
    ----------
    x, y : array, shape (m, d)
        Two views, row by row; compared by their cosines. Each of the 2m rows is an anchor, and the 2m - 2 rows of the other samples are
        its unlabelled candidates.
    positives : array, shape (m, k, d), optional
        More rows of each sample's class: the M = 1 + k positives that the correction is taken from.
    positive_prior : float
        eta: how likely an unlabelled row is of the anchor's class, 0 <= eta < 1.
    hardness : float
        beta >= 0: unlabelled rows are weighted by e^(beta s), normalised to mean 1; 0 is the debiased loss, above it that with hard
        negatives.
    temperature : float or scalar array
        t > 0; an array may be learnt.
    reduction : {"mean", "sum", "none"}
        "mean" over the 2m rows; "none" has shape (2m,).
    weights : array_like, shape (2m,), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of rows)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (2m,)

    Raises
    ------
    ValueError
        If shapes do not fit, a hyper-parameter is out of range, or ``max_bytes`` is below one row of candidates.

    Notes
    -----
    One pass over the pairs: two log-sum-exps for each anchor; everything after that is in logarithms, so that no exponential
    overflows at a small temperature. Without unlabelled rows (m = 1) a row costs 0.

    References
    ----------
    Chuang et al. 2020, eq. 8; Robinson et al. 2021, section 3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.debiased_info_nce(x, x, positive_prior=0.0, temperature=1.0)), 6)
    0.551445
    """
    a = core.arrays(x=x, y=y, positives=positives)
    eta = checks.number("positive_prior", positive_prior, positive=True)
    if eta >= 1:
        raise ValueError(f"positive_prior={positive_prior!r}: expected a number from 0 to below 1.")
    beta = checks.number("hardness", hardness, positive=True)
    scale = core.temperature(a, temperature)
    how = scoring.score(None, "cosine")
    batch = Batch(a, "x", "y", paired=True, score=how, max_bytes=max_bytes)
    more: tuple[Array, ...] = ()
    if positives is not None:
        shape, want = a.shape("positives"), (a.shape("x")[0], None, a.shape("x")[1])
        if len(shape) != 3 or not core.fits(shape, want):
            raise ValueError(
                f"positives has shape {checks.shown(shape)}: expected (m, k, d) with m and d of x, {checks.shown(a.shape('x'))}."
            )
        rows = how.rows(a, a["positives"])
        more = (a.xp.concat([rows, rows], axis=0),)
    view, partner = batch.both_views()

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp, by = a.xp, scale.of(whole)
        s = block.logits(1.0)
        unlabelled = block.other & (xp.expand_dims(cut[1], axis=-1) != xp.expand_dims(block.columns, axis=0))
        count = numeric.number_of(xp, unlabelled, a.compute)
        some = count > 0
        positive = how.paired_logits(a, block.x, cut[0], by)
        top = numeric.lse(a, s * (by + beta), unlabelled)
        if beta == 0:
            below = xp.log(xp.where(some, count, xp.ones_like(count)))
        else:
            below = numeric.lse(a, s * beta, unlabelled)
        mean = xp.where(some, top, xp.zeros_like(top)) - xp.where(some, below, xp.zeros_like(below))
        known = positive
        if more:
            own = _against_own(a, how, block.x, cut[2], by)
            each = xp.concat([xp.expand_dims(positive, axis=-1), own], axis=-1)
            known = numeric.lse(a, each) - xp.log(numeric.number_of(xp, xp.ones_like(each), a.compute))
        c = a.backend.detach(xp.maximum(mean, positive))
        # What is subtracted may be far above the rest, and does not matter then: the floor is taken.
        taken = eta * xp.exp(xp.minimum(known - c, xp.full_like(c, 80.0)))
        g = xp.maximum((xp.exp(mean - c) - taken) / (1.0 - eta), xp.exp(-by - c))
        total = xp.exp(positive - c) + count * g
        value = c + xp.log(xp.where(some, total, xp.ones_like(total))) - positive
        return xp.where(some, value, xp.zeros_like(value)), xp.ones_like(some)

    return batch.reduced(
        anchors,
        cut=(view, partner, *more),
        whole=scale.whole,
        buffers=6 if beta == 0 else 9,
        reduction=reduction,
        weights=weights,
        return_count=return_count,
    )


@loss(
    "softmax",
    inputs="noise",
    unit="datum",
    mean="data",
    formula=r"-\log\sigma(l(x_i)) - \sum_k \log(1 - \sigma(l(\tilde x_{ik}))), \quad l = \log p_\theta - \log(K q)",
    source="Gutmann and Hyvärinen 2010, Noise-contrastive Estimation, eq. 3; Mnih and Teh 2012, eq. 8 (K noise samples)",
)
def nce(
    x: Array,
    noise: Array,
    *,
    x_log_noise: Array,
    noise_log_noise: Array,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Noise contrastive estimation: tell data from noise of a known density.

    Parameters
    ----------
    x : array, shape (m,)
        The model's log density of each datum, log p(x_i); it need not be normalised.
    noise : array, shape (m, k)
        The model's log density of k noise samples for each datum.
    x_log_noise : array, shape (m,)
        The noise's log density of each datum, log q(x_i).
    noise_log_noise : array, shape (m, k)
        The noise's log density of its samples.
    reduction : {"mean", "sum", "none"}
        "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the data; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of data)``.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    Gutmann and Hyvärinen 2010, eq. 3; Mnih and Teh 2012, A Fast and Simple Algorithm for Training Neural Probabilistic Language
    Models, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> zero = np.zeros((1, 1))
    >>> round(float(pairx.losses.nce(zero[0], zero, x_log_noise=zero[0], noise_log_noise=zero)), 6)
    1.386294
    """
    a = core.arrays(x=x, noise=noise, x_log_noise=x_log_noise, noise_log_noise=noise_log_noise)
    core.same_shape(a, "x", "x_log_noise")
    core.same_shape(a, "noise", "noise_log_noise")
    for name, ndim, meaning in (("x", 1, "(data,)"), ("noise", 2, "(data, samples)")):
        if len(a.shape(name)) != ndim:
            raise ValueError(f"{name} has shape {checks.shown(a.shape(name))}: expected {meaning}.")
    checks.equal_size("x", a.shape("x"), "noise", a.shape("noise"), 0, "numbers of data")
    xp, k = a.xp, a.shape("noise")[1]
    many = math.log(max(k, 1)) if isinstance(k, int) else xp.log(xp.astype(xp.maximum(k, 1), a.compute))
    datum = a["x"] - a["x_log_noise"] - many
    samples = a["noise"] - a["noise_log_noise"] - many
    values = numeric.softplus(a, -datum) + xp.sum(numeric.softplus(a, samples), axis=-1)
    return core.reduce(a, values, reduction=reduction, weights=weights, return_count=return_count)
