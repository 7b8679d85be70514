"""The derivative of a tile: from the cotangents of its distances to those of its rows and weights, as LLVM's text.

First ``slope``: what each pair's joined terms are worth, from the derivative of ``finish``. Then ``pull``, once for each side:
a row's gradient is a sum over the other side's rows, whose features lie side by side in the vectors. Each row is summed by
one thread in one order, so the bits do not depend on how many there are.
"""

from __future__ import annotations

import math
from typing import Literal

from .emit import Code, Value, module
from .kernels import Definition, Recipe, Slots, _any, _inputs, _joined, _larger, lowest, slots
from .trace import Node, derivatives

Side = Literal["x", "y", "w"]
BLOCK = 64
"""Rows of the other side that are summed at a time."""


def direct(definition: Definition) -> bool:
    """The distance is its one sum, and that cannot overflow: the cotangents are those of the term, and need no ``slope``."""
    recipe = definition.recipe
    return definition.linear and recipe.metric.reduce == "sum" and recipe.metric.scale is None and not recipe.omit


def slope_slots(recipe: Recipe) -> Slots:
    """The arguments of ``slope``: those of the forward kernel, the cotangents, a factor for each term, the maxima."""
    return Slots(*slots(recipe).names, "g", "gs", "c", "cs", "plane", "r")


def slope(definition: Definition) -> str:
    """``c[t, i, j]``: the cotangent of term t joined. Answers whether a pair needs the scaled form: then none is valid."""
    recipe, metric = definition.recipe, definition.recipe.metric
    rows, vectors = definition.tile
    lanes, terms = recipe.lanes, len(definition.terms)
    code = Code(recipe.scalar, lanes)
    names = slope_slots(recipe)
    m, n, d = names.read(code, "m"), names.read(code, "n"), names.read(code, "d")
    g, gs, c, cs = (names.read(code, s, "ptr" if s in "gc" else "i64") for s in ("g", "gs", "c", "cs"))
    maxima = names.read(code, "r", "ptr")
    count = code.spread(code.load(names.read(code, "count", "ptr"), code.scalar))
    odd = code.room("i64")
    code.store("0", "i64", odd)
    seed = definition.graph.input("g")
    factors = derivatives(definition.result, definition.reduced, seed)
    plane = names.read(code, "plane")
    with code.loop("0", n, vectors * lanes) as j, code.loop("0", m, rows) as i:
        places = [code.smaller(code.put(f"add i64 {i}, {a}"), code.put(f"sub i64 {m}, 1")) for a in range(rows)]
        reduced = _joined(code, definition, names, places, j)
        ties = _ties(code, definition, names, places, j, reduced) if metric.reduce == "max" else None
        for a in range(rows):
            row_c = code.put(f"mul i64 {places[a]}, {cs}")
            row_g = code.put(f"mul i64 {places[a]}, {gs}")
            for v in range(vectors):
                start = code.put(f"add i64 {j}, {v * lanes}")
                sums = reduced[a][v]
                inputs = _inputs(code, definition, names, sums, places[a], start, count)
                # g has whole vectors in each of its rows, and so have c and the maxima.
                inputs["g"] = code.load(code.at(g, code.put(f"add i64 {row_g}, {start}")), code.vector, 4)
                value, *worth = code.expressions([definition.result, *factors], inputs)
                _watch(code, definition, names, value, places[a], start, odd, d, n)
                if recipe.omit:
                    some = code.compare("ogt", sums[-1], code.constant(0.0))
                    if metric.reduce == "sum":
                        gap = code.arith("div", count, code.choose(some, sums[-1], code.constant(1.0)))
                        worth = [code.arith("mul", f, gap) for f in worth]
                    worth = [code.choose(some, f, code.constant(0.0)) for f in worth]
                if ties is not None:
                    worth = [code.arith("div", f, ties[a][v]) for f in worth]
                    code.store(sums[0], code.vector, code.at(maxima, code.put(f"add i64 {row_c}, {start}")), 4)
                for t in range(terms):
                    offset = code.put(f"add i64 {code.put(f'mul i64 {plane}, {t}')}, {row_c}")
                    code.store(worth[t], code.vector, code.at(c, code.put(f"add i64 {offset}, {start}")), 4)
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("slope", "ptr %a", "i64")])


