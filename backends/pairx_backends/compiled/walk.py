"""Distances of one set with itself, some rows at a time, and from what follows of them to the rows' gradients.

No result of all pairs is kept: a loop of the caller's looks at some rows' distances, while a cache holds them, and puts in the place
of each what its joined term is worth; ``pull_xy`` takes that to the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pairx import plan as plans
from pairx.threads import share_rows

from . import pullback
from .kernel import Kernel
from .layout import panelled

Array = Any
Follow = Callable[[slice, int, Array], int]
EXACT = 1 << 24
"""Labels are compared as floats; from here on they could be equal as float32 and no more as integers."""
BLOCK_BYTES = 2 << 20
"""Distances of some rows at a time: what a processor's second cache holds."""


def possible(kernel: Kernel, n: int, d: int, max_bytes: int) -> bool:
    """Whether the distances of a kernel tell its gradient, its rows are as they come, and a block of them fits the budget."""
    told = kernel.differentiable and (not kernel.sloped or kernel.invertible)
    plain = not kernel.prepared and kernel.special is None and kernel.row.reduce == "sum" and not kernel.free
    return d > 0 and told and plain and _least(kernel, n, d) <= max_bytes


def _least(kernel: Kernel, n: int, d: int) -> int:
    """Scratch bytes of a call with as few rows at a time as there may be."""
    return kernel.dtype.itemsize * (n + kernel.width) * (kernel.width + 4 * (d + 32))


def identities(labels: Array, kernel: Kernel) -> Array:
    """Numbers that are equal where the labels, which are integers, are; whole vectors may be read."""
    if max(abs(int(labels.max())), abs(int(labels.min()))) >= EXACT:
        labels = np.unique(labels, return_inverse=True)[1]
    return np.concatenate([labels, np.zeros(kernel.width)], dtype=kernel.dtype)


def walked(x: Array, kernel: Kernel, max_bytes: int, follow: Follow, *, upper: bool, slope: bool) -> tuple[bool, Array | None]:
    """Compare, follow and pull; whether nothing was odd, and with ``slope`` the gradient.

    ``follow(rows, first, out)`` is given the distances ``out`` of some rows to those from ``first`` on, which are all of them or, where
    ``upper``, the ones of a block and after it. It puts in their place what the joined terms are worth, whole vectors wide, and answers
    whether a distance was odd; below the diagonal of ``upper`` blocks it puts 0.
    """
    n, d = x.shape
    threads = plans.thread_count() if n * n * (d + 16) >= plans.SHARED else 1  # a piece for each: Python's part of one takes 0.1 ms
    size, width = kernel.dtype.itemsize, kernel.width
    x = np.ascontiguousarray(x, kernel.dtype)
    left = min(BLOCK_BYTES, max_bytes - _least(kernel, n, d)) // (size * width * (n + width))
    step = width * max(1, min(left, -(-256 // width)))
    packed = kernel.packed(x)
    weights, count = np.ones(d, kernel.dtype), np.array([d], kernel.dtype)
    distances = np.empty((min(step, n), -(-n // width) * width), kernel.dtype)
    features = pullback.vectors(kernel.definition) * kernel.definition.recipe.lanes
    panels = panelled(x, features, kernel.dtype) if slope else x
    slopes = np.zeros_like(panels) if slope else panels
    order, all_features = pullback.pull_slots(kernel.definition.recipe), -(-d // features) * features
    odd: list[int] = []

    def compare(start: int, stop: int, first: int) -> None:
        def part(low: int, high: int) -> None:
            rows, out = slice(start + low, start + high), distances[low:high, : n - first]
            kernel.compare([x[rows]], [packed[first // width :]], out, weights, count)
            odd.append(follow(rows, first, out))

        share_rows(part, stop - start, threads, -(-(stop - start) // threads))

    def pull(start: int, stop: int, first: int) -> None:
        own, other, into, onto = (a.ctypes.data + k * features * size for a in (panels, slopes) for k in (start, first))

        def part(low: int, high: int) -> None:
            a = order.array(
                {
                    "m": stop - start, "n": n - first, "upper": upper, "own_rows": n, "other_rows": n,
                    "first": low, "stop": high, "width": all_features, "w": weights.ctypes.data,
                    "c": distances.ctypes.data, "by_own": distances.strides[0] // size, "by_other": 1,
                    "own0": own, "other0": other, "total0": into, "totals0": onto,
                }
            )  # fmt: skip
            kernel.function("pull_xy")(a.ctypes.data)

        share_rows(part, all_features, threads, -(-all_features // (threads * features)) * features)

    for start in range(0, n, step):
        stop, first = min(start + step, n), start if upper else 0
        compare(start, stop, first)
        if any(odd):
            return False, None
        if slope:
            pull(start, stop, first)
    return True, np.swapaxes(slopes, 0, 1).reshape(n, all_features)[:, :d] if slope else None
