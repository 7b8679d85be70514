"""The files in ``results/<machine>/`` as values. What is not there is empty or None, never 0."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import exp, log
from pathlib import Path
from typing import Any

from peers.table import processor

Record = dict[str, Any]
OURS, YARDSTICK = "pairx", "matmul"


@dataclass(frozen=True)
class Timing:
    """What was measured of one implementation of one case."""

    fastest: float
    median: float
    peak: int | None = None
    """Bytes above inputs and gradients."""


@dataclass(frozen=True)
class Ratio:
    """A peer's time over ours."""

    value: float
    """Fastest over fastest."""
    low: float
    high: float
    """The peer's fastest over our median, and its median over our fastest."""


@dataclass(frozen=True)
class Peers:
    """One run of ``nox -s peers``: case -> implementation -> timing."""

    threads: int
    head: Record
    distances: dict[str, dict[str, Timing]]
    losses: dict[str, dict[str, Timing]]

    @property
    def cases(self) -> dict[str, dict[str, Timing]]:
        return {**self.distances, **self.losses}


@dataclass(frozen=True)
class Bench:
    """One benchmark of asv at the newest commit that has it: values by its parameters."""

    name: str
    unit: str
    params: tuple[str, ...]
    values: dict[tuple[str, ...], float]
    commit: str
    date: int


@dataclass(frozen=True)
class Machine:
    """Everything from one folder."""

    name: str
    peers: dict[int, Peers] = field(default_factory=dict)
    growth: dict[int, Record] = field(default_factory=dict)
    support: Record | None = None
    agreement: Record | None = None
    about: Record = field(default_factory=dict)
    """asv's description of the machine."""
    benches: dict[str, Bench] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    """That asv measured, oldest first."""

    @property
    def main(self) -> Peers | None:
        """The run on the fewest threads: what figures are quoted from."""
        return self.peers[min(self.peers)] if self.peers else None

    @property
    def cpu(self) -> str:
        for head in (*(p.head for p in self.peers.values()), *self.growth.values(), self.support or {}):
            if head.get("cpu"):
                return str(head["cpu"])
        return str(self.about.get("cpu") or self.name)


def ratio(peer: Timing, own: Timing) -> Ratio:
    """How many times as long a peer takes, and within what bounds."""
    return Ratio(peer.fastest / own.fastest, peer.fastest / own.median, peer.median / own.fastest)


def ratios(peers: dict[str, Timing]) -> dict[str, Ratio]:
    """Of each peer of one case, without the yardstick; empty where ours is missing."""
    own = peers.get(OURS)
    return {} if own is None else {n: ratio(t, own) for n, t in peers.items() if n not in (OURS, YARDSTICK)}


def read_peers(path: Path) -> Peers | None:
    """What pytest-benchmark wrote; None if it holds no benchmark."""
    record = json.loads(path.read_text(encoding="utf-8"))
    distances: dict[str, dict[str, Timing]] = {}
    losses: dict[str, dict[str, Timing]] = {}
    threads = None
    for b in record["benchmarks"]:
        info, stats = b["extra_info"], b["stats"]
        threads = info["threads"]
        found = losses if "peak_bytes" in info else distances
        found.setdefault(info["case"], {})[info["implementation"]] = Timing(stats["min"], stats["median"], info.get("peak_bytes"))
    if threads is None:
        return None
    machine, commit = record.get("machine_info", {}), record.get("commit_info", {})
    head = {
        "cpu": processor(machine), "processors": (machine.get("cpu") or {}).get("count"),
        "system": f"{machine.get('system', '?')} {machine.get('machine', '')}",
        "date": record.get("datetime"), "commit": commit.get("id", "") + ("+" if commit.get("dirty") else ""),
        "versions": machine.get("versions") or {}, **({"gpus": machine["gpus"]} if "gpus" in machine else {}),
    }  # fmt: skip
    return Peers(threads, head, distances, losses)


