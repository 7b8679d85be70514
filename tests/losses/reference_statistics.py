"""Losses of statistics in float64: NumPy's own variances and covariances, feature by feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from loss_cases import Case


def _off_diagonal(c: np.ndarray) -> float:
    d = len(c)
    return sum(float(c[j, k]) ** 2 for j in range(d) for k in range(d) if j != k)


def vicreg(x, y, invariance=25.0, variance=25.0, covariance=1.0, target=1.0, eps=1e-4) -> Any:
    n, d = x.shape
    if n == 0:
        return np.zeros(()), np.zeros((), bool)
    value = invariance * ((x - y) ** 2).mean()
    if n > 1:
        for z in (x, y):
            value += variance / 2 * np.mean([max(0.0, target - np.sqrt(z[:, j].var(ddof=1) + eps)) for j in range(d)])
            value += covariance * _off_diagonal(np.atleast_2d(np.cov(z, rowvar=False))) / d
    return np.asarray(value), np.ones((), bool)


def _correlation(p: np.ndarray, q: np.ndarray) -> float:
    if np.ptp(p) == 0 or np.ptp(q) == 0:
        return 0.0
    p, q = (v / np.abs(v).max() for v in (p - p.mean(), q - q.mean()))
    return float((p * q).sum() / np.sqrt((p * p).sum() * (q * q).sum()))


def barlow_twins(x, y, redundancy=0.005) -> Any:
    n, d = x.shape
    if n < 2:
        return np.zeros(()), np.zeros((), bool)
    c = np.array([[_correlation(x[:, j], y[:, k]) for k in range(d)] for j in range(d)])
    return np.asarray(sum((1 - c[j, j]) ** 2 for j in range(d)) + redundancy * _off_diagonal(c)), np.ones((), bool)


def decov(x) -> Any:
    if len(x) == 0:
        return np.zeros(()), np.zeros((), bool)
    return np.asarray(_off_diagonal(np.atleast_2d(np.cov(x, rowvar=False, ddof=0))) / 2), np.ones((), bool)


REFERENCES = {"vicreg": vicreg, "barlow_twins": barlow_twins, "decov": decov}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "vicreg": [{}, {"invariance": 2.0, "variance": 3.0, "covariance": 0.5, "target": 1.5, "eps": 0.01}],
    "barlow_twins": [{}, {"redundancy": 0.5}],
}


def _views(rng: np.random.Generator) -> Case:
    x = rng.normal(size=(9, 5)) * np.array([0.3, 1.0, 2.0, 0.5, 0.9]) + 3.0
    return Case({"x": x, "y": x + 0.3 * rng.normal(size=(9, 5))})


INPUTS = {"two views of a batch": _views, "a batch": lambda rng: Case({"x": rng.normal(size=(9, 5)) + 3.0})}


def _edges(names: tuple[str, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(21)
    one, other = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    constant = one.copy()
    constant[:, 1] = 0.1  # a mean of such numbers is not exactly this number

    def case(*arrays: np.ndarray) -> Any:
        return lambda: Case(dict(zip(names, arrays, strict=False)))

    return {
        "one row": case(one[:1], other[:1]),
        "no rows": case(one[:0], other[:0]),
        "two rows": case(one[:2], other[:2]),
        "one feature": case(one[:, :1], other[:, :1]),
        "equal rows": case(np.full((6, 4), 0.1), np.full((6, 4), 0.1)),
        "equal views": case(one, one),
        "constant feature": case(constant, constant),
        "zero vectors": case(np.zeros((6, 4)), np.zeros((6, 4))),
        "tiny": case(one * 1e-30, other * 1e-30),
        "huge": case(one * 1e30, other * 1e30),
    }


EDGES = {"two views of a batch": _edges(("x", "y")), "a batch": _edges(("x",))}
