"""Losses."""

from ._core import LOSSES, Loss
from .margins import arcface, cosface, normalized_softmax, sphereface, subcenter_arcface
from .proxies import proxy_anchor, proxy_nca, soft_triple, sparse_centers
from .ranking import fast_ap, histogram, ranked_list, smooth_ap
from .softmax import supcon
from .statistics import barlow_twins, decov, vicreg
