"""Inputs, parameters and tolerances of the tests: one place that says what "agrees" means."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import reference as ref

from pairx.metrics import KERNELS, METRICS, SIMILARITIES, Metric

ROWS: list[Metric] = [*METRICS.values(), *KERNELS.values(), *SIMILARITIES.values()]


REPRESENTATIVE = tuple({(r.product, r.scale, r.reduce, r.kind): r.name for r in reversed(ROWS)}.values())
"""A row of each way to compute: what only exercises the walk over tiles needs no more where compiling is dear."""


def row_id(row: Metric) -> str:
    """The id of a row of the tables in the names of tests."""
    return row.name if row.kind == "distance" else f"{row.kind}-{row.name}"


# --- inputs -------------------------------------------------------------------------------------------------------------


def rounded(a: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest values of a dtype, held in one that NumPy has: bfloat16 numbers travel as float32."""
    if dtype != "bfloat16":
        return a.astype(dtype)
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # to nearest, ties to even
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def samples(domain: str, shape: tuple[int, ...], dtype: str = "float64", seed: int = 0, zeros: float = 0.1) -> np.ndarray:
    """Valid input of a domain; its last axis becomes 2 for places on the globe.

    ``zeros`` is the share of zeros in non-negative input: they matter to logarithms, and no row is all zero.
    """
    rng = np.random.default_rng([seed, *shape])
    if domain == "latlon":
        a = rng.uniform(-1, 1, (*shape[:-1], 2)) * [math.pi / 2, math.pi]
    elif domain == "boolean":
        a = (rng.random(shape) < 0.5).astype(float)
    elif domain == "nonnegative":
        a = rng.gamma(2.0, size=shape) + 0.05
        a[..., 1:] *= rng.random(a[..., 1:].shape) >= zeros
    elif domain == "ball":
        a = rng.normal(size=shape)
        a *= rng.uniform(0, 0.9, (*shape[:-1], 1)) / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-3)
    elif domain == "complex" and dtype.startswith("complex"):
        a = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    else:
        a = rng.normal(size=shape)
    return rounded(a, dtype)


