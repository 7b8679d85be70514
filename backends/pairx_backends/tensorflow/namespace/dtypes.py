"""Data types and the standard's promotion rules."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Array = Any
DType = Any

bool = tf.bool
int8, int16, int32, int64 = tf.int8, tf.int16, tf.int32, tf.int64
uint8, uint16, uint32, uint64 = tf.uint8, tf.uint16, tf.uint32, tf.uint64
float32, float64 = tf.float32, tf.float64
complex64, complex128 = tf.complex64, tf.complex128
float16, bfloat16 = tf.float16, tf.bfloat16  # extras: not in the standard

# TensorFlow's own defaults: what tf.constant gives for a Python number.
default_int, default_float, default_complex = int32, float32, complex64
index_dtype = int64

SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
INTEGERS = frozenset(SIGNED + UNSIGNED)
FLOATS = frozenset((float16, bfloat16, float32, float64))
COMPLEX = frozenset((complex64, complex128))
INEXACT = FLOATS | COMPLEX
ALL = (bool, *SIGNED, *UNSIGNED, float16, bfloat16, float32, float64, complex64, complex128)
LIMITS: dict[DType, tuple[int, int]] = {d: (int(d.min), int(d.max)) for d in INTEGERS}

KINDS: dict[str, frozenset[DType]] = {
    "bool": frozenset((bool,)),
    "signed integer": frozenset(SIGNED),
    "unsigned integer": frozenset(UNSIGNED),
    "integral": INTEGERS,
    "real floating": FLOATS,
    "complex floating": COMPLEX,
    "numeric": INTEGERS | INEXACT,
}


def _bits(dtype: DType) -> int:
    return int(8 * dtype.size)


def _join(a: DType, b: DType) -> DType | None:
    """The dtype that holds both, or None where the standard names none (uint64 with a signed one)."""
    if a == b or b == bool:
        return a
    if a == bool:
        return b
    if a in INTEGERS and b in INTEGERS:
        if (a in SIGNED) == (b in SIGNED):
            return max(a, b, key=_bits)
        signed, unsigned = (a, b) if a in SIGNED else (b, a)
        bits = max(_bits(signed), 2 * _bits(unsigned))
        return next((d for d in SIGNED if _bits(d) == bits), None)
    if a in INTEGERS or b in INTEGERS:
        return b if a in INTEGERS else a
    if a in COMPLEX or b in COMPLEX:
        return complex128 if {a, b} & {float64, complex128} else complex64
    return max(a, b, key=_bits) if _bits(a) != _bits(b) else float32  # float16 with bfloat16


PROMOTION: dict[tuple[DType, DType], DType] = {(a, b): d for a in ALL for b in ALL if (d := _join(a, b)) is not None}
_COMPLEX_FOR = {float16: complex64, bfloat16: complex64, float32: complex64, float64: complex128}
REAL_FOR: dict[DType, DType] = {complex64: float32, complex128: float64}


def promote_dtypes(a: DType, b: DType) -> DType:
    """The common dtype of two arrays."""
    try:
        return PROMOTION[a, b]
    except KeyError:
        raise TypeError(f"no data type holds both {a.name} and {b.name}: convert one of them first") from None


def weak_dtype(scalar: complex, dtype: DType) -> DType:
    """The dtype of a Python scalar together with an array of `dtype`: only its kind counts."""
    if (dtype, dtype) not in PROMOTION:
        raise TypeError(f"no arithmetic on {dtype.name}")
    if isinstance(scalar, int):  # bool is an int
        return default_int if dtype == bool and not isinstance(scalar, builtins.bool) else dtype
    if isinstance(scalar, float):
        return dtype if dtype in INEXACT else default_float
    return dtype if dtype in COMPLEX else _COMPLEX_FOR.get(dtype, default_complex)


def scalar_dtype(scalar: complex) -> DType:
    """The default dtype of a Python scalar alone."""
    if isinstance(scalar, builtins.bool):
        return bool
    if isinstance(scalar, int):
        lo, hi = LIMITS[default_int]
        return default_int if lo <= scalar <= hi else int64
    return default_float if isinstance(scalar, float) else default_complex


def _dtype_of(x: Any) -> DType:
    return tf.as_dtype(x.dtype if hasattr(x, "dtype") else x)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that an operation on these arrays, dtypes and Python scalars has."""
    if not arrays_and_dtypes:
        raise ValueError("result_type needs at least one argument")
    scalars = [x for x in arrays_and_dtypes if type(x) in (builtins.bool, int, float, complex)]
    dtypes = [_dtype_of(x) for x in arrays_and_dtypes if type(x) not in (builtins.bool, int, float, complex)]
    if not dtypes:
        dtypes = [scalar_dtype(scalars[0])]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = promote_dtypes(result, dtype)
    for scalar in scalars:
        result = weak_dtype(scalar, result)
    return result


def isdtype(dtype: DType, kind: Any) -> builtins.bool:
    """Whether a dtype is of a kind (a name, a dtype, or a tuple of these)."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: one of {', '.join(KINDS)}")
        return dtype in KINDS[kind]
    return builtins.bool(dtype == kind)


def can_cast(from_: Any, to: DType, /) -> builtins.bool:
    """Whether promotion alone leads from one dtype to the other."""
    return builtins.bool(PROMOTION.get((_dtype_of(from_), tf.as_dtype(to))) == to)


@dataclass(frozen=True)
class FloatInfo:
    """What `finfo` answers."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntInfo:
    """What `iinfo` answers."""

    bits: int
    max: int
    min: int
    dtype: DType


_MANTISSA_EXPONENT = {float16: (10, 5), bfloat16: (7, 8), float32: (23, 8), float64: (52, 11)}


def finfo(type: Any, /) -> FloatInfo:
    """Limits of a floating dtype (of its parts, for a complex one)."""
    dtype: DType = _dtype_of(type)
    dtype = REAL_FOR.get(dtype, dtype)
    if dtype not in FLOATS:
        raise TypeError(f"finfo needs a floating data type, not {dtype.name}")
    mantissa, exponent = _MANTISSA_EXPONENT[dtype]
    eps, top = 2.0**-mantissa, 2 ** (exponent - 1) - 1
    largest = (2.0 - eps) * 2.0**top
    return FloatInfo(_bits(dtype), eps, largest, -largest, 2.0 ** (1 - top), dtype)


def iinfo(type: Any, /) -> IntInfo:
    """Limits of an integer dtype."""
    dtype = _dtype_of(type)
    if dtype not in INTEGERS:
        raise TypeError(f"iinfo needs an integer data type, not {dtype.name}")
    lo, hi = LIMITS[dtype]
    return IntInfo(_bits(dtype), hi, lo, dtype)
