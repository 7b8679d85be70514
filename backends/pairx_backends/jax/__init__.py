"""JAX: one jitted loop over tiles of one size, that jit, vmap and both modes of differentiation pass through.

The loop carries the result and writes each block in place. The backward pass computes the tiles again instead of keeping
them (``jax.checkpoint``), and forward mode and second order work since no rule is written by hand but the derivative of
that write: see ``_linear``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pairx import calls, engine
from pairx import plan as plans
from pairx.backend import Backend
from pairx.checks import HALF, dtype_name
from pairx.engine import Rule, Task
from pairx.plan import Tile
from pairx_backends.numpy import BACKEND as NUMPY
from pairx_backends.numpy import aligned, quiet

from .blocks import blocksum, blockwise

try:  # a hint that saves time in eager calls, for which JAX has no public name
    from jax._src.core import trace_state_clean as _clean
except ImportError:

    def _clean() -> bool:
        return False


Array = Any
Starts = tuple[Any, ...]


def _wide() -> bool:
    return bool(jax.config.jax_enable_x64)


def _there(dtype: Any) -> Any:
    """A dtype; 64 bits exist with x64 only, and JAX by itself would cut them to 32."""
    dtype = np.dtype(dtype)
    if not _wide() and dtype.name in ("float64", "complex128"):
        raise TypeError(f"out_dtype={dtype.name}: JAX has 32 bits only, unless jax.config.update('jax_enable_x64', True) comes first.")
    return dtype


@jax.custom_jvp  # type: ignore[untyped-decorator]
def _divide(a: Array, b: Array) -> Array:
    return jnp.divide(a, b)


@_divide.defjvp  # type: ignore[untyped-decorator]
def _divide_jvp(primals: Any, tangents: Any) -> Any:
    """JAX's own rule divides by b * b, which overflows and underflows where the quotient is ordinary."""
    (a, b), (da, db) = primals, tangents
    q = jnp.divide(a, b)
    return q, jnp.divide(da, b) - q * jnp.divide(db, b)


def _abs(x: Array) -> Array:
    """With slope 0 at 0, where JAX's own has 1."""
    return jnp.where(x == 0, jnp.zeros_like(jnp.real(x)), jnp.abs(x))


class _Namespace:
    """jax.numpy, whose products keep every digit whatever precision the user chose for their own."""

    matmul = staticmethod(partial(jnp.matmul, precision="highest"))
    tensordot = staticmethod(partial(jnp.tensordot, precision="highest"))
    vecdot = staticmethod(partial(jnp.vecdot, precision="highest"))
    divide = staticmethod(_divide)
    abs = staticmethod(_abs)
    # As dtypes: jax.numpy's own are classes without a name or a size.
    float16, bfloat16, float32, float64 = (np.dtype(t) for t in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64))
    complex64, complex128 = np.dtype(np.complex64), np.dtype(np.complex128)

    @property
    def int64(self) -> Any:
        """The widest integer there is: int32 without x64."""
        return np.dtype(np.int64 if _wide() else np.int32)

    def result_type(self, *values: Any) -> Any:
        """The common dtype of arrays and dtypes."""
        return jnp.result_type(*(v if isinstance(v, jax.Array) else _there(v) for v in values))

    def __getattr__(self, name: str) -> Any:
        found = getattr(jnp, name)
        setattr(self, name, found)
        return found


# --- inputs ---------------------------------------------------------------------------------------------------------------


def coerce(value: Any, name: str) -> Array:
    """A jax.Array, concrete or traced."""
    if not isinstance(value, jax.Array):
        kind = type(value)
        if kind.__module__.startswith("jax.experimental.sparse"):
            advice = f"sparse arrays are not supported: pass {name}.todense()"
        elif kind is jax.ShapeDtypeStruct:
            advice = "it has no values: take jax.eval_shape of a function that calls pairx"
        else:
            advice = f"pass jax.numpy.asarray({name})"
        raise TypeError(f"{name} is a {kind.__module__}.{kind.__qualname__}, not a jax.Array; {advice}.")
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name} holds random keys, not numbers: pass jax.random.key_data({name}) if that is meant.")
    return value


