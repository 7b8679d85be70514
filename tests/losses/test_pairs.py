"""Losses of pairs: every way to say which pairs, on every library; what is refused; what may be learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from loss_cases import REFERENCES
from reference_pairs import apart, snr
from test_losses import bring, close

import pairx
from pairx.losses import LOSSES

pytestmark = pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 3))
LABELS, OTHERS = np.array([0, 1, 2, 0, 1, 2, 0]), np.array([1, 1, 0, 2, 0, 0, 3])
SAME = np.array([1, 0, 1, 1, 0, 0, 1])
RELATED = ("contrastive", "signal_to_noise", "margin", "multi_similarity", "circle", "generalized_lifted_structure")
GIVEN = ("contrastive", "signal_to_noise", "margin")


def distance(name: str, u: np.ndarray, v: np.ndarray) -> float:
    return snr(u, v) if name == "signal_to_noise" else apart(u, v, None, None)


def term(name: str, d: float, same: bool) -> float:
    if name == "contrastive":
        return d * d if same else max(0.0, 1 - d) ** 2
    if name == "signal_to_noise":
        return d if same else max(0.0, 1 - d)
    return max(0.0, d - 1.0) if same else max(0.0, 1.4 - d)


def answer(backend: Adapter, name: str, *args: Any, **given: Any) -> np.ndarray:
    function = LOSSES[name].function
    return backend.to_numpy(function(*(bring(backend, v) for v in args), **{k: bring(backend, v) for k, v in given.items()}))


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("form", ["integers", "column", "bool", "uint8", "float"])
def test_row_by_row(backend: Adapter, name: str, form: str):
    same = {"integers": SAME, "column": SAME[:, None], "bool": SAME == 1, "uint8": SAME.astype(np.uint8), "float": SAME * 1.0}[form]
    want = [term(name, distance(name, u, v), bool(s)) for u, v, s in zip(X, Y, SAME, strict=True)]
    close(answer(backend, name, X, y=Y, same=same, reduction="none"), want, "float64", form)


@pytest.mark.parametrize("name", GIVEN)
def test_two_sets(backend: Adapter, name: str):
    """All pairs of two sets, by labels, by a matrix, and by pairs: nobody is left out, and no pair has two anchors."""
    want = np.array(
        [[term(name, distance(name, u, v), a == b) for v, b in zip(Y, OTHERS, strict=True)] for u, a in zip(X, LABELS, strict=True)]
    )
    got = answer(backend, name, X, LABELS, y=Y, y_labels=OTHERS, reduction="none")
    close(got, want.sum(axis=1), "float64", "labels")
    matrix = LABELS[:, None] == OTHERS[None, :]
    close(answer(backend, name, X, y=Y, same=matrix, reduction="none"), want.sum(axis=1), "float64", "matrix")
    close(answer(backend, name, X, y=Y[:1], same=matrix[:, :1], reduction="none"), want[:, 0], "float64", "matrix of one column")
    i, j = np.divmod(np.arange(49), 7)
    close(answer(backend, name, X, LABELS, y=Y, y_labels=OTHERS, pairs=(i, j), reduction="none"), want.reshape(-1), "float64", "pairs")


@pytest.mark.parametrize("name", GIVEN)
def test_labels_are_a_matrix_of_booleans(backend: Adapter, name: str):
    for reduction in ("none", "mean", "sum"):
        want = answer(backend, name, X, LABELS, reduction=reduction)
        matrix = (LABELS[:, None] == LABELS[None, :]).astype(float)
        close(answer(backend, name, X, same=matrix, reduction=reduction), want, "float64", reduction)
        close(answer(backend, name, X, LABELS[:, None].astype(np.uint8), reduction=reduction), want, "float64", "uint8 column")


def test_the_sum_has_every_pair_once(backend: Adapter):
    i, j = np.triu_indices(7, 1)
    close(
        answer(backend, "contrastive", X, LABELS, reduction="sum"),
        sum(term("contrastive", distance("", X[p], X[q]), LABELS[p] == LABELS[q]) for p, q in zip(i, j, strict=True)),
        "float64",
        "sum",
    )
    listed = answer(backend, "contrastive", X, LABELS, pairs=(i, j))
    close(answer(backend, "contrastive", X, LABELS), listed, "float64", "mean")


@pytest.mark.parametrize("name", RELATED)
def test_candidates(backend: Adapter, name: str):
    """With a second set that holds the first and strangers, labels say the same as masks."""
    both, theirs = np.concatenate([X, Y]), np.concatenate([LABELS, OTHERS])
    positives = LABELS[:, None] == theirs[None, :]
    want = answer(backend, name, X, y=both, positives=positives, negatives=~positives, reduction="none")
    close(answer(backend, name, X, LABELS, y=both, y_labels=theirs, reduction="none"), want, "float64", name)


def test_no_given_pairs(backend: Adapter):
    none = (np.zeros(0, int), np.zeros(0, int))
    for name in GIVEN:
        assert answer(backend, name, X, pairs=none, same=np.zeros(0, int)) == 0
        assert answer(backend, name, X, positives=none, negatives=none) == 0
        got = answer(backend, name, X, positives=(np.array([0]), np.array([1])), negatives=none, reduction="none")
        close(got, [term(name, distance(name, X[0], X[1]), True)], "float64", name)


def test_what_is_far_beyond_the_margin_has_no_slope(backend: Adapter):
    """A distance whose square is not representable, of a pair that is let alone."""
    x = np.array([[-7e37] * 4, [7e37] * 4, [7e37] * 4])
    for given in ({}, {"hinge_on": "squared"}, {"squared": False}):
        assert float(answer(backend, "contrastive", x.astype(np.float32), np.array([0, 1, 1]), **given)) == 0
        if backend.autodiff:
            (g,) = backend.grad(lambda v, given=given: pairx.losses.contrastive(v, [0, 1, 1], **given), x, dtype="float32")
            assert np.isfinite(g).all(), given


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({}, TypeError, "labels"),
        ({"same": SAME, "labels": LABELS}, TypeError, "same and labels"),
        ({"same": SAME}, TypeError, "pass y"),
        ({"same": SAME[:5], "y": Y}, ValueError, "same has shape \\(5,\\): expected \\(7,\\)"),
        ({"same": SAME, "y": Y[:5]}, ValueError, "must be the same"),
        ({"same": np.where(SAME, 1, -1), "y": Y}, ValueError, "outside \\[0, 1\\]"),
        ({"same": np.ones((7, 6))}, ValueError, "expected \\(7, 7\\)"),
        ({"same": np.ones((7, 7, 1))}, ValueError, "same has shape"),
        ({"pairs": (np.array([0]), np.array([1]))}, TypeError, "pairs: pass same"),
        ({"pairs": (np.array([0]), np.array([7])), "labels": LABELS}, IndexError, "reaches from"),
        ({"pairs": (np.array([0, 1]), np.array([2])), "labels": LABELS}, ValueError, "lengths"),
        ({"pairs": (np.array([0]), np.array([1])), "labels": LABELS, "positives": np.eye(7)}, TypeError, "positives"),
        ({"labels": LABELS[:, None] * np.ones((1, 1, 1))}, ValueError, "labels has shape"),
        ({"labels": LABELS, "y": Y}, TypeError, "y_labels"),
        ({"labels": LABELS, "margin": np.ones(3)}, ValueError, "margin has shape"),
        ({"labels": LABELS, "hinge_on": "cosine"}, ValueError, "hinge_on"),
        ({"labels": LABELS, "metric": "euclidean", "similarity": "dot"}, TypeError, "pass one"),
    ],
)
def test_refused(backend: Adapter, given: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        answer(backend, "contrastive", X, **given)


def test_refused_of_others(backend: Adapter):
    with pytest.raises(ValueError, match="target has shape"):
        answer(backend, "cosine_embedding", X, Y, SAME[None, :])
    with pytest.raises(ValueError, match="other values than 1"):
        answer(backend, "cosine_embedding", X, Y, SAME * 2)
    with pytest.raises(ValueError, match="must be the same"):
        answer(backend, "cosine_embedding", X, Y[:1], SAME)
    with pytest.raises(ValueError, match="beta has shape"):
        answer(backend, "margin", X, LABELS, beta=np.ones(3))
    with pytest.raises(ValueError, match="labels reach outside 0 to 1"):
        answer(backend, "margin", X, LABELS, beta=np.ones(2), beta_per="class")
    with pytest.raises(TypeError, match="pass labels"):
        answer(backend, "margin", X, y=Y, same=SAME, beta=np.ones(2), beta_per="class")
    with pytest.raises(ValueError, match="alpha=0"):
        answer(backend, "multi_similarity", X, LABELS, alpha=0)


@pytest.mark.parametrize("form", ["signs", "zeros", "bool", "column", "float"])
def test_targets(backend: Adapter, form: str):
    target = {"signs": 2 * SAME - 1, "zeros": SAME.astype(np.uint8), "bool": SAME == 1, "column": SAME[:, None], "float": 2.0 * SAME - 1}[
        form
    ]
    cos = (X * Y).sum(1) / np.linalg.norm(X, axis=1) / np.linalg.norm(Y, axis=1)
    close(
        answer(backend, "cosine_embedding", X, Y, target, reduction="none"),
        np.where(SAME == 1, 1 - cos, np.maximum(cos, 0)),
        "float64",
        form,
    )


@pytest.mark.autodiff
@pytest.mark.parametrize("budget", [None, 4096])
@pytest.mark.parametrize(
    "name, hyper, fixed",
    [
        ("contrastive", {"margin": 1.5, "positive_margin": 0.4}, {}),
        ("margin", {"beta": 1.3, "margin": 0.3, "nu": 0.2}, {"over": "all"}),
        ("margin", {"beta": np.array([0.8, 1.3, 2.0])}, {"beta_per": "class", "nu": 0.3}),
        ("margin", {"beta": np.linspace(0.8, 2, 7)}, {}),
        ("multi_similarity", {"alpha": 2.0, "beta": 5.0, "base": 0.5}, {}),
        ("circle", {"margin": 0.3, "gamma": 4.0}, {}),
        ("lifted_structure", {"margin": 1.1}, {}),
        ("generalized_lifted_structure", {"margin": 1.1}, {}),
    ],
)
def test_learnt(backend: Adapter, name: str, hyper: dict[str, Any], fixed: dict[str, Any], budget: int | None):
    """Gradients of hyper-parameters against central differences in the same call with numbers."""
    function = LOSSES[name].function

    def loss(*values: Any) -> Any:
        return function(backend.asarray(X), LABELS, **dict(zip(hyper, values, strict=True)), **fixed, max_bytes=budget)

    def plain(values: list[np.ndarray]) -> float:
        return float(function(X, LABELS, **dict(zip(hyper, values, strict=True)), **fixed))

    given = [np.asarray(v, float) for v in hyper.values()]
    got = backend.grad(loss, *given)
    assert got is not None
    if name == "circle":  # its weights are constants of the gradient, of the margin they are not
        assert all(np.isfinite(g).all() for g in got)
        given, got = given[1:], got[1:]
        hyper = {"gamma": hyper["gamma"]}
        fixed = {"margin": 0.3}
    for k, g in enumerate(got):
        for at in np.ndindex(given[k].shape):
            sides = []
            for h in (1e-6, -1e-6):
                moved = [v.copy() for v in given]
                moved[k][at] += h
                sides.append(plain(moved))
            np.testing.assert_allclose(g[at], (sides[0] - sides[1]) / 2e-6, rtol=0, atol=1e-8)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("budget", [None, 2048])
@pytest.mark.parametrize("name", ["contrastive", "margin", "multi_similarity", "lifted_structure"])
def test_second_order(backend: Adapter, name: str, budget: int | None):
    import torch

    x = torch.tensor(X, requires_grad=True)
    function = LOSSES[name].function
    assert torch.autograd.gradgradcheck(lambda v: function(v, torch.tensor(LABELS), max_bytes=budget), (x,))


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("name", [*RELATED, "lifted_structure"])
def test_unknown_sizes(backend: Adapter, name: str):
    """One graph for every batch size."""
    import tensorflow as tf

    function = LOSSES[name].function
    graph = tf.function(
        lambda x, labels: function(x, labels), input_signature=[tf.TensorSpec([None, 3], tf.float64), tf.TensorSpec([None], tf.int64)]
    )
    for n in (7, 4, 1):
        close(graph(X[:n], LABELS[:n]).numpy(), answer(backend, name, X[:n], LABELS[:n]), "float64", str(n))


@pytest.mark.backends("tensorflow")
def test_unknown_sizes_of_pairs(backend: Adapter):
    import tensorflow as tf

    rows, flags, index = tf.TensorSpec([None, 3], tf.float64), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64)
    by_row = tf.function(lambda x, y, same: pairx.losses.contrastive(x, y=y, same=same), input_signature=[rows, rows, flags])
    close(by_row(X, Y, SAME).numpy(), answer(backend, "contrastive", X, y=Y, same=SAME), "float64", "rows")
    listed = tf.function(
        lambda x, i, j, same: pairx.losses.contrastive(x, pairs=(i, j), same=same), input_signature=[rows, index, index, flags]
    )
    i, j, same = np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([1, 0, 1])
    close(listed(X, i, j, same).numpy(), answer(backend, "contrastive", X, pairs=(i, j), same=same), "float64", "pairs")


def test_constant_rows_have_no_signal(backend: Adapter):
    """0.1 is no sum of powers of two: the mean of constant rows is not exact, and their variance must be."""
    x = np.array([[0.1] * 7, [0.7] * 7, np.arange(7.0)])
    got = answer(backend, "signal_to_noise", x, pairs=(np.array([0, 1, 2]), np.array([2, 0, 0])), same=np.ones(3), reduction="none")
    close(got, [0, 0, 1], "float64", "snr")


def test_references_agree_with_themselves():
    """The references of pairs and of labels are two texts of one thing."""
    i, j = np.nonzero(~np.eye(7, dtype=bool))
    for reference in (REFERENCES["contrastive"], REFERENCES["margin"]):
        a, active, mass = reference(X, LABELS)
        b, took, _ = reference(X, LABELS, pairs=(i, j))
        assert np.isclose(a[active].sum() / mass[active].sum(), b[took].mean())
