"""Norms of vectors and matrices, and of all differences of matrices."""

from __future__ import annotations

from functools import cache

import numpy as np

import pairx

from .places import BACKENDS, DEVICES, Bench, Call, Peak, Time, arrays, waited

ORDS = ("fro", "nuc", "1", "-1", "2", "-2", "inf", "-inf")
VECTOR_ORDS = ("0", "1", "2", "2.5", "inf", "-inf")


def order(name: str) -> str | float:
    """Parameters of asv are text."""
    return name if name in ("fro", "nuc") else float(name)


@cache
def matrices(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size)).astype(np.float32)


class PairwiseMatrixNorm(Bench):
    """Every matrix of 100 with every other, 30 x 30."""

    param_names = ("backend", "device", "ord")

    def make(self, backend: str, device: str, ord: str) -> Call:
        (x,) = arrays(backend, device, matrices(100, 30))
        return waited(backend, device, lambda: pairx.pairwise_matrix_norm(x, ord=order(ord), max_bytes="16MB"))


class TimePairwiseMatrixNorm(PairwiseMatrixNorm, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, ORDS)


class PeakCPUPairwiseMatrixNorm(PairwiseMatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), ORDS)


class PeakGPUPairwiseMatrixNorm(PairwiseMatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), ORDS)


class TimeMatrixNorm(Time):
    """1000 matrices, 30 x 30."""

    params = (BACKENDS, DEVICES, ORDS)
    param_names = ("backend", "device", "ord")

    def make(self, backend: str, device: str, ord: str) -> Call:
        (x,) = arrays(backend, device, matrices(1000, 30))
        return waited(backend, device, lambda: pairx.matrix_norm(x, ord=order(ord)))


class TimeVectorNorm(Time):
    """30000 vectors of 30."""

    params = (BACKENDS, DEVICES, VECTOR_ORDS)
    param_names = ("backend", "device", "ord")

    def make(self, backend: str, device: str, ord: str) -> Call:
        (x,) = arrays(backend, device, matrices(1000, 30))
        return waited(backend, device, lambda: pairx.vector_norm(x, axis=-1, ord=float(ord)))
