"""The plan of a call, without the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .calls import asking
from .plan import Plan


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Plan:
    """The plan of ``function(*args, **kwargs)``: engine, tiles, bytes and why. Nothing is computed.

    Parameters
    ----------
    function : callable
        :func:`pairx.cdist`, :func:`pairx.pdist`, :func:`pairx.paired`, :func:`pairx.gram` or
        :func:`pairx.pairwise_matrix_norm`.
    *args, **kwargs
        What it would be called with.

    Returns
    -------
    Plan
        A plain value; ``print`` it.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> plan = pairx.explain(pairx.cdist, np.zeros((1000, 64)), np.zeros((500, 64)), metric="cityblock")
    >>> plan.result_bytes, plan.scratch_bytes < plan.max_bytes
    (4000000, True)
    """
    with asking():
        plan = function(*args, **kwargs)
    if not isinstance(plan, Plan):
        raise TypeError(f"explain: {getattr(function, '__name__', function)!r} makes no plan.")
    return plan
