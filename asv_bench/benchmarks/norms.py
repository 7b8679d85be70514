"""Norms of vectors and matrices, and of all differences of matrices."""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import Any

import numpy as np

import pairx

from .places import BACKENDS, DEVICES, FLOATS, Bench, Call, Peak, Time, arrays, waited

ORDS = ("fro", "nuc", "1", "-1", "2", "-2", "inf", "-inf")
VECTOR_ORDS = ("0", "1", "2", "2.5", "inf", "-inf")
STACKS = ("1000x30x30", "10000x3x3", "4x256x256")
PAIRED = ("100x30x30", "300x3x3")
VECTORS = ("30000x30", "300x3000")


def order(name: str) -> str | float:
    """Parameters of asv are text."""
    return name if name in ("fro", "nuc") else float(name)


@cache
def normal(dtype: str, size: str) -> np.ndarray:
    return np.random.default_rng(0).normal(size=[int(n) for n in size.split("x")]).astype(dtype)


class Norm(Bench):
    """One call of a norm."""

    param_names = ("backend", "device", "ord", "dtype", "size")

    def make(self, backend: str, device: str, ord: str, dtype: str, size: str) -> Call:
        (x,) = arrays(backend, device, normal(dtype, size))
        return waited(backend, device, lambda: self.norm(x, order(ord)))

    @abstractmethod
    def norm(self, x: Any, ord: Any) -> Any:
        """Of all rows or matrices."""


class PairwiseMatrixNorm(Norm):
    """Every matrix with every other."""

    def norm(self, x: Any, ord: Any) -> Any:
        return pairx.pairwise_matrix_norm(x, ord=ord, max_bytes="16MB")


class TimePairwiseMatrixNorm(PairwiseMatrixNorm, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, ORDS, FLOATS, PAIRED)


class PeakCPUPairwiseMatrixNorm(PairwiseMatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), ORDS, ("float32",), PAIRED[:1])


class PeakGPUPairwiseMatrixNorm(PairwiseMatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), ORDS, ("float32",), PAIRED[:1])


class MatrixNorm(Norm):
    """Each matrix of a stack."""

    def norm(self, x: Any, ord: Any) -> Any:
        return pairx.matrix_norm(x, ord=ord)


class TimeMatrixNorm(MatrixNorm, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, ORDS, FLOATS, STACKS)


class PeakCPUMatrixNorm(MatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), ORDS, ("float32",), STACKS[:1])


class PeakGPUMatrixNorm(MatrixNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), ORDS, ("float32",), STACKS[:1])


class VectorNorm(Norm):
    """Each row."""

    def norm(self, x: Any, ord: Any) -> Any:
        return pairx.vector_norm(x, axis=-1, ord=ord)


class TimeVectorNorm(VectorNorm, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, VECTOR_ORDS, FLOATS, VECTORS)


class PeakCPUVectorNorm(VectorNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), VECTOR_ORDS, ("float32",), VECTORS[:1])


class PeakGPUVectorNorm(VectorNorm, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), VECTOR_ORDS, ("float32",), VECTORS[:1])
