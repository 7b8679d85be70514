"""NumPy: eager, writable, on the CPU; lists, tuples and Python numbers are NumPy, too."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import numpy as xp

from pairx.backend import Backend
from pairx.engine import Rule, Task
from pairx.engine import run as walk


def coerce(value: Any, name: str) -> Any:
    """A plain ndarray; masked arrays and matrices mean something else and are refused."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a numpy.ma.MaskedArray: fill it, x.filled(np.nan), and choose nan_policy='omit'.")
    if isinstance(value, np.matrix):
        raise TypeError(f"{name} is a numpy.matrix, whose products differ: pass numpy.asarray({name}).")
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is a ragged sequence: {error}") from error
    if found.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a sequence of {type(value[0]).__name__ if len(value) else 'nothing'}: expected numbers.")
    return found


def asarray(value: Any, like: Any, dtype: Any) -> Any:
    """An auxiliary argument."""
    return np.asarray(value) if dtype is None else np.asarray(value, dtype=dtype)


def kind(backend: Backend, dtype: Any) -> str:
    """ml_dtypes' bfloat16 is a float that NumPy itself does not know."""
    if dtype.name == "bfloat16":
        return "real floating"
    for kind in ("bool", "integral", "real floating", "complex floating"):
        if np.isdtype(dtype, kind) and dtype.name not in ("longdouble", "float128", "complex256"):
            return kind
    return "real floating" if dtype.kind == "f" else "complex floating" if dtype.kind == "c" else "other"


def quiet() -> Any:
    """Infinities and NaN are answers here, and the definitions take their branches before and after."""
    return np.errstate(all="ignore")


ALIGNED = 64


def aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array whose memory other libraries can take over: TensorFlow aborts the process where it is not aligned."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


def run(task: Task) -> Any:
    """The shared walk, in silence."""
    with quiet():
        return walk(task)


def compiler(rule: Rule, tensors: tuple[Any, ...], asked: bool) -> Any:
    """Of the compiled engine, which is imported when it is first asked for."""
    from pairx_backends import compiled

    return compiled.compiler(rule)


def product(rule: Rule, tensors: tuple[Any, ...]) -> Any:
    """NumPy's matrix product, and machine code after it."""
    from pairx_backends import compiled

    return compiled.product(rule, np.matmul)


def lse(s: Any, mask: Any) -> Any | None:
    """See :class:`pairx.Backend`."""
    from pairx_backends import compiled

    if compiled.missing():
        return None
    from pairx_backends.compiled.softmax import log_sum_exp

    found = log_sum_exp(s, mask, False)
    return None if found is None else found[0]


def one_set(module: str, x: Any, plain: Any, *what: Any) -> Any | None:
    """A sum over one set by the compiled engine; see ``pair_sum`` and ``share_sum`` of :class:`pairx.Backend`."""
    from importlib import import_module

    with quiet():
        found = import_module(f"pairx_backends.compiled.{module}").total(x, *what, slope=False)
    return None if found is None else np.asarray(found[0], x.dtype)


BACKEND = Backend(
    name="numpy",
    xp=xp,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: np.dtype(np.float64),
    device=lambda x: "cpu",
    kind=kind,
    itemsize=lambda dtype: int(np.dtype(dtype).itemsize),
    shares=np.may_share_memory,
    threads=True,
    quiet=quiet,
    compiler=compiler,
    product=product,
    unwatched=lambda *arrays: True,
    natives={"lse": lse, "pair_sum": partial(one_set, "terms"), "share_sum": partial(one_set, "shares")},
)
