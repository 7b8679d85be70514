"""Losses of distributions, classes, numbers and matrices beside torch.nn.functional, optax, Keras, SciPy and scikit-learn: values, and
gradients where the other has them. Each table says which of its losses is ours, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pairx import losses

RNG = np.random.default_rng(0)
Z, T = RNG.normal(size=(2, 6, 4))
A, B = RNG.normal(size=(2, 3, 5, 4))
Q, P = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in RNG.normal(size=(2, 6, 4)))
U, V = RNG.uniform(0.05, 0.95, size=(2, 6, 4))
BITS = (RNG.random((6, 4)) > 0.5).astype(float)
LABELS = np.array([0, 3, 1, 2, 3, 0])
SOME = np.array([0, 3, -1, 2, -1, 0])
W = np.array([0.5, 1.0, 2.0, 3.0])

Table = dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[np.ndarray, ...]]]
"""Name -> ours, theirs, the arrays of both; the first is differentiated."""


def torch_table() -> Table:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    labels, some, w = torch.tensor(LABELS), torch.tensor(SOME), torch.tensor(W)
    hot = torch.eye(4, dtype=torch.float64)[labels]

    def norm(order: Any) -> Callable[..., Any]:
        return lambda x, y: torch.linalg.matrix_norm(x - y, order).mean()

    return {
        "l1": (losses.l1, f.l1_loss, (Z, T)),
        "l2": (losses.l2, f.mse_loss, (Z, T)),
        "huber": (lambda x, y: losses.huber(x, y, delta=0.7), lambda x, y: f.huber_loss(x, y, delta=0.7), (Z, T)),
        "cosine": (losses.cosine, lambda x, y: f.cosine_embedding_loss(x, y, torch.ones(6)), (Z, T)),
        "kl_divergence": (losses.kl_divergence, lambda q, p: f.kl_div(q.log(), p, reduction="batchmean"), (Q, P)),
        "kl_divergence of logarithms": (
            lambda q, p: losses.kl_divergence(q, p, log_input=True, log_target=True),
            lambda q, p: f.kl_div(q, p, reduction="batchmean", log_target=True),
            (np.log(Q), np.log(P)),
        ),
        "kl_divergence, reverse": (
            lambda q, p: losses.kl_divergence(q, p, reverse=True),
            lambda q, p: f.kl_div(p.log(), q, reduction="batchmean"),
            (Q, P),
        ),
        "cross_entropy": (
            lambda z, p: losses.cross_entropy(z, p, from_logits=True, label_smoothing=0.1, class_weights=w),
            lambda z, p: f.cross_entropy(z, p, weight=w, label_smoothing=0.1),
            (Z, P),
        ),
        "sparse_cross_entropy": (
            lambda z: losses.sparse_cross_entropy(z, some, from_logits=True, label_smoothing=0.1, class_weights=w, ignore_index=-1),
            lambda z: f.cross_entropy(z, some, weight=w, label_smoothing=0.1, ignore_index=-1),
            (Z,),
        ),
        "sparse_cross_entropy of probabilities": (
            lambda q: losses.sparse_cross_entropy(q, labels, class_weights=w),
            lambda q: f.nll_loss(q.log(), labels, weight=w),
            (Q,),
        ),
        "one class each": (
            lambda z: losses.cross_entropy(z, hot, from_logits=True),
            lambda z: f.cross_entropy(z, labels),
            (Z,),
        ),
        "binary_cross_entropy": (losses.binary_cross_entropy, f.binary_cross_entropy, (U, V)),
        "binary_cross_entropy of logits": (
            lambda z, p: losses.binary_cross_entropy(z, p, from_logits=True, positive_weight=w),
            lambda z, p: f.binary_cross_entropy_with_logits(z, p, pos_weight=w),
            (Z, BITS),
        ),
        "frobenius": (losses.frobenius, norm("fro"), (A, B)),
        "nuclear": (losses.nuclear, norm("nuc"), (A, B)),
        "spectral": (losses.spectral, norm(2), (A, B)),
        "matrix": (lambda x, y: losses.matrix(x, y, ord=1), norm(1), (A, B)),
    }


def optax_table() -> Table:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    jax.config.update("jax_enable_x64", True)

    return {
        "l2": (losses.l2, lambda x, y: optax.squared_error(x, y).mean(), (Z, T)),
        "l2, half": (lambda x, y: losses.l2(x, y, half=True), lambda x, y: optax.l2_loss(x, y).mean(), (Z, T)),
        "huber": (lambda x, y: losses.huber(x, y, delta=0.7), lambda x, y: optax.huber_loss(x, y, delta=0.7).mean(), (Z, T)),
        "log_cosh": (losses.log_cosh, lambda x, y: optax.log_cosh(x, y).mean(), (Z, T)),
        "cosine": (losses.cosine, lambda x, y: optax.cosine_distance(x, y).mean(), (Z, T)),
        "kl_divergence": (
            lambda q, p: losses.kl_divergence(q, p, log_input=True), lambda q, p: optax.kl_divergence(q, p).mean(), (np.log(Q), P)
        ),
        "kl_divergence of logarithms": (
            lambda q, p: losses.kl_divergence(q, p, log_input=True, log_target=True),
            lambda q, p: optax.losses.kl_divergence_with_log_targets(q, p).mean(),
            (np.log(Q), np.log(P)),
        ),
        "cross_entropy": (
            lambda z, p: losses.cross_entropy(z, p, from_logits=True),
            lambda z, p: optax.softmax_cross_entropy(z, p).mean(),
            (Z, P),
        ),
        "sparse_cross_entropy": (
            lambda z: losses.sparse_cross_entropy(z, jax.numpy.asarray(LABELS), from_logits=True),
            lambda z: optax.softmax_cross_entropy_with_integer_labels(z, jax.numpy.asarray(LABELS)).mean(),
            (Z,),
        ),
        "binary_cross_entropy of logits": (
            lambda z, p: losses.binary_cross_entropy(z, p, from_logits=True),
            lambda z, p: optax.sigmoid_binary_cross_entropy(z, p).mean(),
            (Z, BITS),
        ),
        "focal of logits": (
            lambda z, p: losses.focal(z, p, from_logits=True, gamma=1.5, alpha=0.25),
            lambda z, p: optax.sigmoid_focal_loss(z, p, alpha=0.25, gamma=1.5).mean(),
            (Z, BITS),
        ),
    }  # fmt: skip


def keras_table() -> Table:
    """Keras keeps probabilities 1e-7 away from 0 and 1 (and adds that to norms), in float32 where it makes constants itself."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    k = keras.losses
    hot = np.eye(4)[LABELS]

    def theirs(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, y: tf.reduce_mean(loss(y, x))  # targets first

    def shares(q: Any) -> Any:
        """Keras divides probabilities by their sum; ours takes them as they are."""
        return q / tf.reduce_sum(q, axis=-1, keepdims=True)

    return {
        "l1": (losses.l1, theirs(k.mean_absolute_error), (Z, T)),
        "l2": (losses.l2, theirs(k.mean_squared_error), (Z, T)),
        "huber": (lambda x, y: losses.huber(x, y, delta=0.7), theirs(k.Huber(delta=0.7, dtype="float64")), (Z, T)),
        "log_cosh": (losses.log_cosh, theirs(k.log_cosh), (Z, T)),
        "cosine": (losses.cosine, lambda x, y: 1.0 + tf.reduce_mean(k.cosine_similarity(y, x)), (Z, T)),
        "kl_divergence": (losses.kl_divergence, theirs(k.kl_divergence), (Q, P)),
        "cross_entropy": (
            lambda q, p: losses.cross_entropy(shares(q), p, label_smoothing=0.1),
            lambda q, p: tf.reduce_mean(k.categorical_crossentropy(p, q, label_smoothing=0.1)),
            (Q, hot),
        ),
        "cross_entropy of logits": (
            lambda z, p: losses.cross_entropy(z, p, from_logits=True),
            lambda z, p: tf.reduce_mean(k.categorical_crossentropy(p, z, from_logits=True)),
            (Z, hot),
        ),
        "sparse_cross_entropy": (
            lambda q: losses.sparse_cross_entropy(shares(q), LABELS),
            lambda q: tf.reduce_mean(k.sparse_categorical_crossentropy(LABELS, q)),
            (Q,),
        ),
        "binary_cross_entropy": (
            lambda q, p: losses.binary_cross_entropy(q, p, label_smoothing=0.2),
            lambda q, p: tf.reduce_mean(k.binary_crossentropy(p, q, label_smoothing=0.2)),
            (U, BITS),
        ),
        "focal": (
            lambda q, p: losses.focal(q, p, gamma=2.0, alpha=0.25),
            lambda q, p: tf.reduce_mean(k.binary_focal_crossentropy(p, q, apply_class_balancing=True, alpha=0.25, gamma=2.0)),
            (U, BITS),
        ),
    }


def gradients(library: str, function: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    if library == "torch":
        import torch

        given = [torch.tensor(v, requires_grad=i == 0) for i, v in enumerate(arrays)]
        value = function(*given)
        return float(value), torch.autograd.grad(value, given[0])[0].numpy()
    if library == "optax":
        import jax

        value, slope = jax.value_and_grad(function)(*map(jax.numpy.asarray, arrays))
        return float(value), np.asarray(slope)
    import tensorflow as tf

    given = [tf.constant(v) for v in arrays]
    with tf.GradientTape() as tape:
        tape.watch(given[0])
        value = function(*given)
    return float(value), tape.gradient(value, given[0]).numpy()


TOLERANCES = {"torch": 1e-12, "optax": 1e-12, "keras": 1e-6}
"""Keras: see its table. For cosines 1e-10: torch adds 1e-12 to the squares of norms, the least of which is 0.45 here."""
TABLES = {"torch": torch_table, "optax": optax_table, "keras": keras_table}
NAMES = {
    "torch": [
        "l1", "l2", "huber", "cosine", "kl_divergence", "kl_divergence of logarithms", "kl_divergence, reverse", "cross_entropy",
        "sparse_cross_entropy", "sparse_cross_entropy of probabilities", "one class each", "binary_cross_entropy",
        "binary_cross_entropy of logits", "frobenius", "nuclear", "spectral", "matrix",
    ],
    "optax": [
        "l2", "l2, half", "huber", "log_cosh", "cosine", "kl_divergence", "kl_divergence of logarithms", "cross_entropy",
        "sparse_cross_entropy", "binary_cross_entropy of logits", "focal of logits",
    ],
    "keras": [
        "l1", "l2", "huber", "log_cosh", "cosine", "kl_divergence", "cross_entropy", "cross_entropy of logits", "sparse_cross_entropy",
        "binary_cross_entropy", "focal",
    ],
}  # fmt: skip


@pytest.mark.parametrize("library, name", [(k, n) for k, names in NAMES.items() for n in names])
def test_value_and_gradient(library: str, name: str):
    ours, theirs, arrays = TABLES[library]()[name]
    value, slope = gradients(library, ours, arrays)
    want, wanted = gradients(library, theirs, arrays)
    rtol = 1e-10 if (library, name) == ("torch", "cosine") else TOLERANCES[library]
    np.testing.assert_allclose(value, want, rtol=rtol)
    np.testing.assert_allclose(slope, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0


@pytest.mark.parametrize("library", TABLES)
def test_every_row_is_tested(library: str):
    assert set(TABLES[library]()) == set(NAMES[library])


def test_values_of_scipy_and_scikit_learn():
    from scipy import stats
    from scipy.spatial import distance
    from sklearn import metrics

    np.testing.assert_allclose(
        losses.jensen_shannon(Q, P, reduction="none"), [distance.jensenshannon(q, p) ** 2 for q, p in zip(Q, P, strict=True)], rtol=1e-12
    )
    np.testing.assert_allclose(
        losses.wasserstein(Q, P, positions=W, reduction="none"),
        [stats.wasserstein_distance(W, W, q, p) for q, p in zip(Q, P, strict=True)],
        rtol=1e-12,
    )
    np.testing.assert_allclose(losses.quantile(Z, T, q=0.3), metrics.mean_pinball_loss(T, Z, alpha=0.3), rtol=1e-12)
    np.testing.assert_allclose(losses.hamming(U, BITS), metrics.hamming_loss(BITS, U > 0.5), rtol=1e-12)
    np.testing.assert_allclose(losses.kl_divergence(Q, P, reduction="none"), stats.entropy(P, Q, axis=-1), rtol=1e-12)


# --- deliberate differences ---------------------------------------------------------------------------------------------


def test_torch_cuts_the_logarithm_at_minus_100():
    """A probability of 0 for what happened is an infinite loss here; torch.nn.functional.binary_cross_entropy answers 100."""
    torch = pytest.importorskip("torch")
    q, p = torch.tensor([0.0]), torch.tensor([1.0])
    assert torch.nn.functional.binary_cross_entropy(q, p) == 100
    assert losses.binary_cross_entropy(q, p) == float("inf")


def test_keras_clips_probabilities():
    """Keras takes 0 for 1e-7: a finite loss of -log 1e-7, with no gradient; here inf."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    q, p = tf.constant([[0.0, 1.0]]), tf.constant([[1.0, 0.0]])
    np.testing.assert_allclose(keras.losses.categorical_crossentropy(p, q), -np.log(1e-7), rtol=1e-5)
    assert float(losses.cross_entropy(q, p)) == float("inf")


def test_ignoring_every_label():
    """torch's mean over no labels is NaN; an empty mean is 0 here."""
    torch = pytest.importorskip("torch")
    z, labels = torch.zeros(2, 3), torch.tensor([-100, -100])
    assert torch.nn.functional.cross_entropy(z, labels).isnan()
    assert losses.sparse_cross_entropy(z, labels, from_logits=True, ignore_index=-100) == 0


def test_optax_cosine_of_a_zero_vector():
    """Its gradient is NaN in optax without an epsilon; 0 here."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    x, y = jax.numpy.zeros((1, 3)), jax.numpy.ones((1, 3))
    assert np.isnan(jax.grad(lambda v: optax.cosine_distance(v, y).mean())(x)).all()
    assert (jax.grad(lambda v: losses.cosine(v, y))(x) == 0).all()
