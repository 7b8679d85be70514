"""Every loss on every library: values, reductions, gradients, edges. Walks the table; references stand in reference_*.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from loss_cases import (
    CONSTANTS,
    INPUTS,
    MAGNITUDES,
    REFERENCES,
    Case,
    case,
    edges,
    expected,
    magnitudes,
    masses,
    multiplies,
    sized,
    variants,
)
from loss_outcomes import EPS, GOOD, bring, call, outcome

from pairx.losses import LOSSES

NAMES = sorted(LOSSES)
SMOOTH = [n for n in NAMES if LOSSES[n].differentiable]
PAIRS = [n for n in NAMES if LOSSES[n].pairs]
EACH = [pytest.param(n, v, id=f"{n}-{i}") for n in NAMES for i, v in enumerate(variants(n))]
EACH_SMOOTH = [pytest.param(n, v, id=f"{n}-{i}") for n in SMOOTH for i, v in enumerate(variants(n))]
EACH_EDGE = [pytest.param(n, e, id=f"{n}-{e.replace(' ', '-')}") for n in NAMES for e in edges(n)]
EACH_MAGNITUDE = [
    pytest.param(n, v, m, id=f"{n}-{i}-{m.replace(' ', '-')}")
    for n in NAMES
    for i, v in enumerate(variants(n))
    for m in magnitudes(n)
    if m in MAGNITUDES[:2] or multiplies(n, v)
]
REPRESENTATIVE = ("supcon", "contrastive", "info_nce", "triplet_batch_all", "arcface", "kl_divergence", "nuclear")
"""One of each kind, for libraries that compile each call; ``nox -s losses`` runs all."""
BUDGETS = {"fast_ap": 8192, "histogram": 32768}
"""max_bytes for blocks of a few anchors; 4096 where nothing else stands here. Histograms need several numbers for each candidate."""
LIBRARIES = ("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")
pytestmark = pytest.mark.backends(*LIBRARIES)


def close(got: Any, want: Any, dtype: str, what: str, factor: float = 64.0) -> None:
    """Relative to the largest expected value, in units of the dtype's eps."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=what)
    scale = max(1.0, np.abs(want[finite]).max(initial=0))
    worst = np.abs(got[finite] - want[finite]).max(initial=0)
    assert worst <= factor * EPS[dtype] * scale, f"{what}: off by {worst:.3g}, allowed {factor * EPS[dtype] * scale:.3g}"


def test_the_table_is_whole():
    assert set(NAMES) == set(REFERENCES), "a loss without a reference, or a reference without a loss"
    assert {row.inputs for row in LOSSES.values()} <= set(INPUTS)
    for row in LOSSES.values():
        assert "Examples" in (row.function.__doc__ or ""), row.name
        assert all((row.unit, row.mean, row.formula, row.source)), row.name


@pytest.mark.brief_cases("-0")
@pytest.mark.parametrize("name, variant", EACH)
@pytest.mark.dtypes("float64", "float32")
@pytest.mark.brief("float32")
def test_values(backend: Adapter, dtype: str, name: str, variant: dict[str, Any]):
    given = case(name)
    rounded = Case({k: v.astype(dtype).astype(float) for k, v in given.arrays.items()}, given.given)
    values, active, divisor = expected(name, rounded, variant)
    got = call(backend, name, given, variant, dtype, reduction="none")
    assert backend.is_own(got) or isinstance(got, np.generic), "NumPy answers scalars where the batch is the unit"
    assert backend.dtype_of(got) == dtype
    close(backend.to_numpy(got), np.where(active, values, 0), dtype, "none")
    close(backend.to_numpy(call(backend, name, given, variant, dtype, reduction="sum")), values[active].sum(), dtype, "sum", 256)
    mean, count = call(backend, name, given, variant, dtype, return_count=True)
    close(backend.to_numpy(mean), values[active].sum() / divisor, dtype, "mean")
    assert int(backend.to_numpy(count)) == active.sum()


