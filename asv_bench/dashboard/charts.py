"""Values -> marks. Ratios are lanes of HTML, which wrap on a phone; curves are SVG, small enough to be read there at their own size.

Colours and shapes are classes (``s0`` ...), so that the style sheet of the page and that of a picture give light and dark ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from peers.table import shown, size

from .markup import Html, el
from .results import OURS, Curve, Ratio, crossing

SERIES = (OURS, "scipy", "sklearn", "torch.cdist", "torch.compile", "jax.jit", "faiss", "numkong", "direct", "pytorch-metric-learning")
NAMES = {"scipy": "SciPy", "sklearn": "scikit-learn", "direct": "direct formula", "matmul": "matrix product"}
"""Names for people, where they differ."""


def series(name: str) -> str:
    """The class of an implementation: its own, or one by its letters if nobody has given it one."""
    return f"s{SERIES.index(name) if name in SERIES else 1 + sum(name.encode()) % (len(SERIES) - 1)}"


def called(name: str) -> str:
    """An implementation, for people."""
    return NAMES.get(name, name)


def times(value: float) -> str:
    """A ratio: 0.52x, 2.1x, 231x."""
    return f"{value:.2f}×" if value < 1 else f"{value:.1f}×" if value < 99.5 else f"{value:.0f}×"


def decades(values: Iterable[float], least: tuple[float, float] = (0.5, 2.0)) -> tuple[float, float]:
    """Bounds of a log axis around values, with some air."""
    found = [*values, *least]
    return min(found) / 1.25, max(found) * 1.25


def ticks(low: float, high: float) -> list[float]:
    """Round numbers of a log axis: powers of ten, with 2 and 5 between them if they are few."""
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    found = [p for p in powers if low <= p <= high]
    return found if len(found) > 2 else [p * f for p in powers for f in (1, 2, 5) if low <= p * f <= high]


def part(value: float, low: float, high: float) -> float:
    """Where a value stands on a log axis, from 0 to 1."""
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


# --- lanes ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A dot on a lane, with the bar of its spread."""

    series: str
    ratio: Ratio
    title: str
    strong: bool = False


@dataclass(frozen=True)
class Lane:
    """One row: what it is about, its marks, and what stands at its end (HTML)."""

    what: str
    detail: str
    marks: Sequence[Mark]
    end: str = ""


def lanes(rows: Sequence[Lane], label: str, left: str, right: str) -> Html:
    """Rows of ratios on one log axis with a line at 1; ``left`` and ``right`` say what lies on either side of it."""
    low, high = decades(v for row in rows for m in row.marks for v in (m.ratio.low, m.ratio.high))

    def at(value: float) -> str:
        return f"{100 * part(value, low, high):.2f}%"

    scale, grid = "", []
    for t in sorted({*ticks(low, high), 1.0}):
        scale += el("span", f"{t:g}×", class_="one" if t == 1 else None, style=f"left:{at(t)}")
        colour, width = ("one", 2) if t == 1 else ("line", 1)
        grid.append(f"linear-gradient(var(--{colour}) 0 0) {at(t)} 0/{width}px 100% no-repeat")
    axis = _row("", scale, kind="axis", lane="scale")
    sides = _row("", el("span", escape(left)) + el("span", escape(right)), kind="sides", at=at(1.0))
    found = [sides, axis]
    for row in rows:
        marks = ""
        for m in row.marks:
            width = 100 * (part(m.ratio.high, low, high) - part(m.ratio.low, low, high))
            marks += el("i", class_=series(m.series), style=f"left:{at(m.ratio.low)};width:{width:.2f}%")
            marks += el("b", class_=series(m.series) + " strong" * m.strong, style=f"left:{at(m.ratio.value)}", title=m.title)
        found.append(_row(f"{escape(row.what)} {el('small', escape(row.detail)) if row.detail else ''}", marks, row.end))
    return el("div", "\n".join([*found, axis]), class_="lanes", role="group", aria_label=label, style=f"--grid:{','.join(grid)}")


def _row(what: Html, inside: Html, end: Html = "", kind: str = "", lane: str = "", at: str | None = None) -> Html:
    cells = (
        el("div", what, class_="what")
        + el("div", inside, class_=f"lane {lane}".strip(), style=at and f"--at:{at}")
        + el("div", end, class_="end")
    )
    return el("div", cells, class_=f"row {kind}".strip(), aria_hidden="true" if kind else None)


def legend(names: Iterable[str]) -> Html:
    """Which mark is whose."""
    return el("p", " ".join(el("span", el("b", class_=series(n)) + escape(called(n))) for n in names), class_="legend")


# --- curves ---------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 430, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 122, 14, 42
Points = Sequence[tuple[int, float]]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights of labels as near as may be to those wanted, ``gap`` from each other, between two bounds."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    found = [0.0] * len(wanted)
    last = low - gap
    for i in order:
        last = found[i] = max(wanted[i], last + gap)
    last = high + gap
    for i in reversed(order):
        last = found[i] = min(found[i], last - gap)
    return found


