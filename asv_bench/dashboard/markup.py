"""Elements, tables, panels: HTML and SVG as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .results import Machine, Record

Html = str
EMPTY = ("path", "rect", "circle", "i")
"""Elements that are written without content."""


def el(name: str, content: Html = "", /, **attributes: object) -> Html:
    """An element; ``class_`` and the like end in ``_``, numbers are rounded, values are escaped, and content is not."""
    told = ""
    for key, value in attributes.items():
        if value is not None and value is not False:
            text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
            told += f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"'
    if not content and name in EMPTY[:3]:
        return f"<{name}{told}/>"
    return f"<{name}{told}>{content}</{name}>"


def gap(text: str) -> Html:
    """Results that are missing, in words."""
    return el("p", escape(text), class_="gap")


def table(head: Sequence[Html], rows: Sequence[Sequence[Html]], *, filtered: bool = False, wide: bool = False, label: str = "") -> Html:
    """Cells are HTML; the first of each row is its head."""
    top = "".join(el("th", h, scope="col") for h in head)
    body = "".join(el("tr", el("th", r[0], scope="row") + "".join(el("td", c) for c in r[1:])) for r in rows)
    inner = el("thead", el("tr", top)) + el("tbody", body)
    made = el("table", inner, data_filter="" if filtered else None, class_="wide" if wide else None)
    return el("div", made, class_="scroll", tabindex=0, role="region", aria_label=label or head[0])


def folded(summary: str, body: Html) -> Html:
    """What is opened by who wants to see it."""
    return el("details", el("summary", escape(summary)) + body)


def note(text: Html) -> Html:
    """A remark."""
    return el("p", text, class_="note")


def panels(
    machines: Sequence[Machine],
    make: Callable[[Machine], Html | None],
    missing: str,
    record: Callable[[Machine], Record | None] = lambda m: None,
    *,
    narrow: bool = False,
) -> Html:
    """What each machine has, side by side; ``missing`` where none has anything.

    ``record``: where the figures come from, whose commit and date are shown; ``narrow``: three fit beside each other.
    """
    made = {m.name: (m, found) for m in machines if (found := make(m))}
    if not made:
        return gap(missing)
    shown = (
        el("div", el("h3", f"{escape(m.cpu)} <small>{escape(name)}{origin(record(m))}</small>") + found, class_="panel")
        for name, (m, found) in made.items()
    )
    without = [m.name for m in machines if m.name not in made]
    kind = f"panels n{min(len(made), 3 if narrow else 2)}"
    return el("div", "".join(shown), class_=kind) + (gap(f"{', '.join(without)}: {missing}") if without else "")


def when(record: Record) -> str:
    """A record's day and minute, or ?."""
    return str(record.get("date") or "?")[:16].replace("T", " ")


def origin(record: Record | None) -> Html:
    """A record's day and commit, which tell old figures from new ones."""
    return "" if record is None else f"<br>measured on {escape(when(record)[:10])}, commit {escape(str(record.get('commit') or '?')[:8])}"
