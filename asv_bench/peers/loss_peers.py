"""Who computes the same loss, forward and backward on PyTorch tensors, and how each is called: ``LOSS_IMPLEMENTATIONS``.

"direct" is the formula as people write it, with the whole matrix; "pytorch-metric-learning" is that library as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
D = 128


@dataclass(frozen=True)
class LossCase:
    """One row of the table of losses."""

    loss: str
    batch: int
    each: int = 4
    """Rows of a class."""
    classes: int = 0
    """Rows of a second array: the weights of a classifier."""
    quick: bool = True
    """In the bounded default; the rest needs ``--full``."""
    peers: tuple[str, ...] = ("direct", "pytorch-metric-learning")

    @property
    def name(self) -> str:
        """For people and for JSON."""
        more = f", {self.classes} classes" if self.classes else "" if self.loss in VIEWS else f", {self.batch // self.each} classes"
        return f"{self.loss} B={self.batch}{more}"

    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of length 1, a second view of them (or the classifier's weights), and labels."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.batch, D))
        y = rng.normal(size=(self.classes, D)) if self.classes else x + rng.normal(size=x.shape)
        labels = rng.integers(self.classes, size=self.batch) if self.classes else np.arange(self.batch) % (self.batch // self.each)
        return *((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (x, y)), labels.astype(np.int64)


VIEWS = ("info_nce", "siglip")
"""Losses of two views, row by row."""
PML = ("contrastive", "multi_similarity", "soft_nearest_neighbors", "supcon", "circle", "triplet_batch_all")
OWN: tuple[str, ...] = ()
LOSS_CASES = [
    *(LossCase(loss, b, peers=("direct",)) for loss in ("info_nce", "supcon") for b in (4096, 16384)),
    LossCase("siglip", 8192, peers=("direct",)),
    LossCase("linear_cross_entropy", 1024, classes=100_000, peers=("direct",)),
    LossCase("triplet_batch_all", 512, each=8, peers=("direct", "pytorch-metric-learning")),
    LossCase("triplet_batch_all", 2048, each=32, peers=OWN),
    *(LossCase(loss, 512) for loss in PML),
    *(LossCase(loss, 2048) for loss in PML if loss != "triplet_batch_all"),
    *(LossCase(loss, 256) for loss in ("nt_xent", "lifted_structure")),
    *(LossCase(loss, 512, quick=False) for loss in ("nt_xent", "lifted_structure")),
    LossCase("triplet_batch_all", 2048, each=32, quick=False, peers=("direct",)),  # lists 128 million triplets: a minute, 12 GB
    *(LossCase(loss, 8192, peers=OWN) for loss in (*PML, "nt_xent", "lifted_structure")),
]


def _pull(loss: Callable[..., Any], *arrays: np.ndarray) -> Call:
    """Forward and backward to every array."""
    import torch

    leaves = [torch.from_numpy(v).requires_grad_() for v in arrays]
    return lambda: torch.autograd.grad(loss(*leaves), leaves)


def pairx(case: LossCase, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> Call:
    """Ours, each loss as it comes."""
    import torch

    from pairx import losses

    function, told = getattr(losses, case.loss), torch.from_numpy(labels)
    if case.loss in VIEWS:
        return _pull(function, x, y)
    if case.classes:
        return _pull(lambda a, w: function(a, w, told), x, y)
    return _pull(lambda a: function(a, told), x)


def direct(case: LossCase, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> Call | None:
    """The formula as people write it in PyTorch."""
    import torch
    from torch.nn import functional

    told = torch.from_numpy(labels)
    numbers = torch.arange(case.batch)

    def info_nce(a: Any, b: Any) -> Any:
        return functional.cross_entropy(functional.normalize(a) @ functional.normalize(b).T / 0.1, numbers)

    def siglip(a: Any, b: Any) -> Any:
        logits = 10.0 * functional.normalize(a) @ functional.normalize(b).T - 10.0
        return -functional.logsigmoid(logits * (2 * torch.eye(len(a)) - 1)).sum(1).mean()

    def supcon(a: Any) -> Any:
        a = functional.normalize(a)
        alone = torch.eye(len(a), dtype=torch.bool)
        logits = (a @ a.T / 0.1).masked_fill(alone, -torch.inf)
        positive = (told[:, None] == told) & ~alone
        log_p = logits - logits.logsumexp(1, keepdim=True)
        return -(log_p.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()

    def triplet_batch_all(a: Any) -> Any:
        d = torch.cdist(a, a)
        same = told[:, None] == told
        i, j, k = torch.where((same & ~torch.eye(len(a), dtype=torch.bool))[:, :, None] & ~same[:, None])  # every triplet, listed
        value = functional.relu(d[i, j] - d[i, k] + 0.2)
        return value.sum() / (value > 0).sum()

    def linear_cross_entropy(a: Any, w: Any) -> Any:
        return functional.cross_entropy(a @ w.T, told)

    found = {"info_nce": info_nce, "siglip": siglip, "supcon": supcon, "triplet_batch_all": triplet_batch_all,
             "linear_cross_entropy": linear_cross_entropy}.get(case.loss)  # fmt: skip
    if found is None:
        return None
    return _pull(found, x, y) if case.loss in VIEWS or case.classes else _pull(found, x)


def metric_learning(case: LossCase, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> Call | None:
    """pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning import distances, losses

    plain = distances.LpDistance(normalize_embeddings=False)
    made = {
        "contrastive": lambda: losses.ContrastiveLoss(distance=plain),
        "multi_similarity": losses.MultiSimilarityLoss,
        "soft_nearest_neighbors": lambda: losses.NCALoss(distance=distances.LpDistance(normalize_embeddings=False, power=2)),
        "supcon": losses.SupConLoss,
        "circle": losses.CircleLoss,
        "triplet_batch_all": lambda: losses.TripletMarginLoss(margin=0.2, distance=plain),
        "nt_xent": lambda: losses.NTXentLoss(temperature=0.1),
        "lifted_structure": lambda: losses.LiftedStructureLoss(distance=plain),
    }.get(case.loss)
    if made is None:
        return None
    loss, told = made(), torch.from_numpy(labels)
    return _pull(lambda a: loss(a, told), x)


LOSS_IMPLEMENTATIONS: dict[str, Callable[..., Call | None]] = {
    "pairx": pairx, "direct": direct, "pytorch-metric-learning": metric_learning,
}  # fmt: skip
