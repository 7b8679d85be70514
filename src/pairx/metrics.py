"""Every metric and kernel, written once.

A metric is a *definition* (a factory ``define(xp, **params) -> Pieces``) beside its *facts*. The pieces are

``prepare(x, w) -> (panels, stats)``
    Once for each row: what the features become (normalised, square rooted, ...), and numbers for the whole row.
    Without it the panels are ``(x,)`` and there are no stats.
``terms(*x_panels, *y_panels) -> (term, ...)``
    One or more numbers for one feature of one pair. The engine joins each over the features by ``reduce``.
``finish(reduced, x_stats, y_stats, n) -> distance``
    From the joined terms; ``n`` is the number of features, or the sum of the weights.

The same text runs on whole arrays (``xp`` is an array namespace) and on scalars (``xp`` is a module of scalar
functions), so it may use operators and functions of ``xp`` only, and no Python ``if`` on a value.

Gradients come from the library that differentiates the text, so the text must be safe to differentiate: every division,
root and logarithm that can meet 0 goes through the helpers below, which take the branch *before* and *after*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Array = Any
Domain = Literal["real", "boolean", "nonnegative", "complex", "ball", "latlon"]


class Pieces(NamedTuple):
    """The expressions that define a metric; see the module's first lines."""

    terms: Callable[..., tuple[Array, ...]]
    finish: Callable[..., Array]
    prepare: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]] | None = None


@dataclass(frozen=True, eq=False)
class Metric:
    """One row of the table: a definition and the facts that the engines, the tests and the docs need."""

    name: str
    define: Callable[..., Pieces]
    formula: str
    source: str
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Parameters with their defaults."""
    reduce: Literal["sum", "max"] = "sum"
    product: Literal["dot", "squared", "both", "quadratic"] | None = None
    """How a matrix product gives the joined terms: x . y;  |x - y|^2;  |x - y|^2 and |x + y|^2;  a quadratic form."""
    scale: Literal["difference", "pair", "term", "row"] | None = None
    """What may be divided by its largest magnitude so that nothing overflows: x - y (the distance scales with it), both
    rows together, both values of a term, or each row by itself (the distance does not change)."""
    domain: Domain = "real"
    symmetric: bool = True
    zero_self: bool = True
    """d(x, x) is exactly 0."""
    triangle: bool = False
    weights: bool = True
    omit: bool = False
    """``nan_policy="omit"`` has a meaning: terms of single features, joined by a sum or a maximum."""
    differentiable: bool = True
    buffers: int = 3
    """Temporaries of (pairs x features) numbers alive at once in ``terms``."""
    kind: Literal["distance", "kernel", "similarity"] = "distance"

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can compute it, where the backend has them: all but plain products run compiled."""
        streaming = self.product in (None, "squared") and self.domain in ("real", "nonnegative", "latlon")
        return ("array", *(("native",) if self.product else ()), *(("compiled",) if streaming else ()))


METRICS: dict[str, Metric] = {}
KERNELS: dict[str, Metric] = {}
SIMILARITIES: dict[str, Metric] = {}
_TABLES = {"distance": METRICS, "kernel": KERNELS, "similarity": SIMILARITIES}


def metric(formula: str, source: str, **facts: Any) -> Callable[[Callable[..., Pieces]], Callable[..., Pieces]]:
    """Enter the decorated definition into its table, under the function's name."""

    def enter(define: Callable[..., Pieces]) -> Callable[..., Pieces]:
        row = Metric(facts.pop("name", define.__name__), define, formula, source, **facts)
        _TABLES[row.kind][row.name] = row
        return define

    return enter


# --- safe to differentiate ---------------------------------------------------------------------------------------------


def divide(xp: Any, a: Array, b: Array, at_zero: float = 0.0) -> Array:
    """a / b, and ``at_zero`` with gradient 0 where b is 0."""
    zero = b == 0
    return xp.where(zero, at_zero, xp.divide(a, xp.where(zero, 1.0, b)))


