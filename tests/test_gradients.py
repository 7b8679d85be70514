"""Gradients of every differentiable row on every library that has them, against the references' own derivatives.

The references carry 50 digits, so a central difference of step 1e-15 is right to 30: the error is the library's alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import reference as ref
from adapters import Adapter
from mpmath import mp, mpf
from samples import PARAMETERS, REPRESENTATIVE, ROWS, all_pairs, assert_close, param_id, parameters, row_id, samples, width

import pairx
from pairx.metrics import KERNELS, METRICS, Metric

pytestmark = pytest.mark.autodiff
SMOOTH = [row for row in ROWS if row.differentiable]
CASES = [c for c in PARAMETERS if c[0].differentiable and parameters(c[0], 6)[c[1]].get("p") != 0]
M, N, D = 3, 2, 4
STEP = mpf(10) ** -15
FACTOR = 64.0
"""A derivative is a chain of a few dozen roundings: four times what a value is allowed, measured by the largest entry."""


def data(row: Metric, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    d = width(row, D)
    return samples(row.domain, (M, d), seed=seed, zeros=0), samples(row.domain, (N, d), seed=seed + 1, zeros=0)


def given_of(row: Metric) -> dict[str, Any]:
    """Parameters that do not depend on the data."""
    return parameters(row, width(row, D))[1] if row.name in ("seuclidean", "mahalanobis") else {}


def cotangent(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(0.5, 2.0, shape) * np.where(np.arange(np.prod(shape)).reshape(shape) % 3, 1, -1)


def derivative(row: Metric, x: np.ndarray, y: np.ndarray, w: np.ndarray | None, c: np.ndarray, given: dict[str, Any]) -> list[np.ndarray]:
    """Of the sum of c[i, j] d(x[i], y[j]), in x, y and w."""
    f = ref.REFERENCE[row.kind, row.name]
    arrays = [np.vectorize(mpf, otypes=[object])(a) for a in ((x, y) if w is None else (x, y, w))]
    if "cov" in given:
        given = {"VI": ref.inverted(given["cov"])}

    def total(rows: Any, columns: Any) -> Any:
        extra = {} if w is None else {"w": arrays[2]}
        return mp.fsum(mpf(float(c[i, j])) * f(arrays[0][i], arrays[1][j], **extra, **given) for i in rows for j in columns)

    found = []
    with mp.workdps(ref.DIGITS):
        for which, a in enumerate(arrays):
            g = np.zeros(a.shape)
            for index in np.ndindex(a.shape):
                rows = [index[0]] if which == 0 else range(len(x))
                columns = [index[0]] if which == 1 else range(len(y))
                kept = a[index]
                a[index] = kept + STEP
                up = total(rows, columns)
                a[index] = kept - STEP
                down = total(rows, columns)
                a[index] = kept
                g[index] = float((up - down) / (2 * STEP))
            found.append(g)
    return found


def agree(got: list[np.ndarray] | None, want: list[np.ndarray], dtype: str = "float64", what: str = "", factor: float = FACTOR) -> None:
    assert got is not None
    for name, a, b in zip("xyw", got, want, strict=False):
        assert_close(a, b, dtype, scale=max(np.abs(b).max(initial=0), 1e-3), factor=factor, what=f"{what}: gradient in {name}")


def native(backend: Adapter, given: dict[str, Any], dtype: str = "float64") -> dict[str, Any]:
    return {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}


@pytest.mark.parametrize("case", CASES, ids=param_id)
def test_in_both_sides(backend: Adapter, case: tuple[Metric, int]):
    row, i = case
    given = parameters(row, width(row, D))[i]
    if given == {} and row.name in ("seuclidean", "mahalanobis"):
        pytest.skip("whether the default variances are constants is the next test's question")
    x, y = data(row)
    c = cotangent(M, N)
    want = derivative(row, x, y, None, c, given)
    own = native(backend, given)
    agree(backend.grad(lambda a, b: backend.total(all_pairs(row, a, b, **own), c), x, y), want, what=row_id(row))
    if (
        len(row.engines) > 1 and i == 0 and not (backend.compiles and row.name not in REPRESENTATIVE)
    ):  # the engines have derivatives of their own
        for engine in backend.slope_engines(row):
            got = backend.grad(lambda a, b, e=engine: backend.total(all_pairs(row, a, b, engine=e, **own), c), x, y)
            agree(got, want, what=f"{row_id(row)} {engine}")


@pytest.mark.parametrize("name", ["seuclidean", "mahalanobis"])
def test_default_variances_depend_on_the_data(backend: Adapter, name: str):
    row = METRICS[name]
    x, y = samples("real", (6, 3), seed=1), samples("real", (5, 3), seed=2)
    c = cotangent(6, 5)
    got = backend.grad(lambda a, b: backend.total(pairx.cdist(a, b, name), c), x, y)
    with mp.workdps(ref.DIGITS):
        for which, index in ((0, (1, 2)), (0, (4, 0)), (1, (3, 1))):
            sides = []
            for sign in (1, -1):
                pair = [np.vectorize(mpf, otypes=[object])(a) for a in (x, y)]
                pair[which][index] += sign * mpf(10) ** -15
                stacked = [[*r] for r in (*pair[0], *pair[1])]
                n = len(stacked)
                mean = [mp.fsum(r[k] for r in stacked) / n for k in range(3)]
                cov = [[mp.fsum((r[i] - mean[i]) * (r[j] - mean[j]) for r in stacked) / (n - 1) for j in range(3)] for i in range(3)]
                given = {"V": [cov[k][k] for k in range(3)]} if name == "seuclidean" else {"VI": ref.inverted(cov)}
                f = ref.REFERENCE["distance", name]
                sides.append(mp.fsum(mpf(float(c[i, j])) * f(pair[0][i], pair[1][j], **given) for i in range(6) for j in range(5)))
            want = float((sides[0] - sides[1]) / (2 * mpf(10) ** -15))
            assert got is not None
            assert_close(got[which][index], np.asarray(want), "float64", scale=max(abs(want), 1.0), factor=FACTOR, what=row.name)


@pytest.mark.parametrize("row", [r for r in SMOOTH if r.weights], ids=row_id)
def test_in_the_weights(backend: Adapter, row: Metric):
    x, y = data(row)
    w, c = np.linspace(0.5, 1.5, x.shape[-1]), cotangent(M, N)
    given = given_of(row)
    want = derivative(row, x, y, w, c, given)
    own = native(backend, given)
    got = backend.grad(lambda a, b, v: backend.total(all_pairs(row, a, b, w=v, **own), c), x, y, w)
    agree(got, want, what=row_id(row))


@pytest.mark.parametrize("row", SMOOTH, ids=row_id)
def test_one_set_belongs_to_both_sides(backend: Adapter, row: Metric):
    x, _ = data(row)
    given = given_of(row)
    own, c = native(backend, given), cotangent(M, M)
    if row.zero_self:
        c[np.arange(M), np.arange(M)] = 0  # the slope at distance 0 is a convention, tested below
    gx, gy = derivative(row, x, x.copy(), None, c, given)
    got = backend.grad(lambda a: backend.total(all_pairs(row, a, **own), c), x)
    agree(got, [gx + gy], what=row_id(row))


@pytest.mark.brief_rows(*REPRESENTATIVE)
@pytest.mark.parametrize("row", [r for r in SMOOTH if r.kind == "distance"], ids=row_id)
def test_pdist_paired_and_chosen_pairs(backend: Adapter, row: Metric):
    d = width(row, D)
    x, y = samples(row.domain, (4, d), seed=1, zeros=0), samples(row.domain, (4, d), seed=2, zeros=0)
    given = given_of(row)
    own = native(backend, given)
    c = cotangent(6)
    i, j = np.triu_indices(4, 1)
    square = np.zeros((4, 4))
    square[i, j] = c
    gx, gy = derivative(row, x, x.copy(), None, square, given)
    agree(backend.grad(lambda a: backend.total(pairx.pdist(a, row.name, **own), c), x), [gx + gy], what=f"pdist {row.name}")
    square = np.diag(c[:4])
    want = derivative(row, x, y, None, square, given)
    agree(backend.grad(lambda a, b: backend.total(pairx.paired(a, b, row.name, **own), c[:4]), x, y), want, what=f"paired {row.name}")
    i, j = np.array([0, 3, 3, 1, 0, 3]), np.array([2, 1, 1, 1, 0, 2])  # one pair twice: gradients add up
    square = np.zeros((4, 4))
    np.add.at(square, (i, j), c)
    want = derivative(row, x, y, None, square, given)
    chosen = (backend.asarray(i), backend.asarray(j))
    got = backend.grad(lambda a, b: backend.total(pairx.paired(a, b, row.name, pairs=chosen, **own), c), x, y)
    agree(got, want, what=f"pairs {row.name}")


@pytest.mark.brief_rows(*REPRESENTATIVE)
@pytest.mark.parametrize("row", SMOOTH, ids=row_id)
def test_tiles_do_not_change_it(backend: Adapter, row: Metric):
    d = width(row)
    x, y = samples(row.domain, (7, d), seed=1, zeros=0), samples(row.domain, (5, d), seed=2, zeros=0)
    given = given_of(row) if row.name not in ("seuclidean", "mahalanobis") else parameters(row, d)[1]
    own, c, cc = native(backend, given), cotangent(7, 5), cotangent(7, 7)
    whole = backend.grad(lambda a, b: backend.total(all_pairs(row, a, b, **own), c), x, y)
    one = backend.grad(lambda a: backend.total(all_pairs(row, a, **own), cc), x)
    assert whole is not None and one is not None  # noqa: PT018
    with pytest.raises(ValueError, match=r"needs \d+ bytes") as refused:
        backend.grad(lambda a, b: backend.total(all_pairs(row, a, b, max_bytes=1, **own), c), x, y)
    least = int(str(refused.value).partition("needs ")[2].split()[0])
    for budget in (4 * least,) if backend.compiles else (least, 4 * least):
        got = backend.grad(lambda a, b, n=budget: backend.total(all_pairs(row, a, b, max_bytes=n, **own), c), x, y)
        agree(got, whole, what=f"{row_id(row)} in {budget} bytes")
        got = backend.grad(lambda a, n=budget: backend.total(all_pairs(row, a, max_bytes=n, **own), cc), x)
        agree(got, one, what=f"{row_id(row)} of one set in {budget} bytes")


@pytest.mark.parametrize("name", ["euclidean", "cityblock", "cosine", "jensenshannon"])
def test_batches_that_broadcast_add_up(backend: Adapter, name: str):
    row = METRICS[name]
    x, y = samples(row.domain, (2, 1, 3, 4), seed=1, zeros=0), samples(row.domain, (3, 2, 4), seed=2, zeros=0)
    c = cotangent(2, 3, 3, 2)
    got = backend.grad(lambda a, b: backend.total(pairx.cdist(a, b, name), c), x, y)
    gx, gy = np.zeros_like(x), np.zeros_like(y)
    for p in range(2):
        for q in range(3):
            a, b = derivative(row, x[p, 0], y[q], None, c[p, q], {})
            gx[p, 0] += a
            gy[q] += b
    agree(got, [gx, gy], what=name)


# --- where a slope is a convention --------------------------------------------------------------------------------------


def edges(row: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are equal, zero, constant, one-hot and tied."""
    d = width(row, D)
    x = samples(row.domain, (7, d), seed=1, zeros=0)
    x[1] = x[0]
    x[2] = 0
    x[3] = 0.25
    x[4] = 0
    x[4, 0] = 0.5
    x[5] = x[0]
    x[5, 0] = x[0, 0] * 0.5
    y = x[[0, 2, 3, 4, 6]].copy()
    return x, y


