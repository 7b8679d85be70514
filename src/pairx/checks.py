"""Validation: every message in one place. An error names the argument, what came, and what is allowed."""

from __future__ import annotations

import math
import operator
from typing import Any

from .backend import Backend
from .metrics import Metric

Array = Any
HALF = ("float16", "bfloat16")


def dtype_name(dtype: Any) -> str:
    """``torch.float32`` and ``tf.float32`` are float32, too."""
    name = getattr(dtype, "name", None)
    return str(name if isinstance(name, str) else dtype).rpartition(".")[2]


def same_device(backend: Backend, **arrays: Array) -> None:
    """Refuse arrays on two devices."""
    named = [(n, a) for n, a in arrays.items() if a is not None and not backend.traced(a)]
    for name, array in named[1:]:
        here, there = backend.device(named[0][1]), backend.device(array)
        if str(here) != str(there):
            raise ValueError(f"{named[0][0]} is on device {here} and {name} on {there}: move one of them.")


def at_least(name: str, shape: tuple[Any, ...], ndim: int, meaning: str) -> None:
    """Refuse too few axes."""
    if len(shape) < ndim:
        raise ValueError(f"{name} has shape {shown(shape)}: expected at least {ndim} axes, {meaning}.")


def shown(shape: tuple[Any, ...]) -> str:
    """A shape for a message."""
    inner = ", ".join(str(s) if isinstance(s, int) else "?" for s in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def equal_size(x_name: str, x: tuple[Any, ...], y_name: str, y: tuple[Any, ...], axis: int, what: str) -> None:
    """Refuse different sizes of an axis, where both are known."""
    a, b = x[axis], y[axis]
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ValueError(f"{x_name} has shape {shown(x)} and {y_name} {shown(y)}: the {what} must agree, got {a} and {b}.")


def broadcast(x: tuple[Any, ...], y: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape to which two batch shapes broadcast; unknown sizes are 0-d arrays."""
    n = max(len(x), len(y))
    shape: list[Any] = []
    for a, b in zip((1,) * (n - len(x)) + x, (1,) * (n - len(y)) + y, strict=True):
        if isinstance(a, int) and isinstance(b, int):
            if a != b and 1 not in (a, b):
                raise ValueError(f"The batch axes {shown(x)} of x and {shown(y)} of y do not broadcast.")
            shape.append(b if a == 1 else a)
        else:  # an unknown size: the known one decides unless it is 1
            shape.append(b if isinstance(a, int) and a == 1 else a if isinstance(b, int) and b == 1 else a if isinstance(a, int) else b)
    return tuple(shape)


def dtypes(backend: Backend, row: Metric | None, out_dtype: Any, **arrays: Array) -> tuple[Any, Any]:
    """The dtype to compute in and the dtype of the answer.

    Integers and booleans become the library's default float; with a float, that float. Half precision is computed in
    float32 and answered in half precision.
    """
    xp = backend.xp
    allowed_complex = row is None or row.domain == "complex"
    floats = []
    for name, array in arrays.items():
        if array is None:
            continue
        kind = backend.kind(backend, array.dtype)
        if kind == "other" or (kind == "complex floating" and not allowed_complex):
            what = f"metric {row.name!r} takes real numbers" if row is not None and kind != "other" else "expected numbers or booleans"
            raise TypeError(f"{name} has dtype {dtype_name(array.dtype)}: {what}.")
        if kind.endswith("floating"):
            floats.append((name, array.dtype))
    answer = floats[0][1] if floats else backend.default_float()
    for name, dtype in floats[1:]:
        if dtype != answer:
            try:
                answer = xp.result_type(answer, dtype)
            except Exception as error:
                raise TypeError(
                    f"{floats[0][0]} has dtype {dtype_name(answer)} and {name} {dtype_name(dtype)}: they have no common dtype; convert one."
                ) from error
    if hasattr(answer, "newbyteorder"):  # a result is in the machine's order, whatever the file was in
        answer = answer.newbyteorder("=")
    compute = xp.result_type(xp.float32) if dtype_name(answer) in HALF else answer
    if out_dtype is not None:
        answer = as_dtype(backend, out_dtype)
        complex_in = backend.kind(backend, compute) == "complex floating"
        if complex_in and backend.kind(backend, answer) != "complex floating":
            raise TypeError(f"out_dtype={dtype_name(answer)}: the result is {dtype_name(compute)}.")
        if not complex_in and dtype_name(answer) not in HALF:
            compute = xp.result_type(compute, answer)
    return compute, answer


def as_dtype(backend: Backend, dtype: Any) -> Any:
    """A floating dtype of the library, from itself or its name."""
    found = dtype
    if isinstance(dtype, str):
        found = getattr(backend.xp, dtype, None)
    elif not hasattr(dtype, "itemsize") and not hasattr(dtype, "size"):  # np.float32, jnp.float32: classes
        found = getattr(backend.xp, getattr(dtype, "__name__", ""), dtype)
    try:
        if isinstance(found, type) and found.__module__ == "numpy":  # numpy.float32 is a class
            import numpy as np

            found = np.dtype(found)
        kind = backend.kind(backend, found)
    except Exception:
        kind = "other"
    if not kind.endswith("floating"):
        raise TypeError(f"out_dtype={dtype!r}: expected a floating dtype of {backend.name}, or its name such as 'float32'.")
    return found


def domain(backend: Backend, row: Metric, nan_ok: bool = False, **arrays: Array) -> None:
    """Refuse values outside a metric's domain, where they can be seen."""
    xp = backend.xp
    for name, array in arrays.items():
        if array is None or backend.traced(array) or row.domain not in ("boolean", "ball"):
            continue
        if row.domain == "boolean" and backend.kind(backend, array.dtype) != "bool" and not _all(xp, array, lambda v: (v == 0) | (v == 1)):
            raise ValueError(f"{name}: metric {row.name!r} compares booleans; expected bool, or numbers that are 0 or 1.")
        if row.domain == "ball" and not _all(xp, array, lambda v: ~(xp.sum(v * v, axis=-1) >= 1), rows=True):
            raise ValueError(f"{name}: metric {row.name!r} needs rows inside the open unit ball (2-norm below 1).")


def _all(xp: Any, array: Array, test: Any, rows: bool = False) -> bool:
    """``test`` holds everywhere; in pieces, so that no copy of a large input is made."""
    if math.prod(array.shape) == 0:
        return True
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0, ...]
    step = max(1, (1 << 16) // max(1, math.prod(array.shape[1:])))
    if array.ndim == 1:
        return bool(xp.all(test(array)))
    n = array.shape[0]
    return all(bool(xp.all(test(array[i : min(i + step, n), ...]))) for i in range(0, n, step))


def weights(backend: Backend, row: Metric, w: Any, like: Array, compute: Any, d: Any) -> Array:
    """Weights of the features: shape (d,), not negative."""
    if not row.weights:
        raise ValueError(f"w: metric {row.name!r} has no weights.")
    w = backend.asarray(w, like, compute)
    shape = backend.shape(w)
    if len(shape) != 1 or (isinstance(d, int) and isinstance(shape[0], int) and shape[0] != d):
        raise ValueError(f"w has shape {shown(shape)}: expected one weight for each of the {d} features, shape ({d},).")
    negative = None if backend.traced(w) else backend.xp.any(w < 0)
    if negative is not None and not backend.traced(negative) and bool(negative):  # JAX traces what is done to constants, too
        raise ValueError("w has negative entries: weights must be 0 or more.")
    return w


def output(backend: Backend, out: Array, shape: tuple[int, ...], dtype: Any, **inputs: Array) -> Array:
    """A preallocated result: its library, shape and dtype, and no memory shared with the inputs."""
    if not backend.writable:
        raise TypeError(f"out: arrays of {backend.name} cannot be written; leave it away.")
    out = backend.coerce(out, "out")
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"out has shape {shown(tuple(out.shape))}: expected {shown(shape)}.")
    if out.dtype != dtype:
        raise ValueError(f"out has dtype {dtype_name(out.dtype)}: expected {dtype_name(dtype)}.")
    for name, array in inputs.items():
        if array is not None and backend.shares(out, array):
            raise ValueError(f"out shares memory with {name}, which would be overwritten while it is read.")
    return out


def number(name: str, value: Any, *, positive: bool = False, zero_ok: bool = True) -> float:
    """A real scalar."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if found != found or (positive and (found < 0 or (found == 0 and not zero_ok))):
        kind = f"a number {'of 0 or more' if zero_ok else 'above 0'}" if positive else "a number"
        raise ValueError(f"{name}={value!r}: expected {kind}.")
    return found


def indices(backend: Backend, pairs: Any, like: Array, m: Any, n: Any) -> tuple[Array, Array]:
    """Two integer arrays of one length, in range."""
    xp = backend.xp
    try:
        i, j = pairs
    except (TypeError, ValueError):
        raise ValueError("pairs: expected two integer arrays (i, j) of one length.") from None
    found = []
    for name, index, size in (("i", i, m), ("j", j, n)):
        index = backend.asarray(index, like, None)
        shape = backend.shape(index)
        if len(shape) != 1 or (backend.kind(backend, index.dtype) != "integral" and shape[0] != 0):
            raise ValueError(
                f"pairs: {name} has shape {shown(shape)} and dtype {dtype_name(index.dtype)}: expected one axis of integers; "
                "flatten it, or take the positions of a mask with nonzero()."
            )
        index = xp.astype(index, xp.int64 if not dtype_name(index.dtype).startswith("int") else index.dtype, copy=False)
        if isinstance(shape[0], int) and shape[0] and isinstance(size, int) and not backend.traced(index):
            low, high = xp.min(index), xp.max(index)
            if not backend.traced(low) and (int(low) < 0 or int(high) >= size):
                raise IndexError(f"pairs: {name} reaches from {low} to {high}, and there are {size} rows (0 to {size - 1}).")
        found.append(index)
    equal_size("pairs: i", backend.shape(found[0]), "j", backend.shape(found[1]), 0, "lengths")
    return found[0], found[1]


def integer(name: str, value: Any) -> int:
    """A whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected an int.") from None


def no_nan(backend: Backend, **arrays: Array) -> None:
    """``nan_policy="raise"``."""
    for name, array in arrays.items():
        if array is None:
            continue
        if backend.traced(array):
            raise ValueError("nan_policy='raise' has to look at values, which a traced call cannot; take 'propagate'.")
        if backend.kind(backend, array.dtype).endswith("floating") and not _all(backend.xp, array, lambda v: v == v):
            raise ValueError(f"{name} has NaN entries, and nan_policy='raise'.")
