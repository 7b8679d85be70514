"""The loops around a metric's expressions, and the copies that they need, as LLVM's text.

Every function takes one pointer to 64-bit slots (sizes, strides in elements, addresses), named by :class:`Slots`. x lies as it
came, row by row; y is packed in panels of some columns each, feature by feature, so that one load brings one feature of
neighbouring rows. A tile of (rows x columns) sums stays in registers while the features go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .definition import Definition, Slots, slots
from .emit import Code, Value, module
from .known import HUGE

CHUNK = 256
"""Features that are summed before the sum joins the total: rounding errors grow with this, not with all features."""


def forward(definition: Definition) -> str:
    """``out[i, j]`` for all i, j (``upper``: for j >= i only); answers whether any value needs the repair."""
    code, function = forwarding(definition)
    return module([code], [function])


def forwarding(definition: Definition) -> tuple[Code, str]:
    recipe, tile = definition.recipe, definition.tile
    code = Code(recipe.scalar, recipe.lanes)
    names = slots(recipe)
    rows, vectors = tile
    width = vectors * recipe.lanes
    m, n, upper = names.read(code, "m"), names.read(code, "n"), names.read(code, "upper")
    out, stride = names.read(code, "out", "ptr"), names.read(code, "stride")
    count = code.spread(code.load(names.read(code, "count", "ptr"), code.scalar))
    odd = code.room("i64")
    code.store("0", "i64", odd)
    with code.loop("0", n, width) as j, code.loop("0", m, rows) as i:
        # A tile below the diagonal is skipped: its last column is before its first row.
        last = code.put(f"add i64 {j}, {width}")
        below = code.put(f"icmp sle i64 {last}, {i}")
        wanted = code.put(f"select i1 {code.put(f'icmp ne i64 {upper}, 0')}, i1 {below}, i1 false")
        with code.when(code.put(f"xor i1 {wanted}, true")):
            places = [code.smaller(code.put(f"add i64 {i}, {a}"), code.put(f"sub i64 {m}, 1")) for a in range(rows)]
            reduced = joined(code, definition, names, places, j)
            for a in range(rows):
                for v in range(vectors):
                    start = code.put(f"add i64 {j}, {v * recipe.lanes}")
                    value = finished(code, definition, names, reduced[a][v], places[a], start, count)
                    spoilt = odd_ones(code, definition, value)
                    if spoilt is not None:
                        flag = code.put(f"zext i1 {any_of(code, spoilt)} to i64")
                        code.store(code.put(f"or i64 {code.load(odd, 'i64')}, {flag}"), "i64", odd)
                    target = code.at(out, code.put(f"add i64 {code.put(f'mul i64 {places[a]}, {stride}')}, {start}"))
                    store(code, value, target, code.put(f"sub i64 {n}, {start}"))
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return code, code.function("forward", "ptr noalias %a", "i64")


def joined(
    code: Code,
    definition: Definition,
    names: Slots,
    places: list[Value],
    j: Value,
    chunk: int = CHUNK,
    see: Callable[[int, int, Value, Value, Value], None] | None = None,
) -> list[list[list[Value]]]:
    """Each term joined over the features, for a register tile: [row][vector][term].

    ``see(row, vector, before, chunk, first feature)`` is told of each chunk's result.
    """
    recipe, (rows, vectors) = definition.recipe, definition.tile
    lanes, terms = recipe.lanes, len(definition.looped)
    width, sums = vectors * lanes, terms + recipe.omit
    d = names.read(code, "d")
    largest = recipe.metric.reduce == "max"
    total = [[[code.room(code.vector) for _ in range(sums)] for _ in range(vectors)] for _ in range(rows)]
    part = [[[code.room(code.vector) for _ in range(sums)] for _ in range(vectors)] for _ in range(rows)]
    every = [(a, v, t) for a in range(rows) for v in range(vectors) for t in range(sums)]
    zero = code.constant(0.0)
    for a, v, t in every:
        code.store(zero, code.vector, total[a][v][t])
    # What was computed ahead lies beside its number, so that one address serves all of a row.
    step_x, step_y = (len(recipe.beside(side)) if recipe.ahead else 1 for side in "xy")
    xs: list[list[Value]] = []
    ys: list[Value | None] = []
    for p in range(recipe.stored):
        own, in_x, in_y = (0, p, p + step_y - step_x) if recipe.ahead else (p, 0, 0)
        base, stride = names.read(code, f"x{own}", "ptr"), names.read(code, f"xs{own}")
        xs.append([code.at(code.at(base, code.put(f"mul i64 {place}, {stride}")), str(in_x)) for place in places])
        panel = code.at(names.read(code, f"y{own}", "ptr"), code.put(f"mul i64 {j}, {code.put(f'mul i64 {d}, {step_y}')}"))
        ys.append(code.at(panel, str(in_y * width)) if in_y >= 0 else None)
    w = names.read(code, "w", "ptr")
    with code.loop("0", d, chunk) as first:
        for a, v, t in every:
            code.store(zero, code.vector, part[a][v][t])
        stop = code.smaller(code.put(f"add i64 {first}, {chunk}"), d)

        def feature(k: Value) -> tuple[Value | None, list[list[Value]], list[list[Value]]]:
            """Its weight, and the numbers of each row of x and of each vector of y."""
            x_at, y_at = code.put(f"mul i64 {k}, {step_x}"), code.put(f"mul i64 {k}, {step_y * width}")
            y = [
                [code.load(code.at(a, code.put(f"add i64 {y_at}, {v * lanes}")), code.vector, 4) if a else "poison" for a in ys]
                for v in range(vectors)
            ]
            weight = code.spread(code.load(code.at(w, k), code.scalar)) if recipe.weighted else None
            return weight, [[code.spread(code.load(code.at(panel[a], x_at), code.scalar)) for panel in xs] for a in range(rows)], y

        alone = first
        if definition.quotients:
            length = code.put(f"sub i64 {stop}, {first}")
            alone = code.put(f"add i64 {first}, {code.put(f'and i64 {length}, -2')}")
            with code.loop(first, alone, 2) as k:
                two = [feature(k), feature(code.put(f"add i64 {k}, 1"))]
                for a in range(rows):
                    for v in range(vectors):
                        parts = [p for weight, x, y in two for p in _quotient(code, definition, x[a], y[v], weight)]
                        old = code.load(part[a][v][0], code.vector)
                        code.store(code.arith("add", old, code.quotients(*parts)), code.vector, part[a][v][0])
        with code.loop(alone, stop) as k:
            weight, x, y = feature(k)
            for a in range(rows):
                for v in range(vectors):
                    _accumulate(code, definition, x[a], y[v], weight, part[a][v], largest)
        for a, v, t in every:
            new, old = code.load(part[a][v][t], code.vector), code.load(total[a][v][t], code.vector)
            if t in definition.counted:
                new = code.put(f"uitofp {code.whole} {code.bits(new)} to {code.vector}")
            if see is not None and t < terms:
                see(a, v, old, new, first)
            joined = larger(code, old, new) if largest and t < terms else code.arith("add", old, new)
            code.store(joined, code.vector, total[a][v][t])
    found = [[[code.load(s, code.vector) for s in total[a][v]] for v in range(vectors)] for a in range(rows)]
    for t in definition.apart:
        tx, ty = names.read(code, "tx", "ptr"), names.read(code, "ty", "ptr")
        for a, v in ((a, v) for a in range(rows) for v in range(vectors)):
            theirs = code.load(code.at(ty, code.put(f"add i64 {j}, {v * lanes}")), code.vector, 4)
            found[a][v].insert(t, code.arith("add", code.spread(code.load(code.at(tx, places[a]), code.scalar)), theirs))
    return found


def _quotient(code: Code, definition: Definition, x: list[Value], y: list[Value], weight: Value | None) -> tuple[Value, Value]:
    """The two numbers of a quotient of moderate numbers; the lower is not 0."""
    (term,), inputs = definition.terms, definition.recipe.inputs
    (above,) = code.expressions([term.args[0]], inputs("x", x) | inputs("y", y))
    (below,) = code.expressions([term.args[1]], inputs("x", [code.arith("add", x[0], code.tiny)]) | inputs("y", y))
    return above if weight is None else code.arith("mul", above, weight), below


def _accumulate(
    code: Code, definition: Definition, x: list[Value], y: list[Value], weight: Value | None, sums: list[Value], largest: bool
) -> None:
    recipe = definition.recipe
    inputs = recipe.inputs("x", x) | recipe.inputs("y", y)
    if definition.counted:
        for test, place in zip(code.expressions([t.args[0] for t in definition.terms], inputs), sums, strict=True):
            one = code.put(f"sext {code.truth} {test} to {code.whole}")  # -1
            code.store(code.number(code.ints("sub", code.bits(code.load(place, code.vector)), one)), code.vector, place)
        return
    if definition.quotients:
        above, below = _quotient(code, definition, x, y, weight)
        values, weight = [code.arith("div", above, below)], None
    else:
        values = code.expressions(definition.looped, inputs)
    here = None
    if recipe.omit:
        here = code.compare("ord", x[0], y[0])
        values = [code.choose(here, v, code.constant(0.0)) for v in values]
    for term, value, place in zip(definition.looped, values, sums, strict=False):
        old = code.load(place, code.vector)
        if largest:
            if weight is not None:
                value = code.choose(code.compare("ogt", weight, code.constant(0.0)), value, code.constant(0.0))
            new = larger(code, old, value)
        elif weight is not None:
            new = code.fma(value, weight, old)
        else:
            new = code.plus_product(value, old) if term.op == "abs" else code.plus(old, value)
        code.store(new, code.vector, place)
    if here is not None:
        counted = code.choose(here, weight if weight is not None else code.constant(1.0), code.constant(0.0))
        place = sums[-1]
        code.store(code.arith("add", code.load(place, code.vector), counted), code.vector, place)


def larger(code: Code, a: Value, b: Value) -> Value:
    """The larger of two terms, which are 0 or more, or NaN."""
    return code.upper(a, code.abs(b))


def finished(code: Code, definition: Definition, names: Slots, reduced: list[Value], row: Value, column: Value, count: Value) -> Value:
    """The distance of one vector of pairs."""
    inputs = inputs_of(code, definition, names, reduced, row, column, count)
    (value,) = code.expressions([definition.result], inputs)
    if "log" in definition.recipe.ahead:
        return code.choose(code.compare("ogt", value, code.constant(HUGE)), code.constant(math.inf), value)
    return value


def inputs_of(
    code: Code, definition: Definition, names: Slots, reduced: list[Value], row: Value, column: Value, count: Value
) -> dict[str, Value]:
    """What ``finish`` needs."""
    recipe = definition.recipe
    values = reduced[: len(definition.terms)]
    if recipe.omit:
        present = reduced[-1]
        some = code.compare("ogt", present, code.constant(0.0))
        if recipe.metric.reduce == "sum":
            gap = code.arith("div", count, code.choose(some, present, code.constant(1.0)))
            values = [code.arith("mul", v, gap) for v in values]
        values = [code.choose(some, v, code.constant(math.nan)) for v in values]
    inputs = {f"r{i}": v for i, v in enumerate(values)} | {"n": count}
    for name in recipe.free:
        inputs[name] = code.spread(code.load(names.read(code, name, "ptr"), code.scalar))
    for i in range(recipe.x_stats):
        inputs[f"sx{i}"] = code.spread(code.load(code.at(names.read(code, f"sx{i}", "ptr"), row), code.scalar))
        inputs[f"sy{i}"] = code.load(code.at(names.read(code, f"sy{i}", "ptr"), column), code.vector, 4)
    return inputs


def lowest(definition: Definition) -> float:
    """A distance below this came of sums that lost digits to subnormal numbers."""
    metric = definition.recipe.metric
    if metric.scale != "difference":
        return 0.0
    normal, eps = (2.0**-126, 2.0**-23) if definition.recipe.scalar == "float" else (2.0**-1022, 2.0**-52)
    return float((normal / eps) ** min(1.0, 1 / dict(definition.recipe.params).get("p", 2.0)))


def odd_ones(code: Code, definition: Definition, value: Value) -> Value | None:
    """Which values are inf, NaN or too small to be trusted."""
    metric = definition.recipe.metric
    if metric.scale in ("difference", "pair", "term"):
        good = code.put(
            f"and {code.truth} {code.compare('oge', value, code.constant(lowest(definition)))}, "
            f"{code.compare('olt', value, code.constant(math.inf))}"
        )
        return code.put(f"xor {code.truth} {good}, {code.splat('true', 'i1')}")
    return code.compare("uno", value, value) if definition.recipe.weighted else None


def any_of(code: Code, test: Value) -> Value:
    if code.lanes == 1:
        return test
    bits = code.put(f"bitcast {code.truth} {test} to i{code.lanes}")
    return code.put(f"icmp ne i{code.lanes} {bits}, 0")


def store(code: Code, value: Value, target: Value, left: Value) -> None:
    """A vector of results; at the right edge only what there is."""
    lanes = code.lanes
    whole, edge, end = code.label(), code.label(), code.label()
    code.do(f"br i1 {code.put(f'icmp sge i64 {left}, {lanes}')}, label %{whole}, label %{edge}")
    code.start(whole)
    code.store(value, code.vector, target, 4)
    code.do(f"br label %{end}")
    code.start(edge)
    shelf = code.room(code.vector)
    code.store(value, code.vector, shelf)
    with code.loop("0", code.smaller(left, str(lanes))) as k:
        code.store(code.load(code.at(shelf, k), code.scalar), code.scalar, code.at(target, k))
    code.do(f"br label %{end}")
    code.start(end)


# --- copies -------------------------------------------------------------------------------------------------------------


def mirror(scalar: str) -> str:
    """``out[j, i] = out[i, j]`` for top <= i < bottom and j > i, first <= j < stop.

    Some columns at a time, down the rows: each is written as one run of memory, and what is read comes by whole pieces of a line.
    """
    code, step = Code(scalar, 1), 8
    out, stride, top, bottom, first, stop = (MIRROR.read(code, s, "ptr" if s == "out" else "i64") for s in MIRROR.names)
    with code.loop(first, stop, step) as j:
        end = code.smaller(code.put(f"add i64 {j}, {step}"), stop)
        rows = [code.at(out, code.put(f"mul i64 {code.put(f'add i64 {j}, {b}')}, {stride}")) for b in range(step)]
        whole = code.put(f"icmp eq i64 {code.put(f'sub i64 {end}, {j}')}, {step}")
        above = code.put(f"select i1 {whole}, i64 {code.smaller(j, bottom)}, i64 {top}")
        with code.loop(top, above) as i:
            source = code.at(code.at(out, code.put(f"mul i64 {i}, {stride}")), j)
            values = [code.load(code.at(source, str(b)), scalar) for b in range(step)]
            for value, row in zip(values, rows, strict=True):
                code.store(value, scalar, code.at(row, i))
        with code.loop(above, code.smaller(end, bottom)) as i:  # next to the diagonal, and columns that are left over
            after = code.put(f"add i64 {i}, 1")
            start = code.put(f"select i1 {code.put(f'icmp sgt i64 {j}, {after}')}, i64 {j}, i64 {after}")
            source = code.at(out, code.put(f"mul i64 {i}, {stride}"))
            with code.loop(start, end) as k:
                value = code.load(code.at(source, k), scalar)
                code.store(value, scalar, code.at(out, code.put(f"add i64 {code.put(f'mul i64 {k}, {stride}')}, {i}")))
    code.do("ret i64 0")
    return module([code], [code.function("mirror", "ptr %a", "i64")])


MIRROR = Slots("out", "stride", "top", "bottom", "first", "stop")


def pack(scalar: str, width: int) -> str:
    """Columns into panels of ``width``: (n, d) with any strides becomes (n / width, d, width), the last row repeated."""
    code, function = packing(scalar, width)
    return module([code], [function])


def packing(scalar: str, width: int) -> tuple[Code, str]:
    code = Code(scalar, 1)
    names = PACK
    n, d, y, out = names.read(code, "n"), names.read(code, "d"), names.read(code, "y", "ptr"), names.read(code, "out", "ptr")
    by_row, by_feature = names.read(code, "row"), names.read(code, "feature")
    with code.loop("0", n, width) as j:
        target = code.at(out, code.put(f"mul i64 {j}, {d}"))
        rows = [
            code.at(y, code.put(f"mul i64 {code.smaller(code.put(f'add i64 {j}, {b}'), code.put(f'sub i64 {n}, 1'))}, {by_row}"))
            for b in range(width)
        ]
        with code.loop("0", d) as k:
            place = code.at(target, code.put(f"mul i64 {k}, {width}"))
            feature = code.put(f"mul i64 {k}, {by_feature}")
            for b, row in enumerate(rows):
                code.store(code.load(code.at(row, feature), scalar), scalar, code.at(place, str(b)))
    code.do("ret i64 0")
    return code, code.function("pack", "ptr noalias %a", "i64")


PACK = Slots("n", "d", "y", "row", "feature", "out")
