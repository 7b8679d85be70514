"""The array and the native engine: a metric's definition evaluated on one tile, and the walk over the tiles.

*array* evaluates the definition by one broadcast and one reduction. *native* takes the joined terms of a bilinear metric
from a matrix product of the library, and computes again, by differences, the entries that cancellation spoilt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import plan as plans
from .backend import Backend
from .metrics import Metric, Pieces
from .plan import Plan, Tile
from .threads import share

Array = Any

SPOILT = 1 / 16
"""A squared distance below this part of |x|^2 + |y|^2 has lost digits to cancellation: it is computed again."""


@dataclass(frozen=True)
class Rule:
    """How a tile of one call is computed: the metric with its parameters, and the dtypes."""

    metric: Metric
    params: dict[str, Any]
    compute: Any
    answer: Any
    matrix: bool
    """Every row of x with every row of y; otherwise row by row."""
    omit: bool = False
    weighted: bool = False
    quadratic: bool = False
    """``aux`` ends in the matrix of a quadratic form ..."""
    factored: bool = False
    """... or in a factor of it: |(x - y) A|^2."""
    varied: bool = False
    """The weights hold 1 / V, too: what they would be without it comes second in ``aux``, for ``nan_policy="omit"``."""
    fast: bool = False
    """``precision="fast"``: what cancellation spoils stays so."""
    pair_room: int = 1 << 16
    """How many single pairs may be computed again at a time."""


@dataclass(frozen=True)
class Task:
    """One call, ready to run: a plan, what it runs on, and the function of one tile.

    ``block(x, y, *aux)`` is pure, differentiable and traceable. ``forward`` gives the same values and may look at them, so
    it is for eager arrays without a gradient. Both take the inputs cut by :func:`pairx.plan.side`.
    """

    plan: Plan
    backend: Backend
    x: Array
    y: Array | None
    """None: x again, and both gradients belong to x."""
    aux: tuple[Array, ...]
    block: Callable[..., Array]
    forward: Callable[..., Array]
    dtype: Any
    out: Array | None = None
    pairs: tuple[Array, Array] | None = None
    rule: Rule | None = None
    kernel: Any = None
    """What the compiled engine runs instead of ``forward``, if it is the plan's."""
    found: Array | None = None
    """The result, where a backward pass has it still and can use it."""
    key: Any = None
    """Hashable: tasks with equal keys have the same ``block``, so that a compiled one may be kept. None: unknown."""


# --- one tile -----------------------------------------------------------------------------------------------------------


def split(rule: Rule, aux: tuple[Array, ...]) -> tuple[Array | None, Array | None]:
    """The weights and the matrix among the auxiliary arrays."""
    return aux[0] if rule.weighted else None, aux[-1] if rule.quadratic else None


def largest(xp: Any, a: Array) -> Array:
    """The largest magnitude along the features, kept as an axis; 1 where it is 0 or not finite."""
    m = xp.max(xp.abs(a), axis=-1, keepdims=True)
    # A compiler may multiply by the reciprocal, which must not be subnormal.
    cap = 0.25 / float(xp.finfo(a.dtype).smallest_normal)
    return xp.where((m > 0) & (m < math.inf), xp.where(m > cap, cap, m), 1.0)


