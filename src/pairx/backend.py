"""The Backend record, and how the backend of a call is found.

A backend is what one array library adds to the Array API standard. It is a plain record of functions: nothing to inherit
from, no priorities. It is found by the root module of the array's type, through the entry points ``pairx.backends``, and
the built-in ones register in just the same way as anybody else's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, TypeVar

Array = Any
Arrays = tuple[Array, ...]
Blocks = Callable[[Arrays, Arrays], Arrays]


def _shape(x: Array) -> tuple[Any, ...]:
    return tuple(x.shape)


def _device(x: Array) -> Any:
    return x.device


def _never(*arrays: Array) -> bool:
    return False


def _same(x: Array) -> Array:
    return x


def _unknown_memory(device: Any) -> int | None:
    return None


def _kind(backend: Backend, dtype: Any) -> str:
    for kind in ("bool", "integral", "real floating", "complex floating"):
        if backend.xp.isdtype(dtype, kind):
            return kind
    return "other"


def _put(block: Array, index: Array, values: Array) -> Array:
    """Write ``values`` at flat positions of a contiguous block, in place where the library allows it."""
    flat = block.reshape(-1)
    flat[index] = values
    return flat.reshape(block.shape)


def _blockwise(backend: Backend, function: Blocks, cut: Arrays, whole: Arrays, step: int) -> Arrays:
    """Eagerly, without gradients."""
    m = cut[0].shape[0]
    with backend.quiet():
        if m <= step:
            return function(cut, whole)
        pieces = [function(tuple(c[i : min(i + step, m), ...] for c in cut), whole) for i in range(0, m, step)]
    return tuple(backend.xp.concat(parts, axis=0) for parts in zip(*pieces, strict=True))


def _blocksum(backend: Backend, function: Any, cut: Arrays, whole: Arrays, step: int, combine: Any = None) -> Arrays:
    """Eagerly, without gradients."""
    m = cut[0].shape[0]
    total: Arrays | None = None
    for i in range(0, max(m, 1), step):
        with backend.quiet():
            found = function(tuple(c[i : min(i + step, m), ...] for c in cut), whole, None)
            if total is None:
                total = found
            else:
                total = combine(total, found) if combine else tuple(t + f for t, f in zip(total, found, strict=True))
    assert total is not None
    return total


@dataclass(frozen=True)
class Backend:
    """What one array library adds to the Array API.

    Parameters
    ----------
    name
        As users know it: ``"torch"``.
    xp
        Its Array API namespace.
    coerce
        ``coerce(value, name)``: the library's plain array of one argument. Raises TypeError with advice for relatives that
        mean something else (masked, sparse, ragged, ...), naming the argument.
    asarray
        ``asarray(value, like, dtype)``: an auxiliary argument (weights, labels) on the device of ``like``.
    run
        ``run(task)``: walk the tiles of the task's plan and return the result, with a gradient where the library has
        gradients. See :class:`pairx.engine.Task`.
    default_float
        What integers become: a dtype.
    shape, device
        Of one array. A size that is unknown while tracing is a 0-d integer array.
    traced
        Whether any of these arrays is abstract: no branch may look at values.
    differentiated
        Whether a gradient may be asked of any of these arrays: the plan must fit the backward pass too.
    detach
        The same values as a constant.
    kind
        ``kind(backend, dtype)``: "bool", "integral", "real floating", "complex floating" or "other".
    itemsize
        Bytes of one number of a dtype.
    put
        ``put(block, index, values)``: write at flat positions of a fresh block; returns the block.
    free_bytes
        Memory left on a device, or None where it is the computer's (or unknown).
    tile_bytes
        The scratch of one tile that is fastest, if the budget allows it.
    devices
        The devices present, as text.
    lowered
        Why matrix products of this array would lose digits (TF32, a lowered precision), or None.
    shares
        Whether two arrays may share memory.
    writable
        Whether an ``out`` array can be written.
    threads
        Whether tiles may run on several threads.
    quiet
        A context in which infinities and NaN raise no warnings: they are answers here.
    compiler
        ``compiler(rule, tensors, asked)``: the kernels of the compiled engine for a rule and the call's arrays, or why there are
        none; ``asked`` where the caller chose the engine. A library that traces says here whether its traced calls may.
    product
        ``product(rule, tensors)``: what runs a plain matrix product with machine code after it, or why there is nothing.
    host
        An array's memory as a NumPy array, for the compiled engine; a copy where NumPy lacks the dtype.
    guest
        A NumPy array as the library's own on the same memory.
    unwatched
        Whether these arrays lie in main memory and nobody watches what is done to them: no gradient, no trace, no transform. Then
        ``host`` and ``guest`` are all that a small call needs.
    substitutes
        Whether ``run`` differentiates by the array engine what a kernel has no derivative for.
    blockwise
        ``blockwise(backend, function, cut, whole, step)``: ``function(cut, whole)`` on blocks of at most ``step`` rows of the
        arrays ``cut``, its results joined; gradients pass through both, and the backward runs each block again.
    blocksum
        ``blocksum(backend, function, cut, whole, step, combine=None)``: ``function(cut, whole, live)`` on the same blocks, its
        results added up, or brought together by ``combine`` (then without a gradient). ``live`` (b,) says which rows count: the last
        block may repeat rows of the one before; None: all.
    prompt
        Whether a gradient may be asked of these arrays and ``blocksum`` takes that of a single differentiable number along with the sum.
    along
        ``along(x, index)``: x[i, index[i, k]] for (b, n) and (b, q), where every index is in range and none is negative: the
        library's own gather, without what ``take_along_axis`` does about other indices. None: ``xp.take_along_axis``.
    uniform
        ``uniform(rng, shape, like, dtype)``: random numbers in [0, 1) of the library's own kind of generator; None of any other.
    natives
        What the standard lacks and the library has in one piece, by name: ``relu``, with slope 0 at 0; ``softplus``, with 1/2;
        ``clip(s, low, high)``, whose gradient takes one pass; ``lse(s, mask)``, log sum of e^s over the last axis where the mask is;
        ``put(s, index, value)``, s with the value in column ``index[i]`` of each row i, in place;
        ``pair_sum(x, plain, kernel, labels, max_bytes, mean, term, numbers)``, the mean or the sum of
        ``term(a, distance, same, numbers)`` over each two rows of x, with its gradient; ``plain(x)`` is the same by ordinary
        operations; ``share_sum(x, plain, kernel, labels, max_bytes, mean, scale)``, of minus the logarithm of what an anchor's class has of
        e^(-scale d). The last four may answer None for arrays that they do not take.
    repairs
        Whether ``run`` may call ``forward``, which looks at eager values and computes again what cancellation spoilt.
    lazy
        Whether ``run`` answers before it computes: the result need not fit into memory then.
    whole
        Whether a traced call runs as one tile or one operator: its plan has no tiles, and its sizes may be symbols.
    """

    name: str
    xp: Any
    coerce: Callable[[Any, str], Array]
    asarray: Callable[[Any, Array, Any], Array]
    run: Callable[[Any], Array]
    default_float: Callable[[], Any]
    shape: Callable[[Array], tuple[Any, ...]] = _shape
    device: Callable[[Array], Any] = _device
    traced: Callable[..., bool] = _never
    differentiated: Callable[..., bool] = _never
    detach: Callable[[Array], Array] = _same
    kind: Callable[[Backend, Any], str] = _kind
    itemsize: Callable[[Any], int] = lambda dtype: int(dtype.itemsize)
    put: Callable[[Array, Array, Array], Array] = _put
    free_bytes: Callable[[Any], int | None] = _unknown_memory
    tile_bytes: int = 1 << 20
    devices: Callable[[], Sequence[str]] = lambda: ("cpu",)
    lowered: Callable[[Array], str | None] = lambda x: None
    shares: Callable[[Array, Array], bool] = lambda a, b: a is b
    writable: bool = True
    threads: bool = False
    quiet: Callable[[], Any] = nullcontext
    compiler: Callable[[Any, tuple[Array, ...], bool], Any] = lambda rule, tensors, asked: "the library has no compiled engine"
    product: Callable[[Any, tuple[Array, ...]], Any] = lambda rule, tensors: "the library has no compiled engine"
    host: Callable[[Array], Any] = _same
    guest: Callable[[Any], Array] = _same
    unwatched: Callable[..., bool] = _never
    substitutes: bool = False
    blockwise: Callable[..., tuple[Array, ...]] = _blockwise
    blocksum: Callable[..., tuple[Array, ...]] = _blocksum
    prompt: Callable[..., bool] = _never
    along: Callable[[Array, Array], Array] | None = None
    uniform: Callable[[Any, tuple[Any, ...], Array, Any], Array | None] = lambda rng, shape, like, dtype: None
    natives: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    repairs: bool = True
    lazy: bool = False
    whole: bool = False


_F = TypeVar("_F", bound=Callable[..., Any])


def trace_constant(function: _F) -> _F:
    """Tell torch.compile to call this once while it traces and keep the answer: settings and look-ups are no tensors."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


