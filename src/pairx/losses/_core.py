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


@dataclass(frozen=True)
class Scale:
    """What similarities are multiplied by: a number, or the library's scalar, which goes to every block by ``whole``."""

    value: Any
    inverse: bool
    """Whether the value is a temperature."""

    @property
    def whole(self) -> tuple[Array, ...]:
        return () if isinstance(self.value, float) else (self.value,)

    def of(self, whole: tuple[Array, ...] = ()) -> Any:
        """The factor, inside a block: its array is the last of ``whole``."""
        value = self.value if isinstance(self.value, float) or not whole else whole[-1]
        return 1.0 / value if self.inverse else value


def temperature(a: Arrays, value: Any, name: str = "temperature") -> Scale:
    """1 / t."""
    return Scale(a.number(name, value, positive=True, zero_ok=False), True)


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


def truth(a: Arrays, value: Any) -> Array:
    """A mask: booleans, or numbers that are 0 or not."""
    found = a.bring(value)
    return found if a.backend.kind(a.backend, found.dtype) == "bool" else found != 0


class Learnt:
    """Hyper-parameters of which some may be learnt: numbers, and scalars of the library, which go to every block (``whole=``)."""

    def __init__(self, a: Arrays, rules: dict[str, dict[str, Any]] | None = None, **given: Any) -> None:
        found = {k: a.number(k, v, **(rules or {}).get(k, {})) for k, v in given.items()}
        self.numbers = {k: v for k, v in found.items() if isinstance(v, float)}
        self.names = [k for k in found if k not in self.numbers]
        self.whole = tuple(found[k] for k in self.names)

    def of(self, whole: tuple[Array, ...]) -> dict[str, Any]:
        """All of them by name, the learnt ones as they came to a block."""
        return {**self.numbers, **dict(zip(self.names, whole, strict=True))}


# --- reduction ----------------------------------------------------------------------------------------------------------


def reduce(
    a: Arrays,
    values: Array,
    *,
    reduction: str,
    weights: Any = None,
    active: Array | None = None,
    mass: Array | None = None,
    sizes: Array | None = None,
    return_count: bool = False,
) -> Any:
    """The values of the units to the answer: a mean over those that took part, their sum, or each by itself.

    A weighted mean divides by the sum of the weights of those that took part, each times its ``mass`` (the weight of a label's
    class, the number of pairs of an anchor; default 1); an empty mean is 0.
    A unit that is itself the mean of several terms (of an anchor's triplets) says by ``sizes`` of how many: it stands for all of them.
    """
    xp = a.xp
    plans.choice("reduction", reduction, REDUCTIONS)
    one = xp.ones_like(values)
    part = one if active is None else xp.astype(active, values.dtype)
    if weights is not None:
        part = part * unit_weights(a, weights, a.backend.shape(values))
    if sizes is not None:
        part = part * sizes
    counted = part != 0
    values = xp.where(counted, values, xp.zeros_like(values))  # 0 times an infinite value is 0
    if reduction == "none":
        result = values * part
    elif reduction == "sum":
        result = xp.sum(values * part)
    else:
        total = xp.sum(part if mass is None else part * mass)
        # Shares first: the sum of representable values may not be representable, their mean is.
        result = xp.sum(values * (part / xp.where(total == 0, xp.ones_like(total), total)))
    result = xp.astype(result, a.answer, copy=False)
    if not return_count:
        return result
    count = xp.sum(xp.astype(one if active is None else active, xp.int32), dtype=xp.int32)
    return result, count


def unit_weights(a: Arrays, weights: Any, want: tuple[Any, ...]) -> Array:
    """One weight for each unit."""
    w = a.bring(weights, a.compute)
    shape = a.backend.shape(w)
    if not fits(shape, want):
        raise ValueError(f"weights has shape {checks.shown(shape)}: expected one for each unit, {checks.shown(want)}.")
    return w


