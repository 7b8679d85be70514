"""One benchmark for each case and implementation that is installed and has the metric, or the loss."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from conftest import THREADS
from loss_peers import LOSS_CASES, LOSS_IMPLEMENTATIONS, LossCase
from peers import CASES, IMPLEMENTATIONS, Case

LONG = 5.0
"""Seconds from which one call is enough: such a peer is told from ours without a minimum."""


def made(make: Callable[..., Callable[[], Any] | None], case: Any) -> Callable[[], Any]:
    """The call of an implementation, or a skip that says why there is none."""
    try:
        call = make(case, *case.data())
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    if call is None:
        pytest.skip(f"there is no {case.name}")
    return call


def measure(benchmark: Any, call: Callable[[], Any], case: str, implementation: str, *, small: bool = False, **info: Any) -> None:
    """Time a call that is compiled and warm; how often is settled by its own time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()  # compiles, warms up
        gc.collect()
        start = perf_counter()
        call()
        took = perf_counter() - start
        benchmark.extra_info.update(case=case, implementation=implementation, threads=THREADS, **info)
        if small:
            benchmark(call)
        else:
            benchmark.pedantic(call, rounds=1 if took > LONG else max(3, min(15, int(2 / took))))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_peer(benchmark: Any, case: Case, implementation: str) -> None:
    measure(benchmark, made(IMPLEMENTATIONS[implementation], case), case.name, implementation, small=case.m < 100)


@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("implementation", LOSS_IMPLEMENTATIONS)
def test_loss(benchmark: Any, case: LossCase, implementation: str) -> None:
    if implementation != "pairx" and implementation not in case.peers:
        pytest.skip(f"{implementation} does not take part")
    from pairx.measure import cpu_peak_bytes

    call = made(LOSS_IMPLEMENTATIONS[implementation], case)
    gradients = sum(g.nbytes for g in call())
    peak = cpu_peak_bytes(call)
    measure(benchmark, call, case.name, implementation, peak_bytes=None if peak is None else peak - gradients)
