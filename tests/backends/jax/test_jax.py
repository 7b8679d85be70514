"""What is JAX's own: transformations, compiled once, and the budget in both passes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance as scipy

import pairx
from pairx.plan import parse_bytes

jax = pytest.importorskip("jax")
jnp = jax.numpy
lax = jax.lax
import pairx_backends.jax as backend  # noqa: E402

BUDGETS = [None, "20kB"]  # one tile; many, whose last ones overlap
budgets = pytest.mark.parametrize("budget", BUDGETS)


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def sets(*shapes: tuple[int, ...], dtype: Any = None) -> list[Any]:
    draw = np.random.default_rng(0)
    return [jnp.asarray(draw.normal(size=s), dtype=dtype) for s in shapes]


def plain(x: Any, y: Any) -> Any:
    """Euclidean distances of different rows, by one broadcast."""
    return jnp.sqrt(jnp.sum((x[..., :, None, :] - y[..., None, :, :]) ** 2, axis=-1))


def same(got: Any, want: Any, rtol: float = 1e-10) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-10), got, want)


# --- tiles ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "chebyshev", "cosine"])
@budgets
def test_values(metric: str, budget: str | None):
    x, y = sets((65, 11), (43, 11))
    same(pairx.cdist(x, y, metric, max_bytes=budget), scipy.cdist(x, y, metric))
    same(pairx.pdist(x, metric, max_bytes=budget), scipy.pdist(x, metric))
    square = pairx.cdist(x, None, metric, max_bytes=budget)
    same(square, scipy.cdist(x, x, metric))
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_array_equal(jnp.diagonal(square), 0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 11])
def test_every_count_of_tiles_on_and_above_the_diagonal(n: int):
    """Odd and even, and with an overlapping last tile or none."""
    (x,) = sets((n, 3))
    want = np.abs(np.asarray(x)[:, None] - np.asarray(x)).sum(-1)
    for budget in (1000, 3000):
        got = pairx.cdist(x, None, "cityblock", max_bytes=budget)
        same(got, want)
        np.testing.assert_array_equal(got, got.T)
        same(pairx.pdist(x, "cityblock", max_bytes=budget), want[np.triu_indices(n, 1)])


def test_fold_visits_each_tile_once_and_the_last_on_the_diagonal_after_its_neighbour():
    for k in (1, 2, 3, 4, 7):
        found = jax.jit(lambda t, k=k: backend._fold(t, (1, k, k)))(np.arange(k * (k + 1) // 2))
        places = [(0, int(i), int(j)) for i, j in zip(*found[1:], strict=True)]
        assert sorted(places) == sorted((0, i, j) for j in range(k) for i in range(j + 1))
        if k > 1:
            assert places.index((0, k - 1, k - 1)) > places.index((0, k - 2, k - 1))


@budgets
def test_batches_broadcast(budget: str | None):
    x, y = sets((2, 1, 9, 4), (3, 7, 4))
    same(pairx.cdist(x, y, max_bytes=budget), plain(x, y))
    same(pairx.paired(x[..., :7, :], y, max_bytes=budget), jnp.sqrt(jnp.sum((x[..., :7, :] - y) ** 2, -1)))
    i, j = np.random.default_rng(1).integers(0, 7, (2, 50))
    same(pairx.paired(x, y, pairs=(i, j), max_bytes=budget), plain(x, y)[..., i, j])
    same(pairx.pdist(x, "cityblock", max_bytes=budget)[1, 0], scipy.pdist(x[1, 0], "cityblock"))


def test_chosen_pairs_out_of_range():
    x, y = sets((4, 2), (3, 2))
    with pytest.raises(IndexError, match="4"):
        pairx.paired(x, y, pairs=([4], [0]))
    got = jax.jit(lambda i, j: pairx.paired(x, y, pairs=(i, j)))(jnp.asarray([0, 4, -1]), jnp.asarray([0, 0, 0]))
    np.testing.assert_array_equal(jnp.isnan(got), [False, True, True])


# --- transformations ------------------------------------------------------------------------------------------------------


@budgets
def test_vmap(budget: str | None):
    x, y = sets((3, 9, 4), (3, 7, 4))

    def call(a: Any, b: Any) -> Any:
        return pairx.cdist(a, b, max_bytes=budget)

    want = plain(x[:, None], y)  # (3, 3, 9, 7)
    same(jax.vmap(call)(x, y), plain(x, y))
    same(jax.vmap(call, (0, None))(x, y[0]), want[:, 0])
    same(jax.vmap(call, (None, 0))(x[0], y), want[0])
    same(jax.vmap(lambda a: pairx.pdist(a, max_bytes=budget))(x)[1], scipy.pdist(x[1]))
    same(jax.jit(jax.vmap(jax.grad(lambda a, b: call(a, b).sum())))(x, y), jax.vmap(jax.grad(lambda a, b: plain(a, b).sum()))(x, y))


FIRST, SECOND = np.triu_indices(11, 1)
CALLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "cdist": (lambda x, y, **k: pairx.cdist(x, y, **k), plain),
    "symmetric": (
        lambda x, y, **k: pairx.cdist(jnp.concat([x, y]), **k)[0, 1:],  # the diagonal has no second derivative
        lambda x, y: plain(jnp.concat([x, y])[:1], jnp.concat([x, y])[1:])[0],
    ),
    "pdist": (
        lambda x, y, **k: pairx.pdist(jnp.concat([x, y]), **k),
        lambda x, y: jnp.sqrt(jnp.sum((jnp.concat([x, y])[FIRST] - jnp.concat([x, y])[SECOND]) ** 2, -1)),
    ),
    "paired": (lambda x, y, **k: pairx.paired(x, y[:5], **k), lambda x, y: jnp.sqrt(jnp.sum((x - y[:5]) ** 2, -1))),
    "pairs": (
        lambda x, y, **k: pairx.paired(x, y, pairs=([0, 4, 4, 2], [5, 1, 0, 3]), **k),
        lambda x, y: plain(x, y)[np.array([0, 4, 4, 2]), np.array([5, 1, 0, 3])],
    ),
    "matrix norm": (
        lambda x, y, max_bytes: pairx.pairwise_matrix_norm(x.reshape(5, 2, 2), y.reshape(6, 2, 2), max_bytes=max_bytes),
        plain,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "budget"), [("cdist", None), *((name, "8kB") for name in CALLS)])
def test_both_modes_and_second_order(name: str, budget: str | None):
    ours, theirs = CALLS[name]
    x, y = sets((5, 4), (6, 4))

    def cubes(f: Callable[..., Any], **k: Any) -> Callable[..., Any]:
        return lambda x, y: jnp.sum(f(x, y, **k) ** 3)

    own = cubes(ours, max_bytes=budget)
    want = cubes(theirs)
    for transformed in (
        lambda f: jax.value_and_grad(f, (0, 1)),
        lambda f: lambda x, y: jax.jvp(f, (x, y), (y[:5], jnp.cos(y))),
    ):
        same(jax.jit(transformed(own))(x, y), jax.jit(transformed(want))(x, y))
    same(jax.jit(jax.hessian(own))(x, y), jax.jit(jax.hessian(want))(x, y), rtol=1e-8)


@budgets
def test_gradients_of_equal_rows_are_finite(budget: str | None):
    (x,) = sets((20, 3))
    x = x.at[7].set(x[3]).at[11].set(0.0).at[12].set(0.0)
    for f in (pairx.cdist, pairx.pdist):
        assert jnp.isfinite(jax.jit(jax.grad(lambda v, f=f: f(v, max_bytes=budget).sum()))(x)).all()


def test_inside_checkpoint_and_a_jacobian():
    x, y = sets((5, 4), (6, 4))
    got = jax.jit(jax.grad(jax.checkpoint(lambda a: pairx.cdist(a, y, max_bytes="8kB").sum())))(x)
    same(got, jax.jit(jax.grad(lambda a: plain(a, y).sum()))(x))
    same(jax.jit(jax.jacfwd(lambda a: pairx.cdist(a, y, max_bytes="8kB")))(x), jax.jit(jax.jacfwd(lambda a: plain(a, y)))(x))


def test_gradient_of_weights_and_of_a_quadratic_form():
    x, y = sets((5, 3), (6, 3))
    w = jnp.asarray([1.0, 2.0, 3.0])
    got = jax.jit(jax.grad(lambda w: pairx.cdist(x, y, "sqeuclidean", w=w, max_bytes="8kB").sum()))(w)
    same(got, jnp.sum((x[:, None] - y) ** 2, (0, 1)))
    form = jax.jit(jax.grad(lambda v: (pairx.cdist(x, y, "mahalanobis", VI=v, max_bytes="8kB") ** 2).sum()))(jnp.eye(3))
    d = x[:, None] - y
    same(form, jnp.einsum("ijk,ijl->kl", d, d))


def test_sharded_inputs_and_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))
    x, y = sets((8, 3), (6, 3))
    rows = jax.sharding.PartitionSpec("rows")
    spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, rows))
    other = jax.device_put(y, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    same(pairx.cdist(spread, other), plain(x, y))
    same(jax.jit(pairx.cdist)(spread, other), plain(x, y))
    if hasattr(jax, "shard_map"):
        by_rows = jax.shard_map(
            lambda a, b: pairx.cdist(a, b, max_bytes="8kB"),
            mesh=mesh,
            in_specs=(rows, jax.sharding.PartitionSpec()),
            out_specs=rows,
            check_vma=False,
        )
        same(by_rows(x, y), plain(x, y))


# --- compiled once --------------------------------------------------------------------------------------------------------


def test_equal_calls_compile_once(monkeypatch: pytest.MonkeyPatch):
    traces = []
    walk = backend._walk

    def counted(*a: Any) -> Any:
        traces.append(a[0])
        return walk(*a)

    monkeypatch.setattr(backend, "_compiled", jax.jit(counted, static_argnums=0))
    x, y = sets((30, 5), (20, 5))
    calls: list[Callable[..., Any]] = [
        lambda a, b: pairx.cdist(a, b, "minkowski", p=3),
        lambda a, b: pairx.cdist(a, b, "cityblock", w=np.arange(5.0)),
        lambda a, b: pairx.cdist(a, b, "cosine", zero="scipy"),
        lambda a, b: pairx.pdist(a),
        lambda a, b: pairx.paired(a, b, pairs=([1, 2], [3, 4])),
        lambda a, b: pairx.gram(a, b, "rbf", gamma=0.5),
        lambda a, b: pairx.pairwise_matrix_norm(a[:, :4].reshape(-1, 2, 2), ord="nuc"),
    ]
    with pairx.options(engine="array"):
        for call in calls:
            before = len(traces)
            call(x, y)
            assert len(traces) == before + 1
            call(x + 1, y * 2)
            assert len(traces) == before + 1
        pairx.cdist(x, y, "minkowski", p=3.5)
        pairx.cdist(x, y, "minkowski", p=3, max_bytes="10kB")
    assert len(traces) == len(calls) + 2


# --- the budget -----------------------------------------------------------------------------------------------------------


def peak(tmp_path: Path, call: Callable[[], Any]) -> tuple[int, int]:
    """Peak of bytes allocated while a warm call runs, and the bytes of its results."""
    memray = pytest.importorskip("memray")
    jax.block_until_ready(call())
    gc.collect()
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
    with memray.Tracker(path, file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS):
        result = jax.block_until_ready(call())
    return memray.FileReader(path).metadata.peak_memory, sum(a.nbytes for a in jax.tree.leaves(result))


LAYOUTS: dict[str, Callable[..., Any]] = {
    "cdist": lambda a, b, *k: pairx.cdist(a, b, k[0], max_bytes=k[1]),
    "symmetric": lambda a, b, *k: pairx.cdist(a, None, k[0], max_bytes=k[1]),
    "pdist": lambda a, b, *k: pairx.pdist(a, k[0], max_bytes=k[1]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", ["200kB", "4MB"])
def test_the_forward_keeps_to_the_budget(tmp_path: Path, layout: str, budget: str):
    x, y = sets((1000, 64), (1000, 64), dtype=jnp.float32)
    most, result = peak(tmp_path, lambda: LAYOUTS[layout](x, y, "euclidean", budget))
    assert most - result <= parse_bytes(budget) + 2**20


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_backward_keeps_to_the_budget(layout: str):
    """As XLA plans it: the bytes that its threads need for themselves vary from run to run."""
    x, y = sets((1000, 64), (1000, 64), dtype=jnp.float32)
    for metric, budget in (("cityblock", "200kB"), ("euclidean", "4MB")):

        def back(cotangent: Any, a: Any, b: Any, metric: str = metric, budget: str = budget) -> Any:
            with pairx.options(engine="array"):  # of the compiled engine XLA knows nothing: see test_machine.py
                return jax.vjp(lambda a, b: LAYOUTS[layout](a, b, metric, budget), a, b)[1](cotangent)

        cotangent = jax.eval_shape(lambda a, b: LAYOUTS[layout](a, b, "cityblock", None), x, y)
        stats = jax.jit(back).lower(cotangent, x, y).compile().memory_analysis()
        assert stats.temp_size_in_bytes <= parse_bytes(budget) + 2**20


def test_half_precision_keeps_to_the_budget(tmp_path: Path):
    x, y = sets((500, 32), (500, 32), dtype=jnp.bfloat16)
    for budget in ("300kB", "32MB"):  # in place in bfloat16; carried in float32
        most, result = peak(tmp_path, lambda budget=budget: pairx.cdist(x, y, "cityblock", max_bytes=budget))
        assert most - result <= parse_bytes(budget) + 2**20


def test_half_precision_gradients_add_up_in_float32():
    x, y = sets((3, 4), (5000, 4), dtype=jnp.bfloat16)
    got = jax.jit(jax.grad(lambda a: pairx.cdist(a, y, "sqeuclidean", max_bytes="1MB").astype(jnp.float32).sum()))(x)
    want = jax.jit(jax.grad(lambda a: jnp.sum((a[:, None] - y.astype(jnp.float32)) ** 2)))(x.astype(jnp.float32))
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.02)


# --- dtypes and refusals --------------------------------------------------------------------------------------------------


def test_without_x64(recwarn: pytest.WarningsRecorder):
    jax.config.update("jax_enable_x64", False)
    x, y = sets((8, 3), (5, 3))
    assert pairx.cdist(x, y).dtype == jnp.float32
    assert pairx.cdist(jnp.arange(6).reshape(2, 3)).dtype == jnp.float32
    assert pairx.paired(x, y, pairs=(np.array([0, 7]), np.array([1, 2]))).dtype == jnp.float32
    assert pairx.paired(x, y, pairs=(jnp.zeros(2, jnp.uint8), jnp.ones(2, jnp.uint8))).shape == (2,)
    with pytest.raises(IndexError, match="rows"):
        pairx.paired(x, y, pairs=([2**32], [0]))
    for dtype in ("float64", np.float64, jnp.float64):
        with pytest.raises(TypeError, match="jax_enable_x64"):
            pairx.cdist(x, y, out_dtype=dtype)
    huge = jax.ShapeDtypeStruct((70_000, 2), jnp.float32)
    with pytest.raises((ValueError, MemoryError), match="jax_enable_x64"):
        jax.eval_shape(pairx.pdist, huge)
    assert not [w for w in recwarn if "truncated" in str(w.message)]


@pytest.mark.parametrize(
    ("dtype", "budget"), [("bfloat16", None), *((d, "20kB") for d in ("bfloat16", "float16", "int8", "uint8", "bool"))]
)
def test_narrow_dtypes(dtype: str, budget: str | None):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (40, 6))).astype(dtype)
    got = pairx.cdist(x, None, "cityblock", max_bytes=budget)
    assert got.dtype == (dtype if "float" in dtype else "float64")
    same(got.astype(float), scipy.cdist(x.astype(float), x.astype(float), "cityblock"))
    assert pairx.pdist(x, "cityblock", max_bytes=budget).shape == (780,)


def test_matmul_precision_of_the_user_is_neither_used_nor_changed():
    x, y = sets((40, 64), (30, 64), dtype=jnp.float32)
    with jax.default_matmul_precision("bfloat16"):
        same(pairx.cdist(x, y, "inner_product"), np.asarray(x, float) @ np.asarray(y, float).T, rtol=1e-3)
        text = str(jax.make_jaxpr(lambda a, b: pairx.cdist(a, b, "inner_product"))(x, y))
        assert jax.config.jax_default_matmul_precision == "bfloat16"
    assert "HIGHEST" in text


def test_relatives_are_refused_with_advice():
    from jax.experimental import sparse

    for value, advice in (
        (sparse.BCOO.fromdense(jnp.eye(3)), "todense"),
        (jax.random.split(jax.random.key(0), 3), "key_data"),
        (jax.ShapeDtypeStruct((3, 3), jnp.float32), "eval_shape"),
    ):
        with pytest.raises(TypeError, match=advice):
            pairx.cdist(value)
    with pytest.raises(TypeError, match=r"numpy.*jax|jax.*numpy"):
        pairx.cdist(jnp.eye(2), np.eye(2))


def test_domains_are_checked_where_values_can_be_seen():
    x = jnp.asarray([[2.0, 0.0], [0.1, 0.0]])
    with pytest.raises(ValueError, match="open unit ball"):
        pairx.cdist(x, None, "poincare")
    assert jnp.isnan(jax.jit(lambda a: pairx.cdist(a, None, "poincare"))(x)[0, 1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "cityblock", "haversine"])
def test_constants_inside_jit_count_as_traced(metric: str):
    """What is done to them becomes part of the graph: their values cannot be looked at, and need not be."""
    x = np.random.default_rng(0).random((7, 2))
    c = jnp.asarray(x)
    want = scipy.cdist(x, x, metric).sum() if metric != "haversine" else float(pairx.cdist(x, x, metric).sum())
    for transform in (jax.jit, lambda f: f, lambda f: jax.jit(jax.grad(f)), jax.grad):
        np.testing.assert_allclose(transform(lambda s: s * pairx.cdist(c, c, metric).sum())(1.0), want, rtol=1e-6)
    with pytest.raises(ValueError, match="a traced call cannot"):
        jax.jit(lambda s: s * pairx.cdist(c, c, metric, nan_policy="raise").sum())(1.0)
    assert jax.grad(lambda s: s * pairx.cdist(c, c, metric, nan_policy="raise").sum())(1.0) > 0


def test_a_symbolic_shape_is_exported():
    export = pytest.importorskip("jax.export")
    spec = jax.ShapeDtypeStruct(export.symbolic_shape("n, 4"), jnp.float32)
    x, y = sets((5, 4), (3, 4), dtype=jnp.float32)
    same(export.export(jax.jit(lambda a: pairx.cdist(a, y)))(spec).call(x), plain(x, y), rtol=1e-5)