@dataclass(frozen=True)
class Frame:
    """Where values stand in a chart of two log axes."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, points: Sequence[tuple[int, float]]) -> Frame:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        low, high = min(ys) / 1.4, max(ys) * 1.4
        if high / low < 10:  # nearly flat: noise should not look like growth
            low, high = low / 2, high * 2
        return cls(min(xs), max(max(xs), 2 * min(xs)), low, high)

    def x(self, n: float) -> float:
        return LEFT + part(n, self.first, self.last) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - part(value, self.low, self.high) * (HEIGHT - TOP - BOTTOM)


Drawn = Sequence[tuple[Curve, Points]]


def curve_chart(
    curves: Sequence[Curve],
    points: Callable[[Curve], Points],
    unit: Callable[[float], str],
    label: str,
    at: tuple[float, float] | None = None,
) -> Html:
    """Curves on two log axes, ours strong, with the places where a peer's crosses ours marked; ``at``: inside another SVG."""
    drawn = [(c, points(c)) for c in curves if points(c)]
    frame = Frame.around([point for _, p in drawn for point in p])
    out = [*_axes(frame, sorted({n for _, p in drawn for n, _ in p}), unit)]
    for c, p in reversed(drawn):  # ours last, on top
        out.append(el("path", class_=f"curve {series(c.name)}", d="M" + "L".join(f"{frame.x(n):.1f} {frame.y(v):.1f}" for n, v in p)))
        for n, v in p:
            told = el("title", escape(f"{called(c.name)}, n = {n}: {unit(v)}"))
            out.append(el("circle", told, class_=series(c.name), cx=frame.x(n), cy=frame.y(v), r=3))
    out += [*_crossings(frame, drawn), *_names(frame, drawn)]
    place = {} if at is None else {"x": at[0], "y": at[1], "width": WIDTH, "height": HEIGHT}
    return el("svg", "\n".join(out), viewBox=f"0 0 {WIDTH} {HEIGHT}", **place, role="img", aria_label=label)


def _axes(frame: Frame, sizes: Sequence[int], unit: Callable[[float], str]) -> Iterable[Html]:
    for t in ticks(frame.low, frame.high):
        yield el("path", class_="grid", d=f"M{LEFT} {frame.y(t):.1f}H{WIDTH - RIGHT}")
        yield el("text", escape(unit(t)), class_="tick", x=LEFT - 7, y=frame.y(t) + 4, text_anchor="end")
    for n in sizes:
        yield el("path", class_="grid", d=f"M{frame.x(n):.1f} {HEIGHT - BOTTOM}v4")
        yield el("text", str(n), class_="tick", x=frame.x(n), y=HEIGHT - BOTTOM + 18, text_anchor="middle")
    yield el("text", "n", class_="tick", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle")


def _crossings(frame: Frame, drawn: Drawn) -> Iterable[Html]:
    """A ring and its n; below and to the right of it there is room, since curves rise."""
    ours = next((p for c, p in drawn if c.name == OURS), ())
    met = [(c, found) for c, p in drawn if c.name != OURS and (found := crossing(ours, p)) is not None]
    heights = apart([frame.y(v) + 18 for _, (_, v, _) in met], 14, TOP + 8, HEIGHT - BOTTOM - 4)
    for (c, (n, v, wins)), height in zip(met, heights, strict=True):
        told = f"{called(c.name)} crosses at n = {n:.0f}: from here on pairx is the {'lower' if wins else 'higher'}"
        yield el("circle", el("title", escape(told)), class_="cross", cx=frame.x(n), cy=frame.y(v), r=7)
        yield el("text", f"n ≈ {n:.0f}", class_="note", x=frame.x(n) + 7, y=height)


def _names(frame: Frame, drawn: Drawn) -> Iterable[Html]:
    """Each curve's name at its end; a dotted line leads there from one that stops early, and says why."""
    heights = apart([frame.y(p[-1][1]) + 4 for _, p in drawn], 15, TOP + 8, HEIGHT - BOTTOM)
    for (c, p), y in zip(drawn, heights, strict=True):
        n, v = p[-1]
        yield el("text", escape(short(c.name)), class_=f"name {series(c.name)}", x=WIDTH - RIGHT + 8, y=y)
        if n != frame.last:
            way = f"M{frame.x(n) + 5:.1f} {frame.y(v):.1f}L{WIDTH - RIGHT + 4} {y - 4:.1f}"
            yield el(
                "path", el("title", escape(f"{called(c.name)}: {c.reason or 'no figure beyond'}")), class_=f"lead {series(c.name)}", d=way
            )


def short(name: str) -> str:
    """A name that fits beside a curve."""
    return {"pytorch-metric-learning": "pytorch-m.-l."}.get(name, called(name))


def round_size(value: float) -> str:
    """Bytes on an axis."""
    return size(int(value)).replace(".0 ", " ")


def round_time(value: float) -> str:
    """Seconds on an axis."""
    return shown(value).replace(".0 ", " ").replace(".00 ", " ").replace(" us", " µs")
