"""Cross-entropy over very many classes, whose logits are never there as a whole."""

from __future__ import annotations

import math
from typing import Any

from .. import checks
from . import _core as core
from . import _score as scoring
from ._core import loss

Array = Any


@loss(
    "softmax",
    inputs="classes",
    unit="row",
    mean="rows that are not ignored (weighted by their classes)",
    formula=r"-\sum_c q_c w_c \log\frac{e^{z_c}}{\sum_k e^{z_k}}, \quad z_c = s\, x \cdot w_c + b_c",
    source="Bridle 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs; in blocks: Wijmans et al. 2024, "
    "Cut Your Losses in Large-Vocabulary Language Models",
    pairs=True,
)
def linear_cross_entropy(
    features: Array,
    weight: Array,
    labels: Any,
    bias: Array | None = None,
    *,
    scale: Any = 1.0,
    soft_cap: float | None = None,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Softmax cross-entropy of ``features @ weight.T + bias``, in blocks of classes.

    Parameters
    ----------
    features : array, shape (m, d)
        What a classifier's last layer takes.
    weight : array, shape (classes, d)
        The last layer, one row for each class.
    labels : array_like of int, shape (m,) or (m, 1)
        Classes.
    bias : array, shape (classes,), optional
        Added to the logits.
    scale : float or scalar array
        What the products are multiplied by, 1 / t; an array may be learnt.
    soft_cap : float, optional
        c > 0: logits z become c tanh(z / c).
    label_smoothing : float
        This share of the target is spread evenly over all classes, 0 <= share <= 1.
    class_weights : array_like, shape (classes,), optional
        Of the classes.
    ignore_index : int
        Rows with this label take no part.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the class weights of the rows' labels, their number without class weights; "none" has shape (m,).
    weights : array_like, shape (m,), optional
        Of the rows.
    return_count : bool
        Answer ``(loss, number of rows that are not ignored)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (m,)

    Raises
    ------
    ValueError
        If shapes do not fit, a label is no class, a hyper-parameter is out of range, or ``max_bytes`` is below the logits of
        one class.

    Notes
    -----
    Blocks of classes see all rows, so that the gradient of the weights comes block by block and only the features' is added up.
    One pass finds each row's log-sum-exp, a second the value, which the backward runs once more.
    If all rows are ignored, the mean is 0.

    References
    ----------
    Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.linear_cross_entropy(np.eye(2), np.eye(2), [0, 1])), 6)
    0.313262
    """
    a = core.arrays(features=features, weight=weight, bias=bias, quadratic=True)
    xp, backend = a.xp, a.backend
    core.vectors(a, "features", "weight")
    m, (classes, _) = a.shape("features")[0], a.shape("weight")
    given = _labels(a, labels, m, classes, ignore_index)
    smooth = checks.number("label_smoothing", label_smoothing, positive=True)
    if smooth > 1:
        raise ValueError(f"label_smoothing={label_smoothing!r}: expected a number from 0 to 1.")
    cap = None if soft_cap is None else checks.number("soft_cap", soft_cap, positive=True, zero_ok=False)
    by = a.number("scale", scale)
    per_class = None if class_weights is None else a.bring(class_weights, a.compute)
    for name, value in (("bias", a["bias"]), ("class_weights", per_class)):
        if value is not None and not core.fits(backend.shape(value), (classes,)):
            raise ValueError(
                f"{name} has shape {checks.shown(backend.shape(value))}: expected one for each class, {checks.shown((classes,))}."
            )
    active = given != ignore_index
    rows = scoring.moderate(a, a["features"]) * by
    cut = [scoring.moderate(a, a["weight"]), core.rows(a, classes)]
    cut += [v for v in (a["bias"], per_class) if v is not None]

    def logits(cut: tuple[Array, ...], rows: Array) -> Array:
        z = scoring.products(a, cut[0], rows)
        if bias is not None:
            z = z + xp.expand_dims(cut[2], axis=-1)
        return z if cap is None else cap * xp.tanh(z / cap)

    def top(cut: tuple[Array, ...], whole: tuple[Array, ...], live: Any) -> tuple[Array, ...]:
        z = logits(cut, whole[0])
        if live is not None:
            z = xp.where(xp.expand_dims(live, axis=-1), z, xp.full_like(z, -math.inf))
        high = xp.max(z, axis=0)
        high = xp.where(high == -math.inf, xp.full_like(high, -float(xp.finfo(high.dtype).max)), high)  # all of them left out by their bias
        return high, xp.sum(xp.exp(z - high), axis=0)

    def larger(one: tuple[Array, ...], two: tuple[Array, ...]) -> tuple[Array, ...]:
        high = xp.maximum(one[0], two[0])
        return high, one[1] * xp.exp(one[0] - high) + two[1] * xp.exp(two[0] - high)

    def sums(cut: tuple[Array, ...], whole: tuple[Array, ...], live: Any) -> tuple[Array, ...]:
        """For each row, over these classes: shares, the label's logit, and what smoothing and class weights need."""
        rows, total, given = whole
        z = logits(cut, rows)
        here = xp.expand_dims(cut[1], axis=-1) == given
        zero = xp.zeros_like(z)
        shares = xp.exp(z - total)
        if live is not None:
            alive = xp.expand_dims(live, axis=-1)
            shares, here = xp.where(alive, shares, zero), here & alive
        found = [xp.sum(shares, axis=0), xp.sum(xp.where(here, z, zero), axis=0)]
        if per_class is not None:
            w = xp.expand_dims(cut[-1], axis=-1)
            found.append(xp.sum(xp.where(here, xp.broadcast_to(w, backend.shape(z)), zero), axis=0))
        if smooth:
            spread = z - total if per_class is None else (z - total) * xp.expand_dims(cut[-1], axis=-1)
            found.append(xp.sum(spread if live is None else xp.where(alive, spread, zero), axis=0))
        return tuple(found)

    room = core.budget(max_bytes)
    if isinstance(classes, int) and (classes == 0 or (isinstance(m, int) and m == 0)):
        return core.reduce(a, xp.sum(rows, axis=-1), reduction=reduction, weights=weights, active=active & False, return_count=return_count)
    step = core.block_rows(a, classes, m, 6 + bool(smooth), room)
    high, count = backend.blocksum(backend, top, tuple(cut), (rows,), step, combine=larger)
    total = backend.detach(high + xp.log(count))
    share, own, *more = backend.blocksum(backend, sums, tuple(cut), (rows, total, given), step)
    left = xp.log(share)  # 0 but for rounding; its gradient is that of the log-sum-exp
    of_label = more.pop(0) if per_class is not None else None
    value = (total - own) + left
    if of_label is not None:
        value = value * of_label
    if smooth:
        weight_sum = float(classes) if per_class is None and isinstance(classes, int) else None
        if weight_sum is None:
            weight_sum = xp.sum(per_class) if per_class is not None else xp.astype(classes, a.compute)
        all_classes = classes if isinstance(classes, int) else xp.astype(classes, a.compute)
        value = (1.0 - smooth) * value + (smooth / all_classes) * (left * weight_sum - more[0])
    return core.reduce(a, value, reduction=reduction, weights=weights, active=active, mass=of_label, return_count=return_count)


def _labels(a: core.Arrays, labels: Any, m: Any, classes: Any, ignore_index: int) -> Array:
    """Classes, checked where they can be seen."""
    xp = a.xp
    found = core.class_labels(a, labels, m, several=False)
    if a.backend.kind(a.backend, found.dtype) != "integral":
        raise TypeError(f"labels has dtype {checks.dtype_name(found.dtype)}: expected integers.")
    if isinstance(m, int) and m and isinstance(classes, int) and not a.backend.traced(found):
        wrong = (found != ignore_index) & ((found < 0) | (found >= classes))
        if bool(xp.any(wrong)):
            first = int(found[int(xp.argmax(xp.astype(wrong, xp.int32)))])
            raise ValueError(f"labels: {first} is no class; expected 0 to {classes - 1}, or ignore_index={ignore_index}.")
    return xp.astype(found, xp.int32)
