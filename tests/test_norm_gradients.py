"""Gradients of the norms: against finite differences, and the subgradients where there is no slope or more than one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from test_norms import (
    INF,
    MATRIX_ORDS,
    VECTOR_ORDS,
    each_matrix_ord,
    each_vector_ord,
    matrix_reference,
    pair_reference,
    sample,
    vector_reference,
)

import pairx


def numeric(fn: Callable[[np.ndarray], float], a: np.ndarray, step: float = 1e-6) -> np.ndarray:
    out = np.zeros_like(a)
    for i in np.ndindex(a.shape):
        plus, minus = a.copy(), a.copy()
        plus[i] += step
        minus[i] -= step
        out[i] = (fn(plus) - fn(minus)) / (2 * step)
    return out


@pytest.mark.autodiff
@pytest.mark.parametrize("ord", [o for o in VECTOR_ORDS if o])
def test_gradient_of_vector_norm(backend: Adapter, ord: float):
    x = sample((3, 4)) + 0.1
    (got,) = backend.grad(lambda a: backend.sum(pairx.vector_norm(a, axis=-1, ord=ord)), x)
    want = numeric(lambda a: sum(vector_reference(r, ord) for r in a), x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.autodiff
@each_vector_ord
def test_gradient_of_vector_norm_is_finite(backend: Adapter, ord: float):
    x = np.array([[0.0, 0, 0], [0, 2, -2], [1, 1, 1], [0, 0, 3]])
    (got,) = backend.grad(lambda a: backend.sum(pairx.vector_norm(a, axis=-1, ord=ord)), x)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[0], 0)
    if ord == INF:
        np.testing.assert_allclose(got[1:], [[0, 0.5, -0.5], [1 / 3] * 3, [0, 0, 1]])
    if ord in (1, 1.5, 2, 3):
        np.testing.assert_allclose(got[3], [0, 0, 1])


@pytest.mark.autodiff
@each_matrix_ord
def test_gradient_of_matrix_norm(backend: Adapter, ord: Any, p: float | None):
    x = sample((2, 4, 3))
    (got,) = backend.grad(lambda a: backend.sum(pairx.matrix_norm(a, ord=ord, p=p)), x)
    want = numeric(lambda a: float(matrix_reference(a, ord, p).sum()), x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


EYE, FLAT = np.eye(3), np.diag([2.0, 2.0, 0.0])
SUBGRADIENTS = [
    ("fro", None, EYE, EYE / math.sqrt(3)),
    ("nuc", None, EYE, EYE),
    ("nuc", None, FLAT, np.diag([1.0, 1.0, 0.0])),
    ("nuc", None, np.ones((3, 3)), np.ones((3, 3)) / 3),
    (2, None, EYE, EYE / 3),
    (2, None, FLAT, np.diag([0.5, 0.5, 0.0])),
    (-2, None, EYE, EYE / 3),
    (-2, None, FLAT, np.zeros((3, 3))),
    (1, None, EYE, EYE / 3),
    (INF, None, np.ones((3, 3)), np.ones((3, 3)) / 3),
    ("schatten", 3.0, EYE, EYE * 3 ** (1 / 3 - 1)),
    ("schatten", 0.5, FLAT, np.diag([2.0, 2.0, 0.0])),
    *((o, p, np.zeros((3, 3)), np.zeros((3, 3))) for o, p in MATRIX_ORDS),
    *((o, p, np.zeros((2, 4)), np.zeros((2, 4))) for o, p in MATRIX_ORDS),
]


@pytest.mark.autodiff
@pytest.mark.parametrize(("ord", "p", "at", "want"), SUBGRADIENTS, ids=[f"{o}{p or ''}-{i}" for i, (o, p, *_) in enumerate(SUBGRADIENTS)])
def test_subgradient(backend: Adapter, ord: Any, p: float | None, at: np.ndarray, want: np.ndarray):
    other = sample(at.shape)  # beside a matrix where nothing is special
    (got,) = backend.grad(lambda a: backend.sum(pairx.matrix_norm(a, ord=ord, p=p)), np.stack([at, other]))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0], want, atol=1e-12)


@pytest.mark.autodiff
@each_matrix_ord
def test_gradient_of_pairs(backend: Adapter, ord: Any, p: float | None):
    x, y, c = sample((3, 3, 2), seed=1), sample((4, 3, 2), seed=2), sample((3, 4), seed=3)
    for budget in (None, 60_000):
        got = backend.grad(lambda a, b: backend.total(pairx.pairwise_matrix_norm(a, b, ord, p=p, max_bytes=budget), c), x, y)  # noqa: B023
        want = numeric(lambda a: float((pair_reference(a, y, ord, p) * c).sum()), x)
        np.testing.assert_allclose(got[0], want, rtol=1e-6, atol=1e-7)
        want = numeric(lambda b: float((pair_reference(x, b, ord, p) * c).sum()), y)
        np.testing.assert_allclose(got[1], want, rtol=1e-6, atol=1e-7)


@pytest.mark.autodiff
@each_matrix_ord
def test_gradient_of_one_set_with_duplicates(backend: Adapter, ord: Any, p: float | None):
    x = sample((4, 2, 3))
    x[1], x[3] = x[0], 0.0
    c = sample((4, 4), seed=3)

    def pairs(a: Any) -> Any:
        return backend.total(pairx.pairwise_matrix_norm(a, ord=ord, p=p), c)

    (got,) = backend.grad(pairs, x)
    assert np.isfinite(got).all()
    # The duplicates give each other nothing; with that pair left out, the rest is smooth.
    mask = 1 - np.eye(4)
    mask[0, 1] = mask[1, 0] = 0

    def rest(a: np.ndarray) -> float:
        d = (a[:, None] - a[None])[mask == 1]
        return float((matrix_reference(d, ord, p) * c[mask == 1]).sum())

    np.testing.assert_allclose(got, numeric(rest, x), rtol=1e-6, atol=1e-6)


@pytest.mark.backends("torch")
def test_second_order(backend: Adapter):
    torch = backend.lib
    x = torch.tensor(sample((3, 2)), requires_grad=True)
    for ord, p in (("fro", None), ("nuc", None), ("schatten", 3.0)):
        assert torch.autograd.gradgradcheck(lambda a, ord=ord, p=p: pairx.matrix_norm(a, ord=ord, p=p), x)
    assert torch.autograd.gradgradcheck(lambda a: pairx.vector_norm(a, axis=-1, ord=3), x)