@pytest.mark.brief_cases(*(f"-{n}" for n in REPRESENTATIVE))
@pytest.mark.parametrize("name", NAMES)
def test_weights(backend: Adapter, name: str):
    given = case(name)
    values, active, mass = masses(name, given, {})
    w = np.asarray(np.random.default_rng(1).uniform(0.5, 2, values.shape))
    if w.size > 1:
        w.reshape(-1)[:1] = 0
    own = bring(backend, w) if w.ndim else float(w)
    part = np.where(active, w, 0)
    close(
        backend.to_numpy(call(backend, name, given, {}, "float64", reduction="none", weights=own)),
        np.where(active, values, 0) * part,
        "float64",
        "none",
    )
    mean = (np.where(active, values, 0) * part).sum() / (part * mass if np.ndim(mass) else part).sum()
    close(backend.to_numpy(call(backend, name, given, {}, "float64", weights=own)), mean, "float64", "mean")
    wrong = backend.asarray(np.ones((*values.shape, 2)))
    with pytest.raises(ValueError, match="weights has shape"):
        call(backend, name, given, {}, "float64", weights=wrong)


@pytest.mark.brief_cases(*(f"-{n}" for n in REPRESENTATIVE))
@pytest.mark.parametrize("name", PAIRS)
def test_any_budget(backend: Adapter, name: str):
    """Blocks of a few anchors give what one block gives."""
    given = case(name)
    whole = backend.to_numpy(call(backend, name, given, {}, "float64", reduction="none"))
    budget = BUDGETS.get(name, 4096)
    small = backend.to_numpy(call(backend, name, given, {}, "float64", reduction="none", max_bytes=budget))
    close(small, whole, "float64", "blocks")
    total = backend.to_numpy(call(backend, name, given, {}, "float64", reduction="sum", max_bytes=budget))
    close(total, whole.sum(), "float64", "sum of blocks")


@pytest.mark.brief_cases(*(f"-{n}-0" for n in REPRESENTATIVE))
@pytest.mark.parametrize("name, variant", EACH_SMOOTH)
@pytest.mark.autodiff
def test_gradients(backend: Adapter, name: str, variant: dict[str, Any]):
    """Against central differences of the reference."""
    given = case(name, seed=3)
    names = list(given.arrays)
    constants = CONSTANTS[name](given) if name in CONSTANTS else {}

    def reference(arrays: dict[str, np.ndarray]) -> float:
        values, active, divisor = expected(name, Case(arrays, given.given), {**variant, **constants})
        return float(values[active].sum() / divisor) if divisor else 0.0

    wanted = []
    for k in names:
        slope = np.zeros_like(given.arrays[k], dtype=float)
        for at in np.ndindex(slope.shape):
            h = 3e-6
            sides = []
            for step in (1, -1, 2, -2):  # of order h^4: losses as steep as a temperature of 0.01 makes them
                moved = {n: v.astype(float).copy() for n, v in given.arrays.items()}
                moved[k][at] += step * h
                sides.append(reference(moved))
            slope[at] = (8 * (sides[0] - sides[1]) - (sides[2] - sides[3])) / (12 * h)
        wanted.append(slope)
    rest = {k: bring(backend, v) for k, v in {**given.given, **variant}.items()}
    budgets: tuple[int | None, ...] = (None, BUDGETS.get(name, 4096)) if LOSSES[name].pairs else (None,)
    for budget in budgets:
        more = {} if budget is None else {"max_bytes": budget}
        got = backend.grad(
            lambda *a, more=more: LOSSES[name].function(**dict(zip(names, a, strict=True)), **rest, **more), *given.arrays.values()
        )
        assert got is not None
        for k, g, w in zip(names, got, wanted, strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=2e-8 * max(1.0, np.abs(w).max(initial=0)), err_msg=f"{k}, max_bytes={budget}")


