"""Losses of classes, statistics and rankings against pytorch-metric-learning 2.9: values and gradients.

Each deliberate difference is a test of its own, with its reason.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pairx.losses as ours

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("pytorch_metric_learning.losses")
pytestmark = pytest.mark.filterwarnings("ignore")

M, D, C, K = 12, 5, 4, 3
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])


@pytest.fixture(autouse=True)
def double() -> Any:
    """Their parameters and constants in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(seed: int, *shape: int) -> Any:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def same(mine: Any, other: Any, *leaves: Any, tolerance: float = 1e-12) -> None:
    """Two losses of the same leaves, and their gradients."""
    found = []
    for call in (mine, other):
        value = call()
        grads = torch.autograd.grad(value, leaves)
        found.append((value.detach(), grads))
    (value, grads), (want, slopes) = found
    torch.testing.assert_close(value, want, rtol=tolerance, atol=tolerance)
    for g, s in zip(grads, slopes, strict=True):
        assert s.abs().max() > 1e-3, "a gradient that is 0 compares nothing"
        torch.testing.assert_close(g, s, rtol=tolerance, atol=tolerance * max(1.0, float(s.abs().max())))


def classifier(cls: Any, name: str, transposed: bool, **settings: Any) -> tuple[Any, Any, Any]:
    """Their module, whose parameter ``name`` holds the same numbers as our proxies, which are a view of it."""
    torch.manual_seed(0)
    module = cls(num_classes=C, embedding_size=D, **settings)
    weight = getattr(module, name)
    weight.data = rows(1, *weight.shape)
    return module, weight, (weight.mT if transposed else weight)


def check_classes(module: Any, weight: Any, call: Any, scale: float = 1.0, tolerance: float = 1e-12) -> None:
    x, labels = (scale * rows(2, M, D)).requires_grad_(), torch.tensor(LABELS)
    same(lambda: call(x, labels), lambda: module(x, labels), x, weight, tolerance=tolerance)


def test_proxy_nca():
    module, weight, proxies = classifier(theirs.ProxyNCALoss, "proxies", False, softmax_scale=3.0)
    check_classes(module, weight, lambda x, y: ours.proxy_nca(x, proxies, y, scale=3.0))


@pytest.mark.parametrize("settings", [{}, {"margin": 0.3, "alpha": 8}])
def test_proxy_anchor(settings: dict[str, Any]):
    module, weight, proxies = classifier(theirs.ProxyAnchorLoss, "proxies", False, **settings)
    by = {"margin": settings.get("margin", 0.1), "scale": float(settings.get("alpha", 32))}
    check_classes(module, weight, lambda x, y: ours.proxy_anchor(x, proxies, y, **by))


def test_proxy_anchor_with_a_class_that_has_no_rows():
    module, weight, proxies = classifier(theirs.ProxyAnchorLoss, "proxies", False)
    x, y = rows(2, M, D).requires_grad_(), torch.tensor(LABELS % 3)
    same(lambda: ours.proxy_anchor(x, proxies, y), lambda: module(x, y), x, weight)


def test_soft_triple():
    module, weight, flat = classifier(theirs.SoftTripleLoss, "fc", True, centers_per_class=K, la=10, gamma=0.2, margin=0.05)
    check_classes(
        module, weight, lambda x, y: ours.soft_triple(x, flat.reshape(C, K, D), y, scale=10.0, gamma=0.2, margin=0.05), tolerance=1e-11
    )


def test_sparse_centers():
    """Theirs adds 1e-5 under each root and divides by the number of entries; ours is the paper's, and so differs by about 1e-6."""
    from pytorch_metric_learning.regularizers import SparseCentersRegularizer

    centers = rows(4, C, K, D)
    want = SparseCentersRegularizer(num_classes=C, centers_per_class=K)(centers.reshape(C * K, D))
    torch.testing.assert_close(ours.sparse_centers(centers), want, rtol=1e-5, atol=1e-5)


def test_normalized_softmax():
    module, weight, proxies = classifier(theirs.NormalizedSoftmaxLoss, "W", True, temperature=0.2)
    check_classes(module, weight, lambda x, y: ours.normalized_softmax(x, proxies, y, temperature=0.2))


@pytest.mark.parametrize("margin", [28.6, 80.0])
def test_arcface(margin: float):
    """Their margin is in degrees, ours in radians as in the paper. 80 degrees reach beyond pi for some rows."""
    module, weight, proxies = classifier(theirs.ArcFaceLoss, "W", True, margin=margin, scale=16)
    check_classes(module, weight, lambda x, y: ours.arcface(x, proxies, y, margin=math.radians(margin), scale=16.0), tolerance=1e-10)


