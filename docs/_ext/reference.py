"""The pages of the API, one for each public name, from the docstrings. A new name appears by itself."""

from __future__ import annotations

from pathlib import Path

import pairx
import pairx.testing
from pairx.losses import LOSSES
from pairx.mining import MINERS

GROUPS = {
    "Distances and kernels": ("cdist", "pdist", "paired", "squareform", "gram", "similarity"),
    "Norms and products": ("vector_norm", "matrix_norm", "pairwise_matrix_norm", "batch_dot"),
    "Plans and options": ("explain", "options", "Plan"),
    "Tables": ("METRICS", "KERNELS", "Metric"),
    "Backends": ("backends", "Backend"),
}


def names() -> dict[str, dict[str, list[str]]]:
    """Page -> heading -> full names. What no group names stands in the last."""
    known = {n for group in GROUPS.values() for n in group}
    rest = [n for n in pairx.__all__ if n not in known and n != "__version__"]
    top = {head: [f"pairx.{n}" for n in group] for head, group in {**GROUPS, **({"More": rest} if rest else {})}.items()}
    families: dict[str, list[str]] = {}
    for row in LOSSES.values():
        families.setdefault(row.family.capitalize(), []).append(f"pairx.losses.{row.name}")
    rest = [n for n in pairx.losses.__all__ if n not in LOSSES]
    families["In a framework's own clothes, a memory, and the table"] = [f"pairx.losses.{n}" for n in rest]
    mining: dict[str, list[str]] = {}
    for miner in MINERS.values():
        head = "From embeddings" if miner.embeddings else "From labels alone"
        mining.setdefault(head, []).append(f"pairx.mining.{miner.name}")
    mining["The table"] = ["pairx.mining.MINERS", "pairx.mining.Miner"]
    testing = {"For backends": [f"pairx.testing.{n}" for n in ("Library", "Case", "cases")]}
    return {"pairx": top, "losses": families, "mining": mining, "testing": testing}


DATA = {
    "pairx.METRICS": "Name -> :class:`pairx.Metric`: :doc:`all distances </metrics>`.",
    "pairx.KERNELS": "Name -> :class:`pairx.Metric`: the kernels of :func:`pairx.gram`.",
    "pairx.losses.LOSSES": "Name -> :class:`pairx.losses.Loss`: :doc:`all losses </losses>`.",
    "pairx.mining.MINERS": "Name -> :class:`pairx.mining.Miner`.",
}
"""Tables of the project, which have no docstring of their own."""
TITLES = {
    "pairx": ("pairx", "Distances, norms, products; plans; what is known about metrics and backends."),
    "losses": ("pairx.losses", "Formulas, edges and costs stand in :doc:`the table of losses </losses>`."),
    "mining": ("pairx.mining", "Who is worth comparing with whom: masks, lists of pairs, triplets."),
    "testing": ("pairx.testing", "The conformance suite that a backend has to pass: :doc:`/extend/backend`."),
}


def write(folder: Path) -> None:
    """The pages as reStructuredText; autosummary writes one more for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {name for groups in names().values() for group in groups.values() for name in group}
    for path in (folder / "all").glob("*.rst"):  # what an earlier build wrote for a name that is gone
        if path.stem not in known:
            path.unlink()
    for page, groups in names().items():
        title, about = TITLES[page]
        text = f"{title}\n{'=' * len(title)}\n\n{about}\n\n.. currentmodule:: {title}\n\n"
        for head, full in groups.items():
            listed = "\n".join(f"   {n.rpartition('.')[2]}" for n in full if n not in DATA)
            text += f"{head}\n{'-' * len(head)}\n\n"
            text += "".join(f".. py:data:: {n.rpartition('.')[2]}\n\n   {DATA[n]}\n\n" for n in full if n in DATA)
            text += f".. autosummary::\n   :toctree: all\n\n{listed}\n\n"
        path = folder / f"{page}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
