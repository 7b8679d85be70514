"""Digits where they are easily lost: far from the origin, and near the ends of the range of a dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import all_pairs, assert_close, factor_of, parameters, row_id, samples, scale_of, wanted, weights

import pairx
from pairx.metrics import KERNELS, METRICS, Metric

M, N, D = 24, 20, 16  # wide enough that a matrix product is worth while, so its cancellation would show

# A product may be kept where it cancels by no more than a factor of 16, on top of the roundings of D features.
PRODUCT_FACTOR = 64.0


def far(case: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Two sets far from the origin that share three rows."""
    x, y = samples("real", (M, D), seed=1), samples("real", (N, D), seed=2)
    if case == "shifted":
        shift: Any = 1000.0 if dtype == "float32" else 1e7
        x, y = x + shift, y + shift
    else:
        x, y = x + 1000.0 * (-1.0) ** np.arange(M)[:, None], y + 1000.0 * (-1.0) ** np.arange(N)[:, None]
    x, y = x.astype(dtype), y.astype(dtype)
    y[2], y[3], y[N - 1] = x[2], x[3], x[M - 1]
    return x, y


@pytest.mark.brief("float32")
@pytest.mark.parametrize("case", ["shifted", "two-clusters"])
@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean", "seuclidean", "mahalanobis", "cosine", "correlation", "angular"])
@pytest.mark.dtypes("float64", "float32")
def test_far_from_the_origin(backend: Adapter, dtype: str, name: str, case: str):
    for engine in (None, *backend.engines(METRICS[name])):
        far_from_the_origin(backend, dtype, METRICS[name], engine, case)


def far_from_the_origin(backend: Adapter, dtype: str, row: Metric, engine: str | None, case: str) -> None:
    name = row.name
    x, y = far(case, dtype)
    cases = parameters(row, D)[:2]
    if name == "mahalanobis" and case == "two-clusters":
        cases = cases[1:]  # the sets' own covariance has a condition number above 1 / eps of float32
    for given in cases:
        native = {k: backend.asarray(v, dtype) for k, v in given.items()}
        for other in (y, None):
            a, b = backend.asarray(x, dtype), None if other is None else backend.asarray(other, dtype)
            got = backend.to_numpy(pairx.cdist(a, b, name, engine=engine, **native))
            want = wanted(row, x, other, **given)
            # Relative for distances; cosine and its kin are 1 minus a product, and an angle is as good as the unit rows are.
            scale = 1.0 if name in ("cosine", "correlation", "angular") else scale_of(row, x, x if other is None else y, want, None, given)
            assert_close(got, want, dtype, scale=scale, factor=PRODUCT_FACTOR, what=f"{name} {list(given)} {engine}")


@pytest.mark.parametrize("case", ["shifted", "two-clusters"])
@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean", "seuclidean", "mahalanobis"])
@pytest.mark.dtypes("float64", "float32")
def test_equal_rows_are_at_distance_0(backend: Adapter, dtype: str, name: str, case: str):
    x, y = far(case, dtype)
    given = parameters(METRICS[name], D)[1:2] or [{}]
    native = {k: backend.asarray(v, dtype) for k, v in given[0].items()}
    same = (x[:, None] == y).all(-1)
    assert same.sum() == 3
    for engine in (None, *backend.engines(METRICS[name])):
        got = backend.to_numpy(pairx.cdist(backend.asarray(x, dtype), backend.asarray(y, dtype), name, engine=engine, **native))
        np.testing.assert_array_equal(got[same], 0)
        assert (got[~same] > 0).all()


# --- the ends of the range ----------------------------------------------------------------------------------------------

# Their answers are representable whatever the size of the input: they scale with it, or do not depend on it.
ROBUST = [
    *(METRICS[n] for n in "euclidean nan_euclidean seuclidean mahalanobis cityblock chebyshev minkowski".split()),
    *(METRICS[n] for n in "canberra braycurtis ruzicka cosine correlation angular hellinger jensenshannon hamming".split()),
    METRICS["kl_divergence"],
    *(KERNELS[n] for n in "rbf laplacian chi2 additive_chi2 cosine".split()),
]


def extremes(dtype: str) -> dict[str, float]:
    return {"huge": 1e200, "tiny": 1e-200} if dtype == "float64" else {"huge": 1e30, "tiny": 1e-30}


def ruled(row: Metric) -> list[dict[str, Any]]:
    if row.name in ("seuclidean", "mahalanobis"):
        return parameters(row, 6)[1:]
    if row.name == "minkowski":
        return [{"p": 1.5}, {"p": 3}, {"p": 0.5}]
    return [{}]


