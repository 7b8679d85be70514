"""Pairwise distances, norms and products on the array you already have.

``import pairx`` imports no array library: names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "cdist": "distances",
    "pdist": "distances",
    "paired": "distances",
    "squareform": "distances",
    "gram": "distances",
    "similarity": "products",
    "batch_dot": "products",
    "vector_norm": "norms",
    "matrix_norm": "norms",
    "pairwise_matrix_norm": "norms",
    "explain": "explaining",
    "options": "plan",
    "Plan": "plan",
    "Metric": "metrics",
    "METRICS": "metrics",
    "KERNELS": "metrics",
    "Backend": "backend",
    "backends": "backend",
}

__all__ = [*sorted(_WHERE), "__version__"]

if TYPE_CHECKING:
    from .backend import Backend as Backend
    from .backend import backends as backends
    from .distances import cdist as cdist
    from .distances import gram as gram
    from .distances import paired as paired
    from .distances import pdist as pdist
    from .distances import squareform as squareform
    from .explaining import explain as explain
    from .metrics import KERNELS as KERNELS
    from .metrics import METRICS as METRICS
    from .metrics import Metric as Metric
    from .norms import matrix_norm as matrix_norm
    from .norms import pairwise_matrix_norm as pairwise_matrix_norm
    from .norms import vector_norm as vector_norm
    from .plan import Plan as Plan
    from .plan import options as options
    from .products import batch_dot as batch_dot
    from .products import similarity as similarity


def __getattr__(name: str) -> object:
    if name in ("losses", "mining"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    if name in _WHERE:
        from importlib import import_module

        value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
        if hasattr(value, "__code__"):
            value.autograph_info__ = None  # so AutoGraph calls it as it is, as TensorFlow's own do_not_convert says it
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pairx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
