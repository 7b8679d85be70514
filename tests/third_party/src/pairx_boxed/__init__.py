"""The backend record of the library ``boxed``: all that a third party has to write."""

from __future__ import annotations

from typing import Any

import numpy as np
from boxed import Array, xp

from pairx import Backend
from pairx.engine import run


def coerce(value: Any, name: str) -> Any:
    """A box."""
    if not isinstance(value, Array):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a boxed.Array.")
    return value


def asarray(value: Any, like: Any, dtype: Any) -> Any:
    """An auxiliary argument."""
    return Array(np.asarray(value.inner if isinstance(value, Array) else value, dtype=dtype))


def put(block: Any, index: Any, values: Any) -> Any:
    """Write at flat positions."""
    block.inner.reshape(-1)[index.inner] = values.inner
    return block


BACKEND = Backend(
    name="boxed",
    xp=xp,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: np.dtype("float64"),
    put=put,
    quiet=lambda: np.errstate(all="ignore"),
)
