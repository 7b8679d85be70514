"""Losses of the difference of two matrices: its norms."""

from __future__ import annotations

from typing import Any

from .. import checks
from ..norms import matrix_norm
from . import _core as core
from ._core import loss

Array = Any


def _norm(predictions: Array, targets: Array, ord: Any, reduction: str, weights: Any, return_count: bool, **more: Any) -> Any:
    a = core.arrays(predictions=predictions, targets=targets)
    core.same_shape(a, "predictions", "targets")
    if len(a.shape("predictions")) < 2:
        raise ValueError(f"predictions has shape {checks.shown(a.shape('predictions'))}: expected matrices (..., rows, columns).")
    values = matrix_norm(a["predictions"] - a["targets"], ord=ord, **more)
    return core.reduce(a, values, reduction=reduction, weights=weights, return_count=return_count)


@loss(
    "matrices",
    inputs="matrices",
    unit="matrix",
    mean="matrices",
    formula=r"\|A - B\|",
    source="Golub and Van Loan 2013, Matrix Computations, section 2.3",
)
def matrix(
    predictions: Array,
    targets: Array,
    *,
    ord: Any = "fro",
    reduction: str = "mean",
    weights: Any = None,
    return_count: bool = False,
) -> Any:
    """A norm of the difference of matrices in the last two axes.

    Parameters
    ----------
    predictions, targets : array, shape (..., r, c)
        Nothing is broadcast.
    ord : {"fro", "nuc", 1, -1, 2, -2, inf, -inf}
        As in :func:`pairx.matrix_norm`; 1 is the largest column sum, not the sum of all entries.
    reduction : {"mean", "sum", "none"}
        "mean" over matrices; "none" has the shape (...).
    weights : array_like, shape (...), optional
        Of the matrices; a weighted mean divides by their sum.
    return_count : bool
        Answer ``(loss, number of matrices)``.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    The gradient where both are equal is 0.

    References
    ----------
    Golub and Van Loan 2013, Matrix Computations, section 2.3.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.matrix(np.array([[[1.0, -2.0], [3.0, 4.0]]]), np.zeros((1, 2, 2)), ord=1))
    6.0
    """
    return _norm(predictions, targets, ord, reduction, weights, return_count)


@loss(
    "matrices",
    inputs="matrices",
    unit="matrix",
    mean="matrices",
    formula=r"\sqrt{\sum_{ij} (A_{ij} - B_{ij})^2}",
    source="Golub and Van Loan 2013, Matrix Computations, section 2.3",
)
def frobenius(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Frobenius norm of the difference: the Euclidean length of all its entries.

    Parameters
    ----------
    predictions, targets, reduction, weights, return_count
        As in :func:`matrix`.

    Returns
    -------
    array, shape () or (...)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> float(pairx.losses.frobenius(np.ones((1, 2, 2)), np.zeros((1, 2, 2))))
    2.0
    """
    return _norm(predictions, targets, "fro", reduction, weights, return_count)


@loss(
    "matrices",
    inputs="matrices",
    unit="matrix",
    mean="matrices",
    formula=r"\sum_i \sigma_i(A - B)",
    source="Recht, Fazel and Parrilo 2010, Guaranteed Minimum-Rank Solutions of Linear Matrix Equations",
)
def nuclear(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Nuclear norm of the difference: the sum of its singular values.

    Parameters
    ----------
    predictions, targets, reduction, weights, return_count
        As in :func:`matrix`.

    Returns
    -------
    array, shape () or (...)

    Notes
    -----
    The subgradient is U V^T over the singular values above the rank's threshold: 0 where both are equal.

    References
    ----------
    Recht, Fazel and Parrilo 2010, Guaranteed Minimum-Rank Solutions of Linear Matrix Equations.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.nuclear(np.array([[[3.0, 0.0], [0.0, 4.0]]]), np.zeros((1, 2, 2)))), 6)
    7.0
    """
    return _norm(predictions, targets, "nuc", reduction, weights, return_count)


@loss(
    "matrices",
    inputs="matrices",
    unit="matrix",
    mean="matrices",
    formula=r"\max_i \sigma_i(A - B)",
    source="Golub and Van Loan 2013, Matrix Computations, section 2.3",
)
def spectral(predictions: Array, targets: Array, *, reduction: str = "mean", weights: Any = None, return_count: bool = False) -> Any:
    """Spectral norm of the difference: its largest singular value.

    Parameters
    ----------
    predictions, targets, reduction, weights, return_count
        As in :func:`matrix`.

    Returns
    -------
    array, shape () or (...)

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.spectral(np.array([[[3.0, 0.0], [0.0, 4.0]]]), np.zeros((1, 2, 2)))), 6)
    4.0
    """
    return _norm(predictions, targets, 2, reduction, weights, return_count)


@loss(
    "matrices",
    inputs="matrices",
    unit="matrix",
    mean="matrices",
    formula=r"\left(\sum_i \sigma_i(A - B)^p\right)^{1/p}",
    source="Schatten 1950, A Theory of Cross-Spaces",
)
def schatten(
    predictions: Array, targets: Array, *, p: float = 3.0, reduction: str = "mean", weights: Any = None, return_count: bool = False
) -> Any:
    """Schatten p-norm of the difference: the p-norm of its singular values.

    Parameters
    ----------
    predictions, targets, reduction, weights, return_count
        As in :func:`matrix`.
    p : float
        1 is the nuclear norm, 2 the Frobenius norm, inf the spectral norm.

    Returns
    -------
    array, shape () or (...)

    References
    ----------
    Schatten 1950, A Theory of Cross-Spaces.

    Examples
    --------
    >>> import numpy as np, pairx
    >>> round(float(pairx.losses.schatten(np.array([[[3.0, 0.0], [0.0, 4.0]]]), np.zeros((1, 2, 2)), p=3)), 6)
    4.497941
    """
    return _norm(predictions, targets, "schatten", reduction, weights, return_count, p=p)
