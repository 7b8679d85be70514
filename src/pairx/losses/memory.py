"""A memory of past batches (XBM): plain state in, plain state out."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import checks
from ..backend import find
from . import _core as core

Array = Any


class Memory(NamedTuple):
    """A ring of past rows. A tuple of arrays, so that jit, scan and checkpoints take it as it is."""

    features: Array
    """(size, d)."""
    labels: Array
    """(size,)."""
    valid: Array
    """(size,) of bool: which places have been filled."""
    position: Array
    """(): the place that is written next."""


def memory_init(size: int, d: int, *, like: Array, labels: Any = None) -> Memory:
    """An empty memory for cross-batch losses.

    Parameters
    ----------
    size : int
        Rows that it holds.
    d : int
        Features of a row.
    like : array
        Its library, device and dtype become the memory's.
    labels : array_like, optional
        Labels whose dtype the memory's take; default int32.

    Returns
    -------
    Memory
        ``(features, labels, valid, position)``.

    Raises
    ------
    ValueError
        If the size is not positive.

    Notes
    -----
    Keep it where the model's state is kept. Nothing is hidden: in distributed training gather the rows of all replicas
    first, and each replica's memory is the same.

    References
    ----------
    Wang et al. 2020, Cross-Batch Memory for Embedding Learning.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> x, labels = np.eye(2), np.array([0, 1])
    >>> memory = pairx.losses.memory_init(3, 2, like=x)
    >>> memory = pairx.losses.memory_push(memory, x, labels)
    >>> memory.labels.tolist(), memory.valid.tolist()
    ([0, 1, 0], [True, True, False])
    >>> loss = pairx.losses.supcon(x, labels, y=memory.features, y_labels=memory.labels, y_mask=memory.valid)
    """
    size, d = checks.integer("size", size), checks.integer("d", d)
    if size < 1 or d < 0:
        raise ValueError(f"size={size}, d={d}: expected at least one row, and no negative number of features.")
    backend = find(like=like)
    like = backend.coerce(like, "like")
    xp, device = backend.xp, backend.device(like)
    dtype = like.dtype if backend.kind(backend, like.dtype) == "real floating" else backend.default_float()
    kind = xp.int32 if labels is None else backend.asarray(labels, like, None).dtype
    return Memory(
        xp.zeros((size, d), dtype=dtype, device=device),
        xp.zeros((size,), dtype=kind, device=device),
        xp.zeros((size,), dtype=xp.bool, device=device),
        xp.zeros((), dtype=xp.int32, device=device),
    )


def memory_push(memory: Memory, x: Array, labels: Any = None) -> Memory:
    """The memory with a batch written over its oldest rows.

    Parameters
    ----------
    memory : Memory
        From :func:`memory_init` or the last push; it is not changed.
    x : array, shape (b, d)
        Rows; no gradient flows into the memory. Of a batch larger than the memory the last rows stay.
    labels : array_like, shape (b,), optional
        Default 0.

    Returns
    -------
    Memory

    Raises
    ------
    ValueError
        If shapes do not fit.

    Notes
    -----
    Push after the loss: a row that is already in the memory would be a positive of itself.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> memory = pairx.losses.memory_init(3, 1, like=np.zeros(1))
    >>> for k in range(4):
    ...     memory = pairx.losses.memory_push(memory, np.full((1, 1), float(k)), [k])
    >>> memory.labels.tolist(), int(memory.position)
    ([3, 1, 2], 1)
    """
    memory = Memory(*memory)
    a = core.arrays(x=x, features=memory.features)
    core.vectors(a, "features", "x")
    xp, (b, _), (size, _) = a.xp, a.shape("x"), a.shape("features")
    if isinstance(b, int) and b == 0:
        return memory
    rows = a.backend.detach(xp.astype(a["x"], memory.features.dtype, copy=False))
    own = xp.zeros((b,), dtype=memory.labels.dtype, device=a.backend.device(rows))
    if labels is not None:
        own = xp.astype(core.class_labels(a, labels, b, several=False), memory.labels.dtype)
    place = core.rows(a, size)
    first = xp.remainder(place - memory.position, xp.full_like(place, size))  # the batch's first row for this place
    last = first + (b - 1 - first) // size * size  # and its last, if the batch goes round
    written = first < b
    last = xp.where(written, last, xp.zeros_like(last))
    return Memory(
        xp.where(xp.expand_dims(written, axis=-1), xp.take(rows, last, axis=0), memory.features),
        xp.where(written, xp.take(own, last, axis=0), memory.labels),
        memory.valid | written,
        xp.remainder(memory.position + b, xp.full_like(memory.position, size)),
    )
