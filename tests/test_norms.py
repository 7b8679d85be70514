"""Norms of vectors, of matrices and of all differences: every order on every backend against NumPy or mpmath."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from mpmath import mp, mpf
from samples import assert_close, rounded

import pairx

INF, NAN = math.inf, math.nan
VECTOR_ORDS = (0, 0.5, 1, 1.5, 2, 3, 7.5, INF, -INF, -1, -2, -0.5)
MATRIX_ORDS: list[tuple[Any, float | None]] = [(o, None) for o in ("fro", "nuc", 1, -1, 2, -2, INF, -INF)]
MATRIX_ORDS += [("schatten", p) for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF)]
each_vector_ord = pytest.mark.parametrize("ord", VECTOR_ORDS)
each_matrix_ord = pytest.mark.parametrize(("ord", "p"), MATRIX_ORDS, ids=[str(o) if p is None else f"{o}{p:g}" for o, p in MATRIX_ORDS])
SPECTRAL = ("nuc", 2, -2, "schatten")


def sample(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    a = rng.normal(size=shape)
    return (a + 1j * rng.normal(size=shape)).astype(dtype) if dtype.startswith("complex") else rounded(a, dtype)


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(complex if np.iscomplexobj(a) else float)


def vector_reference(values: Any, ord: float) -> float:
    """With 50 digits and exponents of any size."""
    with mp.workdps(50):
        a = [mp.mpf(float(abs(v))) if not isinstance(v, complex) else mp.hypot(v.real, v.imag) for v in values]
        if ord == INF:
            return float(max(a))
        if ord == -INF:
            return float(min(a))
        if ord == 0:
            return float(sum(v != 0 for v in a))
        if ord < 0 and any(v == 0 for v in a):
            return 0.0
        total = sum((v ** mpf(ord) for v in a if v or ord > 0), mpf(0))
        return float(total ** (1 / mpf(ord))) if total else 0.0


def matrix_reference(a: np.ndarray, ord: Any, p: float | None = None) -> np.ndarray:
    """Over the last two axes, in float64."""
    a = wide(a)
    if ord != "schatten":
        return np.linalg.norm(a, ord, axis=(-2, -1))
    s = np.linalg.svd(a, compute_uv=False)
    s = np.where(s > 1e-14 * s.max(-1, keepdims=True), s, 0)
    return s.max(-1) if p == INF else (s**p).sum(-1) ** (1 / p)


def pair_reference(x: np.ndarray, y: np.ndarray, ord: Any, p: float | None = None) -> np.ndarray:
    return matrix_reference(wide(x)[..., :, None, :, :] - wide(y)[..., None, :, :, :], ord, p)


def spread(a: np.ndarray, ord: Any) -> Any:
    """By what an error is measured: singular values are exact to the largest of them, sums to themselves."""
    return 4 * np.sqrt((np.abs(wide(a)) ** 2).sum((-2, -1))) if ord in SPECTRAL else None


# --- vectors ------------------------------------------------------------------------------------------------------------


@each_vector_ord
def test_vector_norm(backend: Adapter, dtype: str, ord: float):
    x = sample((3, 4, 6), dtype)
    got = pairx.vector_norm(backend.asarray(x, dtype), axis=-1, ord=ord)
    assert backend.is_own(got)
    assert backend.dtype_of(got) == dtype
    want = np.apply_along_axis(vector_reference, -1, x, ord)
    assert_close(backend.to_numpy(got), want, dtype, scale=np.abs(want) * (1 + 4 / abs(ord or 1)), what=f"ord={ord}")


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (-1, 0), (0, 1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_axes_of_vectors(backend: Adapter, axis: Any, keepdims: bool):
    x = sample((3, 4, 5))
    got = pairx.vector_norm(backend.asarray(x), axis=axis, ord=2, keepdims=keepdims)
    want = np.sqrt((x**2).sum(axis=axis, keepdims=keepdims))
    assert_close(backend.to_numpy(got), want, "float64")


@pytest.mark.parametrize("ord", [1, 2, 3, 0.5, INF, -1, -INF])
def test_nothing_overflows_or_underflows_on_the_way(backend: Adapter, ord: float):
    rows = np.array([[1e200, 1e200, -3e200], [1e-200, 3e-200, 2e-200], [1e300, 1e-300, 1.0], [3e307, 1e307, 2e307]])
    got = backend.to_numpy(pairx.vector_norm(backend.asarray(rows), axis=-1, ord=ord))
    want = np.array([vector_reference(r, ord) for r in rows])
    assert_close(got, want, "float64")


@pytest.mark.parametrize(
    ("row", "ord", "want"),
    [
        ([0.0, 0.0], 0.5, 0.0),
        ([0.0, 0.0], 2, 0.0),
        ([0.0, 0.0], -2, 0.0),
        ([0.0, 0.0], INF, 0.0),
        ([0.0, 3.0], -1, 0.0),
        ([0.0, 3.0], 0, 1.0),
        ([INF, 1.0], 0.5, INF),
        ([INF, 1.0], 1, INF),
        ([-INF, 1.0], 2, INF),
        ([INF, 1.0], INF, INF),
        ([INF, 1.0], -INF, 1.0),
        ([INF, 1.0], -1, 1.0),
        ([INF, -INF], -1, INF),
        ([INF, 1e200], 3, INF),
        *(([NAN, 1.0], o, NAN) for o in VECTOR_ORDS),
        *(([NAN, INF], o, NAN) for o in (1, 2, 3, INF)),
    ],
)
def test_special_values(backend: Adapter, row: list[float], ord: float, want: float):
    got = backend.to_numpy(pairx.vector_norm(backend.asarray(np.array([row, [1.0, 1.0]])), axis=-1, ord=ord))
    np.testing.assert_array_equal(got[0], want)
    assert np.isfinite(got[1])  # a neighbour is not spoilt


@pytest.mark.parametrize("given", ["int32", "uint8", "bool"])
def test_integers_become_the_default_float(backend: Adapter, given: str):
    x = np.array([[3, 0], [4, 1]]).astype(given)
    got = pairx.vector_norm(backend.asarray(x), axis=0)
    assert backend.dtype_of(got) in ("float32", "float64")
    assert_close(backend.to_numpy(got), np.linalg.norm(x.astype(float), axis=0), "float32")


@pytest.mark.parametrize("ord", VECTOR_ORDS)
@pytest.mark.parametrize("given", ["complex64", "complex128"])
def test_complex_vectors(backend: Adapter, given: str, ord: float):
    x = sample((3, 5), given)
    dtype = {"complex64": "float32", "complex128": "float64"}[given]
    got = pairx.vector_norm(backend.asarray(x), axis=-1, ord=ord)
    assert backend.dtype_of(got) == dtype
    want = np.array([vector_reference([complex(v) for v in r], ord) for r in x])
    assert_close(backend.to_numpy(got), want, dtype, scale=np.abs(want) * (1 + 4 / abs(ord or 1)))


def test_half_precision_is_computed_in_float32(backend: Adapter):
    if "float16" not in backend.dtypes:
        pytest.skip("no float16")
    x = np.full((4, 1000), 100.0)
    got = pairx.vector_norm(backend.asarray(x, "float16"), axis=-1)  # the sum of squares is far above 65504
    assert backend.dtype_of(got) == "float16"
    assert_close(backend.to_numpy(got), np.linalg.norm(x, axis=-1), "float16")
    wider = pairx.vector_norm(backend.asarray(x, "float16"), axis=-1, out_dtype="float32")
    assert backend.dtype_of(wider) == "float32"
    assert_close(backend.to_numpy(wider), np.linalg.norm(x, axis=-1), "float32")


@pytest.mark.parametrize(("ord", "want"), [(0, 0), (0.5, 0), (1, 0), (2, 0), (3, 0), (INF, 0), (-1, INF), (-2, INF)])
def test_vectors_of_no_entries(backend: Adapter, ord: float, want: float):
    x = backend.asarray(np.zeros((3, 0)))
    np.testing.assert_array_equal(backend.to_numpy(pairx.vector_norm(x, axis=-1, ord=ord)), [want] * 3)
    assert backend.to_numpy(pairx.vector_norm(x, axis=0, ord=ord)).shape == (0,)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"axis": 2}, ValueError, "axis=2: x has 2 axes, -2 to 1"),
        ({"axis": (0, -2)}, ValueError, "given twice"),
        ({"axis": 1.0}, TypeError, "expected an int or a tuple"),
        ({"ord": "fro"}, ValueError, "matrix_norm"),
        ({"ord": None}, ValueError, "expected a number"),
        ({"ord": NAN}, ValueError, "expected a number"),
        ({"out_dtype": "complex128"}, TypeError, "a norm is real"),
        ({"out_dtype": "int32"}, TypeError, "floating dtype"),
    ],
)
def test_what_vector_norm_refuses(backend: Adapter, keywords: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=re.escape(message)):
        pairx.vector_norm(backend.asarray(np.ones((2, 3))), **keywords)
    with pytest.raises(ValueError, match="no entries"):
        pairx.vector_norm(backend.asarray(np.ones((2, 0))), axis=1, ord=-INF)


# --- matrices -----------------------------------------------------------------------------------------------------------


@each_matrix_ord
def test_matrix_norm(backend: Adapter, dtype: str, ord: Any, p: float | None):
    for shape in ((3, 5, 4), (2, 2, 4, 5), (3, 3)):
        x = sample(shape, dtype)
        got = pairx.matrix_norm(backend.asarray(x, dtype), ord=ord, p=p)
        assert backend.is_own(got)
        assert backend.dtype_of(got) == dtype
        assert_close(backend.to_numpy(got), matrix_reference(x, ord, p), dtype, scale=spread(x, ord), what=f"{shape}")


@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (-1, 0), (0, 2), (2, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("ord", ["fro", "nuc", 1, -INF])
def test_axes_of_matrices(backend: Adapter, axis: tuple[int, int], keepdims: bool, ord: Any):
    x = sample((3, 4, 5))
    got = pairx.matrix_norm(backend.asarray(x), axis=axis, ord=ord, keepdims=keepdims)
    assert_close(backend.to_numpy(got), np.linalg.norm(x, ord, axis=axis, keepdims=keepdims), "float64", factor=64)


@each_matrix_ord
def test_complex_matrices(backend: Adapter, ord: Any, p: float | None):
    x = sample((3, 4, 3), "complex128")
    got = pairx.matrix_norm(backend.asarray(x), ord=ord, p=p)
    assert backend.dtype_of(got) == "float64"
    assert_close(backend.to_numpy(got), matrix_reference(x, ord, p), "float64", scale=spread(x, ord))


@each_matrix_ord
def test_extreme_matrices(backend: Adapter, ord: Any, p: float | None):
    x = sample((3, 3))
    for scale in (1e200, 1e-200):
        got = backend.to_numpy(pairx.matrix_norm(backend.asarray(x * scale), ord=ord, p=p))
        assert_close(got / scale, matrix_reference(x, ord, p), "float64", scale=spread(x, ord))


@each_matrix_ord
def test_nan_and_inf_stay_with_their_matrix(backend: Adapter, ord: Any, p: float | None):
    x = np.stack([np.eye(2), [[NAN, 1.0], [1.0, 1.0]], [[INF, 1.0], [1.0, 1.0]], 2 * np.eye(2)])
    got = backend.to_numpy(pairx.matrix_norm(backend.asarray(x), ord=ord, p=p))
    assert np.isnan(got[1])
    assert np.isnan(got[2]) if ord == -2 else got[2] == (2.0 if ord in (-1, -INF) else INF)
    assert_close(got[[0, 3]], matrix_reference(x[[0, 3]], ord, p), "float64")


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0), (2, 0, 0), (0, 2, 3)])
@each_matrix_ord
def test_empty_matrices(backend: Adapter, shape: tuple[int, ...], ord: Any, p: float | None):
    x = backend.asarray(np.zeros(shape))
    nothing = {-1: shape[2] == 0, -INF: shape[1] == 0, -2: 0 in shape[1:]}
    if nothing.get(ord, False):
        with pytest.raises(ValueError, match="has no answer"):
            pairx.matrix_norm(x, ord=ord, p=p)
    else:
        np.testing.assert_array_equal(backend.to_numpy(pairx.matrix_norm(x, ord=ord, p=p)), np.zeros(shape[0]))


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"ord": 3}, ValueError, "ord=3: expected 'fro', 'nuc', 1"),
        ({"ord": "spectral"}, ValueError, "ord='spectral'"),
        ({"ord": "schatten"}, TypeError, "which needs it"),
        ({"ord": "fro", "p": 2}, TypeError, "no other takes it"),
        ({"ord": "schatten", "p": 0}, ValueError, "p=0"),
        ({"ord": "schatten", "p": -1}, ValueError, "p=-1"),
    ],
)
@pytest.mark.parametrize("call", [pairx.matrix_norm, pairx.pairwise_matrix_norm], ids=lambda f: f.__name__)
def test_refused_orders(backend: Adapter, call: Callable[..., Any], keywords: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=re.escape(message)):
        call(backend.asarray(np.ones((2, 3, 3))), **keywords)


def test_axes_of_matrices_that_are_refused(backend: Adapter):
    x = backend.asarray(np.ones((2, 3, 3)))
    for axis, message in (((0,), "expected two axes"), ((0, 1, 2), "expected two axes"), ((1, 1), "twice"), ((0, 3), "x has 3 axes")):
        with pytest.raises(ValueError, match=message):
            pairx.matrix_norm(x, axis=axis)
    with pytest.raises(ValueError, match="at least 2 axes"):
        pairx.matrix_norm(backend.asarray(np.ones(3)))


# --- all differences ----------------------------------------------------------------------------------------------------


@each_matrix_ord
def test_pairwise(backend: Adapter, dtype: str, ord: Any, p: float | None):
    x, y = sample((5, 3, 4), dtype, 1), sample((6, 3, 4), dtype, 2)
    got = pairx.pairwise_matrix_norm(backend.asarray(x, dtype), backend.asarray(y, dtype), ord, p=p)
    assert backend.is_own(got)
    assert backend.dtype_of(got) == dtype
    difference = wide(x)[:, None] - wide(y)[None]
    assert_close(backend.to_numpy(got), pair_reference(x, y, ord, p), dtype, scale=spread(difference, ord), factor=32)


@each_matrix_ord
def test_one_set(backend: Adapter, ord: Any, p: float | None):
    x = sample((2, 5, 3, 2))
    got = backend.to_numpy(pairx.pairwise_matrix_norm(backend.asarray(x), ord=ord, p=p, max_bytes=100_000))
    difference = x[:, :, None] - x[:, None]
    assert_close(got, pair_reference(x, x, ord, p), "float64", scale=spread(difference, ord), factor=32)
    np.testing.assert_array_equal(got, np.swapaxes(got, -1, -2))
    np.testing.assert_array_equal(np.diagonal(got, axis1=-2, axis2=-1), 0)


@pytest.mark.parametrize(
    ("x", "y"), [((2, 1, 3, 2, 2), (4, 5, 2, 2)), ((3, 2, 2), (4, 5, 2, 2)), ((1, 3, 2, 2), (4, 3, 2, 2)), ((0, 2, 2), (3, 2, 2))]
)
@pytest.mark.parametrize("ord", ["fro", "nuc", 1])
def test_batches_broadcast(backend: Adapter, x: tuple[int, ...], y: tuple[int, ...], ord: Any):
    a, b = sample(x, seed=1), sample(y, seed=2)
    got = backend.to_numpy(pairx.pairwise_matrix_norm(backend.asarray(a), backend.asarray(b), ord))
    assert_close(got, pair_reference(a, b, ord), "float64", factor=64)


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, -2])
def test_tiles_do_not_change_the_answer(backend: Adapter, ord: Any):
    x, y = sample((3, 20, 4, 5), "float32", 1), sample((3, 17, 4, 5), "float32", 2)
    a, b = backend.asarray(x), backend.asarray(y)
    whole = backend.to_numpy(pairx.pairwise_matrix_norm(a, b, ord))
    for budget in (60_000, "200kB"):
        small = backend.to_numpy(pairx.pairwise_matrix_norm(a, b, ord, max_bytes=budget))
        assert_close(small, whole, "float32", scale=whole.max())


def test_frobenius_keeps_its_digits(backend: Adapter):
    x = (sample((6, 3, 4), seed=1) + 1000).astype("float32")
    y = (x + 1e-2 * sample((6, 3, 4), seed=2)).astype("float32")
    got = backend.to_numpy(pairx.pairwise_matrix_norm(backend.asarray(x), backend.asarray(y)))
    assert_close(got, pair_reference(x, y, "fro"), "float32")


def test_layouts(backend: Adapter):
    x = sample((5, 3, 4))
    for name, layout in backend.layouts.items():
        for ord in ("fro", "nuc", INF):
            got = pairx.pairwise_matrix_norm(layout(backend.asarray(x)), ord=ord)
            assert_close(backend.to_numpy(got), pair_reference(x, x, ord), "float64", factor=64, what=name)


def test_complex_pairs(backend: Adapter):
    x, y = sample((3, 2, 2), "complex128", 1), sample((2, 2, 2), "complex128", 2)
    for ord in ("fro", "nuc", 1, 2):
        got = pairx.pairwise_matrix_norm(backend.asarray(x), backend.asarray(y), ord)
        assert backend.dtype_of(got) == "float64"
        assert_close(backend.to_numpy(got), pair_reference(x, y, ord), "float64", factor=64)


@pytest.mark.backends("numpy", "torch", "cupy")
def test_out(backend: Adapter):
    x = sample((4, 3, 2))
    for ord in ("fro", "nuc"):
        out = backend.asarray(np.zeros((4, 4)))
        assert pairx.pairwise_matrix_norm(backend.asarray(x), ord=ord, out=out) is out
        assert_close(backend.to_numpy(out), pair_reference(x, x, ord), "float64", factor=64)
        with pytest.raises(ValueError, match=re.escape("out has shape (4, 4): expected (3, 4)")):
            pairx.pairwise_matrix_norm(backend.asarray(x[:3]), backend.asarray(x), ord, out=out)


def test_explain(backend: Adapter):
    x = backend.asarray(np.zeros((64, 20, 8, 8)))
    for ord in ("fro", "nuc", 1):
        plan = pairx.explain(pairx.pairwise_matrix_norm, x, ord=ord, max_bytes="1MB")
        assert plan.shape == (64, 20, 20)
        assert plan.result_bytes == 64 * 20 * 20 * 8
        assert plan.scratch_bytes <= 10**6
        assert str(ord) in str(plan)


def test_what_pairwise_refuses(backend: Adapter):
    x = backend.asarray(np.ones((2, 3, 4)))
    for shape, message in (((2, 3, 5), "columns must agree"), ((2, 2, 4), "rows must agree"), ((3, 4), "at least 3")):
        with pytest.raises(ValueError, match=message):
            pairx.pairwise_matrix_norm(x, backend.asarray(np.ones(shape)))
    with pytest.raises(ValueError, match="below the smallest tile"):
        pairx.pairwise_matrix_norm(x, ord="nuc", max_bytes=100)
    with pytest.raises(ValueError, match="engine='native'"):
        pairx.pairwise_matrix_norm(x, ord="nuc", engine="native")
    with pytest.raises(ValueError, match="no answer"):
        pairx.pairwise_matrix_norm(backend.asarray(np.ones((2, 0, 0))), ord=-2)


@pytest.mark.parametrize("engine", ["array", "native"])
def test_engines_of_frobenius_agree(backend: Adapter, engine: str):
    x = sample((7, 3, 5), seed=3)
    got = pairx.pairwise_matrix_norm(backend.asarray(x), engine=engine)
    assert_close(backend.to_numpy(got), pair_reference(x, x, "fro"), "float64")


# --- traced -------------------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize(("ord", "p"), [("fro", None), ("nuc", None), (1, None), (-2, None), ("schatten", 3.0)])
def test_compiled(backend: Adapter, ord: Any, p: float | None):
    x, y = sample((2, 4, 3, 2), seed=1), sample((2, 5, 3, 2), seed=2)
    matrix = backend.jit(lambda a: pairx.matrix_norm(a, ord=ord, p=p))
    assert_close(backend.to_numpy(matrix(backend.asarray(x))), matrix_reference(x, ord, p), "float64", factor=64)
    pairs = backend.jit(lambda a, b: pairx.pairwise_matrix_norm(a, b, ord, p=p))
    assert_close(backend.to_numpy(pairs(backend.asarray(x), backend.asarray(y))), pair_reference(x, y, ord, p), "float64", factor=64)
    vector = backend.jit(lambda a: pairx.vector_norm(a, axis=(0, -1), ord=3))
    want = np.apply_along_axis(vector_reference, -1, np.moveaxis(x, 0, -2).reshape(4, 3, 4), 3)
    assert_close(backend.to_numpy(vector(backend.asarray(x))), want, "float64")


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("ord", ["fro", "nuc", 1, 2, -INF])
@pytest.mark.parametrize("shape", [(None, 4, 3, 2), (None, None, None, None)], ids=["batch", "all"])
def test_unknown_sizes(backend: Adapter, ord: Any, shape: tuple[int | None, ...]):
    tf = backend.lib
    spec = tf.TensorSpec(shape, tf.float64)
    x, y = sample((2, 4, 3, 2), seed=1), sample((2, 4, 3, 2), seed=2)

    @tf.function(input_signature=[spec, spec])
    def traced(a: Any, b: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(a)
            result = pairx.pairwise_matrix_norm(a, b, ord, max_bytes="1MB")
        return result, tape.gradient(result, a), pairx.matrix_norm(a, ord=ord), pairx.vector_norm(a, axis=(0, 2))

    pairs, gradient, matrices, vectors = traced(tf.constant(x), tf.constant(y))
    assert_close(pairs.numpy(), pair_reference(x, y, ord), "float64", factor=64)
    assert_close(matrices.numpy(), matrix_reference(x, ord), "float64", factor=64)
    assert_close(vectors.numpy(), np.sqrt((x**2).sum((0, 2))), "float64")
    assert np.isfinite(gradient.numpy()).all()


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("ord", ["fro", "nuc", 1])
def test_xla(backend: Adapter, ord: Any):
    tf = backend.lib
    x = sample((2, 4, 3, 2))
    x[0, 1] = x[0, 0]

    @tf.function(jit_compile=True)
    def traced(a: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(a)
            result = pairx.pairwise_matrix_norm(a, ord=ord)
        return result, tape.gradient(result, a)

    result, gradient = traced(tf.constant(x))
    assert_close(result.numpy(), pair_reference(x, x, ord), "float32", scale=1.0)  # XLA's own decomposition is coarse
    assert np.isfinite(gradient.numpy()).all()
