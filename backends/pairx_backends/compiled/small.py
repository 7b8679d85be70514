"""Small calls: rows prepared, packed and compared by one function, for arrays given as Python's objects."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .definition import Definition, slots
from .emit import Code, module
from .kernels import PACK, forwarding, packing

if TYPE_CHECKING:
    from .kernel import Kernel
    from .prepare import Preparation

Array = Any
HEAD: int = object.__basicsize__
"""Bytes of the head of a Python object."""


def small(definition: Definition, preparation: Preparation | None = None) -> str:
    """The rows prepared, ``pack`` and ``forward`` in one call, for arrays given as Python's objects.

    To ask an array for its address takes longer than a small call; but the address stands right behind the object's head.
    ``%p`` has the arguments of ``pack`` for each panel, then those of ``prepare`` for x and for y.
    """
    recipe, size = definition.recipe, len(PACK.names)
    parts = [packing(recipe.scalar, definition.tile[1] * recipe.lanes), forwarding(definition)]
    code, names = Code("i64", 1), slots(recipe)
    x, y, prepared = [("%a", names.index["x0"])], [("%p", PACK.index["y"])], []
    if preparation is not None:
        parts.append(preparation.function())
        first = recipe.panels * size
        prepared = [first, first + len(preparation.slots.names)]
        own = [("%p", start + preparation.slots.index["x"]) for start in prepared]
        x, y = ([*(places if preparation.same else []), place] for places, place in zip((x, y), own, strict=True))
    for owner, places in (("%x", x), ("%y", y), ("%out", [("%a", names.index["out"])])):
        address = code.load(code.at(owner, str(HEAD), "i8"), "i64")
        for slot, index in places:
            code.store(address, "i64", code.at(slot, str(index), "i64"))
    for start in prepared:
        code.put(f"call i64 @prepare(ptr {code.at('%p', str(start), 'i64')})")
    for p in range(recipe.panels):
        code.put(f"call i64 @pack(ptr {code.at('%p', str(p * size), 'i64')})")
    code.do(f"ret i64 {code.put('call i64 @forward(ptr %a)')}")
    functions = [function for _, function in parts]
    return module([c for c, _ in parts], [*functions, code.function("small", "ptr %p, ptr %a, ptr %x, ptr %y, ptr %out", "i64")])


def quick(kernel: Kernel, x: Array, y: Array, out: Array) -> Callable[[Array, Array], Array] | None:
    """A function for more arrays with the same shapes, strides and dtypes, or None; ``out`` shows the result's."""
    if ctypes.c_size_t.from_address(id(x) + HEAD).value != x.ctypes.data:
        return None  # another Python, whose objects look otherwise
    if kernel.special is not None and kernel.special.alone:  # its rows are prepared in float64; here all is
        wide, most = np.dtype("float64"), kernel.wide.quick(x.astype(np.float64), y.astype(np.float64), out.astype(np.float64))
        return None if most is None else lambda x, y: most(x.astype(wide), y.astype(wide)).astype(x.dtype)
    booleans = x.dtype != kernel.dtype
    left, right = (a.astype(kernel.dtype) if booleans else a for a in (x, y))
    size, prepared = kernel.dtype.itemsize, kernel.preparation if kernel.prepared else None
    if any(a.strides[1] != size or a.strides[0] % size for a in (left, right)[: 2 if prepared else 1]):
        return None
    (m, d), n, panels = left.shape, right.shape[0], kernel.definition.recipe.panels
    same, held = prepared is None or prepared.same, [np.ones(d, kernel.dtype), np.array([d], kernel.dtype)]

    def room(*shape: int) -> Array:
        held.append(np.zeros(shape, kernel.dtype))
        return held[-1]

    values = {"m": m, "n": n, "d": d, "stride": n, "w": held[0].ctypes.data, "count": held[1].ctypes.data}
    values |= {name: value.ctypes.data for name, value in kernel.free.items()}
    packs = []
    sides = [{"m": rows, "d": d, "stride": a.strides[0] // size} for rows, a in ((m, left), (n, right))]
    for p in range(panels):
        mine, theirs = (None, None) if same else (room(m, d), room(n, d))
        packed = room(-(-n // kernel.width), d, kernel.width)
        pack = {"n": n, "d": d, "out": packed.ctypes.data}
        if mine is None or theirs is None:  # the rows as they are, whose addresses come with each call
            values |= {f"xs{p}": left.strides[0] // size}
            pack |= {"row": right.strides[0] // size, "feature": right.strides[1] // size}
        else:
            values |= {f"x{p}": mine.ctypes.data, f"xs{p}": d}
            pack |= {"y": theirs.ctypes.data, "row": d, "feature": 1}
            for side, panel in zip(sides, (mine, theirs), strict=True):
                side[f"panel{p}"] = panel.ctypes.data
        values[f"y{p}"] = packed.ctypes.data
        packs.append(PACK.array(pack))
    for p in range(kernel.definition.recipe.x_stats):
        for name, side, rows in (("sx", sides[0], m), ("sy", sides[1], n + kernel.width)):  # of y whole vectors are read
            side[f"stat{p}"] = values[f"{name}{p}"] = room(rows).ctypes.data
    first = np.concatenate([*packs, *([prepared.slots.array(side) for side in sides] if prepared else [])])
    a = kernel.slots.array(values)
    held += [first, a]
    run: Any = kernel.function("small")
    before, slots, empty, shape, dtype = first.ctypes.data, a.ctypes.data, np.empty, (m, n), kernel.dtype
    repair = kernel.values if kernel.repairs else None

    def call(x: Array, y: Array, held: Any = held) -> Array:
        out = empty(shape, dtype)
        if run(before, slots, id(x), id(y), id(out)) and repair is not None:
            repair(x, y, None, out)
        return out

    if booleans:
        return lambda x, y: call(x.astype(dtype), y.astype(dtype))
    return call