@pytest.mark.parametrize("row", SMOOTH, ids=row_id)
def test_finite_everywhere(backend: Adapter, row: Metric):
    x, y = edges(row)
    given = given_of(row)

    def check(what: str, function: Any, dtype: str, *arrays: np.ndarray) -> None:
        for g in backend.grad(lambda *a: backend.sum(function(*a)), *arrays, dtype=dtype) or [None]:
            assert np.isfinite(g).all(), f"{row_id(row)}, {what}, {dtype}: {g}"

    for dtype in ("float32",) if backend.compiles else ("float64", "float32"):
        own = native(backend, given, dtype)
        for engine in backend.slope_engines(row) if not backend.compiles else (None,):
            check(f"{engine}", partial(all_pairs, row, engine=engine, **own), dtype, x, y)
            check(f"one set, {engine}", partial(all_pairs, row, engine=engine, **own), dtype, x)
        if row.kind == "distance" and not backend.compiles:
            check("pdist", partial(pairx.pdist, metric=row.name, **own), dtype, x)
            check("paired", partial(pairx.paired, metric=row.name, **own), dtype, x, x.copy())
    if row.weights:
        if row.name == "kl_divergence":
            y[y == 0] = 0.25  # an infinite term is itself the slope in its weight
        w = np.ones(x.shape[-1])
        w[1] = 0
        own = native(backend, given)
        check("weighted", lambda a, b, v: all_pairs(row, a, b, w=v, **own), "float64", x, y, w)


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, np.inf])
def test_minkowski_is_finite_for_each_p(backend: Adapter, p: float):
    x, y = edges(METRICS["minkowski"])
    for g in backend.grad(lambda a, b: backend.sum(pairx.cdist(a, b, "minkowski", p=p)), x, y) or [None]:
        assert np.isfinite(g).all()


