"""What every loss shares: its row in the table, its arguments brought in, its reduction, and the walk over anchors.

A loss that looks at all pairs is a function of one block of anchors against all candidates. The backend runs it block by
block (``Backend.blockwise``) and runs each block again in the backward pass, so no n x m array is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import checks
from .. import plan as plans
from ..backend import Backend, find

Array = Any
F = TypeVar("F", bound=Callable[..., Any])

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True, eq=False)
class Loss:
    """One row of the table: what a loss averages over, and where it comes from."""

    name: str
    function: Callable[..., Any]
    family: str
    inputs: str
    """What it is called with: tests, benchmarks and docs make their inputs by this word (see tests/loss_inputs.py)."""
    unit: str
    """What has one value under ``reduction="none"``, and one weight in ``weights``."""
    mean: str
    """What the mean divides by, without weights."""
    formula: str
    source: str
    differentiable: bool = True
    pairs: bool = False
    """Whether it looks at all pairs, so that it walks tiles under ``max_bytes``."""


LOSSES: dict[str, Loss] = {}


def loss(family: str, *, inputs: str, unit: str, mean: str, formula: str, source: str, **facts: Any) -> Callable[[F], F]:
    """Register a function as a loss."""

    def register(function: F) -> F:
        name = function.__name__
        LOSSES[name] = Loss(name, function, family, inputs, unit, mean, formula, source, **facts)
        return function

    return register


# --- arguments ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrays:
    """The arrays of one call, of one library and in one computing dtype."""

    backend: Backend
    compute: Any
    answer: Any
    values: dict[str, Any]

    @property
    def xp(self) -> Any:
        return self.backend.xp

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def shape(self, name: str) -> tuple[Any, ...]:
        return self.backend.shape(self.values[name])

    def bring(self, value: Any, dtype: Any = None) -> Array:
        """An auxiliary argument (a list, a NumPy array, the library's own) in the library, on the device of the arrays."""
        like = next(v for v in self.values.values() if v is not None)
        return self.backend.asarray(value, like, dtype)

    def number(self, name: str, value: Any, **rules: Any) -> Any:
        """A hyper-parameter: a Python number, checked, or the library's own scalar, which may be learnt."""
        if isinstance(value, bool | int | float):
            return checks.number(name, value, **rules)
        found = self.bring(value, self.compute)
        if len(self.backend.shape(found)) > 0 and any(n != 1 for n in self.backend.shape(found)):
            raise ValueError(f"{name} has shape {checks.shown(self.backend.shape(found))}: expected a number.")
        return self.xp.reshape(found, ())


def arrays(**given: Any) -> Arrays:
    """Check the floating arrays of a call: one library, one device, one dtype to compute in. None stays None.

    Half precision is computed in float32 and answered in half; integers and booleans take the library's default float.
    """
    present = {k: v for k, v in given.items() if v is not None}
    backend = find(**present)
    if backend.lazy:
        raise TypeError(f"{', '.join(present)}: losses need arrays in memory; pass the chunks themselves, x.compute().")
    present = {k: backend.coerce(v, k) for k, v in present.items()}
    checks.same_device(backend, **present)
    xp = backend.xp
    compute, answer = checks.dtypes(backend, None, None, **present)
    if backend.kind(backend, compute) == "complex floating":
        raise TypeError(f"{', '.join(present)}: losses take real numbers.")
    cast = {k: None if given[k] is None else xp.astype(present[k], compute, copy=False) for k in given}
    return Arrays(backend, compute, answer, cast)


def fits(shape: tuple[Any, ...], want: tuple[Any, ...]) -> bool:
    """Whether a shape is the wanted one, as far as both are known."""
    known = (p == q for p, q in zip(shape, want, strict=False) if isinstance(p, int) and isinstance(q, int))
    return len(shape) == len(want) and all(known)


def same_shape(a: Arrays, x: str, y: str) -> None:
    """Refuse shapes that would broadcast: (B, 1) labels beside (B,) values become (B, B)."""
    sx, sy = a.shape(x), a.shape(y)
    if not fits(sx, sy):
        raise ValueError(f"{x} has shape {checks.shown(sx)} and {y} {checks.shown(sy)}: they must be the same (nothing is broadcast).")


def vectors(a: Arrays, *names: str) -> None:
    """Refuse what is not a set of vectors, and sets with different numbers of features."""
    for name in names:
        if a[name] is not None:
            shape = a.shape(name)
            if len(shape) != 2:
                raise ValueError(f"{name} has shape {checks.shown(shape)}: expected (rows, features).")
            checks.equal_size(names[0], a.shape(names[0]), name, shape, -1, "numbers of features")


def class_labels(a: Arrays, value: Any, rows: Any, name: str = "labels", several: bool = True) -> Array:
    """Labels of shape (rows,); (rows, 1) is the same; (rows, classes) of 0 and 1 is several labels for each row."""
    found = a.bring(value)
    shape = a.backend.shape(found)
    if len(shape) == 2 and shape[1] == 1:
        found = a.xp.reshape(found, (-1,))
        shape = (shape[0],)
    allowed = (1, 2) if several else (1,)
    if len(shape) not in allowed or not fits(shape[:1], (rows,)):
        more = (
            f", ({checks.shown((rows,))[1:-2]}, 1) or, for several labels each, ({checks.shown((rows,))[1:-2]}, classes)" if several else ""
        )
        raise ValueError(f"{name} has shape {checks.shown(shape)}: expected {checks.shown((rows,))}{more}.")
    kind = a.backend.kind(a.backend, found.dtype)
    if kind == "bool":
        found = a.xp.astype(found, a.xp.int32)
    elif kind not in ("integral", "real floating"):
        raise TypeError(f"{name} has dtype {checks.dtype_name(found.dtype)}: expected integers or booleans.")
    return found


# --- reduction ----------------------------------------------------------------------------------------------------------


def reduce(
    a: Arrays,
    values: Array,
    *,
    reduction: str,
    weights: Any = None,
    active: Array | None = None,
    sizes: Array | None = None,
    return_count: bool = False,
) -> Any:
    """The values of the units to the answer: a mean over those that took part, their sum, or each by itself.

    A weighted mean divides by the sum of the weights of those that took part; an empty mean is 0. A unit that is itself
    the mean of several terms (of an anchor's triplets) says by ``sizes`` of how many: it stands for all of them.
    """
    xp = a.xp
    plans.choice("reduction", reduction, REDUCTIONS)
    one = xp.ones_like(values)
    part = one if active is None else xp.astype(active, values.dtype)
    if weights is not None:
        w = a.bring(weights, values.dtype)
        shape, want = a.backend.shape(w), a.backend.shape(values)
        if not fits(shape, want):
            raise ValueError(f"weights has shape {checks.shown(shape)}: expected one for each unit, {checks.shown(want)}.")
        part = part * w
    if sizes is not None:
        part = part * sizes
    counted = part != 0
    values = xp.where(counted, values, xp.zeros_like(values))  # 0 times an infinite value is 0
    if reduction == "none":
        result = values * part
    elif reduction == "sum":
        result = xp.sum(values * part)
    else:
        total = xp.sum(part)
        # Shares first: the sum of representable values may not be representable, their mean is.
        result = xp.sum(values * (part / xp.where(total == 0, xp.ones_like(total), total)))
    result = xp.astype(result, a.answer, copy=False)
    if not return_count:
        return result
    count = xp.sum(xp.astype(one if active is None else active, xp.int32), dtype=xp.int32)
    return result, count


# --- distances and similarities -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How two rows are compared: the one place where distances and similarities turn into each other."""

    metric: Any
    similarity: str | None

    def rows(self, a: Arrays, x: Array) -> Array:
        """What is done to each row once."""
        return unit(a, x) if self.similarity == "cosine" else x

    def apart(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        """(b, n) distances of prepared rows: smaller is closer. 1 - cosine; minus the dot product."""
        if self.similarity is not None:
            s = dots(a, x, y)
            return 1.0 - s if self.similarity == "cosine" else -s
        from ..distances import cdist

        return cdist(x, y, self.metric, max_bytes=max_bytes)

    def alike(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        """(b, n) similarities of prepared rows: larger is closer. Minus the distance."""
        return dots(a, x, y) if self.similarity is not None else -self.apart(a, x, y, max_bytes)

    def paired_apart(self, a: Arrays, x: Array, y: Array) -> Array:
        """(b,) distances, row by row."""
        if self.similarity is not None:
            s = bounded(a, a.xp.sum(x * y, axis=-1))
            return 1.0 - s if self.similarity == "cosine" else -s
        from ..distances import paired

        return paired(x, y, self.metric)


def score(metric: Any, similarity: str | None, default_metric: Any = None, default_similarity: str | None = None) -> Score:
    """The choice between ``metric=`` and ``similarity=``: one of them, or the loss's own."""
    if metric is not None and similarity is not None:
        raise TypeError(f"metric={metric!r} and similarity={similarity!r}: pass one of them.")
    if metric is None and similarity is None:
        metric, similarity = default_metric, default_similarity
    if similarity is not None:
        plans.choice("similarity", similarity, ("cosine", "dot"))
    elif not callable(metric):
        from ..metrics import lookup

        lookup(metric, "distance")
    return Score(metric, similarity)


def unit(a: Arrays, x: Array) -> Array:
    """Rows of length 1; a zero row stays 0, with gradient 0. No epsilon, and nothing overflows."""
    from ..engine import largest

    xp = a.xp
    if isinstance(a.backend.shape(x)[-1], int) and a.backend.shape(x)[-1] == 0:
        return x
    x = x / a.backend.detach(largest(xp, x))
    square = xp.sum(x * x, axis=-1, keepdims=True)
    zero = square == 0
    return xp.where(zero, xp.zeros_like(x), x / xp.sqrt(xp.where(zero, xp.ones_like(square), square)))


def dots(a: Arrays, x: Array, y: Array) -> Array:
    """(b, n) dot products, bounded so that differences of them are finite."""
    if a.backend.lowered(x) is not None:
        from ..distances import gram

        return bounded(a, gram(x, y, "linear"))
    return bounded(a, a.xp.matmul(x, a.xp.matrix_transpose(y)))


def bounded(a: Arrays, s: Array) -> Array:
    """Values that overflowed become the largest that may still be subtracted from each other; NaN stays."""
    top = float(a.xp.finfo(s.dtype).max) / 4
    return a.xp.clip(s, -top, top)


# --- all pairs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of b anchors against all n candidates. Masks are (b, n)."""

    a: Arrays
    x: Array
    """(b, d) prepared rows."""
    y: Array
    """(n, d) prepared candidates."""
    index: Array
    """(b,) numbers of the anchors."""
    positive: Array
    negative: Array
    other: Array | None
    """Everybody but the anchor itself; None where the candidates are another set."""
    score: Score
    max_bytes: int

    def apart(self) -> Array:
        """(b, n) distances: smaller is closer."""
        return self.score.apart(self.a, self.x, self.y, self.max_bytes)

    def alike(self) -> Array:
        """(b, n) similarities: larger is closer."""
        return self.score.alike(self.a, self.x, self.y, self.max_bytes)


@dataclass(frozen=True)
class Relation:
    """Which candidates belong to an anchor: a function of a block's own arrays and of what every block sees."""

    cut: tuple[Array, ...]
    whole: tuple[Array, ...]
    mask: Callable[[Any, Any, Array, Array], Array]
    """``mask(cut, whole, i, j)`` for anchors i (b, 1) and candidates j (1, n)."""


class Batch:
    """Anchors, candidates, and who belongs to whom.

    Parameters
    ----------
    x : (m, d); y : (n, d) or None, where the candidates are the anchors themselves and nobody is its own candidate.
    labels, y_labels : (m,), (n,), or (m, c), (n, c) of 0 and 1; rows that share a label are positives of each other.
    positives, negatives : a mask (m, n), or indices (anchors, candidates); instead of what labels say. Without negatives,
        all that is neither a positive nor the anchor itself.
    """

    def __init__(
        self,
        a: Arrays,
        x: str,
        y: str | None,
        *,
        labels: Any = None,
        y_labels: Any = None,
        positives: Any = None,
        negatives: Any = None,
        score: Score,
        max_bytes: int | str | None = None,
    ) -> None:
        self.a, self.score = a, score
        vectors(a, *([x, y] if y is not None else [x]))
        self.alone = y is None or a[y] is None
        self.x = score.rows(a, a[x])
        self.y = self.x if self.alone else score.rows(a, a[str(y)])
        self.m, self.n = a.backend.shape(self.x)[0], a.backend.shape(self.y)[0]
        self.budget = budget(max_bytes)
        if labels is None and positives is None:
            raise TypeError("labels: pass labels, or positives (a mask or indices).")
        if self.alone and y_labels is not None:
            raise TypeError("y_labels: there is no y; leave it away.")
        if not self.alone and (labels is None) != (y_labels is None):
            raise TypeError("y_labels: the anchors and the candidates of y need labels, both or none.")
        self.same = None if labels is None else self._labelled(labels, y_labels)
        self.positives = None if positives is None else self._told("positives", positives)
        self.negatives = None if negatives is None else self._told("negatives", negatives)

    def _labelled(self, labels: Any, y_labels: Any) -> Relation:
        a, xp = self.a, self.a.xp
        own = class_labels(a, labels, self.m)
        theirs = own if self.alone else class_labels(a, y_labels, self.n, "y_labels")
        if len(a.backend.shape(own)) != len(a.backend.shape(theirs)):
            raise ValueError("labels and y_labels: both must be of shape (rows,) or both (rows, classes).")
        if len(a.backend.shape(own)) == 1:
            return Relation((own,), (theirs,), lambda c, w, i, j: xp.expand_dims(c[0], axis=-1) == xp.expand_dims(w[0], axis=0))
        own, theirs = xp.astype(own, a.compute), xp.astype(theirs, a.compute)
        return Relation((own,), (theirs,), lambda c, w, i, j: xp.matmul(c[0], xp.matrix_transpose(w[0])) > 0)

    def _told(self, name: str, value: Any) -> Relation:
        """A mask, or indices: kept as sorted keys anchor * n + candidate."""
        a, xp = self.a, self.a.xp
        if isinstance(value, tuple | list) and len(value) == 2:
            first, second = (a.bring(v) for v in value)
            for which, v in (("anchors", first), ("candidates", second)):
                if a.backend.kind(a.backend, v.dtype) != "integral" or len(a.backend.shape(v)) != 1:
                    raise TypeError(f"{name}: the indices of the {which} must be integers of shape (pairs,).")
            keys = xp.sort(xp.astype(first, xp.int64) * self.n + xp.astype(second, xp.int64))
            count = a.backend.shape(keys)[0]

            def listed(c: Any, w: Any, i: Array, j: Array) -> Array:
                want = xp.astype(i, xp.int64) * self.n + xp.astype(j, xp.int64)
                if isinstance(count, int) and count == 0:
                    return want < 0
                flat = xp.reshape(want, (-1,))
                at = xp.clip(xp.searchsorted(w[0], flat), 0, count - 1)
                return xp.reshape(xp.take(w[0], at) == flat, a.backend.shape(want))

            return Relation((), (keys,), listed)
        mask = a.bring(value)
        shape, want = a.backend.shape(mask), (self.m, self.n)
        if not fits(shape, want):
            raise ValueError(f"{name} has shape {checks.shown(shape)}: expected a mask {checks.shown(want)}, or (anchors, candidates).")
        return Relation((mask != 0,), (), lambda c, w, i, j: c[0])

    def most_positives(self) -> int | None:
        """The largest number of positives of an anchor; None where values cannot be looked at."""
        a, xp = self.a, self.a.xp
        relation = self.positives if self.positives is not None else self.same
        assert relation is not None
        if not isinstance(self.m, int) or not isinstance(self.n, int):
            return None
        cuts, wholes = (rows(a, self.m), *relation.cut), (rows(a, self.n), *relation.whole)
        if a.backend.traced(*cuts, *wholes):  # the labels: x may be traced, as under jax.grad
            return None
        if self.m == 0 or self.n == 0:
            return 0

        def count(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
            i, j = xp.expand_dims(cuts[0], axis=-1), xp.expand_dims(wholes[0], axis=0)
            mask = relation.mask(cuts[1:], wholes[1:], i, j)
            mask = mask & (i != j) if self.alone else mask
            return (xp.sum(xp.astype(mask, xp.int32), axis=-1),)

        found = a.backend.blockwise(a.backend, count, cuts, wholes, block_rows(a, self.m, self.n, 4, self.budget))
        return int(xp.max(found[0]))

    def each(
        self,
        function: Callable[..., tuple[Array, ...]],
        *,
        cut: tuple[Array, ...] = (),
        whole: tuple[Array, ...] = (),
        buffers: int = 8,
    ) -> tuple[Array, ...]:
        """``function(block, cut, whole)`` for blocks of anchors: (b, ...) arrays, joined to (m, ...).

        ``cut`` has a row for each anchor, ``whole`` goes to every block; gradients pass through both. ``buffers`` counts the
        (b, n) arrays that are alive at a time, gradient included.
        """
        a, xp = self.a, self.a.xp
        relations = [r for r in (self.same, self.positives, self.negatives) if r is not None]
        room = max(1, self.budget // 2)

        def run(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
            (x, index, *cuts), (y, columns, *wholes) = cuts, wholes  # type: ignore[assignment]
            i, j = xp.expand_dims(index, axis=-1), xp.expand_dims(columns, axis=0)
            masks = []
            for r in relations:
                masks.append(r.mask(cuts[: len(r.cut)], wholes[: len(r.whole)], i, j))
                cuts, wholes = cuts[len(r.cut) :], wholes[len(r.whole) :]
            found = iter(masks)
            same = next(found) if self.same is not None else None
            positive = next(found) if self.positives is not None else same
            negative = next(found) if self.negatives is not None else ~positive if same is None or same is positive else ~same & ~positive
            other = None
            if self.alone:
                other = i != j
                positive, negative = positive & other, negative & other
            return function(Block(a, x, y, index, positive, negative, other, self.score, room), tuple(cuts), tuple(wholes))

        step = block_rows(a, self.m, self.n, buffers, self.budget)
        cuts = (self.x, rows(a, self.m), *(c for r in relations for c in r.cut), *cut)
        wholes = (self.y, rows(a, self.n), *(w for r in relations for w in r.whole), *whole)
        return tuple(a.backend.blockwise(a.backend, run, cuts, wholes, step))


def budget(max_bytes: int | str | None) -> int:
    """Scratch that a call may take."""
    chosen = max_bytes if max_bytes is not None else plans.current().max_bytes
    return plans.DEFAULT_MAX_BYTES if chosen is None else plans.parse_bytes(chosen)


def rows(a: Arrays, m: Any) -> Array:
    """Numbers of rows."""
    like = next(v for v in a.values.values() if v is not None)
    return a.xp.arange(m, dtype=a.xp.int32, device=a.backend.device(like))


BLOCK_BYTES = 16 << 20
"""Scratch of a block of anchors, where the budget allows it: what a processor's cache holds."""


def block_rows(a: Arrays, m: Any, n: Any, buffers: int, budget: int) -> Any:
    """How many anchors a block takes. Unknown sizes are planned when the graph runs."""
    size = a.backend.itemsize(a.compute)
    limit = max(1, min(budget, BLOCK_BYTES) // (buffers * size))
    if isinstance(n, int):
        fit = limit // max(n, 1)
        if fit < 1 and isinstance(m, int) and m and n:
            least = buffers * size * n
            if least > budget:
                raise ValueError(f"max_bytes={budget} is below one row of this call: {n} candidates need {least} bytes of scratch.")
            fit = 1
        return max(fit, 1)
    return a.xp.maximum(limit // a.xp.maximum(n, 1), 1)


# --- mathematics --------------------------------------------------------------------------------------------------------


def softplus(xp: Any, z: Array) -> Array:
    """log(1 + e^z), for any z."""
    return xp.maximum(z, xp.zeros_like(z)) + xp.log1p(xp.exp(-xp.abs(z)))


def log_sigmoid(xp: Any, z: Array) -> Array:
    """log(1 / (1 + e^-z))."""
    return -softplus(xp, -z)


def lse(a: Arrays, s: Array, mask: Array | None = None) -> Array:
    """log sum of e^s over the last axis, where ``mask``; -inf where nothing is, with gradient 0."""
    xp = a.xp
    if mask is not None:
        s = xp.where(mask, s, xp.full_like(s, -math.inf))
    if isinstance(a.backend.shape(s)[-1], int) and a.backend.shape(s)[-1] == 0:
        return xp.sum(s, axis=-1) - math.inf
    top = a.backend.detach(xp.max(s, axis=-1, keepdims=True))
    top = xp.where(xp.isinf(top), xp.zeros_like(top), top)
    total = xp.sum(xp.exp(s - top), axis=-1)
    none = total == 0
    result = xp.log(xp.where(none, xp.ones_like(total), total)) + xp.squeeze(top, axis=-1)
    return xp.where(none, xp.full_like(result, -math.inf), result)


def among(xp: Any, mask: Array, values: Array) -> Array:
    """Sum of the values where ``mask``, over the last axis; what is outside does not count, infinite or not."""
    return xp.sum(xp.where(mask, values, xp.zeros_like(values)), axis=-1)


def number_of(xp: Any, mask: Array, dtype: Any) -> Array:
    """How many are in the mask, over the last axis."""
    return xp.sum(xp.astype(mask, dtype), axis=-1)
