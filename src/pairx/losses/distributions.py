"""Losses between distributions: probabilities or logits of one sample in the last axis, or one by one."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from ..metrics import log_ratio, two_entropies
from . import _core as core
from ._core import loss

Array = Any
SHANNON = "Kullback and Leibler 1951, On Information and Sufficiency"


def _two(predictions: Array, targets: Array) -> core.Arrays:
    a = core.arrays(predictions=predictions, targets=targets)
    core.same_shape(a, "predictions", "targets")
    if len(a.shape("predictions")) == 0:
        raise ValueError("predictions has shape (): expected the classes in the last axis.")
    return a


def _term(a: core.Arrays, p: Array, q: Array) -> Array:
    """p log(p / q): 0 at p = 0, inf at q = 0 < p. Slopes that are infinite are 0."""
    xp = a.xp
    plain = (p > 0) & (q > 0)
    log = log_ratio(xp, xp.where(plain, p, 1.0), xp.where(plain, q, 1.0))
    special = xp.where((p == 0) & (q >= 0), 0.0, xp.where((p > 0) & (q == 0), math.inf, math.nan * a.backend.detach(p + q)))
    return xp.where(plain, xp.where(plain, p, 1.0) * log, special)


def _term_of_logs(a: core.Arrays, p: Array, log_p: Array, log_q: Array) -> Array:
    """p (log p - log q) from logarithms, which may be -inf."""
    xp = a.xp
    both = ((log_p > -math.inf) | (log_p != log_p)) & ((log_q > -math.inf) | (log_q != log_q))
    value = xp.where(both, p, 0.0) * (xp.where(both, log_p, 0.0) - xp.where(both, log_q, 0.0))
    return xp.where(both, value, xp.where(log_p == -math.inf, xp.zeros_like(p), xp.full_like(p, math.inf)))


@loss(
    "distributions",
    inputs="distributions",
    unit="sample",
    mean="samples",
    formula=r"\sum_k p_k \log\frac{p_k}{q_k}",
    source=SHANNON,
)
def kl_divergence(
    predictions: Array,
    targets: Array,
    *,
    reverse: bool = False,
    log_input: bool = False,
    log_target: bool = False,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Kullback-Leibler divergence of the targets p from the predictions q: sum of p log(p / q) over the last axis.

    Parameters
    ----------
    predictions : array, shape (..., k)
        Probabilities q as they are (nothing is normalised), or their logarithms.
    targets : array, shape (..., k)
        Probabilities p, or their logarithms.
    reverse : bool
        The other direction: sum of q log(q / p).
    log_input, log_target : bool
        ``predictions``, ``targets`` are natural logarithms; -inf is a probability of 0.
    reduction : {"mean", "sum", "none"}
        "mean" over samples; "none" has the shape (...).
    weights : array_like, shape (...), optional
        Of the samples; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of samples)``.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    0 log 0 is 0; p > 0 against q = 0 is inf. Where the slope is infinite (a logarithm at 0) the gradient is 0. Close
    probabilities keep their digits: nothing is subtracted that is nearly equal.

    References
    ----------
    Kullback and Leibler 1951, On Information and Sufficiency.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    >>> round(float(pairx.losses.kl_divergence(q, p)), 6)  # 0.5 log 2 + 0.5 log(2/3)
    0.143841
    """
    a = _two(predictions, targets)
    q, p, log_q, log_p = a["predictions"], a["targets"], log_input, log_target
    if reverse:
        q, p, log_q, log_p = p, q, log_p, log_q
    xp = a.xp
    if log_p or log_q:
        first = xp.exp(p) if log_p else p
        terms = _term_of_logs(a, first, p if log_p else _log(a, p), q if log_q else _log(a, q))
    else:
        terms = _term(a, p, q)
    return core.reduce(a, xp.sum(terms, axis=-1), reduction=reduction, weights=weights, return_count=return_count)


def _log(a: core.Arrays, p: Array) -> Array:
    """log p, -inf at 0 with slope 0."""
    xp = a.xp
    return xp.where(p == 0, -math.inf, xp.log(xp.where(p == 0, 1.0, p)))


