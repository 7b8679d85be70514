"""Every row of the tables on every backend, dtype and layout, against the references."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import reference as ref
from adapters import Adapter
from samples import (
    PARAMETERS,
    ROWS,
    all_pairs,
    assert_close,
    factor_of,
    param_id,
    parameters,
    row_id,
    samples,
    scale_of,
    wanted,
    weights,
    width,
)

import pairx
from pairx.metrics import METRICS, Metric

M, N = 7, 5
DISTANCES = list(METRICS.values())
each_row = pytest.mark.parametrize("row", ROWS, ids=row_id)
each_distance = pytest.mark.parametrize("row", DISTANCES, ids=row_id)


def data(
    row: Metric, dtype: str, m: tuple[int, ...] = (M,), n: tuple[int, ...] = (N,), zeros: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    d = width(row)
    return samples(row.domain, (*m, d), dtype, 1, zeros), samples(row.domain, (*n, d), dtype, 2, zeros)


def native_parameters(backend: Adapter, given: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Array parameters as arrays of the library."""
    return {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}


def check(row: Metric, got: Any, x: np.ndarray, y: np.ndarray | None, dtype: str, backend: Adapter, **keywords: Any) -> None:
    assert backend.is_own(got), f"the result is a {type(got)}"
    assert backend.dtype_of(got) == dtype
    want = wanted(row, x, y, **keywords)
    params = {k: v for k, v in keywords.items() if k != "w"}
    scale = scale_of(row, x, x if y is None else y, want, keywords.get("w"), params)
    assert_close(backend.to_numpy(got), want, dtype, scale=scale, factor=factor_of(backend, row), what=f"{row_id(row)} {keywords}")


def test_the_references_cover_the_tables_exactly():
    assert set(ref.REFERENCE) == {(row.kind, row.name) for row in ROWS}


# --- all pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PARAMETERS, ids=param_id)
def test_cdist(backend: Adapter, dtype: str, case: tuple[Metric, int]):
    row, i = case
    given = parameters(row, width(row))[i]
    x, y = data(row, dtype)
    got = all_pairs(row, backend.asarray(x, dtype), backend.asarray(y, dtype), **native_parameters(backend, given, dtype))
    check(row, got, x, y, dtype, backend, **given)


@pytest.mark.brief("float64")
@pytest.mark.parametrize("case", [c for c in PARAMETERS if c[0].weights], ids=param_id)
@pytest.mark.dtypes("float64", "float32")
def test_weights(backend: Adapter, dtype: str, case: tuple[Metric, int]):
    row, i = case
    given, w = parameters(row, width(row))[i], weights(width(row))
    x, y = data(row, dtype)
    got = all_pairs(
        row, backend.asarray(x, dtype), backend.asarray(y, dtype), w=backend.asarray(w, dtype), **native_parameters(backend, given, dtype)
    )
    check(row, got, x, y, dtype, backend, w=w, **given)


@pytest.mark.parametrize("row", [r for r in DISTANCES if r.weights], ids=row_id)
@pytest.mark.dtypes("float32")
def test_weights_may_be_a_list(backend: Adapter, dtype: str, row: Metric):
    w = weights(width(row)).tolist()
    x, y = data(row, dtype)
    got = pairx.cdist(backend.asarray(x, dtype), backend.asarray(y, dtype), row.name, w=w)
    check(row, got, x, y, dtype, backend, w=np.asarray(w))


@pytest.mark.parametrize("row", [r for r in ROWS if not r.weights], ids=row_id)
@pytest.mark.backends("numpy")
def test_weights_where_they_make_no_sense_are_refused(backend: Adapter, row: Metric):
    x, y = data(row, "float64")
    with pytest.raises((TypeError, ValueError), match="w"):
        all_pairs(row, x, y, w=np.ones(x.shape[-1]))


