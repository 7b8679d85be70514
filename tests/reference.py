"""Independent references: every metric, kernel and similarity for one pair, written from its published formula.

Numbers are ``mpmath`` ones with 50 digits, so whatever a test finds is the error of the result under test: nothing here
cancels, overflows or underflows. ``REFERENCE`` is keyed by ``(kind, name)``, since "cosine" is a distance, a kernel and a
similarity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpmath import mp, mpc, mpf

DIGITS = 50
REFERENCE: dict[tuple[str, str], Callable[..., Any]] = {}
Row = Sequence[Any]


def number(value: Any) -> Any:
    """As a number of mpmath; one that already is one stays."""
    if isinstance(value, (mpf, mpc)):
        return value
    return mpc(complex(value)) if np.iscomplexobj(value) else mpf(float(value))


def reference(kind: str, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter ``f(u, v, w, **params)`` under these names; it sees numbers of mpmath and weights that are never None."""

    def enter(f: Callable[..., Any]) -> Callable[..., Any]:
        def one(u: Row, v: Row, *, w: Row | None = None, **params: Any) -> Any:
            with mp.workdps(DIGITS):
                a, b = [number(t) for t in u], [number(t) for t in v]
                if any(mp.isnan(t) for t in (*a, *b)):
                    return mp.nan
                return f(a, b, [mpf(1)] * len(a) if w is None else [number(t) for t in w], **params)

        for name in names or (f.__name__,):
            REFERENCE[kind, name] = one
        return one

    return enter


def _ratio(a: Any, b: Any, at_zero: float = 0.0) -> Any:
    return a / b if b != 0 else (mpf(at_zero) if a == 0 else mp.inf)


# --- differences --------------------------------------------------------------------------------------------------------


@reference("distance")
def sqeuclidean(u: Row, v: Row, w: Row) -> Any:
    return mp.fsum(c * (a - b) ** 2 for a, b, c in zip(u, v, w, strict=True))


@reference("distance")
def euclidean(u: Row, v: Row, w: Row) -> Any:
    return mp.sqrt(sqeuclidean(u, v, w=w))


def nan_euclidean(u: Row, v: Row, *, w: Row | None = None) -> Any:
    return omitting("distance", "euclidean", u, v, w)


REFERENCE["distance", "nan_euclidean"] = nan_euclidean


@reference("distance")
def seuclidean(u: Row, v: Row, w: Row, V: Row) -> Any:
    # A feature that does not vary counts 0, where SciPy divides by zero.
    return mp.sqrt(mp.fsum(c * (a - b) ** 2 / number(s) for a, b, c, s in zip(u, v, w, V, strict=True) if s != 0))


@reference("distance")
def mahalanobis(u: Row, v: Row, w: Row, VI: Any = None, cov: Any = None) -> Any:
    inverse = [[number(t) for t in r] for r in VI] if cov is None else inverted(cov)
    d = [a - b for a, b in zip(u, v, strict=True)]
    return mp.sqrt(mp.fdot(d, [mp.fdot(r, d) for r in inverse]))


@reference("distance")
def cityblock(u: Row, v: Row, w: Row) -> Any:
    return mp.fsum(c * abs(a - b) for a, b, c in zip(u, v, w, strict=True))


@reference("distance")
def chebyshev(u: Row, v: Row, w: Row) -> Any:
    return max((abs(a - b) for a, b, c in zip(u, v, w, strict=True) if c > 0), default=mpf(0))


@reference("distance")
def minkowski(u: Row, v: Row, w: Row, p: float = 2) -> Any:
    if p == math.inf:
        return chebyshev(u, v, w=w)
    if p == 0:
        return mp.fsum(c for a, b, c in zip(u, v, w, strict=True) if a != b)
    return mp.fsum(c * abs(a - b) ** mpf(p) for a, b, c in zip(u, v, w, strict=True)) ** (1 / mpf(p))


@reference("distance")
def canberra(u: Row, v: Row, w: Row) -> Any:
    return mp.fsum(c * _ratio(abs(a - b), abs(a) + abs(b)) for a, b, c in zip(u, v, w, strict=True))


