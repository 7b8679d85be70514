"""Losses."""

from ._core import LOSSES, Loss
from .classes import linear_cross_entropy
from .debiased import debiased_info_nce, nce
from .memory import Memory, memory_init, memory_push
from .neighbours import nca, soft_nearest_neighbors
from .softmax import multi_positive, nt_xent, supcon
from .views import clip, decoupled, info_nce, n_pair, siglip
