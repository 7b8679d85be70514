"""One benchmark for each case and implementation that is installed and has the metric."""

from __future__ import annotations

import gc
import warnings
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
        benchmark.extra_info.update(case=case.name, implementation=implementation, threads=THREADS)
        if case.m < 100:
            benchmark(call)
        else:
            benchmark.pedantic(call, rounds=9 if case.kind != "budget" else 2, warmup_rounds=1 if case.kind != "budget" else 0)
