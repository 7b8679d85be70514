"""Softmax losses in float64, anchor by anchor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from loss_cases import Case, inputs


def unit(x: np.ndarray) -> np.ndarray:
    top = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    x = np.divide(x, top, out=np.zeros_like(x), where=top > 0)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def log_sum(values: list[float]) -> float:
    if not len(values):
        return -np.inf
    top = max(values)
    return float(top + math.log(math.fsum(math.exp(v - top) for v in values)))


def scores(x: np.ndarray, y: np.ndarray, similarity: str | None = None, metric: str | None = None) -> np.ndarray:
    if metric == "euclidean":
        return -np.array([[math.dist(p, q) for q in y] for p in x])
    return unit(x) @ unit(y).T if similarity in (None, "cosine") else x @ y.T


def groups(labels: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Positives and negatives of each row."""
    labels = np.asarray(labels).reshape(-1)
    n = len(labels)
    same = [[j for j in range(n) if j != i and labels[j] == labels[i]] for i in range(n)]
    return same, [[j for j in range(n) if labels[j] != labels[i]] for i in range(n)]


# --- labels -------------------------------------------------------------------------------------------------------------


def supcon(x: np.ndarray, labels: np.ndarray, temperature: float = 0.1, **how: Any) -> Any:
    s = scores(x, x, **how) / temperature
    n = len(x)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i, positive in enumerate(groups(labels)[0]):
        if positive:
            total = log_sum([s[i, k] for k in range(n) if k != i])
            values[i], active[i] = np.mean([total - s[i, j] for j in positive]), True
    return values, active


def nt_xent(x: np.ndarray, labels: np.ndarray, temperature: float = 0.1, keep_positives: bool = False, **how: Any) -> Any:
    s = scores(x, x, **how) / temperature
    values, terms = np.zeros(len(x)), np.zeros(len(x))
    for i, (positive, negative) in enumerate(zip(*groups(labels), strict=True)):
        for j in positive:
            candidates = [*positive, *negative] if keep_positives else [j, *negative]
            values[i] += log_sum([s[i, k] for k in candidates]) - s[i, j]
        terms[i] = len(positive)
    return values, terms > 0, terms


def soft_nearest_neighbors(x: np.ndarray, labels: np.ndarray, temperature: float = 1.0, similarity: str | None = None) -> Any:
    n = len(x)
    if similarity is None:
        s = np.array([[-float(((p - q) ** 2).sum()) for q in x] for p in x]).reshape(n, n) / temperature
    else:
        s = scores(x, x, similarity) / temperature
    values, active = np.zeros(n), np.zeros(n, bool)
    for i, positive in enumerate(groups(labels)[0]):
        if positive:
            values[i] = log_sum([s[i, k] for k in range(n) if k != i]) - log_sum([s[i, j] for j in positive])
            active[i] = True
    return values, active


def nca(x: np.ndarray, labels: np.ndarray, log: bool = True) -> Any:
    values, active = soft_nearest_neighbors(x, labels)
    return values if log else np.where(active, -np.exp(-values), 0), active


# --- two views ----------------------------------------------------------------------------------------------------------


@inputs("views")
def views(rng: np.random.Generator) -> Case:
    """Row i of y belongs to row i of x."""
    return Case({"x": rng.normal(size=(9, 4)), "y": rng.normal(size=(9, 4))})


def _rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _view_edges(name: str = "y") -> dict[str, Any]:
    doubled = np.repeat(_rows(5, 3, 4), 2, axis=0)

    def of(x: np.ndarray, y: np.ndarray) -> Any:
        return lambda: Case({"x": x, name: y})

    return {
        "one row": of(_rows(1, 1, 4), _rows(2, 1, 4)),
        "no rows": of(np.zeros((0, 4)), np.zeros((0, 4))),
        "equal rows": of(np.ones((5, 4)), np.ones((5, 4))),
        "zero vectors": of(np.zeros((5, 4)), np.zeros((5, 4))),
        "one zero vector": of(np.concatenate([np.zeros((1, 4)), _rows(3, 4, 4)]), _rows(4, 5, 4)),
        "the same view": of(_rows(6, 5, 4), _rows(6, 5, 4)),
        "opposite views": of(_rows(6, 5, 4), -_rows(6, 5, 4)),
        "duplicates": of(doubled, doubled[::-1].copy()),
        "tiny": of(_rows(7, 5, 4) * 1e-30, _rows(8, 5, 4) * 1e-30),
        "huge": of(_rows(9, 5, 4) * 1e30, _rows(10, 5, 4) * 1e30),
    }