def asarray(value: Any, like: Array, dtype: Any) -> Array:
    """An auxiliary argument; left uncommitted, so that it follows the arrays to their device."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
        if not _wide() and value.dtype.kind in "iu" and value.dtype.itemsize == 8:
            value = np.clip(value, -(2**31), 2**31 - 1).astype(np.int32)  # out of range stays out of range
    return jnp.asarray(value, dtype=dtype)


def traced(*arrays: Array) -> bool:
    """Under jit, vmap or grad; under jit what is done to constants is traced, too."""
    return any(isinstance(a, jax.core.Tracer) for a in arrays) or (not _clean() and isinstance(lax.neg(np.float32(0)), jax.core.Tracer))


def device(x: Array) -> Any:
    """A device or, of an array on several, its mesh; None while tracing."""
    if traced(x):
        return None
    found = x.device
    if isinstance(found, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(found.mesh, jax.sharding.PartitionSpec())
    return found


def free_bytes(found: Any) -> int | None:
    """What an accelerator has left; unknown for the CPU and for several devices."""
    stats = found.memory_stats() if isinstance(found, jax.Device) else None
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"] - stats["bytes_in_use"])


def kind(backend: Backend, dtype: Any) -> str:
    """Floats of 8 bits and less have no digits to compute with; random keys are no numbers."""
    for name in ("bool", "integral", "real floating", "complex floating"):
        if jnp.isdtype(dtype, name):
            return name if name == "bool" or "float" not in name or np.dtype(dtype).itemsize > 1 else "other"
    return "other"


def itemsize(dtype: Any) -> int:
    """Bytes of one number."""
    return int(_there(dtype).itemsize)


# --- the walk -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """What the compiled loop depends on beside shapes and dtypes; equal walks compile once."""

    key: Hashable
    axes: tuple[Any, ...]
    tile: tuple[int, ...]
    layout: str
    core: int
    folded: bool
    """Only tiles on and above the diagonal."""
    wide: bool
    """Half precision: carry float32, and cast at the end."""
    task: Task = field(compare=False)
    """Without its arrays."""
    block: Callable[..., Array] = field(compare=False)


def run(task: Task) -> Array:
    """Plan -> result. A second call with equal shapes and arguments finds the compiled loop."""
    plan = task.plan
    if 0 in plan.shape or 0 in plan.axes:
        return jnp.zeros(plan.shape, dtype=task.dtype, device=device(task.x))
    tensors = tuple(a for a in (task.x, task.y, *task.aux) if a is not None)
    if task.kernel is not None:
        return _traced_machine_code(task, tensors) if traced(*tensors) else _in_machine_code(task)
    walk = _walk_of(task, tensors)
    compiled = _compiled if walk.key is not None else jax.jit(_walk, static_argnums=0)
    return compiled(walk, task.x, task.y, task.aux, task.pairs)


def _walk_of(task: Task, tensors: tuple[Array, ...]) -> Walk:
    plan = task.plan
    known = plan.blocks is not None
    if known and not _wide() and max((*plan.shape, *(math.prod(t.shape[: t.ndim - plan.core]) for t in tensors)), default=0) >= 2**31:
        raise ValueError(
            f"A result of shape {plan.shape} needs indices above 2**31: jax.config.update('jax_enable_x64', True), or work on slices."
        )
    # Nobody can know whether a gradient comes, and one loop serves both passes: then its tiles are those of the backward.
    tile = plan.grad_tile if traced(*tensors) else plan.tile
    if plan.layout == "condensed" and known:
        tile = _square(task, traced(*tensors))
    bare = replace(task, x=None, y=None, aux=(), out=None, pairs=None)
    folded = plan.symmetric or plan.layout == "condensed"
    return Walk(_key(task), plan.axes, tile if known else plan.axes, plan.layout, plan.core, folded, _room(task, tensors), bare, task.block)


@cache
def _one_processor() -> bool:
    return [d.platform for d in jax.devices()] == ["cpu"]


def unwatched(*arrays: Array) -> bool:
    """Whether these are concrete arrays on the only device, and nothing is traced."""
    return _one_processor() and not traced(*arrays)


def host(a: Array) -> Any:
    """A concrete array's memory as NumPy's, where a processor is the only device."""
    return np.asarray(a) if _one_processor() else a


def guest(a: Any) -> Array:
    """A NumPy array as one of JAX on the processor; that is no transfer, which a user may have forbidden."""
    return jnp.from_dlpack(a) if a.size and (_wide() or a.itemsize < 8) else jnp.asarray(a)


def compiler(rule: Rule, tensors: tuple[Array, ...], asked: bool) -> Any:
    """Of the compiled engine, for arrays on one processor and for traced calls that will end there."""
    x = tensors[0]
    if traced(*tensors):
        from . import foreign

        if not foreign.available():
            return "in a traced call it needs JAX 0.5"
        from . import machine

        why = machine.refused(rule, tensors, asked)
        if why:
            return why
    elif not isinstance(x.device, jax.Device) or x.device.platform != "cpu":
        return f"the arrays are on {x.device}"
    from pairx_backends import compiled

    return compiled.compiler(rule)


def product(rule: Rule, tensors: tuple[Array, ...]) -> Any:
    """A matrix product of arrays on one processor, on views as NumPy has it, and machine code after it."""
    where = tensors[0].device
    if not isinstance(where, jax.Device) or where.platform != "cpu":
        return f"the arrays are on {where}"
    from pairx_backends import numpy

    return numpy.product(rule, tensors)


def _in_machine_code(task: Task) -> Array:
    """The walk of the compiled engine on the arrays' own memory, into a buffer that becomes the result without a copy."""
    y = None if task.y is None else np.asarray(task.y)
    host = replace(task, backend=NUMPY, x=np.asarray(task.x), y=y, aux=tuple(np.asarray(a) for a in task.aux))
    out = aligned(task.plan.shape, task.dtype)
    with quiet():
        engine.run(host, out)
    if out.dtype.name == "bfloat16":  # dlpack of NumPy does not know it
        return jnp.asarray(out)
    return jax.device_put(jnp.from_dlpack(out), task.x.device)


