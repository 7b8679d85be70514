"""Losses."""

from ._core import LOSSES, Loss
from .softmax import multi_positive, nt_xent, supcon
from .views import clip, decoupled, info_nce, n_pair, siglip
