"""Losses of two arrays of one shape, element by element or row by row."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from ._core import loss

Array = Any


def _pair(predictions: Array, targets: Array) -> core.Arrays:
    a = core.arrays(predictions=predictions, targets=targets)
    core.same_shape(a, "predictions", "targets")
    return a


def _distance(a: core.Arrays) -> Array:
    """|prediction - target|, with slope 0 at 0."""
    return a.xp.abs(a["predictions"] - a["targets"])


@loss("regression", inputs="two", unit="element", mean="elements", formula=r"|x - y|", source="Boscovich 1757; torch.nn.functional.l1_loss")
def l1(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Absolute error.

    Parameters
    ----------
    predictions, targets : array, one shape
        Nothing is broadcast.
    reduction : {"mean", "sum", "none"}
        "mean" over elements; "none" has their shape.
    weights : array_like, the same shape, optional
        Of the elements; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of elements)``.

    Returns
    -------
    array, shape () or that of the inputs

    Notes
    -----
    The gradient at equal elements is 0.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.l1(np.array([1.0, 2.0]), np.array([0.0, 4.0])))
    1.5
    """
    a = _pair(predictions, targets)
    return core.reduce(a, _distance(a), reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "regression", inputs="two", unit="element", mean="elements", formula=r"(x - y)^2", source="Legendre 1805; torch.nn.functional.mse_loss"
)
def l2(
    predictions: Array, targets: Array, *, half: bool = False, reduction: str = "mean", weights: Any = None, return_count: bool = False
) -> Any:
    """Squared error.

    Parameters
    ----------
    predictions, targets : array, one shape
        Nothing is broadcast.
    half : bool
        With the factor 1/2 (as optax.losses.l2_loss).
    reduction, weights, return_count
        As in :func:`l1`.

    Returns
    -------
    array, shape () or that of the inputs

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.l2(np.array([1.0, 2.0]), np.array([0.0, 4.0])))
    2.5
    """
    a = _pair(predictions, targets)
    d = a["predictions"] - a["targets"]
    return core.reduce(a, d * d * (0.5 if half else 1.0), reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "regression",
    inputs="two",
    unit="element",
    mean="elements",
    formula=r"\tfrac12 d^2 \text{ if } d \le \delta, \text{ else } \delta (d - \tfrac12 \delta), \quad d = |x - y|",
    source="Huber 1964, Robust Estimation of a Location Parameter",
)
def huber(
    predictions: Array, targets: Array, *, delta: float = 1.0, reduction: str = "mean", weights: Any = None, return_count: bool = False
) -> Any:
    """Huber loss: squared error near 0, absolute error beyond ``delta``.

    Parameters
    ----------
    predictions, targets : array, one shape
        Nothing is broadcast.
    delta : float
        Where the parabola becomes a line, above 0.
    reduction, weights, return_count
        As in :func:`l1`.

    Returns
    -------
    array, shape () or that of the inputs

    References
    ----------
    Huber 1964, Robust Estimation of a Location Parameter.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.losses.huber(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none").tolist()
    [0.125, 2.5]
    """
    delta = checks.number("delta", delta, positive=True, zero_ok=False)
    a = _pair(predictions, targets)
    xp, z = a.xp, a["predictions"] - a["targets"]
    near = xp.where(xp.abs(z) < delta, z, delta * xp.sign(z))
    return core.reduce(a, near * (z - 0.5 * near), reduction=reduction, weights=weights, return_count=return_count)


