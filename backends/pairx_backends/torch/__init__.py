"""PyTorch: eager tensors on any device, with a gradient that walks the tiles again instead of keeping them."""

from __future__ import annotations

from typing import Any

import torch
from array_api_compat import torch as xp

from pairx import plan as plans
from pairx.backend import Backend, trace_constant
from pairx.engine import Rule, Task, cut, settle
from pairx.engine import run as walk
from pairx_backends.numpy import quiet

from .blocks import blockwise

_REFUSED = {
    "DTensor": "pass its local part: x.to_local()",
    "MaskedTensor": "fill it, x.to_tensor(float('nan')), and choose nan_policy='omit'",
    "PackedSequence": "pad it: torch.nn.utils.rnn.pad_packed_sequence",
}


def coerce(value: Any, name: str) -> Any:
    """A dense tensor; parameters and buffers are tensors."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        why = next((_REFUSED[c.__name__] for c in type(value).__mro__ if c.__name__ in _REFUSED), None)
        if why or not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}, which is no dense tensor: {why or 'pass a torch.Tensor'}.")
    if value.layout is not torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else "sparse"
        raise TypeError(f"{name} is a {kind} tensor: pass {name}.{'to_padded_tensor(0.0)' if value.is_nested else 'to_dense()'}.")
    if value.is_quantized:
        raise TypeError(f"{name} is a quantized tensor: pass {name}.dequantize().")
    return value


def asarray(value: Any, like: Any, dtype: Any) -> Any:
    """An auxiliary argument; a tensor keeps its gradient."""
    if not isinstance(value, torch.Tensor):
        return torch.as_tensor(value, dtype=dtype, device=like.device)  # at once: float32 on the way would lose digits
    if value.device != like.device:
        raise ValueError(f"An auxiliary tensor is on device {value.device} and x on {like.device}: move one of them.")
    return value if dtype is None else value.to(dtype)


def _transformed(t: Any) -> bool:
    """Inside torch.func (vmap, jvp, grad), a forward-mode level, or a fake tensor of a tracer."""
    inside = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", None)
    if inside is not None and inside(t):
        return True
    if type(t) not in (torch.Tensor, torch.nn.Parameter) and type(t).__name__ in ("FakeTensor", "FunctionalTensor"):
        return True
    return t.device.type == "meta" or (
        torch.autograd.forward_ad._current_level >= 0 and torch.autograd.forward_ad.unpack_dual(t).tangent is not None
    )


def traced(*arrays: Any) -> bool:
    """Whether values must not be looked at."""
    return torch.compiler.is_compiling() or any(_transformed(a) for a in arrays)


def differentiated(*arrays: Any) -> bool:
    """Whether autograd records."""
    return torch.is_grad_enabled() and any(a.requires_grad for a in arrays)


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
    """What a tile's block is to be pulled back with: the reverse of :func:`pairx.engine.store`."""
    plan = task.plan
    if plan.layout == "condensed":
        place, pieces = plans.condensed(plan, tile)
        found, at = g.new_zeros([b - a for a, b in tile.spans]), place[-1].start
        for row, column, length in pieces:
            found[..., row, column : column + length] = g[(*place[:-1], slice(at, at + length))]
            at += length
        return found
    found = g[plans.whole(tile)]
    if tile.kind == "mirror":
        found = found + g[plans.mirrored(tile)].mT.conj()
    elif tile.kind == "diagonal" and plan.zero_self:
        n = found.shape[-1]
        found = found.masked_fill(torch.eye(n, dtype=torch.bool, device=g.device), 0.0)
    return found


class _Walk(torch.autograd.Function):  # type: ignore[misc]
    """The tiles once for the values and once more for the gradients."""

    @staticmethod
    def forward(ctx: Any, task: Task, x: Any, y: Any, *aux: Any) -> Any:
        ctx.task = task
        ctx.save_for_backward(x, y, *aux)
        return walk(task)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y, *aux = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # a second derivative will come: leave the operations to autograd
            inputs = [t for t, need in zip((x, y, *aux), needed, strict=True) if need]
            found = iter(torch.autograd.grad(direct(ctx.task, x, y, *aux), inputs, g, create_graph=True, allow_unused=True))
            return None, *(next(found) if need else None for need in needed)
        return None, *_pull(ctx.task, x, y, tuple(aux), g, needed)