def quotient(xp: Any, a: Array, b: Array) -> Array:
    """a / b, and 0 where both are 0: a term of a sum of such."""
    if (own := getattr(xp, "quotient", None)) is not None:  # the compiled engine's, by one division for two features
        return own(a, b)
    return divide(xp, a, b)


def root(xp: Any, a: Array) -> Array:
    """Square root with gradient 0 at 0; negative and NaN give NaN."""
    zero = a == 0
    return xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, a)))


def power(xp: Any, a: Array, exponent: float) -> Array:
    """a ** exponent for a >= 0, with gradient 0 at 0."""
    zero = a == 0
    return xp.where(zero, 0.0, xp.where(zero, 1.0, a) ** exponent)


def log_ratio(xp: Any, p: Array, q: Array) -> Array:
    """log(p / q) for p, q > 0, to the last digits also where the two are near each other."""
    if (own := getattr(xp, "log_ratio", None)) is not None:  # the compiled engine's, by one logarithm
        return own(p, q)
    # Close to 1 the ratio is known best by its difference from 1; where it, or its slope, would overflow, by two logarithms.
    ratio = p / q
    far = (ratio < 1e-18) | (ratio > 1e18)
    a, b = xp.where(far, 1.0, p), xp.where(far, 1.0, q)
    u = (a - b) / b
    near = xp.abs(u) < 0.5
    log = xp.where(far, xp.log(p) - xp.log(q), xp.log(a / b))
    return xp.where(near & ~far, xp.log1p(xp.where(near, u, 0.0)), log)


def two_entropies(xp: Any, u: Array) -> Array:
    """(1 + u) log(1 + u) + (1 - u) log(1 - u) for -1 < u < 1, to the last digits also for small u."""
    if (own := getattr(xp, "two_entropies", None)) is not None:
        return own(u)
    # Near 0 the two cancel, and near 1 it is u * u that has lost digits: no form is good for both.
    a, b = xp.log1p(u), xp.log1p(-u)
    return xp.where(xp.abs(u) > 0.5, (1.0 + u) * a + (1.0 - u) * b, xp.log1p(-u * u) + u * (a - b))


def jensen(xp: Any, x: Array, y: Array) -> Array:
    """Half of x log(2x / (x + y)) + y log(2y / (x + y)), x, y >= 0: by u = (x - y) / (x + y), so that near numbers keep their digits."""
    if (own := getattr(xp, "jensen", None)) is not None:
        return own(x, y)
    s = x + y
    u = divide(xp, x - y, s)
    inner = xp.abs(u) != 1
    return xp.where(inner, 0.25 * s * two_entropies(xp, xp.where(inner, u, 0.0)), (0.5 * math.log(2)) * xp.maximum(x, y))


def first(reduced: tuple[Array, ...], x: tuple[Array, ...], y: tuple[Array, ...], n: Any) -> Array:
    """The ``finish`` of a metric that is its one joined term."""
    return reduced[0]


def total(xp: Any, x: Array, w: Array | None) -> Array:
    """Weighted sum over the features, kept as an axis of length 1."""
    return xp.sum(x if w is None else x * w, axis=-1, keepdims=True)


def unit_rows(xp: Any, x: Array, w: Array | None, at_zero: float) -> Array:
    """Rows of (weighted) 2-norm 1; a zero row stays 0, or becomes NaN in SciPy's manner."""
    return divide(xp, x, root(xp, total(xp, x * x, w)), at_zero)


def sum_one(xp: Any, x: Array, at_zero: float = 0.0) -> Array:
    """Rows of sum 1."""
    return divide(xp, x, total(xp, x, None), at_zero)


# --- differences --------------------------------------------------------------------------------------------------------


@metric(
    r"\sum_k w_k (x_k - y_k)^2",
    "scipy.spatial.distance.sqeuclidean",
    aliases=("sqe", "sqeuclid"),
    product="squared",
    omit=True,
    buffers=2,
)
def sqeuclidean(xp: Any) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        d = x - y
        return (d * d,)

    return Pieces(terms, first)


