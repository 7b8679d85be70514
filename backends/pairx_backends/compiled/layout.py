"""How rows lie for the loops of the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def panelled(a: Array, step: int, dtype: Any) -> Array:
    """(n, d) as (d / step, n, step): the features of a panel side by side, the last panel filled up with 0."""
    n, d = a.shape
    found = np.zeros((-(-d // step), n, step), dtype)
    whole = d // step
    found[:whole] = np.swapaxes(a[:, : whole * step].reshape(n, whole, step), 0, 1)
    if d % step:
        found[-1, :, : d % step] = a[:, whole * step :]
    return found


def padded(a: Array, width: int, dtype: Any) -> Array:
    """Rows of a dtype and a width, wherever a row starts: the same memory where they are so already; what is added is 0."""
    beside = a.strides[-1] == a.itemsize and a.strides[0] % a.itemsize == 0
    if a.shape[-1] == width and a.dtype == dtype and beside and a.flags.aligned:
        return a
    found = np.zeros((a.shape[0], width), dtype)
    found[:, : a.shape[-1]] = a
    return found
