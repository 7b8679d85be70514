"""Losses against learnt vectors of the classes, in float64, row by row and with angles by their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from loss_cases import Case
from reference_softmax import log_sum, unit


def log1p_exp(z: float) -> float:
    return 0.0 if z == -math.inf else float(np.logaddexp(0, z))


def _rows(x: np.ndarray, labels: np.ndarray, value: Any) -> Any:
    values, active = np.zeros(len(x)), np.zeros(len(x), bool)
    for i, c in enumerate(labels):
        if c >= 0:
            values[i], active[i] = value(i, int(c)), True
    return values, active


def proxy_nca(x, proxies, labels, scale=1.0, include_positive=True, metric=None, similarity=None) -> Any:
    def logit(i: int, c: int) -> float:
        if metric == "sqeuclidean":
            return -scale * float(((x[i] - proxies[c]) ** 2).sum())
        if similarity == "dot":
            return scale * float(x[i] @ proxies[c])
        return -scale * float(((unit(x[i]) - unit(proxies[c])) ** 2).sum())

    def value(i: int, own: int) -> float:
        others = [logit(i, c) for c in range(len(proxies)) if c != own]
        if not include_positive:
            return log_sum(others) - logit(i, own) if others else 0.0
        return log1p_exp(log_sum(others) - logit(i, own))

    return _rows(x, labels, value)


def proxy_anchor(x, proxies, labels, scale=32.0, margin=0.1) -> Any:
    u, w = unit(x), unit(proxies)
    n = len(proxies)
    pull, push = np.zeros(n), np.zeros(n)
    for c in range(n):
        mine = [scale * (margin - float(u[i] @ w[c])) for i in range(len(x)) if labels[i] == c]
        others = [scale * (margin + float(u[i] @ w[c])) for i in range(len(x)) if labels[i] != c and labels[i] >= 0]
        pull[c], push[c] = log1p_exp(log_sum(mine)), log1p_exp(log_sum(others))
    present = sum(any(y == c for y in labels) for c in range(n))
    return pull * n / max(present, 1) + push, np.ones(n, bool)


def _cross_entropy(logits: list[float], own: int, target: float) -> float:
    return log1p_exp(log_sum([z for c, z in enumerate(logits) if c != own]) - target)


def _soft(s: np.ndarray, gamma: float) -> float:
    share = np.exp((s - s.max()) / gamma)
    return float((share * s).sum() / share.sum())


def soft_triple(x, centers, labels, scale=20.0, margin=0.01, gamma=0.1) -> Any:
    u, w = unit(x), unit(centers)

    def value(i: int, own: int) -> float:
        s = [_soft(w[c] @ u[i], gamma) for c in range(len(centers))]
        return _cross_entropy([scale * v for v in s], own, scale * (s[own] - margin))

    return _rows(x, labels, value)


def sparse_centers(centers) -> Any:
    w = unit(centers)
    n, k = w.shape[:2]
    values = [sum(math.dist(w[c, s], w[c, t]) for s in range(k) for t in range(s)) / max(k * (k - 1), 1) for c in range(n)]
    return np.array(values), np.full(n, k > 1)


def normalized_softmax(x, proxies, labels, temperature=0.05) -> Any:
    s = unit(x) @ unit(proxies).T / temperature
    return _rows(x, labels, lambda i, own: _cross_entropy(list(s[i]), own, s[i, own]))


def cosface(x, proxies, labels, scale=64.0, margin=0.35) -> Any:
    s = unit(x) @ unit(proxies).T
    return _rows(x, labels, lambda i, own: _cross_entropy(list(scale * s[i]), own, scale * (s[i, own] - margin)))


def _angle(u: np.ndarray, w: np.ndarray) -> float:
    """Of unit vectors; a zero vector is at a right angle to all. (Kahan's form: an arc cosine has no digits near 0 and pi.)"""
    if not u.any() or not w.any():
        return math.pi / 2
    return 2 * math.atan2(math.hypot(*(u - w)), math.hypot(*(u + w)))


def _arc(angle: float, margin: float) -> float:
    return math.cos(angle + margin) if angle + margin <= math.pi else math.cos(angle) - margin * math.sin(margin)


def arcface(x, proxies, labels, scale=64.0, margin=0.5) -> Any:
    u, w = unit(x), unit(proxies)
    s = scale * u @ w.T
    return _rows(x, labels, lambda i, own: _cross_entropy(list(s[i]), own, scale * _arc(_angle(u[i], w[own]), margin)))


def subcenter_arcface(x, centers, labels, scale=64.0, margin=0.5) -> Any:
    u, w = unit(x), unit(centers)
    s = np.array([[max(float(v @ a) for v in c) for c in w] for a in u]).reshape(len(x), len(centers))
    return _rows(
        x,
        labels,
        lambda i, own: _cross_entropy(list(scale * s[i]), own, scale * _arc(min(_angle(u[i], v) for v in w[own]), margin)),
    )


def sphereface(x, proxies, labels, scale=1.0, margin=4) -> Any:
    u, w, length = unit(x), unit(proxies), [scale * math.hypot(*row) for row in x]
    s = u @ w.T

    def value(i: int, own: int) -> float:
        angle = _angle(u[i], w[own])
        k = min(math.floor(angle * margin / math.pi), margin - 1)
        target = (-1) ** k * math.cos(margin * angle) - 2 * k
        return _cross_entropy(list(length[i] * s[i]), own, length[i] * target)

    return _rows(x, labels, value)


REFERENCES = {
    f.__name__: f
    for f in (
        proxy_nca,
        proxy_anchor,
        soft_triple,
        sparse_centers,
        normalized_softmax,
        cosface,
        arcface,
        subcenter_arcface,
        sphereface,
    )
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "proxy_nca": [
        {},
        {"include_positive": False, "scale": 3.0},
        {"metric": "sqeuclidean", "scale": 0.5},
        {"similarity": "dot", "scale": 2.0},
    ],
    "proxy_anchor": [{}, {"scale": 4.0, "margin": 0.3}],
    "soft_triple": [{}, {"scale": 5.0, "margin": 0.2, "gamma": 0.5}],
    "normalized_softmax": [{}, {"temperature": 0.5}],
    "cosface": [{}, {"scale": 8.0, "margin": 0.1}],
    "arcface": [{}, {"scale": 8.0, "margin": 1.2}],
    "subcenter_arcface": [{}, {"scale": 8.0, "margin": 1.2}],
    "sphereface": [{}, {"margin": 1}, {"margin": 3, "scale": 2.0}],
}


def _labels(n: int) -> np.ndarray:
    return np.arange(n) % 3


def _proxies(rng: np.random.Generator) -> Case:
    """A row of no class, and a class without rows."""
    return Case({"x": rng.normal(size=(9, 4)), "proxies": rng.normal(size=(5, 4))}, {"labels": np.array([0, 1, 2, -1, 1, 4, 4, 0, 1])})


def _centers(rng: np.random.Generator) -> Case:
    return Case({"x": rng.normal(size=(9, 4)), "centers": rng.normal(size=(5, 3, 4))}, {"labels": np.array([0, 1, 2, -1, 1, 4, 4, 0, 1])})


def _only_centers(rng: np.random.Generator) -> Case:
    return Case({"centers": rng.normal(size=(3, 4, 5))})


INPUTS = {"proxies": _proxies, "centers": _centers, "only centers": _only_centers}


def _edges(name: str, each: tuple[int, ...]) -> dict[str, Any]:
    """``each`` is the shape of the vectors of a class."""
    rng = np.random.default_rng(11)
    x, w = rng.normal(size=(6, 4)), rng.normal(size=(3, *each))
    aligned = w.reshape(3, -1, 4)[_labels(6), 0]  # each row at the vector of its own class, or opposite
    zero = x.copy()
    zero[0] = 0

    def case(x: np.ndarray, w: np.ndarray = w, labels: np.ndarray | None = None) -> Any:
        return lambda: Case({"x": x, name: w}, {"labels": _labels(len(x)) if labels is None else labels})

    return {
        "no positives": case(x, labels=np.full(6, -1)),
        "one class": case(x, w[:1], np.zeros(6, int)),
        "one row": case(x[:1]),
        "no rows": case(x[:0]),
        "equal rows": case(np.ones((6, 4)), np.ones((3, *each))),
        "aligned": case(2.0 * aligned),
        "opposite": case(-3.0 * aligned),
        "zero vectors": case(np.zeros((6, 4)), np.zeros((3, *each))),
        "one zero vector": case(zero),
        "tiny": case(x * 1e-30, w * 1e-30),
        "huge": case(x * 1e30, w * 1e30),
    }


def _only(w: np.ndarray) -> Any:
    return lambda: Case({"centers": w})


_W = np.random.default_rng(12).normal(size=(3, 4, 5))
EDGES = {
    "proxies": _edges("proxies", (4,)),
    "centers": _edges("centers", (2, 4)),
    "only centers": {
        "one center": _only(_W[:, :1]),
        "no classes": _only(_W[:0]),
        "equal rows": _only(np.ones((3, 4, 5))),
        "zero vectors": _only(np.zeros((3, 4, 5))),
        "tiny": _only(_W * 1e-30),
        "huge": _only(_W * 1e30),
    },
}
