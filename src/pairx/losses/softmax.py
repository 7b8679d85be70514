"""Losses of a softmax over candidates: who is the positive?"""

from __future__ import annotations

from typing import Any

from . import _core as core
from ._core import Block, loss

Array = Any


def _answer(a: core.Arrays, values: tuple[Array, ...], reduction: str, weights: Any, return_count: bool) -> Any:
    return core.reduce(a, values[0], reduction=reduction, weights=weights, active=values[1], return_count=return_count)


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
    a = core.arrays(x=x, y=y)
    t = a.number("temperature", temperature, positive=True, zero_ok=False)
    how = core.score(metric, similarity, default_similarity="cosine")
    batch = core.Batch(
        a, "x", "y", labels=labels, y_labels=y_labels, positives=positives, negatives=negatives, score=how, max_bytes=max_bytes
    )

    def anchors(block: Block, cut: Any, whole: Any) -> tuple[Array, ...]:
        xp = a.xp
        s = block.alike() / (whole[0] if whole else t)
        count = core.number_of(xp, block.positive, a.compute)
        some = xp.where(count > 0, count, xp.ones_like(count))
        among = block.positive | block.negative if negatives is not None or positives is not None else block.other
        total = core.lse(a, s, among)
        value = xp.where(count > 0, total, xp.zeros_like(total)) * (count / some) - core.among(xp, block.positive, s) / some
        return value, count > 0

    return _answer(a, batch.each(anchors, whole=(t,) if not isinstance(t, float) else ()), reduction, weights, return_count)
