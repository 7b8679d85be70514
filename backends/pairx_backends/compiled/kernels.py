"""The loops around a metric's expressions: values, cotangents, gradients and the repair of odd values, as LLVM's text.

Every function takes one pointer to 64-bit slots (sizes, strides in elements, addresses), named by :class:`Slots`. x lies as it
came, row by row; y is packed in panels of some columns each, feature by feature, so that one load brings one feature of
neighbouring rows. A tile of (rows x columns) sums stays in registers while the features go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pairx.metrics import Metric

from .emit import Code, Value, module
from .known import HUGE, Known
from .trace import Node, Scalars, order

CHUNK = 256
"""Features that are summed before the sum joins the total: rounding errors grow with this, not with all features."""


class Slots:
    """Names for the 64-bit arguments of a kernel."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.index = {n: i for i, n in enumerate(names)}

    def read(self, code: Code, name: str, kind: str = "i64") -> Value:
        """Load one of them."""
        return code.load(code.at("%a", str(self.index[name]), "i64"), kind)


@dataclass(frozen=True)
class Recipe:
    """What a kernel depends on: equal recipes have equal kernels."""

    metric: Metric
    params: tuple[tuple[str, Any], ...]
    scalar: str
    """float or double."""
    lanes: int
    weighted: bool
    omit: bool
    panels: int
    x_stats: int
    free: tuple[str, ...] = ()
    """Parameters that are given at the call, so that one kernel serves all their values."""
    known: Known = ""
    ahead: tuple[str, ...] = ()
    """What is computed of the first panel once for each row, and not for each pair: its logarithm, say."""

    @property
    def stored(self) -> int:
        """Panels of each side, with those computed ahead."""
        return self.panels + len(self.ahead)

    def beside(self, side: str) -> tuple[str, ...]:
        """What lies side by side in a special kernel's rows: the number itself, or "", and what was computed ahead of it."""
        return self.ahead if side == "y" and "rest" in self.ahead else ("", *self.ahead)  # its logarithms are all that is read

    def inputs(self, side: str, values: list[Value]) -> dict[str, Value]:
        """The panels of one side by the names that expressions know them by."""
        names = [f"{side}{p}" for p in range(self.panels)] + [f"{kind}_{side}0" for kind in self.ahead]
        return dict(zip(names, values, strict=True))


