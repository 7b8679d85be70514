"""One benchmark for each case and implementation that is installed and has the metric."""

from __future__ import annotations

import gc
import warnings
from time import perf_counter
from typing import Any

import pytest
from conftest import THREADS
from peers import CASES, IMPLEMENTATIONS, Case


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_peer(benchmark: Any, case: Case, implementation: str) -> None:
    x, y = case.data()
    try:
        call = IMPLEMENTATIONS[implementation](case, x, y)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    if call is None:
        pytest.skip(f"{implementation} has no {case.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()  # compiles, warms up
        gc.collect()
        start = perf_counter()
        call()
        # A slow peer's minimum needs no more than three rounds to be told from ours.
        rounds = max(3, min(15, int(2 / (perf_counter() - start))))
        benchmark.extra_info.update(case=case.name, implementation=implementation, threads=THREADS)
        if case.m < 100:
            benchmark(call)
        else:
            benchmark.pedantic(call, rounds=rounds if case.kind != "budget" else 2)
