"""Losses of a grid of embeddings with a mask."""

from __future__ import annotations

from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from . import _score as scoring
from ._core import Arrays, Learnt, loss

Array = Any


@loss(
    "pairs",
    inputs="grid and mask",
    unit="item of the batch",
    mean="items of the batch with a pair",
    formula=r"\operatorname{mean}_{i \neq j\ \text{inside}} (1 - \cos_{ij})"
    r" + \operatorname{mean}_{i\ \text{inside},\ j\ \text{outside}} \max(0, \cos_{ij} - m)",
    source="pairx; the pairs of torch.nn.functional.cosine_embedding_loss, chosen by a mask and averaged each kind by itself",
    pairs=True,
)
def masked_cosine(
    x: Array,
    mask: Any,
    *,
    margin: Any = 0.0,
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
    max_bytes: int | str | None = None,
) -> Any:
    """Cosine loss over a grid of embeddings: those inside a mask are drawn together, and away from those outside.

    Parameters
    ----------
    x : array, shape (batch, ..., e)
        Embeddings. Everything between the batch axis and e is one set: (batch, h, w, boxes, e) has h w boxes
        embeddings in each item of the batch, (batch, t, h, w, boxes, e) has t h w boxes.
    mask : array_like of booleans or 0 and 1, shape (batch, ..., 1)
        1 inside. (batch, ...), without the last axis, is the same.
    margin : float or scalar array
        Cosines below it, between inside and outside, are let alone.
    reduction : {"mean", "sum", "none"}
        "mean" over the items of the batch that have a pair; "none" has shape (batch,).
    weights : array_like, shape (batch,), optional
        Of the items; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of items that took part)``.
    max_bytes : int or str, optional
        Scratch above inputs and gradients, forward and backward.

    Returns
    -------
    array, shape () or (batch,)
        0 or more.

    Notes
    -----
    The mean of 1 - cos over the pairs inside is k / (k - 1) times the variance of the k unit vectors: no pairs are looked at,
    and equal embeddings give exactly 0. A zero vector has cosine 0 with everything. An item with fewer than two inside has
    no first part, one with nothing inside or nothing outside no second.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]).reshape(1, 2, 2, 1, 2)
    >>> mask = np.array([1, 1, 0, 0]).reshape(1, 2, 2, 1, 1)
    >>> round(float(pairx.losses.masked_cosine(x, mask)), 6)  # 1 for the pair inside, (1 + 0 + 0 + 0) / 4 for the others
    1.25
    """
    a = core.arrays(x=x)
    xp = a.xp
    shape = a.shape("x")
    if len(shape) < 3:
        raise ValueError(f"x has shape {checks.shown(shape)}: expected (batch, ..., features), with one axis or more between them.")
    inside = _inside(a, mask, shape)
    learnt = Learnt(a, margin=margin)
    items = _product(shape[1:-1])
    # Items first: a block has rows of every item of the batch, whose number may be unknown.
    u = xp.permute_dims(scoring.unit(a, xp.reshape(a["x"], (shape[0], items, shape[-1]))), (1, 0, 2))
    inside = xp.permute_dims(xp.reshape(inside, (shape[0], items)), (1, 0))

    k = xp.sum(xp.astype(inside, a.compute), axis=0)  # (batch,)
    rest = xp.sum(xp.astype(~inside, a.compute), axis=0)
    within = xp.where(k > 1, _spread(a, u, inside, k), 0.0)
    across = _across(a, u, inside, learnt, max_bytes)
    pairs = k * rest
    values = within + across / xp.where(pairs > 0, pairs, xp.ones_like(pairs))
    return core.reduce(a, values, reduction=reduction, weights=weights, active=(k > 1) | (pairs > 0), return_count=return_count)


def _inside(a: Arrays, mask: Any, shape: tuple[Any, ...]) -> Array:
    """The mask as booleans, (batch, ...)."""
    xp = a.xp
    found = a.bring(mask)
    got = a.backend.shape(found)
    if len(got) == len(shape) and got[-1] == 1:
        found, got = xp.squeeze(found, axis=-1), got[:-1]
    if not core.fits(got, shape[:-1]):
        got = a.backend.shape(a.bring(mask))
        raise ValueError(f"mask has shape {checks.shown(got)}: expected {checks.shown((*shape[:-1], 1))}, beside x {checks.shown(shape)}.")
    kind = a.backend.kind(a.backend, found.dtype)
    if kind == "bool":
        return found
    if kind not in ("integral", "real floating"):
        raise TypeError(f"mask has dtype {checks.dtype_name(found.dtype)}: expected booleans, or numbers that are 0 or 1.")
    if not a.backend.traced(found) and bool(xp.any((found != 0) & (found != 1))):
        raise ValueError("mask has other values than 0 and 1.")
    return found != 0


def _product(sizes: tuple[Any, ...]) -> Any:
    found: Any = 1
    for size in sizes:
        found = found * size
    return found


def _spread(a: Arrays, u: Array, inside: Array, k: Array) -> Array:
    """Mean of 1 - cos over all pairs inside: squared differences from the centre, and zero vectors, whose cosine is 0."""
    xp = a.xp
    part = xp.expand_dims(inside, axis=-1)
    kept = xp.where(part, u, xp.zeros_like(u))
    some = xp.where(k > 0, k, xp.ones_like(k))
    centre = xp.sum(kept, axis=0, keepdims=True) / xp.expand_dims(some, axis=-1)
    away = xp.where(part, u - centre, xp.zeros_like(u))
    empty = xp.sum(xp.astype(inside & ~xp.any(u != 0, axis=-1), a.compute), axis=0)
    return xp.sum(away * away, axis=(0, 2)) / xp.where(k > 1, k - 1.0, xp.ones_like(k)) + empty / some


def _across(a: Arrays, u: Array, inside: Array, learnt: Learnt, max_bytes: Any) -> Array:
    """Sum of max(0, cos - margin) over the pairs of one inside and one outside: (batch,)."""
    xp = a.xp

    def rows(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
        (mine, within), (all_, without, *rest) = cuts, wholes
        s = xp.matmul(xp.permute_dims(mine, (1, 0, 2)), xp.permute_dims(all_, (1, 2, 0)))  # (batch, b, items)
        pair = xp.expand_dims(xp.permute_dims(within, (1, 0)), axis=-1) & xp.expand_dims(xp.permute_dims(without, (1, 0)), axis=-2)
        z = numeric.hinge(a, s - learnt.of(tuple(rest))["margin"])
        return (xp.permute_dims(numeric.among(xp, pair, z), (1, 0)),)

    m, batch, e = a.backend.shape(u)
    del e
    step = core.block_rows(a, m, m * batch, 6, core.budget(max_bytes))
    found = a.backend.blockwise(a.backend, rows, (u, inside), (u, ~inside, *learnt.whole), step)[0]
    return xp.sum(found, axis=0)
