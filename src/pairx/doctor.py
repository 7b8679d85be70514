"""What ``pairx doctor`` finds out: plain functions that return data. NumPy is the only array library that they need."""

from __future__ import annotations

import csv
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from . import __version__, backend, measure
from .bridge import bring, host, wait
from .calls import engines
from .metrics import KERNELS, METRICS, Metric

Array = Any
COMMON = "cdist, cityblock, 1000 x 1000 pairs, 64 features, float32"
"""The call that is timed."""

ROUNDINGS = 4096.0
"""Roundings granted, as parts of the largest value of a matrix: 9e-13 in float64, 5e-4 in float32. A wrong formula is off by far
more; what a dtype can really do is the tests' business."""


@cache
def iris() -> Array:
    """The four measures of Fisher's 150 irises, in centimetres: shape (150, 4)."""
    import numpy as np

    lines = files(__package__).joinpath("data", "iris.csv").read_text(encoding="utf-8").splitlines()
    return np.array([[float(v) for v in row[:4]] for row in csv.reader(lines[1:])])


def flowers(domain: str) -> tuple[Array, Array]:
    """15 and 11 of the flowers, made fit for the domain of a metric; one flower is in both sets."""
    import numpy as np

    data = iris()
    if domain == "boolean":
        data = (data > np.median(data, axis=0)).astype(float)
    elif domain == "latlon":  # sepal length and width, stretched over the globe
        data = (data[:, :2] - [6.1, 3.2]) / [1.8, 1.2] * [math.pi / 2, math.pi]
    elif domain == "ball":
        data = data / (1.25 * np.sqrt((data * data).sum(axis=1)).max())
    return data[::10], data[[*range(2, 150, 15), 40]]


@cache
def references() -> dict[str, Array]:
    """``kind-name`` -> the shipped float64 values; see ``data/make_reference.py``."""
    import numpy as np

    with files(__package__).joinpath("data", "reference.npz").open("rb") as file, np.load(file) as archive:
        return dict(archive)


def names(only: Sequence[str] = ()) -> list[str]:
    """The backends to look at: all that are registered, or those asked for.

    Raises
    ------
    ValueError
        If one of them is not registered.
    """
    known = backend.backends()
    asked = [{"strict": "array_api_strict", "tf": "tensorflow"}.get(n, n) for n in only]
    for name in asked:
        if name not in known:
            raise ValueError(f"backend={name!r} is unknown; registered: {', '.join(sorted(known))}.")
    return list(dict.fromkeys(asked)) or sorted(known, key=lambda n: (n != "numpy", not known[n]["installed"], n))


def disagreement(lib: backend.Backend, row: Metric, engine: str) -> tuple[str, str | None]:
    """The dtype in which a metric was compared with its reference, and how it differs (None: it does not)."""
    import numpy as np

    from .distances import cdist, gram

    want = references().get(f"{row.kind}-{row.name}")
    if want is None:
        return "", "no reference value is shipped for it"
    x, y = (bring(lib, side) for side in flowers(row.domain))
    got = host((gram if row.kind == "kernel" else cdist)(x, y, row.name, engine=engine))
    dtype = str(got.dtype)
    if got.shape != want.shape:
        return dtype, f"shape {got.shape} instead of {want.shape}"
    finite = np.isfinite(want)
    special = np.where(finite, 0.0, want)
    if not np.array_equal(np.where(np.isfinite(got), 0.0, got), special, equal_nan=True):
        return dtype, "NaN or inf in other places than the reference"
    error = float(np.max(np.abs(got[finite] - want[finite]), initial=0.0)) / float(np.max(np.abs(want[finite]), initial=1e-300))
    allowed = ROUNDINGS * float(np.finfo(got.dtype).eps)
    return dtype, None if error <= allowed else f"off by {error:.1e} of the largest value (allowed: {allowed:.1e})"


def one_line(error: BaseException) -> str:
    """An exception for a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def common_call(lib: backend.Backend) -> tuple[Callable[[], Array], Callable[[], Array]]:
    """The call that is timed, up to a NumPy array, and the one whose memory is measured, up to the library's own."""
    import numpy as np

    from .distances import cdist

    # Deterministic without a random generator: the golden ratio spreads the points evenly.
    data = (np.arange(2 * 1000 * 64, dtype=np.float64) * 0.6180339887498949 % 1.0).astype(np.float32).reshape(2, 1000, 64)
    x, y = bring(lib, data[0]), bring(lib, data[1])
    return lambda: host(cdist(x, y, "cityblock")), lambda: wait(cdist(x, y, "cityblock"))