@metric(
    r"\sqrt{\sum_k w_k (x_k - y_k)^2}",
    "scipy.spatial.distance.euclidean",
    aliases=("euclid", "eu", "e", "l2"),
    product="squared",
    scale="difference",
    triangle=True,
    omit=True,
    buffers=2,
)
def euclidean(xp: Any) -> Pieces:
    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return root(xp, reduced[0])

    return Pieces(sqeuclidean(xp).terms, finish)


@metric(
    r"\sqrt{\frac{\sum_k w_k}{\sum_{k\ \text{present}} w_k} \sum_{k\ \text{present}} w_k (x_k - y_k)^2}",
    "sklearn.metrics.pairwise.nan_euclidean_distances",
    scale="difference",
    omit=True,
    zero_self=False,
    buffers=6,
)
def nan_euclidean(xp: Any) -> Pieces:
    return euclidean(xp)


@metric(
    r"\sqrt{\sum_k w_k (x_k - y_k)^2 / V_k}",
    "scipy.spatial.distance.seuclidean",
    aliases=("se", "s"),
    defaults={"V": None},
    product="squared",
    scale="difference",
    triangle=True,
    omit=True,
    buffers=2,
)
def seuclidean(xp: Any) -> Pieces:  # V enters as a weight 1 / V
    return euclidean(xp)


@metric(
    r"\sqrt{(x - y)\, V^{-1} (x - y)^T}",
    "scipy.spatial.distance.mahalanobis",
    aliases=("mahal", "mah"),
    defaults={"VI": None, "cov": None},
    product="quadratic",
    scale="difference",
    triangle=True,
    weights=False,
    buffers=4,
)
def mahalanobis(xp: Any) -> Pieces:
    # A quadratic form of x - y mixes the features: the engine gives terms the difference and its product with VI.
    def terms(d: Array, mixed: Array) -> tuple[Array, ...]:
        return (d * mixed,)

    return Pieces(terms, euclidean(xp).finish)


@metric(
    r"\sum_k w_k |x_k - y_k|",
    "scipy.spatial.distance.cityblock",
    aliases=("manhattan", "l1", "cblock", "cb", "c", "taxicab"),
    triangle=True,
    omit=True,
    buffers=2,
)
def cityblock(xp: Any) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        return (xp.abs(x - y),)

    return Pieces(terms, first)


@metric(
    r"\max_{k:\ w_k > 0} |x_k - y_k|",
    "scipy.spatial.distance.chebyshev",
    aliases=("chebychev", "cheby", "cheb", "ch", "linf", "infinity"),
    reduce="max",
    triangle=True,
    omit=True,
    buffers=2,
)
def chebyshev(xp: Any) -> Pieces:
    return cityblock(xp)


@metric(
    r"\left(\sum_k w_k |x_k - y_k|^p\right)^{1/p}",
    "scipy.spatial.distance.minkowski",
    aliases=("mi", "m", "pnorm", "p", "lp"),
    defaults={"p": 2.0},
    scale="difference",
    omit=True,
    buffers=5,
)
def minkowski(xp: Any, p: float) -> Pieces:  # p = 0, 1, 2 and inf are rows of their own: see ``resolve``
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        a = xp.abs(x - y)
        return (a * a * a,) if p == 3 else (power(xp, a, p),)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return power(xp, reduced[0], 1 / p)

    return Pieces(terms, finish)


@metric(
    r"\sum_k w_k \frac{|x_k - y_k|}{|x_k| + |y_k|}",
    "scipy.spatial.distance.canberra",
    scale="term",
    triangle=True,
    omit=True,
    buffers=5,
)
def canberra(xp: Any) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        return (quotient(xp, xp.abs(x - y), xp.abs(x) + xp.abs(y)),)

    return Pieces(terms, first)


@metric(
    r"\frac{\sum_k w_k |x_k - y_k|}{\sum_k w_k |x_k + y_k|}",
    "scipy.spatial.distance.braycurtis",
    scale="pair",
    omit=True,
    buffers=3,
    defaults={"zero": 0.0},
)
def braycurtis(xp: Any, zero: float = 0.0) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        return xp.abs(x - y), xp.abs(x + y)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return divide(xp, reduced[0], reduced[1], zero)

    return Pieces(terms, finish)