def info_nce(
    x: np.ndarray,
    y: np.ndarray,
    temperature: float = 0.1,
    symmetric: bool = False,
    negatives: np.ndarray | None = None,
    negatives_mask: np.ndarray | None = None,
    in_batch: bool = True,
    **how: Any,
) -> Any:
    m = len(x)
    values = np.zeros(m)
    for i in range(m):
        s = scores(x[i : i + 1], y, **how)[0] / temperature
        candidates = list(s) if in_batch else [s[i]]
        if negatives is not None:
            own = negatives if np.ndim(negatives) == 2 else negatives[i]
            valid = (
                np.ones(len(own), bool) if negatives_mask is None else negatives_mask if np.ndim(negatives_mask) == 1 else negatives_mask[i]
            )
            candidates += list(scores(x[i : i + 1], np.asarray(own, float)[valid], **how)[0] / temperature)
        values[i] = log_sum(candidates) - s[i]
    if symmetric:
        values = (values + info_nce(y, x, temperature, False, negatives, negatives_mask, in_batch, **how)[0]) / 2
    return values, np.ones(m, bool)


def n_pair(x: np.ndarray, y: np.ndarray) -> Any:
    return info_nce(x, y, 1.0, similarity="dot")


def clip(x: np.ndarray, y: np.ndarray, temperature: float = 0.07, logit_scale: float | None = None, **how: Any) -> Any:
    return info_nce(x, y, temperature if logit_scale is None else 1 / logit_scale, True, **how)


def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def siglip(x: np.ndarray, y: np.ndarray, scale: float = 10.0, bias: float = -10.0, **how: Any) -> Any:
    z = scale * scores(x, y, **how) + bias
    m = len(x)
    return np.array([sum(softplus(-z[i, j] if i == j else z[i, j]) for j in range(m)) for i in range(m)]), np.ones(m, bool)


def _two_views(x: np.ndarray, y: np.ndarray, **how: Any) -> tuple[np.ndarray, list[int], list[list[int]]]:
    """Similarities of all rows, each one's other view, and the rows of other samples."""
    z, m = np.concatenate([x, y]), len(x)
    partner = [(i + m) % (2 * m) for i in range(2 * m)]
    return scores(z, z, **how), partner, [[k for k in range(2 * m) if k not in (i, partner[i])] for i in range(2 * m)]


def nt_xent_views(x: np.ndarray, y: np.ndarray, temperature: float = 0.1, **how: Any) -> Any:
    s, partner, rest = _two_views(x, y, **how)
    s = s / temperature
    values = [log_sum([s[i, partner[i]], *(s[i, k] for k in rest[i])]) - s[i, partner[i]] for i in range(len(s))]
    return np.array(values), np.ones(len(s), bool)


def decoupled(x: np.ndarray, y: np.ndarray, temperature: float = 0.1, **how: Any) -> Any:
    s, partner, rest = _two_views(x, y, **how)
    s = s / temperature
    active = np.array([bool(r) for r in rest], bool)
    return np.array([log_sum([s[i, k] for k in rest[i]]) - s[i, partner[i]] if rest[i] else 0.0 for i in range(len(s))]), active


