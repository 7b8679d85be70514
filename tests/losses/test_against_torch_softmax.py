"""Against torch.nn.functional, and formulas of open_clip written out: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from pairx import losses  # noqa: E402


def leaf(seed: int, *shape: int) -> Any:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def agree(ours: Any, theirs: Any, *leaves: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    for g, w in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("budget", [None, 4096])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_info_nce(reduction: str, budget: int | None):
    x, y = leaf(1, 12, 5), leaf(2, 12, 5)
    logits = F.normalize(x) @ F.normalize(y).T / 0.1
    agree(
        losses.info_nce(x, y, reduction=reduction, max_bytes=budget), F.cross_entropy(logits, torch.arange(12), reduction=reduction), x, y
    )


@pytest.mark.parametrize("budget", [None, 4096])
def test_clip(budget: int | None):
    """Both directions, halved; logit_scale is learnt as its logarithm."""
    x, y, log_scale = leaf(1, 12, 5), leaf(2, 12, 5), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    logits = log_scale.exp() * F.normalize(x) @ F.normalize(y).T
    target = torch.arange(12)
    theirs = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    agree(losses.clip(x, y, logit_scale=log_scale.exp(), max_bytes=budget), theirs, x, y, log_scale)


@pytest.mark.parametrize("budget", [None, 4096])
def test_siglip(budget: int | None):
    """open_clip's SigLipLoss: -logsigmoid(labels * (scale * image @ text.T + bias)).sum() / rows, labels 2 I - 1."""
    x, y = leaf(1, 12, 5), leaf(2, 12, 5)
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, -10.0))
    logits = scale * F.normalize(x) @ F.normalize(y).T + bias
    theirs = -F.logsigmoid((2 * torch.eye(12, dtype=torch.float64) - 1) * logits).sum() / 12
    agree(losses.siglip(x, y, scale=scale, bias=bias, max_bytes=budget), theirs, x, y, scale, bias)


@pytest.mark.parametrize("budget", [None, 2048])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_linear_cross_entropy(reduction: str, weighted: bool, smoothing: float, budget: int | None):
    x, w, b = leaf(1, 9, 5), leaf(2, 31, 5), leaf(3, 31)
    labels = torch.tensor([0, 5, -100, 30, 5, 11, 2, 7, -100])
    of_class = torch.linspace(0.5, 2, 31, dtype=torch.float64) if weighted else None
    theirs = F.cross_entropy(x @ w.T + b, labels, weight=of_class, label_smoothing=smoothing, reduction=reduction)
    ours = losses.linear_cross_entropy(
        x, w, labels, b, class_weights=of_class, label_smoothing=smoothing, reduction=reduction, max_bytes=budget
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    agree(ours.sum(), theirs.sum(), x, w, b)


def test_everything_ignored_is_0_and_not_nan():
    """Deliberate difference: torch's mean over no rows is NaN, an empty mean is 0 here."""
    x, w, labels = leaf(1, 3, 5), leaf(2, 4, 5), torch.full((3,), -100)
    assert torch.isnan(F.cross_entropy(x @ w.T, labels))
    assert losses.linear_cross_entropy(x, w, labels).item() == 0
