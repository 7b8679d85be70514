"""The compiled engine in traced calls: each transformation, the budget, meshes, errors, and when it is taken."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import pairx
from pairx.plan import parse_bytes

jax = pytest.importorskip("jax")
jnp = jax.numpy
if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)
if not hasattr(jax, "ffi"):
    pytest.skip("this JAX has no public FFI", allow_module_level=True)

from pairx_backends.jax import foreign, machine, measure  # noqa: E402

ENGINES = ("compiled", "array")
SCALED = ["cityblock", "euclidean", "canberra"]
"""Without the array engine behind the gradient; with it, for a maximum of the difference; and of the term."""


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def sets(*shapes: tuple[int, ...], dtype: Any = "float64", seed: int = 0) -> list[Any]:
    draw = np.random.default_rng(seed)
    return [jnp.asarray(draw.normal(size=s), dtype) for s in shapes]


def exact(metric: str, x: Any, y: Any, w: Any = None) -> np.ndarray:
    """By the formula, in float64."""
    x, y = np.asarray(x, float)[..., :, None, :], np.asarray(y, float)[..., None, :, :]
    w = np.ones(x.shape[-1]) if w is None else np.asarray(w, float)
    gap = np.abs(x - y)
    return {
        "cityblock": lambda: (w * gap).sum(-1),
        "euclidean": lambda: np.sqrt((w * gap**2).sum(-1)),
        "canberra": lambda: (w * gap / (np.abs(x) + np.abs(y))).sum(-1),
        "chebyshev": lambda: gap.max(-1),
    }[metric]()


def slopes(metric: str, x: Any, y: Any, c: Any, w: Any = None) -> list[np.ndarray]:
    """Of the sum of c times the distances, in x and y, by central differences in float64."""
    found = []
    for k, a in enumerate((x, y)):
        a = np.array(a, float)
        g = np.zeros(a.shape)
        for place in np.ndindex(*a.shape):
            sums = []
            for step in (1e-6, -1e-6):
                moved = a.copy()
                moved[place] += step
                sums.append((np.asarray(c) * exact(metric, *((moved, y) if k == 0 else (x, moved)), w)).sum())
            g[place] = (sums[0] - sums[1]) / 2e-6
        found.append(g)
    return found


def same(got: Any, want: Any, rtol: float = 1e-10) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-10), got, want)


def in_machine_code(function: Callable[..., Any], *arrays: Any) -> bool:
    """Whether the program of a function has a custom call of ours."""
    return foreign.NAME in jax.jit(function).lower(*arrays).as_text()


# --- values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, "3kB"])
@pytest.mark.parametrize("metric", [*SCALED, "chebyshev"])
def test_values_under_jit(metric: str, budget: str | None):
    x, y = sets((2, 1, 33, 5), (3, 21, 5))
    call = partial(pairx.cdist, metric=metric, max_bytes=budget, engine="compiled")
    assert in_machine_code(call, x, y)
    same(jax.jit(call)(x, y), exact(metric, x, y))
    one = np.asarray(jax.jit(call)(x[0, 0]))
    same(one, exact(metric, x[0, 0], x[0, 0]))
    np.testing.assert_array_equal(one, one.T)
    np.testing.assert_array_equal(np.diagonal(one), 0)
    condensed = jax.jit(partial(pairx.pdist, metric=metric, max_bytes=budget, engine="compiled"))(x)
    same(condensed[1, 0], exact(metric, x[1, 0], x[1, 0])[np.triu_indices(33, 1)])


def test_values_are_those_of_the_eager_engine():
    x, y = sets((50, 9), (40, 9), dtype="float32")
    for metric in ("cityblock", "jensenshannon", "kl_divergence"):
        call = partial(pairx.cdist, metric=metric, engine="compiled")
        np.testing.assert_array_equal(jax.jit(call)(abs(x), abs(y)), call(abs(x), abs(y)))


def test_each_program_keeps_its_own_kernel():
    x, y = sets((30, 4), (20, 4))
    calls = {m: jax.jit(partial(pairx.cdist, metric=m, engine="compiled")) for m in ("cityblock", "euclidean", "chebyshev")}
    for _ in range(2):
        for metric, call in calls.items():
            same(call(x, y), exact(metric, x, y))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "bool"])
def test_narrow_dtypes(dtype: str):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (40, 6))).astype(dtype)
    got = jax.jit(partial(pairx.cdist, metric="cityblock", engine="compiled"))(x)
    assert got.dtype == (dtype if "float" in dtype else "float64")
    same(got.astype(float), exact("cityblock", x, x))
    if "float" in dtype:
        g = jax.jit(jax.grad(lambda a: pairx.cdist(a, x[:1], "sqeuclidean", engine="compiled").astype(float).sum()))(x)
        assert g.dtype == dtype
        same(g.astype(float), 2 * (np.asarray(x, float) - np.asarray(x[:1], float)))


def test_without_x64():
    jax.config.update("jax_enable_x64", False)
    x, y = sets((30, 4), (20, 4), dtype="float32")
    call = partial(pairx.cdist, metric="euclidean", engine="compiled")
    assert in_machine_code(call, x, y)
    same(jax.jit(call)(x, y), exact("euclidean", x, y), rtol=1e-5)
    c = np.ones((30, 20))
    got = jax.jit(jax.grad(lambda a, b: call(a, b).sum(), (0, 1)))(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), list(got), slopes("euclidean", x, y, c))


# --- derivatives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", SCALED)
def test_gradients(metric: str):
    x, y = sets((9, 4), (7, 4))
    w, c = jnp.asarray([0.5, 1.0, 2.0, 0.25]), sets((9, 7), seed=1)[0]
    want, value = slopes(metric, x, y, c, w), (np.asarray(c) * exact(metric, x, y, w)).sum()

    def loss(a: Any, b: Any, v: Any) -> Any:
        return (pairx.cdist(a, b, metric, w=v, engine="compiled", max_bytes="8kB") * c).sum()

    for transformed in (jax.value_and_grad(loss, (0, 1, 2)), jax.jit(jax.value_and_grad(loss, (0, 1, 2)))):
        got, grads = transformed(x, y, w)
        same(got, value)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), list(grads[:2]), want)
        step = 1e-6 * np.eye(4)
        in_w = [(np.asarray(c) * (exact(metric, x, y, w + s) - exact(metric, x, y, w - s))).sum() / 2e-6 for s in step]
        np.testing.assert_allclose(grads[2], in_w, rtol=1e-6, atol=1e-7)
    assert in_machine_code(jax.grad(loss), x, y, w)
    assert in_machine_code(jax.grad(loss, 2), x, y, w)


@pytest.mark.parametrize("budget", [None, "12kB"])
@pytest.mark.parametrize("metric", ["cityblock", "euclidean"])
def test_gradients_of_one_set_and_of_batches(metric: str, budget: str | None):
    """One tile, and several with their mirror images."""
    x, y = sets((2, 1, 40, 4), (3, 7, 4))
    c = np.random.default_rng(1).normal(size=(40, 40))
    given = {"metric": metric, "max_bytes": budget, "engine": "compiled"}
    one, i, j = x[0, 0], *np.triu_indices(40, 1)
    off = c * (1 - np.eye(40))  # the diagonal is a constant
    got = jax.jit(jax.grad(lambda a: (pairx.cdist(a, **given) * c).sum()))(one)
    np.testing.assert_allclose(got, sum(slopes(metric, one, one, off)), rtol=1e-6, atol=1e-7)
    upper = np.triu(c, 1)
    got = jax.jit(jax.grad(lambda a: (pairx.pdist(a, **given) * c[i, j]).sum()))(x)
    for k in range(2):
        np.testing.assert_allclose(got[k, 0], sum(slopes(metric, x[k, 0], x[k, 0], upper)), rtol=1e-6, atol=1e-7)
    cc = np.random.default_rng(2).normal(size=(2, 3, 40, 7))
    gx, gy = jax.jit(jax.grad(lambda a, b: (pairx.cdist(a, b, **given) * cc).sum(), (0, 1)))(x, y)
    want_x, want_y = np.zeros(x.shape), np.zeros(y.shape)
    for p, q in np.ndindex(2, 3):
        a, b = slopes(metric, x[p, 0], y[q], cc[p, q])
        want_x[p, 0] += a
        want_y[q] += b
    np.testing.assert_allclose(gx, want_x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gy, want_y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axes", [(0, 0, None), (0, None, None), (None, 0, None), (None, None, 0), (0, None, 0)])
def test_vmap(axes: tuple[Any, ...]):
    whole = [*sets((3, 6, 4), (3, 5, 4)), jnp.asarray(np.random.default_rng(2).uniform(0.5, 2, (3, 4)))]
    given = [a if k == 0 else a[0] for a, k in zip(whole, axes, strict=True)]
    call = lambda a, b, w: pairx.cdist(a, b, "euclidean", w=w, engine="compiled")  # noqa: E731
    each = [[a[i] if k == 0 else a for a, k in zip(given, axes, strict=True)] for i in range(3)]
    assert in_machine_code(jax.vmap(call, axes), *given)
    same(jax.jit(jax.vmap(call, axes))(*given), np.stack([exact("euclidean", *e) for e in each]))
    want = [slopes("euclidean", a, b, np.ones((6, 5)), w) for a, b, w in each]
    loss = lambda *a: call(*a).sum()  # noqa: E731
    gx, gy = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), axes))(*given)
    np.testing.assert_allclose(gx, np.stack([g[0] for g in want]), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gy, np.stack([g[1] for g in want]), rtol=1e-6, atol=1e-7)
    # The other way round, what is not mapped is shared: its gradients add up.
    gx, gy = jax.jit(jax.grad(lambda *a: jax.vmap(call, axes)(*a).sum(), (0, 1)))(*given)
    for g, k, side in ((gx, axes[0], 0), (gy, axes[1], 1)):
        total = np.stack([e[side] for e in want])
        np.testing.assert_allclose(g, total if k == 0 else total.sum(0), rtol=1e-6, atol=1e-7)


def test_vmap_of_vmap_and_of_one():
    x, y = sets((2, 3, 6, 4), (3, 5, 4))
    call = partial(pairx.cdist, metric="cityblock", engine="compiled")
    got = jax.jit(jax.vmap(jax.vmap(call), (0, None)))(x, y)
    same(got, exact("cityblock", x, y))
    same(jax.jit(jax.vmap(call))(x[:1, 0], y[:1]), exact("cityblock", x[:1, 0], y[:1]))
    same(
        jax.jit(jax.vmap(lambda a: pairx.pdist(a, "cityblock", engine="compiled")))(x[0])[2],
        exact("cityblock", x[0, 2], x[0, 2])[np.triu_indices(6, 1)],
    )


TRANSFORMED: dict[str, Callable[..., Any]] = {
    "hessian": lambda f: jax.hessian(f, (0, 1, 2)),
    "grad of grad": lambda f: jax.grad(lambda a, b, w: sum((g**2).sum() for g in jax.grad(f, (0, 1, 2))(a, b, w)), (0, 1, 2)),
    "jacfwd of jacfwd": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "jacrev of jacrev": lambda f: jax.jacrev(jax.jacrev(f)),
    "grad of jvp": lambda f: jax.grad(lambda a, b, w: jax.jvp(f, (a, b, w), (jnp.cos(a), b, w))[1], (0, 1, 2)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2)),
    "linearize": lambda f: lambda a, b, w: jax.linearize(f, a, b, w)[1](jnp.cos(a), b, w),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMED)
@pytest.mark.parametrize("call", ["cdist", "pdist"])
def test_every_mode_is_that_of_the_array_engine(call: str, name: str):
    x, y = sets((5, 3), (4, 3))
    w = jnp.asarray([0.5, 1.0, 2.0])

    def cubes(a: Any, b: Any, w: Any, engine: str) -> Any:
        if call == "pdist":
            return (pairx.pdist(jnp.concat([a, b]), "minkowski", p=2.5, w=w, engine=engine) ** 3).sum()
        return (pairx.cdist(a, b, "minkowski", p=2.5, w=w, engine=engine) ** 3).sum()

    got, want = (jax.jit(TRANSFORMED[name](partial(cubes, engine=e)))(x, y, w) for e in ENGINES)
    same(got, want, rtol=1e-8)
    assert max(np.abs(a).max() for a in jax.tree.leaves(got)) > 1e-3


@pytest.mark.parametrize("metric", SCALED)
def test_forward_mode_against_finite_differences(metric: str):
    x, y, t = sets((9, 4), (7, 4), (9, 4))
    call = partial(pairx.cdist, metric=metric, engine="compiled")
    value, slope = jax.jit(lambda a, t: jax.jvp(lambda a: call(a, y), (a,), (t,)))(x, t)
    same(value, exact(metric, x, y))
    want = (exact(metric, x + 1e-6 * t, y) - exact(metric, x - 1e-6 * t, y)) / 2e-6
    np.testing.assert_allclose(slope, want, rtol=1e-6, atol=1e-7)
    forward = jax.jit(jax.jacfwd(lambda a: call(a, y)))(x)
    same(forward, jax.jit(jax.jacrev(lambda a: call(a, y)))(x), rtol=1e-9)
    np.testing.assert_allclose(jnp.tensordot(forward, t, 2), want, rtol=1e-6, atol=1e-7)


def test_a_derivative_in_one_operand_leaves_the_others_alone():
    x, y = sets((9, 4), (7, 4))
    rank = jnp.arange(28).reshape(7, 4)  # integers have none
    loss = lambda a, b: (pairx.cdist(a, b, "sqeuclidean", engine="compiled")).sum()  # noqa: E731
    same(jax.jit(jax.grad(loss))(x, rank), 2 * (np.asarray(x)[:, None] - np.asarray(rank)).sum(1))
    same(jax.jit(jax.grad(loss, 1))(x, y), -2 * (np.asarray(x)[:, None] - np.asarray(y)).sum(0))


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_where_a_distance_overflows_the_array_engine_is_differentiated(size: float):
    x, y = sets((2, 6, 4), (5, 4))
    loss = lambda a, b: pairx.cdist(a, b, "euclidean", engine="compiled").sum()  # noqa: E731
    got = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))(jnp.stack([x[0] * size, x[1] * size]), y * size)
    for i in range(2):
        want = slopes("euclidean", x[i], y, np.ones((6, 5)))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-7), list(got), want)


def test_rows_that_are_prepared_are_differentiated_in_pieces():
    x, y = abs(sets((60, 5), (4, 5))[0]), abs(sets((60, 5), (4, 5))[1])
    w = jnp.asarray([1.0, 0.5, 2.0, 1.0, 3.0])
    for metric in ("jensenshannon", "hellinger"):
        loss = lambda a, b, w, **k: (pairx.cdist(a, b, metric, w=w, **k) ** 2).sum()  # noqa: B023, E731
        got, want = (
            jax.jit(jax.grad(partial(loss, engine=e, max_bytes=b), (0, 1, 2)))(x, y, w) for e, b in (("compiled", "6kB"), ("array", None))
        )
        same(got, want, rtol=1e-8)


def test_a_metric_without_a_derivative_of_its_own():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (20, 6)), float)
    call = partial(pairx.cdist, metric="hamming", engine="compiled")
    assert in_machine_code(call, x)
    same(jax.jit(call)(x), (np.asarray(x)[:, None] != np.asarray(x)).mean(-1))
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda a: call(a).sum()))(x), 0)


# --- where it runs --------------------------------------------------------------------------------------------------------


def test_when_it_is_taken():
    small, large = (jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (64, 1000))
    seen = []

    def probe(a: Any, **given: Any) -> Any:
        seen.append(pairx.explain(pairx.cdist, a, metric="cityblock", **given).engine)
        return a

    pairx.cdist(jnp.ones((2, 2), jnp.float32), metric="cityblock", engine="compiled")  # now the kernel is ready
    for spec, given in ((small, {}), (large, {}), (small, {"engine": "compiled"}), (large, {"engine": "array"})):
        jax.eval_shape(partial(probe, **given), spec)
    assert seen == ["array", "compiled", "compiled", "array"]


def test_on_an_accelerator_it_must_be_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (x,) = sets((1000, 64))
    assert not in_machine_code(lambda a: pairx.cdist(a, metric="cityblock"), x)
    assert in_machine_code(lambda a: pairx.cdist(a, metric="cityblock", engine="compiled"), x)


def test_an_exported_program_has_the_array_engine():
    export = pytest.importorskip("jax.export")
    x, y = sets((30, 4), (20, 4))
    call = partial(pairx.cdist, metric="cityblock", engine="compiled")
    for function, want in (
        (call, exact("cityblock", x, y)),
        (jax.grad(lambda a, b: call(a, b).sum()), slopes("cityblock", x, y, np.ones((30, 20)))[0]),
    ):
        found = export.export(jax.jit(function), platforms=["cpu", "cuda"])(x, y)
        assert foreign.NAME not in found.mlir_module()
        np.testing.assert_allclose(export.deserialize(found.serialize()).call(x, y), want, rtol=1e-6, atol=1e-7)


def test_compiled_ahead_of_time():
    x, y = sets((30, 4), (20, 4))
    ready = jax.jit(partial(pairx.cdist, metric="cityblock", engine="compiled")).lower(x, y).compile()
    same(ready(x, y), exact("cityblock", x, y))


MESH = """
import jax, jax.numpy as jnp, numpy as np, pairx
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), ("rows",))
assert len(jax.devices()) == 2
draw = np.random.default_rng(0)
a, b = draw.normal(size=(2000, 16)), draw.normal(size=(100, 16))
x, y = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
xs, ys = jax.device_put(x, NamedSharding(mesh, P("rows"))), jax.device_put(y, NamedSharding(mesh, P()))
call = lambda u, v: pairx.cdist(u, v, "cityblock")
slope = jax.grad(lambda u, v: call(u, v).sum())
want, signs = np.abs(a[:, None] - b).sum(-1), np.sign(a[:, None] - b).sum(1)
used = lambda f, *arrays: "pairx_host" in f.lower(*arrays).as_text()
for function, wanted in ((call, want), (slope, signs)):
    for arrays, machine in (((x, y), True), ((xs, ys), False)):
        assert used(jax.jit(function), *arrays) == machine
        np.testing.assert_allclose(jax.jit(function)(*arrays), wanted, rtol=1e-4)
    later = jax.jit(function, out_shardings=NamedSharding(mesh, P("rows")))  # traced calls cannot know, their programs do
    assert not used(later, x, y)
    np.testing.assert_allclose(later(x, y), wanted, rtol=1e-4)
