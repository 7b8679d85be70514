"""``python -m dashboard.support``: what each backend can do with each metric on each device, into results/<machine>/support.json.

Nothing is written down by hand: an engine is there if the call that asks for it plans it and runs on a few flowers; the reason for a
gap is what the library said, as an error or in its plan.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from benchmarks import places

import pairx
from pairx import doctor
from pairx.metrics import KERNELS, METRICS, SIMILARITIES, Metric
from pairx.plan import ENGINES

from .about import about, write

Record = dict[str, Any]
OPERATIONS: dict[str, Callable[..., Any]] = {"distance": pairx.cdist, "kernel": pairx.gram, "similarity": pairx.similarity}
TABLES: dict[str, dict[str, Metric]] = {"distance": METRICS, "kernel": KERNELS, "similarity": SIMILARITIES}
LARGE = 2000
"""Rows for which the engine of an ordinary call is told; nothing is computed for it."""


def flowers(row: Metric, large: bool = False) -> tuple[np.ndarray, ...]:
    """What the metric takes; in float32, which every library has."""
    sides = doctor.flowers(row.domain)
    if large:
        sides = tuple(np.resize(s, (LARGE, s.shape[1] if row.domain == "latlon" else 128)) for s in sides)
        if row.domain == "ball":
            sides = tuple(s / 16 for s in sides)  # more features, longer rows
    return tuple(np.asarray(s, bool if row.domain == "boolean" else np.float32) for s in sides)


def refused(call: Callable[[], Any]) -> str | None:
    """Why a call fails, or None."""
    try:
        call()
    except Exception as error:  # whatever a library raises is the reason to be shown
        return doctor.one_line(error)
    return None


def short(text: str) -> str:
    """An error without the argument at its head and the advice at its end."""
    return re.sub(r"^engine='\w+': |; leave engine away.*$", "", " ".join(text.split()))


def engine(row: Metric, name: str, backend: str, device: str, x: Any, y: Any) -> str | None:
    """Why a metric does not run on an engine there, or None if it does."""
    function = OPERATIONS[row.kind]
    try:
        plan = pairx.explain(function, x, y, row.name, engine=name)
    except Exception as error:
        return short(str(error))
    if plan.engine != name:
        return str(plan.reason)
    return refused(places.waited(backend, device, lambda: function(x, y, row.name, engine=name)))


def gradient(row: Metric, backend: str, x: Any, y: Any) -> str | None:
    """Why there is none, or None if there is."""
    try:
        places.differentiable(backend)
    except NotImplementedError as error:
        return str(error)
    if not row.differentiable:
        return f"metric {row.name!r} is not differentiable, says its row in the table"
    return refused(lambda: places.gradient(backend, lambda a, b: OPERATIONS[row.kind](a, b, row.name), (x, y))())


def cell(row: Metric, backend: str, device: str) -> Record:
    """One metric in one place."""
    x, y = places.arrays(backend, device, *flowers(row))
    large = places.arrays(backend, device, *flowers(row, large=True))
    try:
        plan = pairx.explain(OPERATIONS[row.kind], *large, row.name)
        chosen, why = plan.engine, plan.reason.partition(", compiled at this call")[0]  # what is kept on disk is no fact of the metric
    except Exception as error:
        chosen, why = None, doctor.one_line(error)
    return {
        "kind": row.kind, "metric": row.name, "backend": backend, "device": device, "chosen": chosen, "why": why,
        "engines": {e: engine(row, e, backend, device, x, y) for e in ENGINES},
        "gradient": gradient(row, backend, x, y),
    }  # fmt: skip


def cells(absent: dict[str, dict[str, str | None]]) -> Iterator[Record]:
    """Every metric, kernel and similarity in every place that is there."""
    for backend, devices in absent.items():
        for device, why in devices.items():
            if why is None:
                print(backend, device, flush=True)
                for table in TABLES.values():
                    for row in table.values():
                        yield cell(row, backend, device)


def support(backends: tuple[str, ...] = places.BACKENDS) -> Record:
    """The record, without its head."""
    absent = {b: {d: places.absent(b, d) for d in places.DEVICES} for b in backends}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"rows": LARGE, "absent": absent, "cells": list(cells(absent))}


if __name__ == "__main__":
    print(write("support.json", {**about(), **support()}))
