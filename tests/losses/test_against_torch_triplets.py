"""Triplet losses beside torch.nn.functional: values, gradients, second derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pairx

torch = pytest.importorskip("torch")


def _rows(n: int = 7) -> list[Any]:
    rng = np.random.default_rng(2)
    return [torch.tensor(rng.normal(size=(n, 5)), requires_grad=True) for _ in range(3)]


def _same(one: Any, other: Any, leaves: list[Any]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for g, h in zip(torch.autograd.grad(one.sum(), leaves), torch.autograd.grad(other.sum(), leaves), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_margin_loss(swap: bool, reduction: str, margin: float):
    rows = _rows()
    want = torch.nn.functional.triplet_margin_loss(*rows, margin=margin, swap=swap, reduction=reduction, eps=0.0)
    _same(pairx.losses.triplet(*rows, margin=margin, swap=swap, reduction=reduction), want, rows)


def test_triplet_margin_loss_of_another_distance():
    rows = _rows()
    want = torch.nn.functional.triplet_margin_loss(*rows, p=1.0, eps=0.0)
    _same(pairx.losses.triplet(*rows, metric="cityblock"), want, rows)
    want = torch.nn.functional.triplet_margin_with_distance_loss(
        *rows, distance_function=lambda a, b: 1 - torch.nn.functional.cosine_similarity(a, b), margin=0.3
    )
    _same(pairx.losses.triplet(*rows, similarity="cosine", margin=0.3), want, rows)


def test_no_epsilon():
    """Deliberate: torch adds 1e-6 to each difference, so that equal rows are 1e-6 sqrt(d) apart; ours are at 0."""
    a, n = torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    assert float(pairx.losses.triplet(a, a, n, margin=2.5)) == 0.5
    assert abs(float(torch.nn.functional.triplet_margin_loss(a, a, n, margin=2.5)) - 0.5) > 1e-6 / 2


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3])


@pytest.mark.parametrize("budget", [None, 4096])
@pytest.mark.parametrize(
    "loss, more",
    [
        ("triplet_batch_all", {"soft": True, "mean_over": "all"}),
        ("triplet_batch_all", {"squared": True, "margin": 2.0}),
        ("triplet_batch_hard", {"soft": True}),
        ("triplet_semi_hard", {}),
        ("angular", {}),
    ],
)
def test_second_derivatives(loss: str, more: dict[str, Any], budget: int | None):
    x = torch.tensor(np.random.default_rng(4).normal(size=(9, 3)), requires_grad=True)
    function = getattr(pairx.losses, loss)
    assert torch.autograd.gradgradcheck(lambda x: function(x, LABELS, max_bytes=budget, **more), (x,))


def test_second_derivatives_of_rows():
    rows = [r.detach()[:3].requires_grad_() for r in _rows()]
    for more in ({"squared": True, "margin": 20.0}, {"soft": True, "swap": True}):
        assert torch.autograd.gradgradcheck(lambda *r, more=more: pairx.losses.triplet(*r, **more), rows)
    assert torch.autograd.gradgradcheck(lambda *r: pairx.losses.triplet_angular(*r, alpha=10.0), rows)


@pytest.mark.parametrize("function", ["triplet_batch_all", "triplet_batch_hard", "triplet_semi_hard"])
def test_a_margin_may_be_learnt(function: str):
    x = torch.tensor(np.random.default_rng(4).normal(size=(9, 3)))
    margin = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for budget in (None, 4096):
        assert torch.autograd.gradcheck(
            lambda m, budget=budget: getattr(pairx.losses, function)(x, LABELS, margin=m, max_bytes=budget), (margin,)
        )
    assert torch.autograd.gradcheck(lambda m: pairx.losses.triplet(x, triplets=([0, 1], [3, 4], [1, 2]), margin=m), (margin,))


def test_ties_share_the_gradient():
    """Two farthest positives and two nearest negatives: each has half of it; at the kink the slope is 0."""
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 1, 2])
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    loss = pairx.losses.triplet_batch_hard(x, labels, weights=weights, reduction="sum")
    (g,) = torch.autograd.grad(loss, x)
    want = torch.tensor([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0], [0.0, -0.5], [0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(g, want)
    for function in (pairx.losses.triplet_batch_all, pairx.losses.triplet_batch_hard, pairx.losses.triplet_semi_hard):
        y = torch.tensor([[0.0], [1.0], [-3.0]], dtype=torch.float64, requires_grad=True)
        loss = function(y, torch.tensor([0, 0, 1]), margin=2.0, weights=[1.0, 0.0, 0.0])
        assert float(loss) == 0
        assert float(torch.autograd.grad(loss, y)[0].abs().max()) == 0