def _traced_machine_code(task: Task, tensors: tuple[Array, ...]) -> Array:
    """The compiled engine in a traced call, beside the array engine for other platforms and for derivatives of derivatives."""
    from . import machine

    other = machine.array_task(BACKEND, task)
    walk = _walk_of(other, tensors)
    alone = task.y is None

    def array(x: Array, *rest: Array) -> Array:
        return _walk(walk, x, None if alone else rest[0], rest[0 if alone else 1 :], None)

    bare = replace(task, x=None, y=None, aux=(), out=None, pairs=None)
    return machine.run(machine.Machine(_key(task), task.plan, tuple(t.ndim for t in tensors), alone, bare, array), *tensors)


def _key(task: Task) -> Hashable:
    """What ``task.block`` depends on: it is a new closure in each call."""
    plan, rule = task.plan, task.rule
    if rule is None:
        return None if task.key is None else (task.key, plan.metric, plan.zero_self, plan.engine)
    row = rule.metric
    return (
        row.kind, row.name, row.define, tuple(sorted(rule.params.items())), dtype_name(rule.compute), dtype_name(rule.answer),
        rule.matrix, rule.omit, rule.weighted, rule.varied, rule.quadratic, rule.factored, rule.fast, plan.engine, plan.zero_self,
    )  # fmt: skip