def seconds(call: Callable[[], Array]) -> float:
    """The best of three, after one to warm up."""
    call()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def peak(module: str, call: Callable[[], Array]) -> tuple[int | None, str | None]:
    """Peak bytes of a call by the probe beside a backend's record, or None and why."""
    where = f"{module.partition(':')[0]}.measure"
    try:
        found = import_module(where).peak_bytes(call)
    except ModuleNotFoundError as error:
        missing = error.name is None or f"{where}.".startswith(f"{error.name}.")
        return None, f"the backend has no probe ({where})" if missing else one_line(error)
    except Exception as error:
        return None, one_line(error)
    return found, None if found is not None else measure.missing_tool() or "the library could not tell"


def examine(name: str, step: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Everything about one backend; nothing that goes wrong in it is raised.

    Parameters
    ----------
    name
        A key of :func:`pairx.backends`.
    step
        Is told what comes next, for a progress display.

    Returns
    -------
    dict
        ``name``, ``installed``, ``version``, ``install``, ``status`` ("ok", "disagrees", "broken" or "missing"), ``error``,
        ``devices``, ``engines`` (for each ``checked`` and ``agree``), ``dtype``, ``failing`` (``kind``, ``metric``, ``engine``,
        ``reason``), ``seconds``, ``peak_bytes`` and ``peak_note`` (why it is blank).
    """
    facts = backend.backends()[name]
    found: dict[str, Any] = {
        "name": name, "installed": facts["installed"], "version": facts["version"], "install": facts["install"],
        "status": "missing", "error": None, "devices": [], "engines": {}, "dtype": None, "failing": [],
        "seconds": None, "peak_bytes": None, "peak_note": None,
    }  # fmt: skip
    if not facts["installed"]:
        return found
    try:
        step("importing")
        lib = backend.by_name(name)
        found["devices"] = [str(d) for d in lib.devices()]
        for kind, table in (("distance", METRICS), ("kernel", KERNELS)):
            for row in table.values():
                step(f"{kind} {row.name}")
                _compare(lib, row, found)
        found["status"] = "disagrees" if found["failing"] else "ok"
        step("time and memory")
        _cost(lib, facts["module"], found)
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, AttributeError ...
        found["status"], found["error"] = "broken", one_line(error)
    return found


def _compare(lib: backend.Backend, row: Metric, found: dict[str, Any]) -> None:
    for engine in engines(lib, row, bring(lib, flowers(row.domain)[0])):
        tally = found["engines"].setdefault(engine, {"checked": 0, "agree": 0})
        tally["checked"] += 1
        try:
            dtype, reason = disagreement(lib, row, engine)
            found["dtype"] = dtype or found["dtype"]
        except Exception as error:
            reason = one_line(error)
        if reason is None:
            tally["agree"] += 1
        else:
            found["failing"].append({"kind": row.kind, "metric": row.name, "engine": engine, "reason": reason})


def _cost(lib: backend.Backend, module: str, found: dict[str, Any]) -> None:
    try:
        timed, held = common_call(lib)
        found["seconds"] = seconds(timed)
        found["peak_bytes"], found["peak_note"] = peak(module, held)
    except Exception as error:  # cityblock itself is on the list of failures then
        found["peak_note"] = one_line(error)


def missing() -> str | None:
    """Why no backend has a compiled engine here, or None."""
    from pairx_backends import compiled

    return compiled.missing()


def report(only: Sequence[str] = (), watch: Callable[[str], Callable[[str], None]] = lambda name: lambda text: None) -> dict[str, Any]:
    """The findings on every backend, as ``pairx doctor --json`` prints them.

    ``ok`` is False where a backend disagrees or is broken, where one that was asked for is missing, and where none is there.
    """
    rows = list(_rows(only, watch))
    wrong = {"disagrees", "broken"} | ({"missing"} if only else set())
    return {
        "pairx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "data": "Fisher's iris",
        "call": COMMON,
        "compiler": missing(),
        "backends": rows,
        "ok": not any(r["status"] in wrong for r in rows) and any(r["status"] == "ok" for r in rows),
    }


def _rows(only: Sequence[str], watch: Callable[[str], Callable[[str], None]]) -> Iterator[dict[str, Any]]:
    for name in names(only):
        yield examine(name, watch(name))
