"""What a kernel computes: a metric's definition as expressions, and what follows from them for the loops around."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pairx.metrics import Metric

from .emit import Code, Value
from .instructions import broad
from .known import Known
from .trace import Node, Scalars, order


class Slots:
    """Names for the 64-bit arguments of a kernel."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.index = {n: i for i, n in enumerate(names)}

    def array(self, values: dict[str, int]) -> Any:
        """The arguments of a call; what is not given is 0."""
        return np.array([values.get(name, 0) for name in self.names], np.int64)

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

    @property
    def broad(self) -> bool:
        """Whether registers have 64 bytes."""
        return broad(self.scalar, self.lanes)

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
        graph.dtype = "float32" if recipe.scalar == "float" else "float64"
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
            return (1, 2) if self.weight >= 8 else (4, 3) if self.recipe.broad else (4, 2)
        if sums == 1 and self.weight < 8:
            return 2, 4
        if sums == 1 and self.weight < 16 and self.recipe.broad:
            return 3, 4
        return (2, 2) if self.weight < 16 else (2, 1)


def slots(recipe: Recipe) -> Slots:
    """The arguments of the forward kernel."""
    names = ["m", "n", "d", "upper", "out", "stride", "w", "count", *recipe.free]
    names += [f"{s}{i}" for i in range(recipe.panels) for s in ("x", "xs", "y")]
    names += [f"{s}{i}" for i in range(recipe.x_stats) for s in ("sx", "sy")]
    return Slots(*names, "tx", "ty")
