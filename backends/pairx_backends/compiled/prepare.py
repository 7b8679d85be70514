"""What ``prepare`` makes of the rows of one side, in machine code: a row stays in the cache while its sums are formed, one after another.

A trace like that of the terms, with two more operations: the sum and the largest of an expression over the features. Each that needs
no other is formed in a pass over the row, then those that need these, and the last pass writes the panels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from pairx import engine
from pairx.engine import Rule

from .definition import Slots
from .emit import Code, Value, module
from .kernels import larger
from .trace import Node, Scalars, order

CHUNK = 1024
"""Features that are summed before the sum joins the total."""


class Row(Node):
    """An expression that stands for a row: one number for each feature."""

    __slots__ = ()
    __hash__ = object.__hash__
    shape = (None,)
    """Kernels serve any number of features."""

    @property
    def dtype(self) -> Any:
        """Of the row."""
        return self.graph.dtype

    def __getitem__(self, key: Any) -> Node:
        if key != (Ellipsis, slice(None, 1)):
            raise AttributeError("A compiled preparation takes the first feature or all.")
        first: Node = self.first()
        return first

    def first(self) -> Any:
        """The same expression of the first feature."""
        if self.op == "input":
            return self.graph.node("input", value=f"first_{self.value}")
        if self.op in ("sum", "largest"):
            return self
        parts: tuple[Any, ...] = self.args
        return self.graph.node(self.op, tuple(a.first() for a in parts), self.value)


class Rows(Scalars):
    """The namespace of the rows, with sums over their features."""

    kind = Row

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.dtype = np.dtype(dtype)

    def astype(self, a: Node, dtype: Any, copy: bool = True) -> Node:
        """The kernel's own dtype is that of the row."""
        return a

    def finfo(self, dtype: Any) -> Any:
        """Of the kernel's own dtype."""
        return np.finfo(self.dtype)

    def sum(self, a: Node, axis: int, keepdims: bool) -> Node:
        """Over the features."""
        return self.node("sum", (a,))

    def max(self, a: Node, axis: int, keepdims: bool) -> Node:
        """Over the features, of numbers that are 0 or more."""
        return self.node("largest", (a,))


@dataclass(frozen=True)
class Sum:
    """One number of a row: the sum or the largest of an expression that may need ``level`` others before it."""

    name: str
    largest: bool
    level: int
    of: Node


