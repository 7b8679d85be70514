"""Mathematics that stays finite, with the slope that it should have at its edges."""

from __future__ import annotations

import math
from typing import Any

from ._core import Arrays

Array = Any


def hinge(a: Arrays, z: Array) -> Array:
    """max(0, z), with gradient 0 at 0; NaN stays."""
    if (own := a.backend.natives.get("relu")) is not None:
        return own(z)
    return a.xp.where(z <= 0, a.xp.zeros_like(z), z)


def square(xp: Any, z: Array) -> Array:
    """z^2 for z >= 0; infinite, with gradient 0, where it is not representable: its slope would be inf - inf in a sum over pairs."""
    z = xp.clip(z, None, 2 * float(xp.finfo(z.dtype).max) ** 0.5)
    return z * z


def softplus(a: Arrays, z: Array) -> Array:
    """log(1 + e^z), for any z."""
    if (own := a.backend.natives.get("softplus")) is not None:
        return own(z)
    xp = a.xp
    # At 0 libraries share the slope of a maximum differently (TensorFlow: 1 and 0); here it is 1/2 everywhere.
    above = xp.where(z == 0, 0.5 * z, xp.maximum(z, xp.zeros_like(z)))
    return above + xp.log1p(xp.exp(-xp.abs(z)))


def log_sigmoid(a: Arrays, z: Array) -> Array:
    """log(1 / (1 + e^-z))."""
    return -softplus(a, -z)


def lse(a: Arrays, s: Array, mask: Array | None = None) -> Array:
    """log sum of e^s over the last axis, where ``mask``; -inf where nothing is, with gradient 0."""
    if (own := a.backend.natives.get("lse")) is not None and (found := own(s, mask)) is not None:
        return found
    xp = a.xp
    if mask is not None:
        s = xp.where(mask, s, xp.full_like(s, -math.inf))
    if isinstance(a.backend.shape(s)[-1], int) and a.backend.shape(s)[-1] == 0:
        return xp.sum(s, axis=-1) - math.inf
    top = a.backend.detach(xp.max(s, axis=-1, keepdims=True))
    top = xp.where(xp.isinf(top), xp.zeros_like(top), top)
    total = xp.sum(xp.exp(s - top), axis=-1)
    none = total == 0
    result = xp.log(xp.where(none, xp.ones_like(total), total)) + xp.squeeze(top, axis=-1)
    return xp.where(none, xp.full_like(result, -math.inf), result)


def among(xp: Any, mask: Array, values: Array) -> Array:
    """Sum of the values where ``mask``, over the last axis; what is outside does not count, infinite or not."""
    return xp.sum(xp.where(mask, values, xp.zeros_like(values)), axis=-1)


def number_of(xp: Any, mask: Array, dtype: Any) -> Array:
    """How many are in the mask, over the last axis."""
    return xp.sum(xp.astype(mask, dtype), axis=-1)
