"""From the arguments of a call to a task: parameters, dtypes, weights, and the plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from . import checks
from . import plan as plans
from .backend import Backend, trace_constant
from .engine import Rule, Task, make_block, make_forward
from .memory import free_ram
from .metrics import METRICS, Metric, resolve
from .plan import Cost, Layout

Array = Any

AS_ASKED = "as asked"
"""The reason for an engine that the caller chose."""
_ASKED: ContextVar[bool] = ContextVar("pairx_explain", default=False)


@trace_constant
def asked() -> bool:
    """Inside :func:`pairx.explain`: the plan is the answer, and nothing is computed."""
    return _ASKED.get()


@contextmanager
def asking() -> Iterator[None]:
    """Make the calls inside answer their plans."""
    token = _ASKED.set(True)
    try:
        yield
    finally:
        _ASKED.reset(token)


@dataclass(frozen=True)
class Call:
    """The arguments that cdist, pdist, paired and gram share."""

    op: str
    out: Array | None
    w: Any
    out_dtype: Any
    zero: str
    nan_policy: str
    max_bytes: int | str | None
    engine: str | None
    precision: str | None
    params: dict[str, Any]

    def task(
        self, backend: Backend, row: Metric, layout: Layout, x: Array, y: Array | None, axes: tuple[Any, ...], pairs: Any = None
    ) -> Task:
        """Check everything that can be checked, decide, and return what is to be run."""
        plans.choice("zero", self.zero, ("finite", "scipy"))
        plans.choice("nan_policy", self.nan_policy, ("propagate", "omit", "raise"))
        engine = self.engine if self.engine is not None else plans.current().engine
        plans.choice("engine", engine, (None, *plans.ENGINES))
        precision = self.precision if self.precision is not None else plans.current().precision or "exact"
        plans.choice("precision", precision, ("exact", "fast"))
        checks.same_device(backend, x=x, y=y)
        compute, answer = checks.dtypes(backend, row, self.out_dtype, x=x, y=y)
        d = backend.shape(x)[-1]
        if row.domain == "latlon" and isinstance(d, int) and d != 2:
            raise ValueError(f"x has {d} features: metric {row.name!r} takes (latitude, longitude) in radians.")
        if not asked():
            checks.domain(backend, row, x=x, y=y)
        omit = row.name == "nan_euclidean" or self.nan_policy == "omit"
        if omit and not row.omit:
            raise ValueError(f"nan_policy='omit': metric {row.name!r} does not look at features one by one; fill the gaps first.")
        if self.nan_policy == "raise":
            checks.no_nan(backend, x=x, y=y)
        w = None if self.w is None else checks.weights(backend, row, self.w, x, compute, d)
        own = w
        with backend.quiet():
            params, w, form, factored = parameters(self, backend, row, x, y, w, compute, d)
        row, params = resolve(row, params)
        varied = omit and w is not own
        if varied and own is None:
            own = backend.xp.ones_like(w)
        aux = tuple(a for a in (w, own if varied else None, form) if a is not None)
        rule = Rule(
            row, params, compute, answer, layout in ("matrix", "condensed"), omit, w is not None, form is not None, factored, varied,
            precision == "fast",
        )  # fmt: skip
        return assemble(
            backend, rule, layout, x, y, aux, axes, pairs=pairs, out=self.out, engine=engine, max_bytes=self.max_bytes, op=self.op
        )


def parameters(
    call: Call, backend: Backend, row: Metric, x: Array, y: Array | None, w: Array | None, compute: Any, d: Any
) -> tuple[dict[str, Any], Array | None, Array | None, bool]:
    """The metric's parameters, checked, with defaults; its weights; its quadratic form, and whether that is a factor."""
    given = {k: v for k, v in call.params.items() if v is not None}
    known = {k: v for k, v in row.defaults.items() if k != "zero"}
    for name in given:
        if name not in known:
            takes = ", ".join([*sorted(known), *(["w"] if row.weights else [])]) or "none"
            noun = "metric" if row.kind == "distance" else row.kind
            raise TypeError(f"{name}: {noun} {row.name!r} has no such parameter; it takes: {takes}.")
    params = {**known, **given}
    if "zero" in row.defaults and call.zero == "scipy":
        params["zero"] = math.nan
    form, factored = None, False
    if "p" in params:
        params["p"] = checks.number("p", params["p"], positive=True)
    if "base" in params and params["base"] is not None:
        params["base"] = checks.number("base", params["base"], positive=True, zero_ok=False)
        if params["base"] == 1:
            raise ValueError("base=1: logarithms to base 1 do not exist.")
    if "normalize" in params and not isinstance(params["normalize"], bool):
        raise TypeError(f"normalize={params['normalize']!r}: expected True or False.")
    for name in ("degree", "coef0", "gamma"):
        if name in params and params[name] is not None:
            params[name] = checks.number(name, params[name])
    if "gamma" in params and params["gamma"] is None:
        params["gamma"] = 1.0 / max(d, 1) if isinstance(d, int) or not hasattr(d, "dtype") else 1.0 / backend.xp.astype(d, compute)
    if "V" in params:
        v = params.pop("V")
        v = spread_of(backend, x, y, compute, d, False, call.nan_policy == "omit") if v is None else backend.asarray(v, x, compute)
        if isinstance(d, int) and (len(backend.shape(v)) != 1 or any(isinstance(n, int) and n != d for n in backend.shape(v))):
            raise ValueError(f"V has shape {checks.shown(backend.shape(v))}: expected the variance of each feature, shape ({d},).")
        xp = backend.xp
        inverse = 1.0 / v if call.zero == "scipy" else xp.where(v == 0, 0.0, 1.0 / xp.where(v == 0, 1.0, v))
        w = inverse if w is None else w * inverse
    if "VI" in params:
        inverse, cov = params.pop("VI"), params.pop("cov")
        form, factored = quadratic(backend, x, y, inverse, cov, compute, d)
    return params, w, form, factored


