"""What the tables of the docs say about gradients at the edges is so, in every library that differentiates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from samples import ROWS, all_pairs, parameters, row_id, samples, width

from pairx.metrics import Metric

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))
try:
    import tables
finally:
    sys.path.remove(str(DOCS))

SMOOTH = [row for row in ROWS if row.differentiable]


def slopes(backend: Adapter, row: Metric, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    given: dict[str, Any] = parameters(row, x.shape[-1])[-1] if row.name in ("seuclidean", "mahalanobis") else {}
    own = {k: backend.asarray(v, "float64") if isinstance(v, np.ndarray) else v for k, v in given.items()}
    found = backend.grad(lambda a, b: backend.sum(all_pairs(row, a, b, **own)), x, y)
    assert found is not None
    return found


@pytest.mark.autodiff
@pytest.mark.parametrize("row", SMOOTH, ids=row_id)
def test_metrics(backend: Adapter, row: Metric):
    said = tables.metric_edges(row)
    x = samples(row.domain, (1, width(row, 4)), seed=3, zeros=0)
    zero = np.zeros_like(x)
    equal = [np.abs(g).max() for g in slopes(backend, row, x, x.copy())]
    assert np.isfinite(equal).all()
    if not (backend.name == "jax" and "(JAX: finite)" in said):
        assert ("0 at equal rows" in said) == (max(equal) < 1e-12), f"{said}; gradient {equal}"
    for pair in ((zero, x), (zero, zero.copy())):
        found = slopes(backend, row, *pair)
        assert all(np.isfinite(g).all() for g in found)
        if "0 at a zero row" in said:
            assert np.abs(found[0]).max() < 1e-12
    if "ties share equally" in said:
        (g, _) = slopes(backend, row, np.array([[1.0, -1.0, 0.5]]), np.zeros((1, 3)))
        np.testing.assert_allclose(g, [[0.5, -0.5, 0.0]], rtol=1e-12)


def test_metrics_without_gradient_say_so():
    for row in ROWS:
        assert ("none" in tables.metric_edges(row)) == (not row.differentiable), row.name


@pytest.mark.autodiff
@pytest.mark.brief_cases("supcon", "triplet", "nuclear")
@pytest.mark.parametrize("name", list(tables.LOSSES))
def test_losses(backend: Adapter, name: str):
    """With the edges that ``tests/losses`` has for the kind of input."""
    sys.path.insert(0, str(Path(__file__).parent / "losses"))
    try:
        from loss_cases import EDGES
    finally:
        sys.path.pop(0)
    row = tables.LOSSES[name]
    said = tables.loss_edges(row)
    for edge in ("equal rows", "zero vectors"):
        if edge not in EDGES.get(row.inputs, {}):
            continue
        case = EDGES[row.inputs][edge]()
        names = list(case.arrays)
        found = backend.grad(
            lambda *a, case=case, names=names: row.function(**dict(zip(names, a, strict=True)), **case.given), *case.arrays.values()
        ) if row.differentiable else []  # fmt: skip
        assert all(np.isfinite(g).all() for g in found or []), edge
        if said.startswith("0 at equal"):
            assert max(np.abs(g).max(initial=0) for g in found) < 1e-12, edge
