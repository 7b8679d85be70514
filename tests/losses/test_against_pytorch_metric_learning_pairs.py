"""Losses of pairs beside pytorch-metric-learning: values and gradients.

Where the two differ on purpose a test says so in its name and its first line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pml = pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning import distances, losses, reducers  # noqa: E402

import pairx  # noqa: E402

X = np.random.default_rng(0).normal(size=(16, 5))
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
UNEVEN = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 0, 5, 2, 6])
EUCLIDEAN = distances.LpDistance(normalize_embeddings=False)
PAIRS = tuple(torch.tensor(v) for v in ([0, 0, 4, 9], [4, 8, 12, 5], [0, 3, 3], [5, 6, 8]))
TRIPLETS = tuple(torch.tensor(v) for v in ([0, 4, 9, 2], [8, 12, 5, 6], [1, 3, 0, 7]))


def compare(ours: Any, theirs: Any, x: np.ndarray = X, rtol: float = 1e-10) -> None:
    """The same value, and the same gradient."""
    found = []
    for function in (ours, theirs):
        leaf = torch.tensor(x, requires_grad=True)
        value = function(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        found.append((value.item(), slope.numpy()))
    (value, slope), (want, wanted) = found
    np.testing.assert_allclose(value, want, rtol=rtol)
    np.testing.assert_allclose(slope, wanted, rtol=0, atol=rtol * max(1.0, np.abs(wanted).max()))
    assert np.abs(wanted).max() > 0


def both(function: Any, **given: Any) -> Any:
    return lambda x: function(x, torch.tensor(LABELS), **given)


@pytest.mark.parametrize("power, given", [(1, {"squared": False}), (2, {"hinge_on": "squared"})])
@pytest.mark.parametrize("pos_margin", [0.0, 0.7])
def test_contrastive_sum(power: int, given: dict[str, Any], pos_margin: float):
    """The sum of all terms. Theirs has every pair of a batch twice."""
    if power == 2:
        pos_margin = 0.0  # their margin is compared with the squared distance, ours with the distance
    loss = losses.ContrastiveLoss(
        pos_margin, 3.0, distance=distances.LpDistance(normalize_embeddings=False, power=power), reducer=reducers.SumReducer()
    )
    compare(
        both(pairx.losses.contrastive, margin=3.0, positive_margin=pos_margin, reduction="sum", **given),
        lambda x: loss(x, torch.tensor(LABELS)) / 2,
    )
    i, j = (torch.cat([PAIRS[k], PAIRS[k + 2]]) for k in (0, 1))
    same = torch.tensor([1] * 4 + [0] * 3)
    theirs = lambda x: loss(x, indices_tuple=PAIRS)  # noqa: E731
    compare(
        lambda x: pairx.losses.contrastive(x, pairs=(i, j), same=same, margin=3.0, positive_margin=pos_margin, reduction="sum", **given),
        theirs,
    )
    compare(
        lambda x: pairx.losses.contrastive(
            x, positives=PAIRS[:2], negatives=PAIRS[2:], margin=3.0, positive_margin=pos_margin, reduction="sum", **given
        ),
        theirs,
    )


def test_contrastive_other_set():
    y, theirs = np.random.default_rng(1).normal(size=(9, 5)), np.arange(9) % 4
    loss = losses.ContrastiveLoss(0, 3.0, distance=EUCLIDEAN, reducer=reducers.SumReducer())
    compare(
        both(pairx.losses.contrastive, y=torch.tensor(y), y_labels=theirs, margin=3.0, squared=False, reduction="sum"),
        lambda x: loss(x, torch.tensor(LABELS), ref_emb=torch.tensor(y), ref_labels=torch.tensor(theirs)),
    )


def test_contrastive_cosine():
    """Their margins are similarities (1 and 0 by default), ours distances, 1 - cosine."""
    loss = losses.ContrastiveLoss(0.9, 0.2, distance=distances.CosineSimilarity(), reducer=reducers.SumReducer())
    compare(
        both(pairx.losses.contrastive, similarity="cosine", margin=0.8, positive_margin=0.1, squared=False, reduction="sum"),
        lambda x: loss(x, torch.tensor(LABELS)) / 2,
    )


def test_contrastive_mean_differs():
    """Ours is the mean over pairs; theirs the mean over those positives that are not 0 plus the same of the negatives."""
    x = torch.tensor(X)
    d = torch.cdist(x, x)
    near = torch.tensor(LABELS)[:, None] == torch.tensor(LABELS)
    other = ~torch.eye(16, dtype=torch.bool)
    terms = torch.where(near, d, torch.relu(3.0 - d))
    ours = pairx.losses.contrastive(x, LABELS, margin=3.0, squared=False)
    theirs = losses.ContrastiveLoss(0, 3.0, distance=EUCLIDEAN)(x, torch.tensor(LABELS))
    torch.testing.assert_close(ours, terms[other].mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(theirs, terms[near & other].mean() + terms[~near & (terms > 0)].mean(), rtol=1e-12, atol=0)


def test_signal_to_noise():
    loss = losses.SignalToNoiseRatioContrastiveLoss(
        pos_margin=0.1, neg_margin=2.5, distance=distances.SNRDistance(normalize_embeddings=False), reducer=reducers.SumReducer()
    )
    compare(both(pairx.losses.signal_to_noise, margin=2.5, positive_margin=0.1, reduction="sum"), lambda x: loss(x, torch.tensor(LABELS)))


def test_signal_to_noise_without_signal_differs():
    """Theirs is not a number where an anchor has no variance; ours is 0 there."""
    x = X.copy()
    x[0] = 0.5
    theirs = losses.SignalToNoiseRatioContrastiveLoss(distance=distances.SNRDistance(normalize_embeddings=False))
    assert not torch.isfinite(theirs(torch.tensor(x), torch.tensor(LABELS)))
    leaf = torch.tensor(x, requires_grad=True)
    pairx.losses.signal_to_noise(leaf, LABELS).backward()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("nu", [0.0, 0.3])
def test_margin(nu: float):
    """Triplets as two lists of pairs. nu * beta: once, as theirs for one beta."""
    loss = losses.MarginLoss(0.4, nu, 2.5, learn_beta=True, distance=EUCLIDEAN)
    a, p, n = TRIPLETS

    def ours(x: Any, beta: Any = 2.5) -> Any:
        return pairx.losses.margin(x, positives=(a, p), negatives=(a, n), margin=0.4, beta=beta, nu=nu)

    compare(ours, lambda x: loss(x, torch.tensor(LABELS), indices_tuple=TRIPLETS), rtol=1e-6)  # their beta is float32
    beta = torch.tensor([2.5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ours(torch.tensor(X), beta), beta)
    (want,) = torch.autograd.grad(loss(torch.tensor(X), torch.tensor(LABELS), indices_tuple=TRIPLETS), loss.beta)
    torch.testing.assert_close(slope, want.double(), rtol=1e-6, atol=1e-7)


def test_margin_of_classes():
    loss = losses.MarginLoss(0.4, 0.0, 2.5, learn_beta=True, num_classes=4, distance=EUCLIDEAN)
    with torch.no_grad():
        loss.beta += torch.tensor([0.0, 0.25, -0.5, 1.0])
    a, p, n = TRIPLETS

    def ours(x: Any, beta: Any = None) -> Any:
        beta = loss.beta.detach().double() if beta is None else beta
        return pairx.losses.margin(x, LABELS, positives=(a, p), negatives=(a, n), margin=0.4, beta=beta, beta_per="class")

    compare(ours, lambda x: loss(x, torch.tensor(LABELS), indices_tuple=TRIPLETS), rtol=1e-6)
    beta = loss.beta.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(ours(torch.tensor(X), beta), beta)
    (want,) = torch.autograd.grad(loss(torch.tensor(X), torch.tensor(LABELS), indices_tuple=TRIPLETS), loss.beta)
    torch.testing.assert_close(slope, want.double(), rtol=1e-6, atol=1e-7)


def test_margin_of_all_pairs_differs():
    """Ours has every ordered pair once; theirs once for each triplet that it is in: a positive 12 times here, a negative 3."""
    loss = losses.MarginLoss(0.4, 0.0, 2.5, distance=EUCLIDEAN)
    near = LABELS[:, None] == LABELS

    def ours(x: Any) -> Any:
        none = np.zeros((16, 16), bool)
        one, two = (
            pairx.losses.margin(x, positives=p, negatives=n, margin=0.4, beta=2.5, return_count=True, reduction="none")[0].sum()
            for p, n in ((near & ~np.eye(16, dtype=bool), none), (none, ~near))
        )
        d = np.linalg.norm(X[:, None] - X, axis=-1)
        other = ~np.eye(16, dtype=bool)
        count = 12 * (near & other & (d > 2.1)).sum() + 3 * (~near & (d < 2.9)).sum()
        return (12 * one + 3 * two) / float(count)

    compare(ours, lambda x: loss(x, torch.tensor(LABELS)), rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, UNEVEN])
@pytest.mark.parametrize("given", [{}, {"alpha": 3.0, "beta": 7.0, "base": 0.2}])
def test_multi_similarity(labels: np.ndarray, given: dict[str, Any]):
    loss = losses.MultiSimilarityLoss(**given)
    compare(lambda x: pairx.losses.multi_similarity(x, labels, **given), lambda x: loss(x, torch.tensor(labels)))


def test_multi_similarity_of_mined_pairs_differs():
    """The mean is over anchors with a pair; theirs over all anchors. The sum is the same."""
    loss = losses.MultiSimilarityLoss()
    given = {"positives": PAIRS[:2], "negatives": PAIRS[2:]}
    compare(
        lambda x: pairx.losses.multi_similarity(x, reduction="sum", **given) / 16,
        lambda x: loss(x, torch.tensor(LABELS), indices_tuple=PAIRS),
    )
    _, count = pairx.losses.multi_similarity(torch.tensor(X), return_count=True, **given)
    assert int(count) == 4


@pytest.mark.parametrize("labels", [LABELS, UNEVEN])
@pytest.mark.parametrize("m, gamma", [(0.4, 80.0), (0.25, 16.0)])
def test_circle(labels: np.ndarray, m: float, gamma: float):
    loss = losses.CircleLoss(m, gamma, reducer=reducers.SumReducer())
    compare(lambda x: pairx.losses.circle(x, labels, margin=m, gamma=gamma, reduction="sum"), lambda x: loss(x, torch.tensor(labels)))


def test_circle_mean():
    """Their mean leaves out what is 0: anchors without a positive or a negative, as ours, as long as no softplus underflows."""
    compare(lambda x: pairx.losses.circle(x, UNEVEN, gamma=4.0), lambda x: losses.CircleLoss(gamma=4.0)(x, torch.tensor(UNEVEN)))


@pytest.mark.parametrize("labels", [LABELS, UNEVEN])
@pytest.mark.parametrize("neg_margin", [1.0, 2.5])
def test_lifted_structure(labels: np.ndarray, neg_margin: float):
    loss = losses.LiftedStructureLoss(neg_margin=neg_margin, distance=EUCLIDEAN)
    compare(lambda x: pairx.losses.lifted_structure(x, labels, margin=neg_margin), lambda x: loss(x, torch.tensor(labels)))


def test_generalized_lifted_structure():
    loss = losses.GeneralizedLiftedStructureLoss(neg_margin=1.5, distance=EUCLIDEAN)
    compare(both(pairx.losses.generalized_lifted_structure, margin=1.5), lambda x: loss(x, torch.tensor(LABELS)))


def test_generalized_lifted_structure_without_positives_differs():
    """An anchor without positives leaves our mean; in theirs it has its negatives' part, max(0, log sum e^(m - d))."""
    x, labels = torch.tensor(X), torch.tensor(UNEVEN)
    theirs = losses.GeneralizedLiftedStructureLoss(neg_margin=5.0, distance=EUCLIDEAN, reducer=reducers.DoNothingReducer())
    want = theirs(x, labels)["loss"]["losses"].reshape(-1)
    got = pairx.losses.generalized_lifted_structure(x, labels, margin=5.0, reduction="none")
    alone = torch.tensor(np.isin(UNEVEN, (5, 6)))
    torch.testing.assert_close(got[~alone], want[~alone], rtol=1e-10, atol=1e-10)
    assert (got[alone] == 0).all()
    assert (want[alone] > 0).all()
