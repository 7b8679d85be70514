"""Triplet losses in float64, triplet by triplet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from loss_cases import Case
from reference_softmax import unit


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def _cost(near: float, far: float, margin: float, squared: bool, soft: bool) -> float:
    z = (near - far) * (near + far) + margin if squared else near - far + margin
    return _softplus(z) if soft else max(0.0, z)


def _apart(u: np.ndarray, v: np.ndarray, metric: str, similarity: str | None) -> float:
    if similarity == "dot":
        return -float(u @ v)
    if similarity == "cosine":
        return 1.0 - float(unit(u[None])[0] @ unit(v[None])[0])
    return float(np.abs(u - v).sum()) if metric == "cityblock" else _length(u - v)


def _length(v: np.ndarray) -> float:
    top = np.abs(v).max(initial=0)
    if np.isinf(top):
        return float(top)
    return float(top * np.sqrt(((v / top) ** 2).sum())) if top > 0 else 0.0


def triplet(
    anchor: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    margin: float = 1.0,
    squared: bool = False,
    soft: bool = False,
    swap: bool = False,
    metric: str = "euclidean",
    similarity: str | None = None,
    mean_over: str = "all",
) -> Any:
    values = np.zeros(len(anchor))
    for k, (a, p, n) in enumerate(zip(anchor, positive, negative, strict=True)):
        far = _apart(a, n, metric, similarity)
        if swap:
            far = min(far, _apart(p, n, metric, similarity))
        values[k] = _cost(_apart(a, p, metric, similarity), far, float(margin), squared, soft)
    return values, values > 0 if mean_over == "active" else np.ones(len(values), bool)


def triplet_angular(
    anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, alpha: float = 45.0, normalize: bool = False, mean_over: str = "all"
) -> Any:
    if normalize:
        anchor, positive, negative = unit(anchor), unit(positive), unit(negative)
    values = np.zeros(len(anchor))
    for k, (a, p, n) in enumerate(zip(anchor, positive, negative, strict=True)):
        near, far = _length(a - p), 2 * math.tan(math.radians(alpha)) * _length(n - (a / 2 + p / 2))
        values[k] = max(0.0, (near - far) * (near + far))
    return values, values > 0 if mean_over == "active" else np.ones(len(values), bool)


def _relatives(labels: np.ndarray) -> Iterator[tuple[int, list[int], list[int]]]:
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        same = [labels[i] == labels[j] if labels.ndim == 1 else bool(labels[i] @ labels[j]) for j in range(len(labels))]
        yield i, [j for j in others if same[j]], [j for j in others if not same[j]]


def _batch(
    choose: Callable[[list[float], list[float]], list[tuple[float, float]]], all_by_default: bool, margin_by_default: float, counted: bool
) -> Any:
    """A loss over the pairs of distances (to a positive, to a negative) that are chosen for each anchor."""

    def reference(
        x: np.ndarray,
        labels: np.ndarray,
        margin: float = margin_by_default,
        squared: bool = False,
        soft: bool = False,
        metric: str = "euclidean",
        similarity: str | None = None,
        mean_over: str = "all" if all_by_default else "active",
    ) -> Any:
        values, sizes = np.zeros(len(x)), np.zeros(len(x))
        for i, positives, negatives in _relatives(np.asarray(labels)):
            near, far = ([_apart(x[i], x[j], metric, similarity) for j in js] for js in (positives, negatives))
            costs = [_cost(p, n, float(margin), squared, soft) for p, n in choose(near, far)]
            values[i] = sum(costs)
            sizes[i] = len(costs) if mean_over == "all" else sum(soft or c > 0 for c in costs)
        return (values, sizes > 0, sizes) if counted else (values, sizes > 0)

    return reference


def _all(near: list[float], far: list[float]) -> list[tuple[float, float]]:
    return [(p, n) for p in near for n in far]


def _hard(near: list[float], far: list[float]) -> list[tuple[float, float]]:
    return [(max(near), min(far))] if near and far else []


def _semi_hard(near: list[float], far: list[float]) -> list[tuple[float, float]]:
    return [(p, min((n for n in far if n > p), default=max(far))) for p in near] if far else []


def angular(x: np.ndarray, labels: np.ndarray, alpha: float = 40.0, similarity: str = "cosine") -> Any:
    u = unit(x) if similarity == "cosine" else x
    slope = math.tan(math.radians(alpha)) ** 2
    values, sizes = np.zeros(len(x)), np.zeros(len(x))
    for i, positives, negatives in _relatives(np.asarray(labels)):
        for p in positives:
            f = [4 * slope * float((u[i] + u[p]) @ u[n]) - 2 * (1 + slope) * float(u[i] @ u[p]) for n in negatives]
            top = max([0.0, *f])
            values[i] += top + math.log(math.exp(-top) + sum(math.exp(v - top) for v in f))
        sizes[i] = len(positives)
    return values, sizes > 0, sizes


REFERENCES = {
    "triplet": triplet,
    "triplet_angular": triplet_angular,
    "triplet_batch_all": _batch(_all, False, 0.2, True),
    "triplet_batch_hard": _batch(_hard, True, 0.2, False),
    "triplet_semi_hard": _batch(_semi_hard, True, 1.0, True),
    "angular": angular,
}
_OPTIONS: list[dict[str, Any]] = [
    {},
    {"soft": True},
    {"squared": True, "margin": 0.5},
    {"similarity": "cosine", "margin": np.array(0.3)},
    {"similarity": "dot"},
    {"metric": "cityblock", "soft": True, "margin": 1.0},
]
VARIANTS = {
    "triplet": [*_OPTIONS, {"swap": True}, {"swap": True, "squared": True}, {"mean_over": "active"}],
    "triplet_angular": [{}, {"alpha": 20.0, "normalize": True}, {"mean_over": "active"}],
    "triplet_batch_all": [*_OPTIONS, {"mean_over": "all"}, {"margin": 0.0}],
    "triplet_batch_hard": [*_OPTIONS, {"mean_over": "active", "margin": -0.5}],
    "triplet_semi_hard": [*_OPTIONS, {"mean_over": "active", "margin": 0.1}],
    "angular": [{}, {"alpha": 20.0, "similarity": "dot"}],
}


def _rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _three(make: Callable[[int], np.ndarray]) -> Case:
    return Case({name: make(k) for k, name in enumerate(("anchor", "positive", "negative"))})


INPUTS = {"triplet rows": lambda rng: _three(lambda k: rng.normal(size=(9, 4)))}
_equal = _rows(11, 6, 4)
EDGES = {
    "triplet rows": {
        "one row": lambda: _three(lambda k: _rows(k, 1, 4)),
        "no rows": lambda: _three(lambda k: np.zeros((0, 4))),
        "equal rows": lambda: _three(lambda k: _equal),
        "zero vectors": lambda: _three(lambda k: np.zeros((6, 4))),
        "one zero vector": lambda: _three(lambda k: np.concatenate([np.zeros((1, 4)), _rows(k, 5, 4)])),
        "duplicates across classes": lambda: Case({"anchor": _rows(1, 6, 4), "positive": _equal, "negative": _equal}),
        "tiny": lambda: _three(lambda k: _rows(k, 6, 4) * 1e-30),
        "huge": lambda: _three(lambda k: _rows(k, 6, 4) * 1e30),
    }
}
