"""Losses: plain functions on plain arrays, the same numbers and gradients in every library.

``pairx.losses.LOSSES`` is the table of them: family, formula, unit, denominator, source.
"""

from ._core import Loss, LOSSES
from .adapters import keras_loss, torch_module
from .classification import binary_cross_entropy, cross_entropy, focal, sparse_cross_entropy
from .distributions import hellinger, jensen_shannon, kl_divergence, wasserstein
from .masked import masked_cosine
from .matrices import frobenius, matrix, nuclear, schatten, spectral
from .pairs import contrastive, cosine_embedding, margin, signal_to_noise
from .regression import cosine, hamming, huber, l1, l2, log_cosh, quantile
from .softmax import supcon
from .structured import circle, generalized_lifted_structure, lifted_structure, multi_similarity

__all__ = [
    "LOSSES",
    "Loss",
    "binary_cross_entropy",
    "circle",
    "contrastive",
    "cosine",
    "cosine_embedding",
    "cross_entropy",
    "focal",
    "frobenius",
    "generalized_lifted_structure",
    "hamming",
    "hellinger",
    "huber",
    "jensen_shannon",
    "keras_loss",
    "kl_divergence",
    "l1",
    "l2",
    "lifted_structure",
    "log_cosh",
    "margin",
    "masked_cosine",
    "matrix",
    "multi_similarity",
    "nuclear",
    "quantile",
    "schatten",
    "signal_to_noise",
    "sparse_cross_entropy",
    "spectral",
    "supcon",
    "torch_module",
    "wasserstein",
]
