"""The conformance suite: what pairx promises, as cases that any backend runs, ours or a third party's.

In the tests of a backend::

    import pytest
    from pairx.testing import Library, cases

    @pytest.mark.parametrize("case", cases(), ids=str)
    def test_conformance(case):
        case(Library("mylib"))

The reference values are shipped with pairx; they were not computed by it (see ``pairx/data``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import doctor
from .backend import Backend, by_name, find
from .bridge import bring, host
from .calls import engines
from .distances import cdist, gram, paired, pdist, squareform
from .metrics import KERNELS, METRICS, Metric

Array = Any


@dataclass(frozen=True)
class Library:
    """An array library under test.

    Parameters
    ----------
    name : str
        The name under which its backend is registered in the entry points ``pairx.backends``.
    asarray : callable, optional
        A NumPy array -> an array of the library. Default: the ``asarray`` of its namespace.
    to_numpy : callable, optional
        The way back.
    """

    name: str
    asarray: Callable[[Any], Array] | None = None
    to_numpy: Callable[[Array], Any] | None = None

    @property
    def backend(self) -> Backend:
        """The registered record."""
        return by_name(self.name)

    def bring(self, array: Any) -> Array:
        """Into the library."""
        return bring(self.backend, array) if self.asarray is None else self.asarray(array)

    def host(self, array: Array) -> Any:
        """Back to NumPy."""
        return host(array) if self.to_numpy is None else self.to_numpy(array)


@dataclass(frozen=True)
class Case:
    """One promise: call it with a :class:`Library`; it raises AssertionError where the promise is broken."""

    name: str
    check: Callable[[Library], None]

    def __str__(self) -> str:
        return self.name

    def __call__(self, library: Library) -> None:
        self.check(library)


def cases() -> list[Case]:
    """Every case, for all metrics and kernels there are."""
    found = []
    for row in (*METRICS.values(), *KERNELS.values()):
        for engine in row.engines:
            found.append(Case(f"{row.kind}-{row.name}-{engine}", partial(_values, row, engine, None)))
            found.append(Case(f"{row.kind}-{row.name}-{engine}-tiles", partial(_values, row, engine, 16384)))
        if row.kind == "distance":
            found.append(Case(f"pdist-{row.name}", partial(_condensed, row)))
            found.append(Case(f"paired-{row.name}", partial(_chosen, row)))
            found.append(Case(f"one-set-{row.name}", partial(_one_set, row)))
    for check in (_stays, _integers, _nan, _empty, _batches, _weights, _two_libraries, _small_budget, _shapes):
        found.append(Case(check.__name__[1:].replace("_", "-"), check))
    return found


def _close(got: Any, want: Any, factor: float = 4096.0) -> None:
    """Equal to some roundings of the result's dtype, relative to the largest value; infinities and NaN in the same places."""
    import numpy as np

    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    finite = np.isfinite(want)
    assert np.array_equal(np.where(finite, 0, want), np.where(np.isfinite(got), 0, got), equal_nan=True), "NaN or inf misplaced"
    scale = float(np.max(np.abs(want[finite]), initial=1e-300))
    error = float(np.max(np.abs(got[finite] - want[finite]), initial=0.0)) / scale
    allowed = factor * float(np.finfo(got.dtype).eps)
    assert error <= allowed, f"off by {error:.2e} of the largest value, allowed {allowed:.2e}"


def _call(row: Metric) -> Callable[..., Array]:
    return gram if row.kind == "kernel" else cdist


def _values(row: Metric, engine: str, max_bytes: int | None, library: Library) -> None:
    want = doctor.references()[f"{row.kind}-{row.name}"]
    x, y = (library.bring(side) for side in doctor.flowers(row.domain))
    if engine not in engines(find(x=x), row, x):
        return  # the engine of another library, or of an extra that is not installed
    _close(library.host(_call(row)(x, y, row.name, engine=engine, max_bytes=max_bytes)), want)


def _both(row: Metric, library: Library) -> tuple[Array, int, Any, dict[str, Any]]:
    """Both sets in one array, the size of the first, the reference, and the parameters that belong to two sets."""
    import numpy as np

    x, y = doctor.flowers(row.domain)
    both = np.concatenate([x, y])
    params = {}
    if row.name == "seuclidean":
        params["V"] = np.var(both, axis=0, ddof=1).tolist()
    elif row.name == "mahalanobis":
        params["VI"] = np.linalg.inv(np.cov(both.T)).tolist()
    return library.bring(both), len(x), doctor.references()[f"{row.kind}-{row.name}"], params


def _condensed(row: Metric, library: Library) -> None:
    both, m, want, params = _both(row, library)
    square = library.host(squareform(pdist(both, row.name, max_bytes=32768, **params)))
    _close(square[:m, m:], want)