@metric(
    r"1 - \frac{\sum_k w_k \min(x_k, y_k)}{\sum_k w_k \max(x_k, y_k)}",
    "Ruzicka 1958; the weighted Jaccard distance",
    aliases=("weighted_jaccard",),
    scale="pair",
    domain="nonnegative",
    triangle=True,
    omit=True,
    buffers=4,
)
def ruzicka(xp: Any) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        return xp.abs(x - y), x + y  # whose sum is twice max(x, y); the gradient is shared at a tie

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return divide(xp, 2.0 * reduced[0], reduced[0] + reduced[1])

    return Pieces(terms, finish)


@metric(
    r"\tfrac{1}{\sum_k w_k} \sum_k w_k [x_k \neq y_k]",
    "scipy.spatial.distance.hamming",
    aliases=("matching", "hamm", "ha", "h"),
    defaults={"normalize": True},
    triangle=True,
    omit=True,
    differentiable=False,
    buffers=4,
)
def hamming(xp: Any, normalize: bool = True) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        # x - y is NaN where either is, and where both are the same infinity: only the first must stay.
        return (xp.where((x != x) | (y != y), math.nan, xp.where(x != y, xp.ones_like(x + y), 0.0)),)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return divide(xp, reduced[0], n) if normalize else reduced[0]

    return Pieces(terms, finish)


# --- products of rows ---------------------------------------------------------------------------------------------------


def dot_terms(x: Array, y: Array) -> tuple[Array, ...]:
    return (x * y,)


@metric(
    r"\sum_k w_k \overline{x_k}\, y_k",
    "numpy.vecdot",
    aliases=("inner", "dot", "ip"),
    product="dot",
    domain="complex",
    symmetric=True,
    zero_self=False,
    buffers=1,
)
def inner_product(xp: Any) -> Pieces:
    return Pieces(dot_terms, first)


@metric(
    r"1 - \frac{\sum_k w_k x_k y_k}{\sqrt{\sum_k w_k x_k^2} \sqrt{\sum_k w_k y_k^2}}",
    "scipy.spatial.distance.cosine",
    aliases=("cos",),
    defaults={"zero": 0.0},
    product="dot",
    scale="row",
    buffers=1,
)
def cosine(xp: Any, zero: float = 0.0) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (unit_rows(xp, x, w, zero),), ()

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return xp.clip(1.0 - reduced[0], 0.0, 2.0)

    return Pieces(dot_terms, finish, prepare)


@metric(
    r"1 - \cos(x - \bar x,\ y - \bar y), \quad \bar x = \tfrac{\sum_k w_k x_k}{\sum_k w_k}",
    "scipy.spatial.distance.correlation",
    aliases=("co", "pearson"),
    defaults={"zero": 0.0},
    product="dot",
    scale="row",
    buffers=1,
)
def correlation(xp: Any, zero: float = 0.0) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        known = w is None and x.shape[-1] is not None
        count = max(int(x.shape[-1]), 1) if known else total(xp, xp.ones_like(x if w is None else w), w)
        # A constant row must become exactly 0, and 1000 + noise must keep its digits: take off the first value, then the mean.
        x = x - x[..., : 0 if x.shape[-1] == 0 else 1]
        x = x - (total(xp, x, w) / count if w is None else divide(xp, total(xp, x, w), count))
        return (unit_rows(xp, x, w, zero),), ()

    return Pieces(dot_terms, cosine(xp).finish, prepare)


@metric(
    r"\tfrac{2}{\pi} \operatorname{atan2}\left(|\hat x - \hat y|,\ |\hat x + \hat y|\right), \quad \hat x = x / |x|",
    "Kahan, How futile are mindless assessments of roundoff, section 12",
    product="both",
    scale="row",
    triangle=True,
    buffers=4,
)
def angular(xp: Any) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (unit_rows(xp, x, w, 0.0),), ()

    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        d, s = x - y, x + y
        return d * d, s * s

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        # Two zero rows meet at atan2(0, 0): similarity 0 with anything, so a right angle.
        d, s = reduced
        neither = (d == 0) & (s == 0)
        angle = xp.atan2(root(xp, d), root(xp, xp.where(neither, 1.0, s)))
        return xp.where(neither, 0.5, angle * (2 / math.pi))

    return Pieces(terms, finish, prepare)


