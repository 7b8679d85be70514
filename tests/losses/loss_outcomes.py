"""A loss at an edge, on one library, in a word; the tests and the report of agreement ask for the same word."""

from __future__ import annotations

from typing import Any

import numpy as np
from adapters import Adapter
from loss_cases import Case, expected

from pairx.losses import LOSSES

EPS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
TOP = {"float64": 1.7976931348623157e308, "float32": 3.4028234663852886e38, "float16": 65504.0, "bfloat16": 3.3895313892515355e38}
"""The largest number of each dtype."""
GOOD = ("finite", "inf as exact")
CAPPED = "finite, where the exact value is inf"


def bring(backend: Adapter, value: Any) -> Any:
    """An argument that is no float of the loss (labels, masks, pairs) as the library's own."""
    if isinstance(value, tuple):
        return tuple(bring(backend, v) for v in value)
    return backend.asarray(value) if isinstance(value, np.ndarray) else value


def call(backend: Adapter, name: str, given: Case, variant: dict[str, Any], dtype: str, **keywords: Any) -> Any:
    """The loss of a case, on the library's own arrays."""
    arrays = {k: backend.asarray(v, dtype) for k, v in given.arrays.items()}
    rest = {k: bring(backend, v) for k, v in {**given.given, **variant}.items()}  # a variant may say it in other words
    return LOSSES[name].function(**arrays, **rest, **keywords)


def gradient(backend: Adapter, name: str, given: Case, variant: dict[str, Any], dtype: str, **keywords: Any) -> list[np.ndarray]:
    """Of the mean, in each floating array of the case."""
    rest = {k: bring(backend, v) for k, v in {**given.given, **variant}.items()}
    found = backend.grad(
        lambda *a: LOSSES[name].function(**dict(zip(given.arrays, a, strict=True)), **rest, **keywords),
        *given.arrays.values(),
        dtype=dtype,
    )
    return [np.asarray(g).astype(float) for g in found or []]


def rounded(backend: Adapter, given: Case, dtype: str) -> Case:
    """The case as the library sees it in a dtype, in float64."""
    return Case({k: backend.to_numpy(backend.asarray(v, dtype)).astype(float) for k, v in given.arrays.items()}, given.given)


def conditioning(given: Case) -> float:
    """By what a rounding error of a similarity is multiplied, where that is more than the loss's defaults have it."""
    return max(1.0, 1e-2 / given.given.get("temperature", 1.0), given.given.get("scale", 1.0) / 100)


def outcome(backend: Adapter, name: str, given: Case, dtype: str, slopes: bool = True, variant: dict[str, Any] | None = None) -> str:
    """One of ``GOOD``, or what is not so: finite wherever the exact value is representable, else inf, never NaN; gradients too."""
    variant = variant or {}
    got = float(np.asarray(backend.to_numpy(call(backend, name, given, variant, dtype))).astype(float))
    seen = rounded(backend, given, dtype)
    values, active, divisor = expected(name, seen, variant)
    want = float(values[active].sum() / divisor) if divisor else 0.0
    if np.isnan(got):
        return f"NaN, not {want:.3g}"
    beyond = not np.isfinite(want) or abs(want) > TOP[dtype]
    if beyond and np.isfinite(got):
        return CAPPED if got > 0 else f"{got:.3g}, not {want:.3g}"
    if not beyond and not np.isfinite(got):
        return f"{got}, not {want:.3g}"
    if not beyond and (error := abs(got - want) / (EPS[dtype] * max(1.0, abs(want)))) > 256 * conditioning(given):
        return f"off by {error:.3g} eps from {want:.3g}"
    if slopes and LOSSES[name].differentiable and given.arrays and backend.autodiff:
        found = gradient(backend, name, given, variant, dtype)
        if any(np.isnan(g).any() for g in found):
            return "NaN in the gradient"
        # An infinite slope is right only where the exact one is beyond the dtype: in float64 it says whether.
        if not beyond and not all(np.isfinite(g).all() for g in found):
            wide = gradient(backend, name, seen, variant, "float64")
            wrong = any((np.isinf(g) & (np.abs(w) < TOP[dtype])).any() for g, w in zip(found, wide, strict=True))
            if dtype != "float64" and wrong:
                return "inf in the gradient"
    return "inf as exact" if beyond else "finite"
