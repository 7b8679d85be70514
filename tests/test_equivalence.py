"""All backends in one process: they agree with each other, engine by engine, and do not disturb each other."""

from __future__ import annotations

import numpy as np
import pytest
from adapters import Adapter
from samples import samples

import pairx
from pairx.metrics import KERNELS, METRICS, SIMILARITIES, Metric
from pairx.plan import ENGINES

ROWS = [*METRICS.values(), *KERNELS.values(), *SIMILARITIES.values()]
FUNCTIONS = {"distance": pairx.cdist, "kernel": pairx.gram, "similarity": pairx.similarity}
EPS = float(np.finfo(np.float32).eps)


def sides(row: Metric) -> tuple[np.ndarray, np.ndarray]:
    d = 2 if row.domain == "latlon" else 24
    return samples(row.domain, (23, d), "float32", 5), samples(row.domain, (17, d), "float32", 6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.name}")
def test_float32_on_every_library_agrees_with_float64_on_numpy(backend: Adapter, row: Metric, engine: str):
    if engine not in backend.engines(row):
        pytest.skip(f"no {engine} engine")
    call = FUNCTIONS[row.kind]
    x, y = sides(row)
    given = {"p": 2.5} if row.name == "minkowski" else {}
    want = np.asarray(call(x.astype("float64"), y.astype("float64"), row.name, engine="array", **given))
    got = backend.to_numpy(call(backend.asarray(x, "float32"), backend.asarray(y, "float32"), row.name, engine=engine, **given))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    # The number of summed features, in roundings of the largest value: the sums are not ordered alike.
    allowed = (64 if row.name != "mahalanobis" else 4096) * EPS * np.max(np.abs(want[finite]), initial=EPS)
    assert np.max(np.abs(got[finite] - want[finite]), initial=0.0) <= allowed
