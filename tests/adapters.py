"""What the tests ask of each array library, so that one test runs on all of them.

Nothing here imports a library until its adapter is made: a run for one backend stays free of the others.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # oneDNN may choose another summation order from run to run
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several libraries share one device

# Backend -> (module to look for, floating dtypes to test)
BACKENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "numpy": ("numpy", ("float64", "float32", "float16")),
    "torch": ("torch", ("float64", "float32", "float16", "bfloat16")),
    "tensorflow": ("tensorflow", ("float64", "float32", "float16", "bfloat16")),
    "jax": ("jax", ("float64", "float32", "float16", "bfloat16")),
    "dask": ("dask", ("float64", "float32")),
    "array_api_strict": ("array_api_strict", ("float64", "float32")),
    "cupy": ("cupy", ("float64", "float32", "float16")),
}
AUTODIFF = ("torch", "tensorflow", "jax")
JIT = ("torch", "tensorflow", "jax")
COMPILES = ("jax",)
"""Each new call costs a compilation of about half a second: what only repeats is tested in one dtype (``mark.brief``)."""
LAYOUTS = ("numpy", "torch", "tensorflow", "dask", "cupy")
"""Libraries whose arrays of the same values can differ in form."""
ALIASES = {"strict": "array_api_strict", "tf": "tensorflow"}


def installed(name: str) -> bool:
    """Whether the library can be imported, without importing it."""
    spec = importlib.util.find_spec(BACKENDS[name][0])
    return spec is not None and spec.origin is not None  # a folder of that name, such as tests/jax, is no library


class Adapter:
    """NumPy's, and what the others share. ``layouts`` maps a name to a function that gives the same values in another form."""

    name = "numpy"
    device: Any = "cpu"
    default_float = "float64"
    autodiff = False
    excess: dict[str, float] = {}  # noqa: RUF012
    """Metric -> by how much the library's own functions exceed the tolerance of everybody else."""

    def engines(self, row: Any) -> tuple[str, ...]:
        """The engines that a metric has on this library, in this environment."""
        from pairx.backend import find
        from pairx.calls import engines

        x = self.asarray(np.zeros((1, 1)), "float32")
        return engines(find(x=x), row, x)

    def slope_engines(self, row: Any) -> tuple[str, ...]:
        """Those of them that a gradient passes through."""
        return self.engines(row)

    @property
    def compiles(self) -> bool:
        return self.name in COMPILES

    @property
    def dtypes(self) -> tuple[str, ...]:
        return BACKENDS[self.name][1]

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        """An array of the library; ``dtype`` by name, also "bfloat16"."""
        return np.asarray(a, dtype)

    def to_numpy(self, a: Any) -> np.ndarray:
        """Its values; a bfloat16 array comes back as float32."""
        return np.asarray(a)

    def dtype_of(self, a: Any) -> str:
        return str(a.dtype)

    def is_own(self, a: Any) -> bool:
        """Whether a result is an array of this library."""
        return isinstance(a, np.ndarray)

    def grad(self, fn: Callable[..., Any], *arrays: np.ndarray, dtype: str = "float64") -> list[np.ndarray] | None:
        """Gradients of a function that answers a scalar, in each of the arrays."""
        return None

    def curvature(self, fn: Callable[..., Any], arrays: Any, along: Any) -> list[np.ndarray] | None:
        """Hessian times a direction, of a function that answers a scalar, in float64: reverse mode twice."""
        return None

    def jit(self, fn: Callable[..., Any]) -> Callable[..., Any] | None:
        return None

    def sum(self, a: Any) -> Any:
        return a.sum()

    def total(self, a: Any, cotangent: np.ndarray) -> Any:
        """Sum of ``a * cotangent``: the scalar whose gradient a test asks for."""
        return self.sum(a * self.asarray(cotangent, self.dtype_of(a)))

    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        return {}