def read_asv(folder: Path, described: Record) -> tuple[dict[str, Bench], tuple[str, ...]]:
    """asv's files of one machine (its format 2): for each benchmark the newest values, and all commits that were measured."""
    found: dict[str, Bench] = {}
    dates: dict[str, int] = {}
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "result_columns" not in record:
            continue
        commit, date = record["commit_hash"], record["date"]
        dates[commit] = date
        for name, row in record["results"].items():
            columns = dict(zip(record["result_columns"], row, strict=False))
            about = described.get(name, {})
            count = len(columns.get("params") or [])  # an older result may have fewer: new parameters come last
            names = tuple(about.get("param_names") or (f"parameter {i}" for i in range(count)))[:count]
            keys = [tuple(p.strip("'\"") for p in case) for case in product(*(columns.get("params") or []))]
            values = {k: v for k, v in zip(keys, columns.get("result") or [], strict=False) if isinstance(v, int | float) and v == v}
            last = found.get(name)
            if last is not None and last.commit == commit:
                values = {**last.values, **values}
            if values and (last is None or last.date <= date):
                found[name] = Bench(name, about.get("unit", "seconds"), names, values, commit, date)
    return found, tuple(sorted(dates, key=lambda c: dates[c]))


def read_machine(folder: Path, described: Record) -> Machine:
    """One folder."""

    def load(name: str) -> Record | None:
        path = folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    peers = [p for path in folder.glob("peers-*.json") if (p := read_peers(path)) is not None]
    growth = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("growth-*.json")]
    benches, commits = read_asv(folder, described)
    return Machine(
        folder.name,
        peers={p.threads: p for p in sorted(peers, key=lambda p: p.threads)},
        growth={g["threads"]: g for g in sorted(growth, key=lambda g: g["threads"])},
        support=load("support.json"),
        agreement=load("agreement.json"),
        about=load("machine.json") or {},
        benches=benches,
        commits=commits,
    )


def read(results: Path) -> list[Machine]:
    """All machines, those with the most to show first."""
    path = results / "benchmarks.json"
    described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = [read_machine(p, described) for p in sorted(results.iterdir()) if p.is_dir()] if results.is_dir() else []
    return sorted(found, key=lambda m: -sum(len(p.cases) for p in m.peers.values()))


@dataclass(frozen=True)
class Curve:
    """One implementation of one thing that grows: its points, and why it stops."""

    name: str
    seconds: list[tuple[int, float]]
    peak: list[tuple[int, int]]
    reason: str | None


def curves(record: Record) -> dict[str, list[Curve]]:
    """What grows -> the curves, ours first."""
    found: dict[str, dict[str, list[Record]]] = {}
    for row in record["rows"]:
        found.setdefault(row["growth"], {}).setdefault(row["implementation"], []).append(row)
    made: dict[str, list[Curve]] = {}
    for title, by_name in found.items():
        for name, rows in sorted(by_name.items(), key=lambda item: item[0] != OURS):
            made.setdefault(title, []).append(
                Curve(
                    name,
                    [(r["n"], r["seconds"]) for r in rows if r["seconds"]],
                    [(r["n"], r["peak_bytes"]) for r in rows if r["peak_bytes"]],
                    next((f"n = {r['n']}: {r['reason']}" for r in rows if r.get("reason")), None),
                )
            )
    return made


def crossing(ours: Iterable[tuple[int, float]], theirs: Iterable[tuple[int, float]]) -> tuple[float, float, bool] | None:
    """Where two curves meet, by lines between logarithms: n, the value, and whether ours is the lower one after it; the last such place."""
    own, other = dict(ours), dict(theirs)
    common = sorted(set(own) & set(other))
    found = None
    for a, b in pairwise(common):
        before, after = log(other[a] / own[a]), log(other[b] / own[b])
        if (before < 0) != (after < 0):
            part = before / (before - after)
            n, value = (exp(log(u) + part * (log(v) - log(u))) for u, v in ((a, b), (own[a], own[b])))
            found = (n, value, after > 0)
    return found
