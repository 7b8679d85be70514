"""The compiled engine as two operators of torch, for calls that are traced or transformed: ``pairx::values`` and ``pairx::pull``.

An operator stands in a graph as one node, whatever traced it: ``torch.compile``, ``torch.export``, ``torch.func``. It is told its
rule as a text, decides its tiles when it runs, and keeps to ``max_bytes`` like an eager call. On a device without compiled code, or
in a process without a compiler, it walks tiles of the array engine.

Derivatives: that of ``values`` is ``pull``, that of ``pull`` the array engine's formula. Forward mode takes the formula at once, since a
tangent would be lost in machine code. Both stand in the kernel that the dispatcher calls for autograd, which is where each level
of ``torch.func`` asks, too; ``torch.library.register_autograd`` knows neither those levels nor tangents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch

from pairx import calls
from pairx import plan as plans
from pairx.backend import Backend, load, trace_constant
from pairx.checks import dtype_name
from pairx.engine import Rule, Task
from pairx.metrics import lookup
from pairx.plan import Layout

from .gradient import direct, dual, pull, walk

_NEEDED = ("_AutoDispatchBelowAutograd", "_ForceDispatchKeyGuard", "_after_autograd_keyset")
AVAILABLE = all(hasattr(torch._C, name) for name in _NEEDED) and hasattr(torch.library, "register_vmap")
"""Whether this release of torch lets an operator bring derivatives for every level of ``torch.func``: 2.5 and later."""


# --- which rules have one -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operator:
    """Stands for :class:`pairx_backends.compiled.Kernel` while a call is traced."""

    spec: str
    numbers: list[float]
    """The metric's parameters that are numbers: in a graph they may be symbols."""
    differentiable: bool
    tile_bytes: int = 16 << 20
    grad_bytes: int = 16 << 20

    def ready(self) -> bool:
        """Whether it is taken at any size: a compiled graph has waited for a compiler already."""
        return torch.compiler.is_compiling() or bool(machine_code(_rule(self.spec, self.numbers), (), False).ready())


SMALL = 1 << 18
"""Terms of a call that a graph computes faster by a loop of its own, if it knows the sizes: an operator costs a tenth of a millisecond."""


def _small(x: Any, *rest: Any) -> bool:
    y = rest[0] if rest and rest[0].ndim > 1 else x
    terms = max(x.numel() * y.shape[-2], y.numel() * x.shape[-2])
    # Of symbols nothing is known, and nothing is guarded. A tracer has imported this; to import it above takes every process half a second.
    return bool(torch.fx.experimental.symbolic_shapes.statically_known_true(terms <= SMALL))


def kernel(rule: Rule, tensors: tuple[Any, ...], asked: bool) -> Operator | str:
    """The operator of a rule, or why it has none. Runs inside torch.compile's tracer: constants in, constants out."""
    if torch.compiler.is_compiling() and not asked and _small(*tensors):
        return "a call as small as this is one loop of the compiled graph"
    if not AVAILABLE:
        return f"torch {torch.__version__} cannot differentiate an operator at every level"
    if forward_mode():
        return "forward-mode derivatives pass through the operations of the array engine"
    if rule.varied or rule.quadratic:
        return f"metric {rule.metric.name!r} is not compiled"
    names = tuple([k for k, v in rule.params.items() if isinstance(v, float)])
    others = tuple([(k, v) for k, v in rule.params.items() if not isinstance(v, float)])
    compute, answer = dtype_name(rule.compute), dtype_name(rule.answer)
    spec = describe(rule.metric.kind, rule.metric.name, names, others, compute, answer, rule.omit, rule.weighted)
    why = refusal(spec)
    return why if why else Operator(spec, [rule.params[k] for k in names], smooth(spec))


@trace_constant
def forward_mode() -> bool:
    """Whether a forward-mode derivative is being taken here, by torch.func or by dual tensors."""
    return bool(torch.autograd.forward_ad._current_level >= 0)


@trace_constant
def describe(
    kind: str, name: str, numbers: tuple[str, ...], others: tuple[Any, ...], compute: str, answer: str, omit: bool, weighted: bool
) -> str:
    """A rule as a text, all but the numbers among its parameters: what a graph keeps of it."""
    return json.dumps([kind, name, numbers, dict(others), compute, answer, omit, weighted])


