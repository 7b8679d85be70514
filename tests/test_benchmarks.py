"""The benchmarks walk the project's tables: each case can be set up and runs."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from adapters import Adapter

from pairx.losses import LOSSES
from pairx.metrics import KERNELS, METRICS, SIMILARITIES

FOLDER = Path(__file__).parents[1] / "asv_bench"
sys.path.insert(0, str(FOLDER))

from benchmarks import distances, losses, norms, overhead, places  # noqa: E402

CLASSES = [
    distances.TimeCdist, distances.TimeCdistGradient, distances.TimeOperation, norms.TimePairwiseMatrixNorm, norms.TimeMatrixNorm,
    norms.TimeVectorNorm, losses.TimeLoss, losses.TimeLossGradient, overhead.TimeSmallCall,
]  # fmt: skip


SIZES = (distances.SIZES, norms.STACKS, norms.PAIRED, norms.VECTORS, losses.BATCHES, places.FLOATS)


def small(kind: Any) -> list[tuple[Any, ...]]:
    """The cases of a class after backend and device, of the smallest size."""
    params = [p[:1] if p in SIZES else p for p in kind.params[2:]]
    return list(product(*params))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.__name__)
def test_every_case_runs(backend: Adapter, kind: Any):
    if backend.name not in ("numpy", "torch"):
        pytest.skip("NumPy and torch stand for all: the benchmarks differ by how arrays are made")
    for case in small(kind):
        try:
            made = kind().make(backend.name, "cpu", *case)
        except NotImplementedError as error:
            assert backend.name == "numpy", error
            continue
        made()


def test_tables_are_walked():
    assert set(distances.DISTANCES) == set(METRICS)
    assert {f"gram {k}" for k in KERNELS} | {f"similarity {k}" for k in SIMILARITIES} < set(distances.OPERATIONS)
    assert set(losses.NAMES) == set(LOSSES)
    assert {row.inputs for row in LOSSES.values()} == set(losses.INPUTS)


def test_an_absent_place_is_skipped():
    with pytest.raises(NotImplementedError, match="numpy has no gpu"):
        distances.TimeCdist().make("numpy", "gpu", "cityblock", "float32", "200x200x32")
