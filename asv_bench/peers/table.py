"""``python table.py peers-1.json peers-2.json``: ratios from what pytest-benchmark wrote, as a page of Markdown."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What was measured of one implementation."""

    fastest: float
    spread: float
    """Median over fastest."""
    peak: int | None = None
    """Bytes above inputs and gradients."""


def read(path: Path, losses: bool = False) -> dict[str, dict[str, Figure]]:
    """Case -> implementation -> figure: of the distances, or of the losses."""
    found: dict[str, dict[str, Figure]] = {}
    for b in json.loads(path.read_text())["benchmarks"]:
        info, stats = b["extra_info"], b["stats"]
        if ("peak_bytes" in info) == losses:
            figure = Figure(stats["min"], stats["median"] / stats["min"], info.get("peak_bytes"))
            found.setdefault(info["case"], {})[info["implementation"]] = figure
    return found


def rows(found: dict[str, dict[str, Figure]]) -> list[str]:
    """Time in matrix products, and each peer's time in ours."""
    names = list(dict.fromkeys(i for peers in found.values() for i in peers if i not in ("pairx", "matmul")))
    head = ["case", "pairx", "in matrix products", "spread", "best peer", *names]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for case, peers in found.items():
        if "pairx" not in peers:
            continue
        own = peers["pairx"]
        others = {n: peers[n].fastest / own.fastest for n in names if n in peers}
        best = min(others.items(), key=lambda item: item[1], default=None)
        product = f"{own.fastest / peers['matmul'].fastest:.1f}" if "matmul" in peers else ""
        cells = [case, shown(own.fastest), product, f"{own.spread:.2f}", "" if best is None else f"{best[0]} {best[1]:.1f}x"]
        lines.append("| " + " | ".join([*cells, *(f"{others[n]:.1f}x" if n in others else "" for n in names)]) + " |")
    return lines


def loss_rows(found: dict[str, dict[str, Figure]]) -> list[str]:
    """Time and peak of each loss, and each peer's beside them."""
    names = list(dict.fromkeys(i for peers in found.values() for i in peers if i != "pairx"))
    head = ["loss", "pairx", "peak", "spread", *names]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for case, peers in found.items():
        if "pairx" not in peers:
            continue
        own = peers["pairx"]
        others = (f"{peers[n].fastest / own.fastest:.1f}x, {size(peers[n].peak)}" if n in peers else "" for n in names)
        lines.append("| " + " | ".join([case, shown(own.fastest), size(own.peak), f"{own.spread:.2f}", *others]) + " |")
    return lines


def size(count: int | None) -> str:
    """Bytes, for people."""
    if count is None:
        return "?"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def shown(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def processor(machine: dict[str, Any]) -> str:
    """What pytest-benchmark says of it."""
    cpu = machine.get("cpu", {})
    name = cpu.get("brand_raw") or machine.get("processor") or "unknown processor"
    return f"{name} (family {cpu['family']}, model {cpu['model']})" if {"family", "model"} <= set(cpu) else str(name)


def page(paths: list[Path]) -> str:
    """The whole page: machine by machine, as the folders come."""
    text = [
        "# pairx and its peers",
        "",
        "Written by `nox -s peers`. Fastest of 3 to 15 calls (of one where it takes more than 5 seconds), all in one process; a peer's",
        'figure is its time over ours, so above 1x pairx is faster; "spread" is our median over our fastest.',
        "",
        'Distances: the yardstick is NumPy\'s matrix product of the same shape and dtype. "Self" is one set with itself, "gradient" is',
        "forward and backward for both sides (pairx on PyTorch tensors).",
        "",
        'Losses: forward and backward on PyTorch tensors, float32, 128 features. "Peak" is what a call takes above its inputs and',
        'gradients (memray). "direct" is the formula as people write it, with the whole matrix (for triplets: every triplet listed).',
    ]
    for folder in dict.fromkeys(p.parent for p in paths):
        records = [(p, json.loads(p.read_text())) for p in paths if p.parent == folder]
        machine = records[0][1]["machine_info"]
        text += ["", f"## {processor(machine)}"]
        text += ["", ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + "."]
        for path, whole in records:
            threads, commit = whole["benchmarks"][0]["extra_info"]["threads"], whole["commit_info"]
            text += ["", f"### {threads} thread{'s' * (threads > 1)}"]
            text += ["", f"Commit {commit['id'][:7]} of {commit['time'][:16].replace('T', ', ')}."]
            for title, lines in (("Distances", rows(read(path))), ("Losses", loss_rows(read(path, losses=True)))):
                if len(lines) > 2:
                    text += ["", f"#### {title}", "", *lines]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    print(page([Path(p) for p in sys.argv[1:]]), end="")
