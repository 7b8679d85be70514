"""The repair of odd values, pair by pair, as LLVM's text."""

from __future__ import annotations

import math
from typing import Any

from .definition import Definition, Slots, slots
from .emit import Code, Value, module
from .kernels import finished, larger, odd_ones


def repair(definition: Definition) -> str:
    """Compute the odd values again, one pair at a time, scaled so that nothing overflows or underflows on the way.

    The rules are those of :func:`pairx.engine.joined`. A pair with NaN keeps it, and equal rows their 0.
    """
    recipe, metric = definition.recipe, definition.recipe.metric
    code = Code(recipe.scalar, 1)
    names = slots(recipe)
    width = definition.tile[1] * recipe.lanes
    m, n, d, upper = (names.read(code, s) for s in ("m", "n", "d", "upper"))
    out, stride = names.read(code, "out", "ptr"), names.read(code, "stride")
    count = code.load(names.read(code, "count", "ptr"), code.scalar)
    w = names.read(code, "w", "ptr")
    vector, zero, one = code.vector, code.constant(0.0), code.constant(1.0)
    x0, y0 = names.read(code, "x0", "ptr"), names.read(code, "y0", "ptr")
    top, gaps, factor = code.room(vector), code.room("i1"), code.room(vector)
    sums = [code.room(vector) for _ in range(len(definition.terms) + recipe.omit)]
    with code.loop("0", m) as i:
        first = code.put(f"select i1 {code.put(f'icmp ne i64 {upper}, 0')}, i64 {i}, i64 0")
        with code.loop(first, n) as j:
            target = code.at(out, code.put(f"add i64 {code.put(f'mul i64 {i}, {stride}')}, {j}"))
            spoilt = odd_ones(code, definition, code.load(target, vector))
            assert spoilt is not None
            with code.when(spoilt):
                x_row = code.at(x0, code.put(f"mul i64 {i}, {names.read(code, 'xs0')}"))
                panel, lane = code.put(f"sdiv i64 {j}, {width}"), code.put(f"srem i64 {j}, {width}")
                start = code.put(f"mul i64 {code.put(f'mul i64 {panel}, {d}')}, {width}")
                y_row = code.at(y0, code.put(f"add i64 {start}, {lane}"))

                def pair(k: Value, x_row: Value = x_row, y_row: Value = y_row) -> tuple[Value, Value]:
                    y = code.at(y_row, code.put(f"mul i64 {k}, {width}"))
                    return code.load(code.at(x_row, k), vector), code.load(y, vector)

                code.store(zero, vector, top)
                code.store("false", "i1", gaps)
                with code.loop("0", d) as k:
                    x, y = pair(k)
                    gap = code.compare("uno", x, y)
                    code.store(code.put(f"or i1 {code.load(gaps, 'i1')}, {gap}"), "i1", gaps)
                    size = code.abs(code.arith("sub", x, y)) if metric.scale == "difference" else None
                    if size is None:
                        a, b = code.abs(x), code.abs(y)
                        size = code.choose(code.compare("ogt", a, b), a, b)
                    old = code.load(top, vector)
                    code.store(code.choose(code.compare("ogt", size, old), size, old), vector, top)
                largest = code.load(top, vector)
                if metric.scale == "difference":  # 1 where it is 0 or not finite
                    usable = code.put(
                        f"and i1 {code.compare('ogt', largest, zero)}, {code.compare('olt', largest, code.constant(math.inf))}"
                    )
                    code.store(code.choose(usable, largest, one), vector, factor)
                    worth = code.compare("ogt", largest, zero)
                else:
                    worth = "true"
                if not recipe.omit:
                    whole = code.put(f"xor i1 {code.load(gaps, 'i1')}, true")
                    worth = code.put(f"and i1 {worth}, {whole}")
                with code.when(worth):
                    _again(code, definition, names, pair, (i, j, d, w, count, largest, code.load(factor, vector)), sums, target)
    code.do("ret i64 0")
    return module([code], [code.function("repair", "ptr noalias %a", "i64")])


def _again(code: Code, definition: Definition, names: Slots, pair: Any, given: tuple[Value, ...], sums: list[Value], target: Value) -> None:
    """One pair, scaled."""
    i, j, d, w, count, largest, divisor = given
    recipe, metric = definition.recipe, definition.recipe.metric
    vector, zero, one = code.vector, code.constant(0.0), code.constant(1.0)
    for place in sums:
        code.store(zero, vector, place)
    greatest = 3.4028234663852886e38 if recipe.scalar == "float" else 1.7976931348623157e308
    eighth = code.arith("mul", code.put(f"sitofp i64 {d} to {code.scalar}"), code.constant(8.0))
    edge, shrink = code.arith("div", code.constant(greatest), eighth), code.arith("div", one, eighth)
    with code.loop("0", d) as k:
        x, y = pair(k)
        present = code.compare("ord", x, y)
        weight = code.load(code.at(w, k), vector) if recipe.weighted else None
        if metric.scale == "difference":
            x, y = code.arith("div", code.arith("sub", x, y), divisor), zero
        elif metric.scale in ("pair", "term"):
            size = largest
            if metric.scale == "term":
                a, b = code.abs(x), code.abs(y)
                size = code.choose(code.compare("ogt", a, b), a, b)
            factor = code.choose(code.compare("ogt", size, edge), shrink, one)
            x, y = code.arith("mul", x, factor), code.arith("mul", y, factor)
        values = code.expressions(definition.terms, {"x0": x, "y0": y})
        if recipe.omit:
            values = [code.choose(present, v, zero) for v in values]
        for value, place in zip(values, sums, strict=False):
            old = code.load(place, vector)
            if metric.reduce == "max":
                if weight is not None:
                    value = code.choose(code.compare("ogt", weight, zero), value, zero)
                code.store(larger(code, old, value), vector, place)
                continue
            if weight is not None:  # what overflowed in a feature without weight does not count
                none = code.compare("oeq", weight, zero)
                lost = code.compare("oeq", code.abs(value), code.constant(math.inf))
                value = code.choose(code.put(f"and i1 {none}, {lost}"), zero, value)
                value = code.arith("mul", value, weight)
            code.store(code.arith("add", old, value), vector, place)
        if recipe.omit:
            counted = code.choose(present, weight or one, zero)
            code.store(code.arith("add", code.load(sums[-1], vector), counted), vector, sums[-1])
    reduced = [code.load(s, vector) for s in sums]
    value = finished(code, definition, names, reduced, i, j, count)
    if metric.scale == "difference":
        value = code.arith("mul", value, divisor)
    code.store(value, vector, target)
