"""Cross-entropies: binary, categorical and sparse, from probabilities or logits; and the focal loss."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from ._core import loss
from .distributions import _log, _two

Array = Any


def _times(xp: Any, q: Array, log: Array) -> Array:
    """-q log p, where 0 times infinity is 0."""
    none = (q == 0) & xp.isinf(log)
    return xp.where(none, 0.0, -q * xp.where(none, 0.0, log))


def _log_softmax(a: core.Arrays, z: Array) -> Array:
    """Of the last axis; one infinite logit takes all."""
    xp = a.xp
    infinite = z == math.inf
    taken = xp.any(infinite, axis=-1, keepdims=True) & ~xp.isnan(z)
    z = xp.where(taken, xp.where(infinite, xp.zeros_like(z), -math.inf), z)
    return z - xp.expand_dims(numeric.lse(a, z), axis=-1)


def _class_weights(a: core.Arrays, class_weights: Any, k: Any) -> Array | None:
    if class_weights is None:
        return None
    found = a.bring(class_weights, a.compute)
    if not core.fits(a.backend.shape(found), (k,)):
        raise ValueError(
            f"class_weights has shape {checks.shown(a.backend.shape(found))}: expected one for each class, {checks.shown((k,))}."
        )
    return found


def _smoothing(label_smoothing: float) -> float:
    found: float = checks.number("label_smoothing", label_smoothing, positive=True)
    if found > 1:
        raise ValueError(f"label_smoothing={label_smoothing}: expected a number from 0 to 1.")
    return found


@loss(
    "classification",
    inputs="class probabilities",
    unit="sample",
    mean="samples",
    formula=r"-\sum_k w_k\, p_k \log q_k",
    source="Good 1952, Rational Decisions; torch.nn.functional.cross_entropy",
)
def cross_entropy(
    predictions: Array,
    targets: Array,
    *,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Cross-entropy of predictions q and target distributions p over the last axis.

    Parameters
    ----------
    predictions : array, shape (..., k)
        Probabilities as they are (nothing is normalised or clipped), or logits.
    targets : array, shape (..., k)
        Probabilities; for whole numbers of classes see :func:`sparse_cross_entropy`.
    from_logits : bool
        ``predictions`` are logits: q is their softmax.
    label_smoothing : float
        The part of each target that is spread evenly over the classes.
    class_weights : array_like, shape (k,), optional
        w, one for each class; the mean still divides by the number (or weights) of samples.
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
    A probability 0 where the target is 0 costs 0; where it is positive, inf. The slope there is infinite and taken as 0.

    References
    ----------
    Good 1952, Rational Decisions.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.cross_entropy(np.array([[0.1, 0.8, 0.1]]), np.array([[0.0, 1.0, 0.0]]))), 6)  # -log 0.8
    0.223144
    """
    a = _two(predictions, targets)
    xp = a.xp
    k = a.shape("predictions")[-1]
    smooth = _smoothing(label_smoothing)
    p = a["targets"]
    if smooth:
        p = (1.0 - smooth) * p + smooth / k
    log = _log_softmax(a, a["predictions"]) if from_logits else _log(a, a["predictions"])
    terms = _times(xp, p, log)
    w = _class_weights(a, class_weights, k)
    if w is not None:
        terms = xp.where(w == 0, 0.0, terms) * w
    return core.reduce(a, xp.sum(terms, axis=-1), reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "classification",
    inputs="class indices",
    unit="sample",
    mean="samples not ignored, or the sum of their classes' weights",
    formula=r"-w_l \log q_l",
    source="torch.nn.functional.cross_entropy; Szegedy et al. 2016 for the smoothing",
)
def sparse_cross_entropy(
    predictions: Array,
    labels: Any,
    *,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Cross-entropy of predictions q and labels that are numbers of classes.

    Parameters
    ----------
    predictions : array, shape (..., k)
        Probabilities as they are, or logits.
    labels : array_like of int, shape (...)
        From 0 to k - 1, or ``ignore_index``.
    from_logits, label_smoothing
        As in :func:`cross_entropy`.
    class_weights : array_like, shape (k,), optional
        w; the mean divides by the sum of the labels' weights, as PyTorch's does.
    ignore_index : int, optional
        Samples with this label take no part. All ignored: 0.
    reduction : {"mean", "sum", "none"}
        "mean" over samples that take part; "none" has the shape (...).
    weights : array_like, shape (...), optional
        Of the samples; a weighted mean divides by their sum (times the weights of their classes).
    return_count : bool
        Answer ``(loss, number of samples that took part)``.

    Returns
    -------
    array, shape () or (...)

    Raises
    ------
    ValueError
        A label that is no class, where values can be seen; inside a graph or jit such a sample takes no part.

    References
    ----------
    Szegedy et al. 2016, Rethinking the Inception Architecture, section 7, for the smoothing.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> q = np.array([[0.1, 0.8, 0.1], [0.5, 0.25, 0.25]])
    >>> round(float(pairx.losses.sparse_cross_entropy(q, [1, -1], ignore_index=-1)), 6)
    0.223144
    """
    a = core.arrays(predictions=predictions)
    xp = a.xp
    shape = a.shape("predictions")
    if len(shape) == 0:
        raise ValueError("predictions has shape (): expected the classes in the last axis.")
    k = shape[-1]
    smooth = _smoothing(label_smoothing)
    found = a.bring(labels)
    if a.backend.kind(a.backend, found.dtype) not in ("integral", "bool"):
        raise TypeError(f"labels has dtype {checks.dtype_name(found.dtype)}: expected integers.")
    found = xp.astype(found, xp.int32 if a.backend.itemsize(found.dtype) < 4 else xp.int64)
    if not core.fits(a.backend.shape(found), shape[:-1]):
        more = " (a trailing axis of length 1 is not dropped: labels[..., 0])" if a.backend.shape(found)[-1:] == (1,) else ""
        raise ValueError(f"labels has shape {checks.shown(a.backend.shape(found))}: expected {checks.shown(shape[:-1])}{more}.")
    inside = (found >= 0) & (found < k)
    ignored = found < 0
    ignored = ignored & ~ignored if ignore_index is None else found == ignore_index
    if not a.backend.traced(found, a["predictions"]) and bool(xp.any(~(inside | ignored))):
        raise ValueError(f"labels: expected numbers of classes, 0 to {k - 1}{'' if ignore_index is None else f', or {ignore_index}'}.")
    active = inside & ~ignored
    log = _log_softmax(a, a["predictions"]) if from_logits else _log(a, a["predictions"])
    classes = xp.arange(k, dtype=found.dtype, device=a.backend.device(found))
    hot = xp.expand_dims(found, axis=-1) == classes
    own = -numeric.among(xp, hot, log)
    w = _class_weights(a, class_weights, k)
    mass = None
    if w is not None:
        mass = numeric.among(xp, hot, xp.zeros_like(log) + w)
        own = xp.where(mass == 0, 0.0, own) * mass
    if smooth:
        spread = -log if w is None else xp.where(w == 0, 0.0, -log) * w
        own = (1.0 - smooth) * own + smooth / k * xp.sum(spread, axis=-1)
    return core.reduce(a, own, reduction=reduction, weights=weights, active=active, mass=mass, return_count=return_count)


def _binary(a: core.Arrays, from_logits: bool) -> tuple[Array, Array]:
    """Logarithms of q and of 1 - q."""
    xp, z = a.xp, a["predictions"]
    if from_logits:
        return numeric.log_sigmoid(a, z), numeric.log_sigmoid(a, -z)
    other = z == 1
    return _log(a, z), xp.where(other, -math.inf, xp.log1p(-xp.where(other, 0.0, z)))


@loss(
    "classification",
    inputs="binary",
    unit="element",
    mean="elements",
    formula=r"-p \log q - (1 - p) \log(1 - q)",
    source="Good 1952, Rational Decisions; torch.nn.functional.binary_cross_entropy",
)
def binary_cross_entropy(
    predictions: Array,
    targets: Array,
    *,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    positive_weight: Any = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Binary cross-entropy, element by element.

    Parameters
    ----------
    predictions : array, any shape
        Probabilities q from 0 to 1, or logits.
    targets : array, the same shape
        Probabilities p from 0 to 1; booleans and integers 0 and 1, too.
    from_logits : bool
        ``predictions`` are logits: q is their sigmoid.
    label_smoothing : float
        Targets are drawn to 1/2 by this part: p (1 - s) + s / 2.
    positive_weight : float or array_like, optional
        Multiplies the term of p (more than 1 raises the recall); one, or one for each entry of the last axis.
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
    log 0 times 0 is 0; against a positive target it is inf (torch clips at 100, Keras at its epsilon: not here).

    References
    ----------
    Good 1952, Rational Decisions.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.binary_cross_entropy(np.array([0.8, 0.3]), np.array([1.0, 0.0]))), 6)  # -(log 0.8 + log 0.7) / 2
    0.289909
    """
    a = core.arrays(predictions=predictions, targets=targets)
    core.same_shape(a, "predictions", "targets")
    xp = a.xp
    smooth = _smoothing(label_smoothing)
    p = a["targets"]
    if smooth:
        p = p * (1.0 - smooth) + 0.5 * smooth
    log, log_other = _binary(a, from_logits)
    positive = _times(xp, p, log)
    if positive_weight is not None:
        positive = positive * a.bring(positive_weight, a.compute)
    return core.reduce(a, positive + _times(xp, 1.0 - p, log_other), reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "classification",
    inputs="binary",
    unit="element",
    mean="elements",
    formula=r"-\alpha\, p\, (1 - q)^\gamma \log q - (1 - \alpha) (1 - p)\, q^\gamma \log(1 - q)",
    source="Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5",
)
def focal(
    predictions: Array,
    targets: Array,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    from_logits: bool = False,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """Focal loss: a binary cross-entropy whose easy elements count little.

    Parameters
    ----------
    predictions, targets, from_logits, weights, return_count
        As in :func:`binary_cross_entropy`.
    gamma : float
        The focus, 0 or more; 0 is the cross-entropy.
    alpha : float, optional
        Weight of the positives, 0 to 1, and 1 - alpha that of the negatives. Default: 1 for both.
    reduction : {"mean", "sum", "none"}
        "mean" over elements (the paper divides by the number of positives: take "sum" and divide).

    Returns
    -------
    array, shape () or that of the inputs

    References
    ----------
    Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.focal(np.array([0.8]), np.array([1.0]))), 6)  # -0.2^2 log 0.8
    0.008926
    """
    a = core.arrays(predictions=predictions, targets=targets)
    core.same_shape(a, "predictions", "targets")
    gamma = checks.number("gamma", gamma, positive=True)
    if alpha is not None and not 0 <= checks.number("alpha", alpha) <= 1:
        raise ValueError(f"alpha={alpha}: expected a number from 0 to 1.")
    xp, p = a.xp, a["targets"]
    log, log_other = _binary(a, from_logits)
    # (1 - q)^gamma = exp(gamma log(1 - q)), which no rounding of 1 - q spoils.
    easy, easy_other = _power(xp, log_other, gamma), _power(xp, log, gamma)
    positive, negative = _focused(xp, p, log, easy), _focused(xp, 1.0 - p, log_other, easy_other)
    if alpha is not None:
        positive, negative = alpha * positive, (1.0 - alpha) * negative
    return core.reduce(a, positive + negative, reduction=reduction, weights=weights, return_count=return_count)


def _focused(xp: Any, q: Array, log: Array, easy: Array) -> Array:
    """-q log p easy; an infinite logarithm is a constant: its products with slopes are 0, in second derivatives too."""
    none = xp.isinf(log)
    return xp.where(none & (q > 0), math.inf, -q * xp.where(none, 0.0, log) * easy)


def _power(xp: Any, log: Array, gamma: float) -> Array:
    """e^(gamma log), 0 at log = -inf with slope 0."""
    if gamma == 0:
        return xp.ones_like(log)
    none = log == -math.inf
    return xp.where(none, 0.0, xp.exp(gamma * xp.where(none, 0.0, log)))
