"""batch_dot for every pair of axes, and similarities, on every backend against NumPy."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import assert_close, rounded

import pairx


def sample(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return rounded(np.random.default_rng([seed, *shape]).normal(size=shape), dtype)


def reference(x: np.ndarray, y: np.ndarray, ax: int, ay: int, batch: int) -> np.ndarray:
    """By the letters of einsum, from the definition."""
    left, right = list("abcdefgh"[: x.ndim]), list("abcdefgh"[:batch] + "uvwxyz"[: y.ndim - batch])
    left[ax] = right[ay] = "k"
    free = [c for i, c in enumerate(left) if i >= batch and i != ax] + [c for i, c in enumerate(right) if i >= batch and i != ay]
    return np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(left[:batch] + free)}", x, y)


CASES = [  # shape of x, shape of y, batch_ndim: every pair of axes of equal size is contracted
    ((5, 4), (5, 4), 1),
    ((5, 4), (5, 3, 4), 1),
    ((5, 3, 4), (5, 4), 1),
    ((5, 4, 4), (5, 4, 4), 1),
    ((5, 2, 4), (5, 2, 4), 1),
    ((5, 2, 3, 4), (5, 4, 3, 2), 1),
    ((5, 2, 3, 4), (5, 2, 3, 4), 2),
    ((4, 3), (3, 4), 0),
    ((4,), (4,), 0),
    ((2, 3, 4, 2, 3), (2, 3, 4), 1),
    ((0, 3, 2), (0, 3, 2), 1),
    ((2, 0, 3), (2, 3, 0), 1),
]
CONTRACTIONS = [
    (x, y, b, ax, ay) for x, y, b in CASES for ax, ay in itertools.product(range(b, len(x)), range(b, len(y))) if x[ax] == y[ay]
]


@pytest.mark.parametrize(("sx", "sy", "batch", "ax", "ay"), CONTRACTIONS)
def test_every_pair_of_axes(backend: Adapter, sx: tuple[int, ...], sy: tuple[int, ...], batch: int, ax: int, ay: int):
    x, y = sample(sx, seed=1), sample(sy, seed=2)
    want = reference(x, y, ax, ay, batch)
    a, b = backend.asarray(x), backend.asarray(y)
    for axes in {(ax, ay), (ax - x.ndim, ay - y.ndim), (ax, ay - y.ndim)}:
        got = pairx.batch_dot(a, b, axes, batch_ndim=batch)
        assert backend.is_own(got)
        assert_close(backend.to_numpy(got), want, "float64", scale=reference(abs(x), abs(y), ax, ay, batch))
    kept = backend.to_numpy(pairx.batch_dot(a, b, [ax, ay], batch_ndim=batch, keepdims=True))
    assert kept.shape == (want.shape if want.ndim > batch else (*want.shape, 1))


@pytest.mark.parametrize(
    ("sx", "sy", "axes"),
    [((5, 4), (5, 4), (1, 1)), ((5, 3, 4), (5, 4), (2, 1)), ((5, 4), (5, 4, 2), (1, 1)), ((5, 3, 4), (5, 2, 4, 3), (2, 2))],
)
def test_default_axes_are_those_of_keras(backend: Adapter, sx: tuple[int, ...], sy: tuple[int, ...], axes: tuple[int, int]):
    x, y = sample(sx, seed=1), sample(sy, seed=2)
    got = pairx.batch_dot(backend.asarray(x), backend.asarray(y))
    assert_close(backend.to_numpy(got), reference(x, y, *axes, 1), "float64", scale=reference(abs(x), abs(y), *axes, 1))


def test_one_int_serves_both(backend: Adapter):
    x, y = backend.asarray(sample((5, 8, 3))), backend.asarray(sample((5, 8, 2)))
    assert tuple(pairx.batch_dot(x, y, 1).shape) == (5, 3, 2)


@pytest.mark.parametrize(
    ("x", "y", "want"),
    [
        ("int32", "int32", "int32"),
        ("uint8", "uint8", "uint8"),
        ("int32", "int64", "int64"),
        ("bool", "int32", "int32"),
        ("int32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("bool", "float32", "float32"),
        ("complex64", "complex64", "complex64"),
    ],
)
def test_dtypes(backend: Adapter, x: str, y: str, want: str):
    a, b = np.array([[[1, 0], [1, 1]]]).astype(x), np.array([[[1, 1], [0, 1]]]).astype(y)
    got = pairx.batch_dot(backend.asarray(a), backend.asarray(b))
    assert backend.dtype_of(got) == want
    np.testing.assert_array_equal(backend.to_numpy(got), [[[1, 1], [1, 2]]])


def test_half_precision_accumulates_in_float32(backend: Adapter):
    if "float16" not in backend.dtypes:
        pytest.skip("no float16")
    x = backend.asarray(np.ones((1, 1, 4096)), "float16")
    got = pairx.batch_dot(x, x, 2)
    assert backend.dtype_of(got) == "float16"
    assert backend.to_numpy(got).item() == 4096.0  # in float16, 2048 + 1 is 2048


def test_booleans_count(backend: Adapter):
    x = backend.asarray(np.ones((2, 300), bool))
    np.testing.assert_array_equal(backend.to_numpy(pairx.batch_dot(x, x)), [300, 300])


@pytest.mark.parametrize(
    ("sx", "sy", "keywords", "error", "message"),
    [
        ((5, 3, 4), (5, 3, 4), {"axes": 0}, ValueError, "in the batch (batch_ndim=1)"),
        ((5, 3, 4), (5, 3, 4), {"axes": (1, -3)}, ValueError, "axis -3 of y is in the batch"),
        ((5, 3, 4), (5, 3, 4), {"axes": 1, "batch_ndim": 2}, ValueError, "in the batch"),
        ((5, 3, 4), (5, 3, 4), {"axes": 3}, ValueError, "x has 3 axes, -3 to 2"),
        ((5, 3, 4), (5, 3, 4), {"axes": (1, 2)}, ValueError, "axis 1 of x and axis 2 of y must agree, got 3 and 4"),
        ((5, 3, 4), (6, 3, 4), {"axes": 1}, ValueError, "sizes of batch axis 0 must agree, got 5 and 6"),
        ((5, 3, 4), (1, 3, 4), {"axes": 1}, ValueError, "must agree, got 5 and 1"),
        ((5, 3, 4), (5, 3, 4), {"axes": ((1, 2), (1, 2))}, TypeError, "one axis of each operand"),
        ((5, 3, 4), (5, 3, 4), {"axes": (1, 1, 1)}, ValueError, "expected an int, or one for x and one for y"),
        ((5, 3, 4), (5, 3, 4), {"axes": 1.0}, TypeError, "expected an int"),
        ((5,), (5, 3), {}, ValueError, "x has shape (5,): expected at least 2 axes"),
        ((5, 3), (5, 3), {"batch_ndim": -1}, ValueError, "batch_ndim=-1"),
        ((5, 3), (5, 3), {"batch_ndim": 1.5}, ValueError, "batch_ndim=1.5"),
    ],
)
def test_what_batch_dot_refuses(backend: Adapter, sx: Any, sy: Any, keywords: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=re.escape(message)):
        pairx.batch_dot(backend.asarray(np.ones(sx)), backend.asarray(np.ones(sy)), **keywords)


@pytest.mark.autodiff
def test_gradient(backend: Adapter):
    x, y, c = sample((2, 3, 4), seed=1), sample((2, 4, 5), seed=2), sample((2, 3, 5), seed=3)
    gx, gy = backend.grad(lambda a, b: backend.total(pairx.batch_dot(a, b), c), x, y)
    np.testing.assert_allclose(gx, c @ np.swapaxes(y, 1, 2), rtol=1e-12)
    np.testing.assert_allclose(gy, np.swapaxes(x, 1, 2) @ c, rtol=1e-12)


@pytest.mark.jit
def test_compiled(backend: Adapter):
    x, y = sample((5, 3, 4), seed=1), sample((5, 2, 3, 4), seed=2)
    fn = backend.jit(lambda a, b: pairx.batch_dot(a, b, (1, 2)))
    got = backend.to_numpy(fn(backend.asarray(x), backend.asarray(y)))
    assert_close(got, reference(x, y, 1, 2, 1), "float64", scale=reference(abs(x), abs(y), 1, 2, 1))


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("sx", "sy", "batch", "ax", "ay"), [c for c in CONTRACTIONS if 0 not in c[0] + c[1]])
def test_unknown_sizes(
    backend: Adapter, sx: tuple[int, ...], sy: tuple[int, ...], batch: int, ax: int, ay: int, jit_compile: bool
):
    tf = backend.lib
    x, y = sample(sx, seed=1), sample(sy, seed=2)
    want = reference(x, y, ax, ay, batch)
    for unknown in (1, len(sx) + len(sy)):  # the first axis, then all
        signature = [tf.TensorSpec([None] * min(unknown, len(s)) + list(s[unknown:]), tf.float64) for s in (sx, sy)]
        fn = tf.function(lambda a, b: pairx.batch_dot(a, b, (ax, ay), batch_ndim=batch), input_signature=signature, jit_compile=jit_compile)
        static = fn.get_concrete_function().output_shapes
        assert static.rank == want.ndim
        if unknown == 1 and batch:
            assert tuple(static)[1:] == want.shape[1:]  # the sizes that are known stay so
        assert_close(fn(tf.constant(x), tf.constant(y)).numpy(), want, "float64", scale=reference(abs(x), abs(y), ax, ay, batch))


# --- similarities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [None, (1.0, 0.0, 2.0, 0.5)])
def test_similarity(backend: Adapter, dtype: str, w: tuple[float, ...] | None):
    x, y = sample((2, 5, 4), dtype, 1), sample((3, 4), dtype, 2)
    x[0, 1] = 0.0
    a, b = backend.asarray(x, dtype), backend.asarray(y, dtype)
    wide_x, wide_y, weight = x.astype(float), y.astype(float), np.ones(4) if w is None else np.array(w)
    dot = np.einsum("bik,jk,k->bij", wide_x, wide_y, weight)
    size = np.einsum("bik,jk,k->bij", abs(wide_x), abs(wide_y), weight)
    got = pairx.similarity(a, b, "dot", w=w)
    assert backend.dtype_of(got) == dtype
    assert_close(backend.to_numpy(got), dot, dtype, scale=size)
    norms = np.sqrt((wide_x**2 * weight).sum(-1))[..., :, None] * np.sqrt((wide_y**2 * weight).sum(-1))[None, None, :]
    got = pairx.similarity(a, b, "cosine", w=w)
    assert_close(backend.to_numpy(got), np.where(norms == 0, 0, dot / np.where(norms == 0, 1, norms)), dtype, scale=np.ones_like(dot))


def test_similarity_of_one_set(backend: Adapter):
    x = sample((6, 4))
    got = backend.to_numpy(pairx.similarity(backend.asarray(x)))
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    assert_close(got, unit @ unit.T, "float64", scale=np.ones((6, 6)))
    np.testing.assert_array_equal(got, got.T)
    assert np.all(np.abs(got) <= 1)


def test_similarities_by_name(backend: Adapter):
    x = backend.asarray(sample((3, 4)))
    for name in ("dot", "inner_product", "ip"):
        np.testing.assert_allclose(backend.to_numpy(pairx.similarity(x, kind=name)), sample((3, 4)) @ sample((3, 4)).T, rtol=1e-12)
    with pytest.raises(ValueError, match=r"similarity='cosin' is unknown.* 'cosine'"):
        pairx.similarity(x, kind="cosin")
    with pytest.raises(TypeError, match="use cdist"):
        pairx.similarity(x, kind=len)
