"""Against the libraries whose names and numbers users know: SciPy's distances and scikit-learn's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import all_pairs, assert_close, parameters, row_id, samples, scale_of, weights, width

import pairx
from pairx.metrics import KERNELS, METRICS, Metric

distance = pytest.importorskip("scipy.spatial.distance")

M, N, D = 7, 5, 6
SCIPY = [
    METRICS[name]
    for name in (
        "braycurtis canberra chebyshev cityblock correlation cosine dice euclidean hamming jaccard jensenshannon mahalanobis minkowski "
        "rogerstanimoto russellrao seuclidean sokalsneath sqeuclidean yule"
    ).split()
]
WEIGHTED = [row for row in SCIPY if row.name not in ("jensenshannon", "mahalanobis", "seuclidean")]  # SciPy's own take no w
each = pytest.mark.parametrize("row", SCIPY, ids=row_id)
each_weighted = pytest.mark.parametrize("row", WEIGHTED, ids=row_id)
numpy_only = pytest.mark.backends("numpy")

# SciPy subtracts nearly equal numbers in these, so an entry near 0 may keep few digits of its own: measured by 1, not by itself.
ABSOLUTE = ("cosine", "correlation", "jensenshannon")


def scipy_cdist(*args: Any, **keywords: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return distance.cdist(*args, **keywords)


def scipy_pdist(*args: Any, **keywords: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return distance.pdist(*args, **keywords)


def close(row: Metric, got: Any, want: np.ndarray, scale: Any = None) -> None:
    # sqrt of a difference of a few eps: the square root of 16 eps is what SciPy's jensenshannon itself may be off near 0.
    if row.name == "jensenshannon":
        finite = np.isfinite(want)
        assert_close(np.where(finite, got**2, got), np.where(finite, want**2, want), "float64", scale=1.0, what=row.name)
    else:
        assert_close(got, want, "float64", scale=1.0 if row.name in ABSOLUTE else scale, what=row.name)


def ordinary(row: Metric, n: int, seed: int) -> np.ndarray:
    # SciPy takes what is not 0 as True in jaccard (the table's row tells real values apart), so they agree on 0 and 1.
    return samples("boolean" if row.name == "jaccard" else row.domain, (n, D), "float64", seed)


def degenerate(row: Metric, seed: int) -> np.ndarray:
    """Zero, constant, repeated and one-hot rows among ordinary ones. 3 is exact, so SciPy's means of it are, too."""
    a = ordinary(row, 6, seed)
    a[0] = a[3] = 0
    a[1] = 1 if row.domain == "boolean" or row.name == "jaccard" else 3
    a[4] = a[2]
    a[5] = 0
    a[5, seed % D] = 1
    return a


# --- ordinary input -----------------------------------------------------------------------------------------------------


@numpy_only
@each
def test_ordinary_input(backend: Adapter, row: Metric):
    x, y = ordinary(row, 9, 1), ordinary(row, 8, 2)
    for given in parameters(row, D):
        if given.get("p") in (0, np.inf) or {"cov", "normalize", "base"} & set(given):
            continue  # not SciPy's; p = inf has a test of its own
        want, own = scipy_cdist(x, y, row.name, **given), scipy_pdist(x, row.name, **given)
        scale = scale_of(row, x, y, want, None, given)  # an inverse covariance loses digits by its condition number
        own_scale = scale_of(row, x, x[:0], distance.squareform(own), None, given)[np.triu_indices(9, 1)]
        for zero in ("finite", "scipy"):
            close(row, pairx.cdist(x, y, row.name, zero=zero, **given), want, scale)
            close(row, pairx.pdist(x, row.name, zero=zero, **given), own, own_scale)


@numpy_only
@each_weighted
def test_weights(backend: Adapter, row: Metric):
    x, y, w = ordinary(row, M, 1), ordinary(row, N, 2), weights(D)
    for given in parameters(row, D):
        if given.get("p") == 0 or "normalize" in given:
            continue
        for zero in ("finite", "scipy"):
            close(row, pairx.cdist(x, y, row.name, w=w, zero=zero, **given), scipy_cdist(x, y, row.name, w=w, **given))
            close(row, pairx.pdist(x, row.name, w=w, zero=zero, **given), scipy_pdist(x, row.name, w=w, **given))


