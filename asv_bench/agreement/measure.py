"""``python measure.py OUT.json MACHINE``: how far every metric and every loss is from its reference, on every library that is there.

It walks the tables of pairx, and takes inputs, references and tolerances from the tests. Each library has a process of its own.
Accuracy is no timing: a busy machine will do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "losses"), str(ROOT / "asv_bench")]

import adapters  # noqa: E402
import loss_cases  # noqa: E402
import loss_outcomes as outcomes  # noqa: E402
import samples  # noqa: E402
from dashboard.about import versions  # noqa: E402

from pairx.losses import LOSSES  # noqa: E402

DTYPES = ("float64", "float32", "float16", "bfloat16")
PACKAGES = ("pairx", "numpy", "torch", "tensorflow", "tensorflow-cpu", "jax", "dask", "array-api-strict", "cupy-cuda12x", "numba", "mpmath")
WITHOUT = "PAIRX_AGREEMENT_WITHOUT"
"""Libraries to leave out, by commas: JAX takes as long as all others together."""
Row = dict[str, Any]


def told(error: Exception) -> str:
    """Why a figure cannot be had."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}" if str(error) else type(error).__name__


def missing(name: str) -> str:
    """Why a library takes no part; empty if it does."""
    if name in os.environ.get(WITHOUT, "").split(","):
        return "left out of this run"
    return adapters.no_gpu(name) if adapters.installed(name) else "not installed"


def relative(got: np.ndarray, want: np.ndarray, scale: Any, least: float) -> float:
    """The largest difference, in shares of ``scale``; a difference up to ``least`` (the smallest step of the dtype) is none."""
    got, want, scale = np.broadcast_arrays(got, want, np.asarray(scale, float))
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        raise ValueError("not finite where the exact value is, or finite where it is not")
    error = np.abs(got[finite] - want[finite])
    return float(np.max(np.where(error <= least, 0.0, error) / np.maximum(scale[finite], 1e-300), initial=0.0))


# --- distances ----------------------------------------------------------------------------------------------------------

OPERATIONS = {"distance": "cdist", "kernel": "gram", "similarity": "similarity"}