def debiased_info_nce(
    x: np.ndarray,
    y: np.ndarray,
    positive_prior: float = 0.1,
    hardness: float = 0.0,
    temperature: float = 0.5,
    positives: np.ndarray | None = None,
) -> Any:
    s, partner, rest = _two_views(x, y)
    z, m = np.concatenate([x, y]), len(x)
    values = np.zeros(len(s))
    for i in range(len(s)):
        if not rest[i]:
            continue
        positive, others = s[i, partner[i]] / temperature, np.array([s[i, k] for k in rest[i]])
        known = [positive]
        if positives is not None:
            known += [v / temperature for v in scores(z[i : i + 1], np.asarray(positives[i % m], float))[0]]
        # All in shares of the largest exponential, since they overflow at small temperatures.
        top = max(*known, *(others / temperature), -1 / temperature)
        importance = np.exp(hardness * others)
        importance /= importance.mean()
        unlabelled = np.mean(importance * np.exp(others / temperature - top))
        g = max(
            (unlabelled - positive_prior * np.mean(np.exp(np.array(known) - top))) / (1 - positive_prior), math.exp(-1 / temperature - top)
        )
        values[i] = math.log(math.exp(positive - top) + len(rest[i]) * g) + top - positive
    return values, np.ones(len(s), bool)


# --- masks, noise, classes ----------------------------------------------------------------------------------------------


@inputs("positives")
def positives(rng: np.random.Generator) -> Case:
    """Several positives for some anchors, none for one."""
    mask = rng.random((11, 11)) < 0.3
    mask[4] = False
    return Case({"x": rng.normal(size=(11, 4))}, {"positives": mask})


def multi_positive(x: np.ndarray, positives: np.ndarray, temperature: float = 0.1, average: str = "inside", **how: Any) -> Any:
    s = scores(x, x, **how) / temperature
    n = len(x)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        mine = [s[i, j] for j in range(n) if j != i and positives[i, j]]
        if mine:
            active[i], total = True, log_sum([s[i, k] for k in range(n) if k != i])
            values[i] = total - (log_sum(mine) if average == "inside" else np.mean(mine))
    return values, active


def _mask_edges() -> dict[str, Any]:
    def of(x: np.ndarray, mask: np.ndarray) -> Any:
        return lambda: Case({"x": x}, {"positives": mask})

    some = np.random.default_rng(1).random((6, 6)) < 0.5
    return {
        "no positives": of(_rows(1, 6, 4), np.zeros((6, 6), bool)),
        "no negatives": of(_rows(2, 6, 4), np.ones((6, 6), bool)),
        "one row": of(_rows(3, 1, 4), np.ones((1, 1), bool)),
        "no rows": of(np.zeros((0, 4)), np.zeros((0, 0), bool)),
        "equal rows": of(np.ones((6, 4)), some),
        "zero vectors": of(np.zeros((6, 4)), some),
        "tiny": of(_rows(4, 6, 4) * 1e-30, some),
        "huge": of(_rows(5, 6, 4) * 1e30, some),
    }


@inputs("noise")
def noise(rng: np.random.Generator) -> Case:
    """Log densities of the model and of the noise, at the data and at noise samples."""
    shapes = {"x": (7,), "noise": (7, 3), "x_log_noise": (7,), "noise_log_noise": (7, 3)}
    return Case({k: rng.normal(size=shape) for k, shape in shapes.items()})


def nce(x: np.ndarray, noise: np.ndarray, x_log_noise: np.ndarray, noise_log_noise: np.ndarray) -> Any:
    k = noise.shape[1]
    values = []
    for i in range(len(x)):
        datum = x[i] - x_log_noise[i] - math.log(max(k, 1))
        rest = sum(softplus(noise[i, j] - noise_log_noise[i, j] - math.log(k)) for j in range(k))
        values.append(softplus(-datum) + rest)
    return np.array(values), np.ones(len(x), bool)


def _noise_edges() -> dict[str, Any]:
    def of(m: int, k: int, size: float) -> Any:
        return lambda: Case(
            {key: size * _rows(s, *((m,) if s % 2 else (m, k))) for s, key in enumerate(("noise", "x", "noise_log_noise", "x_log_noise"))}
        )

    return {"no rows": of(0, 2, 1), "no samples": of(3, 0, 1), "one row": of(1, 1, 1), "tiny": of(4, 2, 1e-30), "huge": of(4, 2, 1e30)}


