"""LLVM's text, instruction by instruction: several pairs at once, side by side in one vector register.

Explicit vectors, since what a compiler's own vectoriser makes of a loop over features changes with its mood. Nothing here
reorders a sum or forgets NaN: of the fast-math flags only ``contract`` (a * b + c in one rounding) and ``nsz`` are used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Value = str
Bits = tuple[int, int, int, str]
BITS: dict[str, Bits] = {"float": (32, 23, 127, "i32"), "double": (64, 52, 1023, "i64")}
"""Width, bits of the mantissa, bias of the exponent, integer of the same width."""


def broad(scalar: str, lanes: int) -> bool:
    """Whether registers have 64 bytes: there are 32, additions have half of a processor's units, and products the other half."""
    return lanes * BITS[scalar][0] == 512


class Instructions:
    """The text of one function while it grows."""

    def __init__(self, scalar: str, lanes: int) -> None:
        self.scalar, self.lanes = scalar, lanes
        self.lines: list[str] = []
        self.entry: list[str] = []
        self.declared: dict[str, str] = {}
        self._products: dict[Value, tuple[tuple[Value, Value], ...]] = {}
        self._hidden: dict[Value, Value] = {}
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
        return BITS[self.scalar][3]

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

    def plus_product(self, a: Value, b: Value) -> Value:
        """a + b, where that spares a unit of additions as a product of a with 1, which has the same bits."""
        if not broad(self.scalar, self.lanes):
            return self.arith("add", a, b)
        return self.fma(a, self.hidden(self.constant(1.0), self.vector), b)

    def hidden(self, value: Value, kind: str) -> Value:
        """A constant in a register, of which the compiler does not know what it is."""
        if value not in self._hidden:
            room, found = self.room(kind), self.name()
            self.entry += [f"  store volatile {kind} {value}, ptr {room}", f"  {found} = load volatile {kind}, ptr {room}"]
            self._hidden[value] = found
        return self._hidden[value]

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
        whole = BITS[self.scalar][3]
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

    def larger(self, a: Value, b: Value) -> Value:
        """The larger; a if b is NaN."""
        return self.choose(self.compare("olt", a, b), b, a)

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

    def added(self, a: Value) -> Value:
        """The sum of all lanes, one after the other."""
        if self.lanes == 1:
            return a
        suffix = {"float": "f32", "double": "f64"}[self.scalar]
        return self.call(f"llvm.vector.reduce.fadd.v{self.lanes}{suffix}", self.scalar, (self.scalar, "-0.0"), (self.vector, a))

    def topmost(self, a: Value) -> Value:
        """The largest of all lanes, none of which is NaN."""
        if self.lanes == 1:
            return a
        suffix = {"float": "f32", "double": "f64"}[self.scalar]
        return self.call(f"llvm.vector.reduce.fmax.v{self.lanes}{suffix}", self.scalar, (self.vector, a), flags="nnan nsz ")

    @property
    def lane(self) -> Value:
        """The number of each lane."""
        return "0" if self.lanes == 1 else "<" + ", ".join(f"{self.element} {lane}" for lane in range(self.lanes)) + ">"

    def count(self, value: Value) -> Value:
        """A count in every lane."""
        short = value if self.element == "i64" else self.put(f"trunc i64 {value} to {self.element}")
        return self.spread(short, self.element)

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

    # --- the whole

    def function(self, name: str, arguments: str, result: str) -> str:
        """The text of the finished function."""
        return "\n".join([f"define {result} @{name}({arguments}) nounwind {{", "entry:", *self.entry, *self.lines, "}", ""])


def bits_of(value: float, scalar: str) -> int:
    """A number's bits as a whole number."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0] if scalar == "float" else struct.unpack("<q", struct.pack("<d", value))[0])


def module(codes: Sequence[Instructions], functions: list[str]) -> str:
    """The text of a module."""
    declared = sorted({d for c in codes for d in c.declared.values()})
    return "\n".join([*declared, "", *functions])