def slopes(backend: Adapter, x: Any, y: Any, metric: str, **keywords: Any) -> list[np.ndarray]:
    found = backend.grad(lambda a, b: backend.sum(pairx.cdist(a, b, metric, **keywords)), np.array(x, float), np.array(y, float))
    assert found is not None
    return found


# Where rows are normalised first, XLA may round the two sides differently: equal rows are then an eps apart, and the slope is
# that of a distance, not 0. Finite it is: see above.
ZERO_SLOPE = [r for r in SMOOTH if r.kind == "distance" and r.zero_self and r.scale != "row" and r.name != "kl_divergence"]


@pytest.mark.parametrize("row", ZERO_SLOPE, ids=row_id)
def test_zero_at_distance_zero(backend: Adapter, row: Metric):
    x, _ = data(row)
    given = native(backend, given_of(row))
    for g in slopes(backend, x[:1], x[:1], row.name, **given):
        np.testing.assert_array_equal(g, 0)


@pytest.mark.parametrize("metric", ["cosine", "correlation", "angular"])
def test_zero_vectors_are_flat(backend: Adapter, metric: str):
    gx, gy = slopes(backend, [[0.0, 0.0, 0.0]], [[1.0, 2.0, 4.0]], metric)
    np.testing.assert_array_equal(gx, 0)
    np.testing.assert_array_equal(gy, 0)


