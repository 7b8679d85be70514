"""``python table.py peers-1.json peers-2.json``: ratios from what pytest-benchmark wrote, as a page of Markdown."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "jax", "numba", "faiss-cpu", "numkong")


def read(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Case -> implementation -> (fastest, spread: median over fastest)."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for b in json.loads(path.read_text())["benchmarks"]:
        info, stats = b["extra_info"], b["stats"]
        found.setdefault(info["case"], {})[info["implementation"]] = stats["min"], stats["median"] / stats["min"]
    return found


def versions() -> str:
    """Of what was measured, as far as it is installed."""
    parts = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts)


def rows(found: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    """Time in matrix products, and each peer's time in ours."""
    names = list(dict.fromkeys(i for peers in found.values() for i in peers if i not in ("pairx", "matmul")))
    head = ["case", "pairx", "in matrix products", "spread", "best peer", *names]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for case, peers in found.items():
        if "pairx" not in peers:
            continue
        own, spread = peers["pairx"]
        others = {n: peers[n][0] / own for n in names if n in peers}
        best = min(others.items(), key=lambda item: item[1], default=None)
        product = f"{own / peers['matmul'][0]:.1f}" if "matmul" in peers else ""
        cells = [case, shown(own), product, f"{spread:.2f}", "" if best is None else f"{best[0]} {best[1]:.1f}x"]
        lines.append("| " + " | ".join([*cells, *(f"{others[n]:.1f}x" if n in others else "" for n in names)]) + " |")
    return lines


def shown(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def page(paths: list[Path], about: dict[str, Any] | None = None) -> str:
    """The whole page."""
    machine = json.loads(paths[0].read_text())["machine_info"]
    cpu = machine.get("cpu", {}).get("brand_raw") or machine.get("processor") or "unknown processor"
    text = [
        "# pairx and its peers",
        "",
        "Written by `nox -s peers`. Fastest of 3 to 15 calls, all in one process; the yardstick is NumPy's matrix product of the same",
        'shape and dtype; "spread" is our median over our fastest; a peer\'s figure is its time over ours, so above 1x pairx is',
        'faster. "Self" is',
        'one set with itself, "gradient" is forward and backward for both sides (pairx on PyTorch tensors).',
        "",
        f"{cpu}; {versions()}.",
    ]
    for path in paths:
        found = json.loads(path.read_text())
        threads = found["benchmarks"][0]["extra_info"]["threads"]
        text += ["", f"## {threads} thread{'s' * (threads > 1)}", "", *rows(read(path))]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    print(page([Path(p) for p in sys.argv[1:]]), end="")