def _pull(task: Task, x: Any, y: Any, aux: tuple[Any, ...], g: Any, needed: tuple[bool, ...]) -> list[Any]:
    """Gradients tile by tile, each tile computed again."""
    plan = task.plan
    gx = torch.zeros_like(x) if needed[0] else None
    gy = gx if y is None else (torch.zeros_like(y) if needed[1] else None)
    ga = [torch.zeros_like(a) if need else None for a, need in zip(aux, needed[2:], strict=True)]
    other = x if y is None else y

    def back(tile: plans.Tile) -> None:
        parts = (cut(task, tile)) if plan.axes else (x, other)
        if task.kernel is not None and compiled(tile, parts):
            return
        leaves = [p.detach().requires_grad_(total is not None) for p, total in zip((*parts, *aux), (gx, gy, *ga), strict=True)]
        with torch.enable_grad():
            block = task.block(*leaves)
        if not block.requires_grad:
            return
        wanted = [(k, leaf) for k, leaf in enumerate(leaves) if leaf.requires_grad]
        pulled = torch.autograd.grad(
            block, [leaf for _, leaf in wanted], _cotangent(task, tile, g) if plan.axes else g, allow_unused=True
        )
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
        with quiet():
            found = kernel.pull(*hosted, None if w is None else host(w), cotangent, needed, plan.threads)
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


def run(task: Task) -> Any:
    """Values through the shared walk; gradients through one autograd function around it."""
    tensors = tuple(a for a in (task.x, task.y, *task.aux) if a is not None)
    if traced(*tensors):
        if task.out is not None:
            raise TypeError("out: cannot be written while torch traces or transforms; leave it away.")
        return direct(task, task.x, task.y, *task.aux)
    if differentiated(*tensors):
        if task.out is not None:
            raise TypeError("out: has no gradient; leave it away, or call under torch.no_grad().")
        return _Walk.apply(task, task.x, task.y, *task.aux)
    with torch.no_grad():
        return walk(task)


def lowered(x: Any) -> str | None:
    """TF32 or bfloat16 inside float32 products, as the user's settings allow."""
    return _lowered(x.device.type) if x.dtype == torch.float32 else None


@trace_constant
def _lowered(device: str) -> str | None:
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set through the newer fp32_precision settings
        precision = "custom"
    if device == "cuda":
        try:
            tf32 = bool(torch.backends.cuda.matmul.allow_tf32)
        except RuntimeError:
            tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        if tf32:
            return "TF32 is allowed in products (torch.backends.cuda.matmul), which keeps 10 bits: differences instead"
    elif precision not in ("highest", "custom"):
        return f"torch.set_float32_matmul_precision({precision!r}) lowers products: differences instead"
    return None


def free_bytes(device: Any) -> int | None:
    """Free and cached memory of a CUDA device."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def devices() -> list[str]:
    """The processor and what accelerators there are."""
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _shares(a: Any, b: Any) -> bool:
    return bool(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() and b.numel())


def compiler(rule: Rule, tensors: tuple[Any, ...], asked: bool) -> Any:
    """Of the compiled engine, for tensors in main memory."""
    if traced(*tensors):
        return "a traced call may end on another device"
    x = tensors[0]
    if x.device.type != "cpu":
        return f"the tensors are on {x.device}"
    from pairx_backends import compiled

    return compiled.compiler(rule)


def host(t: Any) -> Any:
    """A tensor's memory as a NumPy array."""
    t = t.detach()
    return (t.float() if t.dtype == torch.bfloat16 else t).resolve_neg().numpy()


def uniform(rng: Any, shape: tuple[Any, ...], like: Any, dtype: Any) -> Any:
    """Of a torch.Generator."""
    if not isinstance(rng, torch.Generator):
        return None
    return torch.rand(shape, generator=rng, device=rng.device, dtype=dtype).to(like.device)


BACKEND = Backend(
    name="torch",
    xp=xp,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=torch.get_default_dtype,
    traced=traced,
    differentiated=differentiated,
    detach=lambda t: t.detach(),
    free_bytes=free_bytes,
    tile_bytes=4 << 20,
    devices=devices,
    lowered=lowered,
    shares=_shares,
    compiler=compiler,
    host=host,
    guest=torch.from_numpy,
    blockwise=blockwise,
    uniform=uniform,
    along=lambda x, index: torch.gather(x, -1, index),
)
