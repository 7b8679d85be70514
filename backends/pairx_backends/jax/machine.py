"""The compiled engine in traced calls: three primitives whose program is chosen where JAX knows the platform, at lowering.

*values*, *tangents* (forward mode, linear in the tangents) and *cotangents* (reverse mode, linear in the cotangent) of one
call. On one CPU the values and cotangents are a custom call that walks the tiles in machine code, on XLA's own buffers. On
any other platform, on a mesh, in an exported program, in forward mode and for every derivative of a derivative stands the
loop of the array engine, which JAX differentiates. So no mode is missing, and none is silently zero.

Under ``vmap`` all operands gain leading axes (of size 1 where one is not mapped), and the custom call goes through them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from pairx import calls, engine
from pairx import plan as plans
from pairx.backend import Backend
from pairx.engine import Rule, Task
from pairx.plan import Tile
from pairx_backends.numpy import BACKEND as NUMPY
from pairx_backends.numpy import quiet

from . import foreign

Array = Any
Needed = tuple[bool, ...]

TRACED_FROM = 1 << 20
"""Below so many terms a traced call stays with XLA, unless asked: the custom call costs 0.15 ms, and is even at a quarter of it."""


@dataclass(frozen=True)
class Machine:
    """One call without its arrays; equal ones have the same programs."""

    key: Any
    plan: plans.Plan
    ranks: tuple[int, ...]
    """Axes of x, of y (if there is one), and of the weights (if there are any)."""
    alone: bool
    """One set: there is no y."""
    task: Task = field(compare=False)
    """Without its arrays."""
    array: Callable[..., Array] = field(compare=False)
    """The array engine on the same operands: pure, and differentiable in both modes."""

    def wanted(self, needed: Needed) -> tuple[Needed, bool]:
        """Which sides' cotangents are needed, and whether those of the weights."""
        sides = 1 if self.alone else 2
        return needed[:sides], any(needed[sides:])

    def __repr__(self) -> str:
        return f"{self.plan.op}:{self.plan.metric}"

    @property
    def text(self) -> str:
        """For the custom call: the same in each process, since XLA may keep a program on disk; and no two share it."""
        said = repr((self.key, self.plan, self.ranks, self.alone))
        return hashlib.sha256(said.encode()).hexdigest()


def refused(rule: Rule, tensors: tuple[Array, ...], asked: bool) -> str | None:
    """Why a traced call does not take the compiled engine, or None."""
    if any(not isinstance(n, int) for t in tensors for n in t.shape):
        return "sizes are unknown while tracing"
    if any(_spread(t) for t in tensors):
        return "the arrays lie on a mesh of devices"
    if asked:
        return None
    if jax.default_backend() != "cpu":
        return "a traced call may end on another device"
    x, *rest = tensors
    y = rest[0] if len(rest) > rule.weighted else x
    if prod(x.shape[:-1]) * prod(y.shape[:-1]) * x.shape[-1] <= TRACED_FROM:
        return "so small a call stays with its neighbours"
    return None


def _spread(a: Array) -> bool:
    """Whether a traced array says that it is part of a mesh: under explicit sharding, and in ``shard_map``."""
    mesh = getattr(getattr(getattr(a, "aval", None), "sharding", None), "mesh", None)
    return mesh is not None and not mesh.empty


@partial(jax.jit, static_argnums=0)
def run(machine: Machine, *operands: Array) -> Array:
    """The result of a traced call."""
    return _values.bind(*operands, machine=machine)[0]


# --- on the host ----------------------------------------------------------------------------------------------------------


def _hosted(machine: Machine, operands: Sequence[Array]) -> Task:
    x, *rest = operands
    y = None if machine.alone else rest.pop(0)
    return replace(machine.task, backend=NUMPY, x=x, y=y, aux=tuple(rest))


def _each(arrays: Sequence[Array], ranks: Sequence[int]) -> Any:
    """The arrays at each place of the axes that ``vmap`` has added."""
    lead = np.broadcast_shapes(*(a.shape[: a.ndim - r] for a, r in zip(arrays, ranks, strict=True)))
    for place in np.ndindex(*lead):
        yield [a[tuple(0 if n == 1 else p for p, n in zip(place, a.shape, strict=False))] for a in arrays]


