"""Dask: a lazy graph that keeps the chunks of the rows; each block is one call of the chunks' own backend.

Nothing is computed, and no value is looked at, before the result is: what depends on values (domains, ranges of indices,
entries to compute again) is checked in the blocks. The budget of a call holds for each block that is being computed, above
that block: it is as large as its chunks of rows make it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

import dask.array as da
import numpy as np
from array_api_compat import array_namespace
from array_api_compat.dask import array as xp
from dask import config
from dask.array.utils import meta_from_array
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.utils import parse_bytes

from pairx import checks, norms
from pairx import plan as plans
from pairx.backend import Backend, find, of_type
from pairx.calls import AS_ASKED, assemble
from pairx.engine import Rule, Task
from pairx_backends.numpy import kind

Array = Any


# --- inputs ---------------------------------------------------------------------------------------------------------------


def coerce(value: Any, name: str) -> Array:
    """A dask.array whose chunks are arrays that pairx takes."""
    if not isinstance(value, da.Array):
        where = f"{type(value).__module__}.{type(value).__qualname__}"
        advice = "pass its values: to_dask_array(lengths=True)" if "dataframe" in where or "_expr" in where else "make it a dask.array"
        raise TypeError(f"{name} is a {where}, not a dask.array; {advice}.")
    of_type(type(value._meta), f"a chunk of {name}").coerce(value._meta, f"a chunk of {name}")
    return value


def asarray(value: Any, like: Array, dtype: Any) -> Array:
    """An auxiliary argument: lazy as it is, or one chunk."""
    found = value if isinstance(value, da.Array) else da.from_array(np.asarray(value, dtype=dtype), chunks=-1)
    return found if dtype is None else found.astype(dtype)


def shape(x: Array) -> tuple[Any, ...]:
    """Sizes that Dask does not know (nan) are lazy numbers."""
    if any(math.isnan(n) for n in x.shape[-1:]):
        raise ValueError(f"A dask.array of shape {x.shape} does not know its number of features: call x.compute_chunk_sizes() first.")
    return tuple(_length(x, axis) if math.isnan(n) else int(n) for axis, n in enumerate(x.shape))


def _length(x: Array, axis: int) -> Array:
    line = x[tuple(slice(None) if k == axis else 0 for k in range(x.ndim))]
    return da.ones_like(line, dtype=np.int64).sum()


class _Linalg:
    """Dask's own want square chunks: small matrices are one chunk here."""

    @staticmethod
    def inv(a: Array) -> Array:
        return a.rechunk(-1).map_blocks(_solved, "inv", dtype=a.dtype, meta=a._meta)

    @staticmethod
    def cholesky(a: Array) -> Array:
        return a.rechunk(-1).map_blocks(_solved, "cholesky", dtype=a.dtype, meta=a._meta)

    @staticmethod
    def solve(a: Array, b: Array) -> Array:
        return da.map_blocks(_solved, a.rechunk(-1), "solve", b.rechunk(-1), dtype=a.dtype, meta=a._meta)

    @staticmethod
    def svdvals(a: Array) -> Array:
        a = _joined(a, 2)
        chunks = (*a.chunks[:-2], (min(a.shape[-2:]),))
        dtype = a.real.dtype
        meta = meta_from_array(a._meta, ndim=a.ndim - 1, dtype=dtype)
        return a.map_blocks(_solved, "svdvals", drop_axis=(a.ndim - 2, a.ndim - 1), new_axis=a.ndim - 2, chunks=chunks, meta=meta)

    def __getattr__(self, name: str) -> Any:
        return getattr(xp.linalg, name)


class _Namespace:
    """Dask's array namespace, with its own linalg."""

    linalg = _Linalg()
    # As dtypes: NumPy's own are classes without a size.
    float16, float32, float64, complex64, complex128 = map(np.dtype, ("float16", "float32", "float64", "complex64", "complex128"))

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)


def _solved(a: Array, how: str, *rest: Array) -> Array:
    return getattr(array_namespace(a).linalg, how)(a, *rest)


