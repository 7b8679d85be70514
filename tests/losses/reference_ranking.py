"""Ranking losses in float64: anchor by anchor, candidate by candidate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from reference_softmax import unit


def _others(labels: np.ndarray, i: int) -> tuple[list[int], list[int]]:
    n = len(labels)
    return [j for j in range(n) if j != i and labels[j] == labels[i]], [j for j in range(n) if labels[j] != labels[i]]


def _share(gaps: list[float], by: float) -> float:
    gaps = [g for g in gaps if g > 0]
    if not gaps:
        return 0.0
    w = [math.exp(by * (g - max(gaps))) for g in gaps]
    return sum(a * g for a, g in zip(w, gaps, strict=True)) / sum(w)


def ranked_list(x, labels, alpha=1.2, margin=0.4, balance=0.5, positive_scale=0.0, negative_scale=10.0, metric=None) -> Any:
    u = unit(x) if metric is None else x
    n = len(x)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        same, different = _others(labels, i)
        pull = _share([math.dist(u[i], u[j]) - (alpha - margin) for j in same], positive_scale)
        push = _share([alpha - math.dist(u[i], u[j]) for j in different], negative_scale)
        values[i], active[i] = (1 - balance) * pull + balance * push, bool(same or different)
    return values, active


def _hat(value: float, nodes: np.ndarray) -> np.ndarray:
    width = nodes[1] - nodes[0]
    return np.maximum(0, 1 - np.abs(min(max(value, nodes[0]), nodes[-1]) - nodes) / width)


def fast_ap(x, labels, bins=10) -> Any:
    u, n, nodes = unit(x), len(x), np.linspace(0, 4, bins + 1)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        same, different = _others(labels, i)
        near = sum((_hat(2 - 2 * float(u[i] @ u[j]), nodes) for j in same), np.zeros(bins + 1))
        far = sum((_hat(2 - 2 * float(u[i] @ u[j]), nodes) for j in different), np.zeros(bins + 1))
        if same:
            total = 0.0
            for r in range(bins + 1):
                seen = near[: r + 1].sum() + far[: r + 1].sum()
                total += near[r] * near[: r + 1].sum() / seen if seen > 0 else 0.0
            values[i], active[i] = 1 - total / len(same), True
    return values, active


def histogram(x, labels, bins=100) -> Any:
    u, n, nodes = unit(x), len(x), np.linspace(-1, 1, bins + 1)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    found = []
    for wanted in (True, False):
        chosen = [_hat(float(u[i] @ u[j]), nodes) for i, j in pairs if (labels[i] == labels[j]) == wanted]
        if not chosen:
            return np.zeros(()), np.zeros((), bool)
        found.append(np.mean(chosen, axis=0))
    near, far = found
    return np.asarray(sum(far[r] * near[: r + 1].sum() for r in range(bins + 1))), np.ones((), bool)


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(max(z, -700.0)) / (1 + math.exp(max(z, -700.0)))


def smooth_ap(x, labels, temperature=0.01, similarity="cosine") -> Any:
    u, n = unit(x) if similarity == "cosine" else x, len(x)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        same, different = _others(labels, i)
        if same:
            s = u @ u[i]

            def rank(j: int, among: list[int], s: np.ndarray = s) -> float:
                return 1 + sum(_sigmoid((s[k] - s[j]) / temperature) for k in among if k != j)

            values[i], active[i] = 1 - sum(rank(j, same) / rank(j, same + different) for j in same) / len(same), True
    return values, active


REFERENCES = {f.__name__: f for f in (ranked_list, fast_ap, histogram, smooth_ap)}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ranked_list": [
        {},
        {"alpha": 1.4, "margin": 0.9, "balance": 0.3, "positive_scale": 4.0, "negative_scale": 2.0},
        {"metric": "euclidean", "alpha": 2.0},
    ],
    "fast_ap": [{}, {"bins": 7}],
    "histogram": [{}, {"bins": 1}, {"bins": 12}],
    "smooth_ap": [{}, {"temperature": 0.3}, {"temperature": 0.5, "similarity": "dot"}],
}