def _fill(machine: Machine, arguments: list[Array], results: list[Array]) -> None:
    """The walk of the compiled engine, into XLA's buffer."""
    with quiet():
        for *operands, out in _each([*arguments, *results], [*machine.ranks, len(machine.plan.shape)]):
            engine.run(_hosted(machine, operands), out)


def _pull(machine: Machine, needed: Needed, arguments: list[Array], results: list[Array]) -> None:
    """Cotangents of the prepared rows, tile by tile; the last result tells whether the array engine must take over."""
    *totals, odd = results
    for result in results:
        result[...] = 0
    sides, weight = machine.wanted(needed)
    panels = len(machine.task.kernel.definition.x)
    ranks = [r for r, side in zip(machine.ranks, sides, strict=False) if side for _ in range(panels)] + [1] * weight
    with quiet():
        for arrays in _each([*arguments, *totals], [*machine.ranks, len(machine.plan.shape), *ranks]):
            *operands, g = arrays[: len(arguments)]
            found = arrays[len(arguments) :]
            task = _hosted(machine, operands)
            task = replace(task, kernel=engine.known(task, smooth=True))
            w = task.aux[0] if task.aux else None
            gx, *other = [[found.pop(0) for _ in range(panels)] if side else [] for side in sides]
            gy = gx if machine.alone else other[0]
            gw = found.pop(0) if weight else None
            for tile in plans.tiles(task.plan, grad=True):
                if not _pull_tile(task, tile, g, w, gx, gy, gw):
                    odd[...] = 1
                    return


def _pull_tile(task: Task, tile: Tile, g: Array, w: Array | None, gx: list[Array], gy: list[Array], gw: Array | None) -> bool:
    plan, kernel = task.plan, task.kernel
    x, y = engine.cut(task, tile)
    xs, _ = kernel.rows(x, w)
    ys, _ = kernel.rows(y, w)
    found = kernel.pull(xs, ys, w, _cotangent(plan, tile, g, kernel.dtype), (bool(gx), bool(gy), gw is not None), plan.threads)
    if found is None:
        return False
    for which, totals, parts in (("x", gx, found[0]), ("y", gy, found[1])):
        for total, part in zip(totals, parts, strict=False):
            total[plans.side(plan, tile, total.shape, which)] += part  # type: ignore[arg-type]
    if gw is not None and found[2] is not None:
        gw += found[2]
    return True


def _cotangent(plan: plans.Plan, tile: Tile, g: Array, dtype: Any) -> Array:
    """What a tile's block is to be pulled back with: the reverse of :func:`pairx.engine.store`."""
    if plan.layout == "condensed":
        place, pieces = plans.condensed(plan, tile)
        found, at = np.zeros([b - a for a, b in tile.spans], dtype), place[-1].start
        for row, column, length in pieces:
            found[..., row, column : column + length] = g[(*place[:-1], slice(at, at + length))]
            at += length
        return found
    found = g[plans.whole(tile)].astype(dtype)
    if tile.kind == "mirror":
        found += np.swapaxes(g[plans.mirrored(tile)], -1, -2)
    elif tile.kind == "diagonal" and plan.zero_self:
        i = np.arange(found.shape[-1])
        found[..., i, i] = 0
    return found


# --- in XLA ---------------------------------------------------------------------------------------------------------------


def _mapped(function: Callable[..., Any], operands: Sequence[Array], ranks: Sequence[int]) -> Any:
    """``function`` of operands of these ranks at each place of the axes that ``vmap`` has added."""
    if operands[0].ndim == ranks[0]:
        return function(*operands)
    size = max(a.shape[0] for a in operands)
    inside = partial(_mapped_tail, function, ranks)
    if size == 1:
        return jax.tree.map(lambda a: a[None], inside(*(a[0] for a in operands)))
    axes = [None if a.shape[0] == 1 else 0 for a in operands]
    return jax.vmap(inside, axes)(*(a[0] if a.shape[0] == 1 else a for a in operands))


def _mapped_tail(function: Callable[..., Any], ranks: Sequence[int], *operands: Array) -> Any:
    return _mapped(function, operands, ranks)


def _some(needed: Needed, values: Sequence[Any]) -> list[Any]:
    return [v for v, n in zip(values, needed, strict=True) if n]


