"""Losses."""

from ._core import LOSSES, Loss
from .softmax import supcon
from .adapters import keras_loss, torch_module
from .classification import binary_cross_entropy, cross_entropy, focal, sparse_cross_entropy
from .distributions import hellinger, jensen_shannon, kl_divergence, wasserstein
from .matrices import frobenius, matrix, nuclear, schatten, spectral
from .regression import cosine, hamming, huber, l1, l2, log_cosh, quantile