@inputs("classes")
def classes(rng: np.random.Generator) -> Case:
    """Features, the last layer of a classifier, and labels of which one is ignored."""
    arrays = {"features": rng.normal(size=(8, 3)), "weight": rng.normal(size=(37, 3)), "bias": rng.normal(size=37)}
    return Case(arrays, {"labels": np.array([0, 5, -100, 36, 5, 11, 2, 7])})


def linear_cross_entropy(
    features: np.ndarray,
    weight: np.ndarray,
    labels: np.ndarray,
    bias: np.ndarray | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
    ignore_index: int = -100,
) -> Any:
    m, n = len(features), len(weight)
    w = np.ones(n) if class_weights is None else np.asarray(class_weights, float)
    values, terms, active = np.zeros(m), np.zeros(m), np.asarray(labels) != ignore_index
    for i in range(m):
        if not active[i]:
            continue
        z = [scale * float((features[i] * weight[c]).sum()) + (0.0 if bias is None else bias[c]) for c in range(n)]
        if soft_cap is not None:
            z = [soft_cap * math.tanh(v / soft_cap) for v in z]
        total, y = log_sum(z), int(labels[i])
        target = [(1 - label_smoothing) * (c == y) + label_smoothing / n for c in range(n)]
        values[i], terms[i] = sum(target[c] * w[c] * (total - z[c]) for c in range(n)), w[y]
    return values, active, terms


def _class_edges() -> dict[str, Any]:
    def of(x: np.ndarray, w: np.ndarray, labels: list[int]) -> Any:
        return lambda: Case({"features": x, "weight": w}, {"labels": np.array(labels, int)})

    return {
        "all ignored": of(_rows(1, 3, 4), _rows(2, 5, 4), [-100] * 3),
        "one row": of(_rows(1, 1, 4), _rows(2, 5, 4), [3]),
        "one class": of(_rows(1, 3, 4), _rows(2, 1, 4), [0, 0, 0]),
        "no rows": of(np.zeros((0, 4)), _rows(2, 5, 4), []),
        "zero vectors": of(np.zeros((3, 4)), np.zeros((5, 4)), [0, 1, 2]),
        "equal rows": of(np.ones((3, 4)), np.ones((5, 4)), [0, 1, 2]),
        "large logits": of(_rows(1, 3, 4) * 1e3, _rows(2, 5, 4) * 1e3, [0, 1, 2]),
        "tiny": of(_rows(1, 3, 4) * 1e-30, _rows(2, 5, 4) * 1e-30, [0, 1, 2]),
    }


REFERENCES = {
    f.__name__: f
    for f in (
        supcon,
        nt_xent,
        soft_nearest_neighbors,
        nca,
        info_nce,
        n_pair,
        clip,
        siglip,
        decoupled,
        debiased_info_nce,
        multi_positive,
        nce,
        linear_cross_entropy,
    )
}
_OTHER = [{}, {"temperature": 1.0, "similarity": "dot"}, {"temperature": 0.5, "metric": "euclidean"}]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "supcon": _OTHER,
    "nt_xent": [*_OTHER, {"keep_positives": True}],
    "soft_nearest_neighbors": [{}, {"temperature": 0.3}, {"similarity": "cosine"}],
    "nca": [{}, {"log": False}],
    "info_nce": [
        *_OTHER,
        {"symmetric": True},
    ],
    "clip": [{}, {"logit_scale": 3.0}],
    "siglip": [{}, {"scale": 2.0, "bias": 0.5, "similarity": "dot"}],
    "decoupled": _OTHER,
    "debiased_info_nce": [{}, {"positive_prior": 0.3, "hardness": 1.5, "temperature": 0.2}],
    "multi_positive": [{}, {"average": "outside", "temperature": 1.0}],
    "linear_cross_entropy": [
        {},
        {"label_smoothing": 0.1, "scale": 3.0},
        {"label_smoothing": 0.2, "class_weights": np.linspace(0.5, 2, 37)},
        {"class_weights": np.linspace(0.5, 2, 37), "soft_cap": 2.0},
    ],
}
EDGES = {
    "views": _view_edges(),
    "positives": _mask_edges(),
    "noise": _noise_edges(),
    "classes": _class_edges(),
}
