"""The compiled engine inside a ``tf.function``, asked for by name; and derivatives of graphs, whichever the engine."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import distance as scipy

import pairx
from pairx import measure
from pairx.plan import thread_count
from pairx_backends import compiled

pytestmark = pytest.mark.skipif(compiled.missing() is not None, reason="Numba is not installed")

RNG = np.random.default_rng(8)
X, Y = RNG.random((23, 6)), RNG.random((17, 6))
A, B, W = X[:7, :3], Y[:5, :3], np.array([0.5, 2.0, 1.25])
SMALL = 4000
"""Several tiles of this data."""
TABLE = ["cityblock", "euclidean", "chebyshev", "canberra", "jensenshannon", "braycurtis"]
ANY = [tf.TensorSpec([None, None], tf.float64)] * 2


def graph(call: Callable[..., Any], *specs: Any, **keywords: Any) -> Any:
    return tf.function(call, input_signature=list(specs) or None, autograph=False, **keywords)


def calls_python(function: Any, *arguments: Any) -> bool:
    return any(op.type == "EagerPyFunc" for op in function.get_concrete_function(*arguments).graph.get_operations())


# --- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", TABLE)
def test_values_of_unknown_sizes(metric: str):
    def everything(x: Any, y: Any) -> list[Any]:
        given = {"engine": "compiled", "max_bytes": SMALL}
        return [pairx.cdist(x, y, metric, **given), pairx.cdist(x, metric=metric, **given), pairx.pdist(x, metric, **given)]

    traced = graph(everything, *ANY)
    assert calls_python(traced)
    for x, y in ((X, Y), (Y[:, :4], X[:5, :4]), (X[:1], Y[:0])):  # traced once
        both, one, condensed = traced(tf.constant(x), tf.constant(y))
        np.testing.assert_allclose(both, scipy.cdist(x, y, metric), rtol=1e-11, atol=1e-14)
        want = scipy.cdist(x, x, metric)
        np.testing.assert_allclose(one, want, rtol=1e-11, atol=1e-14)
        np.testing.assert_array_equal(one, tf.transpose(one))
        np.testing.assert_array_equal(tf.linalg.diag_part(one), 0)
        np.testing.assert_allclose(condensed, want[np.triu_indices(len(x), 1)], rtol=1e-11, atol=1e-14)


def test_the_same_bits_as_eagerly():
    x, y = tf.constant(X, tf.float32), tf.constant(Y, tf.float32)
    for metric in TABLE:
        found = graph(lambda a, b, m=metric: pairx.cdist(a, b, m, engine="compiled", max_bytes=SMALL))(x, y)
        np.testing.assert_array_equal(found, pairx.cdist(x, y, metric, engine="compiled"))


def test_what_is_known_of_shapes():
    def call(x: Any, y: Any) -> Any:
        given = {"metric": "cityblock", "engine": "compiled"}
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            found = [pairx.cdist(x, y, **given), pairx.cdist(x, **given), pairx.pdist(x, **given)]
        return *found, *tape.gradient(found, [x, y])

    outputs = graph(call, tf.TensorSpec([None, 7, 3]), tf.TensorSpec([4, None, 3])).get_concrete_function().structured_outputs
    assert [t.shape.as_list() for t in outputs] == [[4, 7, None], [None, 7, 7], [None, 21], [None, 7, 3], [4, None, 3]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_dtypes(dtype: str):
    x = tf.cast(tf.constant(np.round(X * 8)), dtype)
    found = graph(lambda a: pairx.cdist(a, metric="cityblock", engine="compiled", max_bytes=SMALL))(x)
    assert found.dtype == (x.dtype if x.dtype.is_floating else tf.float32)
    wide = tf.cast(x, tf.float64)
    np.testing.assert_array_equal(tf.cast(found, tf.float64), scipy.cdist(wide, wide, "cityblock"))


def test_batches_that_broadcast():
    x, y = RNG.random((1, 5, 3)), RNG.random((4, 6, 3))
    spec = tf.TensorSpec([None, None, 3], tf.float64)
    call = graph(lambda a, b: pairx.cdist(a, b, "cityblock", engine="compiled", max_bytes=1000), spec, spec)
    for a, b in ((x, y), (y, x), (y, y)):
        np.testing.assert_allclose(call(tf.constant(a), tf.constant(b)), np.abs(a[:, :, None] - b[:, None]).sum(-1), rtol=1e-13)


def test_parameters_that_follow_from_the_features():
    def call(x: Any, y: Any) -> Any:
        return pairx.gram(x, y, kernel="laplacian", engine="compiled"), pairx.cdist(x, y, "seuclidean", engine="compiled")

    kernel, distance = graph(call, *ANY)(tf.constant(X), tf.constant(Y))
    np.testing.assert_allclose(kernel, np.exp(-scipy.cdist(X, Y, "cityblock") / 6), rtol=1e-12)
    np.testing.assert_allclose(distance, scipy.cdist(X, Y, "seuclidean"), rtol=1e-12)


def test_only_for_who_asks():
    x = tf.constant(X)
    call = lambda a: pairx.cdist(a, metric="cityblock")  # noqa: E731
    assert not calls_python(graph(call), x)
    with pairx.options(engine="compiled", threads=2):
        traced = graph(call)
        assert calls_python(traced, x)
        plans: list[Any] = []
        graph(lambda a: plans.append(pairx.explain(call, a)))(x)
    np.testing.assert_allclose(traced(x), scipy.cdist(X, X, "cityblock"), rtol=1e-12)
    assert plans[0].engine == "compiled"


def test_the_options_of_the_trace_hold_when_it_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    x = tf.constant(X)
    with pairx.options(threads=3, max_bytes=SMALL):
        traced = graph(lambda a: pairx.cdist(a, metric="cityblock", engine="compiled"))
        traced.get_concrete_function(x)
    seen: list[Any] = []
    real = compiled.Kernel.fill

    def fill(self: Any, task: Any, *rest: Any) -> None:
        seen.append((thread_count(), task.plan.max_bytes))
        real(self, task, *rest)

    monkeypatch.setattr(compiled.Kernel, "fill", fill)
    traced(x)
    assert len(seen) > 1
    assert set(seen) == {(3, SMALL)}


# --- gradients ----------------------------------------------------------------------------------------------------------


def numeric(f: Any, arrays: list[np.ndarray], h: float = 1e-6) -> list[np.ndarray]:
    found = []
    for k, a in enumerate(arrays):
        g = np.zeros_like(a)
        for index in np.ndindex(a.shape):
            sides = []
            for sign in (h, -h):
                moved = [b.copy() for b in arrays]
                moved[k][index] += sign
                sides.append(f(*moved))
            g[index] = (sides[0] - sides[1]) / (2 * h)
        found.append(g)
    return found


def slopes(call: Callable[..., Any], *tensors: Any, g: Any = None) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = call(*tensors)
    return tape.gradient(found, tensors, output_gradients=g)


@pytest.mark.parametrize("where", ["inside", "around"])
@pytest.mark.parametrize("metric", TABLE)
def test_gradients(metric: str, where: str):
    """By a tape in the graph, and by one around it; of two sets, of one, and of a condensed result."""

    def loss(x: Any, y: Any) -> Any:
        given = {"engine": "compiled", "max_bytes": SMALL}
        n = tf.reduce_sum
        one = n(tf.sin(pairx.cdist(x, metric=metric, **given))) + n(tf.cos(pairx.pdist(x, metric, **given)))
        return n(tf.sin(pairx.cdist(x, y, metric, **given))) + one

    def by_scipy(x: Any, y: Any) -> float:
        one = np.sin(scipy.cdist(x, x, metric)).sum() + np.cos(scipy.pdist(x, metric)).sum()
        return float(np.sin(scipy.cdist(x, y, metric)).sum() + one)

    tensors = tf.constant(A), tf.constant(B)
    found = graph(lambda x, y: slopes(loss, x, y), *ANY)(*tensors) if where == "inside" else slopes(graph(loss, *ANY), *tensors)
    for g, want in zip(found, numeric(by_scipy, [A, B]), strict=True):
        np.testing.assert_allclose(g, want, atol=2e-7)


def test_gradients_of_batches_and_weights():
    x, y = RNG.random((2, 1, 4, 3)), RNG.random((3, 5, 3))
    call = lambda a, b, w: tf.reduce_sum(tf.sin(pairx.cdist(a, b, "euclidean", w=w, engine="compiled", max_bytes=2000)))  # noqa: E731
    found = graph(lambda *t: slopes(call, *t))(*map(tf.constant, (x, y, W)))
    want = numeric(lambda a, b, w: np.sin(np.sqrt((w * (a[..., :, None, :] - b[..., None, :, :]) ** 2).sum(-1))).sum(), [x, y, W])
    for g, w in zip(found, want, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-7)


def test_gradients_with_gaps():
    x = A.copy()
    x[1, 0] = x[4, 2] = np.nan
    call = lambda a, b: pairx.cdist(a, b, "cityblock", nan_policy="omit", engine="compiled", max_bytes=2000)  # noqa: E731
    tensors = tf.constant(x), tf.constant(B)
    found = graph(lambda *t: (call(*t), *slopes(call, *t)))(*tensors)
    d = x[:, None] - B
    here = ~np.isnan(d)
    gap = 3 / here.sum(-1, keepdims=True)
    np.testing.assert_allclose(found[0], np.nansum(np.abs(d), -1) * gap[..., 0], rtol=1e-12)
    each = np.where(here, np.sign(d), 0) * gap
    np.testing.assert_allclose(found[1], each.sum(1), atol=1e-12)
    np.testing.assert_allclose(found[2], -each.sum(0), atol=1e-12)


def test_where_the_compiled_gradient_fails(monkeypatch: pytest.MonkeyPatch):
    """Squares that overflow: such a tile goes to the array engine, which scales."""
    answers: list[Any] = []
    real = compiled.Kernel.pull
    monkeypatch.setattr(compiled.Kernel, "pull", lambda self, *given: answers.append(real(self, *given)) or answers[-1])
    x = tf.constant(np.where(np.arange(7)[:, None] == 3, 1e30, 1.0) * A, tf.float32)
    call = lambda engine: graph(lambda a: slopes(lambda b: pairx.cdist(b, engine=engine, max_bytes=2000), a))  # noqa: E731
    found = call("compiled")(x)[0]
    assert None in answers
    np.testing.assert_allclose(found, call("array")(x)[0], rtol=1e-5, atol=1e-6)
    assert np.isfinite(found).all()


def test_metrics_without_a_compiled_gradient():
    """The values are compiled, and what nobody may ask for is no error."""
    x, y = tf.constant(np.where(A[2, 1] == A, np.nan, A)), tf.constant(B)
    given = {"metric": "cityblock", "w": W, "nan_policy": "omit", "max_bytes": SMALL}
    call = lambda engine: graph(lambda *t: slopes(lambda *u: pairx.cdist(*u, engine=engine, **given), *t))  # noqa: E731
    for g, want in zip(call("compiled")(x, y), call("array")(x, y), strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-12)
    same = graph(lambda a: pairx.cdist(a, metric="hamming", engine="compiled"))(tf.constant([[1, 2], [1, 3]]))
    np.testing.assert_array_equal(same, [[0, 0.5], [0.5, 0]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_in_half_precision(dtype: str):
    x = tf.cast(tf.constant(X), dtype)
    (found,) = graph(lambda a: slopes(lambda b: pairx.cdist(b, metric="sqeuclidean", engine="compiled", max_bytes=SMALL), a))(x)
    assert found.dtype == x.dtype
    wide = tf.cast(x, tf.float64).numpy()
    want = 4 * (len(X) * wide - wide.sum(0))
    np.testing.assert_allclose(tf.cast(found, tf.float64), want, atol=np.abs(want).max() * (2e-3 if dtype == "float16" else 2e-2))


# --- derivatives of derivatives, and forward mode -----------------------------------------------------------------------

V = RNG.normal(size=A.shape)


def loss(engine: str | None, x: Any) -> Any:
    given = {"engine": engine, "max_bytes": 2000}
    return tf.reduce_sum(tf.sin(pairx.cdist(x, tf.constant(B), **given))) + tf.reduce_sum(tf.cos(pairx.pdist(x, **given)))


def true_loss(x: np.ndarray) -> float:
    return float(np.sin(scipy.cdist(x, B)).sum() + np.cos(scipy.pdist(x)).sum())


def tangent(call: Callable[..., Any], x: Any) -> Any:
    with tf.autodiff.ForwardAccumulator(x, tf.constant(V)) as forward:
        found = call(x)
    return forward.jvp(found)


@pytest.mark.parametrize("engine", [None, "compiled"])
@pytest.mark.parametrize("where", ["eager", "inside", "around", "between"])
def test_forward_mode(where: str, engine: str | None):
    call: Any = lambda a: loss(engine, a)  # noqa: E731
    if where in ("around", "between"):
        call = graph(call)
    one = lambda a: tangent(call, a)  # noqa: E731
    found = (graph(one) if where in ("inside", "between") else one)(tf.constant(A))
    h = 1e-6
    np.testing.assert_allclose(found, (true_loss(A + h * V) - true_loss(A - h * V)) / (2 * h), rtol=1e-7)


@pytest.fixture(scope="module")
def curvature() -> np.ndarray:
    """The slope of the slope along V, by central differences of the exact slopes."""

    def first(x: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for other, outer, factor in ((B, np.cos, 1), (x, lambda r: -np.sin(r), 1)):
            d = x[:, None] - other
            r = np.sqrt((d**2).sum(-1, keepdims=True))
            with np.errstate(invalid="ignore"):
                total += np.where(r == 0, 0, factor * outer(r) * d / r).sum(1)
        return total

    return (first(A + 1e-6 * V) - first(A - 1e-6 * V)) / 2e-6


@pytest.mark.parametrize("engine", [None, "compiled"])
@pytest.mark.parametrize("where", ["eager", "inside", "around"])
@pytest.mark.parametrize("how", ["twice", "forward over reverse"])
def test_second_order(curvature: np.ndarray, how: str, where: str, engine: str | None):
    call: Any = lambda a: loss(engine, a)  # noqa: E731
    if where == "around":
        call = graph(call)

    def twice(x: Any) -> Any:
        if how != "twice":
            return tangent(lambda a: slopes(call, a)[0], x)
        return slopes(lambda a: tf.reduce_sum(slopes(call, a)[0] * V), x)[0]

    np.testing.assert_allclose((graph(twice) if where == "inside" else twice)(tf.constant(A)), curvature, atol=1e-7)


def test_second_order_of_chosen_pairs_around_a_graph():
    pairs = tf.constant([0, 3, 3, 6]), tf.constant([1, 2, 2, 0])
    call = lambda a, i, j: tf.reduce_sum(tf.sin(pairx.paired(a, pairs=(i, j), max_bytes=3000)))  # noqa: E731
    outside = lambda f, a: slopes(lambda b: tf.reduce_sum(slopes(lambda c: f(c, *pairs), b)[0] * V), a)[0]  # noqa: E731
    x = tf.constant(A)
    np.testing.assert_allclose(outside(graph(call), x), outside(call, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pfor", [False, True])
def test_jacobian(pfor: bool):
    def call(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = pairx.cdist(x, tf.constant(B), engine="compiled")
        return tape.jacobian(found, x, experimental_use_pfor=pfor)

    d = A[:, None] - B
    slope = d / np.linalg.norm(d, axis=-1, keepdims=True)
    np.testing.assert_allclose(graph(call)(tf.constant(A)), np.einsum("ijk,il->ijlk", slope, np.eye(7)), atol=1e-13)


# --- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "metric"),
    [("matrix", "cityblock"), ("matrix", "jensenshannon"), ("one set", "euclidean"), ("condensed", "cityblock")],
)
def test_the_budget_holds(layout: str, metric: str):
    budget, slack = 1 << 20, 1 << 20
    x, y = tf.constant(RNG.random((500, 32)), tf.float32), tf.constant(RNG.random((400, 32)), tf.float32)
    given = {"metric": metric, "engine": "compiled", "max_bytes": budget}
    call: Any = {
        "matrix": lambda a, b: pairx.cdist(a, b, **given),
        "one set": lambda a, b: pairx.cdist(a, **given),
        "condensed": lambda a, b: pairx.pdist(a, **given),
    }[layout]
    spec = [tf.TensorSpec([None, None])] * 2
    values = graph(call, *spec)
    result = values(x, y)
    size = 4 * int(tf.size(result))
    both = graph(lambda a, b, g: slopes(call, a, b, g=g), *spec, tf.TensorSpec([None] * len(result.shape)))
    for what, least, run in (("forward", size, lambda: values(x, y)), ("backward", 0, lambda: both(x, y, result))):
        peak = measure.cpu_peak_bytes(run)
        if peak is None:
            pytest.skip("no memray")
        # The backward's graph may make the result, too.
        assert peak <= size + budget + slack + (2 * 900 * 32 * 4 if what == "backward" else 0), f"{what}: {peak - size} bytes"
        assert peak >= least


# --- what it cannot do --------------------------------------------------------------------------------------------------


def test_xla_is_refused_while_tracing():
    call = lambda a: pairx.cdist(a, metric="cityblock", engine="compiled")  # noqa: E731
    with pytest.raises(ValueError, match=r"engine='compiled': XLA cannot call it.*jit_compile=False.*leave engine away"):
        graph(call, jit_compile=True)(tf.constant(X))


def test_xla_that_comes_later_is_tensorflows_error():
    inner = graph(lambda a: pairx.cdist(a, metric="cityblock", engine="compiled"), tf.TensorSpec([23, 6], tf.float64))
    inner.get_concrete_function()
    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        graph(inner, jit_compile=True)(tf.constant(X))


def test_a_saved_model_works_in_this_process_only(tmp_path: Any):
    module = tf.Module()
    module.call = graph(lambda a: pairx.cdist(a, metric="cityblock", engine="compiled"), tf.TensorSpec([None, 6], tf.float64))
    tf.saved_model.save(module, str(tmp_path / "model"))
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path / "model")).call(tf.constant(X)), scipy.cdist(X, X, "cityblock"))
    code = f"import tensorflow as tf; tf.saved_model.load({str(tmp_path / 'model')!r}).call(tf.ones((3, 6), tf.float64))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Could not find callback with key=pyfunc_" in done.stderr


def test_a_keras_layer_is_trained():
    keras = pytest.importorskip("keras")

    class Distances(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.centres = self.add_weight(shape=(3, shape[-1]), initializer=keras.initializers.RandomNormal(seed=1))

        def call(self, x: Any) -> Any:
            return pairx.cdist(x, self.centres, "cityblock", engine="compiled")

    layer = Distances()
    model = keras.Sequential([keras.Input((6,)), layer])
    before = tf.convert_to_tensor(layer.centres).numpy()
    model.compile(keras.optimizers.SGD(0.5), loss=lambda _, found: tf.reduce_mean(found, -1), jit_compile=False)
    model.fit(X, np.zeros((23, 3)), verbose=0, batch_size=23)
    want = -np.sign(X[:, None] - before).mean((0,)) / 3
    np.testing.assert_allclose(tf.convert_to_tensor(layer.centres), before - 0.5 * want, rtol=1e-5)
    model.compile("sgd", loss="mse", jit_compile=True)
    with pytest.raises(ValueError, match="jit_compile=False"):
        model.fit(X, np.zeros((23, 3)), verbose=0)