class Definition:
    """The expressions of one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        both = ("x0", "y0")
        self.graph = graph = Scalars(*(both if recipe.known == known else () for known in ("ordinary", "present", "moderate")))
        pieces = recipe.metric.define(graph, **dict(recipe.params), **{name: graph.input(name) for name in recipe.free})
        self.x = [graph.input(f"x{i}") for i in range(recipe.panels)]
        self.y = [graph.input(f"y{i}") for i in range(recipe.panels)]
        self.terms: list[Node] = [self._node(t) for t in pieces.terms(*self.x, *self.y)]
        self.reduced = [graph.input(f"r{i}") for i in range(len(self.terms))]
        self.sx = [graph.input(f"sx{i}") for i in range(recipe.x_stats)]
        self.sy = [graph.input(f"sy{i}") for i in range(recipe.x_stats)]
        self.n = graph.input("n")
        self.result = self._node(pieces.finish(tuple(self.reduced), tuple(self.sx), tuple(self.sy), self.n))

    def _node(self, value: Any) -> Node:
        return value if isinstance(value, Node) else self.graph.constant(value)

    @cached_property
    def ahead(self) -> tuple[str, ...]:
        """What of the panels could be computed once for each row."""
        plain = [n.op for n in order(self.terms) if all(a.op == "input" for a in n.args)]
        return ("half_log", "low", "inverse") if "jensen" in plain else ("log", "rest") if "log_ratio" in plain else ()

    @cached_property
    def counted(self) -> range:
        """The terms that are 1 or 0, if all are: their sums are counts, and a whole number takes one operation less."""
        plain = not (self.recipe.weighted or self.recipe.omit or self.recipe.metric.reduce == "max")
        ones = all(t.op == "where" and t.args[0].boolean and [a.value for a in t.args[1:]] == [1.0, 0.0] for t in self.terms)
        return range(len(self.terms) if plain and ones else 0)

    @cached_property
    def apart(self) -> list[int]:
        """The terms x + y: their sum over the features is that of x and that of y, once for each row."""
        if self.recipe.known != "moderate":
            return []
        return [i for i, t in enumerate(self.terms) if t.op == "add" and t.args[0] is self.x[0] and t.args[1] is self.y[0]]

    @cached_property
    def looped(self) -> list[Node]:
        """The terms that every pair of features has."""
        return [t for i, t in enumerate(self.terms) if i not in self.apart]

    @cached_property
    def quotients(self) -> bool:
        """The term is a quotient: those of two features take one division."""
        return [t.op for t in self.terms] == ["quotient"]

    @cached_property
    def linear(self) -> bool:
        """The distance is its one joined term: its cotangent is that of the term."""
        return self.result is self.reduced[0]

    @cached_property
    def inverse(self) -> Node | None:
        """The joined term from the distance v, where that is the term, a root or a multiple of it; None where it tells too little."""
        if len(self.terms) != 1 or self.recipe.omit or self.recipe.metric.reduce == "max":
            return None
        found, node = self.graph.input("v"), self.result
        while node is not self.reduced[0]:
            constant = [a for a in node.args if a.op == "constant"]
            if node.op == "where" and len(constant) == 1:  # what it is where the term is 0, or less by rounding
                node = node.args[2] if node.args[1] is constant[0] else node.args[1]
            elif node.op == "mul" and constant and constant[0].value > 0:
                found, node = found / constant[0], node.args[0] if node.args[1] is constant[0] else node.args[1]
            elif node.op in ("sqrt", "pow"):
                found, node = self.graph.power(found, 2.0 if node.op == "sqrt" else 1 / node.value), node.args[0]
            else:
                return None
        return found

    @cached_property
    def weight(self) -> int:
        """How many operations a term takes, heavy ones counted as several."""
        heavy = {
            "div": 4, "sqrt": 4, "log": 20, "log1p": 24, "log_ratio": 24, "two_entropies": 40, "jensen": 34, "atanh": 30, "exp": 20,
            "quotient": 5, "pow": 60, "sin": 40, "cos": 40, "atan2": 60,
        }  # fmt: skip
        if self.recipe.ahead:
            heavy["log_ratio"] = 3
        counted = (n for n in order(self.looped) if n.op not in ("input", "constant"))
        return sum(heavy.get(n.op, 1) if n.op != "pow" or n.value * 4 % 1 else 3 for n in counted)

    @cached_property
    def tile(self) -> tuple[int, int]:
        """Rows, and vectors of columns, of a register tile."""
        sums = len(self.looped) + self.recipe.omit
        if self.recipe.ahead:
            return (4, 2) if self.weight < 8 else (1, 2)
        return (2, 4) if sums == 1 and self.weight < 8 else (2, 2) if self.weight < 16 else (2, 1)


# --- values -------------------------------------------------------------------------------------------------------------


def slots(recipe: Recipe) -> Slots:
    """The arguments of the forward kernel."""
    names = ["m", "n", "d", "upper", "out", "stride", "w", "count", *recipe.free]
    names += [f"{s}{i}" for i in range(recipe.panels) for s in ("x", "xs", "y")]
    names += [f"{s}{i}" for i in range(recipe.x_stats) for s in ("sx", "sy")]
    return Slots(*names, "tx", "ty")


def forward(definition: Definition) -> str:
    """``out[i, j]`` for all i, j (``upper``: for j >= i only); answers whether any value needs the repair."""
    code, function = _forward(definition)
    return module([code], [function])


def _forward(definition: Definition) -> tuple[Code, str]:
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
            reduced = _joined(code, definition, names, places, j)
            for a in range(rows):
                for v in range(vectors):
                    start = code.put(f"add i64 {j}, {v * recipe.lanes}")
                    value = _finished(code, definition, names, reduced[a][v], places[a], start, count)
                    spoilt = _odd(code, definition, value)
                    if spoilt is not None:
                        flag = code.put(f"zext i1 {_any(code, spoilt)} to i64")
                        code.store(code.put(f"or i64 {code.load(odd, 'i64')}, {flag}"), "i64", odd)
                    target = code.at(out, code.put(f"add i64 {code.put(f'mul i64 {places[a]}, {stride}')}, {start}"))
                    _store(code, value, target, code.put(f"sub i64 {n}, {start}"))
    code.do(f"ret i64 {code.load(odd, 'i64')}")
    return code, code.function("forward", "ptr noalias %a", "i64")


def _joined(
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
            joined = _larger(code, old, new) if largest and t < terms else code.arith("add", old, new)
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
    for value, place in zip(values, sums, strict=False):
        old = code.load(place, code.vector)
        if largest:
            if weight is not None:
                value = code.choose(code.compare("ogt", weight, code.constant(0.0)), value, code.constant(0.0))
            new = _larger(code, old, value)
        else:
            new = code.plus(old, value) if weight is None else code.fma(value, weight, old)
        code.store(new, code.vector, place)
    if here is not None:
        counted = code.choose(here, weight if weight is not None else code.constant(1.0), code.constant(0.0))
        place = sums[-1]
        code.store(code.arith("add", code.load(place, code.vector), counted), code.vector, place)


def _larger(code: Code, a: Value, b: Value) -> Value:
    """The larger of two terms, which are 0 or more, or NaN."""
    return code.upper(a, code.abs(b))


def _finished(code: Code, definition: Definition, names: Slots, reduced: list[Value], row: Value, column: Value, count: Value) -> Value:
    """The distance of one vector of pairs."""
    inputs = _inputs(code, definition, names, reduced, row, column, count)
    (value,) = code.expressions([definition.result], inputs)
    if "log" in definition.recipe.ahead:
        return code.choose(code.compare("ogt", value, code.constant(HUGE)), code.constant(math.inf), value)
    return value


def _inputs(
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


def _odd(code: Code, definition: Definition, value: Value) -> Value | None:
    """Which values are inf, NaN or too small to be trusted."""
    metric = definition.recipe.metric
    if metric.scale in ("difference", "pair", "term"):
        good = code.put(
            f"and {code.truth} {code.compare('oge', value, code.constant(lowest(definition)))}, "
            f"{code.compare('olt', value, code.constant(math.inf))}"
        )
        return code.put(f"xor {code.truth} {good}, {code.splat('true', 'i1')}")
    return code.compare("uno", value, value) if definition.recipe.weighted else None


def _any(code: Code, test: Value) -> Value:
    if code.lanes == 1:
        return test
    bits = code.put(f"bitcast {code.truth} {test} to i{code.lanes}")
    return code.put(f"icmp ne i{code.lanes} {bits}, 0")


def _store(code: Code, value: Value, target: Value, left: Value) -> None:
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


# --- repair -------------------------------------------------------------------------------------------------------------


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
            spoilt = _odd(code, definition, code.load(target, vector))
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
                code.store(_larger(code, old, value), vector, place)
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
    value = _finished(code, definition, names, reduced, i, j, count)
    if metric.scale == "difference":
        value = code.arith("mul", value, divisor)
    code.store(value, vector, target)


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
    code, function = _pack(scalar, width)
    return module([code], [function])


def _pack(scalar: str, width: int) -> tuple[Code, str]:
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


def small(definition: Definition) -> str:
    """``pack`` and ``forward`` in one call, for arrays given as Python's objects.

    To ask an array for its address takes longer than a small call; but the address stands right behind the object's head.
    """
    first, pack = _pack(definition.recipe.scalar, definition.tile[1] * definition.recipe.lanes)
    second, forward = _forward(definition)
    code, names = Code("i64", 1), slots(definition.recipe)
    for owner, slot, index in (("%x", "%a", names.index["x0"]), ("%y", "%p", PACK.index["y"]), ("%out", "%a", names.index["out"])):
        address = code.load(code.at(owner, str(HEAD), "i8"), "i64")
        code.store(address, "i64", code.at(slot, str(index), "i64"))
    code.put("call i64 @pack(ptr %p)")
    code.do(f"ret i64 {code.put('call i64 @forward(ptr %a)')}")
    return module([first, second], [pack, forward, code.function("small", "ptr %p, ptr %a, ptr %x, ptr %y, ptr %out", "i64")])


HEAD: int = object.__basicsize__
"""Bytes of the head of a Python object."""


PACK = Slots("n", "d", "y", "row", "feature", "out")
