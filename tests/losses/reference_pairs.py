"""Losses of pairs in float64, pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from loss_cases import Case


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    u, v = (w / np.abs(w).max() if np.abs(w).max(initial=0) > 0 else w for w in (u, v))
    norms = np.sqrt(u @ u) * np.sqrt(v @ v)
    return float(u @ v / norms) if norms > 0 else 0.0


def apart(u: np.ndarray, v: np.ndarray, metric: str | None, similarity: str | None) -> float:
    if similarity is not None:
        return 1 - cosine(u, v) if similarity == "cosine" else -float(u @ v)
    d = u - v
    if metric in ("euclidean", None):
        top = np.abs(d).max(initial=0)
        return float(top * np.sqrt(((d / top) ** 2).sum())) if top > 0 else 0.0
    return {"cityblock": np.abs(d).sum(), "sqeuclidean": (d * d).sum(), "cosine": 1 - cosine(u, v)}[metric]


def alike(u: np.ndarray, v: np.ndarray, metric: str | None, similarity: str | None) -> float:
    if metric is not None:
        return -apart(u, v, metric, None)
    return float(u @ v) if similarity == "dot" else cosine(u, v)


def snr(u: np.ndarray, v: np.ndarray) -> float:
    if np.all(u == u[0]):
        return 0.0
    scale = np.abs(u - u.mean()).max()
    return float(np.var((u - v) / scale) / np.var(u / scale))


def belongs(labels: np.ndarray, i: int, j: int) -> bool:
    return (
        bool(np.any((labels[i] != 0) & (labels[j] != 0)))
        if np.ndim(labels) == 2 and labels.shape[1] > 1
        else bool(np.all(labels[i] == labels[j]))
    )


def related(n: int, labels: Any, positives: Any, negatives: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks of positives and negatives, from labels or from lists of indices."""
    positive, negative = np.zeros((n, n), bool), np.zeros((n, n), bool)
    if positives is None:
        for i in range(n):
            for j in range(n):
                if i != j:
                    (positive if belongs(labels, i, j) else negative)[i, j] = True
    for mask, given in ((positive, positives), (negative, negatives)):
        if isinstance(given, tuple):
            for i, j in zip(*given, strict=True):
                mask[i, j] = True
        elif given is not None:
            mask |= given != 0
    return positive & ~np.eye(n, dtype=bool), negative & ~np.eye(n, dtype=bool)


def over_pairs(x, distance, near, far, *, labels=None, same=None, pairs=None, positives=None, negatives=None, nonzero, once, extra=None):
    """(values, active, number of pairs of each unit)."""
    n = len(x)
    extra = extra or (lambda i: 0.0)
    if isinstance(positives, tuple) and isinstance(negatives, tuple):
        pairs = tuple(np.concatenate([p, q]) for p, q in zip(positives, negatives, strict=True))
        same = np.array([1] * len(positives[0]) + [0] * len(negatives[0]))
    if pairs is not None:
        values, active = [], []
        for k, (i, j) in enumerate(zip(*pairs, strict=True)):
            w = float(np.reshape(same, -1)[k]) if same is not None else float(belongs(labels, i, j))
            d = distance(i, j)
            v = (w * near(d, i) if w > 0 else 0) + ((1 - w) * far(d, i) if w < 1 else 0)
            values.append(v + extra(i))
            active.append(v > 0 or not nonzero)
        return np.array(values), np.array(active, bool), np.ones(len(values))
    values, count = np.zeros(n), np.zeros(n)
    if same is None:
        positive, negative = related(n, labels, positives, negatives)
        share, used = positive * 1.0, positive | negative
    else:
        share, used = np.asarray(same, float), ~np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            if used[i, j]:
                w, d = share[i, j], distance(i, j)
                v = (w * near(d, i) if w > 0 else 0) + ((1 - w) * far(d, i) if w < 1 else 0)
                if v > 0 or not nonzero:
                    values[i] += v + extra(i)
                    count[i] += 1
    half = 0.5 if once and positives is None else 1.0
    return values * half, count > 0, count * half


def contrastive(
    x, labels=None, margin=1.0, positive_margin=0.0, hinge_on="distance", squared=True, half=False, metric=None, similarity=None, **who
):
    power, share = 2 if squared else 1, 0.5 if half else 1.0

    def far(d, i):
        return share * (max(0.0, margin - d * d) if hinge_on == "squared" else max(0.0, margin - d) ** power)

    return over_pairs(
        x,
        lambda i, j: apart(x[i], x[j], metric, similarity),
        lambda d, i: share * np.float64(max(0.0, d - positive_margin)) ** power,
        far,
        labels=labels,
        nonzero=False,
        once=True,
        **who,
    )