def _room(task: Task, tensors: tuple[Array, ...]) -> bool:
    """Whether a result in half precision, and the gradients, may be carried in float32 within the budget.

    Otherwise each block is cast, gradients add up in half precision, and XLA is slow to write bfloat16 on a CPU.
    """
    if dtype_name(task.dtype) not in HALF or task.plan.blocks in (None, 1):
        return False
    need = 4 * (math.prod(task.plan.shape) + sum(t.size for t in tensors)) * (2 if traced(*tensors) else 1)
    return bool(need + (task.plan.scratch_bytes or 0) <= task.plan.max_bytes)


def _square(task: Task, grad: bool) -> tuple[int, ...]:
    """Square tiles for a condensed result: each of their rows is one contiguous piece of it."""
    plan, rule = task.plan, task.rule
    assert rule is not None
    cost, grad_cost = calls.costs(rule, plan.engine, plan.axes, task.x.shape[-1], itemsize(rule.compute), grad)
    cost = grad_cost or cost
    one = cost.of((1,) * len(plan.axes), "matrix")
    tile = plans.fit(plan.axes, cost, "matrix", max(one, min(plan.max_bytes, TILE_BYTES)))
    return (*tile[:-2], *(max(1, math.isqrt(tile[-2] * tile[-1])),) * 2)


