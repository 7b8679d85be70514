"""Who computes the same, and how each is called: one table of factories, ``implementation(case, x, y) -> callable or None``.

None: that library does not have the metric. A factory may import and compile; only what it returns is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    metric: str
    params: dict[str, Any] = field(default_factory=dict, hash=False)
    m: int = 2000
    n: int = 2000
    d: int = 128
    dtype: str = "float32"
    kind: str = "values"
    """values; self (one set); gradient (forward and backward, both sides); budget (in blocks under 256 MB)."""
    quick: bool = True
    """In the bounded default; the rest needs ``--full``."""

    @property
    def name(self) -> str:
        """For people and for JSON."""
        params = "".join(f" {k}={v:g}" for k, v in self.params.items())
        kind = "" if self.kind == "values" else f", {self.kind}"
        return f"{self.metric}{params} {self.m}x{self.n}x{self.d} {self.dtype}{kind}"

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Positive, so that every metric takes them; booleans where the metric compares those."""
        rng = np.random.default_rng(0)
        x, y = rng.random((self.m, self.d)) + 0.01, rng.random((self.n, self.d)) + 0.01
        if self.metric in BOOLEAN:
            return (x > 0.5), (y > 0.5)
        if self.metric == "hamming":
            return np.round(x * 4).astype(self.dtype), np.round(y * 4).astype(self.dtype)
        return x.astype(self.dtype), y.astype(self.dtype)


BOOLEAN = ("jaccard", "dice", "rogerstanimoto", "russellrao", "yule")
P3, P25 = {"p": 3.0}, {"p": 2.5}
SPEED = [
    Case("cityblock"), Case("sqeuclidean"), Case("euclidean"), Case("hamming"), Case("minkowski", P3), Case("chebyshev"), Case("canberra"),
    Case("braycurtis"), Case("jaccard"), Case("kl_divergence"), Case("jensenshannon"), Case("minkowski", P25), Case("cosine"),
    Case("correlation"), Case("dice"),
]  # fmt: skip
CASES = [
    *SPEED,
    *(Case(c.metric, c.params, dtype="float64", quick=False) for c in SPEED if c.metric not in BOOLEAN),
    *(Case(m, p, kind="self") for m, p in (("cityblock", {}), ("euclidean", {}), ("canberra", {}))),
    *(Case(m, p, kind="gradient") for m, p in (("cityblock", {}), ("chebyshev", {}), ("minkowski", P3), ("euclidean", {}))),
    *(Case(m, m=8, n=8, d=16, dtype="float64") for m in ("cityblock", "euclidean", "cosine", "jaccard", "jensenshannon")),
    *(Case(m, m=4000, n=4000, d=3) for m in ("euclidean", "cityblock")),
    *(Case(m, m=500, n=500, d=2048) for m in ("euclidean", "cityblock", "cosine")),
    Case("cityblock", m=20000, n=20000, d=64, kind="budget", quick=False),
    Case("euclidean", m=20000, n=20000, d=64, kind="budget", quick=False),
]


def pairx(case: Case, x: Any, y: Any) -> Call | None:
    """Ours."""
    import pairx as p
    from pairx_backends import compiled

    if case.m < 100:  # calls as small as this do not wait for the compiler: as after `pairx warmup`
        list(compiled.warm([p.METRICS[case.metric]], [case.dtype], gradients=False))
    if case.kind == "gradient":
        return _torch_gradient(lambda a, b: p.cdist(a, b, case.metric, **case.params), x, y)
    if case.kind == "self":
        return lambda: p.cdist(x, None, case.metric, **case.params)
    if case.kind == "budget":
        out = np.empty((case.m, case.n), case.dtype)
        return lambda: p.cdist(x, y, case.metric, out=out, max_bytes="256MB")
    return lambda: p.cdist(x, y, case.metric, **case.params)


def matmul(case: Case, x: Any, y: Any) -> Call | None:
    """The yardstick: NumPy's matrix product of the same shape and dtype."""
    if case.kind == "budget":
        return None
    a, b = x.astype(case.dtype), y.astype(case.dtype)
    out = np.empty((case.m, case.n), case.dtype)
    return lambda: np.matmul(a, b.T, out=out)


def scipy(case: Case, x: Any, y: Any) -> Call | None:
    """scipy.spatial.distance.cdist."""
    from scipy.spatial.distance import cdist, pdist, squareform

    if case.metric == "kl_divergence" or case.kind in ("gradient", "budget"):
        return None
    if case.kind == "self":
        return lambda: squareform(pdist(x, case.metric))
    return lambda: cdist(x, y, case.metric, **case.params)


def sklearn(case: Case, x: Any, y: Any) -> Call | None:
    """scikit-learn's own kernels; where it hands over to SciPy it is SciPy's."""
    from sklearn.metrics import pairwise as s

    found = {
        "euclidean": s.euclidean_distances,
        "sqeuclidean": lambda a, b: s.euclidean_distances(a, b, squared=True),
        "cityblock": s.manhattan_distances,
        "cosine": s.cosine_distances,
    }.get(case.metric)
    if found is None or case.kind not in ("values", "self"):
        return None
    return (lambda: found(x)) if case.kind == "self" and case.metric == "euclidean" else lambda: found(x, y if case.kind == "values" else x)


