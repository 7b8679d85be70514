"""TensorFlow's own ways: graphs with unknown sizes, XLA, tapes within tapes, Keras, variables, and the budget."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import distance as scipy

import pairx
from pairx import measure
from pairx.backend import find
from pairx_backends.tensorflow import BACKEND, eager, gradient

RNG = np.random.default_rng(5)
X, Y = RNG.random((23, 6)), RNG.random((17, 6))
TABLE = ["euclidean", "cityblock", "chebyshev", "braycurtis", "correlation", "jensenshannon", "hamming"]
SMALL = 6000
"""Several tiles of this data."""


def specs(shape: list[int | None], n: int = 2, dtype: Any = tf.float64) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(shape, dtype)] * n


# --- eager --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, SMALL])
@pytest.mark.parametrize("metric", TABLE)
def test_eager_agrees_with_scipy(metric: str, budget: int | None):
    x, y = tf.constant(X), tf.constant(Y)
    found = pairx.cdist(x, y, metric, max_bytes=budget)
    assert tf.is_tensor(found)
    np.testing.assert_allclose(found, scipy.cdist(X, Y, metric), rtol=1e-11, atol=1e-14)
    one = pairx.cdist(x, metric=metric, max_bytes=budget).numpy()
    np.testing.assert_allclose(one, scipy.squareform(scipy.pdist(X, metric)), rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(one, one.T)
    np.testing.assert_allclose(pairx.pdist(x, metric, max_bytes=budget), scipy.pdist(X, metric), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_dtypes_through_the_buffer(dtype: str):
    x = tf.cast(tf.constant(np.round(X * 8)), dtype)
    found = pairx.cdist(x, metric="cityblock", max_bytes=4000)
    assert found.dtype == (x.dtype if x.dtype.is_floating else tf.float32)
    want = scipy.cdist(tf.cast(x, tf.float64), tf.cast(x, tf.float64), "cityblock")
    np.testing.assert_array_equal(tf.cast(found, tf.float64), want)


def test_the_other_devices_walk_gives_the_same():
    """Without a GPU, the code for one is tried on the CPU."""
    x, y = tf.constant(RNG.random((2, 1, 9, 3))), tf.constant(RNG.random((3, 7, 3)))
    calls = [
        lambda: pairx.cdist(x, y, "cityblock", max_bytes=1500),
        lambda: pairx.cdist(x, metric="cityblock", max_bytes=1500),
        lambda: pairx.pdist(x, "cityblock", max_bytes=1500),
        lambda: pairx.paired(x, y, "cityblock", pairs=([8, 0, 8], [1, 2, 6]), max_bytes=1500),
    ]

    def slopes(call: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            found = call()
        weights = tf.constant(np.random.default_rng(1).random(found.shape))
        return [found, *tape.gradient(found, [x, y], output_gradients=weights, unconnected_gradients="zero")]

    want = [slopes(call) for call in calls]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "is_host", lambda t: False)
        for call, expected in zip(calls, want, strict=True):
            for a, b in zip(slopes(call), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_variables_and_weights():
    x = tf.Variable(X)
    w = tf.Variable(np.linspace(0.5, 1, 6))
    want = scipy.cdist(X, Y, "cityblock", w=np.linspace(0.5, 1, 6))
    np.testing.assert_allclose(pairx.cdist(x, tf.constant(Y), "cityblock", w=w), want, rtol=1e-13)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(pairx.cdist(x, tf.constant(Y), "cityblock", w=w, max_bytes=SMALL))
    gx, gw = tape.gradient(total, [x, w])
    np.testing.assert_allclose(gw, np.abs(X[:, None] - Y).sum((0, 1)), rtol=1e-13)
    np.testing.assert_allclose(gx, np.sign(X[:, None] - Y).sum(1) * np.linspace(0.5, 1, 6), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (lambda: tf.ragged.constant([[1.0], [2.0, 3.0]]), "to_tensor"),
        (lambda: tf.sparse.from_dense([[1.0, 0.0]]), "to_dense"),
        (lambda: tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0])), "convert_to_tensor"),
        (lambda: tf.constant([["a"]]), "string"),
        (lambda: tf.data.Dataset.from_tensors(1.0), "dense"),
    ],
)
def test_relatives_are_refused_with_advice(value: Any, word: str):
    with pytest.raises(TypeError, match=word):
        pairx.cdist(value())


def test_unknown_rank_and_keras_input():
    with pytest.raises(TypeError, match="rank"):
        tf.function(pairx.cdist, input_signature=[tf.TensorSpec(None)]).get_concrete_function()
    keras = pytest.importorskip("keras")
    with pytest.raises(TypeError, match=r"Layer\.call"):
        pairx.cdist(keras.Input((3,)))


def test_out_cannot_be_written():
    with pytest.raises(TypeError, match="out"):
        pairx.cdist(tf.constant(X), out=tf.zeros((23, 23), tf.float64))


def test_two_threads():
    x, y = tf.constant(X), tf.constant(Y)
    want = pairx.cdist(x, y, max_bytes=SMALL).numpy()
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: pairx.cdist(x, y, max_bytes=SMALL).numpy(), range(8)):
            np.testing.assert_array_equal(found, want)


# --- graphs -------------------------------------------------------------------------------------------------------------


def everything(budget: int | None, x: Any, y: Any) -> list[Any]:
    found = [pairx.cdist(x, y, metric, max_bytes=budget) for metric in TABLE]
    found += [pairx.cdist(x, max_bytes=budget), pairx.pdist(x, max_bytes=budget), pairx.paired(x[:17], y, "cityblock", max_bytes=budget)]
    found += [pairx.paired(x, y, "chebyshev", pairs=([0, 22, 22], [16, 3, 3]), max_bytes=budget)]
    found += [pairx.cdist(x, y, "minkowski", p=3, w=[1, 2, 3, 4, 0, 1], max_bytes=budget), pairx.gram(x, y, max_bytes=budget)]
    return found


@pytest.mark.parametrize("shape", [[None, 6], [None, None]], ids=["batch", "all"])
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_unknown_sizes(xla: bool, shape: list[int | None]):
    budget = SMALL if shape[-1] else 600_000  # unknown features are planned as 1024
    want = everything(SMALL, tf.constant(X), tf.constant(Y))
    traced = tf.function(lambda x, y: everything(budget, x, y), input_signature=specs(shape), jit_compile=xla)
    found = traced(tf.constant(X), tf.constant(Y))
    for k, (a, b) in enumerate(zip(found, want, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13, err_msg=str(k))
    np.testing.assert_array_equal(found[len(TABLE)], tf.transpose(found[len(TABLE)]))
    if not xla:  # another size, without tracing again; and none at all
        for a, b in zip(traced(tf.constant(X), tf.constant(Y[:17])), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_batches_of_unknown_size_broadcast():
    x, y = RNG.random((1, 5, 3)), RNG.random((4, 6, 3))
    call = tf.function(lambda a, b: pairx.cdist(a, b, "cityblock"), input_signature=specs([None, None, 3]))
    for a, b in ((x, y), (y, x), (y, y)):
        np.testing.assert_allclose(call(tf.constant(a), tf.constant(b)), np.abs(a[:, :, None] - b[:, None]).sum(-1), rtol=1e-13)
    assert call(tf.constant(x[:, :0]), tf.constant(y)).shape == (4, 0, 6)


def test_matrices_of_an_unknown_batch():
    e = RNG.random((5, 4, 6, 6))
    call = tf.function(lambda a: pairx.pairwise_matrix_norm(a), input_signature=specs([None, 4, 6, 6], 1))
    assert call.get_concrete_function().structured_outputs.shape.as_list() == [None, 4, 4]
    np.testing.assert_allclose(call(tf.constant(e)), np.linalg.norm(e[:, :, None] - e[:, None], axis=(-2, -1)), rtol=1e-12)


def test_static_shapes_are_known():
    call = tf.function(lambda a: (pairx.cdist(a), pairx.pdist(a)), input_signature=specs([None, 7, 3], 1)).get_concrete_function()
    assert [t.shape.as_list() for t in call.structured_outputs] == [[None, 7, 7], [None, 21]]


def test_autograph_leaves_the_library_alone(caplog: pytest.LogCaptureFixture):
    @tf.function
    def traced(a: Any) -> Any:
        return pairx.cdist(a, metric="cityblock", max_bytes=2000)

    traced(tf.constant(X))
    warned = [r.getMessage() for r in caplog.records if "AutoGraph could not transform" in r.getMessage()]
    assert not [w for w in warned if "test_autograph" not in w]
    assert all(hasattr(getattr(pairx, name), "autograph_info__") for name in ("cdist", "pdist", "paired", "gram", "squareform"))


def test_keras_layer():
    keras = pytest.importorskip("keras")

    class Distances(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.centres = self.add_weight(shape=(3, shape[-1]), initializer="ones")

        def call(self, x: Any) -> Any:
            return pairx.cdist(x, self.centres, "sqeuclidean")

    model = keras.Sequential([keras.Input((6,)), Distances()])
    model.compile("sgd", loss="mse")
    model.fit(X, np.zeros((23, 3)), verbose=0)
    assert model(X[:4]).shape == (4, 3)


# --- gradients ----------------------------------------------------------------------------------------------------------


def losses(budget: int | None, x: Any, y: Any) -> Any:
    """Each layout, joined to one number."""
    n = tf.reduce_sum
    return (
        n(tf.sin(pairx.cdist(x, y, max_bytes=budget)))
        + n(tf.sin(pairx.cdist(x, metric="cosine", max_bytes=budget)))
        + n(tf.sin(pairx.pdist(x, "cityblock", max_bytes=budget)))
        + n(tf.sin(pairx.paired(x[:5], y, "jensenshannon", max_bytes=budget)))
        + n(tf.sin(pairx.paired(x, y, pairs=([0, 6, 6], [4, 3, 3]), max_bytes=budget)))
    )


def slopes(budget: int | None, x: Any, y: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        total = losses(budget, x, y)
    return tape.gradient(total, [x, y])


A, B = X[:7, :3], Y[:5, :3]


def numeric(f: Any, arrays: list[np.ndarray], h: float = 1e-6) -> list[np.ndarray]:
    found = []
    for k, a in enumerate(arrays):
        g = np.zeros_like(a)
        for index in np.ndindex(a.shape):
            sides = []
            for sign in (h, -h):
                moved = [b.copy() for b in arrays]
                moved[k][index] += sign
                sides.append(float(f(*map(tf.constant, moved))))
            g[index] = (sides[0] - sides[1]) / (2 * h)
        found.append(g)
    return found


@pytest.fixture(scope="module")
def finite_differences() -> list[np.ndarray]:
    return numeric(lambda x, y: losses(None, x, y), [A, B])


@pytest.mark.parametrize("budget", [None, 3000])
def test_first_order_eager(finite_differences: list[np.ndarray], budget: int | None):
    for g, want in zip(slopes(budget, tf.constant(A), tf.constant(B)), finite_differences, strict=True):
        np.testing.assert_allclose(g, want, atol=1e-7)


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_first_order_traced(finite_differences: list[np.ndarray], xla: bool):
    traced = tf.function(lambda x, y: slopes(3000, x, y), input_signature=specs([None, 3]), jit_compile=xla)
    for g, want in zip(traced(tf.constant(A), tf.constant(B)), finite_differences, strict=True):
        np.testing.assert_allclose(g, want, atol=1e-7)


def curvature(budget: int | None, x: Any, y: Any) -> Any:
    """Of the sum of sin(distance): along the all-ones of x's gradient, in x and in y."""
    with tf.GradientTape() as outer:
        outer.watch([x, y])
        with tf.GradientTape() as inner:
            inner.watch(x)
            total = tf.reduce_sum(tf.sin(pairx.cdist(x, y, max_bytes=budget)))
        first = inner.gradient(total, x)
    return outer.gradient(first, [x, y])


