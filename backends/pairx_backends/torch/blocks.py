"""Functions of blocks of rows, whose backward runs each block again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pairx.backend import Backend
from pairx.backend import _blocksum as eager

from .gradient import apart

Arrays = tuple[Any, ...]


class _Blocks(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, function: Callable[[Arrays, Arrays], Arrays], count: int, step: int, *arrays: Any) -> Any:
        ctx.function, ctx.count, ctx.step = function, count, step
        ctx.save_for_backward(*arrays)
        pieces = [function(cut, arrays[count:]) for _, cut in _pieces(arrays[:count], step)]
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))

    @staticmethod
    def backward(ctx: Any, *gs: Any) -> Any:
        arrays, needed = ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # a second derivative will come: leave the operations to autograd
            arrays = apart(*arrays)
            wanted = [a for a, need in zip(arrays, needed, strict=True) if need]
            pulled = _pull(ctx.function(tuple(arrays[: ctx.count]), tuple(arrays[ctx.count :])), wanted, gs, create_graph=True)
            found = iter(pulled)
            return None, None, None, *(next(found) if need else None for need in needed)
        totals = [torch.zeros_like(a) if need else None for a, need in zip(arrays, needed, strict=True)]
        for rows, cut in _pieces(arrays[: ctx.count], ctx.step):
            leaves = [a.detach().requires_grad_(need) for a, need in zip((*cut, *arrays[ctx.count :]), needed, strict=True)]
            with torch.enable_grad():
                values = ctx.function(tuple(leaves[: ctx.count]), tuple(leaves[ctx.count :]))
            _add(totals, ctx.count, rows, _pull(values, leaves, [g[rows] for g in gs]))
        return None, None, None, *totals


def _pieces(cut: Arrays, step: int) -> Any:
    for start in range(0, cut[0].shape[0], step):
        rows = slice(start, start + step)
        yield rows, tuple(c[rows] for c in cut)


def _pull(values: Arrays, inputs: list[Any], gs: Any, **how: bool) -> list[Any]:
    """Gradients of those values that have any; None for inputs without one."""
    smooth = [(v, g) for v, g in zip(values, gs, strict=True) if v.requires_grad]
    wanted = [x for x in inputs if x.requires_grad]
    if not smooth or not wanted:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad([v for v, _ in smooth], wanted, [g for _, g in smooth], allow_unused=True, **how))
    return [next(found) if x.requires_grad else None for x in inputs]


class _Sums(torch.autograd.Function):  # type: ignore[misc]
    """Sums over blocks. The gradient of a single number is known up to a factor, so it is taken on the way."""

    @staticmethod
    def forward(ctx: Any, function: Any, count: int, step: int, *arrays: Any) -> Any:
        ctx.function, ctx.count, ctx.step = function, count, step
        needed = ctx.needs_input_grad[3:]
        ctx.save_for_backward(*arrays)
        ctx.slopes = None
        smooth, totals, slopes = None, None, [torch.zeros_like(a) if need else None for a, need in zip(arrays, needed, strict=True)]
        whole = [a.detach().requires_grad_(need) for a, need in zip(arrays[count:], needed[count:], strict=True)]
        for rows, cut in _pieces(arrays[:count], step):
            leaves = [*(c.detach().requires_grad_(need) for c, need in zip(cut, needed, strict=False)), *whole]
            with torch.set_grad_enabled(smooth is None or len(smooth) == 1):
                values = function(tuple(leaves[:count]), tuple(whole), None)
            if smooth is None:
                smooth = [k for k, v in enumerate(values) if v.requires_grad]
                if len(smooth) == 1 and values[smooth[0]].ndim:
                    smooth = []
            if len(smooth) == 1:
                _add(slopes, count, rows, _pull((values[smooth[0]],), leaves, [None]))
            values = tuple(v.detach() for v in values)
            totals = values if totals is None else tuple(t + v for t, v in zip(totals, values, strict=True))
        if smooth is not None and len(smooth) == 1:
            ctx.slopes, ctx.number = slopes, smooth[0]
        return totals

    @staticmethod
    def backward(ctx: Any, *gs: Any) -> Any:
        arrays, needed = ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            arrays = apart(*arrays)
            wanted = [a for a, need in zip(arrays, needed, strict=True) if need]
            found = iter(_pull(ctx.function(tuple(arrays[: ctx.count]), tuple(arrays[ctx.count :]), None), wanted, gs, create_graph=True))
            return None, None, None, *(next(found) if need else None for need in needed)
        if ctx.slopes is not None:
            return None, None, None, *(None if s is None else gs[ctx.number] * s for s in ctx.slopes)
        slopes = [torch.zeros_like(a) if need else None for a, need in zip(arrays, needed, strict=True)]
        for rows, cut in _pieces(arrays[: ctx.count], ctx.step):
            leaves = [a.detach().requires_grad_(need) for a, need in zip((*cut, *arrays[ctx.count :]), needed, strict=True)]
            with torch.enable_grad():
                values = ctx.function(tuple(leaves[: ctx.count]), tuple(leaves[ctx.count :]), None)
            _add(slopes, ctx.count, rows, _pull(values, leaves, gs))
        return None, None, None, *slopes


def _add(totals: list[Any], count: int, rows: slice, grads: list[Any]) -> None:
    """The gradients of one block to those of all."""
    for k, grad in enumerate(grads):
        if grad is not None and totals[k] is not None:
            (totals[k][rows] if k < count else totals[k]).add_(grad)


def blocksum(backend: Backend, function: Any, cut: Arrays, whole: Arrays, step: int, combine: Any = None) -> Arrays:
    """See :class:`pairx.Backend`."""
    arrays = (*cut, *whole)
    if cut[0].shape[0] <= step or backend.traced(*arrays):
        return tuple(function(cut, whole, None))
    if combine is None and backend.differentiated(*arrays):
        return tuple(_Sums.apply(function, len(cut), step, *arrays))
    with torch.no_grad():
        return eager(backend, function, cut, whole, step, combine)


def prompt(*arrays: Any) -> bool:
    """A gradient will be asked of eager tensors."""
    from . import differentiated, traced

    return differentiated(*arrays) and not traced(*arrays)


def blockwise(backend: Backend, function: Callable[[Arrays, Arrays], Arrays], cut: Arrays, whole: Arrays, step: int) -> Arrays:
    """See :class:`pairx.Backend`. Traced and transformed calls are one block."""
    arrays = (*cut, *whole)
    if cut[0].shape[0] <= step or backend.traced(*arrays):
        return function(cut, whole)
    return tuple(_Blocks.apply(function, len(cut), step, *arrays))