def spread_of(backend: Backend, x: Array, y: Array | None, compute: Any, d: Any, covariance: bool, omit: bool = False) -> Array:
    """Variance of each feature, or their covariance, over the rows of both sets (ddof = 1), in pieces; ``omit`` leaves NaN out."""
    xp = backend.xp
    name = "VI" if covariance else "V"
    if len(backend.shape(x)) > 2 or (y is not None and len(backend.shape(y)) > 2):
        raise ValueError(f"{name}=None is estimated from two axes (n, d); x has shape {checks.shown(backend.shape(x))}: pass {name}.")
    sets = [s for s in (x, y) if s is not None]
    sizes = [backend.shape(s)[0] for s in sets]
    if asked():
        return xp.zeros((d, d) if covariance else (d,), dtype=compute, device=backend.device(x))
    if len(backend.shape(x)) < 2:
        raise ValueError(f"{name}=None cannot be estimated from one row: pass {name}.")
    known = all(isinstance(n, int) for n in sizes)
    count: Any = sum(sizes)
    if known and covariance and count <= d:
        raise ValueError(f"VI=None: {count} rows cannot give the covariance of {d} features (they must be more); pass VI or cov.")
    step = max(1, (1 << 17) // max(1, d)) if known and isinstance(d, int) and not backend.traced(x) and backend.name != "dask" else None

    def pieces() -> Iterator[Array]:
        for s, n in zip(sets, sizes, strict=True):
            for i in range(0, n, step or n) if step else (None,):
                yield xp.astype(s if i is None else s[i : min(i + (step or n), n), :], compute)

    scale: Any = float(count) if known else xp.astype(count, compute)
    if omit:
        known, scale = False, sum(xp.sum(xp.astype(~xp.isnan(piece), compute), axis=0) for piece in pieces())
    mean: Any = xp.zeros((d,), dtype=compute, device=backend.device(x))
    for piece in pieces():
        if omit:
            piece = xp.where(xp.isnan(piece), 0.0, piece)
        mean = mean + xp.sum(piece, axis=0) / (max(scale, 1.0) if known else scale)
    result: Any = xp.zeros((d, d) if covariance else (d,), dtype=compute, device=backend.device(x))
    for piece in pieces():
        piece = piece - mean
        if omit:
            piece = xp.where(xp.isnan(piece), 0.0, piece)
        result = result + (xp.matmul(xp.matrix_transpose(piece), piece) if covariance else xp.sum(piece * piece, axis=0))
    return result / (max(scale - 1.0, 1.0) if known else xp.maximum(scale - 1.0, xp.ones_like(scale)))


def quadratic(backend: Backend, x: Array, y: Array | None, inverse: Any, cov: Any, compute: Any, d: Any) -> tuple[Array, bool]:
    """VI as given or estimated, or a factor A of it from ``cov``, so that the form is |(x - y) A|^2."""
    xp = backend.xp
    if inverse is not None and cov is not None:
        raise TypeError("VI and cov say the same thing: pass one of them.")
    for name, value in (("VI", inverse), ("cov", cov)):
        if value is None:
            continue
        found = backend.asarray(value, x, compute)
        shape = backend.shape(found)
        if len(shape) != 2 or (isinstance(d, int) and any(isinstance(n, int) and n != d for n in shape)):
            raise ValueError(f"{name} has shape {checks.shown(shape)}: expected ({d}, {d}).")
        if name == "VI":
            return found, False
        if asked():
            return found, True
        try:
            lower = xp.linalg.cholesky(found)
            eye = xp.eye(d, dtype=compute, device=backend.device(x))
            return xp.matrix_transpose(xp.linalg.solve(lower, eye)), True
        except Exception as error:
            raise ValueError("cov: expected a symmetric positive definite matrix; its Cholesky factor does not exist.") from error
    found = spread_of(backend, x, y, compute, d, True)
    return (found if asked() else xp.linalg.inv(found)), False


def assemble(
    backend: Backend,
    rule: Rule,
    layout: Layout,
    x: Array,
    y: Array | None,
    aux: tuple[Array, ...],
    axes: tuple[Any, ...],
    *,
    op: str,
    pairs: Any = None,
    out: Array | None = None,
    engine: str | None = None,
    max_bytes: int | str | None = None,
    allocates: bool = True,
) -> Task:
    """The task of a call whose arguments are checked: engine, costs, plan."""
    row = rule.metric
    if layout == "condensed":
        n = axes[-1]
        shape: tuple[Any, ...] = (*axes[:-2], n * (n - 1) // 2)
    else:
        shape = axes
    tensors = tuple(a for a in (x, y, *aux) if a is not None)
    traced = backend.traced(*tensors)
    grad = backend.differentiated(*tensors)
    chosen, reason, kernel = choose(backend, rule, engine, traced, grad, tensors, axes)
    size = backend.itemsize(rule.compute)
    cost, grad_cost = costs(rule, chosen, axes, backend.shape(x)[-1], size, grad)
    if kernel is not None and engine is None:
        least = plans.smallest(axes, layout, cost, grad_cost)
        if least > plans.allowance(max_bytes)[1]:  # what a budget is enough for must not depend on what is compiled already
            other, why = uncompiled(backend, rule, engine, traced, x)
            found = costs(rule, other, axes, backend.shape(x)[-1], size, grad)
            if plans.smallest(axes, layout, *found) < least:
                (chosen, reason, kernel), (cost, grad_cost) = (other, why, None), found
    if chosen == "native" and rule.matrix and row.product == "dot" and not (traced or grad) and math.prod(axes) >= FINISH_FROM:
        found = backend.product(rule, tensors)
        if not isinstance(found, str) and (found.ready() or math.prod(axes) >= COMPILE_FROM // 8):
            kernel, reason = found, f"{reason}; the rest in machine code"
            in_place = layout == "matrix" and out is None and rule.answer == rule.compute
            cost = following(rule, in_place, backend.shape(x)[-1], size)
    notes = tuple(n for n in (backend.lowered(x),) if n)
    d = backend.shape(x)[-1]
    symmetric = y is None and pairs is None and row.symmetric and layout == "matrix"
    plan = plans.make(
        axes=axes,
        shape=shape,
        layout=layout,
        cost=cost,
        grad_cost=grad_cost,
        itemsize=backend.itemsize(rule.answer),
        max_bytes=max_bytes,
        # Values have the same bits for any tile; sums of gradients do not, so their tiles must not depend on the threads.
        tile_bytes=max(PRODUCT_BYTES, backend.tile_bytes)
        if chosen == "native"
        else of_thread(kernel.tile_bytes, max_bytes, symmetric)
        if kernel is not None
        else backend.tile_bytes,
        grad_bytes=kernel.grad_bytes if kernel is not None else None if row.product == "dot" else backend.tile_bytes,
        free=lambda: backend.free_bytes(backend.device(x)) or free_ram(),
        allocates=allocates and out is None and not backend.lazy,
        threads=plans.thread_count() if chosen == "compiled" or (backend.threads and chosen == "array") else 1,
        features=d if isinstance(d, int) else 0,
        tiled=not (traced and backend.whole),
        op=op,
        metric=row.name,
        backend=backend.name,
        device=str(backend.device(x)) if not traced else "a traced device",
        engine=chosen,
        reason=reason,
        dtype=checks.dtype_name(rule.answer),
        symmetric=symmetric,
        zero_self=row.zero_self and not rule.omit,
        notes=notes,
    )
    if chosen == "native" and kernel is not None:
        plan = replace(plan, threads=plans.thread_count())  # which share one tile after the other
    limit = min(plan.max_bytes, backend.tile_bytes)
    each = (row.buffers + 4) * size * (d if isinstance(d, int) else 1024) + 64
    rule = replace(rule, pair_room=max(1, limit // 2 // each))
    if out is not None:
        out = checks.output(backend, out, shape, rule.answer, x=x, y=y)
    block = make_block(backend, rule, chosen, robust=True)
    forward = make_forward(backend, rule, chosen)
    return Task(plan, backend, x, y, aux, block, forward, rule.answer, out, pairs, rule, kernel=kernel)


def of_thread(tile_bytes: int, max_bytes: int | str | None, symmetric: bool) -> int:
    """Scratch of a tile of the compiled engine, of which each thread has one.

    Large tiles pack less; but of one set there are few tiles, and those on the diagonal are half of the work of others.
    """
    threads = plans.thread_count()
    least = max(tile_bytes // threads, 1 << 20)
    return least if symmetric else max(least, min(tile_bytes, plans.allowance(max_bytes)[1] // threads))


def choose(
    backend: Backend, rule: Rule, engine: str | None, traced: bool, grad: bool, tensors: tuple[Array, ...], axes: tuple[Any, ...]
) -> tuple[str, str, Any]:
    """The engine of a call, why, and its kernels if it is the compiled one."""
    kernel: Any = "row by row there is nothing to gain"
    if rule.matrix and engine in (None, "compiled"):
        kernel = backend.compiler(rule, tensors, engine == "compiled")
    if grad and not (traced or backend.substitutes) and not isinstance(kernel, str) and not kernel.differentiable:
        kernel = f"metric {rule.metric.name!r} has no compiled gradient"
    if engine == "compiled":
        if isinstance(kernel, str):
            raise ValueError(f"engine='compiled': {kernel}; leave engine away.")
        return "compiled", AS_ASKED, kernel
    if engine is None and not isinstance(kernel, str):
        d = backend.shape(tensors[0])[-1]
        # Traced, there are no products to choose.
        wanted = rule.metric.product is None or grad or (traced and not rule.fast) or d < kernel.product_from
        if wanted and (kernel.ready() or math.prod(axes) * max(d, 1) > COMPILE_FROM):
            return "compiled", "differences in machine code" + ("" if kernel.ready() else ", compiled at this call"), kernel
    return (*uncompiled(backend, rule, engine, traced, tensors[0]), None)


def engines(backend: Backend, row: Metric, x: Array) -> tuple[str, ...]:
    """The engines of a metric that there are for an eager array: of its own, without those that need what is missing here."""
    single = backend.xp.result_type(backend.xp.float32)
    probe = Rule(METRICS["sqeuclidean"], {}, single, single, True)
    compiled = not isinstance(backend.compiler(probe, (x,), False), str)
    return tuple(e for e in row.engines if e != "compiled" or compiled)


COMPILE_FROM = 1 << 21
"""Below so many terms a call does not wait for the compiler; and the array engine takes about as long as compiling."""
FINISH_FROM = 1 << 15
"""From so many pairs on machine code after a product saves more than it takes to call it."""
PRODUCT_BYTES = 32 << 20
"""Scratch of a tile of the native engine: its rows are prepared for each tile again, which is little only where it has many pairs."""


def uncompiled(backend: Backend, rule: Rule, engine: str | None, traced: bool, x: Array) -> tuple[str, str]:
    """The array or the native engine, and why."""
    product = rule.metric.product
    traced = (traced and not backend.lazy) or not backend.repairs  # lazy: each chunk's own backend looks at its values
    if engine == "native" and (product is None or not rule.matrix or rule.omit):
        why = "has no matrix product" if product is None else "row by row has none" if not rule.matrix else "with gaps has none"
        raise ValueError(f"engine='native': metric {rule.metric.name!r} {why}; leave engine away, or take engine='array'.")
    if engine == "native" and traced and product != "dot" and not rule.fast:
        return "array", "native was asked for, but cancellation cannot be looked for while tracing: differences"
    if engine is not None:
        return engine, AS_ASKED
    if product is None or rule.omit or not rule.matrix:
        return "array", "the metric is a sum over features" if rule.metric.reduce == "sum" else "the metric is a maximum over features"
    if (digits := backend.lowered(x)) is not None:
        return "array", digits
    if product == "dot":
        return "native", "a plain matrix product, nothing cancels"
    if rule.fast:
        return "native", "precision='fast': a matrix product, with its cancellation"
    if traced:
        return "array", "traced or compiled as a whole: cancellation cannot be looked for, so differences"
    d = backend.shape(x)[-1]
    if isinstance(d, int) and d < 8:
        return "array", f"{d} features: differences are as fast as a product"
    return "native", "a matrix product; entries that cancellation spoils are computed again by differences"


def costs(rule: Rule, engine: str, axes: tuple[Any, ...], d: Any, size: int, grad: bool) -> tuple[Cost, Cost | None]:
    """Scratch bytes for each pair and each row of a tile, forward and backward."""
    d = d if isinstance(d, int) else 1 if engine == "compiled" else 1024  # compiled: planned again when it runs
    row = rule.metric
    answer = 2 * size
    prepared = d * size * 5 + 64
    robust = 3 if row.scale in ("difference", "pair", "term") else 0
    omitted = 4 if rule.omit else 0
    weighted = (4 if row.domain == "boolean" else 1) if rule.weighted else 0  # each count is a term of its own then
    broadcast = d * (size * (row.buffers + omitted + weighted) + 2) + 8 * size
    if engine == "compiled":
        # Both sides in the computing dtype, one of them packed; a block where the result cannot be written in place.
        forward = Cost(2 * size, d * size * (8 if row.scale == "row" or row.name in ("kl_divergence", "haversine") else 3) + 64)
        return forward, Cost(5 * size, 10 * d * size + 64) if grad else None
    if engine == "native" and rule.matrix:
        # The product, its mask, and (for squares) the flat positions of the entries to repair.
        pair = 6 * size + 2 + (0 if row.product == "dot" or rule.fast else 40)
        if row.domain == "boolean":
            pair += 6 * size
        forward = Cost(pair + answer, prepared)
        dot = row.product == "dot" or rule.fast
        backward = Cost(12 * size + answer, 2 * prepared) if dot else Cost(2 * broadcast + 4 * d * size + answer, 2 * prepared)
    else:
        forward = Cost(broadcast + answer + (24 if robust else 0), prepared)
        backward = Cost(2 * broadcast + (4 + 2 * robust) * d * size + answer, 2 * prepared)
    return forward, backward if grad else None


def following(rule: Rule, in_place: bool, d: int, size: int) -> Cost:
    """Scratch bytes of the native engine with machine code after its products: some rows of these, and the prepared rows."""
    counts = rule.metric.domain == "boolean"
    several = counts and rule.weighted
    product = 8 * size if several else 4 if counts or not in_place else 1  # in place the distances take over its memory
    return Cost(product + (0 if in_place else 2 * size), (6 if several else 3) * d * size + 64)
