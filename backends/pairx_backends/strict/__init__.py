"""array_api_strict: the standard and nothing more. It guards the purity of the core, on three devices."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp

from pairx.backend import Backend
from pairx.engine import run


def coerce(value: Any, name: str) -> Any:
    """An array of the strict namespace."""
    if not isinstance(value, type(xp.empty(0))):
        raise TypeError(f"{name} is a {type(value).__name__}: expected an array of array_api_strict.")
    return value


def asarray(value: Any, like: Any, dtype: Any) -> Any:
    """An auxiliary argument on the device of ``like``."""
    if isinstance(value, type(like)):
        if value.device != like.device:
            raise ValueError(f"An auxiliary array is on device {value.device} and x on {like.device}: move one of them.")
        return value if dtype is None else xp.astype(value, dtype, copy=False)
    return xp.asarray(value, dtype=dtype, device=like.device)


def put(block: Any, index: Any, values: Any) -> Any:
    """Scatter by a mask: integer arrays may not be assigned to in the standard."""
    flat = xp.reshape(block, (-1,))
    order = xp.zeros(flat.shape, dtype=xp.bool, device=flat.device)
    for k in range(index.shape[0]):
        order[int(index[k])] = True
    flat[order] = values  # positions come in rising order
    return xp.reshape(flat, block.shape)


BACKEND = Backend(
    name="array_api_strict",
    xp=xp,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: xp.float64,
    itemsize=lambda dtype: int(dtype._np_dtype.itemsize),
    put=put,
    devices=lambda: ("CPU_DEVICE", "device1", "device2"),
)
