"""The questions that users asked elsewhere, answered on every backend."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import assert_close

import pairx

MB = 10**6
ORDS = ["fro", 1, "nuc", 2]
EAGER = ("numpy", "torch", "tensorflow", "jax")


def stack(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype("float32")


def norms(e: np.ndarray, ord: Any) -> np.ndarray:
    wide = e.astype(float)
    return np.linalg.norm(wide[..., :, None, :, :] - wide[..., None, :, :, :], ord, axis=(-2, -1))


# --- a batch of 16 features with labels ---------------------------------------------------------------------------------


def test_all_pairs_and_chosen_pairs_of_a_batch(backend: Adapter):
    x, labels = stack(10, 16), np.arange(10) % 3
    all_of_them = np.sqrt(((x[:, None].astype(float) - x[None]) ** 2).sum(-1))
    got = pairx.cdist(backend.asarray(x))
    assert_close(backend.to_numpy(got), all_of_them, "float32")
    i, j = np.nonzero(np.triu(labels[:, None] == labels[None], 1))
    chosen = pairx.paired(backend.asarray(x), pairs=(backend.asarray(i), backend.asarray(j)))
    assert_close(backend.to_numpy(chosen), all_of_them[i, j], "float32")


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool"])
def test_labels_as_a_column_compare_with_each_other(backend: Adapter, kind: str):
    labels = (np.arange(6) % 2).astype(kind)
    got = pairx.cdist(backend.asarray(labels[:, None]), metric="hamming")
    assert tuple(got.shape) == (6, 6)
    np.testing.assert_array_equal(backend.to_numpy(got), labels[:, None] != labels[None])


def test_indices_are_one_axis_of_integers(backend: Adapter):
    x, i = backend.asarray(stack(4, 16)), np.array([0, 1, 3])
    want = backend.to_numpy(pairx.paired(x, pairs=(backend.asarray(i), backend.asarray(i[::-1].copy()))))
    small = i.astype("uint8")
    got = pairx.paired(x, pairs=(backend.asarray(small), backend.asarray(small[::-1].copy())))
    np.testing.assert_array_equal(backend.to_numpy(got), want)
    for wrong in (i[:, None], np.array([True, False, True])):
        with pytest.raises(ValueError, match="one axis of integers"):
            pairx.paired(x, pairs=(backend.asarray(wrong), backend.asarray(wrong)))


def test_a_column_of_weights_is_no_vector_of_weights(backend: Adapter):
    x = backend.asarray(stack(16, 16))
    with pytest.raises(ValueError, match="one weight for each"):
        pairx.cdist(x, w=backend.asarray(np.ones((16, 1), "float32")))


# --- norms of differences of matrices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ord", ORDS)
def test_norms_of_all_pairs_of_matrices(backend: Adapter, ord: Any):
    e = stack(8, 4, 30, 30)
    got = backend.to_numpy(pairx.pairwise_matrix_norm(backend.asarray(e), ord=ord))
    assert got.shape == (8, 4, 4)
    np.testing.assert_allclose(got, norms(e, ord), rtol=1e-6 if ord in ("fro", 1) else 3e-6)
    assert got.sum((-2, -1)).shape == (8,)


def test_frobenius_is_the_root_of_a_trace(backend: Adapter):
    e = stack(8, 4, 30, 30)
    d = e.astype(float)[:, :, None] - e.astype(float)[:, None]
    want = np.sqrt(np.trace(d @ np.swapaxes(d, -1, -2), axis1=-2, axis2=-1))
    got = pairx.pairwise_matrix_norm(backend.asarray(e))
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-6)
    total = backend.sum(got)
    np.testing.assert_allclose(float(backend.to_numpy(total)), want.sum(), rtol=1e-6)


def above(backend: Adapter, call: Callable[[], Any], result: int) -> int:
    """Peak bytes of a call above what was held before and its result."""
    measure = importlib.import_module(f"pairx_backends.{backend.name}.measure")
    peak = measure.peak_bytes(call)
    if peak is None:
        pytest.skip("memory cannot be measured here")
    return int(peak) - result


LARGE, RESULT = (1024, 4, 30, 30), 1024 * 4 * 4 * 4


@pytest.mark.backends(*EAGER)
@pytest.mark.parametrize("ord", ORDS)
def test_two_megabytes_are_enough(backend: Adapter, ord: Any):
    e = backend.asarray(stack(*LARGE))
    found = above(backend, lambda: pairx.pairwise_matrix_norm(e, ord=ord, max_bytes="2MB"), RESULT)
    assert found < 4 * MB
    plan = pairx.explain(pairx.pairwise_matrix_norm, e, ord=ord, max_bytes="2MB")
    assert plan.scratch_bytes <= 2 * MB


@pytest.mark.backends(*EAGER)
def test_two_megabytes_are_enough_for_two_sets(backend: Adapter):
    e, f = backend.asarray(stack(*LARGE)), backend.asarray(stack(*LARGE) + 1)
    for ord in ("fro", 1):
        assert above(backend, lambda: pairx.pairwise_matrix_norm(e, f, ord, max_bytes="2MB"), RESULT) < 4 * MB  # noqa: B023


@pytest.mark.backends("numpy", "torch", "tensorflow")
def test_the_measure_sees_what_a_broadcast_takes(backend: Adapter):
    e = backend.asarray(stack(*LARGE))
    assert above(backend, lambda: e[:, :, None] - e[:, None], 0) >= 58_982_400


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("ord", ORDS)
def test_two_megabytes_are_enough_for_an_unknown_batch(backend: Adapter, ord: Any):
    tf = backend.lib
    fn = tf.function(
        lambda e: pairx.pairwise_matrix_norm(e, ord=ord, max_bytes="2MB"),
        input_signature=[tf.TensorSpec((None, 4, 30, 30), tf.float32)],
    )
    small = stack(8, 4, 30, 30)
    np.testing.assert_allclose(fn(tf.constant(small)).numpy(), norms(small, ord), rtol=3e-6)
    e = tf.constant(stack(*LARGE))
    assert above(backend, lambda: fn(e), RESULT) < 4 * MB


# --- small numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("metric", [("euclidean", {}), ("minkowski", {"p": 2})], ids=str)
def test_integers(backend: Adapter, given: str, metric: tuple[str, dict[str, Any]]):
    x = np.array([[1, 1, 1], [2, 2, 2]]).astype(given)
    y = np.array([[2, 2, 2], [1, 1, 1], [2, 2, 2], [1, 1, 1], [2, 2, 2]]).astype(given)
    got = backend.to_numpy(pairx.cdist(backend.asarray(x), backend.asarray(y), metric[0], **metric[1]))
    far = math.sqrt(3)
    np.testing.assert_allclose(got, [[far, 0, far, 0, far], [0, far, 0, far, 0]], rtol=1e-6)
    np.testing.assert_array_equal(got.round(4)[0], np.asarray([1.7321, 0, 1.7321, 0, 1.7321], got.dtype))


def test_hamming(backend: Adapter):
    x, y = backend.asarray(np.array([[0, 0, 2]])), backend.asarray(np.array([[0, 0, 1], [0, 1, 0]]))
    np.testing.assert_allclose(backend.to_numpy(pairx.cdist(x, y, "hamming")), [[1 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(backend.to_numpy(pairx.cdist(x, y, "hamming", normalize=False)), [[1, 2]])
    z = backend.asarray(np.array([[1, 0, 1], [0, 1, 0]]))
    np.testing.assert_allclose(backend.to_numpy(pairx.paired(y, z, "hamming")), [1 / 3, 0], rtol=1e-6)


def test_predictions_minus_labels(backend: Adapter):
    labels = np.arange(8.0).reshape(2, 4)
    error = backend.asarray(labels + 1) - backend.asarray(labels)
    rows = backend.to_numpy(pairx.vector_norm(error, axis=-1))
    np.testing.assert_allclose(rows, [2, 2], rtol=1e-15)
    np.testing.assert_allclose(backend.to_numpy(pairx.matrix_norm(error, ord="nuc")), 2.8284, atol=5e-5)
    np.testing.assert_allclose(backend.to_numpy(pairx.paired(backend.asarray(labels + 1), backend.asarray(labels))).mean(), 2, rtol=1e-15)


# --- batch_dot ----------------------------------------------------------------------------------------------------------

EACH = (36, 8, 24)
PAIRS = list(itertools.product((1, 2, 3), repeat=2))


def operands(ax: int, ay: int, batch: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of x, of y (whose contracted axis takes the size of that of x), and of the result."""
    x, y = [batch, *EACH], [batch, *EACH]
    y[ay] = x[ax]
    free = [n for i, n in enumerate(x) if i not in (0, ax)] + [n for i, n in enumerate(y) if i not in (0, ay)]
    return tuple(x), tuple(y), (batch, *free)