@metric(
    r"\sqrt{\tfrac12 \sum_k w_k \left(\sqrt{\hat x_k} - \sqrt{\hat y_k}\right)^2}, \quad \hat x = x / \textstyle\sum_k x_k",
    "Hellinger 1909",
    product="squared",
    scale="row",
    domain="nonnegative",
    triangle=True,
    buffers=2,
)
def hellinger(xp: Any) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (root(xp, sum_one(xp, x)),), ()

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return root(xp, 0.5 * reduced[0])

    return Pieces(sqeuclidean(xp).terms, finish, prepare)


@metric(
    r"\operatorname{arcosh}\left(1 + 2 \frac{|x - y|^2}{(1 - |x|^2)(1 - |y|^2)}\right)",
    "Nickel and Kiela 2017, equation 1",
    product="squared",
    domain="ball",
    triangle=True,
    weights=False,
    buffers=2,
)
def poincare(xp: Any) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        inside = 1.0 - total(xp, x * x, None)
        return (x,), (xp.where(inside > 0, inside, math.nan),)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        u = 2.0 * reduced[0] / (x[0] * y[0])
        return xp.log1p(u + root(xp, u * (u + 2.0)))

    return Pieces(sqeuclidean(xp).terms, finish, prepare)


@metric(
    r"2 \arcsin\sqrt{\sin^2\tfrac{\Delta\phi}{2} + \cos\phi_x \cos\phi_y \sin^2\tfrac{\Delta\lambda}{2}}",
    "sklearn.metrics.pairwise.haversine_distances",
    domain="latlon",
    triangle=True,
    weights=False,
    buffers=4,
)
def haversine(xp: Any) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (x[..., :1], x[..., 1:]), ()

    def terms(lat_x: Array, lon_x: Array, lat_y: Array, lon_y: Array) -> tuple[Array, ...]:
        a, b = xp.sin(0.5 * (lat_x - lat_y)), xp.sin(0.5 * (lon_x - lon_y))
        return (a * a + xp.cos(lat_x) * xp.cos(lat_y) * b * b,)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        h = xp.clip(reduced[0], 0.0, 1.0)
        return 2.0 * xp.atan2(root(xp, h), root(xp, 1.0 - h))

    return Pieces(terms, finish, prepare)


# --- distributions ------------------------------------------------------------------------------------------------------


@metric(
    r"\sqrt{\tfrac12 \sum_k w_k \left(\hat x_k \log\tfrac{\hat x_k}{m_k} + \hat y_k \log\tfrac{\hat y_k}{m_k}\right)},"
    r"\quad m = \tfrac{\hat x + \hat y}{2}",
    "scipy.spatial.distance.jensenshannon; Lin 1991",
    aliases=("js",),
    defaults={"base": None, "zero": 0.0},
    scale="row",
    domain="nonnegative",
    triangle=True,
    buffers=11,
)
def jensenshannon(xp: Any, base: float | None = None, zero: float = 0.0) -> Pieces:
    unit = 1.0 if base is None else 1.0 / math.log(base)

    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        stats = (xp.where(total(xp, x, None) == 0, math.inf, total(xp, x * 0.0, None)),) if math.isnan(zero) else ()
        return (sum_one(xp, x),), stats  # SciPy answers inf for a row of zeros

    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        return (jensen(xp, x, y),)

    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        r = reduced[0] + x[0] + y[0] if math.isnan(zero) else reduced[0]
        return root(xp, unit * xp.where(r < 0, 0.0, r))

    return Pieces(terms, finish, prepare)


