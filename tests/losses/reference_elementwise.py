"""Regression, matrices, distributions and classification in float64, from the textbook; SciPy where it has the function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special


def each(function: Callable[..., float], rank: int) -> Callable[..., Any]:
    """A function of one unit, on all units: ``rank`` trailing axes belong to a unit."""

    def reference(predictions: np.ndarray, targets: np.ndarray, **given: Any) -> Any:
        lead = predictions.shape[: predictions.ndim - rank]
        values = np.zeros(lead)
        for at in np.ndindex(*lead):
            values[at] = function(predictions[at], targets[at], **given)
        return values, np.ones(lead, bool)

    return reference


def huber(x: float, y: float, delta: float = 1.0) -> float:
    d = abs(x - y)
    return 0.5 * d * d if d <= delta else delta * (d - 0.5 * delta)


def log_cosh(x: float, y: float) -> float:
    d = np.longdouble(abs(x - y))
    if d < 1e-3:  # the series of log cosh
        return float(d**2 / 2 - d**4 / 12)
    return float(np.logaddexp(d, -d) - np.log(np.longdouble(2)))


def quantile(x: float, y: float, q: float = 0.5) -> float:
    return max(q * (y - x), (q - 1) * (y - x))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    norms = [math.hypot(*v) for v in (x, y)]
    return 1 - float((x / norms[0]) @ (y / norms[1])) if all(norms) else 1.0


def hamming(x: np.ndarray, y: np.ndarray, threshold: float = 0.5, from_logits: bool = False, normalize: bool = True) -> float:
    scores = special.expit(x) if from_logits else x
    wrong = [(s > threshold) != (t == 1) for s, t in zip(scores, y, strict=True)]
    return (np.mean(wrong) if wrong else 0.0) if normalize else np.sum(wrong)


def schatten(p: float) -> Callable[..., float]:
    return lambda a, b: float(np.linalg.norm(np.linalg.svd(a - b, compute_uv=False), p)) if a.size else 0.0


def matrix(a: np.ndarray, b: np.ndarray, ord: Any = "fro") -> float:
    return float(np.linalg.norm(a - b, ord)) if a.size else 0.0


def kl(q: np.ndarray, p: np.ndarray, reverse: bool = False, log_input: bool = False, log_target: bool = False) -> float:
    q, p = (np.exp(q) if log_input else q), (np.exp(p) if log_target else p)
    if reverse:
        q, p = p, q
    return float(np.sum(special.rel_entr(p, q)))


def jensen_shannon(q: np.ndarray, p: np.ndarray, base: float | None = None) -> float:
    m = (p + q) / 2
    return float(np.sum(special.rel_entr(p, m) + special.rel_entr(q, m)) / 2 / (math.log(base) if base else 1))


def hellinger(q: np.ndarray, p: np.ndarray, squared: bool = False) -> float:
    h = float(np.sum((np.sqrt(p) - np.sqrt(q)) ** 2) / 2)
    return h if squared else math.sqrt(h)


def wasserstein(q: np.ndarray, p: np.ndarray, positions: np.ndarray | None = None) -> float:
    z = np.arange(len(q)) if positions is None else positions
    return float(sum((z[k + 1] - z[k]) * abs(math.fsum(p[: k + 1]) - math.fsum(q[: k + 1])) for k in range(len(q) - 1)))


def smoothed(p: np.ndarray, s: float) -> np.ndarray:
    return (1 - s) * p + s / len(p)


def cross_entropy(
    q: np.ndarray, p: np.ndarray, from_logits: bool = False, label_smoothing: float = 0.0, class_weights: np.ndarray | None = None
) -> float:
    log = special.log_softmax(q) if from_logits else np.log(q)
    w = np.ones(len(q)) if class_weights is None else class_weights
    return float(sum(-w[k] * t * log[k] for k, t in enumerate(smoothed(p, label_smoothing)) if t and w[k]))


def sparse_cross_entropy(
    predictions: np.ndarray,
    labels: np.ndarray,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
    ignore_index: int | None = None,
) -> Any:
    values, active, mass = np.zeros(labels.shape), np.zeros(labels.shape, bool), np.zeros(labels.shape)
    for at in np.ndindex(*labels.shape):
        if labels[at] == ignore_index:
            continue
        k, active[at] = labels[at], True
        w = np.ones(predictions.shape[-1]) if class_weights is None else class_weights
        mass[at] = w[k]
        one = np.eye(len(w))[k]
        spread = cross_entropy(predictions[at], np.full(len(w), 1 / len(w)), from_logits, 0.0, w)
        values[at] = (1 - label_smoothing) * cross_entropy(predictions[at], one, from_logits, 0.0, w)
        values[at] += label_smoothing * spread if label_smoothing else 0.0
    return values, active, mass


def bce(q: np.ndarray, p: np.ndarray, from_logits: bool = False, label_smoothing: float = 0.0, positive_weight: float = 1.0) -> float:
    p = p * (1 - label_smoothing) + label_smoothing / 2
    logs = (special.log_expit(q), special.log_expit(-q)) if from_logits else (np.log(q), np.log1p(-q))
    return float((-positive_weight * p * logs[0] if p else 0.0) - ((1 - p) * logs[1] if p != 1 else 0.0))


def focal(q: np.ndarray, p: np.ndarray, gamma: float = 2.0, alpha: float | None = None, from_logits: bool = False) -> float:
    first, second = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    s = special.expit(q) if from_logits else q
    logs = (special.log_expit(q), special.log_expit(-q)) if from_logits else (np.log(q), np.log1p(-q))
    other = special.expit(-q) if from_logits else 1 - q
    value = 0.0
    if p:
        value -= first * p * other**gamma * logs[0]
    if p != 1:
        value -= second * (1 - p) * s**gamma * logs[1]
    return float(value)


REFERENCES = {
    "l1": each(lambda x, y: abs(x - y), 0),
    "l2": each(lambda x, y, half=False: (x - y) ** 2 / (2 if half else 1), 0),
    "huber": each(huber, 0),
    "log_cosh": each(log_cosh, 0),
    "quantile": each(quantile, 0),
    "cosine": each(cosine, 1),
    "hamming": each(hamming, 1),
    "matrix": each(matrix, 2),
    "frobenius": each(lambda a, b: float(np.sqrt(((a - b) ** 2).sum())), 2),
    "nuclear": each(schatten(1), 2),
    "spectral": each(schatten(np.inf), 2),
    "schatten": each(lambda a, b, p=3.0: schatten(p)(a, b), 2),
    "kl_divergence": each(kl, 1),
    "jensen_shannon": each(jensen_shannon, 1),
    "hellinger": each(hellinger, 1),
    "wasserstein": each(wasserstein, 1),
    "cross_entropy": each(cross_entropy, 1),
    "sparse_cross_entropy": sparse_cross_entropy,
    "binary_cross_entropy": each(bce, 0),
    "focal": each(focal, 0),
}

W = np.array([0.5, 2.0, 1.0, 0.0, 3.0])
VARIANTS = {
    "l2": [{}, {"half": True}],
    "huber": [{}, {"delta": 0.3}],
    "quantile": [{}, {"q": 0.9}],
    "hamming": [{}, {"threshold": 0.3}, {"from_logits": True, "normalize": False}],
    "matrix": [{}, {"ord": 1}, {"ord": np.inf}, {"ord": "nuc"}],
    "schatten": [{}, {"p": 1.5}],
    "kl_divergence": [
        {},
        {"reverse": True},
        {"log_input": True},
        {"log_target": True, "reverse": True},
        {"log_input": True, "log_target": True},
    ],
    "jensen_shannon": [{}, {"base": 2.0}],
    "hellinger": [{}, {"squared": True}],
    "wasserstein": [{}, {"positions": np.array([0.0, 0.5, 2.0, 2.25, 7.0])}],
    "cross_entropy": [{}, {"from_logits": True}, {"label_smoothing": 0.1, "class_weights": W}, {"from_logits": True, "class_weights": W}],
    "sparse_cross_entropy": [
        {},
        {"from_logits": True, "label_smoothing": 0.2},
        {"class_weights": W, "ignore_index": 2},
        {"from_logits": True, "class_weights": W, "label_smoothing": 0.1},
    ],
    "binary_cross_entropy": [{}, {"from_logits": True}, {"label_smoothing": 0.1, "positive_weight": 3.0}],
    "focal": [{}, {"from_logits": True, "alpha": 0.25}, {"gamma": 0.0}],
}


def _simplex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.uniform(0.1, 1, size=shape)
    return found / found.sum(axis=-1, keepdims=True)


def case(arrays: dict[str, np.ndarray], **given: Any) -> Any:
    from loss_cases import Case

    return Case(arrays, given)


def pair(x: np.ndarray, y: np.ndarray) -> Any:
    return case({"predictions": x, "targets": y})


INPUTS = {
    "two": lambda rng: pair(rng.normal(size=(3, 2, 5)), rng.normal(size=(3, 2, 5))),
    "matrices": lambda rng: pair(rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 5))),
    "distributions": lambda rng: pair(_simplex(rng, 3, 2, 5), _simplex(rng, 3, 2, 5)),
    "class probabilities": lambda rng: pair(_simplex(rng, 3, 2, 5), _simplex(rng, 3, 2, 5)),
    "class indices": lambda rng: case({"predictions": _simplex(rng, 7, 5)}, labels=np.array([0, 1, 2, 1, 4, 0, 2])),
    "binary": lambda rng: pair(rng.uniform(0.1, 0.9, size=(4, 3)), rng.integers(0, 2, size=(4, 3)).astype(float)),
}


def _two_edges() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    return {
        "no rows": lambda: pair(np.zeros((0, 3)), np.zeros((0, 3))),
        "one row": lambda: pair(x[:1], y[:1]),
        "no features": lambda: pair(np.zeros((2, 0)), np.zeros((2, 0))),
        "equal rows": lambda: pair(x, x.copy()),
        "zero vectors": lambda: pair(np.zeros((4, 3)), np.zeros((4, 3))),
        "one zero vector": lambda: pair(x * np.array([0, 1, 1, 1])[:, None], y),
        "tiny": lambda: pair(x * 1e-30, y * 1e-30),
        "huge": lambda: pair(x * 1e30, y * 1e30),
    }


def _matrix_edges() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    rank_one = np.outer(x[0, :, 0], x[0, 0]) * np.ones((2, 1, 1))
    return {
        "no rows": lambda: pair(np.zeros((0, 3, 4)), np.zeros((0, 3, 4))),
        "equal rows": lambda: pair(x, x.copy()),
        "zero vectors": lambda: pair(np.zeros((2, 3, 4)), np.zeros((2, 3, 4))),
        "rank one": lambda: pair(y + rank_one, y),
        "tiny": lambda: pair(x * 1e-30, y * 1e-30),
        "huge": lambda: pair(x * 1e30, y * 1e30),
    }


def _distribution_edges() -> dict[str, Any]:
    a, b = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]), np.array([[0.0, 0.0, 1.0], [0.25, 0.75, 0.0]])
    return {
        "no rows": lambda: pair(np.zeros((0, 3)), np.zeros((0, 3))),
        "equal rows": lambda: pair(b, b.copy()),
        "zeros in both": lambda: pair(a[1:], b[1:]),
        "zeros against mass": lambda: pair(a, b),
        "zero vectors": lambda: pair(np.zeros((2, 3)), np.zeros((2, 3))),
        "tiny": lambda: pair(np.array([[1.0 - 1e-30, 1e-30]]), np.array([[1e-30, 1.0]])),
    }


def _binary_edges() -> dict[str, Any]:
    t = np.array([[0.0, 1.0, 1.0, 0.0]])
    return {
        "no rows": lambda: pair(np.zeros((0, 3)), np.zeros((0, 3))),
        "certain and right": lambda: pair(t, t),
        "certain and wrong": lambda: pair(1 - t, t),
        "tiny": lambda: pair(np.array([[1e-30, 1e-30]]), np.array([[0.0, 1.0]])),
    }


def _index_edges() -> dict[str, Any]:
    q = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    return {
        "no rows": lambda: case({"predictions": np.zeros((0, 3))}, labels=np.zeros(0, int)),
        "all ignored": lambda: case({"predictions": q}, labels=np.array([-1, -1]), ignore_index=-1),
        "certain and right": lambda: case({"predictions": q}, labels=np.array([1, 0])),
        "certain and wrong": lambda: case({"predictions": q}, labels=np.array([0, 2])),
        "huge": lambda: case({"predictions": np.array([[1e30, -1e30, 0.0]])}, labels=np.array([0]), from_logits=True),
        "huge and wrong": lambda: case({"predictions": np.array([[1e30, -1e30, 0.0]])}, labels=np.array([1]), from_logits=True),
    }


EDGES = {
    "two": _two_edges(),
    "matrices": _matrix_edges(),
    "distributions": _distribution_edges(),
    "class probabilities": _distribution_edges(),
    "class indices": _index_edges(),
    "binary": _binary_edges(),
}