def rows(backend: Backend, rule: Rule, pieces: Pieces, x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Cast and prepare the rows of one side."""
    xp = backend.xp
    x = xp.astype(x, rule.compute, copy=False)
    if rule.metric.scale == "row" and x.shape[-1] != 0:
        # Only rows whose squares would overflow or underflow: a division rounds, and shifted data has no digit to spare.
        info = xp.finfo(rule.compute)
        top, low = math.sqrt(float(info.max)) / 1e6, math.sqrt(float(info.smallest_normal) / float(info.eps))
        m = backend.detach(largest(xp, x))
        x = x / xp.where((m > top) | (m < low), m, 1.0)
    return ((x,), ()) if pieces.prepare is None else pieces.prepare(x, w)


def joined(backend: Backend, rule: Rule, pieces: Pieces, xs: Any, ys: Any, aux: tuple[Array, ...], robust: bool) -> Array:
    """The distance from prepared rows whose shapes broadcast; the features are the last axis.

    ``robust`` divides by the largest difference (or value) of each pair first, so that nothing overflows or underflows.
    """
    xp, row = backend.xp, rule.metric
    w, matrix = split(rule, aux)
    own = aux[1] if rule.varied else w
    (px, sx), (py, sy) = xs, ys
    scale = None
    size = px[0].shape[-1]
    here = ~(xp.isnan(px[0]) | xp.isnan(py[0])) if rule.omit and size != 0 else None
    if matrix is not None:
        d = px[0] - py[0]
        if robust and size != 0:
            scale = backend.detach(largest(xp, d))
            d = d / scale
        mixed = xp.matmul(d, matrix)
        terms = pieces.terms(mixed if rule.factored else d, mixed)
    else:
        if robust and size != 0 and row.scale == "difference":
            d = px[0] - py[0] if here is None else xp.where(here, px[0] - py[0], 0.0)
            scale = backend.detach(largest(xp, d))
            px, py = (d / scale,), (xp.zeros_like(scale),)
        elif robust and size != 0 and row.scale in ("pair", "term"):
            # Only values near the largest number overflow here, and the distance does not depend on the scale.
            edge = float(xp.finfo(rule.compute).max) / (8 * max(size, 1)) if isinstance(size, int) else 1e30
            top = backend.detach(xp.maximum(xp.abs(px[0]), xp.abs(py[0])))
            if row.scale == "pair":
                top = xp.max(top, axis=-1, keepdims=True)
            factor = xp.where(top > edge, xp.full_like(top, 1 / (8 * size) if isinstance(size, int) else 1e-8), 1.0)
            px, py = (px[0] * factor,), (py[0] * factor,)
        terms = pieces.terms(*px, *py)
    if robust and w is not None and row.reduce == "sum":  # what overflowed in a feature without weight does not count
        terms = tuple(xp.where((w == 0) & xp.isinf(t), 0.0, t) for t in terms)
    n: Any = backend.shape(px[0])[-1] if own is None else xp.sum(own)
    if own is None and not isinstance(n, int) and hasattr(n, "dtype"):  # a symbol of torch is a number
        n = xp.astype(n, rule.compute)
    present = None
    if here is not None:
        terms = tuple(xp.where(here, t, 0.0) for t in terms)
        counted = xp.astype(here, rule.compute)
        present = xp.sum(counted if own is None else counted * own, axis=-1)
    if row.reduce == "max":
        reduced = tuple(_maximum(xp, t if w is None else xp.where(w > 0, t, 0.0)) for t in terms)
    else:
        reduced = tuple(_sum(backend, t, w) for t in terms)
    if present is not None:
        gap = n / xp.where(present > 0, present, 1.0) if row.reduce == "sum" else 1.0
        reduced = tuple(xp.where(present > 0, r * gap, math.nan) for r in reduced)
    if not isinstance(n, int):
        result = pieces.finish(reduced, _last(sx), _last(sy), n)
    else:
        result = pieces.finish(reduced, _last(sx), _last(sy), xp.full_like(reduced[0], float(n)))
    return result if scale is None else result * xp.squeeze(scale, axis=-1)


def _sum(backend: Backend, t: Array, w: Array | None) -> Array:
    xp = backend.xp
    return xp.sum(t, axis=-1) if w is None else xp.matmul(t, w)


def _maximum(xp: Any, t: Array) -> Array:
    return xp.sum(t, axis=-1) if t.shape[-1] == 0 else xp.max(t, axis=-1)


def _last(stats: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(s[..., 0] for s in stats)


def spread(xp: Any, prepared: Any, axis: int) -> Any:
    """Insert the axis along which the rows of the other side lie."""
    panels, stats = prepared
    return tuple(xp.expand_dims(p, axis=axis) for p in panels), tuple(xp.expand_dims(s, axis=axis) for s in stats)


def make_block(backend: Backend, rule: Rule, engine: str = "array", robust: bool = True, tidy: bool = True) -> Callable[..., Array]:
    """``block(x, y, *aux)``: the definition on one tile, pure and differentiable."""
    xp = backend.xp
    pieces = rule.metric.define(xp, **rule.params)
    product = rule.matrix and engine == "native" and (rule.metric.product == "dot" or rule.fast)

    def block(x: Array, y: Array, *aux: Array) -> Array:
        w, _ = split(rule, aux)
        if product and rule.metric.product == "dot":
            result = _dot(backend, rule, pieces, x, y, aux)
        elif product:
            result = _squares(backend, rule, pieces, x, y, aux)[0]
        else:
            xs, ys = rows(backend, rule, pieces, x, w), rows(backend, rule, pieces, y, w)
            if rule.matrix:
                xs, ys = spread(xp, xs, -2), spread(xp, ys, -3)
            result = joined(backend, rule, pieces, xs, ys, aux, robust)
        return xp.astype(result, rule.answer, copy=False) if tidy else result

    return block


@dataclass(frozen=True)
class _Rows:
    """The rows of one side; times those of the other it is their matrix product, so ``terms`` itself says what is multiplied."""

    xp: Any
    rows: Array

    def __mul__(self, other: _Rows) -> Array:
        return self.xp.matmul(self.rows, self.xp.matrix_transpose(other.rows))


def _dot(backend: Backend, rule: Rule, pieces: Pieces, x: Array, y: Array, aux: tuple[Array, ...]) -> Array:
    """Metrics of plain products: nothing cancels, so matrix products serve values and gradients alike."""
    xp = backend.xp
    w, _ = split(rule, aux)
    (px, sx), (py, sy) = rows(backend, rule, pieces, x, w), rows(backend, rule, pieces, y, w)
    size = backend.shape(px[0])[-1]
    if w is not None:
        px = tuple(p * w for p in px)
    if rule.metric.domain == "complex" and xp.isdtype(rule.compute, "complex floating"):
        px = tuple(xp.conj(p) for p in px)
    reduced = pieces.terms(*(_Rows(xp, p) for p in px), *(_Rows(xp, p) for p in py))
    n = xp.sum(w) if w is not None else (float(size) if isinstance(size, int) else xp.astype(size, rule.compute))
    left = tuple(xp.expand_dims(s[..., 0], axis=-1) for s in sx)
    right = tuple(xp.expand_dims(s[..., 0], axis=-2) for s in sy)
    return pieces.finish(reduced, left, right, n)


def make_forward(backend: Backend, rule: Rule, engine: str) -> Callable[..., Array]:
    """``forward(x, y, *aux)`` for eager arrays: the fast form, and again robustly what came out spoilt, inf or subnormal."""
    xp, metric = backend.xp, rule.metric
    native = engine == "native" and rule.matrix
    if native and (metric.product == "dot" or rule.fast):
        return make_block(backend, rule, engine)
    pieces = metric.define(xp, **rule.params)
    plain = make_block(backend, rule, robust=False, tidy=False)
    info = xp.finfo(rule.compute)
    low = 0.0
    if metric.scale == "difference":
        # Below this the sum under the root has lost digits to subnormal numbers.
        low = (float(info.smallest_normal) / float(info.eps)) ** min(1.0, 1 / rule.params.get("p", 2.0))

    def forward(x: Array, y: Array, *aux: Array) -> Array:
        spoilt = None
        if native:
            result, spoilt = _squares(backend, rule, pieces, x, y, aux)
        else:
            result = plain(x, y, *aux)
        if metric.scale in ("difference", "pair", "term") and x.shape[-1] != 0:
            odd = ~((result >= low) & (result < math.inf))
            spoilt = odd if spoilt is None else spoilt | odd
        elif rule.weighted and x.shape[-1] != 0:  # an overflow in a feature without weight is 0 times inf
            odd = xp.isnan(result)
            spoilt = odd if spoilt is None else spoilt | odd
        if spoilt is not None and bool(xp.any(spoilt)):
            if not rule.omit:
                gaps = _gaps(xp, rule, x, y)
                result, spoilt = xp.where(spoilt & gaps, math.nan, result), spoilt & ~gaps
                if x is y and rule.matrix and metric.zero_self:  # on the diagonal, which is settled as 0
                    i = xp.arange(x.shape[-2], device=backend.device(x))
                    spoilt = spoilt & (xp.expand_dims(i, axis=-1) != i)
            if bool(xp.any(spoilt)):
                result = _again(backend, rule, x, y, aux, result, spoilt)
        return xp.astype(result, rule.answer, copy=False)

    return forward


def _gaps(xp: Any, rule: Rule, x: Array, y: Array) -> Array:
    """Which pairs have NaN in either row."""
    left, right = xp.any(x != x, axis=-1), xp.any(y != y, axis=-1)  # integers have no isnan
    return xp.expand_dims(left, axis=-1) | xp.expand_dims(right, axis=-2) if rule.matrix else left | right


def _again(backend: Backend, rule: Rule, x: Array, y: Array, aux: tuple[Array, ...], block: Array, bad: Array) -> Array:
    """Compute the marked entries of a block again, pair by pair, a bounded number at a time."""
    xp = backend.xp
    single = make_block(backend, replace(rule, matrix=False), robust=True, tidy=False)
    shape = block.shape
    (flat,) = xp.nonzero(xp.reshape(bad, (-1,)))
    d = x.shape[-1]
    x_lead, y_lead = x.shape[:-1], y.shape[:-1]
    if rule.matrix:
        x_lead, y_lead = (*x_lead, 1), (*y_lead[:-1], 1, y_lead[-1])
    xf, yf = xp.reshape(x, (-1, d)), xp.reshape(y, (-1, d))
    for start in range(0, flat.shape[0], rule.pair_room):
        index = flat[start : min(start + rule.pair_room, flat.shape[0])]
        left, right = xp.take(xf, _source(xp, index, shape, x_lead), axis=0), xp.take(yf, _source(xp, index, shape, y_lead), axis=0)
        block = backend.put(block, index, single(left, right, *aux))
    return block


def _source(xp: Any, index: Array, shape: tuple[int, ...], lead: tuple[int, ...]) -> Array:
    """Flat positions in an input whose leading axes ``lead`` broadcast to ``shape``, from flat positions in ``shape``."""
    lead = (1,) * (len(shape) - len(lead)) + tuple(lead)
    found = xp.zeros_like(index)
    stride = 1
    for size, own in zip(reversed(shape), reversed(lead), strict=True):
        if own != 1:
            found = found + (index % size) * stride
            stride *= own
        index = index // size
    return found


def _squares(backend: Backend, rule: Rule, pieces: Pieces, x: Array, y: Array, aux: tuple[Array, ...]) -> tuple[Array, Array | None]:
    """Distances that come of squared differences by a matrix product, and a mask of those that cancellation spoilt."""
    xp, metric = backend.xp, rule.metric
    w, matrix = split(rule, aux)
    (px, sx), (py, sy) = rows(backend, rule, pieces, x, w), rows(backend, rule, pieces, y, w)
    a, b = px[0], py[0]
    if metric.product != "both":
        # Any point near the data will do, and a mean of infinities will not.
        centre = xp.mean(b, axis=tuple(range(b.ndim - 1)))
        centre = backend.detach(xp.where(xp.isfinite(centre), centre, 0.0))
        a, b = a - centre, b - centre
    left, right = (a, b) if w is None else (a * w, b * w)
    if matrix is not None:
        left, right = xp.matmul(a, matrix), xp.matmul(b, matrix)
        if rule.factored:
            a, b = left, right
        else:
            left = 0.5 * (left + xp.matmul(a, xp.matrix_transpose(matrix)))
    aa = xp.expand_dims(xp.sum(a * left, axis=-1), axis=-1)
    bb = xp.expand_dims(xp.sum(b * right, axis=-1), axis=-2)
    s = xp.matmul(left, xp.matrix_transpose(b))
    s *= -2.0
    few = SPOILT * aa + SPOILT * bb
    if metric.product == "both":
        reduced: tuple[Array, ...] = ((aa + s) + bb, (aa - s) + bb)
        spoilt = ~((reduced[0] >= few) & (reduced[1] >= few))
    else:
        s += aa
        s += bb
        reduced = (s,)
        spoilt = ~((s >= few) & (s < math.inf))
    if rule.fast:
        reduced = tuple(xp.where(r < 0, 0.0, r) for r in reduced)
    else:  # finish must not meet a negative square; these entries are replaced
        reduced = tuple(xp.where(spoilt, 1.0, r) for r in reduced)
    left_stats = tuple(xp.expand_dims(t[..., 0], axis=-1) for t in sx)
    right_stats = tuple(xp.expand_dims(t[..., 0], axis=-2) for t in sy)
    return pieces.finish(reduced, left_stats, right_stats, None), spoilt


def pair_at(xp: Any, k: Array, n: int, device: Any) -> tuple[Array, Array]:
    """Rows (i, j) of the condensed positions k, for n rows; in whole numbers, since a float32 root would be wrong beyond 4000."""
    first = xp.arange(n, dtype=k.dtype, device=device)
    first = first * n - first * (first + 1) // 2
    i = xp.astype(xp.searchsorted(first, k, side="right"), k.dtype) - 1
    return i, k - xp.take(first, i) + i + 1


# --- the walk -----------------------------------------------------------------------------------------------------------


def cut(task: Task, tile: Tile) -> tuple[Array, Array]:
    """The two inputs of one tile."""
    plan, xp = task.plan, task.backend.xp
    y = task.x if task.y is None else task.y
    x_part, y_part = plans.side(plan, tile, task.x.shape, "x"), plans.side(plan, tile, y.shape, "y")
    x_tile = task.x[(*x_part, ...)] if x_part else task.x
    y_tile = x_tile if tile.kind == "diagonal" else y[(*y_part, ...)] if y_part else y
    if task.pairs is not None:
        i, j = (p[slice(*tile.spans[-1])] for p in task.pairs)
        axis = -plan.core - 1
        x_tile, y_tile = xp.take(x_tile, i, axis=axis), xp.take(y_tile, j, axis=axis)
    return x_tile, y_tile


def settle(task: Task, tile: Tile, block: Array) -> Array:
    """Make a block on the diagonal its own mirror image, and exactly 0 on it where the metric is."""
    if tile.kind != "diagonal":
        return block
    xp = task.backend.xp
    n = task.backend.shape(block)[-1]
    i = xp.arange(n, device=task.backend.device(block))
    row, column = xp.expand_dims(i, axis=-1), xp.expand_dims(i, axis=0)
    block = xp.where(row <= column, block, mirror(task, block))
    if task.plan.zero_self:
        block = xp.where((row == column) & ~xp.isnan(block), xp.zeros_like(block), block)
    return block


def mirror(task: Task, block: Array) -> Array:
    """The block of the other triangle."""
    xp = task.backend.xp
    flipped = xp.matrix_transpose(block)
    return xp.conj(flipped) if task.backend.kind(task.backend, block.dtype) == "complex floating" else flipped


def store(task: Task, tile: Tile, block: Array, out: Array) -> None:
    """Write one block where it belongs, in place."""
    plan = task.plan
    if plan.layout == "condensed":
        place, pieces = plans.condensed(plan, tile)
        at = place[-1].start
        for row, column, length in pieces:
            out[(*place[:-1], slice(at, at + length))] = block[..., row, column : column + length]
            at += length
    elif plan.layout == "matrix":
        block = settle(task, tile, block)
        out[plans.whole(tile)] = block
        if tile.kind == "mirror":
            out[plans.mirrored(tile)] = mirror(task, block)
    else:
        out[plans.whole(tile)] = block


def block(plan: Plan, tile: Tile, result: Array, zeros: Callable[[list[int]], Array]) -> Array:
    """A tile's part of what has the result's shape: the reverse of :func:`store`."""
    if plan.layout != "condensed":
        return result[plans.whole(tile)]
    place, pieces = plans.condensed(plan, tile)
    found, at = zeros([b - a for a, b in tile.spans]), place[-1].start
    for row, column, length in pieces:
        found[..., row, column : column + length] = result[(*place[:-1], slice(at, at + length))]
        at += length
    return found


def kept(task: Task, size: int) -> bool:
    """Whether a result of so many bytes is kept for the backward pass: a kernel can use it, and the budget has room."""
    return task.kernel is not None and task.kernel.invertible and size <= task.plan.max_bytes


def known(task: Task, smooth: bool = False) -> Any:
    """The kernel for the numbers of a call, or None: see ``knowing`` of the compiled engine's kernels."""
    if task.kernel is None or task.kernel.special is None:  # nothing to choose: no look at the numbers
        return task.kernel
    host, w = task.backend.host, task.aux[0] if task.rule is not None and task.rule.weighted else None
    x, y = host(task.x), None if task.y is None else host(task.y)
    return task.kernel.knowing(x, x if y is None else y, None if w is None else host(w), smooth)


def run(task: Task, out: Array | None = None) -> Array:
    """The walk of a library with eager arrays that can be written: allocate once, fill tile by tile.

    With several threads the tiles are the same, so the bits are too. Ctrl-C is seen between tiles.
    """
    plan, backend = task.plan, task.backend
    if out is None:
        out = task.out
    if out is None:
        out = backend.xp.empty(plan.shape, dtype=task.dtype, device=backend.device(task.x))

    if not plan.axes:  # two vectors: one number
        out[()] = task.forward(task.x, task.y, *task.aux)
        return out
    kernel = known(task)
    together = plan.threads > 1 and kernel is not None and kernel.alone
    # A plan knows of threads that share a tile, but not that the numbers allow a kernel of this kind.

    def work(tile: Tile) -> None:
        x, y = cut(task, tile)
        if kernel is not None:
            kernel.fill(task, tile, x, y, out)
        else:
            store(task, tile, task.forward(x, y, *task.aux), out)

    todo = plans.tiles(plans.merged(plan) if together and kernel is not task.kernel else plan)
    share(work, todo, 1 if together else plan.threads)
    return out