def test_subcenter_arcface():
    module, weight, flat = classifier(theirs.SubCenterArcFaceLoss, "W", True, margin=28.6, scale=16, sub_centers=K)
    check_classes(
        module,
        weight,
        lambda x, y: ours.subcenter_arcface(x, flat.reshape(C, K, D), y, margin=math.radians(28.6), scale=16.0),
        tolerance=1e-10,
    )


def test_cosface():
    module, weight, proxies = classifier(theirs.CosFaceLoss, "W", True, margin=0.2, scale=16)
    check_classes(module, weight, lambda x, y: ours.cosface(x, proxies, y, margin=0.2, scale=16.0))


@pytest.mark.parametrize("margin", [2, 3, 4])
def test_sphereface(margin: int):
    module, weight, proxies = classifier(theirs.SphereFaceLoss, "W", True, margin=margin, scale=2)
    check_classes(module, weight, lambda x, y: ours.sphereface(x, proxies, y, margin=margin, scale=2.0), tolerance=1e-11)


def test_arcface_at_its_own_vector():
    """Theirs goes through acos, whose slope at 1 is infinite: NaN. Ours is finite."""
    module, weight, _ = classifier(theirs.ArcFaceLoss, "W", True)
    weight.data = torch.eye(D)[:, :C].clone()
    x, y = torch.eye(D)[:C].clone().requires_grad_(), torch.arange(C)
    (bad,) = torch.autograd.grad(module(x, y), x)
    assert not torch.isfinite(bad).all()
    (good,) = torch.autograd.grad(ours.arcface(x, weight.mT, y), x)
    assert torch.isfinite(good).all()


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_vicreg(spread: float):
    """A small spread has its variance term at work."""
    x, y = (spread * rows(5, M, D)).requires_grad_(), (spread * rows(6, M, D)).requires_grad_()
    module = theirs.VICRegLoss(invariance_lambda=5, variance_mu=7, covariance_v=2)
    same(lambda: ours.vicreg(x, y, invariance=5.0, variance=7.0, covariance=2.0), lambda: module(x, ref_emb=y), x, y)


def test_vicreg_of_one_row():
    """Theirs divides by 0 and answers NaN; ours has no variances and no covariances there."""
    x, y = rows(5, 1, D), rows(6, 1, D)
    assert torch.isnan(theirs.VICRegLoss()(x, ref_emb=y))
    torch.testing.assert_close(ours.vicreg(x, y), 25 * ((x - y) ** 2).mean())


def _pseudo_code(x: Any, y: Any, by: float, unbiased: bool) -> Any:
    """Algorithm 1 of Barlow Twins."""
    x, y = ((z - z.mean(0)) / z.std(0, unbiased=unbiased) for z in (x, y))
    c = (x.T @ y) / len(x)
    d = (c - torch.eye(c.shape[0])).pow(2)
    d = torch.where(torch.eye(c.shape[0]) > 0, d, by * d)
    return d.sum()


def test_barlow_twins():
    x, y = rows(5, M, D).requires_grad_(), rows(6, M, D).requires_grad_()
    same(lambda: ours.barlow_twins(x, y, redundancy=0.3), lambda: _pseudo_code(x, y, 0.3, unbiased=False), x, y)


def test_barlow_twins_as_printed_divides_by_n_and_by_n_minus_1():
    """Its correlations of a view with itself are (n - 1) / n, so the loss of a perfect batch is not 0; eq. 2 and ours have 1."""
    x = torch.linalg.qr(rows(5, M, D) - rows(5, M, D).mean(0))[0]
    printed = _pseudo_code(x, x, 0.3, unbiased=True)
    torch.testing.assert_close(printed, torch.tensor(D / M**2))
    torch.testing.assert_close(ours.barlow_twins(x, x, redundancy=0.3), torch.tensor(0.0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("bins", [10, 7])
def test_fast_ap(bins: int):
    x, y = rows(2, M, D).requires_grad_(), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 4])
    module = theirs.FastAPLoss(num_bins=bins)
    same(lambda: ours.fast_ap(x, y, bins=bins), lambda: module(x, y), x, tolerance=1e-11)


@pytest.mark.parametrize("bins", [100, 12])
def test_histogram(bins: int):
    x, y = rows(2, M, D).requires_grad_(), torch.tensor(LABELS)
    module = theirs.HistogramLoss(n_bins=bins)
    same(lambda: ours.histogram(x, y, bins=bins), lambda: module(x, y), x, tolerance=1e-11)


