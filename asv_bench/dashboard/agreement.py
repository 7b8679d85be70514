"""The part of the page about agreement: how far each backend is from references in float64, and what it does at the edges."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from pairx.backend import entry_points

from .markup import Html, el, folded, gap, note, panels, table
from .results import Machine

Row = dict[str, Any]


def worst(rows: Sequence[Row], key: str) -> Html:
    """The largest relative error of some rows, or why there is none."""
    known = [r for r in rows if r.get(key) is not None]
    if not known:
        return el("span", escape(reason(rows)), class_="gap") if rows else "–"
    top = max(known, key=lambda r: r[key])
    told = ", ".join(f"{k} {v}" for k, v in top.items() if k in ("operation", "metric", "engine", "dtype", "allowed", "loss"))
    return el("span", f"{top[key]:.1e}", class_="behind" if exceeds(top, key) else None, title=told)


def reason(rows: Sequence[Row]) -> str:
    """Why nothing was compared."""
    return "; ".join(dict.fromkeys(str(r["reason"]) for r in rows if r.get("reason"))) or "not compared"


def exceeds(row: Row, key: str = "error") -> bool:
    """Whether an error is above what is allowed."""
    return row.get(key) is not None and row.get("allowed") is not None and row[key] > row["allowed"]


def compared(rows: Sequence[Row], down: Sequence[str], across: str, key: str, who: str) -> Html:
    """The largest errors as a table; a library without a single figure is no line of it, but a gap with its reason."""
    by_library: dict[str, list[Row]] = defaultdict(list)
    for r in rows:
        by_library[r[who]].append(r)
    without = {name: reason(found) for name, found in by_library.items() if all(r.get(key) is None for r in found)}
    without |= {name: "not in this record" for name in entry_points() if name not in (*by_library, "jaxlib")}
    cells: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for name, found in by_library.items():
        for r in found if name not in without else ():
            cells[tuple(str(r[d]) for d in down)][r[across]].append(r)
    columns = sorted({c for line in cells.values() for c in line})
    body = [[escape(", ".join(k)), *(worst(line[c], key) for c in columns)] for k, line in cells.items()]
    shown = table([", ".join(down), *map(escape, columns)], body, filtered=True) if body else ""
    return shown + (gap("; ".join(f"{name}: {why}" for name, why in without.items()) + ".") if without else "")


def verdict(rows: Sequence[Row]) -> Html:
    """The answer, in a sentence."""
    known = [r for r in rows if r.get("error") is not None and r.get("allowed") is not None]
    over = [r for r in known if exceeds(r)]
    libraries = len({r["backend"] for r in known})
    if not known:
        return gap("No figure stands beside what is allowed.")
    if not over:
        return el("p", f"Yes: all {len(known)} comparisons of distances on {libraries} backends are within what the tests allow.")
    named = ", ".join(dict.fromkeys(f"{r['metric']} on {r['backend']} ({r['engine']}, {r['dtype']})" for r in over))
    return el(
        "p", f"Not everywhere: {len(over)} of {len(known)} comparisons are above what the tests allow: {escape(named)}.", class_="behind"
    )


def edges(rows: Sequence[Row]) -> Html:
    """What each library does at each edge: counted, and case by case."""

    def said(row: Row) -> str:
        return str(row.get("outcome") or row.get("reason") or "not tried")

    libraries = list(dict.fromkeys(r["backend"] for r in rows))
    counts = Counter((said(r), r["backend"]) for r in rows)
    outcomes = list(dict.fromkeys(o for o, _ in counts))
    summary = [[escape(o), *(str(counts[o, b] or "–") for b in libraries)] for o in outcomes]
    cases: dict[str, dict[str, str]] = defaultdict(dict)
    for r in rows:
        cases[f"{r['loss']}, {r['case']}"][r["backend"]] = said(r)
    body = [[escape(case), *(escape(found.get(b, "–")) for b in libraries)] for case, found in cases.items()]
    columns = [escape(b) for b in libraries]
    return table(["outcome, in cases", *columns], summary) + folded(
        "Case by case", table(["loss, case", *columns], body, filtered=True, wide=True)
    )


def agreement(machines: Sequence[Machine]) -> Html:
    """All of it."""

    def one(machine: Machine) -> Html | None:
        record = machine.agreement
        if record is None:
            return None
        made = []
        if rows := record.get("distances"):
            by_metric = compared(rows, ("operation", "metric", "dtype"), "backend", "error", "backend")
            made += [
                verdict(rows),
                "<h4>Distances: largest relative error over all metrics</h4>",
                compared(rows, ("backend", "engine"), "dtype", "error", "backend"),
                folded("Metric by metric, over all engines", by_metric),
            ]
        if rows := record.get("losses"):
            for key in ("value", "gradient"):
                made += [
                    f"<h4>Losses, {key}: largest relative error over all losses</h4>",
                    compared(rows, ("library",), "dtype", key, "library"),
                    folded(f"Loss by loss: {key}", compared(rows, ("loss", "dtype"), "library", key, "library")),
                ]
        if rows := record.get("edges"):
            made += ["<h4>Edge cases of losses</h4>", edges(rows)]
        return "".join(made) + note("Point at a figure to see which case it is of.") if made else None

    return panels(machines, one, "not recorded: nox -s agreement compares all backends with references in float64.", lambda m: m.agreement)
