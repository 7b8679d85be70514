"""The plan states the bytes, and the real peak of allocations says that it told the truth: forward and backward."""

from __future__ import annotations

import os
from importlib import import_module

import numpy as np
import pytest
from adapters import Adapter
from reference import REFERENCE  # noqa: F401  (a metric without a reference is not tested anywhere)
from samples import samples

import pairx
from pairx.metrics import METRICS

pytest.importorskip("memray", reason="memray measures the peak")

OVERHEAD = 1 << 20
"""What a budget may be exceeded by: one-off objects of the library."""
QUEUE = 1024 * 6 * 1024
"""What a thread of XLA may hold beside: 1024 tasks that it has not picked up, of 2.5 to 5 kB (seen: 3 MB on two threads, none on one)."""
BUDGET = 1 << 20
EAGER = ("numpy", "torch", "tensorflow", "jax")


def peak(backend: Adapter, call) -> int:
    if backend.name not in EAGER:
        pytest.skip(f"{backend.name}: no allocator to watch on the CPU" if backend.name != "dask" else "dask: lazy")
    found = import_module(f"pairx_backends.{backend.name}.measure").peak_bytes(call)
    assert found is not None
    threads = int(os.environ.get("NPROC", os.cpu_count() or 1))
    return found - (QUEUE * threads if backend.name == "jax" and threads > 1 else 0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_forward(backend: Adapter, name: str):
    row = METRICS[name]
    given = {"p": 2.5} if name == "minkowski" else {}
    d = 2 if row.domain == "latlon" else 48
    x, y = (backend.asarray(samples(row.domain, (n, d), "float32", 1), "float32") for n in (500, 400))
    plan = pairx.explain(pairx.cdist, x, y, metric=name, max_bytes=BUDGET, **given)
    assert plan.scratch_bytes <= BUDGET
    assert plan.result_bytes == 500 * 400 * 4
    scratch = peak(backend, lambda: pairx.cdist(x, y, name, max_bytes=BUDGET, **given)) - plan.result_bytes
    assert scratch <= plan.scratch_bytes + OVERHEAD, f"{scratch} bytes of scratch, {plan.scratch_bytes} planned"


@pytest.mark.parametrize("engine", ["array", "native"])
@pytest.mark.parametrize("name", ["jaccard", "russellrao", "yule"])
def test_weighted_counts(backend: Adapter, name: str, engine: str):
    """Several terms at once; a budget that is large beside what is granted above it."""
    x, y = (backend.asarray(samples("boolean", (n, 48), "float32", 1), "float32") for n in (700, 600))
    w = backend.asarray(np.linspace(0.5, 2, 48), "float32")
    plan = pairx.explain(pairx.cdist, x, y, metric=name, max_bytes="8MiB", engine=engine, w=w)
    scratch = peak(backend, lambda: pairx.cdist(x, y, name, max_bytes="8MiB", engine=engine, w=w)) - plan.result_bytes
    assert scratch <= plan.scratch_bytes + OVERHEAD, f"{scratch} bytes of scratch, {plan.scratch_bytes} planned"


@pytest.mark.parametrize("name", ["cityblock", "euclidean", "cosine", "canberra"])
@pytest.mark.parametrize("call", ["one set", "pdist", "paired", "pairs", "batches"])
def test_every_layout(backend: Adapter, call: str, name: str):
    x = backend.asarray(samples("real", (500, 48), "float32", 1), "float32")
    if call == "one set":
        args, function, kwargs = (x,), pairx.cdist, {}
    elif call == "pdist":
        args, function, kwargs = (x,), pairx.pdist, {}
    elif call == "paired":
        big = backend.asarray(samples("real", (30000, 48), "float32", 1), "float32")
        args, function, kwargs = (big, big), pairx.paired, {}
    elif call == "pairs":
        i = np.arange(60000) % 500
        pairs = (backend.asarray(i, "int64"), backend.asarray((7 * i + 3) % 500, "int64"))
        args, function, kwargs = (x,), pairx.paired, {"pairs": pairs}
    else:
        many = backend.asarray(samples("real", (300, 1, 30, 24), "float32", 1), "float32")
        args, function, kwargs = (many, backend.asarray(samples("real", (2, 20, 24), "float32", 2), "float32")), pairx.cdist, {}
    plan = pairx.explain(function, *args, metric=name, max_bytes=BUDGET, **kwargs)
    scratch = peak(backend, lambda: function(*args, metric=name, max_bytes=BUDGET, **kwargs)) - plan.result_bytes
    assert plan.scratch_bytes <= BUDGET
    assert scratch <= plan.scratch_bytes + OVERHEAD, f"{scratch} bytes of scratch, {plan.scratch_bytes} planned"


@pytest.mark.parametrize("name", ["cityblock", "euclidean", "cosine", "canberra", "minkowski", "jensenshannon", "mahalanobis", "angular"])
def test_backward(backend: Adapter, name: str):
    """Above inputs, result, the cotangent and the two gradients."""
    if not backend.autodiff:
        pytest.skip(f"{backend.name} has no gradients")
    row = METRICS[name]
    given = {"p": 2.5} if name == "minkowski" else {"VI": np.eye(48).tolist()} if name == "mahalanobis" else {}
    x, y = (samples(row.domain, (n, 48), "float32", 1) for n in (500, 400))
    call = lambda a, b: backend.sum(pairx.cdist(a, b, name, max_bytes=BUDGET, **given))  # noqa: E731
    held = 4 * (2 * 500 * 400 + 2 * 48 * 900)  # result and cotangent; inputs as leaves and their gradients
    scratch = peak(backend, lambda: backend.grad(call, x, y, dtype="float32")) - held
    assert scratch <= BUDGET + OVERHEAD, f"{scratch} bytes of scratch for a budget of {BUDGET}"


def test_spoilt_entries_keep_to_the_budget(backend: Adapter):
    """Two far clusters: half of all entries of the matrix product are computed again."""
    data = samples("real", (500, 48), "float32", 1) + np.where(np.arange(500) % 2, 1000, -1000)[:, None].astype("float32")
    x, y = backend.asarray(data, "float32"), backend.asarray(data[:400], "float32")
    plan = pairx.explain(pairx.cdist, x, y, max_bytes=BUDGET)
    scratch = peak(backend, lambda: pairx.cdist(x, y, max_bytes=BUDGET)) - plan.result_bytes
    assert scratch <= plan.scratch_bytes + OVERHEAD, f"{scratch} bytes of scratch, {plan.scratch_bytes} planned"
