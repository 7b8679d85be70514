"""Distances of sets that are too large for memory, or whose distances are: block by block, from file to file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import calls, checks
from . import plan as plans
from .backend import Backend, by_name
from .bridge import bring, host
from .distances import cdist
from .explaining import explain
from .metrics import Metric, lookup

Array = Any
LARGEST = 4096
WORK = 1 << 23
"""A block has at most LARGEST rows and WORK numbers to subtract (a second of the slowest metric): between blocks the progress
moves and Ctrl-C is heard."""


@dataclass(frozen=True)
class Job:
    """One call, checked, with all that has to be known of the whole sets."""

    backend: Backend
    metric: Metric
    x: Array
    y: Array | None
    dtype: Any
    side: int
    """Rows and columns of a block."""
    keywords: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the result."""
        return len(self.x), len(self.x if self.y is None else self.y)

    @property
    def mirrored(self) -> bool:
        """One triangle is computed, and the other is its mirror image."""
        return self.y is None and self.metric.symmetric

    @property
    def pairs(self) -> int:
        """How many are computed."""
        return sum((i1 - i0) * (j1 - j0) for i0, i1, j0, j1 in blocks(self))


def prepare(x: Array, y: Array | None, metric: str, *, backend: str = "numpy", max_bytes: int | str | None = None, **keywords: Any) -> Job:
    """Check a call before any work or disk is spent on it.

    Parameters
    ----------
    x, y
        NumPy arrays of rows, memory-mapped ones among them; ``y`` None: ``x`` again.
    metric, backend
        By name.
    max_bytes
        Bounds everything but the inputs and the result. In another library than NumPy one half is for the blocks that
        are brought there and back, and one for the call.
    **keywords
        As :func:`pairx.cdist` has them; those that are None are left away.

    Raises
    ------
    ValueError, TypeError, ImportError
        Whatever does not fit; one line.
    """
    import numpy as np

    keywords = {name: value for name, value in keywords.items() if value is not None}
    checks.equal_size("x", x.shape, "y", x.shape if y is None else y.shape, -1, "numbers of features")
    lib, row = by_name(backend), lookup(metric)
    budget = plans.parse_bytes(plans.DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)
    foreign = lib.name != "numpy"
    keywords["max_bytes"] = max(1, budget // 2) if foreign else budget
    given = in_library(lib, keywords)
    one_x, one_y = (None if s is None else (bring(lib, s[:1]) if foreign else s[:1]) for s in (x, y))
    try:
        plan = explain(cdist, one_x, one_y, metric, **given)
    except ValueError as error:
        if foreign and str(error).startswith("max_bytes="):
            raise ValueError(f"{error} One half of it is for the blocks that are brought to {lib.name} and back.") from error
        raise
    try:
        dtype = np.dtype(plan.dtype)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind not in "fc":
        raise ValueError(f"out_dtype={plan.dtype}: a .npy file has no such dtype; choose float32 or float64.")
    local = by_name("numpy")
    checks.domain(local, row, x=x, y=y)
    if keywords.get("nan_policy") == "raise":
        checks.no_nan(local, x=x, y=y)
    given["out_dtype"] = plan.dtype  # by name: in the byte order of this machine, whatever that of the input is
    given |= defaults(local, row, x, y, keywords)

    d = x.shape[1]
    side = max(1, min(LARGEST, math.isqrt(WORK // max(1, d))))
    if foreign:
        cost = plans.Cost(2 * dtype.itemsize, 2 * d * max(8, x.dtype.itemsize))
        if cost.of((1, 1), "matrix") > budget // 2:
            raise ValueError(f"max_bytes={max_bytes!r} is below the smallest block of this call: two rows of {d} features.")
        side = min(side, *plans.fit((side, side), cost, "matrix", budget // 2))
    return Job(lib, row, x, y, dtype, side, given)


def in_library(lib: Backend, keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords with their arrays in the library."""
    import numpy as np

    return {k: bring(lib, v) if isinstance(v, np.ndarray) and lib.name != "numpy" else v for k, v in keywords.items()}


def defaults(local: Backend, row: Metric, x: Array, y: Array | None, keywords: dict[str, Any]) -> dict[str, Any]:
    """V and VI of the whole sets: those of a block would be others."""
    import numpy as np

    if "V" in row.defaults and "V" not in keywords:
        return {"V": calls.spread_of(local, x, y, np.float64, x.shape[1], False).tolist()}
    if "VI" in row.defaults and not {"VI", "cov"} & set(keywords):
        cov = calls.spread_of(local, x, y, np.float64, x.shape[1], True)
        try:
            return {"VI": np.linalg.inv(cov).tolist()}
        except np.linalg.LinAlgError:
            raise ValueError("VI=None: the covariance of these rows has no inverse; pass VI or cov.") from None
    return {}


def blocks(job: Job) -> Iterator[tuple[int, int, int, int]]:
    """First and last row, first and last column of each block, row by row; of one triangle where the other mirrors it."""
    m, n = job.shape
    for i in range(0, m, job.side):
        for j in range(i if job.mirrored else 0, n, job.side):
            yield i, min(i + job.side, m), j, min(j + job.side, n)


def fill(job: Job, out: Array, advance: Callable[[int], None] = lambda pairs: None) -> None:
    """Compute a job into a NumPy array, which may be memory-mapped.

    With ``y`` None the result is symmetric bit by bit, and its diagonal exactly 0, where the metric is so.
    """
    lib = job.backend
    other = job.x if job.y is None else job.y
    for i0, i1, j0, j1 in blocks(job):
        x, y = job.x[i0:i1], None if job.y is None and i0 == j0 else other[j0:j1]
        block = out[i0:i1, j0:j1]
        if lib.name == "numpy":
            cdist(x, y, job.metric.name, out=block, **job.keywords)
        else:
            block[...] = host(cdist(bring(lib, x), None if y is None else bring(lib, y), job.metric.name, **job.keywords))
        if job.mirrored and i0 != j0:
            out[j0:j1, i0:i1] = block.T.conj() if job.dtype.kind == "c" else block.T
        advance((i1 - i0) * (j1 - j0))