@loss("regression", inputs="two", unit="element", mean="elements", formula=r"\log\cosh(x - y)", source="Green 1990; keras.losses.LogCosh")
def log_cosh(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Logarithm of the hyperbolic cosine of the error: squared near 0, absolute far from it, smooth everywhere.

    Parameters
    ----------
    predictions, targets : array, one shape
        Nothing is broadcast.
    reduction, weights, return_count
        As in :func:`l1`.

    Returns
    -------
    array, shape () or that of the inputs

    Notes
    -----
    Near 0 it is computed as log1p(2 sinh(d/2)^2), so that small errors keep their digits.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.log_cosh(np.array([1.0]), np.array([0.0]))), 6)
    0.433781
    """
    a = _pair(predictions, targets)
    xp, z, d = a.xp, a["predictions"] - a["targets"], _distance(a)
    small = d < 1
    s = xp.sinh(0.5 * xp.where(small, z, 0.0))
    far = d + xp.log1p(xp.exp(-2.0 * d)) - math.log(2)
    return core.reduce(a, xp.where(small, xp.log1p(2.0 * s * s), far), reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "regression",
    inputs="two",
    unit="element",
    mean="elements",
    formula=r"\max(q (y - x), (q - 1) (y - x))",
    source="Koenker and Bassett 1978, Regression Quantiles",
)
def quantile(
    predictions: Array, targets: Array, *, q: float = 0.5, reduction: str = "mean", weights: Any = None, return_count: bool = False
) -> Any:
    """Quantile (pinball) loss: its best constant prediction is the q-quantile of the targets.

    Parameters
    ----------
    predictions, targets : array, one shape
        Nothing is broadcast.
    q : float
        From 0 to 1; 0.5 is half the absolute error.
    reduction, weights, return_count
        As in :func:`l1`.

    Returns
    -------
    array, shape () or that of the inputs

    Notes
    -----
    The gradient at equal elements is 0.

    References
    ----------
    Koenker and Bassett 1978, Regression Quantiles.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.losses.quantile(np.array([0.0, 0.0]), np.array([2.0, -2.0]), q=0.75, reduction="none").tolist()
    [1.5, 0.5]
    """
    q = checks.number("q", q, positive=True)
    if q > 1:
        raise ValueError(f"q={q}: expected a number from 0 to 1.")
    a = _pair(predictions, targets)
    xp, d = a.xp, _distance(a)
    slope = xp.where(a["predictions"] < a["targets"], xp.full_like(d, q), xp.full_like(d, 1.0 - q))
    return core.reduce(a, slope * d, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "regression",
    inputs="two",
    unit="row",
    mean="rows",
    formula=r"1 - \frac{x \cdot y}{|x| |y|}",
    source="Salton 1975; torch.nn.functional.cosine_embedding_loss, keras.losses.CosineSimilarity + 1",
)
def cosine(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Cosine distance of the rows (the last axis): from 0 to 2, whatever their lengths, so it cannot diverge.

    Parameters
    ----------
    predictions, targets : array, shape (..., d)
        Nothing is broadcast.
    reduction : {"mean", "sum", "none"}
        "mean" over rows; "none" has the shape (...).
    weights : array_like, shape (...), optional
        Of the rows; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of rows)``.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    A zero row has similarity 0 with anything, and gradient 0; no epsilon is added to a norm.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.cosine(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])))
    1.0
    """
    from ..distances import paired

    a = _pair(predictions, targets)
    if len(a.shape("predictions")) == 0:
        raise ValueError("predictions has shape (): expected rows in the last axis.")
    values = paired(a["predictions"], a["targets"], "cosine")
    return core.reduce(a, values, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "regression",
    inputs="binary",
    unit="sample",
    mean="samples",
    formula=r"\frac1k \sum_k [\hat x_k \neq \hat y_k]",
    source="Hamming 1950; sklearn.metrics.hamming_loss",
    differentiable=False,
)
def hamming(
    predictions: Array,
    targets: Array,
    *,
    threshold: float = 0.5,
    from_logits: bool = False,
    normalize: bool = True,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Hamming loss of several labels for each sample: the fraction (or number) of labels that are wrong, in the last axis.

    Parameters
    ----------
    predictions : array, shape (..., k)
        Booleans, 0 and 1, or scores from 0 to 1, which are true above ``threshold``.
    targets : array, shape (..., k)
        Booleans, 0 and 1.
    threshold : float
        Of the scores.
    from_logits : bool
        ``predictions`` are logits: their sigmoids are the scores.
    normalize : bool
        The fraction of wrong labels; otherwise their number.
    reduction : {"mean", "sum", "none"}
        "mean" over samples; "none" has the shape (...).
    weights : array_like, shape (...), optional
        Of the samples; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of samples)``.

    Returns
    -------
    array, shape () or (...)

    Raises
    ------
    ValueError
        Scores outside [0, 1] without ``from_logits``, or targets other than 0 and 1, where values can be seen.

    Notes
    -----
    It is no function to descend: its gradient is 0.

    References
    ----------
    Hamming 1950, Error Detecting and Error Correcting Codes.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> pairx.losses.hamming(np.array([[0.9, 0.2], [0.4, 0.6]]), np.array([[1, 0], [1, 0]]), reduction="none").tolist()
    [0.0, 1.0]
    """
    t = checks.number("threshold", threshold)
    if not 0 < t < 1:
        raise ValueError(f"threshold={threshold}: expected a number between 0 and 1.")
    a = _pair(predictions, targets)
    if len(a.shape("predictions")) == 0:
        raise ValueError("predictions has shape (): expected the labels in the last axis.")
    xp, x, y = a.xp, a["predictions"], a["targets"]
    if not a.backend.traced(x, y):
        if not from_logits and bool(xp.any((x < 0) | (x > 1))):
            raise ValueError("predictions: expected scores from 0 to 1; for logits pass from_logits=True.")
        if bool(xp.any((y != 0) & (y != 1))):
            raise ValueError("targets: expected booleans, or 0 and 1.")
    wrong = xp.astype((x > (math.log(t / (1 - t)) if from_logits else t)) != (y > 0.5), a.compute)
    value = xp.sum(wrong, axis=-1)
    if normalize:
        count = xp.sum(xp.ones_like(wrong), axis=-1)
        value = value / xp.where(count == 0, 1.0, count)
    return core.reduce(a, value, reduction=reduction, weights=weights, return_count=return_count)
