"""The table of conventions, row by row, on every backend: what is answered where libraries differ or a formula ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference as ref
from adapters import Adapter
from samples import ROWS, all_pairs, assert_close, factor_of, parameters, row_id, samples, scale_of, wanted, width

import pairx
from pairx.metrics import METRICS, Metric

DISTANCES = list(METRICS.values())
each_row = pytest.mark.parametrize("row", ROWS, ids=row_id)


def cdist(backend: Adapter, x: Any, y: Any = None, metric: Any = "euclidean", dtype: str | None = None, **keywords: Any) -> np.ndarray:
    a = backend.asarray(np.asarray(x), dtype)
    b = None if y is None else backend.asarray(np.asarray(y), dtype)
    keywords = {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    return backend.to_numpy(pairx.cdist(a, b, metric, **keywords))


# --- dtypes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64", "bool"])
def test_integers_are_promoted_before_they_are_subtracted(backend: Adapter, kind: str):
    low, high = (0, 1) if kind == "bool" else (1, 255) if kind == "uint8" else (-128, 127)
    x, y = np.array([[low, high]]).astype(kind), np.array([[high, high]]).astype(kind)
    for metric in ("cityblock", "euclidean", "chebyshev", "sqeuclidean"):
        got = pairx.cdist(backend.asarray(x), backend.asarray(y), metric)
        assert backend.dtype_of(got) == backend.default_float
        np.testing.assert_array_equal(backend.to_numpy(got), [[(high - low) ** (2 if metric == "sqeuclidean" else 1)]])


@pytest.mark.dtypes("float64", "float32", "float16", "bfloat16")
def test_an_integer_with_a_float_gives_that_float(backend: Adapter, dtype: str):
    x, y = backend.asarray(np.array([[200, 3]])), backend.asarray(np.array([[0.5, 1.0]]), dtype)
    for a, b in ((x, y), (y, x)):
        got = pairx.cdist(a, b, "cityblock")
        assert backend.dtype_of(got) == dtype
        assert_close(backend.to_numpy(got), np.array([[201.5]]), dtype)


def test_two_floats_give_the_wider(backend: Adapter):
    got = pairx.cdist(backend.asarray(np.ones((2, 3)), "float32"), backend.asarray(np.zeros((2, 3)), "float64"))
    assert backend.dtype_of(got) == "float64"


@pytest.mark.backends("torch")
def test_torchs_default_dtype_is_obeyed(backend: Adapter):
    torch = backend.lib
    torch.set_default_dtype(torch.float64)
    try:
        assert pairx.cdist(torch.tensor([[1], [2]])).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.backends("jax")
def test_jax_without_x64(backend: Adapter):
    jax = backend.lib
    with jax.enable_x64(False):
        x = jax.numpy.asarray([[1, 1, 1], [2, 2, 2]])
        assert x.dtype == "int32"
        got = pairx.cdist(x)
        assert got.dtype == "float32"
        assert_close(np.asarray(got), np.sqrt([[0.0, 3.0], [3.0, 0.0]]), "float32")
        big = jax.numpy.asarray([[1e30, 0.0], [0.0, 1e-30]], "float32")
        assert_close(np.asarray(pairx.cdist(big)), np.array([[0, 1e30], [1e30, 0]]), "float32")


@pytest.mark.dtypes("float16", "bfloat16")
def test_halves_accumulate_in_single(backend: Adapter, dtype: str):
    d = 4096  # a float16 sum of ones stops at 2048, a bfloat16 one at 256
    x, y = np.ones((1, d)), np.zeros((1, d))
    for metric, want in (("cityblock", d), ("sqeuclidean", d), ("euclidean", 64.0), ("canberra", d), ("braycurtis", 1.0), ("hamming", 1.0)):
        got = pairx.cdist(backend.asarray(x, dtype), backend.asarray(y, dtype), metric)
        assert backend.dtype_of(got) == dtype
        np.testing.assert_array_equal(backend.to_numpy(got), [[want]], err_msg=metric)
    # 300 squared is beyond float16, and the distance is not.
    np.testing.assert_array_equal(cdist(backend, [[300.0, 400.0]], [[0.0, 0.0]], dtype=dtype), [[500.0]])
    wide = pairx.cdist(backend.asarray(x * 32, dtype), backend.asarray(y, dtype), "sqeuclidean", out_dtype="float32")
    np.testing.assert_array_equal(backend.to_numpy(wide), [[1024.0 * d]])


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain != "complex"], ids=row_id)
@pytest.mark.backends("numpy", "torch")
def test_complex_numbers_are_refused_by_what_does_not_take_them(backend: Adapter, row: Metric):
    x = np.zeros((3, width(row)), "complex128")
    with pytest.raises(TypeError, match="complex128"):
        all_pairs(row, backend.asarray(x))


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    "value", [np.array([["a", "b"]]), np.array([[1, None]]), np.array([["2020-01-01"]], "datetime64[D]")], ids=["str", "object", "date"]
)
def test_what_is_no_number_is_refused(backend: Adapter, value: np.ndarray):
    with pytest.raises(TypeError, match="dtype"):
        pairx.cdist(value)


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain == "boolean"], ids=row_id)
def test_boolean_metrics_take_0_and_1_only(backend: Adapter, row: Metric):
    for bad in (2.0, -1.0, 0.5, math.nan):
        x = backend.asarray(np.array([[1.0, 0.0, bad], [1.0, 0.0, 1.0]]))
        with pytest.raises(ValueError, match="0 or 1"):
            backend.to_numpy(pairx.cdist(x, None, row.name))
    for kind in ("bool", "uint8", "float64"):
        x = np.array([[1, 0, 1, 1], [1, 1, 0, 0]]).astype(kind)
        assert_close(cdist(backend, x, None, row.name), wanted(row, x.astype(float)), "float32")


# --- NaN ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain != "boolean" and r.name != "nan_euclidean"], ids=row_id)
@pytest.mark.dtypes("float64")
def test_nan_propagates(backend: Adapter, dtype: str, row: Metric):
    d = width(row)
    x, y = samples(row.domain, (5, d), dtype, 1, zeros=0), samples(row.domain, (4, d), dtype, 2, zeros=0)
    x[1, 1] = x[3, 0] = y[2, d - 1] = math.nan
    given = parameters(row, d)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    native = {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    either = np.isnan(x).any(-1)[:, None] | np.isnan(y).any(-1)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(all_pairs(row, a, b, **native))), either)
    own = np.isnan(x).any(-1)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(all_pairs(row, a, **native))), own[:, None] | own)
    if row.kind == "distance":
        got = backend.to_numpy(pairx.pdist(a, row.name, **native))
        np.testing.assert_array_equal(np.isnan(got), (own[:, None] | own)[np.triu_indices(5, 1)])


@pytest.mark.brief("float64")
@pytest.mark.parametrize("row", [r for r in DISTANCES if r.omit], ids=row_id)
@pytest.mark.dtypes("float64", "float32")
def test_nan_policy_omit(backend: Adapter, dtype: str, row: Metric):
    x, y = samples(row.domain, (5, 6), dtype, 1), samples(row.domain, (4, 6), dtype, 2)
    x[1, 1] = x[3, 0] = x[3, 5] = y[2, 5] = y[0, 1] = math.nan
    x[4] = math.nan
    cases = parameters(row, 6)[1:] if row.name == "seuclidean" else parameters(row, 6)
    for given in cases:
        for w in (None, np.array([1.0, 2.0, 0.5, 0.25, 1.0, 4.0])):
            extra = {} if w is None else {"w": w}
            got = cdist(backend, x, y, row.name, dtype, nan_policy="omit", **given, **extra)
            want = wanted(row, x, y, nan_policy="omit", **given, **extra)
            assert_close(got, want, dtype, what=f"{row.name} {given} {w}")
            assert np.isnan(got[4]).all()
            assert np.isfinite(got[:4]).all()


@pytest.mark.dtypes("float64")
def test_omit_estimates_the_variances_without_the_gaps(backend: Adapter, dtype: str):
    x, y = samples("real", (5, 4), dtype, 1), samples("real", (6, 4), dtype, 2)
    x[1, 1] = x[3, 0] = y[2, 3] = math.nan
    x[:, 2] = y[:, 2] = math.nan  # never seen: no variance, and it does not count
    got = cdist(backend, x, y, "seuclidean", dtype, nan_policy="omit")
    spread = np.nanvar(np.concatenate([x, y])[:, [0, 1, 3]], axis=0, ddof=1)
    want = wanted(METRICS["seuclidean"], x[:, [0, 1, 3]], y[:, [0, 1, 3]], nan_policy="omit", V=spread)
    assert_close(got, want * math.sqrt(4 / 3), dtype)  # scaled up by 4 features over the 3 that are there


def test_nan_euclidean_omits_by_itself(backend: Adapter):
    got = cdist(backend, [[3.0, math.nan, math.nan, 6.0]], [[1.0, math.nan, 4.0, 5.0]], "nan_euclidean")  # scikit-learn's example
    assert_close(got, np.sqrt([[4 / 2 * (4 + 1.0)]]), "float64")


@pytest.mark.parametrize("row", [r for r in DISTANCES if not r.omit], ids=row_id)
@pytest.mark.backends("numpy")
def test_omit_is_refused_where_features_do_not_stand_alone(backend: Adapter, row: Metric):
    with pytest.raises(ValueError, match="nan_policy"):
        pairx.cdist(samples(row.domain, (3, width(row))), None, row.name, nan_policy="omit")


def test_nan_policy_raise(backend: Adapter):
    x = samples("real", (3, 4))
    if backend.name == "dask":  # nothing is computed before it is asked for, so nothing can be looked at
        with pytest.raises(ValueError, match="look at values"):
            cdist(backend, x, x[:2], nan_policy="raise")
        return
    assert np.isfinite(cdist(backend, x, x[:2], nan_policy="raise")).all()
    bad = x.copy()
    bad[1, 2] = math.nan
    for a, b, name in ((bad, x, "x"), (x, bad, "y")):
        with pytest.raises(ValueError, match=f"{name} has NaN"):
            cdist(backend, a, b, nan_policy="raise")


# --- single metrics -----------------------------------------------------------------------------------------------------


def test_hamming_counts_and_fractions(backend: Adapter):
    x, y = [[0, 0, 2]], [[0, 0, 1], [0, 1, 0]]
    assert_close(cdist(backend, x, y, "hamming"), np.array([[1 / 3, 2 / 3]]), "float32")
    np.testing.assert_array_equal(cdist(backend, x, y, "hamming", normalize=False), [[1, 2]])
    a, b = backend.asarray(np.array([[0, 0, 1], [0, 1, 0]])), backend.asarray(np.array([[1, 0, 1], [0, 1, 0]]))
    assert_close(backend.to_numpy(pairx.paired(a, b, "hamming")), np.array([1 / 3, 0]), "float32")
    w = np.array([1.0, 1.0, 2.0])
    np.testing.assert_array_equal(cdist(backend, np.array(x, float), np.array(y, float), "hamming", w=w), [[0.5, 0.75]])


def test_integers_and_p_2(backend: Adapter):
    x, y = np.array([[1, 1, 1], [2, 2, 2]]), np.array([[2, 2, 2], [1, 1, 1], [2, 2, 2], [1, 1, 1], [2, 2, 2]])
    r = math.sqrt(3)
    assert_close(cdist(backend, x, y, "minkowski", p=2), np.array([[r, 0, r, 0, r], [0, r, 0, r, 0]]), "float32")


def test_minkowski_has_no_negative_p(backend: Adapter):
    with pytest.raises(ValueError, match="p=-1"):
        cdist(backend, np.ones((2, 3)), None, "minkowski", p=-1)


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_zero_and_constant_vectors_are_like_nothing(backend: Adapter, metric: str):
    empty = 0.0 if metric == "cosine" else 0.1  # the mean of seven 0.1 is not 0.1: exact all the same
    x, y = np.full((2, 7), empty), np.vstack([np.full(7, empty), np.arange(7.0), np.full(7, empty) * 3])
    for engine in backend.engines(METRICS[metric]):
        got = cdist(backend, x, y, metric, engine=engine)
        want = wanted(METRICS[metric], x, y)
        np.testing.assert_array_equal(want, 1.0)
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(cdist(backend, x, None, metric), [[0, 1], [1, 0]])
    # Nothing is added to a norm: tiny rows have directions, too.
    tiny = np.array([[1e-30, 2e-30, 0.0], [-1e-30, 1e-30, 3e-30]])
    assert_close(cdist(backend, tiny, None, metric), wanted(METRICS[metric], tiny), "float64", scale=1.0)


@pytest.mark.dtypes("float64", "float32")
def test_jensenshannon_of_rows_a_tenth_of_a_per_cent_apart(backend: Adapter, dtype: str):
    x, _ = samples("nonnegative", (6, 32), dtype, 1, zeros=0), None
    y = (x * (1 + 0.001 * np.sin(np.arange(32)))).astype(dtype)
    want = np.diagonal(wanted(METRICS["jensenshannon"], x, y))
    got = np.diagonal(cdist(backend, x, y, "jensenshannon", dtype))
    # Normalised entries carry half an eps of their own, so the distance (4e-4 here) is known to eps, not to eps of itself.
    assert_close(got, want, dtype, scale=1.0, factor=2)
    # Sums that are powers of two divide without rounding: now each digit counts, to 1e-6 in float32.
    a = np.array([[0.25, 0.5, 0.125, 0.125], [0.5, 0.25, 0.25, 0.0]])
    e = 2.0**-12
    b = a + np.array([[e, -e, e, -e], [-e, e, 0.0, 0.0]])
    got, want = cdist(backend, a, b, "jensenshannon", dtype), wanted(METRICS["jensenshannon"], a, b)
    assert_close(got, want, dtype, factor=factor_of(backend, METRICS["jensenshannon"], 8))
    np.testing.assert_array_equal(np.diagonal(cdist(backend, a, a.copy(), "jensenshannon", dtype)), 0)


@pytest.mark.dtypes("float64", "float32")
def test_kl_divergence(backend: Adapter, dtype: str):
    x = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [2.0, 6.0], [0.0, 0.0]])
    with np.errstate(all="ignore"):
        want = wanted(METRICS["kl_divergence"], x, x.copy())
        normal = wanted(METRICS["kl_divergence"], x, x.copy(), normalize=True)
    assert want[0, 2] == math.inf
    assert want[4, 2] == 0
    assert normal[3, 1] == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert_close(cdist(backend, x, x.copy(), "kl_divergence", dtype), want, dtype, scale=8.0)
    assert_close(cdist(backend, x, x.copy(), "kl_divergence", dtype, normalize=True), normal, dtype, scale=1.0)
    negative = cdist(backend, [[-0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [-0.5, 0.5]], "kl_divergence", dtype)
    np.testing.assert_array_equal(np.isnan(negative), [[True, True], [False, True]])


@pytest.mark.dtypes("float64", "float32")
def test_angular_keeps_small_angles(backend: Adapter, dtype: str):
    small = 1e-10 if dtype == "float64" else 1e-5
    x, y = np.array([[1.0, 0.0]]), np.array([[1.0, small], [0.0, 2.0], [-3.0, 0.0], [-1.0, small], [4.0, 0.0], [0.0, 0.0]])
    want = np.array([[small / math.pi, 0.5, 1.0, 1 - small / math.pi, 0.0, 0.5]])
    assert_close(cdist(backend, x, y, "angular", dtype), want, dtype)


def test_haversine(backend: Adapter):
    x, y = [[0.0, 0.0]], [[0.0, math.pi / 2], [0.0, math.pi], [math.pi / 2, 1.0], [-math.pi / 2, 0.3], [1e-9, 0.0]]
    want = np.array([[math.pi / 2, math.pi, math.pi / 2, math.pi / 2, 1e-9]])
    assert_close(cdist(backend, x, y, "haversine"), want, "float64")
    with pytest.raises(ValueError, match="latitude"):
        cdist(backend, np.zeros((2, 3)), None, "haversine")


def test_poincare_outside_the_ball(backend: Adapter):
    inside = [[0.5, 0.5], [0.0, 0.0]]
    for bad in ([[1.0, 0.0]], [[0.8, 0.8]], [[30.0, 0.0]]):
        for a, b, name in ((bad, inside, "x"), (inside, bad, "y")):
            with pytest.raises(ValueError, match=f"{name}: .*unit ball"):
                cdist(backend, a, b, "poincare")
    near = np.array([[0.999999, 0.0], [0.0, 0.0], [1e-9, 0.0], [0.0, 2e-9]])
    # One minus a square near 1 is known to eps only, and the distance to eps / (1 - |x|) of it.
    scale = np.ones((4, 4))
    scale[0, :] = scale[:, 0] = 1e6
    scale[1:, 1:] = wanted(METRICS["poincare"], near)[1:, 1:]
    assert_close(cdist(backend, near, None, "poincare"), wanted(METRICS["poincare"], near), "float64", scale=scale)


@pytest.mark.jit
def test_poincare_outside_the_ball_under_a_trace_is_nan(backend: Adapter):
    f = backend.jit(lambda a: pairx.cdist(a, None, "poincare"))
    got = backend.to_numpy(f(backend.asarray(np.array([[0.5, 0.5], [0.8, 0.8], [0.0, 0.0]]))))
    np.testing.assert_array_equal(np.isnan(got), [[False, True, False], [True, True, True], [False, True, False]])


# --- no rows, no features, one row ---------------------------------------------------------------------------------------


@each_row
def test_no_rows(backend: Adapter, row: Metric):
    d = width(row)
    given = parameters(row, d)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    native = {k: backend.asarray(v) for k, v in given.items() if isinstance(v, np.ndarray)}
    some, none = backend.asarray(samples(row.domain, (3, d))), backend.asarray(np.zeros((0, d)))
    for a, b, shape in ((none, some, (0, 3)), (some, none, (3, 0)), (none, none, (0, 0)), (none, None, (0, 0))):
        got = all_pairs(row, a, b, **native)
        assert backend.to_numpy(got).shape == shape
        assert backend.dtype_of(got) == "float64"
    one = backend.to_numpy(all_pairs(row, some[:1, :], **native))
    scale = scale_of(row, samples(row.domain, (3, d))[:1], samples(row.domain, (3, d))[:1], np.ones((1, 1)), None, given)
    assert_close(one, wanted(row, samples(row.domain, (3, d))[:1], **given), "float64", scale=scale)
    if row.kind == "distance":
        for a in (none, some[:1, :]):
            assert backend.to_numpy(pairx.pdist(a, row.name, **native)).shape == (0,)
        assert backend.to_numpy(pairx.paired(none, none, row.name, **native)).shape == (0,)


@pytest.mark.parametrize("row", [r for r in ROWS if r.domain != "latlon"], ids=row_id)
def test_no_features(backend: Adapter, row: Metric):
    x, y = np.zeros((3, 0)), np.zeros((2, 0))
    given = {"V": np.zeros(0)} if row.name == "seuclidean" else {"VI": np.zeros((0, 0))} if row.name == "mahalanobis" else {}
    native = {k: backend.asarray(v) for k, v in given.items()}
    want = np.zeros((3, 2)) if row.name == "mahalanobis" else ref.reference_cdist(x, y, row.name, kind=row.kind, **given)
    assert_close(backend.to_numpy(all_pairs(row, backend.asarray(x), backend.asarray(y), **native)), want, "float64")


def test_default_variances_need_rows(backend: Adapter):
    with pytest.raises(ValueError, match="VI"):
        cdist(backend, samples("real", (3, 6)), None, "mahalanobis")
    got = cdist(backend, np.array([[1.0, 2.0]]), None, "seuclidean")
    np.testing.assert_array_equal(got, [[0.0]])