# --- distances and similarities -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How two rows are compared: the one place where distances and similarities turn into each other."""

    metric: Any
    similarity: str | None

    def rows(self, a: Arrays, x: Array) -> Array:
        """What is done to each row once."""
        if self.similarity is None:
            return x
        if self.similarity == "dot":
            return moderate(a, x)
        m, d = a.backend.shape(x)[0], a.backend.shape(x)[-1]
        if not isinstance(m, int) or not isinstance(d, int) or a.backend.traced(x):
            return unit(a, x)
        # In blocks, since half a dozen arrays of the size of x would wait for the gradient.
        return a.backend.blockwise(a.backend, lambda cut, whole: (unit(a, cut[0]),), (x,), (), block_rows(a, m, d, 8, 1 << 22))[0]

    def apart(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        """(b, n) distances of prepared rows: smaller is closer. 1 - cosine; minus the dot product."""
        if self.similarity is not None:
            s = self.alike(a, x, y)
            return 1.0 - s if self.similarity == "cosine" else -s
        from ..distances import cdist

        return cdist(x, y, self.metric, max_bytes=max_bytes)

    def alike(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        """(b, n) similarities of prepared rows: larger is closer. Minus the distance."""
        if self.similarity is None:
            return -self.apart(a, x, y, max_bytes)
        return products(a, x, y)

    def logits(self, a: Arrays, x: Array, y: Array, scale: Any, max_bytes: int | None = None) -> Array:
        """(b, n) similarities times ``scale``; where they are products, x is scaled: that is fewer numbers."""
        if self.similarity is None:
            return bounded(a, scale * self.alike(a, x, y, max_bytes))
        return products(a, x * scale, y)

    def paired_logits(self, a: Arrays, x: Array, y: Array, scale: Any) -> Array:
        """(b,) similarities times ``scale``, row by row."""
        if self.similarity is not None:
            return a.xp.sum(x * scale * y, axis=-1)
        return bounded(a, -scale * self.paired_apart(a, x, y))

    def paired_apart(self, a: Arrays, x: Array, y: Array) -> Array:
        """(b,) distances, row by row."""
        if self.similarity is not None:
            s = a.xp.sum(x * y, axis=-1)
            return 1.0 - s if self.similarity == "cosine" else -s
        from ..distances import paired

        return paired(x, y, self.metric)

    def chosen_apart(self, a: Arrays, x: Array, y: Array, i: Array, j: Array, max_bytes: int | str | None = None) -> Array:
        """(pairs,) distances of rows i of x and rows j of y, gathered a block of pairs at a time."""
        if self.similarity is None:
            from ..distances import paired

            return paired(x, None if y is x else y, self.metric, pairs=(i, j), max_bytes=max_bytes)

        def some(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
            return (self.paired_apart(a, a.xp.take(wholes[0], cuts[0], axis=0), a.xp.take(wholes[1], cuts[1], axis=0)),)

        step = block_rows(a, a.backend.shape(i)[0], a.backend.shape(x)[-1], 6, budget(max_bytes))
        return a.backend.blockwise(a.backend, some, (i, j), (x, y), step)[0]


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


def moderate(a: Arrays, x: Array) -> Array:
    """Rows whose products cannot overflow: larger ones are scaled down, all by one factor, so that their order stays."""
    xp, d = a.xp, a.backend.shape(x)[-1]
    if (isinstance(d, int) and d == 0) or any(n == 0 for n in a.backend.shape(x) if isinstance(n, int)):
        return x
    most = math.sqrt(float(xp.finfo(x.dtype).max) / 4e6 / (d if isinstance(d, int) else 1e6))  # room for a temperature of 1e-6
    fixed = a.backend.detach(x)
    top = xp.maximum(xp.max(fixed), -xp.min(fixed))  # max(abs(x)) would copy x
    if not a.backend.traced(x) and bool(top <= most):
        return x
    return x * (most / xp.maximum(top, xp.full_like(top, most)))


def products(a: Arrays, x: Array, y: Array) -> Array:
    """(b, n) dot products in full precision."""
    if a.backend.lowered(x) is not None:
        from ..distances import gram

        return gram(x, y, "linear")
    return a.xp.matmul(x, a.xp.matrix_transpose(y))


def dots(a: Arrays, x: Array, y: Array) -> Array:
    """(b, n) dot products, bounded so that differences of them are finite."""
    return bounded(a, products(a, x, y))


def bounded(a: Arrays, s: Array) -> Array:
    """Values that overflowed become the largest that may still be subtracted from each other; NaN stays."""
    top = float(a.xp.finfo(s.dtype).max) / 4
    return a.xp.clip(s, -top, top)


# --- all pairs ----------------------------------------------------------------------------------------------------------


class Block:
    """A block of b anchors against all n candidates. Masks are (b, n), made when they are first asked for.

    ``x`` (b, d) and ``y`` (n, d) are prepared rows, ``index`` (b,) the numbers of the anchors.
    """

    def __init__(
        self,
        a: Arrays,
        x: Array,
        y: Array,
        index: Array,
        columns: Array,
        same: Callable[[], Array] | None,
        told: tuple[Callable[[], Array] | None, Callable[[], Array] | None],
        valid: Array | None,
        alone: bool,
        score: Score,
        max_bytes: int,
    ) -> None:
        self.a, self.x, self.y, self.index, self.columns = a, x, y, index, columns
        self.alone, self.score, self.max_bytes = alone, score, max_bytes
        self._same, self._told, self._valid = same, told, valid
        self._masks: dict[str, Array] = {}

    def _mask(self, name: str, make: Callable[[], Array]) -> Array:
        if name not in self._masks:
            self._masks[name] = make()
        return self._masks[name]

    @property
    def other(self) -> Array | None:
        """The candidates: everybody but the anchor itself, or who is valid of another set; None where that is all."""
        xp = self.a.xp
        if self.alone:
            return self._mask("other", lambda: ~self.paired)
        if self._valid is None:
            return None
        shape = (self.a.backend.shape(self.index)[0], self.a.backend.shape(self.columns)[0])
        return self._mask("other", lambda: xp.broadcast_to(self._valid, shape))

    @property
    def paired(self) -> Array:
        """Candidate i for anchor i."""
        xp = self.a.xp
        return self._mask("paired", lambda: xp.expand_dims(self.index, axis=-1) == xp.expand_dims(self.columns, axis=0))

    @property
    def same(self) -> Array:
        """Who shares a label, the anchor itself included."""
        assert self._same is not None
        return self._mask("same", self._same)

    def _others(self, mask: Array) -> Array:
        return mask if self.other is None else mask & self.other

    @property
    def positive(self) -> Array:
        told = self._told[0]
        return self._mask("positive", lambda: self._others(self.same if told is None else told()))

    @property
    def negative(self) -> Array:
        told = self._told[1]

        def make() -> Array:
            if told is not None:
                return self._others(told())
            if self._told[0] is None:
                return self._others(~self.same)  # of several labels a row may have none, and is not even like itself
            return self._others(~self.positive if self._same is None else ~self.same & ~self.positive)

        return self._mask("negative", make)

    def apart(self) -> Array:
        """(b, n) distances: smaller is closer."""
        return self.score.apart(self.a, self.x, self.y, self.max_bytes)

    def alike(self) -> Array:
        """(b, n) similarities: larger is closer."""
        return self.score.alike(self.a, self.x, self.y, self.max_bytes)

    def logits(self, scale: Any) -> Array:
        """(b, n) similarities times ``scale``, a number or a scalar array."""
        return self.score.logits(self.a, self.x, self.y, scale, self.max_bytes)


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
    related : False where the loss itself knows who belongs to whom.
    y_mask : (n,), which candidates of y count: a memory that is not yet full.
    paired : whether row i of y is the positive of anchor i, so that nothing else is needed (``block.paired``).
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
        y_mask: Any = None,
        paired: bool = False,
        score: Score,
        max_bytes: int | str | None = None,
        related: bool = True,
    ) -> None:
        self.a, self.score = a, score
        vectors(a, *([x, y] if y is not None else [x]))
        if paired:
            same_shape(a, x, str(y))
        self.alone = y is None or a[y] is None
        self.x = score.rows(a, a[x])
        self.y = self.x if self.alone else score.rows(a, a[str(y)])
        self.m, self.n = a.backend.shape(self.x)[0], a.backend.shape(self.y)[0]
        self.budget = budget(max_bytes)
        if related and labels is None and positives is None and not paired:
            raise TypeError("labels: pass labels, or positives (a mask or indices).")
        if self.alone and y_labels is not None:
            raise TypeError("y_labels: there is no y; leave it away.")
        if self.alone and y_mask is not None:
            raise TypeError("y_mask: there is no y; leave it away.")
        self.valid = None if y_mask is None else truth(a, y_mask)
        if self.valid is not None and not fits(a.backend.shape(self.valid), (self.n,)):
            raise ValueError(f"y_mask has shape {checks.shown(a.backend.shape(self.valid))}: expected {checks.shown((self.n,))}.")
        if not self.alone and (labels is None) != (y_labels is None):
            raise TypeError("y_labels: the anchors and the candidates of y need labels, both or none.")
        self.same = None if labels is None else self._labelled(labels, y_labels)
        self.positives = None if positives is None else self._told("positives", positives)
        self.negatives = None if negatives is None else self._told("negatives", negatives)

    def both_views(self) -> tuple[Array, Array]:
        """The rows of x and then those of y become anchors and candidates of each other; answers each one's other view and its number."""
        a, xp, m = self.a, self.a.xp, self.m
        first, second, number = self.x, self.y, rows(self.a, self.m)
        self.x = self.y = xp.concat([first, second], axis=0)
        self.alone, self.m = True, a.backend.shape(self.x)[0]
        self.n = self.m
        return xp.concat([second, first], axis=0), xp.concat([number + m, number], axis=0)

    def _labelled(self, labels: Any, y_labels: Any) -> Relation:
        a, xp = self.a, self.a.xp
        own = class_labels(a, labels, self.m)
        theirs = own if self.alone else class_labels(a, y_labels, self.n, "y_labels")
        if len(a.backend.shape(own)) != len(a.backend.shape(theirs)):
            raise ValueError("labels and y_labels: both must be of shape (rows,) or both (rows, classes).")
        if len(a.backend.shape(own)) == 1:
            if own.dtype != theirs.dtype:
                mixed = a.backend.kind(a.backend, own.dtype) != a.backend.kind(a.backend, theirs.dtype)
                if mixed and 0 not in (*a.backend.shape(own), *a.backend.shape(theirs)):  # large integers would meet as equal floats
                    which = ", ".join(f"{k} has dtype {checks.dtype_name(v.dtype)}" for k, v in (("labels", own), ("y_labels", theirs)))
                    raise TypeError(f"{which}: both must be integers, or both floats.")
                own, theirs = (xp.astype(v, a.compute if mixed else xp.result_type(own, theirs)) for v in (own, theirs))
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
        mask = truth(a, value)
        shape, want = a.backend.shape(mask), (self.m, self.n)
        if not fits(shape, want):
            raise ValueError(f"{name} has shape {checks.shown(shape)}: expected a mask {checks.shown(want)}, or (anchors, candidates).")
        return Relation((mask,), (), lambda c, w, i, j: c[0])

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
        run, cuts, wholes, step = self._blocks(function, cut, whole, buffers)
        return tuple(self.a.backend.blockwise(self.a.backend, run, cuts, wholes, step))

    def reduced(
        self,
        function: Callable[..., tuple[Array, ...]],
        *,
        reduction: str,
        weights: Any = None,
        return_count: bool = False,
        cut: tuple[Array, ...] = (),
        whole: tuple[Array, ...] = (),
        buffers: int = 8,
    ) -> Any:
        """:func:`reduce` of ``(value, active)`` or ``(value, active, terms)``, which ``function`` gives as in :meth:`each`.

        A mean or a sum is linear in the values, so a library that keeps no blocks takes their gradient along with the values
        instead of running each block again: a product of n x m less.
        """
        a, xp = self.a, self.a.xp
        plans.choice("reduction", reduction, REDUCTIONS)
        run, cuts, wholes, step = self._blocks(function, cut, whole, buffers)
        several = isinstance(self.m, int) and isinstance(step, int) and self.m > step
        if reduction == "none" or not several or not a.backend.prompt(*cuts, *wholes):
            value, active, *terms = a.backend.blockwise(a.backend, run, cuts, wholes, step)
            return reduce(
                a,
                value,
                reduction=reduction,
                weights=weights,
                active=active,
                mass=terms[0] if terms else None,
                return_count=return_count,
            )
        # The divisor is known at the end. Until then the values are divided by one that is at least of its size: sums of
        # representable values may not be representable.
        w = None if weights is None else unit_weights(a, weights, (self.m,))
        whole_weight = float(self.m) if w is None else xp.sum(w)
        whole_weight = xp.where(whole_weight == 0, xp.ones_like(whole_weight), whole_weight) if w is not None else whole_weight
        rough = 1.0 if reduction == "sum" else 1.0 / (whole_weight if w is None else a.backend.detach(whole_weight))

        def sums(cuts: tuple[Array, ...], wholes: tuple[Array, ...], live: Any) -> tuple[Array, ...]:
            value, active, *terms = run(cuts[1:] if w is not None else cuts, wholes)
            part = xp.astype(active, value.dtype)
            if w is not None:
                part = part * cuts[0]
            value = xp.where(part != 0, value, xp.zeros_like(value))
            part = part * rough
            weight = xp.sum(part * terms[0] if terms else part)
            return xp.sum(value * part), weight, xp.sum(xp.astype(active, xp.int32), dtype=xp.int32)

        total, weight, count = a.backend.blocksum(a.backend, sums, cuts if w is None else (w, *cuts), wholes, step)
        if reduction == "mean":
            total = total / xp.where(weight == 0, xp.ones_like(weight), weight)
        total = xp.astype(total, a.answer, copy=False)
        return (total, count) if return_count else total

    def _blocks(self, function: Callable[..., tuple[Array, ...]], cut: tuple[Array, ...], whole: tuple[Array, ...], buffers: int) -> Any:
        """What the backend is to run on blocks: the function, what is cut, what is whole, and rows of a block."""
        a = self.a
        room = max(1, self.budget // 2)

        def run(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
            (x, index, *cuts), (y, columns, *wholes) = cuts, wholes  # type: ignore[assignment]
            valid, wholes = (None, wholes) if self.valid is None else (wholes[0], wholes[1:])
            found: list[Callable[[], Array] | None] = []
            for r in (self.same, self.positives, self.negatives):
                found.append(None if r is None else _later(a, r, cuts, wholes, index, columns))
                if r is not None:
                    cuts, wholes = cuts[len(r.cut) :], wholes[len(r.whole) :]
            block = Block(a, x, y, index, columns, found[0], (found[1], found[2]), valid, self.alone, self.score, room)
            return function(block, tuple(cuts), tuple(wholes))

        relations = [r for r in (self.same, self.positives, self.negatives) if r is not None]
        step = block_rows(a, self.m, self.n, buffers, self.budget)
        cuts = (self.x, rows(a, self.m), *(c for r in relations for c in r.cut), *cut)
        wholes = (self.y, rows(a, self.n), *(() if self.valid is None else (self.valid,)), *(w for r in relations for w in r.whole), *whole)
        return run, cuts, wholes, step


def _later(a: Arrays, r: Relation, cuts: Any, wholes: Any, index: Array, columns: Array) -> Callable[[], Array]:
    """The mask of a relation, when it is asked for."""
    i, j = a.xp.expand_dims(index, axis=-1), a.xp.expand_dims(columns, axis=0)
    return lambda: r.mask(cuts[: len(r.cut)], wholes[: len(r.whole)], i, j)


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


def hinge(xp: Any, z: Array) -> Array:
    """max(0, z), with gradient 0 at 0."""
    return xp.where(z > 0, z, xp.zeros_like(z))


def square(xp: Any, z: Array) -> Array:
    """z^2 for z >= 0; infinite, with gradient 0, where it is not representable: its slope would be inf - inf in a sum over pairs."""
    over = z > float(xp.finfo(z.dtype).max) ** 0.5
    kept = xp.where(over, xp.zeros_like(z), z)
    return xp.where(over, xp.full_like(z, math.inf), kept * kept)


def softplus(xp: Any, z: Array) -> Array:
    """log(1 + e^z), for any z."""
    # At 0 libraries share the slope of a maximum differently (TensorFlow: 1 and 0); here it is 1/2 everywhere.
    above = xp.where(z == 0, 0.5 * z, xp.maximum(z, xp.zeros_like(z)))
    return above + xp.log1p(xp.exp(-xp.abs(z)))


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