@pytest.mark.brief("float32")
@each_row
def test_one_set(backend: Adapter, dtype: str, row: Metric):
    x, _ = data(row, dtype)
    got = all_pairs(row, backend.asarray(x, dtype))
    check(row, got, x, None, dtype, backend)
    values = backend.to_numpy(got)
    if row.symmetric:
        np.testing.assert_array_equal(values, values.T)
    if row.zero_self:
        np.testing.assert_array_equal(np.diagonal(values), 0)


@pytest.mark.brief("float64")
@each_row
@pytest.mark.dtypes("float64", "float32")
def test_batches_broadcast(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype, (2, 1, M), (3, N))
    got = all_pairs(row, backend.asarray(x, dtype), backend.asarray(y, dtype), **batch_parameters(row))
    assert got.shape == (2, 3, M, N)
    check(row, got, x, y, dtype, backend, **batch_parameters(row))


@each_row
@pytest.mark.dtypes("float64")
def test_batches_of_one_set(backend: Adapter, dtype: str, row: Metric):
    x, _ = data(row, dtype, (3, N), (1,))
    check(row, all_pairs(row, backend.asarray(x, dtype), **batch_parameters(row)), x, None, dtype, backend, **batch_parameters(row))


def batch_parameters(row: Metric) -> dict[str, Any]:
    """Defaults that depend on the data are tested without batches."""
    return parameters(row, width(row))[1] if row.name in ("seuclidean", "mahalanobis") else {}


