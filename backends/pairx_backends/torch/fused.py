"""Functions that torch computes in fewer passes over memory than the Array API's operations do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from pairx_backends.numpy import quiet

from .gradient import host
from .team import of_torch


def softplus(z: Any) -> Any:
    """log(1 + e^z)."""
    # Beyond its threshold torch answers z itself: at 20, as it comes, that is not yet the last digit.
    return torch.nn.functional.softplus(z, 1.0, 80.0)


def put(s: Any, index: Any, value: float) -> Any | None:
    """s with ``value`` in column ``index[i]`` of each row i, in place of s; None where torch traces."""
    from . import traced

    if traced(s):
        return None
    return s.index_put_((torch.arange(s.shape[0], device=s.device), index), s.new_tensor(value))


class LogSumExp(torch.autograd.Function):  # type: ignore[misc]
    """log sum of e^s over the last axis, where ``mask``; its slope is the softmax, which torch has in one pass."""

    @staticmethod
    def forward(ctx: Any, s: Any, mask: Any) -> Any:
        ctx.save_for_backward(s, mask)
        found = _machine(s, mask)
        if found is not None:
            value, ctx.factor, ctx.share = found
            return value
        ctx.factor = None
        s = _masked(s, mask)
        top = s.amax(-1)
        share = torch.softmax(s, -1)  # unlike ``exp`` it takes no hundred times as long where the result is subnormal
        value = top - share.amax(-1).log_()
        info = torch.finfo(s.dtype)
        torch.nn.functional.threshold_(share, info.tiny / info.eps, 0.0)  # nor do the products that follow
        odd = top.isinf()
        if bool(odd.any()):  # nothing to add, or infinite
            share[odd], value[odd] = 0.0, top[odd]
        ctx.share = share
        return value

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        share, ctx.share = ctx.share, None
        if not torch.is_grad_enabled():
            if share is None and ctx.factor is not None:  # a second pass has the bits of the first
                _, _, share = _machine(*ctx.saved_tensors) or (None, None, None)
            if share is not None:
                return share.mul_((g if ctx.factor is None else g * ctx.factor).unsqueeze(-1)), None
        s = _masked(*ctx.saved_tensors)  # a second derivative will come, or this is a second pass: ordinary operations
        odd = s.amax(-1, keepdim=True).isinf()
        share = torch.softmax(s.masked_fill(odd | s.isinf(), -math.inf).masked_fill(odd, 0.0), -1)
        return share.masked_fill(odd, 0.0) * g.unsqueeze(-1), None


@of_torch()
def _machine(s: Any, mask: Any) -> tuple[Any, Any, Any] | None:
    """Value, factor and share by machine code; None where there is none."""
    from pairx_backends import compiled

    if compiled.missing():
        return None
    from pairx_backends.compiled.softmax import log_sum_exp

    found = log_sum_exp(s.detach().numpy(), None if mask is None else mask.numpy(), True)
    return None if found is None else tuple(map(torch.from_numpy, found))


def _masked(s: Any, mask: Any) -> Any:
    return s if mask is None else torch.where(mask, s, -math.inf)


def lse(s: Any, mask: Any) -> Any | None:
    """The same of eager tensors with a gradient; None of others."""
    from . import differentiated, traced

    if not s.numel() or not s.is_cpu or not differentiated(s) or traced(s):
        return None
    return LogSumExp.apply(s, mask)


class _Known(torch.autograd.Function):  # type: ignore[misc]
    """A number whose slope came with it."""

    @staticmethod
    def forward(ctx: Any, x: Any, value: Any, slope: Any, plain: Callable[[Any], Any]) -> Any:
        ctx.save_for_backward(x)
        ctx.slope, ctx.plain = slope, plain
        return value

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        if not torch.is_grad_enabled():
            return g * ctx.slope, None, None, None
        (x,) = ctx.saved_tensors  # a second derivative will come: ordinary operations
        x = x.view_as(x)
        return *torch.autograd.grad(ctx.plain(x), x, g, create_graph=True), None, None, None


@of_torch()
def one_set(module: str, x: Any, plain: Callable[[Any], Any], kernel: Any, labels: Any, *what: Any) -> Any | None:
    """A sum over one set by the compiled engine; see ``pair_sum`` and ``share_sum`` of :class:`pairx.Backend`."""
    from importlib import import_module

    from . import differentiated, traced

    if traced(x, labels):
        return None
    total = import_module(f"pairx_backends.compiled.{module}").total
    with quiet():
        found = total(host(x), kernel, host(labels), *what, slope=differentiated(x))
    if found is None:
        return None
    value = x.new_tensor(found[0])
    return value if found[1] is None else _Known.apply(x, value, torch.from_numpy(found[1]), plain)