def _watch(
    code: Code, definition: Definition, names: Slots, value: Value, row: Value, start: Value, odd: Value, d: Value, n: Value
) -> None:
    """Set the flag for values that came out infinite or too small; an exact 0 is one if the rows differ."""
    recipe, metric = definition.recipe, definition.recipe.metric
    if metric.scale not in ("difference", "pair", "term"):
        return
    bad = code.compare("oeq", value, code.constant(math.inf))
    if metric.scale == "difference":
        low = code.compare("olt", value, code.constant(lowest(definition)))
        positive = code.compare("ogt", value, code.constant(0.0))
        bad = code.put(f"or {code.truth} {bad}, {code.put(f'and {code.truth} {low}, {positive}')}")
    flag = code.put(f"zext i1 {_any(code, bad)} to i64")
    code.store(code.put(f"or i64 {code.load(odd, 'i64')}, {flag}"), "i64", odd)
    if metric.scale != "difference":
        return
    zero = code.compare("oeq", value, code.constant(0.0))
    with code.when(_any(code, zero)):
        width = definition.tile[1] * recipe.lanes
        x_row = code.at(names.read(code, "x0", "ptr"), code.put(f"mul i64 {row}, {names.read(code, 'xs0')}"))
        y0 = names.read(code, "y0", "ptr")
        shelf = code.room(code.of("i8"))
        code.store(code.put(f"zext {code.truth} {zero} to {code.of('i8')}"), code.of("i8"), shelf)
        last = code.smaller(str(code.lanes), code.put(f"sub i64 {n}, {start}"))
        with code.loop("0", last) as lane:
            mine = code.load(code.at(shelf, lane, "i8"), "i8")
            with code.when(code.put(f"icmp ne i8 {mine}, 0")):
                j = code.put(f"add i64 {start}, {lane}")
                panel = code.put(f"mul i64 {code.put(f'sdiv i64 {j}, {width}')}, {code.put(f'mul i64 {d}, {width}')}")
                y_row = code.at(y0, code.put(f"add i64 {panel}, {code.put(f'srem i64 {j}, {width}')}"))
                with code.loop("0", d) as k:
                    x = code.load(code.at(x_row, k), code.scalar)
                    y = code.load(code.at(y_row, code.put(f"mul i64 {k}, {width}")), code.scalar)
                    differ = code.put(f"zext i1 {code.put(f'fcmp one {code.scalar} {x}, {y}')} to i64")
                    code.store(code.put(f"or i64 {code.load(odd, 'i64')}, {differ}"), "i64", odd)


def _ties(
    code: Code, definition: Definition, names: Slots, places: list[Value], j: Value, reduced: list[list[list[Value]]]
) -> list[list[Value]]:
    """How many features share the maximum, for each pair of a register tile; at least 1."""
    recipe, (rows, vectors) = definition.recipe, definition.tile
    lanes = recipe.lanes
    width = vectors * lanes
    d, w = names.read(code, "d"), names.read(code, "w", "ptr")
    counts = [[code.room(code.vector) for _ in range(vectors)] for _ in range(rows)]
    for row in counts:
        for place in row:
            code.store(code.constant(0.0), code.vector, place)
    x0, stride = names.read(code, "x0", "ptr"), names.read(code, "xs0")
    panel = code.at(names.read(code, "y0", "ptr"), code.put(f"mul i64 {j}, {d}"))
    with code.loop("0", d) as k:
        at = code.put(f"mul i64 {k}, {width}")
        ys = [code.load(code.at(panel, code.put(f"add i64 {at}, {v * lanes}")), code.vector, 4) for v in range(vectors)]
        counted: Value = code.constant(1.0)
        if recipe.weighted:
            weight = code.spread(code.load(code.at(w, k), code.scalar))
            counted = code.choose(code.compare("ogt", weight, code.constant(0.0)), code.constant(1.0), code.constant(0.0))
        for a in range(rows):
            x = code.spread(code.load(code.at(x0, code.put(f"add i64 {code.put(f'mul i64 {places[a]}, {stride}')}, {k}")), code.scalar))
            for v in range(vectors):
                (value,) = code.expressions(definition.terms, {"x0": x, "y0": ys[v]})
                same = code.choose(code.compare("oeq", value, reduced[a][v][0]), counted, code.constant(0.0))
                code.store(code.arith("add", code.load(counts[a][v], code.vector), same), code.vector, counts[a][v])
    return [[_larger(code, code.load(place, code.vector), code.constant(1.0)) for place in row] for row in counts]


def pull_slots(recipe: Recipe) -> Slots:
    """The arguments of ``pull``: rows of the one side, rows of the other, features; the strides of c for each side."""
    panels = [f"{s}{p}" for p in range(recipe.panels) for s in ("own", "other", "total")]
    return Slots("m", "n", "d", "width", "c", "plane", "by_own", "by_other", "r", "w", *panels)


