"""The angular loss of a labelled batch."""

from __future__ import annotations

from typing import Any

from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._batch import Block
from ._core import loss
from ._rows import along, places
from .batch_triplets import Triplets, mean_of
from .triplets import tangent_of

Array = Any


@loss(
    "triplets",
    inputs="labels",
    unit="anchor",
    mean="positive pairs",
    formula=r"\sum_{p \in P(i)} \log(1 + \sum_{n \in N(i)} e^{4 T (x_i + x_p) \cdot x_n - 2 (1 + T) x_i \cdot x_p}), T = \tan^2 \alpha",
    source="Wang et al. 2017, Deep Metric Learning with Angular Loss, eq. 8",
    pairs=True,
)
def angular(
    x: Array,
    labels: Any = None,
    *,
    y: Array | None = None,
    y_labels: Any = None,
    positives: Any = None,
    negatives: Any = None,
    alpha: float = 40.0,
    similarity: str | None = None,
    max_positives: int | None = None,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Angular loss of a labelled batch: each positive pair against all negatives at once.

    :func:`triplet_angular` is the bound on the angle of single triplets that this smooths.

    Parameters
    ----------
    x, labels, y, y_labels, positives, negatives, max_positives, max_bytes
        As in :func:`triplet_batch_all`.
    alpha : float
        Degrees, above 0 and below 90.
    similarity : {"cosine", "dot"}, optional
        "cosine" (default) brings rows to length 1 first; "dot" takes them as they are.
    reduction : {"mean", "sum", "none"}
        "mean" over positive pairs; "none" has shape (m,): the sum over each anchor's positives.
    weights : array_like, shape (m,), optional
        Of the anchors: each of its pairs has that weight.
    return_count : bool
        Answer ``(loss, number of anchors with a positive)``.

    Returns
    -------
    array, shape () or (m,)

    Notes
    -----
    A pair whose anchor has no negatives has the loss 0, and counts.

    References
    ----------
    Wang et al. 2017, Deep Metric Learning with Angular Loss, eq. 8.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(pairx.losses.angular(x, [0, 0, 1], alpha=45.0)), 6)  # log(1 + e^-4)
    0.01815
    """
    slope = tangent_of(alpha) ** 2
    t = Triplets(
        x,
        labels,
        y,
        y_labels,
        positives,
        negatives,
        scoring.score(None, similarity, default_similarity="cosine"),
        0.0,
        max_positives,
        max_bytes,
    )
    a, xp = t.a, t.a.xp

    def anchors(block: Block, m: Any) -> tuple[Array, ...]:
        s = block.alike()
        if t.most is None:
            there = block.positive
            columns = xp.broadcast_to(xp.expand_dims(core.rows(a, a.backend.shape(block.y)[0]), axis=0), a.backend.shape(s))
            columns = xp.astype(columns, xp.int64)
        else:
            columns, there = places(a, block.positive, max(t.most, 1))

        def rank(cut: tuple[Array, ...], whole: tuple[Array, ...]) -> tuple[Array, ...]:
            column, there = cut  # (c, b)
            s, y, negative = whole
            flat = xp.reshape(column, (-1,))
            other = xp.reshape(scoring.dots(a, xp.take(y, flat, axis=0), y), (-1, *a.backend.shape(s)))
            own = xp.matrix_transpose(along(a, s, xp.matrix_transpose(column)))
            z = scoring.bounded(a, 4 * slope * (s + other) - 2 * (1 + slope) * xp.expand_dims(own, axis=-1))
            value = numeric.softplus(a, scoring.bounded(a, numeric.lse(a, z, xp.broadcast_to(negative, a.backend.shape(z)))))
            return (xp.where(there, value, xp.zeros_like(value)),)

        ranks = a.backend.blockwise(
            a.backend, rank, tuple(xp.matrix_transpose(v) for v in (columns, there)), (s, block.y, block.negative), 1
        )
        size = numeric.number_of(xp, there, a.compute)
        return mean_of(xp, xp.sum(ranks[0], axis=0), size), size

    values, sizes = t.each(anchors, buffers=20)
    return t.answer(values, sizes, reduction, weights, return_count)