@reference("distance")
def braycurtis(u: Row, v: Row, w: Row) -> Any:
    return _ratio(cityblock(u, v, w=w), mp.fsum(c * abs(a + b) for a, b, c in zip(u, v, w, strict=True)))


@reference("distance")
def ruzicka(u: Row, v: Row, w: Row) -> Any:
    low = mp.fsum(c * min(a, b) for a, b, c in zip(u, v, w, strict=True))
    high = mp.fsum(c * max(a, b) for a, b, c in zip(u, v, w, strict=True))
    return 1 - low / high if high else mpf(0)


@reference("distance")
def hamming(u: Row, v: Row, w: Row, normalize: bool = True) -> Any:
    different = mp.fsum(c for a, b, c in zip(u, v, w, strict=True) if a != b)
    return _ratio(different, mp.fsum(w)) if normalize else different


@reference("distance")
def jaccard(u: Row, v: Row, w: Row) -> Any:
    either = mp.fsum(c for a, b, c in zip(u, v, w, strict=True) if a != 0 or b != 0)
    return _ratio(mp.fsum(c for a, b, c in zip(u, v, w, strict=True) if a != b), either)


# --- products -----------------------------------------------------------------------------------------------------------


def inner_product(u: Row, v: Row, w: Row) -> Any:
    return mp.fsum(c * mp.conj(a) * b for a, b, c in zip(u, v, w, strict=True))


for _key in (("distance", "inner_product"), ("kernel", "linear"), ("similarity", "dot")):
    reference(*_key)(inner_product)


def _cos(u: Row, v: Row, w: Row) -> Any:
    norms = mp.sqrt(inner_product(u, u, w) * inner_product(v, v, w))
    return inner_product(u, v, w) / norms if norms else mpf(0)


reference("kernel", "cosine")(_cos)
reference("similarity", "cosine")(_cos)


@reference("distance")
def cosine(u: Row, v: Row, w: Row) -> Any:
    return 1 - _cos(u, v, w)


@reference("distance")
def correlation(u: Row, v: Row, w: Row) -> Any:
    def centred(r: Row) -> Row:
        mean = _ratio(mp.fsum(c * a for a, c in zip(r, w, strict=True)), mp.fsum(w))
        return [mpf(0) if all(a == r[0] for a in r) else a - mean for a in r]

    return 1 - _cos(centred(u), centred(v), w)


@reference("distance")
def angular(u: Row, v: Row, w: Row) -> Any:
    return mp.acos(max(-1, min(1, _cos(u, v, w)))) / mp.pi


# --- distributions and places -------------------------------------------------------------------------------------------


def _shares(u: Row) -> Row:
    total = mp.fsum(u)
    return [a / total if total else mpf(0) for a in u]


@reference("distance")
def hellinger(u: Row, v: Row, w: Row) -> Any:
    pairs = zip(_shares(u), _shares(v), w, strict=True)
    return mp.sqrt(mp.fsum(c * (mp.sqrt(a) - mp.sqrt(b)) ** 2 for a, b, c in pairs) / 2)


def _entropy(a: Any, b: Any) -> Any:
    """a log(a / b), with 0 log 0 = 0."""
    if a == 0 and b >= 0:
        return mpf(0)
    if a < 0 or b < 0:
        return mp.nan
    return mp.inf if b == 0 else a * mp.log(a / b)


@reference("distance")
def jensenshannon(u: Row, v: Row, w: Row, base: float | None = None) -> Any:
    parts = []
    for a, b, c in zip(_shares(u), _shares(v), w, strict=True):
        m = (a + b) / 2
        parts.append(c * (_entropy(a, m) + _entropy(b, m)) / 2)
    return mp.sqrt(max(mp.fsum(parts), 0) / (mp.log(mpf(base)) if base else 1))


@reference("distance")
def kl_divergence(u: Row, v: Row, w: Row, normalize: bool = False) -> Any:
    pairs = zip(_shares(u), _shares(v), w, strict=True) if normalize else zip(u, v, w, strict=True)
    return mp.fsum(c * _entropy(a, b) for a, b, c in pairs if c)  # a feature without weight does not count: no 0 times inf