@metric(
    r"\sum_k w_k\, x_k \log\tfrac{x_k}{y_k}",
    "Kullback and Leibler 1951; scipy.special.rel_entr",
    aliases=("kl", "kullback_leibler", "relative_entropy"),
    defaults={"normalize": False},
    domain="nonnegative",
    symmetric=False,
    buffers=11,
)
def kl_divergence(xp: Any, normalize: bool = False) -> Pieces:
    def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (sum_one(xp, x) if normalize else x,), ()

    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        plain = (x > 0) & (y > 0)
        log = log_ratio(xp, xp.where(plain, x, 1.0), xp.where(plain, y, 1.0))
        # 0 log 0 is 0, and p > 0 against q = 0 is inf; what is negative or NaN has no logarithm.
        special = xp.where((x == 0) & (y >= 0), 0.0, xp.where((x > 0) & (y == 0), math.inf, x + y + math.nan))
        return (xp.where(plain, x * log, special),)

    return Pieces(terms, first, prepare)


# --- booleans: from the number of features that are true in both rows, in one of them, in neither -----------------------

# Each count: from x . y, the sums of x and of y and the number of features; and as terms of its own, with what x and y lack.
_COUNTS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "both": (lambda dot, x, y, n: dot, lambda x, no_x, y, no_y: x * y),
    "only_x": (lambda dot, x, y, n: x - dot, lambda x, no_x, y, no_y: x * no_y),
    "only_y": (lambda dot, x, y, n: y - dot, lambda x, no_x, y, no_y: no_x * y),
    "differ": (lambda dot, x, y, n: (x - dot) + (y - dot), lambda x, no_x, y, no_y: x * no_y + no_x * y),
    "neither": (lambda dot, x, y, n: (n - x) - (y - dot), lambda x, no_x, y, no_y: no_x * no_y),
}


