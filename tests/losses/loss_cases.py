"""What a loss is called with, by the word in its row of the table; and the references, by its name.

A new loss adds a reference (``REFERENCES`` in a file ``reference_<family>.py``) and, where no word fits, a kind of input here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pairx.losses import LOSSES

Reference = Callable[..., tuple[np.ndarray, np.ndarray]]
"""``reference(**arrays, **given, **variant)`` in float64 with NumPy alone, in the plainest words: (values, active) of the units,
or a third: the divisor of the mean where it is not the number of active units, as a number, or as an array of what each unit
adds to it (its pairs)."""


@dataclass(frozen=True)
class Case:
    """Arguments of a call: arrays with gradients, by name, and the rest (labels, pairs, ...)."""

    arrays: dict[str, np.ndarray]
    given: dict[str, Any] = field(default_factory=dict)


INPUTS: dict[str, Callable[[np.random.Generator], Case]] = {}
EDGES: dict[str, dict[str, Callable[[], Case]]] = {}
"""Kind of input -> edge -> case. The names of the edges are those of ``LABEL_EDGES`` where they make sense."""


def inputs(word: str) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        INPUTS[word] = make
        return make

    return register


def _rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@inputs("labels")
def labels(rng: np.random.Generator) -> Case:
    """Embeddings and a label for each; one label stands alone."""
    return Case({"x": rng.normal(size=(13, 4))}, {"labels": np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 4, 3, 3, 2])})


def _label_edges() -> dict[str, Callable[[], Case]]:
    many = np.array([0, 0, 1, 1, 2, 2])
    doubled = np.repeat(_rows(5, 3, 4), 2, axis=0)[[0, 2, 1, 3, 4, 5]]  # equal rows in different classes
    return {
        "no positives": lambda: Case({"x": _rows(1, 6, 4)}, {"labels": np.arange(6)}),
        "one class": lambda: Case({"x": _rows(2, 6, 4)}, {"labels": np.zeros(6, int)}),
        "one row": lambda: Case({"x": _rows(3, 1, 4)}, {"labels": np.zeros(1, int)}),
        "no rows": lambda: Case({"x": np.zeros((0, 4))}, {"labels": np.zeros(0, int)}),
        "equal rows": lambda: Case({"x": np.ones((6, 4))}, {"labels": many}),
        "zero vectors": lambda: Case({"x": np.zeros((6, 4))}, {"labels": many}),
        "one zero vector": lambda: Case({"x": np.concatenate([np.zeros((1, 4)), _rows(4, 5, 4)])}, {"labels": many}),
        "duplicates across classes": lambda: Case({"x": doubled}, {"labels": many}),
        "tiny": lambda: Case({"x": _rows(6, 6, 4) * 1e-30}, {"labels": many}),
        "huge": lambda: Case({"x": _rows(7, 6, 4) * 1e30}, {"labels": many}),
    }


EDGES["labels"] = _label_edges()


REFERENCES: dict[str, Reference] = {}
VARIANTS: dict[str, list[dict[str, Any]]] = {}
"""Hyper-parameters that a loss is tried with; the first is its defaults."""
CONSTANTS: dict[str, Callable[[Case], dict[str, Any]]] = {}
"""Loss -> what its gradient takes as constant, as further arguments of the reference: for weights that are detached on purpose."""
RENAMED: dict[str, Any] = {}

for path in sorted(Path(__file__).parent.glob("reference_*.py")):
    module = importlib.import_module(path.stem)
    REFERENCES.update(module.REFERENCES)
    VARIANTS.update(getattr(module, "VARIANTS", {}))
    CONSTANTS.update(getattr(module, "CONSTANTS", {}))
    INPUTS.update(getattr(module, "INPUTS", {}))
    EDGES.update(getattr(module, "EDGES", {}))


def variants(name: str) -> list[dict[str, Any]]:
    return VARIANTS.get(name, [{}])


def case(name: str, seed: int = 0) -> Case:
    return INPUTS[LOSSES[name].inputs](np.random.default_rng(seed))


def expected(name: str, case: Case, variant: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of the units, which are active, and what the mean divides by."""
    values, active, mass = masses(name, case, variant)
    return values, active, float(np.sum(mass[active]) if np.ndim(mass) else mass)


def masses(name: str, case: Case, variant: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, Any]:
    """As ``expected``; what the mean divides by for each unit, where the reference says it so."""
    with np.errstate(all="ignore"):
        found = REFERENCES[name](**{k: np.asarray(v, float) for k, v in case.arrays.items()}, **{**case.given, **variant})
    values, active, *divisor = found
    values, active = np.asarray(values, float), np.asarray(active, bool)
    return values, active, divisor[0] if divisor else np.ones(values.shape)


SHARP = {"temperature": 1e-3, "scale": 1e3}
"""Parameters that divide or multiply similarities, and how far the edges turn them."""


def edges(name: str) -> dict[str, Callable[[], Case]]:
    """The edges of a loss: those of its kind of input, and some of them at a temperature of 1e-3 (a scale of 1000)."""
    found = dict(EDGES.get(LOSSES[name].inputs, {}))
    sharp = {k: v for k, v in SHARP.items() if k in inspect.signature(LOSSES[name].function).parameters}
    if sharp:
        plain = {"": lambda: case(name), **{f", {k}": found[k] for k in ("equal rows", "one zero vector", "opposite views") if k in found}}
        for word, make in plain.items():
            found[f"temperature 1e-3{word}"] = lambda make=make: Case(make().arrays, {**make().given, **sharp})
    return found


MAGNITUDES = ("1e-30", "1e30", "a row of 1e25", "an array of 1e17")
"""Vectors far from 1. The last two where products are compared: elsewhere a difference of such distances has no digits left."""


def magnitudes(name: str) -> tuple[str, ...]:
    if LOSSES[name].inputs in ("distributions", "class probabilities", "class indices", "binary"):
        return ()
    return MAGNITUDES


def multiplies(name: str, variant: dict[str, Any]) -> bool:
    """Whether a loss compares products of its vectors as they are."""
    return variant.get("similarity") == "dot" or name in ("n_pair", "linear_cross_entropy")


def sized(name: str, magnitude: str) -> Case:
    """The usual case of a loss at one of ``MAGNITUDES``."""
    given = case(name)
    arrays = {k: v.copy() for k, v in given.arrays.items()}
    first = arrays[next(iter(arrays))]
    part, size = {"a row of 1e25": (first[:1], 1e25), "an array of 1e17": (first, 1e17)}.get(magnitude, (None, 0.0))
    if part is not None:
        part *= size
        return Case(arrays, given.given)
    return Case({k: v * float(magnitude) for k, v in arrays.items()}, given.given)