def signal_to_noise(x, labels=None, margin=1.0, positive_margin=0.0, **who):
    return over_pairs(
        x,
        lambda i, j: snr(x[i], x[j]),
        lambda d, i: max(0.0, d - positive_margin),
        lambda d, i: max(0.0, margin - d),
        labels=labels,
        nonzero=False,
        once=False,
        **who,
    )


def margin(x, labels=None, margin=0.2, beta=1.2, beta_per="anchor", nu=0.0, over="active", metric=None, similarity=None, **who):
    def boundary(i):
        return beta if np.ndim(beta) == 0 else beta[labels[i]] if beta_per == "class" else beta[i]

    return over_pairs(
        x,
        lambda i, j: apart(x[i], x[j], metric, similarity),
        lambda d, i: max(0.0, margin + d - boundary(i)),
        lambda d, i: max(0.0, margin - d + boundary(i)),
        labels=labels,
        nonzero=over == "active",
        once=False,
        extra=lambda i: nu * boundary(i),
        **who,
    )


def cosine_embedding(x, y, target, margin=0.0):
    z = np.reshape(np.asarray(target, float), -1)
    values = [1 - cosine(u, v) if t == 1 else max(0.0, cosine(u, v) - margin) for u, v, t in zip(x, y, z, strict=True)]
    return np.array(values), np.ones(len(values), bool)


def log_sum(values: list[float]) -> float:
    top = max(values)
    return float(top + np.log(np.sum(np.exp(np.array(values) - top))))


def multi_similarity(x, labels=None, alpha=2.0, beta=50.0, base=0.5, metric=None, similarity=None, positives=None, negatives=None):
    n = len(x)
    positive, negative = related(n, labels, positives, negatives)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        s = [alike(x[i], x[j], metric, similarity) for j in range(n)]
        values[i] = log_sum([0.0] + [-alpha * (s[j] - base) for j in range(n) if positive[i, j]]) / alpha
        values[i] += log_sum([0.0] + [beta * (s[j] - base) for j in range(n) if negative[i, j]]) / beta
        active[i] = positive[i].any() or negative[i].any()
    return values, active


def circle(x, labels=None, margin=0.4, gamma=80.0, similarity=None, positives=None, negatives=None, at=None):
    """``at``: where the weights are taken; they are constants of the gradient."""
    n = len(x)
    at = x if at is None else at
    positive, negative = related(n, labels, positives, negatives)
    values, active = np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        near, far = [], []
        for j in range(n):
            s, still = alike(x[i], x[j], None, similarity), alike(at[i], at[j], None, similarity)
            if positive[i, j]:
                near.append(-gamma * max(0.0, 1 + margin - still) * (s - (1 - margin)))
            if negative[i, j]:
                far.append(gamma * max(0.0, still + margin) * (s - margin))
        if near and far:
            values[i], active[i] = log_sum([0.0, log_sum(near) + log_sum(far)]), True
    return values, active


def lifted_structure(x, labels=None, margin=1.0, hard=False, metric=None, similarity=None, positives=None, negatives=None):
    n = len(x)
    positive, negative = related(n, labels, positives, negatives)
    d = [[apart(x[i], x[j], metric, similarity) for j in range(n)] for i in range(n)]
    values, count = np.zeros(n), np.zeros(n)
    for i in range(n):
        for j in range(n):
            if positive[i, j]:
                against = [margin - d[i][k] for k in range(n) if negative[i, k]] + [margin - d[j][k] for k in range(n) if negative[j, k]]
                if against:
                    values[i] += np.float64(max(0.0, d[i][j] + (max(against) if hard else log_sum(against)))) ** 2 / 2
                count[i] += 1
    half = 0.5 if positives is None else 1.0
    return values * half, count > 0, count * half


def generalized_lifted_structure(x, labels=None, margin=1.0, metric=None, similarity=None, positives=None, negatives=None):
    n = len(x)
    positive, negative = related(n, labels, positives, negatives)
    values = np.zeros(n)
    for i in range(n):
        d = [apart(x[i], x[j], metric, similarity) for j in range(n)]
        if positive[i].any() and negative[i].any():
            near, far = (
                log_sum([v for v, m in zip(z, mask, strict=True) if m])
                for z, mask in ((d, positive[i]), ([margin - v for v in d], negative[i]))
            )
            values[i] = max(0.0, near + far)
    return values, positive.any(axis=1)