@reference("distance")
def poincare(u: Row, v: Row, w: Row) -> Any:
    one = [mpf(1)] * len(u)
    inside = (1 - inner_product(u, u, one)) * (1 - inner_product(v, v, one))
    return mp.acosh(1 + 2 * sqeuclidean(u, v) / inside)


@reference("distance")
def haversine(u: Row, v: Row, w: Row) -> Any:
    h = mp.sin((u[0] - v[0]) / 2) ** 2 + mp.cos(u[0]) * mp.cos(v[0]) * mp.sin((u[1] - v[1]) / 2) ** 2
    return 2 * mp.asin(mp.sqrt(min(h, 1)))


# --- booleans -----------------------------------------------------------------------------------------------------------


def _boolean(name: str, rule: Callable[[Any, Any, Any, Any], Any]) -> None:
    """``rule(n11, n10, n01, n00)`` from SciPy's table of the four counts."""

    def f(u: Row, v: Row, w: Row) -> Any:
        n = {(i, j): mp.fsum(c for a, b, c in zip(u, v, w, strict=True) if (a != 0, b != 0) == (i, j)) for i in (True, False)
             for j in (True, False)}  # fmt: skip
        return rule(n[True, True], n[True, False], n[False, True], n[False, False])

    reference("distance", name)(f)


_boolean("dice", lambda tt, tf, ft, ff: _ratio(tf + ft, 2 * tt + tf + ft))
_boolean("rogerstanimoto", lambda tt, tf, ft, ff: _ratio(2 * (tf + ft), tt + ff + 2 * (tf + ft)))
_boolean("sokalmichener", lambda tt, tf, ft, ff: _ratio(2 * (tf + ft), tt + ff + 2 * (tf + ft)))
_boolean("russellrao", lambda tt, tf, ft, ff: _ratio(tf + ft + ff, tt + tf + ft + ff))
_boolean("sokalsneath", lambda tt, tf, ft, ff: _ratio(2 * (tf + ft), tt + 2 * (tf + ft)))
_boolean("yule", lambda tt, tf, ft, ff: _ratio(2 * tf * ft, tt * ff + tf * ft))
_boolean("kulczynski1", lambda tt, tf, ft, ff: _ratio(tt, tf + ft))


# --- kernels ------------------------------------------------------------------------------------------------------------


def _gamma(gamma: float | None, u: Row) -> Any:
    return mpf(1) / max(len(u), 1) if gamma is None else mpf(gamma)


@reference("kernel")
def polynomial(u: Row, v: Row, w: Row, gamma: float | None = None, degree: float = 3, coef0: float = 1) -> Any:
    base = _gamma(gamma, u) * inner_product(u, v, w) + coef0
    return base ** int(degree) if degree == int(degree) else (base ** mpf(degree) if base >= 0 else mp.nan)


@reference("kernel")
def sigmoid(u: Row, v: Row, w: Row, gamma: float | None = None, coef0: float = 1) -> Any:
    return mp.tanh(_gamma(gamma, u) * inner_product(u, v, w) + coef0)


@reference("kernel")
def rbf(u: Row, v: Row, w: Row, gamma: float | None = None) -> Any:
    return mp.exp(-_gamma(gamma, u) * sqeuclidean(u, v, w=w))


@reference("kernel")
def laplacian(u: Row, v: Row, w: Row, gamma: float | None = None) -> Any:
    return mp.exp(-_gamma(gamma, u) * cityblock(u, v, w=w))


@reference("kernel")
def additive_chi2(u: Row, v: Row, w: Row) -> Any:
    return -mp.fsum(c * _ratio((a - b) ** 2, a + b) for a, b, c in zip(u, v, w, strict=True))


@reference("kernel")
def chi2(u: Row, v: Row, w: Row, gamma: float = 1) -> Any:
    return mp.exp(mpf(gamma) * additive_chi2(u, v, w=w))


# --- whole matrices -----------------------------------------------------------------------------------------------------


