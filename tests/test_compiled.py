"""The compiled engine: hostile values as the array engine has them, the same bits always, its cache, threads and processes."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import ROWS, all_pairs, parameters, row_id, samples, width

import pairx
from pairx.engine import Rule
from pairx.metrics import METRICS, Metric, resolve

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

from pairx_backends import compiled
from pairx_backends.compiled import Kernel, definition, emit, jit, known, trace

STREAMING = [r for r in ROWS if "compiled" in r.engines]
SMOOTH = [r for r in STREAMING if r.differentiable]
HOSTILE = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    3.5,
    1e-3,
    2.0,
    2.0,
    math.inf,
    -math.inf,
    math.nan,
    1e200,
    -1e200,
    1e-200,
    5e-324,
    1e308,
    1e38,
    -1e-38,
    1e-45,
]


def given_of(row: Metric, d: int) -> dict[str, Any]:
    """Parameters without defaults taken from the data, which hostile data have not."""
    if row.name == "seuclidean":
        return {"V": np.linspace(0.5, 2.0, d)}
    return {"p": 2.5} if row.name == "minkowski" else {}


def hostile(row: Metric, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    d = width(row, 19)
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(13, d)), rng.normal(size=(45, d))
    x[::2], y[::3] = rng.choice(HOSTILE, size=x[::2].shape), rng.choice(HOSTILE[:8], size=y[::3].shape)
    x[1] = x[3] = y[1] = 0
    y[5], y[8] = x[7], x[9]
    x[5:8] *= 1e-180 if dtype == "float64" else 1e-25
    if row.domain == "nonnegative":
        x, y = np.abs(x), np.abs(y)
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(dtype), y.astype(dtype)


def terms_of_kl(x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """The sum of the magnitudes of the terms, where they are finite."""
    with np.errstate(all="ignore"):
        terms = np.abs(x[:, None].astype(float) * np.log(x[:, None].astype(float) / y.astype(float)))
        return (np.where(np.isfinite(terms), terms, 0.0) * (1.0 if w is None else w)).sum(-1)


@pytest.mark.parametrize("row", STREAMING, ids=row_id)
@pytest.mark.dtypes("float64", "float32")
@pytest.mark.backends("numpy", "torch")
def test_hostile_values_are_those_of_the_array_engine(backend: Adapter, dtype: str, row: Metric):
    x, y = hostile(row, dtype)
    given, eps, tiny = given_of(row, x.shape[1]), np.finfo(dtype).eps, float(np.finfo(dtype).tiny)
    weights = (None, np.random.default_rng(1).integers(0, 3, x.shape[1]).astype(dtype)) if row.weights else (None,)
    policies = ("propagate", "omit") if row.omit and row.kind == "distance" else (None,)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    for w in weights:
        for policy in policies:
            extra = {**given, **({} if w is None else {"w": w}), **({} if policy is None else {"nan_policy": policy})}
            if row.name == "seuclidean" and policy == "omit":
                continue  # its weights count twice: the array engine's business
            for other in (b, None):
                got, want = (backend.to_numpy(all_pairs(row, a, other, engine=e, **extra)) for e in ("compiled", "array"))
                with np.errstate(invalid="ignore", over="ignore"):
                    allowed = 64 * eps * np.abs(want) + tiny
                    if row.name == "kl_divergence":  # its terms have signs, and cancel
                        allowed = 64 * eps * terms_of_kl(x, y if other is not None else x, w) + tiny
                    elif row.scale == "row":  # rows of length 1, near each other
                        allowed += eps
                    same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= allowed)
                assert same.all(), f"{row_id(row)} {list(extra)}: {got[~same][:4]} instead of {want[~same][:4]}"


def test_zero_conventions_of_scipy():
    zero, one = np.zeros((1, 4)), np.eye(4)[:1]
    for name in ("braycurtis", "jensenshannon"):
        for x, y in ((zero, zero), (zero, one)):
            got, want = (pairx.cdist(x, y, name, zero="scipy", engine=e) for e in ("compiled", "array"))
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (2, 33, 1), (5, 4, 17), (3, 65, 300), (0, 3, 2), (3, 0, 2), (3, 4, 0)])
@pytest.mark.parametrize("row", STREAMING, ids=row_id)
def test_odd_sizes(row: Metric, shape: tuple[int, int, int]):
    m, n, d = shape
    d = width(row, d)
    x, y = samples(row.domain, (m, d), "float64", 1), samples(row.domain, (n, d), "float64", 2)
    given = given_of(row, d)
    got, want = (all_pairs(row, x, y, engine=e, **given) for e in ("compiled", "array"))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("row", STREAMING, ids=row_id)
def test_the_same_bits_for_any_tile_and_any_number_of_threads(row: Metric):
    d = width(row, 30)
    x, y = samples(row.domain, (150, d), "float32", 1), samples(row.domain, (131, d), "float32", 2)
    given = given_of(row, d)
    want = all_pairs(row, x, y, engine="compiled", **given)
    alone = all_pairs(row, x, engine="compiled", **given)
    if row.symmetric:
        np.testing.assert_array_equal(alone, alone.T)
    for threads in (1, 2, 5):
        for budget in ("40kB", "200kB"):
            with pairx.options(threads=threads, max_bytes=budget, engine="compiled"):
                np.testing.assert_array_equal(all_pairs(row, x, y, **given), want)
                np.testing.assert_array_equal(all_pairs(row, x, **given), alone)


@pytest.mark.backends("torch", "tensorflow", "jax")
@pytest.mark.parametrize("row", SMOOTH, ids=row_id)
def test_gradients_are_those_of_the_array_engine(backend: Adapter, row: Metric):
    d = width(row, 11)
    x, y = samples(row.domain, (2, 23, d), "float64", 1), samples(row.domain, (37, d), "float64", 2)
    x[1, 2], x[0, 7, :2] = x[1, 4], y[9, :2]  # duplicates, and ties of a maximum
    # XLA sums the rows of two sets in different orders, on some processors: normalised, equal rows differ, and so does their gradient.
    if not (backend.name == "jax" and row.scale == "row" and row.symmetric):
        y[3], x[:, 11], y[11] = x[0, 5], 3.0, 1.0
    c = np.random.default_rng(3).normal(size=(2, 23, 37))
    given = given_of(row, d)
    for weighted in (False, True) if row.weights and row.name not in ("nan_euclidean",) else (False,):
        arrays = [x, y] + ([np.linspace(0.5, 2.0, d)] if weighted else [])

        def loss(a: Any, b: Any, *w: Any, engine: str) -> Any:
            extra = {"w": w[0]} if w else {}
            return backend.total(all_pairs(row, a, b, engine=engine, max_bytes="150kB", **given, **extra), c)

        got, want = (backend.grad(lambda *a, e=e: loss(*a, engine=e), *arrays) for e in ("compiled", "array"))
        assert got is not None
        for g, w in zip(got, want or [], strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-11 * max(1.0, np.abs(w).max()), err_msg=row_id(row))


@pytest.mark.backends("torch", "jax")
@pytest.mark.parametrize("name", ["cityblock", "chebyshev", "euclidean", "jensenshannon", "kl_divergence"])
def test_gradients_have_the_same_bits_for_any_number_of_threads(backend: Adapter, name: str):
    x, y = samples("nonnegative", (90, 20), "float32", 1), samples("nonnegative", (70, 20), "float32", 2)
    found = []
    for threads in (1, 2, 4):
        with pairx.options(threads=threads, engine="compiled"):
            found.append(backend.grad(lambda a, b: backend.sum(pairx.cdist(a, b, name)), x, y, dtype="float32"))
    for other in found[1:]:
        for g, w in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", [2, 9, 10**6])
def test_the_gradient_of_a_maximum_is_shared_by_all_that_have_it(values: int, dtype: str):
    """Ties within some features and across all, weights of 0, NaN that counts as missing, equal rows; by the formula itself."""
    rng = np.random.default_rng(values)
    x, y, g = rng.integers(0, values, (70, 53)), rng.integers(0, values, (75, 53)), rng.normal(size=(70, 75))
    x, y, g, w = x.astype(dtype), y.astype(dtype), g.astype(dtype), (np.arange(53) % 3 > 0).astype(dtype)
    x[3] = y[7]
    for weights, omit in ((None, False), (w, False), (None, True)):
        if omit:
            x[5, 2], y[8, :30] = math.nan, math.nan
        kernel = compiled.compiler(Rule(METRICS["chebyshev"], {}, dtype, dtype, True, weighted=weights is not None, omit=omit))
        gap = x[:, None].astype(float) - y.astype(float)
        size = np.where(np.isnan(gap) | (weights is not None and w == 0), -1.0, np.abs(gap))
        top = size == size.max(axis=-1, keepdims=True)
        part = np.where(top, np.sign(np.nan_to_num(gap)) / top.sum(axis=-1, keepdims=True), 0.0) * g[:, :, None]
        for threads in (1, 3):
            for sides in ((True, True), (True, False), (False, True)):
                found = kernel.pull([x], [y], weights, g, (*sides, False), threads)
                for want, (got,), side in zip((part.sum(axis=1), -part.sum(axis=0)), found, sides, strict=False):
                    if side:
                        np.testing.assert_allclose(got, want, atol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("row", [r for r in SMOOTH if "V" not in r.defaults], ids=row_id)
def test_distances_that_are_there_still_give_the_same_gradient(row: Metric):
    row, params = resolve(row, {k: 1.0 if v is None and k == "gamma" else v for k, v in row.defaults.items()} | given_of(row, 9))
    kernel = compiled.compiler(Rule(row, params, "float64", "float64", True))
    d = width(row, 9)
    x, y = samples(row.domain, (2, 21, d), "float64", 1), samples(row.domain, (37, d), "float64", 2)
    x[0, 4] = y[11]
    found, g = all_pairs(row, x, y, engine="compiled", **given_of(row, 9)), np.random.default_rng(0).normal(size=(2, 21, 37))
    xs, ys = kernel.rows(x, None)[0], kernel.rows(y, None)[0]
    want = kernel.pull(xs, ys, None, g, (True, True, False))
    for threads, distances in ((1, found), (3, found[..., ::-1].copy()[..., ::-1])):
        got = kernel.pull(xs, ys, None, g, (True, True, False), threads, distances)
        for a, b in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    if kernel.invertible:  # they are used indeed
        off = kernel.pull(xs, ys, None, g, (True, True, False), 1, found * 1.5)
        assert kernel.definition.linear or any(np.abs(a - b).max() > 1e-3 for a, b in zip(off[0], want[0], strict=True))


@pytest.mark.backends("torch", "tensorflow")
def test_distances_are_kept_within_the_budget(backend: Adapter, monkeypatch):
    used = []
    own = Kernel._worth
    monkeypatch.setattr(Kernel, "_worth", lambda self, *a: used.append(1) or own(self, *a))
    x, y = samples("real", (150, 20), "float32", 1), samples("real", (140, 20), "float32", 2)
    found = []
    for budget, kept in (("1MB", True), ("60kB", False)):
        used.clear()
        with pairx.options(engine="compiled", max_bytes=budget):
            found.append(backend.grad(lambda a, b: backend.sum(pairx.cdist(a, b)), x, y, dtype="float32"))
        assert bool(used) is kept
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", ["euclidean", "cityblock", "minkowski"])
def test_a_result_that_was_changed_in_place_has_its_gradient_still(backend: Adapter, name: str):
    import torch

    x, given = torch.rand(40, 7, requires_grad=True), {"p": 3.0} if name == "minkowski" else {}
    found = []
    for engine in ("compiled", "array"):
        d = pairx.cdist(x, x.detach() + 1, name, engine=engine, **given)
        kept = (d * d).detach()
        d.fill_diagonal_(7.0).mul_(2.0)
        (grad,) = torch.autograd.grad((d * kept).sum(), x, retain_graph=True)
        found.append(grad)
        torch.testing.assert_close(torch.autograd.grad((d * kept).sum(), x)[0], grad, rtol=0, atol=0)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("row", [r for r in SMOOTH if r.name in ("cityblock", "chebyshev", "canberra", "kl_divergence")], ids=row_id)
def test_both_sides_at_once_have_the_bits_of_each_alone(row: Metric, weighted: bool):
    """Which way is taken depends on the number of threads."""
    kernel = compiled.compiler(Rule(row, dict(row.defaults), "float32", "float32", True, weighted=weighted))
    rng = np.random.default_rng(0)
    x, y, g, w = (rng.random(shape, np.float32) + np.float32(0.1) for shape in ((150, 37), (131, 37), (150, 131), (37,)))
    x[3], x[:, 5] = y[7], 0.5  # ties, and differences of 0
    y[9, 5] = 0.5
    weights = w if weighted else None
    gx, gy, _ = kernel.pull([x], [y], weights, g, (True, True, False))
    for threads in (1, 3, 64):
        for needed in ((True, False, False), (False, True, False), (True, True, False)):
            found = kernel.pull([x], [y], weights, g, needed, threads)
            for want, got, need in zip((gx, gy), found, needed, strict=False):
                np.testing.assert_array_equal(got[0], want[0] if need else np.zeros_like(want[0]))


# --- kernels for numbers of which something is known -----------------------------------------------------------------------


def histograms(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Rows of numbers of at least 0, in float32."""
    rng = np.random.default_rng(seed)
    found = {
        "dense": lambda: rng.random(shape) + 1e-3,
        "skewed": lambda: rng.dirichlet(np.full(shape[1], 0.5), shape[0]) + 1e-9,
        "sparse": lambda: rng.random(shape) * (rng.random(shape) < 0.5),
        "near": lambda: 1 + 1e-3 * rng.random(shape),
        "counts": lambda: rng.integers(0, 5, shape),
    }[kind]()
    return found.astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["dense", "skewed", "sparse", "near", "counts"])
