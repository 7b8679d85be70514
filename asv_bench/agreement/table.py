"""``python table.py agreement.json``: the report as a page of Markdown."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
DTYPES = ("float64", "float32", "float16", "bfloat16")
GOOD = ("finite", "inf as exact")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of Markdown."""
    head = list(head)
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *map(list, rows))]


def grouped(rows: list[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows that share those keys."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[k] for k in keys)].append(row)
    return found


def shown(value: float | None) -> str:
    """A relative difference."""
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def distances(rows: list[Row]) -> list[str]:
    """The worst of all libraries and engines for each metric and dtype; and of all metrics for each library and engine."""
    got = [r for r in rows if r["error"] is not None]
    by_metric, by_engine = grouped(got, "operation", "metric", "dtype"), grouped(got, "backend", "engine", "dtype")

    def worst(found: list[Row] | None) -> str:
        if not found:
            return ""
        top = max(found, key=lambda r: r["error"])
        return f"{shown(top['error'])} ({top['backend']} {top['engine']})" if top["error"] else "0"

    def share(found: list[Row] | None) -> str:
        return f"{max(r['error'] / r['allowed'] for r in found):.0%}" if found else ""

    metrics, engines = dict.fromkeys(k[:2] for k in by_metric), dict.fromkeys(k[:2] for k in by_engine)
    text = ["## Distances, kernels, similarities", "", "The largest relative error, and where it is.", ""]
    text += table(
        ("operation", "metric", *DTYPES), ((op, f"`{m}`", *(worst(by_metric.get((op, m, t))) for t in DTYPES)) for op, m in metrics)
    )
    text += ["", "The largest of each library and engine, as a share of what the tests allow.", ""]
    text += table(
        ("library", "engine", "metrics", *DTYPES),
        (
            (b, e, str(len({(r["operation"], r["metric"]) for r in got if (r["backend"], r["engine"]) == (b, e)})),
             *(share(by_engine.get((b, e, t))) for t in DTYPES))
            for b, e in engines
        ),
    )  # fmt: skip
    return text


def losses(rows: list[Row]) -> list[str]:
    """Value / gradient of each loss on each library; of halves, which are rounded float32, the largest alone."""
    there = [lib for lib in dict.fromkeys(r["library"] for r in rows) if any(r["value"] is not None for r in rows if r["library"] == lib)]
    text = ["## Losses", "", "Value / gradient: the largest difference, relative to the largest number of the exact answer."]
    cells = {(r["loss"], r["library"], r["dtype"]): r for r in rows}
    names = list(dict.fromkeys(r["loss"] for r in rows))
    for dtype in ("float64", "float32"):
        body = []
        for name in names:
            found = (cells[name, lib, dtype] for lib in there)
            body.append((f"`{name}`", *(" / ".join(filter(None, (shown(r["value"]), shown(r["gradient"])))) for r in found)))
        text += ["", f"### {dtype}", "", *table(("loss", *there), body)]

    def worst(lib: str, dtype: str, what: str) -> str:
        found = [r for r in rows if (r["library"], r["dtype"]) == (lib, dtype) and r[what] is not None]
        top = max(found, key=lambda r: r[what], default=None)
        return "" if top is None else f"{shown(top[what])} (`{top['loss']}`)"

    columns = [(dtype, what) for dtype in DTYPES[2:] for what in ("value", "gradient")]
    body = [(lib, *(worst(lib, *column) for column in columns)) for lib in there]
    return [*text, "", "### The largest in half precision", "", *table(("library", *(" ".join(c) for c in columns)), body)]


def edges(rows: list[Row]) -> list[str]:
    """How many losses end in what, for each edge and library; and by name what is not finite."""
    there = [b for b in dict.fromkeys(r["backend"] for r in rows) if any(r["outcome"] for r in rows if r["backend"] == b)]
    cells = grouped(rows, "case", "backend")

    def counted(found: list[Row]) -> str:
        words = [r["outcome"] if r["outcome"] in (None, *GOOD) else "not as it should be" for r in found]
        if None in words:
            return found[0]["reason"]
        return ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys((*GOOD, *words)) if w in words)

    text = [
        "## Edges",
        "",
        "Losses by outcome, float32 where the case names no other dtype; values and gradients. *Finite*: the value is right and the",
        "gradient finite. *Inf as exact*: the exact value is beyond the dtype, the answer is inf, and the gradient has no NaN.",
        "",
        *table(("case", *there), ((case, *(counted(cells[case, b]) for b in there)) for case in dict.fromkeys(r["case"] for r in rows))),
    ]
    odd = grouped([r for r in rows if r["outcome"] not in (None, "finite")], "outcome", "case", "loss")
    if odd:
        text += ["", "Which are not finite:", ""]
        text += [f"- `{n}`, {case}: {word} ({', '.join(r['backend'] for r in found)})" for (word, case, n), found in sorted(odd.items())]
    return text


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    out = ("not installed", "left out of this run")
    absent = {r["backend"]: r["reason"] for r in report["distances"] if r["error"] is None and r["reason"] in out}
    text = [
        "# Agreement",
        "",
        f"Written by `nox -s agreement` ({report['machine']}, {report['date']}): every row of the tables of metrics and losses on every",
        "library, from the inputs and references of the tests. Distances are compared with 50 digits of mpmath. The values of losses are",
        "compared with NumPy in float64, written in plain loops; their gradients with the median of the libraries' own in float64, which",
        "the tests compare with finite differences. Inputs are rounded to the dtype first, so what is left is the error of the call.",
        "Errors of distances are relative to the result, or to the terms whose difference it is (a cosine's: to 1).",
        "",
        f"{', '.join(f'{k} {v}' for k, v in report['versions'].items())}." + "".join(f" {name}: {why}." for name, why in absent.items()),
        "",
        *distances(report["distances"]),
        "",
        *losses(report["losses"]),
        "",
        *edges(report["edges"]),
    ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