def test_histogram_counts_pairs_of_two_lone_rows():
    """Theirs lists triplets first: a negative pair of two rows that both lack a positive is in none of them, and is left out. The
    paper's negative pairs are all pairs with different labels."""
    x, y = rows(2, 6, D), torch.tensor([0, 0, 1, 2, 0, 0])
    assert abs(float(ours.histogram(x, y) - theirs.HistogramLoss()(x, y))) > 1e-4


def test_histogram_of_equal_rows():
    """At a cosine of 1 theirs indexes beyond its last bin."""
    x, y = torch.ones(4, D), torch.tensor([0, 0, 1, 1])
    with pytest.raises((RuntimeError, IndexError)):
        theirs.HistogramLoss()(x, y)
    torch.testing.assert_close(ours.histogram(x, y), torch.tensor(1.0))


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_smooth_ap(temperature: float):
    """Theirs takes each anchor as its own candidate and positive, and equally many rows of each class, in order: as ours if
    the rows are passed again as ``y``."""
    x, labels = rows(2, 9, D).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    module = theirs.SmoothAPLoss(temperature=temperature)
    same(lambda: ours.smooth_ap(x, labels, y=x, y_labels=labels, temperature=temperature), lambda: module(x, labels), x, tolerance=1e-10)


def test_smooth_ap_leaves_the_anchor_out():
    """Theirs has it in first place, so that no ranking can be the worst. Here the positives come third of 3, and second."""
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(ours.smooth_ap(x, y, temperature=1e-4, reduction="none"), torch.tensor([2 / 3, 2 / 3, 1 / 2, 1 / 2]))
    assert ours.smooth_ap(x, y) > theirs.SmoothAPLoss()(x, y)


@pytest.mark.parametrize("settings", [{"margin": 0.4, "Tn": 3}, {"margin": 0.8, "Tn": 1, "Tp": 2, "imbalance": 0.3, "alpha": 1.3}])
def test_ranked_list(settings: dict[str, Any]):
    """Theirs adds 1e-5 to each weight in the sums that it divides by; there are M of them, and the sums are 1 or more."""
    x, y = rows(2, M, D).requires_grad_(), torch.tensor(LABELS)
    by = {
        "margin": settings["margin"],
        "alpha": settings.get("alpha", 1 + settings["margin"] / 2),
        "balance": settings.get("imbalance", 0.5),
        "positive_scale": float(settings.get("Tp", 0)),
        "negative_scale": float(settings["Tn"]),
    }
    same(lambda: ours.ranked_list(x, y, **by), lambda: theirs.RankedListLoss(**settings)(x, y), x, tolerance=M * 1e-5)


def test_ranked_list_counts_negatives_at_distance_0():
    """Theirs takes a distance of 0 for "no violator": equal rows of two classes, the worst there can be, cost nothing."""
    x, y = torch.ones(2, D), torch.tensor([0, 1])
    assert float(theirs.RankedListLoss(margin=0.4, Tn=3)(x, y)) == 0
    torch.testing.assert_close(ours.ranked_list(x, y), torch.tensor(0.5 * 1.2))


@pytest.mark.parametrize(
    "name, settings",
    [("arcface", {"scale": 4.0}), ("proxy_anchor", {"scale": 4.0}), ("normalized_softmax", {"temperature": 0.5})],
)
def test_second_derivatives_of_classes(name: str, settings: dict[str, Any]):
    x, w, y = rows(2, 4, 3).requires_grad_(), rows(3, 3, 3).requires_grad_(), torch.tensor([0, 1, 2, 0])
    assert torch.autograd.gradgradcheck(lambda x, w: getattr(ours, name)(x, w, y, **settings), (x, w))


@pytest.mark.parametrize("name, settings", [("smooth_ap", {"temperature": 0.3}), ("ranked_list", {}), ("fast_ap", {})])
@pytest.mark.parametrize("budget", [None, 8192])
def test_second_derivatives_of_rankings(name: str, settings: dict[str, Any], budget: int | None):
    x, y = rows(2, 6, 3).requires_grad_(), torch.tensor([0, 1, 0, 1, 2, 0])
    assert torch.autograd.gradgradcheck(lambda x: getattr(ours, name)(x, y, max_bytes=budget, **settings), (x,))


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
def test_second_derivatives_of_statistics(name: str):
    x, y = rows(2, 5, 3).requires_grad_(), rows(3, 5, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, y: getattr(ours, name)(x, y), (x, y))
