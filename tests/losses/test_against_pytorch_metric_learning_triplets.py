"""Triplet losses and miners beside pytorch-metric-learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pairx

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning import distances, losses, miners, reducers  # noqa: E402

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 4, 3, 3])


def _x() -> Any:
    return torch.tensor(np.random.default_rng(6).normal(size=(12, 5)), requires_grad=True)


def _same(one: Any, other: Any, x: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    (g,), (h,) = torch.autograd.grad(one, x), torch.autograd.grad(other, x)
    torch.testing.assert_close(g, h, rtol=1e-9, atol=1e-11)


def _unit(x: Any) -> Any:
    return torch.nn.functional.normalize(x)


@pytest.mark.parametrize("margin", [0.05, 0.5])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mean_over", ["active", "all"])
def test_triplet_margin_loss(margin: float, soft: bool, mean_over: str):
    x = _x()
    reducer = reducers.AvgNonZeroReducer() if mean_over == "active" else reducers.MeanReducer()
    theirs = losses.TripletMarginLoss(margin=margin, smooth_loss=soft, reducer=reducer)
    ours = pairx.losses.triplet_batch_all(_unit(x), LABELS, margin=margin, soft=soft, mean_over=mean_over)
    _same(ours, theirs(x, LABELS), x)


def test_triplet_margin_loss_of_other_distances():
    x = _x()
    theirs = losses.TripletMarginLoss(margin=1.0, distance=distances.LpDistance(normalize_embeddings=False, power=2))
    _same(pairx.losses.triplet_batch_all(x, LABELS, margin=1.0, squared=True), theirs(x, LABELS), x)
    theirs = losses.TripletMarginLoss(margin=0.1, distance=distances.CosineSimilarity())
    _same(pairx.losses.triplet_batch_all(x, LABELS, margin=0.1, similarity="cosine"), theirs(x, LABELS), x)
    theirs = losses.TripletMarginLoss(margin=0.1, distance=distances.DotProductSimilarity(normalize_embeddings=False))
    _same(pairx.losses.triplet_batch_all(x, LABELS, margin=0.1, similarity="dot"), theirs(x, LABELS), x)


@pytest.mark.parametrize("swap", [False, True])
def test_triplet_margin_loss_of_told_triplets(swap: bool):
    x = _x()
    told = (torch.tensor([0, 1, 2, 3]), torch.tensor([3, 4, 5, 6]), torch.tensor([1, 0, 9, 10]))
    theirs = losses.TripletMarginLoss(margin=0.3, swap=swap)
    ours = pairx.losses.triplet(_unit(x), triplets=told, margin=0.3, swap=swap, mean_over="active")
    _same(ours, theirs(x, LABELS, indices_tuple=told), x)


def test_other_candidates():
    x, y = _x(), _x().detach().flip(0) + 0.1
    theirs = losses.TripletMarginLoss(margin=0.3)(x, LABELS, ref_emb=y, ref_labels=LABELS.flip(0))
    _same(pairx.losses.triplet_batch_all(_unit(x), LABELS, y=_unit(y), y_labels=LABELS.flip(0), margin=0.3), theirs, x)


@pytest.mark.parametrize("alpha", [20, 40, 60])
def test_angular_loss(alpha: float):
    """Deliberate: theirs brings anchors and positives to length 1, and not the negatives; beside rows of length 1 they are the same."""
    x = _x()
    # Theirs rounds the angle to float32 unless that is the default.
    torch.set_default_dtype(torch.float64)
    try:
        theirs = losses.AngularLoss(alpha=alpha, reducer=reducers.MeanReducer())(_unit(x), LABELS)
    finally:
        torch.set_default_dtype(torch.float32)
    _same(pairx.losses.angular(x, LABELS, alpha=alpha), theirs, x)
    _same(pairx.losses.angular(_unit(x), LABELS, alpha=alpha, similarity="dot"), pairx.losses.angular(x, LABELS, alpha=alpha), x)


def test_no_triplets():
    """Deliberate: theirs is a 0 that depends on nothing but the sum of the embeddings times 0; ours is 0 with the gradient 0."""
    x = _x()
    ours = pairx.losses.triplet_batch_all(x, torch.arange(12))
    assert float(ours) == 0
    assert float(torch.autograd.grad(ours, x)[0].abs().max()) == 0


# --- miners --------------------------------------------------------------------------------------------------------------


def _set(lists: Any) -> set[tuple[int, ...]]:
    return {tuple(int(v) for v in row) for row in zip(*lists, strict=True)}


def test_batch_hard_miner():
    x = _x().detach()
    assert _set(pairx.mining.batch_hard(_unit(x), LABELS)) == _set(miners.BatchHardMiner()(x, LABELS))


@pytest.mark.parametrize("kind", ["all", "hard", "semi-hard", "easy"])
@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_triplet_margin_miner(kind: str, margin: float):
    x = _x().detach()
    theirs = miners.TripletMarginMiner(margin=margin, type_of_triplets=kind.replace("-", ""))(x, LABELS)
    ours = pairx.mining.triplets(_unit(x), LABELS, margin=margin, kind=kind)
    assert _set(ours) == _set(theirs)
    assert len(ours[0]) == len(theirs[0])


@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_multi_similarity_miner(epsilon: float):
    x = _x().detach()
    a1, p, a2, n = miners.MultiSimilarityMiner(epsilon=epsilon)(x, LABELS)
    positives, negatives = pairx.mining.multi_similarity(x, LABELS, epsilon=epsilon)
    assert _set(positives) == _set((a1, p))
    assert _set(negatives) == _set((a2, n))


@pytest.mark.parametrize("angle", [20, 35])
def test_angular_miner(angle: float):
    """Deliberate: theirs takes the rows as they come, the loss that it is for does not."""
    x = _unit(_x().detach())
    assert _set(pairx.mining.angular(x, LABELS, angle=angle)) == _set(miners.AngularMiner(angle=angle)(x, LABELS))


def test_distance_weighted_miner():
    """In distribution: how often each negative is drawn, in 2000 batches of each (two samples of one law)."""
    torch.manual_seed(0)
    x, generator = _x().detach() + 0.8, torch.Generator().manual_seed(1)
    miner, draws = miners.DistanceWeightedMiner(), 2000
    ours, theirs = np.zeros((12, 12)), np.zeros((12, 12))
    for _ in range(draws):
        a, _, n = pairx.mining.distance_weighted(x, LABELS, rng=generator)
        np.add.at(ours, (a.numpy(), n.numpy()), 1)
        a, _, n = miner(x, LABELS)
        np.add.at(theirs, (a.numpy(), n.numpy()), 1)
    # Deliberate: of an anchor whose negatives are all too far they draw any; ours has no triplet of it.
    some = ours.sum(axis=1) > 0
    assert some.sum() >= 6
    totals = ours[some].sum(axis=1, keepdims=True), theirs[some].sum(axis=1, keepdims=True)
    p, q = ours[some] / totals[0], theirs[some] / totals[1]
    pooled = (ours[some] + theirs[some]) / (totals[0] + totals[1])
    spread = np.sqrt(pooled * (1 - pooled) * (1 / totals[0] + 1 / totals[1]))
    assert (np.abs(p - q) <= 6 * spread).all()
