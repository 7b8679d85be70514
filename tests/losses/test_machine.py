"""Losses in machine code: sums over one set with their gradients, and log-sum-exp, against float64 formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from scipy.special import logsumexp
from scipy.special import softmax as shares

import pairx
from pairx.losses import contrastive, nca, soft_nearest_neighbors

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.backends("numpy", "torch")
FORMS: list[dict[str, Any]] = [
    {},
    {"hinge_on": "squared", "margin": 9.0},
    {"squared": False, "positive_margin": 0.5},
    {"half": True, "margin": 4.0},
    {"metric": "cityblock", "margin": 7.0, "positive_margin": 2.0},
    {"metric": "sqeuclidean", "margin": 20.0, "squared": False},
]


def rows(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.integers(max(2, n // 4), size=n)


def formula(x: np.ndarray, labels: np.ndarray, reduction: str, **form: Any) -> float:
    """As the docstring has it, on all pairs at once."""
    form = {"metric": "euclidean", "margin": 1.0, "positive_margin": 0.0, "hinge_on": "distance", "squared": True, "half": False} | form
    gap = x[:, None] - x[None]
    d = {"euclidean": np.sqrt((gap**2).sum(-1)), "sqeuclidean": (gap**2).sum(-1), "cityblock": np.abs(gap).sum(-1)}[form["metric"]]
    power = 2 if form["squared"] else 1
    near = np.maximum(d - form["positive_margin"], 0) ** power
    far = np.maximum(form["margin"] - d**2, 0) if form["hinge_on"] == "squared" else np.maximum(form["margin"] - d, 0) ** power
    i, j = np.triu_indices(len(x), 1)
    each = np.where(labels[i] == labels[j], near[i, j], far[i, j]) * (0.5 if form["half"] else 1.0)
    return float(each.mean() if reduction == "mean" else each.sum())


def assert_slope(got: np.ndarray, x: np.ndarray, f: Callable[[np.ndarray], float]) -> None:
    """Against central differences in three directions."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        step = rng.normal(size=x.shape) * 1e-6
        np.testing.assert_allclose(float((got * step).sum()), (f(x + step) - f(x - step)) / 2, rtol=1e-5)


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small calls wait for it here."""
    from pairx_backends.compiled import jit

    monkeypatch.setattr(jit.Source, "worth", lambda self, terms: True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call was answered by machine code."""
    from pairx_backends.compiled import shares, terms

    found: list[bool] = []

    def watched(total: Any, *args: Any, **how: Any) -> Any:
        answer = total(*args, **how)
        found.append(answer is not None)
        return answer

    for module in (terms, shares):
        monkeypatch.setattr(module, "total", partial(watched, module.total))
    return found


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("n, d, kind", [(2, 1, "float64"), (70, 5, "float64"), (131, 33, "float32"), (300, 3, "float32")])
def test_values(backend: Adapter, seen: list[bool], form: dict[str, Any], n: int, d: int, kind: str):
    x, labels = rows(n, d)
    x = x.astype(kind).astype("float64")
    for reduction in ("mean", "sum"):
        with pairx.options(engine="compiled"):
            got = contrastive(backend.asarray(x, kind), backend.asarray(labels), reduction=reduction, **form)
        want = formula(x, labels, reduction, **form)
        assert str(got.dtype).endswith(kind)
        np.testing.assert_allclose(backend.to_numpy(got), want, rtol=40 * np.finfo(kind).eps)
    assert seen == [True, True]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.backends("torch")
def test_gradients(backend: Adapter, seen: list[bool], form: dict[str, Any]):
    """Against central differences of the formula, in float64; several blocks of rows and panels of features."""
    import torch

    x, labels = rows(330, 35)
    t = torch.from_numpy(x).requires_grad_()
    with pairx.options(engine="compiled"):
        (got,) = torch.autograd.grad(3.0 * contrastive(t, torch.from_numpy(labels), max_bytes="900kB", **form), t)
    assert_slope(got.numpy(), x, lambda x: 3.0 * formula(x, labels, "mean", **form))
    assert seen == [True]


def neighbours(x: np.ndarray, labels: np.ndarray, reduction: str, temperature: float = 1.0, metric: str = "sqeuclidean") -> float:
    """As the docstrings have it; anchors without a positive do not count."""
    gap = x[:, None] - x[None]
    d = {"euclidean": np.sqrt((gap**2).sum(-1)), "sqeuclidean": (gap**2).sum(-1), "cityblock": np.abs(gap).sum(-1)}[metric]
    other = ~np.eye(len(x), dtype=bool)
    same = other & (labels[:, None] == labels)
    s = -d / temperature
    with np.errstate(all="ignore"):
        each = logsumexp(np.where(other, s, -np.inf), axis=1) - logsumexp(np.where(same, s, -np.inf), axis=1)
    each = each[same.any(axis=1)]
    return float(each.mean() if reduction == "mean" else each.sum()) if each.size else 0.0