@pytest.mark.brief_cases(*(f"-{n}" for n in REPRESENTATIVE))
@pytest.mark.parametrize("name", [n for n in SMOOTH if n not in CONSTANTS])
@pytest.mark.autodiff
def test_second_order(backend: Adapter, name: str):
    """The Hessian along a direction against differences of the gradient, which test_gradients compares with the reference."""
    given = case(name, seed=3)
    names, arrays = list(given.arrays), [v.astype(float) for v in given.arrays.values()]
    rng = np.random.default_rng(7)
    along = [rng.normal(size=v.shape) for v in arrays]
    rest = {k: bring(backend, v) for k, v in given.given.items()}

    def function(*a: Any) -> Any:
        return LOSSES[name].function(**dict(zip(names, a, strict=True)), **rest)

    h = 1e-5
    sides = [backend.grad(function, *(v + s * h * u for v, u in zip(arrays, along, strict=True))) or [] for s in (1, -1, 2, -2)]
    want = [(8 * (a - b) - (c - d)) / (12 * h) for a, b, c, d in zip(*sides, strict=True)]
    got = backend.curvature(function, arrays, along)
    assert got is not None
    for k, g, w in zip(names, got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=1e-7 * max(1.0, np.abs(w).max(initial=0)), err_msg=k)


KINKS = ("histogram", "triplet_angular", "schatten", "spectral")
"""A hinge or a count of bins: at an edge they have slopes on both sides that differences may take for a curve."""
THROUGH_DISTANCES = ("cosine", "signal_to_noise")
"""Defined by a distance, whose slope is 0 at equal rows and stays so: docs/losses.md, At the edges."""
SINGULAR = ("nuclear", "schatten", "spectral")
"""Second derivatives of singular values need distinct ones above 0 (:func:`pairx.matrix_norm`)."""
EACH_CURVE = [
    pytest.param(n, e, id=f"{n}-{e.replace(' ', '-')}")
    for n in SMOOTH
    for e in edges(n)
    if not (n in SINGULAR and e in ("equal rows", "zero vectors", "rank one"))
]


@pytest.mark.brief_cases(
    "supcon-equal-rows", "n_pair-duplicates", "huber-equal-rows", "focal-certain-and-wrong", "-nca-one-class", "contrastive-zero-vectors"
)
@pytest.mark.parametrize("name, edge", EACH_CURVE)
@pytest.mark.autodiff
def test_second_order_at_edges(backend: Adapter, name: str, edge: str):
    """Finite; and where differences of the gradient agree with each other, so that the loss is smooth there, what they are."""
    given = edges(name)[edge]()
    names, arrays = list(given.arrays), [v.astype(float) for v in given.arrays.values()]
    rng = np.random.default_rng(7)
    along = [rng.normal(size=v.shape) for v in arrays]
    rest = {k: bring(backend, v) for k, v in given.given.items()}

    def function(*a: Any) -> Any:
        return LOSSES[name].function(**dict(zip(names, a, strict=True)), **rest)

    got = backend.curvature(function, arrays, along)
    assert got is not None
    assert all(np.isfinite(g).all() for g in got), [np.isnan(g).any() for g in got]
    if name in (*KINKS, *THROUGH_DISTANCES, *CONSTANTS) or edge in ("tiny", "huge", "no rows"):
        return
    wants = []
    for h in (1e-5, 5e-6, 1e-6):
        sides = [backend.grad(function, *(v + s * h * u for v, u in zip(arrays, along, strict=True))) or [] for s in (1, -1)]
        wants.append([(p - q) / (2 * h) for p, q in zip(*sides, strict=True)])
    size = max(1.0, *(np.abs(w).max(initial=0) for w in wants[0]))
    if all(np.abs(w - v).max(initial=0) < 1e-4 * size for other in wants[1:] for w, v in zip(wants[0], other, strict=True)):
        for k, g, w in zip(names, got, wants[0], strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-3 * size, err_msg=k)


