"""Anchors against candidates, block by block.

A loss that looks at all pairs is a function of one block of anchors against all candidates. The backend runs it block by
block (``Backend.blockwise``) and runs each block again in the backward pass, so no n x m array is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from .. import checks
from .. import plan as plans
from ._core import REDUCTIONS, Arrays, block_rows, budget, class_labels, fits, reduce, rows, same_shape, truth, unit_weights, vectors
from ._score import Score

Array = Any

TRIANGLE, LEAST = 8, 256
"""Where each pair is looked at once, so many blocks leave little of the other triangle; but a block has at least so many rows."""


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
        once: bool,
        score: Score,
        max_bytes: int,
    ) -> None:
        self.a, self.x, self.y, self.index, self.columns = a, x, y, index, columns
        self.alone, self.once, self.score, self.max_bytes = alone, once, score, max_bytes
        self._same, self._told, self._valid = same, told, valid
        self._masks: dict[str, Array] = {}

    def _mask(self, name: str, make: Callable[[], Array]) -> Array:
        if name not in self._masks:
            self._masks[name] = make()
        return self._masks[name]

    @property
    def other(self) -> Array | None:
        """The candidates: everybody but the anchor itself, or who is valid of another set; None where that is all.

        Where each pair is looked at once, those that come after the anchor.
        """
        xp = self.a.xp
        if self.once:
            return self._mask("other", lambda: xp.expand_dims(self.index, axis=-1) < xp.expand_dims(self.columns, axis=0))
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

    def without_paired(self, s: Array) -> Array:
        """``s`` with -inf at candidate i for anchor i; what was ``s`` may be overwritten."""
        own = self.a.backend.natives.get("put")
        if own is not None and (found := own(s, self.index, -math.inf)) is not None:
            return found
        return self.a.xp.where(self.paired, self.a.xp.full_like(s, -math.inf), s)

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

    @property
    def either(self) -> Array | None:
        """A positive or a negative; None where that is all."""
        return self.other if self._told == (None, None) else self.positive | self.negative

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
        run, cuts, wholes, step = self._blocks(function, cut, whole, buffers, False)
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
        once: bool = False,
    ) -> Any:
        """:func:`reduce` of ``(value, active)`` or ``(value, active, terms)``, which ``function`` gives as in :meth:`each`.

        A mean or a sum is linear in the values, so a library that keeps no blocks takes their gradient along with the values
        instead of running each block again: a product of n x m less.

        ``once``: of the pairs (i, j) and (j, i) of one set only the first counts, so that half of them need not be looked at.
        """
        a, xp = self.a, self.a.xp
        plans.choice("reduction", reduction, REDUCTIONS)
        run, cuts, wholes, step = self._blocks(function, cut, whole, buffers, once)
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
        if a.beyond is not None:
            total = total + a.beyond
        total = xp.astype(total, a.answer, copy=False)
        return (total, count) if return_count else total

    def in_machine_code(
        self, name: str, plain: Callable[[Batch], Any], *what: Any, reduction: str, weights: Any, return_count: bool
    ) -> Any | None:
        """A mean or sum over one set, whose classes are whole numbers, by a function of the library's own (``Backend.natives``).

        It has its gradient with it; ``plain`` is the same by ordinary operations. None where there is none for this call.
        """
        a, own = self.a, self.a.backend.natives.get(name)
        plans.choice("reduction", reduction, REDUCTIONS)
        if reduction == "none" or weights is not None or return_count:
            return None
        labels = None if self.same is None else self.same.whole[0]
        if own is None or labels is None or not self.alone or self.positives is not None or self.negatives is not None:
            return None
        if type(self.score) is not Score or not isinstance(self.score.metric, str) or a.beyond is not None:
            return None
        if len(a.backend.shape(labels)) != 1 or a.backend.kind(a.backend, labels.dtype) != "integral":
            return None
        if not isinstance(self.m, int) or self.m < 2:
            return None
        from ..calls import Call
        from ..distances import matrix_task

        call = Call("cdist", None, None, None, "finite", "propagate", self.budget, None, None, {})
        task = matrix_task(call, self.x, None, self.score.metric, "matrix")
        if task.kernel is None or task.plan.engine != "compiled":
            return None

        def again(x: Array) -> Any:
            other = copy(self)
            other.x = other.y = x
            return plain(other)

        found = own(self.x, again, task.kernel, labels, self.budget, reduction == "mean", *what)
        return None if found is None else a.xp.astype(found, a.answer, copy=False)

    def _blocks(
        self, function: Callable[..., tuple[Array, ...]], cut: tuple[Array, ...], whole: tuple[Array, ...], buffers: int, once: bool
    ) -> Any:
        """What the backend is to run on blocks: the function, what is cut, what is whole, and rows of a block."""
        a = self.a
        room = max(1, self.budget // 2)

        def run(cuts: tuple[Array, ...], wholes: tuple[Array, ...]) -> tuple[Array, ...]:
            (x, index, *cuts), (y, columns, *wholes) = cuts, wholes  # type: ignore[assignment]
            valid, wholes = (None, wholes) if self.valid is None else (wholes[0], wholes[1:])
            first = int(index[0]) if once and index.shape[0] and not a.backend.traced(index) else 0
            if first:  # nobody before the block comes after one of its anchors
                y, columns = y[first:, ...], columns[first:]
                count = 0 if self.same is None else len(self.same.whole)
                wholes = (*(w[first:, ...] for w in wholes[:count]), *wholes[count:])
            found: list[Callable[[], Array] | None] = []
            for r in (self.same, self.positives, self.negatives):
                found.append(None if r is None else _later(a, r, cuts, wholes, index, columns))
                if r is not None:
                    cuts, wholes = cuts[len(r.cut) :], wholes[len(r.whole) :]
            block = Block(a, x, y, index, columns, found[0], (found[1], found[2]), valid, self.alone, once, self.score, room)
            return function(block, tuple(cuts), tuple(wholes))

        relations = [r for r in (self.same, self.positives, self.negatives) if r is not None]
        step = block_rows(a, self.m, self.n, buffers, self.budget)
        if once and isinstance(self.m, int) and isinstance(step, int):
            step = min(step, max(self.m // TRIANGLE, LEAST))
        cuts = (self.x, rows(a, self.m), *(c for r in relations for c in r.cut), *cut)
        wholes = (self.y, rows(a, self.n), *(() if self.valid is None else (self.valid,)), *(w for r in relations for w in r.whole), *whole)
        return run, cuts, wholes, step


def _later(a: Arrays, r: Relation, cuts: Any, wholes: Any, index: Array, columns: Array) -> Callable[[], Array]:
    """The mask of a relation, when it is asked for."""
    i, j = a.xp.expand_dims(index, axis=-1), a.xp.expand_dims(columns, axis=0)
    return lambda: r.mask(cuts[: len(r.cut)], wholes[: len(r.whole)], i, j)
