"""The compiled engine: a metric's definition as machine code for the processor, shared by all libraries in main memory.

``trace`` records the definition and ``definition`` what follows from it; ``emit`` writes expressions for vector registers, ``kernels``,
``pullback`` and ``repair`` the loops around them; ``jit`` compiles and keeps them (with LLVM, as Numba brings it), and ``kernel`` calls
them: ``beside`` with rows of which more is known, ``finish`` after a matrix product, ``small`` for calls without a plan. Here stands
what a backend asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from pairx.checks import dtype_name
from pairx.engine import Rule
from pairx.metrics import METRICS, Metric, resolve

from .kernel import FREE, Kernel

Array = Any


@lru_cache(1)
def missing() -> str | None:
    """Why there is no compiler here, or None."""
    if find_spec("llvmlite") is None:
        return "Numba's compiler is not installed: pip install 'pairx[jit]'"
    return None


def compiler(rule: Rule) -> Kernel | str:
    """The kernels of a rule, not compiled yet, or why it has none."""
    why = missing()
    if why:
        return why
    row = rule.metric
    if "compiled" not in row.engines or rule.varied or rule.quadratic:
        return f"metric {row.name!r} is not compiled"
    dtype = dtype_name(rule.compute)
    scalar = {"float32": "float", "float64": "double"}.get(dtype)
    if scalar is None:
        return f"{dtype} is not compiled"
    try:
        return _kernel(row, tuple(sorted(rule.params.items())), scalar, rule.weighted, rule.omit)
    except AttributeError as error:
        return f"metric {row.name!r} is not compiled: {error}"


def product(rule: Rule, matmul: Callable[[Array, Array, Array], Any]) -> Any:
    """What runs the matrix products of a rule, those of large rows by ``matmul``, or why there is nothing: see :mod:`.finish`."""
    why = missing()
    if why:
        return why
    from . import finish

    return finish.product(rule, matmul)


@lru_cache(256)
def _kernel(row: Metric, params: tuple[tuple[str, Any], ...], scalar: str, weighted: bool, omit: bool) -> Kernel:
    return Kernel(row, params, scalar, weighted, omit)


def warm(rows: Iterable[Metric], dtypes: Iterable[str], gradients: bool = True) -> Iterator[tuple[str, str, str]]:
    """Compile what calls of these metrics with their default parameters will need; answers (metric, dtype, function) of each."""
    why = missing()
    if why:
        raise ImportError(why)
    for row in rows:
        params = {k: 1.0 if v is None and k in FREE else v for k, v in row.defaults.items() if k != "V"}
        row, params = resolve(row, params)
        for dtype in dtypes:
            found = _warm(Rule(row, params, dtype, dtype, True, omit=row.name == "nan_euclidean"), gradients)
            if isinstance(found, str):
                raise ValueError(f"metric={row.name!r}: {found}.")
            for kernel, name in found:
                kernel.function(name)
                yield row.name, dtype, name


def warm_losses(dtypes: Iterable[str]) -> Iterator[str]:
    """Compile what losses need beside their distances, as contrastive comes; answers the dtype of each function."""
    why = missing()
    if why:
        raise ImportError(why)
    from pairx.losses.pairs import Contrast

    from . import softmax, terms

    for dtype in dtypes:
        kernel = _kernel(METRICS["euclidean"], (), "float" if dtype == "float32" else "double", False, False)
        sources = [softmax.source(dtype, masked) for masked in (False, True)]
        for source in (*sources, terms.source(kernel, Contrast("distance", True, False), ("margin", "positive_margin"))):
            _ = source.function
            yield dtype


def possible(row: Metric) -> bool:
    """Whether any machine code belongs to a metric: its own, or what follows its product."""
    if missing() or row.product != "dot":
        return "compiled" in row.engines
    return not isinstance(product(Rule(row, dict(row.defaults), "float32", "float32", True), np.matmul), str)


def _warm(rule: Rule, gradients: bool) -> list[tuple[Kernel, str]] | str:
    """The functions that calls of a rule need, or why there are none."""
    if rule.metric.product == "dot":
        after = product(rule, np.matmul)
        if isinstance(after, str):
            return after
        return [(after, n) for n in (*after.names, *(["small"] if after.short else []))] + [(after.own, n) for n in ("forward", "pack")]
    kernel = compiler(rule)
    if isinstance(kernel, str):
        return kernel
    names = ["forward", "pack", "mirror"] + ["repair"] * kernel.repairs
    smooth = ["pull_x", "pull_y", "pull_xy"] if gradients and kernel.differentiable else []
    before = ["slope"] + ["worth"] * kernel.invertible if kernel.sloped and smooth else []
    special = kernel.special
    more = [] if special is None else [(special, n) for n in ["forward", "pack", *(smooth if special.smooth else [])]]
    if kernel.short:
        more.append((kernel.wide if special is not None and special.alone else kernel, "small"))
    return [*((kernel, name) for name in names + smooth + before), *more]