@pytest.fixture(scope="module")
def second_differences() -> list[np.ndarray]:
    def first(x: Any, y: Any) -> Any:
        d = np.asarray(x)[:, None] - np.asarray(y)
        r = np.sqrt((d**2).sum(-1, keepdims=True))
        return (np.cos(r) * d / r).sum()

    return numeric(first, [A, B])


@pytest.mark.parametrize("budget", [None, 2000])
@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_second_order(second_differences: list[np.ndarray], how: str, budget: int | None):
    call: Any = lambda x, y: curvature(budget, x, y)  # noqa: E731
    if how != "eager":
        call = tf.function(call, input_signature=specs([None, 3]), jit_compile=how == "xla")
    for g, want in zip(call(tf.constant(A), tf.constant(B)), second_differences, strict=True):
        np.testing.assert_allclose(g, want, atol=1e-6)


def test_forward_mode():
    x, v = tf.constant(A), tf.ones_like(A)
    with tf.autodiff.ForwardAccumulator(x, v) as forward:
        total = tf.reduce_sum(pairx.cdist(x, tf.constant(B), max_bytes=2000))
    d = A[:, None] - B
    np.testing.assert_allclose(forward.jvp(total), (d / np.linalg.norm(d, axis=-1, keepdims=True)).sum(), rtol=1e-12)


