"""Against optax: values and gradients, and where ours differ on purpose."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

from pairx import losses  # noqa: E402

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 2, 3, 3])


@pytest.fixture(autouse=True)
def _double():
    jax.config.update("jax_enable_x64", True)


def agree(ours, theirs, *arrays: np.ndarray) -> None:
    np.testing.assert_allclose(ours(*arrays), theirs(*arrays), rtol=1e-10)
    which = tuple(range(len(arrays)))
    for g, w in zip(jax.grad(ours, which)(*arrays), jax.grad(theirs, which)(*arrays), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_ntxent(temperature: float):
    x = jax.numpy.asarray(np.random.default_rng(1).normal(size=(12, 5)))
    agree(
        lambda x: losses.nt_xent(x, LABELS, temperature=temperature), lambda x: optax.ntxent(x, jax.numpy.asarray(LABELS), temperature), x
    )


def test_no_positives_is_0():
    """Deliberate difference: optax divides by the number of positive pairs, which is 0: NaN."""
    x = jax.numpy.asarray(np.random.default_rng(1).normal(size=(4, 5)))
    assert np.isnan(optax.ntxent(x, jax.numpy.arange(4)))
    assert losses.nt_xent(x, jax.numpy.arange(4)) == 0


def test_linear_cross_entropy():
    rng = np.random.default_rng(1)
    x, w, b = (jax.numpy.asarray(rng.normal(size=s)) for s in ((8, 4), (13, 4), (13,)))
    labels = jax.numpy.asarray(rng.integers(0, 13, 8))
    agree(
        lambda x, w, b: losses.linear_cross_entropy(x, w, labels, b, max_bytes=1024),
        lambda x, w, b: optax.softmax_cross_entropy_with_integer_labels(x @ w.T + b, labels).mean(),
        x,
        w,
        b,
    )