def test_ties_share(backend: Adapter):
    gx, gy = slopes(backend, [[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]], "chebyshev")
    np.testing.assert_array_equal(gx, [[0.5, -0.5, 0]])
    np.testing.assert_array_equal(gy, [[-0.5, 0.5, 0]])
    gx, gy = slopes(backend, [[1.0, 2.0]], [[1.0, 5.0]], "cityblock")
    np.testing.assert_array_equal(gx, [[0, -1]])
    np.testing.assert_array_equal(gy, [[0, 1]])
    # ruzicka is 1 - min / max = 1 - 3 / 6 here; at the tie each side has half of both slopes: -(1/2)(1/6) + (1/2)(3/36).
    gx, gy = slopes(backend, [[1.0, 2.0]], [[1.0, 5.0]], "ruzicka")
    assert_close(gx[0, 0], np.array(-1 / 24), "float64")
    assert_close(gy[0, 0], np.array(-1 / 24), "float64")


def test_an_infinite_slope_is_answered_0(backend: Adapter):
    gx, _ = slopes(backend, [[1.0, 3.0]], [[1.0, 2.0]], "minkowski", p=0.5)
    np.testing.assert_array_equal(gx, [[0, 1]])
    gx, gy = slopes(backend, [[0.0, 1.0]], [[0.5, 0.5]], "kl_divergence")
    assert np.isfinite(gx).all()
    assert gx[0, 0] == 0
    assert_close(gy, np.array([[0.0, -2.0]]), "float64")
    gx, _ = slopes(backend, [[0.0, 1.0]], [[0.5, 0.5]], "hellinger")
    assert np.isfinite(gx).all()
    gx, _ = slopes(backend, [[0.0, 1.0]], [[0.5, 0.5]], "jensenshannon")
    assert np.isfinite(gx).all()