def weights(d: int) -> np.ndarray:
    """Unequal weights, one of them 0."""
    w = np.linspace(0.25, 2.0, d)
    w[d // 2] = 0.0
    return rounded(w, "bfloat16").astype(float)  # exact in every dtype


def parameters(row: Metric, d: int) -> list[dict[str, Any]]:
    """Parameter sets for a row; ``{}`` (its defaults) comes first."""
    rng = np.random.default_rng(d)
    a = rng.normal(size=(d, 2 * d + 3))
    cov = rounded(a @ a.T / a.shape[1], "bfloat16").astype(float)  # exact in every dtype
    more: dict[str, list[dict[str, Any]]] = {
        "minkowski": [{"p": p} for p in (0, 0.5, 1, 1.5, 2, 3, math.inf)],
        "seuclidean": [{"V": rounded(np.linspace(0.5, 2.0, d), "bfloat16").astype(float)}],
        "mahalanobis": [{"VI": cov}, {"cov": cov}],
        "jensenshannon": [{"base": 2.0}],
        "kl_divergence": [{"normalize": True}],
        "hamming": [{"normalize": False}],
        "polynomial": [{"gamma": 0.5, "degree": 2, "coef0": 0.25}],
        "sigmoid": [{"gamma": 0.25, "coef0": -0.5}],
        "rbf": [{"gamma": 0.5}],
        "laplacian": [{"gamma": 0.5}],
        "chi2": [{"gamma": 0.5}],
    }
    return [{}, *more.get(row.name, [])]


PARAMETERS = [(row, i) for row in ROWS for i in range(len(parameters(row, 6)))]
"""Every row with each of its parameter sets (by index)."""


def param_id(value: tuple[Metric, int]) -> str:
    """The id of such a pair."""
    row, i = value
    given = parameters(row, 6)[i]
    text = ",".join(k if isinstance(v, np.ndarray) else f"{k}={v}" for k, v in given.items())
    return row_id(row) + (f"({text})" if text else "")


# --- tolerances ---------------------------------------------------------------------------------------------------------


class Tolerance(NamedTuple):
    """Of a dtype: rounding of its last digit, eps of the dtype that it computes in, and the smallest step near zero."""

    eps: float
    work: float
    tiny: float


_TOLERANCES = {
    "float64": Tolerance(2.0**-52, 2.0**-52, 5e-324),
    "complex128": Tolerance(2.0**-52, 2.0**-52, 5e-324),
    "float32": Tolerance(2.0**-23, 2.0**-23, 2.0**-149),
    "complex64": Tolerance(2.0**-23, 2.0**-23, 2.0**-149),
    # Halves accumulate in float32: only the answer is rounded to their digits.
    "float16": Tolerance(2.0**-10, 2.0**-23, 2.0**-24),
    "bfloat16": Tolerance(2.0**-7, 2.0**-23, 2.0**-133),
}
FACTOR = 16.0
"""Roundings granted to a result of a handful of features: each feature adds about two, a library's log or exp up to four."""


def tolerances(dtype: str) -> Tolerance:
    """What to allow for a dtype."""
    return _TOLERANCES[dtype]


def scale_of(row: Metric, x: np.ndarray, y: np.ndarray, want: np.ndarray, w: Any, params: dict[str, Any]) -> np.ndarray:
    """By what the error of a result is measured: its own size, or that of what it is the difference of."""
    a, b = (np.abs(np.asarray(t, complex if np.iscomplexobj(t) else float)) for t in (x, y))
    weight = np.ones(a.shape[-1]) if w is None else np.asarray(w, float)
    size = np.abs(np.where(np.isfinite(want), want, 0))
    dot = (a * weight) @ np.swapaxes(b, -1, -2)
    gamma = params.get("gamma") or 1 / max(a.shape[-1], 1)
    if row.name in ("inner_product", "linear", "dot"):
        return dot
    if row.name in ("cosine", "correlation"):
        return np.ones_like(size)
    if row.name == "angular":
        return np.maximum(size, 1 / math.pi)  # between unit rows, which are rounded themselves
    if row.name == "polynomial":
        degree = params.get("degree", 3)
        return degree * (gamma * dot + abs(params.get("coef0", 1))) ** degree
    if row.name == "sigmoid":
        return gamma * dot + abs(params.get("coef0", 1))
    if row.name == "minkowski":
        return size * (1 + np.abs(np.log(np.maximum(size, 1e-300))))  # 1/p is rounded, so the root errs with the logarithm
    if row.name in ("rbf", "laplacian", "chi2"):
        return size * (1 + np.abs(np.log(np.maximum(size, 1e-300))))  # the relative error of exp(t) is the absolute one of t
    if row.name == "kl_divergence":
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = (a * weight)[..., :, None, :] * (1 + np.abs(np.log(a[..., :, None, :] / b[..., None, :, :])))
        return np.where(np.isfinite(terms), terms, 0).sum(-1) + size
    if row.name == "mahalanobis":
        form = params.get("VI", params.get("cov"))
        if form is None:
            flat = [np.asarray(t, float).reshape(-1, a.shape[-1]) for t in (x, y)]
            form = np.cov(np.concatenate(flat).T)
        return size * np.linalg.cond(form)
    return size


def factor_of(backend: Any, row: Metric, factor: float = FACTOR) -> float:
    """``FACTOR``, times what the library is known to need for that metric: each case stands in its adapter, with the reason."""
    return factor * float(backend.excess.get(row.name, 1.0))


def assert_close(
    got: np.ndarray, want: np.ndarray, dtype: str, *, scale: Any = None, factor: float = FACTOR, what: str = "", work: float | None = None
) -> None:
    """Equal within ``factor`` eps of the computing dtype times ``scale`` (default: the wanted value), and one rounding.

    NaN and infinities must be the very same.
    """
    t = tolerances(dtype)
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, wanted {want.shape}"
    wide = complex if np.iscomplexobj(want) or np.iscomplexobj(got) else float
    got = got.astype(wide)
    finite = np.isfinite(want)
    bad = np.where(finite, False, ~((got == want) | (np.isnan(got) & np.isnan(want))))
    size = np.abs(np.where(finite, want, 0))
    scale = size if scale is None else np.broadcast_to(np.abs(scale), want.shape)
    allowed = factor * (t.work if work is None else work) * scale + (t.eps * size + t.tiny if t.eps != t.work else t.tiny)
    with np.errstate(invalid="ignore"):
        error = np.abs(got - np.where(finite, want, 0))
    bad |= finite & ~(error <= allowed)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[np.argmax(np.nan_to_num((error / np.maximum(allowed, 5e-324))[bad], nan=np.inf))])
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {bad.size} differ; at {at} got {got[at]!r}, wanted {want[at]!r}, error {error[at]:.3g}, "
            f"allowed {allowed[at]:.3g} ({error[at] / max(allowed[at], 5e-324):.3g} times)"
        )


# --- calls --------------------------------------------------------------------------------------------------------------


def all_pairs(row: Metric, x: Any, y: Any = None, **keywords: Any) -> Any:
    """The public call that belongs to a row of the tables."""
    import pairx

    if row.kind == "kernel":
        return pairx.gram(x, y, row.name, **keywords)
    if row.kind == "similarity":
        return pairx.similarity(x, y, row.name, **keywords)
    return pairx.cdist(x, y, row.name, **keywords)


def wanted(row: Metric, x: np.ndarray, y: np.ndarray | None = None, **keywords: Any) -> np.ndarray:
    """The reference of the same call. One set against itself has a diagonal of exact zeros where the table says so."""
    out = ref.reference_cdist(x, y, row.name, kind=row.kind, **keywords)
    if y is None and row.zero_self:
        out = out.copy()
        i = np.arange(out.shape[-1])
        out[..., i, i] = np.where(np.isnan(out[..., i, i]), np.nan, 0.0)
    return out


def width(row: Metric, d: int = 6) -> int:
    """Features that a row takes."""
    return 2 if row.domain == "latlon" else d
