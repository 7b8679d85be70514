"""What is Dask's own: nothing is computed before it is asked for, chunks stay, and options reach the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance as scipy

import pairx
from pairx.plan import current

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

M, N, D = 50, 31, 6
draw = np.random.default_rng(0)
x, y = draw.normal(size=(M, D)), draw.normal(size=(N, D))
X, Y = da.from_array(x, chunks=(20, 4)), da.from_array(y, chunks=(10, 3))
INVERSE = np.linalg.inv(np.cov(x.T))


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was computed before it was asked for")


def lazy() -> Any:
    """A context in which nothing may be computed."""
    return dask.config.set(scheduler=refuse)


# What is called -> the same with NumPy
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "euclidean": lambda a, b: pairx.cdist(a, b),
    "cityblock, weighted": lambda a, b: pairx.cdist(a, b, "cityblock", w=[1, 2, 0, 4, 5, 6]),
    "kl_divergence of one set": lambda a, b: pairx.cdist(abs(a), None, "kl_divergence", normalize=True),
    "seuclidean": lambda a, b: pairx.cdist(a, b, "seuclidean"),
    "mahalanobis": lambda a, b: pairx.cdist(a, b, "mahalanobis"),
    "mahalanobis by VI": lambda a, b: pairx.cdist(a, b, "mahalanobis", VI=INVERSE),
    "mahalanobis by cov": lambda a, b: pairx.cdist(a, b, "mahalanobis", cov=np.linalg.inv(INVERSE)),
    "jaccard of booleans": lambda a, b: pairx.cdist(a > 0, b > 0, "jaccard"),
    "symmetric": lambda a, b: pairx.cdist(a),
    "symmetric, batched": lambda a, b: pairx.cdist(a.reshape(2, 25, D), None, "cityblock"),
    "pdist": lambda a, b: pairx.pdist(a),
    "pdist, batched": lambda a, b: pairx.pdist(a.reshape(2, 25, D), "chebyshev"),
    "pdist, default V": lambda a, b: pairx.pdist(a, "seuclidean"),
    "paired": lambda a, b: pairx.paired(a[:N], b, "canberra"),
    "two vectors": lambda a, b: pairx.paired(a[0], b[0]),
    "chosen": lambda a, b: pairx.paired(a, b, pairs=([0, 49, 3, 3], [1, 30, 0, 0])),
    "chosen, batched": lambda a, b: pairx.paired(a.reshape(2, 25, D), b, pairs=([0, 24], [1, 30])),
    "gram": lambda a, b: pairx.gram(a, b),
    "broadcast": lambda a, b: pairx.cdist(a.reshape(2, 1, 25, D), b[None, :10]),
    "out_dtype": lambda a, b: pairx.cdist(a, b, out_dtype="float32"),
    "integers": lambda a, b: pairx.cdist((a * 9).astype(np.int8), (b * 9).astype(np.int8), "cityblock"),
    "complex": lambda a, b: pairx.cdist(a + 2j * a[::-1], None, "inner_product"),
    "matrix norms": lambda a, b: pairx.pairwise_matrix_norm(a.reshape(M, 2, 3), b.reshape(N, 2, 3), ord="nuc"),
    "matrix norms of one set": lambda a, b: pairx.pairwise_matrix_norm(a.reshape(M, 2, 3)),
    "schatten": lambda a, b: pairx.pairwise_matrix_norm(a.reshape(M, 2, 3), ord="schatten", p=3),
}


@pytest.mark.parametrize("name", CALLS)
def test_lazy_and_equal_to_numpy(name: str):
    want = CALLS[name](x, y)
    with lazy():
        got = CALLS[name](X, Y)
    assert isinstance(got, da.Array)
    assert (got.shape, got.dtype) == (np.shape(want), want.dtype)
    assert type(got._meta) is np.ndarray
    assert got._meta.dtype == want.dtype
    found = got.compute(scheduler="threads")
    assert found.dtype == want.dtype
    np.testing.assert_allclose(found, want, rtol=1e-6 if name == "out_dtype" else 1e-9, atol=1e-12)
    for k, sizes in enumerate(got.chunks):  # each block is what the chunks say
        assert got.blocks[(slice(None),) * k + (0,)].compute(scheduler="sync").shape[k] == sizes[0]


def test_against_scipy():
    for metric in ("euclidean", "cosine", "chebyshev"):
        np.testing.assert_allclose(pairx.cdist(X, Y, metric).compute(), scipy.cdist(x, y, metric), rtol=1e-10)
        np.testing.assert_allclose(pairx.pdist(X, metric).compute(), scipy.pdist(x, metric), rtol=1e-10)


def test_chunks_stay():
    assert pairx.cdist(X, Y).chunks == ((20, 20, 10), (10, 10, 10, 1))
    assert pairx.cdist(X).chunks == ((20, 20, 10), (20, 20, 10))
    assert pairx.cdist(X, None, "kl_divergence").chunks == ((20, 20, 10), (20, 20, 10))
    assert pairx.paired(X[:N], Y.rechunk((20, 2))).chunks == ((20, 11),)
    assert pairx.pdist(X).chunks == ((790, 390, 45),)
    assert pairx.cdist(X.reshape(2, 25, D), Y).chunks[-1] == (10, 10, 10, 1)


def test_one_set_is_exactly_symmetric():
    again = da.concatenate([X, X[:7], X[:1] * np.nan])
    found = pairx.cdist(again).compute()
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), [0.0] * (M + 7) + [np.nan])


def test_a_strip_of_a_condensed_result_is_as_small_as_a_chunk_may_be():
    with dask.config.set({"array.chunk-size": "1kB"}):
        got = pairx.pdist(X, "cityblock")
    assert max(got.chunks[0]) * 8 <= 1000
    np.testing.assert_allclose(got.compute(), scipy.pdist(x, "cityblock"), rtol=1e-12)


def test_options_are_read_at_the_call(monkeypatch: pytest.MonkeyPatch):
    import pairx_backends.dask as backend

    plans = []
    assemble = backend.assemble

    def spy(*a: Any, **k: Any) -> Any:
        task = assemble(*a, **k)
        plans.append((task.plan, current()))
        return task

    monkeypatch.setattr(backend, "assemble", spy)
    with pairx.options(max_bytes="20kB", engine="array"):
        got = pairx.cdist(X, Y)
    got.compute(scheduler="threads")
    assert len(plans) == 12
    for plan, options in plans:
        assert (plan.max_bytes, plan.engine, plan.threads, options.threads) == (20_000, "array", 1, 1)
        assert plan.scratch_bytes <= 20_000


def test_equal_calls_have_equal_names():
    def names(**k: Any) -> list[str]:
        return [f(X, **k).name for f in (pairx.cdist, pairx.pdist)] + [pairx.cdist(X, Y, **k).name]

    assert names() == names()
    for other in ({"metric": "cityblock"}, {"max_bytes": 10**6}, {"w": np.arange(6.0)}, {"out_dtype": "float32"}):
        assert not set(names()) & set(names(**other))
    assert pairx.cdist(X, Y, "minkowski", p=3).name != pairx.cdist(X, Y, "minkowski", p=4).name


def test_a_result_larger_than_memory():
    got = pairx.cdist(da.zeros((10**7, 3), chunks=(10**5, 3)), da.zeros((10**4, 3), chunks=(100, 3)))
    assert got.nbytes == 8 * 10**11
    assert got[:2, -2:].compute().tolist() == [[0, 0], [0, 0]]


def test_what_depends_on_values_is_refused_when_they_come():
    with lazy():
        results = {
            "booleans": pairx.cdist(X, Y, "dice"),
            "unit ball": pairx.cdist(X, None, "poincare"),
            "negative": pairx.cdist(X, Y, w=-np.ones(D)),
            "50 rows": pairx.paired(X, Y, pairs=([0, 50], [0, 0])),
        }
    for message, result in results.items():
        with pytest.raises((ValueError, IndexError), match=message):
            result.compute(scheduler="sync")
    with pytest.raises(np.linalg.LinAlgError):
        pairx.cdist(X, Y, "mahalanobis", cov=-np.eye(D)).compute(scheduler="sync")


def test_chunks_of_unknown_sizes():
    some, there = X[X[:, 0] > 0], x[x[:, 0] > 0]
    with lazy():
        got = pairx.cdist(some, Y), pairx.cdist(some), pairx.cdist(some, Y, "seuclidean")
    np.testing.assert_allclose(got[0].compute(), pairx.cdist(there, y))
    np.testing.assert_allclose(got[1].compute(), pairx.cdist(there), atol=1e-12)
    np.testing.assert_allclose(got[2].compute(), pairx.cdist(there, y, "seuclidean"))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        pairx.pdist(some)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        pairx.cdist(X[:, x[0] > da.zeros(D)])


def test_relatives_are_refused_with_advice():
    with pytest.raises(TypeError, match=r"numpy.*dask|dask.*numpy"):
        pairx.cdist(X, y)
    with pytest.raises(TypeError, match=r"dask\.array"):
        pairx.cdist(dask.delayed(x))
    masked = da.ma.masked_array(X, X > 1)
    with pytest.raises(TypeError, match=r"chunk of x.*Masked"):
        pairx.cdist(masked)
    with pytest.raises(TypeError, match="out"):
        pairx.cdist(X, Y, out=da.zeros((M, N)))
    pytest.importorskip("pandas")
    frame = pytest.importorskip("dask.dataframe")
    import pandas as pd

    with pytest.raises(TypeError, match="to_dask_array"):
        pairx.cdist(frame.from_pandas(pd.DataFrame(x), npartitions=2))


def test_the_graph_survives_pickling():
    cloudpickle = pytest.importorskip("cloudpickle")
    for call in (lambda: pairx.cdist(X, Y), lambda: pairx.cdist(X > 0, None, "dice"), lambda: pairx.pdist(X, "cosine")):
        got = call()
        np.testing.assert_array_equal(cloudpickle.loads(cloudpickle.dumps(got)).compute(), got.compute())