# --- digits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", METRICS["euclidean"].engines)
@pytest.mark.dtypes("float64", "float32")
def test_far_from_the_origin(backend: Adapter, dtype: str, engine: str):
    if engine not in backend.slope_engines(METRICS["euclidean"]):
        pytest.skip(f"no gradient through the {engine} engine")
    shift = 1000.0 if dtype == "float32" else 1e7
    x = (samples("real", (12, 16), seed=1) + shift).astype(dtype)
    y = (samples("real", (10, 16), seed=2) + shift).astype(dtype)
    y[3] = x[2]
    c = cotangent(12, 10)
    got = backend.grad(lambda a, b: backend.total(pairx.cdist(a, b, engine=engine), c), x, y, dtype=dtype)
    difference = x[:, None].astype(float) - y.astype(float)  # exact
    length = np.sqrt((difference**2).sum(-1, keepdims=True))
    unit = np.divide(difference, length, out=np.zeros_like(difference), where=length > 0) * np.asarray(c, dtype)[..., None]
    agree(got, [unit.sum(1), -unit.sum(0)], dtype)


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("name", ["euclidean", "minkowski", "cosine", "canberra", "braycurtis"])
def test_ends_of_the_range(backend: Adapter, name: str, size: float):
    """A distance that scales with its input has a slope that does not; one that does not has a slope that scales back."""
    row = METRICS[name]
    given = {"p": 3.0} if name == "minkowski" else {}
    x, y = data(row)
    c = cotangent(M, N)
    degree = 0 if name in ("euclidean", "minkowski") else -1
    got = backend.grad(lambda a, b: backend.total(pairx.cdist(a, b, name, **given), c), x * size, y * size)
    want = derivative(row, x, y, None, c, given)
    assert got is not None
    agree([g * size**-degree for g in got], want, what=name)


def test_kernels_of_equal_rows_are_flat(backend: Adapter):
    x = samples("real", (2, D))
    for name in ("rbf", "laplacian"):
        assert name in KERNELS
        for g in backend.grad(lambda a, b, k=name: backend.sum(pairx.gram(a, b, k)), x[:1], x[:1].copy()) or [None]:
            np.testing.assert_array_equal(g, 0)


@pytest.mark.autodiff
@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "cosine", "minkowski"])
@pytest.mark.parametrize("second", ["the same array", "computed from it"])
def test_second_derivatives_of_two_sets_that_are_one(backend, name, second):
    """x may be y, or y come of x: what flows by the one must not be counted for the other, too. Against differences of gradients."""
    rng = np.random.default_rng(3)
    x, along, c = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 5))
    np.fill_diagonal(c, 0)

    def total(z):
        return backend.total(pairx.cdist(z, z if second == "the same array" else z * z, name), c)

    h = 1e-5
    sides = [backend.grad(total, x + s * h * along)[0] for s in (1, -1, 2, -2)]
    want = (8 * (sides[0] - sides[1]) - (sides[2] - sides[3])) / (12 * h)
    (got,) = backend.curvature(total, [x], [along])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7 * np.abs(want).max())


@pytest.mark.backends("torch")
@pytest.mark.parametrize("keep", [True, False], ids=["distances kept", "computed again"])
@pytest.mark.parametrize("name", ["cityblock", "euclidean", "chebyshev", "canberra"])
def test_cotangents_wherever_their_rows_start(backend: Adapter, name: str, keep: bool):
    """As a tile of a larger one has them, or of one number, or none: the same bits as those of a copy."""
    torch, (m, n) = backend.lib, (40, 64)
    x, y = (backend.asarray(samples("positive", (rows, 9), "float32", rows), "float32").requires_grad_() for rows in (m, n))
    whole = backend.asarray(cotangent(2 * m + 1, n + 16), "float32")
    forms = {
        "part": whole[:m, 8 : n + 8],
        "every other row": whole[1::2, :n][:m],
        "unaligned": whole[:m, 3 : n + 3],
        "one row": whole[:1, :n].expand(m, n),
        "one number": whole[0, 0].expand(m, n),
        "columns": whole.T[:m, :n],
    }
    for form, g in forms.items():
        given = [pairx.cdist(x, y, name, engine="compiled") for _ in "12"]
        if not keep:
            for d in given:
                with torch.no_grad():
                    d.add_(0)
        got, want = (torch.autograd.grad(d, (x, y), c) for d, c in zip(given, (g, g.contiguous().clone()), strict=True))
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b), form
