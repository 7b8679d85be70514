"""Losses."""

from ._core import LOSSES as LOSSES
from ._core import Loss as Loss
from .angular import angular as angular
from .batch_triplets import triplet_batch_all as triplet_batch_all
from .batch_triplets import triplet_batch_hard as triplet_batch_hard
from .batch_triplets import triplet_semi_hard as triplet_semi_hard
from .softmax import supcon as supcon
from .triplets import triplet as triplet
from .triplets import triplet_angular as triplet_angular
