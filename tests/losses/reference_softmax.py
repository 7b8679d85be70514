"""Softmax losses in float64, anchor by anchor."""

from __future__ import annotations

from typing import Any

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    top = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    x = np.divide(x, top, out=np.zeros_like(x), where=top > 0)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def log_sum(values: list[float]) -> float:
    if not values:
        return -np.inf
    top = max(values)
    return float(top + np.log(sum(np.exp(v - top) for v in values)))


def supcon(x: np.ndarray, labels: np.ndarray, temperature: float = 0.1, similarity: str = "cosine", **_: Any) -> Any:
    u = unit(x) if similarity == "cosine" else x
    s = u @ u.T / temperature
    n = len(x)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        positive = [j for j in range(n) if j != i and labels[j] == labels[i]]
        if positive:
            total = log_sum([s[i, k] for k in range(n) if k != i])
            values[i], active[i] = np.mean([total - s[i, j] for j in positive]), True
    return values, active


REFERENCES = {"supcon": supcon}
VARIANTS = {"supcon": [{}, {"temperature": 1.0, "similarity": "dot"}]}