def _among(machine: Machine, needed: Needed, operands: Sequence[Array]) -> tuple[Callable[..., Array], list[Array]]:
    """The array engine as a function of the operands that are ``needed``, and these."""

    def function(*some: Array) -> Array:
        rest = iter(some)
        return machine.array(*(next(rest) if n else o for o, n in zip(operands, needed, strict=True)))

    return function, _some(needed, operands)


def _array_values(*operands: Array, machine: Machine) -> Array:
    return _mapped(machine.array, operands, machine.ranks)


def _array_tangents(*arrays: Array, machine: Machine, needed: Needed) -> Array:
    count = len(machine.ranks)

    def push(*arrays: Array) -> Array:
        function, own = _among(machine, needed, arrays[:count])
        return jax.jvp(function, own, list(arrays[count:]))[1]

    return _mapped(push, arrays, [*machine.ranks, *_some(needed, machine.ranks)])


def _array_cotangents(*arrays: Array, machine: Machine, needed: Needed) -> list[Array]:
    def pull(*arrays: Array) -> list[Array]:
        *operands, g = arrays
        function, own = _among(machine, needed, operands)
        return list(jax.vjp(function, *own)[1](g))

    return list(_mapped(pull, arrays, [*machine.ranks, len(machine.plan.shape)]))


def _host_values(*operands: Array, machine: Machine) -> Array:
    (result,) = _values_shape(*operands, machine=machine)
    return foreign.call(machine.text, partial(_fill, machine), [result], *operands)[0]


def _host_cotangents(*arrays: Array, machine: Machine, needed: Needed) -> list[Array]:
    task, kernel, ranks = machine.task, machine.task.kernel, machine.ranks
    if not kernel.differentiable:
        return _array_cotangents(*arrays, machine=machine, needed=needed)
    sides, weight = machine.wanted(needed)
    weighted = len(sides) < len(ranks)
    shapes = _cotangents_shape(*arrays, machine=machine, needed=needed)
    lead = shapes[0].shape[: len(shapes[0].shape) - _some(needed, ranks)[0]]
    panels = len(kernel.definition.x)
    prepare = partial(kernel.panels, task.backend) if kernel.prepared else None

    wanted = []
    for operand, rank, side in zip(arrays, ranks, sides, strict=False):
        own = operand.shape[operand.ndim - rank :]
        if side and prepare is None:
            wanted.append(jax.ShapeDtypeStruct((*lead, *own), kernel.dtype))
        elif side:
            w = jax.ShapeDtypeStruct(own[-1:], kernel.dtype) if weighted else None
            made = jax.eval_shape(prepare, jax.ShapeDtypeStruct(own, operand.dtype), w)
            wanted += [jax.ShapeDtypeStruct((*lead, *p.shape), p.dtype) for p in made]
    if weight:
        wanted.append(jax.ShapeDtypeStruct((*lead, arrays[len(ranks) - 1].shape[-1]), kernel.dtype))
    wanted.append(jax.ShapeDtypeStruct(lead, np.int32))
    text = f"{machine.text} {''.join('01'[n] for n in needed)}"
    *found, odd = foreign.call(text, partial(_pull, machine, needed), wanted, *arrays)

    def gathered(*parts: Array) -> list[Array]:
        """From the cotangents of the prepared rows to those of the operands: JAX's own derivative of the preparation."""
        rest = list(parts)
        operands = [rest.pop(0) for _ in ranks]
        w = operands[-1] if weighted else None
        totals: list[Any] = [None] * len(ranks)
        for k, side in enumerate(sides):
            if side:
                own = [rest.pop(0) for _ in range(panels)]
                totals[k], more = (own[0], None) if prepare is None else _unprepared(machine, prepare, operands[k], w, own)
                if more is not None:
                    totals[-1] = more if totals[-1] is None else totals[-1] + more
        if weight:
            direct = rest.pop(0)
            totals[-1] = direct if totals[-1] is None else totals[-1] + direct
        return [t.astype(o.dtype) for t, o in zip(_some(needed, totals), _some(needed, operands), strict=True)]

    own_ranks = [r for r, side in zip(ranks, sides, strict=False) if side for _ in range(panels)] + [1] * weight
    result = list(_mapped(gathered, [*arrays[:-1], *found], [*ranks, *own_ranks]))
    if kernel.row.scale not in ("difference", "pair", "term"):
        return result
    # A distance overflowed or underflowed on the way: the array engine's scaled form is differentiated.
    return list(lax.cond(jnp.any(odd != 0), lambda r: _array_cotangents(*arrays, machine=machine, needed=needed), lambda r: r, result))


