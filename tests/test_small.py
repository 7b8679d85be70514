"""Small calls: one function of machine code for arrays of a form that came before, without a plan."""

from __future__ import annotations

import importlib.util
import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import samples, width

import pairx
from pairx import calls, distances
from pairx.metrics import METRICS, Metric

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

from pairx_backends import compiled

LONG = ("seuclidean", "angular", "haversine")
"""Whose weights come with each call, whose arc cosine is NumPy's, whose rows are two columns; and of a ball each call looks at the rows."""
SHORT = [r for r in METRICS.values() if compiled.possible(r) and r.domain not in ("ball", "complex") and r.name not in LONG]
LAYOUTS = (lambda a: a, lambda a: a[::2], np.asfortranarray)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch):
    """No call is too small to be compiled for."""
    monkeypatch.setattr(calls, "FINISH_FROM", 0)
    monkeypatch.setattr(calls, "COMPILE_FROM", 0)
    distances._QUICK.clear()


def rows(row: Metric, n: int, dtype: str, seed: int) -> np.ndarray:
    """With what a short way may forget: infinite, missing, huge and tiny numbers, zeros."""
    a = samples(row.domain, (n, width(row, 19)), dtype, seed)
    if row.domain == "boolean":
        a[2], a[5] = 0, 1
        return a.astype(bool)
    if row.domain != "latlon":
        a[1] = 0
        a[2] *= 1e30
        a[3] *= 1e-30
        a[4, 0], a[5, 1] = math.inf, math.nan
    return a


def agree(got: np.ndarray, want: np.ndarray, eps: float) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got, want, rtol=64 * eps, atol=64 * eps)


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_every_metric_has_a_short_way(row: Metric):
    given: dict[str, Any] = {"p": 2.5} if row.name == "minkowski" else {}
    for dtype in ("float64",) if row.domain == "boolean" else ("float64", "float32"):
        for layout in LAYOUTS:
            x, y = (layout(rows(row, 2 * n, dtype, n)) for n in (8, 11))
            want = pairx.cdist(x, y, row.name, out=np.empty((len(x), len(y)), dtype), **given)  # an out goes the long way
            seen = len(distances._QUICK)
            for call in range(5):
                u, v = x.copy(order="K") if layout is not LAYOUTS[1] else x, y
                np.testing.assert_array_equal(np.isnan(pairx.cdist(u, v, row.name, **given)), np.isnan(want))
                agree(pairx.cdist(u, v, row.name, **given), want, float(np.finfo(dtype).eps))
                assert call < 2 or len(distances._QUICK) > seen or x.strides[1] > x.itemsize, f"{dtype}: no short way"


def test_parameters_are_told_apart():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6, 5))
    for _ in range(4):
        for p in (1.5, 3, 3.0, 4):
            want = (np.abs(x[:, None] - y) ** p).sum(-1) ** (1 / p)
            np.testing.assert_allclose(pairx.cdist(x, y, "minkowski", p=p), want, rtol=1e-13)
    with pytest.raises(TypeError, match="q"):
        pairx.cdist(x, y, "minkowski", p=3, q=1)
    with pytest.raises((TypeError, ValueError), match="p"):
        pairx.cdist(x, y, "minkowski", p=[3])


def test_calls_of_many_forms_keep_little_memory():
    """One query against collections of all sizes: what is kept for each is as large as the collection."""
    rng = np.random.default_rng(0)
    x, y = rng.random((1, 64)), rng.random((4000, 64))
    for _ in range(3):
        pairx.cdist(x, y[:9], "cityblock")
    tracemalloc.start()
    try:
        for n in range(3600, 4000):
            pairx.cdist(x, y[:n], "cityblock")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 20 << 20, f"{kept} bytes"
    assert distances._QUICK


def test_the_domain_of_values_is_looked_at_each_time():
    inside, booleans = np.full((3, 4), 0.1), np.array([[0.0, 1.0], [1.0, 1.0]])
    for _ in range(4):
        pairx.cdist(inside, inside.copy(), "poincare")
        pairx.cdist(booleans, booleans.copy(), "jaccard")
    with pytest.raises(ValueError, match="unit ball"):
        pairx.cdist(inside * 9, inside.copy(), "poincare")
    with pytest.raises(ValueError, match="0 or 1"):
        pairx.cdist(booleans * 2, booleans.copy(), "jaccard")


def test_near_rows_of_jensenshannon_keep_their_digits():
    """A short way in float32 would lose them: rows 0.1 % apart, to 1e-6 of their distance."""
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    x = rng.random((8, 16)).astype(np.float32) + np.float32(0.1)
    y = (x * (1 + 1e-3 * rng.standard_normal(x.shape))).astype(np.float32)
    want = np.diagonal(cdist(x.astype(float), y.astype(float), "jensenshannon"))
    for _ in range(4):
        np.testing.assert_allclose(np.diagonal(pairx.cdist(x, y, "jensenshannon")), want, rtol=1e-6)
    assert distances._QUICK


def test_the_short_way_checks_what_values_decide():
    x, y = np.ones((3, 4)), np.ones((2, 4))
    for _ in range(3):
        pairx.cdist(x, y, "cityblock", engine="compiled")
        pairx.cdist(x, y, "cityblock", engine="compiled", nan_policy="raise")
    x[0, 0] = math.nan
    with pytest.raises(ValueError, match="nan_policy"):
        pairx.cdist(x, y, "cityblock", engine="compiled", nan_policy="raise")
    assert isinstance(pairx.explain(pairx.cdist, x, y, "cityblock", engine="compiled"), pairx.Plan)
    with pytest.raises(ValueError, match="max_bytes"):
        pairx.cdist(x, y, "cityblock", engine="compiled", max_bytes=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="below the smallest"), pairx.options(max_bytes=10):
        pairx.cdist(x, y, "cityblock", engine="compiled")
    with pytest.raises(TypeError):
        pairx.cdist(x.view(np.ma.MaskedArray), y, "cityblock", engine="compiled")