@pytest.mark.layouts
@each_row
@pytest.mark.dtypes("float64", "float32")
def test_layouts(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    for name, form in backend.layouts.items():
        check(row, all_pairs(row, form(a), form(b)), x, y, dtype, backend)
        np.testing.assert_array_equal(backend.to_numpy(form(a)), x, err_msg=f"{name}: the input changed")


@pytest.mark.backends("numpy")
@pytest.mark.dtypes("float64", "float32")
def test_foreign_byte_order_is_answered_in_the_machines(backend: Adapter, dtype: str):
    x, y = data(METRICS["cityblock"], dtype)
    foreign = np.dtype(dtype).newbyteorder()
    check(METRICS["cityblock"], pairx.cdist(x.astype(foreign), y.astype(foreign), "cityblock"), x, y, dtype, backend)


# --- pdist, paired ------------------------------------------------------------------------------------------------------


@pytest.mark.brief("float32")
@each_distance
def test_pdist(backend: Adapter, dtype: str, row: Metric):
    x, _ = data(row, dtype)
    got = pairx.pdist(backend.asarray(x, dtype), row.name)
    want = wanted(row, x)
    i = np.triu_indices(M, 1)
    assert backend.is_own(got)
    assert backend.dtype_of(got) == dtype
    scale = scale_of(row, x, x, want, None, {})[i]
    assert_close(backend.to_numpy(got), want[i], dtype, scale=scale, factor=factor_of(backend, row), what=row.name)


@each_distance
@pytest.mark.dtypes("float64")
def test_pdist_batched_and_weighted(backend: Adapter, dtype: str, row: Metric):
    x, _ = data(row, dtype, (2, M), (1,))
    given = batch_parameters(row) | ({"w": weights(width(row))} if row.weights else {})
    got = pairx.pdist(backend.asarray(x, dtype), row.name, **native_parameters(backend, given, dtype))
    want = wanted(row, x, **given)
    scale = scale_of(row, x, x, want, given.get("w"), given)
    i, j = np.triu_indices(M, 1)
    assert_close(backend.to_numpy(got), want[:, i, j], dtype, scale=scale[:, i, j], factor=factor_of(backend, row), what=row.name)


@pytest.mark.brief("float32")
@each_distance
def test_paired(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype, (M,), (M,))
    given = batch_parameters(row)
    got = pairx.paired(backend.asarray(x, dtype), backend.asarray(y, dtype), row.name, **native_parameters(backend, given, dtype))
    want = wanted(row, x, y, **given)
    scale = scale_of(row, x, y, want, None, given)
    assert backend.dtype_of(got) == dtype
    assert_close(backend.to_numpy(got), np.diagonal(want), dtype, scale=np.diagonal(scale), factor=factor_of(backend, row), what=row.name)


@each_distance
@pytest.mark.dtypes("float64")
def test_paired_vectors_and_batches(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype, (2, 1, M), (3, M))
    given = batch_parameters(row) | ({"w": weights(width(row))} if row.weights else {})
    native = native_parameters(backend, given, dtype)
    want = wanted(row, x, y, **given)
    scale = scale_of(row, x, y, want, given.get("w"), given)
    rows = np.arange(M)
    got = pairx.paired(backend.asarray(x, dtype), backend.asarray(y, dtype), row.name, **native)
    assert_close(
        backend.to_numpy(got), want[..., rows, rows], dtype, scale=scale[..., rows, rows], factor=factor_of(backend, row), what=row.name
    )
    one = pairx.paired(backend.asarray(x[1, 0, 2], dtype), backend.asarray(y[2, 2], dtype), row.name, **native)
    assert one.shape == ()
    assert_close(backend.to_numpy(one), want[1, 2, 2, 2], dtype, scale=scale[1, 2, 2, 2], factor=factor_of(backend, row), what=row.name)


@pytest.mark.brief("float64")
@each_distance
@pytest.mark.dtypes("float64", "float32")
def test_chosen_pairs(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype)
    given = batch_parameters(row)
    native = native_parameters(backend, given, dtype)
    i, j = np.array([0, 6, 3, 3, 1, 0]), np.array([4, 0, 2, 2, 1, 3])
    chosen = (backend.asarray(i), backend.asarray(j))
    for other in (y, None):
        want = wanted(row, x, other, **given)
        scale = scale_of(row, x, x if other is None else y, want, None, given)[i, j]
        b = None if other is None else backend.asarray(other, dtype)
        got = pairx.paired(backend.asarray(x, dtype), b, row.name, pairs=chosen, **native)
        chosen_want = ref.reference_cdist(x, other, row.name, **given)[i, j]
        assert_close(backend.to_numpy(got), chosen_want, dtype, scale=scale, factor=factor_of(backend, row), what=row.name)


def test_squareform_both_ways(backend: Adapter, dtype: str):
    x = samples("real", (2, M, 6), dtype, 1)
    square = pairx.cdist(backend.asarray(x, dtype))
    condensed = pairx.squareform(square)
    assert condensed.shape == (2, M * (M - 1) // 2)
    np.testing.assert_array_equal(backend.to_numpy(pairx.squareform(condensed)), backend.to_numpy(square))
    i, j = np.triu_indices(M, 1)
    np.testing.assert_array_equal(backend.to_numpy(condensed), backend.to_numpy(square)[:, i, j])


# --- what must not change the numbers -----------------------------------------------------------------------------------


@pytest.mark.brief("float64")
@pytest.mark.parametrize("row", [r for r in ROWS if len(r.engines) > 1], ids=row_id)
@pytest.mark.dtypes("float64", "float32", "float16")
def test_engines_agree(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    for engine in backend.engines(row):
        check(row, all_pairs(row, a, b, engine=engine), x, y, dtype, backend)
        check(row, all_pairs(row, a, engine=engine), x, None, dtype, backend)


@each_row
@pytest.mark.dtypes("float64")
def test_an_engine_that_is_not_there_is_refused(backend: Adapter, dtype: str, row: Metric):
    x, y = data(row, dtype)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    if row.product is None and row.name != "minkowski":  # p = 2 is euclidean
        with pytest.raises(ValueError, match="native"):
            all_pairs(row, a, b, engine="native")
    with pytest.raises(ValueError, match="engine='fastest'"):
        all_pairs(row, a, b, engine="fastest")


@each_row
@pytest.mark.dtypes("float64")
def test_many_tiles(backend: Adapter, dtype: str, row: Metric):
    """A budget of a few pairs: the same numbers, summed in another order at most."""
    x, y = data(row, dtype)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    with pytest.raises(ValueError, match=r"max_bytes=1 .*needs \d+ bytes") as refused:
        all_pairs(row, a, b, max_bytes=1)
    least = int(re.search(r"needs (\d+) bytes", str(refused.value))[1])
    for budget in (least, 5 * least):
        check(row, all_pairs(row, a, b, max_bytes=budget), x, y, dtype, backend)
    if row.kind == "distance":
        many = pairx.pdist(a, row.name, max_bytes=5 * least)
        want, i = wanted(row, x), np.triu_indices(M, 1)
        scale = scale_of(row, x, x, want, None, {})[i]
        assert_close(backend.to_numpy(many), want[i], dtype, scale=scale, factor=factor_of(backend, row), what=row.name)


@each_row
@pytest.mark.dtypes("float64")
def test_many_tiles_of_one_set(backend: Adapter, dtype: str, row: Metric):
    x, _ = data(row, dtype)
    a = backend.asarray(x, dtype)
    with pytest.raises(ValueError, match="below the smallest tile") as refused:
        all_pairs(row, a, max_bytes=1)
    least = int(re.search(r"needs (\d+) bytes", str(refused.value))[1])
    got = all_pairs(row, a, max_bytes=5 * least)
    check(row, got, x, None, dtype, backend)
    values = backend.to_numpy(got)
    if row.symmetric:
        np.testing.assert_array_equal(values, values.T)


@pytest.mark.brief("float32")
@pytest.mark.parametrize("out_dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["euclidean", "cityblock", "cosine", "jaccard"])
def test_out_dtype(backend: Adapter, dtype: str, name: str, out_dtype: str):
    row = METRICS[name]
    x, y = data(row, dtype)
    native = backend.asarray(np.zeros(1), out_dtype).dtype
    got = pairx.cdist(backend.asarray(x, dtype), backend.asarray(y, dtype), name, out_dtype=native)
    assert backend.dtype_of(got) == out_dtype
    # Halves are computed in float32, and nothing is computed in fewer digits than it came with or than are asked for.
    least = "float64" if "float64" in (dtype, out_dtype) and dtype == out_dtype else "float32"
    want = wanted(row, x, y)
    assert_close(backend.to_numpy(got), want, least, scale=scale_of(row, x, y, want, None, {}), what=name)


@pytest.mark.backends("numpy", "torch", "cupy")
@pytest.mark.dtypes("float64", "float32")
@pytest.mark.parametrize("name", ["euclidean", "cityblock", "cosine"])
def test_out(backend: Adapter, dtype: str, name: str):
    row = METRICS[name]
    x, y = data(row, dtype)
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    for budget in (None, 4000):
        out = backend.asarray(np.full((M, N), np.nan), dtype)
        assert pairx.cdist(a, b, name, out=out, max_bytes=budget) is out
        check(row, out, x, y, dtype, backend)
    condensed = backend.asarray(np.full(M * (M - 1) // 2, np.nan), dtype)
    assert pairx.pdist(a, name, out=condensed) is condensed
    assert_close(backend.to_numpy(condensed), wanted(row, x)[np.triu_indices(M, 1)], dtype, scale=1.0, what=name)
    with pytest.raises((TypeError, ValueError), match="out"):
        pairx.cdist(a, b, name, out=backend.asarray(np.zeros((M, N + 1)), dtype))


@pytest.mark.backends("tensorflow", "jax", "dask")
def test_out_is_refused_where_arrays_are_immutable(backend: Adapter):
    x, y = data(METRICS["euclidean"], "float64")
    with pytest.raises(TypeError, match="out"):
        pairx.cdist(backend.asarray(x), backend.asarray(y), out=backend.asarray(np.zeros((M, N))))


@pytest.mark.jit
@pytest.mark.dtypes("float64")
@pytest.mark.parametrize("name", ["euclidean", "cityblock", "cosine", "mahalanobis", "jensenshannon", "chebyshev", "hamming"])
def test_compiled_by_the_library(backend: Adapter, dtype: str, name: str):
    row = METRICS[name]
    x, y = data(row, dtype)
    given = batch_parameters(row)
    native = native_parameters(backend, given, dtype)
    f = backend.jit(lambda a, b: pairx.cdist(a, b, name, **native))
    check(row, f(backend.asarray(x, dtype), backend.asarray(y, dtype)), x, y, dtype, backend, **given)
    one = backend.jit(lambda a: pairx.cdist(a, None, name, **native))
    check(row, one(backend.asarray(x, dtype)), x, None, dtype, backend, **given)


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain == "complex"], ids=row_id)
@pytest.mark.parametrize("kind", ["complex128", "complex64"])
def test_complex(backend: Adapter, row: Metric, kind: str):
    x, y = samples("complex", (M, 6), kind, 1), samples("complex", (N, 6), kind, 2)
    a, b = backend.asarray(x, kind), backend.asarray(y, kind)
    want = np.conj(x).astype("complex128") @ y.T.astype("complex128")
    np.testing.assert_allclose(ref.reference_cdist(x, y, row.name, kind=row.kind), want, rtol=1e-12)
    for budget in (None, 4000):
        check(row, all_pairs(row, a, b, max_bytes=budget), x, y, kind, backend)
    own = backend.to_numpy(all_pairs(row, a))
    assert_close(own, ref.reference_cdist(x, x, row.name, kind=row.kind), kind, scale=np.abs(x) @ np.abs(x).T, what=row.name)


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain == "boolean" or r.name in ("jaccard", "hamming")], ids=row_id)
def test_boolean_arrays(backend: Adapter, row: Metric):
    x, y = samples("boolean", (M, 6), seed=1), samples("boolean", (N, 6), seed=2)
    got = pairx.cdist(backend.asarray(x.astype(bool)), backend.asarray(y.astype(bool)), row.name)
    assert_close(backend.to_numpy(got), wanted(row, x, y), "float32", what=row.name)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_aliases(backend: Adapter, row: Metric):
    x, y = data(row, "float64")
    call = {"distance": pairx.cdist, "kernel": pairx.gram, "similarity": pairx.similarity}[row.kind]
    with pairx.options(engine="array"):  # a kernel that another process compiles meanwhile has other bits
        want = all_pairs(row, x, y)
        for alias in (*row.aliases, row.name.upper()):
            np.testing.assert_array_equal(call(x, y, alias), want)


@pytest.mark.backends("numpy")
def test_an_unknown_name_is_answered_with_near_ones(backend: Adapter):
    with pytest.raises(ValueError, match="euclidean"):
        pairx.cdist(np.ones((2, 3)), None, "euclidian")


@pytest.mark.dtypes("float64")
def test_callables(backend: Adapter, dtype: str):
    x, y = data(METRICS["cityblock"], dtype)
    got = pairx.cdist(backend.asarray(x, dtype), backend.asarray(y, dtype), lambda u, v: backend.sum(abs(u - v)))
    assert backend.is_own(got)
    assert_close(backend.to_numpy(got), wanted(METRICS["cityblock"], x, y), dtype)


def test_infinite_p_takes_weights_as_a_mask(backend: Adapter):
    x, y, w = np.array([[0.0, 9.0, 1.0]]), np.array([[0.0, 0.0, 0.0]]), np.array([1.0, 0.0, 0.5])
    got = pairx.cdist(backend.asarray(x), backend.asarray(y), "minkowski", p=math.inf, w=backend.asarray(w))
    np.testing.assert_array_equal(backend.to_numpy(got), [[1.0]])