@pytest.mark.parametrize(
    "name, given", [("kl_divergence", {"normalize": False}), ("kl_divergence", {"normalize": True}), ("jensenshannon", {})]
)
def test_logarithms_ahead_against_the_long_double(name: str, given: dict[str, Any], kind: str, weighted: bool):
    x, y = histograms(kind, (40, 90), 1), histograms(kind, (30, 90), 2)
    x[0], x[1, :45], y[1, 45:] = y[0], 0, 0  # equal rows, rows without a common feature
    w = np.linspace(0, 2, 90, dtype=np.float32) if weighted else None
    row = METRICS[name]
    kernel = compiled.compiler(Rule(row, row.defaults | given, "float32", "float32", True, weighted=weighted))
    assert kernel.special is not None
    kernel.special.function("forward")  # a call as small as this one does not wait for it
    general = weighted and not y.all()  # 0 with a weight of 0 is not told apart from an infinite number
    assert kernel.knowing(x, y, w) is (kernel if general else kernel.special)
    got = pairx.cdist(x, y, name, engine="compiled", w=w, **given).astype(np.longdouble)
    # The general kernel normalises rows in float32, as the array engine does.
    p, q = ((kernel.rows(a, w)[0][0] if general else a).astype(np.longdouble) for a in (x, y))
    if not general and given != {"normalize": False}:
        p, q = (a / np.maximum(a.sum(-1, keepdims=True), np.finfo(a.dtype).tiny) for a in (p, q))
    p, q, share = p[:, None], q[None], np.longdouble(1) if w is None else w.astype(np.longdouble)

    def part(a: Any, b: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.where(a == 0, 0, np.where(b == 0, np.where(share == 0, 0, np.inf), a * np.log(a / b)))

    if name == "jensenshannon":
        want = np.sqrt(np.sum(share * (part(p, (p + q) / 2) + part(q, (p + q) / 2)), axis=-1) / 2)
        assert np.all(np.abs(got - want) <= 1e-6 * want + 1e-22), np.max(np.abs(got - want) / np.where(want > 0, want, 1))
        return
    terms = share * part(p, q)
    want, size = terms.sum(axis=-1), np.abs(terms).sum(axis=-1)
    infinite = np.isinf(want)
    np.testing.assert_array_equal(np.isinf(got), infinite)
    assert kind in ("dense", "skewed", "near") or infinite.any()
    assert np.all(np.abs(got - want)[~infinite] <= 1e-6 * size[~infinite])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 2, 37, 300])
