"""LLVM's text for expressions of :mod:`.trace`, and for the elementary functions in them.

The functions follow fdlibm (Sun Microsystems, 1993): errors below 1.5 units in the last place.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from .instructions import BITS, Instructions, Value, bits_of, module
from .known import pieces
from .trace import Node, order

__all__ = ["Code", "Value", "module", "stored"]

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


class Code(Instructions):
    """The text of one function while it grows."""

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
                found = self.plus_product(self.arith("sub", a, b), self.arith("sub", a_rest, b_rest))
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
        top = self.integer(-(1 << (BITS[self.scalar][0] - 1)))
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
        width, mantissa, _, _ = BITS[self.scalar]
        half = struct.unpack("<i", struct.pack("<f", math.sqrt(0.5)))[0] if width == 32 else 0x3FE6A09E667F3BCD
        bits = self.bits(a)
        shift = self.integer(mantissa)
        k = self.ints("ashr", self.ints("sub", bits, self.integer(half)), shift)
        f = self.arith("sub", self.number(self.ints("sub", bits, self.ints("shl", k, shift))), self.constant(1.0))
        magic = self.bits(self.constant(_MAGIC[self.scalar]))
        return self.arith("sub", self.number(self.ints("add", k, magic)), self.constant(_MAGIC[self.scalar])), f

    def _normal(self, a: Value) -> tuple[Value, Value]:
        """``a`` with what is subnormal scaled up, and what that adds to the logarithm to base 2."""
        _, mantissa, bias, _ = BITS[self.scalar]
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
        *factors, last = [self.pick(index, [bits_of(p[i], self.scalar) for p in pieces()]) for i in range(len(pieces()[0]))]
        for factor in reversed(factors):
            last = self.fma(last, steps, factor)
        far = self.bits(self.pick(index, [0, 0, 0, (1 << (BITS[self.scalar][0] - 1)) - 1]))
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
        _, mantissa, bias, _ = BITS[self.scalar]
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

    def exp_below(self, a: Value) -> Value:
        """e^a for a <= 0, by its series and no division; what is below the smallest normal numbers is about there, above 0 it is 1."""
        high, low = (self.constant(c) for c in _LN2[self.scalar])
        bottom, terms = (-86.0, 8) if self.scalar == "float" else (-707.0, 14)
        inside = self.choose(self.compare("olt", a, self.constant(bottom)), self.constant(bottom), a)
        inside = self._least(self.constant(0.0), inside)
        magic = self.constant(_MAGIC[self.scalar])
        shifted = self.intrinsic("fma", inside, self.constant(1 / math.log(2)), magic)
        k = self.neg(self.put(f"fsub {self.vector} {shifted}, {magic}"))
        r = self.fma(k, low, self.fma(k, high, inside))
        series = self._horner(r, tuple(1 / math.factorial(n) for n in range(2, terms)))
        y = self.arith("add", self.fma(series, self.arith("mul", r, r), r), self.constant(1.0))
        exponent = self.ints("shl", self.bits(shifted), self.integer(BITS[self.scalar][1]))
        return self.number(self.ints("add", self.bits(y), exponent))

    def cube_root(self, a: Value) -> Value:
        """The cube root of a >= 0, by steps of Halley's rule to a ** (-1/3): they need no division."""
        _, mantissa, bias, _ = BITS[self.scalar]
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


def stored(node: Node, inputs: dict[str, Value], *kinds: str) -> list[list[Value]]:
    """What was computed ahead for each argument of a node, or nothing."""
    if any(a.op != "input" or f"{kind}_{a.value}" not in inputs for a in node.args for kind in kinds):
        return []
    return [[inputs[f"{kind}_{a.value}"] for kind in kinds] for a in node.args]
