"""Triplet losses beside optax."""

from __future__ import annotations

import numpy as np
import pytest

import pairx

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")


@pytest.mark.parametrize("margin", [0.2, 1.0, 4.0])
def test_triplet_margin_loss(margin: float):
    jax.config.update("jax_enable_x64", True)
    rows = [jax.numpy.asarray(v) for v in np.random.default_rng(2).normal(size=(3, 7, 5))]

    def ours(*rows):
        return pairx.losses.triplet(*rows, margin=margin)

    def theirs(*rows):
        return optax.losses.triplet_margin_loss(*rows, margin=margin, eps=0.0).mean()

    np.testing.assert_allclose(ours(*rows), theirs(*rows), rtol=1e-12)
    for g, h in zip(jax.grad(ours, (0, 1, 2))(*rows), jax.grad(theirs, (0, 1, 2))(*rows), strict=True):
        np.testing.assert_allclose(g, h, rtol=0, atol=1e-12)


def test_equal_rows():
    """Deliberate: optax takes the root of a sum of |difference + eps|^2 with eps = 1e-6; ours adds nothing, and has the slope 0 there."""
    jax.config.update("jax_enable_x64", True)
    a = jax.numpy.ones((2, 3))
    g = jax.grad(lambda a: pairx.losses.triplet(a, jax.numpy.ones((2, 3)), jax.numpy.zeros((2, 3)), margin=5.0))(a)
    np.testing.assert_allclose(g, -0.5 / np.sqrt(3) * np.ones((2, 3)), rtol=1e-12)
