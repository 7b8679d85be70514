"""The data of the examples: UCI's handwritten digits, and recall@1 on rows that were not trained on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import pairx

SIZES = (64, 32, 3)
"""Pixels, hidden units, and so few features in the embedding that an untrained one is poor."""


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, then those to test on."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def batches(rows: int, epochs: int, size: int = 200) -> Any:
    """Row numbers of each training step."""
    rng = np.random.default_rng(1)
    for _ in range(epochs):
        order = rng.permutation(rows)
        yield from (order[i : i + size] for i in range(0, rows, size))


def weights(seed: int = 0) -> list[np.ndarray]:
    """First weights of a net with one hidden layer, the same for every framework."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=s) * np.sqrt(2 / s[0])).astype("float32") for s in pairwise(SIZES)]


def recall_at_1(embeddings: Any, labels: np.ndarray) -> float:
    """How often a row's nearest other row has its label."""
    d = pairx.cdist(np.asarray(embeddings), metric="cosine")
    np.fill_diagonal(d, np.inf)
    return float(np.mean(labels[d.argmin(axis=1)] == labels))
