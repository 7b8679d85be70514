"""The derivative of a tile: from what its pairs' joined terms are worth to the cotangents of its rows and weights, as LLVM's text.

What they are worth follows from the derivative of ``finish``: see :mod:`.slopes`. Then ``pull``, once for each
side: a row's gradient is a sum over the other side's rows, whose features lie side by side in the vectors. Or ``pull_both``: what
the two sides share is computed once. Or, for a maximum, ``scatter``: only the features that have it are looked at. Each number is
summed by one thread, and in the same order by all of these, so the bits depend neither on how many threads there are nor on who
asks.
"""

from __future__ import annotations

from typing import Literal

from .definition import Definition, Recipe, Slots
from .emit import Code, Value, module
from .trace import Node, derivatives

Side = Literal["x", "y", "w"]
BLOCK = 64
"""Rows of the other side that are summed at a time."""


def vectors(definition: Definition) -> int:
    """Vectors of features that are summed at a time. They lie side by side, in panels: (features / those, rows, those).

    (Rows as they came would be whole powers of two apart, which a cache cannot hold together.)
    """
    return 1 if definition.weight > 16 else 2


def pull_slots(recipe: Recipe) -> Slots:
    """The arguments of ``pull``: rows of the one side, rows of the other, features; the strides of c for each side.

    The rows of whole panels, own and other. ``pull_both`` takes features from ``first`` to ``stop`` of all ``width``, and both
    sides' totals; of ``upper`` cotangents only what is not below the diagonal, but in the blocks on it all.
    """
    panels = [f"{s}{p}" for p in range(recipe.stored) for s in ("own", "other", "total", "totals")]
    sizes = ("m", "n", "upper", "own_rows", "other_rows", "first", "stop", "width")
    return Slots(*sizes, "c", "plane", "by_own", "by_other", "r", "w", *panels)


class Panels:
    """What ``pull`` and ``pull_both`` have in common: where the numbers lie, and the expressions."""

    def __init__(self, definition: Definition) -> None:
        recipe = definition.recipe
        self.definition, self.lanes = definition, recipe.lanes
        self.code = code = Code(recipe.scalar, recipe.lanes)
        self.names = names = pull_slots(recipe)
        self.c, self.plane, self.maxima = names.read(code, "c", "ptr"), names.read(code, "plane"), names.read(code, "r", "ptr")
        self.by_own, self.by_other = names.read(code, "by_own"), names.read(code, "by_other")
        self.vectors = range(vectors(definition))
        self.width = len(self.vectors) * recipe.lanes
        self.worth = [definition.graph.input(f"c{t}") for t in range(len(definition.terms))]

    def addresses(self, name: str) -> list[Value]:
        """Where each panel's numbers begin; what was computed ahead has no gradient of its own."""
        recipe = self.definition.recipe
        count = recipe.panels if name.startswith("total") else recipe.stored
        return [self.names.read(self.code, f"{name}{p}", "ptr") for p in range(count)]

    def slopes(self, wanted: list[Node]) -> list[Node]:
        """The derivatives of the terms, each times its cotangent, summed."""
        each = [derivatives(t, wanted, f) for f, t in zip(self.worth, self.definition.terms, strict=True)]
        return [sum((e[p] for e in each[1:]), each[0][p]) for p in range(len(wanted))]

    def place(self, side: str, row: Value, k: Value) -> Value:
        """Where the features from k on of a row lie."""
        code = self.code
        panel = code.put(f"mul i64 {k}, {self.names.read(code, side + '_rows')}")
        return code.put(f"add i64 {panel}, {code.put(f'mul i64 {row}, {self.width}')}")

    def row(self, pointer: Value, place: Value, v: int) -> Value:
        """A vector of features."""
        return self.code.load(self.code.at(pointer, self.code.put(f"add i64 {place}, {v * self.lanes}")), self.code.vector, 4)

    def pair(self, own: Value, other: Value) -> dict[str, Value]:
        """The cotangents of a pair's terms, in every lane."""
        code = self.code
        at = code.put(f"add i64 {code.put(f'mul i64 {own}, {self.by_own}')}, {code.put(f'mul i64 {other}, {self.by_other}')}")
        shared = {}
        for t in range(len(self.worth)):
            offset = code.put(f"add i64 {code.put(f'mul i64 {self.plane}, {t}')}, {at}")
            shared[f"c{t}"] = code.spread(code.load(code.at(self.c, offset), code.scalar))
        return shared

    def increase(self, target: Value, k: Value, v: int, value: Value, weigh: bool = True) -> None:
        """Add sums, times their features' weights, to what lies there."""
        code, recipe = self.code, self.definition.recipe
        if recipe.weighted and weigh:
            weights = self.names.read(code, "w", "ptr")
            weight = code.load(code.at(weights, code.put(f"add i64 {k}, {v * self.lanes}")), code.vector, 4)
            value = code.arith("mul", value, weight)
        code.store(code.arith("add", code.load(target, code.vector, 4), value), code.vector, target, 4)

    def finish(self) -> str:
        """The text."""
        self.code.do("ret i64 0")
        return module([self.code], [self.code.function("pull", "ptr %a", "i64")])


