"""What the losses are made of, by itself: values and slopes where a guard decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adapters import Adapter

from pairx.losses import _core as core
from pairx.losses import _numeric as numeric
from pairx.losses import _score as scoring

INF, NAN = np.inf, np.nan
TOP = np.finfo(float).max
pytestmark = pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")


def seen(backend: Adapter, function: Callable[[core.Arrays, Any], Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Any]:
    """Values, the gradient of their sum, and its derivative along ones."""

    def run(v: Any) -> Any:
        a = core.arrays(x=v)
        return function(a, a["x"])

    value = backend.to_numpy(run(backend.asarray(x, "float64")))
    if not backend.autodiff:
        return value, None, None
    slope, curve = backend.grad(lambda v: backend.sum(run(v)), x), backend.curvature(lambda v: backend.sum(run(v)), [x], [np.ones_like(x)])
    assert slope is not None
    assert curve is not None
    return value, slope[0], curve[0]


def agree(got: tuple[Any, ...], *want: Any) -> None:
    for g, w in zip(got, want, strict=False):
        if g is not None:
            np.testing.assert_allclose(g, w, rtol=1e-14, atol=1e-300)


def test_lse(backend: Adapter):
    """-inf of nothing, with slope 0; large numbers; one infinite term."""
    x = np.array([[-INF, -INF, -INF], [0.0, -INF, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -2e4], [INF, 0.0, 1.0]])
    value, slope, curve = seen(backend, lambda a, s: numeric.lse(a, s), x)
    agree((value,), [-INF, np.log(2), 1e4 + np.log(2), -1e4 + np.log(2), INF])
    if slope is not None:
        agree((slope[:4],), [[0, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0]])
        agree((curve[:4],), np.zeros((4, 3)))


def test_lse_of_a_mask(backend: Adapter):
    """What is outside does not count, whatever it is; where nobody is inside, there is no slope."""
    x, mask = np.array([[1.0, 2.0, 3.0], [INF, NAN, 5.0], [1.0, 1.0, TOP]]), np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0]], bool)
    own = backend.asarray(mask)
    got = seen(backend, lambda a, s: numeric.lse(a, s, own), x)
    agree(got, [-INF, 5.0, 1 + np.log(2)], [[0, 0, 0], [0, 0, 1], [0.5, 0.5, 0]], np.zeros((3, 3)))


@pytest.mark.backends("torch")
def test_lse_again(backend: Adapter):
    """A graph that is kept has the same slopes a second time, and far terms' are 0, not subnormal numbers, which are slow."""
    import torch

    x = torch.tensor([[1.0, 2.0, -99.0], [-torch.inf, -torch.inf, -torch.inf], [-80.0, 0.5, 0.0]], requires_grad=True)
    value = numeric.lse(core.arrays(x=x), x).sum()
    first, second = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
    e = torch.exp(x.detach().double())
    want = torch.stack([e[0] / e[0].sum(), torch.zeros(3, dtype=torch.float64), e[2] / e[2].sum()])
    for found in (first, second):
        torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-30)
    assert first[0, 2] == 0
    assert first[2, 0] == 0


def test_lse_of_no_columns(backend: Adapter):
    value = seen(backend, lambda a, s: numeric.lse(a, s), np.zeros((2, 0)))[0]
    agree((value,), [-INF, -INF])


def test_hinge(backend: Adapter):
    x = np.array([-INF, -1.0, 0.0, 2.0, INF])
    agree(seen(backend, numeric.hinge, x), [0, 0, 0, 2, INF], [0, 0, 0, 1, 1], np.zeros(5))
    assert np.isnan(seen(backend, numeric.hinge, np.array([NAN]))[0]).all()


def test_bounded(backend: Adapter):
    """What overflowed is the largest number that may be subtracted still, with slope 0; NaN stays."""
    x = np.array([1.0, -2.0, 0.0, TOP, -TOP, INF, -INF])
    slope = np.array([1.0, 1, 1, 0, 0, 0, 0])
    agree(seen(backend, scoring.bounded, x), [1, -2, 0, TOP / 4, -TOP / 4, TOP / 4, -TOP / 4], slope, np.zeros(7))
    assert np.isnan(seen(backend, scoring.bounded, np.array([NAN]))[0]).all()


def test_softplus(backend: Adapter):
    x = np.array([-INF, -800.0, 0.0, 800.0, INF])
    value, slope, _ = seen(backend, numeric.softplus, x)
    agree((value,), [0, 0, np.log(2), 800, INF])
    if slope is not None:
        agree((slope[1:4],), [0, 0.5, 1])
    agree((seen(backend, numeric.log_sigmoid, x)[0],), [-INF, -800, -np.log(2), 0, 0])


def test_square(backend: Adapter):
    """Infinite beyond the dtype, without slope."""
    x = np.array([0.0, 3.0, 1e200])
    agree(seen(backend, lambda a, z: numeric.square(a.xp, z), x), [0, 9, INF], [0, 6, 0], [2, 2, 0])


def test_among(backend: Adapter):
    x, mask = np.array([[INF, NAN, 1.0], [1.0, 2.0, INF]]), backend.asarray(np.array([[0, 0, 1], [1, 1, 0]], bool))
    got = seen(backend, lambda a, v: numeric.among(a.xp, mask, v), x)
    agree(got[:2], [1, 3], [[0, 0, 1], [1, 1, 0]])