_KEYS: dict[type, str] = {}
"""Array type -> name of its backend's attribute in ``_FOUND``."""
_FOUND = SimpleNamespace()
"""The backends met so far. An object, since torch.compile sees what was added to it while it traces, and not so in a dict."""
_NUMPY_SCALARS = (bool, int, float, complex, list, tuple, range)

# Array types of libraries that are not arrays of numbers in memory, with what to do instead.
_NOT_ARRAYS = {
    "pandas": "pass its values: df.to_numpy()",
    "polars": "pass its values: df.to_numpy()",
    "pyarrow": "pass its values: table.to_pandas().to_numpy()",
    "scipy": "sparse arrays are not supported: pass x.toarray()",
    "sparse": "sparse arrays are not supported: pass x.todense()",
    "keras": "a symbolic Keras tensor has no values: call pairx inside Layer.call or a keras.layers.Lambda",
    "xarray": "pass its values: x.data",
    "mlx": "no backend is registered for it",
}


@cache
def entry_points() -> dict[str, Any]:
    """Root module of an array's type -> entry point of its backend."""
    from importlib.metadata import entry_points as installed  # 50 ms: only at the first look-up

    return {ep.name: ep for ep in installed(group="pairx.backends")}


@cache
def load(root: str) -> Backend:
    """The backend registered for a root module.

    Raises
    ------
    ImportError
        If the library is known to pairx but not installed; the message names the extra that brings it.
    """
    ep = entry_points()[root]
    try:
        found = ep.load()
    except ModuleNotFoundError as error:
        missing = (error.name or root).partition(".")[0]
        raise ImportError(f"The backend for {root} needs {missing}: {advice(root)}", name=error.name) from error
    if not isinstance(found, Backend):
        raise TypeError(f"The entry point {ep.value!r} of pairx.backends must be a pairx.Backend, not {type(found).__name__}.")
    return found