def distance(backend: adapters.Adapter, row: Any, engine: str, dtype: str) -> float:
    """Over its parameters and weights, two sets and one: the largest error relative to what the tests measure it by."""
    d = samples.width(row)
    x, y = (samples.samples(row.domain, (n, d), dtype, seed) for n, seed in ((7, 1), (5, 2)))
    worst = 0.0
    for given in [*samples.parameters(row, d), *([{"w": samples.weights(d)}] if row.weights else [])]:
        native = {k: backend.asarray(v, dtype) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        params = {k: v for k, v in given.items() if k != "w"}
        for other in (y, None):
            a, b = backend.asarray(x, dtype), None if other is None else backend.asarray(other, dtype)
            got = backend.to_numpy(samples.all_pairs(row, a, b, engine=engine, **native))
            want = samples.wanted(row, x, other, **given)
            scale = samples.scale_of(row, x, x if other is None else y, want, given.get("w"), params)
            worst = max(worst, relative(got.astype(want.dtype), want, scale, samples.tolerances(dtype).tiny))
    return worst


def distances(name: str) -> Iterator[Row]:
    """Metric, kernel or similarity x engine x dtype, of one library."""
    why = missing(name)
    backend = None if why else adapters.adapter(name)
    for row in samples.ROWS:
        for engine in row.engines if backend is None else backend.engines(row):
            for dtype in adapters.BACKENDS[name][1]:
                out: Row = {"operation": OPERATIONS[row.kind], "metric": row.name, "backend": name, "engine": engine, "dtype": dtype}
                if backend is None:
                    yield out | {"error": None, "allowed": None, "reason": why}
                    continue
                t = samples.tolerances(dtype)
                # Halves are computed in float32 and rounded once.
                out |= {"error": None, "allowed": samples.factor_of(backend, row) * t.work + (t.eps if t.eps != t.work else 0.0)}
                try:
                    yield out | {"error": distance(backend, row, engine, dtype)}
                except (TypeError, ValueError, NotImplementedError) as error:
                    yield out | {"reason": told(error)}


# --- losses -------------------------------------------------------------------------------------------------------------

LIBRARIES = ("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy")


def largest(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the largest of the wanted values."""
    top = float(np.abs(want[np.isfinite(want)]).max(initial=0.0))
    return relative(got, want, top or 1.0, 0.0)


def losses(library: str) -> Iterator[Row]:
    """Loss x dtype, of one library, with its default settings. The gradient comes as arrays: its own, and the one in float64."""
    why = missing(library)
    for count, name in enumerate(LOSSES, 1):
        for dtype in DTYPES:
            out: Row = {"loss": name, "library": library, "dtype": dtype, "value": None, "gradient": None}
            if why or dtype not in adapters.BACKENDS[library][1]:
                yield out | {"reason": why or f"the library's arrays have no {dtype}"}
                continue
            backend, given = adapters.adapter(library), loss_cases.case(name, seed=3)
            given = loss_cases.Case({k: samples.rounded(v, dtype).astype(float) for k, v in given.arrays.items()}, given.given)
            values, active, _ = loss_cases.expected(name, given, {})
            got = np.asarray(backend.to_numpy(outcomes.call(backend, name, given, {}, dtype, reduction="none"))).astype(float)
            out["value"] = largest(got, np.where(active, values, 0))
            if not LOSSES[name].differentiable:
                out["reason"] = "the loss has no gradient"
            elif not backend.autodiff:
                out["reason"] = "the library has no gradients"
            else:
                out["gradient"] = [outcomes.gradient(backend, name, given, {}, t) for t in (dtype, "float64")]
            yield out
        if not why and count % 10 == 0:
            progress(f"{library}: losses, {count} of {len(LOSSES)}")


def compared(rows: list[Row]) -> Iterator[Row]:
    """The rows of all libraries, each gradient against the median of the libraries' own in float64."""
    wide: dict[tuple[str, str], list[list[np.ndarray]]] = {}
    for row in rows:
        if row["gradient"] is not None:
            wide.setdefault((row["loss"], row["dtype"]), []).append(row["gradient"][1])
    for row in rows:
        if row["gradient"] is None:
            yield row
            continue
        want = [np.median(np.stack(g), axis=0) for g in zip(*wide[row["loss"], row["dtype"]], strict=True)]
        yield row | {"gradient": max(largest(g, w) for g, w in zip(row["gradient"][0], want, strict=True))}


def edges(library: str) -> Iterator[Row]:
    """Loss x edge, of one library, in float32; and the ordinary inputs in half precision."""
    why = missing(library)
    for count, name in enumerate(LOSSES, 1):
        found = {edge: (make, "float32") for edge, make in loss_cases.edges(name).items()}
        found |= {half: (lambda name=name: loss_cases.case(name), half) for half in ("float16", "bfloat16")}
        for edge, (make, dtype) in found.items():
            out: Row = {"loss": name, "case": edge, "backend": library, "outcome": None}
            if why or dtype not in adapters.BACKENDS[library][1]:
                yield out | {"reason": why or f"the library's arrays have no {dtype}"}
            else:
                yield out | {"outcome": outcomes.outcome(adapters.adapter(library), name, make(), dtype)}
        if not why and count % 10 == 0:
            progress(f"{library}: edges, {count} of {len(LOSSES)}")


# --- the whole ----------------------------------------------------------------------------------------------------------


def progress(text: str) -> None:
    """How far it is."""
    print(text, file=sys.stderr, flush=True)


def library(name: str) -> dict[str, list[Row]]:
    """All rows of one library."""
    warnings.simplefilter("ignore")  # overflow and division by 0 are what the edges are about
    found = {"distances": list(distances(name))}
    progress(f"{name}: {missing(name) or 'distances done'}")
    return found | {k: list(f(name)) if name in LIBRARIES else [] for k, f in {"losses": losses, "edges": edges}.items()}


def main(path: str, machine: str) -> None:
    """Measure, and write the file."""
    began = time.monotonic()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    report: Row = {"machine": machine, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit, "versions": versions(PACKAGES)}
    # The slowest first: JAX compiles each operation of each shape.
    names = sorted(adapters.BACKENDS, key=lambda n: n not in adapters.COMPILES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, max_tasks_per_child=1) as pool:
        found = dict(zip(names, pool.map(library, names), strict=True))
    rows = {k: [r for n in adapters.BACKENDS for r in found[n][k]] for k in ("distances", "losses", "edges")}
    rows["losses"] = list(compared(rows["losses"]))
    for row in (*rows["distances"], *rows["losses"]):
        row |= {k: float(f"{row[k]:.3g}") for k in ("error", "allowed", "value", "gradient") if row.get(k) is not None}
    # A row a line: a difference of two reports can be read.
    body = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(r, allow_nan=False) for r in some) + "\n]" for k, some in rows.items())
    Path(path).write_text(json.dumps(report)[:-1] + ",\n" + body + "}\n", encoding="utf-8")
    progress(f"{sum(map(len, rows.values()))} rows in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
