"""What holds for any input: symmetry, identity, the triangle inequality, and indifference to order, tiles and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import ROWS, all_pairs, assert_close, parameters, row_id, scale_of, width

import pairx
from pairx.metrics import METRICS, Metric

pytestmark = pytest.mark.backends("numpy")
DISTANCES = list(METRICS.values())
each_row = pytest.mark.parametrize("row", ROWS, ids=row_id)
# The same examples on each run: a failure in continuous integration is one that everybody sees.
quick = settings(max_examples=10, deadline=None, derandomize=True)
EPS = 2.0**-52
FACTOR = 64.0
"""Two results that were summed in two orders, each within its own tolerance."""


@pytest.fixture(autouse=True)
def numpy_only(backend: Any) -> None:
    """These tests run with NumPy, and not at all where another backend was asked for."""


def rows_of(row: Metric, n: int) -> st.SearchStrategy[np.ndarray]:
    """Up to ``n`` rows of a metric's domain; many coincide, many entries are 0."""
    d = width(row, 5)
    shape = st.tuples(st.integers(1, n), st.just(d))
    if row.domain == "boolean":
        return arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0]))
    if row.domain == "nonnegative":
        return arrays(np.float64, shape, elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e3)))
    if row.domain == "ball":  # |x| <= 0.87
        return arrays(np.float64, shape, elements=st.floats(-0.39, 0.39).map(lambda v: v if abs(v) > 1e-6 else 0.0))
    if row.domain == "latlon":
        return arrays(np.float64, shape, elements=st.floats(-1.5, 1.5))
    values = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 3.0]), st.floats(-1e3, 1e3).map(lambda v: v if abs(v) > 1e-3 else 0.0))
    return arrays(np.float64, shape, elements=values)


def given_of(row: Metric) -> dict[str, Any]:
    return parameters(row, width(row, 5))[1] if row.name in ("seuclidean", "mahalanobis") else {}