def _unprepared(machine: Machine, prepare: Any, x: Array, w: Array | None, cotangents: list[Array]) -> tuple[Array, Array | None]:
    """Through the preparation, some rows at a time, so that the budget holds."""
    d = x.shape[-1]
    rows = [jnp.reshape(a, (-1, a.shape[-1])) for a in (x, *cotangents)]
    each = 12 * d * machine.task.kernel.dtype.itemsize
    size = max(1, machine.plan.max_bytes // 2 // max(1, each))

    def back(w: Array | None, parts: list[Array]) -> tuple[Array, Array | None]:
        x, *cotangents = parts
        found = jax.vjp(prepare, x, w)[1](cotangents)
        return found[0], None if w is None else found[1]

    if rows[0].shape[0] <= size:
        gx, gw = back(w, rows)
    else:
        gx, gw = lax.map(lambda parts: back(w, [p[None] for p in parts]), rows, batch_size=size)
        gw = None if gw is None else jnp.sum(gw, axis=0)
    return jnp.reshape(gx, x.shape), gw


# --- primitives -----------------------------------------------------------------------------------------------------------


def _lead(arrays: Sequence[Any], ranks: Sequence[int]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(a.shape[: len(a.shape) - r] for a, r in zip(arrays, ranks, strict=True)))


def _shaped(shape: Sequence[int], dtype: Any) -> Any:
    return jax.core.ShapedArray(tuple(shape), np.dtype(dtype))


def _values_shape(*operands: Any, machine: Machine) -> list[Any]:
    return [_shaped((*_lead(operands, machine.ranks), *machine.plan.shape), machine.task.dtype)]


def _tangents_shape(*arrays: Any, machine: Machine, needed: Needed) -> list[Any]:
    ranks = [*machine.ranks, *_some(needed, machine.ranks)]
    return [_shaped((*_lead(arrays, ranks), *machine.plan.shape), machine.task.dtype)]


def _cotangents_shape(*arrays: Any, machine: Machine, needed: Needed) -> list[Any]:
    lead = _lead(arrays, [*machine.ranks, len(machine.plan.shape)])
    return [_shaped((*lead, *o.shape[len(o.shape) - r :]), o.dtype) for o, r, n in zip(arrays, machine.ranks, needed, strict=False) if n]


def _alone(ctx: Any) -> bool:
    """Whether a program is for one CPU of this process: not for a mesh, nor to be exported."""
    module = ctx.module_context
    devices = getattr(getattr(module, "axis_context", None), "num_devices", None)
    exported = getattr(getattr(module, "lowering_parameters", None), "for_export", True)
    return devices == 1 and not exported


def _primitive(name: str, shapes: Callable[..., list[Any]], array: Callable[..., Any], host: Callable[..., Any] | None) -> Any:
    """With its batching, and lowered by the array engine; on one CPU by ``host``."""
    found = Primitive(f"pairx_{name}")
    found.multiple_results = True

    def listed(function: Callable[..., Any]) -> Callable[..., list[Array]]:
        def call(*arrays: Array, **params: Any) -> list[Array]:
            made = function(*arrays, **params)
            return list(made) if isinstance(made, (list, tuple)) else [made]

        return call

    def evaluate(*arrays: Array, **params: Any) -> Any:
        with jax.disable_jit(False):
            return jax.jit(partial(found.bind, **params))(*arrays)

    def batch(arrays: Sequence[Array], axes: Sequence[Any], **params: Any) -> Any:
        moved = [a[None] if k is None else jnp.moveaxis(a, k, 0) for a, k in zip(arrays, axes, strict=True)]
        results = found.bind(*moved, **params)
        return results, [0] * len(results)

    def lower_host(ctx: Any, *arrays: Any, **params: Any) -> Any:
        chosen = host if host is not None and _alone(ctx) else array
        return mlir.lower_fun(listed(chosen), multiple_results=True)(ctx, *arrays, **params)

    found.def_impl(evaluate)
    found.def_abstract_eval(shapes)
    batching.primitive_batchers[found] = batch
    mlir.register_lowering(found, mlir.lower_fun(listed(array), multiple_results=True))
    if host is not None:
        mlir.register_lowering(found, lower_host, platform="cpu")
    return found


_values = _primitive("values", _values_shape, _array_values, _host_values)
_tangents = _primitive("tangents", _tangents_shape, _array_tangents, None)
_cotangents = _primitive("cotangents", _cotangents_shape, _array_cotangents, _host_cotangents)


def _known(tangent: Any) -> bool:
    return not isinstance(tangent, ad.Zero)


def _values_jvp(primals: Sequence[Array], tangents: Sequence[Any], machine: Machine) -> Any:
    needed = tuple(map(_known, tangents))
    return _values.bind(*primals, machine=machine), _tangents.bind(*primals, *_some(needed, tangents), machine=machine, needed=needed)


def _by_array(primitive: Any, array: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of forward mode: the derivative is that of the array engine's operations."""

    def rule(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> Any:
        moving = tuple(map(_known, tangents))

        def function(*some: Array) -> list[Array]:
            rest = iter(some)
            made = array(*(next(rest) if m else p for p, m in zip(primals, moving, strict=True)), **params)
            return list(made) if isinstance(made, (list, tuple)) else [made]

        return primitive.bind(*primals, **params), jax.jvp(function, _some(moving, primals), _some(moving, tangents))[1]

    return rule


def _summed(a: Array, aval: Any) -> Array:
    """Over the mapped axes that an operand has not: where it has size 1 there."""
    over = tuple(k for k, (n, m) in enumerate(zip(a.shape, aval.shape, strict=True)) if n != m)
    return jnp.sum(a, axis=over, keepdims=True) if over else a


def _tangents_transpose(cotangents: Sequence[Any], *arrays: Any, machine: Machine, needed: Needed) -> Any:
    """From the transpose of the tangents: the cotangents of those that are asked for."""
    count = len(machine.ranks)
    operands, linear = arrays[:count], arrays[count:]
    rest = iter(linear)
    asked = tuple(n and ad.is_undefined_primal(next(rest)) for n in needed)
    (g,) = cotangents
    if not _known(g):
        return [None] * len(arrays)
    found = iter(_cotangents.bind(*operands, g, machine=machine, needed=asked))
    return [None] * count + [_summed(next(found), t.aval) if ad.is_undefined_primal(t) else None for t in linear]


def _cotangents_transpose(tangents: Sequence[Any], *arrays: Any, machine: Machine, needed: Needed) -> Any:
    *operands, g = arrays
    given = tuple(map(_known, tangents))
    if not any(given):
        return [None] * len(arrays)
    known = iter(given)
    asked = tuple(n and next(known) for n in needed)
    (found,) = _tangents.bind(*operands, *_some(given, tangents), machine=machine, needed=asked)
    return [None] * len(operands) + [_summed(found, g.aval)]


ad.primitive_jvps[_values] = _values_jvp
ad.primitive_jvps[_tangents] = _by_array(_tangents, _array_tangents)
ad.primitive_jvps[_cotangents] = _by_array(_cotangents, _array_cotangents)
ad.primitive_transposes[_tangents] = _tangents_transpose
ad.primitive_transposes[_cotangents] = _cotangents_transpose


# --- from a task ----------------------------------------------------------------------------------------------------------


def array_task(backend: Backend, task: Task) -> Task:
    """The same call for the array engine, within the budget where one pair fits into it."""
    rule, plan = task.rule, task.plan
    assert rule is not None
    size = backend.itemsize(rule.compute)
    cost = calls.costs(rule, "array", plan.axes, task.x.shape[-1], size, True)
    one = (1,) * len(plan.axes)
    least = max(c.of(one, plan.layout) for c in cost if c is not None)
    return calls.assemble(
        backend, rule, plan.layout, task.x, task.y, task.aux, plan.axes,
        op=plan.op, engine="array", max_bytes=max(plan.max_bytes, least), allocates=False,
    )  # fmt: skip