def _chosen(row: Metric, library: Library) -> None:
    import numpy as np

    both, m, want, params = _both(row, library)
    i, j = (k.reshape(-1) for k in np.indices(want.shape))
    pairs = (i.tolist(), (j + m).tolist())
    _close(library.host(paired(both, metric=row.name, pairs=pairs, max_bytes=8192, **params)).reshape(want.shape), want)


def _one_set(row: Metric, library: Library) -> None:
    import numpy as np

    both, m, want, params = _both(row, library)
    square = library.host(cdist(both, metric=row.name, max_bytes=32768, **params))
    _close(square[:m, m:], want)
    if row.symmetric:
        assert np.array_equal(square, square.T, equal_nan=True), "one set: not exactly symmetric"
    if row.zero_self:
        assert not np.diagonal(square).any(), "one set: the diagonal is not exactly 0"


def _plain(library: Library) -> tuple[Array, Array, Any, Any]:
    x, y = doctor.flowers("real")
    return library.bring(x), library.bring(y), x, y


def _cityblock(x: Any, y: Any) -> Any:
    import numpy as np

    return np.abs(x[..., :, None, :] - y[..., None, :, :]).sum(axis=-1)


def _stays(library: Library) -> None:
    """The result lives where the input lives: library, device, dtype."""
    x, y, *_ = _plain(library)
    result = cdist(x, y, "cityblock")
    assert type(result) is type(x), f"{type(x).__name__} went in, {type(result).__name__} came out"
    assert result.dtype == x.dtype
    assert str(library.backend.device(result)) == str(library.backend.device(x))


def _integers(library: Library) -> None:
    """Integers are promoted before they are subtracted: uint8 1 and 255 are 254 apart."""
    import numpy as np

    x = library.bring(np.array([[1, 2], [255, 0]], dtype=np.uint8))
    result = cdist(x, metric="cityblock")
    assert result.dtype == library.backend.default_float()
    _close(library.host(result), np.array([[0.0, 256.0], [256.0, 0.0]]))


def _nan(library: Library) -> None:
    """NaN propagates, also through a maximum, and only where it is."""
    import numpy as np

    data = np.array([[math.nan, 1.0], [0.0, 1.0]])
    for name in ("chebyshev", "euclidean", "cityblock"):
        result = library.host(cdist(library.bring(data), library.bring(np.zeros((1, 2))), name))
        assert np.isnan(result[0, 0]), name
        assert result[1, 0] == 1, name
    omitted = library.host(cdist(library.bring(data), library.bring(np.zeros((1, 2))), "cityblock", nan_policy="omit"))
    _close(omitted, np.array([[2.0], [1.0]]))


def _empty(library: Library) -> None:
    """No rows, no features: the natural shapes."""
    import numpy as np

    for m, n, d in ((0, 3, 4), (3, 0, 4), (3, 2, 0), (0, 0, 4)):
        result = library.host(cdist(library.bring(np.zeros((m, d))), library.bring(np.zeros((n, d)))))
        assert result.shape == (m, n)
        assert not result.any()
    assert library.host(pdist(library.bring(np.zeros((1, 4))))).shape == (0,)


def _batches(library: Library) -> None:
    """Batch axes broadcast."""
    _, _, x, y = _plain(library)
    x, y = x[:12].reshape(3, 1, 4, 4), y[:10].reshape(2, 5, 4)
    _close(library.host(cdist(library.bring(x), library.bring(y), "cityblock", max_bytes=4096)), _cityblock(x, y))


def _weights(library: Library) -> None:
    """A list of weights adopts the library and the device."""
    import numpy as np

    x, y, u, v = _plain(library)
    w = [0.5, 0.0, 2.0, 1.0]
    _close(library.host(cdist(x, y, "cityblock", w=w)), _cityblock(u * np.array(w), v * np.array(w)))


def _raises(kind: type[Exception], *words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        for word in words:
            assert word in str(error), f"the message does not name {word!r}: {error}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def _two_libraries(library: Library) -> None:
    """Two libraries in one call are named, and nothing is converted."""
    x, _, _, y = _plain(library)
    if library.backend.name != "numpy":
        _raises(TypeError, "numpy", library.backend.name, call=lambda: cdist(x, y))
    _raises(TypeError, "y", call=lambda: cdist(x, object()))


def _small_budget(library: Library) -> None:
    """A budget below the smallest tile names the minimum."""
    x, y, *_ = _plain(library)
    _raises(ValueError, "max_bytes", "bytes", call=lambda: cdist(x, y, "cityblock", max_bytes=1))


def _shapes(library: Library) -> None:
    """Sizes that do not fit are named."""
    x, *_ = _plain(library)
    _raises(ValueError, "x", "y", call=lambda: cdist(x, x[:, :2]))
    _raises(ValueError, "metric", "euclidean", call=lambda: cdist(x, x, "euclidian"))