@pytest.mark.brief("float32")
@pytest.mark.parametrize("size", ["huge", "tiny"])
@pytest.mark.parametrize("row", ROBUST, ids=row_id)
@pytest.mark.dtypes("float64", "float32")
def test_no_overflow_or_underflow(backend: Adapter, dtype: str, row: Metric, size: str):
    factor = extremes(dtype)[size]
    x = (samples(row.domain, (7, 6), dtype, 1) * factor).astype(dtype)
    y = (samples(row.domain, (5, 6), dtype, 2) * factor).astype(dtype)
    for given in ruled(row):
        native = {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        for w in (None, weights(6)) if row.weights else (None,):
            extra = {} if w is None else {"w": w}
            for other in (y, None):
                want = wanted(row, x, other, **given, **extra)
                scale = scale_of(row, x, x if other is None else y, want, w, given)
                a, b = backend.asarray(x, dtype), None if other is None else backend.asarray(other, dtype)
                own = {} if w is None else {"w": backend.asarray(w, dtype)}
                got = backend.to_numpy(all_pairs(row, a, b, **native, **own))
                if row.name in ("rbf", "laplacian", "chi2"):
                    scale = 1.0  # they are 0 or 1 here
                assert_close(
                    got, want, dtype, scale=scale, factor=factor_of(backend, row), what=f"{row_id(row)} {list(given)} w={w is not None}"
                )


@pytest.mark.parametrize("row", ROBUST, ids=row_id)
@pytest.mark.dtypes("float64")
def test_rows_of_very_different_sizes(backend: Adapter, dtype: str, row: Metric):
    sizes = np.array([1e200, 1.0, 1e-200])[:, None]
    x, y = samples(row.domain, (3, 6), dtype, 1) * sizes, samples(row.domain, (3, 6), dtype, 2) * sizes[::-1]
    for given in ruled(row):
        native = {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        got = backend.to_numpy(all_pairs(row, backend.asarray(x, dtype), backend.asarray(y, dtype), **native))
        want = wanted(row, x, y, **given)
        scale: Any = scale_of(row, x, y, want, None, given)
        if row.name in ("rbf", "laplacian", "chi2", "canberra"):
            scale = np.maximum(want, 1.0)
        assert_close(got, want, dtype, scale=scale, factor=factor_of(backend, row), what=f"{row_id(row)} {list(given)}")


@pytest.mark.parametrize("name", ["cosine", "correlation", "angular"])
def test_features_of_very_different_sizes(backend: Adapter, name: str):
    x = np.array([[1e200, 1e-200, 3.0], [1e-200, 2e-200, 0.0], [1e150, -1e200, 1e-300]])
    got = backend.to_numpy(pairx.cdist(backend.asarray(x), None, name))
    assert_close(got, wanted(METRICS[name], x), "float64", scale=1.0)


@pytest.mark.dtypes("float64", "float32")
def test_the_whole_range(backend: Adapter, dtype: str):
    """The largest and the smallest normal numbers themselves."""
    info = np.finfo(dtype)
    top, low = float(info.max) / 2, float(info.tiny)
    x = np.array([[top, 0.0], [0.0, low], [0.0, 0.0]])
    for name in ("euclidean", "cityblock", "chebyshev", "canberra", "braycurtis"):
        got = backend.to_numpy(pairx.cdist(backend.asarray(x, dtype), None, name))
        assert_close(got, wanted(METRICS[name], x), dtype, what=name)


# --- counts -------------------------------------------------------------------------------------------------------------


def related(seed: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of which some are equal, part of one another, complements, all true or all false; and weights from 1e-3 to 1e3."""
    x, y = samples("boolean", (8, D), seed=seed), samples("boolean", (8, D), seed=seed + 1000)
    y[0], y[1], y[2], y[3] = x[0], x[1] * y[1], np.maximum(x[2], y[2]), 1 - x[3]
    x[6:] = y[6:] = [[0.0], [1.0]]
    return x, y, (10.0 ** np.random.default_rng(seed).uniform(-3, 3, D)).astype(dtype)


@cache
def related_wanted(row: Metric, seed: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x, y, w = related(seed, dtype)
    return wanted(row, x, y, w=w), wanted(row, x, w=w)


@pytest.mark.brief("float32")
@pytest.mark.parametrize("row", [r for r in METRICS.values() if r.domain == "boolean"], ids=row_id)
@pytest.mark.dtypes("float64", "float32")
def test_a_weighted_count_keeps_its_digits(backend: Adapter, dtype: str, row: Metric):
    """Relative to each distance; so where a count is 0 it is exactly 0, since a rounding error there makes any number of 0 / 0."""
    for seed in range(3):
        x, y, w = (backend.asarray(a, dtype) for a in related(seed, dtype))
        want, one = related_wanted(row, seed, dtype)
        assert (want == 0).any()
        for engine in backend.engines(row):
            got = backend.to_numpy(pairx.cdist(x, y, row.name, w=w, engine=engine))
            own = backend.to_numpy(pairx.cdist(x, None, row.name, w=w, engine=engine))
            assert_close(got, want, dtype, factor=PRODUCT_FACTOR, what=f"{row.name} {engine} {seed}")
            assert_close(own, one, dtype, factor=PRODUCT_FACTOR, what=f"{row.name} {engine} {seed}, one set")
        got = backend.to_numpy(pairx.paired(x, y, row.name, w=w))
        assert_close(got, np.diagonal(want), dtype, factor=PRODUCT_FACTOR, what=f"{row.name} {seed}, row by row")