@numpy_only
def test_infinite_p(backend: Adapter):
    x, y, w = samples("real", (M, D), seed=1), samples("real", (N, D), seed=2), weights(D)
    np.testing.assert_array_equal(pairx.cdist(x, y, "minkowski", p=np.inf), scipy_cdist(x, y, "minkowski", p=np.inf))
    np.testing.assert_array_equal(pairx.cdist(x, y, "minkowski", p=np.inf, w=w), scipy_cdist(x, y, "minkowski", p=np.inf, w=w))


@numpy_only
@each
def test_positional_calls_and_out(backend: Adapter, row: Metric):
    x, y = ordinary(row, M, 1), ordinary(row, N, 2)
    given = parameters(row, D)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    out, condensed = np.empty((M, N)), np.empty(M * (M - 1) // 2)
    assert pairx.cdist(x, y, row.name, out=out, **given) is out
    close(row, out, distance.cdist(x, y, row.name, out=np.empty((M, N)), **given))
    assert pairx.pdist(x, row.name, out=condensed, **given) is condensed
    close(row, condensed, distance.pdist(x, row.name, **given))
    np.testing.assert_array_equal(pairx.squareform(condensed), distance.squareform(condensed))
    np.testing.assert_array_equal(pairx.squareform(distance.squareform(condensed)), condensed)


@numpy_only
def test_defaults_are_euclidean(backend: Adapter):
    x, y = samples("real", (M, D), seed=1), samples("real", (N, D), seed=2)
    assert_close(pairx.cdist(x, y), distance.cdist(x, y), "float64")
    assert_close(pairx.pdist(x), distance.pdist(x), "float64")


@numpy_only
@each
def test_scipys_own_short_names(backend: Adapter, row: Metric):
    from scipy.spatial.distance import _METRIC_ALIAS  # the only list of them

    x = ordinary(row, 9, 1)
    names = [alias for alias, info in _METRIC_ALIAS.items() if info.canonical_name == row.name]
    assert row.name in names
    for name in names:
        np.testing.assert_array_equal(pairx.pdist(x, name), pairx.pdist(x, row.name), err_msg=name)


@numpy_only
def test_callables(backend: Adapter):
    x, y = samples("real", (M, D), seed=1), samples("real", (N, D), seed=2)

    def furthest(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.abs(u - v).max())

    np.testing.assert_array_equal(pairx.cdist(x, y, furthest), distance.cdist(x, y, furthest))
    np.testing.assert_array_equal(pairx.pdist(x, furthest), distance.pdist(x, furthest))
    assert_close(pairx.cdist(x, y, distance.correlation), distance.cdist(x, y, "correlation"), "float64", scale=1.0)

    def power(u: np.ndarray, v: np.ndarray, p: float) -> float:
        return float((np.abs(u - v) ** p).sum())

    np.testing.assert_array_equal(pairx.cdist(x, y, power, p=3), distance.cdist(x, y, power, p=3))


# --- zero vectors and the like ------------------------------------------------------------------------------------------


@each
def test_scipys_very_values_at_the_edges(backend: Adapter, row: Metric):
    x, y = degenerate(row, 1), degenerate(row, 2)
    given = parameters(row, D)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    native = {k: backend.asarray(v) for k, v in given.items()}
    want = scipy_cdist(x, y, row.name, **given)
    close(row, backend.to_numpy(pairx.cdist(backend.asarray(x), backend.asarray(y), row.name, zero="scipy", **native)), want)
    close(row, backend.to_numpy(pairx.pdist(backend.asarray(x), row.name, zero="scipy", **native)), scipy_pdist(x, row.name, **given))


@each_weighted
def test_scipys_very_values_with_weights(backend: Adapter, row: Metric):
    x, y = degenerate(row, 1), degenerate(row, 2)
    w = np.array([1.0, 2.0, 0.5, 0.0, 0.5, 4.0])  # their sum is a power of two: SciPy's means of constants stay exact
    want = scipy_cdist(x, y, row.name, w=w)
    got = pairx.cdist(backend.asarray(x), backend.asarray(y), row.name, zero="scipy", w=backend.asarray(w))
    close(row, backend.to_numpy(got), want)
    got = pairx.pdist(backend.asarray(x), row.name, zero="scipy", w=backend.asarray(w))
    close(row, backend.to_numpy(got), scipy_pdist(x, row.name, w=w))


@each
def test_the_default_is_finite_and_scipys_where_that_is(backend: Adapter, row: Metric):
    x, y = degenerate(row, 1), degenerate(row, 2)
    given = parameters(row, D)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    native = {k: backend.asarray(v) for k, v in given.items()}
    want = scipy_cdist(x, y, row.name, **given)
    got = backend.to_numpy(pairx.cdist(backend.asarray(x), backend.asarray(y), row.name, **native))
    assert np.isfinite(got).all()
    finite = np.isfinite(want)
    close(row, got[finite], want[finite])


@pytest.mark.parametrize("constant", [0.0, 1.0, 3.0])
def test_a_feature_without_variance(backend: Adapter, constant: float):
    """SciPy divides 0 by 0 there; the default counts the feature 0."""
    x, y = samples("real", (9, D), seed=1), samples("real", (8, D), seed=2)
    x[:, 2] = y[:, 2] = constant
    rest = [k for k in range(D) if k != 2]
    a, b = backend.asarray(x), backend.asarray(y)
    got = backend.to_numpy(pairx.cdist(a, b, "seuclidean"))
    assert_close(got, distance.cdist(x[:, rest], y[:, rest], "seuclidean"), "float64")
    got = backend.to_numpy(pairx.cdist(a, b, "seuclidean", zero="scipy"))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(scipy_cdist(x, y, "seuclidean")))