# --- one block ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A call on the chunks of one block. It carries all options: context variables do not reach the workers."""

    rule: Rule | None
    key: Any
    """Without a rule: which matrix norm."""
    op: str
    layout: Any
    engine: str | None
    max_bytes: int
    dtype: Any

    def __dask_tokenize__(self) -> Any:
        rule = self.rule
        said = None if rule is None else (
            rule.metric.kind, rule.metric.name, rule.params, rule.compute, rule.matrix, rule.omit, rule.weighted, rule.quadratic,
            rule.factored, rule.fast,
        )  # fmt: skip
        return tokenize(said, self.key, self.op, self.layout, self.engine, self.max_bytes, self.dtype)

    def __call__(self, x: Any, y: Any = None, *aux: Any) -> Array:
        x, y = _one(x), None if y is None else _one(y)
        backend = find(x=x, y=y)
        with plans.options(threads=1):  # the scheduler's threads are enough
            if self.rule is None:
                _, order, exponent = self.key[:3]
                p = exponent if order == "schatten" else None
                return norms.pairwise_matrix_norm(
                    x, y, order, p=p, out_dtype=checks.dtype_name(self.dtype), max_bytes=self.max_bytes, engine=self.engine
                )
            row, other = self.rule.metric, x if y is None else y
            checks.domain(backend, row, x=x, y=y)
            rest = tuple(backend.asarray(_one(a), x, self.rule.compute) for a in aux)
            if self.rule.weighted and row.weights:
                checks.weights(backend, row, rest[0], x, self.rule.compute, x.shape[-1])
            axes: tuple[int, ...]
            if self.layout == "rows":
                axes = checks.broadcast(x.shape[:-1], other.shape[:-1])
            else:
                axes = (*checks.broadcast(x.shape[:-2], other.shape[:-2]), x.shape[-2], other.shape[-2])
            task = assemble(backend, self.rule, self.layout, x, y, rest, axes, op=self.op, engine=self.engine, max_bytes=self.max_bytes)
            return backend.run(task)


def _one(chunk: Any) -> Array:
    """Axes that a block joins are one chunk long: Dask hands over lists of one."""
    while isinstance(chunk, list):
        (chunk,) = chunk
    return chunk


def _mirror(block: Array) -> Array:
    flipped = block.swapaxes(-1, -2)
    return flipped.conj() if block.dtype.kind == "c" else flipped


def _above(row: int, column: int, *blocks: Array) -> Array:
    """What lies above the diagonal, row by row: the blocks stand side by side, their corner at (row, column)."""
    space = array_namespace(*blocks)
    strip = space.concat(blocks, axis=-1)
    rows, columns = strip.shape[-2:]
    here = row + space.arange(rows)[:, None] < column + space.arange(columns)[None, :]
    return strip[..., here]


def _in_range(index: Array, name: str, size: Any) -> Array:
    if index.size and (index.min() < 0 or index.max() >= size):
        raise IndexError(f"pairs: {name} reaches from {index.min()} to {index.max()}, and there are {size} rows (0 to {size - 1}).")
    return index


# --- the graph ------------------------------------------------------------------------------------------------------------


def run(task: Task) -> Array:
    """The lazy result."""
    plan = task.plan
    layout = "rows" if plan.layout in ("rows", "chosen") else "matrix"
    # Unless one was asked for, each chunk takes the engine that its own library has where it is computed.
    engine = plan.engine if plan.reason == AS_ASKED else None
    work = Work(task.rule, task.key, plan.op, layout, engine, plan.max_bytes, task.dtype)
    x, y = _joined(task.x, plan.core), None if task.y is None else _joined(task.y, plan.core)
    aux = tuple(a.rechunk(-1) for a in task.aux)
    if plan.layout == "condensed":
        return _condensed(task, work, x, aux)
    if plan.symmetric:
        return _symmetric(task, work, x, aux)
    if y is None:
        y = x
    if task.pairs is not None:
        x, y = (_taken(a, index, name, plan.core) for a, index, name in zip((x, y), task.pairs, "ij", strict=True))
    return _blockwise(task, work, x, y, aux)


def _joined(a: Array, core: int) -> Array:
    """One chunk along the features."""
    return a.rechunk(dict.fromkeys(range(a.ndim - core, a.ndim), -1)) if max(a.numblocks[a.ndim - core :], default=1) > 1 else a


def _taken(a: Array, index: Array, name: str, core: int) -> Array:
    """Rows ``index``, chunked as the index is."""
    axis = a.ndim - core - 1
    index = index.map_blocks(_in_range, name, a.shape[axis], dtype=index.dtype, meta=index._meta)
    return a[(*(slice(None),) * axis, index)]


def _blockwise(task: Task, work: Work, x: Array, y: Array, aux: tuple[Array, ...]) -> Array:
    """Every block from the chunks of its rows and columns; batch axes of length 1 broadcast."""
    core, pairs = task.plan.core, work.layout == "matrix"
    names = iter(range(1000))
    joined = [next(names) for _ in range(core)]
    row, column = (next(names), next(names)) if pairs else (None, None)
    lead = max(x.ndim, y.ndim) - core - pairs
    batch = [next(names) for _ in range(lead)]

    def index(a: Array, last: int | None) -> list[int]:
        own = a.ndim - core - pairs
        return [*batch[lead - own :], *([last] if last is not None else []), *joined]

    arguments: list[Any] = [x, index(x, row), y, index(y, column)]
    for a in aux:
        arguments += [a, [next(names) for _ in range(a.ndim)]]
    out = [*batch, *([row, column] if pairs else [])]
    return da.blockwise(work, out, *arguments, dtype=task.dtype, meta=_meta(task, len(out)), align_arrays=True)