assert len(jax.jit(call)(xs, ys).sharding.device_set) == 2
try:
    jax.jit(lambda u, v: pairx.cdist(u, v, "cityblock", engine="compiled"))(xs, ys)
except ValueError as error:
    assert "mesh" in str(error)
else:
    raise AssertionError("asked for, and not refused")
if hasattr(jax, "shard_map"):
    rows = jax.shard_map(call, mesh=mesh, in_specs=(P("rows"), P()), out_specs=P("rows"), check_vma=False)
    assert not used(jax.jit(rows), xs, ys)
    np.testing.assert_allclose(jax.jit(rows)(xs, ys), want, rtol=1e-4)
print("done")
"""


def fresh(code: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env={**os.environ, **env}, check=False)


def test_on_a_mesh_the_array_engine_runs():
    done = fresh(MESH, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert done.stdout == "done\n", done.stderr


def test_a_program_kept_on_disk_finds_its_kernel(tmp_path):
    code = (
        "import jax, sys; jax.config.update('jax_compilation_cache_dir', sys.argv[1])\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)\n"
        "import jax.numpy as jnp, pairx\n"
        "for metric in sys.argv[2:]:\n"
        "    f = jax.jit(lambda a, b: pairx.cdist(a, b, metric, engine='compiled'))\n"
        "    print(f(jnp.asarray([[0.0, 0.0]]), jnp.asarray([[3.0, 4.0]]))[0, 0])\n"
    )
    first = fresh(code, str(tmp_path), "cityblock", "euclidean")
    second = fresh(code, str(tmp_path), "chebyshev", "euclidean", "cityblock")
    assert first.stdout == "7.0\n5.0\n", first.stderr
    assert second.stdout == "4.0\n5.0\n7.0\n", second.stderr


# --- budget, errors, threads ----------------------------------------------------------------------------------------------


LAYOUTS: dict[str, Callable[..., Any]] = {
    "cdist": lambda a, b, *k: pairx.cdist(a, b, k[0], max_bytes=k[1], engine="compiled"),
    "symmetric": lambda a, b, *k: pairx.cdist(a, None, k[0], max_bytes=k[1], engine="compiled"),
    "pdist": lambda a, b, *k: pairx.pdist(a, k[0], max_bytes=k[1], engine="compiled"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("metric", "budget"), [("cityblock", "400kB"), ("euclidean", "2MB"), ("jensenshannon", "2MB")])
def test_both_passes_keep_to_the_budget(layout: str, metric: str, budget: str):
    x, y = (abs(a) for a in sets((1000, 64), (1000, 64), dtype="float32"))
    call = LAYOUTS[layout]
    held = int(np.prod(jax.eval_shape(lambda a, b: call(a, b, metric, None), x, y).shape)) * 4
    forward = jax.jit(lambda a, b: call(a, b, metric, budget))
    most = measure.peak_bytes(lambda: forward(x, y))
    assert most is not None
    assert most - held <= parse_bytes(budget) + 2**20
    backward = jax.jit(lambda g, a, b: jax.vjp(lambda a, b: call(a, b, metric, budget), a, b)[1](g))
    g = jnp.ones_like(forward(x, y))
    most = measure.peak_bytes(lambda: backward(g, x, y))
    assert most is not None
    gradients = 4 * x.nbytes  # those of the rows and of the prepared rows
    assert most - gradients <= parse_bytes(budget) + 2**20, f"{most} bytes"


def test_an_error_on_the_host_is_told(monkeypatch: pytest.MonkeyPatch):
    def broken(*a: Any, **k: Any) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(machine.engine, "run", broken)
    (x,) = sets((13, 4))
    with pytest.raises(Exception, match="the disk is on fire"):
        jax.block_until_ready(jax.jit(partial(pairx.cdist, metric="canberra", engine="compiled"))(x))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT between processes")
def test_ctrl_c_stops_it():
    """As a KeyboardInterrupt or, where XLA runs on the main thread, as the error that JAX makes of it."""
    code = (
        "import signal, jax, jax.numpy as jnp, numpy as np, pairx\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "x = jnp.asarray(np.random.default_rng(0).random((20000, 100)), jnp.float32)\n"
        "call = jax.jit(lambda a: pairx.cdist(a, metric='jensenshannon', engine='compiled', max_bytes='1MB'))\n"
        "jax.block_until_ready(call(x[:9]))\n"
        "print('ready', flush=True)\n"
        "try:\n    jax.block_until_ready(call(x))\n    print('finished')\n"
        "except BaseException as error:\n    print('KeyboardInterrupt' in repr(error))\n"
        "print(float(call(x[:9])[0, 0]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert out.split() == ["True", "0.0"]


def test_one_processor_is_enough():
    """Nothing waits for a thread that is busy waiting."""
    code = (
        "import os; getattr(os, 'sched_setaffinity', lambda *a: None)(0, {min(getattr(os, 'sched_getaffinity', lambda p: {0})(0))})\n"
        "import jax, jax.numpy as jnp, pairx\n"
        "x = jnp.ones((2000, 100), jnp.float32)\n"
        "f = jax.jit(jax.grad(lambda a: (pairx.cdist(a * 2, metric='cityblock', engine='compiled') + a[:, :1]).sum()))\n"
        "print([float(f(x * k).sum()) for k in range(5)])\n"
    )
    done = fresh(code)
    assert done.stdout == f"{[4e6] * 5}\n", done.stderr


def test_with_jit_switched_off():
    x, y = sets((6, 3), (5, 3))
    with jax.disable_jit():
        got = jax.grad(lambda a: pairx.cdist(a, y, "cityblock", engine="compiled").sum())(x)
    same(got, np.sign(np.asarray(x)[:, None] - np.asarray(y)).sum(1))


def test_a_constant_in_a_traced_call():
    """Weights and pairs that are no tracers, where all that is done to them is traced."""
    x, y = sets((6, 3), (5, 3))
    w = jnp.asarray([1.0, 2.0, 3.0])
    for engine in ENGINES:
        same(jax.jit(lambda a, e=engine: pairx.cdist(a, y, "cityblock", w=w, engine=e))(x), exact("cityblock", x, y, w))
    i, j = jnp.asarray([0, 3]), jnp.asarray([1, 1])
    same(jax.jit(lambda a: pairx.paired(a, y, "cityblock", pairs=(i, j)))(x), exact("cityblock", x, y)[[0, 3], [1, 1]])