def _boolean(rule: Callable[..., Array], *counts: str) -> Callable[..., Pieces]:
    """A definition from ``rule(xp, zero, n, false in x, *counts)``.

    Without weights one product gives every count, exactly: they are whole numbers. With weights a difference of sums that
    should be 0 is a rounding error, and 0 / 0 any number: each count is a sum of its own then, without anything negative.
    """

    def define(xp: Any, zero: float = 0.0) -> Pieces:
        def prepare(x: Array, w: Array | None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            if w is None:
                return (x,), (total(xp, x, None),)
            return (x, 1.0 - x), (total(xp, x, w), total(xp, 1.0 - x, w))

        def terms(*panels: Array) -> tuple[Array, ...]:
            return dot_terms(*panels) if len(panels) == 2 else tuple(_COUNTS[c][1](*panels) for c in counts)

        def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
            if len(x) == 2:
                return rule(xp, zero, n, x[1], *reduced)
            return rule(xp, zero, n, n - x[0], *(_COUNTS[c][0](reduced[0], x[0], y[0], n) for c in counts))

        return Pieces(terms, finish, prepare)

    return define


def _jaccard(xp: Any, zero: float, n: Any, no_x: Array, both: Array, differ: Array) -> Array:
    return divide(xp, differ, both + differ)


def _dice(xp: Any, zero: float, n: Any, no_x: Array, both: Array, differ: Array) -> Array:
    return divide(xp, differ, 2.0 * both + differ, zero)


def _rogerstanimoto(xp: Any, zero: float, n: Any, no_x: Array, differ: Array) -> Array:
    return divide(xp, 2.0 * differ, n + differ)


def _russellrao(xp: Any, zero: float, n: Any, no_x: Array, both: Array, only_x: Array) -> Array:
    rest = no_x + only_x
    return divide(xp, rest, both + rest)


def _sokalsneath(xp: Any, zero: float, n: Any, no_x: Array, both: Array, differ: Array) -> Array:
    return divide(xp, 2.0 * differ, both + 2.0 * differ, zero)


def _yule(xp: Any, zero: float, n: Any, no_x: Array, both: Array, only_x: Array, only_y: Array, neither: Array) -> Array:
    cross = only_x * only_y
    return divide(xp, 2.0 * cross, both * neither + cross)


def _kulczynski1(xp: Any, zero: float, n: Any, no_x: Array, both: Array, differ: Array) -> Array:
    # A similarity by its nature: rows that agree wherever either is true are infinitely alike.
    return xp.where((differ == 0) & (both == 0), zero, divide(xp, both, differ, math.inf))


for _rule, _needs, _formula, _facts in (
    (_jaccard, "both differ", r"\frac{n_{10} + n_{01}}{n_{11} + n_{10} + n_{01}}",
     {"triangle": True, "aliases": ("jacc", "ja", "j", "tanimoto")}),
    (_dice, "both differ", r"\frac{n_{10} + n_{01}}{2 n_{11} + n_{10} + n_{01}}", {"defaults": {"zero": 0.0}}),
    (_rogerstanimoto, "differ", r"\frac{2 (n_{10} + n_{01})}{n_{11} + n_{00} + 2 (n_{10} + n_{01})}", {"triangle": True}),
    (_russellrao, "both only_x", r"\frac{n - n_{11}}{n}", {"zero_self": False}),
    (_sokalsneath, "both differ", r"\frac{2 (n_{10} + n_{01})}{n_{11} + 2 (n_{10} + n_{01})}",
     {"triangle": True, "defaults": {"zero": 0.0}}),
    (_yule, "both only_x only_y neither", r"\frac{2 n_{10} n_{01}}{n_{11} n_{00} + n_{10} n_{01}}", {}),
    (_kulczynski1, "both differ", r"\frac{n_{11}}{n_{10} + n_{01}}", {"zero_self": False, "defaults": {"zero": 0.0}}),
):
    _name = _rule.__name__[1:]
    metric(
        _formula,
        f"scipy.spatial.distance.{_name}",
        name=_name,
        product="dot",
        domain="boolean",
        differentiable=False,
        buffers=1,
        **_facts,
    )(_boolean(_rule, *_needs.split()))
metric(
    METRICS["rogerstanimoto"].formula,
    "scipy.spatial.distance.sokalmichener (SciPy up to 1.16)",
    name="sokalmichener",
    product="dot",
    domain="boolean",
    triangle=True,
    differentiable=False,
    buffers=1,
)(_boolean(_rogerstanimoto, "differ"))


# --- kernels, as scikit-learn names them, and similarities --------------------------------------------------------------


def _of_dot(after: Callable[..., Callable[[Any, Array], Array]]) -> Callable[..., Pieces]:
    def define(xp: Any, **params: Any) -> Pieces:
        rule = after(**params)

        def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
            return rule(xp, reduced[0])

        return Pieces(dot_terms, finish)

    return define


def _polynomial(gamma: float, degree: float, coef0: float) -> Callable[[Any, Array], Array]:
    return lambda xp, s: (gamma * s + coef0) ** degree


def _sigmoid(gamma: float, coef0: float) -> Callable[[Any, Array], Array]:
    return lambda xp, s: xp.tanh(gamma * s + coef0)


_kernel: dict[str, Any] = {"kind": "kernel", "zero_self": False}
metric(r"\sum_k w_k \overline{x_k} y_k", "sklearn.metrics.pairwise.linear_kernel", name="linear", product="dot", domain="complex",
       buffers=1, **_kernel)(inner_product)  # fmt: skip
metric(r"(\gamma\, x \cdot y + c_0)^{\text{degree}}", "sklearn.metrics.pairwise.polynomial_kernel", name="polynomial", aliases=("poly",),
       defaults={"gamma": None, "degree": 3, "coef0": 1.0}, product="dot", buffers=1, **_kernel)(_of_dot(_polynomial))  # fmt: skip
metric(r"\tanh(\gamma\, x \cdot y + c_0)", "sklearn.metrics.pairwise.sigmoid_kernel", name="sigmoid",
       defaults={"gamma": None, "coef0": 1.0}, product="dot", buffers=1, **_kernel)(_of_dot(_sigmoid))  # fmt: skip


@metric(
    r"\exp(-\gamma \sum_k w_k (x_k - y_k)^2)",
    "sklearn.metrics.pairwise.rbf_kernel",
    aliases=("gaussian",),
    defaults={"gamma": None},
    product="squared",
    buffers=2,
    **_kernel,
)
def rbf(xp: Any, gamma: float) -> Pieces:
    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return xp.exp(-gamma * reduced[0])

    return Pieces(sqeuclidean(xp).terms, finish)


@metric(
    r"\exp(-\gamma \sum_k w_k |x_k - y_k|)",
    "sklearn.metrics.pairwise.laplacian_kernel",
    defaults={"gamma": None},
    buffers=2,
    **_kernel,
)
def laplacian(xp: Any, gamma: float) -> Pieces:
    return Pieces(cityblock(xp).terms, rbf(xp, gamma).finish)


@metric(
    r"-\sum_k w_k \frac{(x_k - y_k)^2}{x_k + y_k}",
    "sklearn.metrics.pairwise.additive_chi2_kernel",
    domain="nonnegative",
    buffers=5,
    **_kernel,
)
def additive_chi2(xp: Any) -> Pieces:
    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        d = x - y
        return (-d * divide(xp, d, x + y),)  # the square by itself may overflow

    return Pieces(terms, first)


@metric(
    r"\exp\left(-\gamma \sum_k w_k \frac{(x_k - y_k)^2}{x_k + y_k}\right)",
    "sklearn.metrics.pairwise.chi2_kernel",
    defaults={"gamma": 1.0},
    domain="nonnegative",
    buffers=5,
    **_kernel,
)
def chi2(xp: Any, gamma: float) -> Pieces:
    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return xp.exp(gamma * reduced[0])

    return Pieces(additive_chi2(xp).terms, finish)


def _cosine_similarity(xp: Any, zero: float = 0.0) -> Pieces:
    def finish(reduced: tuple[Array, ...], x: Any, y: Any, n: Any) -> Array:
        return xp.clip(reduced[0], -1.0, 1.0)

    return Pieces(dot_terms, finish, cosine(xp, zero).prepare)


_similar: dict[str, Any] = {"zero_self": False, "product": "dot", "buffers": 1}
for _kind, _source in (("kernel", "sklearn.metrics.pairwise.cosine_similarity"), ("similarity", "torch.nn.functional.cosine_similarity")):
    metric(r"\frac{x \cdot y}{|x| |y|}", _source, name="cosine", kind=_kind, scale="row", **_similar)(_cosine_similarity)
metric(r"\sum_k w_k \overline{x_k} y_k", "numpy.vecdot", name="dot", aliases=("inner_product", "ip"), kind="similarity", domain="complex",
       **_similar)(inner_product)  # fmt: skip


# --- by name ------------------------------------------------------------------------------------------------------------

_ALIASES = {kind: {alias: row.name for row in table.values() for alias in row.aliases} for kind, table in _TABLES.items()}


def lookup(name: str, kind: str = "distance") -> Metric:
    """The row of that name or alias (any case; spaces and hyphens as underscores).

    Raises
    ------
    ValueError
        If there is no such row; the nearest names are offered.
    """
    table = _TABLES[kind]
    key = name.lower().replace("-", "_").replace(" ", "_")
    row = table.get(key) or table.get(_ALIASES[kind].get(key, ""))
    if row is None:
        from difflib import get_close_matches

        near = get_close_matches(key, [*table, *_ALIASES[kind]], n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        noun = "metric" if kind == "distance" else kind
        raise ValueError(f"{noun}={name!r} is unknown.{hint} Known: {', '.join(sorted(table))}.")
    return row


def resolve(row: Metric, params: dict[str, Any]) -> tuple[Metric, dict[str, Any]]:
    """Minkowski's special exponents are other rows: p = 0 counts, 1 and 2 have faster forms, inf is the maximum."""
    if row.name == "minkowski":
        p = params.pop("p")
        special = {0: "hamming", 1: "cityblock", 2: "euclidean", math.inf: "chebyshev"}
        if p in special:
            return METRICS[special[p]], ({"normalize": False} if p == 0 else {})
        params = {"p": float(p)}
    return row, params
