"""Against pytorch-metric-learning: values and gradients, and where ours differ on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pml = pytest.importorskip("pytorch_metric_learning.losses")
distances = pytest.importorskip("pytorch_metric_learning.distances")

from pairx import losses  # noqa: E402

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 2, 3, 3])
ALONE = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 4, 3, 3])


def leaf(seed: int, *shape: int) -> Any:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def agree(ours: Any, theirs: Any, *leaves: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for g, w in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("budget", [None, 4096])
@pytest.mark.parametrize("labels", [LABELS, ALONE], ids=["pairs", "one alone"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent(temperature: float, labels: Any, budget: int | None):
    x = leaf(1, 12, 5)
    agree(losses.nt_xent(x, labels, temperature=temperature, max_bytes=budget), pml.NTXentLoss(temperature)(x, labels), x)


def test_nt_xent_of_two_views():
    x, y = leaf(1, 12, 5), leaf(2, 12, 5)
    agree(losses.nt_xent(x, y=y, temperature=0.2), pml.SelfSupervisedLoss(pml.NTXentLoss(0.2))(x, y), x, y)


def test_info_nce_is_their_view_without_symmetry():
    x, y = leaf(1, 12, 5), leaf(2, 12, 5)
    agree(losses.info_nce(x, y, temperature=0.2), pml.SelfSupervisedLoss(pml.NTXentLoss(0.2), symmetric=False)(x, y), x, y)


@pytest.mark.parametrize("labels", [LABELS, ALONE], ids=["pairs", "one alone"])
def test_supcon(labels: Any):
    x = leaf(1, 12, 5)
    agree(losses.supcon(x, labels, temperature=0.2), pml.SupConLoss(0.2)(x, labels), x)


@pytest.mark.parametrize("normalized", [False, True])
def test_soft_nearest_neighbors_is_their_nca(normalized: bool):
    x = leaf(1, 12, 5)
    theirs = pml.NCALoss(softmax_scale=2.0, distance=distances.LpDistance(power=2, normalize_embeddings=normalized))
    ours = torch.nn.functional.normalize(x) if normalized else x
    agree(losses.soft_nearest_neighbors(ours, LABELS, temperature=0.5), theirs(x, LABELS), x)


def test_nca():
    x = leaf(1, 12, 5)
    agree(losses.nca(x, LABELS), pml.NCALoss(distance=distances.LpDistance(power=2, normalize_embeddings=False))(x, LABELS), x)


def test_n_pair():
    """With two rows of each class their pairs are anchors and positives, row by row; the dot product without normalising."""
    x, y = leaf(1, 6, 5), leaf(2, 6, 5)
    theirs = pml.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))
    labels = torch.arange(6)
    wanted = theirs(torch.cat([x, y]), torch.cat([labels, labels]))
    # They take one ordered pair of a class, which may be (x_i, y_i) or (y_i, x_i): all the same way round.
    ours = losses.n_pair(x, y) if torch.isclose(wanted, losses.n_pair(x, y)) else losses.n_pair(y, x)
    agree(ours, wanted, x, y)


def test_memory():
    """Their CrossBatchMemory looks at the memory that already holds the batch, and leaves each row's own copy out; push after the loss
    here (a deliberate difference: nothing has to be left out), or push before and say who belongs to whom."""
    theirs = pml.CrossBatchMemory(pml.NTXentLoss(0.2), embedding_size=5, memory_size=20)
    memory = losses.memory_init(20, 5, like=torch.zeros(1, dtype=torch.float64), labels=LABELS)
    for step in range(4):
        x = leaf(step, 12, 5)
        place = (int(memory.position) + torch.arange(12)) % 20
        wanted = theirs(x, LABELS)
        memory = losses.memory_push(memory, x, LABELS)
        torch.testing.assert_close(memory.features[memory.valid], theirs.embedding_memory[: int(memory.valid.sum())])
        same = (LABELS[:, None] == memory.labels) & memory.valid
        negatives = ~same & memory.valid
        same[torch.arange(12), place] = False
        agree(losses.nt_xent(x, y=memory.features, positives=same, negatives=negatives, temperature=0.2), wanted, x)


def test_no_positives_is_0():
    """Deliberate difference: their NCA of a batch without positives is NaN or has no gradient; 0 here, and gradient 0."""
    x = leaf(1, 6, 5)
    ours = losses.nca(x, torch.arange(6))
    assert ours.item() == 0
    assert torch.equal(torch.autograd.grad(ours, x)[0], torch.zeros_like(x))


def test_a_batch_without_negatives():
    """Deliberate difference: their SupCon of one class is 0 by a rule of its own; by the formula one positive's share among all."""
    x = leaf(1, 4, 5)
    labels = torch.zeros(4, dtype=torch.int64)
    assert pml.SupConLoss(0.5)(x, labels).item() == 0
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T / 0.5
    s = s.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    wanted = (torch.logsumexp(s, 1) - s.masked_fill(torch.eye(4, dtype=torch.bool), 0).sum(1) / 3).mean()
    torch.testing.assert_close(losses.supcon(x, labels, temperature=0.5), wanted)


def test_a_tiny_share_is_not_cut():
    """Deliberate difference: they add the smallest float to the share inside the logarithm, and its exponential underflows first."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    theirs = pml.NTXentLoss(1e-3)(x, labels)
    ours = losses.nt_xent(x, labels, temperature=1e-3)
    torch.testing.assert_close(ours, torch.tensor((2000.0 + np.log(2)) / 2, dtype=torch.float64), rtol=1e-12, atol=0)
    assert theirs < ours