@pytest.mark.parametrize("name", ["canberra", "braycurtis", "ruzicka"])
def test_moderate_numbers_against_the_long_double(name: str, d: int, dtype: str, weighted: bool):
    """Two features by one division, sums of rows for themselves: zeros, equal rows, and the ends of what is moderate."""
    rng = np.random.default_rng(d)
    x, y = (rng.random((n, d)) * (rng.random((n, d)) < 0.7) * 2.0 ** rng.integers(-20, 20, (n, d)) for n in (41, 33))
    x[0], x[1], y[1], x[2], y[2] = y[0], 0, 0, 2.0**-30, 2.0**30
    x, y = (np.where(a < 2.0**-30, 0, a).astype(dtype) for a in (x, y))
    w = np.linspace(0, 2, d, dtype=dtype) if weighted else None
    kernel = compiled.compiler(Rule(METRICS[name], METRICS[name].defaults, dtype, dtype, True, weighted=weighted))
    kernel.special.function("forward")  # a call as small as this one does not wait for it
    assert kernel.knowing(x, y, w) is kernel.special
    assert kernel.knowing(-x, y, w) is kernel.knowing(x * np.float32(1e-20), y, w) is kernel.knowing(x, y * np.nan, w) is kernel
    got = pairx.cdist(x, y, name, engine="compiled", w=w)
    a, b = x.astype(np.longdouble)[:, None], y.astype(np.longdouble)
    share, gap, both = 1 if w is None else w.astype(np.longdouble), np.abs(a - b), a + b
    with np.errstate(invalid="ignore"):
        if name == "canberra":
            want = np.sum(share * np.where(both > 0, gap / both, 0), axis=-1)
        else:
            over, under = np.sum(share * gap, axis=-1), np.sum(share * (both if name == "braycurtis" else np.maximum(a, b)), axis=-1)
            want = np.where(under > 0, over / under, 0)
    np.testing.assert_allclose(got, want.astype(float), rtol=32 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(pairx.cdist(y, x, name, engine="compiled", w=w), got.T)


@pytest.mark.parametrize("lanes", [None, 4])
@pytest.mark.parametrize("d", [7, 128, 2000])
def test_jensenshannon_of_near_rows_to_a_millionth(d: int, lanes: int | None, monkeypatch):
    """The rows are normalised in more than float32; of 4 lanes, as where no instruction picks a number from a table."""
    if lanes is not None:
        monkeypatch.setattr(jit, "lanes", lambda scalar: lanes)
        compiled._kernel.cache_clear()
    kernel = compiled.compiler(Rule(METRICS["jensenshannon"], METRICS["jensenshannon"].defaults, "float32", "float32", True))
    compiled._kernel.cache_clear()
    rng = np.random.default_rng(d)
    x = rng.random((9, d)) + 0.01
    sparse = x * (rng.random(x.shape) < 0.5)
    sparse[:, 0] = 0.3
    y = np.concatenate([3.7 * x * (1 + 1e-3 * rng.normal(size=x.shape)), sparse, rng.random((9, d))])
    x[3, ::3] = 0
    x, y = x.astype(np.float32), y.astype(np.float32)
    special = kernel.special
    assert special is not None
    got, back, alone = (np.empty(shape, np.float32) for shape in ((9, 27), (27, 9), (9, 9)))
    special.values(x, y, None, got)
    special.values(y, x, None, back)
    special.values(x, x, None, alone)
    p, q = (a.astype(np.longdouble) / a.sum(-1, keepdims=True, dtype=np.longdouble) for a in (x[:, None], y))
    with np.errstate(all="ignore"):
        terms = [np.where(a == 0, 0, a * np.log(2 * a / (p + q))) for a in (p, q)]
    want = np.sqrt(np.sum(terms[0] + terms[1], axis=-1) / 2)
    assert np.all(np.abs(got - want) <= 1e-6 * want), np.max(np.abs(got - want) / want)
    np.testing.assert_array_equal(back.T, got)
    np.testing.assert_array_equal(alone, alone.T)
    np.testing.assert_array_equal(np.diagonal(alone), 0)


def test_pieces_of_jensen_against_their_function():
    s = np.linspace(1e-3, 1, 4001)[:-1]
    place = np.minimum(np.round(known.STEPS * s), 3).astype(int)
    assert set(place) == {0, 1, 2, 3}
    got = np.array([np.polynomial.Polynomial(known.pieces()[i])(known.STEPS * v) for i, v in zip(place, s, strict=True)])
    got += np.where(place == 3, (1 - s) * np.log(1 - s) / (2 * s), 0)
    u = s / (2 - s)  # of a = 1 and b = 1 - s
    want = (2 - s) * (np.log1p(-u * u) + u * (np.log1p(u) - np.log1p(-u))) / (4 * s)
    np.testing.assert_allclose(got, want, rtol=3e-7)


@pytest.mark.parametrize("name", ["kl_divergence", "jensenshannon", "hamming", "canberra", "braycurtis"])
def test_what_is_known_is_asked_of_the_whole_call(name: str):
    """A single number out of the ordinary: every tile takes the general kernel, whatever the tiles are."""
    x, y = histograms("dense", (150, 30), 1), histograms("dense", (131, 30), 2)
    x[140, 7] = {"hamming": math.nan, "canberra": -0.5, "braycurtis": -0.5}.get(name, 1e-30)
    want = pairx.cdist(x, y, name, engine="compiled")
    for threads in (1, 3):
        with pairx.options(threads=threads, max_bytes="40kB", engine="compiled"):
            np.testing.assert_array_equal(pairx.cdist(x, y, name), want)
    array = pairx.cdist(x, y, name, engine="array")
    np.testing.assert_allclose(want, array, rtol=2e-6, atol=2e-6)  # the terms have either sign, and are up to 1


# --- elementary functions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scalar", ["float", "double"])
@pytest.mark.parametrize("function", ["log", "log1p", "exp", "pow", "cbrt", "atanh", "log_ratio", "two_entropies"])
def test_elementary_functions(function: str, scalar: str):
    """To a few units in the last place against the long double, and the edges."""
    dtype = np.dtype("float32" if scalar == "float" else "float64")
    info = np.finfo(dtype)
    wide = np.longdouble
    rng = np.random.default_rng(0)
    edges = [0.0, 1.0, math.inf, math.nan, info.max, info.tiny, float(info.smallest_subnormal), 0.5, 2.0, 1 + info.eps, 1 - info.eps]
    x = np.concatenate([np.exp(rng.uniform(np.log(info.tiny), np.log(info.max), 4000)), rng.uniform(0, 2, 4000), edges]).astype(dtype)
    exponent, units = 0.3, {"cbrt": 1.0, "atanh": 4.0, "two_entropies": 8.0}.get(function, 2.5)
    if function == "log_ratio":
        x = x[~(x <= 0)]
    if function in ("atanh", "two_entropies"):
        x = np.concatenate([rng.uniform(-1, 1, 4000), rng.normal(size=2000) * 1e-3, [0.0, math.nan, 0.5, 0.17, -0.17]]).astype(dtype)
        x = x[~(np.abs(x) >= 1)]
    if function in ("log1p", "exp"):
        x = np.concatenate([x, -rng.uniform(0, 1, 2000), -x[:2000], rng.normal(size=2000) * 1e-3]).astype(dtype)
    graph = trace.Scalars()
    a = graph.input("a")
    made = {"pow": lambda: a**exponent, "cbrt": lambda: a ** (1 / 3), "log_ratio": lambda: graph.log_ratio(a, 1.1)}
    node = made.get(function, lambda: getattr(graph, function)(a))()
    code = emit.Code(scalar, jit.lanes(scalar))
    names = definition.Slots("n", "x", "out")
    n, source, out = names.read(code, "n"), names.read(code, "x", "ptr"), names.read(code, "out", "ptr")
    with code.loop("0", n, code.lanes) as i:
        (value,) = code.expressions([node], {"a": code.load(code.at(source, i), code.vector, 4)})
        code.store(value, code.vector, code.at(out, i), 4)
    code.do("ret i64 0")
    run = jit.build(emit.module([code], [code.function("apply", "ptr %a", "i64")]), "apply", function)
    padded = np.full(-(-len(x) // 16) * 16, 0.5, dtype)
    padded[: len(x)] = x
    got = np.empty_like(padded)
    run(np.array([len(padded), padded.ctypes.data, got.ctypes.data], np.int64).ctypes.data)
    with np.errstate(all="ignore"):
        v, tenth = padded.astype(wide), wide(dtype.type(1.1))
        exact = {
            "pow": lambda: v ** wide(exponent),
            "atanh": lambda: np.arctanh(v),
            "log_ratio": lambda: np.log(v / tenth),
            "two_entropies": lambda: np.where(v == 0, 0, np.log1p(-v * v) + v * (np.log1p(v) - np.log1p(-v))),
        }.get(function, lambda: getattr(np, function)(v))()
        want = exact.astype(dtype)
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= units * np.spacing(np.abs(want)))
    assert same.all(), list(zip(padded[~same][:5], got[~same][:5], want[~same][:5], strict=True))


# --- plan and cache -----------------------------------------------------------------------------------------------------


def test_explain_names_the_engine_and_whether_it_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("PAIRX_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setattr(jit, "_KEPT", {})
    compiled._kernel.cache_clear()
    x = np.zeros((3000, 40), np.float32)
    plan = pairx.explain(pairx.gram, x, kernel="laplacian", gamma=0.123)
    assert plan.engine == "compiled"
    assert "compiled at this call" in plan.reason
    pairx.gram(x[:3], kernel="laplacian", gamma=0.123, engine="compiled")
    assert "compiled at this call" not in pairx.explain(pairx.gram, x, kernel="laplacian", gamma=0.123).reason


def test_a_tiny_call_does_not_wait_for_the_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PAIRX_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setattr(jit, "_KEPT", {})
    compiled._kernel.cache_clear()
    assert pairx.explain(pairx.gram, np.zeros((3, 4)), kernel="laplacian", gamma=0.456).engine == "array"


@pytest.mark.parametrize("name", ["hellinger", "kl_divergence", "euclidean"])
def test_a_budget_is_enough_whether_or_not_the_code_is_there(name):
    """The compiled engine packs rows, and for hellinger it needs more for that than the array engine for its differences."""
    x, y = samples("nonnegative", (3, 6)), samples("nonnegative", (2, 6), seed=1)
    want = pairx.cdist(x, y, name, engine="compiled")
    for engine in ("array", "compiled"):
        with pytest.raises(ValueError, match=r"needs \d+ bytes") as refused:
            pairx.cdist(x, y, name, engine=engine, max_bytes=1)
        least = int(re.search(r"needs (\d+) bytes", str(refused.value))[1])
        np.testing.assert_allclose(pairx.cdist(x, y, name, max_bytes=least), want, atol=1e-12)


def fresh(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False)


CALL = (
    "import numpy as np, pairx, logging; logging.basicConfig(level=10); "
    "print(pairx.cdist(np.eye(3), metric='cityblock', engine='compiled').sum())"
)


def test_compiled_code_outlives_the_process(tmp_path):
    first, second = (fresh(CALL, PAIRX_CACHE_DIR=str(tmp_path / "c")) for _ in range(2))
    assert first.stdout == second.stdout == "12.0\n", first.stderr
    assert first.stderr.count("compiling cityblock for float64 (forward)") == 1
    assert "compiling" not in second.stderr


def test_a_damaged_file_is_compiled_again(tmp_path):
    fresh(CALL, PAIRX_CACHE_DIR=str(tmp_path))
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-7] + b"garbage")
    again = fresh(CALL, PAIRX_CACHE_DIR=str(tmp_path))
    assert again.stdout == "12.0\n"
    assert "compiling cityblock" in again.stderr


@pytest.mark.skipif(sys.platform == "win32" or os.environ.get("USER") == "nobody", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_written_or_is_not_ours(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    for folder in (blocked, shared, Path("/proc/nothing")):
        done = fresh(CALL, PAIRX_CACHE_DIR=str(folder))
        assert done.stdout == "12.0\n", done.stderr
    assert not list(shared.iterdir())


def test_many_processes_at_once(tmp_path):
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: fresh(CALL, PAIRX_CACHE_DIR=str(tmp_path)), range(6)))
    assert [d.stdout for d in done] == ["12.0\n"] * 6
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".part")]