def pull(definition: Definition, side: Side) -> str:
    """``total[i, k] += w[k] sum_j sum_t c[t, i, j] * derivative of term t``, for the features of one side.

    ``side="w"`` takes the terms themselves: its sum over the rows is the gradient of the weights.
    """
    if definition.recipe.metric.reduce == "max":
        return scatter(definition, side)
    panels = Panels(definition)
    code, names = panels.code, panels.names
    m, n, stop = names.read(code, "m"), names.read(code, "n"), names.read(code, "stop")
    own, other, total = (panels.addresses(name) for name in ("own", "other", "total"))
    if side == "w":
        parts = [f * t for f, t in zip(panels.worth, definition.terms, strict=True)]
        slopes = [sum(parts[1:], parts[0])]
    else:
        slopes = panels.slopes(definition.x if side == "x" else definition.y)
    rows = 2
    mine, theirs = ("y", "x") if side == "y" else ("x", "y")
    # The other side in pieces that stay in the first cache while rows and features go by.
    with code.loop("0", n, BLOCK) as first, code.loop("0", m, rows) as i, code.loop("0", stop, panels.width) as k:
        last = code.smaller(code.put(f"add i64 {first}, {BLOCK}"), n)
        numbers = [code.smaller(code.put(f"add i64 {i}, {a}"), code.put(f"sub i64 {m}, 1")) for a in range(rows)]
        places = [panels.place("own", number, k) for number in numbers]
        every = [(a, v) for a in range(rows) for v in panels.vectors]
        mine_values = {(a, v): [panels.row(o, places[a], v) for o in own] for a, v in every}
        sums = {e: [code.room(code.vector) for _ in slopes] for e in every}
        for shelves in sums.values():
            for s in shelves:
                code.store(code.constant(0.0), code.vector, s)
        with code.loop(first, last) as j:
            at = panels.place("other", j, k)
            their_values = [[panels.row(o, at, v) for o in other] for v in panels.vectors]
            for a in range(rows):
                shared = panels.pair(numbers[a], j)
                for v in panels.vectors:
                    _add(code, definition, slopes, shared, (mine, mine_values[a, v]), (theirs, their_values[v]), sums[a, v])
        for a, v in every:
            # A row past the last one repeats it: it must be added once only.
            with code.when(code.put(f"icmp slt i64 {code.put(f'add i64 {i}, {a}')}, {m}")):
                for s, into in zip(sums[a, v], total, strict=False):
                    target = code.at(into, code.put(f"add i64 {places[a]}, {v * panels.lanes}"))
                    panels.increase(target, k, v, code.load(s, code.vector), side != "w")
    return panels.finish()


