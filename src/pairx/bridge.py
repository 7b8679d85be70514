"""NumPy arrays into a library and back, for the command line, where the user asked for it; no call of pairx converts."""

from __future__ import annotations

import os
from typing import Any

from .backend import Backend

Array = Any


def quiet() -> None:
    """Settings of a process that is ours alone, before any library is imported; what the user has set stays."""
    for name, value in (
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),  # its memory pool would hide what a call takes
        ("TF_FORCE_GPU_ALLOW_GROWTH", "true"),  # several libraries share one GPU
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),
        ("JAX_ENABLE_X64", "1"),  # without it float64 data would silently become float32
    ):
        os.environ.setdefault(name, value)


def bring(backend: Backend, array: Any) -> Array:
    """A NumPy array as an array of the library, on its default device."""
    import numpy as np

    # A copy of our own in the native byte order: libraries refuse foreign orders and warn about read-only memory.
    own = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return own if backend.name == "numpy" else backend.xp.asarray(own)


def wait(array: Array) -> Array:
    """The same values, computed: Dask is lazy, and JAX dispatches ahead."""
    for method in ("compute", "block_until_ready"):
        if hasattr(array, method):
            return getattr(array, method)()
    return array


def host(array: Array) -> Any:
    """The values as a NumPy array in main memory."""
    import numpy as np

    array = wait(array)
    for method in ("get", "cpu"):  # CuPy, PyTorch: on a GPU they do not become NumPy by themselves
        if not isinstance(array, np.ndarray) and hasattr(array, method):
            array = getattr(array, method)()
            break
    return np.asarray(array)
