"""How two rows are compared: a metric or a similarity, and the one place where the two turn into each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import plan as plans
from ._core import Arrays, block_rows, budget, most, top

Array = Any


@dataclass(frozen=True)
class Score:
    """How two rows are compared: the one place where distances and similarities turn into each other."""

    metric: Any
    similarity: str | None

    @property
    def symmetric(self) -> bool:
        """Whether two rows can change places, as far as is known."""
        from ..metrics import lookup

        return self.similarity is not None or (isinstance(self.metric, str) and lookup(self.metric, "distance").symmetric)

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

        return cdist(x, None if y is x else y, self.metric, max_bytes=max_bytes)

    def alike(self, a: Arrays, x: Array, y: Array, max_bytes: int | None = None) -> Array:
        """(b, n) similarities of prepared rows: larger is closer. Minus the distance."""
        if self.similarity is None:
            return -self.apart(a, x, y, max_bytes)
        return products(a, x, y)

    def logits(self, a: Arrays, x: Array, y: Array, scale: Any, max_bytes: int | None = None) -> Array:
        """(b, n) similarities times ``scale``; where they are products, x is scaled: that is fewer numbers."""
        if self.similarity is None:
            return bounded(a, -scale * self.apart(a, x, y, max_bytes))
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


def quadratic(metric: Any, similarity: str | None, squared: bool = False) -> bool:
    """Whether rows are compared by products, which overflow long before the rows do."""
    return squared or similarity == "dot" or metric == "sqeuclidean"


def edges(metric: Any, similarity: str | None, *, cosine: bool = False, squared: bool = False) -> dict[str, bool]:
    """What :func:`_core.arrays` is to know of a loss that cuts what overflows; ``cosine``: its own choice is one, which cannot."""
    safe = similarity == "cosine" or (cosine and metric is None and similarity is None)
    return {"quadratic": quadratic(metric, similarity, squared), "bounded": not safe}


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
    xp = a.xp
    if any(n == 0 for n in a.backend.shape(x) if isinstance(n, int)):
        return x
    limit, size = most(a, x), top(a, x)
    if not a.backend.traced(x) and not bool((size > limit) & (size < math.inf)):
        return x
    factor = limit / xp.maximum(size, xp.full_like(size, limit))
    return x * xp.where(xp.isinf(size), xp.ones_like(factor), factor)  # an infinite value stays, beside what it stood beside


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
    return a.backend.natives.get("clip", a.xp.clip)(s, -top, top)