def pull_both(definition: Definition) -> str:
    """The totals of both sides at once, for the features from ``first`` to ``stop``: own is x, and other is y."""
    if definition.recipe.metric.reduce == "max":
        return scatter(definition, "xy")
    panels = Panels(definition)
    code, names = panels.code, panels.names
    m, n = names.read(code, "m"), names.read(code, "n")
    xs, ys, gx, gy = (panels.addresses(name) for name in ("own", "other", "total", "totals"))
    slopes = panels.slopes(definition.x + definition.y)
    count = len(panels.vectors)
    parts = [code.room(code.vector, BLOCK * count) for _ in gy]
    zero = code.constant(0.0)
    first, stop, upper = names.read(code, "first"), names.read(code, "stop"), names.read(code, "upper")
    with (
        code.loop("0", m, BLOCK) as ib,
        code.loop(code.put(f"mul i64 {ib}, {upper}"), n, BLOCK) as jb,
        code.loop(first, stop, panels.width) as k,
    ):
        i_stop, j_stop = code.smaller(code.put(f"add i64 {ib}, {BLOCK}"), m), code.smaller(code.put(f"add i64 {jb}, {BLOCK}"), n)
        for part in parts:
            with code.loop("0", str(BLOCK * count)) as at:
                code.store(zero, code.vector, code.at(part, at, code.vector))

        def rows(*numbers: Value, k: Value = k, jb: Value = jb, j_stop: Value = j_stop) -> None:
            """Some rows of x with the block of y: two at a time, so that y and its sums are fetched half as often."""
            places = [panels.place("own", i, k) for i in numbers]
            mine = [[[panels.row(x, at, v) for x in xs] for v in panels.vectors] for at in places]
            sums = [[[code.room(code.vector) for _ in gx] for _ in panels.vectors] for _ in numbers]
            for s in (s for row in sums for each in row for s in each):
                code.store(zero, code.vector, s)
            with code.loop(jb, j_stop) as j:
                at = panels.place("other", j, k)
                near = code.put(f"mul i64 {code.put(f'sub i64 {j}, {jb}')}, {count}")
                shared = [panels.pair(i, j) for i in numbers]
                for v in panels.vectors:
                    theirs = [panels.row(y, at, v) for y in ys]
                    shelf = [code.at(part, code.put(f"add i64 {near}, {v}"), code.vector) for part in parts]
                    for worth, own, each in zip(shared, mine, sums, strict=True):
                        _add(code, definition, slopes, worth, ("x", own[v]), ("y", theirs), each[v] + shelf)
            for at, row in zip(places, sums, strict=True):
                for v in panels.vectors:
                    for s, total in zip(row[v], gx, strict=True):
                        target = code.at(total, code.put(f"add i64 {at}, {v * panels.lanes}"))
                        panels.increase(target, k, v, code.load(s, code.vector))

        length = code.put(f"sub i64 {i_stop}, {ib}")
        even = code.put(f"add i64 {ib}, {code.put(f'and i64 {length}, -2')}")
        with code.loop(ib, even, 2) as i:
            rows(i, code.put(f"add i64 {i}, 1"))
        with code.loop(even, i_stop) as i:
            rows(i)
        with code.loop(jb, j_stop) as j:
            at = panels.place("other", j, k)
            near = code.put(f"mul i64 {code.put(f'sub i64 {j}, {jb}')}, {count}")
            for v in panels.vectors:
                for part, total in zip(parts, gy, strict=True):
                    value = code.load(code.at(part, code.put(f"add i64 {near}, {v}"), code.vector), code.vector)
                    panels.increase(code.at(total, code.put(f"add i64 {at}, {v * panels.lanes}")), k, v, value)
    return panels.finish()


