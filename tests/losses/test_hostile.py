"""Losses in rough hands: odd arrays, wrong lengths, mixed libraries, NaN, tight budgets, many threads, an interrupt."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from loss_cases import Case, case, expected, variants
from loss_outcomes import bring, call

import pairx
from pairx.losses import LOSSES

NAMES = sorted(LOSSES)
LABELLED = [n for n in NAMES if LOSSES[n].inputs in ("labels", "proxies", "centers", "classes", "class indices")]
PAIRS = [n for n in NAMES if LOSSES[n].pairs]
pytestmark = pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.layouts
@pytest.mark.brief_cases
def test_layouts(backend: Adapter, name: str):
    """Strided, reversed, read-only, column by column: the same value, and the caller's arrays as they were."""
    given = case(name)
    want = backend.to_numpy(call(backend, name, given, {}, "float64"))
    rest = {k: bring(backend, v) for k, v in given.given.items()}
    for word, form in backend.layouts.items():
        arrays = {k: form(backend.asarray(v, "float64")) if v.ndim > 1 else backend.asarray(v, "float64") for k, v in given.arrays.items()}
        got = backend.to_numpy(LOSSES[name].function(**arrays, **rest))
        np.testing.assert_allclose(got, want, rtol=1e-14, err_msg=word)
        for k, v in arrays.items():
            np.testing.assert_array_equal(backend.to_numpy(backend.asarray(v) if word == "variable" else v), given.arrays[k])


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.brief_cases("-supcon", "-arcface")
def test_labels(backend: Adapter, name: str):
    """A column of labels is the labels; any other number of them is refused, never broadcast."""
    given = case(name)
    labels = np.asarray(given.given["labels"])
    rest = {k: v for k, v in given.given.items() if k != "labels"}
    want = backend.to_numpy(call(backend, name, given, {}, "float64"))
    if name != "sparse_cross_entropy":  # it takes labels of any number of axes, and says that none is dropped
        column = Case(given.arrays, {**rest, "labels": labels[:, None]})
        np.testing.assert_array_equal(backend.to_numpy(call(backend, name, column, {}, "float64")), want)
    for wrong in (labels[:-1], np.append(labels, 0), labels[:1], np.asarray(labels[0])):
        with pytest.raises(ValueError, match="labels"):
            call(backend, name, Case(given.arrays, {**rest, "labels": wrong}), {}, "float64")


@pytest.mark.parametrize("name", [n for n in NAMES if len(case(n).arrays) > 1])
@pytest.mark.backends("torch", "tensorflow", "jax")
@pytest.mark.brief_cases("-info_nce", "-l2")
def test_mixed_libraries(backend: Adapter, name: str):
    """The library's array beside NumPy's: an error that names both."""
    given = case(name)
    first, *others = given.arrays
    arrays = {first: backend.asarray(given.arrays[first]), **{k: given.arrays[k] for k in others}}
    with pytest.raises(TypeError, match=rf"(?s){first}.*numpy|numpy.*{first}"):
        LOSSES[name].function(**arrays, **given.given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.brief_cases("-supcon", "-l2", "-nuclear")
def test_nan_is_not_hidden(backend: Adapter, name: str):
    """NaN in, NaN out: a batch that has gone bad says so. (Hamming compares with a threshold, and NaN is not above it.)"""
    given = case(name)
    if name == "hamming":
        pytest.skip("NaN is not above a threshold")
    for k in given.arrays:
        arrays = {n: v.copy() for n, v in given.arrays.items()}
        arrays[k][(0,) * arrays[k].ndim] = np.nan
        got = float(backend.to_numpy(call(backend, name, Case(arrays, given.given), {}, "float64")))
        assert np.isnan(got), f"NaN in {k}: {got}"


@pytest.mark.parametrize("name, variant", [pytest.param(n, v, id=f"{n}-{i}") for n in NAMES for i, v in enumerate(variants(n))])
@pytest.mark.brief_cases("-info_nce-2", "-cross_entropy-1", "-linear_cross_entropy-0", "-generalized_lifted_structure-0")
def test_infinity_is_not_hidden(backend: Adapter, name: str, variant: dict[str, Any]):
    """An infinite value in: what the formula has, or NaN or inf; never a finite number that the formula does not have."""
    given = case(name)
    if name == "hamming":
        pytest.skip("it refuses what is no score")
    for k in given.arrays:
        for infinite in (np.inf, -np.inf):
            arrays = {n: v.copy() for n, v in given.arrays.items()}
            arrays[k][(0,) * arrays[k].ndim] = infinite
            spoilt = Case(arrays, given.given)
            got = float(backend.to_numpy(call(backend, name, spoilt, variant, "float64")))
            values, active, divisor = expected(name, spoilt, variant)
            want = values[active].sum() / divisor
            assert not np.isfinite(got) or abs(got - want) < 1e-9 * max(1.0, abs(want)), f"{infinite} in {k}: {got}, not {want}"


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.brief_cases("-supcon")
def test_tiny_budgets(backend: Adapter, name: str):
    """A budget below a row of candidates is an error that says so, or is kept; never a wrong number."""
    given = case(name)
    want = backend.to_numpy(call(backend, name, given, {}, "float64"))
    for budget in (1, 64, "1KiB"):
        try:
            got = backend.to_numpy(call(backend, name, given, {}, "float64", max_bytes=budget))
        except ValueError as error:
            assert "max_bytes" in str(error)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.brief_cases
@pytest.mark.parametrize("name", ["supcon", "contrastive", "triplet_batch_all", "info_nce", "nuclear", "sparse_cross_entropy"])
def test_threads(backend: Adapter, name: str):
    """Eight threads at once, each with its own inputs, in blocks of a few anchors: what each gets alone."""
    cases = [case(name, seed) for seed in range(8)]
    more = {"max_bytes": 4096} if LOSSES[name].pairs else {}
    ready = threading.Barrier(8)

    def once(given: Case) -> list[float]:
        ready.wait()
        return [float(backend.to_numpy(call(backend, name, given, {}, "float64", **more))) for _ in range(5)]

    alone = [float(backend.to_numpy(call(backend, name, given, {}, "float64", **more))) for given in cases]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(once, cases))
    assert together == [[v] * 5 for v in alone]


@pytest.mark.backends("numpy", "torch")
def test_an_interrupt_is_heard(backend: Adapter):
    """Ctrl-C ends a long loss, and the next call works."""
    x = backend.asarray(np.random.default_rng(0).normal(size=(6000, 32)), "float64")
    labels = np.arange(6000) // 4
    pairx.losses.supcon(x[:64], labels[:64])  # an import that is interrupted would stay half done
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            [pairx.losses.supcon(x, labels) for _ in range(200)]
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert np.isfinite(float(backend.to_numpy(pairx.losses.supcon(x[:64], labels[:64]))))