class LongWay(Exception):
    """Planted at the start of the way with a plan."""


def remembered(backend: Adapter, monkeypatch: pytest.MonkeyPatch, name: str = "cityblock") -> tuple[Any, Any]:
    """Two sets whose short way is known; from here on the long way is an error."""
    x, y = (backend.asarray(a, "float64") for a in np.random.default_rng(0).random((2, 6, 5)))
    for _ in range(3):
        pairx.cdist(x, y, name)

    def planted(*arguments: Any, **keywords: Any) -> None:
        raise LongWay

    monkeypatch.setattr(distances, "matrix_task", planted)
    return x, y


EAGER = ("numpy", "torch", "tensorflow", "jax")


@pytest.mark.parametrize("name", ["cityblock", "cosine", "euclidean"])
def test_the_short_way_of_each_eager_library(backend: Adapter, monkeypatch: pytest.MonkeyPatch, name: str):
    from scipy.spatial.distance import cdist

    x, y = remembered(backend, monkeypatch, name)
    if backend.name not in EAGER:
        with pytest.raises(LongWay):
            pairx.cdist(x, y, name)
        return
    for u, v in ((x, y), (x * 2, y), (y, x)):
        got = pairx.cdist(u, v, name)
        assert (type(got), str(got.device), got.dtype) == (type(x), str(x.device), x.dtype)
        if backend.name == "jax":
            import jax

            with jax.transfer_guard("disallow_explicit"):
                pairx.cdist(u, v, name)
        np.testing.assert_allclose(backend.to_numpy(got), cdist(backend.to_numpy(u), backend.to_numpy(v), name), rtol=1e-14, atol=1e-15)
    for u, v in ((x, backend.asarray(np.ones((6, 5)), "float32")), (x[:5], y), (x, None)):  # another dtype, another shape, one set
        with pytest.raises(LongWay):
            pairx.cdist(u, v, name)


def watched(name: str, x: Any, y: Any) -> dict[str, Any]:
    """Calls of which somebody wants more than the values."""
    if name == "torch":
        import torch
        from torch.autograd import forward_ad

        def tangent() -> Any:
            with forward_ad.dual_level():
                return pairx.cdist(forward_ad.make_dual(x, torch.ones_like(x)), y, "cityblock")

        return {
            "grad": lambda: pairx.cdist(x.clone().requires_grad_(), y, "cityblock"),
            "forward mode": tangent,
            "vmap": lambda: torch.func.vmap(lambda a, b: pairx.cdist(a, b, "cityblock"))(torch.stack([x, x]), torch.stack([y, y])),
            "parameter": lambda: pairx.cdist(torch.nn.Parameter(x), y, "cityblock"),
            "compile": lambda: torch.compile(lambda a, b: pairx.cdist(a, b, "cityblock"), backend="eager", fullgraph=True)(x, y),
            "meta": lambda: pairx.cdist(x.to("meta"), y.to("meta"), "cityblock"),
            "bfloat16": lambda: pairx.cdist(x.bfloat16(), y.bfloat16(), "cityblock"),
        }
    if name == "tensorflow":
        import tensorflow as tf

        def taped() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                return pairx.cdist(x, y, "cityblock")

        return {
            "tape": taped,
            "function": lambda: tf.function(lambda: pairx.cdist(x, y, "cityblock"))(),
            "variable": lambda: pairx.cdist(tf.Variable(x), y),
        }
    if name == "jax":
        import jax

        def f(a: Any) -> Any:
            return pairx.cdist(a, y, "cityblock").sum()

        return {
            "grad": lambda: jax.grad(f)(x),
            "jit": lambda: jax.jit(f)(x),
            "constants": lambda: jax.jit(lambda: f(x))(),
            "jvp": lambda: jax.jvp(f, (x,), (x,)),
        }
    return {
        "out": lambda: pairx.cdist(x, y, "cityblock", out=np.empty((6, 6))),
        "weights": lambda: pairx.cdist(x, y, "cityblock", w=np.ones(5)),
    }


def test_who_watches_goes_the_long_way(backend: Adapter, monkeypatch: pytest.MonkeyPatch):
    if backend.name not in EAGER:
        pytest.skip("it has no short way")
    x, y = remembered(backend, monkeypatch)
    pairx.cdist(x, y, "cityblock")
    for name, call in watched(backend.name, x, y).items():
        with pytest.raises(Exception) as raised:
            call()
        assert "LongWay" in repr(raised.value) or raised.type is LongWay, f"{name}: {raised.value!r}"


@pytest.mark.parametrize("name", ["cityblock", "cosine"])
def test_small_calls_from_many_threads(name: str):
    rng = np.random.default_rng(0)
    sets = [(rng.normal(size=(6, 5)), rng.normal(size=(7, 5))) for _ in range(8)]
    want = [pairx.cdist(x, y, name, engine="array") for x, y in sets]
    for _ in range(3):
        pairx.cdist(*sets[0], name)
    assert distances._QUICK

    def work(k: int) -> bool:
        return all(np.allclose(pairx.cdist(*sets[k], name), want[k], rtol=1e-13, atol=1e-15) for _ in range(800))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