SHARES = [{}, {"temperature": 0.3}, {"metric": "euclidean", "temperature": 0.05}, {"metric": "cityblock"}]


@pytest.mark.parametrize("form", SHARES, ids=str)
@pytest.mark.parametrize("n, d, kind", [(2, 1, "float64"), (70, 5, "float64"), (131, 33, "float32"), (300, 3, "float32")])
def test_shares(backend: Adapter, seen: list[bool], form: dict[str, Any], n: int, d: int, kind: str):
    x, labels = rows(n, d)
    labels[-1] = 10**6  # nobody else is of its class
    x = x.astype(kind).astype("float64")
    for reduction in ("mean", "sum"):
        with pairx.options(engine="compiled"):
            got = soft_nearest_neighbors(backend.asarray(x, kind), backend.asarray(labels), reduction=reduction, **form)
        assert str(got.dtype).endswith(kind)
        np.testing.assert_allclose(backend.to_numpy(got), neighbours(x, labels, reduction, **form), rtol=40 * np.finfo(kind).eps)
    assert seen == [True, True]


@pytest.mark.parametrize("form", SHARES, ids=str)
@pytest.mark.backends("torch")
def test_gradients_of_shares(backend: Adapter, seen: list[bool], form: dict[str, Any]):
    import torch

    x, labels = rows(330, 35)
    labels[-1] = 10**6
    t = torch.from_numpy(x).requires_grad_()
    with pairx.options(engine="compiled"):
        loss = soft_nearest_neighbors(t, torch.from_numpy(labels), max_bytes="900kB", **form)
        (got,) = torch.autograd.grad(3.0 * loss, t)
    assert_slope(got.numpy(), x, lambda x: 3.0 * neighbours(x, labels, "mean", **form))
    assert seen == [True]


@pytest.mark.backends("torch")
def test_far_classes_are_finite(backend: Adapter, seen: list[bool]):
    """Positives so far that their share underflows: the logarithm does not, nor does its slope. Nobody with a positive: 0."""
    import torch

    x = np.array([[0.0, 0.0], [300.0, 0.0], [0.0, 1.0], [300.0, 1.0]])
    for labels in (np.array([0, 0, 1, 1]), np.arange(4)):
        t = torch.tensor(x, dtype=torch.float32, requires_grad=True)
        with pairx.options(engine="compiled"):
            value = nca(t, torch.from_numpy(labels))
        value.backward()
        np.testing.assert_allclose(value.item(), neighbours(x, labels, "mean"), rtol=1e-6)
        assert t.grad.isfinite().all()
        assert bool(t.grad.any()) == (labels[1] == 0)
    assert seen == [True, True]


@pytest.mark.parametrize("reduction", ["means", None])
def test_a_wrong_reduction_is_told(backend: Adapter, reduction: Any):
    x, labels = rows(40, 4)
    for loss in (contrastive, soft_nearest_neighbors):
        with pairx.options(engine="compiled"), pytest.raises(ValueError, match="reduction"):
            loss(backend.asarray(x), backend.asarray(labels), reduction=reduction)


@pytest.mark.backends("torch")
def test_second_derivatives(backend: Adapter, seen: list[bool]):
    import torch

    x, labels = rows(9, 3)
    t = torch.from_numpy(x).requires_grad_()
    with pairx.options(engine="compiled"):
        assert torch.autograd.gradgradcheck(lambda u: contrastive(u, torch.from_numpy(labels), margin=3.0), t)
        assert torch.autograd.gradgradcheck(lambda u: soft_nearest_neighbors(u, torch.from_numpy(labels)), t)
    assert seen
    assert all(seen)


def test_threads_have_the_same_bits(backend: Adapter, seen: list[bool]):
    x, labels = rows(700, 64)
    for loss in (partial(contrastive, margin=11.0), soft_nearest_neighbors):
        found = []
        for threads in (1, 2, 3):
            t = backend.asarray(x, "float32")
            if backend.name == "torch":
                t.requires_grad_()
            with pairx.options(engine="compiled", threads=threads):
                value = loss(t, backend.asarray(labels))
            if backend.name == "torch":
                value.backward()
                found.append(np.append(t.grad.numpy(), value.detach().numpy()))
            else:
                found.append(np.asarray(value))
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other)
    assert seen == [True] * 6


@pytest.mark.parametrize("size", [1e-30, 1e22, 1e30])
@pytest.mark.backends("torch")
def test_what_overflows_goes_the_ordinary_way(backend: Adapter, seen: list[bool], size: float):
    import torch

    x, labels = rows(40, 4)
    answers = []
    for engine in ("compiled", "array"):
        t = torch.tensor(x * size, dtype=torch.float32, requires_grad=True)
        with pairx.options(engine=engine):
            value = contrastive(t, torch.from_numpy(labels), squared=False)
            value.backward()
        assert not t.grad.isnan().any()
        answers.append((value.item(), t.grad.numpy()))
    assert seen == [False]
    np.testing.assert_allclose(answers[0][0], answers[1][0], rtol=1e-5)
    np.testing.assert_allclose(answers[0][1], answers[1][1], rtol=1e-4, atol=1e-7)