@lru_cache(256)
def _read(spec: str) -> tuple[Rule, list[str]]:
    kind, name, numbers, others, compute, answer, omit, weighted = json.loads(spec)
    return Rule(lookup(name, kind), others, getattr(torch, compute), getattr(torch, answer), True, omit, weighted), numbers


def _rule(spec: str, numbers: list[float] | None = None) -> Rule:
    """From its text; without numbers any will do, to ask what does not depend on them."""
    rule, names = _read(spec)
    values = dict.fromkeys(names, 3.0) if numbers is None else dict(zip(names, numbers, strict=True))
    return replace(rule, params={**rule.params, **values})


@trace_constant
def refusal(spec: str) -> str:
    """Why a rule has no compiled code, or an empty text."""
    found = machine_code(_rule(spec), (), False)
    return found if isinstance(found, str) else ""


@trace_constant
def smooth(spec: str) -> bool:
    """Whether there is a compiled gradient."""
    return bool(machine_code(_rule(spec), (), False).differentiable)


# --- running ------------------------------------------------------------------------------------------------------------


def call(task: Task) -> Any:
    """The values of a traced call."""
    w = task.aux[0] if task.aux else None
    plan, operator = task.plan, task.kernel
    return torch.ops.pairx.values.default(task.x, task.y, w, operator.spec, operator.numbers, plan.layout == "condensed", plan.max_bytes)


def machine_code(rule: Rule, tensors: tuple[Any, ...], asked: bool) -> Any:
    """The compiled engine's kernels for tensors that are there."""
    if any(t.device.type != "cpu" for t in tensors):
        return "the tensors are elsewhere"
    from pairx_backends import compiled

    return compiled.compiler(rule)


def _never(*tensors: Any) -> bool:
    return False


def _always(*tensors: Any) -> bool:
    return True


@cache
def _inside(grad: bool) -> Backend:
    """The backend inside an operator: the tensors are there, and their gradient is asked for or not."""
    return replace(load("torch"), traced=_never, differentiated=_always if grad else _never, compiler=machine_code)


_PLANNED: dict[Any, Task] = {}
"""Tasks without their tensors: an operator meets the same sizes again and again."""


def _task(
    backend: Backend, engine: str | None, x: Any, y: Any, w: Any, spec: str, numbers: list[float], condensed: bool, room: int
) -> Task:
    aux = () if w is None else (w,)
    key = None
    if engine is None:
        other = None if y is None else (y.shape, y.dtype)
        options = plans.current(), plans.thread_count()
        key = (id(backend), spec, tuple(numbers), condensed, room, x.shape, x.dtype, x.device, other, w is None, options)
        if key in _PLANNED:
            return replace(_PLANNED[key], x=x, y=y, aux=aux)
    rule = _rule(spec, numbers)
    if engine is None:
        found = machine_code(rule, (x,), False)
        engine = "array" if isinstance(found, str) or (backend.differentiated(x) and not found.differentiable) else "compiled"
    layout: Layout = "condensed" if condensed else "matrix"
    task = calls.assemble(backend, rule, layout, x, y, aux, _axes(x, y), op="cdist", engine=engine, max_bytes=room)
    if key is not None and (task.plan.result_bytes or 0) < 1 << 26:  # a large one asks each time what memory is left
        if len(_PLANNED) >= 1024:
            _PLANNED.clear()
        _PLANNED[key] = replace(task, x=None, y=None, aux=())
    return task


def _axes(x: Any, y: Any) -> tuple[Any, ...]:
    other = x if y is None else y
    return (*torch.broadcast_shapes(x.shape[:-2], other.shape[:-2]), x.shape[-2], other.shape[-2])


def _formula(x: Any, y: Any, w: Any, *rest: Any) -> Any:
    """The values by ordinary operations."""
    return direct(_task(load("torch"), "array", x, y, w, *rest), x, y, *(() if w is None else (w,)))


def _pullback(g: Any, x: Any, y: Any, w: Any, *rest: Any) -> tuple[Any, ...]:
    """The gradients by ordinary operations, which may be differentiated again."""
    *settings, needed = rest
    given = [x, y, w]
    wanted = [k for k, need in enumerate(needed) if need]

    def values(*chosen: Any) -> Any:
        all_three = list(given)
        for k, t in zip(wanted, chosen, strict=True):
            all_three[k] = t
        return _formula(*all_three, *settings)

    _, back = torch.func.vjp(values, *(given[k] for k in wanted))
    found: tuple[Any, ...] = back(g)
    return found