@loss(
    "distributions",
    inputs="distributions",
    unit="sample",
    mean="samples",
    formula=r"\tfrac12 \sum_k p_k \log\frac{p_k}{m_k} + \tfrac12 \sum_k q_k \log\frac{q_k}{m_k}, \quad m = \tfrac12 (p + q)",
    source="Lin 1991, Divergence Measures Based on the Shannon Entropy, eq. 4.1",
)
def jensen_shannon(
    predictions: Array,
    targets: Array,
    *,
    base: float | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Jensen-Shannon divergence: the mean of both Kullback-Leibler divergences from the average, over the last axis.

    It is the square of :func:`pairx.cdist`'s ``"jensenshannon"`` where both rows sum to 1.

    Parameters
    ----------
    predictions, targets : array, shape (..., k)
        Probabilities as they are; nothing is normalised.
    base : float, optional
        Of the logarithm. Default e; with 2 the divergence is at most 1.
    reduction, weights, return_count
        As in :func:`kl_divergence`.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    Written in u = (p - q) / (p + q), so that close distributions keep their digits. The slope at 0 in one of them is infinite and
    taken as 0.

    References
    ----------
    Lin 1991, Divergence Measures Based on the Shannon Entropy, eq. 4.1.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.jensen_shannon(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), base=2)), 6)
    1.0
    """
    a = _two(predictions, targets)
    xp, q, p = a.xp, a["predictions"], a["targets"]
    unit = 1.0
    if base is not None:
        base = checks.number("base", base, positive=True, zero_ok=False)
        if base == 1:
            raise ValueError("base=1: logarithms to base 1 do not exist.")
        unit = 1.0 / math.log(base)
    inner = (p > 0) & (q > 0)
    s = xp.where(inner, p, 1.0) + xp.where(inner, q, 1.0)
    u = (xp.where(inner, p, 1.0) - xp.where(inner, q, 1.0)) / s
    # p log(p / m) + q log(q / m) = s / 2 ((1 + u) log(1 + u) + (1 - u) log(1 - u)); at a 0 of one the other's log 2.
    far = xp.abs(u) == 1  # one is lost beside the other
    inner = inner & ~far
    u = xp.where(far, 0.0, u)
    edge = xp.where(inner, 0.0, 0.5 * math.log(2) * (p + q))
    negative = (p < 0) | (q < 0)
    terms = xp.where(inner, 0.25 * s * two_entropies(xp, u), xp.where(negative, math.nan, edge))
    return core.reduce(a, xp.sum(terms, axis=-1) * unit, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "distributions",
    inputs="distributions",
    unit="sample",
    mean="samples",
    formula=r"\sqrt{\tfrac12 \sum_k (\sqrt{p_k} - \sqrt{q_k})^2}",
    source="Hellinger 1909; Beran 1977, Minimum Hellinger Distance Estimates",
)
def hellinger(
    predictions: Array,
    targets: Array,
    *,
    squared: bool = False,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Hellinger distance over the last axis.

    Parameters
    ----------
    predictions, targets : array, shape (..., k)
        Probabilities as they are; nothing is normalised.
    squared : bool
        Without the outer square root: smooth also where both are equal.
    reduction, weights, return_count
        As in :func:`kl_divergence`.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    Equal distributions have gradient 0. The slope of a root at 0 is infinite and taken as 0.

    References
    ----------
    Hellinger 1909; Beran 1977, Minimum Hellinger Distance Estimates.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.hellinger(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))), 6)
    1.0
    """
    a = _two(predictions, targets)
    xp, q, p = a.xp, a["predictions"], a["targets"]
    roots = [xp.where(v == 0, 0.0, xp.sqrt(xp.where(v == 0, 1.0, v))) for v in (p, q)]
    d = roots[0] - roots[1]
    total = 0.5 * xp.sum(d * d, axis=-1)
    if not squared:
        total = xp.where(total == 0, 0.0, xp.sqrt(xp.where(total == 0, 1.0, total)))
    return core.reduce(a, total, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "distributions",
    inputs="distributions",
    unit="sample",
    mean="samples",
    formula=r"\sum_k (z_{k+1} - z_k) \left| \sum_{l \le k} (p_l - q_l) \right|",
    source="Vallender 1974, Calculation of the Wasserstein Distance Between Probability Distributions on the Line",
)
def wasserstein(
    predictions: Array,
    targets: Array,
    *,
    positions: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Wasserstein-1 (earth mover's) distance of two histograms on a line, over the last axis.

    Parameters
    ----------
    predictions, targets : array, shape (..., k)
        Histograms over the same bins, of equal mass.
    positions : array_like, shape (k,), optional
        Of the bins, ascending. Default 0, 1, ..., k - 1.
    reduction, weights, return_count
        As in :func:`kl_divergence`.

    Returns
    -------
    array, shape () or (...)

    References
    ----------
    Vallender 1974, Calculation of the Wasserstein Distance Between Probability Distributions on the Line.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.wasserstein(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])))
    2.0
    """
    a = _two(predictions, targets)
    xp = a.xp
    k = a.shape("predictions")[-1]
    gap = xp.cumulative_sum(a["targets"] - a["predictions"], axis=-1)
    if positions is not None:
        z = a.bring(positions, a.compute)
        if not core.fits(a.backend.shape(z), (k,)):
            raise ValueError(f"positions has shape {checks.shown(a.backend.shape(z))}: expected one for each bin, {checks.shown((k,))}.")
        terms = xp.abs(gap[..., :-1]) * (z[1:] - z[:-1])
    else:
        terms = xp.abs(gap[..., :-1])
    return core.reduce(a, xp.sum(terms, axis=-1), reduction=reduction, weights=weights, return_count=return_count)