def scatter(definition: Definition, sides: str) -> str:
    """``pull`` and ``pull_both`` for a maximum: what its cotangent is worth goes to the features that have it, in equal parts.

    Most pairs have it in one panel of features (see ``slopes``), and the others are not looked at.
    """
    panels = Panels(definition)
    code, names, width = panels.code, panels.names, panels.width
    m, n, first, stop = (names.read(code, s) for s in ("m", "n", "first", "stop"))
    own, other = panels.addresses("own")[0], panels.addresses("other")[0]
    totals = [panels.addresses("total")[0], *([panels.addresses("totals")[0]] if sides == "xy" else [])]
    slopes = panels.slopes([{"x": definition.x, "y": definition.y}[side][0] for side in sides])
    mine, theirs = ("y0", "x0") if sides == "y" else ("x0", "y0")
    count, each = code.room("i64"), code.room(code.scalar)

    def look(places: tuple[Value, Value], k: Value) -> list[tuple[dict[str, Value], Value]]:
        """The features of a panel: the numbers of both rows, and the terms."""
        found = []
        for v in panels.vectors:
            inputs = {mine: panels.row(own, places[0], v), theirs: panels.row(other, places[1], v)}
            (term,) = code.expressions(definition.terms, inputs)
            if definition.recipe.weighted:  # weights only say what counts
                weight = code.at(names.read(code, "w", "ptr"), code.put(f"add i64 {k}, {v * panels.lanes}"))
                counts = code.compare("ogt", code.load(weight, code.vector, 4), code.constant(0.0))
                term = code.choose(counts, term, code.constant(-1.0))
            if definition.recipe.omit:
                term = code.choose(code.compare("ord", inputs[mine], inputs[theirs]), term, code.constant(-1.0))
            found.append((inputs, term))
        return found

    def tally(terms: list[Value], top: Value) -> None:
        """Count the features that have the maximum."""
        for term in terms:
            bits = code.put(f"bitcast {code.truth} {code.compare('oeq', term, top)} to i{code.lanes}") if code.lanes > 1 else "0"
            ones = code.call(f"llvm.ctpop.i{code.lanes}", f"i{code.lanes}", (f"i{code.lanes}", bits))
            code.store(code.put(f"add i64 {code.load(count, 'i64')}, {code.put(f'zext i{code.lanes} {ones} to i64')}"), "i64", count)

    def give(places: tuple[Value, Value], found: list[tuple[dict[str, Value], Value]], top: Value, worth: Value) -> None:
        """Each its part."""
        for v, (inputs, term) in enumerate(found):
            has = code.compare("oeq", term, top)
            for value, total, place in zip(code.expressions(slopes, inputs | {"c0": worth}), totals, places, strict=False):
                target = code.at(total, code.put(f"add i64 {place}, {v * panels.lanes}"))
                value = code.choose(has, value, code.constant(0.0))
                code.store(code.arith("add", code.load(target, code.vector, 4), value), code.vector, target, 4)

    def part(worth: Value) -> Value:
        ties = code.load(count, "i64")
        code.store(worth, code.scalar, each)
        with code.when(code.put(f"icmp sgt i64 {ties}, 1")):  # seldom, and a division is long to wait for
            code.store(code.put(f"fdiv {code.scalar} {worth}, {code.put(f'uitofp i64 {ties} to {code.scalar}')}"), code.scalar, each)
        return code.spread(code.load(each, code.scalar))

    # Rows of y are the inner loop, so that cotangents lie side by side, and so few that a cache holds them.
    outer, inner = (n, m) if sides == "y" else (m, n)
    with code.loop("0", inner, BLOCK) as block, code.loop("0", outer) as i:
        last = code.smaller(code.put(f"add i64 {block}, {BLOCK}"), inner)
        with code.loop(block, last) as j:
            numbers = (j, i) if sides == "y" else (i, j)
            at = [code.put(f"mul i64 {number}, {by}") for number, by in zip(numbers, (panels.by_own, panels.by_other), strict=True)]
            pair = code.put(f"add i64 {at[0]}, {at[1]}")
            worth, told = (code.load(code.at(panels.c, pair), code.scalar), code.load(code.at(panels.maxima, pair), code.scalar))
            bits = code.put(f"bitcast {code.scalar} {told} to {code.element}")
            bits = bits if code.element == "i64" else code.put(f"sext {code.element} {bits} to i64")
            k = code.put(f"xor i64 {bits}, -1")
            # As numbers without sign: what is not inverted is very large, and so not in this part either.
            here = code.put(f"icmp ult i64 {code.put(f'sub i64 {k}, {first}')}, {code.put(f'sub i64 {stop}, {first}')}")
            code.store("0", "i64", count)
            with code.when(here):
                places = panels.place("own", numbers[0], k), panels.place("other", numbers[1], k)
                found = look(places, k)
                top = found[0][1]
                for _, term in found[1:]:
                    top = code.upper(top, term)
                top = code.spread(code.largest(top))
                tally([term for _, term in found], top)
                give(places, found, top, part(worth))
            with code.when(code.put(f"icmp sge i64 {bits}, 0")):
                top = code.spread(told)
                with code.loop("0", names.read(code, "width"), width) as k:
                    places = panels.place("own", numbers[0], k), panels.place("other", numbers[1], k)
                    tally([term for _, term in look(places, k)], top)
                share = part(worth)
                with code.loop(first, stop, width) as k:
                    places = panels.place("own", numbers[0], k), panels.place("other", numbers[1], k)
                    give(places, look(places, k), top, share)
    return panels.finish()


def _add(
    code: Code,
    definition: Definition,
    slopes: list[Node],
    shared: dict[str, Value],
    mine: tuple[str, list[Value]],
    theirs: tuple[str, list[Value]],
    sums: list[Value],
) -> None:
    """One row of the other side into the sums of one vector of features."""
    inputs = shared | definition.recipe.inputs(*mine) | definition.recipe.inputs(*theirs)
    # A product joins its sum by itself, though both sides have it: that takes no addition.
    plain = [s.args[0] if s.op == "neg" else s for s in slopes]
    apart = [p.op == "mul" and not definition.recipe.omit and all(a.op != "sign" for a in p.args) for p in plain]
    roots = [p.args if a else (p,) for p, a in zip(plain, apart, strict=True)]
    values = iter(code.expressions([n for each in roots for n in each], inputs))
    here = code.compare("ord", inputs["x0"], inputs["y0"]) if definition.recipe.omit else None
    for slope, product, shelf in zip(slopes, apart, sums, strict=True):
        value, old = next(values), code.load(shelf, code.vector)
        if slope.op == "neg":
            value = code.neg(value)
        if here is not None:
            value = code.choose(here, value, code.constant(0.0))
        code.store(code.fma(value, next(values), old) if product else code.arith("add", old, value), code.vector, shelf)