# --- scikit-learn -------------------------------------------------------------------------------------------------------


@numpy_only
@pytest.mark.parametrize("row", list(KERNELS.values()), ids=row_id)
def test_kernels_as_scikit_learn(backend: Adapter, row: Metric):
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x, y = ordinary(row, M, 1), ordinary(row, N, 2)
    for given in parameters(row, D):
        for other in (y, None):
            want = pairwise.pairwise_kernels(x, other, row.name, **given)
            scale = scale_of(row, x, x if other is None else y, want, None, given)
            assert_close(all_pairs(row, x, other, **given), want, "float64", scale=scale, what=f"{row.name} {given}")


@numpy_only
def test_kernels_keep_to_scikit_learns_defaults(backend: Adapter):
    x = samples("real", (M, 4), seed=1)
    np.testing.assert_array_equal(pairx.gram(x), pairx.gram(x, None, "rbf", gamma=0.25))
    np.testing.assert_array_equal(pairx.gram(x, kernel="polynomial"), pairx.gram(x, kernel="poly", gamma=0.25, degree=3, coef0=1))


@numpy_only
def test_nan_euclidean_and_haversine_as_scikit_learn(backend: Adapter):
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x, y = samples("real", (M, D), seed=1), samples("real", (N, D), seed=2)
    x[0, 1] = x[2, 0] = y[1, 1] = np.nan
    x[3] = np.nan
    # scikit-learn takes |x|^2 - 2 x . y + |y|^2, so it is the one with fewer digits: measured by the size of the rows.
    assert_close(pairx.cdist(x, y, "nan_euclidean"), pairwise.nan_euclidean_distances(x, y), "float64", scale=10.0)
    a, b = samples("latlon", (M, 2), seed=1), samples("latlon", (N, 2), seed=2)
    assert_close(pairx.cdist(a, b, "haversine"), pairwise.haversine_distances(a, b), "float64")
    assert width(METRICS["haversine"]) == 2


@pytest.mark.backends("torch")
@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, np.inf])
def test_torchs_cdist(backend: Adapter, p: float):
    x, y = samples("real", (2, M, D), seed=1), samples("real", (2, N, D), seed=2)
    a, b = backend.asarray(x), backend.asarray(y)
    want = backend.lib.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    assert_close(backend.to_numpy(pairx.cdist(a, b, "minkowski", p=p)), backend.to_numpy(want), "float64")