@pytest.mark.parametrize(("ax", "ay"), PAIRS)
def test_batch_dot_of_every_pair_of_axes(backend: Adapter, ax: int, ay: int):
    sx, sy, want = operands(ax, ay, 2)
    x, y = backend.asarray(stack(*sx)), backend.asarray(stack(*sy))
    assert tuple(pairx.batch_dot(x, y, (ax, ay)).shape) == want


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize(("ax", "ay"), PAIRS)
def test_batch_dot_of_an_unknown_batch(backend: Adapter, ax: int, ay: int):
    tf = backend.lib
    sx, sy, want = operands(ax, ay, 2)
    known = tf.function(lambda x, y: pairx.batch_dot(x, y, (ax, ay)))
    unknown = tf.function(
        lambda x, y: pairx.batch_dot(x, y, (ax, ay)),
        input_signature=[tf.TensorSpec((None, *sx[1:]), tf.float32), tf.TensorSpec((None, *sy[1:]), tf.float32)],
    )
    x, y = tf.constant(stack(*sx)), tf.constant(stack(*sy))
    symbols = unknown.get_concrete_function().output_shapes
    assert tuple(symbols) == (None, *want[1:])
    assert tuple(unknown(x, y).shape) == tuple(known(x, y).shape) == want


@pytest.mark.parametrize(("axes", "want"), [(2, (36, 24, 24)), (3, (36, 8, 8))])
def test_the_results_of_old_keras_and_attention_scores(backend: Adapter, axes: int, want: tuple[int, ...]):
    x = backend.asarray(stack(5, *EACH))
    assert tuple(pairx.batch_dot(x, x, axes, batch_ndim=2).shape) == (5, *want)
