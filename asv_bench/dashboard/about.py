"""Where and of what something was measured: the head of every record that a session writes."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy", "scipy", "scikit-learn", "torch", "tensorflow", "tensorflow-cpu", "jax", "cupy-cuda12x", "cupy-cuda13x", "dask",
    "array-api-strict", "array-api-compat", "numba", "llvmlite", "faiss-cpu", "numkong", "pytorch-metric-learning", "memray",
)  # fmt: skip
"""What pairx runs on, what it is compared with, and what measures."""


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """As the system names it; a virtual machine may leave the number out, but its family and model tell what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = found.get("model name") or platform.processor() or platform.machine()
    if not re.search(r"\d", name) and "cpu family" in found:
        return f"{name} (family {found['cpu family']}, model {found['model']})"
    return name


def gpus() -> list[str]:
    """The accelerators of NVIDIA that are there."""
    try:
        asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()]


def machine() -> str:
    """The folder of this machine's results, for every session: its processor, how many of them, its first GPU; no host name."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join([processor(), f"x{os.cpu_count()}", *gpus()[:1]]).lower()).strip("-")


def commit() -> str:
    """What is measured; ``+`` after it where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", "src", "backends") else "")


def about() -> dict[str, Any]:
    """The head of a record."""
    return {
        "machine": machine(), "cpu": processor(), "processors": os.cpu_count(), "gpus": gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "versions": versions(),
    }  # fmt: skip


def write(name: str, record: dict[str, Any]) -> Path:
    """A record into this machine's folder."""
    path = Path(__file__).parents[1] / "results" / machine() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path
