"""Losses of pairs beside torch.nn.functional: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pairx  # noqa: E402

X, Y = np.random.default_rng(0).normal(size=(2, 12, 5))
TARGET = np.where(np.arange(12) % 3 == 0, 1, -1)


@pytest.mark.parametrize("margin", [0.0, 0.3, -0.5])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cosine_embedding(margin: float, reduction: str):
    found = []
    for function in (pairx.losses.cosine_embedding, torch.nn.functional.cosine_embedding_loss):
        x, y = torch.tensor(X, requires_grad=True), torch.tensor(Y, requires_grad=True)
        value = function(x, y, torch.tensor(TARGET), margin=margin, reduction=reduction)
        found.append((value, *torch.autograd.grad((value * torch.arange(1.0, 1 + value.numel()).reshape(value.shape)).sum(), (x, y))))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_cosine_embedding_of_zero_vectors():
    """Cosine 0 here as there."""
    x, y = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    for other in (x, y):
        got = pairx.losses.cosine_embedding(x, other, torch.tensor([1, -1]), reduction="none")
        assert (
            got.tolist() == torch.nn.functional.cosine_embedding_loss(x, other, torch.tensor([1, -1]), reduction="none").tolist() == [1, 0]
        )


def test_cosine_embedding_of_small_vectors_differs():
    """torch adds an epsilon to the squared norms: the cosine of parallel vectors of 1e-8 is nearly 0 there, 1 here."""
    x = torch.full((1, 4), 1e-8, dtype=torch.float64)
    assert float(pairx.losses.cosine_embedding(x, x, torch.tensor([1]))) == 0
    assert float(torch.nn.functional.cosine_embedding_loss(x, x, torch.tensor([1]))) > 0.9


def test_targets_of_zeros_differ():
    """0 means apart, as -1; torch gives such rows no loss at all, silently."""
    target = torch.tensor((TARGET > 0).astype(int))
    got = pairx.losses.cosine_embedding(torch.tensor(X), torch.tensor(Y), target, reduction="none")
    want = torch.nn.functional.cosine_embedding_loss(torch.tensor(X), torch.tensor(Y), torch.tensor(TARGET), reduction="none")
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    assert (torch.nn.functional.cosine_embedding_loss(torch.tensor(X), torch.tensor(Y), target, reduction="none")[target == 0] == 0).all()


@pytest.mark.parametrize("squared", [True, False])
def test_contrastive_row_by_row(squared: bool):
    """hinge_embedding_loss of the distances, with target 1 and -1, is the L1 form."""
    found = []
    for mine in (True, False):
        x = torch.tensor(X, requires_grad=True)
        if mine:
            value = pairx.losses.contrastive(x, y=torch.tensor(Y), same=torch.tensor(TARGET > 0), margin=4.0, squared=squared)
        else:
            d = torch.nn.functional.pairwise_distance(x, torch.tensor(Y), eps=0.0)
            if squared:
                value = torch.where(torch.tensor(TARGET > 0), d**2, torch.relu(4.0 - d) ** 2).mean()
            else:
                value = torch.nn.functional.hinge_embedding_loss(d, torch.tensor(TARGET), margin=4.0)
        found.append((value, *torch.autograd.grad(value, x)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
