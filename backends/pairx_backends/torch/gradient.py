"""The derivative of a call on tensors: tile by tile, each tile computed again; or of the whole call, by ordinary operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from array_api_compat import torch as xp

from pairx import plan as plans
from pairx.engine import Task, block, cut, kept, known, run, settle
from pairx_backends.numpy import quiet

from .team import of_torch

walk = of_torch()(run)
"""The walk of eager arrays, on the threads that torch has."""


def dual(*tensors: Any) -> bool:
    """Whether a forward-mode derivative passes through any of them."""
    forward = torch.autograd.forward_ad
    return forward._current_level >= 0 and any(t is not None and forward.unpack_dual(t).tangent is not None for t in tensors)


def host(t: Any) -> Any:
    """A tensor's memory as a NumPy array."""
    t = t.detach()
    return (t.float() if t.dtype == torch.bfloat16 else t).resolve_neg().numpy()


def direct(task: Task, x: Any, y: Any, *aux: Any) -> Any:
    """The whole call as one tile of ordinary operations: for tracers, transforms and second derivatives."""
    plan = task.plan
    other = x if y is None else y
    if task.pairs is not None:
        x, other = xp.take(x, task.pairs[0], axis=-plan.core - 1), xp.take(other, task.pairs[1], axis=-plan.core - 1)
    result = task.block(x, other, *aux)
    if plan.layout == "condensed":
        n = plan.axes[-1]
        i, j = torch.triu_indices(n, n, 1, device=x.device)
        return result[..., i, j]
    if plan.symmetric:
        return settle(task, plans.Tile((), "diagonal"), result)
    return result.expand(plan.shape) if tuple(result.shape) != tuple(plan.shape) else result


def _cotangent(task: Task, tile: plans.Tile, g: Any) -> Any:
    """What a tile's block is to be pulled back with."""
    plan = task.plan
    found = block(plan, tile, g, g.new_zeros)
    if plan.layout == "condensed":
        return found
    if tile.kind == "mirror":
        found = found + g[plans.mirrored(tile)].mT.conj()
    elif tile.kind == "diagonal" and plan.zero_self:
        found = found.clone()
        found.diagonal(dim1=-2, dim2=-1).zero_()
    return found


def apart(*tensors: Any) -> list[Any]:
    """The tensors under names of their own: x may be y, or y computed from x, and a gradient in one must not count the other's."""
    return [None if t is None else t.view_as(t) for t in tensors]


class Walk(torch.autograd.Function):  # type: ignore[misc]
    """The tiles once for the values and once more for the gradients."""

    @staticmethod
    def forward(ctx: Any, task: Task, x: Any, y: Any, *aux: Any) -> Any:
        ctx.task = task
        ctx.save_for_backward(x, y, *aux)
        result = walk(task)
        # Of most metrics the derivative can be told from the distances, which need not be computed again if they stay as they are.
        ctx.found = result.detach() if kept(task, result.nbytes) else None
        ctx.version = result._version
        return result

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y, *aux = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or dual(g):  # a second derivative will come: leave the operations to autograd
            with torch.enable_grad():
                x, y, *aux = apart(x, y, *aux)
                result = direct(ctx.task, x, y, *aux)
            inputs = [t for t, need in zip((x, y, *aux), needed, strict=True) if need]
            found = iter(torch.autograd.grad(result, inputs, g, create_graph=torch.is_grad_enabled(), allow_unused=True))
            return None, *(next(found) if need else None for need in needed)
        found, ctx.found = ctx.found, None
        if found is not None and found._version != ctx.version:  # changed in place since
            found = None
        return None, *pull(replace(ctx.task, found=found), x, y, tuple(aux), g, needed)


