"""Machine code around a matrix product: hostile values as the array engine has them, each layout, threads, memory."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import ROWS, all_pairs, row_id, samples

import pairx
from pairx import calls
from pairx.engine import Rule
from pairx.metrics import METRICS, Metric

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

from pairx_backends.compiled import finish

PRODUCTS = [r for r in ROWS if r.product == "dot" and r.domain != "complex" and r.name != "sigmoid"]
"""Complex products have nothing after them, and NumPy's tanh is faster than the C library's."""
CALLS = {"distance": pairx.cdist, "kernel": pairx.gram, "similarity": pairx.similarity}
SMALL, LARGE = 19, 300
"""Features of this engine's own products, and of the library's."""


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch):
    """For a call of any size."""
    monkeypatch.setattr(calls, "FINISH_FROM", 0)
    monkeypatch.setattr(calls, "COMPILE_FROM", 0)


def hostile(row: Metric, dtype: str, n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if row.domain == "boolean":
        x = (rng.random((n, d)) < 0.5).astype(float)
        x[2] = x[5] = 0
        x[3] = 1
    else:
        x = rng.normal(size=(n, d))
        x[2] = x[5] = 0.0
        x[3], x[4] = 2.5, -0.0
        if row.kind != "kernel":
            x[6] *= 1e30 if dtype != "float16" else 1e3
            x[7] *= 1e-30
            x[8, 0], x[9, d // 2], x[10, -1] = math.nan, math.inf, -math.inf
    x[11] = x[12]
    return x.astype(dtype)


def in_machine_code(row: Metric, x: Any, y: Any, **given: Any) -> Any:
    plan = pairx.explain(CALLS[row.kind], x, y, row.name, **given)
    assert plan.reason.endswith("the rest in machine code"), plan
    return all_pairs(row, x, y, **given)


def agree(got: np.ndarray, want: np.ndarray, work: float, what: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = 64 * work * np.maximum(1.0, np.abs(want.astype(float))) + np.finfo(want.dtype).eps * np.abs(want)
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got.astype(float) - want) <= allowed)
    assert same.all(), f"{what}: {got[~same][:4]} instead of {want[~same][:4]} at {np.argwhere(~same)[:4].tolist()}"


@pytest.mark.parametrize("d", [SMALL, LARGE])
@pytest.mark.parametrize("row", PRODUCTS, ids=row_id)
@pytest.mark.dtypes("float64", "float32", "float16")
@pytest.mark.backends("numpy", "torch", "tensorflow", "jax")
def test_hostile_values_are_those_of_the_array_engine(backend: Adapter, dtype: str, row: Metric, d: int):
    x, y = hostile(row, dtype, 45, d, 1), hostile(row, dtype, 150, d, 2)
    work = float(np.finfo("float64" if dtype == "float64" else "float32").eps) * (d if row.name == "polynomial" else 1)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    w = np.random.default_rng(3).integers(0, 3, d).astype(dtype)
    for weights in (None, w):
        for zero in ("finite", "scipy") if "zero" in row.defaults and row.kind == "distance" else (None,):
            given = {k: v for k, v in (("w", None if weights is None else backend.asarray(w, dtype)), ("zero", zero)) if v is not None}
            for other in (b, None):
                got = backend.to_numpy(in_machine_code(row, a, other, **given))
                want = backend.to_numpy(all_pairs(row, a, other, engine="array", **given))
                agree(got, want, work, f"{row_id(row)} {list(given)}")
                if other is None:
                    np.testing.assert_array_equal(got, got.T)
                    if row.zero_self:
                        assert np.all((np.diagonal(got) == 0) | np.isnan(np.diagonal(got)))


@pytest.mark.parametrize("row", [r for r in PRODUCTS if r.domain == "boolean"], ids=row_id)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float64"])
def test_counts_are_exact(row: Metric, dtype: str):
    """Whole numbers have no rounding, though they are summed in float32: the bits are those of float64."""
    x, y = (samples("boolean", (n, 70), "float64", n).astype(dtype) for n in (37, 53))
    want = pairx.cdist(x, y, row.name, engine="array")
    got = in_machine_code(row, x, y)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=4e-16, atol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (2, 33, 1), (5, 4, 17), (3, 65, 300), (130, 129, 8), (3, 4, 0)])
@pytest.mark.parametrize("row", PRODUCTS, ids=row_id)
def test_odd_sizes(row: Metric, shape: tuple[int, int, int]):
    m, n, d = shape
    for dtype in ("float64", "float32"):
        x, y = samples(row.domain, (m, d), dtype, 1), samples(row.domain, (n, d), dtype, 2)
        work = float(np.finfo(dtype).eps) * max(d, 1)
        agree(in_machine_code(row, x, y), all_pairs(row, x, y, engine="array"), work, row_id(row))
        agree(in_machine_code(row, x, None), all_pairs(row, x, None, engine="array"), work, row_id(row))


@pytest.mark.parametrize("d", [SMALL, LARGE])
@pytest.mark.parametrize("row", PRODUCTS, ids=row_id)
@pytest.mark.backends("numpy", "torch")
def test_layouts_tiles_and_batches(backend: Adapter, row: Metric, d: int):
    x, y = samples(row.domain, (2, 1, 300, d), "float32", 1), samples(row.domain, (3, 280, d), "float32", 2)
    work = float(np.finfo("float32").eps) * (d if row.name == "polynomial" else 1)
    a, b = backend.asarray(x, "float32"), backend.asarray(y, "float32")
    want = backend.to_numpy(all_pairs(row, a, b, engine="array"))
    alone = backend.to_numpy(all_pairs(row, a, engine="array"))
    for budget in ("200kB", None):
        agree(backend.to_numpy(in_machine_code(row, a, b, max_bytes=budget)), want, work, row_id(row))
        got = backend.to_numpy(in_machine_code(row, a, None, max_bytes=budget))
        agree(got, alone, work, row_id(row))
        if row.symmetric:
            np.testing.assert_array_equal(got, np.swapaxes(got, -1, -2))
    if row.kind == "distance":
        i, j = np.triu_indices(300, 1)
        got = backend.to_numpy(pairx.pdist(a[0, 0], row.name))
        agree(got, alone[0, 0][i, j], work, row_id(row))


@pytest.mark.parametrize("name", ["cosine", "jaccard", "yule"])
@pytest.mark.parametrize("d", [SMALL, LARGE])
def test_memory_of_any_form(name: str, d: int):
    """Read-only rows that lie apart or lack alignment, and a result that is given."""
    row = METRICS[name]
    x, y = (samples(row.domain, (n, d), "float32", n) for n in (90, 70))
    want = in_machine_code(row, x, y)
    apart = np.zeros((180, 3 * d), np.float32)[::2, ::3]
    apart[...] = x
    turned = np.asfortranarray(x)
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    raw[...] = x
    for form in (apart, turned, raw, x[::-1]):
        form.flags.writeable = False
        agree(in_machine_code(row, form, y), want[::-1] if form.strides[0] < 0 else want, 2.0**-23, name)
    for out in (np.empty((90, 70), np.float32), np.empty((70, 90), np.float32).T, np.empty((90, 140), np.float32)[:, ::2]):
        assert pairx.cdist(x, y, name, out=out) is out
        np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(pairx.cdist(x, y, name, out_dtype="float16"), want.astype(np.float16))


@pytest.mark.parametrize("d", [SMALL, LARGE])
@pytest.mark.parametrize("row", PRODUCTS, ids=row_id)
def test_the_same_bits_for_any_number_of_threads(row: Metric, d: int):
    x, y = samples(row.domain, (700, d), "float32", 1), samples(row.domain, (650, d), "float32", 2)
    with pairx.options(threads=1):
        want, alone = in_machine_code(row, x, y), in_machine_code(row, x, None)
    for threads in (2, 5):
        with pairx.options(threads=threads):
            assert pairx.explain(CALLS[row.kind], x, y, row.name).threads == threads
            for _ in range(3):
                np.testing.assert_array_equal(all_pairs(row, x, y), want)
                np.testing.assert_array_equal(all_pairs(row, x), alone)


@pytest.mark.parametrize("degree", [0.5, 2, 4, 5, 7, -1])
def test_powers_of_negative_numbers(degree: float):
    """A power that machine code has only for positive numbers is left to the library."""
    x = np.linspace(-2, 2, 60).reshape(20, 3)
    given = {"degree": degree, "gamma": 0.7, "coef0": 0.1}
    got, want = (pairx.gram(x, -x, "polynomial", engine=e, **given) for e in (None, "array"))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", PRODUCTS, ids=row_id)
def test_the_rows_are_prepared_in_machine_code(row: Metric):
    rule = Rule(row, {k: 1.0 if v is None else v for k, v in row.defaults.items()}, "float32", "float32", True)
    kernel = finish.product(rule, np.matmul)
    assert isinstance(kernel, finish.Product)
    assert kernel.preparation is not None or not kernel.prepared


@pytest.mark.parametrize("name", ["cosine", "jaccard"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("call", ["two sets", "one set", "pdist", "bool"])
def test_scratch_is_as_planned(name: str, weighted: bool, call: str):
    pytest.importorskip("memray", reason="memray measures the peak")
    from pairx_backends.numpy.measure import peak_bytes

    domain, budget = METRICS[name].domain, 4 << 20
    x, y = (samples(domain, (n, 48), "float32", 1) for n in (1500, 1400))
    if call == "bool":
        if domain != "boolean":
            pytest.skip("real numbers")
        x, y = x.astype(bool), y.astype(bool)
    args, function = ((x, y) if call in ("two sets", "bool") else (x,)), pairx.pdist if call == "pdist" else pairx.cdist
    given: dict[str, Any] = {"metric": name, "max_bytes": budget} | ({"w": np.linspace(0.5, 2, 48)} if weighted else {})
    plan = pairx.explain(function, *args, **given)
    assert plan.reason.endswith("machine code")
    assert plan.scratch_bytes <= budget
    with pairx.options(threads=3):
        function(*args, **given)
        scratch = peak_bytes(lambda: function(*args, **given)) - plan.result_bytes
    assert scratch <= plan.scratch_bytes + (1 << 20), f"{scratch} bytes of scratch, {plan.scratch_bytes} planned"
