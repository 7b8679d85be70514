"""An array object around `tf.Tensor`, for the public array-api-tests suite alone.

pairx's TensorFlow namespace works on plain tensors, which have no standard operators. The suite needs an array
object, so this one wraps every function of the namespace and maps the operators to those functions. Indexing goes
through NumPy: it is no part of what is tested.
"""

from __future__ import annotations

import builtins
import functools
import types
from typing import Any

import numpy as np
import tensorflow as tf

from pairx_backends.tensorflow import namespace as _namespace


class Array:
    """A tensor with the standard's attributes and operators."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    dtype = property(lambda self: self._tensor.dtype)
    shape = property(lambda self: _namespace.shape(self._tensor))
    device = property(lambda self: _namespace.device(self._tensor))
    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: int(self._tensor.numpy().size))
    mT = property(lambda self: Array(_namespace.matrix_transpose(self._tensor)))

    @property
    def T(self) -> Array:
        if self.ndim != 2:
            raise ValueError("T needs two dimensions")
        return self.mT

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        return _module

    def to_device(self, device: Any, /, *, stream: Any = None) -> Array:
        return Array(_namespace.asarray(self._tensor, device=device))

    def __dlpack__(
        self, /, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        return self._tensor.__dlpack__()

    def __dlpack_device__(self, /) -> tuple[Any, int]:
        return self._tensor.__dlpack_device__()

    def __repr__(self) -> str:
        return f"Array({self._tensor!r})"

    def __bool__(self, /) -> builtins.bool:
        return builtins.bool(self._scalar())

    def __int__(self, /) -> int:
        return int(self._scalar())

    def __float__(self, /) -> float:
        return float(self._scalar())

    def __complex__(self, /) -> complex:
        return complex(self._scalar())

    def __index__(self, /) -> int:
        if not _namespace.isdtype(self.dtype, "integral"):
            raise TypeError("only an integer array is an index")
        return int(self._scalar())

    def _scalar(self) -> Any:
        if self.shape != ():
            raise TypeError("only a 0-d array is a scalar")
        return self._tensor.numpy()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d array has no length")
        return self.shape[0]

    def __getitem__(self, key: Any, /) -> Array:
        return Array(tf.constant(self._tensor.numpy()[_numpy_key(key)]))

    def __setitem__(self, key: Any, value: Any, /) -> None:
        array = np.array(self._tensor.numpy())  # a 0-d tensor answers a NumPy scalar
        array[_numpy_key(key)] = value._tensor.numpy() if isinstance(value, Array) else value
        self._tensor = tf.constant(array)


def _numpy_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_numpy_key, key))
    return key._tensor.numpy() if isinstance(key, Array) else key


def _unwrap(x: Any) -> Any:
    if isinstance(x, Array):
        return x._tensor
    if isinstance(x, (list, tuple)):
        return type(x)(map(_unwrap, x))
    return x


def _wrap(x: Any) -> Any:
    if isinstance(x, tf.Tensor):
        return Array(x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_wrap, x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(_wrap, x))
    return x


def _wrapped(f: Any) -> Any:
    @functools.wraps(f)
    def g(*args: Any, **kwargs: Any) -> Any:
        return _wrap(f(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()}))

    return g


def _wrap_all(source: Any) -> dict[str, Any]:
    names = {name: getattr(source, name) for name in source.__all__}
    return {n: _wrapped(v) if isinstance(v, types.FunctionType) else v for n, v in names.items()}


_module = types.ModuleType(__name__)
globals().update(_wrap_all(_namespace))
linalg = types.ModuleType("linalg")
linalg.__dict__.update(_wrap_all(_namespace.linalg))
__array_namespace_info__ = _namespace.__array_namespace_info__
__array_api_version__ = _namespace.__array_api_version__

_UNARY = {"abs": "abs", "neg": "negative", "pos": "positive", "invert": "bitwise_invert"}
_COMPARISONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}


def _add_operators() -> None:
    def unary(f: Any) -> Any:
        return lambda self, /: f(self)

    def binary(f: Any) -> Any:
        def operator(self: Array, other: Any, /) -> Any:
            return f(self, other) if isinstance(other, (Array, int, float, complex)) else NotImplemented

        return operator

    def reflected(f: Any) -> Any:
        def operator(self: Array, other: Any, /) -> Any:
            return f(other, self) if isinstance(other, (Array, int, float, complex)) else NotImplemented

        return operator

    def in_place(f: Any) -> Any:
        def operator(self: Array, other: Any, /) -> Any:
            result = f(self, other)
            if result.dtype != self.dtype or result.shape != self.shape:
                raise TypeError("an in-place operation keeps dtype and shape")
            self._tensor = result._tensor
            return self

        return operator

    functions = globals()
    for name, function in _UNARY.items():
        setattr(Array, f"__{name}__", unary(functions[function]))
    for name, function in (_BINARY | _COMPARISONS).items():
        setattr(Array, f"__{name}__", binary(functions[function]))
    for name, function in _BINARY.items():
        setattr(Array, f"__r{name}__", reflected(functions[function]))
        setattr(Array, f"__i{name}__", in_place(functions[function]))


_add_operators()
_module.__dict__.update({k: v for k, v in globals().items() if not k.startswith("_") or k.startswith("__array")})
