"""What a call costs before any arithmetic: the way to the kernel, the plan, and the import."""

from __future__ import annotations

from functools import cache

import numpy as np

import pairx

from .places import BACKENDS, DEVICES, Call, Time, arrays, waited

CALLS = {
    "cdist": lambda x, y: pairx.cdist(x, y, "cityblock"),
    "cdist, array engine": lambda x, y: pairx.cdist(x, y, "cityblock", engine="array"),
    "paired": lambda x, y: pairx.paired(x, y, "cityblock"),
    "vector_norm": lambda x, y: pairx.vector_norm(x, axis=-1),
    "supcon": lambda x, y: pairx.losses.supcon(x, LABELS),
    "explain": lambda x, y: pairx.explain(pairx.cdist, x, y, metric="cityblock"),
}
LABELS = [0, 1] * 4


@cache
def small() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(0).random((2, 8, 16)))  # type: ignore[return-value]


class TimeSmallCall(Time):
    """8 x 8 x 16 in float64."""

    params = (BACKENDS, DEVICES, tuple(CALLS))
    param_names = ("backend", "device", "call")

    def make(self, backend: str, device: str, call: str) -> Call:
        if backend == "dask" and call == "supcon":
            raise NotImplementedError("losses need arrays in memory")
        x, y = arrays(backend, device, *small())
        return waited(backend, device, lambda: CALLS[call](x, y))


class TimeImport:
    """A new process that imports pairx. NumPy's own import is not in it: pairx imports no array library."""

    def timeraw_import(self) -> str:
        return "import pairx"
