"""Losses: plain functions on plain arrays, the same numbers and gradients in every library.

``pairx.losses.LOSSES`` is the table of them: family, formula, unit, denominator, source.
"""

from ._core import LOSSES, Loss
from .adapters import keras_loss, torch_module
from .classification import binary_cross_entropy, cross_entropy, focal, sparse_cross_entropy
from .distributions import hellinger, jensen_shannon, kl_divergence, wasserstein
from .margins import arcface, cosface, normalized_softmax, sphereface, subcenter_arcface
from .masked import masked_cosine
from .matrices import frobenius, matrix, nuclear, schatten, spectral
from .pairs import contrastive, cosine_embedding, margin, signal_to_noise
from .proxies import proxy_anchor, proxy_nca, soft_triple, sparse_centers
from .ranking import fast_ap, histogram, ranked_list, smooth_ap
from .regression import cosine, hamming, huber, l1, l2, log_cosh, quantile
from .softmax import supcon
from .statistics import barlow_twins, decov, vicreg
from .structured import circle, generalized_lifted_structure, lifted_structure, multi_similarity

__all__ = [
    "LOSSES",
    "Loss",
    "arcface",
    "barlow_twins",
    "binary_cross_entropy",
    "circle",
    "contrastive",
    "cosface",
    "cosine",
    "cosine_embedding",
    "cross_entropy",
    "decov",
    "fast_ap",
    "focal",
    "frobenius",
    "generalized_lifted_structure",
    "hamming",
    "hellinger",
    "histogram",
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
    "normalized_softmax",
    "nuclear",
    "proxy_anchor",
    "proxy_nca",
    "quantile",
    "ranked_list",
    "schatten",
    "signal_to_noise",
    "smooth_ap",
    "soft_triple",
    "sparse_centers",
    "sparse_cross_entropy",
    "spectral",
    "sphereface",
    "subcenter_arcface",
    "supcon",
    "torch_module",
    "vicreg",
    "wasserstein",
]