@of_torch()
def pull(task: Task, x: Any, y: Any, aux: tuple[Any, ...], g: Any, needed: tuple[bool, ...]) -> list[Any]:
    """Gradients tile by tile, each tile computed again, unless its distances are there still."""
    plan = task.plan

    def zeros(t: Any) -> Any:
        return t.new_zeros(t.shape)  # in one block of memory, whatever the input's strides are

    gx = zeros(x) if needed[0] else None
    gy = gx if y is None else (zeros(y) if needed[1] else None)
    ga = [zeros(a) if need else None for a, need in zip(aux, needed[2:], strict=True)]
    other = x if y is None else y
    task = replace(task, kernel=known(replace(task, x=x, y=y, aux=aux), smooth=True))

    def back(tile: plans.Tile) -> None:
        parts = (cut(task, tile)) if plan.axes else (x, other)
        if task.kernel is not None and compiled(tile, parts):
            return
        leaves = [p.detach().requires_grad_(total is not None) for p, total in zip((*parts, *aux), (gx, gy, *ga), strict=True)]
        with torch.enable_grad():
            value = task.block(*leaves)
        if not value.requires_grad:
            return
        wanted = [(k, leaf) for k, leaf in enumerate(leaves) if leaf.requires_grad]
        pulled = torch.autograd.grad(value, [leaf for _, leaf in wanted], _cotangent(task, tile, g) if plan.axes else g, allow_unused=True)
        for (k, _), grad in zip(wanted, pulled, strict=True):
            if grad is not None:
                add(tile, k, grad)

    def add(tile: plans.Tile, k: int, grad: Any) -> None:
        """Add the gradient of one input's part."""
        total: Any = (gx, gy, *ga)[k]
        if k > 1 or not plan.axes:
            total += grad
            return
        part = plans.side(plan, tile, total.shape, "x" if k == 0 else "y")
        if task.pairs is not None:
            total[part].index_add_(-plan.core - 1, task.pairs[k][slice(*tile.spans[-1])], grad)
        elif task.kernel is not None and total.dtype == grad.dtype != torch.bfloat16:
            host(total)[part] += host(grad)  # after a sum of its own, torch's threads would spin for a while in the way of ours
        else:
            total[part] += grad

    def compiled(tile: plans.Tile, parts: tuple[Any, Any]) -> bool:
        """The same in machine code; False if it cannot be, for this tile."""
        kernel, w = task.kernel, aux[0] if task.rule is not None and task.rule.weighted else None
        leaves = [p.detach().requires_grad_(total is not None) for p, total in zip((*parts, *aux[:1]), (gx, gy, *ga[:1]), strict=False)]
        weight = leaves[2] if w is not None else None
        with torch.enable_grad():
            panels = [kernel.panels(task.backend, leaf, weight) for leaf in leaves[:2]]
        cotangent = host(_cotangent(task, tile, g))
        needed = (gx is not None, gy is not None, w is not None and ga[0] is not None)
        hosted = [[host(p) for p in side] for side in panels]
        there = None if task.found is None else host(block(plan, tile, task.found, task.found.new_zeros))
        with quiet():
            found = kernel.pull(*hosted, None if w is None else host(w), cotangent, needed, plan.threads, there)
        if found is None:
            return False
        pairs = [
            (p, torch.from_numpy(grad)) for side, grads in zip(panels, found[:2], strict=True) for p, grad in zip(side, grads, strict=True)
        ]
        roots = [(p, grad) for p, grad in pairs if p.requires_grad]
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        pulled = iter(torch.autograd.grad([p for p, _ in roots], inputs, [grad for _, grad in roots], allow_unused=True))
        for k, leaf in enumerate(leaves):
            grad = next(pulled) if leaf.requires_grad else None
            if k == 2 and needed[2] and found[2] is not None:
                own = torch.from_numpy(found[2])
                grad = own if grad is None else grad + own
            if grad is not None:
                add(tile, k, grad)
        return True

    if not plan.axes:
        back(plans.Tile(()))
    for tile in plans.tiles(plan, grad=True) if plan.axes else ():
        back(tile)
    return [gx, None if y is None else gy, *ga]
