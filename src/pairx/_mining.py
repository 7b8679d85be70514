"""What all miners share: a batch without gradients, lists of a length that depends on values or of a fixed one, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import checks
from .backend import find
from .losses import _core as core
from .losses import _score as scoring
from .losses._batch import Batch, Block
from .losses._core import Arrays
from .losses._rows import places as columns_of

Array = Any
Lists = tuple[Array, ...]


def gather(
    x: Array, y: Array | None, score: scoring.Score, max_bytes: int | str | None, size: int | None, fixed: bool = False, **told: Any
) -> tuple[Arrays, Batch, int | None]:
    """A batch without gradients, and how many places an anchor has (None: as many as it needs)."""
    a = core.arrays(x=x, y=y, quadratic=scoring.quadratic(score.metric, score.similarity))
    a = replace(a, values={k: None if v is None else a.backend.detach(v) for k, v in a.values.items()})
    batch = Batch(a, "x", "y", score=score, max_bytes=max_bytes, **told)
    return a, batch, room(a, batch, size, fixed)


def room(a: Arrays, batch: Batch, size: int | None, fixed: bool) -> int | None:
    if size is not None:
        found = checks.integer("size", size)
        if found < 1:
            raise ValueError(f"size={size!r}: expected at least one place for each anchor.")
        return found
    relations = (r for r in (batch.same, batch.positives, batch.negatives) if r is not None)
    if a.backend.traced(batch.x, core.rows(a, batch.m), *(v for r in relations for v in (*r.cut, *r.whole))):
        if fixed:
            return 1
        raise TypeError("size: the length of the lists depends on values, which a traced call cannot look at; pass places for each anchor.")
    return None


def lists(
    a: Arrays, batch: Batch, function: Callable[[Block, tuple[Array, ...]], Lists], buffers: int, count: int, cut: Lists = ()
) -> Lists:
    """What ``function`` finds in each block, joined."""
    xp = a.xp
    if batch.m == 0 or batch.n == 0:
        none = core.rows(a, 0)
        return tuple(xp.astype(none, xp.int64) for _ in range(count))
    found = batch.each(lambda block, cut, whole: function(block, cut), cut=cut, buffers=buffers)
    return tuple(xp.reshape(f, (-1,)) for f in found)


def kept(a: Arrays, there: Array, values: Lists, fixed: bool) -> Lists:
    """Of (b, q) those entries that are there: as lists, or with -1 elsewhere."""
    xp = a.xp
    values = tuple(xp.astype(xp.broadcast_to(v, a.backend.shape(there)), xp.int64) for v in values)
    if fixed:
        return tuple(xp.where(there, v, xp.full_like(v, -1)) for v in values)
    at = xp.nonzero(xp.reshape(there, (-1,)))[0]
    return tuple(xp.take(xp.reshape(v, (-1,)), at, axis=0) for v in values)


def masked(a: Arrays, block: Block, mask: Array, size: int | None) -> Lists:
    """A mask (b, n) as (anchors, candidates)."""
    xp = a.xp
    if size is not None:
        columns, there = columns_of(a, mask, size)
        return kept(a, there, (xp.expand_dims(block.index, axis=-1), columns), True)
    row, column = xp.nonzero(mask)
    return xp.take(xp.astype(block.index, xp.int64), row, axis=0), xp.astype(column, xp.int64)


def most_positives(a: Arrays, batch: Batch, size: int | None) -> int:
    """How many columns hold all positives of an anchor; with ``size`` no more than that."""
    most = batch.most_positives()
    n = batch.n if isinstance(batch.n, int) else size
    bound = n if most is None else most
    return max(1, min(b for b in (bound, size) if b is not None))


def uniform(a: Arrays, rng: Any, shape: tuple[Any, ...]) -> Array:
    """Random numbers in [0, 1) of the caller's generator."""
    import numpy as np

    like = next(v for v in a.values.values() if v is not None)
    own = a.backend.uniform(rng, shape, like, a.compute)
    if own is not None:
        return own
    if isinstance(rng, np.random.Generator) and a.backend.traced(like):
        raise TypeError("rng: a traced call would keep one draw of a NumPy generator for ever; pass the library's own, or a seed.")
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        rng = np.random.default_rng(rng)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__}: expected a generator of {a.backend.name}, a numpy.random.Generator or a seed.")
    if not all(isinstance(n, int) for n in shape):
        raise TypeError("rng: how many rows there are is known only when the graph runs; pass a generator of the library.")
    return a.bring(rng.random(shape), a.compute)


EUCLIDEAN = scoring.Score("euclidean", None)


def labels_only(labels: Any, y_labels: Any, max_bytes: int | str | None, size: int | None) -> tuple[Arrays, Batch, int | None]:
    """A batch that has labels and nothing to compare."""
    backend = find(labels=labels) if y_labels is None else find(labels=labels, y_labels=y_labels)
    given = {"x": backend.coerce(labels, "labels"), "y": None if y_labels is None else backend.coerce(y_labels, "y_labels")}
    xp, dtype = backend.xp, backend.xp.result_type(backend.xp.float32)
    blank = {k: None if v is None else xp.zeros((backend.shape(v)[0], 1), dtype=dtype, device=backend.device(v)) for k, v in given.items()}
    a = Arrays(backend, dtype, dtype, blank)
    batch = Batch(a, "x", "y", labels=given["x"], y_labels=given["y"], score=EUCLIDEAN, max_bytes=max_bytes)
    return a, batch, size