def omitting(kind: str, name: str, u: Row, v: Row, w: Row | None, **params: Any) -> Any:
    """``nan_policy="omit"``: the features present in both, scaled by d / present (of weight, if weighted); NaN if none is."""
    keep = [k for k, (a, b) in enumerate(zip(u, v, strict=True)) if not (mp.isnan(number(a)) or mp.isnan(number(b)))]
    if not keep:
        return mp.nan if len(u) else mpf(0)
    with mp.workdps(DIGITS):
        given = [mpf(1)] * len(u) if w is None else [number(c) for c in w]
        present = mp.fsum(given[k] for k in keep)
        if not present:
            return mp.nan
        weights = [given[k] * mp.fsum(given) / present for k in keep]
        if "V" in params:
            params["V"] = [params["V"][k] for k in keep]
        return REFERENCE[kind, name]([u[k] for k in keep], [v[k] for k in keep], w=weights, **params)


def default_parameters(name: str, stacked: np.ndarray) -> dict[str, Any]:
    """SciPy's ``V`` and ``VI`` from the rows of all sets (ddof = 1), without rounding."""
    if name not in ("seuclidean", "mahalanobis"):
        return {}
    with mp.workdps(DIGITS):
        rows = [[mpf(float(t)) for t in r] for r in stacked]
        n, d = len(rows), stacked.shape[-1]
        mean = [mp.fsum(r[k] for r in rows) / n for k in range(d)]
        if name == "seuclidean":
            return {"V": [mp.fsum((r[k] - mean[k]) ** 2 for r in rows) / (n - 1) for k in range(d)]}
        cov = mp.matrix(d)
        for i in range(d):
            for j in range(d):
                cov[i, j] = mp.fsum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows) / (n - 1)
        return {"VI": inverted(cov.tolist())}


def inverted(a: Any) -> list[list[Any]]:
    """The inverse of a matrix."""
    with mp.workdps(DIGITS):
        return mp.inverse(mp.matrix([[number(t) for t in r] for r in a])).tolist()


_MEMORY: dict[Any, np.ndarray] = {}


def reference_cdist(
    x: np.ndarray, y: np.ndarray | None, name: str, *, kind: str = "distance", w: Any = None, nan_policy: str = "propagate", **params: Any
) -> np.ndarray:
    """All pairs, in float64 (or complex128). Remembered, because backends, dtypes and layouts share their inputs."""
    x = np.asarray(x)
    y = x if y is None else np.asarray(y)
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if lead:
        xs = np.broadcast_to(x, lead + x.shape[-2:]).reshape(-1, *x.shape[-2:])
        ys = np.broadcast_to(y, lead + y.shape[-2:]).reshape(-1, *y.shape[-2:])
        parts = [reference_cdist(a, b, name, kind=kind, w=w, nan_policy=nan_policy, **params) for a, b in zip(xs, ys, strict=True)]
        return np.stack(parts).reshape(*lead, x.shape[-2], y.shape[-2])
    key = (kind, name, nan_policy, repr(w), repr(sorted(params.items())), x.shape, x.dtype.str, x.tobytes(), y.shape, y.tobytes(), y is x)
    if key not in _MEMORY:
        params = {k: v for k, v in params.items() if v is not None}
        if not {"V", "VI", "cov"} & set(params):
            params |= default_parameters(name, x if y is x else np.concatenate([x, y]))
        if "cov" in params:
            params = {"VI": inverted(params["cov"])}  # once, not for each pair
        params = {k: [[number(t) for t in r] for r in v] if k == "VI" else v for k, v in params.items()}
        f = REFERENCE[kind, name]
        if nan_policy == "omit":

            def f(u: Row, v: Row, *, w: Any = None, **kw: Any) -> Any:
                return omitting(kind, name, u, v, w, **kw)

        out = np.empty((len(x), len(y)), complex if np.iscomplexobj(x) or np.iscomplexobj(y) else float)
        for i, u in enumerate(x):
            for j, v in enumerate(y):
                value = f(u, v, w=w, **params)
                out[i, j] = complex(value) if np.iscomplexobj(out) else float(mp.re(value))
        out.setflags(write=False)
        _MEMORY[key] = out
    return _MEMORY[key]