def _no_tangents(*args: Any) -> Any:
    raise NotImplementedError(
        "pairx::pull stands in a graph that was traced already, and a tangent would be lost in it: take the forward-mode derivative "
        "(torch.func.jvp, jacfwd, hessian) of the function that calls pairx, and trace that."
    )


def _values_here(x: Any, y: Any, w: Any, *rest: Any) -> Any:
    with torch.no_grad():
        return walk(_task(_inside(False), None, x, y, w, *rest))


def _pull_here(g: Any, x: Any, y: Any, w: Any, *rest: Any) -> list[Any]:
    *settings, needed = rest
    task = _task(_inside(True), None, x, y, w, *settings)
    with _recording(), torch.no_grad():
        found = pull(task, x, y, task.aux, g, tuple(needed[: 2 + len(task.aux)]))
    return [t for t, need in zip(found, needed, strict=False) if need]


@contextmanager
def _recording() -> Iterator[None]:
    """Autograd inside an operator, which the dispatcher runs below it: rows are prepared by operations of the library."""
    outside = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.ADInplaceOrView):
        outside = outside.remove(key)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), outside):
        yield


# --- derivatives --------------------------------------------------------------------------------------------------------


def _below(op: Any, keyset: Any, *args: Any) -> Any:
    """What the dispatcher does after autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


@contextmanager
def _outer_levels() -> Iterator[None]:
    """Inside the function of one level: those around it record for themselves."""
    with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True):
        yield


class _Values(torch.autograd.function._SingleLevelFunction):  # type: ignore[misc]
    """One level of reverse mode; the dispatcher comes here once for each."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, x: Any, y: Any, w: Any, *rest: Any) -> Any:
        ctx.save_for_backward(x, y, w)
        ctx.rest = rest
        with _outer_levels():
            return _below(torch.ops.pairx.values.default, keyset, x, y, w, *rest)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        needed = ctx.needs_input_grad[1:4]
        found = iter(torch.ops.pairx.pull.default(g, *ctx.saved_tensors, *ctx.rest, needed))
        return None, *(next(found) if need else None for need in needed), *(None for _ in ctx.rest)