def test_the_key_knows_processor_and_compiler(monkeypatch):
    before = jit.key("text")
    monkeypatch.setattr(jit, "features", lambda: "+other")
    assert jit.key("text") != before


def test_without_numba_everything_works():
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('llvmlite', 'numba'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n in ('llvmlite', 'numba') else real(n, *a)\n"
        "import numpy as np, pairx\n"
        "x = np.ones((2000, 64))\n"
        "print(pairx.explain(pairx.cdist, x, metric='cityblock').engine, pairx.cdist(x[:9], metric='cityblock').sum())\n"
        "try: pairx.cdist(x[:3], metric='cityblock', engine='compiled')\n"
        "except ValueError as e: print(e)\n"
    )
    done = fresh(code)
    lines = done.stdout.splitlines()
    assert lines[0] == "array 0.0", done.stderr
    assert "pairx[jit]" in lines[1]


def test_the_first_compilation_says_so_once(caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("PAIRX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit, "_KEPT", {})
    compiled._kernel.cache_clear()
    x = np.ones((3, 5))
    with caplog.at_level(logging.DEBUG, "pairx"):
        for gamma in (0.1, 0.1, 0.7):  # one kernel serves all its values
            pairx.gram(x, kernel="laplacian", gamma=gamma, engine="compiled")
    assert [r.message for r in caplog.records].count("pairx: compiling laplacian for float64 (forward)") == 1


@pytest.mark.parametrize("shape", [(2000, 2000), (2500, 900), (3, 700, 800), (1, 5000), (5000, 1)])
def test_each_thread_takes_as_many_tiles(shape: tuple[int, ...]):
    x, y = np.zeros((*shape[:-1], 8), np.float32), np.zeros((*shape[:-2], shape[-1], 8), np.float32)
    for threads in (2, 3, 4):
        with pairx.options(threads=threads, engine="compiled"):
            plan = pairx.explain(pairx.cdist, x, y, "cityblock")
        assert plan.blocks == 1 or plan.blocks % threads == 0 or plan.blocks >= 8 * threads
        assert plan.threads == min(threads, plan.blocks)
        assert plan.scratch_bytes <= plan.max_bytes


# --- threads, processes, signals ----------------------------------------------------------------------------------------


def test_ten_thousand_calls_from_eight_threads_leak_nothing():
    x = np.random.default_rng(0).random((24, 8))
    want = pairx.cdist(x, metric="cityblock", engine="compiled")
    wrong = []

    def work() -> None:
        for _ in range(1250):
            if not np.array_equal(pairx.cdist(x, metric="cityblock", engine="compiled"), want):
                wrong.append(1)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if Path("/proc/self/statm").exists() else 0

    def all_threads() -> None:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    work()
    before = resident()
    all_threads()
    assert not wrong
    assert resident() - before < 16 << 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork():
    code = (
        "import os, numpy as np, pairx\n"
        "x = np.random.default_rng(0).random((700, 33), dtype=np.float32)\n"
        "call = lambda: pairx.cdist(x, metric='canberra', engine='compiled', max_bytes='1MB')\n"
        "with pairx.options(threads=3):\n"
        "    want = call()\n"
        "    pid = os.fork()\n"
        "    same = bool((call() == want).all())\n"
        "    if pid == 0: os._exit(0 if same else 3)\n"
        "    print(same, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert fresh(code).stdout == "True 0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT between processes")
def test_ctrl_c_returns_within_a_tile():
    code = (
        "import numpy as np, pairx, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "x = np.random.default_rng(0).random((20000, 400))\n"
        "pairx.cdist(x[:9], metric='jensenshannon', engine='compiled')\n"
        "print('ready', flush=True)\n"
        "try:\n    pairx.cdist(x, metric='jensenshannon', engine='compiled')\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "interrupted"


def test_half_precision_is_summed_in_float32():
    x = np.full((2, 4096), 0.1, np.float16)
    x[1] = 0.2
    got = pairx.cdist(x, metric="cityblock", engine="compiled")
    assert got.dtype == np.float16
    exact = float(abs(x[0].astype(float) - x[1].astype(float)).sum())
    assert abs(float(got[0, 1]) - exact) <= np.spacing(np.float16(exact))


@pytest.mark.parametrize("form", ["strided", "reversed", "fortran", "readonly", "broadcast", "unaligned", "bigendian"])
def test_layouts_and_out(form: str):
    a = np.random.default_rng(0).random((21, 10))
    x = {
        "strided": lambda: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        "reversed": lambda: a[::-1, ::-1].copy()[::-1, ::-1],
        "fortran": lambda: np.asfortranarray(a),
        "readonly": lambda: np.frombuffer(a.tobytes()).reshape(a.shape),
        "broadcast": lambda: np.broadcast_to(a[:1], a.shape),
        "unaligned": lambda: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(np.float64).reshape(a.shape),
        "bigendian": lambda: a.astype(">f8"),
    }[form]()
    want = pairx.cdist(np.array(x, "=f8"), metric="cityblock", engine="array")
    for out in (None, np.empty((21, 21)), np.empty((21, 21), order="F"), np.empty((42, 63))[::2, ::3]):
        got = pairx.cdist(x, metric="cityblock", engine="compiled", out=out)
        np.testing.assert_allclose(got, want, rtol=1e-14)
        assert out is None or got is out


def test_derivatives_of_expressions():
    """Each rule of the reverse sweep against a central difference."""
    graph = trace.Scalars()
    a, b = graph.input("a"), graph.input("b")
    expressions = [
        a + b, a - b, a * b, a / b, -a, abs_ := graph.abs(a - b), graph.sqrt(a), graph.exp(a), graph.log(a), graph.log1p(a), graph.sin(a),
        graph.cos(a), graph.tanh(a), graph.atan2(a, b), a**2.5, a**1.3, graph.maximum(a, b), graph.minimum(a, b), graph.clip(a, 0.0, 0.5),
        graph.where(a < b, a * a, b), abs_ * abs_,
    ]  # fmt: skip
    for u, v in ((0.3, 0.7), (0.9, 0.4)):
        for e in expressions:
            got = trace.evaluate(trace.derivatives(e, [a, b]), a=u, b=v)
            h = 1e-6
            up, down = (trace.evaluate([e], a=u + s, b=v)[0] for s in (h, -h))
            left, right = (trace.evaluate([e], a=u, b=v + s)[0] for s in (h, -h))
            np.testing.assert_allclose(got, [(up - down) / (2 * h), (left - right) / (2 * h)], rtol=1e-6, atol=1e-8, err_msg=e.op)


def test_a_definition_may_not_branch_on_a_value():
    a = trace.Scalars().input("a")
    with pytest.raises(TypeError, match=r"xp\.where"):
        bool(a > 0)


def test_every_row_that_says_so_can_be_compiled():
    for row in STREAMING:
        d = width(row, 4)
        for given in parameters(row, d):
            if given or row.name not in ("seuclidean",):
                all_pairs(
                    row, samples(row.domain, (3, d), "float64", 1), samples(row.domain, (2, d), "float64", 2), engine="compiled", **given
                )
    with pytest.raises(ValueError, match="'cosine' is not compiled"):
        pairx.cdist(np.eye(3), metric="cosine", engine="compiled")
    with pytest.raises(ValueError, match="row by row"):
        pairx.paired(np.eye(3), np.eye(3), metric="cityblock", engine="compiled")
    assert METRICS["cityblock"].engines == ("array", "compiled")


# --- functions that the caller has compiled -----------------------------------------------------------------------------


@pytest.mark.backends("numpy", "torch", "tensorflow", "jax")
def test_a_function_of_numba_is_called_from_a_compiled_loop(backend: Adapter):
    numba = pytest.importorskip("numba")

    @numba.njit
    def largest_gap(u, v):
        found = 0.0
        for k in range(u.shape[0]):
            found = max(found, abs(u[k] - v[k]))
        return found

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 300, 7)), rng.normal(size=(200, 7))
    a, b = backend.asarray(x, "float64"), backend.asarray(y, "float64")
    got = pairx.cdist(a, b, largest_gap)
    assert backend.is_own(got)
    np.testing.assert_array_equal(backend.to_numpy(got), np.abs(x[:, :, None] - y).max(-1))
    np.testing.assert_array_equal(
        backend.to_numpy(pairx.pdist(b, largest_gap)), backend.to_numpy(pairx.pdist(b, "chebyshev", engine="array"))
    )
    if backend.autodiff:  # the loop has no gradient, and must not swallow it
        assert backend.grad(lambda u: backend.sum(pairx.cdist(u, u[:1], lambda p, q: backend.sum(abs(p - q)))), y[:3]) is not None
