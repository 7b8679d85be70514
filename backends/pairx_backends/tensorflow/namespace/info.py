"""What the namespace says about itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import dtypes as dt
from .dtypes import DType

STANDARD = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "complex64", "complex128",
)  # fmt: skip


class Info:
    """The standard's inspection interface."""

    def capabilities(self) -> dict[str, Any]:
        """What the arrays can do: a raw tensor takes no mask inside a tuple of indices."""
        return {"boolean indexing": False, "data-dependent shapes": True, "max dimensions": 8}

    def default_device(self) -> str:
        """Where TensorFlow puts a new tensor."""
        return next((d for d in self.devices() if "GPU" in d), self.devices()[0])

    def devices(self) -> list[str]:
        """The devices there are, by the names that tensors give."""
        return [f"/job:localhost/replica:0/task:0{d.name}" for d in tf.config.list_logical_devices()]

    def default_dtypes(self, *, device: str | None = None) -> dict[str, DType]:
        """TensorFlow's own defaults."""
        return {
            "real floating": dt.default_float,
            "complex floating": dt.default_complex,
            "integral": dt.default_int,
            "indexing": dt.index_dtype,
        }

    def dtypes(self, *, device: str | None = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes, of some kinds or all."""
        named = {name: getattr(dt, name) for name in STANDARD}
        return named if kind is None else {n: d for n, d in named.items() if dt.isdtype(d, kind)}


def __array_namespace_info__() -> Info:
    """The inspection interface."""
    return Info()