def test_a_tape_that_watches_nothing_costs_nothing():
    x = tf.constant(X)
    assert not BACKEND.differentiated(x)
    with tf.GradientTape() as tape:
        assert not BACKEND.differentiated(x)
        tape.watch(x)
        assert BACKEND.differentiated(x)
        assert not gradient.recorded(tf.constant([1, 2]))


# --- memory -------------------------------------------------------------------------------------------------------------


def peak(call: Any) -> int:
    found = measure.cpu_peak_bytes(call)
    if found is None:
        pytest.skip("no memray")
    return found


BIG = tf.constant(RNG.random((600, 32)), tf.float32)
BUDGET = 1 << 20
CALLS = {
    "matrix": lambda a, b: pairx.cdist(a, b, "cityblock", max_bytes=BUDGET),
    "product": lambda a, b: pairx.cdist(a, b, max_bytes=BUDGET),
    "one set": lambda a, b: pairx.cdist(a, metric="cityblock", max_bytes=BUDGET),
    "condensed": lambda a, b: pairx.pdist(a, "cityblock", max_bytes=BUDGET),
    "rows": lambda a, b: pairx.paired(a, b, "cityblock", max_bytes=BUDGET // 16),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_budget_holds(name: str):
    call = CALLS[name]
    other = tf.constant(RNG.random((600, 32)), tf.float32)
    result = call(BIG, other)
    limit = (BUDGET // 16 if name == "rows" else BUDGET) + (1 << 20)
    size = math.prod(result.shape) * 4
    assert peak(lambda: call(BIG, other)) - size <= limit
    g = tf.ones_like(result)

    def both() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([BIG, other])
            found = call(BIG, other)
        return found, tape.gradient(found, [BIG, other], output_gradients=g)

    assert peak(both) - size - 2 * 600 * 32 * 4 <= limit


def test_the_record_is_found():
    assert find(x=tf.constant(X)) is BACKEND
    assert find(x=tf.Variable(X)) is BACKEND


def test_chosen_pairs_add_up_in_place():
    """In a graph, too: scattering must not copy the whole gradient for each tile."""
    x = tf.constant(RNG.random((8000, 32)), tf.float32)
    pairs = tuple(tf.constant(RNG.integers(0, 8000, 9000)) for _ in range(2))

    @tf.function
    def both(a: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(a)
            found = pairx.paired(a, metric="sqeuclidean", pairs=pairs, max_bytes=200_000)
        return found, tape.gradient(found, a)

    want = np.zeros(x.shape)
    slope = 2 * (x.numpy()[pairs[0]] - x.numpy()[pairs[1]])
    np.add.at(want, pairs[0].numpy(), slope)
    np.add.at(want, pairs[1].numpy(), -slope)
    np.testing.assert_allclose(both(x)[1], want, atol=1e-4)
    np.testing.assert_allclose(both(x)[1], want, atol=1e-4)
    assert peak(lambda: both(x)) - (8000 * 32 + 9000) * 4 <= 200_000 + (1 << 19)
