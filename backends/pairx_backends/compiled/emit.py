"""LLVM's text for expressions of :mod:`.trace`: several pairs at once, side by side in one vector register.

Explicit vectors, since what a compiler's own vectoriser makes of a loop over features changes with its mood. Nothing here
reorders a sum or forgets NaN: of the fast-math flags only ``contract`` (a * b + c in one rounding) and ``nsz`` are used.
The elementary functions follow fdlibm (Sun Microsystems, 1993): errors below 1.5 units in the last place.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .known import pieces
from .trace import Node, order

Value = str
Bits = tuple[int, int, int, str]
_BITS: dict[str, Bits] = {"float": (32, 23, 127, "i32"), "double": (64, 52, 1023, "i64")}
"""Width, bits of the mantissa, bias of the exponent, integer of the same width."""
_LOG = {
    "float": (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
    "double": (
        6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
        1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
    ),
}  # fmt: skip
_LN2 = {"float": (6.9313812256e-01, 9.0580006145e-06), "double": (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
_EXP = {
    "float": (1.6666625440e-1, -2.7667332906e-3),
    "double": (1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05, -1.65339022054652515390e-06,
               4.13813679705723846039e-08),
}  # fmt: skip
_MAGIC = {"float": 12582912.0, "double": 6755399441055744.0}
"""1.5 times 2 ** (bits of the mantissa): what is added to it is rounded to a whole number, which then stands in its low bits."""


class Code:
    """The text of one function while it grows."""

    def __init__(self, scalar: str, lanes: int) -> None:
        self.scalar, self.lanes = scalar, lanes
        self.lines: list[str] = []
        self.entry: list[str] = []
        self.declared: dict[str, str] = {}
        self._products: dict[Value, tuple[tuple[Value, Value], ...]] = {}
        self._count = 0

    # --- types and constants

    @property
    def vector(self) -> str:
        """The type of ``lanes`` numbers."""
        return self.of(self.scalar)

    @property
    def whole(self) -> str:
        """The type of as many integers of the same width."""
        return self.of(self.element)

    @property
    def element(self) -> str:
        """An integer of the same width."""
        return _BITS[self.scalar][3]

    @property
    def truth(self) -> str:
        """The type of as many booleans."""
        return self.of("i1")

    def of(self, scalar: str) -> str:
        """``lanes`` of a scalar type."""
        return scalar if self.lanes == 1 else f"<{self.lanes} x {scalar}>"

    def constant(self, value: float, scalar: str | None = None) -> Value:
        """A number in every lane."""
        scalar = scalar or self.scalar
        if scalar == "float":
            try:
                value = struct.unpack("f", struct.pack("f", value))[0]
            except OverflowError:
                value = math.copysign(math.inf, value)
        text = f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
        return self.splat(text, scalar)

    def integer(self, value: int, scalar: str | None = None) -> Value:
        """A whole number in every lane."""
        return self.splat(str(value), scalar or self.element)

    def splat(self, text: str, scalar: str) -> Value:
        """A constant in every lane."""
        return text if self.lanes == 1 else "<" + ", ".join([f"{scalar} {text}"] * self.lanes) + ">"

    # --- instructions

    def name(self) -> Value:
        """A fresh name."""
        self._count += 1
        return f"%v{self._count}"

    def put(self, text: str) -> Value:
        """An instruction with a result."""
        found = self.name()
        self.lines.append(f"  {found} = {text}")
        return found

    def do(self, text: str) -> None:
        """An instruction without one."""
        self.lines.append(f"  {text}")

    def room(self, kind: str, count: int = 1) -> Value:
        """Memory of the function's own; what fits into registers ends there."""
        found = self.name()
        self.entry.append(f"  {found} = alloca {kind}, i64 {count}, align 64")
        return found

    def load(self, pointer: Value, kind: str, align: int | None = None) -> Value:
        """A value from memory."""
        return self.put(f"load {kind}, ptr {pointer}" + (f", align {align}" if align else ""))

    def some(self, pointer: Value, left: Value) -> Value:
        """The next ``lanes`` numbers, and 0 for those from ``left`` on, which are not read."""
        if self.lanes == 1:
            return self.load(pointer, self.vector)
        count = self.spread(left, "i64")
        place = f"<{', '.join(f'i64 {lane}' for lane in range(self.lanes))}>"
        there = self.put(f"icmp sgt {self.of('i64')} {count}, {place}")
        suffix = {"float": "f32", "double": "f64"}[self.scalar]
        name = f"llvm.masked.load.v{self.lanes}{suffix}.p0"
        self.declared[name] = f"declare {self.vector} @{name}(ptr, i32 immarg, {self.truth}, {self.vector})"
        return self.put(f"call {self.vector} @{name}(ptr {pointer}, i32 4, {self.truth} {there}, {self.vector} zeroinitializer)")

    def store(self, value: Value, kind: str, pointer: Value, align: int | None = None) -> None:
        """A value into memory."""
        self.do(f"store {kind} {value}, ptr {pointer}" + (f", align {align}" if align else ""))

    def at(self, pointer: Value, index: Value, kind: str | None = None) -> Value:
        """The address of an element."""
        return self.put(f"getelementptr inbounds {kind or self.scalar}, ptr {pointer}, i64 {index}")

    def call(self, function: str, result: str, *args: tuple[str, Value], flags: str = "") -> Value:
        """A call of an intrinsic or of the C library."""
        self.declared[function] = f"declare {result} @{function}({', '.join(kind for kind, _ in args)})"
        return self.put(f"call {flags}{result} @{function}({', '.join(f'{kind} {value}' for kind, value in args)})")

    def intrinsic(self, function: str, *args: Value) -> Value:
        """An LLVM intrinsic on vectors of numbers."""
        suffix = {"float": "f32", "double": "f64"}[self.scalar]
        kind = suffix if self.lanes == 1 else f"v{self.lanes}{suffix}"
        return self.call(f"llvm.{function}.{kind}", self.vector, *((self.vector, a) for a in args), flags="nsz ")

    def arith(self, op: str, a: Value, b: Value) -> Value:
        """add, sub, mul or div of numbers."""
        return self.put(f"f{op} contract nsz {self.vector} {a}, {b}")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, where the processor can in one rounding."""
        return self.intrinsic("fmuladd", a, b, c)

    def products(self, *pairs: tuple[Value, Value]) -> Value:
        """The sum of a few products."""
        found = self.arith("mul", *pairs[-1])
        for a, b in pairs[-2::-1]:
            found = self.fma(a, b, found)
        self._products[found] = pairs
        return found

    def plus(self, total: Value, value: Value) -> Value:
        """``total + value``; of a sum of products each joins the total by itself, which takes no addition."""
        if value not in self._products:
            return self.arith("add", total, value)
        for a, b in self._products[value]:
            total = self.fma(a, b, total)
        return total

    def ints(self, op: str, a: Value, b: Value) -> Value:
        """An operation of whole numbers."""
        return self.put(f"{op} {self.whole} {a}, {b}")

    def bits(self, a: Value) -> Value:
        """A number's bits."""
        return self.put(f"bitcast {self.vector} {a} to {self.whole}")

    def number(self, a: Value) -> Value:
        """The number of these bits."""
        return self.put(f"bitcast {self.whole} {a} to {self.vector}")

    def choose(self, test: Value, a: Value, b: Value) -> Value:
        """``a`` where the test holds."""
        return self.put(f"select {self.truth} {test}, {self.vector} {a}, {self.vector} {b}")

    def pick(self, index: Value, bits: list[int]) -> Value:
        """One of four numbers, given by their bits, where the two lowest bits of a whole number say."""
        whole = _BITS[self.scalar][3]
        if self.scalar == "float" and self.lanes > 4:  # no other processors than x86 have so many: one instruction
            name = {8: "llvm.x86.avx.vpermilvar.ps.256", 16: "llvm.x86.avx512.vpermilvar.ps.512"}[self.lanes]
            table = ", ".join(f"{whole} {b}" for b in bits * (self.lanes // 4))
            return self.call(name, self.vector, (self.vector, f"bitcast ({self.whole} <{table}> to {self.vector})"), (self.whole, index))
        last = self.ints("and", index, self.integer(3))
        found = self.integer(bits[3])
        for i in (2, 1, 0):
            test = self.put(f"icmp eq {self.whole} {last}, {self.integer(i)}")
            found = self.put(f"select {self.truth} {test}, {self.whole} {self.integer(bits[i])}, {self.whole} {found}")
        return self.number(found)

    def compare(self, how: str, a: Value, b: Value) -> Value:
        """A comparison by LLVM's name: oeq, une, olt, ..."""
        return self.put(f"fcmp {how} {self.vector} {a}, {b}")

    def spread(self, value: Value, scalar: str | None = None) -> Value:
        """One number in every lane."""
        if self.lanes == 1:
            return value
        scalar = scalar or self.scalar
        kind = self.of(scalar)
        one = self.put(f"insertelement {kind} poison, {scalar} {value}, i64 0")
        return self.put(f"shufflevector {kind} {one}, {kind} poison, <{self.lanes} x i32> zeroinitializer")

    def upper(self, a: Value, b: Value) -> Value:
        """The larger, by their bits: of numbers that are 0 or more (NaN is above infinity) or -1."""
        a, b = self.bits(a), self.bits(b)
        test = self.put(f"icmp sgt {self.whole} {a}, {b}")
        return self.number(self.put(f"select {self.truth} {test}, {self.whole} {a}, {self.whole} {b}"))

    def largest(self, a: Value) -> Value:
        """The largest of all lanes, in the order of ``upper``."""
        kind = f"v{self.lanes}{self.element}"
        found = self.call(f"llvm.vector.reduce.smax.{kind}", self.element, (self.whole, self.bits(a))) if self.lanes > 1 else self.bits(a)
        return self.put(f"bitcast {self.element} {found} to {self.scalar}")

    def widened(self, value: Value, scalar: str) -> Value:
        """Numbers of a type that is as wide or less, in this one's."""
        return value if scalar == self.scalar else self.put(f"fpext {self.of(scalar)} {value} to {self.vector}")

    # --- control

    def label(self) -> str:
        """A fresh name of a block."""
        self._count += 1
        return f"b{self._count}"

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int | Value = 1) -> Iterator[Value]:
        """``for i in range(start, stop, step)``."""
        counter = self.room("i64")
        self.store(start, "i64", counter)
        head, body, end = self.label(), self.label(), self.label()
        self.do(f"br label %{head}")
        self.start(head)
        i = self.load(counter, "i64")
        self.do(f"br i1 {self.put(f'icmp slt i64 {i}, {stop}')}, label %{body}, label %{end}")
        self.start(body)
        yield i
        self.store(self.put(f"add nsw i64 {i}, {step}"), "i64", counter)
        self.do(f"br label %{head}")
        self.start(end)

    @contextmanager
    def when(self, test: Value) -> Iterator[None]:
        """``if test:``."""
        body, end = self.label(), self.label()
        self.do(f"br i1 {test}, label %{body}, label %{end}")
        self.start(body)
        yield
        self.do(f"br label %{end}")
        self.start(end)

    def smaller(self, a: Value, b: Value) -> Value:
        """The smaller of two counts."""
        return self.put(f"select i1 {self.put(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    # --- expressions

    def expressions(self, roots: list[Node], inputs: dict[str, Value]) -> list[Value]:
        """The values of expressions, given those of their inputs."""
        value: dict[int, Value] = {}
        for node in order(roots):
            args = [value[id(a)] for a in node.args]
            kind = node.args[0].boolean if node.args else False
            if node.op == "input":
                found = inputs[node.value]
            elif node.op == "constant":
                found = self.constant(node.value)
            elif node.op == "mul" and "sign" in (node.args[0].op, node.args[1].op):
                first, second = node.args if node.args[1].op == "sign" else node.args[::-1]
                found = self.signed(value[id(first)], value[id(second.args[0])])
            elif node.op in ("add", "sub", "mul", "div"):
                found = self.arith(node.op, *args)
            elif node.op in ("eq", "ne", "lt", "le"):
                found = self.compare({"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole"}[node.op], *args)
            elif node.op == "or" and all(a.op == "ne" and a.args[0] is a.args[1] for a in node.args):
                found = self.compare("uno", *(value[id(a.args[0])] for a in node.args))
            elif node.op in ("and", "or"):
                found = self.put(f"{node.op} {self.truth} {args[0]}, {args[1]}")
            elif node.op == "not":
                found = self.put(f"xor {self.truth} {args[0]}, {self.splat('true', 'i1')}")
            elif node.op == "where":
                test = args[0] if kind else self.compare("une", args[0], self.constant(0.0))
                known = node.args[1]
                if known.op == "constant" and math.isnan(known.value):  # all bits set are NaN, too: no blend needed
                    ones = self.put(f"sext {self.truth} {test} to {self.whole}")
                    found = self.number(self.ints("or", ones, self.bits(args[2])))
                else:
                    found = self.choose(test, args[1], args[2])
            elif node.op == "pow":
                found = self.pow(args[0], node.value)
            elif node.op == "log_ratio" and (logs := stored(node, inputs, "log", "rest")):
                # Two logarithms in two parts each: the difference of the first parts is exact where it is small.
                (a, a_rest), (b, b_rest) = logs
                found = self.arith("add", self.arith("sub", a, b), self.arith("sub", a_rest, b_rest))
            elif node.op == "jensen":
                x, y = args
                found = self.jensen(x, y, *stored(node, inputs, "low", "inverse", "half_log"))
            else:
                rule: Callable[..., Value] = getattr(self, node.op)
                found = rule(*args)
            value[id(node)] = found
        return [value[id(r)] for r in roots]

    def neg(self, a: Value) -> Value:
        """-a."""
        return self.put(f"fneg {self.vector} {a}")

    def abs(self, a: Value) -> Value:
        """\\|a\\|."""
        return self.intrinsic("fabs", a)

    def sqrt(self, a: Value) -> Value:
        """The square root."""
        return self.intrinsic("sqrt", a)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger; NaN if either is."""
        return self.intrinsic("maximum", a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller; NaN if either is."""
        return self.intrinsic("minimum", a, b)

    def sign(self, a: Value) -> Value:
        """1, -1, or 0 at 0."""
        return self.choose(self.compare("oeq", a, self.constant(0.0)), a, self.intrinsic("copysign", self.constant(1.0), a))

    def signed(self, a: Value, b: Value) -> Value:
        """``a`` times the sign of ``b``, by their bits."""
        top = self.integer(-(1 << (_BITS[self.scalar][0] - 1)))
        turned = self.ints("xor", self.bits(a), self.ints("and", self.bits(b), top))
        mask = self.put(f"sext {self.truth} {self.compare('une', b, self.constant(0.0))} to {self.whole}")
        return self.number(self.ints("and", turned, mask))

    def _libm(self, function: str, *args: Value) -> Value:
        """The C library's function, lane by lane: for metrics that need it once for a pair."""
        name = function + ("f" if self.scalar == "float" else "")
        if self.lanes == 1:
            return self.call(name, self.scalar, *((self.scalar, a) for a in args))
        found = "poison"
        for lane in range(self.lanes):
            parts = [self.put(f"extractelement {self.vector} {a}, i64 {lane}") for a in args]
            one = self.call(name, self.scalar, *((self.scalar, p) for p in parts))
            found = self.put(f"insertelement {self.vector} {found}, {self.scalar} {one}, i64 {lane}")
        return found

    def sin(self, a: Value) -> Value:
        """The sine."""
        return self._libm("sin", a)

    def cos(self, a: Value) -> Value:
        """The cosine."""
        return self._libm("cos", a)

    def tanh(self, a: Value) -> Value:
        """The hyperbolic tangent."""
        return self._libm("tanh", a)

    def atan2(self, a: Value, b: Value) -> Value:
        """The angle of (b, a)."""
        return self._libm("atan2", a, b)

    def _polynomial(self, z: Value, factors: tuple[float, ...]) -> Value:
        """z (c0 + z (c1 + ...))."""
        return self.arith("mul", self._horner(z, factors), z)

    def _parts(self, a: Value) -> tuple[Value, Value]:
        """a = 2 ** k (1 + f), with 1 + f between sqrt(1/2) and sqrt(2); a is normal and positive."""
        width, mantissa, _, _ = _BITS[self.scalar]
        half = struct.unpack("<i", struct.pack("<f", math.sqrt(0.5)))[0] if width == 32 else 0x3FE6A09E667F3BCD
        bits = self.bits(a)
        shift = self.integer(mantissa)
        k = self.ints("ashr", self.ints("sub", bits, self.integer(half)), shift)
        f = self.arith("sub", self.number(self.ints("sub", bits, self.ints("shl", k, shift))), self.constant(1.0))
        magic = self.bits(self.constant(_MAGIC[self.scalar]))
        return self.arith("sub", self.number(self.ints("add", k, magic)), self.constant(_MAGIC[self.scalar])), f

    def _normal(self, a: Value) -> tuple[Value, Value]:
        """``a`` with what is subnormal scaled up, and what that adds to the logarithm to base 2."""
        _, mantissa, bias, _ = _BITS[self.scalar]
        tiny = self.compare("olt", a, self.constant(2.0 ** (1 - bias)))
        up = self.arith("mul", a, self.constant(2.0 ** (mantissa + 2)))
        return self.choose(tiny, up, a), self.choose(tiny, self.constant(-float(mantissa + 2)), self.constant(0.0))

    def _log_parts(self, f: Value) -> tuple[Value, Value]:
        """log(1 + f) = f - (half - tail)."""
        s = self.arith("div", f, self.arith("add", f, self.constant(2.0)))
        r = self._polynomial(self.arith("mul", s, s), _LOG[self.scalar])
        half = self.arith("mul", self.constant(0.5), self.arith("mul", f, f))
        return half, self.arith("mul", s, self.arith("add", half, r))

    def _log_edges(self, a: Value, found: Value) -> Value:
        """log 0 is -inf, log inf is inf; of a negative number or NaN it is NaN."""
        found = self.choose(self.compare("oeq", a, self.constant(math.inf)), a, found)
        found = self.choose(self.compare("oeq", a, self.constant(0.0)), self.constant(-math.inf), found)
        return self.choose(self.compare("uge", a, self.constant(0.0)), self.arith("add", found, self._nan(a)), self.constant(math.nan))

    def _nan(self, a: Value) -> Value:
        """NaN where a is, else 0."""
        return self.choose(self.compare("uno", a, a), self.constant(math.nan), self.constant(0.0))

    def log(self, a: Value) -> Value:
        """The natural logarithm."""
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        normal, more = self._normal(a)
        k, f = self._parts(normal)
        k = self.arith("add", k, more)
        half, tail = self._log_parts(f)
        inner = self.arith("sub", half, self.fma(k, low, tail))
        return self._log_edges(a, self.fma(k, high, self.arith("sub", f, inner)))

    def log1p(self, a: Value) -> Value:
        """log(1 + a), exact for small a: what rounding 1 + a lost is added again."""
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        one = self.constant(1.0)
        u = self.arith("add", one, a)
        large = self.arith("sub", one, self.arith("sub", u, a))
        small = self.arith("sub", a, self.arith("sub", u, one))
        c = self.arith("div", self.choose(self.compare("oge", u, self.constant(2.0)), large, small), u)
        k, f = self._parts(u)
        half, tail = self._log_parts(f)
        inner = self.arith("sub", half, self.arith("add", self.fma(k, low, c), tail))
        return self._log_edges(u, self.fma(k, high, self.arith("sub", f, inner)))

    def log_ratio(self, p: Value, q: Value) -> Value:
        """log(p / q) for p, q > 0, by one division and no rounding before it.

        With p = 2 ** i a and q = 2 ** j b it is (i - j) log 2 + 2 atanh((a - b) / (a + b)), where a - b is exact.
        """
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        two, root = self.constant(2.0), self.constant(math.sqrt(2.0))
        (p1, i), (q1, j) = self._normal(p), self._normal(q)
        (k, f), (n, h) = self._parts(p1), self._parts(q1)
        k = self.arith("add", self.arith("sub", k, n), self.arith("sub", i, j))
        a, b = self.arith("add", f, self.constant(1.0)), self.arith("add", h, self.constant(1.0))
        large = self.compare("ogt", a, self.arith("mul", root, b))
        small = self.compare("ogt", b, self.arith("mul", root, a))
        a, b = self.choose(small, self.arith("mul", a, two), a), self.choose(large, self.arith("mul", b, two), b)
        one, none = self.constant(1.0), self.constant(0.0)
        k = self.arith("sub", self.arith("add", k, self.choose(large, one, none)), self.choose(small, one, none))
        s = self.arith("div", self.arith("sub", a, b), self.arith("add", a, b))
        found = self.fma(k, high, self.arith("add", self.arith("mul", s, two), self.fma(k, low, self._atanh_tail(s))))
        gap = self.put(f"fsub {self.vector} {p}, {q}")  # infinite or NaN where either is
        return self.choose(self.compare("olt", self.abs(gap), self.constant(math.inf)), found, gap)

    def _atanh_tail(self, s: Value) -> Value:
        """2 atanh(s) - 2 s, for s of at most 0.1716."""
        return self.arith("mul", s, self._polynomial(self.arith("mul", s, s), _LOG[self.scalar]))

    def atanh(self, a: Value) -> Value:
        """The inverse hyperbolic tangent: half of log((1 + a) / (1 - a))."""
        one, half = self.constant(1.0), self.constant(0.5)
        small = self.compare("olt", self.abs(a), self.constant(0.17))
        inside = self.choose(small, a, self.constant(0.0))
        large = self.arith("mul", half, self.log_ratio(self.arith("add", one, a), self.arith("sub", one, a)))
        return self.choose(small, self.fma(half, self._atanh_tail(inside), inside), large)

    def two_entropies(self, u: Value) -> Value:
        """(1 + u) log(1 + u) + (1 - u) log(1 - u): by its series up to 1/2, where the two would cancel, else as it stands."""
        z = self.arith("mul", u, u)
        small = self.compare("ole", z, self.constant(0.25))
        terms = 10 if self.scalar == "float" else 25
        series = self._polynomial(self.choose(small, z, self.constant(0.0)), tuple(1 / ((n + 1) * (2 * n + 1)) for n in range(terms)))
        one, size = self.constant(1.0), self.abs(u)
        more, less = self.arith("add", one, size), self.arith("sub", one, size)
        plain = self.fma(more, self._log_plain(more), self.arith("mul", less, self._log_plain(less)))
        return self.arith("add", self.choose(small, series, plain), self._nan(u))

    @property
    def tiny(self) -> Value:
        """What is lost in a moderate number that it is added to, but keeps a quotient of two zeros from being NaN."""
        return self.constant(2.0**-56 if self.scalar == "float" else 2.0**-120)

    def quotients(self, a: Value, b: Value, c: Value, d: Value) -> Value:
        """a / b + c / d, by one division."""
        return self.arith("div", self.fma(c, b, self.arith("mul", a, d)), self.arith("mul", b, d))

    def jensen(self, x: Value, y: Value, of_x: list[Value], of_y: list[Value]) -> Value:
        """Half of x log(2x / (x + y)) + y log(2y / (x + y)), by what is known of x and y ahead: see :mod:`.known`.

        With a the larger, b the smaller, and s = (a - b) / a, it is half of a times -2 (1 - s/2) log(1 - s/2) + (1 - s) log(1 - s).
        The two parts cancel where s is small. There the whole is (a - b) times a polynomial; in the last of four pieces only
        the first part is, and the second is b (log a - log b).
        """
        gap = self.abs(self.arith("add", self.arith("sub", x, y), self.arith("sub", of_x[0], of_y[0])))
        steps = self.arith("mul", gap, self._least(of_x[1], of_y[1]))
        magic = _MAGIC[self.scalar]
        rounded = self.put(f"fadd {self.vector} {steps}, {self.constant(magic)}")
        index = self.bits(self._least(rounded, self.constant(magic + 3)))
        *factors, last = [self.pick(index, [_bits_of(p[i], self.scalar) for p in pieces()]) for i in range(len(pieces()[0]))]
        for factor in reversed(factors):
            last = self.fma(last, steps, factor)
        far = self.bits(self.pick(index, [0, 0, 0, (1 << (_BITS[self.scalar][0] - 1)) - 1]))
        log = self.number(self.ints("and", far, self.bits(self.arith("sub", of_x[2], of_y[2]))))
        return self.products((gap, last), (self._least(x, y), self.neg(log)))

    def _least(self, a: Value, b: Value) -> Value:
        """The smaller of two that are not NaN."""
        return self.choose(self.compare("olt", a, b), a, b)

    def _horner(self, z: Value, factors: tuple[float, ...]) -> Value:
        """c0 + z (c1 + ...)."""
        found = self.constant(factors[-1])
        for factor in reversed(factors[:-1]):
            found = self.fma(found, z, self.constant(factor))
        return found

    def _log_plain(self, a: Value) -> Value:
        """The logarithm of a positive normal number."""
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        k, f = self._parts(a)
        half, tail = self._log_parts(f)
        return self.fma(k, high, self.arith("sub", f, self.arith("sub", half, self.fma(k, low, tail))))

    def _scaled(self, a: Value, k: Value) -> Value:
        """a 2 ** k, where k is a rounded number plus the magic one: in two steps, so that neither overflows."""
        _, mantissa, bias, _ = _BITS[self.scalar]
        whole = self.ints("sub", self.bits(k), self.bits(self.constant(_MAGIC[self.scalar])))
        first = self.ints("ashr", whole, self.integer(1))
        for part in (first, self.ints("sub", whole, first)):
            exponent = self.ints("shl", self.ints("add", part, self.integer(bias)), self.integer(mantissa))
            a = self.arith("mul", a, self.number(exponent))
        return a

    def exp(self, a: Value) -> Value:
        """The exponential function."""
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        top, bottom = (710.0, -746.0) if self.scalar == "double" else (89.0, -104.0)
        magic = self.constant(_MAGIC[self.scalar])
        inside = self.choose(self.compare("ogt", a, self.constant(top)), self.constant(top), a)
        inside = self.choose(self.compare("olt", a, self.constant(bottom)), self.constant(bottom), inside)
        shifted = self.put(f"fadd {self.vector} {self.put(f'fmul {self.vector} {inside}, {self.constant(1 / math.log(2))}')}, {magic}")
        k = self.put(f"fsub {self.vector} {shifted}, {magic}")
        upper = self.fma(self.neg(k), high, inside)
        lower = self.arith("mul", k, low)
        r = self.arith("sub", upper, lower)
        c = self.arith("sub", r, self._polynomial(self.arith("mul", r, r), _EXP[self.scalar]))
        part = self.arith("div", self.arith("mul", r, c), self.arith("sub", self.constant(2.0), c))
        y = self.arith("add", self.constant(1.0), self.arith("add", self.arith("sub", part, lower), upper))
        return self.arith("add", self._scaled(y, shifted), self._nan(a))

    def cube_root(self, a: Value) -> Value:
        """The cube root of a >= 0, by steps of Halley's rule to a ** (-1/3): they need no division."""
        _, mantissa, bias, _ = _BITS[self.scalar]
        one = self.constant(1.0)
        tiny = self.compare("olt", a, self.constant(2.0 ** (1 - bias)))
        normal = self.choose(tiny, self.arith("mul", a, self.constant(2.0 ** (3 * mantissa))), a)
        third = self.bits(normal)  # the bits are about the logarithm; a third of them is 1/4 + 1/16 + ...
        for shift in (2, 4, 8, 16):
            more = self.ints("ashr", third, self.integer(shift))
            third = self.ints("add", self.ints("ashr", third, self.integer(4)), more) if shift == 2 else self.ints("add", third, more)
        start = self.integer(round(4 / 3 * (bias - 0.045) * 2**mantissa))
        y = self.number(self.ints("sub", start, third))
        for _ in range(2 if self.scalar == "float" else 3):
            r = self._cube_rest(normal, y)
            y = self.fma(self.arith("mul", y, r), self.fma(r, self.constant(2 / 9), self.constant(1 / 3)), y)
        found = self.arith("mul", self.arith("mul", normal, y), y)
        left = self.fma(self.arith("mul", found, found), self.neg(found), normal)
        found = self.fma(self.arith("mul", left, self.constant(1 / 3)), self.arith("mul", y, y), found)
        found = self.arith("mul", found, self.choose(tiny, self.constant(2.0**-mantissa), one))
        found = self.choose(self.compare("olt", a, self.constant(math.inf)), found, self.arith("add", a, a))
        return self.choose(self.compare("ogt", a, self.constant(0.0)), found, self.put(f"fmul {self.vector} {a}, {self.sqrt(a)}"))

    def _cube_rest(self, a: Value, y: Value) -> Value:
        """1 - a y ** 3: no product on the way overflows."""
        return self.fma(self.neg(self.arith("mul", self.arith("mul", a, y), y)), y, self.constant(1.0))

    def pow(self, a: Value, exponent: float) -> Value:
        """a ** exponent: products and square roots for multiples of a quarter up to 4, and the cube root.

        Else by logarithms, for a >= 0; their whole part is multiplied without rounding.
        """
        if exponent * 4 == int(exponent * 4) and 0 < exponent <= 4:
            whole, quarters = divmod(int(exponent * 4), 4)
            root = self.sqrt(a) if quarters else a
            powers = [self.arith("mul", a, a)] * 2 if whole == 4 else [a] * whole
            factors = powers + [root] * bool(quarters & 2) + [self.sqrt(root)] * bool(quarters & 1)
            found = factors[0]
            for factor in factors[1:]:
                found = self.arith("mul", found, factor)
            return found
        if exponent == 1 / 3:
            return self.cube_root(a)
        magic, power = self.constant(_MAGIC[self.scalar]), self.constant(exponent)
        normal, more = self._normal(a)
        k, f = self._parts(normal)
        k = self.arith("add", k, more)
        half, tail = self._log_parts(f)
        fraction = self.arith("mul", self.arith("sub", f, self.arith("sub", half, tail)), self.constant(exponent / math.log(2)))
        high = self.put(f"fmul {self.vector} {k}, {power}")
        low = self.intrinsic("fma", k, power, self.neg(high))
        if self.scalar == "float":  # what the exponent itself lost
            lost = exponent - struct.unpack("f", struct.pack("f", exponent))[0]
            low = self.fma(k, self.constant(lost), low)
        total = self.arith("add", high, fraction)
        limit = self.constant(2200.0)
        total = self.choose(self.compare("ogt", total, limit), limit, total)
        total = self.choose(self.compare("olt", total, self.neg(limit)), self.neg(limit), total)
        shifted = self.put(f"fadd {self.vector} {total}, {magic}")
        n = self.put(f"fsub {self.vector} {shifted}, {magic}")
        rest = self.arith("add", self.arith("add", self.put(f"fsub {self.vector} {high}, {n}"), low), fraction)
        rest = self.choose(self.compare("olt", self.abs(rest), self.constant(1.0)), rest, self.constant(0.0))
        found = self._scaled(self.exp(self.arith("mul", rest, self.constant(math.log(2)))), shifted)
        at_inf, at_zero = (math.inf, 0.0) if exponent > 0 else (0.0, math.inf)
        found = self.choose(self.compare("oeq", a, self.constant(math.inf)), self.constant(at_inf), found)
        found = self.choose(self.compare("oeq", a, self.constant(0.0)), self.constant(at_zero), found)
        return self.choose(self.compare("oge", a, self.constant(0.0)), found, self.constant(math.nan))

    # --- the whole

    def function(self, name: str, arguments: str, result: str) -> str:
        """The text of the finished function."""
        return "\n".join([f"define {result} @{name}({arguments}) nounwind {{", "entry:", *self.entry, *self.lines, "}", ""])


def _bits_of(value: float, scalar: str) -> int:
    """A number's bits as a whole number."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0] if scalar == "float" else struct.unpack("<q", struct.pack("<d", value))[0])


def stored(node: Node, inputs: dict[str, Value], *kinds: str) -> list[list[Value]]:
    """What was computed ahead for each argument of a node, or nothing."""
    if any(a.op != "input" or f"{kind}_{a.value}" not in inputs for a in node.args for kind in kinds):
        return []
    return [[inputs[f"{kind}_{a.value}"] for kind in kinds] for a in node.args]


def module(codes: list[Code], functions: list[str]) -> str:
    """The text of a module."""
    declared = sorted({d for c in codes for d in c.declared.values()})
    return "\n".join([*declared, "", *functions])
