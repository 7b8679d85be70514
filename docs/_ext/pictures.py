"""The pictures of docs/engine.md. Tiles and bytes are those of real plans, so a picture cannot tell another story than the code."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np

import pairx
from pairx.plan import Plan, human, tiles

BLUE, PALE, ORANGE, LIGHT, INK, GREY = "#0b6e99", "#dcecf3", "#d9730d", "#fbe9d9", "#1f2933", "#7b8794"


def box(x: float, y: float, w: float, h: float, fill: str, stroke: str = BLUE, radius: float = 6) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" fill="{fill}" stroke="{stroke}"/>'


def say(
    x: float, y: float, text: str, size: float = 15, anchor: str = "start", colour: str = INK, weight: str = "normal", mono: bool = False
) -> str:
    family = "ui-monospace, Menlo, Consolas, monospace" if mono else "system-ui, 'Segoe UI', Roboto, sans-serif"
    style = f'font-family="{family}" font-size="{size:g}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def arrow(*points: tuple[float, float], colour: str = GREY) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" marker-end="url(#tip)"/>'


def picture(width: float, height: float, title: str, parts: Iterator[str]) -> str:
    tip = (
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L10,5 L0,10 z" fill="{GREY}"/></marker></defs>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return f'{head}<title>{escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>{tip}{"".join(parts)}</svg>\n'


# --- the way of a call --------------------------------------------------------------------------------------------------

STEPS = (
    ("the call", 'pairx.cdist(x, y, "cityblock")', "arrays of one library, on one device"),
    ("backend", "backend.find", "by the root module of the array's type"),
    ("task", "calls.Call.task", "dtypes, weights, parameters, engine, cost"),
    ("plan", "plan.make", "tiles that fit max_bytes: print it with explain"),
    ("run", "backend.run", "tile after tile"),
)
LOOP = (("cut", "engine.cut"), ("metric", "one of three engines"), ("store", "engine.store"))


def call() -> str:
    def parts() -> Iterator[str]:
        y = 14.0
        for i, (name, where, about) in enumerate(STEPS):
            yield box(14, y, 110, 50, PALE)
            yield say(69, y + 31, name, 17, "middle", weight="600")
            yield say(140, y + 21, where, 14, mono=True)
            yield say(140, y + 42, about, 15, colour=GREY)
            if i < len(STEPS):
                yield arrow((69, y + 50), (69, y + 76))
            y += 78
        top = y
        yield box(14, top, 492, 88, LIGHT, ORANGE)
        for i, (name, where) in enumerate(LOOP):
            x = 30 + i * 160
            yield box(x, top + 14, 140, 56, "#ffffff", ORANGE)
            yield say(x + 70, top + 38, name, 16, "middle", weight="600")
            yield say(x + 70, top + 58, where, 12, "middle", GREY, mono=i != 1)
            if i:
                yield arrow((x - 20, top + 42), (x - 2, top + 42))
        yield arrow((69, top + 88), (69, top + 114))
        yield box(14, top + 116, 110, 50, PALE)
        yield say(69, top + 147, "result", 17, "middle", weight="600")
        yield say(140, top + 147, "same library, device and dtype as x", 15, colour=GREY)

    return picture(520, 14 + 78 * len(STEPS) + 116 + 64, "The way of a call", parts())


# --- the walk over tiles -----------------------------------------------------------------------------------------------


def walks() -> list[tuple[str, str, Plan]]:
    """Three small plans: two sets, one set, one set condensed."""
    x, y = np.zeros((40, 8)), np.zeros((56, 8))
    small = {"metric": "cityblock", "engine": "array"}
    with pairx.options(threads=1):
        return [
            ("cdist(x, y)", "every tile once", pairx.explain(pairx.cdist, x, y, max_bytes=40_000, **small)),
            ("cdist(x)", "one triangle; blocks are written twice", pairx.explain(pairx.cdist, y, max_bytes=40_000, **small)),
            ("pdist(x)", "strips of whole rows, in the order of the result", pairx.explain(pairx.pdist, y, max_bytes=130_000, **small)),
        ]


def walk() -> str:
    side = 236.0

    def panel(left: float, top: float, name: str, about: str, plan: Plan) -> Iterator[str]:
        m, n = plan.axes
        scale = side / max(m, n)
        yield say(left, top - 26, name, 15, mono=True, weight="600")
        yield say(left, top - 8, about, 12.5, colour=GREY)
        yield box(left, top, n * scale, m * scale, "#ffffff", GREY, 0)
        for number, tile in enumerate(tiles(plan), 1):
            (a, b), (c, d) = tile.spans
            if plan.layout == "condensed":  # of a strip only what lies above the diagonal is kept
                stairs = [(max(i + 1, c), j) for i in range(b - 1, a - 1, -1) for j in (i + 1, i)]
                corners = [(d, a), (d, b), *stairs]
                points = " ".join(f"{left + p * scale:g},{top + q * scale:g}" for p, q in corners)
                yield f'<polygon points="{points}" fill="{PALE}" stroke="{BLUE}"/>'
                yield say(left + n * scale + 6, top + (a + b) / 2 * scale + 5, str(number), 14, weight="600")
                continue
            fill, stroke = (LIGHT, ORANGE) if tile.kind == "diagonal" else (PALE, BLUE)
            yield box(left + c * scale, top + a * scale, (d - c) * scale, (b - a) * scale, fill, stroke, 0)
            yield say(left + (c + d) / 2 * scale, top + (a + b) / 2 * scale + 5, str(number), 14, "middle", weight="600")
            if tile.kind == "mirror":
                yield box(left + a * scale, top + c * scale, (b - a) * scale, (d - c) * scale, "#f5f7fa", "#9aa5b1", 0)
                yield say(left + (a + b) / 2 * scale, top + (c + d) / 2 * scale + 5, str(number), 14, "middle", GREY)

    def parts() -> Iterator[str]:
        for i, (name, about, plan) in enumerate(walks()):
            yield from panel(14 + (i % 2) * (side + 34), 50 + (i // 2) * (side + 60), name, about, plan)
        left, top = 14 + side + 34, 50 + side + 60
        legend = (
            (PALE, BLUE, "computed and stored"),
            (LIGHT, ORANGE, "on the diagonal: exact zeros"),
            ("#f5f7fa", "#9aa5b1", "the mirror image, stored"),
        )
        for i, (fill, stroke, text) in enumerate(legend):
            yield box(left, top + 6 + i * 32, 22, 18, fill, stroke, 0)
            yield say(left + 32, top + 20 + i * 32, text, 14)
        yield say(left, top + 126, "numbers: the order of the walk", 14)

    return picture(2 * side + 72, 2 * side + 130, "How tiles are walked", parts())


# --- memory --------------------------------------------------------------------------------------------------------------


def memory() -> str:
    n, d = 4000, 64
    x = np.broadcast_to(np.float32(0), (n, d))
    with pairx.options(threads=1):
        plans = [pairx.explain(pairx.cdist, x, x, metric="cityblock", engine="array", max_bytes=b) for b in ("256MiB", "128KiB")]
    rows = [
        ("the two inputs", 2 * n * d * 4, GREY),
        ("the result", plans[0].result_bytes or 0, GREY),
        *((f'scratch, max_bytes="{name}"', p.scratch_bytes or 0, BLUE) for name, p in zip(("256MiB", "128KiB"), plans, strict=True)),
        ("scratch of x[:, None] - y[None]", n * n * d * 4, ORANGE),
    ]

    def parts() -> Iterator[str]:
        low, high = 15.0, np.log2(rows[-1][1])
        for i, (name, size, colour) in enumerate(rows):
            y = 20 + i * 50
            yield say(14, y + 10, name, 15)
            yield box(14, y + 17, max(4.0, (np.log2(size) - low) / (high - low) * 400), 16, colour, colour, 2)
            yield say(24 + (np.log2(size) - low) / (high - low) * 400, y + 31, human(size), 15, weight="600")
        yield say(14, 20 + len(rows) * 50 + 4, "each bar by the logarithm of its bytes", 12.5, colour=GREY)

    return picture(520, 40 + len(rows) * 50, f"Bytes of cityblock distances between {n} and {n} rows of {d} float32 features", parts())


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (("call", call), ("walk", walk), ("memory", memory)):
        (folder / f"{name}.svg").write_text(make(), encoding="utf-8")
