"""Threads are set before any library is imported: ``PEERS_THREADS`` processors, by affinity where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from dashboard.about import gpus, versions

THREADS = int(os.environ.get("PEERS_THREADS", "1"))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(THREADS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Also float64 and the largest cases (an hour).")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        items[:] = [i for i in items if i.callspec.params["case"].quick]  # type: ignore[attr-defined]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    for name in ("node", "release"):  # the host's own
        machine_info.pop(name, None)
    machine_info |= {"versions": versions(), "gpus": gpus()}
    cpu = machine_info.get("cpu")
    if isinstance(cpu, dict):
        cpu.pop("flags", None)


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: object, output_json: dict[str, list[dict[str, dict[str, object]]]]
) -> None:
    """Without each single time: those of a microsecond's call fill megabytes."""
    output_json["pytest_benchmark"] = output_json.pop("version")  # asv reads all files of the folder, and takes a version for its own
    for found in output_json["benchmarks"]:
        found["stats"].pop("data", None)
    output_json.get("commit_info", {}).pop("project", None)  # type: ignore[attr-defined]
