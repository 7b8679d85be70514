"""Write the tables of the docs from the tables of the code: ``python docs/tables.py``. A test says when they differ.

The site has them once more, ``rich``: with formulas that are set and names that lead to the reference.
"""

from __future__ import annotations

import re
from pathlib import Path

from pairx.formulas import plain
from pairx.losses import LOSSES, Loss
from pairx.metrics import KERNELS, METRICS, SIMILARITIES, Metric
from pairx.mining import MINERS

HERE = Path(__file__).parent


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """In Markdown; a bar in a cell is no border."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def formula(latex: str, rich: bool) -> str:
    """Set, or as plain text."""
    if not rich:
        return f"`{plain(latex)}`"
    bars = latex.replace(r"\|", r"\Vert ").replace("|", r"\vert ")  # a bar would end the cell
    return f"${bars}$"


# --- metrics ------------------------------------------------------------------------------------------------------------


def metric_edges(row: Metric) -> str:
    """Its gradient where a formula breaks; a test asks every library that differentiates."""
    if not row.differentiable:
        return "none: it counts"
    smooth = row.product == "dot" and row.scale is None  # a product of rows has no edge
    found = []
    if row.symmetric and row.scale == "row" and row.product != "dot":
        # Rows are normalised first; XLA may round equal ones differently, and a root makes much of the last bit.
        found.append("0 at equal rows (JAX: finite)")
    elif row.symmetric and not smooth:
        found.append("0 at equal rows")
    if row.scale == "row":
        found.append("0 at a zero row")
    if row.reduce == "max":
        found.append("ties share equally")
    return ", ".join(found) or ("no edges" if smooth else "finite")


def metric_cost(row: Metric) -> str:
    """What a call does, and what the array engine holds for one pair of rows with d features."""
    if row.product == "dot":
        work = "a matrix product"
    elif row.product:
        work = "a matrix product, or differences"
    else:
        work = "differences"
    return f"{work}; {row.buffers}\N{NO-BREAK SPACE}d"


def parameters(row: Metric) -> str:
    shown = [f"`{k}={v}`" for k, v in row.defaults.items() if k != "zero"]
    return ", ".join([*shown, *(["`w`"] if row.weights else [])])


def metrics(rich: bool = False) -> str:
    """Every metric, kernel and similarity."""
    parts = []
    for title, rows, call in (
        ("Distances", METRICS, "metric"),
        ("Kernels", KERNELS, "kernel"),
        ("Similarities", SIMILARITIES, "kind"),
    ):
        found: list[tuple[str, ...]] = []
        for row in rows.values():
            also = ", ".join(f"`{a}`" for a in row.aliases)
            engines = ", ".join(row.engines)
            if rich:
                about = "<br>".join(filter(None, (formula(row.formula, True), f"{{small}}`{row.source}`", parameters(row))))
                name = f"`{row.name}`" + (f"<br>{also}" if also else "")
                found.append((name, about, metric_edges(row), metric_cost(row), engines))
            else:
                plain_formula = formula(row.formula, False)
                found.append((f"`{row.name}`", also, plain_formula, parameters(row), metric_edges(row), metric_cost(row), engines))
        head = ("name", "formula, source, keywords", "gradient at the edges", "cost", "engines")
        if not rich:
            head = ("name", "also", "formula", "keywords", "gradient at the edges", "cost", "engines")
        parts.append(f"## {title}, `{call}=`\n\n{table(head, found)}")
    return "\n\n".join(parts)


# --- losses -------------------------------------------------------------------------------------------------------------

ROWS = "0 at equal or zero rows"
PROBABILITIES = "finite from logits; from probabilities wherever the loss is"
LOSS_EDGES = {
    **dict.fromkeys(("triplet rows", "labels", "positives", "views", "proxies", "centers", "only centers", "grid and mask"), ROWS),
    **dict.fromkeys(("rows and target", "two", "two views of a batch", "a batch"), ROWS),
    "matrices": "0 at equal matrices",
    **dict.fromkeys(("class probabilities", "class indices", "binary"), PROBABILITIES),
    "classes": "finite",
    "distributions": "finite wherever the loss is",
    "noise": "finite",
}
"""Kind of input -> its gradient where a formula breaks. A test asks with the edges that the losses are tested with."""


def loss_edges(row: Loss) -> str:
    return LOSS_EDGES[row.inputs] if row.differentiable else "none: it counts"


def loss_cost(row: Loss) -> str:
    if row.inputs == "matrices":
        return "one pass, or the singular values"
    if not row.pairs:
        return "one pass"
    return "features by features, in blocks" if row.inputs in ("two views of a batch", "a batch") else "all pairs, in blocks"


def losses(rich: bool = False) -> str:
    """Each family's losses: formula, what has a value under ``reduction="none"``, what the mean divides by, source."""
    families: dict[str, list[tuple[str, ...]]] = {}
    for row in LOSSES.values():
        found = families.setdefault(row.family, [])
        if rich:
            unit = f"{{small}}`unit: {row.unit}; the mean divides by the number of {row.mean}`"
            about = "<br>".join((formula(row.formula, True), unit, f"{{small}}`{row.source}`"))
            found.append((f"{{func}}`~pairx.losses.{row.name}`", about, loss_edges(row), loss_cost(row)))
        else:
            found.append((f"`{row.name}`", formula(row.formula, False), row.unit, row.mean, loss_edges(row), loss_cost(row), row.source))
    head: tuple[str, ...] = ("loss", "formula, unit, mean, source", "gradient at the edges", "cost")
    if not rich:
        head = ("loss", "formula", "unit", "the mean divides by the number of", "gradient at the edges", "cost", "source")
    contents = ", ".join(f"[{family}](#{family})" for family in families)
    return f"Families: {contents}.\n\n" + "\n\n".join(
        f"### {family.capitalize()}\n\n{table(head, rows)}" for family, rows in families.items()
    )


def miners(rich: bool = False) -> str:
    """Each miner, what it answers, and its source."""
    words = {"pairs": "pairs", "two pairs": "positive pairs, negative pairs", "triplets": "triplets", "mask": "a mask (m, n)"}
    looks = {True: "embeddings and labels", False: "labels"}
    rows = [(f"`{r.name}`", looks[r.embeddings], words[r.answers], r.source) for r in MINERS.values()]
    return table(("miner", "looks at", "answers", "what it takes"), rows)


PAGES = {"losses.md": {"losses": losses, "miners": miners}, "metrics.md": {"metrics": metrics}}


def filled(page: str, text: str, rich: bool = False) -> str:
    """A page with its tables: what stands between ``<!-- table: name -->`` and ``<!-- end -->``."""
    for name, make in PAGES[page].items():
        mark = f"<!-- table: {name} -->"
        text = re.sub(rf"{mark}.*?<!-- end -->", lambda _, mark=mark, make=make: f"{mark}\n{make(rich)}\n<!-- end -->", text, flags=re.S)
    return text


if __name__ == "__main__":
    for name in PAGES:
        path = HERE / name
        path.write_text(filled(name, path.read_text(encoding="utf-8")), encoding="utf-8")
