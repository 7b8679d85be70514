"""Losses: plain functions on plain arrays, the same numbers and gradients in every library.

``pairx.losses.LOSSES`` is the table of them: family, formula, unit, denominator, source.
"""

from ._core import LOSSES, Loss
from .adapters import keras_loss, torch_module
from .angular import angular
from .batch_triplets import triplet_batch_all, triplet_batch_hard, triplet_semi_hard
from .classes import linear_cross_entropy
from .classification import binary_cross_entropy, cross_entropy, focal, sparse_cross_entropy
from .debiased import debiased_info_nce, nce
from .distributions import hellinger, jensen_shannon, kl_divergence, wasserstein
from .margins import arcface, cosface, normalized_softmax, sphereface, subcenter_arcface
from .masked import masked_cosine
from .matrices import frobenius, matrix, nuclear, schatten, spectral
from .memory import Memory, memory_init, memory_push
from .neighbours import nca, soft_nearest_neighbors
from .pairs import contrastive, cosine_embedding, margin, signal_to_noise
from .proxies import proxy_anchor, proxy_nca, soft_triple, sparse_centers
from .ranking import fast_ap, histogram, ranked_list, smooth_ap
from .regression import cosine, hamming, huber, l1, l2, log_cosh, quantile
from .softmax import multi_positive, nt_xent, supcon
from .statistics import barlow_twins, decov, vicreg
from .structured import circle, generalized_lifted_structure, lifted_structure, multi_similarity
from .triplets import triplet, triplet_angular
from .views import clip, decoupled, info_nce, n_pair, siglip

__all__ = [
    "LOSSES",
    "Loss",
    "Memory",
    "angular",
    "arcface",
    "barlow_twins",
    "binary_cross_entropy",
    "circle",
    "clip",
    "contrastive",
    "cosface",
    "cosine",
    "cosine_embedding",
    "cross_entropy",
    "debiased_info_nce",
    "decoupled",
    "decov",
    "fast_ap",
    "focal",
    "frobenius",
    "generalized_lifted_structure",
    "hamming",
    "hellinger",
    "histogram",
    "huber",
    "info_nce",
    "jensen_shannon",
    "keras_loss",
    "kl_divergence",
    "l1",
    "l2",
    "lifted_structure",
    "linear_cross_entropy",
    "log_cosh",
    "margin",
    "masked_cosine",
    "matrix",
    "memory_init",
    "memory_push",
    "multi_positive",
    "multi_similarity",
    "n_pair",
    "nca",
    "nce",
    "normalized_softmax",
    "nt_xent",
    "nuclear",
    "proxy_anchor",
    "proxy_nca",
    "quantile",
    "ranked_list",
    "schatten",
    "siglip",
    "signal_to_noise",
    "smooth_ap",
    "soft_nearest_neighbors",
    "soft_triple",
    "sparse_centers",
    "sparse_cross_entropy",
    "spectral",
    "sphereface",
    "subcenter_arcface",
    "supcon",
    "torch_module",
    "triplet",
    "triplet_angular",
    "triplet_batch_all",
    "triplet_batch_hard",
    "triplet_semi_hard",
    "vicreg",
    "wasserstein",
]