def masked_cosine(x, mask, margin=0.0):
    batch = len(x)
    rows, inside = x.reshape(batch, int(np.prod(x.shape[1:-1])), x.shape[-1]), np.reshape(mask, (batch, int(np.prod(x.shape[1:-1])))) != 0
    values, active = np.zeros(batch), np.zeros(batch, bool)
    for b in range(batch):
        near, far = [], []
        for i in range(rows.shape[1]):
            for j in range(rows.shape[1]):
                if i != j and inside[b, i] and inside[b, j]:
                    near.append(1 - cosine(rows[b, i], rows[b, j]))
                elif inside[b, i] != inside[b, j]:
                    far.append(max(0.0, cosine(rows[b, i], rows[b, j]) - margin))
        values[b] = (np.mean(near) if near else 0) + (np.mean(far) if far else 0)
        active[b] = bool(near or far)
    return values, active


REFERENCES = {
    "contrastive": contrastive,
    "signal_to_noise": signal_to_noise,
    "margin": margin,
    "cosine_embedding": cosine_embedding,
    "multi_similarity": multi_similarity,
    "circle": circle,
    "lifted_structure": lifted_structure,
    "generalized_lifted_structure": generalized_lifted_structure,
    "masked_cosine": masked_cosine,
}

CONSTANTS = {"circle": lambda case: {"at": case.arrays["x"]}}
"""What a loss takes as constant in its gradient, for the reference."""

# As INPUTS["labels"], said in other words: pairs, some of them twice; lists; shares.
_I, _J = np.array([0, 0, 4, 7, 12, 3, 3, 5]), np.array([1, 3, 0, 7, 5, 0, 0, 11])
_SAME = np.array([0, 1, 0, 1, 1, 1, 0, 0])
_LISTS = {"labels": None, "positives": (_I[:4], _J[:4]), "negatives": (_I[3:], _J[3:])}
_W = np.random.default_rng(8).uniform(0, 1, (13, 13)) * np.random.default_rng(9).integers(0, 2, (13, 13))
_MASKS = {
    "labels": None,
    "positives": np.random.default_rng(1).uniform(size=(13, 13)) < 0.3,
    "negatives": np.random.default_rng(2).uniform(size=(13, 13)) < 0.3,
}
_ROWS_OF_LISTS = {"labels": None, "positives": (_I[:4], _J[:4]), "negatives": (np.array([0, 4, 4, 3]), np.array([7, 5, 2, 3]))}
_SEVERAL = np.random.default_rng(3).integers(0, 2, (13, 4))

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "contrastive": [
        {},
        {"hinge_on": "squared", "margin": 3.0, "half": True},
        {"squared": False, "metric": "cityblock", "margin": 4.0},
        {"squared": False, "hinge_on": "squared", "margin": 7.0, "positive_margin": 0.5},
        {"similarity": "cosine", "margin": 0.8, "positive_margin": 0.3},
        {"labels": None, "pairs": (_I, _J), "same": _SAME, "margin": 3.0},
        {"labels": None, "pairs": (_I, _J), "same": _SAME[:, None] * 0.7, "similarity": "dot", "margin": 3.0},
        {"pairs": (_I, _J), "margin": 3.0},
        {**_LISTS, "margin": 3.0},
        {**_MASKS, "margin": 3.0},
        {"labels": _SEVERAL, "margin": 3.0},
        {"labels": None, "same": _W, "margin": 3.0},
    ],
    "signal_to_noise": [
        {},
        {"margin": 2.5, "positive_margin": 0.2},
        {"labels": None, "pairs": (_I, _J), "same": _SAME, "margin": 3.0},
        {"labels": None, "same": _W, "margin": 3.0},
    ],
    "margin": [
        {},
        {"over": "all", "nu": 0.5, "beta": 2.0},
        {"beta": np.linspace(1, 4, 13), "nu": 0.3},
        {"beta": np.linspace(1, 4, 5), "beta_per": "class", "nu": 0.3, "metric": "cityblock"},
        {**_LISTS, "beta": np.linspace(1, 4, 13), "nu": 0.3},
        {"pairs": (_I, _J), "beta": np.linspace(1, 4, 5), "beta_per": "class", "similarity": "cosine"},
    ],
    "cosine_embedding": [{}, {"margin": 0.3}],
    "multi_similarity": [
        {},
        {"alpha": 1.5, "beta": 4.0, "base": 0.1, "similarity": "dot"},
        {"metric": "euclidean", "beta": 3.0, "base": -2.0},
        {**_ROWS_OF_LISTS, "beta": 3.0},
    ],
    "circle": [{}, {"margin": 0.25, "gamma": 6.0}, {**_ROWS_OF_LISTS, "gamma": 3.0}],
    "lifted_structure": [
        {},
        {"hard": True, "margin": 2.0},
        {"similarity": "cosine"},
        {"hard": True, "metric": "cityblock", "margin": 4.0},
        {**_MASKS, "margin": 2.0},
    ],
    "generalized_lifted_structure": [{}, {"margin": 3.0, "similarity": "dot"}, {**_MASKS, "margin": 2.0}],
    "masked_cosine": [{}, {"margin": 0.2}],
}


