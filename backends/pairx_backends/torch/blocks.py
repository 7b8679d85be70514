"""Functions of blocks of rows, whose backward runs each block again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pairx.backend import Backend

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
            wanted = [a for a, need in zip(arrays, needed, strict=True) if need]
            pulled = _pull(ctx.function(arrays[: ctx.count], arrays[ctx.count :]), wanted, gs, create_graph=True)
            found = iter(pulled)
            return None, None, None, *(next(found) if need else None for need in needed)
        totals = [torch.zeros_like(a) if need else None for a, need in zip(arrays, needed, strict=True)]
        for rows, cut in _pieces(arrays[: ctx.count], ctx.step):
            leaves = [a.detach().requires_grad_(need) for a, need in zip((*cut, *arrays[ctx.count :]), needed, strict=True)]
            with torch.enable_grad():
                values = ctx.function(tuple(leaves[: ctx.count]), tuple(leaves[ctx.count :]))
            pulled = iter(_pull(values, [leaf for leaf in leaves if leaf.requires_grad], [g[rows] for g in gs]))
            for k, leaf in enumerate(leaves):
                grad = next(pulled) if leaf.requires_grad else None
                if grad is not None:
                    (totals[k][rows] if k < ctx.count else totals[k]).add_(grad)  # type: ignore[index, union-attr]
        return None, None, None, *totals


def _pieces(cut: Arrays, step: int) -> Any:
    for start in range(0, cut[0].shape[0], step):
        rows = slice(start, start + step)
        yield rows, tuple(c[rows] for c in cut)


def _pull(values: Arrays, wanted: list[Any], gs: Any, **how: bool) -> Any:
    """Gradients of those values that have any; None where nothing depends."""
    smooth = [(v, g) for v, g in zip(values, gs, strict=True) if v.requires_grad]
    if not smooth or not wanted:
        return [None] * len(wanted)
    return torch.autograd.grad([v for v, _ in smooth], wanted, [g for _, g in smooth], allow_unused=True, **how)


def blockwise(backend: Backend, function: Callable[[Arrays, Arrays], Arrays], cut: Arrays, whole: Arrays, step: int) -> Arrays:
    """See :class:`pairx.Backend`. Traced and transformed calls are one block."""
    arrays = (*cut, *whole)
    if cut[0].shape[0] <= step or backend.traced(*arrays):
        return function(cut, whole)
    return tuple(_Blocks.apply(function, len(cut), step, *arrays))