EXTRAS = {"cupy": "cuda12 or cuda13", "array_api_strict": "test", "numpy": "", "jaxlib": "jax"}


def advice(root: str) -> str:
    """The command that installs a library."""
    extra = EXTRAS.get(root, root)
    if root not in {*EXTRAS, "torch", "tensorflow", "jax", "dask"}:
        return f"install {root}"
    return (
        "pip install pairx"
        if not extra
        else f"pip install 'pairx[{extra.split(' or ')[0]}]'" + (f" (or [{extra.split(' or ')[1]}])" if " or " in extra else "")
    )


def of_type(kind: type, name: str = "x") -> Backend:
    """The backend of an array type: the first class of its MRO whose root module is registered."""
    found: Backend = getattr(_FOUND, _key(kind, name))
    return found


@trace_constant
def _key(kind: type, name: str) -> str:
    key = _KEYS.get(kind)
    return _enter(kind, name) if key is None else key


def _enter(kind: type, name: str) -> str:
    root: str | None = "numpy"
    if not issubclass(kind, _NUMPY_SCALARS):
        roots = [cls.__module__.partition(".")[0] for cls in kind.__mro__]
        for refused, why in _NOT_ARRAYS.items():
            # A variable of Keras is an array of its backend, too.
            if roots[0] == refused and refused not in entry_points() and not (refused == "keras" and set(roots) & {*entry_points()}):
                raise TypeError(f"{name} is a {kind.__module__}.{kind.__qualname__}, which pairx does not take; {why}.")
        root = next((r for r in roots if r in entry_points()), None)
    if root is None:
        raise TypeError(
            f"{name} is a {kind.__module__}.{kind.__qualname__}; pairx takes arrays of "
            f"{', '.join(sorted({e.value.split(':')[0].rpartition('.')[2] for e in entry_points().values()}))}, lists and tuples. "
            "A library of your own registers under the entry points 'pairx.backends'."
        )
    setattr(_FOUND, root, load(root))
    _KEYS[kind] = root
    return root


def find(**arrays: Any) -> Backend:
    """The one backend of all the named arguments that are not None.

    Raises
    ------
    TypeError
        If the arguments come from two libraries; both are named.
    """
    first: tuple[str, Backend] | None = None
    for name, value in arrays.items():
        if value is None:
            continue
        backend = of_type(type(value), name)
        if first is None:
            first = (name, backend)
        elif backend is not first[1]:
            raise TypeError(
                f"{first[0]} is an array of {first[1].name} and {name} one of {backend.name}: pairx does not convert between "
                f"libraries; bring both to one of them."
            )
    assert first is not None
    return first[1]


def present(root: str) -> bool:
    """Whether a library can be imported, without importing it; a mere folder of its name (a namespace package) does not count."""
    if root in sys.modules:
        return True
    spec = find_spec(root)
    return spec is not None and spec.origin is not None


def by_name(name: str) -> Backend:
    """The backend that users call ``name``.

    Raises
    ------
    ValueError
        If nothing is registered under that name.
    ImportError
        If its library is not installed.
    """
    key = {"strict": "array_api_strict"}.get(name, name)
    if key not in entry_points():
        raise ValueError(f"backend={name!r} is unknown; registered: {', '.join(sorted(set(entry_points()) - {'jaxlib'}))}.")
    if not present(key):
        raise ImportError(f"The backend {name} needs {key}: {advice(key)}", name=key)
    return load(key)


def backends() -> dict[str, dict[str, Any]]:
    """The registered backends: which are installed, and which extra brings those that are missing.

    No array library is imported.

    Returns
    -------
    dict
        For each backend's name: ``installed`` (bool), ``version`` (str or None), ``install`` (the command that brings it)
        and ``module`` (where its record stands).

    Examples
    --------
    >>> import pairx
    >>> pairx.backends()["numpy"]["installed"]
    True
    """
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    found = {}
    distributions = packages_distributions()
    for root, ep in sorted(entry_points().items()):
        if root == "jaxlib":  # the second name of the one JAX backend
            continue
        installed = present(root)
        try:
            release = version(distributions.get(root, [root])[0]) if installed else None
        except PackageNotFoundError:
            release = None
        found[root] = {"installed": installed, "version": release, "install": advice(root), "module": ep.value}
    return found
