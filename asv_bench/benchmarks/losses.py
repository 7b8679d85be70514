"""Every loss, forward alone and with its gradient; the inputs of a loss follow from the word in its row of the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pairx.losses import LOSSES

from .places import BACKENDS, DEVICES, FLOATS, Bench, Call, Peak, Time, arrays, gradient, waited

D, CLASSES = 64, 128
BATCHES = ("512", "2048")
NAMES = tuple(sorted(LOSSES))
SMOOTH = tuple(n for n in NAMES if LOSSES[n].differentiable)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _units(*shape: int) -> np.ndarray:
    x = _rng().normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _shares(*shape: int) -> np.ndarray:
    x = _rng().random(shape) + 0.01
    return (x / x.sum(-1, keepdims=True)).astype(np.float32)


def _labels(b: int) -> np.ndarray:
    return np.arange(b) % CLASSES


NOISE = {"x": (), "noise": (16,), "x_log_noise": (), "noise_log_noise": (16,)}


INPUTS: dict[str, Callable[[int], tuple[dict[str, np.ndarray], dict[str, Any]]]] = {
    "labels": lambda b: ({"x": _units(b, D)}, {"labels": _labels(b)}),
    "views": lambda b: ({"x": _units(b, D), "y": _units(b, D)[::-1].copy()}, {}),
    "positives": lambda b: ({"x": _units(b, D)}, {"positives": _labels(b)[:, None] == _labels(b)}),
    "noise": lambda b: ({k: _rng().normal(size=(b, *s)).astype(np.float32) for k, s in NOISE.items()}, {}),
    "classes": lambda b: ({"features": _units(b, D), "weight": _units(20 * CLASSES, D)}, {"labels": _labels(b)}),
    "proxies": lambda b: ({"x": _units(b, D), "proxies": _units(CLASSES, D)}, {"labels": _labels(b)}),
    "centers": lambda b: ({"x": _units(b, D), "centers": _units(CLASSES, 3, D)}, {"labels": _labels(b)}),
    "only centers": lambda b: ({"centers": _units(b // 4, 3, D)}, {}),
    "rows and target": lambda b: ({"x": _units(b, D), "y": _units(b, D)[::-1].copy()}, {"target": np.where(_labels(b) % 2, 1, -1)}),
    "grid and mask": lambda b: ({"x": _units(b // 256, 8, 8, 2, D)}, {"mask": _rng().integers(2, size=(b // 256, 8, 8, 2, 1))}),
    "triplet rows": lambda b: ({"anchor": _units(b, D), "positive": _units(b, D)[::-1].copy(), "negative": _units(D, b).T.copy()}, {}),
    "two views of a batch": lambda b: ({"x": _units(b, D), "y": _units(b, D)[::-1].copy()}, {}),
    "a batch": lambda b: ({"x": _units(b, D)}, {}),
    "two": lambda b: ({"predictions": _units(b, 4 * D), "targets": _units(b, 4 * D)[::-1].copy()}, {}),
    "matrices": lambda b: ({"predictions": _units(b, 16, 16), "targets": _units(b, 16, 16)[::-1].copy()}, {}),
    "distributions": lambda b: ({"predictions": _shares(b, 4 * D), "targets": _shares(b, 4 * D)[::-1].copy()}, {}),
    "class probabilities": lambda b: ({"predictions": _shares(b, 4 * D), "targets": _shares(b, 4 * D)[::-1].copy()}, {}),
    "class indices": lambda b: ({"predictions": _shares(b, CLASSES)}, {"labels": _labels(b)}),
    "binary": lambda b: ({"predictions": _shares(b, 4 * D), "targets": (_units(b, 4 * D) > 0).astype(np.float32)}, {}),
}
"""The words of the table -> for so many rows: the arrays that have gradients, and the other arguments. A test says when one is missing."""


@cache
def given(loss: str, dtype: str, batch: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values, rest = INPUTS[LOSSES[loss].inputs](int(batch))
    return {k: v.astype(dtype) for k, v in values.items()}, rest


class Loss(Bench):
    """One call of a loss as it comes."""

    param_names = ("backend", "device", "loss", "dtype", "batch")

    def make(self, backend: str, device: str, loss: str, dtype: str, batch: str) -> Call:
        if backend == "dask":
            raise NotImplementedError("losses need arrays in memory")
        values, rest = given(loss, dtype, batch)
        leaves = arrays(backend, device, *values.values())
        others = dict(zip(rest, arrays(backend, device, *rest.values()), strict=True))

        def function(*a: Any) -> Any:
            return LOSSES[loss].function(**dict(zip(values, a, strict=True)), **others)

        return waited(backend, device, self.of(backend, function, leaves))

    def of(self, backend: str, function: Callable[..., Any], leaves: tuple[Any, ...]) -> Call:
        """The value alone."""
        return lambda: function(*leaves)


class LossGradient(Loss):
    """Forward and backward."""

    def of(self, backend: str, function: Callable[..., Any], leaves: tuple[Any, ...]) -> Call:
        return gradient(backend, function, leaves)


class TimeLoss(Loss, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, NAMES, FLOATS, BATCHES)


class TimeLossGradient(LossGradient, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, SMOOTH, FLOATS, BATCHES)


class PeakCPULoss(Loss, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), NAMES, ("float32",), BATCHES[:1])


class PeakGPULoss(Loss, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), NAMES, ("float32",), BATCHES[:1])


class PeakCPULossGradient(LossGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), SMOOTH, ("float32",), BATCHES[:1])


class PeakGPULossGradient(LossGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), SMOOTH, ("float32",), BATCHES[:1])