def _walk(walk: Walk, x: Array, y: Array | None, aux: tuple[Array, ...], pairs: tuple[Array, Array] | None) -> Array:
    """All tiles, the last of each axis overlapping the one before, so that one size serves all."""
    y = x if y is None else y
    if walk.layout == "condensed" and walk.axes[-1] == 2:  # one pair: shorter than a tile's row
        return walk.block(x[..., :1, :], x[..., 1:, :], *aux)[..., 0]
    counts = tuple(-(-a // t) for a, t in zip(walk.axes, walk.tile, strict=True))
    if math.prod(counts) == 1 and walk.layout != "condensed":
        block = _block(walk, x, y, aux, pairs, (0,) * len(counts))
        return engine.settle(walk.task, Tile((), "diagonal"), block) if walk.folded else block
    tiles = math.prod(counts[:-2]) * (counts[-1] * (counts[-1] + 1) // 2) if walk.folded else math.prod(counts)

    def step(out: Array, x: Array, y: Array, aux: Any, pairs: Any, t: Array) -> Array:
        places = _fold(t, counts) if walk.folded else _unravel(t, counts)
        starts = tuple(
            0 if count == 1 else jnp.minimum(p * size, axis - size)
            for p, size, axis, count in zip(places, walk.tile, walk.axes, counts, strict=True)
        )
        block = _block(walk, x, y, aux, pairs, starts).astype(out.dtype)
        # Which entries no earlier tile of its axis has.
        own = [start + jnp.arange(size) >= p * size for start, p, size in zip(starts, places, walk.tile, strict=True)]
        if walk.layout == "condensed":
            return _write_rows(walk, out, block, starts, own)
        mine = _outer(own)
        if not walk.folded:
            return _write(out, block, mine, starts)
        # The last column of tiles overlaps its neighbour's mirror image: its tile on the diagonal comes last and mends it.
        same = places[-1] == places[-2]
        block = jnp.where(same, engine.settle(walk.task, Tile((), "diagonal"), block), block)
        out = _write(out, block, mine, starts)
        flipped = (*starts[:-2], starts[-1], starts[-2])
        return _write(out, engine.mirror(walk.task, block), jnp.matrix_transpose(mine) & ~same, flipped)

    # Kept for the backward: the number of the tile. The result is linear in what was written before, so it needs none of it.
    step = jax.checkpoint(step, prevent_cse=False)
    if walk.wide:
        x, y = (a.astype(jnp.float32) if dtype_name(a.dtype) in HALF else a for a in (x, y))
    out = jnp.zeros(walk.task.plan.shape, dtype=jnp.float32 if walk.wide else walk.task.dtype)
    return lax.fori_loop(0, tiles, lambda t, out: step(out, x, y, aux, pairs, t), out).astype(walk.task.dtype)


_compiled = jax.jit(_walk, static_argnums=0)


def _unravel(t: Array, counts: tuple[int, ...]) -> Starts:
    places: list[Any] = []
    for count in reversed(counts):
        places.append(t % count if count > 1 else 0)
        t = t // count
    return tuple(reversed(places))


def _fold(t: Array, counts: tuple[int, ...]) -> Starts:
    """Place of tile t among those on and above the diagonal, batch by batch.

    A column k of the triangle has k + 1 tiles, so the columns k and K - 1 - k (or K - 2 - k where K is odd and the last
    stands alone) fill one row of a rectangle: no list of places is needed. The diagonal ends each column.
    """
    k = counts[-1]
    odd = k % 2
    width = k + 1 - odd
    batch, p = t // (k * (k + 1) // 2), t % (k * (k + 1) // 2)
    r, c = p // width, p % width
    first = c < k - r
    row, column = jnp.where(first, c, c - (k - r)), jnp.where(first, k - 1 - r, r - odd)
    return (*_unravel(batch, counts[:-2]), row, column)


def _block(walk: Walk, x: Array, y: Array, aux: Any, pairs: Any, starts: Starts) -> Array:
    """The tile that begins at ``starts``."""
    if walk.layout in ("matrix", "condensed"):
        left, right = (*starts[:-2], starts[-2]), (*starts[:-2], starts[-1])
        x_size, y_size = (*walk.tile[:-2], walk.tile[-2]), (*walk.tile[:-2], walk.tile[-1])
        return walk.block(_cut(x, walk.core, left, x_size), _cut(y, walk.core, right, y_size), *aux)
    if walk.layout == "rows":
        return walk.block(_cut(x, walk.core, starts, walk.tile), _cut(y, walk.core, starts, walk.tile), *aux)
    i, j = (_cut(p, 0, starts[-1:], walk.tile[-1:]) for p in pairs)
    block = walk.block(_gather(walk, x, i, starts), _gather(walk, y, j, starts), *aux)
    m, n = x.shape[-walk.core - 1], y.shape[-walk.core - 1]
    # Out of range is an IndexError where values can be seen; a tracer's are not, and must not take a neighbour's row.
    return jnp.where((i >= 0) & (i < m) & (j >= 0) & (j < n), block, jnp.nan)


def _cut(a: Array, core: int, starts: Starts, sizes: tuple[int, ...]) -> Array:
    """A tile of an input; its axes of length 1, and those it has not, broadcast."""
    lead = a.ndim - core
    starts, sizes = starts[len(starts) - lead :], sizes[len(sizes) - lead :]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if a.shape[axis] not in (1, size):
            a = lax.dynamic_slice_in_dim(a, start, size, axis)
    return a


def _gather(walk: Walk, a: Array, index: Array, starts: Starts) -> Array:
    """Rows ``index`` of each batch of a tile, straight from the whole input: a cut batch would hold all its rows."""
    *lead, m = a.shape[: a.ndim - walk.core]
    row = jnp.clip(index, 0, m - 1)
    step = m
    for k in range(len(lead) - 1, -1, -1):  # from the last batch axis outwards: an axis of places for each
        at = k - len(lead)  # among the batch axes, from the end
        place = starts[:-1][at] + jnp.arange(walk.tile[:-1][at]) if lead[k] != 1 else jnp.zeros(1, dtype=int)
        row = jnp.reshape(place * step, (-1, *(1,) * (-at))) + row
        step *= lead[k]
    return jnp.take(jnp.reshape(a, (-1, *a.shape[a.ndim - walk.core :])), row, axis=0, mode="clip")


# --- writing --------------------------------------------------------------------------------------------------------------


def _overwrite(out: Array, block: Array, mine: Array, starts: Starts) -> Array:
    """``out`` with a block at ``starts``, in place inside the loop."""
    return lax.dynamic_update_slice(out, block, starts)


def _overlay(out: Array, block: Array, mine: Array, starts: Starts) -> Array:
    """The same, and entries that are not ``mine`` stay as they are."""
    return lax.dynamic_update_slice(out, jnp.where(mine, block, lax.dynamic_slice(out, starts, block.shape)), starts)


def _linear(write: Callable[..., Array]) -> Any:
    """With a derivative that adds what is ``mine`` to zeros, since no entry is written twice then.

    The transpose of adding hands the cotangent on unchanged, while that of overwriting must clear it: a copy of the whole
    result for each tile.
    """

    def derivative(primals: Any, tangents: Any) -> Any:
        _, _, mine, starts = primals
        return found(*primals), _add(tangents[0], jnp.where(mine, tangents[1], 0), starts)

    found = jax.custom_jvp(write)
    found.defjvp(derivative)
    return found


_write, _merge = _linear(_overwrite), _linear(_overlay)


def _add(out: Array, block: Array, starts: Starts) -> Array:
    axes = tuple(range(out.ndim))
    return lax.scatter_add(
        out,
        jnp.stack([jnp.asarray(s) for s in starts]),
        block,
        lax.ScatterDimensionNumbers(update_window_dims=axes, inserted_window_dims=(), scatter_dims_to_operand_dims=axes),
        indices_are_sorted=True,
        unique_indices=True,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def _write_rows(walk: Walk, out: Array, block: Array, starts: Starts, own: list[Array]) -> Array:
    """Each row i of a block into a condensed result, where its columns j > i lie side by side."""
    n = walk.axes[-1]
    *batch, row, column = starts
    i, j = row + jnp.arange(walk.tile[-2]), column + jnp.arange(walk.tile[-1])
    mine = _outer(own) & (i[:, None] < j[None, :])
    # Of the pair (i, column). Halve whichever factor is even first, so that 32 bits reach as far as the result does.
    half = jnp.where(i % 2 == 0, i // 2 * (2 * n - i - 1), (2 * n - i - 1) // 2 * i)
    at = half + (column - i - 1)
    early = at < 0  # the pair (0, 0) would stand before the first place: shift that row by one
    block = jnp.where(early[:, None], jnp.roll(block, -1, axis=-1), block)
    mine = jnp.where(early[:, None], jnp.roll(mine, -1, axis=-1), mine)
    at = jnp.where(early, 0, at)

    def step(out: Array, each: Any) -> tuple[Array, None]:
        values, here, start = each
        return _merge(out, values, here, (*batch, start)), None

    return lax.scan(step, out, (jnp.moveaxis(block, -2, 0), jnp.moveaxis(mine, -2, 0), at))[0]


def _outer(own: list[Array]) -> Array:
    """One mask of several axes from one for each."""
    mine = own[0]
    for axis in own[1:]:
        mine = mine[..., None] & axis
    return mine


def uniform(rng: Any, shape: tuple[Any, ...], like: Array, dtype: Any) -> Array | None:
    """Of a key."""
    return jax.random.uniform(rng, shape, dtype) if isinstance(rng, jax.Array) else None


TILE_BYTES = (4 if jax.default_backend() == "cpu" else 64) << 20
"""Measured on a CPU; an accelerator needs many pairs at once to be busy."""

BACKEND = Backend(
    name="jax",
    xp=_Namespace(),
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: np.dtype(np.float64 if _wide() else np.float32),
    device=device,
    traced=traced,
    differentiated=traced,
    detach=lax.stop_gradient,
    kind=kind,
    itemsize=itemsize,
    put=lambda block, index, values: block.reshape(-1).at[index].set(values).reshape(block.shape),
    free_bytes=free_bytes,
    tile_bytes=TILE_BYTES,
    devices=lambda: tuple(str(d) for d in jax.devices()),
    writable=False,
    compiler=compiler,
    product=product,
    host=host,
    guest=guest,
    unwatched=unwatched,
    substitutes=True,
    blockwise=blockwise,
    blocksum=blocksum,
    uniform=uniform,
    along=lambda x, index: jnp.take_along_axis(x, index, axis=-1, mode="clip"),
    repairs=False,
)