class NumPy(Adapter):
    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        def strided(a: np.ndarray) -> np.ndarray:
            wide = np.full((*a.shape[:-2], 2 * a.shape[-2], 3 * a.shape[-1]), np.nan).astype(a.dtype)
            wide[..., ::2, 1::3] = a
            return wide[..., ::2, 1::3]

        def frozen(a: np.ndarray) -> np.ndarray:
            a = a.copy()
            a.setflags(write=False)
            return a

        return {
            "fortran": np.asfortranarray,
            "strided": strided,
            "reversed": lambda a: a[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
            "readonly": frozen,
        }


class Torch(Adapter):
    name = "torch"
    default_float = "float32"
    autodiff = True

    def __init__(self) -> None:
        import torch

        self.lib = torch

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        return self.lib.tensor(np.ascontiguousarray(a), dtype=None if dtype is None else getattr(self.lib, dtype))

    def to_numpy(self, a: Any) -> np.ndarray:
        a = a.detach()
        return (a.float() if a.dtype == self.lib.bfloat16 else a).resolve_conj().cpu().numpy()

    def dtype_of(self, a: Any) -> str:
        return str(a.dtype).removeprefix("torch.")

    def is_own(self, a: Any) -> bool:
        return isinstance(a, self.lib.Tensor)

    def grad(self, fn: Callable[..., Any], *arrays: np.ndarray, dtype: str = "float64") -> list[np.ndarray] | None:
        leaves = [self.asarray(a, dtype).requires_grad_() for a in arrays]
        out = fn(*leaves)
        if not out.requires_grad:
            raise AssertionError("the result does not depend on its inputs for autograd")
        found = self.lib.autograd.grad(out, leaves, allow_unused=True)
        return [np.zeros_like(a) if g is None else self.to_numpy(g) for a, g in zip(arrays, found, strict=True)]

    def curvature(self, fn: Callable[..., Any], arrays: Any, along: Any) -> list[np.ndarray]:
        leaves = [self.asarray(a, "float64").requires_grad_() for a in arrays]
        first = self.lib.autograd.grad(fn(*leaves), leaves, create_graph=True, allow_unused=True)
        slope = sum((g * self.asarray(v)).sum() for g, v in zip(first, along, strict=True) if g is not None)
        if not slope.requires_grad:  # a loss made of straight pieces
            return [np.zeros_like(a) for a in arrays]
        found = self.lib.autograd.grad(slope, leaves, allow_unused=True)
        return [np.zeros_like(a) if g is None or g._is_zerotensor() else self.to_numpy(g) for a, g in zip(arrays, found, strict=True)]

    def jit(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        # Dynamo's own graph, run eagerly: it tests what pairx can decide (no graph break), without a C++ compiler.
        self.lib.compiler.reset()  # one lambda of a test, called for many rows of a table, is compiled anew for each
        return self.lib.compile(fn, backend="eager", fullgraph=True)

    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        def strided(a: Any) -> Any:
            wide = a.new_full((*a.shape[:-2], 2 * a.shape[-2], 3 * a.shape[-1]), float("nan"))
            wide[..., ::2, 1::3] = a
            return wide[..., ::2, 1::3]

        return {
            "fortran": lambda a: a.mT.contiguous().mT,
            "strided": strided,
            "parameter": lambda a: self.lib.nn.Parameter(a, requires_grad=a.is_floating_point()),
        }


class TensorFlow(Adapter):
    name = "tensorflow"
    default_float = "float32"
    autodiff = True

    def __init__(self) -> None:
        import tensorflow

        self.lib = tensorflow

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        a = self.lib.convert_to_tensor(np.ascontiguousarray(a))
        return a if dtype is None else self.lib.cast(a, dtype)

    def to_numpy(self, a: Any) -> np.ndarray:
        return (self.lib.cast(a, "float32") if a.dtype == self.lib.bfloat16 else a).numpy()

    def dtype_of(self, a: Any) -> str:
        return str(a.dtype.name)

    def is_own(self, a: Any) -> bool:
        return self.lib.is_tensor(a)

    def grad(self, fn: Callable[..., Any], *arrays: np.ndarray, dtype: str = "float64") -> list[np.ndarray] | None:
        leaves = [self.asarray(a, dtype) for a in arrays]
        with self.lib.GradientTape() as tape:
            for leaf in leaves:
                tape.watch(leaf)
            out = fn(*leaves)
        found = tape.gradient(out, leaves)
        if all(g is None for g in found):
            raise AssertionError("the result does not depend on its inputs for the tape")
        return [np.zeros_like(a) if g is None else self.to_numpy(self.lib.convert_to_tensor(g)) for a, g in zip(arrays, found, strict=True)]

    def curvature(self, fn: Callable[..., Any], arrays: Any, along: Any) -> list[np.ndarray]:
        leaves = [self.asarray(a, "float64") for a in arrays]
        with self.lib.GradientTape() as outer:
            outer.watch(leaves)
            with self.lib.GradientTape() as inner:
                inner.watch(leaves)
                out = fn(*leaves)
            first = inner.gradient(out, leaves)
            slope = self.lib.add_n([self.lib.reduce_sum(g * v) for g, v in zip(first, along, strict=True) if g is not None])
        found = outer.gradient(slope, leaves)
        return [np.zeros_like(a) if g is None else self.to_numpy(self.lib.convert_to_tensor(g)) for a, g in zip(arrays, found, strict=True)]

    def sum(self, a: Any) -> Any:
        return self.lib.reduce_sum(a)

    def jit(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.lib.function(fn)

    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        return {"variable": self.lib.Variable}


class JAX(Adapter):
    name = "jax"
    autodiff = True
    # XLA's log1p of float64 is off by up to 39 eps (at -0.396); a distribution's term has three of them.
    excess = {"jensenshannon": 4.0, "kl_divergence": 4.0, "poincare": 4.0}  # noqa: RUF012

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)  # else float64 could not be tested; one test runs without
        self.lib = jax

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        return self.lib.numpy.asarray(a, dtype)

    def to_numpy(self, a: Any) -> np.ndarray:
        return np.asarray(a.astype("float32") if a.dtype == self.lib.numpy.bfloat16 else a)

    def is_own(self, a: Any) -> bool:
        return isinstance(a, self.lib.Array)

    def grad(self, fn: Callable[..., Any], *arrays: np.ndarray, dtype: str = "float64") -> list[np.ndarray] | None:
        leaves = [self.asarray(a, dtype) for a in arrays]
        return [np.asarray(g) for g in self.lib.grad(fn, argnums=tuple(range(len(leaves))))(*leaves)]

    def curvature(self, fn: Callable[..., Any], arrays: Any, along: Any) -> list[np.ndarray]:
        leaves, everything = [self.asarray(a, "float64") for a in arrays], tuple(range(len(arrays)))

        def slope(*a: Any) -> Any:
            return sum((g * v).sum() for g, v in zip(self.lib.grad(fn, argnums=everything)(*a), along, strict=True))

        return [np.asarray(g) for g in self.lib.grad(slope, argnums=everything)(*leaves)]

    def jit(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.lib.jit(fn)


class Dask(Adapter):
    name = "dask"

    def __init__(self) -> None:
        import dask.array

        self.lib = dask.array

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        a = np.asarray(a, dtype)
        # Uneven chunks along the rows and the features: a result must not depend on them.
        return self.lib.from_array(a, chunks=tuple(max(1, min(s, 4)) for s in a.shape))

    def to_numpy(self, a: Any) -> np.ndarray:
        return np.asarray(a.compute() if hasattr(a, "compute") else a)

    def is_own(self, a: Any) -> bool:
        return isinstance(a, self.lib.Array)

    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "one-chunk": lambda a: a.rechunk(a.shape),
            "single-rows": lambda a: a.rechunk({a.ndim - 2: 1, a.ndim - 1: -1}),
        }


class Strict(Adapter):
    name = "array_api_strict"

    def __init__(self) -> None:
        import array_api_strict

        self.lib = array_api_strict
        # A result on the default device, where the input is on another, is an input's device lost.
        self.device = array_api_strict.Device("device1")

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        a = np.asarray(a)
        dtype = dtype or str(a.dtype)
        return self.lib.asarray(a, dtype=getattr(self.lib, dtype), device=self.device)

    def to_numpy(self, a: Any) -> np.ndarray:
        assert a.device == self.device, f"the result moved from {self.device} to {a.device}"
        return np.from_dlpack(self.lib.asarray(a, device=self.lib.Device("CPU_DEVICE")))

    def dtype_of(self, a: Any) -> str:
        return str(a.dtype).rpartition(".")[2].strip("'>")

    def is_own(self, a: Any) -> bool:
        return type(a).__module__.startswith("array_api_strict")

    def sum(self, a: Any) -> Any:
        return self.lib.sum(a)


class CuPy(Adapter):
    name = "cupy"
    device = "cuda:0"

    def __init__(self) -> None:
        import cupy

        self.lib = cupy
        cupy.cuda.runtime.getDeviceCount()

    def asarray(self, a: Any, dtype: str | None = None) -> Any:
        return self.lib.asarray(np.asarray(a, dtype))

    def to_numpy(self, a: Any) -> np.ndarray:
        return self.lib.asnumpy(a)

    def is_own(self, a: Any) -> bool:
        return isinstance(a, self.lib.ndarray)

    @property
    def layouts(self) -> dict[str, Callable[[Any], Any]]:
        def strided(a: Any) -> Any:
            wide = self.lib.zeros((*a.shape[:-2], 2 * a.shape[-2], 3 * a.shape[-1]), a.dtype)
            wide[..., ::2, 1::3] = a
            return wide[..., ::2, 1::3]

        return {"fortran": self.lib.asfortranarray, "strided": strided}


_CLASSES: dict[str, type[Adapter]] = {c.name: c for c in (NumPy, Torch, TensorFlow, JAX, Dask, Strict, CuPy)}


@cache
def no_gpu(name: str) -> str:
    """Why a GPU library cannot run here, or an empty text. Its absence is the one reason for its tests to skip."""
    if name != "cupy":
        return ""
    import cupy

    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "no GPU"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no GPU: {error}"


@cache
def adapter(name: str) -> Adapter:
    """The one adapter of a backend; makes it on the first call."""
    return _CLASSES[name]()