class _Pull(torch.autograd.function._SingleLevelFunction):  # type: ignore[misc]
    """The same for the gradients: their own gradients are the formula's."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, g: Any, x: Any, y: Any, w: Any, *rest: Any) -> Any:
        ctx.save_for_backward(g, x, y, w)
        ctx.rest = rest
        with _outer_levels():
            return tuple(_below(torch.ops.pairx.pull.default, keyset, g, x, y, w, *rest))

    @staticmethod
    def backward(ctx: Any, *gg: Any) -> Any:
        needed = ctx.needs_input_grad[1:5]
        given = list(ctx.saved_tensors)
        wanted = [k for k, need in enumerate(needed) if need]

        def first(*chosen: Any) -> Any:
            all_four = list(given)
            for k, t in zip(wanted, chosen, strict=True):
                all_four[k] = t
            return _pullback(*all_four, *ctx.rest)

        _, back = torch.func.vjp(first, *(given[k] for k in wanted))
        found = iter(back(gg))
        return None, *(next(found) if need else None for need in needed), *(None for _ in ctx.rest)


def _differentiated(name: str, function: Any, formula: Callable[..., Any]) -> Callable[..., Any]:
    """What the dispatcher calls for autograd: forward mode by ordinary operations, reverse mode by a function."""

    def kernel(keyset: Any, *args: Any) -> Any:
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        if dual(*tensors):
            return formula(*args)
        op = getattr(torch.ops.pairx, name).default
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            from torch._functorch.utils import enable_single_level_autograd_function

            with enable_single_level_autograd_function():
                found = function.apply(keyset, *args)
            return list(found) if isinstance(found, tuple) else found
        return _below(op, keyset, *args)

    return kernel


# --- batches of torch.vmap ----------------------------------------------------------------------------------------------


def _front(t: Any, dim: int | None, rank: int) -> Any:
    """The vmapped axis before all others, of which there are ``rank``."""
    if dim is None or t is None:
        return t
    t = t.movedim(dim, 0)
    return t.reshape(t.shape[0], *(1,) * (rank + 1 - t.ndim), *t.shape[1:])


def _rank(tensors: tuple[Any, ...], dims: tuple[Any, ...]) -> int:
    """Of the larger of the inputs, without the vmapped axis."""
    return max(int(t.ndim) - (dim is not None) for t, dim in zip(tensors, dims, strict=True) if t is not None)


def _one_by_one(op: Any, info: Any, dims: tuple[Any, ...], args: tuple[Any, ...]) -> list[Any]:
    """Each member of the batch by itself."""
    # Of a list the axes are a list, too, and there is nothing in it to cut.
    return [op(*(a.select(k, i) if isinstance(k, int) else a for a, k in zip(args, dims, strict=True))) for i in range(info.batch_size)]


def _values_vmap(info: Any, dims: tuple[Any, ...], x: Any, y: Any, w: Any, *rest: Any) -> Any:
    op = torch.ops.pairx.values.default
    if dims[2] is not None:  # weights that differ
        return torch.stack(_one_by_one(op, info, dims, (x, y, w, *rest))), 0
    rank = _rank((x, y), dims[:2])
    return op(_front(x, dims[0], rank), _front(y, dims[1], rank), w, *rest), 0


def _pull_vmap(info: Any, dims: tuple[Any, ...], g: Any, x: Any, y: Any, w: Any, *rest: Any) -> Any:
    op, needed = torch.ops.pairx.pull.default, rest[-1]
    if dims[3] is not None or needed[2]:  # the kernels sum what the weights get over all batches
        each = _one_by_one(op, info, dims, (g, x, y, w, *rest))
        found = [torch.stack(same) for same in zip(*each, strict=True)]
        return found, [0] * len(found)
    rank = _rank((x, y), dims[1:3])
    # Each member has gradients of its own, of what they share, too.
    spread = [
        None if t is None else _front(t.expand(info.batch_size, *t.shape) if dim is None else t, dim or 0, r)
        for t, dim, r in zip((g, x, y), dims[:3], (0, rank, rank), strict=True)
    ]
    shapes = [(x.movedim(dims[1], 0) if dims[1] is not None else x[None]).shape[1:], None]
    if y is not None:
        shapes[1] = (y.movedim(dims[2], 0) if dims[2] is not None else y[None]).shape[1:]
    wanted = [s for s, need in zip(shapes, needed, strict=False) if need]
    found = [t.reshape(info.batch_size, *s) for t, s in zip(op(*spread, w, *rest), wanted, strict=True)]
    return found, [0] * len(found)


# --- registration -------------------------------------------------------------------------------------------------------


def _values_fake(x: Any, y: Any, w: Any, spec: str, numbers: Any, condensed: bool, max_bytes: int) -> Any:
    shape = _axes(x, y)
    if condensed:
        shape = (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)
    return x.new_empty(shape, dtype=_read(spec)[0].answer)


def _pull_fake(g: Any, x: Any, y: Any, w: Any, *rest: Any) -> list[Any]:
    return [t.new_empty(t.shape) for t, need in zip((x, y, w), rest[-1], strict=True) if need]


def _register() -> Any:
    library = torch.library.Library("pairx", "DEF")
    settings = "str spec, float[] numbers, bool condensed, int max_bytes"
    schemas = {
        "values": f"(Tensor x, Tensor? y, Tensor? w, {settings}) -> Tensor",
        "pull": f"(Tensor g, Tensor x, Tensor? y, Tensor? w, {settings}, bool[] needed) -> Tensor[]",
    }
    parts: dict[str, tuple[Any, ...]] = {
        "values": (_values_here, _values_fake, _Values, _formula, _values_vmap),
        "pull": (_pull_here, _pull_fake, _Pull, _no_tangents, _pull_vmap),
    }
    for name, (here, fake, function, formula, batched) in parts.items():
        library.define(name + schemas[name], tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, here, "CompositeExplicitAutograd")
        library.impl(name, _differentiated(name, function, formula), "Autograd", with_keyset=True)
        torch.library.register_fake(f"pairx::{name}", fake, lib=library)
        torch.library.register_vmap(f"pairx::{name}", batched, lib=library)
    return library


_LIBRARY = _register() if AVAILABLE else None
"""Held as long as the process runs: the operators live as long as it does."""
