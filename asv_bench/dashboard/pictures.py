"""The SVG of the README, from the results in the repository: a card of its own, so that any background will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from . import answers
from .charts import HEIGHT, WIDTH, called, curve_chart, decades, part, round_size, ticks, times
from .markup import Html, el
from .results import OURS, Machine, Ratio, curves, ratios

LIGHT = {
    "card": "#ffffff", "ink": "#1b1f24", "soft": "#5b6470", "line": "#e4e1d9", "edge": "#d9d5cb", "s0": "#d2491c", "s1": "#2563a8",
    "s2": "#9a6b00", "s3": "#b3246d", "s4": "#d98324", "s5": "#17805f", "s6": "#6d4bb8", "s7": "#4b8fa8", "s8": "#2563a8", "s9": "#17805f",
}  # fmt: skip
DARK = {
    "card": "#1b1f23", "ink": "#e8e6e1", "soft": "#9aa3ad", "line": "#30363d", "edge": "#3a414a", "s0": "#ff7a45", "s1": "#6fb1ff",
    "s2": "#e0b04a", "s3": "#ff7fbb", "s4": "#ffb866", "s5": "#4fd1a5", "s6": "#b79bff", "s7": "#8fd3ea", "s8": "#6fb1ff", "s9": "#4fd1a5",
}  # fmt: skip
RULES = """
text { font: 13px ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--soft); }
.card { fill: var(--card); stroke: var(--edge); }
.title { font-size: 17px; font-weight: 650; fill: var(--ink); }
.what, .note { fill: var(--ink); }
.note, .name { font-weight: 600; }
.value { font-size: 12px; fill: var(--ink); font-weight: 600; }
.value tspan { font-weight: 400; }
.grid { stroke: var(--line); fill: none; }
.one { stroke: var(--soft); stroke-width: 1.5; }
.scipy { fill: var(--s1); }
.best { fill: var(--s6); }
.curve { stroke: var(--c); stroke-width: 2; fill: none; }
.curve.s0 { stroke-width: 3.2; }
.lead { stroke: var(--c); stroke-dasharray: 2 3; fill: none; }
circle, .name { fill: var(--c); }
.cross { fill: none; stroke: var(--ink); stroke-width: 1.6; }
"""


def style() -> Html:
    """Of a picture by itself, for light and dark."""
    light, dark = ("svg { " + " ".join(f"--{k}: {v};" for k, v in colours.items()) + " }" for colours in (LIGHT, DARK))
    own = "\n".join(f".s{i} {{ --c: var(--s{i}); }}" for i in range(10))
    return el("style", f"\n{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}{RULES}{own}\n")


def card(width: int, height: int, title: str, about: str, label: str, body: Sequence[Html], foot: str) -> Html:
    """A picture: its title, what it shows, and where that comes from."""
    inside = [
        style(), el("rect", class_="card", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=12),
        el("text", escape(title), class_="title", x=24, y=36), el("text", escape(about), x=24, y=58),
        *body, el("text", escape(foot), x=24, y=height - 18),
    ]  # fmt: skip
    size = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    return el("svg", "\n" + "\n".join(inside) + "\n", **size, role="img", aria_label=label) + "\n"


def source(machine: Machine, head: dict[str, object], count: int) -> str:
    """The line under a picture."""
    return f"{machine.cpu}, {answers.threads(count)}; commit {str(head.get('commit'))[:7]}, {str(head.get('date'))[:10]}"


SPEED_WIDTH, SPEED_LEFT, SPEED_RIGHT, SPEED_TOP, STEP = 860, 150, 230, 92, 38


def speed(machine: Machine) -> Html | None:
    """Bars: the time of SciPy and of the fastest other library over ours, metric by metric."""
    peers = machine.main
    if peers is None:
        return None
    found = [(answers.parts(c)[0], r) for c, p in answers.common(peers).items() if (r := ratios(p))]
    if not found:
        return None
    rows = sorted(found, key=lambda row: -min(v.value for v in row[1].values()))
    low, high = decades(v.value for _, r in rows for v in r.values())
    bottom = SPEED_TOP + STEP * len(rows)

    def x(value: float) -> float:
        return SPEED_LEFT + part(value, low, high) * (SPEED_WIDTH - SPEED_LEFT - SPEED_RIGHT)

    out = []
    for kind, told, left in (("scipy", "SciPy", SPEED_LEFT), ("best", "the fastest other library", SPEED_LEFT + 76)):
        out += [el("rect", class_=kind, x=left, y=70, width=12, height=8, rx=2), el("text", told, x=left + 18, y=79)]
    for t in sorted({*ticks(low, high), 1.0}):
        out.append(el("path", class_="one" if t == 1 else "grid", d=f"M{x(t):.1f} {SPEED_TOP}V{bottom}"))
        out.append(el("text", f"{t:g}×", x=x(t), y=bottom + 17, text_anchor="middle"))
    for i, (what, compared) in enumerate(rows):
        y = SPEED_TOP + i * STEP + 5
        out.append(el("text", escape(what), class_="what", x=SPEED_LEFT - 12, y=y + 17, text_anchor="end"))
        out += _bars(compared, x, y)
    about = (
        f"2000 × 2000 distances of 128 features, float32, {answers.threads(peers.threads)}: time of others over time of pairx (log scale)"
    )
    label = "Bars: time of SciPy and of the fastest other library over that of pairx"
    return card(SPEED_WIDTH, bottom + 62, "How fast", about, label, out, source(machine, peers.head, peers.threads))


def _bars(compared: dict[str, Ratio], x: Callable[[float], float], top: int) -> Iterator[Html]:
    """One or two bars, with what they say."""
    best = min(compared, key=lambda n: compared[n].value)
    names = [n for n in ("scipy", best) if n in compared][best == "scipy" :]
    for k, name in enumerate(names):
        value, y = compared[name].value, top + (14 * k if len(names) == 2 else 7)
        a, b = sorted((x(1.0), x(value)))
        yield el("rect", class_="scipy" if name == "scipy" else "best", x=a, y=y, width=max(b - a, 1.5), height=10, rx=2)
        said = "" if name == "scipy" else el("tspan", " " + escape(called(name)))
        yield el("text", times(value) + said, class_="value", x=b + 6, y=y + 9)


def memory(machine: Machine) -> Html | None:
    """Curves: peak bytes against n, of the two things in which a peer keeps the most beside ours."""
    if not machine.growth:
        return None
    count, record = next(iter(machine.growth.items()))
    kept = []
    for title, found in curves(record).items():
        own = next((dict(c.peak) for c in found if c.name == OURS), {})
        gains = [v / own[n] for c in found if c.name != OURS for n, v in c.peak if n in own]
        if gains:
            kept.append((max(gains), title, found))
    if not kept:
        return None
    kept = sorted(kept, key=lambda k: -k[0])[:2]
    body = []
    for i, (_, title, found) in enumerate(kept):
        left = 12 + i * (WIDTH + 4)
        body.append(el("text", escape(title), class_="what", x=left + 12, y=88))
        body.append(curve_chart(found, lambda c: c.peak, round_size, f"Peak bytes of {title}", at=(left, 94)))
    about = "Peak bytes above inputs and gradients (log scales). A curve ends where its next size would not fit in 3 GB."
    label = "Curves: peak bytes of a loss with its gradient against the size of the batch"
    return card(24 + len(kept) * (WIDTH + 4), HEIGHT + 140, "How much memory", about, label, body, source(machine, record, count))


def draw(machines: Sequence[Machine]) -> dict[str, str]:
    """The pictures there are results for."""
    made = {}
    for name, make in (("speed.svg", speed), ("memory.svg", memory)):
        text = next((t for m in machines if (t := make(m))), None)
        if text is not None:
            made[name] = text
    return made


def write(folder: Path, machines: Sequence[Machine]) -> None:
    """All of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in draw(machines).items():
        (folder / name).write_text(text, encoding="utf-8")
