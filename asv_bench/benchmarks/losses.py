"""Every loss, forward alone and with its gradient; the inputs of a loss follow from the word in its row of the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pairx.losses import LOSSES

from .places import BACKENDS, DEVICES, Bench, Call, Peak, Time, arrays, gradient, waited

B, D, CLASSES = 512, 64, 128
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


LABELS = np.arange(B) % CLASSES
NOISE = {"x": (B,), "noise": (B, 16), "x_log_noise": (B,), "noise_log_noise": (B, 16)}


INPUTS: dict[str, Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]] = {
    "labels": lambda: ({"x": _units(B, D)}, {"labels": LABELS}),
    "views": lambda: ({"x": _units(B, D), "y": _units(B, D)[::-1].copy()}, {}),
    "positives": lambda: ({"x": _units(B, D)}, {"positives": LABELS[:, None] == LABELS}),
    "noise": lambda: ({k: _rng().normal(size=s).astype(np.float32) for k, s in NOISE.items()}, {}),
    "classes": lambda: ({"features": _units(B, D), "weight": _units(20 * CLASSES, D)}, {"labels": LABELS}),
    "proxies": lambda: ({"x": _units(B, D), "proxies": _units(CLASSES, D)}, {"labels": LABELS}),
    "centers": lambda: ({"x": _units(B, D), "centers": _units(CLASSES, 3, D)}, {"labels": LABELS}),
    "only centers": lambda: ({"centers": _units(CLASSES, 3, D)}, {}),
    "rows and target": lambda: ({"x": _units(B, D), "y": _units(B, D)[::-1].copy()}, {"target": np.where(LABELS % 2, 1, -1)}),
    "grid and mask": lambda: ({"x": _units(2, 8, 8, 2, D)}, {"mask": _rng().integers(2, size=(2, 8, 8, 2, 1))}),
    "triplet rows": lambda: ({"anchor": _units(B, D), "positive": _units(B, D)[::-1].copy(), "negative": _units(D, B).T.copy()}, {}),
    "two views of a batch": lambda: ({"x": _units(B, D), "y": _units(B, D)[::-1].copy()}, {}),
    "a batch": lambda: ({"x": _units(B, D)}, {}),
    "two": lambda: ({"predictions": _units(B, 4 * D), "targets": _units(B, 4 * D)[::-1].copy()}, {}),
    "matrices": lambda: ({"predictions": _units(B, 16, 16), "targets": _units(B, 16, 16)[::-1].copy()}, {}),
    "distributions": lambda: ({"predictions": _shares(B, 4 * D), "targets": _shares(B, 4 * D)[::-1].copy()}, {}),
    "class probabilities": lambda: ({"predictions": _shares(B, 4 * D), "targets": _shares(B, 4 * D)[::-1].copy()}, {}),
    "class indices": lambda: ({"predictions": _shares(B, CLASSES)}, {"labels": LABELS}),
    "binary": lambda: ({"predictions": _shares(B, 4 * D), "targets": (_units(B, 4 * D) > 0).astype(np.float32)}, {}),
}
"""The words of the table -> the arrays that have gradients, and the other arguments. A test says when one is missing."""


@cache
def given(loss: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return INPUTS[LOSSES[loss].inputs]()


class Loss(Bench):
    """One call of a loss as it comes."""

    param_names = ("backend", "device", "loss")

    def make(self, backend: str, device: str, loss: str) -> Call:
        if backend == "dask":
            raise NotImplementedError("losses need arrays in memory")
        values, rest = given(loss)
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

    params = (BACKENDS, DEVICES, NAMES)


class TimeLossGradient(LossGradient, Time):
    """Seconds."""

    params = (BACKENDS, DEVICES, SMOOTH)


class PeakCPULossGradient(LossGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("cpu",), SMOOTH)


class PeakGPULossGradient(LossGradient, Peak):
    """Bytes."""

    params = (BACKENDS, ("gpu",), SMOOTH)