def test_a_tight_budget_goes_the_ordinary_way(backend: Adapter, seen: list[bool]):
    x, labels = rows(60, 4)
    with pairx.options(engine="compiled"):
        got = contrastive(backend.asarray(x, "float64"), backend.asarray(labels), max_bytes=30_000)
    np.testing.assert_allclose(backend.to_numpy(got), formula(x, labels, "mean"), rtol=1e-13)
    assert seen == [False]


def test_large_labels_are_not_rounded(backend: Adapter, seen: list[bool]):
    x, _ = rows(40, 4)
    labels = 2**40 + np.arange(40) // 2
    with pairx.options(engine="compiled"):
        got = contrastive(backend.asarray(x, "float32"), backend.asarray(labels))
    np.testing.assert_allclose(backend.to_numpy(got), formula(x, labels, "mean"), rtol=1e-5)
    assert seen == [True]


def test_nan_is_not_hidden(backend: Adapter, seen: list[bool]):
    x, labels = rows(40, 4)
    x[7, 2] = np.nan
    for loss in (contrastive, soft_nearest_neighbors):
        with pairx.options(engine="compiled"):
            assert np.isnan(backend.to_numpy(loss(backend.asarray(x, "float32"), backend.asarray(labels))))


def test_small_calls_do_not_wait_for_the_compiler(backend: Adapter, monkeypatch: pytest.MonkeyPatch):
    from pairx_backends.compiled import jit, shares, softmax, terms

    monkeypatch.undo()
    monkeypatch.setattr(jit.Source, "_there", False)
    monkeypatch.setattr(jit.Source, "function", property(lambda self: pytest.fail("a compiler was waited for")))
    x, labels = rows(20, 3)
    t, told = backend.asarray(x, "float64"), backend.asarray(labels)
    for module in (shares, softmax, terms):
        module.source.cache_clear()  # what was compiled before
    try:
        np.testing.assert_allclose(backend.to_numpy(contrastive(t, told)), formula(x, labels, "mean"), rtol=1e-13)
        assert np.isfinite(backend.to_numpy(pairx.losses.supcon(t, told)))
    finally:
        for module in (shares, softmax, terms):
            module.source.cache_clear()


@pytest.mark.parametrize("n", [1, 7, 16, 100, 1003])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.backends("numpy")
def test_log_sum_exp(backend: Adapter, n: int, masked: bool, kind: str):
    """SciPy's in float64; what is empty, infinite or NaN in one row is so in that row alone."""
    from pairx_backends.compiled.softmax import log_sum_exp

    rng = np.random.default_rng(n)
    s = (rng.normal(size=(9, 2 * n)) * 20).astype(kind)[:, :n]  # rows that do not lie side by side
    mask = rng.random((9, n)) < 0.7 if masked else None
    if masked:
        mask[0] = False
        mask[1:, 0] = True
    s[1] = 1e30
    s[2], s[3, 0], s[4, 0], s[5, 0] = -np.inf, np.inf, np.nan, -np.inf
    value, factor, share = log_sum_exp(s, mask, True)
    with np.errstate(all="ignore"):
        inside = np.where(mask, s, -np.inf).astype("float64") if masked else s.astype("float64")
        want, slope = logsumexp(inside, axis=1), shares(inside, axis=1)
        got = share * factor[:, None]
    slope[np.isinf(want)] = 0.0  # nothing to add up, or infinity
    eps = np.finfo(kind).eps
    np.testing.assert_allclose(value, want, rtol=4 * eps, atol=4 * eps)
    np.testing.assert_allclose(got, slope, rtol=1e2 * eps, atol=np.sqrt(np.finfo(kind).tiny))
    alone = log_sum_exp(s, mask, False)
    assert alone[2] is None
    np.testing.assert_array_equal(alone[0], value)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.backends("numpy")
def test_exponentials_to_the_last_digits(backend: Adapter, kind: str):
    """Below a largest number of 0 nothing is rounded before, so the shares are e^s; what would be subnormal, or slow as a factor, is 0."""
    from pairx_backends.compiled.softmax import log_sum_exp

    s = -np.linspace(0.0, 60.0, 4001, dtype=kind)[None]
    np.testing.assert_allclose(log_sum_exp(s, None, True)[2], np.exp(s.astype("float64")), rtol=2 * np.finfo(kind).eps)
    far = np.array([[0.0, -95.0 if kind == "float32" else -720.0, -1e30]], kind)
    np.testing.assert_array_equal(log_sum_exp(far, None, True)[2], [[1.0, 0.0, 0.0]])
