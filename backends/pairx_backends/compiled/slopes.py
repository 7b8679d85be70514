"""From the cotangents of distances to those of what is joined over the features, by the derivative of ``finish``, as LLVM's text."""

from __future__ import annotations

import math

from .definition import Definition, Recipe, Slots, slots
from .emit import Code, Value, module
from .kernels import any_of, inputs_of, joined, lowest
from .pullback import vectors
from .trace import derivatives


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
    (rows, across), lanes, terms = definition.tile, recipe.lanes, len(definition.terms)
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
    with code.loop("0", n, across * lanes) as j, code.loop("0", m, rows) as i:
        places = [code.smaller(code.put(f"add i64 {i}, {a}"), code.put(f"sub i64 {m}, 1")) for a in range(rows)]
        seen = _Places(code, definition) if metric.reduce == "max" else None
        if seen is None:
            reduced = joined(code, definition, names, places, j)
        else:
            reduced = joined(code, definition, names, places, j, vectors(definition) * lanes, seen.see)
        for a in range(rows):
            row_c = code.put(f"mul i64 {places[a]}, {cs}")
            row_g = code.put(f"mul i64 {places[a]}, {gs}")
            for v in range(across):
                start = code.put(f"add i64 {j}, {v * lanes}")
                sums = reduced[a][v]
                inputs = inputs_of(code, definition, names, sums, places[a], start, count)
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
                if seen is not None:
                    code.store(seen.told(a, v, sums[0]), code.vector, code.at(maxima, code.put(f"add i64 {row_c}, {start}")), 4)
                for t in range(terms):
                    offset = code.put(f"add i64 {code.put(f'mul i64 {plane}, {t}')}, {row_c}")
                    code.store(worth[t], code.vector, code.at(c, code.put(f"add i64 {offset}, {start}")), 4)
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("slope", "ptr %a", "i64")])


def worth_slots(recipe: Recipe) -> Slots:
    """The arguments of ``worth``: distances, their cotangents, those of the joined term."""
    return Slots("m", "n", "v", "vs", "g", "gs", "c", "cs", *recipe.free)


def worth(definition: Definition) -> str:
    """What ``slope`` answers, from distances that are there already: no feature is looked at."""
    recipe = definition.recipe
    code = Code(recipe.scalar, recipe.lanes)
    names = worth_slots(recipe)
    m, n, gs, cs, vs = (names.read(code, s) for s in ("m", "n", "gs", "cs", "vs"))
    v, g, c = (names.read(code, s, "ptr") for s in "vgc")
    free = {name: code.spread(code.load(names.read(code, name, "ptr"), code.scalar)) for name in recipe.free}
    odd = code.room("i64")
    code.store("0", "i64", odd)
    with code.loop("0", m) as i, code.loop("0", n, recipe.lanes) as j:
        given = code.put(f"add i64 {code.put(f'mul i64 {i}, {gs}')}, {j}")
        target = code.put(f"add i64 {code.put(f'mul i64 {i}, {cs}')}, {j}")
        source = code.at(v, code.put(f"add i64 {code.put(f'mul i64 {i}, {vs}')}, {j}"))
        left = code.put(f"sub i64 {n}, {j}")
        found = worth_of(code, definition, code.some(source, left), code.some(code.at(g, given), left), odd, free=free)
        code.store(found, code.vector, code.at(c, target), 4)
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return module([code], [code.function("worth", "ptr %a", "i64")])


def worth_of(
    code: Code, definition: Definition, value: Value, g: Value, odd: Value, used: Value | None = None, free: dict[str, Value] | None = None
) -> Value:
    """What the joined term of a distance is worth that is worth ``g``; sets the flag where one that is used cannot be trusted."""
    if direct(definition):
        return g
    inverse, free = definition.inverse, free or {}
    assert inverse is not None
    (reduced,) = code.expressions([inverse], {"v": value} | free)
    (factor,) = derivatives(definition.result, definition.reduced, definition.graph.input("g"))
    (found,) = code.expressions([factor], {"r0": reduced, "g": g} | free)
    bad = distrusted(code, definition, value, reduced)
    if bad is not None:
        note(code, odd, bad if used is None else code.put(f"and {code.truth} {bad}, {used}"))
    return found


def distrusted(code: Code, definition: Definition, value: Value, reduced: Value) -> Value | None:
    """Which sums are infinite, or belong to distances above 0 that are too small to be trusted; None: all are good."""
    scale = definition.recipe.metric.scale
    if scale not in ("difference", "pair", "term"):
        return None
    bad = code.compare("oeq", reduced, code.constant(math.inf))
    if scale != "difference":
        return bad
    low, positive = code.compare("olt", value, code.constant(lowest(definition))), code.compare("ogt", value, code.constant(0.0))
    small = code.put(f"and {code.truth} {low}, {positive}")
    return code.put(f"or {code.truth} {bad}, {small}")


def note(code: Code, odd: Value, bad: Value) -> None:
    """Set the flag if the test holds anywhere."""
    flag = code.put(f"zext i1 {any_of(code, bad)} to i64")
    code.store(code.put(f"or i64 {code.load(odd, 'i64')}, {flag}"), "i64", odd)


def _watch(
    code: Code, definition: Definition, names: Slots, value: Value, row: Value, start: Value, odd: Value, d: Value, n: Value
) -> None:
    """Set the flag for values that came out infinite or too small; an exact 0 is one if the rows differ."""
    recipe, metric = definition.recipe, definition.recipe.metric
    bad = distrusted(code, definition, value, value)
    if bad is None:
        return
    note(code, odd, bad)
    if metric.scale != "difference":
        return
    zero = code.compare("oeq", value, code.constant(0.0))
    with code.when(any_of(code, zero)):
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


class _Places:
    """Which chunk of features holds each pair's maximum, for the pairs of a register tile."""

    def __init__(self, code: Code, definition: Definition) -> None:
        self.code, (rows, vectors) = code, definition.tile
        self.first, self.last = ([[code.room(code.whole) for _ in range(vectors)] for _ in range(rows)] for _ in range(2))
        for place in (p for shelf in (*self.first, *self.last) for p in shelf):
            code.store(code.integer(0), code.whole, place)

    def see(self, a: int, v: int, old: Value, new: Value, start: Value) -> None:
        """A chunk's maximum, beside that of the chunks before."""
        code = self.code
        here = code.spread(start if code.element == "i64" else code.put(f"trunc i64 {start} to {code.element}"), code.element)
        old, new = code.bits(old), code.bits(new)
        for shelf, how in ((self.first, "sgt"), (self.last, "sge")):
            test, place = code.put(f"icmp {how} {code.whole} {new}, {old}"), shelf[a][v]
            kept = code.load(place, code.whole)
            code.store(code.put(f"select {code.truth} {test}, {code.whole} {here}, {code.whole} {kept}"), code.whole, place)

    def told(self, a: int, v: int, maximum: Value) -> Value:
        """What ``scatter`` is told: the one chunk with the maximum, inverted and so negative, or the maximum, never negative."""
        code = self.code
        first, last = code.load(self.first[a][v], code.whole), code.load(self.last[a][v], code.whole)
        one = code.put(f"icmp eq {code.whole} {first}, {last}")
        return code.choose(one, code.number(code.ints("xor", first, code.integer(-1))), maximum)
