"""A metric's definition as expressions: its text run once on symbols, and the derivative of what came out.

The text of :mod:`pairx.metrics` has no ``if`` on a value, so one run records all of it. ``Scalars`` is the namespace that it
is given; what it returns are :class:`Node`, equal where they are equal (so that nothing is computed twice).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

FUNCTIONS = {
    "sqrt", "exp", "log", "log1p", "log_ratio", "two_entropies", "atanh", "sin", "cos", "atan2", "tanh", "abs", "maximum", "minimum",
    "where",
}  # fmt: skip
BOOLEAN = {"eq", "ne", "lt", "le", "and", "or", "not", "true", "false"}


class Node:
    """One operation on one number of a pair, or an input of it."""

    __slots__ = ("args", "graph", "op", "value")

    def __init__(self, graph: Scalars, op: str, args: tuple[Node, ...], value: Any) -> None:
        self.graph, self.op, self.args, self.value = graph, op, args, value

    @property
    def dtype(self) -> str:
        """What the kernel computes in."""
        return self.graph.dtype

    @property
    def boolean(self) -> bool:
        """True or false, and no number."""
        return self.op in BOOLEAN

    def __add__(self, other: Any) -> Node:
        return self.graph.make("add", self, other)

    def __radd__(self, other: Any) -> Node:
        return self.graph.make("add", other, self)

    def __sub__(self, other: Any) -> Node:
        return self.graph.make("sub", self, other)

    def __rsub__(self, other: Any) -> Node:
        return self.graph.make("sub", other, self)

    def __mul__(self, other: Any) -> Node:
        return self.graph.make("mul", self, other)

    def __rmul__(self, other: Any) -> Node:
        return self.graph.make("mul", other, self)

    def __truediv__(self, other: Any) -> Node:
        return self.graph.make("div", self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return self.graph.make("div", other, self)

    def __neg__(self) -> Node:
        return self.graph.make("neg", self)

    def __pow__(self, exponent: float) -> Node:
        return self.graph.power(self, float(exponent))

    def __eq__(self, other: object) -> Any:
        return self.graph.make("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return self.graph.make("ne", self, other)

    def __lt__(self, other: Any) -> Node:
        return self.graph.make("lt", self, other)

    def __le__(self, other: Any) -> Node:
        return self.graph.make("le", self, other)

    def __gt__(self, other: Any) -> Node:
        return self.graph.make("lt", other, self)

    def __ge__(self, other: Any) -> Node:
        return self.graph.make("le", other, self)

    def __and__(self, other: Any) -> Node:
        return self.graph.make("and", self, other)

    def __or__(self, other: Any) -> Node:
        return self.graph.make("or", self, other)

    def __invert__(self) -> Node:
        return self.graph.make("not", self)

    def __bool__(self) -> bool:
        raise TypeError("A definition must not branch on a value: take xp.where.")

    __hash__ = object.__hash__


class Scalars:
    """The namespace of one number of each side, and the table of its nodes.

    ``positive`` names the inputs that are known to be above 0 and finite, and ``present`` those that are not NaN: tests of that
    are decided while tracing. ``moderate`` are 0 or more, and their products are safe.
    """

    kind: type[Node] = Node
    dtype = "float32"

    def __init__(self, positive: Iterable[str] = (), present: Iterable[str] = (), moderate: Iterable[str] = ()) -> None:
        self._known: dict[Any, Node] = {}
        self.moderate = frozenset(moderate)
        self.positive, self.present = frozenset(positive), frozenset(present) | frozenset(positive)

    def node(self, op: str, args: tuple[Node, ...] = (), value: Any = None) -> Node:
        """The one node of this operation on these arguments."""
        key = (op, tuple(map(id, args)), value if not isinstance(value, float) else (value, math.copysign(1.0, value), value != value))
        if key not in self._known:
            self._known[key] = self.kind(self, op, args, value)
        return self._known[key]

    def input(self, name: str) -> Node:
        """A number that comes from outside."""
        return self.node("input", value=name)

    def constant(self, value: float) -> Node:
        """A number known while tracing."""
        value = float(value)
        return self.node("constant", value=math.nan if value != value else value)

    def make(self, op: str, *args: Any) -> Node:
        """An operation; what is known already is computed now, and what changes nothing is left away."""
        nodes = tuple(a if isinstance(a, Node) else self.constant(a) for a in args)
        if op == "mul":
            for a, b in (nodes, nodes[::-1]):
                if a.op == "constant" and a.value == 1.0:
                    return b
                if a is b:
                    return self.power(a, 2.0)
                if b.op == "pow" and b.args[0] is a and b.value in (2.0, 3.0):
                    return self.power(a, b.value + 1.0)
        if op == "div" and nodes[1].op == "constant" and nodes[1].value == 1.0:
            return nodes[0]
        if self.present and (known := self._decided(op, nodes)) is not None:
            return known
        if op == "abs" and self._never_negative(nodes[0]):
            return nodes[0]
        if op == "neg" and nodes[0].op == "constant":
            return self.constant(-nodes[0].value)
        if op == "neg" and nodes[0].op == "neg":
            return nodes[0].args[0]
        return self.node(op, nodes)

    def _never_negative(self, a: Node) -> bool:
        return a.value in self.moderate if a.op == "input" else a.op == "add" and all(map(self._never_negative, a.args))

    def _decided(self, op: str, nodes: tuple[Node, ...]) -> Node | None:
        """What follows from what is known of the inputs."""

        def above(a: Node) -> bool:
            return a.value in self.positive if a.op == "input" else a.op == "constant" and 0.0 < a.value < math.inf

        def zero(a: Node) -> bool:
            return a.op == "constant" and a.value == 0.0

        if op in ("lt", "le") and zero(nodes[0]) and above(nodes[1]):
            return self.node("true")
        if op == "ne" and nodes[0] is nodes[1] and nodes[0].value in self.present:
            return self.node("false")
        if op in ("and", "or"):
            for a, b in (nodes, nodes[::-1]):
                if a.op == ("true" if op == "and" else "false"):
                    return b
        if op == "where" and nodes[0].op in ("true", "false"):
            return nodes[1 if nodes[0].op == "true" else 2]
        if op == "div" and nodes[0].op == "mul" and above(nodes[1]):
            a, b = nodes[0].args
            return a if b is nodes[1] else b if a is nodes[1] else None
        return None

    def power(self, a: Node, exponent: float) -> Node:
        """a ** exponent."""
        return a if exponent == 1.0 else self.node("pow", (a,), exponent)

    def __getattr__(self, op: str) -> Callable[..., Node]:
        if op not in FUNCTIONS and not (op == "jensen" and self.positive) and not (op == "quotient" and self.moderate):
            raise AttributeError(f"A compiled definition cannot use {op}.")
        return lambda *args: self.make(op, *args)

    def divide(self, a: Any, b: Any) -> Node:
        """a / b."""
        return self.make("div", a, b)

    def clip(self, a: Any, low: float | None, high: float | None) -> Node:
        """Into [low, high]; NaN stays."""
        a = a if low is None else self.make("maximum", a, low)
        return a if high is None else self.make("minimum", a, high)

    def finfo(self, dtype: Any) -> Any:
        """Of what a kernel computes in."""
        import numpy as np

        return np.finfo(dtype)

    def ones_like(self, a: Any) -> Node:
        """1."""
        return self.constant(1.0)

    def zeros_like(self, a: Any) -> Node:
        """0."""
        return self.constant(0.0)

    def full_like(self, a: Any, value: float) -> Node:
        """A constant."""
        return self.constant(value)

    def isnan(self, a: Any) -> Node:
        """NaN is what does not equal itself."""
        return self.make("ne", a, a)

    def isinf(self, a: Any) -> Node:
        """Plus or minus infinity."""
        return self.make("eq", self.make("abs", a), math.inf)


def order(roots: Iterable[Node]) -> list[Node]:
    """Every node that the roots need, each after its arguments."""
    found: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) not in found:
            for arg in node.args:
                visit(arg)
            found[id(node)] = node

    for root in roots:
        visit(root)
    return list(found.values())


def evaluate(roots: Iterable[Node], **inputs: float) -> list[float]:
    """The values of expressions for given inputs, in float64."""
    import numpy as np

    rules: dict[str, Any] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt,
        "exp": np.exp, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "atan2": np.arctan2, "tanh": np.tanh,
        "sign": np.sign, "maximum": np.maximum, "minimum": np.minimum, "where": np.where, "eq": np.equal, "ne": np.not_equal,
        "log_ratio": lambda p, q: np.log(p) - np.log(q), "atanh": np.arctanh,
        "two_entropies": lambda u: np.log1p(-u * u) + u * (np.log1p(u) - np.log1p(-u)),
        "lt": np.less, "le": np.less_equal, "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    }  # fmt: skip
    roots = list(roots)
    value: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for node in order(roots):
            args = [value[id(a)] for a in node.args]
            if node.op == "input":
                value[id(node)] = np.float64(inputs[node.value])
            elif node.op == "constant":
                value[id(node)] = np.float64(node.value)
            elif node.op == "pow":
                value[id(node)] = args[0] ** node.value
            else:
                value[id(node)] = rules[node.op](*args)
    return [float(value[id(r)]) for r in roots]


def turned(g: Node, size: Node) -> Node | None:
    """``g`` times the sign of a where a power of ``size`` = \\|a\\| is a factor of it: one of them becomes a."""
    if g.op == "pow" and g.args[0] is size and g.value >= 2.0:
        return g.graph.power(size, g.value - 1.0) * size.args[0]
    if g.op == "mul":
        for one, other in (g.args, g.args[::-1]):
            if (found := turned(one, size)) is not None:
                return found * other
    return None


def derivatives(root: Node, wanted: list[Node], seed: Any = 1.0) -> list[Node]:
    """``seed`` times the derivative of ``root`` by each of ``wanted``, in reverse.

    The conventions are those of the gradients everywhere in pairx: slope 0 of \\|x\\| at 0, halves at a tie of a maximum.
    What a ``where`` does not choose gets the cotangent 0, and the definitions keep it finite.
    """
    graph = root.graph
    slope: dict[int, Node] = {id(root): seed if isinstance(seed, Node) else graph.constant(seed)}

    def give(node: Node, part: Node) -> None:
        if node.op != "constant":
            slope[id(node)] = slope[id(node)] + part if id(node) in slope else part

    for node in reversed(order([root])):
        g = slope.get(id(node))
        if g is None or node.boolean:
            continue
        args = node.args
        if node.op == "add":
            give(args[0], g)
            give(args[1], g)
        elif node.op == "sub":
            give(args[0], g)
            give(args[1], -g)
        elif node.op == "mul":
            give(args[0], g * args[1])
            give(args[1], g * args[0])
        elif node.op == "div":
            part = g / args[1]
            give(args[0], part)
            give(args[1], -(part * node))
        elif node.op == "neg":
            give(args[0], -g)
        elif node.op == "abs":
            signed = turned(g, node)
            give(args[0], g * graph.node("sign", args) if signed is None else signed)
        elif node.op == "sqrt":
            give(args[0], 0.5 * g / node)
        elif node.op == "pow":
            # A root is there already, and is divided by what it is of; a higher power may overflow before its slope does.
            root = 0.0 < node.value < 1.0
            give(args[0], node.value * g * (node / args[0] if root else graph.power(args[0], node.value - 1.0)))
        elif node.op == "exp":
            give(args[0], g * node)
        elif node.op == "log":
            give(args[0], g / args[0])
        elif node.op == "log_ratio":
            give(args[0], g / args[0])
            give(args[1], -(g / args[1]))
        elif node.op == "two_entropies":
            give(args[0], 2.0 * g * graph.atanh(args[0]))
        elif node.op == "atanh":
            give(args[0], g / (1.0 - args[0] * args[0]))
        elif node.op == "log1p":
            give(args[0], g / (1.0 + args[0]))
        elif node.op == "sin":
            give(args[0], g * graph.cos(args[0]))
        elif node.op == "cos":
            give(args[0], -(g * graph.sin(args[0])))
        elif node.op == "tanh":
            give(args[0], g * (1.0 - node * node))
        elif node.op == "atan2":
            part = g / (args[0] * args[0] + args[1] * args[1])
            give(args[0], part * args[1])
            give(args[1], -(part * args[0]))
        elif node.op in ("maximum", "minimum"):
            half = graph.where(args[0] == args[1], 0.5, 0.0)
            wins, loses = (args[0] > args[1], args[0] < args[1]) if node.op == "maximum" else (args[0] < args[1], args[0] > args[1])
            give(args[0], g * graph.where(wins, 1.0, half))
            give(args[1], g * graph.where(loses, 1.0, half))
        elif node.op == "where":
            give(args[1], graph.where(args[0], g, 0.0))
            give(args[2], graph.where(args[0], 0.0, g))
        elif node.op != "input":
            raise AssertionError(f"no derivative of {node.op}")
    return [slope.get(id(w), graph.constant(0.0)) for w in wanted]
