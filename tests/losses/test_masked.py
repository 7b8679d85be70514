"""The cosine loss over a grid with a mask: what it means, what is refused, and that it can be trained."""

from __future__ import annotations

import numpy as np
import pytest
from adapters import Adapter
from loss_cases import REFERENCES
from test_losses import close

import pairx

masked_cosine = REFERENCES["masked_cosine"]
pytestmark = pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")


def grid(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.integers(0, 2, (*shape[:-1], 1)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["uint8", "bool", "float32", "int64"])
def test_masks(backend: Adapter, kind: str):
    x, mask = grid(2, 2, 3, 2, 4)
    want = masked_cosine(x, mask)[0]
    for form in (mask, mask[..., 0]):
        got = pairx.losses.masked_cosine(backend.asarray(x), backend.asarray(form.astype(kind)), reduction="none")
        close(backend.to_numpy(got), want, "float64", kind)


def test_axes_between_are_one_set(backend: Adapter):
    x, mask = grid(2, 2, 3, 3, 2, 4)
    got = pairx.losses.masked_cosine(backend.asarray(x), backend.asarray(mask), reduction="none")
    flat = pairx.losses.masked_cosine(backend.asarray(x.reshape(2, 36, 4)), backend.asarray(mask.reshape(2, 36, 1)), reduction="none")
    np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(flat))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_equal_embeddings_inside_are_exactly_together(backend: Adapter, kind: str):
    x = np.tile(np.random.default_rng(1).normal(size=5), (1, 30, 1)) * np.linspace(0.1, 9, 30)[None, :, None]
    mask = np.ones((1, 30, 1), bool)
    assert (
        0 <= float(backend.to_numpy(pairx.losses.masked_cosine(backend.asarray(x, kind), mask))) < (1e-12 if kind == "float32" else 1e-28)
    )


@pytest.mark.parametrize(
    "shape, message",
    [((2, 2, 3, 2), None), ((2, 2, 3, 2, 2), "mask has shape"), ((2, 2, 3, 1, 1), "mask has shape"), ((2, 3, 1), "mask has shape")],
)
def test_no_mask_is_broadcast(backend: Adapter, shape: tuple[int, ...], message: str | None):
    x, _ = grid(2, 2, 3, 2, 4)
    if message is None:
        pairx.losses.masked_cosine(backend.asarray(x), backend.asarray(np.ones(shape)))
        return
    with pytest.raises(ValueError, match=message):
        pairx.losses.masked_cosine(backend.asarray(x), backend.asarray(np.ones(shape)))


def test_refused(backend: Adapter):
    x, mask = grid(2, 3, 4)
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        pairx.losses.masked_cosine(backend.asarray(x), backend.asarray(mask * 0.5))
    with pytest.raises(ValueError, match=r"expected \(batch, \.\.\., features\)"):
        pairx.losses.masked_cosine(backend.asarray(x[0]), backend.asarray(mask[0]))


def descend(backend: Adapter, shape: tuple[int, ...], dtype: str) -> list[float]:
    x, mask = grid(*shape)
    own = backend.asarray(mask)
    losses = []
    for _ in range(100):
        losses.append(float(backend.to_numpy(pairx.losses.masked_cosine(backend.asarray(x, dtype), own))))
        (slope,) = backend.grad(lambda v: pairx.losses.masked_cosine(v, own), x, dtype=dtype)
        assert np.isfinite(slope).all()
        x = x - 1e-3 * slope
    return losses


@pytest.mark.autodiff
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_gradient_descent(backend: Adapter, kind: str):
    """Without means and bounds this loss goes to -3e5, -2e12, -1e19, ..., NaN within six steps."""
    losses = np.array(descend(backend, (2, 2, 4, 4, 3, 10), kind))
    assert np.isfinite(losses).all()
    assert losses.min() >= 0
    assert losses[-1] < losses[0]
    if kind == "float64":
        assert (np.diff(losses) < 0).all()


@pytest.mark.autodiff
@pytest.mark.brief_cases  # minutes on TensorFlow and JAX: in `nox -s losses`
def test_gradient_descent_at_full_size(backend: Adapter):
    """The question as it was asked: a grid of 13 x 13 with 5 boxes and 100 numbers each, a hundred steps."""
    losses = np.array(descend(backend, (2, 2, 13, 13, 5, 100), "float64"))
    assert len(losses) == 100
    assert np.isfinite(losses).all()
    assert losses.min() >= 0
    assert (np.diff(losses) < 0).all()


@pytest.mark.backends("tensorflow")
def test_unknown_sizes(backend: Adapter):
    import tensorflow as tf

    graph = tf.function(
        lambda x, mask: pairx.losses.masked_cosine(x, mask),
        input_signature=[tf.TensorSpec([None, None, None, 4], tf.float64), tf.TensorSpec([None, None, None, 1], tf.uint8)],
    )
    for shape in ((2, 3, 3, 4), (1, 2, 5, 4)):
        x, mask = grid(*shape)
        close(graph(x, mask).numpy(), masked_cosine(x, mask)[0].mean(), "float64", str(shape))