def _meta(task: Task, ndim: int) -> Any:
    return meta_from_array(task.x._meta, ndim=ndim, dtype=task.dtype)


def _array(task: Task, layer: dict[Any, Any], name: str, chunks: Any, sources: tuple[Array, ...]) -> Array:
    graph = HighLevelGraph.from_collections(name, layer, dependencies=sources)
    return da.Array(graph, name, chunks=chunks, dtype=task.dtype, meta=_meta(task, len(chunks)))


def _keys(task: Task, x: Array, aux: tuple[Array, ...]) -> tuple[Iterator[tuple[int, ...]], Callable[..., Any], list[Any]]:
    """The batch places, the key of a chunk of rows, and the keys of the auxiliary arguments."""
    core = task.plan.core
    batches = product(*map(range, x.numblocks[: x.ndim - core - 1]))
    return batches, lambda batch, i: (x.name, *batch, i, *(0,) * core), [(a.name, *(0,) * a.ndim) for a in aux]


def _symmetric(task: Task, work: Work, x: Array, aux: tuple[Array, ...]) -> Array:
    """One triangle of blocks; the other is its mirror image, bit for bit."""
    name = f"pairx-{task.plan.op}-{tokenize(work, x.name, [a.name for a in aux])}"
    batches, chunk, rest = _keys(task, x, aux)
    axis = x.ndim - task.plan.core - 1
    layer: dict[Any, Any] = {}
    for batch in batches:
        for i in range(x.numblocks[axis]):
            layer[(name, *batch, i, i)] = (work, chunk(batch, i), None, *rest)
            for j in range(i + 1, x.numblocks[axis]):
                layer[(name, *batch, i, j)] = (work, chunk(batch, i), chunk(batch, j), *rest)
                layer[(name, *batch, j, i)] = (_mirror, (name, *batch, i, j))
    rows = x.chunks[axis]
    return _array(task, layer, name, (*x.chunks[:axis], rows, rows), (x, *aux))


def _condensed(task: Task, work: Work, x: Array, aux: tuple[Array, ...]) -> Array:
    """A strip of rows for each chunk of the result: its blocks side by side, and of them what lies above the diagonal."""
    axis = x.ndim - 2
    n = x.shape[axis]
    if math.isnan(n):
        raise ValueError("x has chunks of unknown sizes, and a condensed result needs them: call x.compute_chunk_sizes() first.")
    limit = parse_bytes(config.get("array.chunk-size", "128MiB"))
    batch_size = math.prod(max(c) for c in x.chunks[:axis])
    most = max(1, limit // max(1, n * batch_size * np.dtype(task.dtype).itemsize))
    # Strips are parts of chunks, so that each is cut out of one of them.
    parts = [(k, size) for k, rows in enumerate(x.chunks[axis]) for size in _parts(rows, most)]
    left = x.rechunk({axis: tuple(size for _, size in parts)})
    begins = [0, *accumulate(x.chunks[axis])]
    name = f"pairx-pdist-{tokenize(work, x.name, [a.name for a in aux], parts)}"
    _, right, rest = _keys(task, x, aux)
    batches, strip, _ = _keys(task, left, aux)
    layer: dict[Any, Any] = {}
    lengths = []
    start = 0
    places = list(batches)
    for p, (k, size) in enumerate(parts):
        lengths.append(size * (n - 1 - start) - size * (size - 1) // 2)
        for batch in places:
            blocks = [(f"{name}-block", *batch, p, j) for j in range(k, x.numblocks[axis])]
            for j, block in enumerate(blocks, k):
                layer[block] = (work, strip(batch, p), right(batch, j), *rest)
            layer[(name, *batch, p)] = (_above, start, begins[k], *blocks)
        start += size
    return _array(task, layer, name, (*x.chunks[:axis], tuple(lengths)), (x, left, *aux))


def _parts(rows: int, most: int) -> list[int]:
    return [min(most, rows - a) for a in range(0, rows, most)] or [0]


BACKEND = Backend(
    name="dask",
    xp=_Namespace(),
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: np.dtype(np.float64),
    shape=shape,
    device=lambda x: "cpu",
    traced=lambda *arrays: bool(arrays),
    kind=kind,
    writable=False,
    lazy=True,
)
