"""PyTorch: eager tensors on any device, with a gradient that walks the tiles again instead of keeping them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from array_api_compat import torch as xp

from pairx.backend import Backend, trace_constant
from pairx.engine import Rule, Task

from . import fused, operators
from .blocks import blocksum, blockwise, prompt
from .gradient import Walk, direct, dual, host, walk

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
    return t.device.type == "meta" or dual(t)


def _proxied() -> bool:
    """Inside ``make_fx``, which records what is done to ordinary tensors."""
    if not torch._C._len_torch_dispatch_stack():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def traced(*arrays: Any) -> bool:
    """Whether values must not be looked at."""
    return torch.compiler.is_compiling() or any(_transformed(a) for a in arrays) or _proxied()


def differentiated(*arrays: Any) -> bool:
    """Whether autograd records."""
    return torch.is_grad_enabled() and any(a.requires_grad for a in arrays)


_NUMPYS = frozenset(getattr(torch, n) for n in ("float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"))


def unwatched(*tensors: Any) -> bool:
    """Whether these are numbers that NumPy has, in main memory, and nothing is recorded."""
    plain = all(t.is_cpu and t.dtype in _NUMPYS and t.layout is torch.strided and not t.is_nested for t in tensors)
    return plain and not (differentiated(*tensors) or traced(*tensors))


def run(task: Task) -> Any:
    """Values through the shared walk; gradients through one autograd function around it."""
    tensors = tuple(a for a in (task.x, task.y, *task.aux) if a is not None)
    if traced(*tensors):
        if task.out is not None:
            raise TypeError("out: cannot be written while torch traces or transforms; leave it away.")
        return direct(task, task.x, task.y, *task.aux) if task.kernel is None else operators.call(task)
    if differentiated(*tensors):
        if task.out is not None:
            raise TypeError("out: has no gradient; leave it away, or call under torch.no_grad().")
        return Walk.apply(task, task.x, task.y, *task.aux)
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
    """Of the compiled engine, for tensors in main memory; a traced call takes it as an operator."""
    if tensors[0].device.type != "cpu":
        return f"the tensors are on {tensors[0].device}"
    if traced(*tensors):
        return operators.kernel(rule, tensors, asked)
    from pairx_backends import compiled

    return compiled.compiler(rule)


def _matmul(a: Any, b: Any, out: Any) -> None:
    torch.matmul(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))


def product(rule: Rule, tensors: tuple[Any, ...]) -> Any:
    """Torch's matrix product of tensors in main memory, and machine code after it."""
    if tensors[0].device.type != "cpu":
        return f"the tensors are on {tensors[0].device}"
    from pairx_backends import compiled

    return compiled.product(rule, _matmul)


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
    natives={
        "relu": torch.relu,
        "softplus": fused.softplus,
        "clip": torch.nn.functional.hardtanh,
        "lse": fused.lse,
        "put": fused.put,
        "pair_sum": partial(fused.one_set, "terms"),
        "share_sum": partial(fused.one_set, "shares"),
    },
    devices=devices,
    lowered=lowered,
    shares=_shares,
    compiler=compiler,
    product=product,
    host=host,
    guest=torch.from_numpy,
    unwatched=unwatched,
    whole=True,
    blockwise=blockwise,
    blocksum=blocksum,
    prompt=prompt,
    uniform=uniform,
    along=lambda x, index: torch.gather(x, -1, index),
)