def _target(rng: np.random.Generator) -> Case:
    return Case({"x": rng.normal(size=(9, 4)), "y": rng.normal(size=(9, 4))}, {"target": np.array([1, -1, 1, 1, -1, -1, 1, -1, -1])})


def _grid(rng: np.random.Generator) -> Case:
    mask = np.zeros((4, 2, 3, 2, 1), np.uint8)
    mask[0, 0], mask[1, :, 1], mask[2] = 1, 1, 1  # the last has nothing inside, the one before nothing outside
    return Case({"x": rng.normal(size=(4, 2, 3, 2, 5))}, {"mask": mask})


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


_Z = np.array([1, 1, -1, -1, 1, -1])
_MASK = np.array([[1, 1, 0, 0], [1, 0, 0, 1]])[:, :, None]
INPUTS = {"rows and target": _target, "grid and mask": _grid}
EDGES = {
    "rows and target": {
        "one class": lambda: Case({"x": _normal(1, 6, 4), "y": _normal(2, 6, 4)}, {"target": np.ones(6, int)}),
        "no positives": lambda: Case({"x": _normal(1, 6, 4), "y": _normal(2, 6, 4)}, {"target": np.zeros(6, bool)}),
        "one row": lambda: Case({"x": _normal(1, 1, 4), "y": _normal(2, 1, 4)}, {"target": np.ones(1, int)}),
        "no rows": lambda: Case({"x": np.zeros((0, 4)), "y": np.zeros((0, 4))}, {"target": np.zeros(0, int)}),
        "equal rows": lambda: Case({"x": _normal(1, 6, 4), "y": _normal(1, 6, 4)}, {"target": _Z}),
        "opposite rows": lambda: Case({"x": _normal(1, 6, 4), "y": -_normal(1, 6, 4)}, {"target": _Z}),
        "zero vectors": lambda: Case({"x": np.zeros((6, 4)), "y": np.zeros((6, 4))}, {"target": _Z}),
        "one zero vector": lambda: Case({"x": np.zeros((6, 4)), "y": _normal(2, 6, 4)}, {"target": _Z}),
        "tiny": lambda: Case({"x": _normal(1, 6, 4) * 1e-30, "y": _normal(2, 6, 4)}, {"target": _Z}),
        "huge": lambda: Case({"x": _normal(1, 6, 4) * 1e30, "y": _normal(2, 6, 4) * 1e30}, {"target": _Z}),
    },
    "grid and mask": {
        "no positives": lambda: Case({"x": _normal(1, 2, 4, 3)}, {"mask": np.zeros((2, 4, 1), bool)}),
        "one class": lambda: Case({"x": _normal(2, 2, 4, 3)}, {"mask": np.ones((2, 4, 1), bool)}),
        "one row": lambda: Case({"x": _normal(3, 2, 1, 3)}, {"mask": np.ones((2, 1, 1), bool)}),
        "no rows": lambda: Case({"x": np.zeros((2, 0, 3))}, {"mask": np.zeros((2, 0, 1), bool)}),
        "no items": lambda: Case({"x": np.zeros((0, 4, 3))}, {"mask": np.zeros((0, 4, 1), bool)}),
        "equal rows": lambda: Case({"x": np.ones((2, 4, 3))}, {"mask": _MASK}),
        "opposite rows": lambda: Case({"x": np.array([1.0, -1, 1, -1])[None, :, None] * np.ones((2, 4, 3))}, {"mask": _MASK}),
        "zero vectors": lambda: Case({"x": np.zeros((2, 4, 3))}, {"mask": _MASK}),
        "one zero vector": lambda: Case({"x": np.concatenate([np.zeros((2, 1, 3)), _normal(4, 2, 3, 3)], axis=1)}, {"mask": _MASK}),
        "tiny": lambda: Case({"x": _normal(6, 2, 4, 3) * 1e-30}, {"mask": _MASK}),
        "huge": lambda: Case({"x": _normal(7, 2, 4, 3) * 1e30}, {"mask": _MASK}),
    },
}