def torch_cdist(case: Case, x: Any, y: Any) -> Call | None:
    """torch.cdist."""
    import torch

    p = {"cityblock": 1.0, "euclidean": 2.0, "chebyshev": float("inf"), "hamming": 0.0}.get(case.metric, case.params.get("p"))
    if p is None or case.kind == "budget":
        return None
    a, b = torch.from_numpy(x), torch.from_numpy(x if case.kind == "self" else y)
    if case.kind == "gradient":
        return _torch_gradient(lambda u, v: torch.cdist(u, v, p=p), x, y)
    return lambda: torch.cdist(a, b, p=p)


def _torch_gradient(function: Callable[[Any, Any], Any], x: Any, y: Any) -> Call:
    import torch

    a, b = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y).requires_grad_()
    g = torch.from_numpy(np.random.default_rng(1).random((len(x), len(y)), dtype=np.float32).astype(x.dtype))
    return lambda: torch.autograd.grad(function(a, b), (a, b), g)


def _broadcast(xp: Any, case: Case) -> Callable[[Any, Any], Any] | None:
    """The formula as people write it, on x[:, None] and y[None]."""
    p = case.params.get("p")
    return {
        "cityblock": lambda a, b: xp.abs(a - b).sum(-1),
        "sqeuclidean": lambda a, b: ((a - b) ** 2).sum(-1),
        "euclidean": lambda a, b: xp.sqrt(((a - b) ** 2).sum(-1)),
        "chebyshev": lambda a, b: xp.amax(xp.abs(a - b), -1),
        "minkowski": lambda a, b: (xp.abs(a - b) ** p).sum(-1) ** (1 / p),
        "canberra": lambda a, b: (xp.abs(a - b) / (xp.abs(a) + xp.abs(b))).sum(-1),
        "braycurtis": lambda a, b: xp.abs(a - b).sum(-1) / xp.abs(a + b).sum(-1),
        "hamming": lambda a, b: (a != b).sum(-1) / case.d,
        "kl_divergence": lambda a, b: (a * xp.log(a / b)).sum(-1),
    }.get(case.metric)


def torch_compile(case: Case, x: Any, y: Any) -> Call | None:
    """torch.compile of the broadcast."""
    import torch

    formula = _broadcast(torch, case)
    if formula is None or case.kind in ("budget", "self") or case.m < 100:
        return None
    compiled = torch.compile(lambda a, b: formula(a[:, None], b[None]))
    if case.kind == "gradient":
        return _torch_gradient(compiled, x, y)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return lambda: compiled(a, b)


def jax_jit(case: Case, x: Any, y: Any) -> Call | None:
    """The broadcast, jitted by JAX."""
    import jax
    import jax.numpy as jnp

    formula = _broadcast(jnp, case)
    if formula is None or case.kind in ("budget", "self") or case.m < 100:
        return None
    if case.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    a, b = jnp.asarray(x), jnp.asarray(y)
    if case.kind == "gradient":
        g = jnp.asarray(np.random.default_rng(1).random((case.m, case.n), dtype=np.float32))
        both = jax.jit(jax.grad(lambda u, v: (formula(u[:, None], v[None]) * g).sum(), argnums=(0, 1)))
        return lambda: jax.block_until_ready(both(a, b))
    compiled = jax.jit(lambda u, v: formula(u[:, None], v[None]))
    return lambda: compiled(a, b).block_until_ready()


def faiss(case: Case, x: Any, y: Any) -> Call | None:
    """faiss.pairwise_distances."""
    import faiss as f

    metrics = {
        "cityblock": (f.METRIC_L1, 0), "sqeuclidean": (f.METRIC_L2, 0), "chebyshev": (f.METRIC_Linf, 0), "canberra": (f.METRIC_Canberra, 0),
        "braycurtis": (f.METRIC_BrayCurtis, 0), "jensenshannon": (f.METRIC_JensenShannon, 0),
        "minkowski": (f.METRIC_Lp, case.params.get("p")),
    }  # fmt: skip
    if case.metric not in metrics or case.dtype != "float32" or case.kind != "values":
        return None
    metric, arg = metrics[case.metric]
    return lambda: f.pairwise_distances(x, y, metric=metric, metric_arg=arg)


def numkong(case: Case, x: Any, y: Any) -> Call | None:
    """numkong.cdist."""
    import numkong as k

    name = {"kl_divergence": "kld", "jensenshannon": "jensenshannon", "cosine": "angular", "sqeuclidean": "sqeuclidean",
            "euclidean": "euclidean"}.get(case.metric)  # fmt: skip
    if name is None or case.kind != "values" or case.m < 100:
        return None
    return lambda: k.cdist(x, y, name)


IMPLEMENTATIONS: dict[str, Callable[[Case, Any, Any], Call | None]] = {
    "pairx": pairx, "matmul": matmul, "scipy": scipy, "sklearn": sklearn, "torch.cdist": torch_cdist, "torch.compile": torch_compile,
    "jax.jit": jax_jit, "faiss": faiss, "numkong": numkong,
}  # fmt: skip