def slack(row: Metric, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> np.ndarray:
    """By what two ways to compute the same may differ, before the factor of eps."""
    params = given_of(row)
    scale = scale_of(row, x, y, values, None, params)
    # Rows of unit length or sum are known to eps, and so are distances between them.
    return scale + (1.0 if row.name in ("angular", "jensenshannon", "hellinger") else 0.0) + 1e-300


@each_row
@quick
@given(data=st.data())
def test_one_set_is_symmetric_to_the_bit(row: Metric, data: st.DataObject):
    x = data.draw(rows_of(row, 6))
    got = all_pairs(row, x, **given_of(row))
    if row.symmetric:
        np.testing.assert_array_equal(got, got.T)
    else:
        both = all_pairs(row, x, x.copy(), **given_of(row))
        assert_close(got, both, "float64", scale=slack(row, x, x, both), factor=FACTOR)


@pytest.mark.parametrize("row", [r for r in ROWS if r.symmetric], ids=row_id)
@quick
@given(data=st.data())
def test_the_sides_may_be_exchanged(row: Metric, data: st.DataObject):
    x, y = data.draw(rows_of(row, 5)), data.draw(rows_of(row, 4))
    one, other = all_pairs(row, x, y, **given_of(row)), all_pairs(row, y, x, **given_of(row)).T
    assert_close(one, other, "float64", scale=slack(row, x, y, other), factor=FACTOR)


@pytest.mark.parametrize("row", DISTANCES, ids=row_id)
@quick
@given(data=st.data())
def test_identity(row: Metric, data: st.DataObject):
    x = data.draw(rows_of(row, 6))
    got = pairx.cdist(x, None, row.name, **given_of(row))
    if row.zero_self:
        np.testing.assert_array_equal(np.diagonal(got), 0)
    if row.name not in ("inner_product", "kl_divergence"):  # a product, and a sum that is positive for normalised rows
        assert (got >= 0).all()
    if row.triangle and row.name != "angular":  # a true metric tells unequal rows apart, and equal ones not
        i, j = np.triu_indices(len(x), 1)
        same = (x[i] == x[j]).all(-1)
        assert (got[i, j][same] <= FACTOR * EPS).all()


@pytest.mark.parametrize("row", [r for r in DISTANCES if r.triangle], ids=row_id)
@quick
@given(data=st.data())
def test_triangle_inequality(row: Metric, data: st.DataObject):
    x = data.draw(rows_of(row, 6))
    got = pairx.cdist(x, x.copy(), row.name, **given_of(row))
    error = FACTOR * EPS * slack(row, x, x, got)
    direct = got[:, None, :] - error[:, None, :]
    detour = (got + error)[:, :, None] + (got + error)[None, :, :]
    assert (direct <= detour).all()


@each_row
@quick
@given(data=st.data())
def test_the_order_of_rows_and_features_does_not_matter(row: Metric, data: st.DataObject):
    x, y = data.draw(rows_of(row, 6)), data.draw(rows_of(row, 5))
    p, q = data.draw(st.permutations(range(len(x)))), data.draw(st.permutations(range(len(y))))
    params = given_of(row)
    want = all_pairs(row, x, y, **params)
    scale = slack(row, x, y, want)
    assert_close(all_pairs(row, x[p], y[q], **params), want[np.ix_(p, q)], "float64", scale=scale[np.ix_(p, q)], factor=FACTOR)
    if row.domain != "latlon":
        r = data.draw(st.permutations(range(x.shape[-1])))
        params = {k: v[np.ix_(*[r] * v.ndim)] if isinstance(v, np.ndarray) else v for k, v in params.items()}
        if row.name == "correlation":  # whose rows are known to eps of their size, and they may be nearly constant
            spread = [np.ptp(a, axis=-1) / np.maximum(np.abs(a).max(-1), 1e-300) for a in (x, y)]
            scale = scale / np.maximum(np.minimum(spread[0][:, None], spread[1]), 1e-300)
        assert_close(all_pairs(row, x[:, r], y[:, r], **params), want, "float64", scale=scale, factor=FACTOR)


@each_row
@quick
@given(data=st.data(), budget=st.integers(500, 100_000))
def test_any_tile_size(row: Metric, data: st.DataObject, budget: int):
    x, y = data.draw(rows_of(row, 9)), data.draw(rows_of(row, 7))
    params = given_of(row)
    want, one = all_pairs(row, x, y, **params), all_pairs(row, x, **params)
    while True:
        try:
            got, own = all_pairs(row, x, y, max_bytes=budget, **params), all_pairs(row, x, max_bytes=budget, **params)
            break
        except ValueError as error:
            assert "below the smallest tile" in str(error)
            budget *= 2
    assert_close(got, want, "float64", scale=slack(row, x, y, want), factor=FACTOR)
    assert_close(own, one, "float64", scale=slack(row, x, x, one), factor=FACTOR)


@each_row
def test_any_number_of_threads_gives_the_same_bits(row: Metric):
    rng = np.random.default_rng(3)
    d = width(row, 8)
    x, y = rng.random((150, d)), rng.random((130, d))
    if row.domain == "boolean":
        x, y = np.round(x), np.round(y)
    if row.domain == "ball":
        x, y = x / 3, y / 3
    params = parameters(row, d)[1] if row.name in ("seuclidean", "mahalanobis") else {}
    found = []
    for threads in (1, 2, 4):
        with pairx.options(threads=threads, max_bytes="600kB"):
            found.append((all_pairs(row, x, y, **params), all_pairs(row, x, **params)))
    for got in found[1:]:
        np.testing.assert_array_equal(got[0], found[0][0])
        np.testing.assert_array_equal(got[1], found[0][1])


@pytest.mark.parametrize("row", DISTANCES, ids=row_id)
@quick
@given(data=st.data())
def test_pdist_is_the_upper_triangle(row: Metric, data: st.DataObject):
    x = data.draw(rows_of(row, 6))
    square = pairx.cdist(x, None, row.name, **given_of(row))
    i = np.triu_indices(len(x), 1)
    condensed = pairx.pdist(x, row.name, **given_of(row))
    assert_close(condensed, square[i], "float64", scale=slack(row, x, x, square)[i], factor=FACTOR)
    if row.zero_self and row.symmetric:
        np.testing.assert_array_equal(pairx.squareform(pairx.squareform(condensed)), condensed)
