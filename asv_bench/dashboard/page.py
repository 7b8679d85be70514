"""The page: one file, readable without a script, with nothing to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from . import answers, facts, sections
from .agreement import agreement
from .markup import el
from .results import Machine

WEB = Path(__file__).parent / "web"


@dataclass(frozen=True)
class Section:
    """One part: its place in the menu, its question, and how to read the answer."""

    key: str
    short: str
    title: str
    lead: str
    make: Callable[[Sequence[Machine]], str]


SECTIONS = [
    Section("summary", "Summary", "How fast, library by library", "One dot for each case; the number is the median.", sections.summary),
    Section(
        "speed", "Distances", "How fast, case by case",
        "A dot is another library's fastest time over pairx's fastest, in the same run; right of the line at 1 pairx is faster. The bar "
        "reaches from its fastest over our median to its median over our fastest. At the end of a row stands the fastest other.",
        sections.speed,
    ),
    Section("behind", "Slower", "Where another library is faster", "Every case that somebody wins, the worst first.", sections.behind),
    Section(
        "losses", "Losses", "Losses: time and peak bytes",
        "Forward and backward on PyTorch tensors. Peak bytes are what a call takes above its inputs and gradients (memray).",
        sections.losses,
    ),
    Section(
        "growth", "Against n", "Time and peak bytes against n",
        "A ring marks where another library's curve crosses that of pairx.",
        sections.growth,
    ),
    Section(
        "threads", "Threads", "Two threads against one",
        "The time on one thread over the time on two, beside NumPy's matrix product: 2 would be perfect.",
        sections.threads,
    ),
    Section("gpu", "GPU", "On a GPU", "The same benchmarks where an accelerator is there.", facts.gpu),
    Section("support", "Support", "What runs where", "Asked of the code that decides, and run on a few flowers.", facts.support),
    Section(
        "agreement", "Agreement", "Do the backends agree?",
        "The largest relative difference from references in float64.",
        agreement,
    ),
    Section(
        "libraries", "Every backend", "Every benchmark on every backend",
        "asv's newest figures. What a backend cannot do, or was not asked, is a dash.",
        facts.libraries,
    ),
]  # fmt: skip


def page(machines: Sequence[Machine], *, found_regressions: list[list[Any]] | None = None, links: Sequence[tuple[str, str]] = ()) -> str:
    """The whole text of index.html; ``links``: (name, relative address) of what stands beside it."""
    parts = [
        *SECTIONS,
        Section(
            "regressions", "Regressions", "Regressions",
            "Steps upwards over the history of commits: of bytes by more than 2 %, of times by more than 20 %.",
            lambda m: facts.regressions(m, found_regressions),
        ),
        Section(
            "where", "Measured on", "Where it was measured",
            "Ratios drift by half on shared machines: look at the spread, and at several records.",
            facts.where,
        ),
    ]  # fmt: skip
    body = "\n".join(el("section", el("h2", escape(s.title)) + el("p", escape(s.lead)) + "\n" + s.make(machines), id=s.key) for s in parts)
    menu = "".join(el("a", escape(s.short), href=f"#{s.key}") for s in parts) + "".join(el("a", f"{escape(n)} ↗", href=u) for n, u in links)
    lead = "".join(el("p", escape(text), class_="answer") for text in answers.lead(machines))
    style, script = ((WEB / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pairx, measured</title>
<meta name="description" content="How fast and how large pairx is beside other libraries, what runs where, and whether it agrees.">
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>pairx, measured</h1>
{lead}
</header>
<nav aria-label="Sections"><div>{menu}</div></nav>
<main>
{body}
</main>
<footer>Written by <code>nox -s dashboard</code> from <code>asv_bench/results/</code>. Every figure comes from a file there.</footer>
<script>
{script}</script>
</body>
</html>
"""
