"""Losses: plain functions on plain arrays, the same numbers and gradients in every library.

``pairx.losses.LOSSES`` is the table of them: family, formula, unit, denominator, source.
"""

from ._core import LOSSES, Loss
from .adapters import keras_loss, torch_module
from .classification import binary_cross_entropy, cross_entropy, focal, sparse_cross_entropy
from .distributions import hellinger, jensen_shannon, kl_divergence, wasserstein
from .matrices import frobenius, matrix, nuclear, schatten, spectral
from .regression import cosine, hamming, huber, l1, l2, log_cosh, quantile
from .softmax import supcon

__all__ = [
    "LOSSES",
    "Loss",
    "binary_cross_entropy",
    "cosine",
    "cross_entropy",
    "focal",
    "frobenius",
    "hamming",
    "hellinger",
    "huber",
    "jensen_shannon",
    "keras_loss",
    "kl_divergence",
    "l1",
    "l2",
    "log_cosh",
    "matrix",
    "nuclear",
    "quantile",
    "schatten",
    "sparse_cross_entropy",
    "spectral",
    "supcon",
    "torch_module",
    "wasserstein",
]