class Preparation:
    """The expressions of a rule's preparation.

    Raises
    ------
    AttributeError
        If it needs what a row by itself does not tell.
    """

    def __init__(self, rule: Rule, scalar: str, lanes: int) -> None:
        self.scalar, self.lanes, self.weighted = scalar, lanes, rule.weighted
        graph = Rows("float32" if scalar == "float" else "float64")
        pieces = rule.metric.define(graph, **rule.params)
        backend: Any = SimpleNamespace(xp=graph, detach=lambda a: a)
        x, w = graph.input("x"), graph.input("w") if rule.weighted else None
        panels, stats = engine.rows(backend, rule, pieces, x, w)
        self.sums: list[Sum] = []
        self._level: dict[int, int] = {}
        self._new: dict[int, Node] = {}
        for node in order([*panels, *stats]):
            self._rewrite(graph, node)
        self.panels, self.stats = [self._new[id(p)] for p in panels], [self._new[id(s)] for s in stats]

    def _rewrite(self, graph: Rows, node: Node) -> None:
        """A sum becomes an input of what needs it."""
        self._level[id(node)] = max((self._level[id(a)] for a in node.args), default=0)
        if node.op not in ("sum", "largest"):
            self._new[id(node)] = graph.node(node.op, tuple(self._new[id(a)] for a in node.args), node.value) if node.args else node
            return
        name = f"s{len(self.sums)}"
        self.sums.append(Sum(name, node.op == "largest", self._level[id(node)], self._new[id(node.args[0])]))
        self._level[id(node)] += 1
        self._new[id(node)] = graph.input(name)

    @cached_property
    def same(self) -> bool:
        """The one panel is the row as it is."""
        return len(self.panels) == 1 and self.panels[0].op == "input" and self.panels[0].value == "x"

    @cached_property
    def slots(self) -> Slots:
        """The arguments of ``prepare``."""
        names = ["m", "d", "x", "stride", "w"]
        return Slots(*names, *(f"panel{p}" for p in range(len(self.panels))), *(f"stat{p}" for p in range(len(self.stats))))

    def text(self) -> str:
        """Panels and stats of m rows of d features, as LLVM's text."""
        code, function = self.function()
        return module([code], [function])

    def function(self) -> tuple[Code, str]:
        """The same as a function of a module."""
        code, names, lanes = Code(self.scalar, self.lanes), self.slots, self.lanes
        m, d, stride = (names.read(code, s) for s in ("m", "d", "stride"))
        x, w = names.read(code, "x", "ptr"), names.read(code, "w", "ptr")
        whole = code.put(f"and i64 {d}, {-lanes}")
        outs = {s: names.read(code, s, "ptr") for s in names.names[5:]}
        with code.loop("0", m) as i:
            row = code.at(x, code.put(f"mul i64 {i}, {stride}"))
            scalars = {"first_x": code.load(row, self.scalar)}
            for level in sorted({s.level for s in self.sums}):
                found = self._joined(code, [s for s in self.sums if s.level == level], row, w, scalars, whole, d)
                scalars |= found
            if not self.same:
                place = code.put(f"mul i64 {i}, {d}")
                targets = [code.at(outs[f"panel{p}"], place) for p in range(len(self.panels))]
                for width, start, stop in ((lanes, "0", whole), (1, whole, d)):
                    code.lanes = width
                    with code.loop(start, stop, width) as k:
                        inputs = self._inputs(code, row, w, scalars, k)
                        for value, target in zip(code.expressions(self.panels, inputs), targets, strict=True):
                            code.store(value, code.vector, code.at(target, k), 4)
            code.lanes = 1
            for p, value in enumerate(code.expressions(self.stats, scalars)):
                code.store(value, self.scalar, code.at(outs[f"stat{p}"], i))
            code.lanes = lanes
        code.do("ret i64 0")
        return code, code.function("prepare", "ptr noalias %a", "i64")

    def _inputs(self, code: Code, row: Value, w: Value, scalars: dict[str, Value], k: Value) -> dict[str, Value]:
        """What an expression of some neighbouring features needs."""
        inputs = {name: code.spread(value) for name, value in scalars.items()} | {"x": code.load(code.at(row, k), code.vector, 4)}
        return inputs | {"w": code.load(code.at(w, k), code.vector, 4)} if self.weighted else inputs

    def _joined(
        self, code: Code, sums: list[Sum], row: Value, w: Value, scalars: dict[str, Value], whole: Value, d: Value
    ) -> dict[str, Value]:
        """Sums that need only what is known, in one pass."""
        lanes, zero = self.lanes, code.constant(0.0)
        total, part = ([code.room(code.vector) for _ in sums] for _ in range(2))
        single = [code.room(self.scalar) for _ in sums]

        def join(s: Sum, old: Value, new: Value) -> Value:
            return larger(code, old, new) if s.largest else code.arith("add", old, new)

        def gather(places: list[Value], k: Value) -> None:
            values = code.expressions([s.of for s in sums], self._inputs(code, row, w, scalars, k))
            for s, value, place in zip(sums, values, places, strict=True):
                code.store(join(s, code.load(place, code.vector), value), code.vector, place)

        for place in total:
            code.store(zero, code.vector, place)
        with code.loop("0", whole, CHUNK) as first:
            for place in part:
                code.store(zero, code.vector, place)
            with code.loop(first, code.smaller(code.put(f"add i64 {first}, {CHUNK}"), whole), lanes) as k:
                gather(part, k)
            for s, old, new in zip(sums, total, part, strict=True):
                code.store(join(s, code.load(old, code.vector), code.load(new, code.vector)), code.vector, old)
        vectors = [code.load(place, code.vector) for place in total]
        code.lanes = 1
        for s, vector, place in zip(sums, vectors, single, strict=True):
            kind = f"<{lanes} x {self.scalar}>"
            parts = [code.put(f"extractelement {kind} {vector}, i64 {lane}") for lane in range(lanes)] if lanes > 1 else [vector]
            while len(parts) > 1:
                parts = [join(s, a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            code.store(parts[0], self.scalar, place)
        with code.loop(whole, d) as k:
            gather(single, k)
        found = {s.name: code.load(place, self.scalar) for s, place in zip(sums, single, strict=True)}
        code.lanes = lanes
        return found
