"""What every loss shares: its row in the table, its arguments brought in, its reduction, and the rows that a block may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .. import checks
from .. import plan as plans
from ..backend import Backend, find

Array = Any
F = TypeVar("F", bound=Callable[..., Any])

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True, eq=False)
class Loss:
    """One row of the table: what a loss averages over, and where it comes from."""

    name: str
    function: Callable[..., Any]
    family: str
    inputs: str
    """What it is called with: tests, benchmarks and docs make their inputs by this word (see tests/loss_inputs.py)."""
    unit: str
    """What has one value under ``reduction="none"``, and one weight in ``weights``."""
    mean: str
    """What the mean divides by, without weights."""
    formula: str
    source: str
    differentiable: bool = True
    pairs: bool = False
    """Whether it looks at all pairs, so that it walks tiles under ``max_bytes``."""


LOSSES: dict[str, Loss] = {}


def loss(family: str, *, inputs: str, unit: str, mean: str, formula: str, source: str, **facts: Any) -> Callable[[F], F]:
    """Register a function as a loss."""

    def register(function: F) -> F:
        name = function.__name__
        LOSSES[name] = Loss(name, function, family, inputs, unit, mean, formula, source, **facts)
        return function

    return register


# --- arguments ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrays:
    """The arrays of one call, of one library and in one computing dtype."""

    backend: Backend
    compute: Any
    answer: Any
    values: dict[str, Any]
    beyond: Array | None = None
    """Added to the answer: infinite where products overflow (:func:`roomy`)."""

    @property
    def xp(self) -> Any:
        return self.backend.xp

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def shape(self, name: str) -> tuple[Any, ...]:
        return self.backend.shape(self.values[name])

    def bring(self, value: Any, dtype: Any = None) -> Array:
        """An auxiliary argument (a list, a NumPy array, the library's own) in the library, on the device of the arrays."""
        like = next(v for v in self.values.values() if v is not None)
        return self.backend.asarray(value, like, dtype)

    def number(self, name: str, value: Any, **rules: Any) -> Any:
        """A hyper-parameter: a Python number, checked, or the library's own scalar, which may be learnt."""
        if isinstance(value, bool | int | float):
            return checks.number(name, value, **rules)
        found = self.bring(value, self.compute)
        if len(self.backend.shape(found)) > 0 and any(n != 1 for n in self.backend.shape(found)):
            raise ValueError(f"{name} has shape {checks.shown(self.backend.shape(found))}: expected a number.")
        return self.xp.reshape(found, ())


@dataclass(frozen=True)
class Scale:
    """What similarities are multiplied by: a number, or the library's scalar, which goes to every block by ``whole``."""

    value: Any
    inverse: bool
    """Whether the value is a temperature."""

    @property
    def whole(self) -> tuple[Array, ...]:
        return () if isinstance(self.value, float) else (self.value,)

    def of(self, whole: tuple[Array, ...] = ()) -> Any:
        """The factor, inside a block: its array is the last of ``whole``."""
        value = self.value if isinstance(self.value, float) or not whole else whole[-1]
        return 1.0 / value if self.inverse else value


def temperature(a: Arrays, value: Any, name: str = "temperature") -> Scale:
    """1 / t."""
    return Scale(a.number(name, value, positive=True, zero_ok=False), True)


def arrays(*, quadratic: bool = False, bounded: bool = False, **given: Any) -> Arrays:
    """Check the floating arrays of a call: one library, one device, one dtype to compute in. None stays None.

    Half precision is computed in float32 and answered in half; integers and booleans take the library's default float.
    ``quadratic``: whether products of the values are compared with each other, so that they need :func:`roomy`.
    ``bounded``: whether what overflows is cut before it is compared (``_score.bounded``), so that an infinite value would be hidden.
    """
    present = {k: v for k, v in given.items() if v is not None}
    backend = find(**present)
    if backend.lazy:
        raise TypeError(f"{', '.join(present)}: losses need arrays in memory; pass the chunks themselves, x.compute().")
    present = {k: backend.coerce(v, k) for k, v in present.items()}
    checks.same_device(backend, **present)
    xp = backend.xp
    compute, answer = checks.dtypes(backend, None, None, **present)
    if backend.kind(backend, compute) == "complex floating":
        raise TypeError(f"{', '.join(present)}: losses take real numbers.")
    cast = {k: None if given[k] is None else xp.astype(present[k], compute, copy=False) for k in given}
    found = Arrays(backend, compute, answer, cast)
    return roomy(found, quadratic, bounded) if quadratic or bounded else found


def most(a: Arrays, x: Array) -> float:
    """Products of rows up to here cannot overflow, at a temperature of 1e-6 neither."""
    d = a.backend.shape(x)[-1]
    return math.sqrt(float(a.xp.finfo(x.dtype).max) / 4e6 / (max(d, 1) if isinstance(d, int) else 1e6))


def top(a: Arrays, x: Array) -> Array:
    """The largest of the absolute values."""
    fixed = a.backend.detach(x)
    return a.xp.maximum(a.xp.max(fixed), -a.xp.min(fixed))  # max(abs(x)) would copy x


def roomy(a: Arrays, quadratic: bool, bounded: bool) -> Arrays:
    """Values whose products overflow in float32 are computed in float64: what is subtracted from each other must not be cut before.

    Where values cannot be looked at (a traced call), and where there is nothing wider, the answer is infinite instead; of infinite
    values that would be cut it is NaN.
    """
    xp = a.xp
    given = [v for v in a.values.values() if v is not None and not any(isinstance(n, int) and n == 0 for n in a.backend.shape(v))]
    if not given:
        return a
    sizes = [top(a, v) for v in given]
    zero, inf, nan = (xp.full_like(sizes[0], n) for n in (0.0, math.inf, math.nan))
    lost, beyond = zero, zero
    for s, v in zip(sizes, given, strict=True):
        if bounded:
            lost = lost + xp.where(s == math.inf, nan, zero)
        if quadratic:
            beyond = xp.where((s > most(a, v)) & (s < math.inf), inf, beyond)
    beyond = beyond + lost
    if a.backend.traced(*given):
        return replace(a, beyond=beyond)
    if not bool(beyond != 0):  # NaN is not
        return a
    if bool(lost == 0) and (wide := wider(a)) is not None:
        return replace(a, compute=wide, values={k: None if v is None else xp.astype(v, wide) for k, v in a.values.items()})
    return replace(a, beyond=beyond)


def wider(a: Arrays) -> Any:
    """float64, where the values are narrower and the library has it on their device."""
    like = next(v for v in a.values.values() if v is not None)
    try:
        wide = a.xp.float64
        a.xp.zeros((), dtype=wide, device=a.backend.device(like))
    except TypeError:  # JAX without x64, Apple's GPUs
        return None
    return None if like.dtype == wide else wide


def fits(shape: tuple[Any, ...], want: tuple[Any, ...]) -> bool:
    """Whether a shape is the wanted one, as far as both are known."""
    known = (p == q for p, q in zip(shape, want, strict=False) if isinstance(p, int) and isinstance(q, int))
    return len(shape) == len(want) and all(known)


def same_shape(a: Arrays, x: str, y: str) -> None:
    """Refuse shapes that would broadcast: (B, 1) labels beside (B,) values become (B, B)."""
    sx, sy = a.shape(x), a.shape(y)
    if not fits(sx, sy):
        raise ValueError(f"{x} has shape {checks.shown(sx)} and {y} {checks.shown(sy)}: they must be the same (nothing is broadcast).")


def vectors(a: Arrays, *names: str) -> None:
    """Refuse what is not a set of vectors, and sets with different numbers of features."""
    for name in names:
        if a[name] is not None:
            shape = a.shape(name)
            if len(shape) != 2:
                raise ValueError(f"{name} has shape {checks.shown(shape)}: expected (rows, features).")
            checks.equal_size(names[0], a.shape(names[0]), name, shape, -1, "numbers of features")


def class_labels(a: Arrays, value: Any, rows: Any, name: str = "labels", several: bool = True) -> Array:
    """Labels of shape (rows,); (rows, 1) is the same; (rows, classes) of 0 and 1 is several labels for each row."""
    found = a.bring(value)
    shape = a.backend.shape(found)
    if len(shape) == 2 and shape[1] == 1:
        found = a.xp.reshape(found, (-1,))
        shape = (shape[0],)
    allowed = (1, 2) if several else (1,)
    if len(shape) not in allowed or not fits(shape[:1], (rows,)):
        more = (
            f", ({checks.shown((rows,))[1:-2]}, 1) or, for several labels each, ({checks.shown((rows,))[1:-2]}, classes)" if several else ""
        )
        raise ValueError(f"{name} has shape {checks.shown(shape)}: expected {checks.shown((rows,))}{more}.")
    kind = a.backend.kind(a.backend, found.dtype)
    if kind == "bool":
        found = a.xp.astype(found, a.xp.int32)
    elif kind not in ("integral", "real floating"):
        raise TypeError(f"{name} has dtype {checks.dtype_name(found.dtype)}: expected integers or booleans.")
    return found


def truth(a: Arrays, value: Any) -> Array:
    """A mask: booleans, or numbers that are 0 or not."""
    found = a.bring(value)
    return found if a.backend.kind(a.backend, found.dtype) == "bool" else found != 0


class Learnt:
    """Hyper-parameters of which some may be learnt: numbers, and scalars of the library, which go to every block (``whole=``)."""

    def __init__(self, a: Arrays, rules: dict[str, dict[str, Any]] | None = None, **given: Any) -> None:
        found = {k: a.number(k, v, **(rules or {}).get(k, {})) for k, v in given.items()}
        self.numbers = {k: v for k, v in found.items() if isinstance(v, float)}
        self.names = [k for k in found if k not in self.numbers]
        self.whole = tuple(found[k] for k in self.names)

    def of(self, whole: tuple[Array, ...]) -> dict[str, Any]:
        """All of them by name, the learnt ones as they came to a block."""
        return {**self.numbers, **dict(zip(self.names, whole, strict=True))}


# --- reduction ----------------------------------------------------------------------------------------------------------


def reduce(
    a: Arrays,
    values: Array,
    *,
    reduction: str,
    weights: Any = None,
    active: Array | None = None,
    mass: Array | None = None,
    sizes: Array | None = None,
    return_count: bool = False,
) -> Any:
    """The values of the units to the answer: a mean over those that took part, their sum, or each by itself.

    A weighted mean divides by the sum of the weights of those that took part, each times its ``mass`` (the weight of a label's
    class, the number of pairs of an anchor; default 1); an empty mean is 0.
    A unit that is itself the mean of several terms (of an anchor's triplets) says by ``sizes`` of how many: it stands for all of them.
    """
    xp = a.xp
    plans.choice("reduction", reduction, REDUCTIONS)
    one = xp.ones_like(values)
    part = one if active is None else xp.astype(active, values.dtype)
    if weights is not None:
        part = part * unit_weights(a, weights, a.backend.shape(values))
    if sizes is not None:
        part = part * sizes
    counted = part != 0
    values = xp.where(counted, values, xp.zeros_like(values))  # 0 times an infinite value is 0
    if reduction == "none":
        result = values * part
    elif reduction == "sum":
        result = xp.sum(values * part)
    else:
        total = xp.sum(part if mass is None else part * mass)
        # Shares first: the sum of representable values may not be representable, their mean is.
        result = xp.sum(values * (part / xp.where(total == 0, xp.ones_like(total), total)))
    if a.beyond is not None:
        result = result + a.beyond
    result = xp.astype(result, a.answer, copy=False)
    if not return_count:
        return result
    count = xp.sum(xp.astype(one if active is None else active, xp.int32), dtype=xp.int32)
    return result, count


def unit_weights(a: Arrays, weights: Any, want: tuple[Any, ...]) -> Array:
    """One weight for each unit."""
    w = a.bring(weights, a.compute)
    shape = a.backend.shape(w)
    if not fits(shape, want):
        raise ValueError(f"weights has shape {checks.shown(shape)}: expected one for each unit, {checks.shown(want)}.")
    return w


# --- scratch -------------------------------------------------------------------------------------------------------


def budget(max_bytes: int | str | None) -> int:
    """Scratch that a call may take."""
    chosen = max_bytes if max_bytes is not None else plans.current().max_bytes
    return plans.DEFAULT_MAX_BYTES if chosen is None else plans.parse_bytes(chosen)


def rows(a: Arrays, m: Any) -> Array:
    """Numbers of rows."""
    like = next(v for v in a.values.values() if v is not None)
    return a.xp.arange(m, dtype=a.xp.int32, device=a.backend.device(like))


BLOCK_BYTES = 16 << 20
"""Scratch of a block of anchors, where the budget allows it: what a processor's cache holds."""


def block_rows(a: Arrays, m: Any, n: Any, buffers: int, budget: int) -> Any:
    """How many anchors a block takes. Unknown sizes are planned when the graph runs."""
    size = a.backend.itemsize(a.compute)
    limit = max(1, min(budget, BLOCK_BYTES) // (buffers * size))
    if isinstance(n, int):
        fit = limit // max(n, 1)
        if fit < 1 and isinstance(m, int) and m and n:
            least = buffers * size * n
            if least > budget:
                raise ValueError(f"max_bytes={budget} is below one row of this call: {n} candidates need {least} bytes of scratch.")
            fit = 1
        return max(fit, 1)
    return m if a.backend.whole else a.xp.maximum(limit // a.xp.maximum(n, 1), 1)
