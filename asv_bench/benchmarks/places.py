"""Where a benchmark runs: a library on a device; its inputs, and how long and how many bytes a call takes there."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pairx import bridge
from pairx.backend import by_name, present

Call = Callable[[], Any]

CPU = ("numpy", "torch", "tensorflow", "jax", "dask", "array_api_strict")
GPU = ("torch", "tensorflow", "jax", "cupy")
DEVICES = ("cpu", "gpu")
FLOATS = ("float32", "float64")
BACKENDS = tuple(dict.fromkeys((*CPU, *GPU)))
"""A backend and a device are two parameters: pairs that do not exist are skipped as those are that are absent."""

bridge.quiet()


def absent(backend: str, device: str) -> str | None:
    """Why nothing can be measured there, or None."""
    if backend not in (CPU if device == "cpu" else GPU):
        return f"{backend} has no {device}"
    if not present(backend):
        return f"{backend} is not installed"
    return None if device == "cpu" else _no_gpu(backend)


@cache
def _no_gpu(backend: str) -> str | None:
    try:
        if backend == "torch":
            import torch

            there = torch.cuda.is_available()
        elif backend == "tensorflow":
            import tensorflow as tf

            there = bool(tf.config.list_physical_devices("GPU"))
        elif backend == "jax":
            import jax

            there = jax.default_backend() != "cpu"
        else:
            import cupy

            there = cupy.cuda.runtime.getDeviceCount() > 0
    except Exception as error:  # a library without its driver raises errors of its own
        return f"{type(error).__name__}: {error}"
    return None if there else f"{backend} sees no GPU"


def arrays(backend: str, device: str, *given: np.ndarray) -> tuple[Any, ...]:
    """The library's arrays there, or NotImplementedError, by which asv skips."""
    why = absent(backend, device)
    if why:
        raise NotImplementedError(why)
    if backend == "torch":
        import torch

        return tuple(torch.from_numpy(np.array(v)).to("cuda" if device == "gpu" else "cpu") for v in given)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.device("/GPU:0" if device == "gpu" else "/CPU:0"):
            return tuple(tf.constant(v) for v in given)
    if backend == "jax":
        import jax

        place = jax.devices("gpu" if device == "gpu" else "cpu")[0]
        return tuple(jax.device_put(v, place) for v in given)
    library = by_name(backend)
    return tuple(bridge.bring(library, v) for v in given)


def waited(backend: str, device: str, call: Call) -> Call:
    """The call until its result is there."""
    if device == "gpu" and backend == "torch":
        import torch

        return lambda: (call(), torch.cuda.synchronize())
    if device == "gpu" and backend == "cupy":
        import cupy

        return lambda: (call(), cupy.cuda.get_current_stream().synchronize())
    if device == "gpu" and backend == "tensorflow":
        import tensorflow as tf

        return lambda: (call(), tf.test.experimental.sync_devices())
    if backend == "jax":
        import jax

        return lambda: jax.block_until_ready(call())
    return lambda: bridge.wait(call())


def differentiable(backend: str) -> None:
    """Skip libraries without gradients."""
    if backend not in ("torch", "tensorflow", "jax"):
        raise NotImplementedError(f"{backend} has no gradients")


def gradient(backend: str, function: Callable[..., Any], leaves: tuple[Any, ...]) -> Call:
    """Forward and backward to all leaves, of a function whose result is summed."""
    differentiable(backend)
    if backend == "torch":
        import torch

        leaves = tuple(v.detach().requires_grad_() for v in leaves)
        return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)
    if backend == "tensorflow":
        import tensorflow as tf

        def taped() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(leaves)
                total = tf.reduce_sum(function(*leaves))
            return tape.gradient(total, leaves)

        return taped
    import jax

    both = jax.jit(jax.grad(lambda *a: function(*a).sum(), argnums=tuple(range(len(leaves)))))
    return lambda: both(*leaves)


def peak(backend: str, call: Call) -> int:
    """Bytes above the inputs at most, by the backend's own probe; skipped where it cannot tell."""
    name = "strict" if backend == "array_api_strict" else backend
    found = importlib.import_module(f"pairx_backends.{name}.measure").peak_bytes(call)
    if found is None:
        raise NotImplementedError("the probe cannot tell")
    return int(found)


class Bench(ABC):
    """Sets ``self.call`` up: what subclasses prepare is kept, since asv sets up anew before each time it measures.

    Abstract until ``make`` is there: asv takes every other class that it finds in a module for a benchmark.
    """

    timeout = 300
    version = "1"
    """Results of another version are not compared: raise it where a class measures something else (asv would hash its text)."""
    params: Any = ()
    param_names: Any = ()

    @abstractmethod
    def make(self, *case: Any) -> Call:
        """The call of a case."""

    def setup(self, *case: Any) -> None:
        self.call = _prepared(type(self), case)


@cache
def _prepared(kind: type[Bench], case: tuple[Any, ...]) -> Call:
    call = kind().make(*case)
    call()  # compiles
    return call


class Time(Bench):
    """Seconds of a call whose result is waited for."""

    def time_call(self, *case: Any) -> None:
        self.call()


class Peak(Bench):
    """Bytes of a call above its inputs, its result included."""

    def track_peak(self, *case: Any) -> int:
        return peak(case[0], self.call)

    track_peak.unit = "bytes"  # type: ignore[attr-defined]
