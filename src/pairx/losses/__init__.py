"""Losses."""

from ._core import LOSSES, Loss
from .masked import masked_cosine
from .pairs import contrastive, cosine_embedding, margin, signal_to_noise
from .softmax import supcon
from .structured import circle, generalized_lifted_structure, lifted_structure, multi_similarity
