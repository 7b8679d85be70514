"""Write the tables of the docs from the tables of the code: ``python docs/tables.py``. A test says when they differ."""

from __future__ import annotations

import re
from pathlib import Path

from pairx.formulas import plain
from pairx.losses import LOSSES
from pairx.mining import MINERS

HERE = Path(__file__).parent


def losses() -> str:
    """Each family's losses: formula, what has a value under ``reduction="none"``, what the mean divides by, source."""
    families: dict[str, list[str]] = {}
    for row in LOSSES.values():
        cells = (f"`{row.name}`", f"`{plain(row.formula)}`", row.unit, row.mean, row.source)
        families.setdefault(row.family, []).append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    head = "| loss | formula | unit | the mean divides by the number of | source |\n| --- | --- | --- | --- | --- |\n"
    return "\n\n".join(f"### {family.capitalize()}\n\n{head}" + "\n".join(rows) for family, rows in families.items())


def miners() -> str:
    """Each miner, what it answers, and its source."""
    words = {"pairs": "pairs", "two pairs": "positive pairs, negative pairs", "triplets": "triplets", "mask": "a mask (m, n)"}
    head = "| miner | looks at | answers | what it takes |\n| --- | --- | --- | --- |\n"
    looks = {True: "embeddings and labels", False: "labels"}
    return head + "\n".join(f"| `{r.name}` | {looks[r.embeddings]} | {words[r.answers]} | {r.source} |" for r in MINERS.values())


PAGES = {"losses.md": {"losses": losses, "miners": miners}}


def filled(page: str, text: str) -> str:
    """A page with its tables: what stands between ``<!-- table: name -->`` and ``<!-- end -->``."""
    for name, table in PAGES[page].items():
        mark = f"<!-- table: {name} -->"
        text = re.sub(rf"{mark}.*?<!-- end -->", lambda _, mark=mark, table=table: f"{mark}\n{table()}\n<!-- end -->", text, flags=re.S)
    return text


if __name__ == "__main__":
    for name in PAGES:
        path = HERE / name
        path.write_text(filled(name, path.read_text(encoding="utf-8")), encoding="utf-8")
