"""Losses."""

from ._core import LOSSES, Loss
from .softmax import supcon
