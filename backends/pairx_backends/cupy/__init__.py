"""CuPy: NumPy's manner on an NVIDIA GPU. Needs CuPy alone."""

from __future__ import annotations

import os
from typing import Any

import cupy as cp
from array_api_compat import cupy as xp

from pairx.backend import Backend
from pairx.engine import Task
from pairx.engine import run as walk


def coerce(value: Any, name: str) -> Any:
    """A dense array on the GPU."""
    if not isinstance(value, cp.ndarray):
        raise TypeError(f"{name} is a {type(value).__name__}: pass a dense array; sparse ones have .toarray().")
    return value


def asarray(value: Any, like: Any, dtype: Any) -> Any:
    """An auxiliary argument on the device of ``like``."""
    if isinstance(value, cp.ndarray) and value.device != like.device:
        raise ValueError(f"An auxiliary array is on device {value.device} and x on {like.device}: move one of them.")
    with like.device:
        return cp.asarray(value, dtype=dtype)


def run(task: Task) -> Any:
    """The shared walk, on the device of the inputs."""
    with task.x.device:
        return walk(task)


def free_bytes(device: Any) -> int | None:
    """Free and pooled memory of a device."""
    with device:
        return int(device.mem_info[0] + cp.get_default_memory_pool().free_bytes())


def lowered(x: Any) -> str | None:
    """CuPy takes TF32 only when asked by its environment variable."""
    if x.dtype == cp.float32 and os.environ.get("CUPY_TF32") == "1":
        return "CUPY_TF32=1 lowers products to 10 bits: differences instead"
    return None


def uniform(rng: Any, shape: tuple[Any, ...], like: Any, dtype: Any) -> Any:
    """Of a cupy.random.Generator."""
    return rng.random(shape, dtype=dtype) if isinstance(rng, cp.random.Generator) else None


BACKEND = Backend(
    name="cupy",
    xp=xp,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: cp.dtype(cp.float64),
    free_bytes=free_bytes,
    itemsize=lambda dtype: int(cp.dtype(dtype).itemsize),
    tile_bytes=256 << 20,
    devices=lambda: [f"cuda:{i}" for i in range(cp.cuda.runtime.getDeviceCount())],
    lowered=lowered,
    shares=lambda a, b: bool(cp.may_share_memory(a, b)),
    uniform=uniform,
)
