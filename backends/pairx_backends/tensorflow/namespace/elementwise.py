"""Element-wise functions. Where the raw op is right for all dtypes, the function is that op behind promotion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from . import dtypes as dt
from .core import SCALARS, EagerTensor, cast, floating, floating_pair, pair, raw, tensor
from .dtypes import Array

Unary = Callable[[Any], Array]
Binary = Callable[[Any, Any], Array]
F = TypeVar("F", bound=Callable[..., Array])


def _named(f: F, name: str, doc: str) -> F:
    f.__name__ = f.__qualname__ = name
    f.__doc__ = doc
    return f


def _unary(name: str, op: Any, doc: str) -> Unary:
    """A function of floats; integers take the default float."""

    def f(x: Array, /) -> Array:
        return op(x=floating(x))

    return _named(f, name, doc)


def _binary(name: str, op: Any, doc: str, convert: Any = pair) -> Binary:
    def f(x1: Array, x2: Array, /) -> Array:
        x1, x2 = convert(x1, x2)
        return op(x=x1, y=x2)

    return _named(f, name, doc)


def _bits(x: Array) -> Array:
    """The bits of floats as signed integers."""
    return raw.Bitcast(input=x, type={2: dt.int16, 4: dt.int32, 8: dt.int64}[x.dtype.size])


# --- floats in, floats out ---

sqrt = _unary("sqrt", raw.Sqrt, "Square root.")
exp = _unary("exp", raw.Exp, "Exponential.")
expm1 = _unary("expm1", raw.Expm1, "exp(x) - 1, exact near 0.")
log = _unary("log", raw.Log, "Natural logarithm.")
log1p = _unary("log1p", raw.Log1p, "log(1 + x), exact near 0.")
sin = _unary("sin", raw.Sin, "Sine.")
cos = _unary("cos", raw.Cos, "Cosine.")
tan = _unary("tan", raw.Tan, "Tangent.")
asin = _unary("asin", raw.Asin, "Inverse sine.")
acos = _unary("acos", raw.Acos, "Inverse cosine.")
atan = _unary("atan", raw.Atan, "Inverse tangent.")
sinh = _unary("sinh", raw.Sinh, "Hyperbolic sine.")
cosh = _unary("cosh", raw.Cosh, "Hyperbolic cosine.")
tanh = _unary("tanh", raw.Tanh, "Hyperbolic tangent.")
asinh = _unary("asinh", raw.Asinh, "Inverse hyperbolic sine.")
acosh = _unary("acosh", raw.Acosh, "Inverse hyperbolic cosine.")
atanh = _unary("atanh", raw.Atanh, "Inverse hyperbolic tangent.")
reciprocal = _unary("reciprocal", raw.Reciprocal, "1 / x.")


def _log_base(x: Array, base: float) -> Array:
    x = log(x)
    if x.dtype in dt.COMPLEX:  # part by part: inf times a complex number is NaN
        scale = tf.constant(1 / base, dt.REAL_FOR[x.dtype])
        return tf.complex(real(x) * scale, imag(x) * scale)
    return x * tf.constant(1 / base, x.dtype)


def log2(x: Array, /) -> Array:
    """Logarithm to base 2."""
    return _log_base(x, math.log(2))


def log10(x: Array, /) -> Array:
    """Logarithm to base 10."""
    return _log_base(x, math.log(10))


# --- arithmetic ---

add = _binary("add", raw.AddV2, "Sum.")
subtract = _binary("subtract", raw.Sub, "Difference.")
multiply = _binary("multiply", raw.Mul, "Product.")
divide = _binary("divide", raw.RealDiv, "True division; integers take the default float.", floating_pair)
equal = _binary("equal", raw.Equal, "x1 == x2.")
not_equal = _binary("not_equal", raw.NotEqual, "x1 != x2.")
less = _binary("less", raw.Less, "x1 < x2.")
less_equal = _binary("less_equal", raw.LessEqual, "x1 <= x2.")
greater = _binary("greater", raw.Greater, "x1 > x2.")
greater_equal = _binary("greater_equal", raw.GreaterEqual, "x1 >= x2.")


def _larger(x: Array, y: Array, op: Any = raw.Maximum, not_beyond: Any = raw.GreaterEqual) -> Array:
    """Maximum of two tensors of one dtype, with NaN from either side."""
    # Eager kernels on the CPU propagate NaN. XLA drops that of one side, and no other device promises anything.
    if x.dtype not in dt.FLOATS or (type(x) is EagerTensor and type(y) is EagerTensor and "CPU" in x.device):
        return op(x=x, y=y)
    first = raw.LogicalOr(x=not_beyond(x=x, y=y), y=raw.IsNan(x=x))  # as the op, x at a tie
    return raw.SelectV2(condition=first, t=x, e=y)


def _smaller(x: Array, y: Array) -> Array:
    return _larger(x, y, raw.Minimum, raw.LessEqual)


maximum = _binary("maximum", _larger, "The larger one; NaN propagates.")
minimum = _binary("minimum", _smaller, "The smaller one; NaN propagates.")


def square(x: Array, /) -> Array:
    """x * x."""
    return raw.Square(x=tensor(x))


def positive(x: Array, /) -> Array:
    """x."""
    return tensor(x)


def negative(x: Array, /) -> Array:
    """-x; unsigned integers wrap."""
    x = tensor(x)
    if x.dtype in dt.UNSIGNED:  # not 0 - x: the graph optimizer makes that a Neg, which has no unsigned kernel
        return raw.AddV2(x=raw.Invert(x=x), y=tf.constant(1, x.dtype))
    return raw.Neg(x=x)


def abs(x: Array, /) -> Array:
    """Magnitude."""
    x = tensor(x)
    if x.dtype in dt.COMPLEX:
        return raw.ComplexAbs(x=x, Tout=dt.REAL_FOR[x.dtype])
    return x if x.dtype in dt.UNSIGNED else raw.Abs(x=x)


def sign(x: Array, /) -> Array:
    """-1, 0 or 1 (x / abs(x) for complex numbers); NaN stays."""
    x = tensor(x)
    if x.dtype in dt.UNSIGNED:
        return cast(raw.NotEqual(x=x, y=tf.constant(0, x.dtype)), x.dtype)
    if x.dtype in dt.FLOATS:
        return raw.SelectV2(condition=raw.IsNan(x=x), t=x, e=raw.Sign(x=x))
    return raw.Sign(x=x)


def pow(x1: Array, x2: Array, /) -> Array:
    """x1 ** x2."""
    x1, x2 = pair(x1, x2)
    dtype = x1.dtype
    if dtype in dt.UNSIGNED:  # no kernel; modulo 2**64 the signed product is the same
        return cast(raw.Pow(x=cast(x1, dt.int64), y=cast(x2, dt.int64)), dtype)
    return raw.Pow(x=x1, y=x2)


def floor_divide(x1: Array, x2: Array, /) -> Array:
    """floor(x1 / x2)."""
    x1, x2 = pair(x1, x2)
    return raw.FloorDiv(x=x1, y=x2)


def remainder(x1: Array, x2: Array, /) -> Array:
    """x1 modulo x2, with the sign of x2."""
    x1, x2 = pair(x1, x2)
    if x1.dtype not in dt.FLOATS:
        return raw.FloorMod(x=x1, y=x2)
    r = raw.FloorMod(x=x1, y=x2)
    return raw.SelectV2(condition=r == 0, t=copysign(r, x2), e=r)


def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:
    """`x` within bounds, in the dtype of `x`; NaN stays."""
    x = tensor(x)
    for bound, op in ((min, _larger), (max, _smaller)):
        if bound is None:
            continue
        if type(bound) in SCALARS and x.dtype in dt.INTEGERS and not isinstance(bound, float):
            lo, hi = dt.LIMITS[x.dtype]  # a bound that no value of this dtype can pass
            bound = lo if bound < lo else hi if bound > hi else bound
        bound = tf.constant(bound, x.dtype) if type(bound) in SCALARS else cast(tensor(bound), x.dtype)
        x = op(x=x, y=bound)
    return x


def atan2(x1: Array, x2: Array, /) -> Array:
    """The angle of the point (x2, x1)."""
    x1, x2 = floating_pair(x1, x2)
    return raw.Atan2(y=x1, x=x2)


def hypot(x1: Array, x2: Array, /) -> Array:
    """sqrt(x1**2 + x2**2) without overflow; the gradient at (0, 0) is 0."""
    x1, x2 = floating_pair(x1, x2)
    a, b = raw.Abs(x=x1), raw.Abs(x=x2)
    high, low = _larger(a, b), _smaller(a, b)
    zero, one = tf.constant(0, a.dtype), tf.constant(1, a.dtype)
    plain = (high > zero) & (high < tf.constant(math.inf, a.dtype))
    ratio = tf.where(plain, low, zero) / tf.where(plain, high, one)
    result = high * raw.Sqrt(x=one + ratio * ratio)
    infinite = raw.IsInf(x=a) | raw.IsInf(x=b)  # also against NaN
    return tf.where(infinite, tf.constant(math.inf, a.dtype), result)


def logaddexp(x1: Array, x2: Array, /) -> Array:
    """log(exp(x1) + exp(x2)) without overflow."""
    x1, x2 = floating_pair(x1, x2)
    same = x1 == x2  # two equal infinities have no difference
    distance = tf.where(same, tf.constant(0, x1.dtype), x1 - tf.where(same, x1, x2))
    return _larger(x1, x2) + raw.Log1p(x=raw.Exp(x=-raw.Abs(x=distance)))


def signbit(x: Array, /) -> Array:
    """Whether the sign bit is set (of -0 and NaN too)."""
    bits = _bits(floating(x))
    return raw.Less(x=bits, y=tf.constant(0, bits.dtype))


def copysign(x1: Array, x2: Array, /) -> Array:
    """The magnitude of x1 with the sign of x2."""
    x1, x2 = floating_pair(x1, x2)
    return tf.where(raw.Equal(x=signbit(x1), y=signbit(x2)), x1, raw.Neg(x=x1))


def nextafter(x1: Array, x2: Array, /) -> Array:
    """The next representable number from x1 towards x2."""
    x1, x2 = floating_pair(x1, x2)
    return raw.NextAfter(x1=x1, x2=x2)


# --- rounding: nothing to do for integers ---


def _rounding(name: str, op: Any, doc: str) -> Unary:
    def f(x: Array, /) -> Array:
        x = tensor(x)
        if x.dtype in dt.COMPLEX:
            return tf.complex(op(x=real(x)), op(x=imag(x)))
        return op(x=x) if x.dtype in dt.FLOATS else x

    return _named(f, name, doc)


def _trunc(x: Array) -> Array:
    # raw.Floor keeps -0; towards zero from the negative side is ceil
    return raw.SelectV2(condition=x < 0, t=raw.Ceil(x=x), e=raw.Floor(x=x))


floor = _rounding("floor", raw.Floor, "The largest integer not above.")
ceil = _rounding("ceil", raw.Ceil, "The smallest integer not below.")
trunc = _rounding("trunc", _trunc, "The integer towards zero.")
round = _rounding("round", raw.Round, "The nearest integer, half to even.")


# --- predicates ---


def _either_part(x: Array, op: Any) -> Array:
    if x.dtype in dt.COMPLEX:
        return raw.LogicalOr(x=op(x=real(x)), y=op(x=imag(x)))
    return op(x=x)


def isnan(x: Array, /) -> Array:
    """Whether NaN."""
    x = tensor(x)
    return _either_part(x, raw.IsNan) if x.dtype in dt.INEXACT else tf.zeros_like(x, tf.bool)


def isinf(x: Array, /) -> Array:
    """Whether infinite."""
    x = tensor(x)
    return _either_part(x, raw.IsInf) if x.dtype in dt.INEXACT else tf.zeros_like(x, tf.bool)


def isfinite(x: Array, /) -> Array:
    """Whether neither NaN nor infinite."""
    x = tensor(x)
    if x.dtype in dt.COMPLEX:
        return raw.LogicalAnd(x=raw.IsFinite(x=real(x)), y=raw.IsFinite(x=imag(x)))
    return raw.IsFinite(x=x) if x.dtype in dt.FLOATS else tf.ones_like(x, tf.bool)


def truth(x: Any) -> Array:
    """Not zero; NaN is true."""
    x = tensor(x)
    return x if x.dtype == dt.bool else raw.NotEqual(x=x, y=tf.constant(0, x.dtype))


def _truth_pair(x1: Any, x2: Any) -> tuple[Array, Array]:
    return truth(x1), truth(x2)


logical_and = _binary("logical_and", raw.LogicalAnd, "Both.", _truth_pair)
logical_or = _binary("logical_or", raw.LogicalOr, "Either.", _truth_pair)
logical_xor = _binary("logical_xor", raw.NotEqual, "One of the two.", _truth_pair)


def logical_not(x: Array, /) -> Array:
    """Not."""
    return raw.LogicalNot(x=truth(x))


# --- bits ---


def _bitwise(name: str, op: Any, on_bool: Any, doc: str) -> Binary:
    def f(x1: Array, x2: Array, /) -> Array:
        x1, x2 = pair(x1, x2)
        return (on_bool if x1.dtype == dt.bool else op)(x=x1, y=x2)

    return _named(f, name, doc)


bitwise_and = _bitwise("bitwise_and", raw.BitwiseAnd, raw.LogicalAnd, "x1 & x2.")
bitwise_or = _bitwise("bitwise_or", raw.BitwiseOr, raw.LogicalOr, "x1 | x2.")
bitwise_xor = _bitwise("bitwise_xor", raw.BitwiseXor, raw.NotEqual, "x1 ^ x2.")


def bitwise_invert(x: Array, /) -> Array:
    """~x."""
    x = tensor(x)
    return raw.LogicalNot(x=x) if x.dtype == dt.bool else raw.Invert(x=x)


def bitwise_left_shift(x1: Array, x2: Array, /) -> Array:
    """x1 << x2; all bits gone is 0."""
    x1, x2 = pair(x1, x2)
    bits = tf.constant(8 * x1.dtype.size, x1.dtype)
    safe = tf.where(x2 < bits, x2, tf.zeros([], x1.dtype))
    return tf.where(x2 < bits, raw.LeftShift(x=x1, y=safe), tf.zeros([], x1.dtype))


def bitwise_right_shift(x1: Array, x2: Array, /) -> Array:
    """x1 >> x2; all bits gone is 0, or -1 below zero."""
    x1, x2 = pair(x1, x2)
    last = tf.constant(8 * x1.dtype.size - 1, x1.dtype)
    shifted = raw.RightShift(x=x1, y=raw.Minimum(x=x2, y=last))
    if x1.dtype in dt.SIGNED:
        return shifted
    return tf.where(x2 > last, tf.zeros([], x1.dtype), shifted)


# --- complex numbers ---


def _part(x: Any, op: Any, of_real: Callable[[Array], Array]) -> Array:
    x = tensor(x)
    return op(input=x, Tout=dt.REAL_FOR[x.dtype]) if x.dtype in dt.COMPLEX else of_real(x)


def real(x: Array, /) -> Array:
    """Real part."""
    return _part(x, raw.Real, lambda x: x)


def imag(x: Array, /) -> Array:
    """Imaginary part."""
    return _part(x, raw.Imag, lambda x: raw.ZerosLike(x=x))


def conj(x: Array, /) -> Array:
    """Complex conjugate."""
    x = tensor(x)
    return raw.Conj(input=x) if x.dtype in dt.COMPLEX else x
