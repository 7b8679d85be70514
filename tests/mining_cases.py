"""Miners in float64, in plain loops: what each finds, as a set of tuples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Found = set[tuple[int, ...]]


def relatives(labels: np.ndarray, y_labels: np.ndarray | None = None) -> Iterator[tuple[int, list[int], list[int]]]:
    """Each anchor, its positives and its negatives."""
    theirs = labels if y_labels is None else y_labels
    for i in range(len(labels)):
        others = [j for j in range(len(theirs)) if y_labels is not None or j != i]
        same = {j: bool(labels[i] == theirs[j]) if labels.ndim == 1 else bool((labels[i] * theirs[j]).any()) for j in others}
        yield i, [j for j in others if same[j]], [j for j in others if not same[j]]


def unit(x: np.ndarray) -> np.ndarray:
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def apart(u: np.ndarray, v: np.ndarray, metric: str = "euclidean", similarity: str | None = None) -> float:
    if similarity == "cosine":
        return 1.0 - float(unit(u[None])[0] @ unit(v[None])[0])
    if similarity == "dot":
        return -float(u @ v)
    return float(np.abs(u - v).sum()) if metric == "cityblock" else float(np.sqrt(((u - v) ** 2).sum()))


def pairs(which: int) -> Any:
    def reference(labels: np.ndarray, y_labels: np.ndarray | None = None) -> Found:
        return {(row[0], j) for row in relatives(labels, y_labels) for j in row[which]}

    return reference


def batch_hard(x: np.ndarray, labels: np.ndarray, y: np.ndarray | None = None, y_labels: Any = None, **how: Any) -> Found:
    found, z = set(), x if y is None else y
    for i, positives, negatives in relatives(labels, y_labels):
        if positives and negatives:
            far, near = (lambda j, i=i: apart(x[i], z[j], **how)), None
            near = far
            found.add((i, max(positives, key=far), min(negatives, key=near)))
    return found


def semi_hard(x: np.ndarray, labels: np.ndarray, y: np.ndarray | None = None, y_labels: Any = None, **how: Any) -> Found:
    found, z = set(), x if y is None else y
    for i, positives, negatives in relatives(labels, y_labels):
        for p in positives if negatives else []:
            d = {n: apart(x[i], z[n], **how) for n in negatives}
            beyond = {n: v for n, v in d.items() if v > apart(x[i], z[p], **how)}
            found.add((i, p, min(beyond, key=beyond.__getitem__) if beyond else max(d, key=d.__getitem__)))
    return found


def triplets(
    x: np.ndarray,
    labels: np.ndarray,
    y: np.ndarray | None = None,
    y_labels: Any = None,
    margin: float = 0.2,
    kind: str = "all",
    **how: Any,
) -> Found:
    found, z = set(), x if y is None else y
    for i, positives, negatives in relatives(labels, y_labels):
        for p in positives:
            for n in negatives:
                gap = apart(x[i], z[n], **how) - apart(x[i], z[p], **how)
                wanted = {"all": gap <= margin, "hard": gap <= min(margin, 0), "semi-hard": 0 < gap <= margin, "easy": gap > margin}
                if wanted[kind]:
                    found.add((i, p, n))
    return found


def angular(x: np.ndarray, labels: np.ndarray, y: np.ndarray | None = None, y_labels: Any = None, angle: float = 20.0) -> Found:
    found, u = set(), unit(x)
    z = u if y is None else unit(y)
    for i, positives, negatives in relatives(labels, y_labels):
        for p in positives:
            for n in negatives:
                if math.atan2(apart(u[i], z[p]), 2 * apart(z[n], (u[i] + z[p]) / 2)) > math.radians(angle):
                    found.add((i, p, n))
    return found


def multi_similarity(
    x: np.ndarray, labels: np.ndarray, y: np.ndarray | None = None, y_labels: Any = None, epsilon: float = 0.1, **how: Any
) -> tuple[Found, Found]:
    hard: tuple[Found, Found] = set(), set()
    z = x if y is None else y
    for i, positives, negatives in relatives(labels, y_labels):
        s = {j: -apart(x[i], z[j], **(how or {"similarity": "cosine"})) for j in positives + negatives}
        if positives and negatives:
            hard[0].update((i, p) for p in positives if s[p] < max(s[n] for n in negatives) + epsilon)
            hard[1].update((i, n) for n in negatives if s[n] > min(s[p] for p in positives) - epsilon)
    return hard


def shares(
    x: np.ndarray, labels: np.ndarray, y: np.ndarray | None = None, y_labels: Any = None, cutoff: float = 0.5, upper: float = 1.4
) -> dict[tuple[int, int], dict[int, float]]:
    """Of each positive pair: the chance of each negative in :func:`pairx.mining.distance_weighted`."""
    found, u = {}, unit(x)
    z = u if y is None else unit(y)
    k = x.shape[1]
    for i, positives, negatives in relatives(labels, y_labels):
        weight = {}
        for n in negatives:
            d = apart(u[i], z[n])
            if d < upper:
                d = max(d, cutoff)
                weight[n] = 1 / (d ** (k - 2) * (1 - d * d / 4) ** ((k - 3) / 2))
        total = sum(weight.values())
        for p in positives:
            if weight:
                found[i, p] = {n: w / total for n, w in weight.items()}
    return found


REFERENCES: dict[str, Any] = {
    "positive_mask": pairs(1),
    "negative_mask": pairs(2),
    "positive_pairs": pairs(1),
    "negative_pairs": pairs(2),
    "batch_hard": batch_hard,
    "semi_hard": semi_hard,
    "triplets": triplets,
    "angular": angular,
    "multi_similarity": multi_similarity,
    "distance_weighted": shares,
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "batch_hard": [{}, {"metric": "cityblock"}, {"similarity": "cosine"}],
    "semi_hard": [{}, {"similarity": "dot"}],
    "triplets": [
        {},
        *({"kind": k, "margin": 1.0} for k in ("hard", "semi-hard", "easy")),
        {"margin": math.inf},
        {"margin": -0.5, "kind": "hard"},
    ],
    "angular": [{}, {"angle": 35.0}],
    "multi_similarity": [{}, {"epsilon": 0.5}, {"metric": "euclidean"}],
    "distance_weighted": [{"rng": 0}],
}
