"""Losses with one term for each pair: which pairs there are, and the walk over them, without a list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import checks
from . import _core as core
from . import _numeric as numeric
from ._batch import Batch, Block
from ._core import Arrays, Learnt
from ._score import Score

Array = Any
Term = Callable[[Arrays, Array, dict[str, Any]], Array]


@dataclass(frozen=True)
class Who:
    """Which pairs a call means, as its arguments say it."""

    labels: Any = None
    y_labels: Any = None
    same: Any = None
    pairs: Any = None
    positives: Any = None
    negatives: Any = None

    def __post_init__(self) -> None:
        if self.same is not None and self.labels is not None:
            raise TypeError("same and labels: pass one of them.")
        for name in ("positives", "negatives"):
            if getattr(self, name) is not None and (self.same is not None or self.pairs is not None):
                raise TypeError(f"{name}: cannot be combined with {'same' if self.same is not None else 'pairs'}; pass one of them.")
        if self.pairs is not None and self.same is None and self.labels is None:
            raise TypeError("pairs: pass same= (one for each pair) or labels with them.")


@dataclass(frozen=True)
class Terms:
    """How a pair is valued. ``near`` is the term of a pair of the same class, ``far`` of one of different classes."""

    near: Term
    far: Term
    learnt: Learnt
    own: dict[str, Array] = field(default_factory=dict)
    """Hyper-parameters that each anchor has for itself: (m,)."""
    extra: Term | None = None
    """What each pair that takes part adds."""
    nonzero: bool = False
    """Only pairs whose term is not 0 take part."""
    once: bool = True
    """Whether the pairs (i, j) and (j, i) of one set are the same pair."""
    either: Callable[[Arrays, Array, Array, dict[str, Any]], Array] | None = None
    """``either(a, d, same, p)``: both by a mask; hashable, since a compiler keeps what it makes of it."""

    def value(self, a: Arrays, d: Array, same: Array, p: dict[str, Any]) -> Array:
        """``same`` is a mask, or the share of ``near`` in [0, 1]."""
        xp = a.xp
        if a.backend.kind(a.backend, same.dtype) == "bool":
            if self.either is not None:
                return self.either(a, d, same, p)
            return xp.where(same, self.near(a, d, p), self.far(a, d, p))
        zero = xp.zeros_like(d)
        near = self.near(a, xp.where(same > 0, d, zero), p)
        return xp.where(same > 0, same * near, zero) + xp.where(same < 1, (1.0 - same) * self.far(a, d, p), zero)

    def took(self, value: Array, used: Array | None) -> Array | None:
        """Which pairs take part, of those that are meant; None: all."""
        if not self.nonzero:
            return used
        some = ~(value <= 0)  # NaN takes part
        return some if used is None else used & some


def answer(
    a: Arrays,
    who: Who,
    terms: Terms,
    score: Score,
    *,
    reduction: str,
    weights: Any,
    return_count: bool,
    max_bytes: int | str | None,
    buffers: int = 14,
) -> Any:
    """The loss: one value for each given pair, or for each anchor where all pairs are looked at."""
    given = _given(a, who, score, max_bytes)
    if given is None:
        how = {"reduction": reduction, "weights": weights, "return_count": return_count}
        return _all(a, who, terms, score, max_bytes, buffers, **how)
    d, same, i = given
    own = {k: v if i is None else a.xp.take(v, i, axis=0) for k, v in terms.own.items()}
    p = {**terms.learnt.of(terms.learnt.whole), **own}
    values = terms.value(a, d, same, p)
    active = terms.took(values, None)
    if terms.extra is not None:
        values = values + terms.extra(a, values, p)
    return core.reduce(a, values, reduction=reduction, weights=weights, active=active, return_count=return_count)


# --- given pairs --------------------------------------------------------------------------------------------------------


def is_list(pairs: Any) -> bool:
    """Whether it is two lists of indices, not a mask."""
    return isinstance(pairs, tuple | list) and len(pairs) == 2


def _given(a: Arrays, who: Who, score: Score, max_bytes: Any) -> tuple[Array, Array, Array | None] | None:
    """Distances of the pairs that were given one by one, whether they are the same, and their anchors; None: all pairs."""
    xp = a.xp
    core.vectors(a, *(("x",) if a["y"] is None else ("x", "y")))
    m = a.shape("x")[0]
    n = m if a["y"] is None else a.shape("y")[0]
    if is_list(who.positives) and is_list(who.negatives):
        near = checks.indices(a.backend, who.positives, a["x"], m, n)
        far = checks.indices(a.backend, who.negatives, a["x"], m, n)
        i, j = (_join(xp, p, q) for p, q in zip(near, far, strict=True))
        one = [xp.astype(k[0], a.compute) * 0.0 for k in (near, far)]
        return _chosen(a, score, i, j, max_bytes), xp.concat([one[0] + 1.0, one[1]], axis=0) > 0, i
    if who.pairs is not None:
        i, j = checks.indices(a.backend, who.pairs, a["x"], m, n)
        if who.same is not None:
            same = _same(a, who.same, (a.backend.shape(i)[0],))
        else:
            own = core.class_labels(a, who.labels, m)
            if a["y"] is not None and who.y_labels is None:
                raise TypeError("y_labels: the rows of x and of y need labels.")
            theirs = own if a["y"] is None else core.class_labels(a, who.y_labels, n, "y_labels")
            left, right = xp.take(own, i, axis=0), xp.take(theirs, j, axis=0)
            same = left == right if len(a.backend.shape(left)) == 1 else xp.any((left != 0) & (right != 0), axis=-1)
        return _chosen(a, score, i, j, max_bytes), same, i
    if who.same is None:
        return None
    shape = a.backend.shape(a.bring(who.same))
    column = len(shape) == 2 and shape[1] == 1 and a["y"] is not None and not (isinstance(n, int) and n == 1)
    if len(shape) == 2 and not column:
        return None
    if len(shape) != 1 and not column:
        raise ValueError(f"same has shape {checks.shown(shape)}: expected {checks.shown((m,))} or {checks.shown((m, n))}.")
    if a["y"] is None:
        raise TypeError("same: pass y too (row by row), or pairs=(i, j), or one value for each two rows, (m, m).")
    core.same_shape(a, "x", "y")
    x, y = score.rows(a, a["x"]), score.rows(a, a["y"])
    return score.paired_apart(a, x, y), _same(a, who.same, (m,)), None


def _join(xp: Any, p: Array, q: Array) -> Array:
    kind = xp.result_type(p.dtype, q.dtype)
    return xp.concat([xp.astype(p, kind, copy=False), xp.astype(q, kind, copy=False)], axis=0)


def _chosen(a: Arrays, score: Score, i: Array, j: Array, max_bytes: Any) -> Array:
    x = score.rows(a, a["x"])
    y = x if a["y"] is None else score.rows(a, a["y"])
    return score.chosen_apart(a, x, y, i, j, max_bytes)


def _same(a: Arrays, value: Any, want: tuple[Any, ...]) -> Array:
    """Booleans, 0 and 1, or shares in [0, 1]: (pairs,), also (pairs, 1); or (m, n)."""
    xp = a.xp
    found = a.bring(value)
    shape = a.backend.shape(found)
    if len(want) == 1 and len(shape) == 2 and shape[1] == 1:
        found, shape = xp.reshape(found, (-1,)), shape[:1]
    if not core.fits(shape, want):
        raise ValueError(f"same has shape {checks.shown(shape)}: expected {checks.shown(want)}.")
    kind = a.backend.kind(a.backend, found.dtype)
    if kind == "bool":
        return found
    if kind not in ("integral", "real floating"):
        raise TypeError(f"same has dtype {checks.dtype_name(found.dtype)}: expected booleans or numbers in [0, 1].")
    if not a.backend.traced(found) and bool(xp.any(~((found >= 0) & (found <= 1)))):
        raise ValueError("same has values outside [0, 1]: 1 is a pair of the same class, 0 of different ones.")
    return xp.astype(found, a.compute, copy=False)


# --- all pairs ----------------------------------------------------------------------------------------------------------


def _all(a: Arrays, who: Who, terms: Terms, score: Score, max_bytes: Any, buffers: int, **how: Any) -> Any:
    """Of the sum over each anchor's pairs and their number; half of both where a pair has two anchors."""
    batch = Batch(
        a,
        "x",
        "y",
        labels=who.labels,
        y_labels=who.y_labels,
        positives=who.positives,
        negatives=who.negatives,
        score=score,
        max_bytes=max_bytes,
        related=who.same is None,
    )
    cut = tuple(terms.own.values())
    if who.same is not None:
        cut = (_same(a, who.same, (batch.m, batch.n)), *cut)

    def anchors(block: Block, cut: tuple[Array, ...], whole: tuple[Array, ...]) -> tuple[Array, ...]:
        xp = a.xp
        d = block.apart()
        if who.same is None:
            same, used = block.positive, block.either
        else:
            same, cut, used = cut[0], cut[1:], block.other
        own = {k: xp.expand_dims(v, axis=-1) for k, v in zip(terms.own, cut, strict=True)}
        p = {**terms.learnt.of(whole), **own}
        value = terms.value(a, d, same, p)
        took = terms.took(value, used)
        if terms.extra is not None:
            value = value + terms.extra(a, value, p)
        if took is None:
            total, count = xp.sum(value, axis=-1), xp.sum(xp.ones_like(value), axis=-1)
        else:
            total, count = numeric.among(xp, took, value), numeric.number_of(xp, took, a.compute)
        return half * total, count > 0, half * count

    shared = terms.once and batch.alone and who.positives is None and who.negatives is None
    # Each pair once, where nobody asks what an anchor has of it and both of its anchors say the same.
    asked = how["reduction"] == "none" or how["weights"] is not None or how["return_count"] or terms.own
    once = shared and not asked and who.same is None and score.symmetric
    half = 0.5 if shared and not once else 1.0

    def plain(batch: Batch) -> Any:
        return batch.reduced(anchors, cut=cut, whole=terms.learnt.whole, buffers=buffers, once=once, **how)

    if once and not (terms.learnt.whole or terms.nonzero or terms.extra is not None or terms.either is None):
        found = batch.in_machine_code("pair_sum", plain, terms.either, terms.learnt.numbers, **how)
        if found is not None:
            return found
    return plain(batch)