@pytest.mark.brief_cases("-no-positives", "-one-zero-vector", "-no-rows", "-zeros-against-mass")
@pytest.mark.parametrize("name, edge", EACH_EDGE)
@pytest.mark.dtypes("float64", "float32", "float16", "bfloat16")
@pytest.mark.brief("float32")
def test_edges(backend: Adapter, dtype: str, name: str, edge: str):
    """Finite where the exact value is representable, else inf; never NaN; gradients too."""
    if dtype == "float16" and edge in ("tiny", "huge"):
        pytest.skip("beyond float16")
    found = outcome(backend, name, edges(name)[edge](), dtype)
    assert found in GOOD, f"{name}, {edge}, {dtype}: {found}"


@pytest.mark.brief_cases("n_pair-0-1e30", "n_pair-0-an-array-of-1e17", "linear_cross_entropy-0-a-row-of-1e25")
@pytest.mark.parametrize("name, variant, magnitude", EACH_MAGNITUDE)
@pytest.mark.dtypes("float32")
def test_magnitudes(backend: Adapter, dtype: str, name: str, variant: dict[str, Any], magnitude: str):
    """Every variant far from 1, against the reference in float64: what overflows is inf, never a finite number."""
    found = outcome(backend, name, sized(name, magnitude), dtype, variant=variant)
    assert found in GOOD, f"{name}, {variant}, {magnitude}: {found}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.jit
def test_compiled(backend: Adapter, name: str):
    given = case(name)
    names = list(given.arrays)
    rest = {k: bring(backend, v) for k, v in given.given.items()}
    function = backend.jit(lambda *a: LOSSES[name].function(**dict(zip(names, a, strict=True)), **rest))
    assert function is not None
    arrays = [backend.asarray(v, "float64") for v in given.arrays.values()]
    want = call(backend, name, given, {}, "float64")
    close(backend.to_numpy(function(*arrays)), backend.to_numpy(want), "float64", "compiled")


PRODUCTS: dict[str, dict[str, Any]] = {
    "n_pair": {},
    "linear_cross_entropy": {},
    "supcon": {"similarity": "dot"},
    "triplet_batch_hard": {"similarity": "dot"},
    "proxy_nca": {"metric": "sqeuclidean"},
}
"""One of each way in which a loss compares products."""


@pytest.mark.brief_cases("-n_pair", "-linear_cross_entropy", "-proxy_nca")
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.jit
def test_products_that_overflow_when_traced(backend: Adapter, name: str):
    """Nobody can look at the values and compute wider: the answer is inf, and as ever where they fit."""
    names = list(case(name).arrays)
    rest = {k: bring(backend, v) for k, v in {**case(name).given, **PRODUCTS[name]}.items()}
    function = backend.jit(lambda *a: LOSSES[name].function(**dict(zip(names, a, strict=True)), **rest))
    assert function is not None
    usual = backend.to_numpy(call(backend, name, case(name), PRODUCTS[name], "float32"))
    for given, want in ((sized(name, "1e30"), np.inf), (case(name), usual)):
        got = backend.to_numpy(function(*(backend.asarray(v, "float32") for v in given.arrays.values())))
        close(got, want, "float32", name)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.brief_cases("-n_pair")
def test_products_that_overflow_in_float64(backend: Adapter, name: str):
    """There is nothing wider: inf, without NaN in the gradient; in one block and in several."""
    given = case(name)
    given = Case({k: v * 1e200 for k, v in given.arrays.items()}, given.given)
    assert np.isposinf(float(backend.to_numpy(call(backend, name, given, PRODUCTS[name], "float64"))))
    if backend.autodiff:
        rest = {k: bring(backend, v) for k, v in {**given.given, **PRODUCTS[name]}.items()}
        found = []

        def small(*a: Any) -> Any:
            found.append(LOSSES[name].function(**dict(zip(given.arrays, a, strict=True)), **rest, max_bytes=4096))
            return found[-1]

        slopes = backend.grad(small, *given.arrays.values())
        assert not any(np.isnan(g).any() for g in slopes or [])
        assert backend.name == "jax" or np.isposinf(float(backend.to_numpy(found[0])))  # JAX's is a tracer
