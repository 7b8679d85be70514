"""An array library of its own: a NumPy array in a box, with the Array API's operators and functions and nothing else.

It stands for any library that follows the standard and that pairx does not know.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np

_OPERATORS = (
    "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift eq ne lt le gt ge "
    "radd rsub rmul rtruediv rfloordiv rmod rpow rmatmul rand ror rxor neg pos abs invert"
).split()


class Array:
    """A NumPy array in a box."""

    __array_ufunc__ = None  # NumPy must not swallow a box

    def __init__(self, inner: Any) -> None:
        self.inner = np.asarray(inner)

    dtype = property(lambda self: self.inner.dtype)
    shape = property(lambda self: self.inner.shape)
    ndim = property(lambda self: self.inner.ndim)
    device = property(lambda self: "box")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return xp

    def __getitem__(self, key: Any) -> Array:
        return Array(self.inner[_open(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inner[_open(key)] = _open(value)

    def __bool__(self) -> bool:
        return bool(self.inner)

    def __int__(self) -> int:
        return int(self.inner)

    def __float__(self) -> float:
        return float(self.inner)

    def __index__(self) -> int:
        return self.inner.__index__()

    __hash__ = None  # type: ignore[assignment]


def _open(value: Any) -> Any:
    if isinstance(value, Array):
        return value.inner
    return type(value)(map(_open, value)) if type(value) in (tuple, list) else value


def _close(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return Array(value)
    return type(value)(*map(_close, value)) if hasattr(value, "_fields") else (
        tuple(map(_close, value)) if isinstance(value, tuple) else value
    )


def _operator(name: str) -> Any:
    def apply(self: Array, *other: Any) -> Any:
        result = getattr(self.inner, f"__{name}__")(*map(_open, other))
        return NotImplemented if result is NotImplemented else _close(result)

    return apply


for _name in _OPERATORS:
    setattr(Array, f"__{_name}__", _operator(_name))


def _wrap(function: Any, creates: bool = False) -> Any:
    def apply(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("device", None)
        return _close(function(*map(_open, args), **{k: _open(v) for k, v in kwargs.items()}))

    return apply


class _Namespace(types.SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if name in ("finfo", "iinfo", "isdtype", "result_type"):
            return (lambda *a: found(*map(_open, a)))
        return found if isinstance(found, type | float) else _wrap(found)


_LINALG = ("inv", "cholesky", "solve", "svd", "svdvals", "diagonal")
xp = _Namespace(linalg=types.SimpleNamespace(**{n: _wrap(getattr(np.linalg, n)) for n in _LINALG}))