def pull(definition: Definition, side: Side) -> str:
    """``total[i, k] += w[k] sum_j sum_t c[t, i, j] * derivative of term t``, for the features of one side.

    ``side="w"`` takes the terms themselves: its sum over the rows is the gradient of the weights. All arrays have rows of
    whole vectors.
    """
    recipe, metric = definition.recipe, definition.recipe.metric
    lanes, panels = recipe.lanes, recipe.panels
    code = Code(recipe.scalar, lanes)
    names = pull_slots(recipe)
    m, n, width = names.read(code, "m"), names.read(code, "n"), names.read(code, "width")
    c, plane = names.read(code, "c", "ptr"), names.read(code, "plane")
    by_own, by_other = names.read(code, "by_own"), names.read(code, "by_other")
    maxima, w = names.read(code, "r", "ptr"), names.read(code, "w", "ptr")
    own = [names.read(code, f"own{p}", "ptr") for p in range(panels)]
    other = [names.read(code, f"other{p}", "ptr") for p in range(panels)]
    total = [names.read(code, f"total{p}", "ptr") for p in range(panels)]
    wanted = {"x": definition.x, "y": definition.y, "w": []}[side]
    graph = definition.graph
    worth = [graph.input(f"c{t}") for t in range(len(definition.terms))]
    slopes: list[Node]
    if side == "w":
        parts = [f * t for f, t in zip(worth, definition.terms, strict=True)]
        slopes = [sum(parts[1:], parts[0])]
    else:
        each = [derivatives(t, wanted, f) for f, t in zip(worth, definition.terms, strict=True)]
        slopes = [sum((e[p] for e in each[1:]), each[0][p]) for p in range(panels)]
    rows, vectors = (2, 1) if definition.weight > 16 else (2, 2)
    mine, theirs = ("y", "x") if side == "y" else ("x", "y")
    # The other side in pieces that stay in the first cache while rows and features go by.
    with code.loop("0", n, BLOCK) as first, code.loop("0", m, rows) as i, code.loop("0", width, lanes * vectors) as k:
        stop = code.smaller(code.put(f"add i64 {first}, {BLOCK}"), n)
        places = [code.smaller(code.put(f"add i64 {i}, {a}"), code.put(f"sub i64 {m}, 1")) for a in range(rows)]
        starts = [code.put(f"add i64 {code.put(f'mul i64 {place}, {width}')}, {k}") for place in places]
        every = [(a, v) for a in range(rows) for v in range(vectors)]
        mine_values = {
            (a, v): [code.load(code.at(o, code.put(f"add i64 {starts[a]}, {v * lanes}")), code.vector, 4) for o in own] for a, v in every
        }
        c_rows = [code.put(f"mul i64 {place}, {by_own}") for place in places]
        sums = {e: [code.room(code.vector) for _ in slopes] for e in every}
        for places_of in sums.values():
            for s in places_of:
                code.store(code.constant(0.0), code.vector, s)
        with code.loop(first, stop) as j:
            at = code.put(f"add i64 {code.put(f'mul i64 {j}, {width}')}, {k}")
            their_values = [
                [code.load(code.at(o, code.put(f"add i64 {at}, {v * lanes}")), code.vector, 4) for o in other] for v in range(vectors)
            ]
            column = code.put(f"mul i64 {j}, {by_other}")
            for a in range(rows):
                place = code.put(f"add i64 {c_rows[a]}, {column}")
                shared = {}
                for t in range(len(worth)):
                    offset = code.put(f"add i64 {code.put(f'mul i64 {plane}, {t}')}, {place}")
                    shared[f"c{t}"] = code.spread(code.load(code.at(c, offset), code.scalar))
                top = code.spread(code.load(code.at(maxima, place), code.scalar)) if metric.reduce == "max" else None
                for v in range(vectors):
                    _add(code, definition, slopes, shared, top, (mine, mine_values[a, v]), (theirs, their_values[v]), sums[a, v])
        for a, v in every:
            # A row past the last one repeats it: it must be added once only.
            with code.when(code.put(f"icmp slt i64 {code.put(f'add i64 {i}, {a}')}, {m}")):
                for p, s in enumerate(sums[a, v]):
                    value = code.load(s, code.vector)
                    if recipe.weighted and side != "w":
                        weight = code.load(code.at(w, code.put(f"add i64 {k}, {v * lanes}")), code.vector, 4)
                        if metric.reduce == "max":
                            weight = code.choose(code.compare("ogt", weight, code.constant(0.0)), code.constant(1.0), code.constant(0.0))
                        value = code.arith("mul", value, weight)
                    target = code.at(total[p], code.put(f"add i64 {starts[a]}, {v * lanes}"))
                    code.store(code.arith("add", code.load(target, code.vector, 4), value), code.vector, target, 4)
    code.do("ret i64 0")
    return module([code], [code.function("pull", "ptr %a", "i64")])


def _add(
    code: Code,
    definition: Definition,
    slopes: list[Node],
    shared: dict[str, Value],
    top: Value | None,
    mine: tuple[str, list[Value]],
    theirs: tuple[str, list[Value]],
    sums: list[Value],
) -> None:
    """One row of the other side into the sums of one vector of features."""
    inputs = shared | {f"{side}{p}": v for side, values in (mine, theirs) for p, v in enumerate(values)}
    values = code.expressions(slopes, inputs)
    if top is not None:
        (term,) = code.expressions(definition.terms, inputs)
        values = [code.choose(code.compare("oeq", term, top), v, code.constant(0.0)) for v in values]
    if definition.recipe.omit:
        here = code.compare("ord", inputs["x0"], inputs["y0"])
        values = [code.choose(here, v, code.constant(0.0)) for v in values]
    for value, s in zip(values, sums, strict=True):
        code.store(code.arith("add", code.load(s, code.vector), value), code.vector, s)
