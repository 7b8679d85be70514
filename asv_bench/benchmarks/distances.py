"""Distances, kernels and similarities between rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import pairx
from pairx.metrics import KERNELS, METRICS, SIMILARITIES

from .places import BACKENDS, DEVICES, FLOATS, Bench, Call, Peak, Time, arrays, gradient, waited

DISTANCES = tuple(sorted(METRICS))
SMOOTH = tuple(m for m in DISTANCES if METRICS[m].differentiable)
SIZES = ("200x200x32", "1000x1000x64", "4000x4000x3", "500x500x2048")
SELVES = ("1000x64",)


@cache
def rows(metric: str, dtype: str, size: str) -> tuple[np.ndarray, ...]:
    """Both sides, in what the metric takes: from a seed of their own, so that every commit measures the same."""
    m, n, d = (int(v) for v in size.split("x"))
    rng, domain = np.random.default_rng(0), METRICS[metric].domain
    if METRICS[metric].name == "haversine":
        d = 2
    found = []
    for count in (m, n):
        x = rng.random((count, d)) + 0.01
        if domain == "boolean":
            found.append(x > 0.5)
            continue
        if domain == "ball":
            x = 0.9 * x / np.linalg.norm(x, axis=1, keepdims=True) * rng.random((count, 1))
        found.append(x.astype(dtype))
    return tuple(found)


class Cdist(Bench):
    """One call of ``cdist``; callables of a metric that need parameters take their defaults."""

    param_names = ("backend", "device", "metric", "dtype", "size")

    def make(self, backend: str, device: str, metric: str, dtype: str, size: str) -> Call:
        x, y = arrays(backend, device, *rows(metric, dtype, size))
        return waited(backend, device, lambda: pairx.cdist(x, y, metric))


class TimeCdist(Cdist, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, DISTANCES, FLOATS, SIZES)


class PeakCPUCdist(Cdist, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), DISTANCES, ("float32",), ("1000x1000x64",))


class PeakGPUCdist(Cdist, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), DISTANCES, ("float32",), ("1000x1000x64",))


class CdistGradient(Bench):
    """Forward and backward, both sides."""

    param_names = ("backend", "device", "metric", "dtype", "size")

    def make(self, backend: str, device: str, metric: str, dtype: str, size: str) -> Call:
        leaves = arrays(backend, device, *rows(metric, dtype, size))
        return waited(backend, device, gradient(backend, lambda x, y: pairx.cdist(x, y, metric), leaves))


class TimeCdistGradient(CdistGradient, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, SMOOTH, FLOATS, ("1000x1000x64",))


class PeakCPUCdistGradient(CdistGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), SMOOTH, ("float32",), ("1000x1000x64",))


class PeakGPUCdistGradient(CdistGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), SMOOTH, ("float32",), ("1000x1000x64",))


OPERATIONS: dict[str, Any] = {
    "pdist": lambda x, y: pairx.pdist(x, "cityblock"),
    "one set": lambda x, y: pairx.cdist(x, None, "cityblock"),
    "paired": lambda x, y: pairx.paired(x, y, "euclidean"),
    "squareform": lambda x, y: pairx.squareform(pairx.pdist(x, "sqeuclidean")),
    "batch_dot": lambda x, y: pairx.batch_dot(x, y),
    **{f"gram {k}": (lambda x, y, k=k: pairx.gram(x, y, k)) for k in sorted(KERNELS)},
    **{f"similarity {k}": (lambda x, y, k=k: pairx.similarity(x, y, k)) for k in sorted(SIMILARITIES)},
}


class Operation(Bench):
    """What there is beside ``cdist``."""

    param_names = ("backend", "device", "operation", "dtype")

    def make(self, backend: str, device: str, operation: str, dtype: str) -> Call:
        x, y = arrays(backend, device, *rows("cityblock", dtype, "1000x1000x64"))
        return waited(backend, device, lambda: OPERATIONS[operation](x, y))


class TimeOperation(Operation, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, tuple(OPERATIONS), FLOATS)


class PeakCPUOperation(Operation, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), tuple(OPERATIONS), ("float32",))


class PeakGPUOperation(Operation, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), tuple(OPERATIONS), ("float32",))
